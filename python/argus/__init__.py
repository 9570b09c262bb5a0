"""Argus: the in-flight auditor for machines that run AI agents.

Names load on first use (PEP 562), so that `from argus import guard` pulls in the standard library only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argus import guard
    from argus.engine.columns import Detector
    from argus.engine.core import Engine, IngestReport
    from argus.engine.detection import Scores, detect
    from argus.engine.host import Host, HostSample, Processes
    from argus.schema import Anomaly, Flag, Incident, Issue, Scope, Stop
    from argus.services.replay import ReplayReport, replay
    from argus.wire.emitter import Emitter
    from argus.wire.logs import EventHandler
    from argus.wire.zmq import subscribe

__version__ = "0.1.0"

_HOMES = {
    "Anomaly": "argus.schema",
    "Detector": "argus.engine.columns",
    "Emitter": "argus.wire.emitter",
    "Engine": "argus.engine.core",
    "EventHandler": "argus.wire.logs",
    "Flag": "argus.schema",
    "Host": "argus.engine.host",
    "HostSample": "argus.engine.host",
    "Incident": "argus.schema",
    "IngestReport": "argus.engine.core",
    "Issue": "argus.schema",
    "Processes": "argus.engine.host",
    "ReplayReport": "argus.services.replay",
    "Scope": "argus.schema",
    "Scores": "argus.engine.detection",
    "Stop": "argus.schema",
    "detect": "argus.engine.detection",
    "replay": "argus.services.replay",
    "subscribe": "argus.wire.zmq",
}

__all__ = [
    "Anomaly",
    "Detector",
    "Emitter",
    "Engine",
    "EventHandler",
    "Flag",
    "Host",
    "HostSample",
    "Incident",
    "IngestReport",
    "Issue",
    "Processes",
    "ReplayReport",
    "Scope",
    "Scores",
    "Stop",
    "detect",
    "guard",
    "replay",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    if name == "guard":
        return import_module("argus.guard")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'argus' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
