"""Events over HTTP: OTLP on `/v1/traces` and `/v1/logs`, CloudEvents 1.0 on `/cloudevents`.

POST with a Content-Length, at most 4 MiB, gzip taken up to 16 MiB once inflated; kept alive, at most 16 connections.
Threads of the server read and map, one body at a time; the caller's thread takes the frames (`drain`) and says what the
engine made of them, and only then is the sender answered, so that its counts are true. When frames wait, the sender is
told to come again: 429 with Retry-After. A body that comes again byte for byte is answered as it was, and not read twice.

Anyone who reaches the port can send: it opens on loopback unless told otherwise, and there a request must be addressed
to this machine by a loopback name and must not come from a web page.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import socket
import threading
import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self

from argus.errors import RefusedError, UnreachableError
from argus.wire.cloud_events import cloud_events
from argus.wire.otlp import Mapped, Mapper, MappingError, binary_answer, binary_status
from argus.wire.prometheus import is_loopback, split_address

BODY_BYTES_MAX: Final = 4 << 20
INFLATED_BYTES_MAX: Final = 16 << 20
CONNECTIONS_MAX: Final = 16
FRAMES_WAITING_MAX: Final = 64
RETRY_AFTER_S: Final = 1

_READ_S, _BODY_S, _ANSWER_S = 10.0, 15.0, 5.0
_BLOCK: Final = 1 << 16
_BODIES_KEPT, _SOURCES_MAX, _SAMPLES_MAX = 512, 1024, 64
_WHERE: Final = "wire.http_inlet.HttpInlet"
_JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
_CLOUD: Final = "application/cloudevents+json"
_CLOUD_BATCH: Final = "application/cloudevents-batch+json"
_PATHS: Final = {
    "/v1/traces": (_JSON, PROTOBUF),
    "/v1/logs": (_JSON, PROTOBUF),
    "/cloudevents": (_CLOUD, _CLOUD_BATCH),
}


class HttpError(Exception):
    """An answer other than 200: status, a sentence, and whether the sender may come again."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Job:
    """A body whose frames the engine is to judge."""

    def __init__(self, mapped: Mapped) -> None:
        self.mapped = mapped
        self.refused: Counter[str] = Counter()  # by the engine, by reason
        self.left = len(mapped.frames)
        self.done = threading.Event()
        if not self.left:
            self.done.set()

    @property
    def rejected(self) -> int:
        """Items refused, by the mapping or the engine; an item that made two refused events counts once at most."""
        return min(self.mapped.items, sum(self.mapped.rejected.values()) + sum(self.refused.values()))

    def why(self) -> str:
        """The refusals in words; "" = none."""
        parts = [text for _, _, text in self.mapped.samples[:3]]
        parts += [f"{count} events: {reason}" for reason, count in self.refused.most_common(5)]
        return "; ".join(parts)[:1000]


class Waiting(NamedTuple):
    """A frame for the engine; `settle` is to be called with what it refused, by reason."""

    data: bytes
    job: Job

    def settle(self, rejected: Mapping[str, int]) -> None:
        """Tell what became of the frame."""
        self.job.refused.update(rejected)
        self.job.left -= 1
        if self.job.left == 0:
            self.job.mapped.frames = []
            self.job.done.set()


class HttpInlet:
    """Listens for events over HTTP until closed.

    Parameters
    ----------
    endpoint : "host:port" to listen on; port 0 = a free one
    mapper : turns bodies into frames
    allow_remote : listen also where other machines can send
    frames_waiting_max : frames that may wait for `drain` before senders are told to come again

    Raises
    ------
    UsageError : no such address
    RefusedError : the port is in use, or the address is not loopback and `allow_remote` is not set
    UnreachableError : the address is not of this machine, or the port needs a privilege
    """

    def __init__(
        self,
        endpoint: str,
        mapper: Mapper,
        *,
        allow_remote: bool = False,
        frames_waiting_max: int = FRAMES_WAITING_MAX,
    ) -> None:
        host, port = split_address(endpoint)
        self.local = is_loopback(host)
        if not self.local and not allow_remote:
            raise RefusedError(
                f"{_WHERE}: expected a loopback address, found {endpoint!r}, where other machines can send events "
                "without proving who they are; not opened. Use 127.0.0.1:PORT, or set inlets.otlp.allow_remote"
            )
        self._mapper, self._frames_max = mapper, frames_waiting_max
        self._frames: deque[Waiting] = deque()
        self._jobs: OrderedDict[bytes, Job] = OrderedDict()  # by digest of the body
        self._mapping = threading.Lock()
        self._counting = threading.Lock()
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._samples: deque[dict[str, Any]] = deque(maxlen=_SAMPLES_MAX)
        self.requests = self.refused = self.throttled = self.repeated = 0
        self.items = self.ignored = self.unknown_attributes = 0
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        try:
            self._server = _Server(("127.0.0.1" if host == "localhost" else host, port), self)
        except OSError as error:
            self._wake.close()
            self._woken.close()
            raise _not_opened(error, endpoint) from error
        address = self._server.server_address
        self.endpoint = f"[{address[0]!s}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]!s}:{address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.5,), name="argus-otlp", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End; senders under way are cut, and what was not drained is not acknowledged."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.cut()
            self._wake.close()
            self._woken.close()

    def fileno(self) -> int:
        """Readable while frames wait."""
        return self._woken.fileno()

    def drain(self, frames_max: int) -> list[Waiting]:
        """Frames that wait, at most so many, oldest first; never blocks."""
        found: list[Waiting] = []
        while self._frames and len(found) < frames_max:
            found.append(self._frames.popleft())
        if not self._frames:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096, socket.MSG_DONTWAIT)
            if self._frames:  # one came between the look and the read
                self._ring()
        return found

    @property
    def rejected(self) -> int:
        """Items refused before they reached the engine."""
        return sum(self._rejected.values())

    def statistics(self) -> dict[str, Any]:
        """Counts since start; `rejected` by "source: reason"."""
        with self._counting:
            return {
                "endpoint": self.endpoint,
                "requests": self.requests,
                "refused": self.refused,
                "throttled": self.throttled,
                "repeated": self.repeated,
                "items": self.items,
                "ignored": self.ignored,
                "unknown_attributes": self.unknown_attributes,
                "rejected": {f"{source}: {reason}": count for (source, reason), count in self._rejected.items()},
            }

    def quarantine(self) -> list[dict[str, Any]]:
        """The newest refusals: ts (wall-clock ns), source, reason, what was expected; never what a body held."""
        with self._counting:
            return list(self._samples)

    def take(self, path: str, kind: str, body: bytes) -> Job:
        """Map a body, hand its frames over and wait until the engine judged them.

        Raises
        ------
        HttpError : frames wait already (429), the body is none (400), or the engine is late (503)
        """
        digest = blake2b(body, digest_size=16, key=f"{path} {kind}".encode()[:64]).digest()
        with self._mapping:
            job = self._jobs.get(digest)
            if job is not None:
                self.repeated += 1
            else:
                if len(self._frames) >= self._frames_max:
                    self.throttled += 1
                    raise HttpError(429, "busy: events wait for the engine; come again after Retry-After")
                mapped = self._map(path, kind, body)
                self._count(mapped)
                job = self._jobs[digest] = Job(mapped)
                if len(self._jobs) > _BODIES_KEPT:
                    self._jobs.popitem(last=False)
                self._frames.extend(Waiting(frame, job) for frame in mapped.frames)
                self._ring()
        if not job.done.wait(_ANSWER_S):
            raise HttpError(503, "the engine did not judge the events in time; send the same body again")
        return job

    def _map(self, path: str, kind: str, body: bytes) -> Mapped:
        try:
            if path == "/cloudevents":
                return cloud_events(body, batch=kind == _CLOUD_BATCH)
            read = self._mapper.logs if path == "/v1/logs" else self._mapper.traces
            return read(body, binary=kind == PROTOBUF)
        except MappingError as error:
            failed = Mapped()
            failed.refuse("", error.reason, str(error))
            self._count(failed)
            raise HttpError(400, str(error)) from None

    def _count(self, mapped: Mapped) -> None:
        with self._counting:
            self.items += mapped.items
            self.ignored += mapped.ignored
            self.unknown_attributes += mapped.unknown
            for key, count in mapped.rejected.items():
                full = len(self._rejected) >= _SOURCES_MAX and key not in self._rejected
                self._rejected[("", key[1]) if full else key] += count
            for source, reason, text in mapped.samples:
                self._samples.append({"ts": time.time_ns(), "source": source, "reason": reason, "detail": text})

    def _ring(self) -> None:
        try:
            self._wake.send(b"\0")
        except OSError:  # full: it is awake already; or closed
            return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], inlet: HttpInlet) -> None:
        self.inlet = inlet
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._live) >= CONNECTIONS_MAX:
                self.inlet.refused += 1
                return False
            self._live.add(request)
            return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._live.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that went away, or was cut, is counted, not told."""
        self.inlet.refused += 1

    def cut(self) -> None:
        """End the connections under way."""
        with self._lock:
            for connection in self._live:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "argus"
    sys_version = ""
    timeout = _READ_S
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        inlet = self.server.inlet
        inlet.requests += 1
        path = self.path.partition("?")[0]
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        try:
            self._check(path, kind)
            job = inlet.take(path, kind, self._body())
            self._answer(200, *_success(path, kind, job))
        except HttpError as error:
            inlet.refused += 1
            # What was not read of the body would be taken for the next request.
            self.close_connection = self.close_connection or error.status not in (400, 503)
            body = binary_status(str(error)) if kind == PROTOBUF else json.dumps({"message": str(error)}).encode()
            self._answer(error.status, PROTOBUF if kind == PROTOBUF else _JSON, body)

    def _check(self, path: str, kind: str) -> None:
        if self.server.inlet.local:
            host = self.headers.get("Host", "127.0.0.1")
            name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
            if not is_loopback(name) or self.headers.get("Origin") is not None:
                raise HttpError(403, "expected a request to 127.0.0.1, ::1 or localhost, and none of a web page")
        kinds = _PATHS.get(path)
        if kinds is None:
            raise HttpError(404, f"path: expected one of {', '.join(_PATHS)}; metrics are not read")
        if kind not in kinds:
            raise HttpError(415, f"Content-Type: expected {' or '.join(kinds)}, found {kind[:80]!r}")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise HttpError(411, "Content-Length: expected the body's length in bytes, found none")
        if len(length) > 12 or int(length) > BODY_BYTES_MAX:
            raise HttpError(
                413, f"body: expected at most {BODY_BYTES_MAX} bytes, found {length[:20]}; send less at once"
            )
        left, until, blocks = int(length), time.monotonic() + _BODY_S, io.BytesIO()
        while left:
            block = self.rfile.read1(min(left, _BLOCK)) if time.monotonic() < until else b""
            if not block:
                self.close_connection = True
                raise HttpError(408, f"body: expected {length} bytes within {_BODY_S:g} s, found fewer")
            blocks.write(block)
            left -= len(block)
        return _inflated(blocks.getvalue(), self.headers.get("Content-Encoding", "identity").strip().lower())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status in (429, 503):
            self.send_header("Retry-After", str(RETRY_AFTER_S))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A refusal of the base class in one line; a method that it does not find is not allowed."""
        self.close_connection = True
        self.server.inlet.refused += 1
        self._answer(405 if code == 501 else code, _JSON, b'{"message": "expected POST, HTTP/1.1"}')

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not told."""


def _inflated(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise HttpError(415, f"Content-Encoding: expected gzip or none, found {encoding[:40]!r}")
    unpacker = zlib.decompressobj(31)
    try:
        plain = unpacker.decompress(body, INFLATED_BYTES_MAX)
    except zlib.error:
        raise HttpError(400, "body: expected gzip, as Content-Encoding says, found something else") from None
    if unpacker.unconsumed_tail:
        raise HttpError(413, f"body: expected at most {INFLATED_BYTES_MAX} bytes once inflated, found more")
    if not unpacker.eof or unpacker.unused_data:
        raise HttpError(400, "body: expected one whole gzip member, found it torn or followed by more")
    return plain


def _success(path: str, kind: str, job: Job) -> tuple[str, bytes]:
    """Type and body of the answer to a body that was read."""
    rejected, why = job.rejected, job.why()
    if path == "/cloudevents":
        answer = {"accepted": job.mapped.items - rejected, "rejected": rejected, "message": why}
        return _JSON, json.dumps(answer).encode()
    if kind == PROTOBUF:
        return PROTOBUF, binary_answer(rejected, why)
    if not rejected:
        return _JSON, b"{}"
    camel = "rejectedLogRecords" if path == "/v1/logs" else "rejectedSpans"
    return _JSON, json.dumps({"partialSuccess": {camel: str(rejected), "errorMessage": why}}).encode()


def _not_opened(error: OSError, endpoint: str) -> RefusedError | UnreachableError:
    if error.errno == errno.EADDRINUSE:
        return RefusedError(
            f"{_WHERE}: expected to bind {endpoint}, found the port in use, perhaps by an OpenTelemetry collector; "
            "OTLP is not taken. Set inlets.otlp.endpoint to another port, or enabled = false"
        )
    return UnreachableError(
        f"{_WHERE}: expected to bind {endpoint}, found {error.strerror}; OTLP is not taken. Set "
        "inlets.otlp.endpoint to an address of this machine and a port above 1023"
    )
