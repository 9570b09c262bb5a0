"""Maintenance windows and deployments: the schedule, what people begin, and the collector that keeps to both."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_end_to_end import argus, configuration, wait_ready

from argus.config import DAYS, MaintenanceSettings
from argus.errors import UsageError
from argus.services.maintenance import Calendar, Window, WindowKind, occurrence, suspensions, window_words
from argus.wire.zmq import CommandClient

NS = 1_000_000_000
MINUTE = 60


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


NOON = at("2026-03-04 12:00")  # a Wednesday


def calendar(folder: Path, **schedule: MaintenanceSettings) -> Calendar:
    return Calendar(schedule, folder / "maintenance.json")


def begin(
    of: Calendar, *, now: int = NOON, seconds: float = 3600, name: str = "", series: tuple[str, ...] = ("*",)
) -> Window:
    return of.begin(WindowKind.MAINTENANCE, series, seconds, now=now, name=name, reason="disk swap", actor="anna")


@given(
    start=st.integers(0, 24 * 60 - 1),
    length=st.integers(1, 7 * 24 * 60),
    days=st.sets(st.sampled_from(DAYS)),
    minute=st.integers(0, 21 * 24 * 60),
)
def test_the_schedule_agrees_with_a_walk_over_every_day(start: int, length: int, days: set[str], minute: int):
    settings = MaintenanceSettings(
        at=f"{start // 60:02}:{start % 60:02}", length_secs=length * MINUTE, days=tuple(sorted(days))
    )
    monday = at("2026-01-05 00:00")
    now = monday + minute * MINUTE * NS
    expected = False
    for day in range(-9, 23):
        first = monday + (day * 24 * 60 + start) * MINUTE * NS
        if first <= now < first + length * MINUTE * NS and (not days or DAYS[day % 7] in days):
            expected = True
    found = occurrence(settings, now)
    assert (found is not None) == expected
    if found is not None:
        assert found[0] <= now < found[1] == found[0] + length * MINUTE * NS


def test_a_scheduled_window_opens_and_closes_by_itself(tmp_path: Path):
    of = calendar(tmp_path, backup=MaintenanceSettings(at="11:30", length_secs=3600, series=("system.disk.*",)))
    assert of.open_at(at("2026-03-04 11:29")) == []
    (window,) = of.open_at(NOON)
    assert (window.name, window.end) == ("backup", at("2026-03-04 12:30"))
    assert suspensions([window]) == [("system.disk.*", False)]
    assert window_words([window], 3) == "3 series not judged: backup until 2026-03-04 12:30 UTC"
    assert of.open_at(window.end) == []
    with pytest.raises(UsageError, match="in the configuration"):
        of.end("backup", now=NOON)


def test_what_a_person_begins_ends_in_time_or_by_name_and_outlives_a_restart(tmp_path: Path):
    of = calendar(tmp_path)
    first, second = begin(of), begin(of, name="swap", seconds=60)
    assert [w.name for w in of.open_at(NOON)] == [first.name, "swap"] == ["maintenance-1", "swap"]
    of.save()
    again = calendar(tmp_path)
    again.read()
    assert again.open_at(NOON) == of.open_at(NOON)
    assert again.open_at(second.end) == [first]
    assert again.end(first.name, now=NOON) == first
    assert again.open_at(NOON) == []


def test_windows_that_cannot_be_are_refused(tmp_path: Path):
    of = calendar(tmp_path)
    begin(of, name="swap")
    for wrong in (
        {"name": "swap"},
        {"seconds": 0},
        {"seconds": 31 * 86_400},
        {"seconds": float("nan")},
        {"series": ()},
    ):
        with pytest.raises(UsageError, match=r"^maintenance: .*expected"):
            begin(of, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="found 'other'"):
        of.end("other", now=NOON)
    for number in range(99):
        begin(of, name=f"w{number}")
    with pytest.raises(UsageError, match="at most 100 open windows"):
        begin(of)


@pytest.mark.parametrize("content", [b"", b"{", b'[{"name": 1}]', b"\xff"])
def test_a_damaged_file_is_told_and_no_window_of_it_is_open(tmp_path: Path, content: bytes):
    (tmp_path / "maintenance.json").write_bytes(content)
    of = calendar(tmp_path)
    with pytest.raises(UsageError, match="expected a list of maintenance windows"):
        of.read()
    assert of.open_at(NOON) == []


def test_a_deployment_wins_over_maintenance_of_the_same_series(tmp_path: Path):
    of = calendar(tmp_path)
    of.begin(WindowKind.DEPLOYMENT, ("a*", "b*"), 60, now=NOON, name="", reason="v2", actor="anna")
    begin(of, series=("a*",))
    assert suspensions(of.open_at(NOON)) == [("a*", False), ("a*", True), ("b*", True)]


def collect(folder: Path) -> subprocess.Popen[str]:
    with (folder / "collect.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--every", "1s"],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    wait_ready(folder, process)
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_windows_and_what_was_learned_outlive_the_collector(tmp_path: Path):
    configuration(tmp_path)
    process = collect(tmp_path)
    try:
        words = ("--reason", "disk swap", "--series", "system.memory.*", "--name", "swap", "--config", "argus.toml")
        begun = argus(tmp_path, "maintenance", "begin", "--for", "2h", *words)
        assert begun.returncode == 0, begun.stderr
        assert "series not judged: swap until" in begun.stdout
        again = argus(tmp_path, "maintenance", "begin", "--for", "2h", *words)
        assert again.returncode != 0
        assert "expected a name that no window has, found 'swap'" in again.stderr
        shown = argus(tmp_path, "reference", "show", "--config", "argus.toml")
        assert shown.stdout.startswith("no reference")
        frozen = argus(tmp_path, "reference", "freeze", "--config", "argus.toml")
        assert frozen.returncode != 0
        assert "expected series that were seen for 24 hours" in frozen.stderr
        deployed = argus(tmp_path, "deployed", "v2.3", "--series", "system.cpu.*", "--config", "argus.toml")
        assert "deployment-1 until" in deployed.stdout
    finally:
        end(process)
    assert (tmp_path / "argus-data" / "learned.bin").stat().st_size > 1000
    (tmp_path / "argus-data" / "reference.json").write_text(
        '{"frozen_at":1,"actor":"mallory","series":{},"key_id":"","signature":"00","v":1}'
    )
    process = collect(tmp_path)
    try:
        told = CommandClient(tmp_path / "argus-data", timeout_s=20)
        assert "swap until" in told.request({"verb": "status"})["maintenance"]
        until = time.monotonic() + 20
        while int((words_now := told.request({"verb": "status"})["maintenance"]).split()[0]) <= 5:
            assert time.monotonic() < until, words_now
            time.sleep(0.1)
        ended = argus(tmp_path, "maintenance", "end", "swap", "--config", "argus.toml")
        assert ended.returncode == 0
        assert "swap" not in ended.stdout
        (left,) = json.loads(argus(tmp_path, "maintenance", "list", "--json", "--config", "argus.toml").stdout)
        assert (left["name"], left["kind"], left["reason"]) == ("deployment-1", "deployment", "v2.3")
    finally:
        end(process)
    log = (tmp_path / "collect.log").read_text()
    assert "learned afresh" not in log
    assert "reference: expected the signature of key" in log
    (tmp_path / "argus-data" / "learned.bin").write_bytes(b"damaged")
    end(collect(tmp_path))
    assert "learned afresh" in (tmp_path / "collect.log").read_text()
