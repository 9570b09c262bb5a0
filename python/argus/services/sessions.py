"""Sessions of `argus run`: each has a private socket that is its credential, a cap, and a supervisor that reports back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from argus.engine.core import Engine
from argus.errors import UsageError
from argus.schema import ScopeKind
from argus.wire.zmq import EventInlet

NUSD_PER_USD = 10**9


def parse_usd(text: str, where: str) -> int:
    """Exact integer nano-USD of a decimal amount.

    Raises
    ------
    UsageError : not a decimal number, negative, finer than 1e-9 USD or beyond int64
    """
    try:
        amount = Decimal(text) * NUSD_PER_USD
    except InvalidOperation:
        raise UsageError(f"{where}: expected an amount in USD such as 2.50, found {text!r}") from None
    if not amount.is_finite() or amount <= 0 or amount != amount.to_integral_value() or amount >= 2**63:
        raise UsageError(f"{where}: expected a positive amount of at least 1e-9 and below 9.2e9 USD, found {text!r}")
    return int(amount)


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor asks for: `pid` is its own, watched so that a dead one frees the socket."""

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
        return [s for s in self if start_time_ticks(s.request.pid) != s.request.start_time]

    def close(self) -> None:
        """Release every session."""
        for session in self:
            self.release(session.request.session)


def start_time_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot (proc_pid_stat(5), field 22); 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def own_identity() -> tuple[int, int]:
    """(pid, start time) of this process."""
    return os.getpid(), start_time_ticks(os.getpid())
