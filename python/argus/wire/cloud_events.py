"""CloudEvents 1.0 in JSON, structured or a batch, as msgpack frames of Argus events.

Format: CloudEvents 1.0, JSON event format and batch. What cannot become an event is counted by source and reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Raw

from argus.wire.jsonl import parse_event
from argus.wire.otlp import Mapped, MappingError
from argus.wire.zmq import FRAME_BYTES_MAX

EVENTS_MAX: Final = 256

_SOURCE_BYTES: Final = 120
_INT64_MAX: Final = 2**63 - 1
_encode: Final = msgspec.msgpack.Encoder().encode

_OWN_TYPE: Final = re.compile(r"dev\.argus\.([a-z_]{1,48})\.v1")
_ENVELOPE: Final = frozenset(("v", "id", "type", "ts", "source"))
_EXTENSIONS: Final = ("sequence", "seq"), ("mono", "mono"), ("boot", "boot"), ("tenant", "tenant")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def cloud_events(body: bytes, *, batch: bool) -> Mapped:
    """Frames of one CloudEvent in structured JSON, or of a batch of them.

    Raises
    ------
    MappingError : the body is no JSON object, or no array
    """
    out = Mapped()
    events: list[dict[str, Any]] = []
    for raw in _cloud_batch(body) if batch else [body]:
        out.items += 1
        source = ""
        try:
            data, reason = parse_event(raw)
            if reason:
                raise MappingError(reason, f"CloudEvent {out.items}: {reason}")
            envelope = msgspec.msgpack.decode(data)
            source = str(envelope.get("source", ""))[:_SOURCE_BYTES]
            events.append(_cloud_event(envelope))
        except MappingError as error:
            out.refuse(source, error.reason, str(error))
    out.events = len(events)
    out.frames = list(_frames(events))
    return out


def _cloud_batch(body: bytes) -> list[bytes]:
    try:
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MappingError(
            "not_json", f"body: expected a JSON array of CloudEvents, found {type(error).__name__}"
        ) from None


def _cloud_event(envelope: dict[str, Any]) -> dict[str, Any]:
    """The event in a CloudEvent: its data holds the keys of schema v1 that the envelope does not say."""
    for key, wanted in (("specversion", "'1.0'"), ("id", "text"), ("source", "text"), ("type", "text")):
        value = envelope.get(key)
        if not isinstance(value, str) or not value or (key == "specversion" and value != "1.0"):
            raise MappingError("bad_envelope", f"{key}: expected {wanted}, found {_shown(value)}")
    schema = envelope.get("dataschema", "urn:argus:event:1")
    if schema != "urn:argus:event:1":
        raise MappingError("bad_schema", f"dataschema: expected 'urn:argus:event:1' or none, found {_shown(schema)}")
    data = envelope.get("data", {})
    if "data_base64" in envelope or not isinstance(data, dict):
        raise MappingError("bad_data", "data: expected a JSON object with keys of schema v1, found something else")
    own = _OWN_TYPE.fullmatch(envelope["type"])
    event: dict[str, Any] = {key: value for key, value in data.items() if key not in _ENVELOPE}
    kind = own[1] if own else envelope["type"]
    event |= {"v": 1, "id": envelope["id"], "type": kind, "source": _cut(envelope["source"])}
    event["ts"] = _cloud_time(envelope["time"]) if "time" in envelope else _time(data.get("ts", 0), "time")
    for name, key in _EXTENSIONS:
        if name in envelope:
            value = envelope[name]
            event.setdefault(key, _amount(value, name) if key in ("seq", "mono") else value)
    if (subject := envelope.get("subject")) is not None:
        event.setdefault("task" if kind.startswith("task_") or "session" in event else "session", subject)
    if (parent := envelope.get("traceparent")) is not None:
        ids = _TRACEPARENT.fullmatch(parent) if isinstance(parent, str) else None
        if ids is None:
            raise MappingError("bad_envelope", f"traceparent: expected 00-<32 hex>-<16 hex>-01, found {_shown(parent)}")
        event.setdefault("trace", ids[1])
        event.setdefault("span", ids[2])
    return event


_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")


def _cloud_time(value: Any) -> int:
    """RFC 3339 as Unix ns, to the last digit."""
    found = _RFC3339.fullmatch(value) if isinstance(value, str) and len(value) <= 64 else None
    try:
        if found is None:
            raise ValueError
        zone = "+00:00" if found[4] in "Zz" else found[4]
        whole = round(datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").timestamp())
        ts = whole * 1_000_000_000 + int((found[3] or "0").ljust(9, "0"))
    except (ValueError, OverflowError):
        ts = 0
    if not 0 < ts <= _INT64_MAX:
        raise MappingError("bad_time", f"time: expected RFC 3339 after 1970, found {_shown(value)}")
    return ts


def _frames(events: list[dict[str, Any]]) -> Iterable[bytes]:
    """msgpack arrays of at most 256 events and 1 MiB; an event that alone is larger goes alone, for the engine to refuse."""
    for start in range(0, len(events), EVENTS_MAX):
        yield from _framed(events[start : start + EVENTS_MAX])


def _framed(events: list[dict[str, Any]]) -> Iterable[bytes]:
    data = _encode(events)
    if len(data) <= FRAME_BYTES_MAX or len(events) == 1:
        yield data
        return
    middle = len(events) // 2
    yield from _framed(events[:middle])
    yield from _framed(events[middle:])


def _cut(source: str) -> str:
    """A source's name with room for its lane."""
    data = source.encode("utf-8", "replace")
    return source if len(data) <= _SOURCE_BYTES else data[:_SOURCE_BYTES].decode("utf-8", "ignore")


def _time(value: Any, what: str) -> int:
    """Unix time in ns, above 0 and within int64."""
    if value.__class__ is int and 0 < value <= _INT64_MAX:
        return int(value)
    raise MappingError("bad_time", f"{what}: expected Unix time in ns in [1, 2**63), found {_shown(value)}")


def _amount(value: Any, what: str) -> int:
    """A count: an integer in [0, 2**63), written as a number or as digits.

    Raises
    ------
    MappingError : it is none
    """
    if value.__class__ is int and 0 <= value <= _INT64_MAX:
        return value
    number: Any = value
    if (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19) or (
        isinstance(value, float) and value.is_integer()
    ):
        number = int(value)
    if number.__class__ is not int or not 0 <= number <= _INT64_MAX:
        raise MappingError("bad_number", f"{what}: expected an integer in [0, 2**63), found {_shown(value)}")
    return int(number)


def _shown(value: Any) -> str:
    """A value in a message, short; content never comes here."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
