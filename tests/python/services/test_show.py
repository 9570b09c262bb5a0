"""`argus show`: events and anomalies by id, from logs and journal; what is not found is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

import argus
from argus.cli.main import app
from argus.errors import UnreachableError
from argus.record.journal import Journal
from argus.services import show

RUNAWAY = Path(__file__).resolve().parents[3] / "examples" / "runaway.ndjson"
T0 = 1_760_000_000_000_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with what a replay of the runaway says."""
    path = tmp_path / "journal.db"
    with Journal(path, tmp_path / "keys", clock=lambda: T0) as kept:
        for anomaly in argus.replay(RUNAWAY).anomalies:
            kept.append("anomaly", msgspec.to_builtins(anomaly))
        kept.append("stop", {"id": argus.replay(RUNAWAY).anomalies[0].id, "kind": "write_lockdown"})
        kept.commit()
    return path


def test_an_event_is_shown_from_a_log_and_from_its_archive(tmp_path: Path):
    archive = tmp_path / "events.gz"
    archive.write_bytes(gzip.compress(RUNAWAY.read_bytes()))
    for log in (RUNAWAY, archive):
        (found,) = show.show(["demo-18"], logs=[log], journal=None).found
        expected = next(json.loads(line) for line in RUNAWAY.read_text().splitlines() if '"demo-18"' in line)
        assert (found.kind, found.record, found.where) == ("event", expected, str(log))


def test_an_anomaly_is_shown_with_its_stop_and_the_first_three_events_behind_it(journal: Path):
    first = argus.replay(RUNAWAY).anomalies[0]
    shown = show.show([first.id], logs=[RUNAWAY], journal=journal)
    assert [found.kind for found in shown.found[:2]] == ["anomaly", "stop"]
    assert [found.name for found in shown.found[2:]] == first.evidence[:3]
    text = show.render(shown, searched=[])
    for words in (str(first.scope), first.message, show.expectation(first), first.series, first.criterion):
        assert words in text
    assert f"value           {first.value:.6g}\n" in text


def test_what_is_not_found_is_named_with_where_it_was_sought(tmp_path: Path, journal: Path):
    shown = show.show(["demo-18", "nobody", "nobody"], logs=[RUNAWAY], journal=journal)
    assert shown.missing == ["nobody"]
    text = show.render(shown, searched=["a.log"])
    assert "nobody: in none of a.log" in text
    assert "--log" in text
    with pytest.raises(UnreachableError):
        show.show(["x"], logs=[tmp_path / "absent"], journal=None)
    with pytest.raises(UnreachableError):
        show.show(["x"], logs=[], journal=tmp_path / "absent.db")


def test_an_id_that_two_events_bear_shows_both_and_no_more_than_a_bound(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("".join(json.dumps({"v": 1, "id": "same", "n": n}) + "\n" for n in range(200)))
    found = show.show(["same"], logs=[log], journal=None).found
    assert [f.record["n"] for f in found] == list(range(64))


def test_a_part_of_an_id_finds_nothing():
    assert show.show(["demo-1"], logs=[RUNAWAY], journal=None).found[0].record["id"] == "demo-1"
    assert show.show(["demo-"], logs=[RUNAWAY], journal=None).missing == ["demo-"]


def test_contents_are_not_shown_and_names_stay_on_their_line(tmp_path: Path):
    log = tmp_path / "log"
    event = {"v": 1, "id": "e\x1b[2J", "ts": T0, "text": "secret words", "tool": "a\nb\u202e", "type": "user_message"}
    log.write_text(json.dumps(event) + "\n")
    text = show.render(show.show(["e\x1b[2J"], logs=[log], journal=None), searched=[])
    assert "secret" not in text
    assert "12 characters, not shown" in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == 1 + len(event) - 1


def test_the_command_that_a_replay_prints_shows_those_events(home: Path):
    runner = CliRunner()
    printed = runner.invoke(app, ["replay", str(RUNAWAY)]).output
    command = next(line.strip() for line in printed.splitlines() if line.strip().startswith("argus show"))
    shown = runner.invoke(app, command.split()[1:])
    assert shown.exit_code == 0
    first = argus.replay(RUNAWAY).anomalies[0]
    for name in first.evidence[:3]:
        assert f"event {name}  in " in shown.output
    missing = runner.invoke(app, ["show", "nobody", "--log", str(RUNAWAY), "--json"])
    assert (missing.exit_code, json.loads(missing.output)) == (1, {"found": [], "missing": ["nobody"]})


def test_followed_files_of_the_configuration_are_searched_without_being_named(home: Path, tmp_path: Path):
    config = tmp_path / "argus.toml"
    config.write_text(f'[inlets]\njsonl = ["{RUNAWAY}", "{tmp_path}/absent"]\n')
    assert CliRunner().invoke(app, ["show", "demo-18", "-c", str(config)]).exit_code == 0


def test_replay_and_labels_on_the_command_line(home: Path, tmp_path: Path):
    labels = tmp_path / "labels.ndjson"
    labels.write_text('{"session": "nightly", "bad": true}\n')
    told: dict[str, Any] = json.loads(
        CliRunner().invoke(app, ["replay", str(RUNAWAY), "--labels", str(labels), "--json"]).output
    )
    assert [stop["verdict"] for stop in told["shadow"]["stops"]] == ["right", "right"]
    assert sum(rule["stops"] for rule in told["shadow"]["rules"]) == len(told["stops"])
    table = tmp_path / "metrics.csv"
    table.write_text("t,a\n" + "".join(f"{n},{n % 3}\n" for n in range(50)))
    refused = CliRunner().invoke(app, ["replay", str(table), "--labels", str(labels)])
    assert refused.exit_code != 0
    assert "--labels" in str(refused.exception)
    assert CliRunner().invoke(app, ["replay", str(table)]).exit_code == 0
