"""`argus import`: into a file, a replay, a collector; the key of the hashes; what a command line cannot mean."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
from typer.testing import CliRunner

from argus.cli.main import app
from argus.errors import ArgusError, RefusedError, UnreachableError, UsageError
from argus.services import imports
from argus.services.replay import replay
from argus.wire.transcripts.common import Context
from argus.wire.transcripts.reader import FORMATS
from argus.wire.zmq import EventInlet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "wire"))
from test_transcripts import CLAUDE, CODEX, KEY, answer, lines, result, use

RUNNER = CliRunner(env={"COLUMNS": "200"})
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "inlets.md").read_text().split("## Imports and handlers")[1]
PAGE = PAGE.split("\n## ")[0]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARGUS_HOME", str(tmp_path / "home"))
    folder = tmp_path / "projects"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines(CLAUDE))
    (folder / "b.jsonl").write_bytes(lines(CODEX))
    return folder


def command(*words: object) -> Any:
    return RUNNER.invoke(app, ["import", *map(str, words)])


def test_events_go_to_standard_output_and_the_account_to_standard_error(logs: Path):
    done = command(logs)
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert "29 events of 24 records in 2 files (codex 15, claude-code 9)" in done.stderr
    assert len(events) == 29 and {event["session"] for event in events} == {"sess-1", "thread-1"}
    again = command(logs, "--json")
    assert again.stdout == done.stdout, "the same logs give the same bytes"
    assert json.loads(again.stderr)["events"] == 29


def test_a_file_of_events_is_private_and_replays(logs: Path, tmp_path: Path):
    target = tmp_path / "events.ndjson"
    assert command(logs, "--to", target, "--tenant", "home").exit_code == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    report = replay(target)
    assert (report.events, report.rejected, report.anomalies) == (29, {}, [])
    assert isinstance(command(logs, "--to", target).exception, RefusedError)


def test_a_replay_of_a_looping_session_finds_the_loop(logs: Path):
    looping = [CLAUDE[1]]
    for n in range(40):
        looping.append(answer(f"a{n}", 2 + n, [use(f"t{n}", "Bash", command="make test")], message=f"m{n}"))
        looping.append(result(f"r{n}", 2.5 + n, f"t{n}", "same PRIVATE failure"))
    (logs / "a.jsonl").write_bytes(lines(looping))
    done = command(logs, "--replay")
    assert done.exit_code == 0, done.output
    assert "loop" in done.stdout and "PRIVATE" not in done.stdout
    quiet = command(logs / "b.jsonl", "--replay", "--json")
    assert json.loads(quiet.stdout)["anomalies"] == []


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path):
    path = tmp_path / "keys" / "import.key"
    key = imports.load_key(path)
    assert len(key) == 32 and imports.load_key(path) == key and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(RefusedError, match="mode 0644"):
        imports.load_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(UnreachableError, match="expected 32 bytes of key, found 5"):
        imports.load_key(path)
    link = path.with_name("link.key")
    link.symlink_to(path)
    with pytest.raises(UnreachableError):
        imports.load_key(link)


@pytest.mark.parametrize("to_file", [False, True])
def test_growing_logs_are_followed_to_a_collector_or_a_file(logs: Path, tmp_path: Path, to_file: bool):
    endpoint = f"ipc://{tmp_path / 'run' / 'events.sock'}"
    inlet = EventInlet((endpoint,))
    (logs / "a.jsonl").write_bytes(lines(CLAUDE[:4]))
    context = Context(KEY)
    ended = threading.Event()
    target = tmp_path / "grown.ndjson" if to_file else None
    lost: list[int] = []
    follower = threading.Thread(
        target=lambda: lost.append(
            imports.follow([logs], context, endpoint=endpoint, target=target, from_start=True, stop=ended.is_set)
        )
    )
    follower.start()
    found: list[dict[str, Any]] = []

    def wait_for(count: int) -> None:
        until = time.monotonic() + 20
        while len(found) < count and time.monotonic() < until:
            if target is None:
                inlet.wait(50)
                found.extend(msgpack.unpackb(frame.data) for frame in inlet.drain())
            elif target.exists():
                found[:] = [json.loads(line) for line in target.read_bytes().splitlines()]
                time.sleep(0.02)

    wait_for(20)
    assert "claude-code" in {event["agent"] for event in found}
    with (logs / "a.jsonl").open("ab") as file:
        file.write(lines(CLAUDE[4:]))
    wait_for(29)
    ended.set()
    follower.join()
    inlet.close()
    assert len(found) == 29 and lost == [0] and context.counts.events == 29
    ids = {(event["session"], event["id"]) for event in found}
    assert len(ids) == 29
    if target is None:
        assert [event["seq"] for event in found] == list(range(1, 30))
        assert len({event["source"] for event in found}) == 1
        assert [event["ts"] for event in found] == sorted(event["ts"] for event in found)


@pytest.mark.parametrize(
    ("words", "expected", "error"),
    [
        (["--replay", "--follow"], "expected neither --follow nor --to", UsageError),
        (["--from-start"], "expected --follow beside them", UsageError),
        (["--format", "other"], "expected auto, claude-code, codex", UsageError),
        (["--tenant", "x" * 65], "at most 64 bytes", UsageError),
        (["--follow", "--for", "1s", "--endpoint", "tcp://192.0.2.1:1"], "192.0.2.1", RefusedError),
    ],
)
def test_what_cannot_be_meant_is_refused(logs: Path, words: list[str], expected: str, error: type[ArgusError]):
    done = command(logs, *words)
    assert isinstance(done.exception, error) and expected in str(done.exception)


def test_a_path_that_is_not_there_is_named(logs: Path):
    done = command(logs / "gone")
    assert isinstance(done.exception, UnreachableError) and "gone" in str(done.exception)


def test_nobody_to_follow_to_is_said(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(imports, "_WAIT_S", 0.05)
    monkeypatch.setattr(imports, "follow", lambda *_, **__: 3)
    done = command(logs, "--follow", "--for", "1s")
    assert isinstance(done.exception, UnreachableError) and "3 events found no room" in str(done.exception)


@pytest.mark.parametrize("body", SNIPPETS)
def test_a_snippet_of_the_page_runs(body: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", body],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_names_every_format_and_only_options_that_are():
    options = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    known = set(re.findall(r"--[a-z][a-z-]+", command("--help").output))
    assert options and options <= known
    assert all(name.split("-")[0] in PAGE.lower() for name in FORMATS)
