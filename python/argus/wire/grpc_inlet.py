"""OTLP over gRPC, traces and logs, beside the HTTP inlet: the same reader, counts, back-pressure and answers.

Needs the extra `otlp-grpc`. No generated code: the two methods take and give raw bytes, which are the bodies that
OTLP/HTTP carries in protobuf. A message is at most 4 MiB, also once inflated; no more than 16 calls at a time.
"""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self

from argus.errors import RefusedError, UnreachableError, UsageError
from argus.wire.http_inlet import BODY_BYTES_MAX, PROTOBUF, HttpError, HttpInlet
from argus.wire.otlp import binary_answer
from argus.wire.prometheus import is_loopback, split_address

CALLS_MAX: Final = 16
_WHERE: Final = "wire.grpc_inlet.GrpcInlet"
_SERVICES: Final = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "/v1/traces",
    "opentelemetry.proto.collector.logs.v1.LogsService": "/v1/logs",
}


class GrpcInlet:
    """Listens for OTLP over gRPC until closed.

    Parameters
    ----------
    endpoint : "host:port" to listen on; port 0 = a free one
    inlet : takes the bodies; outlives this one
    allow_remote : listen also where other machines can send

    Raises
    ------
    UsageError : no such address, or the extra `otlp-grpc` is not installed
    RefusedError : the address is not loopback and `allow_remote` is not set
    UnreachableError : the port is in use or not of this machine
    """

    def __init__(self, endpoint: str, inlet: HttpInlet, *, allow_remote: bool = False) -> None:
        host, _ = split_address(endpoint)
        if not is_loopback(host) and not allow_remote:
            raise RefusedError(
                f"{_WHERE}: expected a loopback address, found {endpoint!r}, where other machines can send events "
                "without proving who they are; not opened. Use 127.0.0.1:PORT, or set inlets.otlp.allow_remote"
            )
        try:
            self._grpc: Any = importlib.import_module("grpc")
        except ImportError as error:
            raise UsageError(
                f"inlets.otlp.grpc_endpoint: expected the extra 'otlp-grpc', found none ({error}); OTLP/gRPC is not "
                "taken. Install argus-auditor[otlp-grpc], or send OTLP/HTTP: OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
            ) from None
        self._inlet = inlet
        options = (("grpc.max_receive_message_length", BODY_BYTES_MAX), ("grpc.so_reuseport", 0))
        self._server = self._grpc.server(
            ThreadPoolExecutor(4, "argus-otlp-grpc"), options=options, maximum_concurrent_rpcs=CALLS_MAX
        )
        for service, path in _SERVICES.items():
            method = self._grpc.unary_unary_rpc_method_handler(self._method(path))
            handler = self._grpc.method_handlers_generic_handler(service, {"Export": method})
            self._server.add_generic_rpc_handlers((handler,))
        try:
            port = self._server.add_insecure_port(endpoint)
        except RuntimeError:
            port = 0
        if not port:
            raise UnreachableError(
                f"{_WHERE}: expected to bind {endpoint}, found it in use or not of this machine; OTLP/gRPC is not "
                "taken. Set inlets.otlp.grpc_endpoint to another address"
            )
        self.endpoint = f"{endpoint.rpartition(':')[0]}:{port}"
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End; calls under way are cut."""
        self._server.stop(None).wait(5)

    def _method(self, path: str) -> Any:
        # A sender comes again after UNAVAILABLE, and gives up after INVALID_ARGUMENT (OTLP/gRPC, "failures").
        retry, invalid = self._grpc.StatusCode.UNAVAILABLE, self._grpc.StatusCode.INVALID_ARGUMENT

        def export(body: bytes, context: Any) -> bytes:
            self._inlet.requests += 1
            try:
                job = self._inlet.take(path, PROTOBUF, body)
            except HttpError as error:
                self._inlet.refused += 1
                context.abort(retry if error.status in (429, 503) else invalid, str(error))
                raise
            return binary_answer(job.rejected, job.why())

        return export
