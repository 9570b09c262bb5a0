"""The runner of the benchmarks: which run, what a line holds, and what decides the exit status."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runner(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "python"))
    spec = importlib.util.spec_from_file_location("bench_runner", ROOT / "bench" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def use(monkeypatch, runner, **benchmarks):
    monkeypatch.setattr(
        runner, "benchmarks", lambda _: {f"bench_{k}": lambda v=v: iter(v) for k, v in benchmarks.items()}
    )


def item(name, good=True):
    return {"name": name, "value": 1.5, "unit": "us", "against": "x", "ratio": 2.0, "bar": 2.0, "pass": good}


def test_a_figure_is_one_json_line_with_the_machine(monkeypatch, runner, capsys):
    use(monkeypatch, runner, a=[item("a/1")])
    assert 0 == runner.run([], as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert ["name", "value", "unit", "against", "ratio", "bar", "pass", "machine"] == list(told)
    assert "cores" in told["machine"]


def test_a_missed_bar_fails_the_run(monkeypatch, runner, capsys):
    use(monkeypatch, runner, a=[item("a/1", good=False)], b=[item("b/1")])
    assert 1 == runner.run([], as_json=False)
    out = capsys.readouterr().out
    assert "MISSED" in out and "b/1" in out


def test_one_that_cannot_run_hides_no_other(monkeypatch, runner, capsys):
    def broken():
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(runner, "benchmarks", lambda _: {"bench_a": broken, "bench_b": lambda: iter([item("b/1")])})
    assert 1 == runner.run([], as_json=True)
    captured = capsys.readouterr()
    assert "b/1" in captured.out
    assert "bench_a: could not run: RuntimeError: no such thing" in captured.err


def test_names_choose_benchmarks_or_figures(monkeypatch, runner, capsys):
    use(monkeypatch, runner, host=[item("host_read/call"), item("table/tree")], bank=[item("bank/row")])

    def shown(*names):
        status = runner.run(list(names), as_json=True)
        return status, [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]

    assert (0, ["bank/row"]) == shown("bank")
    assert (0, ["table/tree"]) == shown("table")
    assert (0, ["host_read/call", "table/tree"]) == shown("host")
    assert (2, []) == shown("absent")


def test_a_wildcard_means_files_and_runs_no_other(monkeypatch, runner, capsys):
    def other():
        raise RuntimeError("was run")
        yield

    ours = {"bench_agent_a": lambda: iter([item("x/1")]), "bench_agent_b.py": lambda: iter([item("y/1")])}
    monkeypatch.setattr(runner, "benchmarks", lambda _: {**ours, "bench_host": other})
    assert 0 == runner.run(["agent_*"], as_json=True)
    assert ["x/1", "y/1"] == [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]


def test_every_benchmark_of_the_tree_is_known(runner):
    """A file beside the others is enough: nothing is registered."""
    files = {path.stem for path in (ROOT / "bench").rglob("bench_*") if path.suffix in (".py", ".cpp")}
    assert files == {key.removesuffix(".py") for key in runner.benchmarks(ROOT)}


def test_idle_processes_end_with_their_block(runner):
    from support import Sleepers

    with Sleepers(3) as sleepers:
        children = Path(f"/proc/{sleepers.parent.pid}/task/{sleepers.parent.pid}/children")
        pids = children.read_text().split()
        assert 3 == len(pids)
    assert [] == [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert 0 == sleepers.parent.returncode
    del sys.modules["support"]
