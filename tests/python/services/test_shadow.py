"""A notional guard: stops hold, what they spare is exact, and what is known of the sessions judges them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import argus
from argus.engine.core import EngineOptions
from argus.errors import UnreachableError, UsageError
from argus.schema import Scope, ScopeKind, StopKind
from argus.services import status
from argus.services.replay import ReplayReport
from argus.services.shadow import ShadowReport, Spared

RUNAWAY = Path(__file__).resolve().parents[3] / "examples" / "runaway.ndjson"
T0 = 1_760_000_000_000_000_000
SECOND = 10**9
USD = 10**9


def event(number: int, kind: str, **fields: Any) -> dict[str, Any]:
    record = {"v": 1, "id": f"e{number}", "type": kind, "ts": T0 + number * SECOND, "source": "s", "seq": number}
    return {**record, **fields}


def cost(number: int, nusd: int, session: str = "run", **fields: Any) -> dict[str, Any]:
    return event(number, "token_cost_logged", session=session, model="m", cost_nusd=nusd, **fields)


def guarded(
    events: list[dict[str, Any]], cap: int = USD, labels: Path | None = None, **options: Any
) -> tuple[ReplayReport, ShadowReport]:
    options = {"caps_nusd": {"session": cap}, **options}
    report = argus.replay(events, config=EngineOptions(**options), guard=True, labels=labels)
    assert report.shadow is not None
    return report, report.shadow


def rule(shadow: ShadowReport, name: str) -> Any:
    return next(row for row in shadow.rules if row.criterion == name)


def label(folder: Path, *labels: dict[str, Any]) -> Path:
    path = folder / "labels.ndjson"
    path.write_text("".join(json.dumps(each) + "\n" for each in labels))
    return path


# --- Sums ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, USD // 2), st.integers(0, 999), st.sampled_from(["", "c", "d"])
        ),
        max_size=40,
    )
)
def test_what_stops_spare_equals_a_count_by_hand_to_the_nano_usd(steps: list[tuple[str, int, int, str]]):
    """Every event after a session's stop is spared by its kill, else by its lockdown, and by nothing else."""
    events = [
        cost(n, nusd, session, input_tokens=tokens, output_tokens=1, **({"call": f"{call}{n}"} if call else {}))
        for n, (session, nusd, tokens, call) in enumerate(steps, 1)
    ]
    report, shadow = guarded(events)
    expected = {(stop.kind, stop.scope.id): Spared() for stop in report.stops}
    at = {(stop.kind, stop.scope.id): stop.ts for stop in report.stops}
    for each in events:
        for kind in (StopKind.HARD_KILL, StopKind.WRITE_LOCKDOWN):
            if each["ts"] > at.get((kind, each["session"]), each["ts"]):
                cost_nusd, tokens = each["cost_nusd"], each["input_tokens"]
                since = at[kind, each["session"]]
                spared = expected[kind, each["session"]]
                spared.add(
                    Spared(events=1, metered_nusd=cost_nusd, upper_nusd=cost_nusd, input_tokens=tokens, output_tokens=1)
                )
                spared.model_calls += 1
                spared.wall_ns = each["ts"] - since
                break
    assert {(stop.kind, stop.scope.id): stop.after for stop in shadow.stops} == expected
    kept = {session: sum(e["cost_nusd"] for e in events if e["session"] == session) for session in "abc"}
    for stop in shadow.stops:
        kept[stop.scope.id] -= stop.after.upper_nusd
    for session, nusd in kept.items():
        killed = (StopKind.HARD_KILL, session) in at
        assert nusd < USD + USD // 2 if killed or (StopKind.WRITE_LOCKDOWN, session) in at else nusd < 8 * USD // 10
    assert shadow.spent.upper_nusd == sum(e["cost_nusd"] for e in events)


def test_rules_and_totals_are_the_sums_of_the_stops():
    events = [cost(n, USD // 5, f"s{n % 5}") for n in range(1, 60)]
    report, shadow = guarded(events)
    for name in ("C1", "W1"):
        row, own = rule(shadow, name), [s for s in shadow.stops if s.criterion == name]
        assert row.stops == len(own) == row.scopes == row.fired == 5
        assert row.after.upper_nusd == sum(s.after.upper_nusd for s in own)
        assert [f.stopped for f in row.firings] == [True] * 5
    assert sum(row.stops for row in shadow.rules) == len(report.stops) == len(shadow.stops)
    both = shadow.after_kills.upper_nusd + shadow.after_lockdowns.upper_nusd
    assert both == sum(row.after.upper_nusd for row in shadow.rules)
    assert rule(shadow, "C2") == msgspec.structs.replace(rule(shadow, "C2"), fired=0, stops=0, after=Spared())


def test_unknown_cost_is_spared_at_its_upper_bound():
    unknown = event(3, "token_cost_logged", session="run", model="m", input_tokens=1000, output_tokens=100)
    _, shadow = guarded([cost(1, USD), unknown], prices_nusd_per_mtok={"m": (3 * USD, 15 * USD)})
    after = shadow.after_kills
    assert (after.metered_nusd, after.upper_nusd) == (0, 1000 * 3000 + 100 * 15000)


def test_a_call_reserved_before_the_stop_is_paid_and_not_spared():
    events = [
        event(1, "budget_reserved", session="run", call="a", cost_nusd=USD // 10),
        cost(2, USD),
        event(3, "budget_settled", session="run", call="a", cost_nusd=USD // 20),
        event(4, "budget_reserved", session="run", call="b", cost_nusd=USD // 10),
        event(5, "budget_settled", session="run", call="b", cost_nusd=USD // 20),
    ]
    _, shadow = guarded(events)
    assert [stop.kind for stop in shadow.stops] == [StopKind.HARD_KILL]
    assert shadow.after_kills.upper_nusd == USD // 20
    assert shadow.after_kills.events == 2


def test_a_retransmission_is_spared_once():
    late = cost(3, USD // 2, input_tokens=7)
    _, shadow = guarded([cost(1, USD), late, late, {**late, "input_tokens": 8, "seq": 4}])
    assert shadow.after_kills.model_calls == 2
    assert shadow.after_kills.input_tokens == 15


def test_tokens_that_call_and_cost_both_tell_count_once():
    events = [cost(1, USD)]
    for n in (2, 4):
        tokens = {"input_tokens": 10, "output_tokens": 5}
        events += [event(n, "model_returned", session="run", **tokens), cost(n + 1, 1, **tokens)]
    events += [event(6, "tool_called", session="run", tool="t"), event(7, "tool_returned", session="run", tool="t")]
    _, shadow = guarded(events)
    after = shadow.after_kills
    assert (after.input_tokens, after.output_tokens, after.model_calls, after.tool_calls) == (20, 10, 2, 1)


def test_writes_of_a_locked_scope_are_counted_and_a_kill_takes_over():
    events = [cost(1, 8 * USD // 10), event(2, "file_written", session="run", path="a"), cost(3, USD // 5)]
    events += [event(4, "file_written", session="run", path="a"), event(5, "file_deleted", session="run", path="a")]
    _, shadow = guarded(events)
    assert [(s.kind.value, s.after.writes, s.after.events) for s in shadow.stops] == [
        ("write_lockdown", 1, 2),
        ("hard_kill", 2, 2),
    ]


# --- What is not judged again ----------------------------------------------------------------------------------------


def test_a_killed_session_shows_no_new_faults_and_no_gap_and_real_gaps_stay():
    events = [cost(1, USD), cost(2, 1, "other")]
    events += [event(3, "task_completed", session="run", task="never started")]
    events += [cost(4, USD), {**cost(5, USD), "id": "e4"}]  # an id used again, by one who is stopped
    events += [cost(6, 1, "other"), cost(9, 1, "other")]
    loud = argus.replay(events, config=EngineOptions(caps_nusd={"session": USD}))
    assert {a.series for a in loud.anomalies} >= {"causal.duplicate_id", "causal.seq_gap"}
    report, shadow = guarded(events)
    assert [(a.series, a.value) for a in report.anomalies if a.family == "causal"] == [("causal.seq_gap", 2.0)]
    assert shadow.after_kills.events == 3


def test_a_tenants_cap_does_not_count_what_was_spared():
    events = [cost(n, USD, "run", tenant="t") for n in range(1, 11)] + [cost(11, USD // 2, "calm", tenant="t")]
    loud = argus.replay(events, config=EngineOptions(caps_nusd={"session": USD, "tenant": 5 * USD}))
    assert "budget.cap" in {a.series for a in loud.anomalies if a.scope.kind == "tenant"}
    report, shadow = guarded(events, caps_nusd={"session": USD, "tenant": 5 * USD})
    assert {a.scope.kind for a in report.anomalies} == {ScopeKind.SESSION}
    assert shadow.after_kills.upper_nusd == 9 * USD


def test_what_is_said_late_of_a_stopped_task_is_told_apart():
    shown = [
        event(1, "task_started", session="x", task="a"),
        event(2, "task_completed", session="x", task="a", ok=True),
    ]
    events = [*shown, event(3, "task_started", session="run", task="t"), cost(4, USD, task="t")]
    events += [event(n, "tool_called", session="y", tool="t") for n in (5, 3000)]
    loud = argus.replay(events, config=EngineOptions(caps_nusd={"session": USD}))
    assert "causal.missing_terminal" in {a.series for a in loud.anomalies}
    report, shadow = guarded(events)
    assert "causal.missing_terminal" not in {a.series for a in report.anomalies}
    assert shadow.told_after == {"causal.missing_terminal": 1}
    assert sum(i.count for i in report.incidents) == len(report.anomalies)


def test_a_child_of_what_was_never_done_is_no_orphan():
    child = event(4, "task_started", session="other", task="c", parent="p")
    events = [cost(1, USD), event(2, "task_started", session="run", task="p"), child, cost(60, 1, "other")]
    report, _ = guarded(events)
    assert "causal.orphan_parent" not in {a.series for a in report.anomalies}


def test_a_stop_of_an_agent_reaches_that_agent_alone():
    events = [cost(n, USD // 2, f"s{n}", agent="a" if n % 2 else "b") for n in range(1, 9)]
    report, shadow = guarded(events, caps_nusd={"agent": 3 * USD // 2})
    kills = [s for s in shadow.stops if s.kind is StopKind.HARD_KILL]
    assert {(s.scope.kind.value, s.scope.id) for s in kills} == {("agent", "a"), ("agent", "b")}
    assert all(s.scope.kind is ScopeKind.AGENT for s in report.stops)
    homeless = [event(n, "token_cost_logged", model="m", cost_nusd=USD) for n in range(1, 5)]
    assert guarded(homeless, caps_nusd={"host": 2 * USD})[1].after_kills.events == 2


def test_refused_events_are_counted_once_whoever_is_stopped():
    bad = {**cost(2, 1), "ts": "late"}
    also = {**cost(3, 1, "other"), "v": 9}
    report, _ = guarded([cost(1, USD), bad, also, cost(4, 1), {"v": 1}])
    assert report.rejected == {"wrong_type": 1, "unsupported_version": 1, "missing_key": 1}
    assert report.events == 2


def test_without_a_stop_a_guard_changes_nothing():
    events = [json.loads(line) for line in RUNAWAY.read_text().splitlines()]
    off = EngineOptions(disabled=frozenset({"C2", "W3", "C4", "W2"}))
    plain, held = argus.replay(events, config=off), argus.replay(events, config=off, guard=True)
    assert msgspec.structs.replace(held, shadow=None) == plain
    assert plain.shadow is None


# --- Verdicts --------------------------------------------------------------------------------------------------------


def ended(number: int, session: str, kind: str = "task_completed", **fields: Any) -> dict[str, Any]:
    return event(number, kind, session=session, task=f"task of {session}", **fields)


def test_without_labels_a_stop_of_a_session_that_succeeded_is_false_and_of_others_nothing_is_known():
    events = [cost(1, USD, "good"), cost(2, USD, "failed"), cost(3, USD, "open")]
    events += [ended(4, "good", ok=True), ended(5, "failed", "task_failed", ok=False)]
    _, shadow = guarded(events)
    assert {s.scope.id: s.verdict.value for s in shadow.stops} == {
        "good": "false",
        "failed": "unknown",
        "open": "unknown",
    }
    assert rule(shadow, "C1").stops_by_verdict == {"right": 0, "false": 1, "unknown": 2}
    assert rule(shadow, "C1").fired_by_verdict == {"right": 0, "false": 1, "unknown": 2}
    assert shadow.truth.startswith("ends of tasks")


def test_labels_decide_and_then_ends_of_tasks_do_not(tmp_path: Path):
    labels = label(
        tmp_path,
        {"session": "a", "bad": True},
        {"session": "b", "success": True},
        {"session": "c", "success": False},
        {"session": "d", "hijacked": True, "success": True},
        {"task": "task of e", "anomaly": False},
    )
    events = [cost(n, USD, session, task=f"task of {session}") for n, session in enumerate("abcdef", 1)]
    events += [ended(9, "f", ok=True)]
    _, shadow = guarded(events, labels=labels)
    assert {s.scope.id: s.verdict.value for s in shadow.stops} == {
        "a": "right",
        "b": "false",
        "c": "unknown",
        "d": "right",
        "e": "false",
        "f": "unknown",
    }
    packed = tmp_path / "labels.gz"
    packed.write_bytes(gzip.compress(labels.read_bytes()))
    assert guarded(events, labels=packed)[1].stops == shadow.stops


def test_a_window_is_bad_within_and_good_without(tmp_path: Path):
    labels = label(tmp_path, {"tenant": "t", "ts_from": T0 + 2 * SECOND, "ts_to": T0 + 3 * SECOND})
    events = [cost(n, USD, f"s{n}", tenant="t") for n in range(1, 6)]
    _, shadow = guarded(events, labels=labels)
    assert [s.verdict.value for s in shadow.stops] == ["false", "right", "right", "false", "false"]


def test_a_wide_stop_counts_the_good_it_cut():
    events = [cost(1, 2 * USD, "loop", tenant="t")]
    events += [each for n in (2, 4) for each in (cost(n, 1, f"g{n}", tenant="t"), ended(n + 1, f"g{n}", tenant="t"))]
    _, shadow = guarded(events, caps_nusd={"tenant": 2 * USD})
    (stop,) = shadow.stops
    assert (stop.scope.id, stop.cut, stop.cut_good, stop.verdict.value) == ("t", 2, 2, "false")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "one JSON object"),
        ("[1]", "one JSON object"),
        ('{"bad": true}', "to name whom"),
        ('{"session": 7, "bad": true}', "to name whom"),
        ('{"session": "a"}', "expected a verdict"),
        ('{"session": "a", "bad": "yes"}', "bad: expected true or false, found 'yes'"),
        ('{"session": "a", "ts_from": 1}', "ts_from and ts_to"),
        ('{"session": "a", "bad": true, "pad": "' + "x" * 70_000 + '"}', "64 KiB"),
    ],
)
def test_a_label_that_is_none_is_refused_with_its_line(tmp_path: Path, line: str, named: str):
    path = tmp_path / "labels.ndjson"
    path.write_text('{"session": "fine", "bad": true}\n' + line + "\n")
    with pytest.raises(UsageError, match=r"labels\.ndjson:2: ") as refused:
        argus.replay([], guard=True, labels=path)
    assert named in str(refused.value)


def test_labels_need_a_guard_and_a_file(tmp_path: Path):
    with pytest.raises(UsageError, match="notional guard"):
        argus.replay([], labels=tmp_path / "x")
    with pytest.raises(UnreachableError, match="absent"):
        argus.replay([], guard=True, labels=tmp_path / "absent")


# --- What a person sees ----------------------------------------------------------------------------------------------


def test_the_table_shows_each_rule_that_held_with_exact_sums():
    report, shadow = guarded([cost(n, 123_456_789, f"s{n % 3}") for n in range(1, 50)])
    lines = status.render_replay(report, limit=2, log="log file.ndjson").split("\n")
    rows = {line.split()[0]: line.split() for line in lines if line.startswith(("C1 ", "W1 ", "total "))}
    assert rows["C1"][:5] == ["C1", "hard_kill", "3", "3", "3"]
    assert rows["C1"][7] == status.usd(rule(shadow, "C1").after.upper_nusd)
    total = sum(round(float(rows[name][7].replace(",", "")) * USD) for name in ("C1", "W1"))
    assert rows["total"][2] == status.usd(total)
    assert "never held: C2, C4, C5, W2, W3, W4, W5, W8, W9" in lines
    assert any(line.strip().startswith("argus show --log 'log file.ndjson' e") for line in lines)
    assert any("and 4 more" in line for line in lines)


@pytest.mark.parametrize(
    ("nusd", "shown"),
    [(0, "0.000000000"), (1, "0.000000001"), (-5, "-0.000000005"), (10**18 + 7, "1,000,000,000.000000007")],
)
def test_money_keeps_every_digit(nusd: int, shown: str):
    assert status.usd(nusd) == shown


@pytest.mark.parametrize("name", ["\x1b[2Jx", "a\nb", "\u202egnp", "-rf", "a b; rm -rf ~"])
def test_hostile_names_stay_on_their_line_and_out_of_the_command(name: str):
    events = [cost(n, USD // 2, name) for n in range(1, 9)]
    report, _ = guarded([{**each, "id": f"{name}{n}"} for n, each in enumerate(events)])
    lines = status.render_replay(report, limit=9, log="f").split("\n")
    assert all(line.isprintable() for line in lines)
    for line in (line for line in lines if "argus show" in line):
        assert "; rm" not in line.replace(f"'{name}", "")
        assert " -rf" not in line.replace("rm -rf", "")


def test_an_account_survives_json():
    _, shadow = guarded([cost(n, USD) for n in range(1, 5)])
    assert msgspec.json.decode(msgspec.json.encode(shadow), type=ShadowReport) == shadow
    assert str(shadow.stops[0].scope) == str(Scope(ScopeKind.SESSION, "run"))
