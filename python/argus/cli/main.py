"""`argus`: everything a person does around the daemon."""

from __future__ import annotations

import contextlib
import getpass
import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from argus.cli.common import ConfigOption, JsonOption, parse_duration, run_app
from argus.errors import UnreachableError, UsageError
from argus.schema import Anomaly, Scope, ScopeKind, StopKind

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
explain_app = typer.Typer(no_args_is_help=True, help="Why Argus judges as it does.")
config_app = typer.Typer(no_args_is_help=True, help="The configuration in force.")
app.add_typer(explain_app, name="explain")
app.add_typer(config_app, name="config")
maintenance_app = typer.Typer(no_args_is_help=True, help="Series that are for a while neither judged nor learned from.")
app.add_typer(maintenance_app, name="maintenance")
reference_app = typer.Typer(no_args_is_help=True, help="A frozen, signed reference that bounds slow change.")
app.add_typer(reference_app, name="reference")

ScopeOption = Annotated[str, typer.Option("--scope", help="host, or kind:id with kind tenant, agent, session or task.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; written into flag and journal.")]
ActorOption = Annotated[str, typer.Option("--actor", help="Who acts; default: this user.")]


def _emit(value: Any) -> None:
    typer.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def _emit_line(value: Any) -> None:
    typer.echo(json.dumps(msgspec.to_builtins(value)))


def _scope(text: str) -> Scope:
    kind, _, name = text.partition(":")
    if kind == "host" and not name:
        return Scope(ScopeKind.HOST, "")
    if kind not in list(ScopeKind) or not name:
        raise UsageError(f"--scope: expected 'host' or kind:id with kind in {', '.join(ScopeKind)}, found {text!r}")
    return Scope(ScopeKind(kind), name)


def _actor(given: str) -> str:
    return given or f"user:{getpass.getuser()}"


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What can and cannot be seen here, each gap with its fix. Exit 1 when something needed is missing."""
    from argus.config import load
    from argus.services import doctor as service

    report = service.examine(load(config))
    if as_json:
        _emit(report.to_dict())
    else:
        typer.echo(report.render())
    raise typer.Exit(report.exit_code)


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What the running collector sees: sources, events, flags, incidents."""
    from argus.config import load
    from argus.services.status import render_status
    from argus.wire.zmq import CommandClient

    loaded = load(config)
    reply = CommandClient(loaded.home).request({"verb": "status"})
    if as_json:
        _emit(reply)
    else:
        typer.echo(render_status(reply))


@app.command()
def tail(
    topics: Annotated[list[str] | None, typer.Argument(help="Topic prefixes; all when left out.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="XPUB endpoint; default: from the configuration.")] = None,
    for_: Annotated[str | None, typer.Option("--for", help="End after this long.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Anomalies, incidents and flags as they are published; gaps are reported."""
    from argus.config import load
    from argus.services.status import anomaly_line, printable
    from argus.wire.zmq import subscribe

    loaded = load(config)
    until = time.monotonic() + parse_duration(for_) if for_ else math.inf
    with subscribe(
        endpoint or loaded.outlets.zmq.endpoint,
        tuple(topics or ()),
        timeout_s=0.2,
        replay_endpoint=loaded.outlets.zmq.replay_endpoint or None,
    ) as records:
        while time.monotonic() < until:
            for record in records:
                if as_json:
                    typer.echo(json.dumps({"record": type(record).__name__.lower(), **msgspec.to_builtins(record)}))
                elif isinstance(record, Anomaly):
                    typer.echo(anomaly_line(record))
                else:
                    typer.echo(printable(f"{type(record).__name__.lower()}: {msgspec.to_builtins(record)}", 300))
                if time.monotonic() >= until:
                    break


@app.command()
def top(
    by: Annotated[str, typer.Option("--by", help="cpu, rss, read, write, faults, … or a column's name.")] = "cpu",
    group: Annotated[str, typer.Option(help="Sums by name, executable, cgroup, user, state or session.")] = "",
    pattern: Annotated[str, typer.Option("--filter", help="Regular expression on name, session or pid.")] = "",
    count: Annotated[int | None, typer.Option("--count", "-n", help="Rows; default: as many as fit.")] = None,
    agents: Annotated[bool, typer.Option("--agents", help="Only processes of agent sessions.")] = False,
    interval: Annotated[str, typer.Option(help="Time between looks.")] = "1s",
    once: Annotated[bool, typer.Option("--once", help="Two looks an interval apart, then end.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The busiest processes, live, those of agents first. Needs no collector; Ctrl-C ends."""
    import sys

    from rich.console import Console
    from rich.live import Live

    from argus.config import load
    from argus.services.top import Top, render

    console = Console()
    live = console.is_terminal and not once and not as_json
    if not console.is_terminal:
        console = Console(width=140)
    rows = count if count is not None else max(5, console.height - 4) if live else 20
    every_s = parse_duration(interval)
    view = Top(load(config), by=by, group=group, pattern=pattern, count=rows, agents_only=agents)
    try:
        view.look()
        time.sleep(every_s)
        if not live:
            while True:
                seen = view.look()
                _emit_line(seen) if as_json else console.print(render(seen))
                sys.stdout.flush()
                if once:
                    return
                time.sleep(every_s)
        with Live(render(view.look()), console=console, screen=True, auto_refresh=False) as screen:
            while True:
                time.sleep(every_s)
                screen.update(render(view.look()), refresh=True)
    except KeyboardInterrupt:
        pass
    finally:
        view.close()


@app.command()
def incidents(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Open incidents of the running collector, most severe first, with their ranked causes."""
    from argus.config import load
    from argus.services.status import render_incidents
    from argus.wire.zmq import CommandClient

    reply = CommandClient(load(config).home).request({"verb": "incidents"})
    if as_json:
        _emit(reply["incidents"])
    else:
        typer.echo(render_incidents(reply["incidents"]))


@app.command()
def replay(
    file: Annotated[
        str, typer.Argument(help="NDJSON events, .gz too; - = standard input; or a .csv, .parquet of metrics.")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="JSON lines of what is known: a name, and bad or success; default: task ends.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(help="Stops and anomalies to list.")] = 20,
) -> None:
    """What Argus would have found in past events, what each rule would have stopped, spared and got wrong.

    A notional guard makes every stop hold. Of past metrics: what would have been found.
    """
    from argus.config import load
    from argus.services.replay import is_metrics
    from argus.services.replay import replay as run_replay
    from argus.services.status import render_replay

    events = not is_metrics(file)
    if labels is not None and not events:
        raise UsageError("--labels: expected a replay of events, found a table of metrics; not replayed.")
    report = run_replay(file, config=load(config), guard=events, labels=labels)
    if as_json:
        _emit(report)
    else:
        typer.echo(render_replay(report, limit=limit, log=file if events and file != "-" else ""))


@app.command()
def show(
    names: Annotated[list[str], typer.Argument(help="Ids of events or anomalies, as anomalies and issues name them.")],
    log: Annotated[
        list[Path] | None, typer.Option("--log", help="Events as JSON lines, .gz too; default: the followed files.")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="Journal file; default: from the configuration.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The events behind an anomaly, and what it said of them. Exit 1 when something is not found."""
    from argus.config import load
    from argus.services import show as service

    loaded = load(config)
    kept = journal or loaded.home / "journal.db"
    logs = log or [path for path in map(Path, loaded.inlets.jsonl) if path.is_file()]
    shown = service.show(names, logs=logs, journal=kept if journal or kept.is_file() else None)
    if as_json:
        _emit(shown)
    else:
        searched = [str(path) for path in (*logs, *([kept] if kept.is_file() else []))]
        typer.echo(service.render(shown, searched=searched))
    raise typer.Exit(1 if shown.missing else 0)


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Session logs, or directories of them, e.g. ~/.claude/projects.")],
    to: Annotated[Path | None, typer.Option(help="File for the events (JSON lines); default: standard output.")] = None,
    as_replay: Annotated[bool, typer.Option("--replay", help="Print what Argus would have found instead.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Tell the collector (or --to) as the logs grow.")] = False,
    from_start: Annotated[bool, typer.Option("--from-start", help="Follow from the logs' beginnings.")] = False,
    for_: Annotated[str | None, typer.Option("--for", help="Follow this long, then end.")] = None,
    format_: Annotated[str, typer.Option("--format", help="auto, claude-code or codex.")] = "auto",
    tenant: Annotated[str, typer.Option(help="Tenant of these agents.")] = "",
    key: Annotated[
        Path | None, typer.Option(help="Key of the hashes; default: in the home, made on first use.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Where the collector listens; default: $ARGUS_EVENTS.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(help="Anomalies to list.")] = 20,
) -> None:
    """Session logs of coding agents (Claude Code, Codex CLI) as events; contents are hashed with a key, never kept."""
    import sys

    from argus.config import load
    from argus.services import imports
    from argus.services.replay import replay as run_replay
    from argus.services.status import printable, render_replay
    from argus.wire.transcripts.common import Context
    from argus.wire.transcripts.reader import format_of, read

    if as_replay and (follow or to is not None):
        raise UsageError("--replay: expected neither --follow nor --to beside it; nothing imported.")
    if (from_start or for_ or endpoint) and not follow:
        raise UsageError("--from-start, --for, --endpoint: expected --follow beside them; nothing imported.")
    if len(tenant.encode("utf-8", "replace")) > 64:
        raise UsageError("--tenant: expected at most 64 bytes; nothing imported.")
    kind, loaded = format_of(format_), load(config)
    context = Context(imports.load_key(key or loaded.home / "keys" / "import.key"), tenant=tenant)
    lost = 0
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            lost = imports.follow(
                paths, context, kind=kind, endpoint=endpoint, target=to, from_start=from_start,
                seconds=parse_duration(for_) if for_ else math.inf,
            )  # fmt: skip
    elif as_replay:
        report = run_replay(read(paths, context, kind=kind), config=loaded, guard=True)
        _emit(report) if as_json else typer.echo(render_replay(report, limit=limit))
    elif to is not None:
        imports.to_file(read(paths, context, kind=kind), to)
    else:
        imports.write(read(paths, context, kind=kind), sys.stdout.buffer)
    account = context.counts
    typer.echo(json.dumps(account.to_dict()) if as_json else imports.render(account, printable), err=True)
    if lost:
        raise UnreachableError(f"{lost} events found no room at the collector; it is away, or slower than the logs.")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="The agent's command, after --.")],
    budget_usd: Annotated[str | None, typer.Option(help="Absolute cap of this session in USD.")] = None,
    session: Annotated[str | None, typer.Option(help="Session id; default: made up.")] = None,
    observe: Annotated[bool, typer.Option("--observe", help="Report what would be stopped, stop nothing.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="SIGSTOP the child while a lockdown stands.")] = False,
    grace: Annotated[str, typer.Option(help="Between SIGTERM and SIGKILL.")] = "500ms",
    config: ConfigOption = None,
) -> None:
    """Run an agent as a guarded session: budget, private event socket, verified stop of its whole process tree."""
    from argus.config import load
    from argus.services.session import run_session

    raise typer.Exit(
        run_session(
            command,
            config=load(config),
            config_path=config,
            budget_usd=budget_usd,
            session=session,
            observe=observe,
            pause=pause,
            grace_s=parse_duration(grace),
        )
    )


@app.command()
def drill(as_json: JsonOption = False) -> None:
    """Rehearse a stop: a sandboxed runaway agent is detected, flagged, killed and verified. Exit 0 = Argus can halt."""
    from argus.services.drill import drill as run_drill

    report = run_drill(say=None if as_json else typer.echo)
    if as_json:
        _emit(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def trip(
    kind: Annotated[StopKind, typer.Argument(help="hard_kill or write_lockdown.")],
    reason: ReasonOption,
    scope: ScopeOption = "host",
    actor: ActorOption = "",
    config: ConfigOption = None,
) -> None:
    """Stop now, by hand. Works with Argus stopped, hung, or the disk full."""
    from argus.config import load
    from argus.services.manual import trip as run_trip

    typer.echo(run_trip(load(config), kind, _scope(scope), reason=reason, actor=_actor(actor)))


@app.command()
def hold(
    reason: ReasonOption,
    scope: ScopeOption = "host",
    for_: Annotated[str, typer.Option("--for", help="How long, at most 4h.")] = "30m",
    actor: ActorOption = "",
    config: ConfigOption = None,
) -> None:
    """Hold automatic stops of a scope for a while; manual trips and absolute budgets are never held."""
    from argus.config import load
    from argus.services.manual import hold as run_hold

    typer.echo(run_hold(load(config), _scope(scope), seconds=parse_duration(for_), reason=reason, actor=_actor(actor)))


@app.command()
def reset(
    kind: Annotated[StopKind, typer.Argument(help="hard_kill or write_lockdown.")],
    reason: ReasonOption,
    scope: ScopeOption = "host",
    actor: ActorOption = "",
    second_actor: Annotated[str, typer.Option(help="Second person, where the cause was a breach.")] = "",
    config: ConfigOption = None,
) -> None:
    """Clear a stop; the flag moves to the archive."""
    from argus.config import load
    from argus.services.manual import reset as run_reset

    typer.echo(
        run_reset(
            load(config), kind, _scope(scope), reason=reason, actor=_actor(actor), second_actor=second_actor or None
        )
    )


@app.command()
def verify(
    journal: Annotated[Path | None, typer.Option(help="Journal file; default: from the configuration.")] = None,
    key: Annotated[Path | None, typer.Option(help="Public key file; default: beside the journal.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the journal offline: hash chain and signatures. Exit 1 names the first bad record."""
    from argus.config import load
    from argus.record.verify import verify as run_verify
    from argus.services.status import render_verify

    home = load(config).home
    report = run_verify(journal or home / "journal.db", key or home / "keys" / "journal.pub")
    if as_json:
        _emit(report)
    else:
        typer.echo(render_verify(report))
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def ack(
    key: Annotated[str, typer.Argument(help="Key of an open incident; see argus incidents.")],
    true_alarm: Annotated[bool, typer.Option("--true/--false", help="Whether it was of something that mattered.")],
    actor: ActorOption = "",
    config: ConfigOption = None,
) -> None:
    """Judge an incident: a true one costs no alarm budget, so that the budget comes to count false alarms."""
    from argus.config import load
    from argus.wire.zmq import CommandClient

    request = {"verb": "ack", "key": key, "true_alarm": true_alarm, "actor": _actor(actor)}
    reply = CommandClient(load(config).home).request(request)
    typer.echo(f"{key} acknowledged as {'true' if true_alarm else 'false'}; {len(reply['series'])} series")


SeriesOption = Annotated[
    list[str] | None, typer.Option("--series", help="Pattern of series' names, such as 'system.disk.*'; default: all.")
]


def _maintain(config: Path | None, **request: Any) -> dict[str, Any]:
    from argus.config import load
    from argus.wire.zmq import CommandClient

    return CommandClient(load(config).home).request({"verb": "maintenance", **request})


def _show_windows(reply: dict[str, Any]) -> None:
    from argus.services.maintenance import Window, window_words

    windows = [msgspec.convert(window, Window) for window in reply["windows"]]
    typer.echo(window_words(windows, reply["suspended"]) or "every series is judged")


@maintenance_app.command("begin")
def maintenance_begin(
    length: Annotated[str, typer.Option("--for", help="How long: 30m, 2h.")],
    reason: ReasonOption,
    series: SeriesOption = None,
    name: Annotated[str, typer.Option("--name", help="Name of the window; default: chosen.")] = "",
    actor: ActorOption = "",
    config: ConfigOption = None,
) -> None:
    """Leave series alone for a while: they raise no alarm and nothing is learned of them. Caps and stops go on."""
    begun = {"begin": "maintenance", "seconds": parse_duration(length), "series": series or ["*"]}
    _show_windows(_maintain(config, **begun, name=name, reason=reason, actor=_actor(actor)))


@maintenance_app.command("end")
def maintenance_end(
    name: Annotated[str, typer.Argument(help="Name of the window; see argus maintenance list.")],
    config: ConfigOption = None,
) -> None:
    """Judge the series again."""
    _show_windows(_maintain(config, end=name))


@maintenance_app.command("list")
def maintenance_list(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The windows that are open now, scheduled ones too."""
    reply = _maintain(config)
    if as_json:
        _emit(reply["windows"])
    else:
        _show_windows(reply)


def _refer(config: Path | None, as_json: bool, **request: Any) -> None:
    from datetime import UTC, datetime

    from argus.config import load
    from argus.wire.zmq import CommandClient

    reply = CommandClient(load(config).home).request({"verb": "reference", **request})
    if as_json:
        _emit(reply)
    elif reply["frozen_at"] is None:
        typer.echo("no reference: freeze one when the host runs as it should")
    else:
        frozen = datetime.fromtimestamp(reply["frozen_at"] / 1e9, UTC)
        typer.echo(f"frozen {frozen:%Y-%m-%d %H:%M} UTC by {reply['actor']}: {reply['series']} series")
        typer.echo(f"drifted: {', '.join(reply['drifted']) or 'none'}")


@reference_app.command("freeze")
def reference_freeze(actor: ActorOption = "", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Take what is normal now as the reference: hourly means further off than it allows are told from then on."""
    _refer(config, as_json, freeze_by=_actor(actor))


@reference_app.command("show")
def reference_show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """When the reference was frozen, and which series have left it."""
    _refer(config, as_json)


@app.command()
def deployed(
    version: Annotated[str, typer.Argument(help="What was deployed; written into the journal.")],
    settle: Annotated[str, typer.Option("--settle", help="Time until it runs as it will.")] = "10m",
    series: SeriesOption = None,
    actor: ActorOption = "",
    config: ConfigOption = None,
) -> None:
    """Say that the host now runs something else: its series are left alone until that has settled, then learned anew."""
    begun = {"begin": "deployment", "seconds": parse_duration(settle), "series": series or ["*"]}
    _show_windows(_maintain(config, **begun, reason=version, actor=_actor(actor)))


@explain_app.command("budget")
def explain_budget(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """How often the running collector speaks of the host, against how often it may."""
    from argus.config import load
    from argus.services.explain import render_budget
    from argus.wire.zmq import CommandClient

    reply = CommandClient(load(config).home).request({"verb": "budget"})
    if as_json:
        _emit(reply["budget"])
    else:
        typer.echo(render_budget(reply["budget"]))


@explain_app.command("criteria")
def explain_criteria(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The criteria that turn findings into stops: values in force here, what each needs, how often it held."""
    from argus.config import lines_of, load
    from argus.services.explain import criteria, render_criteria
    from argus.wire.zmq import CommandClient

    loaded, live = load(config), None
    with contextlib.suppress(UnreachableError):  # no collector runs: the configuration alone is explained
        live = CommandClient(loaded.home).request({"verb": "criteria"})["criteria"]
    rows = criteria(loaded, given=lines_of(config), live=live)
    if as_json:
        _emit(rows)
    else:
        typer.echo(render_criteria(rows))


@explain_app.command("constraints")
def explain_constraints(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The constraints on the order of events, built in and configured, and whether each holds here."""
    from argus.config import load
    from argus.services.explain import constraints, render_constraints

    rows = constraints(load(config))
    if as_json:
        _emit(rows)
    else:
        typer.echo(render_constraints(rows))


@config_app.command("show")
def config_show(config: ConfigOption = None) -> None:
    """Every key with its documentation and the value in force, as TOML."""
    from argus.config import load, to_toml

    typer.echo(to_toml(load(config)))


@config_app.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Read the configuration and say what is wrong with it; exit 78 when it cannot be used."""
    from argus.config import load

    load(config)
    typer.echo(f"{config or 'embedded defaults'}: usable")


def main() -> None:
    """Console script."""
    run_app(app, "argus")


if __name__ == "__main__":
    main()
