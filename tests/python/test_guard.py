"""argus.guard: what stops, what does not, and what silence means."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus import guard
from argus.engine.control import HOST_KILL, HOST_LOCKDOWN, NARROWER, EpochWord
from argus.guard import Guard, HardKill, WriteLockdown, scope_directory

SECOND = 1_000_000_000


class Clock:
    """CLOCK_MONOTONIC as the guard reads it, moved by hand; starts at the true one, for heartbeats use that."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(guard, "_monotonic", found)
    return found


@pytest.fixture
def control(tmp_path: Path) -> Path:
    path = tmp_path / "control"
    (path / "guards").mkdir(parents=True)
    (path / "scopes").mkdir()
    return path


@pytest.fixture
def word(control: Path) -> EpochWord:
    return EpochWord(control / "epoch")


@pytest.fixture(autouse=True)
def _detached() -> Iterator[None]:
    yield
    guard.detach()


def refused(by: Guard, action: str) -> bool:
    try:
        by.check(action)  # type: ignore[arg-type]
    except WriteLockdown:
        return True
    return False


def test_guard_needs_the_standard_library_only(tmp_path: Path) -> None:
    """The module works copied beside an agent, with nothing of Argus or of site-packages importable."""
    source = Path(guard.__file__).read_text(encoding="utf-8")
    (tmp_path / "alone.py").write_text(source, encoding="utf-8")
    code = "import alone, sys; alone.attach('nowhere'); alone.check(); print([m for m in sys.modules if 'argus' in m])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_importing_guard_from_argus_loads_no_dependency() -> None:
    code = (
        "from argus import guard; import sys; "
        "print([m for m in ('argus._core', 'numpy', 'zmq', 'msgpack', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_clear_allows_every_action(control: Path, word: EpochWord) -> None:
    word.heartbeat()
    with Guard(control) as each:
        for action in ("act", "write", "read", "save"):
            each.check(action)  # type: ignore[arg-type]
        assert each.state() is None


def test_unknown_action_is_refused(control: Path) -> None:
    (control / "write_lockdown.flag").touch()
    with Guard(control) as each, pytest.raises(ValueError, match="expected one of"):
        each.check("wrtie")  # type: ignore[arg-type]


def test_lockdown_refuses_actions_and_writes_and_leaves_reading_and_saving_open(control: Path, word: EpochWord) -> None:
    word.heartbeat()
    with Guard(control) as each:
        (control / "write_lockdown.flag").touch()
        word.raise_bits(HOST_LOCKDOWN)
        assert [refused(each, a) for a in ("act", "write", "read", "save")] == [True, True, False, False]


@pytest.mark.parametrize("action", ["act", "write", "read", "save"])
def test_hard_kill_ends_every_action(control: Path, word: EpochWord, action: guard.Action) -> None:
    with Guard(control) as each:
        word.raise_bits(HOST_KILL)
        with pytest.raises(HardKill):
            each.check(action)


def test_hard_kill_passes_except_exception(control: Path, word: EpochWord) -> None:
    """An agent that swallows every Exception does not swallow its own kill."""
    word.raise_bits(HOST_KILL)
    with Guard(control) as each, pytest.raises(HardKill):
        try:
            each.check()
        except Exception:
            pytest.fail("swallowed")
    assert issubclass(WriteLockdown, Exception)
    assert not issubclass(HardKill, Exception)


def test_word_alone_stops_before_its_flag_is_written(control: Path, word: EpochWord) -> None:
    with Guard(control) as each:
        word.raise_bits(HOST_KILL)
        halt = each.state()
        assert halt is not None
        assert (halt.kind, halt.reason_code, halt.path) == ("hard_kill", "epoch_word", "")


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{", b"[]", b"null", b'{"kind":"nothing"}', b"[" * 4096])
def test_flag_stops_whatever_it_holds(control: Path, content: bytes) -> None:
    (control / "hard_kill.flag").write_bytes(content)
    with Guard(control) as each, pytest.raises(HardKill):
        each.check()


def test_flag_that_is_a_fifo_a_directory_or_a_dangling_link_stops_and_does_not_hang(control: Path) -> None:
    flag = control / "hard_kill.flag"
    for plant in (lambda: os.mkfifo(flag), flag.mkdir, lambda: flag.symlink_to("nowhere")):
        plant()
        with Guard(control) as each, pytest.raises(HardKill, match="stops all the same"):
            each.check("read")
        flag.rmdir() if flag.is_dir() and not flag.is_symlink() else flag.unlink()


def test_halt_tells_what_the_flag_says(control: Path, word: EpochWord) -> None:
    content = {"reason": "budget reached", "reason_code": "C1", "automatic": True, "incident": "i7"}
    (control / "hard_kill.flag").write_text(json.dumps(content))
    word.raise_bits(HOST_KILL)
    with Guard(control) as each, pytest.raises(HardKill, match="budget reached") as caught:
        each.check()
    halt = caught.value.halt
    assert (halt.scope, halt.reason_code, halt.automatic, halt.incident) == ("host", "C1", True, "i7")


def test_second_channel_finds_a_flag_that_nobody_announced(control: Path, word: EpochWord, clock: Clock) -> None:
    """A flag put in place by hand, without the word, is found within 250 ms."""
    word.heartbeat()
    with Guard(control) as each:
        each.check()
        (control / "hard_kill.flag").touch()
        clock.advance(0.2)
        each.check()
        clock.advance(0.06)
        with pytest.raises(HardKill):
            each.check()


def test_scoped_flag_stops_only_its_scope(control: Path, word: EpochWord) -> None:
    word.heartbeat()
    with Guard(control, ["session:a"]) as mine, Guard(control, {"session": "b", "tenant": "t"}) as other:
        place = control / "scopes" / scope_directory("session", "a")
        place.mkdir()
        (place / "write_lockdown.flag").touch()
        word.raise_bits(NARROWER)
        assert refused(mine, "act")
        assert not refused(other, "act")
        wide = control / "scopes" / scope_directory("tenant", "t")
        wide.mkdir()
        (wide / "hard_kill.flag").touch()
        word.raise_bits(NARROWER)
        with pytest.raises(HardKill, match="tenant:t"):
            other.check()


def test_host_kill_outranks_a_scoped_lockdown(control: Path, word: EpochWord) -> None:
    place = control / "scopes" / scope_directory("session", "a")
    place.mkdir()
    (place / "write_lockdown.flag").touch()
    word.raise_bits(NARROWER | HOST_KILL)
    with Guard(control, ["session:a"]) as each, pytest.raises(HardKill):
        each.check()


def test_deleting_a_flag_frees_nobody_within_its_epoch(control: Path, word: EpochWord, clock: Clock) -> None:
    word.heartbeat()
    with Guard(control) as each:
        flag = control / "hard_kill.flag"
        flag.touch()
        word.raise_bits(HOST_KILL)
        with pytest.raises(HardKill):
            each.check()
        flag.unlink()
        clock.advance(1)
        with pytest.raises(HardKill):
            each.check()
        word.replace_bits(0)
        word.heartbeat()
        each.check()


def test_an_epoch_alone_does_not_free_while_the_flag_is_there(control: Path, word: EpochWord) -> None:
    """The word says clear, the file says stop: the file wins."""
    word.heartbeat()
    with Guard(control) as each:
        (control / "write_lockdown.flag").touch()
        word.replace_bits(0)
        assert refused(each, "write")


def test_lockdown_may_grow_to_a_kill_within_one_epoch(control: Path, clock: Clock) -> None:
    with Guard(control) as each:
        (control / "write_lockdown.flag").touch()
        clock.advance(1)
        assert refused(each, "act")
        (control / "hard_kill.flag").touch()
        clock.advance(1)
        with pytest.raises(HardKill):
            each.check()
        (control / "hard_kill.flag").unlink()
        clock.advance(1)
        with pytest.raises(HardKill):
            each.check()


def test_never_heard_stays_open_and_says_so_once(
    control: Path, word: EpochWord, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "argus.guard"), Guard(control) as each:
        for _ in range(40):
            clock.advance(1)
            each.check("write")
    said = [r.message for r in caplog.records]
    assert len(said) == 1, said
    assert "stays open" in said[0]
    assert word.load()[2] == 0


def test_directory_that_does_not_exist_yet_is_found_when_it_does(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "later"
    with Guard(path, ["session:a"]) as each:
        each.check()
        (path / "guards").mkdir(parents=True)
        late = EpochWord(path / "epoch")
        late.raise_bits(HOST_KILL)
        each.check()
        clock.advance(0.3)
        with pytest.raises(HardKill):
            each.check()
        assert [p.name.split("-")[0] for p in (path / "guards").iterdir()] == [str(os.getpid())]


@pytest.mark.parametrize(
    ("when_silent", "expected"),
    [("open", [False, False, False]), ("closed", [True, True, False]), ("kill", ["kill", "kill", "kill"])],
)
def test_silence_after_a_heartbeat(
    control: Path, word: EpochWord, clock: Clock, when_silent: guard.WhenSilent, expected: list[object]
) -> None:
    """Silence beyond 5 s closes new actions and writes; configurable to open or kill."""

    def standing() -> list[object]:
        found: list[object] = []
        for action in ("act", "write", "read"):
            try:
                found.append(refused(each, action))
            except HardKill:
                found.append("kill")
        return found

    word.heartbeat()
    with Guard(control, when_silent=when_silent) as each:
        assert standing() == [False, False, False]
        clock.advance(4.9)
        assert standing() == [False, False, False]
        clock.advance(0.2)
        assert standing() == expected


def test_heartbeat_that_returns_opens_again(control: Path, word: EpochWord, clock: Clock) -> None:
    word.heartbeat()
    with Guard(control, silent_after_s=5.0) as each:
        clock.advance(6)
        assert refused(each, "act")
        with (control / "epoch").open("r+b") as raw:  # as the collector writes it, at the moved time
            raw.seek(8)
            raw.write(struct.pack("=Q", int(clock.now * SECOND)))
        assert refused(each, "act")
        clock.advance(0.26)
        assert not refused(each, "act")


def test_a_heartbeat_of_long_ago_is_not_one_that_was_heard(control: Path, word: EpochWord, clock: Clock) -> None:
    word.heartbeat()
    clock.advance(60)
    with Guard(control) as each:
        each.check("write")


def test_a_heartbeat_from_the_future_is_silence(control: Path, word: EpochWord, clock: Clock) -> None:
    """A word left over from an earlier boot names a time that has not come yet."""
    word.heartbeat()
    with Guard(control) as each:
        clock.advance(-60)
        each._look_at = 0.0
        assert refused(each, "act")


def test_vanished_directory_is_a_stale_auditor_not_clear(control: Path, word: EpochWord, clock: Clock) -> None:
    word.heartbeat()
    with Guard(control) as each:
        each.check()
        control.rename(control.with_name("elsewhere"))
        clock.advance(0.3)
        assert refused(each, "write")
        assert not refused(each, "read")


def test_a_stop_outlives_the_directory_it_was_read_in(control: Path, word: EpochWord, clock: Clock) -> None:
    word.raise_bits(HOST_KILL)
    with Guard(control) as each:
        control.rename(control.with_name("elsewhere"))
        for path in (control, control / "guards"):
            path.mkdir()
        EpochWord(control / "epoch").heartbeat()
        clock.advance(1)
        with pytest.raises(HardKill):
            each.check()


def test_a_word_of_the_wrong_size_closes_at_once(control: Path, clock: Clock) -> None:
    """What is there but cannot be looked into is not taken for clear, even before any heartbeat."""
    (control / "epoch").write_bytes(b"x" * 63)
    with Guard(control) as each:
        assert refused(each, "act")
        (control / "epoch").unlink()
        clock.advance(0.3)
        assert not refused(each, "act")


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an ordinary user: root may look into every directory")
def test_a_directory_it_may_not_search_closes(control: Path, word: EpochWord, clock: Clock) -> None:
    control.chmod(0)
    try:
        with Guard(control) as each:
            assert refused(each, "act")
    finally:
        control.chmod(0o750)


def test_announcement_tells_process_scopes_and_the_epoch_acted_on(control: Path, word: EpochWord) -> None:
    with Guard(control, ["session:a", "tenant:t"]) as each:
        (path,) = (control / "guards").iterdir()
        told = json.loads(path.read_text())
        assert told["pid"] == os.getpid()
        assert told["start_time"] == guard.start_time_ns(os.getpid())
        assert told["boot_id"] == guard.boot_id()
        assert told["scopes"] == ["tenant:t", "session:a"]
        assert told["acknowledged_epoch"] == 0
        epoch = word.raise_bits(HOST_LOCKDOWN)
        refused(each, "act")
        told = json.loads(path.read_text())
        assert (told["acknowledged_epoch"], told["standing"]) == (epoch, "write_lockdown")
    assert list((control / "guards").iterdir()) == []


def test_announcement_that_cannot_be_written_never_stops_the_agent(
    control: Path, word: EpochWord, caplog: pytest.LogCaptureFixture
) -> None:
    word.heartbeat()
    (control / "guards").rmdir()
    (control / "guards").symlink_to("/proc/self/task")
    with caplog.at_level(logging.WARNING, "argus.guard"), Guard(control) as each:
        each.check()
        word.bump()
        each.check()
    assert [r.message for r in caplog.records if "not announced" in r.message]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_after_fork_announces_itself_and_leaves_its_parents_announcement(control: Path, word: EpochWord) -> None:
    word.heartbeat()
    with Guard(control, ["session:a"]) as each:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                each.check()
                os.write(write, "\n".join(sorted(p.name for p in (control / "guards").iterdir())).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            names = pipe.read().split("\n")
        os.waitpid(pid, 0)
        assert {name.split("-")[0] for name in names} == {str(pid), str(os.getpid())}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_forked_while_another_thread_looks_does_not_hang(control: Path, word: EpochWord) -> None:
    word.heartbeat()
    with Guard(control) as each:
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with each._lock:
                held.set()
                release.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        pid = os.fork()
        if pid == 0:
            each.check()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        release.set()
        thread.join()


def test_module_level_check_attaches_by_itself_from_the_environment(
    control: Path, word: EpochWord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGUS_CONTROL", str(control))
    monkeypatch.setenv("ARGUS_SESSION", "a")
    check = guard.check
    word.heartbeat()
    check()
    place = control / "scopes" / scope_directory("session", "a")
    place.mkdir()
    (place / "hard_kill.flag").touch()
    word.raise_bits(NARROWER)
    with pytest.raises(HardKill):
        check()


def test_attaching_again_replaces_the_first(control: Path, word: EpochWord, tmp_path: Path) -> None:
    word.raise_bits(HOST_KILL)
    guard.attach(control)
    with pytest.raises(HardKill):
        guard.check()
    guard.attach(tmp_path / "other")
    guard.check()
    assert list((control / "guards").iterdir()) == []


def test_relative_control_directory_stays_where_it_was(
    control: Path, word: EpochWord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(control.parent)
    guard.attach("control")
    monkeypatch.chdir("/")
    word.raise_bits(HOST_KILL)
    with pytest.raises(HardKill):
        guard.check()


def test_guarded_as_block_and_decorator(control: Path, word: EpochWord) -> None:
    each = guard.attach(control)
    ran = []

    @guard.guarded
    def bare() -> str:
        ran.append("bare")
        return "done"

    @guard.guarded("write")
    def write() -> None:
        ran.append("write")

    @each.guarded("act")
    async def act() -> int:
        ran.append("act")
        return 3

    assert bare() == "done"
    write()
    assert asyncio.run(act()) == 3
    with guard.guarded("write"):
        ran.append("block")
    word.raise_bits(HOST_LOCKDOWN)
    for refuses in (bare, write, lambda: asyncio.run(act())):
        with pytest.raises(WriteLockdown):
            refuses()
    with pytest.raises(WriteLockdown), guard.guarded():
        ran.append("never")
    with guard.guarded("save"):
        ran.append("save")
    assert ran == ["bare", "write", "act", "block", "save"]


def test_kill_that_comes_during_a_block_is_raised_at_its_end_and_a_lockdown_is_not(
    control: Path, word: EpochWord
) -> None:
    guard.attach(control)
    with guard.guarded("write"):
        word.raise_bits(HOST_LOCKDOWN)
    word.replace_bits(0)
    with pytest.raises(HardKill), guard.guarded("write"):
        word.raise_bits(HOST_KILL)
    word.replace_bits(0)
    with pytest.raises(KeyError), guard.guarded("write"):
        word.raise_bits(HOST_KILL)
        raise KeyError("the block's own error is not hidden")


@pytest.mark.parametrize(
    "arguments", [{"scopes": ["nothing"]}, {"scopes": ["room:1"]}, {"when_silent": "maybe"}, {"silent_after_s": 0}]
)
def test_attach_names_what_it_cannot_use(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Guard(tmp_path, **arguments)  # type: ignore[arg-type]


def test_threads_that_check_during_a_trip_all_see_it(control: Path, word: EpochWord) -> None:
    word.heartbeat()
    killed = []
    started = threading.Barrier(5)
    with Guard(control) as each:

        def work() -> None:
            started.wait(10)
            try:
                for _ in range(10_000_000):
                    each.check()
            except HardKill:
                killed.append(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait(10)
        word.raise_bits(HOST_KILL)
        for thread in threads:
            thread.join(30)
    assert len(killed) == 4


@pytest.fixture
def beating(word: EpochWord) -> Iterator[EpochWord]:
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.05):
            word.heartbeat()

    word.heartbeat()
    thread = threading.Thread(target=beat)
    thread.start()
    yield word
    done.set()
    thread.join()


def within(seconds: float, holds: object) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():  # type: ignore[operator]
            return True
        time.sleep(0.005)
    return False


def lookers() -> int:
    return sum(thread.name == "argus-guard" for thread in threading.enumerate())


def test_looker_spares_check_the_clock_and_still_finds_a_flag_put_by_hand(
    control: Path, beating: EpochWord, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = guard.attach(control)
    assert within(5, lambda: guard._watched >= 0)
    with each._lock:  # no look meanwhile
        monkeypatch.setattr(guard, "_monotonic", lambda: pytest.fail("the clock was read"))
        guard.check()
        monkeypatch.undo()
    (control / "hard_kill.flag").touch()

    def killed() -> bool:
        try:
            guard.check()
        except HardKill:
            return True
        return False

    assert within(5, killed)
    assert guard._watched == -1


def test_looker_finds_silence(control: Path, word: EpochWord) -> None:
    word.heartbeat()
    guard.attach(control, silent_after_s=0.6)
    assert within(5, lambda: guard._watched >= 0)
    assert within(5, lambda: guard._watched == -1 and guard.state() is not None)
    with pytest.raises(WriteLockdown, match="silent"):
        guard.check()


def test_looker_that_fails_leaves_check_to_the_clock(
    control: Path, beating: EpochWord, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.attach(control)
    assert within(5, lambda: guard._watched >= 0)
    looks: list[float] = []
    true_look = Guard._look

    def look(self: Guard, now: float) -> None:
        if threading.current_thread().name == "argus-guard":
            raise OSError("no look from here")
        looks.append(now)
        true_look(self, now)

    monkeypatch.setattr(Guard, "_look", look)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    assert within(5, lambda: lookers() == 0)
    assert guard._watched == -1

    def looked() -> bool:
        guard.check()
        return len(looks) > 1

    assert within(5, looked)


def test_looker_that_hangs_leaves_check_to_the_clock(
    control: Path, beating: EpochWord, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.attach(control)
    assert within(5, lambda: guard._watched >= 0)
    hung, release = threading.Event(), threading.Event()

    def lstat(path: object) -> object:
        if threading.current_thread().name == "argus-guard":
            hung.set()
            release.wait(10)
        raise FileNotFoundError

    monkeypatch.setattr(guard.os, "lstat", lstat)
    assert hung.wait(5)
    try:
        assert guard._watched == -1
    finally:
        release.set()


def test_a_green_thread_is_not_relied_on(control: Path, beating: EpochWord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "get_native_id", lambda: 7)
    guard.attach(control)
    assert within(5, lambda: lookers() == 0)
    assert guard._watched == -1
    guard.check()


def test_no_looker_where_none_is_wanted_or_none_can_start(
    control: Path, beating: EpochWord, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guard.attach(control, looker=False)
    assert lookers() == 0
    guard.check()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with caplog.at_level(logging.WARNING, "argus.guard"):
        guard.attach(control)
    assert [r for r in caplog.records if "looks by itself" in r.message]
    guard.check()


def test_detaching_ends_the_looker_and_attaching_again_leaves_one(control: Path, beating: EpochWord) -> None:
    for _ in range(5):
        guard.attach(control)
    assert within(5, lambda: lookers() == 1)
    guard.detach()
    assert within(5, lambda: lookers() == 0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_after_fork_has_a_looker_of_its_own_and_sees_a_kill(control: Path, beating: EpochWord) -> None:
    guard.attach(control)
    assert within(5, lambda: guard._watched >= 0)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if guard._watched == -1:
                guard.check()
                code = 2
                if within(5, lambda: guard._watched >= 0):
                    code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
