"""The collector's numbers for Prometheus: what only it knows, and the server that shows them with the engine's."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Self

from argus.engine.exposition import Exposition, OwnMetric
from argus.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from argus.config import PrometheusOutlet
    from argus.engine.core import Engine
    from argus.wire.prometheus import MetricsServer

_HANGS_S: Final = 10.0

COUNTS: Final = {
    "argus_events_refused_total": "Events refused, lines that are no JSON among them.",
    "argus_journal_written_total": "Records in the journal.",
    "argus_journal_rejected_total": "Records that could not be encoded.",
    "argus_journal_shed_samples_total": "Observations not recorded for lack of room.",
    "argus_journal_shed_decisions_total": "Decisions not recorded for lack of room.",
    "argus_journal_commits_total": "Commits of the journal.",
    "argus_journal_failed_commits_total": "Commits of the journal that failed.",
    "argus_host_alarms_requested_total": "Alarms that the budget had room for, outside of warming.",
    "argus_publish_records_total": "Records published over ZeroMQ.",
    "argus_publish_dropped_total": "Records refused because a subscriber's queue was full.",
    "argus_publish_dropped_heartbeats_total": "Heartbeats refused because a subscriber's queue was full.",
    "argus_publish_oversize_total": "Records too large to publish.",
    "argus_http_requests_total": "Requests served here.",
    "argus_http_refused_total": "Connections refused or broken off here.",
    "process_cpu_seconds_total": "Processor time of the collector.",
}
LEVELS: Final = {
    "argus_alarm_budget_broken": "1 when last month's alarms do not fit the budget, which chance does not explain.",
    "argus_enforcing": "1 when automatic stops are real, 0 when they are only shown.",
    "argus_host_alarms": "Alarms spoken outside of warming, confirmed ones left out, to compare with those requested.",
    "argus_entity_surprise": "How strange the host is as one machine, log2: 1 = as expected, 2 and above strange.",
    "argus_flags": "Flags that stand.",
    "argus_incidents_open": "Incidents that are open.",
    "argus_journal_lag_max_seconds": "Longest time from a record to its being on disk.",
    "argus_journal_queued": "Records that wait for the disk.",
    "argus_series_suspended": "Series under maintenance or in a deployment: not judged, not learned from.",
    "argus_sessions": "Sessions that are registered.",
    "process_resident_memory_bytes": "Memory of the collector.",
    "process_start_time_seconds": "Unix time at which the collector started.",
}
OWN: Final = (
    *(OwnMetric(name=name, help=text, type="counter") for name, text in COUNTS.items()),
    *(OwnMetric(name=name, help=text) for name, text in LEVELS.items()),
)


def node_exporter_own() -> tuple[OwnMetric, ...]:
    """What dashboards written for node_exporter look machines up by, beside its series that the core knows."""
    kernel = os.uname()
    return (
        OwnMetric(
            name="node_uname_info",
            help="As node_exporter has it.",
            labels=tuple(
                (key, getattr(kernel, key)) for key in ("machine", "nodename", "release", "sysname", "version")
            ),
        ),
        OwnMetric(name="node_time_seconds", help="As node_exporter has it: Unix time of the step."),
    )


class Metrics:
    """Publishes after each step and serves; without a server (closed, or refused its port) it does nothing.

    Parameters
    ----------
    settings : where to serve
    tick_s : time between steps
    say : where a line for a person goes
    """

    def __init__(self, settings: PrometheusOutlet, *, tick_s: float, say: Callable[[str], object]) -> None:
        self._started = time.time()
        self._hangs_s = max(_HANGS_S, 5 * tick_s)
        self._published = 0.0
        self._server: MetricsServer | None = None
        self._memory = -1
        if not (settings.enabled and settings.endpoint):
            return
        from argus.wire.prometheus import MetricsServer  # http.server is 2 MB that a closed outlet need not pay

        self._own = OWN + (node_exporter_own() if settings.node_exporter_names else ())
        self._exposition = Exposition(node_exporter_names=settings.node_exporter_names, own=self._own)
        try:
            self._server = MetricsServer(
                settings.endpoint,
                render=lambda openmetrics: self._exposition.render(openmetrics=openmetrics),
                healthy=self._why_not_healthy,
                ready=self._why_not_ready,
                allow_remote=settings.allow_remote,
            )
        except (RefusedError, UnreachableError) as error:
            say(f"argus: {error}; the collector goes on")
            return
        if not self._server.local:
            say(
                f"argus: WARNING: http://{self._server.endpoint}/metrics is open to other machines; whoever reaches it "
                "reads what this one does"
            )
        with contextlib.suppress(OSError):
            self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        if self._memory >= 0:
            os.close(self._memory)

    @property
    def endpoint(self) -> str:
        """Where it is served; "" = nowhere."""
        return self._server.endpoint if self._server is not None else ""

    def publish(self, engine: Engine, numbers: Callable[[], Mapping[str, float]]) -> None:
        """Hand the newest values over; `numbers` gives the collector's own by name, what it leaves out is not shown."""
        if self._server is None:
            return
        known = {
            "argus_http_requests_total": self._server.requests,
            "argus_http_refused_total": self._server.refused,
            "process_cpu_seconds_total": time.process_time(),
            "process_resident_memory_bytes": self._resident(),
            "process_start_time_seconds": self._started,
            "node_uname_info": 1.0,
            "node_time_seconds": time.time(),
            **numbers(),
        }
        self._exposition.publish(engine, [known.get(metric.name, float("nan")) for metric in self._own])
        self._published = time.monotonic()

    def _resident(self) -> float:
        try:
            return int(os.pread(self._memory, 256, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return float("nan")

    def _why_not_healthy(self) -> str:
        if not self._published:
            return self._why_not_ready() if time.time() - self._started > self._hangs_s else ""
        silent = time.monotonic() - self._published
        return f"no step for {silent:.0f} s" if silent > self._hangs_s else ""

    def _why_not_ready(self) -> str:
        return "" if self._published else "the first step is still to come"
