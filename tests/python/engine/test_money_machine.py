"""State machines: ledger, price list, caps and loops against a reference that is slow and obvious.

The reference keeps every call and every turn for ever, counts in Python's unbounded integers, and looks at all of it
again after each event. The core must agree after each step: spend of every scope to the nano-USD, and what is said.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import msgpack
import zmq
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from argus import _core
from argus.engine.core import Engine, EngineOptions
from argus.schema import ScopeKind
from argus.wire.zmq import EventInlet

T0 = 1_700_000_000_000_000_000
SECOND = 10**9
USD = 10**9
TIMEOUT_S = 600  # of a reservation
PRICES = {"cheap": (3_000, 15_000), "dear": (15_000, 75_000)}  # nano-USD a token, input and output
UNLISTED = (15_000, 75_000)

TENANTS, SESSIONS, CALLS = ("t0", "t1"), ("s0", "s1"), ("", "c0", "c1")
MONEY = ("budget_reserved", "budget_settled", "token_cost_logged")


# --- The reference ---------------------------------------------------------------------------------------------------


@dataclass
class Call:
    scope: dict[str, str]
    reserved: int = 0
    settled: int | None = None
    logged: int = 0
    estimated: int = 0
    last_seen: int = 0

    def parts(self) -> tuple[int, int, int]:
        """Metered, reserved, estimated."""
        if self.settled is not None:
            return max(self.settled, self.logged), 0, 0
        return self.logged, max(0, self.reserved - self.logged - self.estimated), self.estimated


@dataclass
class Turn:
    equality: object  # None equals nothing
    at: int
    metered: int
    upper: int


@dataclass
class Session:
    turns: list[Turn] = field(default_factory=list)
    pending: tuple[str, str, str] | None = None  # call, tool, args
    spoken: dict[tuple[int, int], int] = field(default_factory=dict)  # (period, first turn) -> level


class Reference:
    def __init__(self) -> None:
        self.now = T0
        self.calls: dict[tuple[str, str, str, str], Call] = {}
        self.booked: list[tuple[dict[str, str], int, int]] = []  # for good: metered, estimated
        self.caps: dict[tuple[str, str, str], tuple[int, bool]] = {}
        self.cap_spoken: dict[tuple[str, str, str], int] = {}
        self.sessions: dict[tuple[str, str], Session] = {}

    # money

    @staticmethod
    def price(event: dict[str, Any]) -> int:
        price = PRICES.get(event.get("model", ""), UNLISTED)
        given = sum(event.get(key, 0) for key in ("input_tokens", "cache_read_tokens", "cache_write_tokens"))
        return given * price[0] + event.get("output_tokens", 0) * price[1]

    def book(self, event: dict[str, Any]) -> None:
        kind, call = event["type"], event.get("call", "")
        known = "cost_nusd" in event
        amount = event["cost_nusd"] if known else self.price(event)
        unsure = not known or event.get("cost_estimated", False)
        scope = {key: event[key] for key in ("tenant", "session", "agent")}
        if kind == "token_cost_logged" and not call:
            self.booked.append((scope, 0 if unsure else amount, amount if unsure else 0))
            return
        key = (scope["tenant"], scope["session"], call, "" if call else event["task"])
        entry = self.calls.setdefault(key, Call(scope))
        entry.last_seen = self.now
        if kind == "budget_reserved":
            entry.reserved = amount
        elif kind == "token_cost_logged":
            entry.estimated += amount if unsure else 0
            entry.logged += 0 if unsure else amount
        elif unsure:
            entry.estimated = max(entry.estimated, entry.reserved, amount)
            entry.reserved = 0
        else:
            entry.settled = max(entry.settled or 0, amount)
        if kind == "budget_settled" and not call:
            self.close(key)

    def close(self, key: tuple[str, str, str, str]) -> None:
        """What a call came to is booked for good; what it had only reserved may have been spent."""
        call = self.calls.pop(key)
        metered, reserved, estimated = call.parts()
        self.booked.append((call.scope, metered, reserved + estimated))

    def spend(self, kind: str, tenant: str, name: str) -> dict[str, int]:
        def holds(scope: dict[str, str]) -> bool:
            if kind == "host":
                return True
            if kind == "tenant":
                return scope["tenant"] == name
            return scope["tenant"] == tenant and scope[kind] == name

        parts = [call.parts() for call in self.calls.values() if holds(call.scope)]
        booked = [(metered, 0, estimated) for scope, metered, estimated in self.booked if holds(scope)]
        metered, reserved, estimated = (sum(column) for column in zip((0, 0, 0), *parts, *booked, strict=True))
        return {"metered": metered, "reserved": reserved, "upper": metered + reserved + estimated}

    def judge_caps(self, event: dict[str, Any]) -> list[tuple[str, str, str]]:
        said = []
        tenant = event["tenant"]
        for account in (
            ("session", tenant, event["session"]),
            ("agent", tenant, event["agent"]),
            ("tenant", tenant, tenant),
            ("host", "", ""),
        ):
            cap, strict = self.caps.get(account, (0, False))
            if cap == 0:
                continue
            spend = self.spend(*account)
            counted = spend["upper"] if strict else spend["metered"] + spend["reserved"]
            level = 3 if counted >= cap else 2 if 10 * spend["upper"] >= 8 * cap else 0
            if level == 0 and 2 * spend["upper"] < cap:
                self.cap_spoken[account] = 0
            if level > self.cap_spoken.get(account, 0):
                self.cap_spoken[account] = level
                said.append((account[0], account[2], "C1" if level == 3 else "W1"))
        return said

    # loops

    def add_turn(self, session: Session, names: tuple[str, str], equality: object) -> None:
        spend = self.spend("session", *names)
        session.turns.append(Turn(equality, self.now, spend["metered"], spend["upper"]))

    def loop(self, names: tuple[str, str]) -> list[tuple[str, int, str]]:
        """What is said of a session's loop now: (series, repeats, criterion)."""
        session = self.sessions[names]
        turns = session.turns
        for period in range(1, 9):
            matches = 0
            while len(turns) - 1 - matches >= period:
                turn, before = turns[-1 - matches], turns[-1 - matches - period]
                if turn.equality is None or turn.equality != before.equality:
                    break
                matches += 1
            repeats = matches // period + 1 if matches else 0
            if repeats < 4:
                continue
            first = len(turns) - matches - period
            waiting = session.pending is not None and turns[len(turns) - period].equality[:2] == session.pending[1:]  # type: ignore[index]
            end = max(self.now, turns[-1].at) if waiting else turns[-1].at
            spend = self.spend("session", *names)
            level, criterion = self.judge_loop(
                period,
                repeats,
                (end - turns[first].at) / SECOND,
                max(0, spend["metered"] - turns[first].metered),
                max(0, spend["upper"] - turns[first].upper),
                self.caps.get(("session", *names), (0, False))[0],
            )
            if level <= session.spoken.get((period, first), 0):
                return []
            session.spoken[period, first] = level
            return [(f"loop.period_{period}", repeats, criterion)]
        return []

    @staticmethod
    def judge_loop(period: int, repeats: int, seconds: float, metered: int, upper: int, cap: int) -> tuple[int, str]:
        long_run = repeats >= 8 if period == 1 else period <= 4 and repeats >= 6
        if long_run and ((metered >= USD and 20 * metered >= cap) or seconds >= 120):
            return 3, "C2"
        if upper >= USD // 10 or (cap and 20 * upper >= cap) or seconds >= 60:
            return 2, "W3"
        return 1, ""


# --- The machine -----------------------------------------------------------------------------------------------------


class MoneyMachine(RuleBasedStateMachine):
    """Any interleaving of reservations, settlements, costs, caps, calls, waits and retransmissions."""

    @initialize()
    def start(self) -> None:
        self.plane = _core.EventPlane(prices=PRICES)
        self.reference = Reference()
        self.number = 0
        self.newest: bytes = b""
        self.said: list[tuple[Any, ...]] = []
        self.expected: list[tuple[Any, ...]] = []

    def heard(self, anomalies: list[dict[str, Any]]) -> None:
        for a in anomalies:
            if a["detector"] == "budget":
                self.said.append((a["scope"]["kind"], a["scope"]["id"], a["criterion"]))
            elif a["detector"] == "loop":
                self.said.append((a["series"], int(a["value"]), a["criterion"]))

    def tell(self, kind: str, tenant: str, session: str, **fields: Any) -> dict[str, Any]:
        self.number += 1
        event = {
            "v": 1,
            "id": f"e{self.number}",
            "type": kind,
            "ts": self.reference.now,
            "source": "s",
            "tenant": tenant,
            "session": session,
            "agent": f"a-{session}",
            **fields,
        }
        self.newest = msgpack.packb(event)
        report = self.plane.ingest(self.newest, now=self.reference.now)
        assert report["accepted"] == 1, report
        self.heard(report["anomalies"])
        return event

    @rule(
        kind=st.sampled_from(MONEY),
        tenant=st.sampled_from(TENANTS),
        session=st.sampled_from(SESSIONS),
        call=st.sampled_from(CALLS),
        cost=st.one_of(st.none(), st.integers(0, 2 * USD), st.integers(0, 2**50)),
        tokens=st.tuples(*[st.integers(0, 10**6)] * 4),
        model=st.sampled_from(["cheap", "dear", "unlisted"]),
        estimated=st.booleans(),
    )
    def money(self, kind: str, tenant: str, session: str, call: str, cost: int | None, tokens: Any, **how: Any) -> None:
        fields: dict[str, Any] = {"task": f"task of {session}", "model": how["model"]}
        fields |= {"call": call} if call else {}
        if cost is not None:
            fields |= {"cost_nusd": cost} | ({"cost_estimated": True} if how["estimated"] else {})
        keys = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        fields |= dict(zip(keys, tokens, strict=True))
        event = self.tell(kind, tenant, session, **fields)
        self.reference.book(event)
        names = (tenant, session)
        # Auditors speak in their own order; within one they keep it.
        self.expected += self.reference.judge_caps(event)
        if names in self.reference.sessions:
            self.expected += self.reference.loop(names)

    @rule(
        kind=st.sampled_from(["session", "tenant", "agent", "host"]),
        tenant=st.sampled_from(TENANTS),
        session=st.sampled_from(SESSIONS),
        cap=st.integers(0, 20 * USD),
        strict=st.booleans(),
    )
    def cap(self, kind: str, tenant: str, session: str, cap: int, strict: bool) -> None:
        name = {"session": session, "agent": f"a-{session}", "tenant": tenant, "host": ""}[kind]
        self.plane.set_cap(kind, "" if kind == "host" else tenant, name, cap, strict)
        account = (kind, "" if kind == "host" else tenant, name)
        self.reference.caps[account] = (cap, strict)
        self.reference.cap_spoken[account] = 0

    @rule(
        tenant=st.sampled_from(TENANTS),
        session=st.sampled_from(SESSIONS),
        tools=st.lists(st.sampled_from("ab"), min_size=1, max_size=3),
        repeats=st.integers(1, 10),
        result=st.sampled_from(["r", "q", None]),
    )
    def calls_with_results(self, tenant: str, session: str, tools: list[str], repeats: int, result: str | None) -> None:
        names = (tenant, session)
        state = self.reference.sessions.setdefault(names, Session())
        for tool in tools * repeats:
            self.step(1)
            shown = result or f"n{self.number}"  # None: never equal, each has its own
            self.tell("tool_called", tenant, session, tool=tool, args_hash="x", result_hash=shown)
            self.reference.add_turn(state, names, (tool, "x", shown))
            self.expected += self.reference.loop(names)

    @rule(
        tenant=st.sampled_from(TENANTS),
        session=st.sampled_from(SESSIONS),
        wait_s=st.integers(0, 70),
        times=st.integers(1, 6),
    )
    def calls_that_come_back(self, tenant: str, session: str, wait_s: int, times: int) -> None:
        for _ in range(times):
            self.call_that_comes_back(tenant, session, wait_s)

    def call_that_comes_back(self, tenant: str, session: str, wait_s: int) -> None:
        names = (tenant, session)
        state = self.reference.sessions.setdefault(names, Session())
        call = f"k{self.number}"
        self.tell("tool_called", tenant, session, tool="a", call=call, args_hash="x")
        state.pending = (call, "a", "x")
        self.expected += self.reference.loop(names)
        self.step(wait_s)
        self.tell("tool_returned", tenant, session, tool="a", call=call, result_hash="r")
        state.pending = None
        self.reference.add_turn(state, names, ("a", "x", "r"))
        self.expected += self.reference.loop(names)

    @rule()
    def retransmit(self) -> None:
        if self.newest:
            assert self.plane.ingest(self.newest, now=self.reference.now)["anomalies"] == []

    @rule(seconds=st.sampled_from([1, 30, 599, 601]))
    def wait(self, seconds: int) -> None:
        self.step(seconds)

    def step(self, seconds: int) -> None:
        """Time passes: reservations that nobody settled become estimates, calls in flight go on."""
        self.reference.now += seconds * SECOND
        now = self.reference.now
        self.heard(self.plane.tick(now))
        for key in [k for k, c in self.reference.calls.items() if c.last_seen + TIMEOUT_S * SECOND <= now]:
            self.reference.close(key)
        for names, session in self.reference.sessions.items():
            if session.pending is not None:
                self.expected += self.reference.loop(names)

    @rule()
    def restart(self) -> None:
        """The state is saved and loaded into a fresh plane: nothing changes."""
        state = self.plane.save()
        self.plane = _core.EventPlane(prices=PRICES)
        self.plane.load(state)

    @invariant()
    def spend_is_equal(self) -> None:
        for tenant in TENANTS:
            assert self.plane.spend("tenant", "", tenant) == self.reference.spend("tenant", "", tenant)
            for session in SESSIONS:
                for kind, name in (("session", session), ("agent", f"a-{session}")):
                    assert self.plane.spend(kind, tenant, name) == self.reference.spend(kind, tenant, name)
        assert self.plane.spend("host", "", "") == self.reference.spend("host", "", "")

    @invariant()
    def what_is_said_is_equal(self) -> None:
        assert sorted(map(str, self.said)) == sorted(map(str, self.expected))


MoneyMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestMoneyMachine = MoneyMachine.TestCase


# --- Sixty-four at once ----------------------------------------------------------------------------------------------


def test_sixty_four_threads_that_reserve_and_settle_at_once_lose_and_double_nothing(free_endpoint: str) -> None:
    """Over the real bus: each thread reserves, settles, logs and repeats itself; the sums are exact to the nano-USD."""
    threads, rounds = 64, 25
    cap = 10**15
    begin = threading.Barrier(threads)

    def work(worker: int) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.connect(free_endpoint)
        begin.wait()
        seq = 0
        for turn in range(rounds):
            call = f"{worker}-{turn}"
            paid = worker * 1_000_003 + turn
            for kind, nusd in (
                ("budget_reserved", 3 * paid + 7),
                ("budget_settled", paid),
                ("token_cost_logged", paid),
            ):
                if turn == rounds - 1 and kind != "budget_reserved":
                    continue  # the last reservation of each stays open
                seq += 1
                event = {"v": 1, "id": f"{kind}-{call}", "type": kind, "ts": time.time_ns(), "source": f"w{worker}"}
                event |= {"seq": seq, "session": "shared", "agent": f"a{worker}", "call": call, "cost_nusd": nusd}
                socket.send(msgpack.packb(event))
                if turn % 5 == worker % 5:
                    socket.send(msgpack.packb(event))  # a retransmission
        socket.close(linger=-1)
        context.term()

    open_each = [3 * (worker * 1_000_003 + rounds - 1) + 7 for worker in range(threads)]
    paid_each = [sum(worker * 1_000_003 + turn for turn in range(rounds - 1)) for worker in range(threads)]
    expected = sum(
        (2 if turn % 5 == worker % 5 else 1) * (1 if turn == rounds - 1 else 3)
        for worker in range(threads)
        for turn in range(rounds)
    )
    with Engine(EngineOptions(caps_nusd={"session": cap}), host_plane=False) as engine:
        context = zmq.Context()
        with EventInlet((free_endpoint,), (), context=context) as inlet:
            workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
            for worker in workers:
                worker.start()
            accepted, until = 0, time.monotonic() + 60
            while accepted < expected and time.monotonic() < until:
                for frame in inlet.drain(64):
                    accepted += engine.ingest(frame.data, require_seq=True).accepted
                spend = engine.spend(ScopeKind.SESSION, "shared")
                assert spend["upper"] == spend["metered"] + spend["reserved"]
                assert spend["metered"] <= sum(paid_each)
            for worker in workers:
                worker.join()
        context.term()
        assert accepted == expected
        told = {"metered": sum(paid_each), "reserved": sum(open_each), "upper": sum(paid_each) + sum(open_each)}
        assert engine.spend(ScopeKind.SESSION, "shared") == engine.spend(ScopeKind.HOST, "") == told
        for worker in range(threads):
            spend = engine.spend(ScopeKind.AGENT, f"a{worker}")
            assert (spend["metered"], spend["reserved"]) == (paid_each[worker], open_each[worker])
