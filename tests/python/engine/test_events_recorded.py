"""The event plane on recorded agent sessions: every planted fault found with its kind, nothing beside them."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from argus import _core

Event = dict[str, Any]


@pytest.fixture(scope="module")
def folder() -> Path:
    path = Path(os.environ.get("ARGUS_DATA", "/nonexistent")) / "events"
    if not path.is_dir():
        pytest.skip("recorded events: ARGUS_DATA names no folder with events/")
    return path


def records(path: Path) -> Iterator[Event]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)


def renumbered(events: Iterable[Event]) -> list[Event]:
    return [{**event, "seq": number} for number, event in enumerate(events, 1)]


def replayed(events: list[Event]) -> tuple[list[Event], Any]:
    plane = _core.EventPlane()
    found: list[Event] = []
    accepted = 0
    for start in range(0, len(events), 256):
        report = plane.ingest(msgpack.packb(events[start : start + 256]))
        assert report["rejected"] == {}
        accepted += report["accepted"]
        found += report["anomalies"]
    assert accepted == len(events)
    found += plane.tick(max(event["ts"] for event in events))
    return found, plane


def is_for(anomaly: Event, label: Event) -> bool:
    return anomaly["series"] == f"causal.{label['kind']}" and (
        label["task"] in (anomaly["scope"]["id"], anomaly["scope"]["task"]) or label.get("id") in anomaly["evidence"]
    )


def two_sources(events: list[Event], seed: int, by_task: bool, again_s: float = 0) -> list[tuple[int, Event]]:
    """The same events from two sources, each delayed by up to 2 s, with the time of arrival.

    Numbered anew as they arrive, each gap kept; both events of a reused id on one source; 1 % sent twice, `again_s`
    seconds later.
    """
    chance = random.Random(seed)
    sides: dict[str, str] = {}
    arrivals = []
    now = last = 0
    for index, event in enumerate(events):
        now = max(now, event["ts"])
        side = chance.choice("AB")
        if by_task:
            side = sides.setdefault(event.get("task", ""), side)
        side = sides.setdefault("id " + event["id"], side)
        gap = event["seq"] - last - 1
        last = event["seq"]
        arrivals.append((now + chance.randint(0, 2 * 10**9), index, gap, {**event, "source": side}))
    arrivals.sort(key=lambda item: item[:2])
    numbers: Counter[str] = Counter()
    out = []
    for at, index, gap, event in arrivals:
        numbers[event["source"]] += 1 + gap
        event["seq"] = numbers[event["source"]]
        out.append((at, index, event))
        if chance.random() < 0.01:
            out.append((at + int(again_s * 1e9), index, event))
    return [(at, event) for at, _, event in sorted(out, key=lambda item: item[:2])]


def live(arrivals: list[tuple[int, Event]]) -> list[Event]:
    """Judged on the clock of arrival, one event a frame."""
    plane = _core.EventPlane()
    found: list[Event] = []
    for at, event in arrivals:
        found += plane.ingest(msgpack.packb(event), now=at)["anomalies"]
    return found + plane.finish(arrivals[-1][0])


def test_every_planted_fault_is_found_with_its_kind_and_nothing_else(folder: Path) -> None:
    """225 of 225, one anomaly each."""
    labels = list(records(folder / "faults.labels.ndjson.gz"))
    found, _ = replayed(list(records(folder / "faults.ndjson.gz")))
    causal = [a for a in found if a["family"] == "causal"]
    missed = [x for x in labels if not any(is_for(a, x) for a in causal)]
    stray = [a for a in causal if not any(is_for(a, x) for x in labels)]
    assert (missed, stray) == ([], [])
    assert len(causal) == len(labels)


@pytest.mark.parametrize(
    "name", ["hdfs_test", "taubench_airline", "whowhen", "drift", "llmcost_azure_code", "agentdojo"]
)
def test_orderly_streams_have_no_causal_anomaly(folder: Path, name: str) -> None:
    """Real sequences without planted faults; `drift` never reports starts and is not judged on them."""
    found, _ = replayed(list(records(folder / f"{name}.ndjson.gz")))
    assert [a["message"] for a in found if a["family"] == "causal"] == []


def test_a_learned_stream_followed_by_another_source_is_orderly(folder: Path) -> None:
    """Two recordings of the same kind back to back, as a model is trained and then tested."""
    events = list(records(folder / "hdfs_train.ndjson.gz"))
    end = events[-1]["ts"] + 10**9
    test = list(records(folder / "hdfs_test.ndjson.gz"))[:60_000]
    shift = end - test[0]["ts"]
    events += [{**e, "id": "test-" + e["id"], "source": "hdfs-test", "ts": e["ts"] + shift} for e in test]
    found, _ = replayed(events)
    assert [a["message"] for a in found if a["family"] == "causal"] == []


def test_no_successful_benign_session_is_stopped(folder: Path) -> None:
    """Loops in good sessions are info: a bare count of equal calls proves nothing."""
    stopped = []
    for name in ("agentdojo", "taubench_airline"):
        labels = [x for x in records(folder / f"{name}.labels.ndjson.gz") if not x.get("attacked")]
        events = list(records(folder / f"{name}.ndjson.gz"))
        for pipeline in sorted({x.get("pipeline", "") for x in labels}):
            tasks = {x["task"] for x in labels if x.get("pipeline", "") == pipeline}
            found, _ = replayed(renumbered(e for e in events if e["task"] in tasks))
            stopped += [a for a in found if a["severity"] != "info"]
    assert [a["message"] for a in stopped] == []


@pytest.mark.parametrize("by_task", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_reordering_across_sources_and_retransmissions_make_no_false_fault(
    folder: Path, by_task: bool, seed: int
) -> None:
    """Arrival up to 2 s late, 1 % sent twice: still silent."""
    arrivals = two_sources(list(records(folder / "agentdojo.ndjson.gz")), seed, by_task)
    found, plane = replayed([event for _, event in arrivals])
    assert [a["message"] for a in found if a["family"] == "causal"] == []
    assert plane.totals()["retransmissions"] > 100


def judged_right(found: list[Event], labels: list[Event]) -> None:
    causal = [a for a in found if a["family"] == "causal"]
    assert [x for x in labels if not any(is_for(a, x) for a in causal)] == []
    assert [a["message"] for a in causal if not any(is_for(a, x) for x in labels)] == []


@pytest.mark.parametrize("by_task", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_faults_are_found_behind_reordering(folder: Path, by_task: bool, seed: int) -> None:
    """225 of 225 over two sources, by task or event by event, on event time and on the clock of arrival; 1 % twice."""
    labels = list(records(folder / "faults.labels.ndjson.gz"))
    arrivals = two_sources(list(records(folder / "faults.ndjson.gz")), seed, by_task, again_s=seed - 1)
    judged_right(replayed([event for _, event in arrivals])[0], labels)
    judged_right(live(arrivals), labels)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_sent_again_is_no_fault(folder: Path, seed: int) -> None:
    """1 % byte-identical retransmissions, at once or later, also of reused ids: one anomaly a fault, as without."""
    labels = list(records(folder / "faults.labels.ndjson.gz"))
    chance = random.Random(seed)
    kept: list[tuple[float, Event]] = []
    reused = {x["id"] for x in labels if x["kind"] == "duplicate_id"}
    for number, event in enumerate(records(folder / "faults.ndjson.gz")):
        kept.append((number, event))
        if chance.random() < 0.01 or event["id"] in reused:
            kept.append((number + 0.5 + chance.randrange(40), event))
    found, plane = replayed([event for _, event in sorted(kept, key=lambda item: item[0])])
    judged_right(found, labels)
    assert sum(a["family"] == "causal" for a in found) == len(labels)
    assert plane.totals()["retransmissions"] > 100


def test_a_plane_restored_in_mid_stream_says_the_same(folder: Path) -> None:
    """Snapshot and restore keep every pending deadline, id and account."""
    events = list(records(folder / "faults.ndjson.gz"))
    first, second = _core.EventPlane(), _core.EventPlane()
    first.ingest(msgpack.packb(events[:1000]))
    second.load(first.save())
    whole = msgpack.packb(events[1000:2000])
    assert first.ingest(whole) == second.ingest(whole)
    assert first.totals() == second.totals()
    assert first.sources() == second.sources()
