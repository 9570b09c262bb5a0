"""A stop that a person cleared comes again when its cause goes on."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from argus.engine.core import Engine, EngineOptions
from argus.schema import Scope, ScopeKind, StopKind

START = 1_760_000_000_000_000_000


def spend(number: int, session: str = "s", nusd: int = 400_000_000) -> bytes:
    return frame(number, session=session, type="token_cost_logged", model="m", cost_nusd=nusd)


def frame(number: int, **fields: Any) -> bytes:
    event = {"v": 1, "id": f"e{number}", "ts": START + number * 10**9, "source": "a", "seq": number}
    return msgpack.packb({**event, **fields})


def kinds(engine: Engine) -> list[str]:
    return [str(decision.kind) for decision in engine.decisions()]


@pytest.fixture
def engine() -> Engine:
    return Engine(EngineOptions(caps_nusd={"session": 10**9}), host_plane=False, guard_every_session=True)


def test_a_cleared_kill_comes_again_with_the_next_cent(engine: Engine):
    for number in range(1, 4):
        engine.ingest(spend(number), now=START)
    assert kinds(engine) == ["write_lockdown", "hard_kill"]
    engine.ingest(spend(4), now=START)
    assert kinds(engine) == []
    engine.release_stop(StopKind.HARD_KILL, Scope(ScopeKind.SESSION, "s"))
    engine.ingest(spend(5), now=START)
    assert kinds(engine) == ["hard_kill"]


def test_clearing_one_session_leaves_the_others_as_they_are(engine: Engine):
    for number in range(1, 7):
        engine.ingest(spend(number, session="s" if number % 2 else "t", nusd=10**9), now=START)
    assert kinds(engine) == ["hard_kill", "hard_kill"]
    engine.release_stop(StopKind.HARD_KILL, Scope(ScopeKind.SESSION, "s"))
    report = engine.ingest(spend(7, session="t"), now=START)
    assert (report.anomalies, kinds(engine)) == ([], [])
    engine.ingest(spend(8, session="s"), now=START)
    assert kinds(engine) == ["hard_kill"]


@pytest.mark.parametrize("host", ["", "any-name"])
def test_clearing_the_host_re_arms_every_scope_below_it(host: str):
    engine = Engine(EngineOptions(caps_nusd={"session": 10**9}), host_plane=False)
    engine.ingest(spend(1, nusd=2 * 10**9), now=START)
    (decision,) = engine.decisions()
    assert decision.scope.kind is ScopeKind.HOST
    engine.release_stop(StopKind.HARD_KILL, Scope(ScopeKind.HOST, host))
    engine.ingest(spend(2), now=START)
    assert kinds(engine) == ["hard_kill"]


def test_a_loop_that_goes_on_after_the_reset_is_stopped_again():
    engine = Engine(host_plane=False, guard_every_session=True)
    number = 0

    def turn() -> list[str]:
        nonlocal number
        number += 1
        call = frame(number, session="s", type="tool_called", tool="x", args_hash="aa", result_hash="bb")
        engine.ingest(call, now=START + number * 20 * 10**9)
        return kinds(engine)

    told = [kind for _ in range(12) for kind in turn()]
    assert told == ["write_lockdown", "hard_kill"]
    engine.release_stop(StopKind.HARD_KILL, Scope(ScopeKind.SESSION, "s"))
    assert turn() == ["hard_kill"]
