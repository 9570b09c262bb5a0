"""Constraints on the order of events, against what each template says of a whole trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.engine.core import EVENT_TIME, ConstraintChoice, Engine, EngineOptions, Pattern, constraint_catalog
from argus.errors import UsageError

T0 = 1_760_000_000_000_000_000
S = 10**9
Event = dict[str, Any]
Step = dict[str, Any]
TEMPLATES = {t["name"]: t for t in constraint_catalog()["templates"]}
BOOKKEEPING = ("token_cost_logged", "heartbeat")
BUILT_IN = tuple(ConstraintChoice(name=row["name"], enabled=False) for row in constraint_catalog()["defaults"])
ENDS = ("task_completed", "task_failed", "task_cancelled")


# --- The reference: a verdict on a whole trace, template by template ---------------------------------------------------
# A trace is a list of steps {id, ts, a, t, step, starts, ends} in order; what comes out are the ids that are blamed.


def runs(trace: list[Step], task: bool) -> list[list[Step]]:
    """A task's trace cut where a new start follows an end."""
    out: list[list[Step]] = [[]]
    for step in trace:
        if task and step["starts"] and any(s["ends"] for s in out[-1]):
            out.append([])
        out[-1].append(step)
    return [run for run in out if run]


def close_of(run: list[Step], task: bool) -> int | None:
    return next((i for i, s in enumerate(run) if s["ends"]), None) if task else None


def absence(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    return [s["id"] for s in run if s["a"]][row.times - 1 :]


def existence(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    close = close_of(run, task)
    end = None if close is None else run[close]["ts"]
    last = run[0]["ts"] + row.deadline_s * S if row.deadline_s else None
    if end is not None and (last is None or end <= last):
        return [run[close]["id"]] if sum(s["a"] for s in run[: close + 1]) < row.times else []
    if last is None:
        return []
    return [run[0]["id"]] if sum(s["a"] and s["ts"] <= last for s in run) < row.times else []


def exactly(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    return existence(run, row, task) + [s["id"] for s in run if s["a"]][row.times :]


def init(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    return [s["id"] for s in [s for s in run if s["step"]][:1] if not s["a"]]


def end(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    close = close_of(run, task)
    steps = [s for s in (run if close is None else run[: close + 1]) if s["step"]]
    blamed = [run[close]["id"]] if close is not None and not run[close]["a"] else []
    if row.deadline_s:
        for i, s in enumerate(steps):
            ended = close is not None and s is run[close]
            follows = i + 1 < len(steps) and steps[i + 1]["ts"] <= s["ts"] + row.deadline_s * S
            if not ended and not follows and not s["a"]:
                blamed.append(s["id"])
    return blamed


def precedence(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    within = row.deadline_s * S or float("inf")
    return [
        s["id"]
        for i, s in enumerate(run)
        if s["a"] and not any(p["t"] and s["ts"] - p["ts"] <= within for p in run[:i])
    ]


def response(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    """With a deadline the oldest open activation counts: those before its deadline belong to the same lapse."""
    if not row.deadline_s:
        close = close_of(run, task)
        if close is None:
            return []
        answered = max((i for i in range(close + 1) if run[i]["t"]), default=0)
        return [s["id"] for s in run[answered : close + 1] if s["a"]][:1]
    blamed, i = [], 0
    while i < len(run):
        if not run[i]["a"]:
            i += 1
            continue
        last = run[i]["ts"] + row.deadline_s * S
        answer = next((j for j in range(i + 1, len(run)) if run[j]["t"] and run[j]["ts"] <= last), None)
        if answer is None:
            blamed.append(run[i]["id"])
            answer = next((j for j in range(i + 1, len(run)) if run[j]["ts"] > last), len(run))
        i = answer
    return blamed


def swapped(run: list[Step]) -> list[Step]:
    return [{**s, "a": s["t"], "t": s["a"]} for s in run]


def plain(row: ConstraintChoice) -> ConstraintChoice:
    return ConstraintChoice(name=row.name, template=row.template)


def chain_precedence(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    steps = [s for s in run if s["step"]]
    return [s["id"] for i, s in enumerate(steps) if s["a"] and not (i > 0 and steps[i - 1]["t"])]


def chain_response(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    close = close_of(run, task)
    steps = [s for s in run if s["step"]]
    within = row.deadline_s * S or float("inf")
    blamed = []
    for i, s in enumerate(steps):
        if not s["a"]:
            continue
        if not row.deadline_s and close is not None and s is run[close]:
            blamed.append(s["id"])
        elif i + 1 == len(steps):
            blamed += [s["id"]] if row.deadline_s else []
        elif not steps[i + 1]["t"] or steps[i + 1]["ts"] - s["ts"] > within:
            blamed.append(s["id"])
    return blamed


def not_succession(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    within = row.deadline_s * S or float("inf")
    return [
        s["id"] for i, s in enumerate(run) if s["t"] and any(p["a"] and s["ts"] - p["ts"] <= within for p in run[:i])
    ]


def not_chain_succession(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    steps = [s for s in run if s["step"]]
    return [s["id"] for i, s in enumerate(steps) if i > 0 and s["t"] and steps[i - 1]["a"]]


def not_coexistence(run: list[Step], row: ConstraintChoice, task: bool) -> list[str]:
    return [
        s["id"]
        for i, s in enumerate(run)
        if (s["a"] or s["t"]) and any(p["a"] for p in run[: i + 1]) and any(p["t"] for p in run[: i + 1])
    ]


Law = Callable[[list[Step], ConstraintChoice, bool], list[str]]
BY_RUN: dict[str, Law] = {
    "existence": existence, "absence": absence, "exactly": exactly, "init": init, "end": end,
    "precedence": precedence, "chain_precedence": chain_precedence, "not_succession": not_succession,
    "not_chain_succession": not_chain_succession, "not_coexistence": not_coexistence,
}  # fmt: skip
WITH_DEADLINE: dict[str, tuple[Law, Law | None]] = {  # what may be owed beyond a run, and what may not
    "response": (response, None),
    "succession": (response, precedence),
    "chain_response": (chain_response, None),
    "chain_succession": (chain_response, chain_precedence),
}


def blamed(trace: list[Step], row: ConstraintChoice) -> list[str]:
    """The ids of all violations of a row in one trace."""
    task = row.scope == "task"
    cut = runs(trace, task)
    if row.template in BY_RUN:
        return [x for run in cut for x in BY_RUN[row.template](run, row, task)]
    later, before = WITH_DEADLINE[row.template]
    out = [x for run in ([trace] if row.deadline_s else cut) for x in later(run, row, task)]
    if before is not None:
        out += [x for run in cut for x in before(swapped(run), plain(row), task)]
    return out


# --- The engine beside it ---------------------------------------------------------------------------------------------

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("task_started", {}),
    ("task_completed", {"ok": True}),
    ("task_failed", {"ok": False}),
    ("tool_called", {"tool": "a"}),
    ("tool_called", {"tool": "b"}),
    ("eval_logged", {"eval": "e", "score": 1.0}),
    ("token_cost_logged", {"cost_nusd": 1, "model": "m"}),
    ("custom_step", {}),
]


def holds(pattern: Pattern | None, event: Event) -> bool:
    return (
        pattern is not None
        and event["type"] in pattern.events
        and all(event.get(field) == value for field, value in pattern.where.items())
    )


def steps_of(events: list[Event], row: ConstraintChoice) -> dict[str, list[Step]]:
    """The traces of a row's scope, in ts order."""
    traces: dict[str, list[Step]] = {}
    for e in sorted(events, key=lambda e: int(e["ts"])):
        if row.scope not in e:
            continue
        a, t = holds(row.activation, e), holds(row.target, e)
        traces.setdefault(e[row.scope], []).append(
            {
                "id": e["id"],
                "ts": e["ts"],
                "a": a,
                "t": t,
                "step": e["type"] not in BOOKKEEPING or a or t,
                "starts": e["type"] == "task_started",
                "ends": e["type"] in ENDS,
            }
        )
    return traces


def engine_for(*rows: ConstraintChoice, built_in: bool = False) -> Engine:
    options = EngineOptions(
        constraints=(() if built_in else BUILT_IN) + rows,
        auditors={"causal": {"repeat_after_s": 1}},
        disabled=frozenset({"loop", "budget", "cost", "forecast", "outcome", "sequence", "hijack"}),
    )
    return Engine(options, host_plane=False, guard_every_session=True)


def judged(events: list[Event], *rows: ConstraintChoice, cut: int = 0, built_in: bool = False) -> list[Any]:
    """What the engine says, restored from a snapshot before event `cut`."""
    engine = engine_for(*rows, built_in=built_in)
    found = []
    for number, event in enumerate(events):
        if number == cut and cut:
            state = engine.snapshot()
            engine.close()
            engine = engine_for(*rows, built_in=built_in)
            engine.restore(state)
        report = engine.ingest(msgpack.packb(event), now=EVENT_TIME)
        assert report.rejected == {}
        found += report.anomalies
    found += engine.finish(max(e["ts"] for e in events) + 100_000 * S)
    engine.close()
    return [a for a in found if a.series.removeprefix("causal.") in {row.name for row in rows}]


patterns = st.builds(
    lambda events, tool: Pattern(events=tuple(sorted(events)), where={"tool": tool} if tool else {}),
    st.sets(st.sampled_from([kind for kind, _ in KINDS]), min_size=1, max_size=3),
    st.sampled_from(["", "", "a", "b"]),
)


@st.composite
def rows(draw: st.DrawFn) -> ConstraintChoice:
    template = TEMPLATES[draw(st.sampled_from(sorted(TEMPLATES)))]
    scope = draw(st.sampled_from(["task", "task", "session", "agent"]))
    wanted = template["deadline"] == "needed" and scope != "task"
    timed = template["deadline"] != "none" and (wanted or draw(st.booleans()))
    return ConstraintChoice(
        name="r",
        template=template["name"],
        activation=draw(patterns),
        target=draw(patterns) if template["target"] else None,
        scope=scope,
        times=draw(st.integers(1, 3)) if template["times"] else 1,
        deadline_s=draw(st.sampled_from([2, 6, 14])) if timed else 0,
    )


def stream(kinds: list[tuple[int, int]], gaps: list[int]) -> list[Event]:
    """Events 4 s and more apart: so a row may speak at each, and no deadline falls on one."""
    events, ts = [], T0
    for number, ((kind, place), gap) in enumerate(zip(kinds, gaps, strict=True)):
        ts += gap * 4 * S
        name, fields = KINDS[kind]
        where = {"task": f"t{place}", "session": f"s{place // 2}", "agent": "x"}
        events.append(
            {"v": 1, "id": f"e{number}", "type": name, "ts": ts, "source": "s", "seq": number + 1, **where, **fields}
        )
    return events


kinds_and_gaps = st.lists(
    st.tuples(st.tuples(st.integers(0, len(KINDS) - 1), st.integers(0, 2)), st.integers(1, 4)), min_size=1, max_size=40
).map(lambda items: stream([i[0] for i in items], [i[1] for i in items]))


@settings(max_examples=400, deadline=None)
@given(events=kinds_and_gaps, row=rows(), cut=st.integers(0, 40))
def test_every_template_says_what_it_means_of_whole_traces(events: list[Event], row: ConstraintChoice, cut: int):
    """Each violation once, with the event that is to blame, also across a restart of the engine."""
    expected = sorted(x for trace in steps_of(events, row).values() for x in blamed(trace, row))
    found = judged(events, row, cut=cut)
    assert sorted(a.evidence[0] for a in found) == expected
    assert {a.scope.kind for a in found} <= {row.scope}


@settings(max_examples=150, deadline=None)
@given(events=kinds_and_gaps, row=rows(), seed=st.integers(0, 2**32))
def test_arrival_within_the_watermark_changes_no_verdict(events: list[Event], row: ConstraintChoice, seed: int):
    """Two sources, closer in time, each event up to 2 s late: what is violated stays the same."""
    if row.template == "end" and row.deadline_s:
        row = ConstraintChoice(**{**plain_fields(row), "deadline_s": 60})
    chance = random.Random(seed)
    near = [{**e, "ts": T0 + (e["ts"] - T0) // 5 + n, "source": chance.choice("AB")} for n, e in enumerate(events)]
    late = sorted(near, key=lambda e: e["ts"] + chance.randrange(0, 2 * S))
    opening = [{"v": 1, "id": f"h{x}", "type": "heartbeat", "ts": T0 - 10 * S, "source": x, "seq": 1} for x in "AB"]
    numbers = {"A": 1, "B": 1}
    for e in late:
        numbers[e["source"]] += 1
        e["seq"] = numbers[e["source"]]
    expected = {scope for scope, trace in steps_of(near, row).items() if blamed(trace, row)}
    found = judged(opening + late, row)
    assert {a.scope.id for a in found} == expected


def plain_fields(row: ConstraintChoice) -> dict[str, Any]:
    return {field: getattr(row, field) for field in row.__struct_fields__}


@settings(max_examples=60, deadline=None)
@given(events=kinds_and_gaps, several=st.lists(rows(), min_size=2, max_size=6))
def test_rows_do_not_disturb_each_other(events: list[Event], several: list[ConstraintChoice]):
    """Many rows over one stream say what each says alone."""
    named = [ConstraintChoice(**{**plain_fields(row), "name": f"r{i}"}) for i, row in enumerate(several)]
    together = judged(events, *named)
    for row in named:
        alone = [(a.series, a.scope.id, a.evidence[0]) for a in judged(events, row)]
        assert sorted((a.series, a.scope.id, a.evidence[0]) for a in together if a.series == f"causal.{row.name}") == (
            sorted(alone)
        )


def test_a_row_is_refused_where_it_makes_no_sense():
    tool = Pattern(events=("tool_called",))
    for row, word in (
        (ConstraintChoice(name="r", template="precedence", activation=tool), "target"),
        (ConstraintChoice(name="r", template="absence", activation=tool, target=tool), "target"),
        (ConstraintChoice(name="r", template="init", activation=tool, times=2), "times"),
        (ConstraintChoice(name="r", template="init", activation=tool, deadline_s=1), "deadline_s"),
        (ConstraintChoice(name="r", template="end", activation=tool, scope="session"), "deadline_s"),
        (ConstraintChoice(name="r", template="absence"), "activation"),
        (ConstraintChoice(name="r", template="soon", activation=tool), "template"),
        (ConstraintChoice(name="seq_gap", template="absence", activation=tool), "name"),
    ):
        with pytest.raises(UsageError, match=word):
            engine_for(row)
