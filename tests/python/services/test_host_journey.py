"""From a read of the kernel's files to an anomaly on ZeroMQ: a real collector on a proc tree that changes under it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from argus.schema import Anomaly, Direction, Family, Severity
from argus.wire.zmq import Gap, subscribe

TOTAL_KB = 16_000_000
TICK_MS = 20


def meminfo(free_kb: int) -> bytes:
    """A whole meminfo of fixed length, so that it can be replaced in place by one write."""
    return (
        f"MemTotal:       {TOTAL_KB:10d} kB\nMemFree:        {free_kb:10d} kB\n"
        f"MemAvailable:   {free_kb:10d} kB\nBuffers:        {1000:10d} kB\nCached:         {2000:10d} kB\n"
    ).encode()


def test_memory_that_suddenly_goes_is_said_once_with_its_band_and_stops_nothing(tmp_path: Path):
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "meminfo").write_bytes(meminfo(8_000_000))
    (tmp_path / "argus.toml").write_text(
        f'[state]\nhome = "{tmp_path}/argus-data"\n[host]\nproc = "{proc}"\n'
        f"[engine]\ntick_ms = {TICK_MS}\n[sources.memory]\ninterval_ms = {TICK_MS}\n"
        "[processes]\nenabled = false\n[alarms]\nfalse_alarms_per_day = 100\n"
        f'[inlets]\npull = ""\nsub = []\nipc = ""\n'
        f'[outlets.zmq]\nendpoint = "ipc://{tmp_path}/out.sock"\nreplay_endpoint = "ipc://{tmp_path}/replay.sock"\n'
        "[outlets.prometheus]\nenabled = false\n"
    )
    noise = random.Random(5)
    command = [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "60s"]
    collector = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    descriptor = os.open(proc / "meminfo", os.O_WRONLY)
    try:
        while not (tmp_path / "out.sock").exists():
            assert collector.poll() is None, collector.communicate()[0]
            time.sleep(0.02)
        with subscribe(f"ipc://{tmp_path}/out.sock", ("v1.anomaly",), timeout_s=0.001) as published:
            fell = time.monotonic() + 12
            told: list[Anomaly] = []
            before: list[Anomaly] = []
            while time.monotonic() < fell + 8 and not told:
                low = time.monotonic() >= fell
                free = 1_000_000 if low else 8_000_000
                os.pwrite(descriptor, meminfo(free + noise.randrange(-80_000, 80_000)), 0)
                for record in published:
                    assert not isinstance(record, Gap)
                    assert isinstance(record, Anomaly)
                    (told if low else before).append(record)
                time.sleep(TICK_MS / 2000)
    finally:
        os.close(descriptor)
        collector.terminate()
        output = collector.communicate(timeout=15)[0]
    assert collector.returncode == 0, output
    assert before == []
    assert told, output
    anomaly = next(a for a in told if a.series.startswith("system.memory.usage"))
    assert (anomaly.family, anomaly.severity, anomaly.scope.kind) == (Family.HOST, Severity.INFO, "host")
    assert anomaly.direction in (Direction.DOWN, Direction.UP)
    assert anomaly.value is not None
    assert anomaly.lower is not None
    assert anomaly.upper is not None
    assert not anomaly.lower <= anomaly.value <= anomaly.upper
    assert anomaly.bits > 15
    assert not list((tmp_path / "control").rglob("*.flag"))
