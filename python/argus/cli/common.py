"""What both console scripts share: errors become one clear line and an exit code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from argus.errors import ArgusError, UsageError

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="TOML configuration; defaults are embedded.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as 30s, 500ms, 5m, 2h.

    Raises
    ------
    UsageError : anything else, or not positive
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"duration: expected a positive number with ms, s, m, h or d (30s, 5m), found {text!r}")
    return seconds


def run_app(app: typer.Typer, name: str) -> None:
    """Run a typer app; an ArgusError is one line on standard error and its exit code."""
    try:
        app(prog_name=name)
    except ArgusError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing to tell it
        sys.exit(0)
