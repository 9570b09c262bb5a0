"""OTLP bodies (JSON, protobuf) and CloudEvents as msgpack frames of Argus events.

Format: opentelemetry-proto 1.x, docs/specification.md; CloudEvents 1.0, JSON event format and batch. Protobuf needs the
extra `otlp`. What cannot become an event is counted by source and reason; what is no agent's is ignored and counted.
A body that is no such request at all raises `MappingError`.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from argus.errors import UsageError
from argus.wire.genai import (
    WORDS,
    MappingError,
    Moment,
    amount,
    events_of,
    is_content,
    keep,
    record_of,
    shown,
)
from argus.wire.jsonl import parse_event
from argus.wire.zmq import FRAME_BYTES_MAX

EVENTS_MAX: Final = 256
LANES: Final = 8

_SOURCES_MAX, _REASONS_MAX, _SAMPLES_MAX, _DEPTH_MAX = 4096, 256, 8, 16
_SOURCE_BYTES: Final = 120
_KEPT_RANK: Final = -1
_INT64_MAX: Final = 2**63 - 1
_RANK: Final = itemgetter(0)
_TS: Final = itemgetter("ts")
_encode: Final = msgspec.msgpack.Encoder().encode


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


# --- JSON: what is read of a request ----------------------------------------------------------------------------------


class _Value(Struct, rename="camel", frozen=True, gc=False):
    string_value: str | None = None
    int_value: int | None = None  # digits in a text, by the specification: the decoders below are not strict
    double_value: float | None = None
    bool_value: bool | None = None
    array_value: Raw = Raw(b"")
    kvlist_value: Raw = Raw(b"")
    bytes_value: str | None = None


class _Pair(Struct, gc=False):
    key: str
    value: _Value = _Value()


class _Status(Struct, frozen=True, gc=False):
    code: int = 0


class _Event(Struct, rename="camel", gc=False):
    name: str = ""
    time_unix_nano: int = 0
    attributes: list[_Pair] = []


class _Span(Struct, rename="camel", gc=False):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    start_time_unix_nano: int = 0
    end_time_unix_nano: int = 0
    attributes: list[_Pair] = []
    events: list[_Event] = []
    status: _Status = _Status()


class _Record(Struct, rename="camel", gc=False):
    time_unix_nano: int = 0
    observed_time_unix_nano: int = 0
    event_name: str = ""
    attributes: list[_Pair] = []
    trace_id: str = ""
    span_id: str = ""


class _Resource(Struct, frozen=True):
    attributes: list[_Pair] = []


class _ScopeSpans(Struct, rename="camel"):
    spans: list[_Span] = []


class _ResourceSpans(Struct, rename="camel"):
    resource: _Resource = _Resource()
    scope_spans: list[_ScopeSpans] = []


class _Traces(Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] = []


class _ScopeLogs(Struct, rename="camel"):
    log_records: list[_Record] = []


class _ResourceLogs(Struct, rename="camel"):
    resource: _Resource = _Resource()
    scope_logs: list[_ScopeLogs] = []


class _Logs(Struct, rename="camel"):
    resource_logs: list[_ResourceLogs] = []


class _RawScopeSpans(Struct, rename="camel"):
    spans: list[Raw] = []
    log_records: list[Raw] = []


class _RawResource(Struct, rename="camel"):
    resource: Raw = Raw(b"{}")
    scope_spans: list[_RawScopeSpans] = []
    scope_logs: list[_RawScopeSpans] = []


class _RawBody(Struct, rename="camel"):
    resource_spans: list[_RawResource] = []
    resource_logs: list[_RawResource] = []


_traces: Final = msgspec.json.Decoder(_Traces, strict=False)
_logs: Final = msgspec.json.Decoder(_Logs, strict=False)
_raw_body: Final = msgspec.json.Decoder(_RawBody)
_span: Final = msgspec.json.Decoder(_Span, strict=False)
_record: Final = msgspec.json.Decoder(_Record, strict=False)
_resource: Final = msgspec.json.Decoder(_Resource, strict=False)


def _of_json(value: Any) -> Any:
    """A JSON AnyValue as a plain one."""
    if (text := value.string_value) is not None:
        return text
    if (number := value.int_value) is not None:
        return number
    if (part := value.double_value) is not None:
        return part
    if (flag := value.bool_value) is not None:
        return flag
    if raw := bytes(value.array_value):
        return _plain({"arrayValue": msgspec.json.decode(raw)})
    if raw := bytes(value.kvlist_value):
        return _plain({"kvlistValue": msgspec.json.decode(raw)})
    return value.bytes_value


def _digits(text: str) -> Any:
    """An int64 in JSON is written as digits; what is none stays text, and whoever wants a number refuses it."""
    return int(text) if len(text) <= 20 and re.fullmatch(r"-?[0-9]+", text) else text


def _plain(value: Any, depth: int = 0) -> Any:
    """A nested AnyValue of JSON, any depth up to 16."""
    if depth > _DEPTH_MAX:
        raise MappingError("too_deep", f"attribute: expected at most {_DEPTH_MAX} levels, found more")
    if not isinstance(value, dict):
        return None
    for kind, inner in value.items():
        if kind == "arrayValue":
            items = inner.get("values", []) if isinstance(inner, dict) else []
            return [_plain(item, depth + 1) for item in items] if isinstance(items, list) else None
        if kind == "kvlistValue":
            items = inner.get("values", []) if isinstance(inner, dict) else []
            pairs = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
            return {str(item.get("key")): _plain(item.get("value"), depth + 1) for item in pairs}
        return _digits(inner) if kind == "intValue" and isinstance(inner, str) else inner
    return None


# --- Protobuf -------------------------------------------------------------------------------------------------------


def _of_protobuf(value: Any, depth: int = 0) -> Any:
    """A protobuf AnyValue as a plain one."""
    if text := value.string_value:
        return text
    if number := value.int_value:
        return number
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        if depth > _DEPTH_MAX:
            raise MappingError("too_deep", f"attribute: expected at most {_DEPTH_MAX} levels, found more")
        return [_of_protobuf(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        if depth > _DEPTH_MAX:
            raise MappingError("too_deep", f"attribute: expected at most {_DEPTH_MAX} levels, found more")
        return {item.key: _of_protobuf(item.value, depth + 1) for item in value.kvlist_value.values}
    plain = getattr(value, kind)
    return plain.hex() if isinstance(plain, bytes) else plain


def protobuf() -> tuple[Any, Any, Any, Any]:
    """Request and response classes of traces, then of logs.

    Raises
    ------
    UsageError : the extra `otlp` is not installed
    """
    try:
        traces = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        logs = importlib.import_module("opentelemetry.proto.collector.logs.v1.logs_service_pb2")
    except ImportError as error:
        raise UsageError(
            f"inlets.otlp: expected the extra 'otlp' for protobuf, found none ({error}); install "
            "argus-auditor[otlp], or send JSON: OTEL_EXPORTER_OTLP_PROTOCOL=http/json"
        ) from None
    return (
        traces.ExportTraceServiceRequest,
        traces.ExportTraceServiceResponse,
        logs.ExportLogsServiceRequest,
        logs.ExportLogsServiceResponse,
    )


# --- The mapper -------------------------------------------------------------------------------------------------------


class Mapper:
    """Turns bodies into frames; one thread at a time.

    Parameters
    ----------
    tenant_attribute : attribute of span, record or resource that names the tenant; "" = none
    tolerance_ns : how far the time of one source may fall back before the engine takes it for a fault

    A sender's spans come in no promised order, and the engine judges the clock of every source. What falls back by more
    than the tolerance is told as of another lane of the sender, `name~1` to `name~7`, each of which goes forward.
    """

    def __init__(self, *, tenant_attribute: str = "", tolerance_ns: int = 2_000_000_000) -> None:
        self._tolerance_ns = tolerance_ns
        self._ids: dict[str | bytes, str] = {}
        self._lanes: OrderedDict[str, list[int]] = OrderedDict()
        self._words = dict(WORDS)
        if tenant_attribute:
            self._words[tenant_attribute] = (0, "tenant")

    def traces(self, body: bytes, *, binary: bool) -> Mapped:
        """Frames of an ExportTraceServiceRequest.

        Raises
        ------
        MappingError : the body is none
        UsageError : `binary`, and the extra `otlp` is not installed
        """
        return self._map(body, binary, logs=False)

    def logs(self, body: bytes, *, binary: bool) -> Mapped:
        """Frames of an ExportLogsServiceRequest. Errors: as `traces`."""
        return self._map(body, binary, logs=True)

    def cloud_events(self, body: bytes, *, batch: bool) -> Mapped:
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
        self._pack(events, out, ordered=True)
        return out

    def _map(self, body: bytes, binary: bool, *, logs: bool) -> Mapped:
        out = Mapped()
        self._ids.clear()
        events: list[dict[str, Any]] = []
        plain = _of_protobuf if binary else _of_json
        take = self._take_record if logs else self._take_span
        for resource, items in _binary(body, logs) if binary else _json(body, logs):
            base = self._base(resource, plain)
            source = base["source"]
            for item in items:
                out.items += 1
                try:
                    if item.__class__ is Raw:
                        item = _one(item, logs)
                    found = take(item, base, plain, out)
                except MappingError as error:
                    out.refuse(source, error.reason, str(error))
                    continue
                if found:
                    events += found
                else:
                    out.ignored += 1
        self._pack(events, out)
        return out

    def _base(self, attributes: Any, plain: Callable[[Any], Any]) -> dict[str, Any]:
        """What every event of a resource has."""
        found = {}
        for pair in attributes:
            if pair.key in _OF_RESOURCE or self._words.get(pair.key, (0, ""))[1] == "tenant":
                found[pair.key] = plain(pair.value)
        name = str(found.get("service.name") or "unknown_service")
        instance = found.get("service.instance.id")
        source = f"{name}/{instance}" if instance else name
        base: dict[str, Any] = {"v": 1, "source": _cut(source)}
        for key, value in found.items():
            if (word := self._words.get(key)) is not None:
                base[word[1]] = value
        return base

    def _collect(self, pairs: Any, plain: Callable[[Any], Any], out: Mapped) -> tuple[dict[str, Any], dict[str, Any]]:
        """Attributes by key of the event, and those that are kept as they are."""
        found: dict[str, Any] = {}
        attrs: dict[str, Any] = {}
        later: list[tuple[int, str, Any]] | None = None
        words = self._words
        for pair in pairs:
            word = words.get(pair.key)
            if word is None:
                out.unknown += not is_content(pair.key)
                continue
            rank, field = word
            if rank < _KEPT_RANK:
                continue
            whole = pair.value
            value = whole.string_value or plain(whole)
            if rank == 0:
                found[field] = value
            elif rank > 0:
                if later is None:
                    later = []
                later.append((rank, field, value))
            else:
                keep(attrs, field, value)
        if later:
            later.sort(key=_RANK)
            for _, field, value in later:
                found.setdefault(field, value)
        return found, attrs

    def _take_span(
        self, span: Any, base: dict[str, Any], plain: Callable[[Any], Any], out: Mapped
    ) -> list[dict[str, Any]]:
        found, attrs = self._collect(span.attributes, plain, out)
        at = self._moment(span)
        below = []
        for event in span.events:
            name = event.name
            if name == "exception" or name.startswith("gen_ai.e"):
                own, kept = self._collect(event.attributes, plain, out)
                if name != "exception":
                    below.append((event, own, kept))
                elif at.failed and "error" in own:  # one that was caught within the span is no failure of it
                    found.setdefault("error", own["error"])
        if "tenant" in found:
            base = {**base, "tenant": found["tenant"]}
        events = events_of(at, found, attrs, base)
        for number, (event, own, kept) in enumerate(below):
            inherited = {key: found[key] for key in ("session", "agent", "agent_version") if key in found}
            when = _time(event.time_unix_nano, "timeUnixNano")
            moment = Moment(at.trace, at.span, at.parent, "", 0, when)
            events += record_of(event.name, moment, inherited | own, kept, base, f"{at.span}:v{number}")
        return events

    def _moment(self, span: Any) -> Moment:
        trace = self._known(span.trace_id, 16, "traceId")
        parent = self._known(span.parent_span_id, 8, "parentSpanId") if span.parent_span_id else ""
        end = _time(span.end_time_unix_nano, "endTimeUnixNano")
        start = _time(span.start_time_unix_nano or end, "startTimeUnixNano")
        name = _identifier(span.span_id, 8, "spanId")
        return Moment(trace, name, parent, span.name, start, end, span.status.code == 2)

    def _known(self, value: str | bytes, size: int, what: str) -> str:
        """An id that many spans of a body share."""
        text = self._ids.get(value)
        if text is None:
            text = self._ids[value] = _identifier(value, size, what)
        return text

    def _take_record(
        self, record: Any, base: dict[str, Any], plain: Callable[[Any], Any], out: Mapped
    ) -> list[dict[str, Any]]:
        found, attrs = self._collect(record.attributes, plain, out)
        name = str(record.event_name or found.get("event_name") or "")
        if not name.startswith("gen_ai."):
            return []
        trace = _identifier(record.trace_id, 16, "traceId") if record.trace_id else ""
        span = _identifier(record.span_id, 8, "spanId") if record.span_id else ""
        when = _time(record.time_unix_nano or record.observed_time_unix_nano, "timeUnixNano")
        if "tenant" in found:
            base = {**base, "tenant": found["tenant"]}
        # A record has no id of its own: equal content at an equal time is the same record sent again.
        identity = blake2b(repr((trace, span, when, name, found, attrs)).encode("utf-8", "replace"), digest_size=16)
        at = Moment(trace, span, "", "", 0, when)
        return record_of(name, at, found, attrs, base, identity.hexdigest())

    # --- frames ------------------------------------------------------------------------------------------------------

    def _pack(self, events: list[dict[str, Any]], out: Mapped, *, ordered: bool = False) -> None:
        if not ordered:
            events.sort(key=_TS)
        for event in () if ordered else events:
            source = event["source"]
            lane = self._lane(source, event["ts"])
            if lane:
                event["source"] = f"{source}~{lane}"
        out.events = len(events)
        out.frames = list(_frames(events))

    def _lane(self, source: str, ts: int) -> int:
        """The first lane of a source whose clock `ts` does not turn back."""
        newest = self._lanes.get(source)
        if newest is None:
            self._lanes[source] = [ts]
            if len(self._lanes) > _SOURCES_MAX:
                self._lanes.popitem(last=False)
            return 0
        for lane, latest in enumerate(newest):
            if ts >= latest - self._tolerance_ns:
                newest[lane] = max(latest, ts)
                return lane
        if len(newest) < LANES:
            newest.append(ts)
        return len(newest) - 1


_OF_RESOURCE: Final = frozenset(
    ("service.name", "service.instance.id", "session.id", "gen_ai.agent.name", "gen_ai.agent.version")
)


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


def _identifier(value: str | bytes, size: int, what: str) -> str:
    """An id as hexadecimal digits: bytes in protobuf, digits of either case in JSON."""
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else value
    except ValueError:
        raw = b""
    if len(raw) != size or not any(raw):
        raise MappingError("bad_id", f"{what}: expected {size} bytes that are not all zero, found {shown(value)}")
    return raw.hex()


def _time(value: Any, what: str) -> int:
    """Unix time in ns, above 0 and within int64."""
    if value.__class__ is int and 0 < value <= _INT64_MAX:
        return int(value)
    raise MappingError("bad_time", f"{what}: expected Unix time in ns in [1, 2**63), found {shown(value)}")


def _json(body: bytes, logs: bool) -> Iterable[tuple[Any, Iterable[Any]]]:
    """Attributes of each resource with its spans or records; those of a body with a fault one by one, still encoded."""
    try:
        if logs:
            return [(r.resource.attributes, _flat(s.log_records for s in r.scope_logs)) for r in
                    _logs.decode(body).resource_logs]  # fmt: skip
        return [(r.resource.attributes, _flat(s.spans for s in r.scope_spans)) for r in
                _traces.decode(body).resource_spans]  # fmt: skip
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MappingError("not_json", f"body: expected OTLP in JSON, found none: {_reason(error)}") from None
    try:
        found = _raw_body.decode(body)
        parts = found.resource_logs if logs else found.resource_spans
        return [
            (
                _resource.decode(part.resource).attributes,
                _flat(s.log_records for s in part.scope_logs) if logs else _flat(s.spans for s in part.scope_spans),
            )
            for part in parts
        ]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MappingError("not_otlp", f"body: expected an OTLP request, found {_reason(error)}") from None


def _flat(lists: Iterable[list[Any]]) -> list[Any]:
    return [item for items in lists for item in items]


def _one(raw: Raw, logs: bool) -> Any:
    try:
        return _record.decode(raw) if logs else _span.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MappingError("wrong_type", f"{'record' if logs else 'span'}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why a decoder refused; its words name a type and a place, never a value."""
    return str(error)[:200] if isinstance(error, msgspec.ValidationError) else type(error).__name__


def _binary(body: bytes, logs: bool) -> Iterable[tuple[Any, Iterable[Any]]]:
    traces_request, _, logs_request, _ = protobuf()
    request = (logs_request if logs else traces_request)()
    try:
        request.ParseFromString(body)
    except Exception as error:  # google.protobuf.message.DecodeError, of a package that may be absent
        raise MappingError(
            "not_protobuf", f"body: expected OTLP in protobuf, found none: {type(error).__name__}"
        ) from None
    if logs:
        return [(r.resource.attributes, _flat(s.log_records for s in r.scope_logs)) for r in request.resource_logs]
    return [(r.resource.attributes, _flat(s.spans for s in r.scope_spans)) for r in request.resource_spans]


# --- CloudEvents ------------------------------------------------------------------------------------------------------

_OWN_TYPE: Final = re.compile(r"dev\.argus\.([a-z_]{1,48})\.v1")
_ENVELOPE: Final = frozenset(("v", "id", "type", "ts", "source"))
_EXTENSIONS: Final = ("sequence", "seq"), ("mono", "mono"), ("boot", "boot"), ("tenant", "tenant")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def _cloud_batch(body: bytes) -> list[bytes]:
    try:
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MappingError("not_json", f"body: expected a JSON array of CloudEvents, found {_reason(error)}") from None


def _cloud_event(envelope: dict[str, Any]) -> dict[str, Any]:
    """The event in a CloudEvent: its data holds the keys of schema v1 that the envelope does not say."""
    for key, wanted in (("specversion", "'1.0'"), ("id", "text"), ("source", "text"), ("type", "text")):
        value = envelope.get(key)
        if not isinstance(value, str) or not value or (key == "specversion" and value != "1.0"):
            raise MappingError("bad_envelope", f"{key}: expected {wanted}, found {shown(value)}")
    schema = envelope.get("dataschema", "urn:argus:event:1")
    if schema != "urn:argus:event:1":
        raise MappingError("bad_schema", f"dataschema: expected 'urn:argus:event:1' or none, found {shown(schema)}")
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
            event.setdefault(key, amount(value, name) if key in ("seq", "mono") else value)
    if (subject := envelope.get("subject")) is not None:
        event.setdefault("task" if kind.startswith("task_") or "session" in event else "session", subject)
    if (parent := envelope.get("traceparent")) is not None:
        ids = _TRACEPARENT.fullmatch(parent) if isinstance(parent, str) else None
        if ids is None:
            raise MappingError("bad_envelope", f"traceparent: expected 00-<32 hex>-<16 hex>-01, found {shown(parent)}")
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
        raise MappingError("bad_time", f"time: expected RFC 3339 after 1970, found {shown(value)}")
    return ts
