"""Codex CLI: `$CODEX_HOME/sessions/YYYY/MM/DD/rollout-<time>-<id>.jsonl`.

Relied on (`RolloutItem`, `ResponseItem` and `EventMsg` of openai/codex, codex-rs/protocol):

- each line is `{timestamp, type, payload}`, type one of `session_meta`, `turn_context`, `response_item`, `event_msg`, …;
- `session_meta`: `session_id`, in older versions `id`; `cli_version`, `model_provider`, `source` (an object for subagents);
- `turn_context`: `model`, `turn_id`;
- `event_msg`: `task_started`, `task_complete` (also `turn_started`, `turn_complete`) and `turn_aborted` bound a turn;
  versions that do not write them have `user_message` alone. `token_count.info.last_token_usage` is of the last response,
  `total_token_usage` the running sum: a count with an unchanged sum repeats one. Input includes what came from the cache;
- `patch_apply_end`: `success` and `changes`, path → `{type: add | update | delete}`;
- `response_item`: `function_call` (`arguments` is JSON in text), `custom_tool_call` (`input` is free text),
  `local_shell_call`, `tool_search_call`, `web_search_call`, and the `…_output` with the same `call_id`.

Outputs of commands begin with lines that differ each time (chunk id, wall time): only exit code and output are hashed.
A forked session repeats its parent's lines without a mark to know them by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from argus.wire.transcripts.common import Call, Context, Converter, Event, Lane, mapping, parsed, text

_TYPES: Final = frozenset({
    "session_meta", "turn_context", "response_item", "event_msg", "compacted", "world_state",
    "inter_agent_communication", "inter_agent_communication_metadata",
})  # fmt: skip
_SILENT_EVENTS: Final = frozenset({
    "agent_message", "agent_reasoning", "agent_reasoning_raw_content", "context_compacted", "entered_review_mode",
    "exited_review_mode", "mcp_tool_call_end", "thread_rolled_back", "web_search_end", "image_generation_end",
    "item_completed", "exec_command_end", "view_image_tool_call", "thread_name_updated", "guardian_assessment",
    "dynamic_tool_call_request", "dynamic_tool_call_response",
})  # fmt: skip
_SILENT_ITEMS: Final = frozenset({
    "message", "reasoning", "compaction", "compaction_summary", "context_compaction", "image_generation_call",
    "additional_tools", "agent_message",
})  # fmt: skip
_CALLS: Final = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "tool_search_call": "arguments",
}
_OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output", "tool_search_output"})
_OPERATIONS: Final = {"add": "create", "update": "modify"}
_EXIT: Final = re.compile(r"(?:Process exited with code|Exit code:) (-?\d{1,10})\b")
_HEADER_MAX: Final = 512


class Codex(Converter):
    """See the module."""

    name = "codex"

    def __init__(self, context: Context, file: str) -> None:
        super().__init__(context, file)
        self._provider = ""
        self._agent = self.name
        self._totals: dict[str, int] = {}
        self._responses = 0
        self._bounded = False  # this version writes where a turn begins

    @staticmethod
    def knows(record: Mapping[str, Any]) -> bool:
        """A record with a payload, of a known type."""
        return text(record.get("type")) in _TYPES and isinstance(record.get("payload"), dict)

    def convert(self, record: Mapping[str, Any]) -> Iterator[Event]:
        """Events of one record."""
        kind, payload = text(record.get("type")), mapping(record.get("payload"))
        if kind == "session_meta":
            self._meta(payload)
        elif kind == "turn_context":
            self.model = text(payload.get("model")) or self.model
        elif kind in ("response_item", "event_msg"):
            if not self.session:
                self.reject("no_session")
                return
            ts = self.time(record)
            if ts == 0:
                return
            lane = self.lane("", self._agent)
            inner = text(payload.get("type"))
            yield from (self._item if kind == "response_item" else self._message)(inner, payload, ts, lane)
        elif kind not in _TYPES:
            self.context.counts.pass_over(f"{self.name}/{kind or 'untyped'}")

    def _meta(self, payload: Mapping[str, Any]) -> None:
        session = text(payload.get("session_id")) or text(payload.get("id"))
        if not session:
            self.reject("no_session")
        elif not self.session:  # a fork repeats its parent's head after its own
            self.session = session
            self.version = text(payload.get("cli_version"))
            self._provider = text(payload.get("model_provider"))
            if isinstance(payload.get("source"), dict):
                self._agent = f"{self.name}/subagent"

    # -- messages of the program

    def _message(self, kind: str, payload: Mapping[str, Any], ts: int, lane: Lane) -> Iterator[Event]:
        if kind in ("task_started", "turn_started"):
            self._bounded = True
            yield from self.prompt(lane, text(payload.get("turn_id")) or f"turn:{self.line}", ts)
            yield from self.act(lane, ts)
        elif kind in ("task_complete", "turn_complete"):
            yield from self.end(lane, "task_completed", ts, ok=True, duration_ns=self._took(payload))
        elif kind == "turn_aborted":
            reason = text(payload.get("reason")) or "aborted"
            yield from self.end(lane, "task_cancelled", ts, error=reason, duration_ns=self._took(payload))
        elif kind == "user_message":
            if not self._bounded:
                yield from self.prompt(lane, f"turn:{self.line}", ts)
            task = lane.prompt[0] if lane.prompt else lane.task or None
            yield self.event("user_message", f"{self.line}:u", ts, lane, task=task)
        elif kind == "token_count":
            yield from self._spent(payload, ts, lane)
        elif kind == "patch_apply_end":
            yield from self._patched(payload, ts, lane)
        elif kind == "error":
            yield from self.act(lane, ts)
            error = text(payload.get("codex_error_info")) or "error"
            yield self._returned(f"{self.line}:f", ts, lane, ok=False, error=error)
        elif kind not in _SILENT_EVENTS:
            self.context.counts.pass_over(f"{self.name}/event_msg/{kind or 'untyped'}")

    def _took(self, payload: Mapping[str, Any]) -> int | None:
        return self.tokens(payload, "duration_ms") * 1_000_000 or None

    def _returned(self, ident: str, ts: int, lane: Lane, **fields: Any) -> Event:
        return self.event(
            "model_returned", ident, ts, lane, provider=self._provider or None, model=self.model or None, **fields
        )

    def _spent(self, payload: Mapping[str, Any], ts: int, lane: Lane) -> Iterator[Event]:
        info = mapping(payload.get("info"))
        keys = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
        sums, last = mapping(info.get("total_token_usage")), mapping(info.get("last_token_usage"))
        totals = {key: self.tokens(sums, key) for key in keys}
        if sums and totals == self._totals:
            return
        if last:
            used = {key: self.tokens(last, key) for key in keys}
        else:
            used = {key: max(0, totals[key] - self._totals.get(key, 0)) for key in keys}
        self._totals = totals if sums else {}
        if not any(used.values()):
            return
        self._responses += 1
        call = f"{self.session}:{self._responses}"
        if lane.running:
            yield self._returned(f"{self.line}:m", ts, lane, call=call, ok=True)
        cached = min(used["cached_input_tokens"], used["input_tokens"])
        yield self.event(
            "token_cost_logged", f"{self.line}:t", ts, lane, provider=self._provider or None,
            model=self.model or None, call=call, input_tokens=used["input_tokens"] - cached, cache_read_tokens=cached,
            output_tokens=used["output_tokens"], reasoning_tokens=used["reasoning_output_tokens"],
        )  # fmt: skip

    def _patched(self, payload: Mapping[str, Any], ts: int, lane: Lane) -> Iterator[Event]:
        if payload.get("success") is not True:
            return
        yield from self.act(lane, ts)
        call = text(payload.get("call_id")) or None
        for number, (path, change) in enumerate(mapping(payload.get("changes")).items()):
            change = mapping(change)
            kind, content = text(change.get("type")), change.get("content")
            if not path:
                self.reject("no_path")
                continue
            size = len(content.encode("utf-8", "replace")) if kind == "add" and isinstance(content, str) else None
            moved = text(change.get("move_path"))
            if kind == "delete" or moved:
                yield self.event("file_deleted", f"{self.line}:d{number}", ts, lane, path=path, call=call)
            if kind != "delete":
                yield self.event(
                    "file_written", f"{self.line}:w{number}", ts, lane, path=moved or path, bytes=size, call=call,
                    op="rename" if moved else _OPERATIONS.get(kind),
                )  # fmt: skip

    # -- items of the conversation

    def _item(self, kind: str, payload: Mapping[str, Any], ts: int, lane: Lane) -> Iterator[Event]:
        if kind in _CALLS:
            yield from self._call(kind, payload, ts, lane)
        elif kind in _OUTPUTS:
            ok, result = outcome(payload.get("output", payload.get("tools")))
            if payload.get("status") == "failed":
                ok = False
            yield from self.returned(text(payload.get("call_id")), ts, ok=ok, result=result)
        elif kind == "web_search_call":
            yield from self.act(lane, ts)
            ident = f"{self.line}:search"
            yield self.called(lane, ident, Call("web_search", ts, self.arguments(payload.get("action"))))
            yield from self.returned(ident, ts, ok=payload.get("status") == "completed")
        elif kind not in _SILENT_ITEMS:
            self.context.counts.pass_over(f"{self.name}/response_item/{kind or 'untyped'}")
        elif kind == "message" and payload.get("role") == "assistant":
            yield from self.act(lane, ts)
            lane.finished = not self._bounded

    def _call(self, kind: str, payload: Mapping[str, Any], ts: int, lane: Lane) -> Iterator[Event]:
        tool = text(payload.get("name")) or {"local_shell_call": "local_shell", "tool_search_call": "tool_search"}.get(
            kind, ""
        )
        ident = text(payload.get("call_id"))
        if not tool or not ident:
            self.reject("call_without_name")
            return
        if space := text(payload.get("namespace")):
            tool = f"{space}.{tool}"
        yield from self.act(lane, ts)
        yield self.called(lane, ident, Call(tool, ts, self.arguments(parsed(payload.get(_CALLS[kind])))))


def outcome(output: object) -> tuple[bool | None, object]:
    """Whether a tool succeeded (None = not said), and what it returned without what differs each time."""
    content = parsed(output) if isinstance(output, str) and output.startswith("{") else output
    if isinstance(content, dict):
        code = mapping(content.get("metadata")).get("exit_code")
        if isinstance(code, int):
            return code == 0, [code, content.get("output")]
        success = content.get("success")
        return (success, content.get("content")) if isinstance(success, bool) else (None, content)
    if isinstance(content, str):
        head, mark, body = content.partition("Output:\n")
        found = _EXIT.search(head) if len(head) <= _HEADER_MAX else None
        if mark and found is not None:
            return int(found[1]) == 0, [int(found[1]), body]
        if mark and len(head) <= _HEADER_MAX and head.startswith(("Chunk ID:", "Wall time:")):
            return None, body  # the command still runs
    return None, content
