#!/usr/bin/env python3
"""Every benchmark, or those named, one line a figure; exit status 1 when a figure misses its bar.

    python bench/run.py [NAME ...] [--json] [--list]

NAME is a benchmark (host, daemon, bank, …; agent_* with a shell's wildcards) or the beginning of a figure's name
(process_table), for which every benchmark is run. `--json` prints an
object a line: {name, value, unit, against, ratio, bar, pass, machine}. The C++ ones are built into build/bench first.
The Python ones also run under pytest-benchmark: pytest bench/python --benchmark-only.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
TIMEOUT_S = 600
FIELDS = ("name", "value", "unit", "against", "ratio", "bar", "pass", "machine")


class BenchError(Exception):
    """A benchmark that could not be run."""


def build(name: str) -> Path:
    """The binary of a C++ benchmark, built when it is not up to date."""
    commands = [["cmake", "--build", str(BUILD), "--target", name]]
    if not (BUILD / "CMakeCache.txt").exists():
        options = ["-DARGUS_BENCH=ON", "-DCMAKE_BUILD_TYPE=Release"]
        commands.insert(0, ["cmake", "-S", str(ROOT), "-B", str(BUILD), *options])
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise BenchError(f"{name}: expected it to build, found:\n{done.stdout[-4000:]}")
    return BUILD / name


def cpp_figures(name: str) -> Iterator[dict[str, Any]]:
    """What a C++ benchmark prints: one JSON object a line; other lines are its remarks."""
    done = subprocess.run([str(build(name))], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    yield from found
    if done.returncode and all(item.get("pass", True) for item in found):
        raise BenchError(f"{name}: expected exit status 0, found {done.returncode}: {done.stderr[-400:].strip()}")


def python_figures(name: str) -> Iterator[dict[str, Any]]:
    """What a Python benchmark's figures() gives; one without is timed by pytest-benchmark alone, and has no bar."""
    module = importlib.import_module(name)
    if hasattr(module, "figures"):
        yield from module.figures()
    else:
        yield from harness_figures(name)


def harness_figures(name: str) -> Iterator[dict[str, Any]]:
    """The medians that pytest-benchmark takes of a module's tests, in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["-m", "pytest", "-q", "--benchmark-only", f"--benchmark-json={report}", f"bench/python/{name}.py"]
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            raise BenchError(f"{name}: expected its tests to pass, found:\n{done.stdout[-2000:]}")
        taken = json.loads(report.read_text())["benchmarks"]
    for item in taken:
        yield {
            "name": item["group"] or item["name"],
            "value": item["stats"]["median"] * 1e6,
            "unit": "us",
            "against": "",
            "ratio": None,
            "bar": None,
            "pass": True,
        }


def benchmarks(root: Path) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    """Every benchmark by its file's name, the C++ ones first."""
    found: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {}
    for path in sorted((root / "bench" / "cpp").glob("bench_*.cpp")):
        found[path.stem] = lambda name=path.stem: cpp_figures(name)  # type: ignore[misc]
    for path in sorted((root / "bench" / "python").glob("bench_*.py")):
        # A plane may have both: the Python one then measures through the bindings.
        key = f"{path.stem}.py" if path.stem in found else path.stem
        found[key] = lambda name=path.stem: python_figures(name)  # type: ignore[misc]
    return found


def short(benchmark: str) -> str:
    """What a benchmark is called on the command line."""
    return benchmark.removeprefix("bench_").removesuffix(".py")


def chosen(names: list[str], known: list[str]) -> list[str]:
    """The benchmarks that the names mean; a name of no file may be that of a figure, which only running can tell."""
    files = [key for key in known if any(fnmatch.fnmatchcase(short(key), name) for name in names)]
    others = [name for name in names if not any(fnmatch.fnmatchcase(short(key), name) for key in known)]
    return known if others or not names else files


def is_wanted(figure: str, benchmark: str, names: list[str]) -> bool:
    """Whether a figure was asked for, by its benchmark's name or the beginning of its own."""
    return not names or any(fnmatch.fnmatchcase(short(benchmark), name) or figure.startswith(name) for name in names)


def row(figure: dict[str, Any]) -> str:
    """A figure as a line of the table."""

    def number(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}"

    verdict = "ok" if figure["pass"] else "MISSED"
    return (
        f"{figure['name']:<36} {number(figure['value']):>10} {figure['unit']:<12} ratio {number(figure['ratio']):>7}  "
        f"bar {number(figure['bar']):>7}  {verdict:<6}  {figure['against']}"
    )


def run(names: list[str], *, as_json: bool) -> int:
    """Run and print; the number of figures and benchmarks that failed decides the exit status."""
    from support import machine

    where = machine()
    known = benchmarks(ROOT)
    failed = shown = 0
    if not as_json:
        print(where)
    for key in chosen(names, list(known)):
        try:
            for item in known[key]():
                if not is_wanted(item["name"], key, names):
                    continue
                complete = {field: {**item, "machine": where}.get(field) for field in FIELDS}
                failed += not complete["pass"]
                shown += 1
                print(json.dumps(complete) if as_json else row(complete), flush=True)
        except Exception as error:  # one that cannot run must not hide the others
            failed += 1
            print(f"{key}: could not run: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    if names and not shown and not failed:
        print(f"bench: expected figures for {' '.join(names)}, found none; known: {' '.join(known)}", file=sys.stderr)
        return 2
    return int(failed > 0)


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="one JSON object a figure")
    parser.add_argument("--list", action="store_true", help="names of the benchmarks")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "bench" / "python"))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if options.list:
        print("\n".join(benchmarks(ROOT)))
        return 0
    return run(options.names, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
