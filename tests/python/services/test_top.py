"""argus top: the busiest first, agents before all, sums by what processes share; names cannot harm a terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from argus import config
from argus.errors import UsageError
from argus.guard import boot_id, start_time_ns
from argus.services.top import METRICS, Top, TopRow, View, announced_roots, render, sort_column


def load(folder: Path) -> config.Config:
    path = folder / "argus.toml"
    path.write_text(f'[state]\nhome = "{folder}/argus-data"\n')
    return config.load(path, environ={})


@pytest.fixture
def burner() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def announce(folder: Path, pid: int, scopes: list[str], start: int | None = None) -> None:
    guards = folder / "control" / "guards"
    guards.mkdir(parents=True, exist_ok=True)
    told = {"pid": pid, "start_time": start_time_ns(pid) if start is None else start, "boot_id": boot_id()}
    (guards / f"{pid}-1.json").write_text(json.dumps({**told, "scopes": scopes, "since": 1, "acknowledged_epoch": 0}))


def test_the_busiest_process_comes_first(tmp_path: Path, burner: subprocess.Popen[bytes]):
    top = Top(load(tmp_path), count=5)
    assert all(row.cpu is None for row in top.look().shown)  # nothing to compare with yet
    time.sleep(0.5)
    view = top.look()
    top.close()
    assert len(view.shown) == 5
    assert view.total > 5
    busiest = next(row for row in view.shown if row.pid == burner.pid)
    assert busiest.cpu is not None
    assert 0.05 < busiest.cpu < 1.3
    shares = [row.cpu or 0.0 for row in view.shown]
    assert shares == sorted(shares, reverse=True)


def test_an_agent_s_processes_come_before_busier_ones(tmp_path: Path, burner: subprocess.Popen[bytes]):
    idle = subprocess.Popen(["sleep", "60"])
    try:
        announce(tmp_path, idle.pid, ["tenant:t", "session:quiet one"])
        top = Top(load(tmp_path), count=None)
        top.look()
        time.sleep(0.2)
        view = top.look()
        assert (view.shown[0].pid, view.shown[0].session) == (idle.pid, "quiet one")
        assert all(not row.session for row in view.shown[1:])
        only = Top(load(tmp_path), agents_only=True)
        assert [row.pid for row in only.look().shown] == [idle.pid]
    finally:
        idle.kill()
        idle.wait()


def test_announcements_that_are_stale_foreign_or_broken_are_nobody_s(tmp_path: Path):
    control = tmp_path / "control"
    announce(tmp_path, os.getpid(), ["session:mine"])
    announce(tmp_path, 1, ["session:other"], start=7)
    (control / "guards" / "99-1.json").write_text("{")
    (control / "guards" / "98-1.json").symlink_to("nowhere")
    assert [root[0] for root in announced_roots(control)] == ["mine"]
    announce(tmp_path, os.getpid(), ["agent:a"])
    assert announced_roots(control) == []
    assert announced_roots(tmp_path / "none") == []


@pytest.mark.parametrize("group", ["name", "executable", "cgroup", "user", "state", "session"])
def test_groups_hold_every_process_once(tmp_path: Path, group: str):
    top = Top(load(tmp_path), by="rss", group=group, count=None)
    view = top.look()
    table = top._engine.processes()  # the very one that was grouped
    assert sum(row.processes for row in view.shown) == len(table["pid"])
    total = float(np.nansum(table["rss_bytes"]))
    assert sum(row.rss_bytes or 0 for row in view.shown) == pytest.approx(total)
    if group == "executable":
        assert any(Path(row.name).name.startswith("python") for row in view.shown)


def test_the_rate_of_what_only_grows_is_since_the_look_before(tmp_path: Path):
    top = Top(load(tmp_path), by="write", pattern=rf"^{os.getpid()}$")
    top.look()
    path = tmp_path / "written"
    with path.open("wb") as out:
        out.write(b"x" * 8_000_000)
        out.flush()
        os.fsync(out.fileno())
    time.sleep(0.3)
    (row,) = top.look().shown
    assert row.pid == os.getpid()
    assert row.write_bytes_per_s is not None
    assert row.write_bytes_per_s >= 0


def test_every_metric_sorts_and_an_unknown_one_is_refused_by_name(tmp_path: Path):
    for name, column in METRICS.items():
        assert sort_column(name) == column
        Top(load(tmp_path), by=name, count=3).look()
    assert sort_column("shared_bytes") == "shared_bytes"
    with pytest.raises(UsageError, match="--by: expected one of cpu, rss"):
        Top(load(tmp_path), by="colour")
    with pytest.raises(UsageError, match="--group: expected one of name"):
        Top(load(tmp_path), group="colour")
    with pytest.raises(UsageError, match="--filter: expected a regular expression"):
        Top(load(tmp_path), pattern="(")


def test_hostile_names_reach_the_terminal_as_text():
    row = TopRow(pid=1, name="\x1b[31m[bold]x[/bold]\u202e\n", session="\x1b]0;owned\x07", cpu=0.5)
    out = io.StringIO()
    Console(file=out, width=140, force_terminal=False).print(
        render(View(host="cpu 1%", total=1, shown=[row], by="delay", group=""))
    )
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]x[/bold]" in text


def test_the_command_prints_once_as_text_and_as_json(tmp_path: Path):
    command = [sys.executable, "-m", "argus.cli.main", "top", "--once", "--interval", "100ms", "-n", "3"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "CPU %" in text
    assert "3 of " in text
    seen = json.loads(
        subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    )
    assert len(seen["shown"]) == 3
    assert seen["by"] == "cpu"
