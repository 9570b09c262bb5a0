"""`argus-collect`: the daemon. Runs on this machine with embedded defaults until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argus.cli.common import ConfigOption, parse_duration, run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def collect(
    config: ConfigOption = None,
    for_: Annotated[str | None, typer.Option("--for", help="End by itself after this long: 30s, 5m, 2h.")] = None,
    jsonl: Annotated[
        list[Path] | None, typer.Option(help="Follow this JSON-lines file of events from its beginning (repeatable).")
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read JSON-lines events from standard input.")] = False,
    observe: Annotated[bool, typer.Option("--observe", help="Automatic stops go to control/shadow only.")] = False,
    every: Annotated[str, typer.Option(help="Print a status line this often.")] = "5s",
) -> None:
    """Watch this host and the agents on it; print a status line every few seconds and each anomaly as it comes."""
    from argus.config import load
    from argus.services.collector import Collector

    loaded = load(config)
    collector = Collector(
        loaded, extra_jsonl=tuple(jsonl or ()), stdin=stdin, observe=observe, status_every_s=parse_duration(every)
    )
    raise typer.Exit(collector.run(parse_duration(for_) if for_ else None))


def main() -> None:
    """Console script."""
    run_app(app, "argus-collect")


if __name__ == "__main__":
    main()
