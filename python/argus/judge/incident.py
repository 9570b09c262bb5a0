"""Incidents: anomalies of one scope and cause that belong together, as one record that grows.

Pure: the book reads no clock and touches no disk, so live runs and replays group alike.
"""

from __future__ import annotations

import msgspec

from argus.judge import hypotheses
from argus.killswitch.issues import issue_key
from argus.schema import Anomaly, Incident, IncidentState, Scope, ScopeKind, Severity

_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
_MAX_LISTED = 32


def cause_of(anomaly: Anomaly) -> str:
    """What an anomaly is filed under: `runaway` (loops, caps, costs), `order` (causal), `host:<metric>`, or its family."""
    head = anomaly.series.split(".", 1)[0]
    if head in ("loop", "budget", "limits", "cost", "forecast"):
        return "runaway"
    if head == "causal":
        return "order"
    if anomaly.family == "host":
        return "host:" + anomaly.series.split("{", 1)[0]
    return str(anomaly.family)


def scope_of(anomaly: Anomaly) -> Scope:
    """The scope an incident is filed under: a task's anomalies belong to its session, where it has one."""
    scope = anomaly.scope
    if scope.kind is ScopeKind.TASK and scope.session:
        return Scope(ScopeKind.SESSION, scope.session, tenant=scope.tenant, agent=scope.agent, session=scope.session)
    return scope


class IncidentBook:
    """Open incidents by key, at most `limit`; the one quiet for longest makes room.

    Parameters
    ----------
    quiet_s : an incident without a new anomaly for this long is closed; the next anomaly opens a successor
    """

    def __init__(self, *, quiet_s: float = 3600.0, limit: int = 4096) -> None:
        self._quiet_ns = int(quiet_s * 1e9)
        self._limit = limit
        self._open: dict[str, Incident] = {}
        self._kinds: dict[str, set[str]] = {}
        self._opened = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> list[Incident]:
        """Open incidents, most severe first, then newest."""
        return sorted(self._open.values(), key=lambda i: (-_RANK[i.severity], -i.updated))

    def add(self, anomaly: Anomaly) -> Incident:
        """File `anomaly`; returns its incident as it stands afterwards."""
        scope, cause = scope_of(anomaly), cause_of(anomaly)
        key = issue_key(scope, cause)
        known = self._open.pop(key, None)
        if known is not None and anomaly.ts - known.updated > self._quiet_ns:
            known = None
        if known is None:
            self._kinds[key] = set()
            self._opened += 1
            known = Incident(
                id=f"{key}-{self._opened}",
                key=key,
                ts=anomaly.ts,
                updated=anomaly.ts,
                host=anomaly.host,
                scope=scope,
                cause=cause,
                severity=anomaly.severity,
                count=0,
                message=anomaly.message,
            )
        kinds = self._kinds[key]
        kinds.add(hypotheses.kind_of(anomaly.family, anomaly.series))
        worse = _RANK[anomaly.severity] > _RANK[known.severity]
        incident = msgspec.structs.replace(
            known,
            updated=max(known.updated, anomaly.ts),
            count=known.count + 1,
            severity=anomaly.severity if worse else known.severity,
            message=anomaly.message if worse else known.message,
            anomalies=_extend(known.anomalies, [anomaly.id]),
            evidence=_extend(known.evidence, [anomaly.series, *anomaly.evidence]),
            hypotheses=hypotheses.rank(kinds),
        )
        self._store(incident)
        return incident

    def acted(self, key: str, action: str, *, state: IncidentState | None = None) -> Incident | None:
        """Record what was done about an incident; returns it as it stands, or None if it is no longer open."""
        known = self._open.get(key)
        if known is None:
            return None
        incident = msgspec.structs.replace(
            known, actions=_extend(known.actions, [action]), state=state if state is not None else known.state
        )
        self._open[key] = incident
        return incident

    def _store(self, incident: Incident) -> None:
        self._open[incident.key] = incident  # re-inserted last: dict order is order of last activity
        if len(self._open) > self._limit:
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._kinds.pop(oldest, None)


def _extend(known: list[str], more: list[str]) -> list[str]:
    """`known` plus what is new, in order, capped: the first evidence is the most telling, so it stays."""
    return list(dict.fromkeys([*known, *more]))[:_MAX_LISTED]
