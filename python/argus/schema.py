"""Records of Argus: what it says, and what became of it. Frozen, typed, the same on the bus, on disk and in Python."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Family(StrEnum):
    SAFETY = "safety"
    ECONOMIC = "economic"
    BEHAVIOURAL = "behavioural"
    CAUSAL = "causal"
    HOST = "host"
    POLICY = "policy"
    SELF = "self"


class ScopeKind(StrEnum):
    HOST = "host"
    TENANT = "tenant"
    AGENT = "agent"
    SESSION = "session"
    TASK = "task"


class Direction(StrEnum):
    UP = "up"
    DOWN = "down"
    NONE = "none"


class StopKind(StrEnum):
    """The two stops; each is the stem of its flag file's name."""

    HARD_KILL = "hard_kill"
    WRITE_LOCKDOWN = "write_lockdown"


class IncidentState(StrEnum):
    OPEN = "open"
    STOPPED = "stopped"
    CLOSED = "closed"


class Priority(StrEnum):
    P0 = "P0"
    P1 = "P1"


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a record is about: `id` is the name of that `kind`; the other fields say where it belongs."""

    kind: ScopeKind
    id: str
    tenant: str = ""
    agent: str = ""
    session: str = ""
    task: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    `ts` and `since` are wall-clock nanoseconds; `value`, `expected`, `lower`, `upper` are in the unit of `series`
    (None = does not apply); `bits` is the calibrated surprise, -log2 of the tail probability, 64 for a fixed rule;
    `false_alarm_interval_s` is the mean time between false alarms of this rule on this scope, 0 = deterministic.
    `severity` is what this anomaly justifies alone, `criterion` the rule that says so ("" = none).
    """

    id: str
    ts: int
    host: str
    family: Family
    detector: str
    scope: Scope
    series: str
    severity: Severity
    message: str
    value: float | None = None
    expected: float | None = None
    lower: float | None = None
    upper: float | None = None
    bits: float = 0.0
    false_alarm_interval_s: float = 0.0
    since: int = 0
    direction: Direction = Direction.NONE
    criterion: str = ""
    evidence: list[str] = []
    v: int = 1


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A stop: a flag that was, or in a replay would have been, set at `ts` (wall-clock ns)."""

    ts: int
    kind: StopKind
    scope: Scope
    reason: str
    incident: str
    criterion: str = ""


class Hypothesis(msgspec.Struct, frozen=True, kw_only=True):
    """A possible cause with its share of belief (0 to 1) among those considered, and what speaks for and against it."""

    cause: str
    posterior: float
    evidence_for: list[str] = []
    evidence_against: list[str] = []
    refuted_by: str = ""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Anomalies of one scope and cause that belong together. `key` is stable: repeats update it, they open no other."""

    id: str
    key: str
    ts: int
    updated: int
    host: str
    scope: Scope
    cause: str
    severity: Severity
    state: IncidentState = IncidentState.OPEN
    count: int = 1
    anomalies: list[str] = []
    evidence: list[str] = []
    hypotheses: list[Hypothesis] = []
    actions: list[str] = []
    message: str = ""
    v: int = 1


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """The human work item of an incident: P0 for critical, P1 for warning; one file, updated in place."""

    key: str
    priority: Priority
    path: str
    incident: Incident
    first_seen: int
    last_seen: int
    count: int
    stopped: list[str] = []
    verified: bool | None = None


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A flag in the control directory, as published when it is set or cleared."""

    ts: int
    host: str
    kind: StopKind
    scope: Scope
    set: bool
    reason: str
    actor: str
    epoch: int
    path: str = ""
    v: int = 1
