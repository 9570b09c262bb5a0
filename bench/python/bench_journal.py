"""Journal: records made durable per second, a single decision to disk, verification. Run: pytest
bench/python/bench_journal.py

Durable means SQLite's WAL with synchronous=FULL on the file system of pytest's temporary directory (--basetemp names
another one): the figure is that of its disk and cache as much as of this code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus.record.journal import Journal
from argus.record.verify import verify
from argus.record.writer import JournalWriter

_PAYLOAD = {"id": "a1", "series": "system.cpu.utilization", "value": 0.97, "bits": 31.5, "message": "x" * 120}
_GROUP = 1000


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as opened:
        yield opened


@pytest.mark.benchmark(group="journal_commit/group/1000")
def test_journal_commit_group(benchmark: Any, journal: Journal) -> None:
    """One group of 1,000 records: hash, write, sign, fsync."""

    def group() -> None:
        for _ in range(_GROUP):
            journal.append("anomaly", _PAYLOAD)
        journal.commit()

    group()
    assert journal.committed == _GROUP
    benchmark.pedantic(group, rounds=30, warmup_rounds=1)
    benchmark.extra_info["records_per_s"] = _GROUP / benchmark.stats.stats.median
    assert verify(journal.path, journal.public_key_path).records == journal.committed


@pytest.mark.benchmark(group="journal_commit/single/1")
def test_journal_commit_single(benchmark: Any, journal: Journal) -> None:
    """One decision alone: append to durable."""

    def single() -> None:
        journal.append("flag_set", _PAYLOAD)
        journal.commit()

    benchmark.pedantic(single, rounds=300, warmup_rounds=5)
    assert verify(journal.path, journal.public_key_path).records == journal.committed


@pytest.mark.benchmark(group="journal_writer/put/1")
def test_journal_writer_put(benchmark: Any, journal: Journal) -> None:
    """What a caller pays to hand a sample to the writer thread."""
    with JournalWriter(journal, queue_limit=1_000_000) as writer:
        benchmark.pedantic(writer.put, args=("sample", _PAYLOAD), kwargs={"decision": False}, rounds=50, iterations=200)
        assert writer.flush(60)
        about = writer.statistics()
    assert about.written == about.accepted and about.shed_samples == 0


@pytest.mark.benchmark(group="journal_verify/records/20000")
def test_journal_verify(benchmark: Any, tmp_path: Path) -> None:
    """Verification of 20,000 records at rest."""
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        for i in range(20_000):
            journal.append("anomaly", _PAYLOAD)
            if i % _GROUP == 0:
                journal.commit()
    report = benchmark.pedantic(verify, args=(journal.path, journal.public_key_path), rounds=5, warmup_rounds=1)
    assert report.ok and report.records == 20_000
    benchmark.extra_info["records_per_s"] = 20_000 / benchmark.stats.stats.median
