"""The control directory: order, latching, resets, holds, hostile places, crashes."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from argus.engine.control import HOST_KILL, HOST_LOCKDOWN, NARROWER
from argus.errors import RefusedError, UnreachableError, UsageError
from argus.guard import Guard, HardKill, WriteLockdown, scope_directory
from argus.killswitch import control as control_module
from argus.killswitch.control import Control, Trip, parse_scope
from argus.schema import Scope, ScopeKind, StopKind

SESSION = Scope(kind=ScopeKind.SESSION, id="s1", tenant="acme", agent="coder", session="s1")
AUTOMATIC = {"reason": "a rule has spoken", "reason_code": "C1", "actor": "argus", "automatic": True}
MANUAL = {"reason": "stop at once, please", "reason_code": "manual", "actor": "Ada Lovelace", "automatic": False}
WHY = "checked, the cause is gone"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with Control(tmp_path / "control", host="box") as opened:
        yield opened


def content(trip: Trip) -> dict[str, Any]:
    found = json.loads(Path(trip.path).read_bytes())
    assert isinstance(found, dict)
    return found


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


# --- opening
# -----------------------------------------------------------------------------------------------------------


def test_open_makes_the_directory_for_its_owner_only(control: Control) -> None:
    assert stat.S_IMODE(control.directory.stat().st_mode) == 0o750
    assert {"archive", "epoch", "guards", "scopes", "shadow"} <= set(names(control.directory))
    assert (control.directory / "epoch").stat().st_size == 64


def test_open_refuses_a_symbolic_link_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o750)
    (tmp_path / "control").symlink_to(tmp_path / "real")
    with pytest.raises(RefusedError, match="symbolic link or a file; not opened"):
        Control(tmp_path / "control").open()
    assert names(tmp_path / "real") == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o757])
def test_open_refuses_a_directory_that_others_may_change(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "control"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(RefusedError, match="chmod go-w"):
        Control(path).open()


def test_open_refuses_a_world_writable_parent_without_the_sticky_bit(tmp_path: Path) -> None:
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(RefusedError, match="chmod o-w"):
        Control(parent / "control").open()


def test_open_refuses_a_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir(mode=0o750)
    with pytest.raises(RefusedError, match="expected owner uid"):
        Control(tmp_path / "control", owner=os.geteuid() + 1).open()


def test_open_refuses_a_planted_word(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.mkdir(mode=0o750)
    (path / "epoch").write_bytes(b"x" * 65)
    with pytest.raises(RefusedError, match="65 bytes"):
        Control(path).open()


def test_open_of_a_file_or_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("not a directory")
    with pytest.raises(RefusedError):
        Control(tmp_path / "control").open()
    with pytest.raises((RefusedError, UnreachableError)):
        Control(tmp_path / "control" / "inner").open()


def test_a_closed_control_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"call open\(\) first"):
        Control(tmp_path / "control").trip("hard_kill", "host", **MANUAL)


def test_second_collector_is_refused_with_the_pid_of_the_first(control: Control) -> None:
    control.acquire()
    control.acquire()
    with Control(control.directory) as second, pytest.raises(RefusedError, match=f"process {os.getpid()} holding"):
        second.acquire()
    control.close()
    with Control(control.directory) as third:
        third.acquire()


def test_a_trip_by_a_person_needs_no_lock(control: Control) -> None:
    control.acquire()
    with Control(control.directory).open(arm=False) as second:
        assert second.trip("hard_kill", "host", **MANUAL).on_disk
    assert [f.kind for f in control.flags()] == [StopKind.HARD_KILL]


# --- tripping
# ----------------------------------------------------------------------------------------------------------


def test_host_trip_sets_word_and_flag_with_every_field(control: Control) -> None:
    trip = control.trip(
        "hard_kill", "host", detectors=[{"name": "budget", "value": 3.0}], evidence=["e1", "e2"], incident="i1",
        pids=[(7, 99)], **AUTOMATIC,
    )  # fmt: skip
    bits, epoch, _ = control.word.load()
    assert (bits, trip.epoch) == (HOST_KILL, epoch)
    assert trip.on_disk
    assert not trip.existed
    found = content(trip)
    assert Path(trip.path).name == "hard_kill.flag"
    assert stat.S_IMODE(Path(trip.path).stat().st_mode) == 0o440
    assert found["kind"] == "hard_kill"
    assert found["scope"] == {"kind": "host", "id": "box", "pids": [{"pid": 7, "start_time": 99}]}
    assert (found["mode"], found["reason_code"], found["actor"], found["automatic"]) == ("enforce", "C1", "argus", True)
    assert (found["evidence"]["first_id"], found["evidence"]["last_id"], found["evidence"]["n"]) == ("e1", "e2", 2)
    assert found["detectors"] == [{"name": "budget", "value": 3.0}]
    assert found["issued_at"] == trip.issued_at
    assert {"boot_id", "auditor", "expires_at", "prev_sha256", "sig", "epoch"} <= set(found)


def test_word_comes_before_the_flag_of_the_host(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    place = Control._place

    def watched(self: Control, armed: Any, path: str) -> bool:
        seen.append((self.word.load()[0], (self.directory / path).exists()))
        return place(self, armed, path)

    monkeypatch.setattr(Control, "_place", watched)
    control.trip("hard_kill", "host", **MANUAL)
    control.trip("write_lockdown", SESSION, **MANUAL)
    assert seen == [(HOST_KILL, False), (HOST_KILL, False)]  # and the narrower bit only after the scoped flag
    assert control.word.load()[0] == HOST_KILL | NARROWER


def test_scoped_trip_lies_in_its_scopes_directory_and_starts_an_epoch_after_it(control: Control) -> None:
    before = control.word.load()[1]
    trip = control.trip(StopKind.WRITE_LOCKDOWN, SESSION, **AUTOMATIC)
    expected = control.directory / "scopes" / scope_directory("session", "s1") / "write_lockdown.flag"
    assert Path(trip.path) == expected
    assert control.word.load()[:2] == (NARROWER, before + 1)
    assert content(trip)["scope"]["tenant"] == "acme"


def test_a_trip_that_is_no_kind_or_no_scope_is_an_error(control: Control) -> None:
    with pytest.raises(UsageError, match="hard_kill or write_lockdown"):
        control.trip("soft_kill", "host", **MANUAL)
    for text in ("session", "session:", "room:1", ""):
        with pytest.raises(UsageError, match="expected host"):
            control.trip("hard_kill", text, **MANUAL)
    assert control.flags() == []
    assert parse_scope("task:a:b").id == "a:b"


def test_first_cause_survives_and_later_ones_are_handed_back(control: Control) -> None:
    first = control.trip("hard_kill", "host", **MANUAL)
    epoch = control.word.load()[1]
    raw = Path(first.path).read_bytes()
    later = control.trip("hard_kill", "host", **AUTOMATIC)
    assert (later.existed, later.on_disk, later.reason) == (True, True, "a rule has spoken")
    assert Path(first.path).read_bytes() == raw
    assert control.word.load()[1] == epoch, "a repeat starts no epoch: guards would look again for nothing"


def test_a_bit_that_the_core_raised_already_gets_its_flag(control: Control) -> None:
    control.word.raise_bits(HOST_KILL)
    trip = control.trip("hard_kill", "host", **AUTOMATIC)
    assert not trip.existed
    assert control.word.load()[:2] == (HOST_KILL, 2)


def test_flags_are_chained_by_hash(control: Control) -> None:
    import hashlib

    first = control.trip("write_lockdown", "session:a", **AUTOMATIC)
    second = control.trip("write_lockdown", "session:b", **AUTOMATIC)
    assert content(second)["prev_sha256"] == hashlib.sha256(Path(first.path).read_bytes()).hexdigest()
    with Control(control.directory) as later:
        third = later.trip("write_lockdown", "session:c", **AUTOMATIC)
    assert content(third)["prev_sha256"] == hashlib.sha256(Path(second.path).read_bytes()).hexdigest()


def test_flag_stays_within_4_kib_and_readable_whatever_it_is_told(control: Control) -> None:
    scope = Scope(kind=ScopeKind.SESSION, id="\udcff" + "é" * 5000, tenant="\x00" * 5000, agent="𝕏" * 5000)
    trip = control.trip(
        "hard_kill", scope, reason="𝕏" * 9999, reason_code="c" * 999, actor="\n" * 999, automatic=False,
        detectors=[{"x": "y" * 9999}, object(), float("nan")] * 9, evidence=["e" * 999] * 999, incident="i" * 999,
        pids=[(2**31, 2**63)] * 999,
    )  # fmt: skip
    assert trip.error == ""
    raw = Path(trip.path).read_bytes()
    assert len(raw) == 4096
    assert json.loads(raw)["kind"] == "hard_kill"
    assert len(control.flags()) == 1


def test_signer_signs_the_canonical_bytes_and_a_broken_one_stops_nothing(tmp_path: Path) -> None:
    signed: list[bytes] = []

    def sign(raw: bytes) -> dict[str, str]:
        signed.append(raw)
        return {"alg": "test", "key_id": "k", "value": "00" * 64}

    def broken(raw: bytes) -> dict[str, str]:
        raise RuntimeError("no key today")

    with Control(tmp_path / "a", signer=sign) as control:
        found = content(control.trip("hard_kill", "host", **MANUAL))
    sig = found.pop("sig")
    assert sig == {"alg": "test", "key_id": "k", "value": "00" * 64}
    assert json.dumps(found, sort_keys=True, separators=(",", ":")).encode() == signed[0]
    with Control(tmp_path / "b", signer=broken) as control:
        assert content(control.trip("hard_kill", "host", **MANUAL))["sig"] is None


def test_make_durable_syncs_file_and_directories_and_prepares_the_next(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    trip = control.trip("write_lockdown", SESSION, **AUTOMATIC)
    place = Path(trip.path)
    synced = set()
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    assert trip.make_durable() > 0
    wanted = {p.stat().st_ino for p in (place, place.parent, place.parent.parent, control.directory)}
    assert wanted <= synced
    assert sum(n.startswith(".armed-") for n in names(control.directory)) == 2
    assert trip.make_durable() > 0  # again is harmless


def test_observe_mode_writes_a_shadow_and_stops_nobody(tmp_path: Path) -> None:
    with Control(tmp_path / "control", mode="observe") as control:
        trip = control.trip("hard_kill", SESSION, **AUTOMATIC)
        assert (trip.shadow, trip.stops, trip.existed) == (True, False, False)
        assert Path(trip.path).parent == control.directory / "shadow"
        assert content(trip)["mode"] == "observe"
        assert control.trip("hard_kill", SESSION, **AUTOMATIC).existed
        assert control.flags() == []
        assert control.word.load()[:2] == (0, 0)
        manual = control.trip("hard_kill", SESSION, **MANUAL)
        assert (manual.shadow, len(control.flags())) == (False, 1)


def test_guard_obeys_trip_and_reset(control: Control) -> None:
    with Guard(control.directory, ["session:s1"]) as guard:
        control.trip("write_lockdown", SESSION, **AUTOMATIC)
        with pytest.raises(WriteLockdown, match="a rule has spoken"):
            guard.check()
        control.reset("write_lockdown", SESSION, actor="Ada Lovelace", reason=WHY)
        guard.check()
        control.trip("hard_kill", "host", **MANUAL)
        with pytest.raises(HardKill):
            guard.check()


# --- races
# -------------------------------------------------------------------------------------------------------------


def test_many_threads_trip_at_once_one_wins_and_no_cause_is_lost(control: Control) -> None:
    trips: list[Trip] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait(10)
        for kind, scope in (("hard_kill", "host"), ("write_lockdown", "session:x")):
            cause = {"reason": f"cause {number}", "reason_code": "C1", "actor": "a", "automatic": False}
            trips.append(control.trip(kind, scope, **cause))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for kind in ("hard_kill", "write_lockdown"):
        mine = [t for t in trips if t.kind == kind]
        winners = [t for t in mine if not t.existed]
        assert (len(mine), len(winners)) == (8, 1)
        assert content(winners[0])["reason"] == winners[0].reason
        assert {t.reason for t in mine} == {f"cause {n}" for n in range(8)}
    assert control.word.load()[0] == HOST_KILL | NARROWER
    assert not [n for n in names(control.directory) if n.startswith(".taken-")]


def _trip_in_process(directory: str, number: int, results: Any) -> None:
    with Control(directory) as control:
        trip = control.trip("hard_kill", "host", reason=f"cause {number}", reason_code="C1", actor="a", automatic=False)
        results.put((trip.reason, trip.existed, trip.on_disk))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_many_processes_trip_at_once_one_wins_and_no_cause_is_lost(control: Control) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_trip_in_process, args=(str(control.directory), n, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    winners = [reason for reason, existed, _ in found if not existed]
    assert len(winners) == 1
    assert {reason for reason, _, _ in found} == {f"cause {n}" for n in range(4)}
    assert all(on_disk for _, _, on_disk in found)
    assert (control.read("hard_kill", "host") or {})["reason"] == winners[0]


def test_a_trip_beside_resets_is_never_left_with_a_clear_word(control: Control) -> None:
    """Whatever the order, a flag that is in place has its bit."""
    done = threading.Event()

    def clear() -> None:
        while not done.is_set():
            with suppress(UsageError):
                control.reset("write_lockdown", "host", actor="Ada", reason=WHY)

    thread = threading.Thread(target=clear)
    thread.start()
    with Control(control.directory) as other:
        for _ in range(60):
            other.trip("write_lockdown", "host", **AUTOMATIC)
    done.set()
    thread.join(30)
    control.trip("write_lockdown", "host", **AUTOMATIC)
    assert control.word.load()[0] == HOST_LOCKDOWN
    assert len(control.flags()) == 1


def test_a_trip_between_a_resets_look_and_its_word_keeps_its_bit(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The narrowest moment: the reset has read the directory, the trip comes, the reset writes the word."""
    control.trip("hard_kill", "host", **AUTOMATIC)
    look = Control._bits_of_files
    trips: list[Trip] = []

    def interrupted(self: Control) -> int:
        bits = look(self)
        if not trips:
            with Control(control.directory) as other:
                trips.append(other.trip("write_lockdown", "host", **AUTOMATIC))
        return bits

    monkeypatch.setattr(Control, "_bits_of_files", interrupted)
    control.reset("hard_kill", "host", actor="Ada", reason=WHY)
    assert control.word.load()[0] == HOST_LOCKDOWN


def test_a_second_scoped_trip_reaches_its_guard_at_once(control: Control) -> None:
    """The narrower bit is set already: only a new epoch makes the guard of the second scope look."""
    with Guard(control.directory, ["session:b"]) as guard:
        control.trip("hard_kill", "session:a", **AUTOMATIC)
        guard.check()
        control.trip("hard_kill", "session:b", **AUTOMATIC)
        with pytest.raises(HardKill):
            guard.check()


# --- hostile directory, full disk, no descriptors
# ----------------------------------------------------------------------


@pytest.mark.parametrize("plant", ["directory", "full_directory", "fifo", "link", "dangling"])
@pytest.mark.parametrize("scope", ["host", "session:s1"])
def test_what_is_planted_at_the_flags_name_is_moved_aside(control: Control, plant: str, scope: str) -> None:
    place = control.directory
    if scope != "host":
        place = place / "scopes" / scope_directory("session", "s1")
        place.mkdir(mode=0o750)
    flag = place / "hard_kill.flag"
    victim = control.directory.parent / "victim"
    victim.write_text("untouched")
    if plant == "fifo":
        os.mkfifo(flag)
    elif plant in ("link", "dangling"):
        flag.symlink_to(victim if plant == "link" else "nowhere")
    else:
        flag.mkdir()
        if plant == "full_directory":
            (flag / "inside").write_text("x")
    trip = control.trip("hard_kill", scope, **MANUAL)
    assert (trip.on_disk, trip.existed, trip.error) == (True, False, "")
    assert stat.S_ISREG(flag.lstat().st_mode)
    assert content(trip)["reason"] == MANUAL["reason"]
    assert victim.read_text() == "untouched"
    assert [n for n in names(control.directory / "archive") if "planted" in n]


def test_an_obstacle_that_cannot_be_moved_still_counts_as_tripped(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    (control.directory / "hard_kill.flag").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(control_module.files, "rename_at", refuse)
    trip = control.trip("hard_kill", "host", **MANUAL)
    assert trip.on_disk
    assert "not permitted" in trip.error
    assert control.word.load()[0] == HOST_KILL
    with Guard(control.directory) as guard, pytest.raises(HardKill):
        guard.check()


def test_garbage_at_the_flags_name_stops_and_needs_two_people(control: Control) -> None:
    (control.directory / "hard_kill.flag").write_bytes(b"\xff{")
    assert [f.reason for f in control.flags()] == ["its flag cannot be read; it stops all the same"]
    assert control.trip("hard_kill", "host", **MANUAL).existed
    with pytest.raises(RefusedError, match="two people"):
        control.reset("hard_kill", "host", actor="Ada", reason=WHY)
    control.reset("hard_kill", "host", actor="Ada", second_actor="Grace", reason=WHY)
    assert control.flags() == []


def test_a_file_planted_as_scope_directory_is_moved_aside(control: Control) -> None:
    place = control.directory / "scopes" / scope_directory("session", "s1")
    place.symlink_to("/tmp")
    trip = control.trip("hard_kill", SESSION, **MANUAL)
    assert (trip.on_disk, trip.escalated) == (True, False)
    assert place.is_dir()
    assert not place.is_symlink()
    assert len(control.flags()) == 1


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Take every free descriptor of this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(p.name) for p in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, before[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/dev/null", os.O_RDONLY)
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_trips_work_without_a_free_descriptor(control: Control) -> None:
    """Two prepared files, then the reserved descriptor: host, scope, and one more."""
    control.hold("session:other", 5, "Ada", WHY)
    with no_descriptors():
        trips = [
            control.trip("hard_kill", SESSION, **MANUAL),
            control.trip("write_lockdown", "host", **MANUAL),
            control.trip("hard_kill", "host", **MANUAL),
        ]
    assert [(t.on_disk, t.existed, t.error) for t in trips] == [(True, False, "")] * 3
    assert all(content(t)["reason"] for t in trips)
    for trip in trips:
        trip.make_durable()


def test_the_reserve_is_there_again_after_it_was_used(control: Control) -> None:
    for number in range(3):
        with no_descriptors():
            trips = [control.trip("hard_kill", f"session:{number}-{n}", **MANUAL) for n in range(3)]
        assert [t.error for t in trips] == [""] * 3
        for trip in trips:
            trip.make_durable()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("a full disk needs a tmpfs mount, which needs root")
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0755", "tmpfs", str(path)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a full disk needs a tmpfs mount: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    with suppress(OSError), (path / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)
    with pytest.raises(OSError, match="No space left"):
        (path / "one_more").write_bytes(b"x" * 4096)


def test_trips_work_on_a_full_disk(small_disk: Path) -> None:
    with Control(small_disk / "control") as control:
        fill(small_disk)
        trips = [control.trip("hard_kill", SESSION, **MANUAL), control.trip("hard_kill", "host", **MANUAL)]
        assert [(t.on_disk, t.existed, t.error) for t in trips] == [(True, False, "")] * 2
        assert [content(t)["reason"] for t in trips] == [MANUAL["reason"]] * 2
        trips[0].make_durable()
        # What was prepared is used up: the word needs no space.
        third = control.trip("write_lockdown", "host", **MANUAL)
        assert (third.on_disk, "No space left" in third.error) == (False, True)
        assert control.word.load()[0] == HOST_KILL | HOST_LOCKDOWN | NARROWER
        assert "not prepared" in control.rearm()
        (small_disk / "ballast").unlink()
        assert control.rearm() == ""


def test_a_scoped_stop_that_cannot_be_written_is_widened_to_the_host(small_disk: Path) -> None:
    with Control(small_disk / "control") as control:
        fill(small_disk)
        for number in range(2):
            control.trip("write_lockdown", f"session:{number}", **MANUAL)
        trip = control.trip("write_lockdown", "session:2", **MANUAL)
        assert (trip.escalated, str(trip.requested), trip.scope.kind) == (True, "session:2", ScopeKind.HOST)
        assert control.word.load()[0] & HOST_LOCKDOWN


def test_a_command_trips_on_a_full_disk_with_what_a_dead_collector_prepared(small_disk: Path) -> None:
    code = "import os, sys; from argus.killswitch.control import Control; Control(sys.argv[1]).open(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(small_disk / "control")], check=True)
    fill(small_disk)
    with Control(small_disk / "control").open(arm=False) as control:
        trip = control.trip("hard_kill", SESSION, **MANUAL)
        assert (trip.on_disk, trip.escalated, trip.error) == (True, False, "")
        assert content(trip)["actor"] == "Ada Lovelace"


def test_read_only_directory_still_stops_through_the_word(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "rename", read_only)
    monkeypatch.setattr(control_module.files, "rename_at", read_only)
    with Guard(control.directory, announce=False) as guard:
        trip = control.trip("hard_kill", SESSION, **MANUAL)
        assert (trip.on_disk, trip.escalated, "Read-only" in trip.error) == (False, True, True)
        with pytest.raises(HardKill, match="its flag is not written"):
            guard.check()


def test_a_trip_works_beside_a_collector_that_hangs(control: Control) -> None:
    """The collector is stopped in the middle of its work; a person's command needs nothing of it."""
    code = (
        "import sys, time; from argus.killswitch.control import Control\n"
        f"c = Control({str(control.directory)!r}).open(); c.acquire(); c.heartbeat()\n"
        "print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as collector:
        try:
            assert collector.stdout is not None
            assert collector.stdout.readline() == "up\n"
            os.kill(collector.pid, signal.SIGSTOP)
            trip = control.trip("hard_kill", "host", **MANUAL)
            assert trip.on_disk
            assert trip.make_durable() < 10e9
        finally:
            collector.kill()


def test_prepared_files_of_dead_processes_are_taken_over_and_do_not_pile_up(control: Control) -> None:
    code = f"from argus.killswitch.control import Control; Control({str(control.directory)!r}).open().close()"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True)
    assert sum(n.startswith(".armed-") for n in names(control.directory)) == 4
    control.recover()
    assert sum(n.startswith(".armed-") for n in names(control.directory / "scopes")) == 1


# --- resets
# ------------------------------------------------------------------------------------------------------------


def test_reset_moves_the_flag_to_the_archive_and_clears_its_bit(control: Control) -> None:
    control.trip("hard_kill", "host", **AUTOMATIC)
    control.trip("write_lockdown", "host", **AUTOMATIC)
    control.trip("hard_kill", SESSION, **AUTOMATIC)
    record = control.reset("hard_kill", "host", actor="Ada Lovelace", reason=WHY)
    assert control.word.load()[0] == HOST_LOCKDOWN | NARROWER
    archived = control.directory / "archive" / record.archived
    assert json.loads(archived.read_bytes())["reason_code"] == "C1"
    assert control.resets() == [record]
    control.reset("hard_kill", SESSION, actor="Ada Lovelace", reason=WHY)
    control.reset("write_lockdown", "host", actor="Ada Lovelace", reason=WHY)
    assert control.word.load()[0] == 0
    assert control.flags() == []


def test_reset_by_the_directory_of_a_scope_whose_id_nobody_can_type(control: Control) -> None:
    control.trip("hard_kill", Scope(kind=ScopeKind.SESSION, id="\n; rm -rf ~"), **AUTOMATIC)
    control.reset("hard_kill", scope_directory("session", "\n; rm -rf ~"), actor="Ada", reason=WHY)
    assert control.flags() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actor": "", "reason": WHY}, "name of a person"),
        ({"actor": "  ", "reason": WHY}, "name of a person"),
        ({"actor": "argus", "reason": WHY}, "name of a person"),
        ({"actor": "Argus:engine", "reason": WHY}, "name of a person"),
        ({"actor": "Ada", "reason": "too short"}, "at least 10"),
        ({"actor": "Ada", "reason": "   a    b  "}, "at least 10"),
    ],
)
def test_reset_needs_a_named_person_with_a_reason(control: Control, arguments: dict[str, str], message: str) -> None:
    control.trip("hard_kill", "host", **AUTOMATIC)
    with pytest.raises(RefusedError, match=message):
        control.reset("hard_kill", "host", **arguments)
    assert control.word.load()[0] == HOST_KILL


def test_a_breach_needs_two_different_people(control: Control) -> None:
    control.trip("hard_kill", "host", reason="forged", reason_code="forged_source", actor="argus", automatic=True)
    for second in (None, "", "ada  LOVELACE", "argus"):
        with pytest.raises(RefusedError):
            control.reset("hard_kill", "host", actor="Ada Lovelace", second_actor=second, reason=WHY)
    assert len(control.flags()) == 1
    record = control.reset("hard_kill", "host", actor="Ada Lovelace", second_actor="Grace Hopper", reason=WHY)
    assert (record.actor, record.second_actor) == ("Ada Lovelace", "Grace Hopper")


def test_the_auditor_itself_cannot_reset_a_hard_kill(control: Control) -> None:
    control.acquire()
    control.trip("hard_kill", "host", **AUTOMATIC)
    with pytest.raises(RefusedError, match="found the auditor"):
        control.reset("hard_kill", "host", actor="Ada", reason=WHY)
    with Control(control.directory) as person:
        person.reset("hard_kill", "host", actor="Ada", reason=WHY)


def test_reset_of_nothing_says_so(control: Control) -> None:
    with pytest.raises(UsageError, match="no such flag"):
        control.reset("hard_kill", "session:none", actor="Ada", reason=WHY)


def test_lockdown_clears_itself_twice_a_day_and_then_waits_for_a_person(control: Control) -> None:
    for _ in range(2):
        control.trip("write_lockdown", SESSION, **AUTOMATIC)
        assert control.auto_clear(SESSION, reason="below half the threshold for 15 minutes").automatic
    control.trip("write_lockdown", SESSION, **AUTOMATIC)
    with pytest.raises(RefusedError, match="until a person resets"):
        control.auto_clear(SESSION, reason="again")
    control.trip("write_lockdown", "session:other", **MANUAL)
    with pytest.raises(RefusedError, match="a person must reset"):
        control.auto_clear("session:other", reason="a person set it")


# --- holds
# -------------------------------------------------------------------------------------------------------------


def test_hold_suppresses_automatic_trips_of_its_scope_and_of_what_is_inside(control: Control) -> None:
    control.hold("tenant:acme", 30, "Ada Lovelace", WHY)
    held = control.trip("hard_kill", SESSION, **AUTOMATIC)
    assert (held.held, held.shadow) == (True, True)
    assert not control.trip("hard_kill", "session:s2", **AUTOMATIC).held
    assert not control.trip("hard_kill", "tenant:other", **AUTOMATIC).held
    assert not control.trip("hard_kill", SESSION, **MANUAL).shadow


def test_hold_never_suppresses_an_absolute_budget(control: Control) -> None:
    control.hold("host", 30, "Ada Lovelace", WHY)
    assert control.trip("hard_kill", SESSION, **AUTOMATIC).held
    assert not control.trip("hard_kill", SESSION, absolute=True, **AUTOMATIC).shadow


def test_hold_ends_by_itself_by_release_and_when_either_clock_says_so(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = control.hold("host", 1, "Ada Lovelace", WHY)
    assert control.holds() == [hold]
    monkeypatch.setattr(time, "time_ns", lambda: hold.until + 1)
    assert control.holds() == []
    monkeypatch.setattr(time, "time_ns", lambda: hold.issued_at - 1)
    assert control.holds() == [], "the wall clock was set back: the hold does not grow"
    monkeypatch.undo()
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: hold.until_boot_ns + 1)
    assert control.holds() == []
    monkeypatch.undo()
    assert control.holds() == [hold]
    assert control.release("host", "Ada Lovelace", WHY)
    assert not control.release("host", "Ada Lovelace", WHY)
    assert not control.trip("hard_kill", "host", **AUTOMATIC).held


@pytest.mark.parametrize("minutes", [0, -1, 241, float("nan")])
def test_hold_has_bounds_and_needs_a_person(control: Control, minutes: float) -> None:
    with pytest.raises(RefusedError, match="240 minutes"):
        control.hold("host", minutes, "Ada Lovelace", WHY)
    with pytest.raises(RefusedError, match="name of a person"):
        control.hold("host", 5, "argus", WHY)


@pytest.mark.parametrize("raw", [b"", b"{", b'{"holds": 3}', b"\xff" * 99])
def test_an_override_file_that_cannot_be_read_holds_nothing(control: Control, raw: bytes) -> None:
    (control.directory / "override.json").write_bytes(raw)
    assert not control.trip("hard_kill", "host", **AUTOMATIC).shadow


# --- readers
# -----------------------------------------------------------------------------------------------------------


def test_guards_are_listed_while_they_live(control: Control) -> None:
    with Guard(control.directory, ["tenant:acme"]):
        with Guard(control.directory, ["session:s1", "session:s2"]) as guard:
            assert [sorted(g.scopes) for g in control.guards()] == [["tenant:acme"], ["session:s1", "session:s2"]]
            assert [g.pid for g in control.guards()] == [os.getpid()] * 2
            assert guard.state() is None
        assert [g.scopes for g in control.guards()] == [["tenant:acme"]]
    assert control.guards() == []


def test_announcements_of_the_dead_of_others_and_of_nonsense_do_not_count(control: Control) -> None:
    with Guard(control.directory, ["session:s1"]):
        (path,) = (control.directory / "guards").glob("*.json")
        good = json.loads(path.read_text())
    place = control.directory / "guards"

    def announce(name: str, **changes: object) -> None:
        (place / name).write_text(json.dumps(good | changes))

    announce("1.json", start_time=good["start_time"] + 10_000_000)
    announce("2.json", boot_id="another boot")
    announce("3.json", pid=2**22 + 1)
    announce("4.json", pid="x")
    announce(".5.json")
    announce("6.txt")
    announce("7.json", scopes="session:s1")
    (place / "8.json").write_bytes(b"\x00" * 99_999)
    (place / "9.json").symlink_to("1.json")
    os.mkfifo(place / "10.json")
    assert control.guards() == []
    announce("11.json")
    assert len(control.guards()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")
def test_an_announcement_for_somebody_elses_process_does_not_count(control: Control) -> None:
    """An agent may not claim that another user's process reads its scope."""
    with Guard(control.directory, ["session:s1"]):
        (path,) = (control.directory / "guards").glob("*.json")
        os.chown(path, 12345, -1)
        assert control.guards() == []


# --- recovery
# ----------------------------------------------------------------------------------------------------------


def test_recover_rebuilds_the_word_from_the_files(control: Control) -> None:
    control.trip("write_lockdown", "host", **AUTOMATIC)
    control.trip("write_lockdown", SESSION, **AUTOMATIC)
    control.word.replace_bits(0)
    found = control.recover()
    assert (found.bits_before, found.bits) == (0, HOST_LOCKDOWN | NARROWER)
    control.word.replace_bits(NARROWER | HOST_LOCKDOWN | 64)
    assert control.recover().bits == HOST_LOCKDOWN | NARROWER
    epoch = control.word.load()[1]
    assert control.recover().epoch == epoch, "nothing to do starts no epoch"


def test_recover_completes_a_trip_that_was_interrupted_before_its_flag(control: Control) -> None:
    control.word.raise_bits(HOST_KILL)
    found = control.recover()
    assert (found.completed, found.bits) == ([StopKind.HARD_KILL], HOST_KILL)
    assert (control.read("hard_kill", "host") or {})["reason_code"] == "interrupted_trip"


def test_recover_finishes_a_reset_that_was_interrupted_after_its_move(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two people cleared does not come back because the process died before it could say so."""
    control.trip("hard_kill", "host", **AUTOMATIC)
    monkeypatch.setattr(Control, "_settle", lambda self: None)
    control.reset("hard_kill", "host", actor="Ada", reason=WHY)
    monkeypatch.undo()
    assert control.word.load()[0] == HOST_KILL
    found = control.recover()
    assert (found.completed, found.bits) == ([], 0)


def test_recover_ignores_and_removes_unfinished_files(control: Control) -> None:
    (control.directory / ".taken-4194305-00").write_text("{")
    found = control.recover()
    assert (found.removed, found.bits) == (1, 0)
    assert control.flags() == []


def _trip_and_reset(path: Path, ready: int) -> None:
    with Control(path) as control:
        os.write(ready, b"x")
        for number in range(10_000):
            session = f"session:{number % 7}"
            for kind, scope in (("hard_kill", "host"), ("write_lockdown", session), ("write_lockdown", "host")):
                cause = {"reason": f"cause {number}", "reason_code": "C1", "actor": "a", "automatic": False}
                control.trip(kind, scope, **cause).make_durable()
                if number % 2:
                    with suppress(UsageError, RefusedError):
                        control.reset(kind, scope, actor="Ada", second_actor="Grace", reason=WHY)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_moment_a_flag_is_whole_or_absent_and_the_word_agrees_after_recovery(tmp_path: Path) -> None:
    """SIGKILL between the steps of trips and resets, 40 times."""
    path = tmp_path / "control"
    Control(path).open().close()
    chance = random.Random(7)
    for round_number in range(40):
        read, write = os.pipe()
        worker = os.fork()
        if worker == 0:
            try:
                _trip_and_reset(path, write)
            finally:
                os._exit(1)
        os.read(read, 1)
        os.close(read)
        os.close(write)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        flags = set(path.rglob("*.flag"))
        for flag in flags:
            assert json.loads(flag.read_bytes())["reason"].startswith(("cause", "a trip was")), (round_number, flag)
        with Control(path) as control:
            control.recover()
            expected = 0
            for flag in path.rglob("*.flag"):
                bit = HOST_KILL if flag.name == "hard_kill.flag" else HOST_LOCKDOWN
                expected |= bit if flag.parent == path else NARROWER
            assert control.word.load()[0] == expected, round_number
            assert not [n for n in names(path) if n.startswith(".taken-")], round_number
            assert flags <= set(path.rglob("*.flag")), "recovery clears nothing"
