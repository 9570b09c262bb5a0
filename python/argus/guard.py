"""The agents' side of the kill switch: ask before every action whether it may still be done.

Standard library only, and nothing else of Argus: the module may be copied beside an agent as it is.

    from argus import guard
    guard.attach()                   # once; $ARGUS_CONTROL, else ./control; scopes from $ARGUS_SESSION and the like
    guard.check()                    # before each tool or model call; raises HardKill or WriteLockdown
    with guard.guarded("write"):     # or as a decorator: @guard.guarded("write")
        path.write_text(text)

Actions: `act` (anything new), `write`, `read`, `save` (the declared save-work path).

| standing                | act, write      | read, save |
|-------------------------|-----------------|------------|
| clear                   | allowed         | allowed    |
| `write_lockdown`        | `WriteLockdown` | allowed    |
| auditor silent, closed  | `WriteLockdown` | allowed    |
| `hard_kill`             | `HardKill`      | `HardKill` |

Rules. The existence of a flag stops, whatever it holds. A stop that was seen lasts until the epoch moves on *and* the
flag is gone: deleting a flag frees nobody. A guard that never saw a heartbeat stays open and says so once; after one
was seen, silence (by default for more than 5 s, or a control directory that vanished) closes new actions and writes. A
control directory that exists but cannot be looked into closes them too. One answer is kept for one epoch, never longer.

Cost: one compare of a mapped 8-byte word. The second channel, should the mapping be stale, is a look at the heartbeat
and the flags' names within every 250 ms: by a daemon thread of the process's attachment, and by `check` itself, for the
price of a clock reading, wherever that thread is not seen to run: `attach(looker=False)`, a forked child until its next
look, green threads, a thread that failed. Figures: bench/python/bench_guard.py.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import inspect
import itertools
import json
import logging
import mmap
import os
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, cast, overload

__all__ = ["Guard", "Halt", "HardKill", "WriteLockdown", "attach", "check", "guarded", "scope_directory", "state"]

Action = Literal["act", "write", "read", "save"]
WhenSilent = Literal["open", "closed", "kill"]
P = ParamSpec("P")
R = TypeVar("R")

HARD_KILL = "hard_kill"
WRITE_LOCKDOWN = "write_lockdown"
HOST_KILL_BIT = 1
HOST_LOCKDOWN_BIT = 2
EPOCH_BYTES = 64
LOOK_INTERVAL_S = 0.25
LOOKER_INTERVAL_S = 0.2  # ahead of the clock's turn, so that a thread in time leaves `check` nothing to look at
FLAG_BYTES_MAX = 4096
_ACTIONS = ("act", "write", "read", "save")
_REFUSED_IN_LOCKDOWN = ("act", "write")
_SCOPE_KINDS = ("tenant", "agent", "session", "task")  # widest first; the host is always included
_NOT_MAPPED: tuple[int, int] = (0, 0)
_NEVER_EQUAL = -1  # no word is negative: the fast path cannot be taken

# CLOCK_MONOTONIC, as the heartbeat is. A float, because comparing two of them is the cheapest of the clock's forms.
_monotonic = time.monotonic
_log = logging.getLogger("argus.guard")


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a guard refuses: the widest stop that covers it.

    `kind` is `hard_kill` or `write_lockdown`; `scope` is `host` or `kind:id`; `automatic` is None where the flag does
    not say; `path` is "" where no file stands behind it (the auditor is silent, or the flag is not written yet).
    """

    kind: str
    scope: str
    reason: str
    reason_code: str
    epoch: int
    path: str = ""
    automatic: bool | None = None
    incident: str = ""

    def __str__(self) -> str:
        return f"{self.kind} on {self.scope}: {self.reason} [{self.reason_code}]"


class HardKill(BaseException):
    """Everything stops. Not an `Exception`: an agent's `except Exception` must not swallow its own kill."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(str(halt))
        self.halt = halt


class WriteLockdown(Exception):
    """New actions and writes are refused; reading and saving work stay open.

    An `Exception`, so that an agent can catch it and save its work: swallowing it gains nothing, for the action was not
    done and the next `check` refuses again.
    """

    def __init__(self, halt: Halt) -> None:
        super().__init__(str(halt))
        self.halt = halt


def scope_directory(kind: str, identity: str) -> str:
    """Name of a narrower scope's directory under `control/scopes/`: `<kind>-<sha256(id)[:32]>`."""
    return f"{kind}-{hashlib.sha256(identity.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def boot_id() -> str:
    """Identity of this boot, or "" where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_time_ns(pid: int, proc: str = "/proc") -> int | None:
    """Start of a process in ns since boot (`/proc/<pid>/stat`, field 22, in clock ticks); None = no such process."""
    try:
        raw = Path(proc, str(pid), "stat").read_bytes()
        # The name may hold blanks and brackets: fields count from the last one that closes it.
        ticks = int(raw[raw.rindex(b")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _scopes(given: Iterable[str] | Mapping[str, str] | None) -> list[tuple[str, str]]:
    """Pairs (kind, id), widest first, from the argument or from ARGUS_TENANT, _AGENT, _SESSION, _TASK."""
    if given is None:
        given = {kind: os.environ.get(f"ARGUS_{kind.upper()}", "") for kind in _SCOPE_KINDS}
    if isinstance(given, str):
        given = (given,)
    pairs = list(given.items()) if isinstance(given, Mapping) else [tuple(text.partition(":")[::2]) for text in given]
    found: list[tuple[str, str]] = []
    for kind, identity in pairs:
        if kind == "host" or not identity:
            if kind != "host" and not isinstance(given, Mapping):
                raise ValueError(f"guard.attach: scopes: expected 'kind:id', found {kind!r}; not attached")
            continue
        if kind not in _SCOPE_KINDS:
            raise ValueError(f"guard.attach: scopes: expected one of {_SCOPE_KINDS}, found {kind!r}; not attached")
        found.append((kind, identity))
    return sorted(found, key=lambda pair: _SCOPE_KINDS.index(pair[0]))


_numbers = itertools.count(1)
_guards: weakref.WeakSet[Guard] = weakref.WeakSet()
_hooks_lock = threading.Lock()
_hooked = False


def _after_fork() -> None:
    global _swap
    _swap = threading.RLock()  # another thread may have held it at the fork
    for each in list(_guards):
        each._forked()


def _at_exit() -> None:
    for each in list(_guards):
        each._stop_looker()
        each._withdraw()


def _hook() -> None:
    """Child processes announce themselves anew, and a process that ends in order takes its announcements with it."""
    global _hooked
    with _hooks_lock:
        if not _hooked:
            os.register_at_fork(after_in_child=_after_fork)
            atexit.register(_at_exit)
            _hooked = True


class Guard:
    """One attachment to a control directory. Threads may share it; after a fork the child's copy announces itself.

    Parameters
    ----------
    control : directory, default $ARGUS_CONTROL, else "control"; it need not exist yet
    scopes : what this process works for beside the host: `["session:abc"]` or `{"session": "abc"}`;
        default from $ARGUS_TENANT, $ARGUS_AGENT, $ARGUS_SESSION, $ARGUS_TASK
    announce : write `guards/<pid>-<n>.json`, so that a stop of these scopes has a known reader
    when_silent : what silence means once a heartbeat was seen: `open`, `closed` (no new actions, no writes) or `kill`
    silent_after_s : seconds without a heartbeat that count as silence
    looker : look from a daemon thread while this is the process's attachment (`attach`), so that the module's `check`
        needs no clock; False = no thread is started
    """

    __slots__ = (
        "__weakref__", "_ack", "_announce", "_blind", "_clear", "_control", "_end_looking", "_flags", "_halt",
        "_heard", "_identity", "_latched", "_lock", "_look_at", "_looking", "_map", "_number", "_said",
        "_seen_directory", "_silent_after_s", "_since", "_view", "_wants_looker", "_when_silent", "_word", "scopes",
    )  # fmt: skip

    def __init__(
        self,
        control: str | os.PathLike[str] | None = None,
        scopes: Iterable[str] | Mapping[str, str] | None = None,
        *,
        announce: bool = True,
        when_silent: WhenSilent = "closed",
        silent_after_s: float = 5.0,
        looker: bool = True,
    ) -> None:
        if when_silent not in ("open", "closed", "kill"):
            raise ValueError(f"guard.attach: when_silent: expected open, closed or kill, found {when_silent!r}")
        if not silent_after_s > 0:
            raise ValueError(f"guard.attach: silent_after_s: expected more than 0, found {silent_after_s!r}")
        pairs = _scopes(scopes)
        # Absolute now, for the agent may change its directory later.
        directory = control if control is not None else os.environ.get("ARGUS_CONTROL") or "control"
        self._control = Path(directory).absolute()
        self.scopes = tuple(f"{kind}:{identity}" for kind, identity in pairs)
        places = [("host", self._control)]
        places += [(f"{kind}:{name}", self._control / "scopes" / scope_directory(kind, name)) for kind, name in pairs]
        kinds = (HARD_KILL, WRITE_LOCKDOWN)
        self._flags = tuple((kind, scope, str(place / f"{kind}.flag")) for kind in kinds for scope, place in places)
        self._announce = announce
        self._when_silent = when_silent
        self._silent_after_s = float(silent_after_s)
        self._number = next(_numbers)
        self._since = time.time_ns()
        self._lock = threading.RLock()
        self._map: mmap.mmap | None = None
        self._identity: tuple[int, int] | None = None
        self._view: Sequence[int] = _NOT_MAPPED
        self._word = _NEVER_EQUAL  # the word the present answer was found under
        self._clear = _NEVER_EQUAL  # the same while nothing is refused
        self._look_at = 0.0
        self._halt: Halt | None = None
        self._latched: Halt | None = None
        self._heard = False
        self._seen_directory = False
        self._blind = ""
        self._said: set[str] = set()
        self._wants_looker = looker
        self._end_looking: threading.Event | None = None  # None = no thread was started in this process
        self._looking = False  # that thread is seen to run
        self._ack: tuple[int, int, str] | None = None  # pid, epoch, kind that the announcement on disk tells
        _hook()
        _guards.add(self)
        self.state()

    def check(self, action: Action = "act") -> None:
        """Return if `action` may be done now.

        Raises
        ------
        HardKill : a hard kill covers this process (any action)
        WriteLockdown : a lockdown, or a silent auditor, and the action is `act` or `write`
        ValueError : no such action
        """
        if self._view[0] == self._clear and _monotonic() < self._look_at:
            return
        self._judge(action)

    def state(self) -> Halt | None:
        """What covers this process now, without raising; None = clear."""
        if self._view[0] == self._clear and _monotonic() < self._look_at:
            return None
        with self._lock:
            now = _monotonic()
            if self._view[0] != self._word or now >= self._look_at:
                self._look(now)
            return self._halt

    def guarded(self, action: Action = "act") -> _Guarded:
        """`argus.guard.guarded` bound to this guard."""
        return guarded(action, guard=self)

    def close(self) -> None:
        """Withdraw the announcement and release the mapping."""
        with self._lock:
            self._stop_looker()
            self._withdraw()
            self._announce = False
            self._unmap()
        _guards.discard(self)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge(self, action: Action) -> None:
        if action not in _ACTIONS:
            raise ValueError(f"guard.check: action: expected one of {_ACTIONS}, found {action!r}; refused")
        halt = self.state()
        if halt is None:
            return
        if halt.kind == HARD_KILL:
            raise HardKill(halt)
        if action in _REFUSED_IN_LOCKDOWN:
            raise WriteLockdown(halt)

    def _look(self, now: float) -> None:
        """The slow look: mapping, flags, heartbeat, announcement. The word is read before the flags: a scoped trip
        links its flag first and bumps the epoch after it, so a flag missed here changes the word and is looked for
        again.
        """
        self._blind = ""
        present = self._remap()
        word, beat = self._view[0], self._view[1]
        epoch = word >> 8
        halt = self._latch(self._stopped(word), epoch)
        self._latched = halt
        age_s = now - beat / 1e9
        fresh = beat != 0 and -LOOK_INTERVAL_S <= age_s <= self._silent_after_s
        self._heard = self._heard or (fresh and present)
        if halt is None:
            halt = self._silence(present=present, fresh=fresh, age_s=age_s, beat=beat, epoch=epoch)
        self._halt = halt
        self._word = word
        self._look_at = now + LOOK_INTERVAL_S
        if fresh and present:
            self._look_at = min(self._look_at, beat / 1e9 + self._silent_after_s)
        self._clear = word if halt is None else _NEVER_EQUAL
        self._publish()
        if self._wants_looker and self._end_looking is None and _default is self:
            self._start_looker()
        if self._announce and present:
            self._tell(epoch, halt)

    def _remap(self) -> bool:
        """Map the word, or find that it is still the same file. True = the control directory is there."""
        path = self._control / "epoch"
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            present = os.path.lexists(self._control)
            self._seen_directory = self._seen_directory or present
            return present
        except OSError as error:
            self._blind = f"{path}: {error.strerror}"
            return True
        self._seen_directory = True
        if self._identity == (found.st_dev, found.st_ino):
            return True
        if not stat.S_ISREG(found.st_mode):
            self._blind = f"{path}: expected a regular file, found a special one"
        elif found.st_size == EPOCH_BYTES:
            self._open_word(path)
        elif found.st_size != 0:  # 0 = being created just now
            self._blind = f"{path}: expected {EPOCH_BYTES} bytes, found {found.st_size}"
        return True

    def _open_word(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                opened = os.fstat(fd)
                mapped = mmap.mmap(fd, EPOCH_BYTES, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            self._blind = f"{path}: cannot be mapped: {error}"
            return
        self._unmap()
        self._map = mapped
        self._view = memoryview(mapped).cast("Q")
        self._identity = (opened.st_dev, opened.st_ino)

    def _unmap(self) -> None:
        # Another thread may be reading through the old view: it keeps its mapping alive, nothing is closed under it.
        self._word = self._clear = _NEVER_EQUAL
        self._view, self._map, self._identity = _NOT_MAPPED, None, None
        self._publish()

    def _publish(self) -> None:
        """Hand the fast path's values to the module's `check`, which reads globals: the cheapest look-up there is. The
        answers are withdrawn first and given last, so that no thread pairs an old answer with a new view."""
        global _view, _look_at, _clear, _watched
        with _swap:
            if _default is self:
                _watched = _clear = _NEVER_EQUAL
                _view, _look_at = self._view, self._look_at
                _clear = self._clear
                _watched = self._clear if self._looking else _NEVER_EQUAL

    def _start_looker(self) -> None:
        """Once a process, with the lock held."""
        self._end_looking = end = threading.Event()
        thread = threading.Thread(
            target=self._keep_looking, args=(end, threading.get_native_id()), name="argus-guard", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._say("looker", f"no thread to look from ({error}); check() looks by itself")

    def _keep_looking(self, end: threading.Event, starter: int) -> None:
        # A green thread shares its starter's native one and runs when that yields: nothing to rely on.
        if threading.get_native_id() == starter:
            return
        try:
            while not end.is_set():
                with self._lock:
                    # Withdrawn meanwhile: a look that hangs, as on a dead network mount, leaves `check` its clock.
                    self._looking = False
                    self._publish()
                    self._looking = not end.is_set()
                    self._look(_monotonic())
                end.wait(LOOKER_INTERVAL_S)
        finally:
            with self._lock:
                if self._end_looking is end:
                    self._looking = False
                    self._publish()

    def _stop_looker(self) -> None:
        self._wants_looker = self._looking = False
        if self._end_looking is not None:
            self._end_looking.set()
        self._publish()

    def _stopped(self, word: int) -> Halt | None:
        """The first stop found: kills before lockdowns, the host before narrower scopes."""
        bits = {HARD_KILL: word & HOST_KILL_BIT, WRITE_LOCKDOWN: word & HOST_LOCKDOWN_BIT}
        for kind, scope, path in self._flags:
            try:
                os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                if scope == "host" and bits[kind]:
                    return Halt(kind, scope, "tripped; its flag is not written", "epoch_word", word >> 8)
            except OSError as error:
                self._blind = f"{path}: {error.strerror}"
            else:
                return _describe(kind, scope, path, word >> 8)
        return None

    def _latch(self, found: Halt | None, epoch: int) -> Halt | None:
        """Within one epoch a standing only grows: whoever deletes a flag frees nobody."""
        last = self._latched
        if last is None or epoch > last.epoch:
            return found
        if found is None or (found.kind == WRITE_LOCKDOWN and last.kind == HARD_KILL):
            return last
        return found

    def _silence(self, *, present: bool, fresh: bool, age_s: float, beat: int, epoch: int) -> Halt | None:
        """What the absence of a heartbeat means."""
        if fresh and present and not self._blind:
            self._said.discard("silent")
            return None
        if self._blind:
            why = f"cannot look ({self._blind}); let this user read the control directory"
        elif not present:
            why = f"{self._control}: no such directory" + (" any more" if self._seen_directory else "")
        elif beat == 0:
            why = f"{self._control}: no heartbeat yet"
        else:
            why = f"{self._control}: last heartbeat {max(age_s, 0.0):.1f} s ago"
        if not (self._heard or self._blind) or self._when_silent == "open":
            known = "as when_silent = open says" if self._heard or self._blind else "for no heartbeat was ever seen"
            self._say("unheard" if not self._heard else "silent", f"{why}; the guard stays open, {known}")
            return None
        kind = HARD_KILL if self._when_silent == "kill" else WRITE_LOCKDOWN
        self._say("silent", f"{why}; new actions and writes are refused until Argus is back")
        return Halt(kind, "host", f"the auditor is silent: {why}", "auditor_silent", epoch, automatic=True)

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _log.warning("argus.guard: %s", text)

    def _announcement(self) -> Path:
        return self._control / "guards" / f"{os.getpid()}-{self._number}.json"

    def _tell(self, epoch: int, halt: Halt | None) -> None:
        """Announce this guard and the epoch it has acted on. Never in the way of a stop: failures are said once."""
        wanted = (os.getpid(), epoch, halt.kind if halt else "clear")
        if self._ack == wanted:
            return
        path = self._announcement()
        if not os.path.isdir(path.parent):  # noqa: PTH112 (Path.is_dir raises where this user may not look)
            return
        content = {
            "v": 1, "pid": wanted[0], "start_time": start_time_ns(wanted[0]), "boot_id": boot_id(),
            "scopes": list(self.scopes), "since": self._since, "acknowledged_epoch": epoch, "standing": wanted[2],
        }  # fmt: skip
        temporary = path.with_name(f".{path.name}.{threading.get_ident():x}")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            with os.fdopen(fd, "w", encoding="utf-8") as out:
                json.dump(content, out)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._say("announce", f"{path}: {error.strerror}; not announced, so stops reach it by the host only")
            return
        self._ack = wanted

    def _withdraw(self) -> None:
        if self._ack is not None and self._ack[0] == os.getpid():
            with contextlib.suppress(OSError):
                self._announcement().unlink()
        self._ack = None

    def _forked(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it at the fork
        self._end_looking, self._looking = None, False  # the thread stayed with the parent
        self._ack = None
        self._since = time.time_ns()
        self._look_at = 0.0
        self._publish()


def _describe(kind: str, scope: str, path: str, epoch: int) -> Halt:
    """What a flag says. It stops whether or not it can be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError("not a regular file")
            content = json.loads(os.read(fd, FLAG_BYTES_MAX))
        finally:
            os.close(fd)
        if not isinstance(content, dict):
            raise ValueError("not an object")
        automatic = content.get("automatic")
        return Halt(
            kind, scope, str(content.get("reason", "")), str(content.get("reason_code", "")), epoch, path,
            automatic if isinstance(automatic, bool) else None, str(content.get("incident", "")),
        )  # fmt: skip
    except (OSError, ValueError, RecursionError) as error:
        reason = f"its flag cannot be read ({error}); it stops all the same"
        return Halt(kind, scope, reason, "unreadable_flag", epoch, path)


_swap = threading.RLock()  # over which guard is the process's, and what it published; a signal handler may ask too
_default: Guard | None = None
_view: Sequence[int] = _NOT_MAPPED
_watched = _NEVER_EQUAL  # the clear word while a thread looks after it
_clear = _NEVER_EQUAL  # the clear word until `_look_at`
_look_at = 0.0


def _attached() -> Guard:
    """The process's guard; the first question attaches with the defaults."""
    return _default if _default is not None else attach()


def attach(
    control: str | os.PathLike[str] | None = None,
    scopes: Iterable[str] | Mapping[str, str] | None = None,
    *,
    announce: bool = True,
    when_silent: WhenSilent = "closed",
    silent_after_s: float = 5.0,
    looker: bool = True,
) -> Guard:
    """Attach this process to a control directory; `check`, `state` and `guarded` then ask it. Parameters as `Guard`.

    Attaching again replaces the first attachment.
    """
    global _default
    new = Guard(
        control, scopes, announce=announce, when_silent=when_silent, silent_after_s=silent_after_s, looker=looker
    )
    with _swap:
        old, _default = _default, new
    with new._lock:
        new._look(_monotonic())
    if old is not None:
        old.close()
    return new


def detach() -> None:
    """Take the process's attachment back; the next `check` would attach with the defaults."""
    global _default, _clear, _watched
    with _swap:
        old, _default, _clear, _watched = _default, None, _NEVER_EQUAL, _NEVER_EQUAL
    if old is not None:
        old.close()


def check(action: Action = "act") -> None:
    """Return if `action` may be done now, else raise `HardKill` or `WriteLockdown`; see `Guard.check`."""
    if _view[0] == _watched or (_view[0] == _clear and _monotonic() < _look_at):
        return
    _attached()._judge(action)


def state() -> Halt | None:
    """What covers this process now, without raising; None = clear."""
    return _attached().state()


class _Guarded:
    """What `guarded` gives: a context manager, and a decorator of functions and coroutine functions."""

    __slots__ = ("_action", "_guard")

    def __init__(self, action: Action, guard: Guard | None) -> None:
        if action not in _ACTIONS:
            raise ValueError(f"guard.guarded: action: expected one of {_ACTIONS}, found {action!r}")
        self._action: Action = action
        self._guard = guard

    def __enter__(self) -> None:
        (self._guard.check if self._guard is not None else check)(self._action)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What ran meanwhile is done: a lockdown is for the next action, only a kill ends this one.
        if kind is None:
            (self._guard.check if self._guard is not None else check)("read")

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def waited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", waited)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return called


@overload
def guarded(action: Callable[P, R], *, guard: Guard | None = None) -> Callable[P, R]: ...
@overload
def guarded(action: Action = "act", *, guard: Guard | None = None) -> _Guarded: ...
def guarded(action: Any = "act", *, guard: Guard | None = None) -> Any:
    """Guard a block or a function: `with guarded("write"):`, `@guarded`, `@guarded("write")`.

    Asks on entry, and on a clean exit raises `HardKill` if a kill came meanwhile. Generators are asked when called.
    """
    if callable(action):
        return _Guarded("act", guard)(action)
    return _Guarded(action, guard)
