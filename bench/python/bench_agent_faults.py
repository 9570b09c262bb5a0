"""Planted causal faults of nine kinds in recorded agent sessions: found with their kind, and nothing beside them.

Once as recorded, once with arrival shuffled by up to 2 s over two sources and 1 % of the events sent twice (numbered
anew a source, so that the planted gaps in numbers are gone and not asked for).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import recordings
from recordings import Event
from support import figure

import argus

_LATEST_NS = 2_000_000_000
_REPEATED = 0.01


def _is_for(anomaly: argus.Anomaly, label: Event) -> bool:
    of_task = label["task"] in (anomaly.scope.id, anomaly.scope.task)
    return anomaly.series == f"causal.{label['kind']}" and (of_task or label.get("id") in anomaly.evidence)


def two_sources(events: list[Event], seed: int) -> list[Event]:
    """Tasks dealt to two sources, each event late by up to 2 s, 1 % of them sent again at once."""
    chance = random.Random(seed)
    sides: dict[str, str] = {}
    arrivals = []
    now = 0
    for index, event in enumerate(events):
        now = max(now, event["ts"])
        side = sides.setdefault(event.get("task", ""), chance.choice("AB"))
        arrivals.append((now + chance.randint(0, _LATEST_NS), index, {**event, "source": side}))
    numbers: Counter[str] = Counter()
    out = []
    for _, _, event in sorted(arrivals, key=lambda item: item[:2]):
        numbers[event["source"]] += 1
        event["seq"] = numbers[event["source"]]
        out += [event] * (2 if chance.random() < _REPEATED else 1)
    return out


def _judged(name: str, events: list[Event], labels: list[Event]) -> Iterator[dict[str, Any]]:
    found = [a for a in argus.replay(events).anomalies if a.family == "causal"]
    hit = sum(any(_is_for(a, x) for a in found) for x in labels)
    stray = sum(not any(_is_for(a, x) for x in labels) for a in found)
    told = f"{len(labels)} planted"
    yield figure(f"agent_faults/{name}/found", hit, "faults", against=told, bar=len(labels), good=hit == len(labels))
    yield figure(f"agent_faults/{name}/false", stray, "anomalies", bar=0, good=stray == 0)


def figures() -> Iterator[dict[str, Any]]:
    """Both orders of arrival."""
    events, labels = recordings.events("faults"), recordings.labels("faults")
    yield from _judged("as_recorded", events, labels)
    ungapped = [x for x in labels if x["kind"] != "seq_gap"]
    yield from _judged("shuffled", two_sources(events, 1), ungapped)
