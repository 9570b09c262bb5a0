"""The journal's writer thread: never blocks its callers, sheds samples before decisions, counts and reports what it
sheds.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from argus.errors import ArgusError, JournalError, UsageError
from argus.record.chain import Checkpoint
from argus.record.journal import Journal, read
from argus.record.verify import verify
from argus.record.writer import Durable, JournalWriter


class _Gate(Journal):
    """A journal whose commits wait for the test, or fail."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()
        self.fail = False

    def commit(self) -> Checkpoint:
        if not self.open.is_set():
            self.waiting.set()
            assert self.open.wait(20)
        if self.fail:
            raise JournalError("disk full: test")
        return super().commit()


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    with _Gate(tmp_path / "journal.db", tmp_path / "keys") as opened:
        yield opened
        opened.fail = False


def kinds(journal: Journal) -> list[str]:
    return [record.kind for record in read(journal.path)]


def test_records_become_durable_in_order_and_say_when(journal: _Gate) -> None:
    seen: list[Durable | None] = []
    with JournalWriter(journal, interval_s=0.002) as writer:
        for i in range(500):
            assert writer.put(f"k{i}", {"i": i}, decision=i % 2 == 0, on_durable=seen.append)
        future = writer.submit("last", {})
        durable = future.result(timeout=20)
        assert writer.flush(20)
        assert durable.seq == 501 and durable.time_ns > 0
        assert [d.seq for d in seen if d] == list(range(1, 501))
        about = writer.statistics()
        assert (about.accepted, about.written, about.queued, about.error) == (501, 501, 0, "")
    assert kinds(journal) == [f"k{i}" for i in range(500)] + ["last"]


def test_full_queue_sheds_samples_first_and_writes_how_many(journal: _Gate) -> None:
    journal.open.clear()
    with JournalWriter(journal, interval_s=0.001, queue_limit=10) as writer:
        writer.put("first", {}, urgent=True)
        assert journal.waiting.wait(20)
        answers: list[Durable | None] = []
        for i in range(9):
            assert writer.put(f"sample{i}", {}, decision=False, on_durable=answers.append)
        assert not writer.put("sample9", {}, decision=False)
        for i in range(9):
            assert writer.put(f"decision{i}", {})
        assert answers == [None] * 9
        assert not writer.put("decision9", {})
        with pytest.raises(JournalError, match="shed"):
            writer.submit("decision10", {}).result(1)
        about = writer.statistics()
        assert (about.shed_samples, about.shed_decisions, about.shed_after_accepting, about.queued) == (10, 2, 9, 10)
        journal.open.set()
        assert writer.flush(20)
        about = writer.statistics()
        assert about.accepted == about.written + about.rejected + about.queued + about.shed_after_accepting
    assert kinds(journal) == ["first", "journal_shed", *(f"decision{i}" for i in range(9))]
    (told,) = read(journal.path, kind="journal_shed")
    assert told.payload == {"samples": 10, "decisions": 2}


def test_failing_commit_is_reported_each_time_and_loses_nothing(journal: _Gate) -> None:
    errors: list[ArgusError] = []
    journal.fail = True
    with JournalWriter(journal, interval_s=0.001, on_error=errors.append) as writer:
        future = writer.submit("a", {})
        writer.put("b", {})
        for _ in range(2):
            with pytest.raises(JournalError, match="disk full"):
                writer.flush(20)
        assert not future.done() and errors
        assert writer.statistics().error == "disk full: test"
        journal.fail = False
        assert writer.flush(20)
        assert future.result(1).seq == 1
        about = writer.statistics()
        assert (about.written, about.error) == (2, "") and about.failed_commits == len(errors)
    assert kinds(journal) == ["a", "b"]
    assert verify(journal.path, journal.public_key_path).ok


def test_close_says_how_many_are_not_durable(journal: _Gate) -> None:
    journal.fail = True
    writer = JournalWriter(journal, interval_s=0.001)
    writer.put("a", {})
    assert writer.close() == 1
    assert not writer.put("late", {})


def test_record_that_cannot_be_encoded_is_rejected_alone(journal: _Gate) -> None:
    errors: list[ArgusError] = []
    with JournalWriter(journal, interval_s=0.001, on_error=errors.append) as writer:
        good, bad = writer.submit("good", {}), writer.submit("bad", {"x": object()})
        assert good.result(20).seq == 1
        with pytest.raises(JournalError):
            bad.result(20)
        assert writer.flush(20)
        assert writer.statistics().rejected == 1
    assert isinstance(errors[0], UsageError)


def test_timestamps_are_those_of_put(tmp_path: Path) -> None:
    now = [100]
    with Journal(tmp_path / "journal.db", tmp_path / "keys", clock=lambda: now[0]) as journal:
        with JournalWriter(journal, interval_s=10.0) as writer:
            writer.put("a", {})
            now[0] = 200
            assert writer.flush(20)
        assert [record.ts for record in read(journal.path)] == [100]


def test_many_threads(journal: _Gate) -> None:
    with JournalWriter(journal, interval_s=0.002) as writer:
        threads = [threading.Thread(target=lambda: [writer.put("t", {"i": i}) for i in range(200)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.flush(20)
    report = verify(journal.path, journal.public_key_path)
    assert (report.ok, report.records) == (True, 1600)
