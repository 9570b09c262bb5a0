"""Registered sessions: socket, credential and cap come together or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from argus.engine.core import Engine
from argus.errors import UsageError
from argus.services.sessions import SessionRequest, Sessions, own_identity
from argus.wire.zmq import EventInlet


class Inlet(EventInlet):
    """Counts the sockets that are open; opens none."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.fails = False

    def open_session(self, name: str, directory: object) -> str:
        if self.fails:
            raise OSError("no socket left")
        self.open.append(f"ipc://{directory}/{name}")
        return self.open[-1]

    def close_session(self, endpoint: str) -> None:
        self.open.remove(endpoint)


@pytest.fixture
def inlet() -> Inlet:
    return Inlet()


@pytest.fixture
def sessions(tmp_path: Path, inlet: Inlet) -> Iterator[Sessions]:
    with Engine(host_plane=False) as engine:
        yield Sessions(engine, inlet, tmp_path)


def request(session: str = "run", **fields: object) -> SessionRequest:
    pid, start = own_identity()
    return SessionRequest(session=session, pid=pid, start_time=start, **fields)  # type: ignore[arg-type]


def test_a_registered_session_has_socket_and_credential_until_it_is_released(sessions: Sessions, inlet: Inlet):
    session = sessions.register(request(cap_nusd=5))
    assert inlet.open == [session.endpoint]
    assert sessions.credential(session.endpoint) == session.credential > 0
    assert sessions.get("run") is session
    sessions.release("run")
    assert (inlet.open, len(sessions), sessions.credential(session.endpoint)) == ([], 0, 0)
    assert sessions.register(request()).credential != session.credential


@pytest.mark.parametrize(
    "wrong",
    [
        request(""),
        request("s" * 129),
        request(tenant="t" * 65),
        request(cap_nusd=-1),
        request(cap_nusd=2**63),
    ],
    ids=["no id", "long id", "long tenant", "negative cap", "huge cap"],
)
def test_a_refused_session_leaves_no_socket_and_no_credential(sessions: Sessions, inlet: Inlet, wrong: SessionRequest):
    with pytest.raises(UsageError):
        sessions.register(wrong)
    assert (inlet.open, len(sessions)) == ([], 0)
    if 0 < len(wrong.session) <= 128:
        assert sessions.register(request(wrong.session)).credential > 0


def test_a_socket_that_cannot_be_opened_frees_the_session(sessions: Sessions, inlet: Inlet):
    inlet.fails = True
    with pytest.raises(OSError, match="no socket left"):
        sessions.register(request())
    inlet.fails = False
    assert sessions.register(request()).endpoint in inlet.open


def test_a_session_is_registered_once(sessions: Sessions, inlet: Inlet):
    sessions.register(request())
    with pytest.raises(UsageError, match="registered already"):
        sessions.register(request())
    assert len(inlet.open) == 1
