"""The engine: observations and events in, anomalies and stop decisions out. One `step(now)` for live, replay and tests."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from math import isnan
from platform import node
from typing import Any, Final, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from argus import _core
from argus.errors import UsageError
from argus.schema import Anomaly, Scope, ScopeKind, StopKind

ProcessGroup = Literal["name", "executable", "cgroup", "user", "state", "session"]
PROCESS_COLUMNS: Final[dict[str, tuple[str, str]]] = _core.PROCESS_COLUMNS
"""Float64 columns of the process table: name -> (unit, what it says)."""

EVENT_TIME: Final = _core.EVENT_TIME
"""As `now`: every event's own `ts` is the time it is judged at, and deadlines run on event time."""


def catalog() -> dict[str, list[dict[str, Any]]]:
    """Every source, detector, auditor and criterion with its options, units, bounds and documentation."""
    described: dict[str, list[dict[str, Any]]] = _core.catalog()
    return described


def constraint_catalog() -> dict[str, list[Any]]:
    """What constraints can be made of: templates, fields, events; names that are taken, and the built-in rows."""
    described: dict[str, list[Any]] = _core.constraint_catalog()
    return described


def instruction_set() -> str:
    """The instruction set the kernels run on: `baseline`, `v3` or `v4` (x86-64 levels)."""
    return str(_core.instruction_set())


_CAPPED: Final = tuple(kind.value for kind in ScopeKind if kind is not ScopeKind.TASK)
_INT64_MAX: Final = 2**63 - 1
_HISTORY_ROWS_MAX: Final = 86_400 * 100  # a day at the shortest tick


class SourceChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whether and how often (ms) a source is read; interval None = the source's own default.

    `options` left out take the descriptor's defaults; `targets` is what a source that must be told looks at.
    """

    enabled: bool = True
    interval_ms: int | None = None
    options: dict[str, float] = {}
    targets: tuple[str, ...] = ()


class BurstChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Closer looks under pressure: polls each `interval_ms` for `length_s`, then none for `pause_s`.

    One begins when some task was stalled for `stall_share` of 2 s (PSI). interval_ms 0 = never.
    """

    interval_ms: int = 1
    length_s: int = 5
    pause_s: int = 60
    stall_share: float = 0.15


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """Events of any of these types whose fields have all of these values (`ok`: "true" or "false")."""

    events: tuple[str, ...]
    where: dict[str, str] = {}


class ConstraintChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A row that the events of each scope must keep; the templates are those of `constraint_catalog()`.

    deadline_s 0 = none; deadline_from "silence" counts from the last event of the scope. `witnessed` = judge only
    sources that have shown that they emit what is missing. A row with the name of a built-in one takes its place.
    """

    name: str
    template: str = "absence"
    activation: Pattern | None = None
    target: Pattern | None = None
    scope: Literal["task", "session", "agent"] = "task"
    times: int = 1
    deadline_s: float = 0.0
    deadline_from: Literal["activation", "silence"] = "activation"
    witnessed: bool = False
    severity: Literal["info", "warning", "critical"] = "warning"
    enabled: bool = True
    message: str = ""


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the core needs to know. Options of leaves left out take the defaults of their descriptors.

    Money is integer nano-USD (1e-9 USD); prices are nano-USD per million tokens (input, output), key "" = the upper
    bound for models that are not listed. `price_changes` holds model, Unix ns from which on it costs so, and both prices.
    `caps_nusd` has keys host, tenant, agent, session. `named_series`: detector that runs apart from the fused ones ->
    patterns of the full names of the series it judges ("system.memory.*").
    """

    proc: str = "/proc"
    sys: str = "/sys"
    cgroup: str | None = None
    sources: dict[str, SourceChoice] = {}
    processes: SourceChoice = SourceChoice(interval_ms=1000)
    process_tier: str = "auto"
    tick_ms: int = 1000
    bursts: BurstChoice = BurstChoice()
    detectors: dict[str, dict[str, float]] = {}
    named_series: dict[str, tuple[str, ...]] = {}
    auditors: dict[str, dict[str, float]] = {}
    criteria: dict[str, dict[str, float]] = {}
    constraints: tuple[ConstraintChoice, ...] = ()
    disabled: frozenset[str] = frozenset()
    caps_nusd: dict[str, int] = {}
    caps_strict: bool = False
    prices_nusd_per_mtok: dict[str, tuple[int, int]] = {}
    price_changes: tuple[tuple[str, int, int, int], ...] = ()
    false_alarms_per_day: float = 1.0
    history_rows: int = 3600


class HasEngineOptions(Protocol):
    """A configuration that says what the engine needs (`argus.config.Config` does)."""

    def engine_options(self) -> EngineOptions: ...


class IngestReport(msgspec.Struct, frozen=True):
    """What became of one frame: events accepted, events rejected by reason, anomalies found at once."""

    accepted: int
    rejected: dict[str, int]
    anomalies: list[Anomaly]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A stop the engine decided on: set it on `scope`. `word_raised` = the epoch word already says so."""

    ts: int
    kind: StopKind
    scope: Scope
    anomaly: str
    criterion: str
    reason: str
    word_raised: bool


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """Newest row of every live series: arrays of shape (n_series,), float64, rates per second for counters.

    `low` and `high` are the extremes since the row before, of what is polled more than once a tick.
    """

    time_ns: int
    names: tuple[str, ...]
    units: tuple[str, ...]
    values: Any
    low: Any
    high: Any
    expected: Any
    lower: Any
    upper: Any
    bits: Any


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """All series of the host as one: `bits` 1 = as expected, one more for each doubling, 0 for the first 150 rows.

    2 and above is strange (`argus.engine.detection.STRANGE_ENTITY_BITS`). `drivers` are the full names of the series
    that moved it in that row, strongest first, `shares` their shares of the deviance.
    """

    bits: float
    drivers: list[str]
    shares: list[float]


class BudgetTotals(msgspec.Struct, frozen=True, kw_only=True):
    """How often the host plane spoke, against how often it may.

    `alarms` were spoken and not confirmed as true, where `requested` was the budget's share, over `series_days`; all
    leave out what was spoken while a series was warming. `broken` = the last month's count would be due to chance less
    than once in 10,000 times.
    """

    alarms: float
    requested: float
    series_days: float
    broken: bool


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """An amount, and how much of it events account for."""

    all: float
    accounted: float

    @property
    def ratio(self) -> float:
        """NaN where there is nothing to account for."""
        return self.accounted / self.all if self.all > 0 else float("nan")


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one agent session's real activity its events account for, since `since` (wall-clock ns).

    `cpu_s` processor time, `write_bytes` bytes written to storage, `processes` processes started. The last
    `auditors.claims.late_s` seconds count as far as events told of them by now.
    """

    session: str
    agent: str
    cpu_s: Share
    write_bytes: Share
    processes: Share
    since: int
    alive: bool


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Files that agents claimed to have written, by what this host showed of them; `unverifiable` by why."""

    files: int
    confirmed: int
    refuted: int
    undecided: int
    withdrawn: int
    shed: int
    unverifiable: dict[str, int]
    agents: list[Coverage]


class AlarmBudget(BudgetTotals, frozen=True, kw_only=True):
    """The totals, and one entry a live series.

    levels : float32, shape (n_series,), strength at which it speaks
    days : float64, shape (n_series,), days it was observed
    states : what the level rests on: `warming` (nothing yet), `pooled` (its siblings' tails) or `own` (its own count)
    """

    alarms_per_day: float
    names: list[str]
    levels: Any
    days: Any
    states: list[str]


class Engine:
    """The auditor's core, driven from one thread.

    Parameters
    ----------
    config : EngineOptions, or a configuration that has `engine_options()`; None = defaults
    host_plane : read this machine's kernel (False for replays)
    guard_every_session : take a live guard on every session for granted (replays); else see `set_guarded`
    host : name written into anomalies; None = this machine's

    Raises
    ------
    UsageError : an option is unknown or out of its bounds
    """

    def __init__(
        self,
        config: EngineOptions | HasEngineOptions | None = None,
        *,
        host_plane: bool = True,
        guard_every_session: bool = False,
        host: str | None = None,
    ) -> None:
        options = (
            EngineOptions()
            if config is None
            else config
            if isinstance(config, EngineOptions)
            else config.engine_options()
        )
        self.host = host if host is not None else node()
        described = catalog()
        try:
            _check(options, described)
            self._core = _core.Engine(
                proc=options.proc,
                sys=options.sys,
                cgroup=options.cgroup or "",
                host_plane=host_plane,
                sources=[_source(options, source) for source in described["sources"]],
                processes=(
                    options.processes.enabled,
                    options.processes.interval_ms or 1000,
                    options.process_tier,
                ),
                window_ms=options.tick_ms,
                bursts=msgspec.structs.astuple(options.bursts),
                detectors=_leaves(described["detectors"], options.detectors, options.disabled, "detectors"),
                named={name: list(patterns) for name, patterns in options.named_series.items()},
                auditors=_leaves(described["auditors"], options.auditors, options.disabled, "auditors"),
                criteria=_leaves(described["criteria"], options.criteria, options.disabled, "criteria"),
                constraints=[constraint_row(choice) for choice in options.constraints],
                caps_nusd=options.caps_nusd,
                caps_strict=options.caps_strict,
                prices=[
                    *((model, None, *prices) for model, prices in options.prices_nusd_per_mtok.items()),
                    *options.price_changes,
                ],
                false_alarms_per_day=options.false_alarms_per_day,
                history_rows=options.history_rows,
                guard_every_session=guard_every_session,
            )
        except ValueError as error:
            raise UsageError(f"Engine: {error}") from None

    def start(self) -> None:
        """Start the sampler threads. Without it, `step` polls the sources that are due in the calling thread."""
        self._core.start()

    def close(self) -> None:
        """Stop the sampler threads; the engine can still be read."""
        self._core.stop()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ingest(
        self, data: bytes, *, credential: int = 0, require_seq: bool = False, now: int | None = None
    ) -> IngestReport:
        """Decode one frame (a msgpack map, or an array of at most 1,024 maps) and judge its events at once.

        Parameters
        ----------
        credential : of `bind_session`; 0 = a shared inlet that owns no scope
        require_seq : refuse events without `seq` (the bus)
        now : wall-clock ns at which the frame arrived; None = this moment; EVENT_TIME = each event's own ts
        """
        accepted, rejected, anomalies = self._core.ingest(
            data, credential, require_seq, time.time_ns() if now is None else now
        )
        return IngestReport(accepted, rejected, self._records(anomalies))

    def step(self, now: int | None = None) -> list[Anomaly]:
        """One tick: samples to rates to detectors, deadlines of the auditors. Returns what it has to say.

        now : wall-clock ns; None = this moment
        """
        return self._records(self._core.step(time.time_ns() if now is None else now))

    def finish(self, now: int) -> list[Anomaly]:
        """The end of a replay: a last step at `now` (wall-clock ns), and nothing is waited for any longer."""
        return self._records(self._core.finish(now))

    def decisions(self) -> list[Decision]:
        """Stops decided since the last call, in order; the caller sets the flags."""
        return [
            Decision(kind=StopKind(kind), scope=_scope(scope), **rest)
            for kind, scope, rest in self._core.take_decisions()
        ]

    def attach_control(self, path: str) -> None:
        """Map the epoch word at `path`, so that host-wide stops can flip it before Python sees them."""
        self._core.attach_control(path)

    def set_enforce(self, enforce: bool) -> None:
        """Whether host-wide stops flip the attached word themselves; False (at first) = they are only reported."""
        self._core.set_enforce(enforce)

    def set_guarded(self, scopes: Iterable[tuple[ScopeKind, str]]) -> None:
        """Scopes with a live announced guard: a stop goes to the narrowest of them that covers it, else to the host."""
        self._core.set_guarded([(kind.value, name) for kind, name in scopes])

    def set_agents(self, roots: Iterable[tuple[str, int, int, bool]]) -> int:
        """Whose processes become the series of an agent session; replaces what was set.

        Parameters
        ----------
        roots : (session, pid, start time in ns since boot, descendants only): the session's processes are these and
            all that descend from them, also once they are orphans; of a supervisor only its descendants

        Returns
        -------
        sessions left out, because there are more than 256 or their name is empty
        """
        left_out: int = self._core.set_agents(list(roots))
        return left_out

    def end_session(
        self, session: str, *, code: int = 0, signal: int = 0, stopped: bool = False, now: int | None = None
    ) -> list[Anomaly]:
        """A supervisor says how the command of `session` ended; held against the success that it claimed.

        Parameters
        ----------
        code : exit status, 0 to 255 · signal : that ended it, 0 = none did
        stopped : Argus ended it, which refutes nothing
        now : wall-clock ns; None = this moment
        """
        return self._records(
            self._core.end_session(session, code, signal, stopped, time.time_ns() if now is None else now)
        )

    def claims(self) -> Claims:
        """What became of the files that agents claimed, and how much of each agent's activity its events account for."""
        told = self._core.claims()
        agents = [
            Coverage(**{**agent, **{name: Share(**agent[name]) for name in ("cpu_s", "write_bytes", "processes")}})
            for agent in told.pop("agents")
        ]
        return Claims(**told, agents=agents)

    def release_stop(self, kind: StopKind, scope: Scope) -> None:
        """A stop was cleared, or the hold on it ended: its next reason counts again, also one that still stands."""
        self._core.release_stop(kind.value, scope.kind.value, scope.id)

    def bind_session(self, session: str, *, tenant: str = "") -> int:
        """A credential that alone may speak for `session`; events of others that claim it are counted as forged.

        Raises
        ------
        UsageError : the session is owned by another credential, or a name is empty or too long
        """
        try:
            return int(self._core.bind_session(tenant, session))
        except ValueError as error:
            raise UsageError(str(error)) from None

    def release_session(self, credential: int) -> None:
        """Forget a credential; its session stays in the ledger."""
        self._core.release_session(credential)

    def set_cap(self, kind: ScopeKind, name: str, cap_nusd: int, *, tenant: str = "", strict: bool = False) -> None:
        """An absolute cap in nano-USD for one scope, 0 = none; strict = estimated cost counts as if it were metered.

        Raises
        ------
        UsageError : the scope is a task, which no cap fits, or the cap is no amount
        """
        try:
            _check_whole("set_cap", cap_nusd, 0, _INT64_MAX)
            self._core.set_cap(kind.value, tenant, name, cap_nusd, strict)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def spend(self, kind: ScopeKind, name: str, *, tenant: str = "") -> dict[str, int]:
        """Metered, reserved and upper-bound spend of a scope in nano-USD."""
        spent: dict[str, int] = self._core.spend(kind.value, tenant, name)
        return spent

    def latest(self) -> Latest:
        """The newest row of every live series (copies)."""
        return Latest(**self._core.latest())

    def entity(self) -> Entity:
        """How strange the host is as one machine in the newest row, and which series moved it (copies)."""
        return Entity(**self._core.entity())

    def budget(self) -> AlarmBudget:
        """Alarms of the host plane, requested and spoken (copies)."""
        return AlarmBudget(**self._core.budget())

    def budget_totals(self) -> BudgetTotals:
        """The same without the series: cheap."""
        return BudgetTotals(**self._core.budget_totals())

    def confirm(self, series: str, *, true_alarm: bool) -> bool:
        """A person says whether the last alarm of a series was of something that mattered; a true one costs no budget.

        Returns whether a live series has that full name.
        """
        return bool(self._core.confirm(series, true_alarm))

    def history(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Wall-clock ns and values of one series by full name, oldest first (copies), float64, NaN = not observed.

        Raises
        ------
        UsageError : no live series has that name
        """
        found = self._core.history(name)
        if found is None:
            raise UsageError(f"history: expected the full name of a live series, found {name!r}; see latest().names")
        times, values = found
        return times, values

    def processes(self) -> dict[str, NDArray[Any]]:
        """The newest process table: one array per field, one row per process (copies); empty before the first."""
        table: dict[str, NDArray[Any]] = self._core.processes()
        return table

    def top_processes(self, column: str, count: int) -> NDArray[np.int64]:
        """Rows of `processes` with the greatest values of a float64 column, greatest first, shape (<= count,).

        Raises
        ------
        UsageError : no such column
        """
        rows: NDArray[np.int64] | None = self._core.top_processes(column, max(0, count))
        if rows is None:
            raise UsageError(f"top_processes: column: expected one of {', '.join(PROCESS_COLUMNS)}, found {column!r}")
        return rows

    def process_keys(self, by: ProcessGroup) -> list[str]:
        """What each row of `processes` is grouped under, untrusted text; "" = it cannot be told.

        ``executable`` and ``cgroup`` are read once a process and again after 30 s (/proc/PID/exe, /proc/PID/cgroup);
        ``session`` is the agent session whose process it is, see `set_agents`.
        """
        keys: list[str] = self._core.process_keys(by)
        return keys

    def process_groups(self, by: ProcessGroup) -> dict[str, Any]:
        """Sums of the newest process table over what rows share.

        Returns
        -------
        dict: ``key`` list of text, ``processes`` uint32, ``threads`` uint64, and every float64 column of the table
        summed, arrays of shape (n_groups,); NaN = observed for none of its rows
        """
        groups: dict[str, Any] = self._core.process_groups(by)
        return groups

    def burst(self) -> None:
        """Look closely for a while, as under pressure: see `BurstChoice`. Nothing happens before `start`."""
        self._core.burst()

    def statistics(self) -> dict[str, Any]:
        """Counters of every part: sources, sampler lanes, inlets' sources of events, ledger, series, time spent."""
        counted: dict[str, Any] = self._core.statistics()
        return counted

    def quarantine(self) -> list[dict[str, Any]]:
        """A bounded sample of rejected events: reason, source, first bytes."""
        sample: list[dict[str, Any]] = self._core.quarantine()
        return sample

    def suspend(self, patterns: Iterable[tuple[str, bool]]) -> None:
        """Leave series alone: observed and kept, but neither judged nor learned from.

        Parameters
        ----------
        patterns : glob of full series names (fnmatch(3)), and whether, once it no longer holds, the series' next value is
            the new normal. Replaces the patterns before.
        """
        self._core.suspend(list(patterns))

    def suspended(self) -> int:
        """Live series that are left alone."""
        return self._core.suspended()

    def learned(self) -> bytes:
        """What was learned of the series, without the event plane: versioned, checksummed."""
        return bytes(self._core.learned())

    def learn_from(self, state: bytes) -> None:
        """Go on from `learned()` of an engine with the same options; a series in another slot starts afresh.

        Raises
        ------
        UsageError : the state is damaged, of another version, or of an engine with other options; nothing changes
        """
        try:
            self._core.learn_from(state)
        except ValueError as error:
            raise UsageError(f"learned state: {error}; the series are learned afresh") from None

    def snapshot(self) -> bytes:
        """State of detectors and auditors: versioned, checksummed."""
        return bytes(self._core.snapshot())

    def restore(self, state: bytes) -> None:
        """Resume bit-exactly from `snapshot()` of an engine with the same options.

        Raises
        ------
        UsageError : the state is damaged, of another version, or of an engine with other options
        """
        try:
            self._core.restore(state)
        except ValueError as error:
            raise UsageError(f"restore: {error}; the engine starts afresh") from None

    def _records(self, found: list[dict[str, Any]]) -> list[Anomaly]:
        return [_anomaly(record, self.host) for record in found]


def constraint_row(choice: ConstraintChoice) -> dict[str, Any]:
    """A constraint as the core takes it."""

    def pattern(given: Pattern | None) -> tuple[list[str], dict[str, str]] | None:
        return None if given is None else (list(given.events), given.where)

    return {
        "name": choice.name,
        "template": choice.template,
        "activation": pattern(choice.activation),
        "target": pattern(choice.target),
        "scope": choice.scope,
        "times": choice.times,
        "deadline_ns": round(choice.deadline_s * 1e9),
        "of_silence": choice.deadline_from == "silence",
        "witnessed": choice.witnessed,
        "severity": choice.severity,
        "enabled": choice.enabled,
        "message": choice.message,
    }


def _check(options: EngineOptions, described: dict[str, list[dict[str, Any]]]) -> None:
    """What the core takes on trust: names that must exist, amounts and sizes that must make sense."""
    sources = [source["name"] for source in described["sources"]]
    known = {leaf["name"] for group in described.values() for leaf in group}
    for table, given, names in (("sources", set(options.sources), set(sources)), ("disabled", options.disabled, known)):
        if unknown := sorted(set(given) - names):
            raise ValueError(f"{table}: no leaf {unknown[0]!r}; known: {', '.join(sorted(names))}")
    apart = sorted(leaf["name"] for leaf in described["detectors"] if leaf["use"] == "named")
    if strangers := sorted(set(options.named_series) - set(apart)):
        raise ValueError(f"named_series: expected one of {', '.join(apart)}, found {strangers[0]!r}")
    for kind, nusd in options.caps_nusd.items():
        if kind not in _CAPPED:
            raise ValueError(f"caps_nusd: expected one of {', '.join(_CAPPED)}, found {kind!r}")
        _check_whole(f"caps_nusd.{kind}", nusd, 1, _INT64_MAX)
    for model, prices in options.prices_nusd_per_mtok.items():
        for price in prices:
            _check_whole(f"prices_nusd_per_mtok[{model!r}]", price, 0, _INT64_MAX)
    for model, since, *changed in options.price_changes:
        if not model:
            raise ValueError(f"price_changes: expected the name of a model, found '' from {since}")
        for price in changed:
            _check_whole(f"price_changes[{model!r}]", price, 0, _INT64_MAX)
    _check_whole("history_rows", options.history_rows, 1, _HISTORY_ROWS_MAX)


def _check_whole(where: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{where}: expected an integer in [{low}, {high}], found {value!r}")


def _source(options: EngineOptions, source: dict[str, Any]) -> tuple[str, bool, int, list[float], list[str]]:
    name = source["name"]
    choice = options.sources.get(name, SourceChoice())
    if choice.targets and not source["targets"]:
        raise ValueError(f"sources.{name}.targets: expected none, found {choice.targets[0]!r}")
    return (
        name,
        choice.enabled and name not in options.disabled,
        choice.interval_ms or source["interval_ms"],
        _ordered(f"sources.{name}", source["options"], choice.options),
        list(choice.targets),
    )


def _leaves(
    described: list[dict[str, Any]], given: Mapping[str, Mapping[str, float]], disabled: frozenset[str], table: str
) -> list[tuple[str, bool, list[float]]]:
    """Option values of every leaf in descriptor order, checked against its bounds."""
    unknown = set(given) - {leaf["name"] for leaf in described}
    if unknown:
        raise ValueError(f"{table}: no leaf {sorted(unknown)[0]!r}; known: {', '.join(x['name'] for x in described)}")
    leaves = []
    for leaf in described:
        ordered = _ordered(f"{table}.{leaf['name']}", leaf["options"], given.get(leaf["name"], {}))
        leaves.append((leaf["name"], leaf["name"] not in disabled, ordered))
    return leaves


def _ordered(where: str, described: list[dict[str, Any]], given: Mapping[str, float]) -> list[float]:
    """Values in the order of the descriptor, each within its bounds."""
    if wrong := set(given) - {option["name"] for option in described}:
        raise ValueError(f"{where}: no option {sorted(wrong)[0]!r}")
    ordered = []
    for option in described:
        value = float(given.get(option["name"], option["default"]))
        if isnan(value) or not option["min"] <= value <= option["max"]:
            raise ValueError(
                f"{where}.{option['name']}: expected a number in "
                f"[{option['min']:g}, {option['max']:g}], found {value!r}"
            )
        ordered.append(value)
    return ordered


def _scope(record: dict[str, str]) -> Scope:
    return Scope(ScopeKind(record.pop("kind")), **record)


def _anomaly(record: dict[str, Any], host: str) -> Anomaly:
    return msgspec.convert({**record, "host": host}, Anomaly)
