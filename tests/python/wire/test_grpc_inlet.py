"""OTLP over gRPC: the same events as over HTTP, bounded messages, answers that a sender understands."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from test_http_inlet import Served
from test_otlp import GOOD, logs, record, span, to_protobuf, traces

from argus.errors import RefusedError, UnreachableError, UsageError
from argus.wire import grpc_inlet
from argus.wire.grpc_inlet import GrpcInlet
from argus.wire.http_inlet import BODY_BYTES_MAX

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


@pytest.fixture
def served() -> Iterator[Served]:
    each = Served()
    yield each
    each.close()


@pytest.fixture
def opened(served: Served) -> Iterator[GrpcInlet]:
    pytest.importorskip("grpc", reason="grpcio (extra 'otlp-grpc') is not installed")
    with GrpcInlet("127.0.0.1:0", served.inlet) as inlet:
        yield inlet


def call(opened: GrpcInlet, method: str, body: bytes, **given: Any) -> bytes:
    grpc: Any = importlib.import_module("grpc")
    with grpc.insecure_channel(opened.endpoint, options=(("grpc.max_send_message_length", -1),)) as channel:
        return bytes(channel.unary_unary(method)(body, timeout=20, **given))


def test_spans_and_records_reach_the_engine(served: Served, opened: GrpcInlet):
    assert call(opened, TRACES, to_protobuf(traces(span(GOOD)))) == b""
    evaluation = record("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "r"})
    assert call(opened, LOGS, to_protobuf(logs(evaluation))) == b""
    assert served.accepted == 2


def test_partial_success_says_how_many_and_why(opened: GrpcInlet):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = call(opened, TRACES, to_protobuf(traces(span(GOOD), span(GOOD, 2, spanId="00" * 8))))
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert partial.rejected_spans == 1
    assert "spanId: expected 8 bytes" in partial.error_message


def test_what_is_no_request_too_large_or_a_bomb_is_refused(served: Served, opened: GrpcInlet):
    grpc: Any = importlib.import_module("grpc")
    heavy = bytes(BODY_BYTES_MAX + 1)
    for body, given, code in (
        (b"\x07", {}, grpc.StatusCode.INVALID_ARGUMENT),
        (heavy, {}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (heavy * 8, {"compression": grpc.Compression.Gzip}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(opened, TRACES, body, **given)
        assert refused.value.code() == code
    assert served.inlet.statistics()["requests"] == 1
    with pytest.raises(grpc.RpcError) as refused:
        call(opened, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", b"")
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_port_in_use_is_said(served: Served, opened: GrpcInlet):
    with pytest.raises(UnreachableError, match="in use"):
        GrpcInlet(opened.endpoint, served.inlet)


def test_without_the_extra_the_error_names_it(served: Served, monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(grpc_inlet.importlib, "import_module", absent)
    with pytest.raises(UsageError, match=r"argus-auditor\[otlp-grpc\]"):
        GrpcInlet("127.0.0.1:0", served.inlet)


def test_it_opens_on_loopback_unless_told_otherwise(served: Served):
    with pytest.raises(RefusedError, match="allow_remote"):
        GrpcInlet("0.0.0.0:0", served.inlet)
