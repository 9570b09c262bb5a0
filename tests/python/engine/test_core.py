"""The engine's Python face: options, ingest, rows, money, sessions, stops, snapshots; on fixtures and made-up events."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import argus
from argus import _core
from argus.engine.core import EVENT_TIME, BurstChoice, Engine, EngineOptions, IngestReport, SourceChoice, catalog
from argus.errors import UsageError
from argus.guard import start_time_ns
from argus.schema import Anomaly, Scope, ScopeKind, Severity, StopKind

T0 = 1_760_000_000_000_000_000
SECOND = 10**9
USD = 10**9
FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "6.18"
# Sources that the captured guest lacks, or that ask the running kernel itself.
NOT_CAPTURED = {
    "availability",  # told of no targets
    "exits",
    "filesystem",
    "gpu",
    "perf",
    "self",
    "thermal",
}
POLL_MS = 10


def event(number: int, kind: str = "token_cost_logged", **fields: Any) -> dict[str, Any]:
    record = {"v": 1, "id": f"e{number}", "type": kind, "ts": T0 + number * SECOND, "source": "s", "seq": number}
    return {**record, "session": "run", **fields}


def cost(number: int, nusd: int, **fields: Any) -> dict[str, Any]:
    return event(number, model="m", cost_nusd=nusd, **fields)


def frame(*events: dict[str, Any]) -> bytes:
    return msgpack.packb(list(events))


def give(engine: Engine, *events: dict[str, Any], **how: Any) -> IngestReport:
    return engine.ingest(frame(*events), **{"now": EVENT_TIME, **how})


def auditor_only(**options: Any) -> Engine:
    return Engine(EngineOptions(**options), host_plane=False, host="h")


def eventful() -> list[dict[str, Any]]:
    """An order fault, a loop that spends, a cap that is reached."""
    events = [event(1, "task_started", task="t"), event(2, "task_started", task="u", id="e1")]
    for i in range(12):
        at = 3 + 2 * i
        call = {"tool": "search", "args_hash": "aa", "result_hash": "bb"}
        events += [event(at, "tool_called", task="t", **call), cost(at + 1, USD // 4, task="t")]
    return [*events, event(27, "task_completed", task="t")]


EVENTFUL_CAP = {"session": 2 * USD}


def on_fixture(**options: Any) -> EngineOptions:
    every = {source["name"]: SourceChoice(interval_ms=POLL_MS) for source in catalog()["sources"]}
    return EngineOptions(
        **{
            "proc": str(FIXTURE / "proc"),
            "sys": str(FIXTURE / "sys"),
            "sources": every,
            "processes": SourceChoice(interval_ms=POLL_MS),
            **options,
        }
    )


def until_due() -> None:
    time.sleep((POLL_MS + 1) / 1000)


# --- Options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"detectors": {"residuals": {}}}, r"detectors: no leaf 'residuals'; known: residual"),
        ({"auditors": {"loops": {}}}, r"auditors: no leaf 'loops'; known: causal, loop, budget"),
        ({"criteria": {"C9": {}}}, r"criteria: no leaf 'C9'; known: C1"),
        ({"sources": {"cpus": SourceChoice()}}, r"sources: no leaf 'cpus'; known: .*cpu"),
        ({"disabled": frozenset({"loops"})}, r"disabled: no leaf 'loops'; known: "),
        ({"criteria": {"C1": {"shares": 1.0}}}, r"criteria\.C1: no option 'shares'"),
        ({"criteria": {"C1": {"share": 1.5}}}, r"criteria\.C1\.share: expected a number in \[0\.01, 1\], found 1\.5"),
        ({"criteria": {"C1": {"share": math.nan}}}, r"criteria\.C1\.share: .*found nan"),
        ({"auditors": {"loop": {"min_repeats": 1}}}, r"auditors\.loop\.min_repeats: expected a number in \[2, 1000\]"),
        ({"sources": {"cpu": SourceChoice(interval_ms=5)}}, r"cpu.*5"),
        ({"processes": SourceChoice(interval_ms=4_000_000)}, r"processes.*4000000"),
        (
            {"caps_nusd": {"everybody": 1}},
            r"caps_nusd: expected one of host, tenant, agent, session, found 'everybody'",
        ),
        ({"caps_nusd": {"task": 1}}, r"caps_nusd: .*found 'task'"),
        ({"caps_nusd": {"session": -1}}, r"caps_nusd\.session: expected an integer in \[1, .*found -1"),
        ({"caps_nusd": {"session": 2**63}}, r"caps_nusd\.session: .*found 9223372036854775808"),
        ({"caps_nusd": {"session": 0.5}}, r"caps_nusd\.session: .*found 0\.5"),
        ({"prices_nusd_per_mtok": {"m": (-1, 1)}}, r"prices_nusd_per_mtok\['m'\]: .*found -1"),
        ({"history_rows": 0}, r"history_rows: expected an integer in \[1, .*found 0"),
        ({"history_rows": -5}, r"history_rows: .*found -5"),
        ({"false_alarms_per_day": 0.0}, r"false_alarms_per_day: expected a number above 0"),
        ({"false_alarms_per_day": math.nan}, r"false_alarms_per_day: .*nan"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_impossible_option_is_refused_by_name_and_range(options: dict[str, Any], told: str):
    with pytest.raises(UsageError, match="^Engine: .*" + told):
        Engine(on_fixture(**options))


def test_options_at_their_bounds_are_taken():
    for table in ("detectors", "auditors", "criteria"):
        for leaf in catalog()[table]:
            for bound in ("min", "max"):
                values = {option["name"]: option[bound] for option in leaf["options"]}
                Engine(EngineOptions(**{table: {leaf["name"]: values}}), host_plane=False).close()


def test_a_configuration_that_has_engine_options_is_taken():
    class Mine:
        asked = 0

        def engine_options(self) -> EngineOptions:
            self.asked += 1
            return EngineOptions(caps_nusd={"session": USD})

    config = Mine()
    with Engine(config, host_plane=False) as engine:
        assert [a.criterion for a in give(engine, cost(1, 2 * USD)).anomalies] == ["C1"]
    assert config.asked == 1


def test_the_host_is_written_into_anomalies():
    with auditor_only(caps_nusd={"session": USD}) as engine:
        assert {a.host for a in give(engine, cost(1, USD)).anomalies} == {"h"}
    assert Engine(host_plane=False).host != ""


# --- Ingest ----------------------------------------------------------------------------------------------------------


def test_a_report_counts_what_was_accepted_and_refused_by_reason():
    engine = auditor_only()
    bad = {**event(2, "heartbeat"), "ts": "late"}
    del (missing := event(3, "heartbeat"))["id"]
    report = give(engine, event(1, "heartbeat"), bad, missing, event(4, "heartbeat", tenant=7))
    assert report.accepted == 1
    assert report.rejected == {"wrong_type": 2, "missing_key": 1}
    assert set(report.rejected) <= set(_core.REJECT_REASONS)
    assert report.anomalies == []


def test_events_without_seq_are_refused_on_the_bus_only():
    del (unnumbered := event(1, "heartbeat"))["seq"]
    assert give(auditor_only(), unnumbered).accepted == 1
    assert give(auditor_only(), unnumbered, require_seq=True).rejected == {"missing_key": 1}


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", frame()[:0] + b"\xdd\xff\xff\xff\xff", b"\x00" * 100])
def test_bytes_that_are_no_frame_are_counted_and_harm_nothing(data: bytes):
    engine = auditor_only()
    report = engine.ingest(data, now=T0)
    assert report.accepted == 0
    assert sum(report.rejected.values()) >= 1
    assert give(engine, event(1, "heartbeat")).accepted == 1


def test_quarantine_holds_a_sample_of_what_was_refused_and_says_why():
    engine = auditor_only()
    assert engine.quarantine() == []
    give(engine, event(1, "heartbeat"), {**event(2, "heartbeat"), "ts": "late"})
    (kept,) = engine.quarantine()
    assert kept["reason"] == "wrong_type"
    assert kept["source"] == "s"
    for number in range(3, 203):
        give(engine, {**event(number, "heartbeat"), "ts": "late"})
    assert len(engine.quarantine()) == 64


def test_statistics_count_events_sources_and_time():
    engine = auditor_only()
    give(engine, cost(1, USD), {**event(2, "heartbeat"), "ts": "late"}, event(5, "heartbeat"))
    engine.step(T0 + 6 * SECOND)
    counted = engine.statistics()
    assert counted["events"]["accepted"] == 2
    assert counted["events"]["rejected"] == {"wrong_type": 1}
    (source,) = counted["event_sources"]
    assert (source["name"], source["events"], source["lost"]) == ("s", 2, 2)  # 3 and 4: the refused one had come
    assert counted["last_event_ts"] == T0 + 6 * SECOND
    assert counted["steps"] == 1
    assert counted["ingest_ns_total"] > 0
    assert counted["failed"] is False
    assert counted["sources_read"] == []


@settings(max_examples=25)
@given(cuts=st.sets(st.integers(1, len(eventful()) - 1)))
def test_any_split_into_frames_gives_the_same_anomalies_and_decisions(cuts: set[int]):
    events = eventful()

    def judged(bounds: list[int]) -> tuple[list[Anomaly], list[Any]]:
        with auditor_only(caps_nusd=EVENTFUL_CAP) as engine:
            found = []
            for start, end in pairwise(bounds):
                found += give(engine, *events[start:end]).anomalies
            return found + engine.finish(T0 + 7200 * SECOND), engine.decisions()

    whole = judged([0, len(events)])
    assert {a.detector for a in whole[0]} == {"causal", "loop", "budget"}
    assert judged([0, *sorted(cuts), len(events)]) == whole


# --- Deadlines -------------------------------------------------------------------------------------------------------


def ended_late(now: Callable[[dict[str, Any]], int]) -> list[str]:
    """A task without its end, and a heartbeat 20 minutes later; what is said of it."""
    engine = auditor_only()
    start, beat = event(1, "task_started", task="t"), event(1202, "heartbeat", seq=2)
    # A source is judged on a type only once it has shown it.
    shown = [event(0, "task_started", task="a", seq=-1), event(0, "task_completed", task="a", seq=0, id="end")]
    found = []
    for each in (*shown, start, beat):
        found += engine.ingest(frame(each), now=now(each)).anomalies
    return [a.series for a in found if a.scope.task == "t" or a.scope.id == "t"]


def test_on_event_time_deadlines_run_with_the_events():
    assert ended_late(lambda e: EVENT_TIME) == ended_late(lambda e: e["ts"])
    assert len(ended_late(lambda e: EVENT_TIME)) == 1


def test_on_arrival_time_the_stamps_of_events_move_no_deadline():
    assert ended_late(lambda e: T0) == []


def test_a_step_brings_what_is_due():
    engine = auditor_only()
    give(engine, event(1, "task_started", task="a"), event(2, "task_completed", task="a"))
    give(engine, event(3, "task_started", task="t"))
    assert engine.step(T0 + 60 * SECOND) == []
    assert [a.series for a in engine.step(T0 + 7200 * SECOND)] != []
    assert engine.step(T0 + 7201 * SECOND) == []


# --- Money -----------------------------------------------------------------------------------------------------------


@given(costs=st.lists(st.integers(0, 2**55), min_size=1, max_size=20))
def test_spend_is_exact_to_the_nano_usd(costs: list[int]):
    engine = auditor_only()
    give(engine, *(cost(i, nusd, agent="a") for i, nusd in enumerate(costs, 1)))
    total = sum(costs)
    for kind, name in ((ScopeKind.SESSION, "run"), (ScopeKind.AGENT, "a"), (ScopeKind.HOST, "")):
        assert engine.spend(kind, name) == {"metered": total, "reserved": 0, "upper": total}
    assert engine.spend(ScopeKind.SESSION, "other") == {"metered": 0, "reserved": 0, "upper": 0}


def test_a_cap_is_reached_at_its_last_nano_usd_and_not_before():
    cap = 2**53 + 1  # beyond what a double tells apart
    engine = auditor_only()
    engine.set_cap(ScopeKind.SESSION, "run", cap)
    assert "C1" not in [a.criterion for a in give(engine, cost(1, cap - 1)).anomalies]
    assert [a.criterion for a in give(engine, cost(2, 1)).anomalies] == ["C1"]


def test_estimated_cost_reaches_a_strict_cap_only():
    tokens = event(1, model="unlisted", input_tokens=1_000_000, output_tokens=0)
    for strict, severity in ((False, Severity.WARNING), (True, Severity.CRITICAL)):
        engine = auditor_only(prices_nusd_per_mtok={"": (3 * USD, 0)})
        engine.set_cap(ScopeKind.SESSION, "run", 3 * USD, strict=strict)
        assert [a.severity for a in give(engine, tokens).anomalies] == [severity]
        assert engine.spend(ScopeKind.SESSION, "run")["upper"] == 3 * USD
        assert engine.spend(ScopeKind.SESSION, "run")["metered"] == 0


def test_a_price_that_does_not_divide_is_rounded_up():
    engine = auditor_only(prices_nusd_per_mtok={"m": (1, 0)})
    give(engine, event(1, model="m", input_tokens=7, output_tokens=0))
    assert engine.spend(ScopeKind.SESSION, "run")["upper"] == 7


def test_caps_that_make_no_sense_are_refused():
    engine = auditor_only()
    for kind, cap in ((ScopeKind.TASK, 1), (ScopeKind.SESSION, -1), (ScopeKind.SESSION, 2**63)):
        with pytest.raises(UsageError, match="set_cap"):
            engine.set_cap(kind, "x", cap)


# --- Sessions --------------------------------------------------------------------------------------------------------


def test_an_event_that_claims_a_bound_session_is_refused_and_counted_as_forged():
    engine = auditor_only()
    credential = engine.bind_session("run")
    assert give(engine, cost(1, USD)).rejected == {"forged_scope": 1}
    assert engine.spend(ScopeKind.SESSION, "run")["metered"] == 0
    other = engine.bind_session("other")
    assert give(engine, cost(2, USD), credential=other).rejected == {"forged_scope": 1}
    assert engine.statistics()["events"]["rejected"] == {"forged_scope": 2}
    assert [q["reason"] for q in engine.quarantine()] == ["forged_scope", "forged_scope"]
    assert give(engine, cost(3, USD), credential=credential).accepted == 1
    assert engine.spend(ScopeKind.SESSION, "run")["metered"] == USD


def test_what_a_bound_credential_sends_is_its_session_s_whatever_it_claims():
    engine = auditor_only()
    credential = engine.bind_session("mine", tenant="acme")
    give(engine, cost(1, USD, session="nobody", tenant="else"), credential=credential)
    assert engine.spend(ScopeKind.SESSION, "mine", tenant="acme")["metered"] == USD
    assert engine.spend(ScopeKind.SESSION, "nobody", tenant="else")["metered"] == 0


def test_a_released_credential_speaks_for_nobody_and_its_session_is_free_again():
    engine = auditor_only()
    credential = engine.bind_session("run")
    with pytest.raises(UsageError, match="owned by another credential"):
        engine.bind_session("run")
    give(engine, cost(1, USD), credential=credential)
    engine.release_session(credential)
    assert give(engine, cost(2, USD), credential=credential).rejected == {"forged_scope": 1}
    assert engine.spend(ScopeKind.SESSION, "run")["metered"] == USD
    assert engine.bind_session("run") != credential
    engine.release_session(credential)  # once more: nothing happens


@pytest.mark.parametrize(("session", "tenant"), [("", ""), ("s" * 129, ""), ("s", "t" * 65)])
def test_a_session_that_cannot_be_named_is_not_bound(session: str, tenant: str):
    with pytest.raises(UsageError, match="bind_session"):
        auditor_only().bind_session(session, tenant=tenant)


# --- Stops -----------------------------------------------------------------------------------------------------------


def test_a_stop_goes_to_the_narrowest_guarded_scope_else_to_the_host():
    guards: list[tuple[list[tuple[ScopeKind, str]], str]] = [
        ([], "host:"),
        ([(ScopeKind.SESSION, "another")], "host:"),
        ([(ScopeKind.TENANT, "acme")], "tenant:acme"),
        ([(ScopeKind.TENANT, "acme"), (ScopeKind.AGENT, "a")], "agent:a"),
        ([(ScopeKind.TENANT, "acme"), (ScopeKind.AGENT, "a"), (ScopeKind.SESSION, "run")], "session:run"),
    ]
    for guarded, scope in guards:
        engine = auditor_only(caps_nusd={"session": USD})
        engine.set_guarded(guarded)
        give(engine, cost(1, USD, tenant="acme", agent="a"))
        (decision,) = engine.decisions()
        assert (str(decision.scope), decision.kind, decision.criterion) == (scope, StopKind.HARD_KILL, "C1")


def test_a_decision_names_its_anomaly_is_told_once_and_again_after_its_release():
    engine = auditor_only(caps_nusd={"session": USD})
    (anomaly,) = give(engine, cost(1, USD)).anomalies
    (decision,) = engine.decisions()
    assert (decision.anomaly, decision.ts, decision.reason) == (anomaly.id, T0 + SECOND, anomaly.message)
    assert decision.word_raised is False
    assert engine.decisions() == []
    give(engine, cost(2, USD, session="second"))
    assert engine.decisions() == []
    engine.release_stop(StopKind.HARD_KILL, Scope(ScopeKind.HOST, ""))
    give(engine, cost(3, USD, session="third"))
    assert len(engine.decisions()) == 1


def test_guard_every_session_is_what_a_replay_assumes():
    with Engine(EngineOptions(caps_nusd={"session": USD}), host_plane=False, guard_every_session=True) as engine:
        give(engine, cost(1, USD))
        assert [str(d.scope) for d in engine.decisions()] == ["session:run"]


@pytest.mark.parametrize("enforce", [None, False, True])
def test_the_epoch_word_flips_inside_ingest_only_while_enforced(tmp_path: Path, enforce: bool | None):
    word = _core.EpochWord(tmp_path / "epoch")
    engine = auditor_only(caps_nusd={"session": USD})
    engine.attach_control(str(tmp_path / "epoch"))
    if enforce is not None:
        engine.set_enforce(enforce)
    _, epoch, _ = word.load()
    give(engine, cost(1, USD))
    bits, after, _ = word.load()
    assert bits == (_core.HOST_KILL if enforce else 0)
    assert (after > epoch) is bool(enforce)
    assert [d.word_raised for d in engine.decisions()] == [bool(enforce)]


def test_a_word_that_cannot_serve_is_refused(tmp_path: Path):
    (tmp_path / "epoch").write_bytes(b"x")
    with pytest.raises(OSError, match="epoch"):
        auditor_only().attach_control(str(tmp_path / "epoch"))


# --- What is switched off is off -------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [("causal",), ("loop",), ("budget",), ("causal", "loop", "budget")])
def test_an_auditor_that_is_off_says_nothing_and_the_others_go_on(off: tuple[str, ...]):
    def speakers(disabled: tuple[str, ...]) -> set[str]:
        with auditor_only(caps_nusd=EVENTFUL_CAP, disabled=frozenset(disabled)) as engine:
            return {a.detector for a in give(engine, *eventful()).anomalies + engine.finish(T0 + 7200 * SECOND)}

    assert speakers(()) == {"causal", "loop", "budget"}
    assert speakers(off) == {"causal", "loop", "budget"} - set(off)


@pytest.mark.parametrize("off", ["C1", "C2", "W1", "W3", "W5"])
def test_a_criterion_that_is_off_justifies_nothing(off: str):
    def criteria(disabled: set[str]) -> set[str]:
        with auditor_only(caps_nusd={"session": 5 * USD}, disabled=frozenset(disabled)) as engine:
            found = give(engine, *eventful(), cost(28, USD), cost(29, 9 * USD)).anomalies
            return {a.criterion for a in found} | {d.criterion for d in engine.decisions()}

    assert criteria(set()) >= {off}
    assert off not in criteria({off})


def test_the_only_detector_that_is_off_leaves_the_host_observed_and_unjudged():
    with Engine(on_fixture(disabled=frozenset({"residual"}))) as engine:
        for second in range(3):
            engine.step(T0 + second * SECOND)
            until_due()
        latest = engine.latest()
    assert np.isfinite(latest.values[latest.names.index("system.memory.limit")])
    assert not latest.bits.any()
    assert np.isnan(latest.expected).all()


@pytest.mark.parametrize("how", ["disabled", "enabled"])
def test_a_source_that_is_off_is_not_read(how: str):
    options = on_fixture()
    if how == "disabled":
        options = msgspec.structs.replace(options, disabled=frozenset({"memory"}))
    else:
        options = msgspec.structs.replace(options, sources={"memory": SourceChoice(enabled=False)})
    with Engine(options) as engine:
        engine.step(T0)
        assert not any(name.startswith("system.memory.usage") for name in engine.latest().names)
        assert any(name.startswith("system.cpu") for name in engine.latest().names)
        states = {s["name"]: (s["state"], s["polls"]) for s in engine.statistics()["sources_read"]}
    assert states["memory"] == ("disabled", 0)
    assert states["cpu"][0] == "running"


def test_processes_that_are_off_leave_no_table():
    with Engine(on_fixture(processes=SourceChoice(enabled=False))) as engine:
        engine.step(T0)
        assert len(engine.processes().get("pid", ())) == 0


# --- The host plane --------------------------------------------------------------------------------------------------


def test_a_fixture_root_end_to_end():
    with Engine(on_fixture(history_rows=3)) as engine:
        assert engine.latest().time_ns == 0
        for second in range(5):
            assert engine.step(T0 + second * SECOND) == []
            until_due()
        latest = engine.latest()
        assert latest.time_ns == T0 + 4 * SECOND
        columns = (latest.units, latest.values, latest.expected, latest.lower, latest.upper, latest.bits)
        assert {len(column) for column in columns} == {len(latest.names)}
        assert len(set(latest.names)) == len(latest.names)
        at = dict(zip(latest.names, latest.values, strict=True))
        assert at["system.memory.limit"] == 24684096 * 1024
        assert at["system.cpu.context_switches"] == 0.0
        assert dict(zip(latest.names, latest.units, strict=True))["system.cpu.time{cpu.mode=user}"] == "1"
        times, values = engine.history("system.memory.limit")
        assert times.tolist() == [T0 + second * SECOND for second in (2, 3, 4)]
        assert values.tolist() == [24684096 * 1024] * 3
        kept = engine.budget()
        assert tuple(kept.names) == latest.names
        assert set(kept.states) == {"warming"}
        assert (kept.alarms, kept.requested, kept.broken) == (0.0, 0.0, False)
        assert engine.budget_totals().alarms == 0.0
        assert engine.confirm(latest.names[0], true_alarm=True)
        assert engine.entity().bits == 0.0
        assert set(engine.entity().drivers) <= set(latest.names)
        assert not engine.confirm("system.nothing", true_alarm=True)
        table = engine.processes()
        assert sorted(table["pid"].tolist()) == [2, 12620, 12621, 12622]
        assert {len(column) for column in table.values()} == {4}
        states = {s["name"]: s["state"] for s in engine.statistics()["sources_read"]}
        assert {name for name, state in states.items() if state != "running"} == NOT_CAPTURED
        assert {"cpu", "memory", "network", "pressure", "processes"} <= set(states)


def test_history_of_an_unknown_series_is_refused_by_name():
    with pytest.raises(UsageError, match=r"found 'system\.nothing'"):
        auditor_only().history("system.nothing")


def test_an_array_handed_out_is_the_callers_own():
    with Engine(on_fixture()) as engine:
        engine.step(T0)
        name = "system.memory.limit"

        def snapshot() -> list[bytes]:
            latest, table = engine.latest(), engine.processes()
            arrays = [latest.values, latest.expected, latest.lower, latest.upper, latest.bits]
            return [a.tobytes() for a in (*arrays, *engine.history(name), *table.values())]

        before = snapshot()
        latest, table, history = engine.latest(), engine.processes(), engine.history(name)
        for array in (latest.values, latest.expected, latest.lower, latest.upper, latest.bits, *history):
            array[:] = 7
        for column in table.values():
            column[:] = np.zeros_like(column)
        assert snapshot() == before
        held = engine.latest().values
        kept = held.copy()
        until_due()
        engine.step(T0 + SECOND)
        assert held.tobytes() == kept.tobytes()


def test_a_machine_without_any_kernel_feature_is_named_and_harms_nothing(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    roots = {"proc": str(tmp_path / "proc"), "sys": str(tmp_path / "sys")}
    with Engine(on_fixture(**roots, caps_nusd={"session": USD})) as engine:
        for second in range(3):
            assert engine.step(T0 + second * SECOND) == []
            until_due()
        read = {s["name"]: s for s in engine.statistics()["sources_read"]}
        for source in catalog()["sources"]:
            found = read[source["name"]]
            assert found["state"] == "unavailable"
            assert found["emitted"] == 0
            assert source["name"] in found["error"]
            assert "not present" in found["error"]
            assert source["fix"] in found["error"]
        assert all(name.startswith("agent.") for name in engine.latest().names)
        assert len(engine.processes().get("pid", ())) == 0
        assert [a.criterion for a in give(engine, cost(1, USD)).anomalies] == ["C1"]


def test_a_kernel_without_pressure_stalls_loses_these_series_only(tmp_path: Path):
    shutil.copytree(FIXTURE, tmp_path / "host")
    shutil.rmtree(tmp_path / "host" / "proc" / "pressure")
    with Engine(on_fixture(proc=str(tmp_path / "host" / "proc"), sys=str(tmp_path / "host" / "sys"))) as engine:
        engine.step(T0)
        states = {s["name"]: s["state"] for s in engine.statistics()["sources_read"]}
        lost = {name for name, state in states.items() if state != "running"}
        assert lost == NOT_CAPTURED | {"pressure"}
        assert not any(name.startswith("system.pressure") for name in engine.latest().names)
        assert "system.memory.limit" in engine.latest().names


def test_a_started_engine_samples_by_itself_and_can_be_read_after_close():
    engine = Engine(on_fixture())
    engine.start()
    deadline = time.monotonic() + 5
    while "system.memory.limit" not in engine.latest().names and time.monotonic() < deadline:
        until_due()
        engine.step(T0)
    engine.close()
    assert "system.memory.limit" in engine.latest().names
    assert engine.history("system.memory.limit")[1][-1] == 24684096 * 1024
    engine.close()


# --- Snapshots -------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(cut=st.integers(0, len(eventful())))
def test_a_restored_engine_goes_on_as_if_never_interrupted(cut: int):
    events = eventful()

    def engine() -> Engine:
        return auditor_only(caps_nusd=EVENTFUL_CAP)

    whole = engine()
    expected = give(whole, *events).anomalies + whole.finish(T0 + 7200 * SECOND)
    first, second = engine(), engine()
    found = give(first, *events[:cut]).anomalies
    state = first.snapshot()
    second.restore(state)
    assert second.snapshot() == state
    found += give(second, *events[cut:]).anomalies + second.finish(T0 + 7200 * SECOND)
    assert found == expected
    assert second.spend(ScopeKind.SESSION, "run") == whole.spend(ScopeKind.SESSION, "run")


def test_bound_sessions_and_caps_survive_a_restart():
    first = auditor_only()
    credential = first.bind_session("run")
    first.set_cap(ScopeKind.SESSION, "run", 2 * USD)
    give(first, cost(1, USD), credential=credential)
    second = auditor_only()
    second.restore(first.snapshot())
    assert give(second, cost(2, USD)).rejected == {"forged_scope": 1}
    assert [a.criterion for a in give(second, cost(2, USD), credential=credential).anomalies] == ["C1"]
    assert second.bind_session("next") > credential


@pytest.fixture(scope="module")
def state() -> bytes:
    engine = auditor_only()
    give(engine, *eventful())
    return engine.snapshot()


@settings(max_examples=30)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_state_is_refused(state: bytes, at: float, flip: int):
    damaged = bytearray(state)
    damaged[int(at * len(state))] ^= flip
    engine = auditor_only()
    give(engine, cost(1, USD))
    with pytest.raises(UsageError, match=r"^restore: .*the engine"):
        engine.restore(bytes(damaged))
    assert engine.spend(ScopeKind.SESSION, "run")["metered"] == USD


@settings(max_examples=20)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_state_that_ends_early_is_refused(state: bytes, share: float):
    with pytest.raises(UsageError, match=r"^restore: "):
        auditor_only().restore(state[: int(share * len(state))])


def test_a_state_of_other_options_is_refused_and_changes_nothing(state: bytes):
    engine = auditor_only(disabled=frozenset({"loop"}))
    give(engine, cost(1, 5 * USD))
    before = engine.snapshot()
    with pytest.raises(UsageError, match="other auditors"):
        engine.restore(state)
    assert engine.snapshot() == before
    with Engine(on_fixture()) as hosted, pytest.raises(UsageError, match="host plane"):
        hosted.restore(state)


def test_the_public_names_are_these():
    assert argus.Engine is Engine


def test_what_is_polled_at_100_hz_shows_its_extremes_at_the_tick():
    options = EngineOptions(
        tick_ms=500, sources={"cpu": SourceChoice(interval_ms=10)}, bursts=BurstChoice(interval_ms=0)
    )
    with Engine(options) as engine:
        engine.start()
        engine.step()
        deadline = time.monotonic() + 20
        spread = 0
        while not spread and time.monotonic() < deadline:
            time.sleep(0.5)
            engine.step()
            latest = engine.latest()
            seen = ~np.isnan(latest.values)
            assert np.all(latest.low[seen] <= latest.high[seen])
            switches = latest.names.index("system.cpu.context_switches") if seen.any() else 0
            spread = latest.high[switches] > latest.low[switches]
        assert spread
        lanes = {lane["name"]: lane for lane in engine.statistics()["lanes"]}
        assert lanes["argus-fast"]["wakes"] > 20
        assert lanes["argus-fast"]["lateness_p99_ns"] >= lanes["argus-fast"]["lateness_p50_ns"] > 0
        assert lanes["argus-fast"]["bursts"] == 0


def test_a_burst_looks_closely_and_ends():
    options = EngineOptions(tick_ms=200, bursts=BurstChoice(interval_ms=1, length_s=1, pause_s=3600))
    with Engine(options) as engine:
        engine.burst()  # before start: nothing
        engine.start()
        time.sleep(0.3)
        engine.burst()
        time.sleep(1.6)
        engine.burst()  # within the pause
        time.sleep(0.3)
        counted = engine.statistics()
    polls = {source["name"]: source["polls"] for source in counted["sources_read"]}
    assert counted["lanes"][0]["bursts"] == 1
    assert 50 < polls["cpu"] <= 1_010


def test_processes_of_an_agent_become_its_series_and_its_anomalies_its_scope():
    """A child that burns a processor and has a child of its own, seen as the session's CPU, memory and processes."""
    code = "import subprocess, sys\np = subprocess.Popen(['sleep', '60'])\nprint(p.pid, flush=True)\nwhile True: pass"
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    with agent.stdout as said:
        grandchild = int(said.readline())
    try:
        with Engine(EngineOptions(processes=SourceChoice(interval_ms=100))) as engine:
            assert engine.set_agents([("s,1", agent.pid, start_time_ns(agent.pid) or 0, False), ("", 1, 0, True)]) == 1
            engine.start()
            name = "agent.cpu.time{agent.session=s%2C1}"
            deadline = time.monotonic() + 20
            share = 0.0
            while not share > 0.05 and time.monotonic() < deadline:
                time.sleep(0.3)
                engine.step()
                latest = dict(zip(engine.latest().names, engine.latest().values.tolist(), strict=True))
                share = latest.get(name, 0.0)
            assert 0.05 < share < 1.5
            assert latest["agent.process.count{agent.session=s%2C1}"] == 2
            assert latest["agent.memory.usage{agent.session=s%2C1}"] > 1e6
    finally:
        agent.kill()
        agent.wait()
        os.kill(grandchild, signal.SIGKILL)


def test_what_an_agents_short_lived_tools_used_is_the_agents():
    """An idle agent whose tools live some hundredths of a second each: no table lists them, their exits do."""
    loop = "while :; do sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; done"
    agent = subprocess.Popen(["sh", "-c", loop])
    try:
        with Engine(EngineOptions(processes=SourceChoice(interval_ms=1000))) as engine:
            engine.start()
            engine.set_agents([("s", agent.pid, start_time_ns(agent.pid) or 0, False)])
            deadline = time.monotonic() + 20
            share = created = 0.0
            while not share > 0.3 and time.monotonic() < deadline:
                time.sleep(0.5)
                engine.step()
                latest = dict(zip(engine.latest().names, engine.latest().values.tolist(), strict=True))
                if not any("argus.exits.way{argus.way=bpf}" in name for name in latest):
                    continue
                share = max(share, latest.get("agent.cpu.time{agent.session=s}", 0.0))
                created = max(created, latest.get("agent.process.created{agent.session=s}", 0.0))
            exits = {source["name"]: source for source in engine.statistics()["sources_read"]}["exits"]
            if "argus.exits.way{argus.way=bpf}" not in latest:
                pytest.skip(f"exits are not told with what they used here: {exits['error'] or 'cn_proc'}")
            assert share > 0.3
            assert created > 2
    finally:
        agent.kill()
        agent.wait()
