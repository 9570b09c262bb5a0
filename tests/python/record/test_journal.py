"""The journal: acknowledged means on disk, nothing is lost in silence, one writer, and it continues what it finds."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argus.errors import JournalError, RefusedError, UnreachableError, UsageError
from argus.record.journal import Journal, read
from argus.record.keys import open_keys
from argus.record.verify import verify
from argus.schema import Scope, ScopeKind, Stop, StopKind


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    stop = Stop(ts=5, kind=StopKind.HARD_KILL, scope=Scope(ScopeKind.SESSION, "s"), reason="cap", incident="i")
    with Journal(tmp_path / "journal.db", tmp_path / "keys", clock=lambda: 77) as journal:
        assert journal.append("stop", {"stop": stop, "n": 1}, actor="ann") == 1
        assert journal.append("sample", {"bytes": b"\0\xff"}, ts=12) == 2
        assert journal.committed == 0 and journal.pending == 2
        mark = journal.commit()
        assert (mark.seq, mark.count, mark.n, journal.pending) == (2, 2, 1, 0)
    first, second = read(tmp_path / "journal.db")
    assert (first.seq, first.ts, first.kind, first.actor) == (1, 77, "stop", "ann")
    assert first.payload["stop"]["kind"] == "hard_kill" and first.payload["n"] == 1
    assert (second.ts, second.actor, second.payload) == (12, "argus", {"bytes": b"\0\xff"})
    assert [r.seq for r in read(tmp_path / "journal.db", kind="sample")] == [2]
    assert [r.seq for r in read(tmp_path / "journal.db", after=1, limit=5)] == [2]


def test_files_are_private_and_the_wal_is_folded_in_on_close(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Journal(home / "journal.db", home / "keys") as journal:
        journal.append("a", {})
        journal.commit()
        assert journal._db is not None
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert stat.S_IMODE((home / "journal.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert sorted(p.name for p in home.iterdir()) == ["journal.db", "journal.db.lock", "keys"]


def test_reopening_continues_the_chain_in_a_new_epoch(tmp_path: Path) -> None:
    for expected in range(1, 4):
        with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
            assert journal.append("opened", {}) == expected
            assert journal.commit().epoch == expected
            head = journal.head
    report = verify(tmp_path / "journal.db", tmp_path / "keys" / "journal.pub")
    assert (report.ok, report.records, report.checkpoints, report.head) == (True, 3, 4, head)


def test_commit_of_nothing_writes_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        assert journal.commit() is journal.commit()
        assert journal.checkpoint.n == 0


@pytest.mark.parametrize(
    "arguments",
    [("", {}), ("k" * 65, {}), ("k", {"x": object()}), ("k", [1]), ("k", {"x": "y" * (1 << 20)}), ("\ud800", {})],
    ids=["no kind", "long kind", "object", "list", "big", "surrogate"],
)
def test_impossible_records_are_refused_and_leave_no_trace(tmp_path: Path, arguments: tuple[str, Any]) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        with pytest.raises(UsageError, match="not appended"):
            journal.append(*arguments)
        with pytest.raises(UsageError, match="int64"):
            journal.append("k", {}, ts=1 << 63)
        assert (journal.pending, journal.append("k", {})) == (0, 1)


def test_second_writer_is_refused_here_and_in_another_process(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        with pytest.raises(RefusedError, match=f"pid {os.getpid()}.*Stop that process"):
            Journal(tmp_path / "journal.db", tmp_path / "keys")
        code = "import sys; from argus.record.journal import Journal; Journal(sys.argv[1], sys.argv[1] + '-keys')"
        done = subprocess.run(
            [sys.executable, "-c", code, str(journal.path)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1 and "RefusedError" in done.stderr
        journal.append("still", {})
        journal.commit()
    Journal(tmp_path / "journal.db", tmp_path / "keys").close()


def test_changes_through_sql_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        journal.append("a", {})
    db = sqlite3.connect(tmp_path / "journal.db")
    for sql in [
        "UPDATE records SET actor = 'eve'", "DELETE FROM records", "UPDATE checkpoints SET seq = 0",
        "DELETE FROM checkpoints", "UPDATE meta SET value = x'00'", "DELETE FROM meta",
        "INSERT OR REPLACE INTO records VALUES (1, 1, 'a', 'eve', x'80', x'00', x'00')",
        "INSERT INTO records VALUES (5, 1, 'a', 'eve', x'80', x'00', x'00')",
        "INSERT OR REPLACE INTO meta VALUES ('id', x'00')",
        "INSERT OR REPLACE INTO checkpoints SELECT * FROM checkpoints",
    ]:  # fmt: skip
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(sql)
    db.close()


def test_full_disk_keeps_the_records_and_the_next_commit_writes_them(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        assert journal._db is not None
        journal.append("first", {})
        journal.commit()
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        for i in range(200):
            journal.append("big", {"i": i, "x": "y" * 200})
        for attempt in (1, 2):
            with pytest.raises(JournalError, match=r"200 records, found: database or disk is full.*free space"):
                journal.commit()
            assert (journal.pending, journal.committed, journal.failed_commits) == (200, 1, attempt)
        journal._db.execute("PRAGMA max_page_count = 1000000")
        journal.append("after", {})
        journal.commit()
        assert (journal.pending, journal.committed) == (0, 202)
    assert verify(tmp_path / "journal.db", tmp_path / "keys" / "journal.pub").records == 202


class _FailingDb:
    """A connection whose COMMIT fails with an I/O error, before or after it took effect."""

    def __init__(self, real: sqlite3.Connection, *, after: bool) -> None:
        self._real = real
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *args: Any) -> Any:
        if sql == "COMMIT":
            if self._after:
                self._real.execute(sql)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC  # type: ignore[misc]
            raise error
        return self._real.execute(sql, *args)


@pytest.mark.parametrize("reached_disk", [False, True])
def test_after_an_io_error_the_file_decides_and_nothing_is_written_twice(tmp_path: Path, reached_disk: bool) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        assert journal._db is not None
        journal._db = _FailingDb(journal._db, after=reached_disk)  # type: ignore[assignment]
        journal.append("a", {})
        journal.append("b", {})
        with pytest.raises(JournalError, match="disk I/O error; not durable"):
            journal.commit()
        assert journal.pending == 2
        journal.append("c", {})
        journal.commit()
        assert (journal.pending, journal.committed) == (0, 3)
    assert [r.kind for r in read(tmp_path / "journal.db")] == ["a", "b", "c"]
    assert verify(tmp_path / "journal.db", tmp_path / "keys" / "journal.pub").ok


_LIMITED = """
import os, resource, sys
from argus.errors import JournalError
from argus.record.journal import Journal
journal = Journal(sys.argv[1], sys.argv[2])
journal.append("first", {})
journal.commit()
size = os.path.getsize(sys.argv[1] + "-wal")
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 6000, resource.RLIM_INFINITY))
for i in range(100):
    journal.append("big", {"x": "y" * 500})
for _ in range(3):
    try:
        journal.commit()
        raise SystemExit("committed beyond the limit")
    except JournalError as error:
        assert "100 records" in str(error) and journal.pending == 100, error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.commit()
assert journal.committed == 101
journal.close()
"""


def test_writes_that_the_kernel_refuses_are_told_and_made_good_later(tmp_path: Path) -> None:
    """A real write error (the process may not grow the file) leaves every record in memory until the disk takes it."""
    arguments = [sys.executable, "-c", _LIMITED, str(tmp_path / "journal.db"), str(tmp_path / "keys")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "journal.db", tmp_path / "keys" / "journal.pub").records == 101


def test_buffer_is_bounded(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys", buffer_limit=3) as journal:
        for _ in range(3):
            journal.append("a", {})
        with pytest.raises(JournalError, match="3 waiting to be committed; not appended"):
            journal.append("a", {})
        journal.commit()
        assert journal.append("a", {}) == 4


def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.db"
    rubbish.write_bytes(b"not a database at all" * 100)
    with pytest.raises(JournalError, match="file is not a database"):
        Journal(rubbish, tmp_path / "keys")
    assert rubbish.read_bytes() == b"not a database at all" * 100
    other = tmp_path / "other.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE t (a)")
    db.close()
    before = other.read_bytes()
    with pytest.raises(JournalError, match="another SQLite file"):
        Journal(other, tmp_path / "keys")
    assert other.read_bytes() == before
    with pytest.raises(UnreachableError):
        next(read(tmp_path / "absent.db"))
    with pytest.raises(JournalError, match="reading ends here"):
        next(read(rubbish))


def test_opening_refuses_a_tail_that_does_not_verify(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path, tmp_path / "keys") as journal:
        journal.append("a", {"n": 1})
    with pytest.raises(JournalError, match="signed by key"):
        Journal(path, tmp_path / "other-keys")
    db = sqlite3.connect(path)
    trigger = db.execute("SELECT sql FROM sqlite_master WHERE name = 'records_no_update'").fetchone()[0]
    db.execute("DROP TRIGGER records_no_update")
    db.execute("UPDATE records SET actor = 'eve'")
    db.commit()
    with pytest.raises(JournalError, match="records_no_update"):
        Journal(path, tmp_path / "keys")
    db.execute(trigger)
    db.commit()
    with pytest.raises(JournalError, match="expected record 1 as it was chained"):
        Journal(path, tmp_path / "keys")
    db.close()


def test_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", tmp_path / "keys")
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="found it closed"):
        journal.append("a", {})


_WRITER = """
import sys
from argus.record.journal import Journal
journal = Journal(sys.argv[1], sys.argv[2])
print("open", flush=True)
while True:
    for _ in range(7):
        seq = journal.append("work", {"x": "y" * 100})
    journal.commit()
    sys.stdout.write(f"{seq}\\n"); sys.stdout.flush()
"""


def test_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    """SIGKILL at 20 different moments: every acknowledged record is there, the chain verifies, the next writer goes
    on.
    """
    path, keys = tmp_path / "journal.db", tmp_path / "keys"
    open_keys(keys)
    acknowledged = 0
    for round_number in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(keys)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        time.sleep(0.0017 * round_number)
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().split("\n")
        child.wait()
        child.stdout.close()
        acknowledged = max([acknowledged, *(int(line) for line in said[:-1])])
        report = verify(path, keys / "journal.pub")
        assert report.ok, report
        assert report.last_seq >= acknowledged
        assert report.last_seq % 7 == 0
    assert acknowledged > 0
    with Journal(path, keys) as journal:
        assert journal.committed >= acknowledged


_payloads = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(),
    max_size=4,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(_payloads, max_size=5), max_size=5), kind=st.text(min_size=1, max_size=16))
def test_any_content_verifies_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, groups: list[Any], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder / "journal.db", folder / "keys") as journal:
        for group in groups:
            for payload in group:
                journal.append(kind, payload, actor=kind)
            journal.commit()
    flat = [payload for group in groups for payload in group]
    assert [(r.kind, r.actor, r.payload) for r in read(folder / "journal.db")] == [(kind, kind, p) for p in flat]
    report = verify(folder / "journal.db", folder / "keys" / "journal.pub")
    assert (report.ok, report.records) == (True, len(flat))
