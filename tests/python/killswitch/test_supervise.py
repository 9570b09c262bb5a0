"""A supervised command: its tree is gone after a hard kill, and nobody else is touched."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus.errors import RefusedError, UsageError
from argus.guard import Halt
from argus.killswitch import supervise
from argus.killswitch.control import Control
from argus.killswitch.process import Process, descendants, protected_pids, read_process, send_signal
from argus.killswitch.supervise import KILLED_EXIT, RunResult, run

AUTOMATIC = {"reason": "a rule has spoken", "reason_code": "C1", "actor": "argus", "automatic": True}
MANUAL = {"reason": "stop at once, please", "reason_code": "manual", "actor": "Ada Lovelace", "automatic": False}
WHY = "checked, the cause is gone"

# A child that ignores SIGTERM, a daemon that forked twice into a session of its own, and a shell that keeps forking.
STUBBORN = r"""
import os, signal, sys, time
ready = sys.argv[1]
def stay(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(os.path.join(ready, f"{name}-{os.getpid()}"), "w").close()
    while True:
        time.sleep(0.05)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        stay("daemon")
    os._exit(0)
if os.fork() == 0:
    stay("child")
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setpgid(0, 0)
    if os.fork() == 0:
        stay("grandchild")
    stay("middle")
stay("main")
"""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with Control(tmp_path / "control") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test leaves a process behind."""
    before = {(p.pid, p.start_time) for p in descendants(os.getpid())}
    yield
    left = [p for p in descendants(os.getpid()) if (p.pid, p.start_time) not in before and p.alive]
    for process in left:
        os.kill(process.pid, signal.SIGKILL)
    assert left == []


def started(directory: Path, count: int) -> list[Process]:
    """Wait until `count` processes have said that they are up."""
    deadline = time.monotonic() + 30
    while len(list(directory.iterdir())) < count:
        assert time.monotonic() < deadline, list(directory.iterdir())
        time.sleep(0.01)
    found = [read_process(int(p.name.rpartition("-")[2])) for p in directory.iterdir()]
    return [p for p in found if p is not None]


def trip_when(ready: Callable[[], object], act: Callable[[], object]) -> threading.Thread:
    def work() -> None:
        ready()
        act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def gone(processes: list[Process]) -> bool:
    return not [p for p in processes if (now := read_process(p.pid)) and now.start_time == p.start_time and now.alive]


@pytest.mark.parametrize("use_cgroup", [True, False])
def test_hard_kill_ends_a_stubborn_tree_and_verifies_it(control: Control, tmp_path: Path, use_cgroup: bool) -> None:
    ready = tmp_path / "ready"
    ready.mkdir()
    seen: list[Process] = []
    thread = trip_when(
        lambda: seen.extend(started(ready, 5)), lambda: control.trip("hard_kill", "session:s1", **AUTOMATIC)
    )
    killed: list[Halt] = []
    result = run(
        [sys.executable, "-c", STUBBORN, str(ready)], control=control.directory, scope="session:s1", grace_s=0.1,
        on_kill=killed.append, use_cgroup=use_cgroup,
    )  # fmt: skip
    thread.join()
    assert len(seen) == 5
    assert (result.exit_code, result.stop, result.left) == (KILLED_EXIT, "verified_stopped", [])
    assert gone(seen)
    assert "a rule has spoken" in result.cause
    assert [h.scope for h in killed] == ["session:s1"]
    assert 0 < result.first_signal_ns < result.all_gone_ns
    if not use_cgroup:
        assert not result.cgroup
    assert control.guards() == []


@pytest.mark.parametrize("scope", ["host", "tenant:acme", "session:s1"])
def test_every_wider_scope_stops_it(control: Control, scope: str) -> None:
    from argus.schema import Scope, ScopeKind

    thread = trip_when(lambda: time.sleep(0.1), lambda: control.trip("hard_kill", scope, **AUTOMATIC))
    result = run(
        ["sleep", "60"], control=control.directory, grace_s=1,
        scope=Scope(kind=ScopeKind.SESSION, id="s1", tenant="acme"),
    )  # fmt: skip
    thread.join()
    assert (result.stop, result.status) == ("verified_stopped", -signal.SIGTERM), "it ended in the grace, by SIGTERM"
    assert result.all_gone_ns < 1e9


def test_command_that_ends_by_itself_keeps_its_status_and_environment(control: Control, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(
        ["sh", "-c", f'echo "$ARGUS_SESSION $ARGUS_CONTROL $MINE" > {out}; exit 7'], control=control.directory,
        scope="session:s1", env={**os.environ, "MINE": "kept"},
    )  # fmt: skip
    assert result == RunResult(exit_code=7, status=7, cgroup=result.cgroup)
    assert out.read_text() == f"s1 {control.directory} kept\n"
    assert run(["sh", "-c", "kill -9 $$"], control=control.directory).exit_code == 128 + 9


def test_guard_of_its_session_is_announced_while_it_runs(control: Control) -> None:
    seen = []

    def look(pid: int) -> None:
        seen.extend(control.guards())

    run(["true"], control=control.directory, scope="session:s1", on_start=look)
    assert [g.scopes for g in seen] == [["session:s1"]]
    assert control.guards() == []


def test_nothing_is_started_in_a_stopped_scope(control: Control, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for kind in ("hard_kill", "write_lockdown"):
        control.trip(kind, "session:s1", **MANUAL)
        with pytest.raises(RefusedError, match="nothing started"):
            run(["touch", str(marker)], control=control.directory, scope="session:s1")
        control.reset(kind, "session:s1", actor="Ada", reason=WHY)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [([], {}), (["no-such-program-here"], {}), (["true"], {"grace_s": 4}), (["true"], {"scope": "room:1"})],
)
def test_what_cannot_be_run_is_said(control: Control, command: list[str], arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="nothing started"):
        run(command, control=control.directory, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("use_cgroup", [True, False])
def test_processes_that_outlive_the_command_are_ended(control: Control, tmp_path: Path, use_cgroup: bool) -> None:
    ready = tmp_path / "ready"
    ready.mkdir()
    code = STUBBORN.replace(
        'stay("main")',
        f"""
while len(os.listdir({str(ready)!r})) < 4: time.sleep(0.01)
sys.exit(3)
""",
    )
    result = run(
        [sys.executable, "-c", code, str(ready)], control=control.directory, grace_s=0.05, use_cgroup=use_cgroup
    )
    assert (result.exit_code, result.stragglers, result.left) == (3, 4, [])
    assert gone(started(ready, 4))


def test_processes_that_were_there_before_are_left_alone(control: Control) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        thread = trip_when(lambda: time.sleep(0.1), lambda: control.trip("hard_kill", "host", **AUTOMATIC))
        result = run(["sleep", "60"], control=control.directory, grace_s=0.05)
        thread.join()
        assert result.stop == "verified_stopped"
        assert bystander.poll() is None
        bystander.kill()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def test_manual_lockdown_pauses_and_reset_resumes(control: Control, tmp_path: Path) -> None:
    pids: list[int] = []
    states: list[bool] = []

    def act() -> None:
        control.trip("write_lockdown", "session:s1", **MANUAL)
        states.append(wait_for(lambda: state_of(pids[0]) == "T"))
        control.reset("write_lockdown", "session:s1", actor="Ada", reason=WHY)
        states.append(wait_for(lambda: state_of(pids[0]) != "T"))
        control.trip("hard_kill", "session:s1", **MANUAL)

    thread = trip_when(lambda: wait_for(lambda: bool(pids)), act)
    result = run(["sleep", "60"], control=control.directory, scope="session:s1", on_start=pids.append)
    thread.join()
    assert states == [True, True]
    assert (result.pauses, result.stop) == (1, "verified_stopped")


@pytest.mark.parametrize("pause", [True, False])
@pytest.mark.parametrize("scope", ["session:s1", "host"])
def test_automatic_lockdown_pauses_only_where_asked(control: Control, pause: bool, scope: str) -> None:
    pids: list[int] = []

    def act() -> None:
        control.trip("write_lockdown", scope, **AUTOMATIC)
        if pause:
            assert wait_for(lambda: state_of(pids[0]) == "T")
        else:
            time.sleep(0.3)
        control.trip("hard_kill", "session:s1", **MANUAL)

    thread = trip_when(lambda: wait_for(lambda: bool(pids)), act)
    result = run(["sleep", "60"], control=control.directory, scope="session:s1", pause=pause, on_start=pids.append)
    thread.join()
    assert (result.pauses, result.stop) == (int(pause), "verified_stopped")


def test_a_paused_stubborn_tree_is_killed_as_well(control: Control, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.mkdir()
    seen: list[Process] = []

    def act() -> None:
        seen.extend(started(ready, 5))
        control.trip("write_lockdown", "host", **MANUAL)
        assert wait_for(lambda: all(state_of(p.pid) == "T" for p in seen))
        control.trip("hard_kill", "host", **MANUAL)

    thread = trip_when(lambda: None, act)
    result = run([sys.executable, "-c", STUBBORN, str(ready)], control=control.directory, grace_s=0.05)
    thread.join()
    assert result.stop == "verified_stopped"
    assert gone(seen)


RUNNER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may have been started with it ignored
from argus.killswitch.supervise import run
result = run(sys.argv[2:], control=sys.argv[1], scope="session:s1", grace_s=0.1)
print(result.exit_code, result.stop, flush=True)
sys.exit(result.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_supervisor_go_to_the_command(control: Control, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    traps = " ".join(f"trap 'echo {name} >> {out}; exit 5' {name};" for name in ("TERM", "INT"))
    script = f"{traps} echo up; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(control.directory), "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "up\n"
        runner.send_signal(number)
        assert runner.stdout.readline() == "5 \n"
        assert runner.wait(10) == 5
    assert out.read_text() == number.name.removeprefix("SIG") + "\n"


def test_killed_command_ends_the_supervisor_with_137(control: Control) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(control.directory), "sh", "-c", "echo up; sleep 60"],
        stdout=subprocess.PIPE, text=True,
    ) as runner:  # fmt: skip
        assert runner.stdout is not None
        assert runner.stdout.readline() == "up\n"
        control.trip("hard_kill", "session:s1", **AUTOMATIC)
        assert runner.stdout.readline() == "137 verified_stopped\n"
        assert runner.wait(10) == 137


def test_an_error_of_the_caller_leaves_nobody_running(control: Control) -> None:
    def fail(pid: int) -> None:
        raise KeyError("caller's fault")

    with pytest.raises(KeyError, match="caller"):
        run(["sleep", "60"], control=control.directory, grace_s=0.05, on_start=fail)


@pytest.mark.filterwarnings("ignore:Exception ignored in.*Popen:pytest.PytestUnraisableExceptionWarning")
def test_who_cannot_be_ended_is_named(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may not be signalled: the stop says partially, or failed, and who is left."""
    pids: list[int] = []
    real = supervise.send_signal
    monkeypatch.setattr(supervise, "KILL_DEADLINE_S", 0.2)

    def denied(process: Process, number: signal.Signals, protected: frozenset[int]) -> bool:
        if process.pid in pids:
            raise PermissionError(1, "not permitted")
        return real(process, number, protected)

    monkeypatch.setattr(supervise, "send_signal", denied)
    thread = trip_when(lambda: wait_for(lambda: bool(pids)), lambda: control.trip("hard_kill", "host", **AUTOMATIC))
    result = run(["sleep", "60"], control=control.directory, grace_s=0, on_start=pids.append, use_cgroup=False)
    thread.join()
    assert (result.stop, result.exit_code) == ("failed", supervise.PARTIAL_EXIT)
    assert [text.partition(" ")[0] for text in result.left] == [str(pids[0])]
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)


def test_reaper_duty_ends_with_the_run(control: Control) -> None:
    value = ctypes.c_int(-1)
    run(["true"], control=control.directory)
    ctypes.CDLL(None).prctl(37, ctypes.byref(value), 0, 0, 0)
    assert value.value == 0


def test_no_control_group_is_left(control: Control) -> None:
    def groups() -> set[str]:
        return {str(p) for p in Path("/sys/fs/cgroup").rglob(f"argus-{os.getpid()}-*")}

    before = groups()
    result = run(["true"], control=control.directory)
    if not result.cgroup:
        pytest.skip("no version 2 control group can be made here")
    assert groups() == before


# --- process
# -----------------------------------------------------------------------------------------------------------


def test_a_process_of_another_start_time_is_not_signalled() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = read_process(child.pid)
        assert process is not None
        other = process._replace(start_time=process.start_time + 10_000_000)
        assert not send_signal(other, signal.SIGKILL, frozenset())
        assert child.poll() is None
        assert send_signal(process, signal.SIGKILL, frozenset())
        assert child.wait(10) == -signal.SIGKILL
        assert not send_signal(process, signal.SIGKILL, frozenset())


def test_init_itself_and_ancestors_are_protected() -> None:
    protected = protected_pids()
    assert {0, 1, os.getpid(), os.getppid()} <= protected
    for pid in (os.getpid(), 1):
        process = read_process(pid)
        assert process is not None
        assert not send_signal(process, signal.SIGKILL, protected)


def test_a_name_that_imitates_stat_fields_does_not_confuse_the_reader(tmp_path: Path) -> None:
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') S 1 1 1 \\n0', 0, 0, 0); print('up', flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = read_process(child.pid)
        assert process is not None
        assert process.parent == os.getpid()
        assert "\n" not in str(process)
        child.communicate()


def test_the_silence_that_kills_is_as_long_as_was_asked(control: Control) -> None:
    control.heartbeat()
    began = time.monotonic()
    result = run(["sleep", "30"], control=control.directory, when_silent="kill", silent_after_s=0.6, use_cgroup=False)
    assert result.stop == "verified_stopped"
    assert 0.5 < time.monotonic() - began < 4.5
