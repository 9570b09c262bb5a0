"""What a person sees: one printable line each, whatever the names hold; real objects rendered."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import argus
from argus.engine.core import Engine, EngineOptions, SourceChoice
from argus.judge.incident import IncidentBook
from argus.record.journal import Journal
from argus.record.verify import verify
from argus.schema import Anomaly, Family, Scope, ScopeKind, Severity
from argus.services import status

ROOT = Path(__file__).resolve().parents[3]
FIXTURE = ROOT / "tests" / "fixtures" / "6.18"
RUNAWAY = ROOT / "examples" / "runaway.ndjson"
T0 = 1_760_000_000_000_000_000

HOSTILE = {
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "bidi": "abc\u202egnp.exe\u2066\u200f",
    "newline": "first\nsecond\r\n\u2028third\x85fourth",
    "nul": "a\0b",
    "surrogate": "a\ud800b",
    "long": "x" * 10_000,
    "zero width": "a\u200b\ufeffb",
}
each_hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


def anomaly(**fields: Any) -> Anomaly:
    return Anomaly(
        **{
            "id": "a",
            "ts": T0,
            "host": "h",
            "family": Family.BEHAVIOURAL,
            "detector": "loop",
            "scope": Scope(ScopeKind.SESSION, "run"),
            "series": "loop.period_1",
            "severity": Severity.CRITICAL,
            "message": "said",
            "criterion": "C2",
            **fields,
        }
    )


def reply(**fields: Any) -> dict[str, Any]:
    """A collector's answer, as a real engine counts."""
    with Engine(EngineOptions(proc=str(FIXTURE / "proc"), sys=str(FIXTURE / "sys"))) as engine:
        engine.step(T0)
        latest = engine.latest()
        return {
            **engine.statistics(),
            "pid": 42,
            "host": "machine",
            "uptime_s": 61.4,
            "mode": "enforce",
            "home": "/var/lib/argus-data",
            "host_line": status.host_line(latest.names, latest.values),
            "processes": 4,
            "entity": {"bits": 0.0, "drivers": [], "shares": []},
            "maintenance": "",
            "claims": msgspec.to_builtins(engine.claims()),
            "accepted": 7,
            "rejected_total": 2,
            "shed": 0,
            "flags": [],
            "incidents": 0,
            "sessions": [],
            **fields,
        }


# --- The machine as one ----------------------------------------------------------------------------------------------


def test_the_machine_as_one_is_told_with_the_series_that_moved_it():
    assert "not known yet" in status.entity_words({"bits": 0.0, "drivers": [], "shares": []})
    calm = status.entity_words({"bits": 1.1, "drivers": ["load"], "shares": [0.25]})
    assert "1.1 bits, as expected" in calm
    assert calm.endswith("most from load 25%")
    loud = status.entity_words({"bits": 2.0, "drivers": ["a", "b", "c", "d"], "shares": [0.5, 0.2, 0.1, 0.1]})
    assert "2.0 bits, strange" in loud
    assert loud.endswith("most from a 50%, b 20%, c 10%")


# --- Untrusted text --------------------------------------------------------------------------------------------------


@given(text=st.text(max_size=300), limit=st.integers(2, 200))
def test_printable_is_one_printable_line_within_its_limit(text: str, limit: int):
    shown = status.printable(text, limit)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert len(shown) == min(len(text), limit)
    if text.isprintable() and len(text) <= limit:
        assert shown == text


@each_hostile
def test_printable_lets_nothing_hostile_through(name: str):
    shown = status.printable(name)
    assert shown.isprintable()
    assert len(shown) <= 120
    assert not set(shown) & set("\x1b\n\r\u202e\u2066\u2028\0")


def test_what_was_cut_shows_that_it_was():
    assert status.printable("abcdef", 4) == "abc…"
    assert status.printable("abcd", 4) == "abcd"


@each_hostile
def test_an_anomaly_stays_one_line_whoever_named_it(name: str):
    line = status.anomaly_line(anomaly(message=name, scope=Scope(ScopeKind.SESSION, name)))
    assert line.isprintable()
    assert len(line) < 420


@each_hostile
def test_status_and_incidents_keep_their_lines_whatever_the_names(name: str):
    source = {"name": name, "events": 3, "lost": 1, "rejected": {"wrong_type": 2}}
    told = {"host": name, "home": name, "flags": [name], "event_sources": [source]}
    plain = {"host": "h", "home": "/h", "flags": ["f"], "event_sources": [{**source, "name": "s"}]}
    rendered, expected = (status.render_status(reply(**fields)) for fields in (told, plain))
    assert all(line.isprintable() for line in rendered.split("\n"))
    assert rendered.count("\n") == expected.count("\n")

    book = IncidentBook()
    book.add(anomaly(message=name, scope=Scope(ScopeKind.SESSION, name)))
    book.acted(book.open()[0].key, name)
    lines = status.render_incidents(msgspec.to_builtins(book.open())).split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 3 + len(book.open()[0].hypotheses) + 1
    assert max(map(len, lines)) < 400


@each_hostile
def test_a_replay_keeps_its_lines_whatever_the_names(name: str):
    report = argus.replay(RUNAWAY)
    (stop, *_), (first, *_) = report.stops, report.anomalies
    renamed = msgspec.structs.replace(
        report,
        stops=[msgspec.structs.replace(stop, reason=name, scope=Scope(ScopeKind.SESSION, name))],
        anomalies=[msgspec.structs.replace(first, message=name, series=name)],
    )
    lines = status.render_replay(renamed, limit=9).split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 7


# --- Anomalies -------------------------------------------------------------------------------------------------------


def test_an_anomaly_line_tells_severity_rule_scope_and_message():
    assert status.anomaly_line(anomaly()).endswith(" CRITICAL C2 [session:run] said")
    plain = anomaly(severity=Severity.INFO, criterion="", scope=Scope(ScopeKind.HOST, ""))
    assert status.anomaly_line(plain)[8:] == " info said"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1536.0, "By", "1.5 KiB"),
        (1023.0, "By", "1023 B"),
        (3 * 2**40 * 1024.0, "By", "3072 TiB"),
        (-2048.0, "By/s", "-2 KiB/s"),
        (0.12345, "1", "0.1235"),
        (7.0, "", "7"),
        (12.0, "s", "12 s"),
        (float("nan"), "By", "nan TiB"),
    ],
)
def test_a_quantity_is_scaled_for_reading(value: float, unit: str, shown: str):
    assert status.quantity(value, unit) == shown


# --- Processes -------------------------------------------------------------------------------------------------------


def table(*rows: tuple[int, bytes, float]) -> dict[str, Any]:
    return {
        "pid": np.array([pid for pid, _, _ in rows], dtype=np.int32),
        "name": np.array([name for _, name, _ in rows], dtype="S64"),
        "cpu_utilization": np.array([share for _, _, share in rows]),
    }


def test_the_busiest_come_first_ties_in_table_order_and_the_idle_not_at_all():
    rows = table((1, b"idle", 0.0), (2, b"some", 0.25), (3, b"most", 1.5), (4, b"same", 0.25), (5, b"new", np.nan))
    assert status.busiest(rows, 9) == ["most(3) 150%", "some(2) 25%", "same(4) 25%"]
    assert status.busiest(rows, 1) == ["most(3) 150%"]
    assert status.busiest(table((1, b"a", np.nan), (2, b"b", 0.004))) == []


def test_no_table_has_no_busiest():
    assert status.busiest({}) == []
    assert status.busiest(table()) == []


@pytest.mark.parametrize("name", [b"\x1b[31mred", b"a\nb", b"\xff\xfe", "\u202eevil".encode(), b"x" * 64])
def test_a_process_name_is_shown_printable_and_short(name: bytes):
    (shown,) = status.busiest(table((1, name, 1.0)))
    assert shown.isprintable()
    assert shown.endswith("(1) 100%")
    assert len(shown) <= 16 + len("(1) 100%")


# --- The host in a line ----------------------------------------------------------------------------------------------


def host(**values: float) -> str:
    names = {
        "user": "system.cpu.time{cpu.mode=user}",
        "idle": "system.cpu.time{cpu.mode=idle}",
        "iowait": "system.cpu.time{cpu.mode=iowait}",
        "mem": "system.memory.utilization",
        "load": "system.cpu.load_average.1m",
        "io": "system.pressure.stall_time{system.pressure.kind=some,system.pressure.resource=io}",
    }
    return status.host_line(tuple(names[name] for name in values), np.array(list(values.values())))


def test_what_is_not_observed_is_left_out_of_the_host_line():
    assert (
        host(user=0.5, idle=1.0, iowait=0.5, mem=0.421, load=1.234, io=0.07)
        == "cpu 25% mem 42% load 1.23 stalled io 7%"
    )
    assert host(mem=np.nan, load=0.0) == "load 0.00"
    assert host(user=np.nan, idle=np.nan, mem=0.0) == "mem 0%"
    assert host(io=0.004, load=1.0) == "load 1.00"
    assert host(load=np.nan) == "host not observed"
    assert status.host_line((), np.array([])) == "host not observed"


def test_the_host_line_reads_the_names_that_the_sources_give(tmp_path: Path):
    shutil.copytree(FIXTURE, tmp_path / "host")
    proc = tmp_path / "host" / "proc"
    quick = {name: SourceChoice(interval_ms=10) for name in ("cpu", "memory", "network", "pressure")}
    with Engine(EngineOptions(proc=str(proc), sys=str(tmp_path / "host" / "sys"), sources=quick)) as engine:
        engine.step(T0)
        latest = engine.latest()
        first = status.host_line(latest.names, latest.values)
        assert first.startswith("mem ")  # no rate yet
        assert "load " in first
        head, *rest = (proc / "stat").read_text().split("\n")
        name, user, *others = head.split()
        (proc / "stat").write_text("\n".join([" ".join([name, str(int(user) + 400), *others]), *rest]))
        some, total = (proc / "pressure" / "io").read_text().split("\n")[0].rsplit("=", 1)
        full = (proc / "pressure" / "io").read_text().split("\n")[1]
        (proc / "pressure" / "io").write_text(f"{some}={int(total) + 10**9}\n{full}\n")
        time.sleep(0.011)
        engine.step(T0 + 10**9)
        latest = engine.latest()
    second = status.host_line(latest.names, latest.values)
    assert second.startswith("cpu 100% mem ")
    assert "stalled io " in second


# --- Real objects ----------------------------------------------------------------------------------------------------


def test_status_names_sources_flags_and_what_was_rejected():
    rendered = status.render_status(
        reply(
            flags=["hard_kill session:run"],
            event_sources=[{"name": "bus", "events": 3, "lost": 1, "rejected": {"wrong_type": 2, "malformed": 0}}],
        )
    )
    assert "argus-collect pid 42 on machine, up 61 s, mode enforce, state in /var/lib/argus-data" in rendered
    assert "cpu        running      1 polls" in rendered
    assert "3 events, 1 lost, rejected: wrong_type 2\n" in rendered
    assert "flags   hard_kill session:run\n" in rendered
    assert "flags   none\n" in status.render_status(reply())


def test_status_shows_ten_sources_of_events_at_most():
    sources = [{"name": f"s{i}", "events": 1, "lost": 0, "rejected": {}} for i in range(500)]
    rendered = status.render_status(reply(event_sources=sources))
    assert "from 500 sources" in rendered
    assert rendered.count(" 1 events, 0 lost") == 10


def test_an_absent_source_is_told_with_its_reason(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    with Engine(EngineOptions(proc=str(tmp_path / "proc"), sys=str(tmp_path))) as engine:
        engine.step(T0)
        rendered = status.render_status(reply(**engine.statistics()))
    assert "pressure   unavailable" in rendered
    assert "not present" in rendered


def test_incidents_tell_severity_scope_causes_and_deeds():
    assert status.render_incidents([]) == "no open incidents"
    book = IncidentBook()
    incident = book.add(anomaly())
    book.acted(incident.key, "hard_kill.flag set")
    rendered = status.render_incidents(msgspec.to_builtins(book.open()))
    assert rendered.startswith(
        f"CRITICAL {incident.key}  session:run  runaway  x1  open\n         said\n         see: argus show a\n"
    )
    assert rendered.endswith("         did: hard_kill.flag set")
    for hypothesis in incident.hypotheses:
        assert f"{hypothesis.posterior:.0%} {hypothesis.cause}" in rendered


def test_a_replay_is_told_with_counts_stops_and_first_anomalies():
    report = argus.replay(RUNAWAY)
    rendered = status.render_replay(report, limit=1)
    assert rendered.startswith(f"{report.events} events judged; rejected: none\n")
    assert f"{len(report.anomalies)} anomalies in {len(report.incidents)} incidents\n" in rendered
    assert f"\n{len(report.stops)} stops that would have been made\n" in rendered
    assert rendered.count(f" {report.stops[0].criterion} [session:nightly] ") == 1 + (
        status.anomaly_line(report.anomalies[0]).count(f" {report.stops[0].criterion} [session:nightly] ")
    )
    assert rendered.split("\n")[-2:] == ["first 1 anomalies:", "  " + status.anomaly_line(report.anomalies[0])]


def test_an_empty_replay_is_told_as_such():
    rendered = status.render_replay(argus.replay([{"v": 1}]), limit=3)
    assert rendered == (
        "0 events judged; rejected: missing_key 1\n0 anomalies in 0 incidents\n0 stops that would have been made"
    )


def test_a_verification_is_told_either_way(tmp_path: Path):
    path = tmp_path / "journal.db"
    with Journal(path, tmp_path / "keys", clock=lambda: T0) as journal:
        for number in range(3):
            journal.append("sample", {"number": number})
        journal.commit()
    report = verify(path, tmp_path / "keys" / "journal.pub")
    assert status.render_verify(report).startswith(f"journal holds: {report.records} records, ")
    assert report.head[:16] in status.render_verify(report)
    bad = msgspec.structs.replace(report, ok=False, first_bad=2, reason="hash\x1b[2Jdiffers")
    assert status.render_verify(bad) == "journal does NOT hold at record 2: hash?[2Jdiffers"
    cut = msgspec.structs.replace(bad, first_bad=None)
    assert status.render_verify(cut).startswith("journal does NOT hold at the file: ")


# --- Claims ----------------------------------------------------------------------------------------------------------


def test_claims_and_the_coverage_of_each_agent_that_lives_are_told():
    claims = {
        "files": 9, "confirmed": 4, "refuted": 1, "undecided": 1, "withdrawn": 0, "shed": 1,
        "unverifiable": {"foreign": 2, "path": 0},
        "agents": [
            {
                "session": "run\x1b[2J", "agent": "planner", "alive": True, "since": T0,
                "cpu_s": {"all": 200.0, "accounted": 150.0},
                "write_bytes": {"all": 2048.0, "accounted": 0.0},
                "processes": {"all": 0.0, "accounted": 0.0},
            },
            {
                "session": "ended", "agent": "", "alive": False, "since": T0,
                **{name: {"all": 1.0, "accounted": 1.0} for name in ("cpu_s", "write_bytes", "processes")},
            },
        ],
    }  # fmt: skip
    rendered = status.render_status(reply(claims=claims))
    assert (
        "claims  9 files: 4 confirmed, 1 refuted, 1 undecided, 0 withdrawn, 1 shed, 2 unverifiable (foreign 2)"
        in rendered
    )
    assert "run?[2J (planner): events account for 75% of 200 s processor time, 0% of 2 KiB written\n" in rendered + "\n"
    assert "ended:" not in rendered
    assert "events account for nothing yet" in "\n".join(
        status.claim_lines(
            {
                **claims,
                "agents": [
                    {
                        **claims["agents"][0],
                        "cpu_s": {"all": 0.0, "accounted": 0.0},
                        "write_bytes": {"all": 0.0, "accounted": 0.0},
                    }
                ],
            }
        )
    )
