"""`argus top`: the busiest processes now, those of agents first; sums by what they share. Names are untrusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from argus.config import Config
from argus.engine.core import PROCESS_COLUMNS, BurstChoice, Engine, EngineOptions, ProcessGroup, SourceChoice, catalog
from argus.errors import UsageError
from argus.guard import boot_id, start_time_ns
from argus.killswitch.records import GuardInfo
from argus.services.status import host_line, printable, quantity

METRICS: Final = {
    "cpu": "cpu_utilization",
    "rss": "rss_bytes",
    "virtual": "virtual_bytes",
    "read": "read_bytes",
    "write": "write_bytes",
    "faults": "major_faults",
    "switches": "involuntary_switches",
    "delay": "run_delay_s",
}
_GROUPS: Final = get_args(ProcessGroup)
_RATES: Final = ("read_bytes", "write_bytes", "major_faults", "involuntary_switches", "run_delay_s")
_HOST_SOURCES: Final = frozenset({"cpu", "memory", "pressure"})
_ANNOUNCEMENT_BYTES: Final = 16_384


class TopRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process, or the sum of a group (then `pid` is 0 and `processes` their number). Rates are per second.

    Fields that were not observed are None. `session` is the agent session that it belongs to, "" = none.
    """

    pid: int
    name: str
    session: str = ""
    state: str = ""
    uid: int = -1
    processes: int = 1
    threads: int = 0
    cpu: float | None = None
    rss_bytes: float | None = None
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None
    value: float | None = None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What one look shows."""

    host: str
    total: int
    shown: list[TopRow]
    by: str
    group: str


def sort_column(by: str) -> str:
    """The process table's column of a metric: a short name of `METRICS` or the column's own.

    Raises
    ------
    UsageError : neither
    """
    column = METRICS.get(by, by)
    if column not in PROCESS_COLUMNS:
        known = ", ".join([*METRICS, *PROCESS_COLUMNS])
        raise UsageError(f"--by: expected one of {known}, found {by!r}")
    return column


def announced_roots(control: Path) -> list[tuple[str, int, int, bool]]:
    """Live guarded processes that announced a session in a control directory, as `Engine.set_agents` takes them."""
    roots = []
    for path in sorted((control / "guards").glob("[!.]*.json"))[:4096]:
        try:
            guard = msgspec.json.decode(path.read_bytes()[:_ANNOUNCEMENT_BYTES], type=GuardInfo)
        except (OSError, msgspec.DecodeError):
            continue
        lives = guard.boot_id in ("", boot_id()) and start_time_ns(guard.pid) == guard.start_time
        sessions = [name for kind, _, name in (text.partition(":") for text in guard.scopes) if kind == "session"]
        if lives and sessions:
            roots.append((sessions[0], guard.pid, guard.start_time, False))
    return roots


class Top:
    """Looks at this machine again and again, without a collector and without changing anything.

    Parameters
    ----------
    config : roots, and the control directory whose guards tell which processes are agents'
    by : what to sort by, see `sort_column`; of what only grows, the rate since the look before
    group : one row a process when empty, else sums over what they share
    pattern : regular expression that name, group or session must match; "" = all
    count : rows at most; None = as many as there are
    agents_only : leave out what belongs to no agent session

    Raises
    ------
    UsageError : no such metric or group, or no regular expression
    """

    def __init__(
        self,
        config: Config,
        *,
        by: str = "cpu",
        group: str = "",
        pattern: str = "",
        count: int | None = 20,
        agents_only: bool = False,
    ) -> None:
        self._column = sort_column(by)
        if group and group not in _GROUPS:
            raise UsageError(f"--group: expected one of {', '.join(_GROUPS)}, found {group!r}")
        try:
            self._pattern = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise UsageError(f"--filter: expected a regular expression, found {pattern!r} ({error})") from None
        self._by, self._group, self._count, self._agents_only = by, group, count, agents_only
        self._control = config.control
        others = frozenset(source["name"] for source in catalog()["sources"]) - _HOST_SOURCES
        detectors = frozenset(leaf["name"] for leaf in catalog()["detectors"])
        self._engine = Engine(
            EngineOptions(
                proc=config.host.proc,
                sys=config.host.sys,
                sources={name: SourceChoice(interval_ms=10) for name in _HOST_SOURCES},
                processes=SourceChoice(interval_ms=10),
                disabled=others | detectors,
                bursts=BurstChoice(interval_ms=0),
                history_rows=1,
            )
        )
        self._before: dict[str, NDArray[Any]] = {}
        self._time_ns = 0

    def close(self) -> None:
        """Close the descriptors that are kept between looks."""
        self._engine.close()

    def look(self) -> View:
        """Read everything once. Rates and utilisation are of the time since the look before; the first has none."""
        self._engine.set_agents(announced_roots(self._control))
        self._engine.step()
        table = self._engine.processes()
        latest = self._engine.latest()
        rates = self._rates(table, latest.time_ns)
        rows = list(self._grouped(table, rates) if self._group else self._processes(table, rates))
        wanted = [row for row in rows if self._wanted(row)]
        wanted.sort(key=lambda row: (not row.session, row.value is None, -(row.value or 0.0), row.pid))
        shown = wanted if self._count is None else wanted[: self._count]
        line = host_line(latest.names, latest.values)
        return View(host=line, total=len(rows), shown=shown, by=self._by, group=self._group)

    def _wanted(self, row: TopRow) -> bool:
        if self._agents_only and not row.session:
            return False
        return any(map(self._pattern.search, (row.name, row.session, str(row.pid))))

    def _rates(self, table: dict[str, NDArray[Any]], now_ns: int) -> dict[str, NDArray[np.float64]]:
        """Growth per second of what only grows, matched by identity (pid, start time)."""
        rows = len(table["pid"])
        rates = {name: np.full(rows, np.nan) for name in _RATES}
        seconds = (now_ns - self._time_ns) / 1e9
        if self._before and rows and seconds > 0:
            before = self._before
            at = np.minimum(np.searchsorted(before["pid"], table["pid"]), max(0, len(before["pid"]) - 1))
            same = (before["pid"][at] == table["pid"]) & (before["start_time_ns"][at] == table["start_time_ns"])
            for name in _RATES:
                rates[name] = np.where(same, (table[name] - before[name][at]) / seconds, np.nan)
        self._before, self._time_ns = table, now_ns
        return rates

    def _values(self, table: dict[str, NDArray[Any]], rates: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        return rates[self._column] if self._column in rates else table[self._column]

    def _processes(self, table: dict[str, NDArray[Any]], rates: dict[str, NDArray[np.float64]]) -> Iterator[TopRow]:
        sessions = self._engine.process_keys("session")
        values = self._values(table, rates)
        for row, session in enumerate(sessions):
            yield TopRow(
                pid=int(table["pid"][row]),
                name=bytes(table["name"][row]).rstrip(b"\0").decode("utf-8", "backslashreplace"),
                session=session,
                state=bytes(table["state"][row]).decode("latin-1"),
                uid=int(table["uid"][row]),
                threads=int(table["threads"][row]),
                cpu=_known(table["cpu_utilization"][row]),
                rss_bytes=_known(table["rss_bytes"][row]),
                read_bytes_per_s=_known(rates["read_bytes"][row]),
                write_bytes_per_s=_known(rates["write_bytes"][row]),
                value=_known(values[row]),
            )

    def _grouped(self, table: dict[str, NDArray[Any]], rates: dict[str, NDArray[np.float64]]) -> Iterator[TopRow]:
        group = cast("ProcessGroup", self._group)
        sums = self._engine.process_groups(group)
        index = {key: i for i, key in enumerate(sums["key"])}
        keys = np.array([index[key] for key in self._engine.process_keys(group)], dtype=np.int64)
        rated = {name: _sums(values, keys, len(index)) for name, values in rates.items()}
        values = rated[self._column] if self._column in rated else sums[self._column]
        for key, i in index.items():
            yield TopRow(
                pid=0,
                name=key or "-",
                session=key if group == "session" else "",
                processes=int(sums["processes"][i]),
                threads=int(sums["threads"][i]),
                cpu=_known(sums["cpu_utilization"][i]),
                rss_bytes=_known(sums["rss_bytes"][i]),
                read_bytes_per_s=_known(rated["read_bytes"][i]),
                write_bytes_per_s=_known(rated["write_bytes"][i]),
                value=_known(values[i]),
            )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _sums(values: NDArray[np.float64], keys: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """Sums by group; NaN = observed for none of its rows."""
    seen = ~np.isnan(values)
    sums = np.bincount(keys[seen], values[seen], groups)
    return np.where(np.bincount(keys[seen], minlength=groups) > 0, sums, np.nan)


def render(view: View) -> Table:
    """A look as a table for a terminal."""
    title = f"{view.host}; {len(view.shown)} of {view.total} {'groups' if view.group else 'processes'}, by {view.by}"
    table = Table(title=Text(title), box=None, header_style="bold", title_justify="left", pad_edge=False)
    shared = (("N", 5), ("THR", 5)) if view.group else (("PID", 7), ("USER", 5), ("S", 1), ("THR", 4))
    for name, width in (*shared, ("CPU %", 6), ("RSS", 9), ("READ/s", 9), ("WRITE/s", 9)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    extra = view.by not in ("cpu", "rss", "read", "write") and sort_column(view.by)
    if extra:
        table.add_column(view.by, justify="right", no_wrap=True)
    if not view.group:
        table.add_column("AGENT SESSION", no_wrap=True)
    table.add_column(view.group.upper() or "NAME", no_wrap=True)
    for row in view.shown:
        first = (
            [str(row.processes), str(row.threads)]
            if view.group
            else [str(row.pid), str(row.uid) if row.uid >= 0 else "-", row.state, str(row.threads)]
        )
        cells = [*first, "-" if row.cpu is None else f"{100 * row.cpu:.1f}", _bytes(row.rss_bytes)]
        cells += [_bytes(row.read_bytes_per_s), _bytes(row.write_bytes_per_s)]
        if extra:
            cells.append("-" if row.value is None else quantity(row.value, PROCESS_COLUMNS[extra][0]))
        if not view.group:
            cells.append(printable(row.session, 24))
        cells.append(printable(row.name, 60))
        table.add_row(*map(Text, cells), style="bold" if row.session else "")
    return table


def _bytes(value: float | None) -> str:
    return "-" if value is None else quantity(value, "By")
