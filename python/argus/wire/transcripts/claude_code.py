"""Claude Code: `~/.claude/projects/<project>/<session>.jsonl`, subagents in `…/<session>/subagents/agent-<id>.jsonl`.

Relied on, as seen in logs of versions 1.0 to 2.1 (there is no published schema):

- each line is an object with `type`, and those of the conversation have `uuid`, `timestamp` (ISO 8601), `sessionId`,
  `version`, `isSidechain`, `agentId` (subagents) and `message`;
- `user`: a prompt (`content` is text or blocks of text and images) or results (`tool_result` blocks with `tool_use_id`,
  `is_error`); `isMeta` and `isCompactSummary` are no prompts, "[Request interrupted by user" ends the turn;
- `assistant`: one line per content block of a response. They share `message.id` and repeat its `usage`, which grows
  until `stop_reason` is set: the largest counts, once. Resumed sessions repeat lines of others: a `uuid` counts once;
- `usage.input_tokens` excludes cache reads and writes;
- `system`: `turn_duration` ends a turn, `api_error` is a failed model call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from argus.wire.transcripts.common import LANES_MAX, Call, Context, Converter, Event, Lane, mapping, text

_SILENT: Final = frozenset({
    "summary", "progress", "file-history-snapshot", "queue-operation", "pr-link", "permission-mode",
})  # fmt: skip
_KNOWN: Final = _SILENT | {"user", "assistant", "system"}
_SYSTEM: Final = frozenset({"turn_duration", "api_error", "compact_boundary", "local_command", "stop_hook_summary"})
_WRITERS: Final = {"Write": "file_path", "Edit": "file_path", "MultiEdit": "file_path", "NotebookEdit": "notebook_path"}
_USAGE: Final = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}
_INTERRUPTED: Final = "[Request interrupted by user"
_NOTICES: Final = ("<local-command-", "<command-name>", "<bash-input>", "<bash-stdout>", "<bash-stderr>")


class _Spent:
    """What one response used, as far as its lines have told."""

    def __init__(self, model: str, lane: Lane, ts: int) -> None:
        self.model, self.lane, self.ts = model, lane, ts
        self.used = dict.fromkeys(_USAGE, 0)


class ClaudeCode(Converter):
    """See the module."""

    name = "claude-code"
    provider = "anthropic"

    def __init__(self, context: Context, file: str) -> None:
        super().__init__(context, file)
        self._spent: dict[str, _Spent] = {}  # by response

    @staticmethod
    def knows(record: Mapping[str, Any]) -> bool:
        """A record of a known type that is not wrapped in a payload."""
        return text(record.get("type")) in _KNOWN and "payload" not in record

    def convert(self, record: Mapping[str, Any]) -> Iterator[Event]:
        """Events of one record."""
        kind = text(record.get("type"))
        if kind not in ("user", "assistant", "system"):
            if kind not in _SILENT:
                self.context.counts.pass_over(f"{self.name}/{kind or 'untyped'}")
            return
        ident, session = text(record.get("uuid")), text(record.get("sessionId"))
        if not ident or not session:
            self.reject("no_uuid" if session else "no_session")
            return
        ts = self.time(record)
        if not self.context.repeats.add(ident):
            self.context.counts.repeated += 1
            return
        self.session, self.version = session, text(record.get("version"))
        if ts == 0:
            return
        name = text(record.get("agentId")) or ("sidechain" if record.get("isSidechain") is True else "")
        lane = self.lane(name, f"{self.name}/subagent" if name else self.name)
        message = mapping(record.get("message"))
        if kind == "assistant":
            yield from self._answer(record, message, ident, ts, lane)
        elif kind == "user":
            yield from self._user(record, message, ident, ts, lane)
        else:
            yield from self._system(record, ident, ts, lane)

    def silent(self) -> Iterator[Event]:
        """Also tells what the last responses used."""
        for ident in list(self._spent):
            yield from self._settle(ident)
        yield from super().silent()

    def _user(
        self, record: Mapping[str, Any], message: Mapping[str, Any], ident: str, ts: int, lane: Lane
    ) -> Iterator[Event]:
        content = message.get("content")
        words = content if isinstance(content, str) else ""
        results = False
        for block in content if isinstance(content, list) else ():
            block = mapping(block)
            if block.get("type") == "tool_result":
                results = True
                yield from self._result(record, block, ts)
            else:
                words = words or text(block.get("text")) or "."  # an image is a prompt as well
        if words.startswith(_INTERRUPTED):
            yield from self._settle_lane(lane)
            yield from self.end(lane, "task_cancelled", ts, error="interrupted")
        elif results or not words or words.startswith(_NOTICES):
            return
        elif record.get("isMeta") is not True and record.get("isCompactSummary") is not True:
            yield from self._settle_lane(lane)
            yield from self.prompt(lane, ident, ts)
            yield self.event("user_message", f"{ident}:u", ts, lane, task=ident)

    def _result(self, record: Mapping[str, Any], block: Mapping[str, Any], ts: int) -> Iterator[Event]:
        call_id = text(block.get("tool_use_id"))
        held = self.calls.get(call_id)
        failed = block.get("is_error") is True
        content = block.get("content")
        yield from self.returned(call_id, ts, ok=not failed, result="" if content is None else content)
        lane = self.lanes.get(held[0]) if held is not None else None
        if held is None or lane is None or failed or not held[1].path:
            return
        created = mapping(record.get("toolUseResult")).get("type") == "create"
        yield self.event(
            "file_written", f"{call_id}:w", ts, lane, path=held[1].path, bytes=held[1].bytes,
            op="create" if created else "modify", call=call_id,
        )  # fmt: skip

    def _answer(
        self, record: Mapping[str, Any], message: Mapping[str, Any], ident: str, ts: int, lane: Lane
    ) -> Iterator[Event]:
        model = text(message.get("model"))
        yield from self.act(lane, ts)
        if record.get("isApiErrorMessage") is True or model == "<synthetic>":
            if record.get("isApiErrorMessage") is True:
                yield self._failed(ident, ts, lane, text(record.get("error")))
            lane.finished = True
            return
        answer = text(message.get("id")) or ident
        if lane.answer != answer:
            yield from self._settle_lane(lane)
            lane.answer = answer
            if len(self._spent) >= LANES_MAX:
                yield from self._settle(next(iter(self._spent)))
            if self.context.repeats.add(f"message {answer}"):
                self._spent[answer] = _Spent(model, lane, ts)
                yield self.event(
                    "model_returned", f"{answer}:m", ts, lane, provider=self.provider, model=model or None,
                    call=answer, ok=True,
                )  # fmt: skip
        stop = message.get("stop_reason")
        spent = self._spent.get(answer)
        if spent is not None:
            usage = mapping(message.get("usage"))
            spent.ts = ts
            for key, name in _USAGE.items():
                spent.used[key] = max(spent.used[key], self.tokens(usage, name))
            if stop is not None:
                yield from self._settle(answer)
        lane.finished = stop in ("end_turn", "stop_sequence", "max_tokens", "refusal")
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            block = mapping(block)
            if block.get("type") == "tool_use":
                yield from self._call(block, ts, lane)
            elif block.get("type") == "text" and stop is None:
                lane.finished = True  # versions that never write stop_reason: words without a call end a turn

    def _call(self, block: Mapping[str, Any], ts: int, lane: Lane) -> Iterator[Event]:
        tool, ident, given = text(block.get("name")), text(block.get("id")), block.get("input")
        if not tool or not ident:
            self.reject("call_without_name")
            return
        lane.finished = False
        call = Call(tool, ts, self.arguments(given))
        if tool in _WRITERS:
            call.path = text(mapping(given).get(_WRITERS[tool]))
            content = mapping(given).get("content")
            if tool == "Write" and isinstance(content, str):
                call.bytes = len(content.encode("utf-8", "replace"))
        yield self.called(lane, ident, call)

    def _system(self, record: Mapping[str, Any], ident: str, ts: int, lane: Lane) -> Iterator[Event]:
        subtype = text(record.get("subtype"))
        if subtype == "turn_duration":
            took = self.tokens(record, "durationMs")
            yield from self._settle_lane(lane)
            yield from self.end(lane, "task_completed", ts, ok=True, duration_ns=took * 1_000_000)
        elif subtype == "api_error":
            yield from self.act(lane, ts)
            yield self._failed(ident, ts, lane, "")
        elif subtype not in _SYSTEM:
            self.context.counts.pass_over(f"{self.name}/system/{subtype or 'untyped'}")

    def _failed(self, ident: str, ts: int, lane: Lane, error: str) -> Event:
        return self.event(
            "model_returned", f"{ident}:f", ts, lane, provider=self.provider, ok=False, error=error or "api_error"
        )

    def _settle_lane(self, lane: Lane) -> Iterator[Event]:
        answer, lane.answer = lane.answer, ""
        if answer in self._spent:
            yield from self._settle(answer)

    def _settle(self, answer: str) -> Iterator[Event]:
        """What a response used, once."""
        spent = self._spent.pop(answer)
        if any(spent.used.values()):
            yield self.event(
                "token_cost_logged", f"{answer}:t", spent.ts, spent.lane, provider=self.provider,
                model=spent.model or None, call=answer, **spent.used,
            )  # fmt: skip
