"""Command line: durations, scopes and errors as one clear line with the right exit code."""

from __future__ import annotations

import pytest
import typer

from argus.cli.common import parse_duration, run_app
from argus.cli.main import _scope
from argus.errors import ConfigError, RefusedError, UnreachableError, UsageError
from argus.schema import ScopeKind


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("5m", 300), ("2h", 7200), ("1.5", 1.5)])
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-1s", "5 parsecs", "s", "1e9"])
def test_a_bad_duration_is_refused(text: str):
    with pytest.raises(UsageError, match="expected a positive number"):
        parse_duration(text)


def test_scopes():
    assert _scope("host").kind is ScopeKind.HOST
    assert (_scope("session:a:b").kind, _scope("session:a:b").id) == (ScopeKind.SESSION, "a:b")


@pytest.mark.parametrize("text", ["session", "session:", "planet:x", ""])
def test_a_bad_scope_is_refused(text: str):
    with pytest.raises(UsageError, match="--scope"):
        _scope(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("u"), 2), (UnreachableError("r"), 3), (RefusedError("f"), 4), (ConfigError("c"), 78)],
)
def test_an_error_is_one_line_and_its_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]):
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_app(_without_arguments(app), "argus")
    assert ended.value.code == code
    assert capsys.readouterr().err == f"argus: {error}\n"


def _without_arguments(app: typer.Typer) -> typer.Typer:
    class Bare:
        def __call__(self, *, prog_name: str) -> None:
            app([], prog_name=prog_name)

    return Bare()  # type: ignore[return-value]
