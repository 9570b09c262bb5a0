"""Thirty healthy made agents, eight hours each: none stopped. compare_agents.py puts other guards beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fleet
from support import figure

import argus


def figures() -> Iterator[dict[str, Any]]:
    """All agents on one host, defaults."""
    agents = fleet.healthy()
    calls = sum(map(len, agents.values()))
    report = argus.replay(fleet.events(call for own in agents.values() for call in own))
    if report.rejected:
        raise RuntimeError(f"fleet: expected every event to be accepted, found {report.rejected} rejected")
    against = f"{len(agents)} agents, {calls:,} calls"
    for kind in ("hard_kill", "write_lockdown"):
        stops = sum(stop.kind == kind for stop in report.stops)
        yield figure(f"agent_healthy/{kind}", stops, "stops", against=against, bar=0, good=stops == 0)
    for severity in ("critical", "warning"):
        said = sum(a.severity == severity for a in report.anomalies)
        yield figure(f"agent_healthy/{severity}", said, "anomalies", against=against)
