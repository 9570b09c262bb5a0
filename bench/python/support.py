"""What the benchmarks share: the shape of a figure, CPU time of a call, idle processes, the machine's name, tables of pages."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_SLEEPERS = """
import os, signal, sys
pids = [os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "600"]) for _ in range(int(sys.argv[1]))]
print("up", flush=True)
sys.stdin.read()
for pid in pids:
    os.kill(pid, signal.SIGKILL)
for pid in pids:
    os.waitpid(pid, 0)
"""


def figure(
    name: str,
    value: float,
    unit: str,
    *,
    against: str = "",
    ratio: float | None = None,
    bar: float | None = None,
    good: bool = True,
) -> dict[str, Any]:
    """One line of the output; `ratio` compares with `against` measured in the same run, `bar` is the promise."""
    return {"name": name, "value": value, "unit": unit, "against": against, "ratio": ratio, "bar": bar, "pass": good}


def median_cpu_s(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of one call by this process, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def machine() -> str:
    """Processor, cores that may be used, memory and kernel of this machine."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    gib = int(memory[1]) / 2**20 if memory else 0.0
    cores = len(os.sched_getaffinity(0))
    name = model[1].strip() if model else platform.machine()
    return f"{name}, {cores} cores, {gib:.0f} GiB, Linux {platform.release()}"


def write_between(page: Path, name: str, text: str) -> None:
    """Put `text` between the comments <!-- name --> and <!-- /name --> of a page; SystemExit where it lacks them."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page}: expected {begin.strip()} and {end}, found no such pair; nothing written")
    page.write_text(f"{before}{begin}{text}\n{end}{after}")


def clean_environment() -> dict[str, str]:
    """The environment without settings of a surrounding Argus."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ARGUS_")}


class Sleepers:
    """`count` idle processes, gone at the end also when this process dies: their parent ends with its input."""

    def __init__(self, count: int) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-c", _SLEEPERS, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Sleepers:
        assert self.parent.stdout is not None
        if self.parent.stdout.readline() != "up\n":
            raise RuntimeError("sleepers: expected them to start, found that their parent ended")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.parent.communicate()
