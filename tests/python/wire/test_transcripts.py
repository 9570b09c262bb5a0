"""Session logs of coding agents: what they say becomes events of schema v1; what they hold stays behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.engine.core import EVENT_TIME, Engine
from argus.errors import UnreachableError, UsageError
from argus.wire.transcripts import reader
from argus.wire.transcripts.claude_code import ClaudeCode
from argus.wire.transcripts.codex import Codex, outcome
from argus.wire.transcripts.common import CALLS_MAX, FAULTS_MAX, KINDS_MAX, Context, bounded
from argus.wire.transcripts.reader import Log, LogFollower, find, format_of, read

KEY = bytes(range(32))
T0 = 1_767_434_400  # 2026-01-03T10:00:00Z


def clock(second: float) -> str:
    whole, part = divmod(round(second * 1000), 1000)
    hours, rest = divmod(36_000 + whole, 3600)
    return f"2026-01-03T{hours:02}:{rest // 60:02}:{rest % 60:02}.{part:03}Z"


def claude(kind: str, ident: str, second: float, message: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "type": kind, "uuid": ident, "sessionId": "sess-1", "timestamp": clock(second), "version": "2.1.29",
        "isSidechain": False, "cwd": "/project", **({} if message is None else {"message": message}), **more,
    }  # fmt: skip


def answer(ident: str, second: float, content: list[dict[str, Any]], *, message: str, out: int = 50, stop: Any = None):
    usage = {
        "input_tokens": 500,
        "output_tokens": out,
        "cache_read_input_tokens": 9000,
        "cache_creation_input_tokens": 70,
    }
    body = {
        "id": message,
        "role": "assistant",
        "model": "opus",
        "content": content,
        "usage": usage,
        "stop_reason": stop,
    }
    return claude("assistant", ident, second, body)


def use(ident: str, name: str, **given_input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": ident, "name": name, "input": given_input}


def result(ident: str, second: float, call: str, content: Any, **more: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": call, "content": content, **more.pop("block", {})}
    return claude("user", ident, second, {"role": "user", "content": [block]}, **more)


CLAUDE = [
    {"type": "summary", "summary": "PRIVATE words", "leafUuid": "x"},
    claude("user", "u1", 0, {"role": "user", "content": "PRIVATE prompt"}),
    answer("a1", 2, [{"type": "text", "text": "PRIVATE thought"}], message="m1", out=1),
    answer("a2", 3, [use("t1", "Write", file_path="/project/new.py", content="PRIVATE é")], message="m1", out=50,
           stop="tool_use"),
    result("r1", 4, "t1", "PRIVATE done", toolUseResult={"type": "create", "filePath": "/project/new.py"}),
    answer("a3", 5, [use("t2", "Bash", command="PRIVATE ls")], message="m2", stop="tool_use"),
    result("r2", 7.5, "t2", "PRIVATE failure", block={"is_error": True}),
    answer("a4", 9, [{"type": "text", "text": "PRIVATE end"}], message="m3", stop="end_turn"),
    claude("system", "s1", 9.5, subtype="turn_duration", durationMs=9500),
]  # fmt: skip


def codex(kind: str, second: float, **payload: Any) -> dict[str, Any]:
    return {"timestamp": clock(second), "type": kind, "payload": payload}


def count(second: float, total: int, last: dict[str, int] | None) -> dict[str, Any]:
    info = {"total_token_usage": {"input_tokens": total, "output_tokens": total // 10}, "last_token_usage": last}
    return codex("event_msg", second, type="token_count", info=info)


CODEX = [
    codex("session_meta", 0, id="thread-1", cli_version="0.125.0", model_provider="openai", source="cli", cwd="/p"),
    codex("event_msg", 1, type="task_started", turn_id="turn-a"),
    codex("turn_context", 1, model="gpt-5", turn_id="turn-a", cwd="/p"),
    codex("response_item", 1, type="message", role="user", content=[{"type": "input_text", "text": "PRIVATE"}]),
    codex("event_msg", 1, type="user_message", message="PRIVATE"),
    codex("event_msg", 1, type="token_count", info=None, rate_limits={}),
    codex("response_item", 2, type="function_call", name="exec_command", arguments='{"cmd": "PRIVATE ls"}',
          call_id="c1"),
    codex("response_item", 3, type="function_call_output", call_id="c1",
          output="Chunk ID: ef0014\nWall time: 0.1 seconds\nProcess exited with code 0\nOutput:\nPRIVATE a\n"),
    count(3.5, 1000, {"input_tokens": 1000, "cached_input_tokens": 600, "output_tokens": 100,
                      "reasoning_output_tokens": 40}),
    count(3.6, 1000, {"input_tokens": 1000, "cached_input_tokens": 600, "output_tokens": 100}),
    codex("response_item", 4, type="custom_tool_call", name="apply_patch", input="*** PRIVATE", call_id="c2"),
    codex("event_msg", 5, type="patch_apply_end", call_id="c2", success=True, status="completed", changes={
        "/p/new.py": {"type": "add", "content": "PRIVATE"},
        "/p/old.py": {"type": "delete", "content": "PRIVATE"},
        "/p/here.py": {"type": "update", "unified_diff": "PRIVATE", "move_path": "/p/there.py"},
    }),
    codex("response_item", 5, type="custom_tool_call_output", call_id="c2",
          output=json.dumps({"output": "PRIVATE", "metadata": {"exit_code": 1, "duration_seconds": 0.0}})),
    count(6, 1500, None),
    codex("event_msg", 8, type="task_complete", turn_id="turn-a", last_agent_message="PRIVATE", duration_ms=7000),
]  # fmt: skip


def lines(records: list[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def events_of(records: list[Any], context: Context | None = None) -> list[dict[str, Any]]:
    log = Log(context or Context(KEY), "log.jsonl")
    found = [event for events in log.add_block(lines(records)) for event in events]
    return [*found, *(event for events in log.finish() for event in events), *log.silent()]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def only(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def judged(events: list[dict[str, Any]]) -> tuple[int, dict[str, int], list[str]]:
    """What the engine makes of events: accepted, rejected by reason, series of its anomalies."""
    with Engine(host_plane=False) as engine:
        report = engine.ingest(msgpack.packb(events), now=EVENT_TIME)
        found = report.anomalies + engine.finish(int(engine.statistics()["last_event_ts"]))
    return report.accepted, dict(report.rejected), [anomaly.series for anomaly in found]


def test_a_turn_of_claude_code_becomes_a_task_with_its_calls_costs_and_files():
    context = Context(KEY, tenant="home")
    events = events_of(CLAUDE, context)
    assert sorted(kinds(events)) == sorted(
        ["user_message", "task_started", "task_completed", "file_written"]
        + ["model_returned"] * 3 + ["token_cost_logged"] * 3 + ["tool_called"] * 2 + ["tool_returned"] * 2
    )  # fmt: skip
    assert {event["session"] for event in events} == {"sess-1"} and {event["task"] for event in events} == {"u1"}
    assert {event["tenant"] for event in events} == {"home"} and {event["agent"] for event in events} == {"claude-code"}
    first = only(events, "token_cost_logged")[0]
    assert (first["input_tokens"], first["output_tokens"]) == (500, 50), "the largest of a response's lines, once"
    assert (first["cache_read_tokens"], first["cache_write_tokens"], first["model"]) == (9000, 70, "opus")
    good, bad = only(events, "tool_returned")
    assert (good["ok"], good["duration_ns"], good["tool"], good["call"]) == (True, 10**9, "Write", "t1")
    assert (bad["ok"], bad["duration_ns"], bad["error"]) == (False, 2_500_000_000, "tool_error")
    written = only(events, "file_written")[0]
    assert (written["path"], written["op"], written["bytes"]) == (
        "/project/new.py",
        "create",
        len("PRIVATE é".encode()),
    )
    end = only(events, "task_completed")[0]
    assert (end["ok"], end["duration_ns"], end["ts"]) == (True, 9_500_000_000, (T0 * 10 + 95) * 10**8)
    assert context.counts.rejected == {} and context.counts.unknown == {}


def test_a_turn_of_codex_becomes_a_task_with_its_calls_costs_and_files():
    context = Context(KEY)
    events = events_of(CODEX, context)
    assert {event["session"] for event in events} == {"thread-1"}
    assert {event["task"] for event in events} == {"turn-a"}
    assert {event["agent_version"] for event in events} == {"0.125.0"}
    first, second = only(events, "token_cost_logged")
    assert (first["input_tokens"], first["cache_read_tokens"]) == (400, 600), "cached input is priced apart"
    assert (first["output_tokens"], first["reasoning_tokens"]) == (100, 40)
    assert (first["model"], first["provider"]) == ("gpt-5", "openai")
    assert (second["input_tokens"], second["output_tokens"]) == (500, 50), "without a last usage: what the sum grew by"
    good, bad = only(events, "tool_returned")
    assert (good["tool"], good["ok"], bad["tool"], bad["ok"]) == ("exec_command", True, "apply_patch", False)
    assert [(e["path"], e.get("op"), e.get("bytes")) for e in only(events, "file_written")] == [
        ("/p/new.py", "create", 7), ("/p/there.py", "rename", None),
    ]  # fmt: skip
    assert [e["path"] for e in only(events, "file_deleted")] == ["/p/old.py", "/p/here.py"]
    end = only(events, "task_completed")[0]
    assert (end["duration_ns"], end["ok"]) == (7_000_000_000, True)
    assert context.counts.rejected == {} and context.counts.unknown == {}


@pytest.mark.parametrize("records", [CLAUDE, CODEX], ids=["claude-code", "codex"])
def test_the_engine_takes_every_event_and_finds_nothing_wrong_with_a_good_turn(records: list[Any]):
    events = events_of(records)
    accepted, rejected, anomalies = judged(events)
    assert (accepted, {k: n for k, n in rejected.items() if n}) == (len(events), {})
    assert anomalies == []
    assert len({(event["source"], event["id"]) for event in events}) == len(events)


@pytest.mark.parametrize("records", [CLAUDE, CODEX], ids=["claude-code", "codex"])
def test_no_content_is_kept(records: list[Any]):
    assert b"PRIVATE" in lines(records) and "PRIVATE" not in json.dumps(events_of(records), ensure_ascii=False)


def test_hashes_need_the_key_and_see_through_what_differs_each_time():
    one, other = Context(KEY), Context(bytes(32))
    assert one.digest({"a": 1, "b": 2}) == one.digest({"b": 2, "a": 1}) != other.digest({"a": 1, "b": 2})
    assert one.digest(2**70)[1] == len(str(2**70))
    nonces = ["Chunk ID: 1\nWall time: 0.1\nProcess exited with code 0\nOutput:\nx",
              "Chunk ID: 2\nWall time: 9.9\nProcess exited with code 0\nOutput:\nx"]  # fmt: skip
    assert outcome(nonces[0]) == outcome(nonces[1]) == (True, [0, "x"])
    assert outcome("Exit code: 2\nWall time: 1\nOutput:\ny") == (False, [2, "y"])
    assert outcome("Wall time: 1\nProcess running\nOutput:\npart") == (None, "part")
    assert outcome("plain words") == (None, "plain words")
    assert outcome({"content": "c", "success": False}) == (False, "c")
    spaced, tight = (
        codex("response_item", 2, type="function_call", name="f", arguments=given, call_id="c")
        for given in ('{"a": 1, "b": 2}', '{"b":2,"a":1}')
    )
    hashes = {only(events_of([CODEX[0], call]), "tool_called")[0]["args_hash"] for call in (spaced, tight)}
    assert len(hashes) == 1


def test_a_turn_without_a_recorded_end_ends_with_its_last_word():
    events = events_of(CLAUDE[:-1])
    assert events[-1]["type"] == "task_completed" and events[-1]["ts"] == (T0 + 9) * 10**9
    again = events_of([*CLAUDE[:-1], claude("user", "u2", 700, {"role": "user", "content": "more"})])
    ends = only(again, "task_completed")
    assert [end["ts"] for end in ends] == [(T0 + 9) * 10**9], "not when the next prompt came"
    broken = events_of(CLAUDE[:6])
    assert "task_completed" not in kinds(broken), "it broke off within a call: it has no end"
    moved_on = events_of([*CLAUDE[:6], claude("user", "u2", 700, {"role": "user", "content": "more"})])
    assert only(moved_on, "task_cancelled")[0]["ok"] is False
    stopped = events_of([*CLAUDE[:6], claude("user", "u2", 8, {"role": "user", "content": [
        {"type": "text", "text": "[Request interrupted by user for tool use]"}]})])  # fmt: skip
    assert only(stopped, "task_cancelled")[0]["error"] == "interrupted"


def test_notices_are_no_prompts_and_subagents_have_turns_of_their_own():
    notices = [
        claude("user", "n1", 1, {"role": "user", "content": "<command-name>/clear</command-name>"}),
        claude("user", "n2", 1, {"role": "user", "content": [{"type": "text", "text": "skill"}]}, isMeta=True),
        claude("user", "n3", 1, {"role": "user", "content": "summary"}, isCompactSummary=True),
    ]
    assert events_of(notices) == []
    side = [
        {**record, "isSidechain": True, "agentId": "ad2d877", "uuid": f"side-{n}"}
        for n, record in enumerate(CLAUDE)
        if "uuid" in record
    ]
    mixed = [record for pair in zip(CLAUDE[1:], side, strict=True) for record in pair]
    events = events_of(mixed)
    assert {event["agent"] for event in events} == {"claude-code", "claude-code/subagent"}
    assert len(only(events, "task_completed")) == 2 and len({event["source"] for event in events}) == 2
    assert len(only(events, "token_cost_logged")) == 3, "a response that is told of twice counts once"


def test_failed_model_calls_are_told_of():
    shown = claude("assistant", "a9", 3, {"model": "<synthetic>", "content": []}, isApiErrorMessage=True,
                   error="rate_limit")  # fmt: skip
    events = events_of([CLAUDE[1], claude("system", "s9", 2, subtype="api_error"), shown])
    assert [(e["ok"], e["error"]) for e in only(events, "model_returned")] == [
        (False, "api_error"),
        (False, "rate_limit"),
    ]
    failed = events_of([*CODEX[:3], codex("event_msg", 2, type="error", codex_error_info="server_overloaded")])
    assert only(failed, "model_returned")[0]["error"] == "server_overloaded"


def test_codex_without_bounds_of_turns_takes_prompts_for_them():
    records = [
        CODEX[0],
        codex("event_msg", 1, type="user_message", message="one"),
        codex("response_item", 2, type="message", role="assistant", content=[]),
        codex("event_msg", 100, type="user_message", message="two"),
        codex("response_item", 101, type="web_search_call", status="completed", action={"type": "search"}),
        codex("event_msg", 102, type="turn_aborted", reason="interrupted"),
    ]
    events = events_of(records)
    assert [e["ts"] for e in only(events, "task_completed")] == [(T0 + 2) * 10**9]
    assert only(events, "task_cancelled")[0]["error"] == "interrupted"
    assert only(events, "tool_returned")[0]["tool"] == "web_search"


def test_a_resumed_session_repeats_lines_that_count_once(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(lines(CLAUDE))
    (tmp_path / "b.jsonl").write_bytes(lines([{**record, "sessionId": "sess-2"} for record in CLAUDE]))
    context = Context(KEY)
    events = list(read([tmp_path], context))
    assert len(events) == len(events_of(CLAUDE)) and context.counts.repeated == len(CLAUDE) - 1


def test_unknown_records_are_counted_and_the_rest_lives():
    strange = [
        {"type": "new-kind-of-record", "payload": 1},
        claude("system", "s7", 1, subtype="never-seen"),
        claude("new-kind", "x", 1),
    ]
    context = Context(KEY)
    assert len(events_of([*CLAUDE[:2], *strange, *CLAUDE[2:]], context)) == len(events_of(CLAUDE))
    assert context.counts.unknown == {
        "claude-code/new-kind-of-record": 1, "claude-code/system/never-seen": 1, "claude-code/new-kind": 1,
    }  # fmt: skip
    context = Context(KEY)
    later = [codex("response_item", 2, type="novel"), codex("event_msg", 2, type="novel"), codex("newer", 2)]
    events_of([*CODEX[:3], *later], context)
    assert context.counts.unknown == {"codex/response_item/novel": 1, "codex/event_msg/novel": 1, "codex/newer": 1}


def test_names_of_unknown_records_are_bounded():
    context = Context(KEY)
    events_of([CLAUDE[1], *(claude(f"kind-{n}" + "x" * 300, str(n), 1) for n in range(KINDS_MAX + 50))], context)
    assert len(context.counts.unknown) == KINDS_MAX + 1 and context.counts.unknown["other"] == 50
    assert max(map(len, context.counts.unknown)) <= 64


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{nonsense", "not_json"),
        (b"[1, 2]", "not_object"),
        (b'{"a": "\xff"}', "not_json"),
        (b'{"type": "other"}', "unknown_format"),
        (b"[" * 5000, "not_json"),
        (json.dumps(claude("user", "u", 1) | {"timestamp": "yesterday"}).encode(), "no_timestamp"),
        (json.dumps(claude("user", "u", 1) | {"sessionId": 7}).encode(), "no_session"),
        (json.dumps(claude("user", "", 1)).encode(), "no_uuid"),
        (json.dumps(result("r", 1, "gone", "x")).encode(), "result_without_call"),
        (json.dumps(answer("a", 1, [{"type": "tool_use"}], message="m")).encode(), "call_without_name"),
        (json.dumps(answer("a", 1, [], message="m", out=-5)).encode(), "bad_token_count"),
        (json.dumps(codex("response_item", 1, type="function_call")).encode(), "no_session"),
    ],
)
def test_what_cannot_be_taken_is_counted_with_its_place_and_without_its_content(line: bytes, reason: str):
    context = Context(KEY)
    log = Log(context, "some.jsonl")
    list(log.add_block(line + b"\n" + lines(CLAUDE)))
    assert context.counts.rejected == {reason: 1}
    assert [(f.file, f.line, f.reason) for f in context.counts.faults] == [("some.jsonl", 1, reason)]
    assert "task_completed" in context.counts.by_type or log.converter is None or log.converter.name == "codex"


def test_long_lines_many_values_and_many_calls_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader, "LINE_BYTES_MAX", 300_000)
    monkeypatch.setattr(reader, "VALUES_MAX", 1000)
    context = Context(KEY)
    log = Log(context, "x")
    long = json.dumps(claude("user", "big", 1, {"content": "x" * 400_000})).encode()
    many = json.dumps(claude("user", "many", 1, {"content": ["1"] * 55_000})).encode()
    data = long + b"\n" + many + b"\n" + lines(CLAUDE)
    found = [e for at in range(0, len(data), 8192) for events in log.add_block(data[at : at + 8192]) for e in events]
    assert context.counts.rejected == {"too_long": 1, "too_many_values": 1}
    assert len(found) == len(events_of(CLAUDE)) and len(log._partial) == 0
    calls = [answer(f"a{n}", 1, [use(f"t{n}", "Bash")], message=f"m{n}") for n in range(CALLS_MAX + 10)]
    context = Context(KEY)
    events_of([CLAUDE[1], *calls], context)
    assert context.counts.rejected == {"too_many_calls": 10}
    for n in range(FAULTS_MAX + 9):
        context.counts.reject("f", n, "r")
    assert len(context.counts.faults) == FAULTS_MAX


def test_hostile_values_stay_within_the_limits_of_the_schema():
    long = "\x00‮é" * 3000
    hostile = answer(long, 1, [use(long, long, **{long: 2**80}), use("ok", "Write", file_path=long)], message=long)
    hostile = hostile | {"version": long, "sessionId": long}
    hostile["message"]["model"] = long
    events = events_of([hostile, result(long + "r", 2, "ok", "x") | {"sessionId": long}])
    accepted, rejected, _ = judged(events)
    assert len(only(events, "file_written")) == 1
    assert (accepted, {k: n for k, n in rejected.items() if n}) == (len(events), {})
    assert bounded("a" * 200, 64) != bounded("a" * 201, 64) and len(bounded(long, 64).encode()) <= 64


def test_time_never_falls_back_within_a_log():
    late = [*CLAUDE[:3], {**CLAUDE[3], "timestamp": clock(-100)}, *CLAUDE[4:]]
    context = Context(KEY)
    times = [event["ts"] for event in events_of(late, context)]
    assert times == sorted(times) and context.counts.reordered > 0


def test_logs_are_merged_in_order_of_time_and_found_in_directories(tmp_path: Path):
    project = tmp_path / "projects" / "-p" / "sess-1"
    project.mkdir(parents=True)
    (project.parent / "a.jsonl").write_bytes(lines(CLAUDE))
    (project / "b.jsonl").write_bytes(lines(CODEX))
    (project / "notes.txt").write_text("no log")
    context = Context(KEY)
    events = list(read([tmp_path], context))
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    assert context.counts.files == 2 and len(events) == len(events_of(CLAUDE)) + len(events_of(CODEX))
    assert list(read([tmp_path], Context(KEY), kind=Codex)) == events_of(CODEX)
    assert find([tmp_path, project]) == find([tmp_path])
    with pytest.raises(UnreachableError, match="gone: expected a session log"):
        find([tmp_path / "gone"])
    assert (format_of("auto"), format_of("codex"), format_of("claude-code")) == (None, Codex, ClaudeCode)
    with pytest.raises(UsageError, match="expected auto, claude-code, codex"):
        format_of("other")


def test_a_torn_last_line_is_counted_and_a_whole_one_counts(tmp_path: Path):
    log = tmp_path / "a.jsonl"
    log.write_bytes(lines(CLAUDE).rstrip())
    assert len(list(read([log], Context(KEY)))) == len(events_of(CLAUDE))
    log.write_bytes(lines(CLAUDE)[:-9])
    context = Context(KEY)
    list(read([log], context))
    assert context.counts.rejected == {"torn_line": 1}


def test_a_follower_tells_of_what_is_new_and_of_the_turn_that_runs(tmp_path: Path):
    log = tmp_path / "a.jsonl"
    log.write_bytes(lines(CLAUDE[:4]))
    (tmp_path / "b.jsonl").write_bytes(lines(CODEX))
    context = Context(KEY)
    follower = LogFollower([tmp_path], context, since=int((T0 + 3.5) * 1e9))
    follower.scan(0)
    assert follower.poll(0) == []
    with log.open("ab") as file:
        file.write(lines(CLAUDE[4:]))
    follower.scan(1)
    events = follower.poll(1)
    assert kinds(events)[:3] == ["task_started", "tool_returned", "file_written"], "its start first, then its results"
    assert kinds(events)[-1] == "task_completed" and len(only(events, "tool_called")) == 1
    assert judged(events)[2] == []
    (tmp_path / "new.jsonl").write_bytes(lines(CODEX).replace(b"thread-1", b"thread-2"))
    follower.scan(2)
    assert {e["session"] for e in follower.poll(2)} == {"thread-2"}, "a new file is found"
    follower.close()


def test_a_follower_ends_a_silent_turn_and_lets_go_of_silent_files(tmp_path: Path):
    log = tmp_path / "a.jsonl"
    log.write_bytes(lines(CLAUDE[:-1]))
    follower = LogFollower([log], Context(KEY))
    follower.scan(0)
    assert "task_completed" not in kinds(follower.poll(0))
    assert follower.poll(reader.QUIET_S - 1) == []
    assert kinds(follower.poll(reader.QUIET_S)) == ["task_completed"]
    assert follower.poll(reader.IDLE_S) == [] and follower._logs[log].tail._file is None
    with log.open("ab") as file:
        file.write(lines([claude("user", "u2", 2000, {"role": "user", "content": "more"}),
                          answer("b1", 2001, [use("t9", "Read")], message="m9")]))  # fmt: skip
    assert kinds(follower.poll(reader.IDLE_S + 1)) == ["user_message", "task_started", "model_returned", "tool_called"]
    log.unlink()
    follower.scan(reader.IDLE_S + 2)
    assert follower.poll(reader.IDLE_S + 2) == []
    follower.close()


def test_a_follower_that_catches_up_keeps_the_order_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A large log must not be overtaken by what a small one says of a later time."""
    monkeypatch.setattr(reader, "_CATCH_UP_BYTES", 300)
    early = [claude("user", f"u{n}", n, {"role": "user", "content": "x" * 200}) for n in range(50)]
    (tmp_path / "a.jsonl").write_bytes(lines(early))
    (tmp_path / "b.jsonl").write_bytes(lines([claude("user", "v", 25.5, {"role": "user", "content": "x"})]))
    follower = LogFollower([tmp_path], Context(KEY))
    follower.scan(0)
    found = follower.poll(0)
    while follower.behind:
        found += follower.poll(0)
    found += follower.poll(0)
    follower.close()
    assert len(found) == 51
    assert [event["ts"] for event in found] == sorted(event["ts"] for event in found)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn) -> list[Any]:
    """A log with values replaced at any depth."""
    records: list[Any] = json.loads(json.dumps(draw(st.sampled_from([CLAUDE, CODEX]))))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.sampled_from(records))
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                place[key] = draw(json_values)
                break
            place = place[key]
    return records


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_a_damaged_log_gives_events_that_the_engine_takes_or_is_counted(records: list[Any]):
    context = Context(KEY)
    events = events_of(records, context)
    accepted, rejected, _ = judged(events)
    assert (accepted, {k: n for k, n in rejected.items() if n}) == (len(events), {})
    assert "not_mapped" not in context.counts.rejected
    assert context.counts.records == len(records)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_in_any_blocks_are_read_and_counted(data: bytes, size: int):
    context = Context(KEY)
    log = Log(context, "x")
    for at in range(0, len(data), size):
        list(log.add_block(data[at : at + size]))
    list(log.finish())
    written = sum(1 for line in data.split(b"\n") if line and not line.isspace())
    assert context.counts.records == written == context.counts.rejected.total()
