"""Run a command so that a stop of its scope is a fact: every process of its tree is gone, and that was checked.

The command runs in a session of its own; this process becomes the reaper of its orphans (PR_SET_CHILD_SUBREAPER), so a
daemon that forks twice still hangs below it, and where a version 2 control group can be made, the tree runs in one
and is killed by `cgroup.kill` as well. Meant for a process whose only child is the command (`argus run`): children
that it had before are left alone, later ones count as the command's.

Watching costs one poll of the mapped word each 5 ms (`POLL_S`); stopping is SIGTERM, a grace, then SIGKILL through
pidfds, the tree walked again until two walks in a row find nobody.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Literal

import msgspec

from argus.errors import RefusedError, UsageError
from argus.guard import HARD_KILL, WRITE_LOCKDOWN, Guard, Halt, WhenSilent
from argus.killswitch.process import Process, descendants, protected_pids, read_process, send_signal
from argus.schema import Scope, ScopeKind

POLL_S = 0.005
GRACE_S = 0.5
GRACE_S_MAX = 3.0
KILL_DEADLINE_S = 10.0
WALK_PAUSE_S = 0.002
PAUSE_WALK_S = 0.05
FLAG_WAIT_S = 0.1  # between the word and its flag: whether a lockdown is a person's stands in the flag
KILLED_EXIT = 137
PARTIAL_EXIT = 138
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_JOIN_GROUP = 'echo $$ > "$1"; shift; exec "$@"'
_log = logging.getLogger("argus.supervise")

StopState = Literal["", "verified_stopped", "partially_stopped", "failed"]


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command.

    `exit_code` what `argus run` ends with: the command's own (128 + n for a signal), 137 when it was stopped, 138 when
    somebody is left · `status` the command's return code as `subprocess` tells, None = never reaped · `stop` "" = it
    was not stopped · `left` who still runs · `cause` the stop's text · `signalled` processes signalled · `stragglers`
    processes that outlived the command and were ended · `flag_seen_ns` CLOCK_MONOTONIC; `first_signal_ns`,
    `all_gone_ns` nanoseconds after it · `cgroup` whether a control group held the tree · `pauses` how often it was
    paused.
    """

    exit_code: int
    status: int | None
    stop: StopState = ""
    left: list[str] = []
    cause: str = ""
    cause_kind: str = ""
    cause_scope: str = ""
    signalled: int = 0
    stragglers: int = 0
    pauses: int = 0
    flag_seen_ns: int = 0
    first_signal_ns: int = 0
    all_gone_ns: int = 0
    cgroup: bool = False


def run(
    command: Sequence[str],
    *,
    control: str | os.PathLike[str] = "control",
    scope: Scope | str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pause: bool = False,
    grace_s: float = GRACE_S,
    when_silent: WhenSilent = "open",
    silent_after_s: float = 5.0,
    stragglers: Literal["end", "leave"] = "end",
    use_cgroup: bool = True,
    on_start: Callable[[int], None] | None = None,
    on_kill: Callable[[Halt], None] | None = None,
) -> RunResult:
    """Run `command` to its end, or to the first hard kill of its scope or of a wider one.

    Parameters
    ----------
    command : program and arguments
    control : control directory; it need not exist yet
    scope : whom the command works for, a Scope or "session:ID"; exported as ARGUS_SESSION and the like
    env : environment, default this process's; ARGUS_CONTROL and the scope are added where they are not set
    pause : stop the tree (SIGSTOP) on every lockdown; without it only on one that a person set, or of unknown origin
    grace_s : seconds between SIGTERM and SIGKILL, 0 to 3
    when_silent : what a silent auditor means for the command: `open`, `closed` (paused, with `pause`) or `kill`
    silent_after_s : seconds without a heartbeat of the auditor that count as silence
    stragglers : what happens to processes that outlive the command: `end` them as a stop would, or `leave` them
    on_start : called with the command's pid · on_kill : called with the cause once SIGTERM has gone out

    Raises
    ------
    RefusedError : the scope is stopped already; nothing was started
    UsageError : no such program, or a parameter out of bounds
    """
    if not command:
        raise UsageError("run: expected a command, found none; nothing started")
    if not 0 <= grace_s <= GRACE_S_MAX:
        raise UsageError(f"run: grace_s: expected 0 to {GRACE_S_MAX:g}, found {grace_s!r}; nothing started")
    scopes = _scope_names(scope)
    environment = dict(os.environ if env is None else env)
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise UsageError(f"run: {command[0]!r}: no such program in PATH; nothing started")
    environment.setdefault("ARGUS_CONTROL", str(Path(control).absolute()))
    for kind, name in scopes.items():
        environment.setdefault(f"ARGUS_{kind.upper()}", name)
    with Guard(control, scopes, when_silent=when_silent, silent_after_s=silent_after_s) as guard:
        halt = guard.state()
        if halt is not None and halt.reason_code != "auditor_silent":
            raise RefusedError(f"run: {halt}; nothing started. A person must reset it first")
        with _reaper(), _control_group(use_cgroup) as group:
            before = frozenset((p.pid, p.start_time) for p in descendants(os.getpid()))
            join = [] if group is None else ["/bin/sh", "-c", _JOIN_GROUP, "sh", f"{group}/cgroup.procs"]
            child = subprocess.Popen([*join, *command], env=environment, cwd=cwd, start_new_session=True)
            supervision = _Supervision(child, guard, before, group, pause=pause, grace_s=grace_s)
            with _forwarding(child):
                try:
                    if on_start is not None:
                        on_start(child.pid)
                    return supervision.watch(on_kill, end_stragglers=stragglers == "end")
                except BaseException:
                    supervision.stop()
                    raise


class _Supervision:
    """One command's tree, from its start to the proof that it is gone."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        guard: Guard,
        before: frozenset[tuple[int, int]],
        group: Path | None,
        *,
        pause: bool,
        grace_s: float,
    ) -> None:
        self._child = child
        self._guard = guard
        self._before = before
        self._group = group
        self._pause = pause
        self._grace_s = grace_s
        self._protected = protected_pids()
        self._signalled: set[tuple[int, int]] = set()
        self._refused: set[tuple[int, int]] = set()
        self._paused: dict[tuple[int, int], Process] = {}
        self._pauses = 0
        self._lockdown_since = 0.0
        self._walk_at = 0.0
        self._first_signal = 0

    def watch(self, on_kill: Callable[[Halt], None] | None, *, end_stragglers: bool) -> RunResult:
        poller = select.poll()
        pidfd = os.pidfd_open(self._child.pid)
        try:
            poller.register(pidfd, select.POLLIN)
            while self._child.poll() is None:
                halt = self._guard.state()
                if halt is not None and halt.kind == HARD_KILL:
                    return self._kill(halt, on_kill)
                self._pause_or_resume(halt)
                poller.poll(POLL_S * 1000)
        finally:
            os.close(pidfd)
        left = self._members()
        if left and end_stragglers:
            _log.warning("run: the command ended, %d of its processes had not; they are being ended", len(left))
            self.stop()
        status = self._child.returncode
        return RunResult(
            exit_code=status if status >= 0 else 128 - status, status=status, pauses=self._pauses,
            stragglers=len(left), left=[str(p) for p in self._members()], signalled=len(self._signalled),
            cgroup=self._group is not None,
        )  # fmt: skip

    def _kill(self, halt: Halt, on_kill: Callable[[Halt], None] | None) -> RunResult:
        seen = time.monotonic_ns()
        self._first_signal = 0
        self._signal_all(signal.SIGTERM)
        if on_kill is not None:
            try:
                on_kill(halt)
            except Exception:  # a caller's fault must not keep the tree alive
                _log.exception("run: on_kill failed; the stop goes on")
        state, left = self.stop(terminated=True)
        gone = time.monotonic_ns()
        return RunResult(
            exit_code=KILLED_EXIT if state == "verified_stopped" else PARTIAL_EXIT, status=self._child.poll(),
            stop=state, left=[str(p) for p in left], cause=str(halt), cause_kind=halt.kind, cause_scope=halt.scope,
            signalled=len(self._signalled), pauses=self._pauses, flag_seen_ns=seen,
            first_signal_ns=max(0, self._first_signal - seen), all_gone_ns=gone - seen, cgroup=self._group is not None,
        )  # fmt: skip

    def stop(self, *, terminated: bool = False) -> tuple[StopState, list[Process]]:
        """SIGTERM, grace, SIGKILL until nobody is left; returns the state and who is left."""
        if not terminated:
            self._signal_all(signal.SIGTERM)
        self._signal_all(signal.SIGCONT)  # a paused process cannot end in order
        deadline = time.monotonic() + self._grace_s
        while self._members() and time.monotonic() < deadline:
            time.sleep(WALK_PAUSE_S)
        return self._extinguish()

    def _extinguish(self) -> tuple[StopState, list[Process]]:
        deadline = time.monotonic() + KILL_DEADLINE_S
        empty = 0
        while True:
            members = self._members()
            if not members:
                empty += 1
                if empty == 2:  # a process that was being forked during one walk shows up in the next
                    return "verified_stopped", []
                continue
            empty = 0
            if time.monotonic() > deadline:
                stopped = self._signalled and not all((p.pid, p.start_time) in self._signalled for p in members)
                return ("partially_stopped" if stopped or len(members) < len(self._signalled) else "failed"), members
            if self._group is not None:
                with suppress(OSError):
                    (self._group / "cgroup.kill").write_text("1", encoding="ascii")
            self._signal(members, signal.SIGKILL)
            time.sleep(WALK_PAUSE_S)

    def _pause_or_resume(self, halt: Halt | None) -> None:
        if halt is None or halt.kind != WRITE_LOCKDOWN or not self._should_pause(halt):
            if halt is None:
                self._lockdown_since = 0.0
            for process in self._paused.values():
                with suppress(PermissionError):
                    send_signal(process, signal.SIGCONT, self._protected)
            self._paused.clear()
            self._walk_at = 0.0
            return
        if time.monotonic() < self._walk_at:
            return
        if not self._paused:
            self._pauses += 1
        fresh = [p for p in self._members() if (p.pid, p.start_time) not in self._paused]
        for process in fresh:
            with suppress(PermissionError):
                send_signal(process, signal.SIGSTOP, self._protected)
                self._paused[process.pid, process.start_time] = process
        # At once again while somebody new was found: who was forked between walk and signal is stopped by the next one.
        self._walk_at = 0.0 if fresh else time.monotonic() + PAUSE_WALK_S

    def _should_pause(self, halt: Halt) -> bool:
        if halt.reason_code == "auditor_silent" or self._pause:
            return self._pause
        now = time.monotonic()
        self._lockdown_since = self._lockdown_since or now
        if halt.reason_code == "epoch_word" and now - self._lockdown_since < FLAG_WAIT_S:
            return False
        return halt.automatic is not True

    def _members(self) -> list[Process]:
        """Processes of the tree that still run; orphans that ended are reaped on the way."""
        self._child.poll()
        found = {}
        for process in descendants(os.getpid(), self._before):
            if process.alive:
                found[process.pid] = process
            elif process.parent == os.getpid() and process.pid != self._child.pid:
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        if self._group is not None:
            with suppress(OSError, ValueError):
                for text in (self._group / "cgroup.procs").read_text(encoding="ascii").split():
                    member = read_process(int(text))
                    if member is not None and member.alive:
                        found.setdefault(member.pid, member)
        return [p for p in found.values() if p.pid not in self._protected]

    def _signal_all(self, number: signal.Signals) -> None:
        self._signal(self._members(), number)

    def _signal(self, members: list[Process], number: signal.Signals) -> None:
        for process in members:
            identity = (process.pid, process.start_time)
            try:
                if send_signal(process, number, self._protected):
                    self._signalled.add(identity)
                    self._first_signal = self._first_signal or time.monotonic_ns()
            except PermissionError:
                if identity not in self._refused:
                    self._refused.add(identity)
                    _log.warning("run: %s: not permitted to signal it; it is left", process)


def _scope_names(scope: Scope | str | None) -> dict[str, str]:
    """Names by kind, of the scope and of those it lies in."""
    if scope is None:
        return {}
    if isinstance(scope, str):
        kind, _, name = scope.partition(":")
        if kind == "host":
            return {}
        if not name or kind not in set(ScopeKind):
            raise UsageError(f"run: scope: expected host or kind:id, found {scope!r}; nothing started")
        return {kind: name}
    names = {"tenant": scope.tenant, "agent": scope.agent, "session": scope.session, "task": scope.task}
    if scope.kind is not ScopeKind.HOST:
        names[str(scope.kind)] = scope.id
    return {kind: name for kind, name in names.items() if name}


@contextmanager
def _reaper() -> Iterator[None]:
    """Orphans below this process become its children instead of init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"run: prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(code)}; nothing started")
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


@contextmanager
def _control_group(wanted: bool) -> Iterator[Path | None]:
    """A version 2 control group of the run's own, below this process's; None where none can be made."""
    group = _make_group() if wanted else None
    try:
        yield group
    finally:
        if group is not None:
            for _ in range(50):  # the kernel lets go of the last process a moment after it is reaped
                try:
                    group.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)


def _make_group() -> Path | None:
    try:
        own = next(
            line[3:].strip() for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            if line.startswith("0::")
        )  # fmt: skip
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        mount = next(
            fields[4] for fields in map(str.split, mounts)
            if fields[fields.index("-") + 1] == "cgroup2"
        )  # fmt: skip
        group = Path(mount) / own.lstrip("/") / f"argus-{os.getpid()}-{secrets.token_hex(4)}"
        group.mkdir()
    except (OSError, StopIteration, ValueError):
        return None
    usable = all(os.access(group / name, os.W_OK) for name in ("cgroup.procs", "cgroup.kill"))
    if not usable:
        with suppress(OSError):
            group.rmdir()
        return None
    return group


@contextmanager
def _forwarding(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Signals that a terminal or a service manager sends to this process go to the command's session instead."""

    def forward(number: int, _: FrameType | None) -> None:
        if child.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
