"""LLM traffic with planted faults of cost: recall, delay, false warnings and criticals.

Counted are faults that touch at least 10 calls, creep aside: nothing within its minute shows it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import recordings
from recordings import Event
from support import figure

import argus

_TRACES = ("llmcost_azure_code", "llmcost_azure_conv_a", "llmcost_azure_conv_a_clean")
_TENANTS, _CALLS, _LATE_NS, _DAY_NS = 12, 10, 30_000_000_000, 86_400_000_000_000


def _is_within(anomaly: argus.Anomaly, label: Event) -> bool:
    whose = label["tenant"] in (anomaly.scope.id, anomaly.scope.tenant)
    return whose and label["ts_from"] <= anomaly.ts <= label["ts_to"] + _LATE_NS


def figures() -> Iterator[dict[str, Any]]:
    """Of the given traces together."""
    hit = total = loops = loops_hit = false = critical = 0
    days = 0.0
    delays: list[float] = []
    for name in _TRACES:
        events = recordings.events(name)
        labels = [x for x in recordings.labels(name) if x.get("kind")]
        days += _TENANTS * (events[-1]["ts"] - events[0]["ts"]) / _DAY_NS
        spoken = [
            a
            for a in argus.replay(events).anomalies
            if a.family == "economic" and a.severity in ("warning", "critical")
        ]
        for label in labels:
            if label["n_calls"] < _CALLS or label["kind"] == "creep":
                continue
            own = [a.ts for a in spoken if _is_within(a, label)]
            total += 1
            hit += bool(own)
            loops += label["kind"] == "loop"
            loops_hit += bool(own) and label["kind"] == "loop"
            delays += [(min(own) - label["ts_from"]) / 1e9] if own else []
        stray = [a for a in spoken if not any(_is_within(a, x) for x in labels)]
        false += len(stray)
        critical += sum(a.severity == "critical" for a in stray)
    recall, of_loops = hit / max(total, 1), loops_hit / max(loops, 1)
    yield figure("agent_cost/recall", recall, "of faults", against=f"{total}", bar=0.95, good=recall >= 0.95)
    yield figure("agent_cost/loops", of_loops, "of loops", against=f"{loops}", bar=1.0, good=of_loops >= 1.0)
    delay = statistics.median(delays) if delays else float("inf")
    yield figure("agent_cost/delay", delay, "s, median", bar=25.0, good=delay <= 25.0)
    rate, against = false / days, f"{days:.1f} tenant-days"
    yield figure("agent_cost/false_warnings", rate, "a tenant-day", against=against, bar=0.3, good=rate <= 0.3)
    yield figure("agent_cost/false_critical", critical, "anomalies", against=against, bar=0, good=critical == 0)
