"""Exact money: random reservations, settlements and cost logs against a model in Python's unbounded integers."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from argus import _core

T0 = 1_700_000_000_000_000_000


@dataclass
class ModelCall:
    reserved: int = 0
    settled: int | None = None
    logged: int = 0
    estimated: int = 0

    def parts(self) -> tuple[int, int, int]:
        if self.settled is not None:
            return max(self.settled, self.logged), 0, 0
        return self.logged, max(0, self.reserved - self.logged - self.estimated), self.estimated


@dataclass
class Model:
    calls: dict[tuple[str, str, str], ModelCall] = field(default_factory=dict)
    direct: list[tuple[dict[str, str], int, int]] = field(default_factory=list)
    names: dict[tuple[str, str, str], dict[str, str]] = field(default_factory=dict)

    def book(self, kind: str, scope: dict[str, str], call: str, cost: int, estimated: bool) -> None:
        if kind == "token_cost_logged" and not call:
            self.direct.append((scope, 0 if estimated else cost, cost if estimated else 0))
            return
        key = (scope["tenant"], scope["session"], call)
        entry = self.calls.setdefault(key, ModelCall())
        self.names.setdefault(key, scope)
        if kind == "budget_reserved":
            entry.reserved = cost
        elif kind == "budget_settled":
            entry.settled = max(entry.settled or 0, cost)
        elif estimated:
            entry.estimated += cost
        else:
            entry.logged += cost

    def spend(self, kind: str, tenant: str, name: str) -> dict[str, int]:
        metered = reserved = estimated = 0

        def holds(scope: dict[str, str]) -> bool:
            if kind == "host":
                return True
            if kind == "tenant":
                return scope["tenant"] == name
            return scope["tenant"] == tenant and scope[kind] == name

        for key, call in self.calls.items():
            if holds(self.names[key]):
                m, r, e = call.parts()
                metered, reserved, estimated = metered + m, reserved + r, estimated + e
        for scope, m, e in self.direct:
            if holds(scope):
                metered, estimated = metered + m, estimated + e
        return {"metered": metered, "reserved": reserved, "upper": metered + reserved + estimated}


steps = st.tuples(
    st.sampled_from(["budget_reserved", "budget_settled", "token_cost_logged"]),
    st.sampled_from(["t0", "t1"]),
    st.sampled_from(["s0", "s1", "s2"]),
    st.sampled_from(["", "c0", "c1", "c2", "c3"]),
    st.integers(0, 2**55),
    st.booleans(),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=60))
def test_every_account_is_exact_to_the_nano_usd(sequence: list[tuple[str, str, str, str, int, bool]]) -> None:
    """Whatever the order, repeats and mixtures: metered, reserved and upper bound of all scopes equal the model's."""
    plane, model = _core.EventPlane(), Model()
    events = []
    for number, (kind, tenant, session, call, cost, unsure) in enumerate(sequence):
        if kind != "token_cost_logged" and not call:
            call = "c9"
        estimated = unsure and kind == "token_cost_logged"
        scope = {"tenant": tenant, "session": session, "agent": f"a-{session}"}
        event = {"v": 1, "id": str(number), "type": kind, "ts": T0 + number, "source": "s", **scope, "cost_nusd": cost}
        if call:
            event["call"] = call
        if estimated:
            event["cost_estimated"] = True
        events.append(event)
        model.book(kind, scope, call, cost, estimated)
    report = plane.ingest(msgpack.packb(events))
    assert report["accepted"] == len(events)
    for tenant in ("t0", "t1"):
        assert plane.spend("tenant", "", tenant) == model.spend("tenant", "", tenant)
        for session in ("s0", "s1", "s2"):
            assert plane.spend("session", tenant, session) == model.spend("session", tenant, session)
            assert plane.spend("agent", tenant, f"a-{session}") == model.spend("agent", tenant, f"a-{session}")
    assert plane.spend("host", "", "") == model.spend("host", "", "")


@given(st.permutations(list(range(64))), st.integers(1, 10**12))
def test_sixty_four_reservers_end_at_the_sum_of_what_they_settled(order: list[int], unit: int) -> None:
    """Interleaved reservations and settlements lose nothing and count nothing twice."""
    plane = _core.EventPlane()
    plane.set_cap("session", "", "s", 10**18)

    def event(number: int, kind: str, call: int, cost: int) -> dict[str, object]:
        return {
            "v": 1,
            "id": f"{kind}-{call}",
            "type": kind,
            "ts": T0 + number,
            "source": "s",
            "session": "s",
            "call": str(call),
            "cost_nusd": cost,
        }

    reserves = [event(i, "budget_reserved", i, 3 * unit) for i in range(64)]
    settles = [event(64 + n, "budget_settled", i, unit + i) for n, i in enumerate(order)]
    logs = [event(200 + n, "token_cost_logged", i, unit + i) for n, i in enumerate(order)]
    plane.ingest(msgpack.packb(reserves))
    assert plane.spend("session", "", "s") == {"metered": 0, "reserved": 192 * unit, "upper": 192 * unit}
    plane.ingest(msgpack.packb(settles + logs))
    total = 64 * unit + sum(range(64))
    assert plane.spend("session", "", "s") == {"metered": total, "reserved": 0, "upper": total}
