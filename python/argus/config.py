"""Configuration: one TOML file, every key typed, bounded and documented once.

The fixed tables are the Structs below (type, bounds, unit and documentation in the annotations); `[sources.*]`,
`[detectors.*]`, `[auditors.*]` and `[criteria.*]` are derived from the catalogue of the core. Unknown keys are refused.
All problems of a file are told at once, in one `ConfigError`, a line each:

    argus.toml:12: sources.cpu.interval_ms: expected integer in [10, 60000], found 5; not started
    argus.toml:20: detectors: expected the name of a detector, found 'residuals' (nearest: 'residual'); not started

Money is read as a decimal and held in whole nano-USD (1e-9 USD): never a binary float in between.
Of the environment only ARGUS_HOME and ARGUS_CONTROL count; they stand above the file.
"""

from __future__ import annotations

import difflib
import errno
import ipaddress
import json
import math
import os
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from argus.errors import ConfigError

if TYPE_CHECKING:
    from argus.engine.core import EngineOptions

NUSD_PER_USD: Final = 1_000_000_000
_INT64_MAX: Final = 2**63 - 1
_UNIX_PATH_MAX: Final = 107  # sun_path less its terminator
_INTERVAL_MS: Final = (10, 60_000)
_CLOCK: Final = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ENDPOINT: Final = re.compile(
    r"(?:tcp://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.*-]+):(?P<port>\d{1,5})|ipc://(?P<path>[^\x00]+)|inproc://\S+)"
)

Path_ = tuple[str, ...]  # a key's place in the document: ("sources", "cpu", "interval_ms")


# --- The catalogue, as `_core.catalog()` gives it -------------------------------------------------------------------


class Option(Struct, frozen=True):
    """An option of a leaf: unit in UCUM, default and bounds in that unit."""

    name: str
    unit: str
    default: float
    min: float
    max: float
    documentation: str = ""


class SourceEntry(Struct, frozen=True):
    """A source of the catalogue; `interval_ms` is its default."""

    name: str
    documentation: str = ""
    requires: str = ""
    fix: str = ""
    interval_ms: int = 1000
    options: list[Option] = []
    targets: str = ""


class LeafEntry(Struct, frozen=True):
    """A detector or an auditor of the catalogue."""

    name: str
    documentation: str = ""
    reference: str = ""
    options: list[Option] = []
    use: str = ""


class CriterionEntry(Struct, frozen=True):
    """A criterion (C1, W3, …): the severity that it justifies and its bars."""

    name: str
    severity: str = ""
    documentation: str = ""
    options: list[Option] = []


class Catalogue(Struct, frozen=True):
    """What the core offers; the schema of the leaf tables is derived from it."""

    sources: list[SourceEntry] = []
    detectors: list[LeafEntry] = []
    auditors: list[LeafEntry] = []
    criteria: list[CriterionEntry] = []


def read_catalogue(catalog: Mapping[str, Any] | None = None) -> Catalogue:
    """The catalogue, typed; without an argument that of the core in use."""
    if catalog is None:
        from argus.engine.core import catalog as of_core

        catalog = of_core()
    return msgspec.convert(catalog, Catalogue)


# --- The configuration -----------------------------------------------------------------------------------------------


def _text(documentation: str, kind: str = "text") -> Meta:
    return Meta(description=documentation, extra={"kind": kind})


def _bounded(documentation: str, low: float, high: float, unit: str = "") -> Meta:
    return Meta(description=documentation, ge=low, le=high, extra={"unit": unit})


class HostRoots(Struct, frozen=True, kw_only=True):
    """Where the kernel's file systems are mounted: another root serves containers and recorded machines."""

    proc: Annotated[str, _text("Root of the proc file system.")] = "/proc"
    sys: Annotated[str, _text("Root of the sys file system.")] = "/sys"
    cgroup: Annotated[str, _text("Root of the cgroup file system; empty = found through mountinfo.")] = ""


class SourceSettings(Struct, frozen=True, kw_only=True):
    """One source of the host plane."""

    enabled: Annotated[bool, Meta(description="Whether this source is polled.")] = True
    interval_ms: Annotated[int, _bounded("Time between polls.", *_INTERVAL_MS, "ms")] = 1000
    targets: Annotated[tuple[str, ...], _text("What it looks at.", "texts")] = ()
    options: dict[str, float] = {}


class ProcessSettings(Struct, frozen=True, kw_only=True):
    """The table of processes."""

    enabled: Annotated[bool, Meta(description="Whether processes are read.")] = True
    interval_ms: Annotated[int, _bounded("Time between reads of the whole table.", *_INTERVAL_MS, "ms")] = 1000
    tier: Annotated[
        Literal["auto", "bpf", "taskstats", "gated", "tree"],
        Meta(description="How the table is read; 'auto' takes the best that works here, see argus doctor."),
    ] = "auto"


class LeafSettings(Struct, frozen=True, kw_only=True):
    """A detector, an auditor or a criterion; `options` holds every option, in the descriptor's order."""

    enabled: bool = True
    options: dict[str, float] = {}
    series: tuple[str, ...] = ()


class Alarms(Struct, frozen=True, kw_only=True):
    """The one knob of all statistical alarms."""

    false_alarms_per_day: Annotated[
        float, _bounded("False alarms that you accept a day and scope, over all series and detectors.", 1e-6, 1000.0)
    ] = 1.0


class EngineSettings(Struct, frozen=True, kw_only=True):
    """The loop."""

    tick_ms: Annotated[int, _bounded("Time between steps of the engine.", *_INTERVAL_MS, "ms")] = 1000
    history_secs: Annotated[int, _bounded("Window of values kept in memory.", 60, 86_400, "s")] = 3600


class MaintenanceSettings(Struct, frozen=True, kw_only=True):
    """Hours in which series are observed but neither judged nor learned from."""

    at: Annotated[str, _text("When it begins, UTC.", "clock")]
    length_secs: Annotated[int, _bounded("How long it lasts.", 60, 7 * 86_400, "s")]
    days: Annotated[tuple[str, ...], _text("Days on which it begins: mon, tue, ...; empty = every day.", "texts")] = ()
    series: Annotated[tuple[str, ...], _text("Patterns of the series' names, such as system.disk.*.", "texts")] = ("*",)


class Killswitch(Struct, frozen=True, kw_only=True):
    """The control directory and how it acts."""

    directory: Annotated[str, _text("Control directory; a relative path starts beside the state's home.")] = "control"
    mode: Annotated[
        Literal["enforce", "observe"],
        Meta(description="'observe' sends automatic trips to shadow/; a trip by a person is always real."),
    ] = "enforce"
    when_silent: Annotated[
        Literal["open", "closed", "kill"],
        Meta(description="What guards do when the collector they once saw falls silent."),
    ] = "closed"
    silent_after_ms: Annotated[
        int, _bounded("Silence of the collector after which guards act so.", 1000, 600_000, "ms")
    ] = 5000


class Budgets(Struct, frozen=True, kw_only=True):
    """Absolute caps of spending, each for every scope of its kind; left out = no cap."""

    host_nusd: Annotated[int, _text("Cap of the whole host.", "usd")] | None = msgspec.field(
        default=None, name="host_usd"
    )
    tenant_nusd: Annotated[int, _text("Cap of each tenant.", "usd")] | None = msgspec.field(
        default=None, name="tenant_usd"
    )
    agent_nusd: Annotated[int, _text("Cap of each agent.", "usd")] | None = msgspec.field(
        default=None, name="agent_usd"
    )
    session_nusd: Annotated[int, _text("Cap of each session.", "usd")] | None = msgspec.field(
        default=None, name="session_usd"
    )
    strict: Annotated[
        bool, Meta(description="Whether estimated and unknown cost counts against a cap at its upper bound too.")
    ] = False


class Price(Struct, frozen=True, kw_only=True):
    """List price of a model; `since` holds what it costs from a day (UTC) on: `[prices."a-model".since.2026-06-01]`."""

    input_nusd_per_mtok: Annotated[int, _text("Price of a million input tokens.", "usd")] = msgspec.field(
        default=150 * NUSD_PER_USD, name="input_usd_per_mtok"
    )
    output_nusd_per_mtok: Annotated[int, _text("Price of a million output tokens.", "usd")] = msgspec.field(
        default=600 * NUSD_PER_USD, name="output_usd_per_mtok"
    )
    since: dict[str, Price] = {}


class OtlpInlet(Struct, frozen=True, kw_only=True):
    """Traces and logs of GenAI instrumentation over OTLP/HTTP (/v1/traces, /v1/logs), and CloudEvents (/cloudevents)."""

    enabled: Annotated[bool, Meta(description="Whether it listens.")] = False
    endpoint: Annotated[str, _text("Address that it listens on.", "address")] = "127.0.0.1:4318"
    grpc_endpoint: Annotated[
        str, _text("Address for OTLP over gRPC beside it, with the extra otlp-grpc; empty = closed.", "address")
    ] = ""
    allow_remote: Annotated[
        bool, Meta(description="Whether the address may be one that other machines reach: all of them can send then.")
    ] = False
    tenant_attribute: Annotated[
        str, _text("Attribute of spans, records or resources that names the tenant; empty = none.")
    ] = ""


class Inlets(Struct, frozen=True, kw_only=True):
    """Where events come in; empty = closed."""

    pull: Annotated[str, _text("PULL socket that agents push to.", "endpoint")] = "tcp://127.0.0.1:6160"
    sub: Annotated[list[str], _text("PUB sockets of agents that Argus connects to.", "endpoints")] = msgspec.field(
        default_factory=lambda: ["tcp://127.0.0.1:6161"]
    )
    sub_topics: Annotated[
        list[str], _text("Beginnings of the topics taken from those PUB sockets; empty = all.", "texts")
    ] = []
    sub_allow_remote: Annotated[
        bool, Meta(description="Whether they may be on other machines: whoever publishes there can forge events.")
    ] = False
    ipc: Annotated[
        str, _text("PULL socket for this machine; default: events.sock in the state's home.", "endpoint")
    ] = "ipc://argus-data/events.sock"
    jsonl: Annotated[list[str], _text("Files of JSON lines that are followed.", "texts")] = []
    stdin: Annotated[bool, Meta(description="Whether JSON lines are read from standard input.")] = False
    otlp: OtlpInlet = OtlpInlet()


class ZmqOutlet(Struct, frozen=True, kw_only=True):
    """Anomalies, incidents and flags over ZeroMQ; empty = closed."""

    endpoint: Annotated[str, _text("XPUB socket that subscribers connect to.", "endpoint")] = "tcp://127.0.0.1:6162"
    replay_endpoint: Annotated[str, _text("ROUTER socket for snapshot and replay.", "endpoint")] = (
        "tcp://127.0.0.1:6163"
    )
    queue_limit: Annotated[
        int, _bounded("Messages held for a slow subscriber; more are dropped and counted.", 1, 10_000_000)
    ] = 10_000


class PrometheusOutlet(Struct, frozen=True, kw_only=True):
    """All series over HTTP for Prometheus: /metrics, /-/healthy, /-/ready."""

    enabled: Annotated[bool, Meta(description="Whether it is served.")] = True
    endpoint: Annotated[str, _text("Address that it listens on.", "address")] = "127.0.0.1:6164"
    allow_remote: Annotated[
        bool, Meta(description="Whether the address may be one that other machines reach: all of them can read then.")
    ] = False
    node_exporter_names: Annotated[
        bool, Meta(description="Whether what node_exporter shows too is there under its names as well.")
    ] = True


class Outlets(Struct, frozen=True, kw_only=True):
    """Where decisions go out."""

    zmq: ZmqOutlet = ZmqOutlet()
    prometheus: PrometheusOutlet = PrometheusOutlet()


_OUTLETS: Final[dict[str, Any]] = {"zmq": ZmqOutlet, "prometheus": PrometheusOutlet}


class State(Struct, frozen=True, kw_only=True):
    """What Argus keeps."""

    home: Annotated[str, _text("Journal, history, keys and issues; ARGUS_HOME stands above it.")] = "argus-data"


class Bursts(Struct, frozen=True, kw_only=True):
    """Closer looks while the host is under pressure, of the sources that cost little; their extremes are kept."""

    interval_ms: Annotated[int, _bounded("Time between polls of a burst; 0 = no bursts.", 0, 100, "ms")] = 1
    length_secs: Annotated[int, _bounded("How long a burst lasts.", 1, 60, "s")] = 5
    pause_secs: Annotated[int, _bounded("Least time from one burst to the next.", 1, 3600, "s")] = 60
    stall_share: Annotated[
        float, _bounded("Share of 2 s in which some task must have been stalled (PSI) for one to begin.", 0.01, 0.99)
    ] = 0.15


class Pattern(Struct, frozen=True, kw_only=True):
    """Events of any of these types whose fields have all of these values."""

    events: tuple[str, ...]
    where: dict[str, str] = {}


class Constraint(Struct, frozen=True, kw_only=True):
    """A rule that the order of events in every scope must keep; a built-in one of that name is replaced."""

    name: Annotated[str, _text("Name of the rule: letters, digits and _; anomalies are called causal.<name>.")] = ""
    template: Annotated[str, _text("Which rule: see argus explain constraints.")] = ""
    activation: Pattern | None = None
    target: Pattern | None = None
    scope: Annotated[Literal["task", "session", "agent"], Meta(description="Whose events are looked at together.")] = (
        "task"
    )
    times: Annotated[int, _bounded("How often, for existence, absence and exactly.", 1, 1_000_000)] = 1
    deadline_s: Annotated[float, _bounded("Within so long; 0 = no deadline.", 0, 31_536_000, "s")] = 0.0
    deadline_from: Annotated[
        Literal["activation", "silence"],
        Meta(description="Where the deadline of a response begins; 'silence' = at the last event of the scope."),
    ] = "activation"
    witnessed: Annotated[
        bool, Meta(description="Whether only sources are judged that have shown that they emit what is missing.")
    ] = False
    severity: Annotated[
        Literal["info", "warning", "critical"],
        Meta(description="The highest that it asks for; criteria W5 and C5 decide."),
    ] = "warning"
    enabled: Annotated[bool, Meta(description="Whether it holds.")] = True
    message: Annotated[str, _text("What a violation means, in words; empty = the rule itself.")] = ""


class Config(Struct, frozen=True, kw_only=True):
    """Everything that can be set, complete: defaults filled in, settings of every catalogue entry, exact money."""

    host: HostRoots = HostRoots()
    sources: dict[str, SourceSettings] = {}
    processes: ProcessSettings = ProcessSettings()
    detectors: dict[str, LeafSettings] = {}
    auditors: dict[str, LeafSettings] = {}
    criteria: dict[str, LeafSettings] = {}
    constraints: tuple[Constraint, ...] = ()
    alarms: Alarms = Alarms()
    maintenance: dict[str, MaintenanceSettings] = {}
    engine: EngineSettings = EngineSettings()
    bursts: Bursts = Bursts()
    killswitch: Killswitch = Killswitch()
    budgets: Budgets = Budgets()
    prices: dict[str, Price] = msgspec.field(default_factory=lambda: {"default": Price()})
    inlets: Inlets = Inlets()
    outlets: Outlets = Outlets()
    state: State = State()

    @property
    def home(self) -> Path:
        """The state's home: journal.db, history.db, keys/, issues/, quarantine/, cases/."""
        return Path(self.state.home)

    def engine_options(self) -> EngineOptions:
        """What the core needs of this configuration."""
        from argus.engine.core import BurstChoice, ConstraintChoice, EngineOptions, SourceChoice

        leaves = {"detectors": self.detectors, "auditors": self.auditors, "criteria": self.criteria}
        caps = {
            "host": self.budgets.host_nusd,
            "tenant": self.budgets.tenant_nusd,
            "agent": self.budgets.agent_nusd,
            "session": self.budgets.session_nusd,
        }
        return EngineOptions(
            proc=self.host.proc,
            sys=self.host.sys,
            cgroup=self.host.cgroup or None,
            sources={
                name: SourceChoice(
                    enabled=s.enabled, interval_ms=s.interval_ms, options=s.options, targets=tuple(s.targets)
                )
                for name, s in self.sources.items()
            },
            processes=SourceChoice(enabled=self.processes.enabled, interval_ms=self.processes.interval_ms),
            process_tier=self.processes.tier,
            tick_ms=self.engine.tick_ms,
            bursts=BurstChoice(
                interval_ms=self.bursts.interval_ms,
                length_s=self.bursts.length_secs,
                pause_s=self.bursts.pause_secs,
                stall_share=self.bursts.stall_share,
            ),
            detectors={name: leaf.options for name, leaf in self.detectors.items()},
            named_series={name: leaf.series for name, leaf in self.detectors.items() if leaf.series},
            auditors={name: leaf.options for name, leaf in self.auditors.items()},
            criteria={name: leaf.options for name, leaf in self.criteria.items()},
            constraints=tuple(msgspec.convert(msgspec.to_builtins(row), ConstraintChoice) for row in self.constraints),
            disabled=frozenset(name for group in leaves.values() for name, leaf in group.items() if not leaf.enabled),
            caps_nusd={kind: nusd for kind, nusd in caps.items() if nusd is not None},
            caps_strict=self.budgets.strict,
            prices_nusd_per_mtok={
                "" if model == "default" else model: (p.input_nusd_per_mtok, p.output_nusd_per_mtok)
                for model, p in self.prices.items()
            },
            price_changes=tuple(
                (model, _unix_ns(day), p.input_nusd_per_mtok, p.output_nusd_per_mtok)
                for model, price in self.prices.items()
                for day, p in price.since.items()
            ),
            false_alarms_per_day=self.alarms.false_alarms_per_day,
            history_rows=max(1, self.engine.history_secs * 1000 // self.engine.tick_ms),
        )

    @property
    def control(self) -> Path:
        """The control directory: beside the state's home unless an absolute path is set."""
        return self.home.parent / self.killswitch.directory


# --- Keys: what a table takes, derived from a Struct or from a catalogue entry ----------------------------------------


class _Key(Struct, frozen=True, kw_only=True):
    name: str
    field: str
    kind: str  # boolean integer number text texts choice usd endpoint endpoints
    default: Any
    documentation: str = ""
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The wanted value, in words."""
        match self.kind:
            case "boolean":
                return "true or false"
            case "integer" | "number":
                return f"{self.kind}{_range(self.low, self.high)}"
            case "choice":
                return "one of " + ", ".join(repr(c) for c in self.choices)
            case "usd":
                least = "above 0" if self.default is None else "of at least 0"
                return f"amount in USD {least}, at most 9.2e9, at most 9 decimals"
            case "endpoint":
                return "'tcp://host:port', 'ipc://path' or '' for none"
            case "address":
                return "'127.0.0.1:port', '[::1]:port' or '' for none"
            case "endpoints":
                return "list of 'tcp://host:port' or 'ipc://path'"
            case "texts":
                return "list of texts"
            case "clock":
                return "'HH:MM'"
        return "text"


def _range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" of at least {low:g}"
    if math.isinf(low):
        return f" of at most {high:g}"
    return f" in [{_plain(low)}, {_plain(high)}]"


def _plain(value: float) -> str:
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 1e15)
    return str(int(value)) if whole else f"{value:g}"


def _tables(table: type[Struct]) -> dict[str, type[Struct]]:
    """The tables below a fixed one: `[inlets.otlp]`."""
    hints = get_type_hints(table)
    return {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Struct)}


def _keys(table: type[Struct], only: list[str] | None = None) -> tuple[_Key, ...]:
    """The keys of a fixed table, from its Struct; `only` those fields."""
    hints = get_type_hints(table, include_extras=True)
    found = []
    for item in msgspec.structs.fields(table):
        if only is not None and item.name not in only:
            continue
        hint = hints[item.name]
        if get_origin(hint) is dict or item.name in _tables(
            table
        ):  # options have the descriptor's keys, tables their own
            continue
        if get_origin(hint) in (UnionType, Union):  # an amount that may be left out
            hint = next(part for part in get_args(hint) if part is not type(None))
        kind_type, meta = get_args(hint)[0], get_args(hint)[1]
        default = item.default_factory() if item.default_factory is not msgspec.NODEFAULT else item.default
        if default is msgspec.NODEFAULT:
            default = ...
        extra = meta.extra or {}
        choices = get_args(kind_type) if get_origin(kind_type) is Literal else ()
        kind = "choice" if choices else {bool: "boolean", int: "integer", float: "number"}.get(kind_type, "text")
        found.append(
            _Key(
                name=item.encode_name,
                field=item.name,
                kind=extra.get("kind", kind),
                default=default,
                documentation=meta.description or "",
                unit=extra.get("unit", ""),
                low=-math.inf if meta.ge is None else meta.ge,
                high=math.inf if meta.le is None else meta.le,
                choices=choices,
            )
        )
    return tuple(found)


_ENABLED: Final = _Key(name="enabled", field="enabled", kind="boolean", default=True)


def _leaf_keys(options: list[Option]) -> tuple[_Key, ...]:
    """The keys of a detector, auditor or criterion: `enabled` and its options."""
    return (
        _ENABLED,
        *(
            _Key(
                name=o.name,
                field=o.name,
                kind="number",
                default=o.default,
                documentation=o.documentation,
                unit="" if o.unit == "1" else o.unit,
                low=o.min,
                high=o.max,
            )
            for o in options
        ),
    )


_SERIES: Final = _Key(
    name="series",
    field="series",
    kind="texts",
    default=(),
    documentation='Patterns of the full names of the series that it judges: "system.memory.*".',
)


def _detector_keys(entry: LeafEntry) -> tuple[_Key, ...]:
    return (*_leaf_keys(entry.options), _SERIES) if entry.use == "named" else _leaf_keys(entry.options)


def _source_keys(entry: SourceEntry) -> tuple[_Key, ...]:
    enabled, interval, targets = _keys(SourceSettings)
    keys = (enabled, msgspec.structs.replace(interval, default=entry.interval_ms), *_leaf_keys(entry.options)[1:])
    return (*keys, msgspec.structs.replace(targets, documentation=entry.targets)) if entry.targets else keys


def _source(values: dict[str, Any]) -> SourceSettings:
    fixed = {name: values.pop(name) for name in ("enabled", "interval_ms", "targets") if name in values}
    return SourceSettings(**fixed, options=values)


class _Group(Struct, frozen=True):
    """A table of tables: `[sources.<name>]`; `named` holds the known names; with `open_keys` any other is free."""

    noun: str
    named: dict[str, tuple[_Key, ...]]
    documentation: dict[str, str]
    build: Callable[[dict[str, Any]], Any]
    open_keys: tuple[_Key, ...] = ()
    dated: bool = False  # the tables with free names take `since.<day>`, with the same keys


def _leaf(values: dict[str, Any]) -> LeafSettings:
    fixed = {name: values.pop(name) for name in ("enabled", "series") if name in values}
    return LeafSettings(**fixed, options=values)


def _schema(catalogue: Catalogue) -> dict[str, type[Struct] | _Group]:
    """Every top-level table, in the order of the reference."""

    def leaves(noun: str, entries: list[LeafEntry] | list[CriterionEntry]) -> _Group:
        return _Group(
            noun,
            {e.name: _detector_keys(e) if isinstance(e, LeafEntry) else _leaf_keys(e.options) for e in entries},
            {e.name: _leaf_documentation(e) for e in entries},
            _leaf,
        )

    price_keys = _keys(Price)
    # A model's own price must be stated: the defaults are those of the unknown model.
    own_price_keys = tuple(msgspec.structs.replace(key, default=...) for key in price_keys)
    return {
        "state": State,
        "host": HostRoots,
        "sources": _Group(
            "a source",
            {e.name: _source_keys(e) for e in catalogue.sources},
            {e.name: e.documentation + (f" Needs {e.requires}." if e.requires else "") for e in catalogue.sources},
            _source,
        ),
        "processes": ProcessSettings,
        "engine": EngineSettings,
        "bursts": Bursts,
        "alarms": Alarms,
        "maintenance": _Group(
            "a window", {}, {}, lambda values: MaintenanceSettings(**values), _keys(MaintenanceSettings)
        ),
        "detectors": leaves("a detector", catalogue.detectors),
        "auditors": leaves("an auditor", catalogue.auditors),
        "criteria": leaves("a criterion", catalogue.criteria),
        "budgets": Budgets,
        "prices": _Group(
            "a model",
            {"default": price_keys},
            {"default": "Upper bound for models without a table of their own: at least the dearest that you use."},
            lambda values: Price(**values),
            own_price_keys,
            dated=True,
        ),
        "killswitch": Killswitch,
        "inlets": Inlets,
        "outlets": _Group(
            "an outlet",
            {name: _keys(table) for name, table in _OUTLETS.items()},
            {name: table.__doc__ or "" for name, table in _OUTLETS.items()},
            dict,
        ),
    }


def _leaf_documentation(entry: LeafEntry | CriterionEntry) -> str:
    if isinstance(entry, CriterionEntry):
        return f"{entry.severity}: {entry.documentation}" if entry.severity else entry.documentation
    return entry.documentation + (f" After {entry.reference}." if entry.reference else "")


# --- Loading ---------------------------------------------------------------------------------------------------------


class _Problems:
    """Collects what is wrong, so that a file is mended in one go."""

    def __init__(self, where: str, lines: dict[Path_, int]) -> None:
        self.where = where
        self.lines = lines
        self.found: list[tuple[int, str]] = []

    def add(self, path: Path_, expected: str, found: str, nearest: str = "") -> None:
        """Note a problem with the value at `path`."""
        place = path
        while place and place not in self.lines:
            place = place[:-1]
        line = self.lines.get(place, 0)
        where = f"{self.where}:{line}" if line else self.where
        hint = f" (nearest: {nearest!r})" if nearest else ""
        self.found.append((line, f"{where}: {_dotted(path)}: expected {expected}, found {found}{hint}; not started"))

    def unknown(self, path: Path_, noun: str, known: list[str]) -> None:
        """Note a name that does not exist, with the nearest that does."""
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        self.add(path, noun, repr(path[-1]), near[0] if near else "")

    def raise_all(self) -> None:
        """Raise what was found, in the order of the lines."""
        if self.found:
            raise ConfigError("\n".join(message for _, message in sorted(self.found, key=lambda p: p[0])))


def defaults(*, catalog: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The embedded configuration. Errors: `ConfigError` when the environment names a home that cannot be used."""
    return load(None, catalog=catalog, environ=environ)


def load(
    path: str | os.PathLike[str] | None,
    *,
    catalog: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration of a TOML file, complete.

    Parameters
    ----------
    path : the file; None = embedded defaults
    catalog : what `_core.catalog()` gives; None = that of the core in use
    environ : the environment; None = that of the process. Only ARGUS_HOME and ARGUS_CONTROL are read.

    Raises
    ------
    ConfigError : with one line a problem: the file cannot be read, is no TOML, or holds unknown, mistyped or
        out-of-range values
    """
    environ = os.environ if environ is None else environ
    if path is None:
        return _build({}, _schema(read_catalogue(catalog)), environ, _Problems("embedded defaults", {}))
    document, problems = _read(Path(path))
    return _build(document, _schema(read_catalogue(catalog)), environ, problems)


def lines_of(path: str | os.PathLike[str] | None) -> dict[Path_, int]:
    """The line of every key that a configuration file sets; none of embedded defaults.

    Raises
    ------
    ConfigError : as `load`
    """
    return {} if path is None else _read(Path(path))[1].lines


def _read(path: Path) -> tuple[dict[str, Any], _Problems]:
    """Document and line table of a file."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise ConfigError(
            f"{path}: expected a readable file, found none ({code}: {error.strerror}); not started"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: encoding: expected UTF-8, found byte 0x{error.object[error.start]:02x}; not started"
        ) from None
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and numbers or nesting beyond Python's limits
        raise ConfigError(_syntax(path, text, str(error))) from None
    return document, _Problems(str(path), locate(text))


def _syntax(path: Path, text: str, reason: str) -> str:
    """The parser's words in the shape of every other message."""
    lines = text.splitlines() or [""]
    at = re.search(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$", reason)
    line = int(at[1]) if at and at[1] else len(lines)
    column = int(at[2]) if at and at[2] else len(lines[-1]) + 1
    shown = lines[min(line, len(lines)) - 1].strip()
    why = reason[: at.start()] if at else reason
    return f"{path}:{line}: syntax: expected TOML, found {_found(shown)} (column {column}: {why}); not started"


def _build(
    document: dict[str, Any], schema: dict[str, type[Struct] | _Group], environ: Mapping[str, str], problems: _Problems
) -> Config:
    for name in document:
        if name not in schema and name != "constraints":
            problems.unknown((name,), "the name of a table", [*schema, "constraints"])
    parts: dict[str, Any] = {}
    for name, shape in schema.items():
        given = document.get(name, {})
        if not isinstance(given, dict):
            problems.add((name,), "a table", _found(given))
            given = {}
        if isinstance(shape, _Group):
            parts[name] = _group((name,), shape, given, problems)
        else:
            parts[name] = _fixed((name,), shape, given, problems)
    parts["constraints"] = _constraints(document.get("constraints", []), problems)
    parts["outlets"] = Outlets(**{name: _OUTLETS[name](**values) for name, values in parts["outlets"].items()})
    _place(document, parts, environ)
    _check_together(parts, problems)
    problems.raise_all()
    return Config(**parts)


def _fixed(path: Path_, shape: type[Struct], given: dict[str, Any], problems: _Problems) -> Struct:
    """A fixed table with the tables below it."""
    below = _tables(shape)
    own = {name: value for name, value in given.items() if name not in below}
    values = _table(path, _keys(shape), own, problems)
    for name, inner in below.items():
        table = given.get(name, {})
        if not isinstance(table, dict):
            problems.add((*path, name), "a table", _found(table))
            table = {}
        values[name] = _fixed((*path, name), inner, table, problems)
    return shape(**values)


_CONSTRAINT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_EVENT_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,48}")
_CONSTRAINTS_MAX: Final = 32


def _constraint_keys() -> dict[str, _Key]:
    """The keys of [[constraints]] but for the two patterns."""
    hints = get_type_hints(Constraint, include_extras=True)
    plain = [f for f in msgspec.structs.fields(Constraint) if get_origin(hints[f.name]) is Annotated]
    assert len(plain) == len(msgspec.structs.fields(Constraint)) - 2
    return {key.name: key for key in _keys(Constraint, [f.name for f in plain])}


def _constraints(given: Any, problems: _Problems) -> tuple[Constraint, ...]:
    """The rows of [[constraints]], checked against the templates of the core."""
    if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
        problems.add(("constraints",), "tables: [[constraints]]", _found(given))
        return ()
    if not given:
        return ()
    from argus.engine.core import constraint_catalog

    known = constraint_catalog()
    rows: list[Constraint] = []
    for index, table in enumerate(given):
        row = _constraint(("constraints", str(index)), table, known, problems)
        if row is None:
            continue
        if row.name in {other.name for other in rows}:
            problems.add(("constraints", str(index), "name"), "a name of its own", repr(row.name))
        rows.append(row)
    held = {row["name"] for row in known["defaults"]} | {row.name for row in rows if row.enabled}
    held -= {row.name for row in rows if not row.enabled}
    if len(held) > _CONSTRAINTS_MAX:
        expected = f"at most {_CONSTRAINTS_MAX} with the built-in ones"
        problems.add(("constraints",), expected, str(len(held)))
    return tuple(rows)


def _constraint(path: Path_, table: dict[str, Any], known: dict[str, Any], problems: _Problems) -> Constraint | None:
    before = len(problems.found)
    keys = _constraint_keys()
    for name in table:
        if name not in keys and name not in ("activation", "target"):
            problems.unknown((*path, name), "a key of [[constraints]]", [*keys, "activation", "target"])
    values = {n: _value((*path, n), k, table[n], problems) for n, k in keys.items() if n in table}
    name, enabled = values.get("name", ""), values.get("enabled", True)
    if not _CONSTRAINT_NAME.fullmatch(name):
        problems.add((*path, "name"), "small letters, digits and _, at most 48", _found(table.get("name", "")))
    elif name in known["taken"]:
        problems.add((*path, "name"), "a name that is not that of a check", repr(name))
    built_in = {row["name"] for row in known["defaults"]}
    if not enabled and name in built_in and set(table) <= {"name", "enabled", "template"}:
        return Constraint(name=name, template="absence", enabled=False)
    templates = {t["name"]: t for t in known["templates"]}
    template = templates.get(values.get("template", ""))
    if template is None:
        near = difflib.get_close_matches(str(table.get("template", "")), templates, n=1, cutoff=0.5)
        found = _found(table["template"]) if "template" in table else "nothing"
        problems.add((*path, "template"), "one of " + ", ".join(templates), found, near[0] if near else "")
    for side in ("activation", "target"):
        if side in table:
            values[side] = _pattern((*path, side), table[side], known, problems)
    if "activation" not in table:
        problems.add((*path, "activation"), _PATTERN, "nothing")
    if template is not None:
        _fits_template(path, template, table, values, problems)
    return Constraint(**values) if len(problems.found) == before else None


def _fits_template(
    path: Path_, template: dict[str, Any], table: dict[str, Any], values: dict[str, Any], problems: _Problems
) -> None:
    """Whether a row has what its template takes, and nothing that it does not."""
    of = f" for {template['name']}"
    if template["target"] and "target" not in table:
        problems.add((*path, "target"), _PATTERN + of, "nothing")
    if not template["target"] and "target" in table:
        problems.add((*path, "target"), "none" + of, _found(table["target"]))
    if not template["times"] and values.get("times", 1) != 1:
        problems.add((*path, "times"), "none" + of, _found(table["times"]))
    deadline = values.get("deadline_s", 0.0)
    if template["deadline"] == "none" and deadline:
        problems.add((*path, "deadline_s"), "none" + of, _found(table["deadline_s"]))
    if template["deadline"] == "needed" and not deadline and values.get("scope", "task") != "task":
        why = f"a deadline{of}, since no event ends a {values['scope']}"
        problems.add((*path, "deadline_s"), why, _found(table.get("deadline_s", 0)))
    if values.get("deadline_from") == "silence" and (template["name"] != "response" or not deadline):
        problems.add((*path, "deadline_from"), "'activation' but for a response with a deadline", "'silence'")


_PATTERN: Final = "the name of an event, a list of names, or { event = …, tool = … }"


def _pattern(path: Path_, given: Any, known: dict[str, Any], problems: _Problems) -> Pattern | None:
    """Events by name, and the values that their fields must have."""
    table = given if isinstance(given, dict) else {"event": given}
    names = table.get("event")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        problems.add(path, _PATTERN, _found(given) if names is None or names == given else _found(names))
        return None
    for name in names:
        near = difflib.get_close_matches(name, known["events"], n=1, cutoff=0.8)
        if not _EVENT_NAME.fullmatch(name) or (near and near[0] != name):  # other types are the user's own
            problems.add(path, "the name of an event", repr(name), near[0] if near else "")
    where = {}
    for field, value in table.items():
        if field == "event":
            continue
        if field not in known["fields"]:
            problems.unknown((*path, field), "a field: event, " + ", ".join(known["fields"]), known["fields"])
        elif field == "ok":
            if not isinstance(value, bool):
                problems.add((*path, field), "true or false", _found(value))
            where[field] = str(value).lower()
        elif not isinstance(value, str) or not 0 < len(value.encode()) <= 4096:
            problems.add((*path, field), "text", _found(value))
        else:
            where[field] = value
    return Pattern(events=tuple(names), where=where)


def _group(path: Path_, group: _Group, given: dict[str, Any], problems: _Problems) -> dict[str, Any]:
    """Every table of a group: the known ones whether given or not, and any other where names are free."""
    tables = dict(group.named)
    for name in given:
        if name in tables:
            continue
        if group.open_keys:
            tables[name] = group.open_keys
        else:
            problems.unknown((*path, name), f"the name of {group.noun}", list(group.named))
    built = {}
    for name, keys in tables.items():
        table = given.get(name, {})
        if not isinstance(table, dict):
            problems.add((*path, name), "a table", _found(table))
            table = {}
        since: dict[str, Any] = {}
        if group.dated and name not in group.named and "since" in table:
            table = dict(table)
            since = _dated((*path, name, "since"), group, table.pop("since"), problems)
        values = _table((*path, name), keys, table, problems)
        if ... not in values.values():
            built[name] = group.build({**values, "since": since} if since else values)
    return built


def _dated(path: Path_, group: _Group, given: Any, problems: _Problems) -> dict[str, Any]:
    """What holds from a day on, by day."""
    if not isinstance(given, dict):
        problems.add(path, "tables by day, such as since.2026-06-01", _found(given))
        return {}
    built = {}
    for day, table in given.items():
        if not _is_day(day):
            problems.add((*path, day), "a day as 2026-06-01", repr(day))
        elif not isinstance(table, dict):
            problems.add((*path, day), "a table", _found(table))
        else:
            values = _table((*path, day), group.open_keys, table, problems)
            if ... not in values.values():
                built[day] = group.build(values)
    return built


def _is_day(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None and 0 <= _unix_ns(text) <= _INT64_MAX
    except ValueError:
        return False


def _unix_ns(day: str) -> int:
    """The first moment of a day (UTC) in Unix ns. Errors: ValueError when there is no such day."""
    moment = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * 1_000_000_000


def _table(path: Path_, keys: tuple[_Key, ...], given: dict[str, Any], problems: _Problems) -> dict[str, Any]:
    """Values by field: those given, checked, and the defaults of the others."""
    by_name = {key.name: key for key in keys}
    for name in given:
        if name not in by_name:
            problems.unknown((*path, name), f"a key of [{_dotted(path)}]", list(by_name))
    values = {}
    for key in keys:
        if key.name in given:
            values[key.field] = _value((*path, key.name), key, given[key.name], problems)
            continue
        if key.default is ...:
            problems.add((*path, key.name), key.expected, "nothing")
        values[key.field] = key.default
    return values


def _value(path: Path_, key: _Key, given: Any, problems: _Problems) -> Any:
    """The value as the Struct holds it; a wrong one is noted and replaced by the default."""
    good, value = _convert(key, given)
    if good:
        return value
    if key.kind in ("texts", "endpoints") and isinstance(given, list):
        one = msgspec.structs.replace(key, kind="text" if key.kind == "texts" else "endpoint")
        for index, item in enumerate(given):
            if not _convert(one, item)[0] or item == "":
                expected = "text" if key.kind == "texts" else "'tcp://host:port' or 'ipc://path'"
                problems.add((*path, str(index)), expected, _found(item))
        return key.default
    near = ""
    if key.kind == "choice" and isinstance(given, str):
        near = next(iter(difflib.get_close_matches(given, key.choices, n=1, cutoff=0.5)), "")
    problems.add(path, key.expected, _found(given), near)
    return key.default


def _convert(key: _Key, given: Any) -> tuple[bool, Any]:
    """Whether a value fits its key, and how it is held."""
    match key.kind:
        case "boolean":
            return isinstance(given, bool), given
        case "integer":
            if isinstance(given, bool) or not isinstance(given, int):
                return False, None
            return key.low <= given <= key.high, given
        case "number":
            if isinstance(given, bool) or not isinstance(given, int | Decimal):
                return False, None
            exact = Decimal(given)
            number = float(exact) if exact.is_finite() and exact.adjusted() < 300 else math.inf
            return math.isfinite(number) and key.low <= number <= key.high, number
        case "choice":
            return isinstance(given, str) and given in key.choices, given
        case "usd":
            amount = nano_usd(given)
            return amount is not None and (amount > 0 or key.default is not None), amount
        case "endpoint":
            return isinstance(given, str) and (given == "" or _is_endpoint(given)), given
        case "address":
            return isinstance(given, str) and (given == "" or _is_address(given)), given
        case "clock":
            return isinstance(given, str) and _CLOCK.fullmatch(given) is not None, given
        case "endpoints":
            return isinstance(given, list) and all(isinstance(g, str) and _is_endpoint(g) for g in given), given
        case "texts":
            return isinstance(given, list) and all(isinstance(g, str) and g != "" for g in given), given
    return isinstance(given, str) and "\0" not in given, given


def nano_usd(given: Any) -> int | None:
    """Whole nano-USD of an amount in USD (text, int or Decimal), exactly; None when it is no such amount."""
    if isinstance(given, str):
        if not re.fullmatch(r"\d{1,12}(\.\d{1,30})?", given):
            return None
        given = Decimal(given)
    if isinstance(given, bool) or not isinstance(given, int | Decimal):
        return None
    amount = Decimal(given)
    if not amount.is_finite() or amount < 0 or amount.adjusted() > 12:
        return None
    _, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)
    value, shift = int("".join(map(str, digits))), exponent + 9
    if shift < 0:
        value, rest = divmod(value, 10 ** min(-shift, len(digits) + 1))
        if rest:
            return None
    else:
        value *= 10**shift
    return value if value <= _INT64_MAX else None


def _is_endpoint(text: str) -> bool:
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        return False
    if match["port"] is not None:
        return 0 < int(match["port"]) <= 65_535
    return match["path"] is None or len(match["path"].encode()) <= _UNIX_PATH_MAX


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        return False
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return host == "localhost"
    return bracketed == (address.version == 6)


def _place(document: dict[str, Any], parts: dict[str, Any], environ: Mapping[str, str]) -> None:
    """The environment above the file, and the socket that lives in the state's home."""
    if environ.get("ARGUS_HOME"):
        parts["state"] = State(home=environ["ARGUS_HOME"])
    if environ.get("ARGUS_CONTROL"):
        control = Path(environ["ARGUS_CONTROL"]).absolute()
        parts["killswitch"] = msgspec.structs.replace(parts["killswitch"], directory=str(control))
    inlets = document.get("inlets", {})
    if not (isinstance(inlets, dict) and "ipc" in inlets):
        socket = Path(parts["state"].home) / "events.sock"
        parts["inlets"] = msgspec.structs.replace(parts["inlets"], ipc=f"ipc://{socket}")


def _check_together(parts: dict[str, Any], problems: _Problems) -> None:
    """What no key can say alone."""
    home, inlets, zmq = parts["state"].home, parts["inlets"], parts["outlets"].zmq
    if home == "":
        problems.add(("state", "home"), "the path of a folder", "''")
    if parts["killswitch"].directory == "":
        problems.add(("killswitch", "directory"), "the path of a folder", "''")
    if inlets.ipc and not _is_endpoint(inlets.ipc):
        size = len(inlets.ipc.removeprefix("ipc://").encode())
        problems.add(("inlets", "ipc"), f"a path of at most {_UNIX_PATH_MAX} bytes", f"{size} in {inlets.ipc!r}")
    for name, window in parts["maintenance"].items():
        for index, day in enumerate(window.days):
            if day not in DAYS:
                problems.add(("maintenance", name, "days", str(index)), f"one of {', '.join(DAYS)}", _found(day))
    web, otlp = parts["outlets"].prometheus, inlets.otlp
    used: dict[str, Path_] = {}
    for path, endpoint in (
        (("inlets", "pull"), inlets.pull),
        (("inlets", "ipc"), inlets.ipc),
        (("outlets", "zmq", "endpoint"), zmq.endpoint),
        (("outlets", "zmq", "replay_endpoint"), zmq.replay_endpoint),
        (("inlets", "otlp", "endpoint"), otlp.endpoint and otlp.enabled and f"tcp://{otlp.endpoint}"),
        (("inlets", "otlp", "grpc_endpoint"), otlp.grpc_endpoint and otlp.enabled and f"tcp://{otlp.grpc_endpoint}"),
        (("outlets", "prometheus", "endpoint"), web.endpoint and web.enabled and f"tcp://{web.endpoint}"),
    ):
        if endpoint and endpoint in used:
            problems.add(path, f"another endpoint than {_dotted(used[endpoint])}", repr(endpoint))
        used.setdefault(endpoint, path)


def _dotted(path: Path_) -> str:
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part) for part in path)


def _found(value: Any) -> str:
    """A value in words, short and without control characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return f"a {type(value).__name__}"


# --- Line numbers ----------------------------------------------------------------------------------------------------


_BLANK: Final = r"(?:[\s,]|#[^\n]*)*"  # with the commas between items
_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
_MULTILINE: Final = r'"""(?:[^\\]|\\[\s\S])*?"{3,5}|\'\'\'[\s\S]*?\'{3,5}'
_SCALAR: Final = _QUOTED + r"|[^,\]}#\n]+"


def locate(text: str) -> dict[Path_, int]:
    """The line of every table, key and list item of a TOML text that has parsed; items are named by their index."""
    return _Locator(text).lines


class _Locator:
    """Walks a well-formed TOML text; it need not judge it, the parser has."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.lines: dict[Path_, int] = {}
        self._newest: dict[Path_, int] = {}  # of arrays of tables
        self._counted = (0, 1)
        self._document()

    def _line(self) -> int:
        position, line = self._counted
        self._counted = (self.at, line + self.text.count("\n", position, self.at))
        return self._counted[1]

    def _note(self, path: Path_) -> None:
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], self._line())

    def _skip(self, pattern: str) -> str:
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def _document(self) -> None:
        table: Path_ = ()
        while True:
            self._skip(_BLANK)
            if self.at == len(self.text):
                return
            if opened := self._skip(r"\[\[?"):
                table = self._indexed(self._key(), opened == "[[")
                self._note(table)
                self._skip(r"[ \t]*\]\]?")
            else:
                self._pair(table)

    def _indexed(self, key: Path_, another: bool) -> Path_:
        """The place of a table header: below the newest item of every array of tables on its way."""
        path: Path_ = ()
        for depth, part in enumerate(key, 1):
            path = (*path, part)
            if another and depth == len(key):
                self._newest[path] = self._newest.get(path, -1) + 1
            if path in self._newest:
                path = (*path, str(self._newest[path]))
        return path

    def _pair(self, table: Path_) -> None:
        begin = self.at
        path = (*table, *self._key())
        end, self.at = self.at, begin
        self._note(path)
        self.at = end
        self._skip(r"[ \t]*=[ \t]*")
        self._value(path)

    def _key(self) -> Path_:
        parts = []
        while True:
            self._skip(r"[ \t]*")
            quoted = self._skip(_QUOTED)
            if quoted:
                parts.append(next(iter(tomllib.loads(f"{quoted} = 0"))))
            else:
                parts.append(self._skip(r"[A-Za-z0-9_-]+"))
            if not self._skip(r"[ \t]*\.[ \t]*"):
                return tuple(parts)

    def _value(self, path: Path_) -> None:
        if self._skip(r"\["):
            self._items(path)
        elif self._skip(r"\{"):
            self._skip(_BLANK)
            while not self._skip(r"\}"):
                self._pair(path)
                self._skip(_BLANK)
        else:
            self._skip(_MULTILINE) or self._skip(_SCALAR)

    def _items(self, path: Path_) -> None:
        index = 0
        self._skip(_BLANK)
        while not self._skip(r"\]"):
            self._note((*path, str(index)))
            self._value((*path, str(index)))
            self._skip(_BLANK)
            index += 1


# --- The reference ---------------------------------------------------------------------------------------------------


def to_toml(config: Config, *, catalog: Mapping[str, Any] | None = None) -> str:
    """The configuration as TOML that loads to the same, with documentation, unit, range and default of every key."""
    out = ["# Configuration of Argus. Every key may be left out; unknown keys are refused."]
    for name, shape in _schema(read_catalogue(catalog)).items():
        part = getattr(config, name)
        if isinstance(shape, _Group):
            tables = {table: getattr(part, table) for table in _OUTLETS} if isinstance(part, Outlets) else part
            for leaf, settings in tables.items():
                keys = shape.named.get(leaf, shape.open_keys)
                out += ["", *_comment(shape.documentation.get(leaf, "")), f"[{_dotted((name, leaf))}]"]
                out += _reference(keys, settings)
                for day, changed in settings.since.items() if isinstance(settings, Price) else ():
                    out += ["", f"[{_dotted((name, leaf, 'since', day))}]", *_reference(keys, changed)]
        else:
            out += _section((name,), shape, part)
    for row in config.constraints:
        out += ["", *_comment(Constraint.__doc__ or ""), "[[constraints]]", *_constraint_toml(row)]
    return "\n".join(out) + "\n"


def _constraint_toml(row: Constraint) -> Iterator[str]:
    for key in _constraint_keys().values():
        value = getattr(row, key.field)
        if value != key.default:
            yield f"{key.name} = {_toml(key, value)}"
    text = msgspec.structs.replace(next(iter(_constraint_keys().values())), kind="text")
    for side, pattern in (("activation", row.activation), ("target", row.target)):
        if pattern is None:
            continue
        items = [f"event = {_toml(text, list(pattern.events))}"]
        for field, value in pattern.where.items():
            items.append(f"{field} = {value if field == 'ok' else _toml(text, value)}")
        yield f"{side} = {{ {', '.join(items)} }}"


def _section(path: Path_, shape: type[Struct], part: Struct) -> list[str]:
    """A fixed table, then the tables below it."""
    out = ["", *_comment(shape.__doc__ or ""), f"[{_dotted(path)}]", *_reference(_keys(shape), part)]
    for name, inner in _tables(shape).items():
        out += _section((*path, name), inner, getattr(part, name))
    return out


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), 110, break_on_hyphens=False)]


def _reference(keys: tuple[_Key, ...], settings: Struct) -> Iterator[str]:
    for key in keys:
        value = settings.options[key.field] if _is_option(key, settings) else getattr(settings, key.field)  # type: ignore[attr-defined]
        notes = [
            key.expected if key.kind in ("integer", "number", "choice") else "",
            "must be stated" if key.default is ... else f"default {_toml(key, key.default)}",
        ]
        about = f"{key.documentation} " if key.documentation else ""
        unit = f"{key.unit}, " if key.unit else ""
        if key.name != "enabled" or key.documentation:
            yield from _comment(f"{about}({unit}{', '.join(n for n in notes if n)})")
        yield f'# {key.name} = "10.00"' if value is None else f"{key.name} = {_toml(key, value)}"


def _is_option(key: _Key, settings: Struct) -> bool:
    return isinstance(settings, LeafSettings | SourceSettings) and key.name not in type(settings).__struct_fields__


def _toml(key: _Key, value: Any) -> str:
    if value is None:
        return "none"
    if key.kind == "usd":
        whole, part = divmod(value, NUSD_PER_USD)
        return f'"{whole}.{f"{part:09d}".rstrip("0").ljust(2, "0")}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(key, item) for item in value) + "]"
    return str(value)
