"""Sessions of `argus run`: each has a private socket that is its credential, a cap, and a supervisor that reports back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from argus.config import nano_usd
from argus.engine.core import Engine
from argus.errors import UsageError
from argus.guard import start_time_ns
from argus.schema import ScopeKind
from argus.wire.zmq import EventInlet


def parse_usd(text: str, where: str) -> int:
    """Exact integer nano-USD of a positive decimal amount.

    Raises
    ------
    UsageError : not a decimal number, not positive, finer than 1e-9 USD or beyond int64
    """
    amount = nano_usd(text)
    if not amount:
        raise UsageError(
            f"{where}: expected an amount in USD above 0 and below 9.2e9, with at most 9 decimals, such as 2.50, "
            f"found {text!r}; nothing started"
        )
    return amount


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor asks for. `pid` and `start_time` (ns since boot) are its own: a dead one frees the socket."""

    session: str
    pid: int
    start_time: int
    tenant: str = ""
    cap_nusd: int = 0
    observe: bool = False


class Session(msgspec.Struct, kw_only=True):
    """A registered session and what belongs to it."""

    request: SessionRequest
    credential: int
    endpoint: str


class Sessions:
    """Open sessions by id.

    Parameters
    ----------
    engine : binds credentials and caps
    inlet : opens the private socket of a session
    directory : where those sockets go
    """

    def __init__(self, engine: Engine, inlet: EventInlet, directory: Path) -> None:
        self._engine = engine
        self._inlet = inlet
        self._directory = directory
        self._open: dict[str, Session] = {}
        self._credentials: dict[str, int] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def credential(self, endpoint: str) -> int:
        """The engine's credential of a private endpoint; 0 for the shared sockets."""
        return self._credentials.get(endpoint, 0)

    def get(self, session: str) -> Session | None:
        """The open session of that id."""
        return self._open.get(session)

    def register(self, request: SessionRequest) -> Session:
        """Open a private socket for a session and set its cap.

        Raises
        ------
        UsageError : the session is registered by a live supervisor already, its id or tenant is empty or too long, or
            its cap is no amount; no socket stays open
        """
        if not 0 < len(request.session.encode()) <= 128:
            raise UsageError(f"session: expected 1 to 128 bytes, found {len(request.session.encode())}")
        if request.session in self._open:
            raise UsageError(f"session: {request.session!r} is registered already; choose another id with --session")
        credential = self._engine.bind_session(request.session, tenant=request.tenant)
        try:
            if request.cap_nusd:
                self._engine.set_cap(
                    ScopeKind.SESSION, request.session, request.cap_nusd, tenant=request.tenant, strict=False
                )
            endpoint = self._inlet.open_session(request.session, self._directory)
        except BaseException:
            self._engine.release_session(credential)
            raise
        session = Session(request=request, credential=credential, endpoint=endpoint)
        self._open[request.session] = session
        self._credentials[endpoint] = credential
        return session

    def release(self, session: str) -> None:
        """Close the socket and forget the credential; unknown sessions are ignored."""
        known = self._open.pop(session, None)
        if known is not None:
            self._inlet.close_session(known.endpoint)
            del self._credentials[known.endpoint]
            self._engine.release_session(known.credential)

    def orphaned(self) -> list[Session]:
        """Sessions whose supervisor is gone."""
        return [s for s in self if start_time_ns(s.request.pid) != s.request.start_time]

    def close(self) -> None:
        """Release every session."""
        for session in self:
            self.release(session.request.session)


def own_identity() -> tuple[int, int]:
    """(pid, start time in ns since boot) of this process."""
    return os.getpid(), start_time_ns(os.getpid()) or 0
