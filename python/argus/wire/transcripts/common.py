"""What every format of session logs shares: counts, keyed hashes, bounded fields, and the turns of an agent as tasks.

A turn (a prompt and all that the agent does for it) is a task; its id is the prompt's. A log that has no record of a
turn's end is closed at the turn's last activity once the next prompt comes or the log falls silent, provided that the
agent had finished speaking; a turn that breaks off in the middle of a call is cancelled by the next prompt, and
otherwise left open, because that is what happened.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, ClassVar, Final

import msgspec

Event = dict[str, Any]

CALLS_MAX: Final = 4096  # open tool calls remembered of one file
LANES_MAX: Final = 64  # conversations that run in one file at once
KINDS_MAX: Final = 256  # names of unknown records that are counted apart
FAULTS_MAX: Final = 32

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TOKENS_MAX: Final = 1 << 40
_LIMITS: Final = {
    "id": 64, "source": 128, "tenant": 64, "session": 128, "task": 128, "parent": 128, "agent": 128,
    "agent_version": 128, "provider": 128, "model": 128, "tool": 128, "call": 128, "path": 4096, "error": 128,
}  # fmt: skip


class Fault(msgspec.Struct, frozen=True):
    """A line that was not taken whole: where and why. Never what it says."""

    file: str
    line: int
    reason: str


class Counts:
    """What an import met: files, records and events, records that no rule knows, lines refused by reason."""

    def __init__(self) -> None:
        self.files = self.records = self.events = self.repeated = self.reordered = 0
        self.by_format: Counter[str] = Counter()
        self.by_type: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.faults: list[Fault] = []

    def pass_over(self, kind: str) -> None:
        """Count a record of a kind that no rule knows."""
        kind = bounded(kind, 64)
        self.unknown[kind if kind in self.unknown or len(self.unknown) < KINDS_MAX else "other"] += 1

    def reject(self, file: str, line: int, reason: str) -> None:
        """Count a line, or a part of one, that could not be taken."""
        self.rejected[reason] += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(file, line, reason))

    def to_dict(self) -> dict[str, Any]:
        """For printing as JSON."""
        named = ("by_format", "by_type", "unknown", "rejected")
        return {
            "files": self.files,
            "records": self.records,
            "events": self.events,
            "repeated": self.repeated,
            "reordered": self.reordered,
            **{name: dict(getattr(self, name).most_common()) for name in named},
            "faults": msgspec.to_builtins(self.faults),
        }


class Seen:
    """A bounded memory of names: the oldest is forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: OrderedDict[bytes, None] = OrderedDict()

    def add(self, name: str) -> bool:
        """True when the name is new."""
        key = blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
        if key in self._names:
            return False
        self._names[key] = None
        if len(self._names) > self._limit:
            self._names.popitem(last=False)
        return True


class Context:
    """What all files of one import share.

    Parameters
    ----------
    key : of the hashes, 16 to 64 bytes; whoever lacks it cannot find a short argument by trying
    tenant : put into every event; "" = none
    """

    def __init__(self, key: bytes, *, tenant: str = "") -> None:
        self.counts = Counts()
        self.tenant = tenant
        self.repeats = Seen(1 << 17)
        self._key = key

    def digest(self, value: object) -> tuple[str, int]:
        """Keyed BLAKE2b (32 hex digits) of canonical JSON, and its length in bytes."""
        try:
            data = msgspec.json.encode(value, order="sorted")
        except OverflowError:  # an integer beyond 64 bits
            data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        return blake2b(data, key=self._key, digest_size=16).hexdigest(), min(len(data), 0xFFFFFFFF)


class Call(msgspec.Struct):
    """A tool call without its result yet."""

    tool: str
    ts: int
    args: dict[str, Any]
    path: str = ""
    bytes: int | None = None


class Lane(msgspec.Struct):
    """One conversation: the main one of a log, or a subagent's."""

    name: str
    agent: str
    task: str = ""
    running: bool = False
    prompt: tuple[str, int] | None = None  # id and ts of a prompt that nothing has answered yet
    last_ts: int = 0
    finished: bool = False  # the agent's last word in this turn was its last
    runs: int = 0
    calls: int = 0
    answer: str = ""  # the response that is being written


class Converter:
    """Base of the formats: one instance per file; records in, events out.

    Subclasses set `name`, say which records they know, and turn one record into events.
    """

    name: ClassVar[str] = ""
    provider: ClassVar[str] = ""

    def __init__(self, context: Context, file: str) -> None:
        self.context = context
        self.file = file
        self.line = 0
        self.session = self.version = self.model = ""
        self.lanes: OrderedDict[str, Lane] = OrderedDict()
        self.calls: OrderedDict[str, tuple[str, Call]] = OrderedDict()  # by id, with their lane
        self.clock = 0  # the latest time that a record named
        self._last_ts = 0

    @staticmethod
    def knows(record: Mapping[str, Any]) -> bool:
        """Whether a record is of this format."""
        raise NotImplementedError

    def convert(self, record: Mapping[str, Any]) -> Iterator[Event]:
        """Events of one record."""
        raise NotImplementedError

    def silent(self) -> Iterator[Event]:
        """The log says no more, for now or for good: close the turns whose agent had finished."""
        for lane in self.lanes.values():
            if lane.running and lane.finished and not lane.calls:
                yield from self.end(lane, "task_completed", ok=True)

    def resume(self) -> Iterator[Event]:
        """The turns that run now, as starts: for those who hear of this log from here on."""
        for lane in self.lanes.values():
            if lane.running:
                yield self.event("task_started", f"{lane.task}:s{lane.runs}", self._last_ts, lane)

    # -- for subclasses

    def reject(self, reason: str) -> None:
        self.context.counts.reject(self.file, self.line, reason)

    def time(self, record: Mapping[str, Any]) -> int:
        """Wall clock of a record, ns; 0 = it has none, and nothing before it had one."""
        text = record.get("timestamp")
        try:
            if isinstance(text, str):
                when = datetime.fromisoformat(text)
                when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
                ts = (when - _EPOCH) // timedelta(microseconds=1) * 1000
                if 0 < ts < 1 << 62:
                    self.clock = max(self.clock, ts)
                    return ts
        except (ValueError, OverflowError):
            pass
        self.reject("no_timestamp")
        return self._last_ts

    def lane(self, name: str, agent: str) -> Lane:
        found = self.lanes.get(name)
        if found is None:
            found = self.lanes[name] = Lane(name, agent)
            if len(self.lanes) > LANES_MAX:
                self.lanes.popitem(last=False)
                self.context.counts.rejected["too_many_lanes"] += 1
        self.lanes.move_to_end(name)
        return found

    def prompt(self, lane: Lane, ident: str, ts: int) -> Iterator[Event]:
        """A new turn; it starts, with this time, when the agent does something for it."""
        if lane.running:
            whole = not lane.calls
            yield from self.end(lane, "task_completed" if whole else "task_cancelled", ok=whole)
        lane.prompt = (ident, ts)

    def act(self, lane: Lane, ts: int) -> Iterator[Event]:
        """The agent does something: its turn runs from here, if it did not yet."""
        if not lane.running:
            ident, began = lane.prompt or (lane.task or f"{lane.name or 'main'}:{self.line}", ts)
            lane.runs = lane.runs + 1 if ident == lane.task else 0
            lane.task, lane.prompt, lane.running, lane.calls = ident, None, True, 0
            yield self.event("task_started", f"{ident}:s{lane.runs}", began, lane)
        lane.last_ts, lane.finished = max(ts, lane.last_ts), False

    def end(self, lane: Lane, kind: str, ts: int = 0, **fields: Any) -> Iterator[Event]:
        """The end of a turn, at its last activity when the log does not say when. Open calls stay without a result."""
        if not lane.running:
            return
        lane.running, lane.finished, lane.calls = False, False, 0
        for ident in [ident for ident, (name, _) in self.calls.items() if name == lane.name]:
            del self.calls[ident]
        yield self.event(kind, f"{lane.task}:e{lane.runs}", ts or lane.last_ts, lane, **fields)

    def called(self, lane: Lane, ident: str, call: Call) -> Event:
        """A tool call; `ident` ties its result to it."""
        self.calls[ident] = (lane.name, call)
        lane.calls += 1
        if len(self.calls) > CALLS_MAX:
            self.calls.popitem(last=False)
            self.context.counts.rejected["too_many_calls"] += 1
        return self.event("tool_called", f"{ident}:c", call.ts, lane, tool=call.tool, call=ident, **call.args)

    def returned(self, ident: str, ts: int, *, ok: bool | None, result: object = None) -> Iterator[Event]:
        """A call's result; one whose call is not known is counted."""
        name, call = self.calls.pop(ident, ("", None))
        lane = self.lanes.get(name)
        if call is None or lane is None:
            self.reject("result_without_call")
            return
        lane.calls = max(0, lane.calls - 1)
        yield from self.act(lane, ts)
        fields = dict(call.args)
        if result is not None:
            fields["result_hash"], fields["result_len"] = self.context.digest(result)
        fields["error"] = "tool_error" if ok is False else None
        yield self.event(
            "tool_returned", f"{ident}:r", ts, lane, tool=call.tool, call=ident, ok=ok,
            duration_ns=max(0, ts - call.ts), **fields,
        )  # fmt: skip

    def arguments(self, value: object) -> dict[str, Any]:
        """`args_hash` and `args_len` of a call's arguments."""
        digest, length = self.context.digest(value)
        return {"args_hash": digest, "args_len": length}

    def tokens(self, usage: Mapping[str, Any], key: str) -> int:
        """A number of tokens; what is none counts as 0 and is counted."""
        value = usage.get(key)
        if value is None:
            return 0
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _TOKENS_MAX:
            return value
        self.reject("bad_token_count")
        return 0

    def event(self, kind: str, ident: str, ts: int, lane: Lane, **fields: Any) -> Event:
        """One event within all limits. A file's events never go back in time: those that would are counted."""
        if ts < self._last_ts:
            self.context.counts.reordered += 1
        self._last_ts = ts = max(ts, self._last_ts)
        source = f"{self.name}:{self.session}" + (f":{lane.name}" if lane.name else "")
        event: Event = {
            "v": 1, "id": ident, "type": kind, "ts": ts, "source": source, "tenant": self.context.tenant or None,
            "session": self.session, "task": lane.task or None, "agent": lane.agent,
            "agent_version": self.version or None, **fields,
        }  # fmt: skip
        return {
            key: bounded(value, _LIMITS.get(key, 64)) if isinstance(value, str) else value
            for key, value in event.items()
            if value is not None
        }


def bounded(text: str, limit: int) -> str:
    """Text of at most `limit` bytes of UTF-8; a longer one keeps its beginning and gets a hash, so that it stays itself."""
    data = text.encode("utf-8", "replace")
    if len(data) > limit:
        tail = blake2b(data, digest_size=8).hexdigest()
        return data[: limit - 17].decode("utf-8", "ignore") + "~" + tail
    return data.decode()


def mapping(value: object) -> Mapping[str, Any]:
    """The value, or an empty mapping when it is none."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """The value, or "" when it is no text."""
    return value if isinstance(value, str) else ""


def parsed(value: object) -> object:
    """What a text of JSON says, so that white space does not tell equal arguments apart; any other value as it is."""
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return value
    return value
