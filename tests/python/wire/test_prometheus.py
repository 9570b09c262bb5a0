"""The scrape endpoint: who may ask, what they get, and what it does with peers that are slow, many or hostile."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from argus.errors import RefusedError, UnreachableError, UsageError
from argus.wire import prometheus
from argus.wire.prometheus import MetricsServer, prefers_openmetrics, split_address, takes_gzip

TEXT = b"# HELP a A.\n# TYPE a gauge\na 1\n"
OPEN = TEXT + b"# EOF\n"


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1:0", render=lambda openmetrics: OPEN if openmetrics else TEXT) as serving:
        yield serving


def ask(
    server: MetricsServer, method: str = "GET", path: str = "/metrics", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(server.endpoint, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def raw(server: MetricsServer, data: bytes) -> bytes:
    host, port = split_address(server.endpoint)
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(data)
        out = b""
        while chunk := connection.recv(65536):
            out += chunk
    return out


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


# --- what is served --------------------------------------------------------------------------------------------------


def test_a_scrape_gets_text_with_its_version(server: MetricsServer):
    response, body = ask(server)
    assert (response.status, body) == (200, TEXT)
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(TEXT))


def test_openmetrics_and_gzip_come_when_asked_for(server: MetricsServer):
    response, body = ask(server, Accept="application/openmetrics-text;version=1.0.0", Accept_Encoding="gzip")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == OPEN


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=0.0.1", False),
        # Prometheus 2 and 3
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
         "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
         "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", True),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;version=1.0.0;q=0", False),
        (";;,q=,,application/openmetrics-text;q=high", True),
    ],
)  # fmt: skip
def test_openmetrics_is_for_who_prefers_it(accept: str, wanted: bool):
    assert prefers_openmetrics(accept) is wanted


@pytest.mark.parametrize(
    ("header", "taken"),
    [("", False), ("gzip", True), ("deflate, GZIP;q=0.5", True), ("gzip;q=0", False), ("*", True), ("br", False)],
)
def test_gzip_is_for_who_takes_it(header: str, taken: bool):
    assert takes_gzip(header) is taken


def test_head_has_the_length_and_no_body(server: MetricsServer):
    answer = raw(server, b"HEAD /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(TEXT) in head
    assert body == b""


def test_health_and_readiness_say_why_not():
    states = {"healthy": "", "ready": "the first step is still to come"}
    with MetricsServer(
        "localhost:0", render=lambda _: TEXT, healthy=lambda: states["healthy"], ready=lambda: states["ready"]
    ) as serving:
        assert (ask(serving, path="/-/healthy")[0].status, ask(serving, path="/-/healthy")[1]) == (200, b"healthy\n")
        response, body = ask(serving, path="/-/ready")
        assert (response.status, body) == (503, b"not ready: the first step is still to come\n")
        states["ready"] = ""
        assert ask(serving, path="/-/ready")[0].status == 200


def test_the_page_is_rendered_once_for_many_scrapes_and_never_for_none():
    rendered = []
    with MetricsServer("127.0.0.1:0", render=lambda _: rendered.append(1) or TEXT) as serving:
        ask(serving, path="/-/healthy")
        assert rendered == []
        started = time.monotonic()
        for _ in range(20):
            ask(serving)
        if time.monotonic() - started < 1:
            assert len(rendered) == 1
        wait_for(lambda: time.monotonic() - started > 1.1)
        count = len(rendered)
        ask(serving)
        assert len(rendered) == count + 1


# --- who may ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_get_and_head(server: MetricsServer, method: str):
    response, _ = ask(server, method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics/../etc/passwd", "/-/reload", "*"])
def test_other_paths_are_not_there(server: MetricsServer, path: str):
    assert ask(server, path=path)[0].status == 404


def test_a_query_is_ignored(server: MetricsServer):
    assert ask(server, path="/metrics?name=x")[1] == TEXT


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:6164", "127.0.0.1.attacker.example", "10.0.0.1"]
)
def test_a_browser_cannot_be_led_here_under_another_name(server: MetricsServer, host: str):
    response, body = ask(server, Host=host)
    assert response.status == 403
    assert b"a 1" not in body


@pytest.mark.parametrize("host", ["localhost:9999", "[::1]:6164", "127.0.0.53", "LOCALHOST"])
def test_every_name_of_the_loopback_is_this_machine(server: MetricsServer, host: str):
    assert ask(server, Host=host)[0].status == 200


def test_a_request_without_a_host_is_served(server: MetricsServer):
    assert TEXT in raw(server, b"GET /metrics HTTP/1.0\r\n\r\n")


def test_no_address_that_others_reach_without_being_told():
    with pytest.raises(RefusedError, match="allow_remote"):
        MetricsServer("0.0.0.0:0", render=lambda _: TEXT)
    with MetricsServer("0.0.0.0:0", render=lambda _: TEXT, allow_remote=True) as serving:
        assert not serving.local
        assert ask(serving, Host="this.machine.example")[0].status == 200


@pytest.mark.parametrize("endpoint", ["", ":6164", "6164", "127.0.0.1", "127.0.0.1:99999", "::1:6164", "a.example:1"])
def test_an_address_that_is_none_is_refused(endpoint: str):
    with pytest.raises(UsageError, match=r"expected 127\.0\.0\.1:PORT"):
        MetricsServer(endpoint, render=lambda _: TEXT)


def test_a_port_in_use_is_said_with_what_to_do(server: MetricsServer):
    with pytest.raises(RefusedError, match=r"the port in use.*ss -ltnp.*outlets\.prometheus\.endpoint"):
        MetricsServer(server.endpoint, render=lambda _: TEXT)


def test_an_address_of_another_machine_is_unreachable():
    with pytest.raises(UnreachableError, match=r"outlets\.prometheus\.endpoint"):
        MetricsServer("192.0.2.1:6164", render=lambda _: TEXT, allow_remote=True)


# --- hostile peers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"A" * 70_000 + b"\r\n\r\n",
     b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
     b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_request_gets_no_page(server: MetricsServer, data: bytes):
    try:
        answer = raw(server, data)
    except ConnectionError:
        answer = b""
    assert b"a 1" not in answer
    assert ask(server)[1] == TEXT


def test_a_crowd_is_turned_away_and_the_next_one_is_served(server: MetricsServer):
    host, port = split_address(server.endpoint)
    crowd = [socket.create_connection((host, port), timeout=10) for _ in range(prometheus.CONNECTIONS_MAX)]
    wait_for(lambda: len(server._live) == prometheus.CONNECTIONS_MAX)
    with socket.create_connection((host, port), timeout=10) as late:
        assert late.recv(64).startswith(b"HTTP/1.1 503 ")
    assert server.refused == 1
    for connection in crowd:
        connection.close()
    wait_for(lambda: not server._live)
    assert ask(server)[0].status == 200


def test_who_drips_a_request_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prometheus, "CONNECTION_S", 0.3)
    with MetricsServer("127.0.0.1:0", render=lambda _: TEXT) as serving:
        with socket.create_connection(split_address(serving.endpoint), timeout=10) as slow:
            slow.sendall(b"GET /metr")
            cut = threading.Event()

            def drip() -> None:
                try:
                    while not cut.wait(0.05):
                        slow.sendall(b"i")
                except OSError:
                    cut.set()

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                assert b"a 1" not in slow.recv(4096)
            except ConnectionError:
                pass
            finally:
                cut.set()
                dripping.join()
        wait_for(lambda: not serving._live)


def test_who_never_reads_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prometheus, "CONNECTION_S", 0.3)
    with MetricsServer("127.0.0.1:0", render=lambda _: b"x" * (32 << 20)) as serving:
        with socket.create_connection(split_address(serving.endpoint), timeout=10) as deaf:
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_for(lambda: len(serving._live) == 1)
            wait_for(lambda: not serving._live)
        assert ask(serving, path="/-/ready")[0].status == 200


def test_closing_does_not_wait_for_who_is_connected():
    serving = MetricsServer("127.0.0.1:0", render=lambda _: TEXT)
    with socket.create_connection(split_address(serving.endpoint), timeout=10) as idle:
        wait_for(lambda: len(serving._live) == 1)
        started = time.monotonic()
        serving.close()
        serving.close()
        assert time.monotonic() - started < 2
        assert idle.recv(64) == b""
