"""The runner of the checks: a failure is shown, never hides the next check, and decides the exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest

import checks


@pytest.fixture
def bench(tmp_path):
    return checks.Bench(tmp_path, {"PATH": "/usr/bin:/bin", "CXX": "c++", "ARGUS_HOME": "/x", "ARGUS_DATA": "/d"})


def test_a_failing_command_shows_what_it_said(bench, capsys):
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    outcome = bench.check("broken", lambda: bench.command(command))
    assert ("broken", "FAILED") == (outcome.name, outcome.state)
    assert "the reason" in capsys.readouterr().out
    assert "exit status 3" in outcome.note


def test_a_command_that_cannot_start_is_a_failure(bench):
    assert "FAILED" == bench.check("absent", lambda: bench.command(["/nonexistent/tool"])).state


def test_a_hanging_command_is_ended(bench, monkeypatch):
    monkeypatch.setattr(checks, "STEP_TIMEOUT_S", 0.2)
    outcome = bench.check("hang", lambda: bench.command(["sleep", "60"]))
    assert "FAILED" == outcome.state and outcome.seconds < 30


def test_commands_side_by_side_are_all_run_and_told_and_one_failure_fails(bench, capsys):
    said = [[sys.executable, "-c", f"print('number {n}'); raise SystemExit({n % 2})"] for n in range(3)]
    outcome = bench.check("several", lambda: bench.side_by_side(said))
    assert "FAILED" == outcome.state
    shown = capsys.readouterr().out
    assert all(f"number {n}" in shown for n in range(3))
    assert [path.name for path in bench.logs.iterdir()] == ["several.log"]
    assert "ok" == bench.check("some", lambda: bench.side_by_side(said[::2])).state


@pytest.mark.parametrize(("cases", "parts"), [(0, 2), (1, 2), (7, 3), (931, 2), (5, 1)])
def test_ranges_hold_every_case_once(cases, parts):
    ranges = checks._ranges(cases, parts)
    assert [n for first, last in ranges for n in range(first, last + 1)] == list(range(1, cases + 1))
    assert len(ranges) <= parts


def test_what_cannot_be_run_is_a_loud_notice(bench, capsys):
    (bench.root / "tests/fuzz").mkdir(parents=True)
    (bench.root / "tests/fuzz/fuzz_x.cpp").touch()
    outcome = bench.check("fuzz", lambda: checks.fuzz(bench, None))
    assert "not run" == outcome.state
    assert "NOTICE: fuzz was not run: no clang++ with libFuzzer here" in capsys.readouterr().out


def test_settings_of_a_surrounding_argus_do_not_leak_in(bench):
    assert {"PATH", "CXX", "ARGUS_DATA"} == set(bench.env)


def run(root, monkeypatch, work, arguments=()):
    """Exit status of a run of these checks, with a pytest that passes."""
    seen = []

    def pytest_stands_in(command, **options):
        seen.append(options["env"]["ARGUS_CHECKS"])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(checks, "steps", lambda *_: iter(work))
    monkeypatch.setattr(checks.subprocess, "run", pytest_stands_in)
    return checks.run_all(root, {"CXX": "c++"}, None, list(arguments)), seen


def test_a_failure_decides_the_status_and_later_checks_still_run(tmp_path, monkeypatch):
    """pytest runs last, passes, and is told what failed before it."""
    ran = []

    def failing():
        raise subprocess.CalledProcessError(1, "a")

    status, seen = run(tmp_path, monkeypatch, [("a", failing), ("b", lambda: ran.append("b"))])
    assert (1, ["b"]) == (status, ran)
    assert "a              FAILED" in seen[0] and "b              ok" in seen[0]


def test_one_check_alone(tmp_path, monkeypatch):
    ran = []
    work = [("a", lambda: ran.append("a")), ("b", lambda: ran.append("b"))]
    assert (0, []) == run(tmp_path, monkeypatch, work, ["--only", "b"])
    assert ["b"] == ran
    assert 2 == run(tmp_path, monkeypatch, work, ["--only", "c"])[0]


def test_without_a_model_checker_the_model_is_a_loud_notice(bench, capsys, monkeypatch):
    monkeypatch.setattr(checks, "HEADERS", ("/nonexistent",))
    assert "not run" == bench.check("cpp-model", lambda: checks.model(bench)).state
    assert "apt-get install relacy-dev" in capsys.readouterr().out
