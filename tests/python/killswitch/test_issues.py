"""Issues: one file for each scope and cause, safe to read and to paste from."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argus.errors import RefusedError
from argus.guard import scope_directory
from argus.killswitch import issues as issues_module
from argus.killswitch.issues import IssueFiler, escape, issue_key
from argus.schema import Hypothesis, Incident, Priority, Scope, ScopeKind, Severity, StopKind

SCOPE = Scope(kind=ScopeKind.SESSION, id="s1", tenant="acme", session="s1")
INCIDENT = Incident(
    id="i1", key="k", ts=1, updated=1, host="box", scope=SCOPE, cause="loop.period_3", severity=Severity.CRITICAL,
    message="the same call 12 times", anomalies=["a1"], evidence=["e1", "e2"], actions=["hard kill set"],
    hypotheses=[Hypothesis(cause="stuck tool", posterior=0.8, evidence_for=["e1"], evidence_against=["e2"])],
)  # fmt: skip


@pytest.fixture
def filer(tmp_path: Path) -> Iterator[IssueFiler]:
    with IssueFiler(tmp_path / "issues") as opened:
        yield opened


def names(filer: IssueFiler) -> list[str]:
    return sorted(p.name for p in filer.directory.iterdir())


def test_critical_incident_becomes_a_p0_with_evidence_stop_and_commands(filer: IssueFiler) -> None:
    issue = filer.file(INCIDENT, stopped=["4 processes"], verified=True, stop=StopKind.HARD_KILL, now=10**18)
    assert issue is not None
    key = issue_key(SCOPE, "loop.period_3")
    assert (issue.priority, issue.key, issue.count) == (Priority.P0, key, 1)
    assert names(filer) == [f"P0-{key}.md"]
    text = Path(issue.path).read_text()
    for expected in ("4 processes", "Stop: verified", "e1", "stuck tool: 80%", "2001-09-09T01:46:40", "hard kill set"):
        assert expected in text
    assert "argus reset hard_kill --scope session:s1 --reason" in text
    assert "argus hold --scope session:s1" in text


def test_information_files_nothing(filer: IssueFiler) -> None:
    assert filer.file(replace(INCIDENT, severity=Severity.INFO)) is None
    assert names(filer) == []


def test_repeats_update_count_and_last_seen_and_never_file_again(filer: IssueFiler) -> None:
    filer.file(INCIDENT, stopped=["4 processes"], verified=True, now=100)
    issue = filer.file(replace(INCIDENT, id="i2", updated=2), now=200)
    assert issue is not None
    assert (issue.count, issue.first_seen, issue.last_seen) == (2, 100, 200)
    assert (issue.stopped, issue.verified) == (["4 processes"], True), "a repeat does not hide what was stopped"
    assert len(names(filer)) == 1
    with IssueFiler(filer.directory) as later:
        issue = later.file(replace(INCIDENT, id="i3", updated=3), now=300)
        assert issue is not None
        assert (issue.count, issue.first_seen) == (3, 100)
        again = later.file(replace(INCIDENT, id="i3", updated=3), now=300)
        assert again is not None
        assert again.count == 3, "the same state written twice is no repeat"


def test_other_scope_or_cause_is_another_issue(filer: IssueFiler) -> None:
    filer.file(INCIDENT)
    filer.file(replace(INCIDENT, cause="budget.cap"))
    filer.file(replace(INCIDENT, scope=replace(SCOPE, id="s2")))
    filer.file(replace(INCIDENT, scope=replace(SCOPE, tenant="other")))
    assert len(names(filer)) == 4
    assert issue_key(replace(SCOPE, id="a", tenant="bc"), "x") != issue_key(replace(SCOPE, id="ab", tenant="c"), "x")


def test_warning_that_turns_critical_moves_to_p0_and_stays(filer: IssueFiler) -> None:
    warning = replace(INCIDENT, severity=Severity.WARNING)
    first = filer.file(warning, now=100)
    assert first is not None
    assert first.priority is Priority.P1
    second = filer.file(replace(INCIDENT, updated=2), now=200)
    assert second is not None
    assert (second.priority, second.count, second.first_seen) == (Priority.P0, 2, 100)
    third = filer.file(replace(warning, updated=3), now=300)
    assert third is not None
    assert (third.priority, third.count) == (Priority.P0, 3)
    assert names(filer) == [f"P0-{first.key}.md"]


def test_a_file_that_was_tampered_with_begins_anew(filer: IssueFiler) -> None:
    issue = filer.file(INCIDENT)
    assert issue is not None
    for raw in (b"", b"\xff" * 99, b"<!-- argus-issue {} -->\n", b"<!-- argus-issue " + b"[" * 9999):
        Path(issue.path).chmod(0o640)
        Path(issue.path).write_bytes(raw)
        again = filer.file(INCIDENT)
        assert again is not None
        assert again.count == 1


def test_a_link_at_the_issues_name_is_replaced_not_followed(filer: IssueFiler, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (filer.directory / f"P0-{issue_key(SCOPE, INCIDENT.cause)}.md").symlink_to(victim)
    issue = filer.file(INCIDENT)
    assert issue is not None
    assert victim.read_text() == "untouched"
    assert not Path(issue.path).is_symlink()


def test_a_failed_write_leaves_the_earlier_file_whole(filer: IssueFiler, monkeypatch: pytest.MonkeyPatch) -> None:
    issue = filer.file(INCIDENT)
    assert issue is not None
    before = Path(issue.path).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        filer.file(replace(INCIDENT, updated=2))
    assert Path(issue.path).read_bytes() == before
    assert len(names(filer)) == 1


HOSTILE = (
    "<script>alert(1)</script> <!-- --> --> @everyone @bob #12 [link](http://evil.example) ![x](y) `code` **bold**\n"
    "# heading\r\n```sh\nrm -rf /\n``` | a | b | www.evil.example https://evil.example "
    "\x1b[2J\x07\x00 \u202egnp.exe \u200b\u2066"
)


def test_untrusted_text_is_inert_everywhere(filer: IssueFiler) -> None:
    incident = replace(
        INCIDENT, id=HOSTILE, host=HOSTILE, cause=HOSTILE, message=HOSTILE, anomalies=[HOSTILE], evidence=[HOSTILE],
        actions=[HOSTILE], scope=Scope(kind=ScopeKind.SESSION, id=HOSTILE, tenant=HOSTILE, agent=HOSTILE, task=HOSTILE),
        hypotheses=[Hypothesis(cause=HOSTILE, posterior=9.0, evidence_for=[HOSTILE], refuted_by=HOSTILE)],
    )  # fmt: skip
    issue = filer.file(incident, stopped=[HOSTILE], verified=False, stop=StopKind.HARD_KILL)
    assert issue is not None
    state_line, _, text = Path(issue.path).read_text().partition("\n")
    assert state_line.count("-->") == 1
    assert state_line.endswith(" -->")
    for forbidden in ("<script", "<!--", "@everyone", "@bob", "#12", "](", "://", "www.", "\x1b", "\x07", "\u202e"):
        assert forbidden not in text, forbidden
    assert next(line for line in text.splitlines() if line.startswith("#")).startswith("# P0: ")
    assert sum(line.startswith("```") for line in text.splitlines()) == 2
    assert "not verified" in text
    commands = text[text.index("```sh") :]
    assert scope_directory("session", HOSTILE) in commands
    for line in commands.splitlines():
        if line.startswith("argus"):
            words = shlex.split(line, comments=True)
            assert set(words[: words.index("--reason")]) & {"argus", "hold", "reset"}
            assert not re.search(r"[;&|`$\n]", " ".join(words))


def test_an_issue_stays_within_its_size(filer: IssueFiler) -> None:
    long = ["\\" * 9999] * 999
    full = replace(INCIDENT, message="\\" * 10**6, anomalies=long, evidence=long, actions=long)
    issue = filer.file(full, stopped=long)
    assert issue is not None
    assert Path(issue.path).stat().st_size <= issues_module.ISSUE_BYTES_MAX
    assert filer.file(replace(INCIDENT, updated=2)) is not None


@settings(deadline=None)  # a busy machine is no fault of the text
@given(st.text())
def test_escape_yields_one_line_without_control_characters(text: str) -> None:
    line = escape(text, 80)
    assert "\n" not in line
    assert line.isprintable() or {c for c in line if not c.isprintable()} <= {"\u200b"}
    for char in "<>`*_[]|":
        assert not re.search(r"(?<!\\)" + re.escape(char), line)
    assert "://" not in line
    assert not re.search(r"@\w", line)


def test_directory_that_others_may_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "issues"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(RefusedError, match="chmod"):
        IssueFiler(path)


def test_an_issue_tells_the_command_that_shows_what_was_found_and_takes_no_other_name_for_it(filer: IssueFiler) -> None:
    known = ["0123456789abcdef", "fedcba9876543210"]
    filed = filer.file(replace(INCIDENT, anomalies=[*known, "$(reboot)", "0123456789ABCDEF"]))
    assert filed is not None
    text = Path(filed.path).read_text()
    assert f"argus show {' '.join(known)}  #" in text
    assert "argus show $" not in text
