"""Claims of agents against files, processes and exits that are really there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argus.engine.core import Engine, EngineOptions, SourceChoice
from argus.engine.exposition import Exposition
from argus.guard import start_time_ns
from argus.schema import Anomaly, Severity

AGENT = """
import os, subprocess, sys, time
held = []
for line in sys.stdin:
    verb, _, rest = line.rstrip('\\n').partition(' ')
    if verb == 'write':
        path, _, text = rest.partition(' ')
        with open(path, 'w') as f: f.write(text)
    elif verb == 'hold':
        f = open(rest, 'w'); f.write('kept in the buffer'); held.append(f)
    elif verb == 'close':
        held.pop().close()
    elif verb == 'burn':
        until = time.process_time() + float(rest)
        while time.process_time() < until: pass
    elif verb == 'exit':
        os._exit(int(rest))
    elif verb == 'spawn':
        for _ in range(int(rest)): subprocess.run(['true'])
    print('done', flush=True)
"""
OPTIONS = {"settle_s": 0.2, "recheck_s": 0.5, "report_lag_s": 1.0}


class Agent:
    """A process that does as it is told, and an engine that hears of it."""

    def __init__(self, engine: Engine, *, supervised: bool = False) -> None:
        self.engine = engine
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        pid = os.getpid() if supervised else self.process.pid
        engine.set_agents([("s", pid, start_time_ns(pid) or 0, supervised)])
        self.said: list[Anomaly] = []
        self._seq = 0
        self.step(1.5)  # until a table has listed it

    def do(self, words: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def tell(self, type: str, **fields: Any) -> None:
        self._seq += 1
        event = {"v": 1, "id": f"e{self._seq}", "type": type, "ts": time.time_ns(), "source": "a", "session": "s"}
        self.said += self.engine.ingest(msgspec.msgpack.encode({**event, **fields})).anomalies

    def step(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            self.said += self.engine.step()
            time.sleep(0.05)

    def settle(self, told: int) -> None:
        """Until every one of `told` claims has found its end."""
        self.step(20, lambda: self.decided() >= told)
        assert self.decided() == told

    def decided(self) -> int:
        c = self.engine.claims()
        return c.confirmed + c.refuted + c.undecided + c.withdrawn + c.shed + sum(c.unverifiable.values())

    def of(self, series: str) -> list[Anomaly]:
        return [a for a in self.said if a.series == f"claims.{series}"]


@contextlib.contextmanager
def living(*, supervised: bool = False, **options: float) -> Iterator[Agent]:
    chosen = EngineOptions(
        processes=SourceChoice(interval_ms=100), auditors={"claims": {**OPTIONS, **options}}, detectors={}
    )
    with Engine(chosen) as engine:
        engine.start()
        agent = Agent(engine, supervised=supervised)
        try:
            yield agent
        finally:
            agent.process.kill()
            agent.process.wait()
            for stream in (agent.process.stdin, agent.process.stdout):
                with contextlib.suppress(OSError):
                    stream and stream.close()


@pytest.mark.parametrize("supervised", [False, True])
def test_true_claims_are_confirmed_and_false_ones_refuted_with_claim_and_fact(tmp_path: Path, supervised: bool):
    folder = tmp_path / "out"
    folder.mkdir()
    time.sleep(1.2)
    with living(supervised=supervised) as agent:
        agent.do(f"write {tmp_path}/a four")
        agent.tell("file_written", path=f"{tmp_path}/a", bytes=4, sha256=sha256(b"four").digest())
        agent.do(f"write {tmp_path}/b four")
        agent.tell("file_written", path=f"{tmp_path}/b", bytes=400)
        agent.do(f"write {tmp_path}/c four")
        agent.tell("file_written", path=f"{tmp_path}/c", sha256=sha256(b"five").hexdigest())
        agent.tell("file_written", path=f"{folder}/never", bytes=1, task="t")
        agent.settle(4)
        counts = agent.engine.claims()
        assert (counts.files, counts.confirmed, counts.refuted) == (4, 1, 3)
        (absent,) = agent.of("file_absent")
        assert (absent.severity, absent.criterion, absent.scope.id) == (Severity.WARNING, "W9", "s")
        assert f"no file '{folder}/never', and its folder has not changed since" in absent.message
        assert "event 'e4' claims it written with 1 bytes" in absent.message
        assert absent.evidence == ["e4"]
        assert {a.series[len("claims.") :] for a in agent.said} == {"file_absent", "file_size", "file_content"}


def test_what_somebody_changes_removes_or_still_writes_after_the_claim_refutes_nothing(tmp_path: Path):
    with living() as agent:
        for name in ("cut", "gone", "moved"):
            agent.do(f"write {tmp_path}/{name} {'x' * 100}")
            agent.tell("file_written", path=f"{tmp_path}/{name}", bytes=100, sha256=sha256(b"x" * 100).digest())
        agent.do(f"hold {tmp_path}/buffered")
        agent.tell("file_written", path=f"{tmp_path}/buffered", bytes=18)
        (tmp_path / "cut").write_text("short")
        (tmp_path / "gone").unlink()
        (tmp_path / "moved").rename(tmp_path / "elsewhere")
        agent.settle(4)
        assert agent.engine.claims().refuted == 0
        assert agent.engine.claims().undecided == 4
        assert {a.series for a in agent.said} <= {"claims.file_gone"}
        assert all(a.severity is Severity.INFO for a in agent.said)


def test_a_removal_that_is_told_withdraws_the_claim(tmp_path: Path):
    with living() as agent:
        agent.do(f"write {tmp_path}/f x")
        agent.tell("file_written", path=f"{tmp_path}/f", bytes=1)
        (tmp_path / "f").unlink()
        agent.tell("file_deleted", path=f"{tmp_path}/f")
        agent.settle(1)
        assert agent.engine.claims().withdrawn == 1
        assert agent.said == []


def test_hostile_paths_neither_hang_nor_accuse(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    sparse = tmp_path / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 40)
    digest = sha256(b"").digest()
    paths = [
        *(str(tmp_path / name) for name in ("fifo", "a", "a/b/c", "passwd", "sparse")),
        "/dev/null", "/dev/zero", "/dev/tty", "/proc/self/mem", "/proc/1/environ", "/proc/kmsg", "/sys/power/state",
        "/", "//", "", "relative", "../up", "/tmp/../etc/passwd", "/nul\0byte", "/" + "x" * 4000, "/" + "d/" * 400 + "f",
        "/\u202eevil\n\x1b[2J",
    ]  # fmt: skip
    with living() as agent:
        for path in paths:
            agent.tell("file_written", path=path, bytes=0, sha256=digest)
        started = time.monotonic()
        agent.settle(agent.engine.claims().files)
        assert time.monotonic() - started < 15
        counts = agent.engine.claims()
        assert counts.confirmed == 0
        assert counts.refuted <= 1  # the last: a name like any other, and nothing is there
        assert {"path", "special", "link", "mount", "large"} <= {why for why, n in counts.unverifiable.items() if n}


def test_a_hundred_thousand_claims_at_once_do_not_keep_events_waiting(tmp_path: Path):
    with living() as agent:
        frames = [
            msgspec.msgpack.encode([
                {
                    "v": 1, "id": f"f{n}-{i}", "type": "file_written", "ts": time.time_ns(), "source": "a",
                    "session": "s", "path": f"{tmp_path}/{n}/{i}", "bytes": 1, "sha256": b"0" * 32,
                }
                for i in range(1000)
            ])
            for n in range(100)
        ]  # fmt: skip
        started = time.monotonic()
        slowest = 0.0
        for frame in frames:
            before = time.monotonic()
            report = agent.engine.ingest(frame)
            slowest = max(slowest, time.monotonic() - before)
            assert report.accepted == 1000
        assert time.monotonic() - started < 10
        assert slowest < 1
        agent.settle(100_000)
        counts = agent.engine.claims()
        assert counts.files == 100_000
        assert counts.shed >= 99_000
        assert len(agent.said) < 20


def test_files_of_another_root_or_of_nobody_here_are_not_looked_at(tmp_path: Path):
    with living() as agent:
        agent.tell("file_written", path=f"{tmp_path}/none", session="elsewhere")
        agent.settle(1)
        assert agent.engine.claims().unverifiable["no_process"] == 1
        inside = subprocess.Popen(["unshare", "--mount", "sleep", "60"], stderr=subprocess.PIPE, text=True)
        try:
            time.sleep(0.3)
            if inside.poll() is not None:
                assert inside.stderr is not None
                pytest.skip(f"no mount namespace can be made here: {inside.stderr.read().strip()}")
            agent.engine.set_agents([("boxed", inside.pid, start_time_ns(inside.pid) or 0, False)])
            agent.step(1)
            agent.tell("file_written", path="/usr/none", session="boxed")
            agent.settle(2)
            assert agent.engine.claims().unverifiable["foreign"] == 1
        finally:
            inside.kill()
            inside.wait()
            assert inside.stderr is not None
            inside.stderr.close()
        assert agent.said == []


def test_work_that_no_event_tells_of_is_spoken_of_and_coverage_says_how_much(tmp_path: Path):
    with living(late_s=10, grace_s=1, unreported_cpu_s=1, unreported_children=20) as agent:
        agent.tell("tool_called", tool="t", call="c1")
        agent.do("burn 1.5")
        agent.step(1)
        agent.tell("tool_returned", tool="t", call="c1")
        agent.step(3)
        assert agent.engine.claims().agents[0].cpu_s.ratio > 0.9
        time.sleep(2)
        agent.tell("heartbeat")
        agent.do("burn 3")
        agent.do("spawn 30")
        agent.step(25, lambda: len(agent.of("idle_work")) >= 1)
        told = agent.of("idle_work")
        assert told
        assert "while it claims that nothing is under way" in told[0].message
        (coverage,) = agent.engine.claims().agents
        assert 0.1 < coverage.cpu_s.ratio < 0.75
        assert coverage.session == "s"
        assert coverage.alive


def test_success_before_a_failing_exit_is_contradicted():
    with living() as agent:
        agent.tell("task_completed", task="t", ok=True)
        (found,) = agent.engine.end_session("s", code=3)
        assert found.series == "claims.exit_status"
        assert "task 't' was claimed completed" in found.message
        assert "status 3" in found.message
        assert agent.engine.end_session("s", code=3) == []
        assert agent.engine.end_session("unknown", code=3) == []


def test_the_exit_of_a_process_that_announced_itself_is_known_from_the_kernel():
    with living() as agent:
        agent.step(2)  # until exits are told of
        agent.tell("task_completed", task="t", ok=True)
        assert agent.process.stdin is not None
        agent.process.stdin.write("exit 4\n")
        agent.process.stdin.flush()
        agent.process.wait(10)
        agent.step(10, lambda: bool(agent.of("exit_status")))
        exits = {s["name"]: s for s in agent.engine.statistics()["sources_read"]}["exits"]
        if exits["error"]:
            pytest.skip(f"exits are not told here: {exits['error']}")
        (found,) = agent.of("exit_status")
        assert "ended with status 4" in found.message
        assert found.severity is Severity.INFO


def test_claims_and_coverage_are_on_the_metrics_page(tmp_path: Path):
    with living() as agent:
        agent.do(f"write {tmp_path}/f x")
        agent.tell("file_written", path=f"{tmp_path}/f", bytes=1)
        agent.tell("file_written", path="relative", bytes=1)
        agent.do("burn 0.3")
        agent.settle(2)
        agent.step(5, lambda: agent.engine.claims().agents[0].cpu_s.all > 0.1)
        page = Exposition()
        page.publish(agent.engine)
        lines = page.render().decode().splitlines()
        assert 'argus_claims_total{outcome="confirmed"} 1' in lines
        assert 'argus_claims_unverifiable_total{reason="path"} 1' in lines
        shown = [line for line in lines if line.startswith("argus_agent_coverage_ratio{")]
        assert any(line.startswith('argus_agent_coverage_ratio{agent_session="s",activity="cpu"} ') for line in shown)
        assert all(0 <= float(line.rsplit(" ", 1)[1]) <= 1 for line in shown)


def test_coverage_and_claims_survive_a_restart(tmp_path: Path):
    with living() as agent:
        agent.do(f"write {tmp_path}/f x")
        agent.tell("file_written", path=f"{tmp_path}/f", bytes=1)
        agent.settle(1)
        state = agent.engine.snapshot()
        with Engine(EngineOptions(auditors={"claims": OPTIONS}, detectors={})) as other:
            other.restore(state)
            assert other.claims().confirmed == 1
