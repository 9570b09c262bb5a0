"""The agent plane: events per second through decode, ledger and auditors; from the bus to a visible flag.

The latency figure drives a real collector over its real bus at 5,000 events a second of other sessions' traffic while one
session after another crosses its cap; it is read from the journal (flag linked, wall clock) minus the crossing event's ts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import recordings
import zmq
from recordings import Event
from support import figure

import argus
from argus import guard
from argus.record.journal import read

_RUNS = 10
_SESSIONS = 200
_BACKGROUND_PER_S = 5000
_BATCH = 10


def _events() -> list[Event]:
    return [{k: v for k, v in event.items() if k != "text"} for event in recordings.events("agentdojo")]


def _batches(events: list[Event], run: int) -> list[bytes]:
    fresh = [
        {
            **e,
            "id": f"{run}-{e['id']}",
            "source": f"bench-{run}",
            "session": f"{run}/{e['session']}",
            "task": f"{run}/{e['task']}",
        }
        for e in events
    ]
    return [msgpack.packb(fresh[i : i + 256]) for i in range(0, len(fresh), 256)]


def ingest_rate() -> float:
    """Events per second and core through Engine.ingest, batches of 256, all auditors on."""
    events = _events()
    engine = argus.Engine(host_plane=False)
    spent = 0.0
    for run in range(_RUNS):
        batches = _batches(events, run)
        started = time.process_time()
        accepted = sum(engine.ingest(batch).accepted for batch in batches)
        spent += time.process_time() - started
        assert accepted == len(events)
    return _RUNS * len(events) / spent


def unpack_rate() -> float:
    """The peer: msgpack's own C decoder over the same batches, decoding only."""
    events = _events()
    batches = _batches(events, 0)
    started = time.process_time()
    for _ in range(_RUNS):
        for batch in batches:
            msgpack.unpackb(batch)
    return _RUNS * len(events) / (time.process_time() - started)


def flag_latency() -> tuple[float, float, int]:
    """(p50 ms, p99 ms, flags) from the crossing event's ts to its linked flag, under background traffic."""
    with tempfile.TemporaryDirectory(prefix="argus-bench-") as name:
        folder = Path(name)
        (folder / "argus.toml").write_text(
            f'[state]\nhome = "{folder}/argus-data"\n[budgets]\nsession_usd = "1"\n'
            f'[inlets]\npull = "ipc://{folder}/pull.sock"\nsub = []\nipc = ""\n'
            f'[outlets.zmq]\nendpoint = "ipc://{folder}/out.sock"\nreplay_endpoint = "ipc://{folder}/replay.sock"\n'
            "[outlets.prometheus]\nenabled = false\n"
        )
        with (folder / "collect.log").open("w") as log:
            collector = subprocess.Popen(
                [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml"],
                cwd=folder,
                stdout=log,
                stderr=log,
            )
            try:
                _drive(folder)
            finally:
                collector.terminate()
                collector.wait(20)
        stops = [r.payload for r in read(folder / "argus-data" / "journal.db", kind="stop")]
    delays = sorted((s["linked_ns"] - s["event_ts"]) / 1e6 for s in stops if s["kind"] == "hard_kill")
    return statistics.median(delays), delays[int(len(delays) * 0.99)], len(delays)


def _drive(folder: Path) -> None:
    while not (folder / "control" / "epoch").exists():
        time.sleep(0.05)
    sessions = [f"s{i}" for i in range(_SESSIONS)]
    with guard.Guard(folder / "control", scopes=[f"session:{s}" for s in sessions]):
        time.sleep(2.5)  # the collector looks for announced guards once a tick
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.connect(f"ipc://{folder}/pull.sock")
        seq = 0

        def event(**fields: Any) -> dict[str, Any]:
            nonlocal seq
            seq += 1
            return {"v": 1, "id": f"b{seq}", "ts": time.time_ns(), "source": "bench", "seq": seq, **fields}

        turn_s = _BATCH / _BACKGROUND_PER_S
        turns = int(_SESSIONS * 0.05 / turn_s)
        every = turns // _SESSIONS
        next_turn = time.monotonic()
        for turn in range(turns):
            batch = [
                event(type="tool_called", session="busy", tool=f"t{seq % 7}", args_hash=f"{seq:x}", result_hash="0")
                for _ in range(_BATCH)
            ]
            if turn % every == every - 1:
                batch.append(
                    event(type="token_cost_logged", session=sessions[turn // every], model="m", cost_nusd=2_000_000_000)
                )
            socket.send(msgpack.packb(batch))
            next_turn += turn_s
            time.sleep(max(0.0, next_turn - time.monotonic()))
        time.sleep(1.0)
        context.destroy(linger=1000)


def figures() -> Iterator[dict[str, Any]]:
    """Figures with their bars."""
    rate, peer = ingest_rate(), unpack_rate()
    yield figure(
        "agent_ingest",
        rate,
        "events/s",
        against=f"msgpack.unpackb alone: {peer:,.0f} events/s",
        ratio=rate / peer,
        bar=200_000,
        good=rate >= 200_000,
    )
    p50, p99, flags = flag_latency()
    against = f"{flags} of {_SESSIONS} flags at {_BACKGROUND_PER_S} events/s"
    whole = flags == _SESSIONS
    yield figure("bus_to_flag_p50", p50, "ms", against=against, bar=2.0, good=p50 <= 2.0 and whole)
    yield figure("bus_to_flag_p99", p99, "ms", against=against, bar=20.0, good=p99 <= 20.0 and whole)


def test_ingest(benchmark: Any) -> None:
    """pytest-benchmark: one pass of agentdojo through a fresh engine."""
    batches = _batches(_events(), 0)

    def run() -> int:
        engine = argus.Engine(host_plane=False)
        return sum(engine.ingest(batch).accepted for batch in batches)

    assert benchmark(run) > 0
