"""OTLP and CloudEvents become events: a corpus of five emitters, both encodings, hostile bodies."""

from __future__ import annotations

import base64
import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.engine.core import Engine
from argus.engine.spans import otlp_fate as fate
from argus.wire.cloud_events import cloud_events
from argus.wire.emitter import canonical_hash
from argus.wire.otlp import Mapped, Mapper, MappingError

CORPUS = sorted((Path(__file__).resolve().parents[2] / "fixtures" / "otlp").glob("*.json"))
LANES = 8
NOW = 1_790_000_000_000_000_000
TRACE, PARENT = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b173"
SERVICE = {"service.name": "shop", "service.instance.id": "i-1"}


def any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": pairs(value)}}
    return {"stringValue": value}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def span(attributes: dict[str, Any], number: int = 1, **given: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE, "spanId": f"{number:016x}", "parentSpanId": PARENT, "name": "chat", "kind": 3,
        "startTimeUnixNano": str(NOW), "endTimeUnixNano": str(NOW + 1_000_000 * number),
        "attributes": pairs(attributes), "status": {}, **given,
    }  # fmt: skip


def traces(*spans: Any, resource: dict[str, Any] = SERVICE) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {"attributes": pairs(resource)}, "scopeSpans": [{"spans": list(spans)}]}]}


def logs(*records: Any) -> dict[str, Any]:
    scopes = [{"scope": {"name": "x"}, "logRecords": list(records)}]
    return {"resourceLogs": [{"resource": {"attributes": pairs(SERVICE)}, "scopeLogs": scopes}]}


def mapped(body: dict[str, Any], *, binary: bool = False, mapper: Mapper | None = None) -> Mapped:
    read = (mapper or Mapper()).logs if "resourceLogs" in body else (mapper or Mapper()).traces
    return read(to_protobuf(body) if binary else json.dumps(body).encode(), binary=binary)


def to_protobuf(body: dict[str, Any]) -> bytes:
    pytest.importorskip("opentelemetry.proto", reason="opentelemetry-proto (extra 'dev') is not installed")
    from google.protobuf import json_format
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    def ids(value: Any) -> Any:
        if isinstance(value, list):
            return [ids(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: base64.b64encode(bytes.fromhex(inner)).decode() if key in ("traceId", "spanId", "parentSpanId")
            else ids(inner)
            for key, inner in value.items()
        }  # fmt: skip

    request = ExportLogsServiceRequest() if "resourceLogs" in body else ExportTraceServiceRequest()
    return bytes(json_format.ParseDict(ids(body), request).SerializeToString())


def events(result: Mapped) -> list[dict[str, Any]]:
    return [event for frame in result.frames for event in msgpack.unpackb(frame)]


@functools.cache
def one_engine() -> Engine:
    return Engine()


def judged(result: Mapped) -> dict[str, int]:
    """What the engine refuses of it, by reason."""
    refused: Counter[str] = Counter()
    for frame in result.frames:
        refused.update(one_engine().ingest(frame, now=NOW).rejected)
    return dict(refused)


def from_corpus(item: dict[str, Any], number: int) -> dict[str, Any]:
    below = [{**e, "timeUnixNano": str(NOW), "attributes": pairs(e["attributes"])} for e in item.get("events", [])]
    more = {"name": item["name"], "events": below, "status": {"code": 2} if item.get("failed") else {}}
    return span(item["attributes"], number, **more, **({"parentSpanId": ""} if item.get("root") else {}))


def record(name: str, attributes: dict[str, Any], *, detached: bool = False) -> dict[str, Any]:
    ids = {} if detached else {"traceId": TRACE, "spanId": PARENT}
    return {"timeUnixNano": str(NOW), "eventName": name, "attributes": pairs(attributes), **ids}


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["stringValue", "intValue", "doubleValue", "boolValue", "arrayValue", "kvlistValue", "bytesValue"]
NAMES = ["gen_ai.operation.name", "gen_ai.usage.input_tokens", "gen_ai.tool.name", "session.id", "llm.cost.total", "x"]
json_like_containers = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4),
    max_leaves=12,
).filter(lambda v: isinstance(v, list | dict))


# --- The corpus -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_attribute_of_the_corpus_has_its_fate(path: Path):
    corpus = json.loads(path.read_text())
    items = corpus["spans"] + corpus["logs"]
    below = [event for item in items for event in item.get("events", [])]
    names = {name for item in items + below for name in item["attributes"]}
    assert not {name for name in names if not fate(name)}


@pytest.mark.parametrize("binary", [False, True], ids=["json", "protobuf"])
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_becomes_the_events_it_expects(path: Path, binary: bool):
    corpus = json.loads(path.read_text())
    for number, item in enumerate(corpus["spans"], 1):
        result = mapped(traces(from_corpus(item, number)), binary=binary)
        agrees(item, result)
    for item in corpus["logs"]:
        detached = item.get("detached", False)
        agrees(item, mapped(logs(record(item["name"], item["attributes"], detached=detached)), binary=binary))


def agrees(item: dict[str, Any], result: Mapped) -> None:
    found = sorted(events(result), key=lambda event: event["id"].endswith(":c"))
    found.sort(key=lambda event: event["type"] == "eval_logged")
    assert [e["type"] for e in found] == [e["type"] for e in item["expect"]], item["name"]
    for got, wanted in zip(found, item["expect"], strict=True):
        assert wanted == {key: got.get(key) for key in wanted}, item["name"]
    assert (result.unknown, result.rejected) == (0, {})
    assert judged(result) == {}


def test_both_encodings_give_the_same_frames():
    for path in CORPUS:
        spans = [from_corpus(item, n) for n, item in enumerate(json.loads(path.read_text())["spans"], 1)]
        assert events(mapped(traces(*spans))) == events(mapped(traces(*spans), binary=True))


PLAIN = st.text(max_size=12) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    PLAIN | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from([*NAMES, "gen_ai.tool.call.arguments", "gen_ai.usage.output_tokens", "server.port", "a.b"]), VALUES
)
OPERATIONS = st.sampled_from(["chat", "execute_tool", "invoke_agent", "evaluation", "plan"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ATTRIBUTES, OPERATIONS), max_size=3))
def test_any_attributes_give_the_same_events_in_both_encodings(spans: list[tuple[dict[str, Any], str]]):
    body = traces(*(span({**found, "gen_ai.operation.name": name}, n) for n, (found, name) in enumerate(spans, 1)))
    one, other = mapped(body), mapped(body, binary=True)
    assert (one.frames, one.unknown, one.rejected) == (other.frames, other.unknown, other.rejected)


@settings(max_examples=100, deadline=None)
@given(json_like_containers)
def test_arguments_hash_as_the_emitter_hashes_them(value: Any):
    """A tool's arguments are one state, whether its agent speaks through an Emitter or through spans."""
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}
    for text in (json.dumps(value), json.dumps(value, indent=2, ensure_ascii=False)):
        (event,) = events(mapped(traces(span({**tool, "gen_ai.tool.call.arguments": text}))))
        assert (event["args_hash"], event["args_len"]) == canonical_hash(value)


def test_no_content_is_kept():
    """What people and models wrote is in no event, wherever an emitter put it."""
    secret = "SECRET-7f3a"
    for path in CORPUS:
        text = path.read_text()
        for item in json.loads(text)["spans"]:
            given = {
                name: secret if fate(name) in ("content", "args", "result") else value
                for name, value in item["attributes"].items()
            }
            result = mapped(traces(span(given), span({**given, "new.name": secret}, 2)))
            assert secret.encode() not in b"".join(result.frames), item["name"]


# --- The mapping ----------------------------------------------------------------------------------------------------


def test_a_span_fills_the_envelope():
    (event,) = events(mapped(traces(span({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}))))
    wanted = {
        "v": 1, "source": "shop/i-1", "id": "0000000000000001:e", "ts": NOW + 1_000_000, "duration_ns": 1_000_000,
        "trace": TRACE, "span": "0000000000000001", "parent_span": PARENT, "task": PARENT, "session": TRACE,
        "type": "tool_returned", "tool": "t", "ok": True,
    }  # fmt: skip
    assert wanted == event


def test_equal_arguments_hash_alike_however_they_are_written():
    forms = ['{"a":1,"b":[2]}', '{ "b": [2], "a": 1 }', {"b": [2], "a": 1}]
    base = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}
    found = [
        events(mapped(traces(span({**base, "gen_ai.tool.call.arguments": form}))))[0]["args_hash"] for form in forms
    ]
    assert len(set(found)) == 1


def test_spans_of_no_agent_are_ignored_and_counted():
    result = mapped(traces(span({"http.request.method": "GET"}), span({"gen_ai.operation.name": "chat"}, 2)))
    assert (result.items, result.ignored, result.unknown, result.events) == (2, 1, 1, 1)


def test_an_exception_that_was_caught_is_no_failure():
    raised = [{"name": "exception", "timeUnixNano": str(NOW), "attributes": pairs({"exception.type": "KeyError"})}]
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}
    caught, failed = events(mapped(traces(span(tool, events=raised), span(tool, 2, events=raised, status={"code": 2}))))
    assert (caught["ok"], caught.get("error")) == (True, None)
    assert (failed["ok"], failed["error"]) == (False, "KeyError")


def test_the_tenant_is_read_where_it_was_said_to_be():
    mapper = Mapper(tenant_attribute="shop.customer")
    chat = {"gen_ai.operation.name": "chat"}
    body = traces(span({**chat, "shop.customer": "acme"}), span(chat, 2), resource={**SERVICE, "shop.customer": "own"})
    assert ["acme", "own"] == [event["tenant"] for event in events(mapped(body, mapper=mapper))]


def test_late_spans_take_another_lane_so_that_no_clock_falls_back():
    """A sender's batches come in any order; the engine must not take that for a clock that was turned back."""
    mapper, second = Mapper(), 1_000_000_000
    with Engine() as engine:
        found = []
        for number, offset in enumerate([100, 10, 101, 11, 55, 102], 1):
            late = span({"gen_ai.operation.name": "chat"}, number, endTimeUnixNano=str(NOW + offset * second))
            for frame in mapped(traces(late), mapper=mapper).frames:
                found += engine.ingest(frame, now=NOW + 200 * second).anomalies
    assert [a.series for a in found if a.series == "causal.clock_backwards"] == []


def test_lanes_are_bounded():
    mapper = Mapper()
    names = set()
    for number in range(1, 40):
        late = span({"gen_ai.operation.name": "chat"}, number, endTimeUnixNano=str(NOW - number * 10**10))
        names |= {event["source"] for event in events(mapped(traces(late), mapper=mapper))}
    assert len(names) == LANES


def test_frames_hold_at_most_256_events_and_1_mib():
    text = "x" * 500
    heavy = {f"gen_ai.request.{k}": text for k in ("seed", "top_k", "stream", "top_p")}
    result = mapped(traces(*(span({"gen_ai.operation.name": "chat", **heavy}, n) for n in range(1, 701))))
    assert max(map(len, result.frames)) <= 1 << 20
    assert max(len(msgpack.unpackb(frame)) for frame in result.frames) <= 256
    assert result.events == 700
    assert judged(result) == {}


# --- Bad input ------------------------------------------------------------------------------------------------------

GOOD = {"gen_ai.operation.name": "chat"}
BAD = [
    (span(GOOD, traceId="00"), "bad_id"),
    (span(GOOD, spanId="0" * 16), "bad_id"),
    (span(GOOD, parentSpanId="xyz"), "bad_id"),
    (span(GOOD, endTimeUnixNano="0"), "bad_time"),
    (span(GOOD, endTimeUnixNano=str(2**63)), "bad_time"),
    (span({**GOOD, "gen_ai.usage.input_tokens": -1}), "bad_number"),
    (span({**GOOD, "gen_ai.usage.input_tokens": "many"}), "bad_number"),
    (span({**GOOD, "llm.cost.total": "free"}), "bad_number"),
    (span({**GOOD, "llm.cost.total": 1e300}), "bad_number"),
    (span(GOOD, endTimeUnixNano={}), "wrong_type"),
    ({**span(GOOD), "attributes": 3}, "wrong_type"),
    (7, "wrong_type"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_span_is_refused_by_name_and_its_neighbours_live(bad: Any, reason: str):
    result = mapped(traces(span(GOOD, 8), bad, span(GOOD, 9)))
    assert {("shop/i-1", reason): 1} == result.rejected
    assert (result.items, result.events) == (3, 2)
    ((source, named, text),) = result.samples
    assert (source, named) == ("shop/i-1", reason)
    assert "expected" in text.lower()


def test_what_the_engine_refuses_is_said_by_the_engine():
    assert {"over_limit": 1} == judged(mapped(traces(span({**GOOD, "gen_ai.request.model": "m" * 129}))))


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000, b'{"resourceSpans":5}'])
def test_a_body_that_is_no_request_is_refused_as_a_whole(body: bytes):
    with pytest.raises(MappingError, match="body: expected"):
        Mapper().traces(body, binary=False)


@pytest.mark.parametrize("depth", [15, 400, 100_000])
def test_nested_values_never_crash(depth: int):
    inner = '{"arrayValue":{"values":[' * depth + '{"intValue":"1"}' + "]}}" * depth
    tool = span({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"})
    body = json.dumps(traces(tool)).replace('{"stringValue": "t"}}]', '{"stringValue": "t"}}, {"key": '
        f'"gen_ai.tool.call.arguments", "value": {inner}}}]')  # fmt: skip
    try:
        result = Mapper().traces(body.encode(), binary=False)
    except MappingError:
        assert depth > 16
    else:
        assert result.events == (depth <= 16)


attributes = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(NAMES), "value": st.dictionaries(st.sampled_from(KEYS), json_like, max_size=2)}
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        attributes.map(lambda found: span(GOOD) | {"attributes": found})
        | st.dictionaries(st.sampled_from(list(span(GOOD))), json_like)
        | json_like,
        max_size=4,
    )
)
def test_any_span_is_taken_refused_or_ignored(items: list[Any]):
    try:
        result = Mapper().traces(json.dumps(traces(*items)).encode(), binary=False)
    except MappingError:
        return
    kept = {event["id"].partition(":")[0] for event in events(result)}
    assert result.items == len(items)
    assert len(items) >= sum(result.rejected.values()) + result.ignored
    assert bool(kept) == (len(items) > sum(result.rejected.values()) + result.ignored)
    judged(result)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.booleans())
def test_torn_and_random_protobuf_never_crashes(noise: bytes, cut: int, prefix: bool):
    whole = to_protobuf(traces(span(GOOD)))
    for read in (Mapper().traces, Mapper().logs):
        try:
            judged(read(whole[:cut] + noise if prefix else noise, binary=True))
        except MappingError as error:
            assert error.reason == "not_protobuf"


# --- CloudEvents ----------------------------------------------------------------------------------------------------

CLOUD = {
    "specversion": "1.0", "id": "1", "source": "/agents/a", "type": "dev.argus.tool_called.v1",
    "time": "2026-09-21T14:13:20.123456789Z", "datacontenttype": "application/json", "subject": "s1",
    "data": {"tool": "search", "agent": "a"},
}  # fmt: skip


def cloud(event: Any, *, batch: bool = False) -> Mapped:
    return cloud_events(json.dumps(event).encode(), batch=batch)


def test_a_cloud_event_is_its_envelope_and_its_data():
    result = cloud({**CLOUD, "sequence": "4", "traceparent": f"00-{TRACE}-{PARENT}-01"})
    wanted = {
        "v": 1, "id": "1", "source": "/agents/a", "type": "tool_called", "ts": NOW + 123_456_789, "tool": "search",
        "agent": "a", "session": "s1", "seq": 4, "trace": TRACE, "span": PARENT,
    }  # fmt: skip
    assert [wanted] == events(result)
    assert judged(result) == {}


def test_the_subject_of_a_task_is_the_task():
    (event,) = events(cloud({**CLOUD, "type": "dev.argus.task_started.v1", "subject": "t1", "data": {"session": "s"}}))
    assert ("t1", "s") == (event["task"], event["session"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"specversion": "0.3"}, "bad_envelope"),
        ({"id": ""}, "bad_envelope"),
        ({"source": 5}, "bad_envelope"),
        ({"dataschema": "urn:other"}, "bad_schema"),
        ({"data": "text"}, "bad_data"),
        ({"data_base64": "AA=="}, "bad_data"),
        ({"time": "yesterday"}, "bad_time"),
        ({"time": "2026-13-41T00:00:00Z"}, "bad_time"),
        ({"traceparent": "00"}, "bad_envelope"),
        ({"sequence": "x"}, "bad_number"),
    ],
)
def test_a_bad_cloud_event_is_refused_and_the_rest_of_its_batch_lives(change: dict[str, Any], reason: str):
    result = cloud([CLOUD, {**CLOUD, "id": "2", **change}, {**CLOUD, "id": "3"}], batch=True)
    assert [reason] == [named for _, named in result.rejected]
    assert ["1", "3"] == [event["id"] for event in events(result)]


def test_a_key_that_comes_twice_is_refused():
    twice = json.dumps(CLOUD)[:-1] + ', "id": "2"}'
    assert {("", "duplicate_key"): 1} == cloud_events(twice.encode(), batch=False).rejected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from([*CLOUD, "sequence", "traceparent"]), json_like), max_size=3))
def test_any_batch_of_cloud_events_is_taken_or_refused(items: list[Any]):
    batch = [{**CLOUD, **item} for item in items]
    result = cloud_events(json.dumps(batch).encode(), batch=True)
    assert result.items == len(batch) == result.events + sum(result.rejected.values())
    judged(result)
