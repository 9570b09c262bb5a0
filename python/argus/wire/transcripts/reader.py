"""Reads session logs, whole or as they grow, as events in order of time; memory is bounded whatever a log holds.

Lines up to 16 MiB are read (they hold images), one at a time; a longer one, or one of more than 500,000 values, is counted
and left out. Reasons: `not_json`, `not_object`, `too_long`, `too_many_values`, `torn_line`, `unknown_format`,
`no_timestamp`, `no_session`, `no_uuid`, `no_path`, `call_without_name`, `result_without_call`, `bad_token_count`,
`too_many_lanes`, `too_many_calls`, `not_mapped` (a value where another type belongs).
"""

from __future__ import annotations

import heapq
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from argus.errors import UnreachableError, UsageError
from argus.wire.jsonl import Tail
from argus.wire.transcripts.claude_code import ClaudeCode
from argus.wire.transcripts.codex import Codex
from argus.wire.transcripts.common import Context, Converter, Event

FORMATS: Final[dict[str, type[Converter]]] = {kind.name: kind for kind in (ClaudeCode, Codex)}
LINE_BYTES_MAX: Final = 16 << 20
VALUES_MAX: Final = 500_000
OPEN_MAX: Final = 256  # logs held open at once, as far as others are silent
QUIET_S: Final = 30.0  # silence after which a log that the agent finished with is taken for ended
IDLE_S: Final = 900.0  # silence after which a file is closed until it grows again

_READ_BYTES: Final = 64 << 10
_CATCH_UP_BYTES: Final = 256 << 10
_LARGE: Final = 256 << 10

_decode: Final = msgspec.json.Decoder().decode


class Log:
    """One session log: bytes in, events out. Its format is that of the first line which one recognises.

    What is older than `since` (wall clock, ns; 0 = nothing is) is read only to know what runs: the first line that is
    not gives the starts of the turns that run, then its own events.
    """

    def __init__(
        self, context: Context, path: str | os.PathLike[str], kind: type[Converter] | None = None, *, since: int = 0
    ) -> None:
        self.path = os.fspath(path)
        self.since = since
        self.converter = kind(context, self.path) if kind is not None else None
        self._context = context
        self._partial = bytearray()
        self._skipping = False
        self._line = 0

    def add_block(self, block: bytes) -> Iterator[list[Event]]:
        """Events of each line that a block completes."""
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            piece = block[start:end]
            self._line += 1
            if self._skipping:
                self._skipping = False
            else:
                line = bytes(self._partial) + piece if self._partial else piece
                self._partial.clear()
                yield self._events(line)
            start = end + 1
        rest = block[start:]
        if self._skipping:
            return
        if len(self._partial) + len(rest) > LINE_BYTES_MAX:
            self._context.counts.reject(self.path, self._line + 1, "too_long")
            self._partial.clear()
            self._skipping = True
        else:
            self._partial += rest

    def finish(self, *, end_of_file: bool = True) -> Iterator[list[Event]]:
        """The last line, which at the end of a file needs no newline but must be whole."""
        if not end_of_file:
            return
        line = bytes(self._partial)
        self.drop_partial()
        if line.strip():
            self._line += 1
            yield self._events(line, torn="torn_line")

    def skip_line(self) -> None:
        """Leave out everything up to the next newline."""
        self._skipping = True

    def drop_partial(self) -> None:
        """The file was cut: what was remembered of its last line is no more."""
        self._partial.clear()
        self._skipping = False

    def silent(self) -> list[Event]:
        """Events that end what the agent had finished with."""
        return self._told(list(self.converter.silent())) if self.converter is not None else []

    def _events(self, line: bytes, *, torn: str = "not_json") -> list[Event]:
        counts = self._context.counts
        if not line or line.isspace():
            return []
        counts.records += 1
        reason = ""
        record: Any = None
        if len(line) > LINE_BYTES_MAX:
            reason = "too_long"
        elif len(line) > _LARGE and line.count(b",") + line.count(b"[") + line.count(b"{") > VALUES_MAX:
            reason = "too_many_values"
        else:
            try:
                record = _decode(line)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                reason = torn
        if not reason and not isinstance(record, dict):
            reason = "not_object"
        if not reason and self.converter is None:
            kind = next((kind for kind in FORMATS.values() if kind.knows(record)), None)
            if kind is None:
                reason = "unknown_format"
            else:
                self.converter = kind(self._context, self.path)
        if reason or self.converter is None:
            counts.reject(self.path, self._line, reason)
            return []
        counts.by_format[self.converter.name] += 1
        self.converter.line = self._line
        found: list[Event] = []
        running = list(self.converter.resume()) if self.since else []
        try:
            found.extend(self.converter.convert(record))
        except (TypeError, ValueError, RecursionError):
            counts.reject(self.path, self._line, "not_mapped")
        return self._told(found, running)

    def _told(self, events: list[Event], running: Sequence[Event] = ()) -> list[Event]:
        if self.since:
            recent = [event for event in events if event["ts"] >= self.since]
            if not recent:
                return []
            self.since = 0
            events = [*running, *recent]
        counts = self._context.counts
        counts.events += len(events)
        for event in events:
            counts.by_type[event["type"]] += 1
        return events


def find(paths: Iterable[str | os.PathLike[str]], *, missing_ok: bool = False) -> list[Path]:
    """Session logs under the paths: files as they are, of directories every `*.jsonl` below them, in order of name.

    Raises
    ------
    UnreachableError : a path that is not there
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            found.update(dict.fromkeys(sorted(p for p in path.rglob("*.jsonl") if p.is_file())))
        elif path.exists():
            found[path] = None
        elif not missing_ok:
            raise UnreachableError(
                f"{path}: expected a session log or a directory of them, found nothing; nothing imported."
            )
    return list(found)


def format_of(name: str) -> type[Converter] | None:
    """The format of that name; `auto` = None, told by each file's content.

    Raises
    ------
    UsageError : no such format
    """
    if name == "auto":
        return None
    if name not in FORMATS:
        raise UsageError(f"--format: expected auto, {', '.join(FORMATS)}, found {name!r}; nothing imported.")
    return FORMATS[name]


def read(
    paths: Sequence[str | os.PathLike[str]], context: Context, *, kind: type[Converter] | None = None
) -> Iterator[Event]:
    """Events of past logs in order of time, streaming: a log is open only between its first event and its last.

    Parameters
    ----------
    paths : see find
    kind : the format of all files; None = told by each file's content

    Raises
    ------
    UnreachableError : a path that is not there, or a file that cannot be read
    """
    starts = []
    for number, path in enumerate(find(paths)):
        context.counts.files += 1
        first = next((ts for ts, event in _whole(Log(Context(bytes(16)), path, kind)) if event is not None), 0)
        starts.append((first, number, path))
    waiting = sorted(starts, reverse=True)
    heap: list[tuple[int, int, Event | None, Iterator[tuple[int, Event | None]]]] = []
    while waiting or heap:
        while waiting and (not heap or waiting[-1][0] <= heap[0][0]):
            _, number, path = waiting.pop()
            moments = _whole(Log(context, path, kind))
            moment = next(moments, None)
            if moment is not None:
                heapq.heappush(heap, (moment[0], number, moment[1], moments))
        if heap:
            _, number, event, moments = heap[0]
            if event is not None:
                yield event
            moment = next(moments, None)
            if moment is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (moment[0], number, moment[1], moments))


def _whole(log: Log) -> Iterator[tuple[int, Event | None]]:
    """Each event with its time. A record without events is a moment too: of two logs that hold the same records, the
    one that was first to begin stays ahead, and keeps them."""
    try:
        offset = 0
        while True:
            # Opened for each block: any number of logs may overlap in time.
            with Path(log.path).open("rb", buffering=0) as file:
                file.seek(offset)
                block = file.read(_READ_BYTES)
            if not block:
                break
            offset += len(block)
            for events in log.add_block(block):
                yield from _moments(log, events)
        for events in log.finish():
            yield from _moments(log, events)
    except OSError as error:
        raise UnreachableError(
            f"{log.path}: expected a readable session log, found {error.strerror or error}; reading ends here."
        ) from error
    yield from _moments(log, log.silent())


def _moments(log: Log, events: list[Event]) -> Iterator[tuple[int, Event | None]]:
    if not events:
        yield log.converter.clock if log.converter is not None else 0, None
    for event in events:
        yield event["ts"], event


class _Followed:
    """A log that grows, and since when it is silent."""

    def __init__(self, log: Log, now: float) -> None:
        self.log = log
        self.tail = Tail(log.path, log)
        self.since = now
        self.settled = False
        self.behind = True  # there is more to read
        self.size = -1  # when its file was closed; -1 = it is open

    @property
    def clock(self) -> int:
        return self.log.converter.clock if self.log.converter is not None else 0


class LogFollower:
    """Follows every session log under some paths, new files too, without blocking.

    Parameters
    ----------
    paths : see find; directories are looked through again at each `scan`
    since : wall clock, ns: what is older is read only to know what runs, and turns that do are told of by their start;
        0 = begin with what the logs already hold
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        context: Context,
        *,
        kind: type[Converter] | None = None,
        since: int = 0,
    ) -> None:
        self._paths = list(paths)
        self._context = context
        self._kind = kind
        self._since = since
        self._logs: dict[Path, _Followed] = {}
        self._past: dict[Path, int] = {}  # logs that did not grow yet: their sizes
        self._held: list[Event] = []  # later than what a log that is behind may still tell
        for path in find(paths):
            context.counts.files += 1
            self._past[path] = _size(path) if since else 0

    def scan(self, now: float) -> None:
        """Look for new and growing logs; `now` as for `poll`."""
        for path in find(self._paths, missing_ok=True):
            if path in self._logs:
                continue
            if path not in self._past:
                self._context.counts.files += 1
                self._past[path] = 0
            if _size(path) > self._past[path]:
                del self._past[path]
                self._logs[path] = _Followed(Log(self._context, path, self._kind, since=self._since), now)

    def poll(self, now: float) -> list[Event]:
        """Events since the last call, in order of time; `now` in seconds of a steady clock.

        Raises
        ------
        UnreachableError : a log that cannot be read
        """
        horizon = self._horizon()
        for path, followed in self._logs.items():
            if (followed.behind and followed.clock > horizon) or followed.size == (size := _size(path)):
                continue
            followed.size = -1
            lines = followed.tail.poll(_CATCH_UP_BYTES)
            followed.behind = size > followed.tail.position
            for events in lines:
                self._held.extend(events)
            if lines or followed.behind:
                followed.since, followed.settled = now, False
            elif now - followed.since >= QUIET_S and not followed.settled:
                self._held.extend(followed.log.silent())
                followed.settled = True
        self._park(now)
        horizon = self._horizon()
        self._held.sort(key=lambda event: int(event["ts"]))
        ready = bisect_right(self._held, horizon, key=lambda event: int(event["ts"]))
        found, self._held = self._held[:ready], self._held[ready:]
        return found

    @property
    def behind(self) -> bool:
        """Whether there is more to read at once; logs that are ahead in time wait for it, so that order holds."""
        return any(followed.behind for followed in self._logs.values())

    def _horizon(self) -> int:
        return min((followed.clock for followed in self._logs.values() if followed.behind), default=1 << 63)

    def close(self) -> None:
        """Close what is open."""
        for followed in self._logs.values():
            followed.tail.close()
        self._logs.clear()

    def _park(self, now: float) -> None:
        """Close files that are long silent, or the most silent when there are too many; what is known of them stays."""
        open_ones = sorted(((f.since, path) for path, f in self._logs.items() if f.size < 0), key=lambda item: item[0])
        for position, (since, path) in enumerate(open_ones):
            if now - since >= IDLE_S or position < len(open_ones) - OPEN_MAX:
                followed = self._logs[path]
                if followed.settled:
                    followed.size = followed.tail.park()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
