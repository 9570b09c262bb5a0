"""The whole journey with real processes: collector, bus, looping child, flag, kill, issue, journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from argus.config import load
from argus.record.verify import verify
from argus.services import explain
from argus.services.drill import drill
from argus.services.show import show
from argus.wire.zmq import CommandClient

RUNAWAY = """
import os, subprocess, sys, time, argus
open('child.pid', 'w').write(str(os.getpid()))
helper = subprocess.Popen(['sleep', '60'])
open('helper.pid', 'w').write(str(helper.pid))
e = argus.Emitter()
e.emit('task_started', task='t1')
for i in range(600):
    e.emit('tool_called', task='t1', tool='search', args_hash='aa', result_hash='bb', ok=True)
    e.emit('token_cost_logged', task='t1', model='m', input_tokens=1000, output_tokens=10, cost_nusd=100_000_000)
    time.sleep(0.02)
"""


def configuration(folder: Path, extra: str = "") -> Path:
    path = folder / "argus.toml"
    path.write_text(
        f'[state]\nhome = "{folder}/argus-data"\n'
        f'[inlets]\npull = "ipc://{folder}/pull.sock"\nsub = []\nipc = ""\n'
        f'[outlets.zmq]\nendpoint = "ipc://{folder}/out.sock"\nreplay_endpoint = "ipc://{folder}/replay.sock"\n'
        "[outlets.prometheus]\nenabled = false\n" + extra
    )
    return path


def argus(folder: Path, *words: str, timeout: float = 40) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "argus.cli.main", *words], cwd=folder, capture_output=True, text=True, timeout=timeout
    )


def wait_ready(folder: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            CommandClient(folder / "argus-data", timeout_s=0.2).request({"verb": "ping"})
            return
        except Exception:
            time.sleep(0.05)
    raise AssertionError("the collector did not come up: " + (folder / "collect.log").read_text())


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Path]:
    """A folder with a live collector."""
    configuration(tmp_path)
    with (tmp_path / "collect.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--every", "1s"],
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_ready(tmp_path, process)
            yield tmp_path
        finally:
            process.terminate()
            assert process.wait(15) == 0


def test_a_spending_loop_is_killed_flagged_issued_and_journalled(collector: Path):
    (collector / "child.py").write_text(RUNAWAY)
    started = time.monotonic()
    done = argus(collector, "run", "--config", "argus.toml", "--budget-usd", "1", "--", sys.executable, "child.py")
    assert done.returncode != 0, done.stdout + done.stderr
    assert time.monotonic() - started < 20
    for name in ("child.pid", "helper.pid"):
        assert not Path("/proc", (collector / name).read_text()).exists(), f"{name} lives on"
    flags = list((collector / "control").rglob("hard_kill.flag"))
    assert len(flags) == 1
    assert json.loads(flags[0].read_text())["kind"] == "hard_kill"
    issues = list((collector / "argus-data" / "issues").glob("P0-*.md"))
    assert len(issues) == 1
    assert "verified_stopped" in issues[0].read_text()
    report = verify(collector / "argus-data" / "journal.db", collector / "argus-data" / "keys" / "journal.pub")
    assert report.ok, report.reason
    assert argus(collector, "verify", "--config", "argus.toml").returncode == 0
    status = json.loads(argus(collector, "status", "--config", "argus.toml", "--json").stdout)
    assert any("hard_kill" in flag for flag in status["flags"])
    told = argus(collector, "status", "--config", "argus.toml")
    assert told.returncode == 0, told.stderr
    assert "hard_kill session:" in told.stdout
    assert "argus-fast" in told.stdout
    incidents = json.loads(argus(collector, "incidents", "--config", "argus.toml", "--json").stdout)
    worst = incidents[0]
    assert (worst["severity"], worst["cause"]) == ("critical", "runaway")
    assert worst["hypotheses"][0]["cause"].startswith("runaway loop")
    acknowledged = argus(collector, "ack", worst["key"], "--true", "--actor", "anna", "--config", "argus.toml")
    assert acknowledged.returncode == 0, acknowledged.stderr
    again = json.loads(argus(collector, "incidents", "--config", "argus.toml", "--json").stdout)[0]
    assert "acknowledged as true by anna" in again["actions"]
    unknown = argus(collector, "ack", "0" * 16, "--false", "--config", "argus.toml")
    assert unknown.returncode != 0
    assert "expected the key of an open incident" in unknown.stderr
    kept = json.loads(argus(collector, "explain", "budget", "--config", "argus.toml", "--json").stdout)
    assert kept["alarms_per_day"] == 1.0
    assert kept["states"] == {"warming": sum(row["series"] for row in kept["metrics"])}
    assert kept["ratio"] is None


def test_criteria_and_findings_of_a_running_collector_are_explained(collector: Path):
    home = collector / "argus-data"
    told = CommandClient(home, timeout_s=20)
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.connect(f"ipc://{collector}/pull.sock")
    for n in range(1, 25):
        event = {"v": 1, "id": f"e{n}", "ts": time.time_ns(), "source": "s", "seq": n, "session": "run"}
        call = {"type": "tool_called", "tool": "search", "args_hash": "a", "result_hash": "b"}
        cost = {"type": "token_cost_logged", "model": "m", "cost_nusd": 300_000_000}
        socket.send(msgpack.packb({**event, **(call if n % 2 else cost)}))
    until = time.monotonic() + 40
    while "C2" not in (live := told.request({"verb": "criteria"})["criteria"])["fired"] and time.monotonic() < until:
        time.sleep(0.1)
    socket.close(linger=0)
    context.term()
    rows = {row["name"]: row for row in explain.criteria(load(collector / "argus.toml"), live=live)}
    assert rows["C2"]["since_start"]["fired"] == rows["C2"]["since_start"]["stops"] == 1
    assert rows["C2"]["lacks"] == rows["W3"]["lacks"] == []
    assert rows["C1"]["lacks"] == ["a cap: none in [budgets] or [auditors.limits], and none of a session"]
    assert any("task_completed" in lack for lack in rows["W4"]["lacks"])
    worst = told.request({"verb": "incidents"})["incidents"][0]
    while (shown := show(worst["anomalies"], logs=[], journal=home / "journal.db")).missing:
        assert time.monotonic() < until, shown
        time.sleep(0.1)
    assert {found.kind for found in shown.found} == {"anomaly", "stop"}


FALSE_CLAIMS = """
import sys, time, argus
with argus.Emitter(agent='reporter') as e:
    e.emit('task_started', task='t1')
    until = time.process_time() + 1
    while time.process_time() < until: pass
    time.sleep(2)  # by now the collector has seen this process
    e.emit('file_written', task='t1', path='/usr/share/argus-never-written/report.md', bytes=100)
    time.sleep(8)  # two looks
    e.emit('task_completed', task='t1', ok=True)
sys.exit(3)
"""


def test_a_file_never_written_and_a_success_that_was_none_are_told_of_a_run(collector: Path):
    (collector / "agent.py").write_text(FALSE_CLAIMS)
    done = argus(collector, "run", "--config", "argus.toml", "--session", "liar", "--", sys.executable, "agent.py")
    assert done.returncode == 3, done.stderr
    deadline = time.monotonic() + 20
    claims: dict[str, Any] = {}
    while not claims.get("refuted") and time.monotonic() < deadline:
        claims = json.loads(argus(collector, "status", "--config", "argus.toml", "--json").stdout)["claims"]
    assert claims["refuted"] == 1, claims
    (agent,) = claims["agents"]
    assert (agent["session"], agent["agent"], agent["alive"]) == ("liar", "reporter", False)
    assert agent["cpu_s"]["all"] > 0.2
    told = (collector / "collect.log").read_text()
    assert "no file '/usr/share/argus-never-written/report.md'" in told
    assert "task 't1' was claimed completed" in told
    assert "ended with status 3" in told
    incidents = json.loads(argus(collector, "incidents", "--config", "argus.toml", "--json").stdout)
    assert any(row["hypotheses"][0]["cause"].startswith("the agent says that it did") for row in incidents)


def test_a_child_that_ends_by_itself_keeps_its_exit_status(collector: Path):
    done = argus(
        collector,
        "run",
        "--config",
        "argus.toml",
        "--budget-usd",
        "5",
        "--",
        sys.executable,
        "-c",
        "raise SystemExit(7)",
    )
    assert done.returncode == 7, done.stderr
    assert not list((collector / "control").rglob("*.flag"))


def test_a_run_within_a_run_is_a_session_of_its_own(collector: Path):
    show = "import os; print(os.environ['ARGUS_SESSION'], os.environ['ARGUS_EVENTS'])"
    inner = [sys.executable, "-m", "argus.cli.main", "run", "--config", "argus.toml", "--session", "inner", "--"]
    done = argus(
        collector, "run", "--config", "argus.toml", "--session", "outer", "--", *inner, sys.executable, "-c", show
    )
    assert done.returncode == 0, done.stderr
    session, endpoint = done.stdout.split()
    assert session == "inner"
    assert "/inner-" in endpoint


def test_without_a_budget_the_session_is_observed_only(collector: Path):
    (collector / "child.py").write_text(RUNAWAY.replace("range(600)", "range(60)").replace("'60'", "'1'"))
    done = argus(collector, "run", "--config", "argus.toml", "--", sys.executable, "child.py")
    assert done.returncode == 0, done.stderr
    assert not list((collector / "control" / "scopes").rglob("*.flag"))
    assert list((collector / "control" / "shadow").rglob("*hard_kill*"))


def test_a_second_collector_on_the_same_directory_is_refused(collector: Path):
    done = subprocess.run(
        [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "5s"],
        cwd=collector,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 4
    assert "expected to be its only collector" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_manual_trip_and_its_reset_are_seen_and_journalled(collector: Path):
    done = argus(
        collector, "trip", "write_lockdown", "--config", "argus.toml", "--reason", "trying the lockdown by hand"
    )
    assert done.returncode == 0, done.stderr
    assert (collector / "control" / "write_lockdown.flag").exists()
    time.sleep(1.5)
    done = argus(
        collector, "reset", "write_lockdown", "--config", "argus.toml", "--reason", "the trial of the lockdown is over"
    )
    assert done.returncode == 0, done.stderr
    assert not (collector / "control" / "write_lockdown.flag").exists()
    time.sleep(1.5)
    log = (collector / "collect.log").read_text()
    assert "flag set by" in log
    assert "flag cleared by" in log


def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = configuration(tmp_path)
        path.write_text(
            path.read_text().replace(f'pull = "ipc://{tmp_path}/pull.sock"', f'pull = "tcp://127.0.0.1:{port}"')
        )
        done = subprocess.run(
            [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "5s"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode in (3, 4)
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_events_of_a_followed_file_and_of_standard_input_are_judged(tmp_path: Path):
    configuration(tmp_path)
    lines = "".join(
        json.dumps(
            {
                "v": 1,
                "id": f"e{i}",
                "type": "tool_called",
                "ts": time.time_ns(),
                "source": "file",
                "seq": i,
                "session": "s",
                "tool": "x",
                "args_hash": "aa",
                "result_hash": "bb",
            }
        )
        + "\n"
        for i in range(1, 40)
    )
    (tmp_path / "events.jsonl").write_text(lines)
    words = [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "3s", "--every", "1s"]
    followed = subprocess.run(
        [*words, "--jsonl", "events.jsonl"], cwd=tmp_path, capture_output=True, text=True, timeout=40
    )
    assert followed.returncode == 0, followed.stderr
    assert "equal calls" in followed.stdout
    piped = subprocess.run(
        [*words, "--stdin"],
        cwd=tmp_path,
        input=lines.replace("file", "pipe"),
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert piped.returncode == 0, piped.stderr
    assert "equal calls" in piped.stdout


def test_the_drill_passes():
    lines: list[str] = []
    report = drill(lines.append)
    assert report.ok, "\n".join(lines)
    assert [s.name for s in report.steps] == [
        "detected",
        "flag visible",
        "durable",
        "every pid gone",
        "P0 issue",
        "journal verified",
        "in time",
    ]
    assert lines[-1].startswith("drill passed")


def test_sigkill_of_the_collector_leaves_a_journal_that_verifies_and_a_flag_that_stands(tmp_path: Path):
    configuration(tmp_path)
    with (tmp_path / "collect.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml"],
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_ready(tmp_path, process)
            argus(tmp_path, "trip", "hard_kill", "--config", "argus.toml", "--reason", "before the collector dies")
            time.sleep(1.2)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    report = verify(tmp_path / "argus-data" / "journal.db", tmp_path / "argus-data" / "keys" / "journal.pub")
    assert report.ok, report.reason
    assert (tmp_path / "control" / "hard_kill.flag").exists()


def test_a_control_directory_that_cannot_be_one_is_named_with_what_to_do(tmp_path: Path):
    configuration(tmp_path)
    (tmp_path / "control").write_text("a file in the way")
    done = subprocess.run(
        [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "5s"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode in (3, 4)
    assert str(tmp_path / "control") in done.stderr
    assert "Traceback" not in done.stderr


def test_refused_events_are_counted_sampled_and_the_batch_lives(collector: Path):
    import msgpack
    import zmq

    event = {"v": 1, "type": "heartbeat", "ts": time.time_ns(), "source": "probe"}
    batch = [
        {**event, "id": "a", "seq": 1},
        {**event, "id": "b", "seq": 2, "ok": "yes"},
        {**event, "id": "c", "seq": 3},
    ]
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(f"ipc://{collector}/pull.sock")
        socket.send(msgpack.packb(batch))
        socket.send(b"\xc1 not msgpack")
        kept = collector / "argus-data" / "quarantine" / "rejected.ndjson"
        for _ in range(100):
            if kept.exists() and len(kept.read_text().splitlines()) == 2:
                break
            time.sleep(0.05)
    reasons = [json.loads(line)["reason"] for line in kept.read_text().splitlines()]
    assert reasons == ["wrong_type", "malformed"]
    status = json.loads(argus(collector, "status", "--config", "argus.toml", "--json").stdout)
    assert (status["accepted"], status["rejected_total"]) == (2, 2)
    probe = next(s for s in status["event_sources"] if s["name"] == "probe")
    assert (probe["events"], probe["rejected"]) == (2, {"wrong_type": 1})


def test_tail_shows_what_is_published_and_ends_in_time(collector: Path):
    tail = subprocess.Popen(
        [sys.executable, "-m", "argus.cli.main", "tail", "--config", "argus.toml", "--for", "4s", "--json"],
        cwd=collector,
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.5)
    argus(collector, "trip", "write_lockdown", "--config", "argus.toml", "--reason", "seen by a subscriber")
    out, _ = tail.communicate(timeout=30)
    records = [json.loads(line) for line in out.splitlines()]
    assert [(r["record"], r["kind"], r["set"]) for r in records] == [("flag", "write_lockdown", True)]


def test_a_closed_standard_output_does_not_stop_the_auditor(tmp_path: Path):
    configuration(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "3s", "--every", "500ms"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"argus-collect on")
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait(20) == 0


def test_a_control_directory_that_vanishes_ends_the_collector_with_the_reason(tmp_path: Path):
    configuration(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "30s"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_ready(tmp_path, process)
    (tmp_path / "control").rename(tmp_path / "elsewhere")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "expected the control directory that this collector owns" in errors
    assert "Traceback" not in errors


def test_a_flag_deleted_by_hand_is_set_again(collector: Path):
    done = argus(collector, "trip", "hard_kill", "--config", "argus.toml", "--reason", "to be deleted by an agent")
    assert done.returncode == 0, done.stderr
    flag = collector / "control" / "hard_kill.flag"
    time.sleep(1.3)
    flag.unlink()
    for _ in range(60):
        if flag.exists():
            break
        time.sleep(0.05)
    assert "deleted without a reset" in flag.read_text()


def test_a_missing_kernel_feature_is_one_blind_spot_line_and_the_rest_goes_on(tmp_path: Path):
    proc = tmp_path / "proc"
    proc.mkdir()
    for name in ("stat", "loadavg", "uptime", "meminfo", "vmstat"):
        (proc / name).write_bytes(Path("/proc", name).read_bytes())
    configuration(tmp_path, f'[host]\nproc = "{proc}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "4s", "--every", "1s"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    blind = [line for line in done.stdout.splitlines() if line.startswith("blind spot:")]
    assert len([line for line in blind if "pressure" in line]) == 1
    assert len([line for line in blind if "net/dev" in line]) == 1
    assert " mem " in done.stdout


def test_a_hold_keeps_an_automatic_stop_back_until_it_ends(collector: Path):
    from argus.wire.emitter import Emitter

    done = argus(
        collector, "hold", "--config", "argus.toml", "--for", "5s", "--reason", "a maintenance of five seconds"
    )
    assert done.returncode == 0, done.stderr
    time.sleep(1.2)
    flag = collector / "control" / "write_lockdown.flag"
    with Emitter(f"ipc://{collector}/pull.sock", session="s") as emitter:

        def turn(nusd: int) -> None:
            emitter.emit("tool_called", tool="x", args_hash="aa", result_hash="bb")
            emitter.emit("token_cost_logged", model="m", cost_nusd=nusd)
            time.sleep(0.1)

        for _ in range(6):
            turn(40_000_000)
        assert not flag.exists()
        assert list((collector / "control" / "shadow").rglob("*write_lockdown*"))
        for _ in range(100):
            turn(1_000_000)
            if flag.exists():
                break
    assert flag.exists()
    assert not (collector / "control" / "hard_kill.flag").exists()
