"""Wire: what an agent pays for one event, frames through the bus, JSON lines. Run: pytest bench/python/bench_wire.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from argus.schema import Anomaly, Family, Scope, ScopeKind, Severity
from argus.wire import jsonl
from argus.wire.emitter import Emitter
from argus.wire.zmq import EventInlet, Publisher, subscribe


@pytest.fixture
def inlet(tmp_path: Path) -> Iterator[EventInlet]:
    with EventInlet((f"ipc://{tmp_path}/run/events.sock",), queue_limit=1_000_000) as opened:
        yield opened


def drain(inlet: EventInlet, count: int) -> int:
    taken = 0
    while taken < count and inlet.wait(5000):
        taken += len(inlet.drain(1024))
    return taken


@pytest.mark.parametrize("batch", [1, 64])
def test_emit(benchmark: Any, inlet: EventInlet, batch: int) -> None:
    """emit/<batch>: one tool_called with a collector connected; the bar is 15 us."""
    with Emitter(inlet.endpoints[0], queue_limit=1_000_000, batch=batch, session="s", agent="a") as emitter:
        emitter.emit("heartbeat")
        emitter.flush()
        assert drain(inlet, 1) == 1
        fields = {"task": "t1", "tool": "search", "args_hash": "aa", "result_hash": "bb", "ok": True}
        benchmark.group = f"emit/batch/{batch}"
        benchmark.pedantic(emitter.emit, args=("tool_called",), kwargs=fields, rounds=100, iterations=200)
        emitter.flush()
        assert emitter.dropped == 0
        assert drain(inlet, emitter.sent // batch - 1) >= emitter.sent // batch - 1


@pytest.mark.benchmark(group="publish/anomalies/64")
def test_publish(benchmark: Any, tmp_path: Path) -> None:
    """64 anomalies published and read back, over ipc."""
    endpoint = f"ipc://{tmp_path}/run/out.sock"
    batch = [
        Anomaly(
            id=f"a{i}", ts=i, host="h", family=Family.HOST, detector="d", scope=Scope(ScopeKind.HOST, "h"), series="x",
            severity=Severity.INFO, message="m" * 80,
        )
        for i in range(64)
    ]  # fmt: skip
    with Publisher(endpoint, host="h") as publisher, subscribe(endpoint, timeout_s=10) as subscription:
        while not subscription._socket.poll(10):
            publisher.heartbeat()

        def round_trip() -> list[Any]:
            publisher.publish(batch)
            return [next(subscription) for _ in batch]

        assert round_trip() == batch
        benchmark.pedantic(round_trip, rounds=100, warmup_rounds=5)
        assert subscription.lost == 0


@pytest.mark.benchmark(group="jsonl_frames/events/10000")
def test_jsonl_frames(benchmark: Any, tmp_path: Path) -> None:
    """10,000 events of about 250 bytes from a plain file into frames."""
    events = [
        {"v": 1, "id": f"e{i}", "type": "tool_called", "ts": 1_700_000_000_000_000_000 + i, "source": "s:1", "seq": i,
         "tool": "search", "args_hash": "ab" * 16, "task": f"task-{i % 50}", "attrs": {"n": i}}
        for i in range(10_000)
    ]  # fmt: skip
    path = tmp_path / "events.ndjson"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    found = benchmark.pedantic(lambda: list(jsonl.frames(path)), rounds=10, warmup_rounds=1)
    assert [event for frame in found for event in msgpack.unpackb(frame.data)] == events
    benchmark.extra_info["events_per_s"] = len(events) / benchmark.stats.stats.median
