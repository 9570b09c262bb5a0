"""Events over HTTP: routes, limits, back-pressure, answers that count what was refused."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from test_otlp import CLOUD, GOOD, NOW, span, to_protobuf, traces

from argus.engine.core import Engine
from argus.errors import RefusedError, UsageError
from argus.wire import http_inlet
from argus.wire.http_inlet import BODY_BYTES_MAX, INFLATED_BYTES_MAX, HttpInlet
from argus.wire.otlp import Mapper

JSON = {"Content-Type": "application/json"}


class Served:
    """An inlet whose frames an engine takes, as the collector does, until the test ends."""

    def __init__(self) -> None:
        self.inlet = HttpInlet("127.0.0.1:0", Mapper())
        self.accepted = 0
        self.hold = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with Engine() as engine:
            while not self._end.wait(0.002):
                for waiting in [] if self.hold.is_set() else self.inlet.drain(8):
                    report = engine.ingest(waiting.data, now=NOW)
                    self.accepted += report.accepted
                    waiting.settle(report.rejected)

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.inlet.close()

    def post(self, path: str, body: bytes, headers: dict[str, str] = JSON) -> tuple[int, dict[str, str], bytes]:
        host, _, port = self.inlet.endpoint.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@pytest.fixture
def served() -> Iterator[Served]:
    each = Served()
    yield each
    each.close()


def body(*spans: Any) -> bytes:
    return json.dumps(traces(*(spans or (span(GOOD),)))).encode()


def test_spans_reach_the_engine_and_full_success_is_empty(served: Served):
    status, headers, answer = served.post("/v1/traces", body())
    assert (200, "application/json", b"{}") == (status, headers["content-type"], answer)
    assert served.accepted == 1


def test_a_connection_carries_many_requests(served: Served):
    host, _, port = served.inlet.endpoint.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    for number in range(1, 4):
        connection.request("POST", "/v1/traces", body(span(GOOD, number)), JSON)
        assert connection.getresponse().read() == b"{}"
    connection.close()
    assert served.accepted == 3


def test_protobuf_is_answered_in_protobuf(served: Served):
    binary = {"Content-Type": "application/x-protobuf"}
    sent = to_protobuf(traces(span(GOOD), span(GOOD, 2, spanId="00" * 8)))
    status, headers, answer = served.post("/v1/traces", sent, binary)
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (200, "application/x-protobuf", 1) == (status, headers["content-type"], partial.rejected_spans)
    assert "spanId: expected 8 bytes" in partial.error_message
    status, _, answer = served.post("/v1/traces", b"\x07", binary)
    assert status == 400
    assert b"expected OTLP in protobuf" in answer


def test_partial_success_counts_what_the_mapping_and_the_engine_refused(served: Served):
    long = span({**GOOD, "gen_ai.request.model": "m" * 129}, 2)
    status, _, answer = served.post("/v1/traces", body(span(GOOD), long, span(GOOD, 3, traceId="00")))
    partial = json.loads(answer)["partialSuccess"]
    assert (200, "2") == (status, partial["rejectedSpans"])
    assert "traceId: expected 16 bytes" in partial["errorMessage"]
    assert "over_limit" in partial["errorMessage"]
    assert {"shop/i-1: bad_id": 1} == served.inlet.statistics()["rejected"]
    (sample,) = served.inlet.quarantine()
    assert ("shop/i-1", "bad_id") == (sample["source"], sample["reason"])


def test_cloud_events_come_alone_and_in_batches(served: Served):
    one = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    many = {"Content-Type": "application/cloudevents-batch+json"}
    status, _, answer = served.post("/cloudevents", json.dumps(CLOUD).encode(), one)
    assert (200, 1) == (status, json.loads(answer)["accepted"])
    batch = [{**CLOUD, "id": "2"}, {**CLOUD, "id": "3", "time": "x"}]
    _, _, answer = served.post("/cloudevents", json.dumps(batch).encode(), many)
    assert (1, 1) == (json.loads(answer)["accepted"], json.loads(answer)["rejected"])


def test_gzip_is_taken_and_its_bombs_are_not(served: Served):
    packed = {**JSON, "Content-Encoding": "gzip"}
    assert served.post("/v1/traces", gzip.compress(body()), packed)[0] == 200
    bomb = gzip.compress(b" " * (INFLATED_BYTES_MAX + 1))
    assert len(bomb) < 20_000
    assert served.post("/v1/traces", bomb, packed)[0] == 413
    assert served.post("/v1/traces", gzip.compress(body())[:-9], packed)[0] == 400
    assert served.post("/v1/traces", b"no gzip", packed)[0] == 400
    assert served.post("/v1/traces", b"", {**JSON, "Content-Encoding": "br"})[0] == 415


@pytest.mark.parametrize(
    ("path", "headers", "status", "words"),
    [
        ("/v1/metrics", JSON, 404, "path: expected one of"),
        ("/v1/traces", {"Content-Type": "text/plain"}, 415, "Content-Type: expected application/json"),
        ("/v1/traces", {**JSON, "Host": "attacker.example"}, 403, "expected a request to 127.0.0.1"),
        ("/v1/traces", {**JSON, "Origin": "https://attacker.example"}, 403, "web page"),
        ("/v1/traces", {**JSON, "Content-Length": str(BODY_BYTES_MAX + 1)}, 413, "body: expected at most"),
        ("/v1/traces", {**JSON, "Content-Length": "-1"}, 411, "Content-Length: expected"),
        ("/v1/traces", JSON, 400, "body: expected OTLP"),
    ],
)
def test_a_refusal_says_what_was_expected(served: Served, path: str, headers: dict[str, str], status: int, words: str):
    found, _, answer = served.post(path, b"{", headers)
    assert (status, True) == (found, words in json.loads(answer)["message"])


def test_get_is_not_allowed(served: Served):
    host, _, port = served.inlet.endpoint.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", "/v1/traces")
    assert connection.getresponse().status == 405
    connection.close()


def test_a_full_queue_sends_the_sender_away_and_loses_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_inlet, "_ANSWER_S", 0.2)
    each = Served()
    try:
        each.hold.set()
        each.inlet._frames_max = 1
        assert each.post("/v1/traces", body())[0] == 503  # it waits; the engine is late
        status, headers, _ = each.post("/v1/traces", body(span(GOOD, 2)))
        assert (429, "1") == (status, headers["retry-after"])
        monkeypatch.setattr(http_inlet, "_ANSWER_S", 10.0)
        each.hold.clear()
        assert [each.post("/v1/traces", body(span(GOOD, n)))[0] for n in (1, 2)] == [200, 200]
        assert each.accepted == 2
        assert (1, 1) == (each.inlet.repeated, each.inlet.throttled)
    finally:
        each.close()


def test_a_body_sent_again_is_answered_as_before_and_not_judged_twice(served: Served):
    bad = body(span(GOOD), span(GOOD, 2, traceId="00"))
    first, second = served.post("/v1/traces", bad), served.post("/v1/traces", bad)
    assert first[2] == second[2]
    assert (1, 1) == (served.accepted, served.inlet.repeated)


def test_it_opens_on_loopback_unless_told_otherwise():
    with pytest.raises(RefusedError, match=r"inlets\.otlp\.allow_remote"):
        HttpInlet("0.0.0.0:4318", Mapper())
    with pytest.raises(UsageError):
        HttpInlet("nowhere", Mapper())


def test_a_port_in_use_is_said_with_its_way_out(served: Served):
    with pytest.raises(RefusedError, match=r"found the port in use.*inlets\.otlp\.endpoint"):
        HttpInlet(served.inlet.endpoint, Mapper())
