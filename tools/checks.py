"""Every check of the project, in order, with a time each; pytest last, so that its summary closes the output.

Called by `python3 tools/up.py test`. A failing check never hides the ones after it; the exit status is that of all.
`--only NAME[,NAME]` runs some; other arguments go to pytest. ARGUS_FUZZ_SECONDS is shared by all fuzz targets.
Standard library only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

STEP_TIMEOUT_S = 900
FUZZ_SECONDS = 60
FUZZ_SECONDS_MAX = 180
HEADERS = ("/usr/include", "/usr/local/include")
SHOWN_LINES = 150
ASAN = "address,undefined"
ASAN_FOLDER = "asan"
KEPT_VARIABLES = ("ARGUS_DATA", "ARGUS_REQUIRE_DATA", "ARGUS_FUZZ_SECONDS")


class Outcome(NamedTuple):
    """What became of a check; `state` is ok, FAILED or not run."""

    name: str
    state: str
    seconds: float
    note: str = ""

    def __str__(self) -> str:
        note = f"  {self.note}" if self.note else ""
        return f"{self.name:<14} {self.state:<8} {self.seconds:6.1f} s{note}"


class NotRun(Exception):
    """A check that this machine cannot run; the message says why and what would change it."""


class Bench:
    """Runs the commands of the checks: output goes to build/logs/<name>.log and is shown when one fails."""

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        self.root = root
        self.env = {k: v for k, v in env.items() if not k.startswith("ARGUS_") or k in KEPT_VARIABLES}
        self.logs = root / "build" / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.log = self.logs / "log"

    def command(self, command: Sequence[str | Path], **extra: str) -> None:
        """Run one command; raises CalledProcessError or TimeoutExpired, with everything it started gone."""
        self.side_by_side([command], **extra)

    def side_by_side(self, commands: Sequence[Sequence[str | Path]], **extra: str) -> None:
        """Run commands at once, their output one after the other in the log; raises as `command` does."""
        logs = [self.log.with_suffix(f".{number}") for number in range(len(commands))]
        running: list[subprocess.Popen[bytes]] = []
        deadline = time.monotonic() + STEP_TIMEOUT_S
        try:
            for command, path in zip(commands, logs, strict=True):
                with path.open("wb") as log:
                    log.write(f"$ {' '.join(map(str, command))}\n".encode())
                    log.flush()
                    running.append(
                        subprocess.Popen(
                            command,
                            cwd=self.root,
                            env={**self.env, **extra},
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
            statuses = [process.wait(max(0.0, deadline - time.monotonic())) for process in running]
        except BaseException:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            raise
        finally:
            with self.log.open("ab") as whole:
                for path in logs:
                    if path.exists():
                        whole.write(path.read_bytes())
                        path.unlink()
        for status, command in zip(statuses, commands, strict=True):
            if status:
                raise subprocess.CalledProcessError(status, list(map(str, command)))

    def check(self, name: str, work: Callable[[], str | None]) -> Outcome:
        """Run one check and say at once how it went."""
        self.log = self.logs / f"{name}.log"
        self.log.unlink(missing_ok=True)
        print(f"== {name}", flush=True)
        start = time.monotonic()
        state, note = "ok", ""
        try:
            note = work() or ""
        except NotRun as reason:
            state, note = "not run", str(reason)
            print(f"NOTICE: {name} was not run: {reason}", flush=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
            state, note = "FAILED", f"{error}"[:200]
            lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
            print("\n".join(lines[-SHOWN_LINES:]))
        outcome = Outcome(name, state, time.monotonic() - start, note)
        print(f"   {outcome.state} in {outcome.seconds:.1f} s", flush=True)
        return outcome


def cpp_tests(bench: Bench, folder: str, cxx: str, sanitize: str) -> str:
    """Build the C++ tests into build/<folder> and run them; the answer is their own last line."""
    build = bench.root / "build" / folder
    options = ["-DARGUS_TESTS=ON", f"-DARGUS_SANITIZE={sanitize}", f"-DCMAKE_CXX_COMPILER={cxx}"]
    bench.command(["cmake", "-S", bench.root, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options])
    bench.command(["cmake", "--build", build, "--target", "argus_tests"])
    runtime = {
        "ASAN_OPTIONS": "strict_string_checks=1:detect_stack_use_after_return=1:check_initialization_order=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
    }
    # The thread sanitizer's shadow does not fit every address-space layout that a newer kernel randomises to.
    fixed = ["setarch", "-R"] if sanitize == "thread" and _can_fix_layout() else []
    cases = _count_cases([*fixed, build / "argus_tests"], {**bench.env, **runtime})
    ranges = _ranges(cases, os.cpu_count() or 1)
    bench.side_by_side(
        [[*fixed, build / "argus_tests", f"--first={first}", f"--last={last}"] for first, last in ranges], **runtime
    )
    return f"{cases} cases passed"


def _count_cases(command: Sequence[str | Path], env: Mapping[str, str]) -> int:
    told = subprocess.run([*command, "--count"], env=env, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"current filters: (\d+)", told)
    if found is None:
        raise OSError(f"{command[-1]} --count: expected a number of test cases, found {told[-200:]!r}")
    return int(found[1])


def _ranges(cases: int, parts: int) -> list[tuple[int, int]]:
    """First and last number of each part of 1 to `cases`, as equal as can be."""
    ends = [cases * part // parts for part in range(parts + 1)]
    return [(first + 1, last) for first, last in itertools.pairwise(ends) if last > first]


def model(bench: Bench) -> str:
    """Every interleaving of the lock-free buffers that a model checker reaches; see tests/model."""
    if not any(Path(folder, "relacy/relacy.hpp").exists() for folder in HEADERS):
        raise NotRun("no Relacy here (apt-get install relacy-dev)")
    build = bench.root / "build" / "model"
    build.mkdir(parents=True, exist_ok=True)
    source = bench.root / "tests/model/model_rings.cpp"
    binary = build / "model_rings"
    flags = ["-std=c++20", "-O0", "-w", f"-I{bench.root / 'cpp'}", "-pthread"]
    bench.command([*bench.env["CXX"].split(), *flags, source, "-o", binary])
    bench.command([binary])
    lines = bench.log.read_text(errors="replace").splitlines()
    return f"{sum(line.endswith(': holds') for line in lines)} structures hold"


def _can_fix_layout() -> bool:
    try:
        return subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def fuzz(bench: Bench, clang: str | None) -> str:
    """Every fuzz target for its share of the time, from its seeds and what earlier runs found worth keeping."""
    targets = sorted(path.stem for path in (bench.root / "tests" / "fuzz").glob("fuzz_*.cpp"))
    if not targets:
        raise NotRun("tests/fuzz holds no target")
    if clang is None:
        raise NotRun("no clang++ with libFuzzer here (apt-get install clang libclang-rt-<version>-dev)")
    build = bench.root / "build" / ASAN_FOLDER
    options = ["-DARGUS_FUZZ=ON", f"-DARGUS_SANITIZE={ASAN}", f"-DCMAKE_CXX_COMPILER={clang}"]
    bench.command(["cmake", "-S", bench.root, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options])
    bench.command(["cmake", "--build", build, "--target", *targets])
    asked = bench.env.get("ARGUS_FUZZ_SECONDS", "")
    total = min(int(asked) if asked.isdigit() else FUZZ_SECONDS, FUZZ_SECONDS_MAX)
    share = max(1, total // len(targets))
    for target in targets:
        corpus = build / "corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        seeds = [folder for folder in (bench.root / "tests" / "fuzz" / "corpus" / target,) if folder.is_dir()]
        limits = [f"-max_total_time={share}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
        bench.command([build / target, *limits, f"-artifact_prefix={build}/{target}-", corpus, *seeds])
    return f"{len(targets)} targets, {share} s each"


def steps(bench: Bench, clang: str | None) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Name and work of every check but pytest."""
    python = bench.root / ".venv/bin/python"

    def tool(*arguments: str) -> Callable[[], None]:
        return lambda: bench.command([python, *arguments])

    yield "ruff", tool("-m", "ruff", "check", ".")
    yield "format", tool("-m", "ruff", "format", "--check", ".")
    yield "mypy", tool("-m", "mypy")
    yield "layers", tool("tools/check_layers.py")
    cxx = bench.env["CXX"]
    # Most of a check is compiling: the first shares its library with the Python module, the second with the fuzzers.
    yield "cpp", lambda: cpp_tests(bench, "python", cxx, "")
    yield "cpp-asan-ubsan", lambda: cpp_tests(bench, ASAN_FOLDER, clang or cxx, ASAN)
    yield "cpp-tsan", lambda: cpp_tests(bench, "tsan", cxx, "thread")
    yield "cpp-model", lambda: model(bench)
    yield "fuzz", lambda: fuzz(bench, clang)


def run_all(root: Path, env: Mapping[str, str], clang: str | None, arguments: Sequence[str]) -> int:
    """Run the checks, then pytest; the exit status is 0 when all of them passed."""
    rest = list(arguments)
    only: set[str] = set()
    if "--only" in rest:
        at = rest.index("--only")
        only = set("".join(rest[at + 1 : at + 2]).split(","))
        del rest[at : at + 2]
    bench = Bench(root, env)
    work = list(steps(bench, clang))
    unknown = only - {name for name, _ in work} - {"pytest"}
    if unknown:
        names = ", ".join([*(name for name, _ in work), "pytest"])
        print(f"up: --only: expected some of {names}, found {', '.join(sorted(unknown))}; nothing run", file=sys.stderr)
        return 2
    outcomes = [bench.check(name, check) for name, check in work if not only or name in only]
    failed = any(outcome.state == "FAILED" for outcome in outcomes)
    if outcomes:
        print("\n== checks\n" + "\n".join(map(str, outcomes)), flush=True)
    if only and "pytest" not in only:
        return int(failed)
    print("\n== pytest", flush=True)
    # The tests repeat the outcomes above their own last line, so that nobody mistakes their success for that of all.
    summary = "\n".join(map(str, outcomes))
    command = [str(root / ".venv/bin/python"), "-m", "pytest", "-ra", *rest]
    done = subprocess.run(command, cwd=root, env={**bench.env, "ARGUS_CHECKS": summary})
    return done.returncode or int(failed)
