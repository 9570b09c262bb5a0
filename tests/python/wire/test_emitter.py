"""The agents' side: never in the way, every event numbered, loss counted, impossible fields refused."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from argus.errors import RefusedError, UsageError
from argus.wire.emitter import _TEXT, _WHOLE, Emitter, canonical_hash
from argus.wire.zmq import EventInlet


class Collector:
    """A PULL socket that gives back events."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder / 'run' / 'events.sock'}"
        self.inlet = EventInlet((self.endpoint,))
        self.frames = 0

    def take(self, count: int, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """`count` events, or what came within the time."""
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + timeout_s
        while len(found) < count and time.monotonic() < deadline:
            self.inlet.wait(50)
            for frame in self.inlet.drain(1024):
                self.frames += 1
                content = msgpack.unpackb(frame.data)
                found.extend(content if isinstance(content, list) else [content])
        return found


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    opened = Collector(tmp_path)
    yield opened
    opened.inlet.close()


def test_event_carries_identity_order_and_time(collector: Collector) -> None:
    before = time.time_ns()
    with Emitter(collector.endpoint, session="s", tenant="t", agent="a") as emitter:
        assert emitter.emit("task_started", task="1")
        assert emitter.emit("task_completed", task="1", ok=True, session="other", colour="red", n=3)
    first, second = collector.take(2)
    assert first["v"] == 1 and first["type"] == "task_started" and first["task"] == "1"
    assert (first["tenant"], first["session"], first["agent"]) == ("t", "s", "a")
    assert (first["seq"], second["seq"]) == (1, 2)
    assert before <= first["ts"] <= second["ts"] and first["mono"] <= second["mono"]
    assert first["id"] != second["id"] and len(first["id"]) <= 64
    assert first["source"].split(":")[1] == str(os.getpid()) and first["boot"] == second["boot"]
    assert second["session"] == "other" and second["attrs"] == {"colour": "red", "n": 3}
    assert (emitter.sent, emitter.dropped) == (2, 0)


def test_defaults_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGUS_EVENTS", "ipc:///nowhere/events.sock")
    monkeypatch.setenv("ARGUS_SESSION", "from-the-environment")
    with Emitter(linger_s=0) as emitter:
        assert emitter.endpoint == "ipc:///nowhere/events.sock"
        assert emitter._scope == {"session": "from-the-environment"}
    monkeypatch.delenv("ARGUS_EVENTS")
    monkeypatch.delenv("ARGUS_SESSION")
    with Emitter(linger_s=0) as emitter:
        assert emitter.endpoint == "tcp://127.0.0.1:6160" and emitter._scope == {}


def test_missing_collector_costs_nothing_but_counted_drops(tmp_path: Path) -> None:
    emitter = Emitter(f"ipc://{tmp_path}/nobody.sock", queue_limit=50, linger_s=0.05)
    results = [emitter.emit("heartbeat") for _ in range(200)]
    assert results[0] and not results[-1]
    assert emitter.sent == sum(results) and emitter.dropped == 200 - sum(results)
    assert 50 <= emitter.sent <= 60
    start = time.monotonic()
    emitter.close()
    assert time.monotonic() - start < 5
    assert not emitter.emit("heartbeat")
    assert emitter.dropped == 201 - sum(results)


def test_drops_show_as_holes_in_seq(tmp_path: Path) -> None:
    emitter = Emitter(f"ipc://{tmp_path / 'run' / 'events.sock'}", queue_limit=10, linger_s=5)
    for _ in range(100):
        emitter.emit("heartbeat")
    kept = emitter.sent
    collector = Collector(tmp_path)
    try:
        early = collector.take(kept)
        assert [event["seq"] for event in early] == list(range(1, kept + 1))
        assert emitter.emit("heartbeat")
        (late,) = collector.take(1)
        assert late["seq"] == 101
        emitter.close()
    finally:
        collector.inlet.close()


@pytest.mark.parametrize(
    ("type_name", "fields", "match"),
    [
        ("", {}, "type of 1 to 48"), ("x" * 49, {}, "type of 1 to 48"), ("é" * 25, {}, "type of 1 to 48"),
        ("\ud800", {}, "UTF-8"),
        ("task_started", {}, "expected task="), ("tool_called", {"task": "t"}, "expected tool="),
        ("file_written", {}, "expected path="),
        ("token_cost_logged", {"model": "m"}, "cost_nusd or a number of tokens"),
        ("heartbeat", {"seq": 1}, "the emitter sets it"), ("heartbeat", {"v": 2}, "the emitter sets it"),
        ("heartbeat", {"task": 1}, "task: expected text"),
        ("heartbeat", {"task": "x" * 129}, "at most 128 bytes, found 129"),
        ("heartbeat", {"task": "é" * 65}, "at most 128 bytes, found 130"),
        ("heartbeat", {"text": "x" * 16_385}, "16384"),
        ("heartbeat", {"task": "\ud800"}, "UTF-8"), ("heartbeat", {"input_tokens": -1}, "whole number"),
        ("heartbeat", {"input_tokens": 1.0}, "whole number"), ("heartbeat", {"input_tokens": True}, "whole number"),
        ("heartbeat", {"duration_ns": 1 << 63}, "whole number"), ("heartbeat", {"cost_nusd": 0.5}, "nano-USD"),
        ("heartbeat", {"ok": 1}, "True or False"), ("heartbeat", {"score": float("nan")}, "finite"),
        ("heartbeat", {"entities": "abc"}, "list"), ("heartbeat", {"entities": ["x"] * 33}, "at most 32"),
        ("heartbeat", {"attrs": {"a": [1]}}, "attrs.a"), ("heartbeat", {"other": object()}, "attrs.other"),
        ("heartbeat", {"other": float("inf")}, "finite"), ("heartbeat", {"other": 1 << 64}, "64 bits"),
        ("heartbeat", {"attrs": {str(i): i for i in range(33)}}, "at most 32 entries, found 33"),
        ("heartbeat", {"attrs": 3}, "map of scalars"), ("heartbeat", {"attrs": {"k": "x" * 513}}, "512"),
        ("heartbeat", {"attrs": {1: 2}}, "expected text"), ("heartbeat", {"x" * 65: 1}, "at most 64 bytes"),
    ],
)  # fmt: skip
def test_impossible_fields_are_refused_and_use_no_number(
    collector: Collector, type_name: str, fields: dict[Any, Any], match: str
) -> None:
    with Emitter(collector.endpoint) as emitter:
        with pytest.raises(UsageError, match=match):
            emitter.emit(type_name, **fields)
        emitter.emit("heartbeat", absent=None, task=None)
    (event,) = collector.take(1)
    assert event["seq"] == 1 and "task" not in event and "attrs" not in event


def test_limits_themselves_are_allowed(collector: Collector) -> None:
    with Emitter(collector.endpoint) as emitter:
        emitter.emit(
            "x" * 48, task="é" * 64, text="x" * 16_384, input_tokens=2**63 - 1, cost_nusd=-5, score=1, ok=False
        )
        emitter.emit("heartbeat", attrs={str(i): "v" * 512 for i in range(32)}, entities=["e"] * 32)
    assert len(collector.take(2)) == 2


def test_all_limits_at_once_still_fit_into_one_event(collector: Collector) -> None:
    with Emitter(collector.endpoint) as emitter:
        fields: dict[str, Any] = {key: "x" * limit for key, limit in _TEXT.items()}
        fields |= dict.fromkeys(_WHOLE, 2**63 - 1)
        attrs = {f"{i:064d}": "v" * 512 for i in range(32)}
        assert emitter.emit(
            "t" * 48, **fields, attrs=attrs, entities=["e" * 128] * 32, cost_nusd=-(2**63) + 1, score=0.1
        )
    assert collector.inlet.wait(20_000)
    (frame,) = collector.inlet.drain()
    assert 40_000 < len(frame.data) <= 65_536


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:6160", "tcp://example.org:1", "tcp://*:6160"])
def test_endpoint_on_another_machine_is_refused(endpoint: str) -> None:
    with pytest.raises(RefusedError, match="loopback"):
        Emitter(endpoint)


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"batch": 0}, {"batch": 1025}, {"queue_limit": 0}, {"source": "x" * 129}, {"tenant": "x" * 65}):
        with pytest.raises(UsageError):
            Emitter("ipc:///nowhere/x.sock", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected tcp://"):
        Emitter("nonsense")


def test_tasks_nest_and_close_as_they_ended(collector: Collector) -> None:
    with Emitter(collector.endpoint) as emitter:
        with emitter.task("outer", agent="a"):
            with pytest.raises(KeyError), emitter.task("inner"):
                emitter.emit("retrieval_done")
                raise KeyError("secret value")
            with pytest.raises(KeyboardInterrupt), emitter.task("stopped"):
                raise KeyboardInterrupt
            with emitter.task("marked") as task:
                task.fail("no answer")
        emitter.emit("heartbeat")
    found = collector.take(10)
    told = [(e["type"], e.get("task"), e.get("parent"), e.get("ok"), e.get("error")) for e in found]
    assert told == [
        ("task_started", "outer", None, None, None),
        ("task_started", "inner", "outer", None, None),
        ("retrieval_done", "inner", None, None, None),
        ("task_failed", "inner", "outer", False, "KeyError"),
        ("task_started", "stopped", "outer", None, None),
        ("task_cancelled", "stopped", "outer", False, "KeyboardInterrupt"),
        ("task_started", "marked", "outer", None, None),
        ("task_failed", "marked", "outer", False, "no answer"),
        ("task_completed", "outer", None, True, None),
        ("heartbeat", None, None, None, None),
    ]
    assert found[3]["duration_ns"] >= 0 and found[8]["agent"] == "a"
    assert "secret" not in repr(found)


def test_tool_and_model_calls(collector: Collector) -> None:
    with Emitter(collector.endpoint) as emitter, emitter.task("t"):
        with emitter.tool("search", args={"b": 1, "a": [2]}) as call:
            call.result("found")
        with emitter.tool("search", args={"a": [2], "b": 1}):
            pass
        with emitter.model("m", provider="p") as answer:
            answer.usage(input_tokens=3, output_tokens=4, cost_nusd=5)
    found = collector.take(9)
    called, returned, again, silent, asked, cost, answered = found[1:8]
    assert called["args_hash"] == again["args_hash"] == returned["args_hash"] and called["args_len"] == 15
    assert (returned["type"], returned["ok"], returned["call"]) == ("tool_returned", True, called["call"])
    assert returned["result_hash"] == canonical_hash("found")[0] and returned["result_len"] == 7
    assert "result_hash" not in silent and again["call"] != called["call"]
    assert [e["type"] for e in (asked, cost, answered)] == ["model_called", "token_cost_logged", "model_returned"]
    assert (cost["input_tokens"], cost["output_tokens"], cost["cost_nusd"]) == (3, 4, 5)
    assert (cost["model"], cost["provider"], cost["task"], cost["call"]) == ("m", "p", "t", asked["call"])
    assert "cost_nusd" not in answered and answered["ok"]


def test_concurrent_coroutines_keep_their_tasks_apart(collector: Collector) -> None:
    async def work(emitter: Emitter, name: str) -> None:
        with emitter.task(name):
            await asyncio.sleep(0)
            emitter.emit("heartbeat", who=name)

    async def main(emitter: Emitter) -> None:
        await asyncio.gather(*(work(emitter, f"t{i}") for i in range(10)))

    with Emitter(collector.endpoint) as emitter:
        asyncio.run(main(emitter))
    beats = [event for event in collector.take(30) if event["type"] == "heartbeat"]
    assert len(beats) == 10
    assert all(event["task"] == event["attrs"]["who"] for event in beats)


def test_hashes_are_canonical_and_never_raise() -> None:
    class Thing:
        def __repr__(self) -> str:
            return f"<Thing at 0x{id(self):x}>"

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    cycle: list[Any] = []
    cycle.append(cycle)
    assert canonical_hash({"a": 1, "b": 2}) == canonical_hash({"b": 2, "a": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": 2})
    assert canonical_hash([Thing()]) == canonical_hash([Thing()])
    assert canonical_hash({1, 2, 3}) == canonical_hash({3, 2, 1})
    for odd in (Hostile(), cycle, {(1, 2): 3}, 1 << 200, float("nan"), b"\xff", "\ud800"):
        digest, size = canonical_hash(odd)
        assert len(digest) == 32 and size > 0


def test_sixty_four_threads_number_without_a_gap_and_in_order(collector: Collector) -> None:
    with Emitter(collector.endpoint) as emitter:
        threads = [
            threading.Thread(target=lambda: [emitter.emit("heartbeat", text="x" * 50) for _ in range(50)])
            for _ in range(64)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (emitter.sent, emitter.dropped) == (3200, 0)
        found = collector.take(3200)
    assert [event["seq"] for event in found] == list(range(1, 3201))
    assert len({event["id"] for event in found}) == 3200


def test_signal_handler_may_emit_in_the_middle_of_an_emit(collector: Collector) -> None:
    emitter = Emitter(collector.endpoint, queue_limit=100_000)
    in_handler = 0

    def handler(*_: object) -> None:
        nonlocal in_handler
        in_handler += 1
        emitter.emit("heartbeat", who="handler")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while in_handler < 50:
            emitter.emit("heartbeat", who="loop")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    total = emitter.sent
    assert emitter.dropped == 0
    assert sorted(event["seq"] for event in collector.take(total)) == list(range(1, total + 1))
    emitter.close()


def test_batches_are_off_by_default_and_lose_nothing_when_on(collector: Collector) -> None:
    with Emitter(collector.endpoint, batch=100) as emitter:
        for _ in range(250):
            emitter.emit("heartbeat")
        assert emitter.flush()
        emitter.emit("heartbeat")
    found = collector.take(251)
    assert [event["seq"] for event in found] == list(range(1, 252))
    assert collector.frames < 251
    with Emitter(collector.endpoint, batch=1024) as emitter:
        for _ in range(100):
            emitter.emit("heartbeat", text="x" * 16_000)
    assert len(collector.take(100)) == 100


def test_fork_gives_the_child_its_own_identity(collector: Collector) -> None:
    emitter = Emitter(collector.endpoint)
    emitter.emit("heartbeat", who="parent")
    child = os.fork()
    if child == 0:
        emitter.emit("heartbeat", who="child")
        emitter.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    emitter.emit("heartbeat", who="parent")
    found = collector.take(3)
    emitter.close()
    by_source: dict[str, list[dict[str, Any]]] = {}
    for event in found:
        by_source.setdefault(event["source"], []).append(event)
    (theirs,), ours = sorted(by_source.values(), key=len)
    assert theirs["attrs"]["who"] == "child" and theirs["seq"] == 1
    assert [event["seq"] for event in ours] == [1, 2]
    assert theirs["boot"] != ours[0]["boot"] and theirs["id"] not in {event["id"] for event in ours}


def test_fork_while_another_thread_emits_does_not_hang(collector: Collector) -> None:
    emitter = Emitter(collector.endpoint, queue_limit=100_000)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            emitter.emit("heartbeat")

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                emitter.emit("heartbeat", who="child")
                emitter._linger_ms = 5000
                emitter.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            collector.take(1, 0.01)
    finally:
        stop.set()
        thread.join()
        emitter.close()


def _child_of_multiprocessing(endpoint: str) -> None:
    global _kept
    _kept = Emitter(endpoint)
    _kept.emit("heartbeat", who="worker")


def test_worker_of_multiprocessing_sends_what_it_queued(collector: Collector) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_child_of_multiprocessing, args=(collector.endpoint,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert [event["attrs"]["who"] for event in collector.take(1)] == ["worker"]


def test_process_that_ends_sends_what_it_queued_and_waits_no_longer_than_linger(
    collector: Collector, tmp_path: Path
) -> None:
    code = (
        "import sys, argus.wire.emitter as w\n"
        "e = w.Emitter(sys.argv[1], linger_s=float(sys.argv[2]))\n"
        "for _ in range(500): e.emit('heartbeat')\n"
    )
    subprocess.run([sys.executable, "-c", code, collector.endpoint, "10"], check=True, timeout=60)
    assert len(collector.take(500)) == 500
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code, f"ipc://{tmp_path}/nobody", "0.3"], check=True, timeout=60)
    assert time.monotonic() - start < 10


def test_emitter_needs_neither_numpy_nor_the_core() -> None:
    code = (
        "import sys, argus; argus.Emitter\n"
        "print([m for m in ('numpy', 'argus._core', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_spans_of_a_task_stay_its_own_in_other_threads(collector: Collector) -> None:
    """A worker thread does not carry the context of its caller: what is opened from the task names it."""
    with Emitter(collector.endpoint) as emitter, emitter.task("outer") as task:

        def work() -> None:
            with task.tool("search", {"q": 1}) as call:
                call.result("r")
            with task.model("m") as model:
                model.usage(input_tokens=1)
            with task.task("inner") as inner, inner.tool("fetch"):
                task.emit("retrieval_done")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    events = collector.take(12)
    assert [(e["type"], e["task"]) for e in events] == [
        ("task_started", "outer"), ("tool_called", "outer"), ("tool_returned", "outer"), ("model_called", "outer"),
        ("token_cost_logged", "outer"), ("model_returned", "outer"), ("task_started", "inner"),
        ("tool_called", "inner"), ("retrieval_done", "outer"), ("tool_returned", "inner"),
        ("task_completed", "inner"), ("task_completed", "outer"),
    ]  # fmt: skip
    assert events[6]["parent"] == "outer" and "args_hash" in events[1] and "result_hash" in events[2]


def test_an_exception_leaves_spans_of_a_task_as_their_failure_and_goes_on(collector: Collector) -> None:
    with (
        Emitter(collector.endpoint) as emitter,
        pytest.raises(KeyError, match="secret"),
        emitter.task("t") as task,
        task.tool("search"),
    ):
        raise KeyError("secret")
    events = collector.take(4)
    assert [(e["type"], e.get("ok"), e.get("error")) for e in events[2:]] == [
        ("tool_returned", False, "KeyError"),
        ("task_failed", False, "KeyError"),
    ]
    assert "secret" not in str(events)


def test_an_importer_may_wait_for_room(tmp_path: Path) -> None:
    """With `wait_s`, a full queue is waited for; without, the event is dropped at once."""
    endpoint = f"ipc://{tmp_path / 'run' / 'events.sock'}"
    with Emitter(endpoint, queue_limit=4, linger_s=0, wait_s=0.2) as emitter:
        sent = [emitter.emit("heartbeat") for _ in range(4)]
        began = time.monotonic()
        assert sent == [True] * 4 and emitter.emit("heartbeat") is False
        assert time.monotonic() - began >= 0.19
    collector = Collector(tmp_path)
    with Emitter(endpoint, queue_limit=1, wait_s=10.0) as emitter:
        waiting = threading.Thread(target=lambda: [emitter.emit("heartbeat") for _ in range(3000)])
        waiting.start()
        assert len(collector.take(3000)) == 3000 and emitter.dropped == 0
        waiting.join()
    collector.inlet.close()
