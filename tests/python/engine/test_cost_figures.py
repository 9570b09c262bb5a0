"""The economic auditors on real traffic with planted faults, on real agent sessions, and on a healthy made fleet."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from argus import _core

Event = dict[str, Any]
SECOND = 10**9
T0 = 1_700_000_000 * SECOND
INPUT_NUSD, OUTPUT_NUSD = 2_500, 10_000


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


def alarms(events: list[Event]) -> list[Event]:
    """What the cost auditor says of the events, warnings and worse."""
    plane = _core.EventPlane()
    found: list[Event] = []
    for start in range(0, len(events), 256):
        report = plane.ingest(msgpack.packb(events[start : start + 256]))
        assert report["rejected"] == {}
        found += report["anomalies"]
    return [a for a in found if a["detector"] == "cost" and a["severity"] in ("warning", "critical")]


def is_within(anomaly: Event, label: Event) -> bool:
    scope = anomaly["scope"]
    return (
        label["tenant"] in (scope["id"], scope["tenant"])
        and label["ts_from"] <= anomaly["ts"] <= label["ts_to"] + 30 * SECOND
    )


@pytest.mark.parametrize("name", ["llmcost_azure_code", "llmcost_azure_conv_a", "llmcost_azure_conv_a_clean"])
def test_planted_faults_of_ten_calls_are_found_and_nothing_else(folder: Path, name: str) -> None:
    """Creep to twice the size within a minute is left out: no window shows it."""
    found = alarms(list(records(folder / f"{name}.ndjson.gz")))
    labels = [x for x in records(folder / f"{name}.labels.ndjson.gz") if x.get("kind")]
    large = [x for x in labels if x["n_calls"] >= 10 and x["kind"] != "creep"]
    assert [x for x in large if not any(is_within(a, x) for a in found)] == []
    assert [a["message"] for a in found if not any(is_within(a, x) for x in labels)] == []
    for kind in ("loop", "price"):
        own = [x for x in large if x["kind"] == kind]
        assert all(any(a["series"] == f"cost.{kind}" and is_within(a, x) for a in found) for x in own)


def thinned(folder: Path, seed: int) -> tuple[list[Event], list[Event]]:
    """The clean traffic with its calls given to other tenants, and faults of each kind planted at other times."""
    chance = random.Random(seed)
    calls = list(records(folder / "llmcost_azure_conv_a_clean.ndjson.gz"))
    names = [f"t{i:02d}" for i in range(12)]
    weights = [1 / (i + 1) for i in range(12)]
    for event in calls:
        event["tenant"] = chance.choices(names, weights)[0]
    labels: list[Event] = []
    at = calls[0]["ts"] + 600 * SECOND
    for kind in ("loop", "tokens", "price", "rate", "loop", "tokens", "price"):
        label = {"kind": kind, "tenant": chance.choice(names[:4]), "ts_from": at, "ts_to": at + 70 * SECOND}
        calls += plant(label, calls, chance)
        labels.append(label)
        at += 130 * SECOND
    calls.sort(key=lambda event: event["ts"])
    return [{**event, "seq": n, "id": f"e{n}"} for n, event in enumerate(calls, 1)], labels


def plant(label: Event, calls: list[Event], chance: random.Random) -> list[Event]:
    """Alters the tenant's calls within the label, and returns those to be added."""
    mine = [e for e in calls if e["tenant"] == label["tenant"] and label["ts_from"] <= e["ts"] <= label["ts_to"]]
    added: list[Event] = []
    if label["kind"] == "loop":
        tokens, at = 2_000, label["ts_from"]
        while at < label["ts_to"]:
            tokens += chance.randint(300, 800)
            cost = INPUT_NUSD * tokens + OUTPUT_NUSD * 50
            more = {"ts": at, "session": f"loop-{label['ts_from']}", "input_tokens": tokens, "output_tokens": 50}
            added.append({**mine[0], **more, "cost_nusd": cost})
            at += chance.randint(3, 5) * SECOND
    for event in mine:
        if label["kind"] == "price":
            event.update(model="big", cost_nusd=10 * event["cost_nusd"])
        if label["kind"] == "tokens":
            for key in ("input_tokens", "output_tokens", "cost_nusd"):
                event[key] *= 5
        if label["kind"] == "rate":
            added += [
                {**event, "session": f"{event['session']}-{k}", "ts": event["ts"] + k * 200_000_000} for k in range(4)
            ]
    label["n_calls"] = len(mine) if label["kind"] != "loop" else len(added)
    return added


def test_redrawn_tenants_and_faults_are_found_too(folder: Path) -> None:
    """Other tenants and other times of the same traffic; at least 95 %, and at most one false in all."""
    hit = total = stray = 0
    delays = []
    for seed in range(6):
        events, labels = thinned(folder, seed)
        found = alarms(events)
        for label in labels:
            if label["n_calls"] < 10:
                continue
            own = [a["ts"] - label["ts_from"] for a in found if is_within(a, label)]
            total += 1
            hit += bool(own)
            delays += own[:1]
        stray += sum(not any(is_within(a, x) for x in labels) for a in found)
    assert hit >= 0.95 * total, (hit, total)
    assert stray <= 1
    assert sorted(delays)[len(delays) // 2] <= 25 * SECOND


def with_estimated_tokens(events: Iterator[Event], tools: bool) -> list[Event]:
    """Agent sessions as a gateway would meter them: four characters a token, contexts that grow."""
    context: Counter[str] = Counter()
    out: list[Event] = []
    for event in events:
        text = event.pop("text", "")
        session = event["session"]
        if event["type"] == "model_called":
            characters = event.pop("attrs", {}).get("output_chars", len(text))
            tokens, answer = 500 + context[session] // 4, max(1, characters // 4)
            context[session] += characters
            cost = INPUT_NUSD * tokens + OUTPUT_NUSD * answer
            event.update(type="token_cost_logged", input_tokens=tokens, output_tokens=answer, cost_nusd=cost)
        else:
            context[session] += max(len(text), event.get("result_len") or 0)
            if not tools and event["type"] in ("tool_called", "user_message"):
                continue
        out.append({**event, "seq": len(out) + 1})
    return out


@pytest.mark.parametrize("tools", [True, False], ids=["tools told", "model calls alone"])
def test_growing_contexts_of_good_sessions_are_not_loops(folder: Path, tools: bool) -> None:
    """Real agents look like loops in their model calls alone: at most 0.5 % of the good sessions are warned of."""
    good = touched = 0
    for name in ("agentdojo", "taubench_airline"):
        labels = [x for x in records(folder / f"{name}.labels.ndjson.gz") if not x.get("attacked")]
        events = list(records(folder / f"{name}.ndjson.gz"))
        for pipeline in sorted({x.get("pipeline", "") for x in labels}):
            tasks = {x["task"] for x in labels if x.get("pipeline", "") == pipeline}
            succeeded = {x["task"] for x in labels if x["task"] in tasks and x["success"]}
            found = alarms(with_estimated_tokens((dict(e) for e in events if e["task"] in tasks), tools))
            assert all(a["severity"] != "critical" for a in found)
            good += len(succeeded)
            touched += len({a["scope"]["task"] for a in found} & succeeded)
    assert touched <= 0.005 * good, (touched, good)


def call(at: float, agent: str, session: str, tokens: float, answer: float) -> Event:
    return {
        "v": 1,
        "type": "token_cost_logged",
        "ts": T0 + int(at * 1e9),
        "source": agent,
        "agent": agent,
        "session": session,
        "model": "m",
        "input_tokens": int(tokens),
        "output_tokens": int(answer),
        "cost_nusd": INPUT_NUSD * int(tokens) + OUTPUT_NUSD * int(answer),
    }


def steady(chance: random.Random, agent: str, a_minute: float, hours: float) -> list[Event]:
    """Poisson calls in sessions of a few turns."""
    at, left, session, tokens, out = 0.0, 0, 0, 0.0, []
    while at < hours * 3600:
        at += chance.expovariate(a_minute / 60)
        if left == 0:
            session, left, tokens = session + 1, 1 + int(chance.expovariate(0.25)), chance.lognormvariate(6.5, 0.8)
        left -= 1
        tokens += chance.lognormvariate(5, 1)
        out.append(call(at, agent, f"{agent}/{session}", tokens, chance.lognormvariate(5, 0.8)))
    return out


def coding(chance: random.Random, agent: str, hours: float) -> list[Event]:
    """Bursts of calls with a growing context that is compacted now and then, and pauses of a person."""
    at, session, out = 0.0, 0, []
    while at < hours * 3600:
        session, tokens = session + 1, chance.lognormvariate(9.5, 0.4)
        for _ in range(chance.randint(1, 5)):
            for _ in range(min(120, 1 + int(chance.lognormvariate(2.7, 0.9)))):
                at += chance.lognormvariate(1.6, 0.6)
                answer = chance.lognormvariate(5, 1)
                tokens += answer + chance.lognormvariate(6.5, 1.3)
                tokens = tokens if tokens < 160_000 else chance.lognormvariate(9.8, 0.3)
                out.append(call(at, agent, f"{agent}/{session}", tokens, answer))
            at += chance.expovariate(1 / 90)
        at += chance.choice([chance.expovariate(1 / 300), chance.expovariate(1 / 1800)])
    return out


def test_thirty_healthy_agents_are_not_stopped_in_eight_hours() -> None:
    """5, 20 and 60 calls a minute, and bursty coding agents: no kill, and at most one warning in three agent-days."""
    chance = random.Random(1)
    makers: list[Callable[[str], list[Event]]] = [
        lambda name: steady(chance, name, 5, 8),
        lambda name: steady(chance, name, 20, 8),
        lambda name: steady(chance, name, 60, 8),
        lambda name: coding(chance, name, 8),
    ]
    fleet = [event for k in range(30) for event in makers[k % 4](f"agent-{k}")]
    fleet.sort(key=lambda event: event["ts"])
    number: defaultdict[str, int] = defaultdict(int)
    for n, event in enumerate(fleet):
        number[event["source"]] += 1
        event.update(id=f"e{n}", seq=number[event["source"]])
    found = alarms(fleet)
    assert [a["message"] for a in found if a["severity"] == "critical"] == []
    assert len(found) <= 3, [a["message"] for a in found]
