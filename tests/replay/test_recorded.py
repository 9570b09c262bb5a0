"""Golden replays of the recorded data sets: what is said of each, digested, and what a notional guard spares there.

Floating-point values enter with six digits, so that another instruction set gives the same digest.
`ARGUS_REWRITE=1 pytest tests/replay` writes the expectations anew; review the difference.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import argus
from argus.engine.core import EngineOptions

EXPECTED = Path(__file__).resolve().parent / "recorded.expected.json"
USD = 10**9

# Data set -> the files it is made of, in order.
SETS = {
    "agentdojo": ("agentdojo",),
    "drift": ("drift",),
    "faults": ("faults",),
    "hdfs": ("hdfs_train", "hdfs_test"),
    "llmcost_azure_code": ("llmcost_azure_code",),
    "llmcost_azure_conv_a": ("llmcost_azure_conv_a",),
    "llmcost_azure_conv_a_clean": ("llmcost_azure_conv_a_clean",),
    "openstack": ("openstack_train", "openstack_test"),
    "taubench_airline": ("taubench_airline",),
    "whowhen": ("whowhen",),
}
# Caps under which the guarded replays have stops of every kind to account for.
CAPS = {"session": USD // 10, "tenant": 3 * USD, "host": 40 * USD}
GUARDED = ("faults", "llmcost_azure_code", "llmcost_azure_conv_a_clean", "taubench_airline")


def events(data: Path, name: str) -> Iterator[dict[str, Any]]:
    for part in SETS[name]:
        path = data / "events" / f"{part}.ndjson.gz"
        if not path.is_file():
            pytest.skip(f"recorded data: expected {path}, found no such file")
        with gzip.open(path, "rt") as lines:
            for line in lines:
                yield json.loads(line)


def digest(anomalies: list[argus.Anomaly]) -> str:
    lines = [
        [a.ts, a.since, a.series, str(a.scope), a.severity, a.criterion, a.evidence, f"{a.value:.6g}"]
        for a in anomalies
    ]
    return hashlib.sha256("\n".join(map(json.dumps, lines)).encode()).hexdigest()


def account(report: argus.ReplayReport) -> dict[str, Any]:
    return {
        "events": report.events,
        "rejected": report.rejected,
        "anomalies": dict(sorted(Counter(f"{a.series} {a.severity} {a.criterion}" for a in report.anomalies).items())),
        "stops": dict(sorted(Counter(f"{s.kind} {s.criterion}" for s in report.stops).items())),
        "sha256": digest(report.anomalies),
    }


def check(key: str, found: dict[str, Any]) -> None:
    kept = json.loads(EXPECTED.read_text()) if EXPECTED.is_file() else {}
    if os.environ.get("ARGUS_REWRITE") == "1":
        kept[key] = found
        EXPECTED.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    assert kept.get(key) == json.loads(json.dumps(found))


@pytest.mark.parametrize("name", SETS)
def test_a_recorded_set_is_judged_as_before(data: Path, name: str):
    check(name, account(argus.replay(events(data, name))))


@pytest.mark.parametrize("name", GUARDED)
def test_what_a_guard_spares_of_a_recorded_set_is_as_before(data: Path, name: str):
    report = argus.replay(events(data, name), config=EngineOptions(caps_nusd=CAPS), guard=True)
    assert report.shadow is not None
    spared = {
        rule.criterion: {"stops": rule.stops, "upper_nusd": rule.after.upper_nusd, "events": rule.after.events}
        for rule in report.shadow.rules
        if rule.stops
    }
    total = report.shadow.after_kills.upper_nusd + report.shadow.after_lockdowns.upper_nusd
    assert total == sum(rule["upper_nusd"] for rule in spared.values()) <= report.shadow.spent.upper_nusd
    check(f"{name}, guarded", {**account(report), "spared": spared, "spent_nusd": report.shadow.spent.upper_nusd})
