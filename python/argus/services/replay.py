"""Replay: what Argus would have found and stopped in past events or metrics, on the very same engine.

A replay assumes a guard on every session, writes no state, runs deadlines on event time and steps once to the last ts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, cast

import msgspec

from argus.engine.core import EVENT_TIME, Decision, Engine, EngineOptions, HasEngineOptions
from argus.engine.detection import detect
from argus.judge.incident import IncidentBook
from argus.schema import Anomaly, Incident, Stop
from argus.wire import jsonl, tables


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found. `rejected` counts events (or lines) by reason; `last_ts` is in wall-clock ns.

    Of metrics `events` counts the rows, and nothing is ever stopped.
    """

    anomalies: list[Anomaly]
    incidents: list[Incident]
    stops: list[Stop]
    events: int
    rejected: dict[str, int]
    last_ts: int


def replay(
    source: str | PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    config: EngineOptions | HasEngineOptions | None = None,
) -> ReplayReport:
    """Judge past events as if they arrived now.

    Parameters
    ----------
    source : path of an NDJSON file (`.gz` too; `-` = standard input), or an iterable of event dicts, in bus order; or
        path of a table of metrics (.csv, .csv.gz, .parquet; see argus.wire.tables)
    config : as for Engine; None = defaults

    Raises
    ------
    UnreachableError : the file cannot be read
    ShapeError : a table without header or series
    """
    if tables.is_table(source):
        return _replay_metrics(tables.read(cast("str", source)), config)
    rejected: Counter[str] = Counter()
    anomalies: list[Anomaly] = []
    stops: list[Stop] = []
    book = IncidentBook(limit=1 << 20)
    incidents: dict[str, Incident] = {}

    def file_under(found: list[Anomaly], decided: list[Decision]) -> None:
        of_anomaly = {}
        for anomaly in found:
            incident = book.add(anomaly)
            incidents[incident.id] = incident
            of_anomaly[anomaly.id] = incident.id
        anomalies.extend(found)
        stops.extend(
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

    accepted = 0
    with Engine(config, host_plane=False, guard_every_session=True) as engine:
        for frame in jsonl.frames(source):
            rejected.update(frame.errors)
            if not frame.count:
                continue
            report = engine.ingest(frame.data, now=EVENT_TIME)
            accepted += report.accepted
            rejected.update(report.rejected)
            file_under(report.anomalies, engine.decisions())
        last_ts = int(engine.statistics()["last_event_ts"])
        file_under(engine.finish(last_ts), engine.decisions())
    return ReplayReport(
        anomalies=anomalies,
        incidents=list(incidents.values()),
        stops=stops,
        events=accepted,
        rejected={reason: count for reason, count in rejected.items() if count},
        last_ts=last_ts,
    )


def _replay_metrics(table: tables.Table, config: EngineOptions | HasEngineOptions | None) -> ReplayReport:
    options = (
        EngineOptions() if config is None else config if isinstance(config, EngineOptions) else config.engine_options()
    )
    scores = detect(table.values, table.times_s, names=table.names, false_alarms_per_day=options.false_alarms_per_day)
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
