"""The source `exits` on the running kernel: every exit is counted, and the time of the gone is not lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from argus.engine.host import Host

FIXTURES = Path(__file__).parents[2] / "fixtures"
TICK = os.sysconf("SC_CLK_TCK")
# Children with memory of their own to give back, that work for a fraction of a tick.
FORKS = """
import mmap, os, sys, time
while True:
    child = os.fork()
    if child == 0:
        memory = mmap.mmap(-1, 1 << 18)
        memory.write(bytes(1 << 18))
        end = time.thread_time_ns() + 300_000
        while time.thread_time_ns() < end:
            pass
        os._exit(0)
    os.waitpid(child, 0)
"""


@contextmanager
def fork_load() -> Iterator[None]:
    load = subprocess.Popen([sys.executable, "-c", FORKS])
    try:
        yield
    finally:
        load.kill()
        load.wait()


def watched(way: str = "") -> Host:
    """A host whose exits are seen; skips, with the reason, where they are not, or not this way."""
    host = Host()
    names = host.read().names
    for line in host.missing:
        if line.startswith("exits:"):
            pytest.skip(line)
    if way and f"argus.exits.way{{argus.way={way}}}" not in names:
        pytest.skip(f"exits are not seen by {way} here: it takes CAP_BPF, CAP_PERFMON, BTF and libbpf")
    return host


def live_s() -> float:
    """Processor time of all processes that are in the table, exact."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                total += time.clock_gettime(~int(entry.name) * 8 + 2)
            except OSError:
                continue  # it is gone
    return total


def busy_s() -> float:
    """What the processors were busy, by the kernel's own account."""
    user, nice, system, _, _, interrupt, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + interrupt + softirq) / TICK


def excess_s(host: Host) -> float:
    """Time of the living and the gone beyond what the machine was busy: the most of several looks.

    For some milliseconds after it was reaped a process is neither, which makes a look too small, never too large.
    """
    looks = []
    for _ in range(6):
        time.sleep(0.04)
        gone = sum(v for k, v in host.read().as_dict().items() if k.startswith("system.process.exited.cpu.time"))
        looks.append(gone + live_s() - busy_s())
    return max(looks)


def test_living_and_gone_add_up_to_the_machine() -> None:
    """Conservation: under a load that lives only between two looks, no more than a few per cent are missing."""
    host = watched("bpf")
    with fork_load():
        before, busy = excess_s(host), busy_s()
        time.sleep(3)
        excess, busy = excess_s(host) - before, busy_s() - busy
    assert busy > 1
    assert abs(excess) < 0.05 * busy, f"expected {busy:.2f} s of processor time, found {excess:+.2f} s"


def test_exits_are_counted_by_how_they_ended() -> None:
    """Ten of each, whichever way this machine allows."""
    host = watched()
    key = "system.process.exits{{process.exit.reason={}}}"
    before = host.read().as_dict()
    for script in ("exit 0", "exit 9", "kill -9 $$"):
        for _ in range(10):
            subprocess.run(["sh", "-c", script], check=False)
    after = host.read().as_dict()
    for reason in ("success", "failure", "signal"):
        assert after[key.format(reason)] >= before[key.format(reason)] + 10
    assert after["system.process.exits.short_lived"] >= before["system.process.exits.short_lived"] + 30
    assert 0 == after["argus.exits.lost"]


def test_another_machines_tree_says_nothing_of_exits() -> None:
    """The kernel that runs here is not the one of the files."""
    host = Host(proc=str(FIXTURES / "6.18/proc"), sys=str(FIXTURES / "6.18/sys"))
    assert not [name for name in host.read().names if "exits" in name]
    assert [line for line in host.missing if line.startswith("exits:") and "roots" in line]
