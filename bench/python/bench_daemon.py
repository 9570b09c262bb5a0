"""The whole daemon beside 1,000 idle processes at 1 Hz: its share of a core, and its memory.

A real argus-collect with embedded defaults in an empty folder. CPU time is what the kernel booked for the process and
the children it has waited for (/proc/PID/stat), after a warm-up in which it starts, opens its files and fills caches.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import Sleepers, clean_environment, figure

_IDLE = 1000
_WARM_UP_S = 6.0
_MEASURED_S = 20.0
_START_S = 30.0
_CPU_BAR = 1.0  # % of one core
_RSS_BAR = 120.0  # MB


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process, its threads and the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def _await_start(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until the epoch word exists: the collector owns its control directory."""
    deadline = time.monotonic() + _START_S
    while not (folder / "control" / "epoch").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "log").read_text(errors="replace")[-2000:]
            raise RuntimeError(
                f"argus-collect: expected control/epoch within {_START_S:.0f} s, found none; it said:\n{said}"
            )
        time.sleep(0.1)


def measure() -> tuple[float, float]:
    """CPU share in % of one core, and resident memory in MB."""
    command = [str(Path(sys.executable).parent / "argus-collect"), "--for", f"{_WARM_UP_S + _MEASURED_S + 60:.0f}s"]
    with tempfile.TemporaryDirectory() as name, Sleepers(_IDLE):
        folder = Path(name)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=log, stderr=log)
        try:
            _await_start(process, folder)
            time.sleep(_WARM_UP_S)
            start, before = time.monotonic(), _cpu_s(process.pid)
            time.sleep(_MEASURED_S)
            share = 100 * (_cpu_s(process.pid) - before) / (time.monotonic() - start)
            rss = _rss_mb(process.pid)
            if process.poll() is not None:
                raise RuntimeError(f"argus-collect: expected it to run on, found exit status {process.returncode}")
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return share, rss


def figures() -> Iterator[dict[str, Any]]:
    """All figures of this file."""
    share, rss = measure()
    yield figure(f"daemon/cpu/{_IDLE}", share, "% of a core", bar=_CPU_BAR, good=share <= _CPU_BAR)
    yield figure(f"daemon/rss/{_IDLE}", rss, "MB", bar=_RSS_BAR, good=rss <= _RSS_BAR)
