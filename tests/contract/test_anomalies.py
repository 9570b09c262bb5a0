"""Every anomaly of every auditor tells its scope, its value, what was expected and why, and the events behind it."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import argus
from argus.engine.core import EngineOptions, catalog
from argus.schema import Scope, ScopeKind, Severity
from argus.services.show import EVIDENCE_SHOWN, expectation, show

ROOT = Path(__file__).resolve().parents[2]
AUDITORS = [auditor["name"] for auditor in catalog()["auditors"]]
CRITERIA = {row["name"]: row["severity"] for row in catalog()["criteria"]}
T0 = 1_760_000_000_000_000_000
SECOND = 10**9
USD = 10**9
# What they say rests on many events, so they name several of them.
CUMULATIVE = ("budget", "cost", "forecast", "loop", "outcome")
SPENDING = ("token_cost_logged", "budget_reserved", "budget_settled")
CAPS = EngineOptions(
    caps_nusd={"session": USD // 10, "tenant": 3 * USD, "host": 20 * USD},
    auditors={"limits": {"session_tokens": 20_000, "session_wall_s": 200, "agent_tool_calls": 60}},
)
HOST_ONLY = {"claims"}  # rests on what the machine shows, which a replay has not

# Recorded data sets that make auditors speak, the caps they are replayed with.
RECORDED = ("agentdojo", "drift", "faults", "hdfs_test", "llmcost_azure_code")


def numbered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"v": 1, "id": f"e{n}", "ts": T0 + n * SECOND, "source": "s", "seq": n, **record}
        for n, record in enumerate(records, 1)
    ]


def runaway() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "examples" / "runaway.ndjson").read_text().splitlines()]


def spending() -> list[dict[str, Any]]:
    """A tenant that burns steadily towards its cap, and beyond."""
    return numbered(
        [
            {
                "type": "token_cost_logged",
                "tenant": "t",
                "session": f"s{n % 7}",
                "model": "m",
                "cost_nusd": 4_000_000 + n,
            }
            for n in range(1200)
        ]
    )


def order_faults() -> list[dict[str, Any]]:
    """Each kind of order fault once, from one lossless source."""

    def task(kind: str, name: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "session": "run", "task": name, **fields}

    records = [task("task_started", "a"), task("task_completed", "a"), task("tool_called", "a", tool="t")]
    records += [task("task_completed", "a"), task("task_completed", "never")]
    records += [task("tool_called", "b", tool="t", parent="nobody"), {"type": "lockdown_set", "session": "run"}]
    records += [task("file_written", "b", path="p"), task("task_started", "silent")]
    records += [task("tool_called", "b", tool="t", ts=T0 - 60 * SECOND), task("tool_called", "b", tool="t")]
    events = numbered(records)
    events.append({**events[-1], "tool": "other", "seq": len(events) + 1})
    late = len(events)
    return [
        *events,
        {**numbered([task("tool_called", "b", tool="t")])[0], "id": "l", "ts": T0 + 9 * 10**12, "seq": late + 9},
    ]


def switching() -> list[dict[str, Any]]:
    """An agent that succeeds, then fails."""
    return numbered(
        [
            {"type": "task_completed", "agent": "a", "session": f"s{n}", "task": f"t{n}", "ok": n < 150 or n % 5 == 0}
            for n in range(300)
        ]
    )


def limited() -> list[dict[str, Any]]:
    """Sessions that use up their tokens, calls and time."""
    return numbered(
        [
            {"type": "model_returned" if n % 2 else "tool_called", "tenant": "t", "agent": "a", "session": f"s{n % 3}",
             **({"input_tokens": 900, "output_tokens": 100} if n % 2 else {"tool": "search"})}
            for n in range(300)
        ]
    )  # fmt: skip


MADE = {
    "limited": limited,
    "runaway": runaway,
    "spending": spending,
    "order_faults": order_faults,
    "switching": switching,
}


def recorded(data: Path, name: str) -> Iterator[dict[str, Any]]:
    path = data / "events" / f"{name}.ndjson.gz"
    if not path.is_file():
        pytest.skip(f"recorded data: expected {path}, found no such file")
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)


def rests_on(anomaly: argus.Anomaly, events: list[dict[str, Any]]) -> int:
    """How many events it must name: three, where so many of its scope had come that count."""
    if anomaly.detector not in CUMULATIVE:
        return 1
    kind = anomaly.scope.kind.value
    own = [e for e in events if e["ts"] <= anomaly.ts and (kind == "host" or e.get(kind) == anomaly.scope.id)]
    if anomaly.detector in ("budget", "forecast"):
        own = [e for e in own if e["type"] in SPENDING]
    return max(1, min(EVIDENCE_SHOWN, len({e.get("call", e["id"]) for e in own})))


def wants(anomaly: argus.Anomaly, ids: set[str], least: int) -> list[str]:
    """What the anomaly lacks of the contract; `least` is how many events it must name."""
    lacks = []

    def need(holds: bool, what: str) -> None:
        if not holds:
            lacks.append(f"{anomaly.series}: {what}")

    scope = anomaly.scope
    need(anomaly.detector in AUDITORS and anomaly.series.startswith(anomaly.detector + "."), "the auditor's name")
    need(scope.kind is ScopeKind.HOST or scope.id != "", "whom it is about")
    need(scope.kind is ScopeKind.HOST or getattr(scope, scope.kind.value) in ("", scope.id), "one name a scope")
    need(anomaly.value is not None and math.isfinite(anomaly.value), "a value")
    need(expectation(anomaly) != "", "what was expected")
    need(anomaly.expected is None or math.isfinite(anomaly.expected), "a finite expectation")
    need(len(anomaly.message.split()) >= 4, "why, in words")
    need(0 < anomaly.since <= anomaly.ts, f"since when: {anomaly.since} of {anomaly.ts}")
    need(1 <= len(anomaly.evidence) <= 8, "one to eight events")
    need(len(set(anomaly.evidence)) == len(anomaly.evidence), "each event once")
    need(set(anomaly.evidence) <= ids, f"events that were told: {sorted(set(anomaly.evidence) - ids)[:3]}")
    need(len(anomaly.evidence) >= least, f"{least} contributing events, not {anomaly.evidence}")
    need(anomaly.bits > 0 or anomaly.detector == "forecast", "its surprise")
    if anomaly.severity is Severity.INFO:
        need(anomaly.criterion == "", "no criterion where nothing is asked for")
    else:
        need(CRITERIA.get(anomaly.criterion) == anomaly.severity, "the criterion that gave its severity")
    return lacks


def assert_contract(events: list[dict[str, Any]], config: EngineOptions) -> set[str]:
    anomalies = argus.replay(events, config=config).anomalies
    ids = {event["id"] for event in events}
    assert sorted({lack for a in anomalies for lack in wants(a, ids, rests_on(a, events))}) == []
    return {anomaly.detector for anomaly in anomalies}


@pytest.mark.parametrize("name", MADE)
def test_anomalies_of_a_made_stream_keep_the_contract_and_their_events_can_be_shown(tmp_path: Path, name: str):
    events = MADE[name]()
    assert assert_contract(events, CAPS)
    log = tmp_path / "events.ndjson"
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    for anomaly in argus.replay(log, config=CAPS).anomalies:
        shown = show(anomaly.evidence[:EVIDENCE_SHOWN], logs=[log], journal=None)
        assert shown.missing == []
        assert {found.name for found in shown.found} == set(anomaly.evidence[:EVIDENCE_SHOWN])


def test_every_kind_of_order_fault_speaks_in_the_made_stream():
    said = {a.series for a in argus.replay(order_faults()).anomalies if a.detector == "causal"}
    assert said == {
        f"causal.{kind}"
        for kind in (
            "clock_backwards",
            "completed_without_started",
            "duplicate_id",
            "duplicate_terminal",
            "event_after_terminal",
            "missing_terminal",
            "orphan_parent",
            "seq_gap",
            "write_after_lockdown",
        )
    }


def test_every_auditor_speaks_on_recorded_events_and_keeps_the_contract(data: Path):
    spoke = set()
    for name in RECORDED:
        spoke |= assert_contract(list(recorded(data, name)), CAPS)
    for made in MADE.values():
        spoke |= assert_contract(made(), CAPS)
    assert sorted(set(AUDITORS) - spoke - HOST_ONLY) == [], (
        "give each a recorded or made stream above on which it speaks"
    )


def test_the_costliest_calls_are_the_evidence_of_a_cap():
    events = spending()
    for n, nusd in ((10, 50 * 10**6), (20, 80 * 10**6), (30, 60 * 10**6)):
        events[n]["cost_nusd"] = nusd
    (cap,) = [
        a for a in argus.replay(events, config=CAPS).anomalies if a.series == "budget.cap" and a.scope.kind == "tenant"
    ]
    assert cap.evidence[1:] == [events[20]["id"], events[30]["id"], events[10]["id"]]


def test_a_second_end_names_the_first():
    (second,) = [a for a in argus.replay(order_faults()).anomalies if a.series == "causal.duplicate_terminal"]
    assert second.evidence == ["e4", "e2"]
    assert (second.value, second.expected) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"expected": 3.0, "lower": 1.0, "upper": 4.0}, "3 (1 to 4)"),
        ({"expected": 0.0}, "0"),
        ({"lower": 1.0, "upper": 4.0}, "1 to 4"),
        ({"upper": 4.0}, "less than 4"),
        ({"lower": 1.0}, "more than 1"),
        ({}, ""),
    ],
)
def test_an_expectation_is_told_in_words(fields: dict[str, float], words: str):
    anomaly = argus.Anomaly(
        id="a",
        ts=1,
        host="h",
        family="causal",  # type: ignore[arg-type]
        detector="causal",
        scope=Scope(ScopeKind.HOST, ""),
        series="causal.x",
        severity=Severity.INFO,
        message="m",
        **fields,  # type: ignore[arg-type]
    )
    assert expectation(anomaly) == words
