"""Collection once a second beside 1,000 idle processes, against the collectors that others run: netdata, node_exporter
(scraped once a second) and a loop over psutil. Numbers a second, and CPU time a second, of the process and all that it
started, as the kernel booked it. A peer that is not installed is left out (Debian: apt-get install netdata-core
prometheus-node-exporter).

    python bench/python/bench_peers.py --write    also puts the table into docs/host.md
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support import ROOT, Sleepers, clean_environment, figure, machine, write_between

_IDLE = 1000
_WARM_UP_S = 8.0
_MEASURED_S = 20.0
_NUMBERS_BAR = 20.0  # times more than netdata
_CPU_BARS = {"netdata": 50.0, "psutil": 100.0}  # times less

_PSUTIL = """
import psutil, time
fields = ["pid", "ppid", "name", "status", "cpu_times", "memory_info", "num_threads", "io_counters",
          "num_ctx_switches", "create_time"]
def count(value):
    if isinstance(value, dict): return sum(map(count, value.values()))
    if isinstance(value, (list, tuple)): return sum(map(count, value))
    return isinstance(value, (int, float))
due = time.monotonic()
while True:
    host = [psutil.cpu_times(percpu=True), psutil.cpu_stats(), psutil.virtual_memory(), psutil.swap_memory(),
            psutil.net_io_counters(pernic=True), psutil.disk_io_counters(perdisk=True), psutil.getloadavg()]
    numbers = count(host) + sum(count(process.info) for process in psutil.process_iter(fields))
    print(numbers, flush=True)
    due += 1
    time.sleep(max(0, due - time.monotonic()))
"""

_NETDATA = """
[global]
    run as user = root
    hostname = bench
[directories]
    cache = {folder}
    lib = {folder}
    log = {folder}
    config = {folder}
    registry = {folder}
[db]
    mode = ram
[web]
    bind to = 127.0.0.1:{port}
[health]
    enabled = no
[ml]
    enabled = no
[registry]
    enabled = no
[plugins]
    charts.d = no
    python.d = no
    go.d = no
    node.d = no
"""


class Cost(NamedTuple):
    """Of a collector in a second."""

    name: str
    version: str
    numbers: int
    cpu_s: float
    rss_mb: float


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _tree(root: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(parents.get(pid, []))
    return found


def _used(root: int) -> tuple[float, float]:
    """CPU seconds of a tree, with the ended children it has waited for, and its resident MB.

    Of live threads to the nanosecond (schedstat), of ended children in ticks (stat).
    """
    ran, ticks, pages = 0, 0, 0
    for pid in _tree(root):
        with contextlib.suppress(OSError):
            ran += sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
            fields = _fields(pid)
            ticks += sum(map(int, fields[13:15]))
            pages += int(fields[21])
    return ran / 1e9 + ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body.decode()


def _version(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
    return found[0] if found else "?"


def _measure(
    name: str,
    version: str,
    command: list[str],
    folder: Path,
    numbers: Callable[[Path], int],
    every: Callable[[], object],
) -> Cost:
    """Run a collector and look at it from outside; `every` is done once a second."""
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
            env=clean_environment(), start_new_session=True,
        )  # fmt: skip
    try:

        def wait(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(1.0, left))
                every()

        time.sleep(3)
        wait(_WARM_UP_S)
        if process.poll() is not None:
            raise RuntimeError(
                f"{name}: expected it to run, found exit status {process.returncode}: {said.read_text()}"
            )
        start, before = time.monotonic(), _used(process.pid)[0]
        wait(_MEASURED_S)
        after, rss = _used(process.pid)
        return Cost(name, version, numbers(said), (after - before) / (time.monotonic() - start), rss)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _last_number(said: Path) -> int:
    return int(said.read_text().split()[-1])


def _nothing() -> None:
    """A collector that needs no asking."""


def costs() -> Iterator[Cost]:
    """Argus first, then the peers that are installed."""
    sys.path.insert(0, str(ROOT / "bench"))
    import psutil

    import argus
    from run import build

    with tempfile.TemporaryDirectory() as name, Sleepers(_IDLE):
        folder = Path(name)
        ours = [str(build("bench_host_collection")), "--collect", "600"]
        yield _measure("Argus", argus.__version__, ours, folder, _last_number, _nothing)
        netdata = shutil.which("netdata")
        if netdata:
            port = _free_port()
            (folder / "netdata.conf").write_text(_NETDATA.format(folder=folder, port=port))

            def dimensions(_: Path) -> int:
                charts = json.loads(_fetch(f"http://127.0.0.1:{port}/api/v1/allmetrics?format=json"))
                return sum(len(chart["dimensions"]) for chart in charts.values())

            command = [netdata, "-D", "-c", str(folder / "netdata.conf")]
            yield _measure("netdata", _version([netdata, "-V"]), command, folder, dimensions, _nothing)
        exporter = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
        if exporter:
            url = f"127.0.0.1:{_free_port()}"

            def samples(_: Path) -> int:
                page = _fetch(f"http://{url}/metrics").splitlines()
                return sum(not line.startswith("#") for line in page)

            command = [exporter, f"--web.listen-address={url}"]
            scrape = lambda: _fetch(f"http://{url}/metrics")  # noqa: E731
            yield _measure("node_exporter", _version([exporter, "--version"]), command, folder, samples, scrape)
        yield _measure("psutil", psutil.__version__, [sys.executable, "-c", _PSUTIL], folder, _last_number, _nothing)


def figures() -> Iterator[dict[str, Any]]:
    """All figures of this file."""
    ours: Cost | None = None
    for cost in costs():
        if ours is None:
            ours = cost
            yield figure("host_peers/argus/numbers", cost.numbers, "a second")
            yield figure("host_peers/argus/cpu", cost.cpu_s * 100, "% of a core")
            continue
        cpu, numbers = cost.cpu_s / ours.cpu_s, ours.numbers / cost.numbers
        bar = _CPU_BARS.get(cost.name)
        yield figure(
            f"host_peers/{cost.name}/cpu", cost.cpu_s * 100, "% of a core",
            against=f"Argus {ours.cpu_s * 100:.2f} %", ratio=cpu, bar=bar, good=bar is None or cpu >= bar,
        )  # fmt: skip
        wanted = _NUMBERS_BAR if cost.name == "netdata" else None
        yield figure(
            f"host_peers/{cost.name}/numbers", cost.numbers, "a second",
            against=f"Argus {ours.numbers}", ratio=numbers, bar=wanted, good=wanted is None or numbers >= wanted,
        )  # fmt: skip


def table() -> str:
    """The table of the documentation."""
    found = list(costs())
    ours = found[0]
    lines = [
        f"*{machine()}; {_IDLE:,} idle processes, once a second, {_MEASURED_S:.0f} s; `python bench/python/bench_peers.py"
        " --write` makes this table anew.*",
        "",
        "| | numbers a second | CPU, % of a core | Argus uses less CPU, times | RSS, MB |",
        "|---|---|---|---|---|",
    ]
    for cost in found:
        times = "" if cost is ours else f"{cost.cpu_s / ours.cpu_s:.1f}"
        lines.append(
            f"| {cost.name} {cost.version} | {cost.numbers:,} | {cost.cpu_s * 100:.2f} | {times} | {cost.rss_mb:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table; with --write, keep it in the documentation."""
    text = table()
    print(text)
    if "--write" in sys.argv[1:]:
        write_between(ROOT / "docs" / "host.md", "peers", text)


if __name__ == "__main__":
    main()
