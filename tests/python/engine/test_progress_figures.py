"""Spend without progress and pooled shifts: on recorded sessions, on a healthy made fleet, and with faults planted in it."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from argus import _core

Event = dict[str, Any]
SECOND = 10**9
T0 = 1_700_000_000 * SECOND
TELLING = ("search", "read", "run_tests", "status")  # tools whose results tell something


def records(path: Path) -> Iterator[Event]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)


def said(events: list[Event], *detectors: str) -> list[Event]:
    """What these auditors say of the events."""
    plane = _core.EventPlane()
    found: list[Event] = []
    for start in range(0, len(events), 256):
        report = plane.ingest(msgpack.packb(events[start : start + 256]))
        assert report["rejected"] == {}
        found += report["anomalies"]
    return [a for a in found if a["detector"] in detectors]


class Fleet:
    """Thirty agents at work for `hours`; each step is a model's turn with its cost and a tool's call."""

    def __init__(self, seed: int, agents: int = 30, hours: float = 8) -> None:
        self.chance = random.Random(seed)
        self.events: list[Event] = []
        self.labels: dict[str, str] = {}  # session -> kind of fault
        self.names = 0
        for k in range(agents):
            at, worn = 0.0, 0
            while at < hours * 3600:
                worn += 1
                at = self.session(f"agent-{k}", f"agent-{k}/{worn}", at, pace=(12, 6, 2)[k % 3])
                at += self.chance.expovariate(1 / 600)

    def new(self) -> str:
        self.names += 1
        return f"n{self.names}"

    def emit(self, kind: str, at: float, agent: str, session: str, **fields: Any) -> None:
        fixed = {"v": 1, "type": kind, "ts": T0 + int(at * SECOND), "source": agent, "agent": agent, "model": "m"}
        self.events.append({**fixed, "session": session, **fields})

    def turn(self, at: float, agent: str, session: str) -> None:
        tokens = int(self.chance.lognormvariate(8, 0.8))
        self.emit(
            "token_cost_logged", at, agent, session, input_tokens=tokens, output_tokens=200, cost_nusd=4000 * tokens
        )

    def tool(self, at: float, agent: str, session: str, name: str, args: str, result: str) -> None:
        more = {"duration_ns": int(self.chance.lognormvariate(20, 0.8)), "ok": self.chance.random() > 0.05}
        self.emit("tool_called", at, agent, session, tool=name, args_hash=args, result_hash=result, **more)

    def session(self, agent: str, session: str, at: float, pace: float) -> float:
        """Reads, searches, writes, polls a job, repeats itself now and then, thinks for several turns."""
        known = [(self.new(), self.new())]
        task = {"task": session}
        self.emit("task_started", at, agent, session, **task)
        for _ in range(1 + int(self.chance.expovariate(1 / 25))):
            for _ in range(1 + int(self.chance.expovariate(1.2))):
                at += self.chance.expovariate(1 / pace)
                self.turn(at, agent, session)
            at += self.chance.expovariate(1 / pace)
            what = self.chance.random()
            if what < 0.15:
                args, result = self.chance.choice(known)
                self.tool(at, agent, session, "read", args, result)
            elif what < 0.25:
                self.tool(at, agent, session, "search", self.new(), "nothing found")
            elif what < 0.4:
                self.tool(at, agent, session, "write", self.new(), "done")
            elif what < 0.45:
                job = self.new()
                for n in range(self.chance.randint(2, 5)):
                    self.tool(at + 5 * n, agent, session, "status", job, f"{job} {n // 2}")
                at += 25
            else:
                known.append((self.new(), self.new()))
                self.tool(at, agent, session, self.chance.choice(TELLING), *known[-1])
        ok = self.chance.random() < 0.85
        self.emit("task_completed" if ok else "task_failed", at, agent, session, ok=ok, **task)
        return at

    def plant(self, kind: str, at: float) -> None:
        """A session that gets nowhere for 60 steps: kind is `repeat`, `ping_pong` or `burn`."""
        agent, session = f"agent-{self.chance.randrange(30)}", f"fault/{self.new()}"
        self.labels[session] = kind
        known = [(self.new(), self.new()) for _ in range(4)]
        for args, result in known:
            self.tool(at, agent, session, "read", args, result)
        for n in range(60):
            at += self.chance.expovariate(1 / 5)
            speaker = f"{agent}-critic" if kind == "ping_pong" and n % 2 else agent
            self.turn(at, speaker, session)
            if kind == "repeat":
                self.tool(at, agent, session, "search", self.new(), "no such page")
            if kind == "burn":
                self.tool(at, agent, session, "read", *self.chance.choice(known))

    def stream(self) -> list[Event]:
        self.events.sort(key=lambda event: event["ts"])
        number: dict[str, int] = {}
        for n, event in enumerate(self.events):
            number[event["source"]] = number.get(event["source"], 0) + 1
            event.update(id=f"e{n}", seq=number[event["source"]])
        return self.events


def figures(seed: int, hours: float = 8) -> dict[str, Any]:
    """One fleet with 15 faults from its second hour on: what was found, what was false."""
    fleet = Fleet(seed, hours=hours)
    for n in range(15):
        fleet.plant(("repeat", "ping_pong", "burn")[n % 3], 7200 + 1200 * n)
    told = said(fleet.stream(), "progress", "behaviour", "loop")
    warned = [a for a in told if a["detector"] == "progress" and a["severity"] == "warning"]
    found = {a["scope"]["id"]: a["series"] for a in warned}
    return {
        "found": sum(s in found for s in fleet.labels),
        "named": sum(found.get(s) == f"progress.{kind}" for s, kind in fleet.labels.items()),
        "steps": sorted(a["value"] for a in warned if a["scope"]["id"] in fleet.labels),
        "false": [a["message"] for a in warned if a["scope"]["id"] not in fleet.labels],
        "false_info": sum(a["detector"] == "progress" and a["scope"]["id"] not in fleet.labels for a in told),
        "shifts": [a["message"] for a in told if a["detector"] == "behaviour"],
        "loops": sum(a["detector"] == "loop" and a["scope"]["id"] in fleet.labels for a in told),
    }


def test_sessions_that_get_nowhere_are_found_among_healthy_ones() -> None:
    """15 faults in 30 agents and 8 hours: most are found, few sessions beside them are warned of."""
    got = figures(1)
    assert got["found"] >= 13, got
    assert got["named"] >= 12, got
    assert len(got["false"]) <= 2, got["false"]
    assert len(got["shifts"]) <= 2, got["shifts"]


@pytest.mark.parametrize("name", ["agentdojo", "taubench_airline", "whowhen"])
def test_recorded_sessions_are_left_alone(name: str) -> None:
    """Real benign sessions at 2 cents a turn: at most 0.5 % of the good ones are warned of, and shifts are rare."""
    folder = Path(os.environ.get("ARGUS_DATA", "/nonexistent")) / "events"
    if not folder.is_dir():
        pytest.skip("recorded events: ARGUS_DATA names no folder with events/")
    labels = {x["task"]: x for x in records(folder / f"{name}.labels.ndjson.gz") if not x.get("attacked")}
    events: list[Event] = []
    for event in records(folder / f"{name}.ndjson.gz"):
        if event["task"] not in labels:
            continue
        characters = len(event.pop("text", ""))
        events.append({**event, "seq": len(events) + 1})
        if event["type"] == "model_called":
            cost = {"type": "token_cost_logged", "output_tokens": 1 + characters // 4, "cost_nusd": 20_000_000}
            events.append({**event, **cost, "id": event["id"] + "-cost", "seq": len(events) + 1})
    found = said(events, "progress", "behaviour")
    warned = {a["scope"]["task"] for a in found if a["severity"] != "info"}
    good = {task for task, label in labels.items() if label.get("success")}
    assert len(warned & good) <= 0.005 * len(good), warned
    assert len(warned) <= 0.01 * len(labels), warned
    shifts = [a["message"] for a in found if a["detector"] == "behaviour"]
    assert len(shifts) <= 0.01 * len(labels) + 1, shifts
