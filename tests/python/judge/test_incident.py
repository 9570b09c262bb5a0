"""Incidents group by scope and cause, grow in place and rank their causes."""

from __future__ import annotations

import pytest

from argus.judge import hypotheses
from argus.judge.incident import IncidentBook, cause_of
from argus.killswitch.issues import issue_key
from argus.schema import Anomaly, Family, IncidentState, Scope, ScopeKind, Severity

SESSION = Scope(ScopeKind.SESSION, "s1", session="s1")


def anomaly(
    number: int, series: str, severity: Severity = Severity.INFO, *, ts: int = 0, scope: Scope = SESSION
) -> Anomaly:
    head = series.split(".", 1)[0]
    family = {"loop": Family.ECONOMIC, "budget": Family.ECONOMIC, "causal": Family.CAUSAL}.get(head, Family.HOST)
    return Anomaly(
        id=f"{number:016x}",
        ts=ts,
        host="h",
        family=family,
        detector=head,
        scope=scope,
        series=series,
        severity=severity,
        message=f"message {number}",
        evidence=[f"e{number}"],
    )


def test_loop_and_cap_of_one_session_are_one_incident_that_takes_the_worst_severity():
    book = IncidentBook()
    first = book.add(anomaly(1, "loop.period_1", Severity.WARNING))
    second = book.add(anomaly(2, "budget.cap", Severity.CRITICAL))
    third = book.add(anomaly(3, "loop.period_1", Severity.INFO))
    assert first.id == second.id == third.id
    assert (third.count, third.severity, third.message) == (3, Severity.CRITICAL, "message 2")
    assert third.evidence[:2] == ["loop.period_1", "e1"]
    assert len(book) == 1


def test_a_task_is_filed_under_its_session():
    book = IncidentBook()
    task = Scope(ScopeKind.TASK, "t1", session="s1", task="t1")
    incident = book.add(anomaly(1, "causal.seq_gap", scope=task))
    assert (incident.scope.kind, incident.scope.id) == (ScopeKind.SESSION, "s1")


def test_order_faults_and_spend_are_two_incidents():
    book = IncidentBook()
    assert book.add(anomaly(1, "causal.seq_gap")).key != book.add(anomaly(2, "budget.cap")).key


def test_the_key_is_stable_and_separates_tenants():
    assert issue_key(SESSION, "runaway") == issue_key(Scope(ScopeKind.SESSION, "s1", agent="other"), "runaway")
    assert issue_key(SESSION, "runaway") != issue_key(Scope(ScopeKind.SESSION, "s1", tenant="t"), "runaway")


def test_after_a_quiet_hour_the_same_trouble_is_a_new_incident_with_the_same_key():
    book = IncidentBook(quiet_s=3600)
    old = book.add(anomaly(1, "loop.period_1", ts=0))
    new = book.add(anomaly(2, "loop.period_1", ts=int(3601e9)))
    assert (old.key, new.count) == (new.key, 1)
    assert old.id != new.id


def test_the_book_is_bounded_and_forgets_the_longest_quiet():
    book = IncidentBook(limit=2)
    for number in range(3):
        book.add(anomaly(number, "budget.cap", scope=Scope(ScopeKind.SESSION, f"s{number}")))
    assert sorted(i.scope.id for i in book.open()) == ["s1", "s2"]


def test_actions_are_recorded_once():
    book = IncidentBook()
    key = book.add(anomaly(1, "budget.cap")).key
    book.acted(key, "hard_kill set")
    incident = book.acted(key, "hard_kill set", state=IncidentState.STOPPED)
    assert incident is not None
    assert (incident.actions, incident.state) == (["hard_kill set"], IncidentState.STOPPED)
    assert book.acted("unknown", "x") is None


def test_causes_are_separated_by_what_they_cannot_bring():
    assert hypotheses.rank(["loop", "budget"])[0].cause.startswith("runaway loop")
    assert hypotheses.rank(["budget"])[0].cause.startswith("task larger")
    assert hypotheses.rank(["causal.missing_terminal"])[0].cause.startswith("worker died")
    assert hypotheses.rank(["causal.seq_gap"])[0].cause.startswith("events were lost")
    assert hypotheses.rank(["causal.duplicate_id", "causal.clock_backwards"])[0].cause.startswith("broken or replaying")
    assert hypotheses.rank([]) == []


def test_what_is_next_to_impossible_is_not_told():
    assert all(h.posterior >= 0.01 for h in hypotheses.rank(["loop", "budget"]))
    assert len(hypotheses.rank(["loop", "budget"], floor=0)) == 3


def test_posteriors_are_shares():
    ranked = hypotheses.rank(["host.system.cpu", "host.system.pressure"], limit=100, floor=0)
    assert abs(sum(h.posterior for h in ranked) - 1) < 1e-2
    assert [h.posterior for h in ranked] == sorted((h.posterior for h in ranked), reverse=True)


def test_cause_names():
    assert cause_of(anomaly(1, "loop.period_3")) == "runaway"
    assert cause_of(anomaly(1, "cost.price")) == "runaway"
    assert cause_of(anomaly(1, "forecast.exhaustion")) == "runaway"
    assert cause_of(anomaly(1, "system.cpu.time{cpu.mode=user}")) == "host:system.cpu.time"


@pytest.mark.parametrize(
    ("kinds", "cause"),
    [
        (["loop", "budget"], "runaway loop"),
        (["budget"], "task larger than its budget"),
        (["cost.loop"], "the agent circles"),
        (["cost.price"], "the price of the model"),
        (["cost.size"], "contexts or answers grew"),
        (["cost.retry", "cost.rate"], "failing calls"),
        (["cost.rate"], "more work came"),
        (["outcome.success"], "the model, its version"),
        (["sequence.order", "sequence.unseen_step"], "a new version"),
        (["hijack.unasked_call"], "an instruction that was not the user's"),
        (["causal.missing_terminal"], "worker died"),
    ],
)
def test_what_was_found_puts_its_cause_first(kinds: list[str], cause: str):
    ranked = hypotheses.rank(kinds)
    assert ranked[0].cause.startswith(cause)
    assert ranked[0].evidence_for == sorted(kinds)
    assert ranked[0].posterior > 0.3


def test_each_auditor_that_speaks_has_causes_of_its_own():
    for series in ("cost.size", "forecast.exhaustion", "hijack.unasked_call", "outcome.mix", "sequence.order"):
        assert hypotheses.kind_of("economic", series) == series
    assert hypotheses.kind_of("economic", "loop.period_3") == "loop"
    assert hypotheses.kind_of("self", "alarm_budget") == "self"
