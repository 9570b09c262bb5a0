"""Outcome streams that switch from one recorded agent to another: switches found, tasks until then, false alarms."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np
import recordings
from support import figure

import argus

_LARGE = 0.2  # change of the success rate


def figures() -> Iterator[dict[str, Any]]:
    """Of all switches, and of those that change success by at least 0.2."""
    labels = {x["tenant"]: x for x in recordings.labels("drift")}
    events = recordings.events("drift")
    ends: dict[str, list[int]] = {}
    for event in events:
        if event["type"] in ("task_completed", "task_failed"):
            ends.setdefault(event["tenant"], []).append(event["ts"])
    delays: dict[str, int] = {}
    false = 0
    for anomaly in argus.replay(events).anomalies:
        tenant = anomaly.scope.tenant or anomaly.scope.id
        if anomaly.family != "behavioural" or tenant not in labels:
            continue
        change, task = labels[tenant]["change_at"], bisect_left(ends[tenant], anomaly.ts)
        if change is None or task < change:
            false += 1
        else:
            delays.setdefault(tenant, task - change)
    switched = [tenant for tenant, x in labels.items() if x["change_at"] is not None]
    large = [tenant for tenant in switched if abs(labels[tenant]["p_from"] - labels[tenant]["p_to"]) >= _LARGE]
    quiet = sum(len(ends[t]) if x["change_at"] is None else x["change_at"] for t, x in labels.items())
    found = [delays[tenant] for tenant in large if tenant in delays]
    hits, wanted = len(found), len(large)
    yield figure("agent_drift/large_found", hits, "switches", against=f"{wanted}", bar=wanted, good=hits == wanted)
    hits = len(delays)
    yield figure("agent_drift/found", hits, "switches", against=f"{len(switched)}", bar=38, good=hits >= 38)
    for name, share, bar in (("median", 50, 12), ("p90", 90, 40)):
        tasks = float(np.percentile(found, share)) if found else float("inf")
        yield figure(f"agent_drift/{name}", tasks, "tasks", against="ADWIN 79 to 110", bar=bar, good=tasks <= bar)
    rate = 1000 * false / quiet
    yield figure("agent_drift/false", rate, "per 1,000", against=f"{quiet} tasks", bar=0.1, good=rate <= 0.1)
