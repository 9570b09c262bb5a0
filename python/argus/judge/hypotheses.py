"""First ranking of causes: which explanation makes the anomalies seen together on one scope most likely.

A naive Bayes table over anomaly kinds. Each cause states how likely it is to bring each kind of anomaly within one
incident; the posterior is its share among the causes considered, not a claim about causes nobody listed.

Source
------
Naive Bayes with conditionally independent findings, as in INTERNIST/QMR-style diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log
from typing import NamedTuple

from argus.schema import Hypothesis

_TOLD_BY_KIND = ("behaviour", "causal", "claims", "cost", "forecast", "hijack", "outcome", "progress", "sequence")
_UNLIKELY = 0.02  # a kind that a cause does not list may still occur beside it


class _Cause(NamedTuple):
    name: str
    prior: float
    brings: dict[str, float]  # anomaly kind -> probability of seeing it in an incident with this cause
    refuted_by: str


_CAUSES = (
    _Cause(
        "runaway loop: the agent repeats the same call with the same result",
        0.20,
        {
            "loop": 0.95,
            "budget": 0.6,
            "cost.loop": 0.7,
            "forecast.exhaustion": 0.3,
            "progress.repeat": 0.4,
            "progress.burn": 0.3,
            "progress.ping_pong": 0.3,
        },
        "a call in the run with another result, or spend that stays flat",
    ),
    _Cause(
        "task larger than its budget: spend without repetition",
        0.15,
        {"budget": 0.95, "loop": 0.05, "forecast.exhaustion": 0.6, "cost.size": 0.2},
        "equal calls with equal results in the same minutes",
    ),
    _Cause(
        "worker went on after its task ended (zombie worker, missing cancellation)",
        0.10,
        {
            "causal.event_after_terminal": 0.8,
            "causal.duplicate_terminal": 0.5,
            "causal.write_after_lockdown": 0.4,
        },
        "the late events carry another process's start time",
    ),
    _Cause(
        "agent ignores the lockdown (no guard in the writing path)",
        0.10,
        {"causal.write_after_lockdown": 0.95},
        "the write began before the lockdown was set",
    ),
    _Cause(
        "worker died before it could report an end",
        0.10,
        {"causal.missing_terminal": 0.9, "causal.seq_gap": 0.15, "sequence.counts": 0.2},
        "a process of the task is still alive",
    ),
    _Cause(
        "events were lost between agent and auditor",
        0.10,
        {
            "causal.seq_gap": 0.9,
            "causal.completed_without_started": 0.35,
            "causal.missing_terminal": 0.3,
            "causal.orphan_parent": 0.3,
        },
        "the source's own count of dropped events is zero",
    ),
    _Cause(
        "broken or replaying emitter (ids reused, clock stepped, wrong parents)",
        0.10,
        {
            "causal.duplicate_id": 0.8,
            "causal.clock_backwards": 0.6,
            "causal.duplicate_terminal": 0.4,
            "causal.orphan_parent": 0.4,
            "causal.completed_without_started": 0.3,
        },
        "the same faults from a source with another client library",
    ),
    _Cause(
        "the agent circles in calls of its model: the context grows, nothing new comes of it",
        0.10,
        {"cost.loop": 0.9, "loop": 0.2, "forecast.exhaustion": 0.3},
        "new results, files or words of a user between the calls",
    ),
    _Cause(
        "the price of the model changed, or another model answers",
        0.08,
        {"cost.price": 0.95, "forecast.exhaustion": 0.2},
        "the provider's price list and the model's name are as before",
    ),
    _Cause(
        "contexts or answers grew",
        0.08,
        {"cost.size": 0.9, "forecast.exhaustion": 0.3, "outcome.mix": 0.1},
        "the same requests have the same size",
    ),
    _Cause(
        "failing calls are tried again and again",
        0.08,
        {"cost.retry": 0.9, "cost.rate": 0.5, "behaviour.tool_failure": 0.4, "behaviour.retried": 0.3},
        "each call has its own input",
    ),
    _Cause(
        "more work came than usual",
        0.08,
        {"cost.rate": 0.85, "forecast.exhaustion": 0.3},
        "as many users and tasks as before",
    ),
    _Cause(
        "the model, its version or its prompt does the task worse",
        0.10,
        {
            "outcome.success": 0.8,
            "outcome.mix": 0.7,
            "behaviour.success": 0.6,
            "behaviour.feedback": 0.3,
            "cost.size": 0.1,
        },
        "the same version on the same requests succeeds as before",
    ),
    _Cause(
        "other requests came, the agent is the same",
        0.08,
        {"outcome.mix": 0.6, "sequence.order": 0.3, "sequence.unseen_step": 0.3, "cost.size": 0.2},
        "the view that carried the evidence is success at equal calls and tools",
    ),
    _Cause(
        "a new version takes other steps",
        0.08,
        {"sequence.unseen_step": 0.6, "sequence.order": 0.6, "sequence.counts": 0.5, "outcome.mix": 0.3},
        "no deployment or change of version in the last hour",
    ),
    _Cause(
        "an instruction that was not the user's steers the agent (prompt injection)",
        0.05,
        {"hijack.unasked_call": 0.95, "sequence.unseen_step": 0.2},
        "the user's own words ask for the call",
    ),
    _Cause(
        "the agent says that it did what it did not do",
        0.06,
        {
            "claims.file_absent": 0.9,
            "claims.file_untouched": 0.5,
            "claims.file_content": 0.3,
            "claims.exit_status": 0.4,
        },
        "the file was written, and removed or moved by a process that tells no events",
    ),
    _Cause(
        "a write broke off, or its size or digest was taken before it was whole",
        0.05,
        {"claims.file_size": 0.8, "claims.file_content": 0.6},
        "the claim was told after the file was closed",
    ),
    _Cause(
        "work that the agent's events do not tell of (a child, a daemon, an instrumented part missing)",
        0.06,
        {
            "claims.idle_work": 0.9,
            "claims.unreported_cpu": 0.8,
            "claims.unreported_disk": 0.6,
            "claims.unreported_children": 0.7,
        },
        "a call that is told late covers the time",
    ),
    _Cause(
        "the host is short of a resource",
        0.10,
        {"host.system.memory": 0.6, "host.system.paging": 0.6, "host.system.pressure": 0.7, "host.system.cpu": 0.5},
        "pressure stall time stays flat",
    ),
    _Cause(
        "the workload of the host changed",
        0.15,
        {"host.system.cpu": 0.5, "host.system.network": 0.6, "host.system.memory": 0.4, "host.system.process": 0.5},
        "the same processes with the same rates as before",
    ),
    _Cause(
        "Argus itself cannot keep up or is blind",
        0.05,
        {"self": 0.95},
        "received equals handled in `argus status`",
    ),
)


def kind_of(family: str, series: str) -> str:
    """The kind an anomaly has in the table: `loop`, `budget`, `<auditor>.<kind>`, `host.system.<group>` or its family."""
    if family == "host":
        return "host." + ".".join(series.split("{", 1)[0].split(".")[:2])
    head = series.split(".", 1)[0]
    if head == "limits":
        return "budget"  # a cap, of what unit ever
    return head if head in ("loop", "budget") else series if head in _TOLD_BY_KIND else str(family)


def rank(kinds: Iterable[str], *, limit: int = 3, floor: float = 0.01) -> list[Hypothesis]:
    """Causes in order of posterior belief.

    Parameters
    ----------
    kinds : anomaly kinds of one incident, as `kind_of` names them; repeats count once
    limit : how many to return
    floor : causes with a smaller posterior are left out, but for the first

    Returns
    -------
    list of Hypothesis, posteriors summing to at most 1 over those returned
    """
    seen = sorted(set(kinds))
    if not seen:
        return []
    scores = [log(c.prior) + sum(log(c.brings.get(kind, _UNLIKELY)) for kind in seen) for c in _CAUSES]
    # A cause that nearly always brings a kind speaks against itself when the kind is absent.
    scores = [
        s + sum(log(1 - p) for kind, p in c.brings.items() if kind not in seen and p >= 0.9)
        for s, c in zip(scores, _CAUSES, strict=True)
    ]
    top = max(scores)
    weights = [exp(s - top) for s in scores]
    total = sum(weights)
    ranked = sorted(zip(weights, _CAUSES, strict=True), key=lambda pair: -pair[0])[:limit]
    ranked = ranked[:1] + [pair for pair in ranked[1:] if pair[0] / total >= floor]
    return [
        Hypothesis(
            cause=c.name,
            posterior=round(w / total, 4),
            evidence_for=[kind for kind in seen if kind in c.brings],
            evidence_against=[kind for kind in seen if kind not in c.brings]
            + [f"no {kind}" for kind, p in c.brings.items() if p >= 0.9 and kind not in seen],
            refuted_by=c.refuted_by,
        )
        for w, c in ranked
    ]
