"""Made agents: healthy ones for eight hours, and the same running away after an hour. Seeded, every call with its text.

Four kinds in turn: calls as a Poisson process of 5, 20 and 60 a minute, and coding agents in bursts of one call in
about 5 s with a person's pauses. An agent works task by task, each a session: a turn is one model call over a context
that grows, and one tool call with arguments and a result of its own. In one task of twenty, unless `polls` is off, it
asks for the state of a build three to six times over, with equal arguments and a result that moves.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

KINDS = ("5 a minute", "20 a minute", "60 a minute", "coding bursts")
HOURS = 8.0
RUNAWAYS = {
    "the same call, the same result": "exact",
    "a new argument each time, the same result": "nonce",
    "three calls in a circle, the same results": "circle",
    "two calls in turns, the same results": "pair",
    "one tool, new arguments and results: slow work, not a fault": "work",
}
_START_NS = 1_760_000_000_000_000_000
TOOLS = {"bash": 9, "read": 5, "edit": 4, "search": 2, "test": 1, "fetch": 1}
_POLLED = 0.05
_INPUT_NUSD, _OUTPUT_NUSD = 2_500, 10_000


class Call(NamedTuple):
    """A tool call and the model call before it; `at` in seconds since the start."""

    at: float
    agent: str
    session: str
    tool: str
    argument: str
    result: str
    input_tokens: int
    output_tokens: int


def _gap(chance: random.Random, kind: str) -> float:
    if kind == "coding bursts":
        return chance.lognormvariate(1.6, 0.6)
    return chance.expovariate(float(kind.split()[0]) / 60)


def _pause(chance: random.Random, kind: str) -> float:
    if kind != "coding bursts":
        return 0.0
    return chance.choice([chance.expovariate(1 / 90), chance.expovariate(1 / 300), chance.expovariate(1 / 1800)])


def _tasks(chance: random.Random, agent: str, kind: str, hours: float, polls: bool) -> Iterator[Call]:
    at, task = 0.0, 0
    while at < hours * 3600:
        task += 1
        context = chance.lognormvariate(8.0, 0.5)
        turns = min(120, 3 + int(chance.lognormvariate(2.2, 0.8)))
        tools = chance.choices(list(TOOLS), list(TOOLS.values()), k=turns)
        if polls and chance.random() < _POLLED:
            where = chance.randint(1, turns)
            tools[where:where] = ["build_state"] * chance.randint(3, 6)
        for turn, tool in enumerate(tools):
            at += _gap(chance, kind)
            if at >= hours * 3600:
                return
            answer = chance.lognormvariate(5, 0.9)
            argument = "build 7" if tool == "build_state" else f"{task}.{turn}"
            result = f"{task}.{turn}"
            yield Call(at, agent, f"{agent}/{task}", tool, argument, result, int(context), int(answer))
            context = min(150_000.0, context + answer + chance.lognormvariate(6, 1))
        at += _pause(chance, kind)


def healthy(count: int = 30, *, hours: float = HOURS, polls: bool = True, seed: int = 1) -> dict[str, list[Call]]:
    """Agent -> its calls, in order of time; kinds take turns."""
    return {
        f"agent-{k}": list(_tasks(random.Random(f"{seed}/{k}"), f"agent-{k}", KINDS[k % len(KINDS)], hours, polls))
        for k in range(count)
    }


def runaway(name: str, *, hours: float = 1.0, calls: int = 2000) -> tuple[list[Call], int]:
    """A healthy agent of 20 calls a minute, never polling, that then calls for ever, every 2 s.

    Also the index of its first such call.
    """
    before = list(_tasks(random.Random(7), "agent-0", KINDS[1], hours, False))
    at, out = before[-1].at, []
    kind = RUNAWAYS[name]
    for k in range(calls):
        tool = {"circle": ("search", "read", "fetch")[k % 3], "pair": ("edit", "test")[k % 2]}.get(kind, "search")
        argument = f"again {k}" if kind in ("nonce", "work") else "again"
        result = f"found {k}" if kind == "work" else f"nothing {tool}"
        out.append(Call(at + 2 * (k + 1), "agent-0", "agent-0/last", tool, argument, result, 3000 + 60 * k, 60))
    return before + out, len(before)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def events(calls: Iterable[Call]) -> Iterator[dict[str, Any]]:
    """The calls as events in order of time: start and end of tasks, tool calls and what the model cost."""
    ordered = sorted(calls, key=lambda call: call.at)
    last = {call.session: index for index, call in enumerate(ordered)}
    seen: set[str] = set()
    numbers: Counter[str] = Counter()

    def event(call: Call, kind: str, late_ns: int, **fields: Any) -> dict[str, Any]:
        numbers[call.agent] += 1
        number = numbers[call.agent]
        return {
            "v": 1, "id": f"{call.agent}:{number}", "type": kind, "ts": _START_NS + int(call.at * 1e9) + late_ns,
            "source": call.agent, "seq": number, "agent": call.agent, "session": call.session, "task": call.session,
            **fields,
        }  # fmt: skip

    for index, call in enumerate(ordered):
        if call.session not in seen:
            seen.add(call.session)
            yield event(call, "task_started", 0)
        cost = _INPUT_NUSD * call.input_tokens + _OUTPUT_NUSD * call.output_tokens
        tokens = {"input_tokens": call.input_tokens, "output_tokens": call.output_tokens}
        yield event(call, "token_cost_logged", 1, model="m", cost_nusd=cost, **tokens)
        hashes = {"args_hash": _digest(call.argument), "result_hash": _digest(call.result)}
        yield event(call, "tool_called", 2, tool=call.tool, ok=True, **hashes)
        if last[call.session] == index:
            yield event(call, "task_completed", 3, ok=True)
