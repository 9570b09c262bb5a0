"""OTLP: spans a second and core through decode, mapping, ledger and auditors, JSON and protobuf, in the sender's batches.

Two calls of a model (eight attributes, two events each) to one of a tool, 512 spans a body. The server and the network
are not in it. Protobuf is left out where opentelemetry-proto is not installed.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from support import figure, median_cpu_s

from argus.engine.core import Engine
from argus.wire.otlp import Mapper

_SPANS, _BODY = 20_480, 512
_CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
}


def _value(value: Any) -> dict[str, Any]:
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def _span(number: int, start: int) -> dict[str, Any]:
    trace = number // 30
    given: dict[str, Any] = {"gen_ai.conversation.id": f"conv-{trace}"}
    if number % 3 == 2:
        given |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "gen_ai.tool.call.id": "c"}
    else:
        given |= _CHAT | {"gen_ai.response.id": f"resp-{number}", "gen_ai.usage.input_tokens": 900 + number % 50}
        given["gen_ai.usage.output_tokens"] = 80
    return {
        "traceId": f"{trace + 1:032x}",
        "spanId": f"{number + 1:016x}",
        "parentSpanId": f"{trace + 10**9:016x}",
        "name": "chat gpt-4o",
        "kind": 3,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 1_000_000),
        "attributes": [{"key": key, "value": _value(value)} for key, value in given.items()],
        "status": {},
    }


def _bodies() -> list[bytes]:
    now = time.time_ns()
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "bench"}}]}
    spans = [_span(number, now + number * 1000) for number in range(_SPANS)]
    return [
        json.dumps(
            {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans[i : i + _BODY]}]}]}
        ).encode()
        for i in range(0, _SPANS, _BODY)
    ]


def _binary(body: bytes) -> bytes:
    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    document = json.loads(body)
    for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for key in ("traceId", "spanId", "parentSpanId"):
            span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return bytes(json_format.ParseDict(document, ExportTraceServiceRequest()).SerializeToString())


def _spans_per_s(bodies: list[bytes], *, binary: bool) -> float:
    """Median of five passes, each with an engine that has not seen the spans: a repeated one would cost it nothing."""
    rates = []
    for _ in range(5):
        mapper, accepted = Mapper(), 0
        with Engine() as engine:
            start = time.process_time()
            for body in bodies:
                for frame in mapper.traces(body, binary=binary).frames:
                    accepted += engine.ingest(frame).accepted
            rates.append(_SPANS / (time.process_time() - start))
        assert accepted == sum(1 if number % 3 == 2 else 2 for number in range(_SPANS))
    return statistics.median(rates)


def _rate(work: Callable[[], object]) -> float:
    return _SPANS / median_cpu_s(work, 5)


def _mapped_only(bodies: list[bytes], *, binary: bool) -> Callable[[], object]:
    """Decoding and mapping without the engine."""
    mapper = Mapper()
    return lambda: [mapper.traces(body, binary=binary) for body in bodies]


def figures() -> Iterator[dict[str, Any]]:
    """Spans a second of CPU time; the bar is that of the promise, 100,000.

    The mapping alone is compared with a bare parse of the same bytes into Python objects.
    """
    bodies = _bodies()
    rate = _spans_per_s(bodies, binary=False)
    yield figure("agent_otlp/json", rate, "spans/s", bar=100_000, good=rate >= 100_000)
    mapping, bare = _rate(_mapped_only(bodies, binary=False)), _rate(lambda: [msgspec.json.decode(b) for b in bodies])
    yield figure("agent_otlp/json_mapping", mapping, "spans/s", against="msgspec.json.decode", ratio=mapping / bare)
    if importlib.util.find_spec("opentelemetry"):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request

        packed = [_binary(body) for body in bodies]
        rate = _spans_per_s(packed, binary=True)
        yield figure("agent_otlp/protobuf", rate, "spans/s", bar=100_000, good=rate >= 100_000)
        mapping, bare = _rate(_mapped_only(packed, binary=True)), _rate(lambda: [Request.FromString(b) for b in packed])
        yield figure("agent_otlp/protobuf_mapping", mapping, "spans/s", against="protobuf (upb)", ratio=mapping / bare)
