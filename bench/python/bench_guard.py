"""Cost of the kill switch: a check, a look, a trip, a stop.

    python bench/python/bench_guard.py                       one JSON line a figure
    python -m pytest bench/python/bench_guard.py             the same under pytest-benchmark

Every figure first checks that what it times does its duty.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from argus import guard
from argus.killswitch import supervise
from argus.killswitch.control import Control

CHECK_BAR_NS = 300.0
CHECK_AIM_NS = 150.0
TRIP_BAR_US = 20_000.0
STOP_BAR_MS = 500.0  # of it, the grace is the larger part for a tree that ignores SIGTERM
CALLS = 100_000
CAUSE = {"reason": "a rule has spoken", "reason_code": "C1", "actor": "argus", "automatic": True}
WHY = "the benchmark is over"


def beating(control: Control) -> Callable[[], None]:
    """Beat each 100 ms on a thread, as a collector would; returns what ends it."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.1):
            control.heartbeat()

    control.heartbeat()
    thread = threading.Thread(target=beat)
    thread.start()

    def end() -> None:
        done.set()
        thread.join()

    return end


def stops_when_it_must(control: Control) -> None:
    control.trip("hard_kill", "host", **CAUSE)
    try:
        guard.check()
    except guard.HardKill:
        control.reset("hard_kill", "host", actor="bench", reason=WHY)
        guard.check()
        return
    raise AssertionError("guard.check: expected HardKill after a trip, found none; nothing timed")


def check_ns(repeats: int = 15) -> tuple[list[float], list[float]]:
    """Nanoseconds a call, loop included, of `repeats` runs of 100,000 calls beside a live heartbeat: processor, wall.

    The processor's time is the figure: on a machine that others load too, the wall counts their work as well.
    """
    processor, wall = [], []
    f = guard.check
    for _ in range(repeats):
        wall_started, started = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(CALLS):
            f()
        processor.append((time.thread_time_ns() - started) / CALLS)
        wall.append((time.perf_counter_ns() - wall_started) / CALLS)
    return processor, wall


def trip_us(control: Control, scope: str, rounds: int = 50) -> list[float]:
    """Microseconds from the call to word and flag in place; prepared files as in service."""
    found = []
    for number in range(rounds):
        name = scope if scope == "host" else f"{scope}-{number}"
        trip = control.trip("hard_kill", name, **CAUSE)
        found.append(max(trip.linked_ns, trip.signalled_ns) / 1e3)
        trip.make_durable()
        control.reset("hard_kill", name, actor="bench", reason=WHY)
    return found


def stop_ms(control: Control, rounds: int = 7) -> list[float]:
    """Milliseconds from the call of `trip` to the proof that the supervised tree, which obeys SIGTERM, is gone."""
    found = []
    for number in range(rounds):
        at: list[int] = []

        def trip(name: str = f"session:stop-{number}", at: list[int] = at) -> None:
            time.sleep(0.05)
            at.append(time.monotonic_ns())
            control.trip("hard_kill", name, **CAUSE)

        thread = threading.Thread(target=trip)
        thread.start()
        result = supervise.run(["sleep", "60"], control=control.directory, scope=f"session:stop-{number}")
        thread.join()
        assert result.stop == "verified_stopped", result
        found.append((result.flag_seen_ns + result.all_gone_ns - at[0]) / 1e6)
    return found


def line(name: str, values: list[float], unit: str, bar: float, **more: Any) -> dict[str, Any]:
    value = statistics.median(values)
    return {
        "name": name, "value": round(value, 3), "unit": unit, "best": round(min(values), 3),
        "worst": round(max(values), 3), "bar": bar, "pass": value <= bar, "machine": platform.machine(),
        "python": platform.python_version(), **more,
    }  # fmt: skip


def figures() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory, Control(Path(directory) / "control") as control:
        end = beating(control)
        try:
            guard.attach(control.directory, ["session:bench"])
            stops_when_it_must(control)
            processor, wall = check_ns()
            more = {"aim": CHECK_AIM_NS, "wall_best": round(min(wall), 3), "wall": round(statistics.median(wall), 3)}
            found = [line("guard_check/live_heartbeat/1e5", processor, "ns", CHECK_BAR_NS, **more)]
            found.append(line("trip/host/word_and_flag", trip_us(control, "host"), "us", TRIP_BAR_US))
            found.append(line("trip/session/word_and_flag", trip_us(control, "session:s"), "us", TRIP_BAR_US))
            found.append(line("stop/trip_to_verified", stop_ms(control), "ms", STOP_BAR_MS))
        finally:
            end()
            guard.detach()
    return found


def test_guard_check_beside_a_live_heartbeat(benchmark: Any, tmp_path: Path) -> None:
    with Control(tmp_path / "control") as control:
        end = beating(control)
        try:
            guard.attach(control.directory)
            stops_when_it_must(control)
            f = guard.check

            def calls() -> None:
                for _ in range(CALLS):
                    f()

            benchmark(calls)
            assert statistics.median(check_ns(5)[0]) <= CHECK_BAR_NS
        finally:
            end()
            guard.detach()


if __name__ == "__main__":
    results = figures()
    for result in results:
        print(json.dumps(result))
    sys.exit(0 if all(result["pass"] for result in results) else 1)
