"""Reading the machine against psutil's calls for the same facts: cost a value, and the table of 1,000 idle processes.

Both sides are measured in the same run, as CPU time of this process. Before timing, the answers are compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from support import Sleepers, figure, median_cpu_s

import argus

_IDLE = 1000
_HOST_BAR = 4.0  # times cheaper than psutil, a value
_TABLE_BARS = {"tree": 2.0, "gated": 15.0, "taskstats": 15.0, "bpf": 150.0}  # times cheaper than psutil, by tier
_COLUMNS_RATIO, _COLUMNS_US = 1.3, 20.0  # of the scan, and on top
_FIELDS = [
    "pid",
    "ppid",
    "name",
    "status",
    "cpu_times",
    "memory_info",
    "num_threads",
    "io_counters",
    "num_ctx_switches",
    "create_time",
]


def _peer() -> list[Any]:
    """The same facts from psutil."""
    return [
        psutil.cpu_times(percpu=True),
        psutil.cpu_stats(),
        psutil.virtual_memory(),
        psutil.swap_memory(),
        psutil.net_io_counters(pernic=True),
        psutil.getloadavg(),
    ]


def _count(value: Any) -> int:
    """Numbers in a nested answer."""
    if isinstance(value, dict):
        return sum(_count(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_count(item) for item in value)
    return 1


def _host() -> Iterator[dict[str, Any]]:
    host = argus.Host()
    sample = host.read()
    limit = dict(zip(sample.names, sample.values.tolist(), strict=True))["system.memory.limit"]
    if limit != psutil.virtual_memory().total:
        raise AssertionError(f"host_read: expected {psutil.virtual_memory().total} bytes of memory, found {limit}")
    values, their_values = len(sample.values), _count(_peer())
    ours, theirs = median_cpu_s(host.read, 101), median_cpu_s(_peer, 31)
    ratio = (theirs / their_values) / (ours / values)
    yield figure("host_read/call", ours * 1e6, "us", against=f"psutil {theirs * 1e6:.0f} us", ratio=theirs / ours)
    yield figure(
        f"host_read/value/{values}",
        ours / values * 1e9,
        "ns",
        against=f"psutil {theirs / their_values * 1e9:.0f} ns, {their_values} values",
        ratio=ratio,
        bar=_HOST_BAR,
        good=ratio >= _HOST_BAR and values >= their_values,
    )


def _processes() -> Iterator[dict[str, Any]]:
    with Sleepers(_IDLE):
        table = argus.Processes()
        columns = table.read()
        pids = set(columns["pid"].tolist())
        unseen = {pid for pid in psutil.pids() if pid not in pids and psutil.pid_exists(pid)}
        rows = len(pids)
        if len(unseen) > rows // 100 or rows < _IDLE:
            raise AssertionError(
                f"process_table: expected psutil's pids, found {rows} rows without {sorted(unseen)[:5]}"
            )
        theirs = median_cpu_s(lambda: list(psutil.process_iter(_FIELDS)), 3)
        for tier in (found.name for found in table.tiers if found.available):
            ratio = theirs / (ours := median_cpu_s(argus.Processes(tier=tier).read, 15))
            yield figure(
                f"process_table/{tier}/{rows}",
                ours / rows * 1e9,
                "ns/process",
                against=f"psutil {theirs / rows * 1e9:.0f} ns for {len(_FIELDS)} fields",
                ratio=ratio,
                bar=_TABLE_BARS[tier],
                good=ratio >= _TABLE_BARS[tier] and len(columns) >= 15,
            )
        yield _columns(rows)


def _columns(rows: int) -> dict[str, Any]:
    """A read against the scan in it, taken in turns: what the arrays cost."""
    table = argus.Processes()
    scan = table._core.scan
    found = table.read()
    reads, scans = [], []
    for _ in range(201):
        start = time.thread_time_ns()
        found = table.read()
        middle = time.thread_time_ns()
        scan()
        scans.append(time.thread_time_ns() - middle)
        reads.append(middle - start)
    if len(found["pid"]) < rows // 2:
        raise AssertionError(f"process_table/columns: expected {rows} rows, found {len(found['pid'])}")
    read_us, scan_us = statistics.median(reads) / 1e3, statistics.median(scans) / 1e3
    return figure(
        f"process_table/columns/{rows}",
        read_us,
        "us",
        against=f"the scan alone {scan_us:.0f} us",
        ratio=read_us / scan_us,
        bar=_COLUMNS_RATIO * scan_us + _COLUMNS_US,
        good=read_us <= _COLUMNS_RATIO * scan_us + _COLUMNS_US,
    )


def figures() -> Iterator[dict[str, Any]]:
    """All figures of this file."""
    yield from _host()
    yield from _processes()


def test_host_read(benchmark: Any) -> None:
    """One read of all host sources."""
    host = argus.Host()
    assert len(benchmark(host.read).values) > 0


@pytest.mark.parametrize("idle", [0, _IDLE])
def test_process_table(benchmark: Any, idle: int) -> None:
    """One read of the whole table, without and with idle processes."""
    with Sleepers(idle):
        table = argus.Processes()
        assert len(benchmark(table.read)["pid"]) > idle
