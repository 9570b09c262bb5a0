"""JSON lines: past or growing files of events, as the msgpack frames that the engine ingests.

A line that cannot be an event is counted by reason with its number and a sample; it never stops the rest. Reasons:
`not_json`, `not_object`, `duplicate_key`, `not_finite` (NaN, Infinity, 1e999), `integer_range` (beyond int64),
`too_long` (line or event over 64 KiB), `bad_utf8`, `torn_line` (the file ends within a line that is no event),
`not_encodable` (a dict that holds what msgpack does not), `torn_archive` (a .gz that ends early or is damaged).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import select
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Generic, Protocol, Self, TypeVar

import msgspec

from argus.errors import UnreachableError
from argus.wire.zmq import FRAME_BYTES_MAX, array_header

EVENTS_MAX: Final = 1024
LINE_BYTES_MAX: Final = 65_536

_SAMPLES_MAX: Final = 8
_SAMPLE_BYTES: Final = 160
_READ_BYTES: Final = 1 << 20
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_SPACED_COLON: Final = re.compile(rb'"[ \t\r]+:')
_NOT_FINITE: Final = re.compile(rb"[:\[,]\s*-?(?:NaN|Infinity)\b")

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.msgpack.Encoder().encode

Source = str | os.PathLike[str] | Iterable[Mapping[str, Any]]


class BadLine(msgspec.Struct, frozen=True):
    """A line that was not taken: its number (from 1; of an iterable: the item's), the reason, and how it begins."""

    line: int
    reason: str
    sample: str


class Frame(msgspec.Struct, frozen=True):
    """Events for the engine: `data` is a msgpack array of `count` maps (count 0: no events, `data` is empty).

    `errors` counts the lines not taken since the frame before, by reason; `bad` holds the first few of them.
    """

    data: bytes
    count: int
    errors: dict[str, int]
    bad: list[BadLine] = []


def frames(source: Source, *, events_max: int = EVENTS_MAX) -> Iterator[Frame]:
    """Frames of at most `events_max` events and 1 MiB from a file, standard input or dicts.

    Parameters
    ----------
    source : path of an NDJSON file (gzip too, told by its content), `-` = standard input, or an iterable of event dicts

    Raises
    ------
    UnreachableError : the file cannot be opened or read
    """
    events_max = max(1, min(events_max, EVENTS_MAX))
    packer = _Packer(events_max)
    if not isinstance(source, (str, os.PathLike)):
        for event in source:
            yield from packer.add_mapping(event)
        yield from packer.finish()
        return
    name = os.fspath(source)
    with ExitStack() as stack:
        try:
            if name == "-":
                raw: BinaryIO = sys.stdin.buffer
            else:
                raw = stack.enter_context(Path(name).open("rb"))
            stream = _unpacked(raw)
            while True:
                try:
                    block = stream.read(_READ_BYTES)
                except (EOFError, zlib.error, gzip.BadGzipFile):
                    packer.reject("torn_archive", b"")
                    break
                if not block:
                    break
                yield from packer.add_block(block)
        except OSError as error:
            raise UnreachableError(
                f"{name}: expected a readable file of JSON lines, found {error.strerror or error}; reading ends here."
            ) from error
    yield from packer.finish()


def _unpacked(raw: BinaryIO) -> BinaryIO | gzip.GzipFile:
    buffered = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
    head = buffered.peek(2)[:2] if isinstance(buffered, io.BufferedReader) else b""
    if head == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=buffered)
    return buffered


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Lines(Protocol[T_co]):
    """What makes records of a growing file's bytes, block by block, and remembers a partial line between them."""

    def add_block(self, block: bytes) -> Iterator[T_co]: ...

    def finish(self, *, end_of_file: bool = True) -> Iterator[T_co]: ...

    def skip_line(self) -> None: ...

    def drop_partial(self) -> None: ...


class Tail(Generic[T]):
    """Follows a growing file of lines without blocking: rotation, truncation, disappearance and return.

    Parameters
    ----------
    path : plain text; need not exist yet
    lines : takes the blocks that were appended and gives records
    from_end : start with what is written from now on, not at the beginning

    Call `poll` from a loop. A line counts once its newline is there; a partial one is remembered. When another file
    takes the path, the rest of the old one is read first, and the new one from its beginning. A file that got
    shorter is read anew from its beginning (`truncations`).
    """

    def __init__(self, path: str | os.PathLike[str], lines: Lines[T], *, from_end: bool = False) -> None:
        self.path = Path(path)
        self.rotations = self.truncations = 0
        self._packer = lines
        self._file: io.FileIO | None = None
        self._identity = (0, 0)
        self._offset = 0
        self._parked = False
        if from_end and self._open():
            assert self._file is not None
            self._offset = self._file.seek(0, os.SEEK_END)
            # Not at a line's end: what is there of it belongs to the past.
            if self._offset and not self._at_line_end():
                self._packer.skip_line()

    def poll(self, max_bytes: int = 4 << 20) -> list[T]:
        """Records of the whole lines that are there now, from at most `max_bytes` of the file.

        Raises
        ------
        UnreachableError : the file is there and cannot be read
        """
        found: list[T] = []
        try:
            if self._file is None and not self._open():
                return found
            left = self._read(max_bytes, found)
            if left > 0 and self._replaced():
                # One more look: what was written between our read and the rename.
                self._read(left, found)
                self._leave_file(found)
                if self._open():
                    self._read(left, found)
        except OSError as error:
            raise UnreachableError(
                f"{self.path}: expected to read, found {error.strerror}; followed no further."
            ) from error
        found.extend(self._packer.finish(end_of_file=False))
        return found

    @property
    def position(self) -> int:
        """How far the file has been read, bytes."""
        return self._offset

    def park(self) -> int:
        """Close the file until the next `poll`, which goes on where this one ended; returns how far that is, bytes."""
        self.close()
        self._parked = True
        return self._offset

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> bool:
        try:
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        about = os.fstat(file.fileno())
        self._file = file
        identity = (about.st_dev, about.st_ino)
        if not self._parked or identity != self._identity:
            self._offset = 0
            if self._parked:
                self._packer.drop_partial()
        self._identity, self._parked = identity, False
        return True

    def _at_line_end(self) -> bool:
        assert self._file is not None
        return os.pread(self._file.fileno(), 1, self._offset - 1) == b"\n"

    def _read(self, max_bytes: int, found: list[T]) -> int:
        """Take what was appended; returns how much of `max_bytes` is left."""
        assert self._file is not None
        descriptor = self._file.fileno()
        if os.fstat(descriptor).st_size < self._offset:
            self.truncations += 1
            self._packer.drop_partial()
            self._offset = 0
        while max_bytes > 0:
            block = os.pread(descriptor, min(_READ_BYTES, max_bytes), self._offset)
            if not block:
                break
            self._offset += len(block)
            max_bytes -= len(block)
            found.extend(self._packer.add_block(block))
        return max_bytes

    def _replaced(self) -> bool:
        try:
            about = self.path.stat()
        except FileNotFoundError:
            return True
        return (about.st_dev, about.st_ino) != self._identity

    def _leave_file(self, found: list[T]) -> None:
        self.rotations += 1
        found.extend(self._packer.finish())
        self.close()


class Follower(Tail[Frame]):
    """Follows a growing file of JSON lines (plain, not gzip) as frames; see Tail."""

    def __init__(self, path: str | os.PathLike[str], *, from_end: bool = False, events_max: int = EVENTS_MAX) -> None:
        super().__init__(path, _Packer(max(1, min(events_max, EVENTS_MAX))), from_end=from_end)


class Stream:
    """Follows a pipe or a terminal of JSON lines (standard input) without blocking; `ended` once it is closed.

    Parameters
    ----------
    descriptor : open for reading; stays the caller's
    """

    def __init__(self, descriptor: int, *, events_max: int = EVENTS_MAX) -> None:
        self.ended = False
        self._descriptor = descriptor
        self._packer = _Packer(max(1, min(events_max, EVENTS_MAX)))

    def poll(self, max_bytes: int = 4 << 20) -> list[Frame]:
        """Frames of the whole lines that are there now, from at most `max_bytes`.

        Raises
        ------
        UnreachableError : the descriptor cannot be read
        """
        found: list[Frame] = []
        try:
            # Asked, not set to O_NONBLOCK: that would change the terminal for everybody who shares it.
            while max_bytes > 0 and not self.ended and select.select([self._descriptor], [], [], 0)[0]:
                block = os.read(self._descriptor, min(_READ_BYTES, max_bytes))
                max_bytes -= len(block)
                found.extend(self._packer.add_block(block))
                self.ended = not block
        except OSError as error:
            self.ended = True
            raise UnreachableError(
                f"standard input: expected to read, found {error.strerror}; read no further."
            ) from error
        found.extend(self._packer.finish(end_of_file=self.ended))
        return found


class _Packer:
    """Lines in, frames out; remembers a partial line between blocks."""

    def __init__(self, events_max: int) -> None:
        self._events_max = events_max
        self._events: list[bytes] = []
        self._bytes = 0
        self._partial = b""
        self._skipping = False  # within a line that is too long, or that began before we did
        self._line = 0
        self._errors: dict[str, int] = {}
        self._bad: list[BadLine] = []

    def skip_line(self) -> None:
        """Leave out everything up to the next newline, without counting it."""
        self._skipping = True

    def drop_partial(self) -> None:
        """The file was cut: what was remembered of its last line is no more."""
        self._partial, self._skipping = b"", False

    def add_block(self, block: bytes) -> Iterator[Frame]:
        lines = (self._partial + block).split(b"\n") if self._partial else block.split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            self._line += 1
            if self._skipping:
                self._skipping = False
                continue
            yield from self._add_line(line)
        if len(self._partial) > LINE_BYTES_MAX + 2:
            if not self._skipping:
                self._line += 1
                self.reject("too_long", self._partial)
                self._line -= 1
            self._partial, self._skipping = b"", True

    def add_mapping(self, event: Mapping[str, Any]) -> Iterator[Frame]:
        self._line += 1
        if not isinstance(event, Mapping):
            self.reject("not_object", repr(event)[:_SAMPLE_BYTES].encode())
            return
        try:
            data = _encode(event if isinstance(event, dict) else dict(event))
            reason = "not_encodable" if not all(isinstance(key, str) for key in event) else _fault(event)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            data, reason = b"", "integer_range" if isinstance(error, OverflowError) else "not_encodable"
        if reason or len(data) > LINE_BYTES_MAX:
            self.reject(reason or "too_long", repr(event)[:_SAMPLE_BYTES].encode("utf-8", "replace"))
            return
        yield from self._add(data)

    def finish(self, *, end_of_file: bool = True) -> Iterator[Frame]:
        """The last frame; at the end of a file its last line needs no newline, but must be whole."""
        if end_of_file and self._partial:
            line, self._partial = self._partial, b""
            self._line += 1
            if not self._skipping and line.strip():
                event, reason = parse_event(line)
                if reason == "not_json":
                    reason = "torn_line"
                if reason:
                    self.reject(reason, line)
                else:
                    yield from self._add(event)
        if end_of_file:
            self._skipping = False
        if self._events or self._errors:
            yield self._cut()

    def reject(self, reason: str, line: bytes) -> None:
        self._errors[reason] = self._errors.get(reason, 0) + 1
        if len(self._bad) < _SAMPLES_MAX:
            self._bad.append(BadLine(self._line, reason, line[:_SAMPLE_BYTES].decode("utf-8", "replace")))

    def _add_line(self, line: bytes) -> Iterator[Frame]:
        if not line or line.isspace():
            return
        data, reason = parse_event(line)
        if reason:
            self.reject(reason, line)
        else:
            yield from self._add(data)

    def _add(self, data: bytes) -> Iterator[Frame]:
        if self._bytes + len(data) > FRAME_BYTES_MAX - 8:
            yield self._cut()
        self._events.append(data)
        self._bytes += len(data)
        if len(self._events) >= self._events_max:
            yield self._cut()

    def _cut(self) -> Frame:
        events, errors, bad = self._events, self._errors, self._bad
        self._events, self._bytes, self._errors, self._bad = [], 0, {}, []
        data = array_header(len(events)) + b"".join(events) if events else b""
        return Frame(data, len(events), errors, bad)


def parse_event(line: bytes) -> tuple[bytes, str]:
    """One line as a msgpack map, or the reason why not."""
    if len(line) > LINE_BYTES_MAX:
        return b"", "too_long"
    try:
        event = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b"", _why(line)
    if event.__class__ is not dict:
        return b"", "not_object"
    keys, reason = _look(event.values(), len(event))
    if _keys_written(line) != keys:
        reason = reason or _slow_fault(line)
    if reason:
        return b"", reason
    data = _encode(event)
    return (b"", "too_long") if len(data) > LINE_BYTES_MAX else (data, "")


def _keys_written(line: bytes) -> int:
    """Keys in a valid line, those that came twice included; more than there are, or -1, when a quick look cannot tell.

    Every key ends in `":`. The same within a string is `\\":`, unless a string begins with a colon, which only adds.
    """
    if (b'" ' in line or b'"\t' in line or b'"\r' in line) and _SPACED_COLON.search(line):
        return -1
    tight = line.count(b'":')
    if b'\\":' in line:
        return -1 if b'\\\\":' in line else tight - line.count(b'\\":')
    return tight


def _look(values: Iterable[Any], keys: int) -> tuple[int, str]:
    """Number of keys at every depth, and what is wrong with a number ("" = nothing)."""
    reason = ""
    for value in values:
        kind = value.__class__
        if kind is int:
            if not _INT_MIN <= value <= _INT_MAX:
                reason = "integer_range"
        elif kind is dict:
            below, fault = _look(value.values(), len(value))
            keys, reason = keys + below, reason or fault
        elif kind is list:
            below, fault = _look(value, 0)
            keys, reason = keys + below, reason or fault
        elif kind is float and not isfinite(value):
            reason = "not_finite"
    return keys, reason


class _FaultError(ValueError):
    pass


def _slow_fault(line: bytes) -> str:
    """What the standard library's reader, which shows every pair, has against a line that msgspec took."""

    def pairs(items: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in items}) != len(items):
            raise _FaultError("duplicate_key")

    try:
        json.loads(line, object_pairs_hook=pairs)
    except _FaultError as fault:
        return str(fault)
    except (ValueError, RecursionError):
        return "not_json"
    return ""


def _why(line: bytes) -> str:
    """Why msgspec refused a line."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return "bad_utf8"
    if _NOT_FINITE.search(line):
        return "not_finite"

    def number(text: str) -> float:
        value = float(text)
        if not isfinite(value):
            raise _FaultError("not_finite")
        return value

    try:
        json.loads(line, parse_float=number)
    except _FaultError as fault:
        return str(fault)
    except (ValueError, RecursionError):
        return "not_json"
    return "not_json"


def _fault(value: Any) -> str:
    """`not_finite`, `integer_range` or "" for a value of an event dict, at any depth."""
    if isinstance(value, Mapping):
        return next((fault for item in value.values() if (fault := _fault(item))), "")
    if isinstance(value, (list, tuple)):
        return next((fault for item in value if (fault := _fault(item))), "")
    if isinstance(value, float) and not isfinite(value):
        return "not_finite"
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        return "integer_range"
    return ""
