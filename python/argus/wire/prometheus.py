"""Prometheus: `/metrics`, `/-/healthy` and `/-/ready` over HTTP, from a thread that never calls the engine.

GET and HEAD, one request a connection, at most 8 connections at a time and 10 s for each. The page is rendered when it
is asked for and kept for at most a second; text format 0.0.4, or OpenMetrics 1.0 for who prefers it, gzip for who
takes it.

Anyone who reaches the port can read: it opens on loopback unless told otherwise. There, a request must be addressed to
this machine by a loopback name, so that a web page cannot have its visitor's browser read it under a name of its own.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, NamedTuple, Self

from argus.errors import RefusedError, UnreachableError, UsageError

CONNECTIONS_MAX: Final = 8
CONNECTION_S: Final = 10.0
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_READ_S: Final = 5.0  # of silence in the middle of a request
_KEPT_S: Final = 1.0
_GZIP_LEVEL: Final = 1  # text of this kind shrinks 15-fold at once; more would only cost
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_WHERE: Final = "wire.prometheus.MetricsServer"


class Page(NamedTuple):
    """A rendered page."""

    made: float
    body: bytes
    squeezed: bytes = b""


class MetricsServer:
    """Serves what `render` gives.

    Parameters
    ----------
    endpoint : "host:port" to listen on, an address of this machine or localhost; port 0 = a free one
    render : the page, called with whether OpenMetrics is wanted; from several threads
    healthy, ready : why not, in a sentence; "" = all is well
    allow_remote : listen also where other machines can read

    Raises
    ------
    UsageError : no such address
    RefusedError : the port is in use, or the address is not loopback and `allow_remote` is not set
    UnreachableError : the address is not of this machine, or the port needs a privilege
    """

    def __init__(
        self,
        endpoint: str,
        *,
        render: Callable[[bool], bytes],
        healthy: Callable[[], str] = lambda: "",
        ready: Callable[[], str] = lambda: "",
        allow_remote: bool = False,
    ) -> None:
        self._render, self.healthy, self.ready = render, healthy, ready
        host, port = split_address(endpoint)
        self.local = is_loopback(host)
        if not self.local and not allow_remote:
            raise RefusedError(
                f"{_WHERE}: expected a loopback address, found {endpoint!r}, where other machines can read what this "
                "one does without proving who they are; not opened. Use 127.0.0.1:PORT, or set "
                "outlets.prometheus.allow_remote"
            )
        self.requests = 0
        self.refused = 0
        self._pages: dict[bool, Page] = {}
        self._live: dict[socket.socket, float] = {}  # until when
        self._lock = threading.Lock()
        self._socket = _listen(host, port, endpoint)
        address = self._socket.getsockname()
        self.endpoint = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="argus-http", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End; connections under way are cut."""
        if not self._thread.is_alive():
            return
        self._wake.send(b"\0")
        self._thread.join(CONNECTION_S)

    def page(self, openmetrics: bool, *, squeezed: bool = False) -> bytes:
        """The page as it now is, or was at most a second ago."""
        now = time.monotonic()
        page = self._pages.get(openmetrics)
        if page is None or now - page.made > _KEPT_S:
            page = self._pages[openmetrics] = Page(now, self._render(openmetrics))
        if not squeezed:
            return page.body
        if not page.squeezed:
            packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
            page = page._replace(squeezed=packer.compress(page.body) + packer.flush())
            self._pages[openmetrics] = page
        return page.squeezed

    # --- connections -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Accept until woken; sleeps while nothing happens."""
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(self._woken, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in waiting.poll(500 if self._live else None)}
                if self._woken.fileno() in ready:
                    break
                if self._socket.fileno() in ready:
                    self._accept()
                self._cut(time.monotonic())
        finally:
            self._cut(float("inf"))
            for end in (self._socket, self._wake, self._woken):
                end.close()

    def _accept(self) -> None:
        try:
            connection, address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError:  # no descriptor left: the connection stays in the backlog
            time.sleep(0.5)
            return
        with self._lock:
            full = len(self._live) >= CONNECTIONS_MAX
            if not full:
                self._live[connection] = time.monotonic() + CONNECTION_S
        if full:
            self.refused += 1
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.send(_BUSY)
            connection.close()
            return
        try:
            threading.Thread(target=self._talk, args=(connection, address), name="argus-scrape", daemon=True).start()
        except RuntimeError:  # no thread to be had
            self._end(connection)

    def _talk(self, connection: socket.socket, address: Any) -> None:
        try:
            _Handler(connection, address, self)  # type: ignore[arg-type]
        except (OSError, ValueError):
            self.refused += 1  # it went, was cut, or spoke no HTTP
        finally:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        with self._lock:
            self._live.pop(connection, None)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _cut(self, now: float) -> None:
        """End what outlived its time: whoever waits in it wakes up and finds it closed."""
        with self._lock:
            for connection, until in self._live.items():
                if now >= until:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "argus"
    sys_version = ""
    timeout = _READ_S
    server: MetricsServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.local and not is_loopback(_host_of(self.headers.get("Host", "127.0.0.1"))):
            self._answer(403, b"expected a request to 127.0.0.1, ::1 or localhost\n")
            return
        match self.path.partition("?")[0]:
            case "/metrics":
                self._metrics()
            case "/-/healthy":
                self._state("healthy", self.server.healthy())
            case "/-/ready":
                self._state("ready", self.server.ready())
            case _:
                self._answer(404, b"expected /metrics, /-/healthy or /-/ready\n")

    do_HEAD = do_GET

    def _metrics(self) -> None:
        openmetrics = prefers_openmetrics(self.headers.get("Accept", ""))
        squeezed = takes_gzip(self.headers.get("Accept-Encoding", ""))
        body = self.server.page(openmetrics, squeezed=squeezed)
        more = (("Vary", "Accept, Accept-Encoding"),) + ((("Content-Encoding", "gzip"),) if squeezed else ())
        self._answer(200, body, OPENMETRICS if openmetrics else TEXT, more)

    def _state(self, word: str, why_not: str) -> None:
        if why_not:
            self._answer(503, f"not {word}: {why_not}\n".encode())
        else:
            self._answer(200, f"{word}\n".encode())

    def _answer(
        self,
        code: int,
        body: bytes,
        kind: str = "text/plain; charset=utf-8",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A refusal of the base class in one plain line; a method that it does not find is not allowed."""
        self.close_connection = True
        if code == 501:
            self._answer(405, b"expected GET or HEAD\n", headers=(("Allow", "GET, HEAD"),))
        else:
            self._answer(code, b"expected HTTP/1.1\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not told."""


# --- what a request asks for -----------------------------------------------------------------------------------------


def _weighted(header: str) -> dict[str, float]:
    """The items of an Accept header with their q, parameters kept: 'text/plain;version=0.0.4' -> 0.5."""
    out = {}
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                with contextlib.suppress(ValueError):
                    weight = float(parameter[2:])
        kept = [p for p in parameters if p and not p.startswith(("q=", "charset=", "escaping="))]
        if name:
            out[";".join((name, *kept))] = weight
    return out


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept header puts OpenMetrics 1.0 before plain text."""
    weights = _weighted(accept)
    name = "application/openmetrics-text"
    ours = max(weights.get(f"{name};version=1.0.0", 0.0), weights.get(name, 0.0))
    plain = max((w for n, w in weights.items() if n in ("text/plain", "text/plain;version=0.0.4")), default=0.0)
    return ours > 0 and ours >= plain


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header admits gzip."""
    weights = _weighted(accept_encoding)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


# --- addresses -------------------------------------------------------------------------------------------------------


def split_address(endpoint: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:6164" or "[::1]:6164".

    Raises
    ------
    UsageError : it is neither
    """
    host, _, port = endpoint.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    good = port.isascii() and port.isdigit() and int(port) <= 65_535 and (bare != host or ":" not in host)
    if good and bare != "localhost":
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            good = False
    if not good:
        raise UsageError(f"{_WHERE}: expected 127.0.0.1:PORT or another address of this machine, found {endpoint!r}")
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int, endpoint: str) -> socket.socket:
    address = "127.0.0.1" if host == "localhost" else host
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(CONNECTIONS_MAX)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise RefusedError(
                f"{_WHERE}: expected to bind {endpoint}, found the port in use; /metrics is not served. See who has "
                f"it: ss -ltnp 'sport = :{port}'; set outlets.prometheus.endpoint to another port, or enabled = false"
            ) from error
        raise UnreachableError(
            f"{_WHERE}: expected to bind {endpoint}, found {error.strerror}; /metrics is not served. Set "
            "outlets.prometheus.endpoint to an address of this machine and a port above 1023"
        ) from error
    listening.setblocking(False)
    return listening
