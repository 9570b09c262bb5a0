"""OTLP bodies as msgpack frames of Argus events, and the answers to them.

The compiled core reads JSON and protobuf alike and maps attributes to keys (`cpp/events/otlp*`). Format:
opentelemetry-proto 1.x, docs/specification.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec
from msgspec import Struct

from argus.engine.spans import OtlpDecoder

_REASONS_MAX: Final = 256
_SAMPLES_MAX: Final = 8


class MappingError(ValueError):
    """A span, record or event that cannot become an event: `reason` is a short name to count by, the text a sentence."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Mapped(Struct):
    """What became of one body: frames for the engine, in the order of their events' time, and what was left out.

    `items` are spans, records or events in the body; `rejected` counts those refused by (source, reason), `samples` says
    why in words, the first few; `ignored` are no agent's; `unknown` counts attributes that no table names.
    """

    frames: list[bytes] = []
    items: int = 0
    events: int = 0
    ignored: int = 0
    unknown: int = 0
    rejected: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    samples: list[tuple[str, str, str]] = []

    def refuse(self, source: str, reason: str, text: str) -> None:
        """Count a refused item; the words of the first few are kept."""
        key = (source, reason)
        self.rejected[key if key in self.rejected or len(self.rejected) < _REASONS_MAX else ("", "other")] += 1
        if len(self.samples) < _SAMPLES_MAX:
            self.samples.append((source, reason, text))


class Mapper:
    """Turns OTLP bodies into frames; takes one body at a time, from any thread, without holding the interpreter.

    Parameters
    ----------
    tenant_attribute : attribute of span, record or resource that names the tenant; "" = none
    tolerance_ns : how far the time of one source may fall back before the engine takes it for a fault

    A sender's spans come in no promised order, and the engine judges the clock of every source. What falls back by more
    than the tolerance is told as of another lane of the sender, `name~1` to `name~7`, each of which goes forward.
    """

    def __init__(self, *, tenant_attribute: str = "", tolerance_ns: int = 2_000_000_000) -> None:
        self._decoder = OtlpDecoder(tenant_attribute=tenant_attribute, tolerance_ns=tolerance_ns)

    def traces(self, body: bytes, *, binary: bool) -> Mapped:
        """Frames of an ExportTraceServiceRequest, in protobuf if `binary`, else in JSON.

        Raises
        ------
        MappingError : the body is none
        """
        return self._map(body, logs=False, binary=binary)

    def logs(self, body: bytes, *, binary: bool) -> Mapped:
        """Frames of an ExportLogsServiceRequest. Errors: as `traces`."""
        return self._map(body, logs=True, binary=binary)

    def _map(self, body: bytes, *, logs: bool, binary: bool) -> Mapped:
        found = self._decoder.map(body, logs=logs, binary=binary)
        reason, text = found["failure"]
        if reason:
            raise MappingError(reason, text)
        return Mapped(
            frames=found["frames"],
            items=found["items"],
            events=found["events"],
            ignored=found["ignored"],
            unknown=found["unknown"],
            rejected=Counter({(source, reason): count for source, reason, count in found["rejected"]}),
            samples=found["samples"],
        )


def binary_answer(rejected: int, why: str) -> bytes:
    """An ExportTraceServiceResponse or ExportLogsServiceResponse in protobuf; of full success, empty.

    Both have `partial_success` (1), which has the count of what was rejected (1) and words (2).
    """
    if not rejected:
        return b""
    return _delimited(1, b"\x08" + _varint(rejected) + _delimited(2, why.encode("utf-8", "replace")))


def binary_status(text: str) -> bytes:
    """google.rpc.Status in protobuf with `message` (2) alone."""
    return _delimited(2, text.encode()[:1000].decode("utf-8", "ignore").encode())


def _delimited(field: int, data: bytes) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
