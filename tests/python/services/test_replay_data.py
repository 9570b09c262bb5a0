"""Replays of recorded agent runs: what must be found is found, and nothing beside it."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import argus
from argus.engine.core import EngineOptions


def records(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)


def renumbered(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, event in enumerate(events, 1):
        yield {**event, "seq": number}


def test_every_injected_causal_fault_is_found_with_its_kind_and_nothing_else(data: Path):
    labels = list(records(data / "events" / "faults.labels.ndjson.gz"))
    found = [a for a in argus.replay(data / "events" / "faults.ndjson.gz").anomalies if a.family == "causal"]

    def matches(anomaly: argus.Anomaly, label: dict[str, Any]) -> bool:
        of_task = label["task"] in (anomaly.scope.id, anomaly.scope.task)
        return anomaly.series == f"causal.{label['kind']}" and (of_task or label.get("id") in anomaly.evidence)

    missed = [x for x in labels if not any(matches(a, x) for a in found)]
    stray = [a for a in found if not any(matches(a, x) for x in labels)]
    assert (missed, stray) == ([], [])
    assert len(labels) == 225


def test_benign_sessions_have_no_causal_fault_and_no_stop(data: Path):
    for name in ("agentdojo", "taubench_airline"):
        labels = {x["task"]: x for x in records(data / "events" / f"{name}.labels.ndjson.gz")}
        benign = {task for task, x in labels.items() if not x.get("attacked")}
        stream = renumbered(e for e in records(data / "events" / f"{name}.ndjson.gz") if e["task"] in benign)
        report = argus.replay(stream)
        assert report.rejected == {}
        assert [a for a in report.anomalies if a.family == "causal"] == []
        good = {task for task in benign if labels[task]["success"]}
        stopped = [s for s in report.stops if s.scope.kind == "host" or s.scope.id in good or s.scope.session in good]
        assert [s for s in stopped if s.kind == "hard_kill"] == []
        assert len(stopped) <= 0.005 * len(good)


def test_switches_of_an_agent_are_found_in_few_tasks_and_hardly_anything_else(data: Path):
    labels = {x["tenant"]: x for x in records(data / "events" / "drift.labels.ndjson.gz")}
    stream = list(records(data / "events" / "drift.ndjson.gz"))
    ends: dict[str, list[int]] = {}
    for event in stream:
        ends.setdefault(event["tenant"], []).append(event["ts"])
    delays: dict[str, int] = {}
    false = warned = 0
    for anomaly in (a for a in argus.replay(stream).anomalies if a.family == "behavioural"):
        label, task = labels[anomaly.scope.id], ends[anomaly.scope.id].index(anomaly.ts)
        if label["change_at"] is None or task < label["change_at"]:
            false += 1
            continue
        delays.setdefault(anomaly.scope.id, task - label["change_at"])
        if anomaly.severity == "warning":
            assert (anomaly.criterion, label["p_to"] < label["p_from"]) == ("W4", True)
            warned += 1
    switched = [t for t, x in labels.items() if x["change_at"] is not None]
    large = [t for t in switched if abs(labels[t]["p_from"] - labels[t]["p_to"]) >= 0.2]
    quiet = sum(labels[t]["change_at"] or len(x) for t, x in ends.items())
    found = sorted(delays[t] for t in large if t in delays)
    assert [t for t in large if t not in delays] == []
    assert found[len(found) // 2] <= 12
    assert found[len(found) * 9 // 10] <= 40
    assert len(delays) >= 0.95 * len(switched)
    assert false <= 1e-4 * quiet
    assert warned >= len(large) // 3


def test_real_agents_whose_runs_are_shuffled_show_no_drift(data: Path):
    """A permutation of real tasks has one law; what is left are chance alarms, at most one in 5,000 tasks."""
    stream = list(records(data / "events" / "drift.ndjson.gz"))
    false = tasks = 0
    for seed in range(3):
        shuffled = []
        order = random.Random(seed)
        for tenant in sorted({e["tenant"] for e in stream}):
            own = [e for e in stream if e["tenant"] == tenant]
            kinds = [(e["type"], e["ok"], e.get("tool"), e["attrs"]) for e in own]
            order.shuffle(kinds)
            for event, (type_, ok, tool, attrs) in zip(own, kinds, strict=True):
                drawn = {**event, "type": type_, "ok": ok, "attrs": attrs, "tool": tool}
                shuffled.append({key: value for key, value in drawn.items() if value is not None})
        false += sum(a.family == "behavioural" for a in argus.replay(shuffled).anomalies)
        tasks += len(shuffled)
    assert false <= tasks / 5000


def test_a_cap_is_overshot_by_the_call_in_flight_at_most():
    events = [
        {
            "v": 1,
            "id": f"e{i}",
            "type": "token_cost_logged",
            "ts": 1_760_000_000_000_000_000 + i * 10**9,
            "source": "s",
            "seq": i + 1,
            "session": "s",
            "model": "m",
            "cost_nusd": 70_000_000,
            "call": f"c{i}",
        }
        for i in range(100)
    ]
    options = EngineOptions(caps_nusd={"session": 1_000_000_000})
    stops = [s for s in argus.replay(events, config=options).stops if s.kind == "hard_kill"]
    assert len(stops) == 1
    spent = sum(e["cost_nusd"] for e in events if e["ts"] <= stops[0].ts)
    assert 1_000_000_000 <= spent < 1_000_000_000 + 70_000_000
    assert stops[0].criterion == "C1"
