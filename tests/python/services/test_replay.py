"""Replays: any source of events, the same judgement; what is not an event is counted, a file that is not there is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import argus
from argus.engine.core import EngineOptions
from argus.errors import UnreachableError, UsageError
from argus.schema import ScopeKind, Severity, StopKind
from argus.services.replay import ReplayReport

RUNAWAY = Path(__file__).resolve().parents[3] / "examples" / "runaway.ndjson"
T0 = 1_760_000_000_000_000_000
SECOND = 10**9
USD = 10**9


def cost(number: int, nusd: int, **fields: Any) -> dict[str, Any]:
    event = {"v": 1, "id": f"e{number}", "type": "token_cost_logged", "ts": T0 + number * SECOND, "source": "s"}
    return {**event, "seq": number, "session": "run", "model": "m", "cost_nusd": nusd, **fields}


def capped(nusd: int = USD, **options: Any) -> EngineOptions:
    return EngineOptions(caps_nusd={"session": nusd}, **options)


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RUNAWAY.read_text().splitlines()]


def write(folder: Path, *lines: bytes) -> Path:
    path = folder / "events.ndjson"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def packed(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


# --- Sources ---------------------------------------------------------------------------------------------------------


def test_a_file_its_archive_its_dicts_and_a_generator_give_the_same_report(tmp_path: Path):
    archive = tmp_path / "events.ndjson.gz"
    archive.write_bytes(gzip.compress(RUNAWAY.read_bytes()))

    def stream() -> Iterator[dict[str, Any]]:
        yield from records()

    expected = argus.replay(RUNAWAY)
    assert expected.stops
    for source in (str(RUNAWAY), archive, records(), stream()):
        assert argus.replay(source) == expected


@pytest.mark.parametrize("name", ["absent.ndjson", "absent.ndjson.gz", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    with pytest.raises(UnreachableError) as refused:
        argus.replay(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)
    assert refused.value.exit_code == 3


def test_an_empty_stream_is_an_empty_report(tmp_path: Path):
    empty = ReplayReport(anomalies=[], incidents=[], stops=[], events=0, rejected={}, last_ts=0)
    assert argus.replay([]) == empty
    assert argus.replay(write(tmp_path)) == empty
    assert argus.replay(write(tmp_path, b"", b"  ", b"\t")) == empty


def test_an_option_that_is_wrong_is_refused_before_anything_is_read(tmp_path: Path):
    with pytest.raises(UsageError, match=r"caps_nusd\.session"):
        argus.replay(tmp_path / "absent", config=capped(-1))


# --- What is no event ------------------------------------------------------------------------------------------------


def test_lines_and_events_that_are_none_are_counted_by_reason_and_stop_nothing(tmp_path: Path):
    path = write(
        tmp_path,
        packed(cost(1, USD // 2)),
        b"nonsense",
        b"[1]",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        packed({"v": 1}),
        packed({**cost(2, 1), "ts": "late"}),
        packed({**cost(2, 1), "v": 9}),
        packed(cost(2, USD // 2)),
    )
    report = argus.replay(path, config=capped())
    assert report.rejected == {
        "not_json": 1,
        "not_object": 1,
        "duplicate_key": 1,
        "not_finite": 1,
        "bad_utf8": 1,
        "missing_key": 1,
        "wrong_type": 1,
        "unsupported_version": 1,
    }
    assert report.events == 2
    assert [s.criterion for s in report.stops if s.kind is StopKind.HARD_KILL] == ["C1"]


def test_only_bad_lines_are_counted_although_no_event_is_left(tmp_path: Path):
    report = argus.replay(write(tmp_path, b"{", b"{"))
    assert (report.events, report.rejected) == (0, {"not_json": 2})


def test_a_file_that_ends_within_an_event_counts_the_torn_line(tmp_path: Path):
    path = tmp_path / "torn.ndjson"
    path.write_bytes(packed(cost(1, 1)) + b"\n" + packed(cost(2, 1))[:40])
    report = argus.replay(path)
    assert (report.events, report.rejected) == (1, {"torn_line": 1})


def test_a_torn_archive_is_judged_as_far_as_it_goes(tmp_path: Path):
    path = tmp_path / "torn.ndjson.gz"
    whole = gzip.compress(RUNAWAY.read_bytes())
    path.write_bytes(whole[: len(whole) - 200])
    report = argus.replay(path)
    assert report.rejected["torn_archive"] == 1
    assert report.events <= len(records())


def test_dicts_that_no_bus_could_carry_are_counted():
    report = argus.replay([cost(1, 1), {"a": object()}, {"a": float("nan")}, {"a": 2**70}])
    assert report.events == 1
    assert report.rejected == {"not_encodable": 1, "not_finite": 1, "integer_range": 1}


# --- The report ------------------------------------------------------------------------------------------------------


def test_the_report_holds_together():
    report = argus.replay(RUNAWAY)
    assert report.events == len(records())
    assert report.rejected == {}
    assert report.last_ts == max(record["ts"] for record in records())
    incidents = {incident.id: incident for incident in report.incidents}
    assert len(incidents) == len(report.incidents)
    assert sum(incident.count for incident in report.incidents) == len(report.anomalies)
    for stop in report.stops:
        assert stop.reason
        assert stop.criterion in {a.criterion for a in report.anomalies}
        assert incidents[stop.incident].severity is Severity.CRITICAL or stop.kind is StopKind.WRITE_LOCKDOWN
    stamps = [anomaly.ts for anomaly in report.anomalies]
    assert min(stamps) >= records()[0]["ts"]
    assert {anomaly.id for incident in report.incidents for anomaly in report.anomalies} >= {
        name for incident in report.incidents for name in incident.anomalies
    }


def test_stops_latch_one_a_kind_and_session():
    events = [cost(1, 8 * USD // 10), cost(2, 2 * USD // 10)]
    events += [cost(number, USD) for number in range(3, 40)]
    events += [cost(number, 2 * USD, session="other") for number in range(40, 44)]
    stops = argus.replay(events, config=capped()).stops
    assert [(s.kind.value, s.scope.id, s.ts) for s in stops] == [
        ("write_lockdown", "run", T0 + SECOND),
        ("hard_kill", "run", T0 + 2 * SECOND),
        ("hard_kill", "other", T0 + 40 * SECOND),
    ]


def test_a_guard_is_assumed_on_every_session_and_on_nothing_else():
    stops = argus.replay([cost(1, USD)], config=capped()).stops
    assert [s.scope.kind for s in stops] == [ScopeKind.SESSION]
    del (homeless := cost(1, USD))["session"]
    stops = argus.replay([homeless], config=EngineOptions(caps_nusd={"host": USD})).stops
    assert [s.scope.kind for s in stops] == [ScopeKind.HOST]


def test_deadlines_run_on_event_time_up_to_the_last_ts_and_not_beyond():
    def task(number: int, kind: str, name: str, at: int) -> dict[str, Any]:
        record = {"v": 1, "id": f"t{number}", "type": kind, "ts": T0 + at * SECOND, "source": "s", "seq": number}
        return {**record, "session": "run", "task": name}

    shown = [task(1, "task_started", "a", 0), task(2, "task_completed", "a", 1), task(3, "task_started", "t", 2)]
    late = argus.replay([*shown, task(4, "task_started", "u", 2000)])
    assert [a.series for a in late.anomalies if a.scope.id == "t"] == ["causal.missing_terminal"]
    assert late.last_ts == T0 + 2000 * SECOND
    assert all(a.ts <= late.last_ts for a in late.anomalies)
    assert [s for s in argus.replay([*shown, cost(4, 1)]).stops if s.kind is StopKind.HARD_KILL] == []


def test_a_replay_is_repeatable_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert argus.replay(RUNAWAY) == argus.replay(RUNAWAY)
    assert list(tmp_path.iterdir()) == []


def test_criteria_that_are_off_stop_nothing():
    off = frozenset({"C1", "C2", "C4", "C5", "W1", "W2", "W3", "W4", "W5", "W8", "W9"})
    report = argus.replay(RUNAWAY, config=EngineOptions(disabled=off))
    assert report.stops == []
    assert report.anomalies
    assert {a.severity for a in report.anomalies} == {Severity.INFO}
