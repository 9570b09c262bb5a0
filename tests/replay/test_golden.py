"""Golden replays: recorded events give exactly these anomalies, incidents and stops, bit for bit.

`ARGUS_REWRITE=1 pytest tests/replay` writes the expectations anew; review the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

import argus

HERE = Path(__file__).resolve().parent
RECORDS = [*sorted(HERE.glob("*.ndjson")), *sorted((HERE.parent.parent / "examples").glob("*.ndjson"))]


def account(path: Path) -> dict[str, object]:
    report = argus.replay(path)
    told = msgspec.to_builtins(report)
    assert told.pop("shadow") is None
    for anomaly in told["anomalies"]:
        del anomaly["host"]
    for incident in told["incidents"]:
        del incident["host"]
    return told  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_replay_equals_its_record(path: Path):
    expected = HERE / f"{path.stem}.expected.json"
    found = account(path)
    if os.environ.get("ARGUS_REWRITE") == "1":
        expected.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert json.loads(expected.read_text()) == json.loads(json.dumps(found))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_replay_of_dicts_equals_replay_of_the_file(path: Path):
    with path.open() as lines:
        events = [json.loads(line) for line in lines if line.strip()]
    assert argus.replay(events) == argus.replay(path)
