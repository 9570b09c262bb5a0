"""The learned order of tasks: against a slow, obvious reference, and on recorded block and machine life cycles."""

from __future__ import annotations

import gzip
import json
import math
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from argus import _core

Event = dict[str, Any]
Steps = tuple[str, ...]
SHARE, WARM_UP, MIN_TASKS, DISTANCE, TAIL = 0.01, 50, 300, 0.06, 0.02


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


def spoken(events: Iterable[Event]) -> list[Event]:
    plane = _core.EventPlane()
    batch: list[Event] = []
    found: list[Event] = []
    for event in [*events, None]:
        if event is not None:
            batch.append(event)
        if batch and (event is None or len(batch) == 256):
            report = plane.ingest(msgpack.packb(batch))
            assert report["rejected"] == {}
            found += report["anomalies"]
            batch = []
    return [a for a in found if a["detector"] == "sequence"]


def life(tasks: Iterable[Steps]) -> Iterator[Event]:
    """Tasks one after the other, each a session of its own."""
    number = 0
    for index, steps in enumerate(tasks):
        for kind, tool in [("task_started", None), *(("tool_called", s) for s in steps), ("task_completed", None)]:
            number += 1
            event = {"v": 1, "id": str(number), "type": kind, "ts": 1_700_000_000_000_000_000 + number * 10**6}
            event |= {"source": "s", "seq": number, "task": str(index), "agent": "a", "ok": True}
            yield event if tool is None else event | {"tool": tool}


class Reference:
    """The rules of the auditor for one kind of task, tasks one after the other, within a day, with plain dictionaries."""

    def __init__(self) -> None:
        self.orders: list[Counter[str]] = []
        self.taught: Counter[str] = Counter()
        self.met: dict[str, None] = {}  # in order of appearance
        self.after: dict[Steps, Counter[str]] = defaultdict(Counter)
        self.tails: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
        self.records = [{"before": 0, "current": 0, "above": 0, "trusted": False} for _ in range(3)]
        self.tasks, self.trial, self.block = 0, 0, 1
        self.sightings: dict[Any, list[int]] = {}
        self.flagged_share = 0.0

    def probability(self, before: Steps, x: str) -> float:
        p = 1.0
        for context in (before[-2:], before[-1:]):
            seen = self.after.get(context)
            if not seen:
                continue
            whole = seen.total() + len(seen)
            if x in seen:
                return p * seen[x] / whole
            p *= len(seen) / whole
        if not self.taught:
            return p / 64
        whole = self.taught.total() + len(self.met)
        return p * self.taught[x] / whole if x in self.taught else p * max(1, len(self.met)) / whole / 64

    def tail(self, which: int, value: int) -> float:
        known = self.tails[which]
        return (1 + sum(n for v, n in known.items() if v >= value)) / (1 + known.total())

    def judge(self, steps: Steps) -> list[bool]:
        """Unseen step, counts, order; what each rule would say."""
        before: Steps = ("^", "^")
        rarest = 1.0
        for x in (*steps, "$"):
            if x != "$":
                self.met[x] = None
            rarest = min(rarest, self.probability(before, x))
            before = (before[1], x)
        counts = Counter(steps)
        distances = [
            ((counts - k).total() + (k - counts).total()) / max(1, k.total() + counts.total()) for k in self.orders
        ]
        distance = min(distances, default=1.0)
        known = counts in self.orders
        self.bins = (0 if known else 1 + int(min(distance * 200, 62)), int(min(-2 * math.log2(rarest), 127)))
        order = not known and all(self.tail(i, self.bins[i]) <= TAIL for i in (0, 1))
        return [any(x not in self.taught for x in steps), distance > DISTANCE, order]

    def teach(self, steps: Steps) -> None:
        before: Steps = ("^", "^")
        for x in (*steps, "$"):
            for context in (before, before[1:]):
                self.after[context][x] += 1
            self.taught[x] += 1
            before = (before[1], x)
        if Counter(steps) not in self.orders:
            self.orders.append(Counter(steps))

    def acceptable(self, steps: Steps, unseen: bool) -> bool:
        new = [x for x in self.met if x in steps and x not in self.taught]
        key = new[0] if unseen else frozenset(Counter(steps).items())
        seen = self.sightings.setdefault(key, [self.tasks, 0])
        seen[1] += 1
        steady = ((self.tasks - seen[0]) / max(1, self.tasks)) ** seen[1] >= 0.05
        if seen[1] < 3 or not steady or self.flagged_share > 0.05:
            return False
        del self.sightings[key]
        return True

    def task(self, steps: Steps) -> bool:
        """Whether the task is spoken of; learns from it when it is not."""
        flags = self.judge(steps)
        said = any(f and r["trusted"] for f, r in zip(flags, self.records, strict=True))
        self.flagged_share += (said - self.flagged_share) / 128
        if said:
            if self.acceptable(steps, flags[0]):
                self.teach(steps)
            return True
        for tail, value in zip(self.tails, self.bins, strict=True):
            tail[value] += 1
            if tail.total() == 512:
                for v in tail:
                    tail[v] //= 2
        self.teach(steps)
        self.tasks += 1
        if self.tasks > WARM_UP:
            self.score(flags)
        return False

    def score(self, flags: list[bool]) -> None:
        self.trial += 1
        for flag, record in zip(flags, self.records, strict=True):
            record["current"] += flag
        if self.trial >= 2 * self.block:
            self.block = self.trial
            for record in self.records:
                record["before"], record["current"] = record["current"], 0
        for record in self.records:
            share = (record["before"] + record["current"] + 1) / max(1, self.trial - self.block // 2)
            if not record["trusted"]:
                if share > SHARE:
                    record["above"] = self.trial
                record["trusted"] = share <= SHARE and self.trial >= max(MIN_TASKS, 2 * record["above"])


def workflows(seed: int, count: int) -> list[Steps]:
    """Tasks of a few ways with noise of a rate of their own: skipped, swapped, repeated and strange steps."""
    chance = random.Random(seed)
    ways = [tuple(chance.choices("abcdefgh", k=chance.randint(3, 40))) for _ in range(chance.randint(1, 6))]
    rate = chance.choice([0.0, 0.002, 0.01, 0.03])
    out = []
    for index in range(count):
        steps = list(chance.choice(ways))
        if chance.random() < (rate if index < 1200 else 0.1):
            at = chance.randrange(len(steps))
            kind = chance.randrange(4)
            if kind == 0:
                del steps[at]
            elif kind == 1:
                steps.insert(at, chance.choice(steps))
            elif kind == 2:
                steps.insert(at, chance.choice("xyz"))
            else:
                other = chance.randrange(len(steps))
                steps[at], steps[other] = steps[other], steps[at]
        out.append(tuple(steps))
    return out


@pytest.mark.parametrize("seed", range(24))
def test_it_speaks_of_the_tasks_the_reference_speaks_of(seed: int) -> None:
    """The same tasks, whichever of the rules spoke and however early."""
    tasks = workflows(seed, 1500)
    reference = Reference()
    expected = [str(i) for i, steps in enumerate(tasks) if reference.task(steps)]
    assert expected == [a["scope"]["task"] for a in spoken(life(tasks))]


def test_the_reference_is_not_silent_on_what_it_is_compared_on() -> None:
    """A comparison of two silences would show nothing."""
    reference = Reference()
    assert sum(reference.task(steps) for steps in workflows(1, 1500)) >= 10


def followed(train: Path, test: Path) -> list[Event]:
    events = list(records(train))
    shift = events[-1]["ts"] + 10**9 - next(records(test))["ts"]
    return events + [
        {**e, "id": "test-" + e["id"], "source": e["source"] + "-test", "ts": e["ts"] + shift} for e in records(test)
    ]


@pytest.mark.parametrize(("name", "recall_bar", "false_bar"), [("hdfs", 0.99, 2), ("openstack", 0.99, 12)])
def test_recorded_life_cycles(folder: Path, name: str, recall_bar: float, false_bar: int) -> None:
    """Learned from the normal recording alone, online: what is abnormal in the next one is found, one anomaly a task."""
    found = spoken(followed(folder / f"{name}_train.ndjson.gz", folder / f"{name}_test.ndjson.gz"))
    labels = {x["task"]: x["anomaly"] for x in records(folder / f"{name}_test.labels.ndjson.gz")}
    flagged = Counter(a["scope"]["task"] for a in found)
    bad = [t for t, y in labels.items() if y]
    assert sum(t in flagged for t in bad) >= recall_bar * len(bad)
    assert sum(t in flagged for t, y in labels.items() if not y) <= false_bar
    assert max(flagged.values()) == 1
    assert {a["severity"] for a in found} == {"info"}


@pytest.mark.parametrize("name", ["agentdojo", "taubench_airline", "whowhen", "drift", "faults"])
def test_agents_that_order_their_tools_freely_are_left_alone(folder: Path, name: str) -> None:
    """Their own tasks are new too often for any rule to be trusted."""
    assert [a["message"] for a in spoken(records(folder / f"{name}.ndjson.gz"))] == []
