"""Replay: what Argus would have found and stopped in past events or metrics, on the very same engine.

A replay assumes a guard on every session, writes no state, runs deadlines on event time and steps once to the last ts.
Unless it is asked to, it stops nothing: everything in the record is judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, cast

import msgspec

from argus.engine.core import EVENT_TIME, Decision, Engine, EngineOptions, HasEngineOptions
from argus.engine.detection import detect
from argus.errors import UsageError
from argus.judge.incident import IncidentBook
from argus.judge.truth import Truth
from argus.schema import Anomaly, Incident, Stop
from argus.services.shadow import NotionalGuard, ShadowReport
from argus.wire import jsonl, tables


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found. `rejected` counts events (or lines) by reason; `last_ts` is in wall-clock ns.

    Of metrics `events` counts the rows, and nothing is ever stopped. `shadow` is the account of a notional guard.
    """

    anomalies: list[Anomaly]
    incidents: list[Incident]
    stops: list[Stop]
    events: int
    rejected: dict[str, int]
    last_ts: int
    shadow: ShadowReport | None = None


class _Found:
    """What a replay has found so far."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        self.accepted = 0
        self.anomalies: list[Anomaly] = []
        self.stops: list[Stop] = []
        self.incidents: dict[str, Incident] = {}
        self._book = IncidentBook(limit=1 << 20)

    def file_under(self, found: list[Anomaly], decided: list[Decision]) -> None:
        of_anomaly = {}
        for anomaly in found:
            incident = self._book.add(anomaly)
            self.incidents[incident.id] = incident
            of_anomaly[anomaly.id] = incident.id
        self.anomalies.extend(found)
        self.stops.extend(
            Stop(
                ts=decision.ts,
                kind=decision.kind,
                scope=decision.scope,
                reason=decision.reason,
                incident=of_anomaly[decision.anomaly],
                criterion=decision.criterion,
            )
            for decision in decided
        )

    def report(self, last_ts: int, shadow: ShadowReport | None) -> ReplayReport:
        return ReplayReport(
            anomalies=self.anomalies,
            incidents=list(self.incidents.values()),
            stops=self.stops,
            events=self.accepted,
            rejected={reason: count for reason, count in self.rejected.items() if count},
            last_ts=last_ts,
            shadow=shadow,
        )


def replay(
    source: str | PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    config: EngineOptions | HasEngineOptions | None = None,
    guard: bool = False,
    labels: str | PathLike[str] | None = None,
) -> ReplayReport:
    """Judge past events as if they arrived now.

    Parameters
    ----------
    source : path of an NDJSON file (`.gz` too; `-` = standard input), or an iterable of event dicts, in bus order; or
        path of a table of metrics (.csv, .csv.gz, .parquet; see argus.wire.tables)
    config : as for Engine; None = defaults
    guard : let each stop hold, and account for what it would have spared (`shadow`); False = judge everything
    labels : with `guard`, a file of what is known about the sessions (argus.judge.truth); None = how tasks ended

    Raises
    ------
    UnreachableError : the file cannot be read
    ShapeError : a table without header or series
    UsageError : labels without a guard, or a label that is none
    """
    if labels is not None and (not guard or tables.is_table(source)):
        raise UsageError("replay: labels: expected a replay of events with a notional guard; not replayed.")
    if tables.is_table(source):
        return _replay_metrics(tables.read(cast("str", source)), config)
    if guard:
        return _replay_guarded(source, config, labels)
    found = _Found()
    with Engine(config, host_plane=False, guard_every_session=True) as engine:
        for frame in jsonl.frames(source):
            found.rejected.update(frame.errors)
            if not frame.count:
                continue
            report = engine.ingest(frame.data, now=EVENT_TIME)
            found.accepted += report.accepted
            found.rejected.update(report.rejected)
            found.file_under(report.anomalies, engine.decisions())
        last_ts = int(engine.statistics()["last_event_ts"])
        found.file_under(engine.finish(last_ts), engine.decisions())
    return found.report(last_ts, None)


def _replay_guarded(
    source: str | PathLike[str] | Iterable[Mapping[str, Any]],
    config: EngineOptions | HasEngineOptions | None,
    labels: str | PathLike[str] | None,
) -> ReplayReport:
    """The same, event by event, so that a stop holds from the next one on."""
    options = engine_options(config)
    found = _Found()
    with (
        Engine(options, host_plane=False, guard_every_session=True) as engine,
        NotionalGuard(engine, options, Truth(labels)) as guard,
    ):
        for frame in jsonl.frames(source):
            found.rejected.update(frame.errors)
            if not frame.count:
                continue
            for event, rejected in guard.admit(frame.data):
                found.rejected.update(rejected)
                if not event:
                    found.accepted += not rejected
                    continue
                report = engine.ingest(event, now=EVENT_TIME)
                found.accepted += report.accepted
                if report.rejected:
                    found.rejected.update(report.rejected)
                if report.anomalies:
                    found.file_under(*guard.judge(report.anomalies, engine.decisions()))
        last_ts = int(engine.statistics()["last_event_ts"])
        found.file_under(*guard.judge(engine.finish(last_ts), engine.decisions()))
        return found.report(last_ts, guard.report())


def is_metrics(source: object) -> bool:
    """Whether a source is a table of metrics: of those nothing is stopped."""
    return tables.is_table(source)


def engine_options(config: EngineOptions | HasEngineOptions | None) -> EngineOptions:
    """The options of a configuration; None = defaults."""
    if config is None:
        return EngineOptions()
    return config if isinstance(config, EngineOptions) else config.engine_options()


def _replay_metrics(table: tables.Table, config: EngineOptions | HasEngineOptions | None) -> ReplayReport:
    rate = engine_options(config).false_alarms_per_day
    scores = detect(table.values, table.times_s, names=table.names, false_alarms_per_day=rate)
    book = IncidentBook(limit=1 << 20)
    incidents: dict[str, Incident] = {}
    for anomaly in scores.anomalies:
        incident = book.add(anomaly)
        incidents[incident.id] = incident
    return ReplayReport(
        anomalies=scores.anomalies,
        incidents=list(incidents.values()),
        stops=[],
        events=len(table.times_s),
        rejected=table.rejected,
        last_ts=int(table.times_s.max(initial=0.0) * 1e9),
    )
