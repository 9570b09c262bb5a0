"""The engine's series as a page that Prometheus scrapes: published by the loop, rendered by any thread."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

import msgspec

from argus.engine.core import Engine
from argus.errors import UsageError

_core: Any = import_module("argus._core")


class OwnMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A number that the caller knows; those of one name follow each other. Names of counters end in `_total`."""

    name: str
    help: str
    type: Literal["gauge", "counter"] = "gauge"
    labels: tuple[tuple[str, str], ...] = ()


class Exposition:
    """All open series and Argus' own numbers in Prometheus' text format.

    Parameters
    ----------
    node_exporter_names : give the series that node_exporter has under its names too
    own : what `publish` brings beside the engine, in its order

    Raises
    ------
    UsageError : the name of an own metric is illegal, taken, or apart from others of that name
    """

    def __init__(self, *, node_exporter_names: bool = True, own: Sequence[OwnMetric] = ()) -> None:
        table = [(metric.name, metric.type, metric.help, list(metric.labels)) for metric in own]
        try:
            self._core = _core.Exposition(node_exporter_names=node_exporter_names, own=table)
        except ValueError as error:
            raise UsageError(str(error)) from None

    @property
    def version(self) -> int:
        """Rises with each `publish`; 0 = there was none."""
        return int(self._core.version)

    def publish(self, engine: Engine, own: Sequence[float] = ()) -> None:
        """Hand the newest values over: after each step, in the thread that steps. NaN = left out of the page."""
        self._core.publish(engine._core, own)

    def render(self, *, openmetrics: bool = False) -> bytes:
        """The page, in text format 0.0.4 or OpenMetrics 1.0; any thread, the GIL is released."""
        return bytes(self._core.render(openmetrics=openmetrics))
