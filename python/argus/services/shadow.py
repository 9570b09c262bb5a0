"""What a notional guard would have spared: a replay in which every stop holds, and what each rule's stops were worth.

The guard stands in every session and knows its agent and tenant, so that a stop of those has a reader. A killed scope
does nothing more: its later events are counted as spared and are not judged. A locked scope refuses what is new, but
reads on: its events are judged on, so that what gets worse is still found, and counted to the lockdown until a kill
takes the scope over. What is said of a stopped scope that asks for no harder stop is no new fault. Every event is spared
by at most one stop, so that sums are exact.

Money is that of a second ledger which books all events of the log: nano-USD, unknown cost at its upper bound. A call
that was reserved before the stop is paid whatever becomes of its agent: its settlement is not spared.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from argus.engine.core import EVENT_TIME, Decision, Engine, EngineOptions, catalog
from argus.judge.truth import NAMED, Name, Truth, Verdict, names_of
from argus.schema import Anomaly, Scope, ScopeKind, Severity, StopKind

_MONEY: Final = frozenset({"token_cost_logged", "budget_reserved", "budget_settled"})
_MODEL: Final = ("model_called", "model_returned", "token_cost_logged")
_TOOL: Final = ("tool_called", "tool_returned")
_ENDS: Final = frozenset({"task_completed", "task_failed", "task_cancelled"})
_WRITES: Final = frozenset({"file_written", "file_deleted"})
_CALLS_MAX: Final = 65_536
_IDS_MAX: Final = 262_144
_ANNOUNCED_MAX: Final = 4096  # agents and tenants; beyond, a stop of one goes to the host, as without a guard
_INFO: Final = "info"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode


class Spared(msgspec.Struct, kw_only=True):
    """What came after a stop within its scope: exact, and counted to no other stop.

    `metered_nusd` is known spend, `upper_nusd` the same with reservations and unknown cost at their upper bound;
    `wall_ns` is the time from the stop to the last event. A call or its tokens that several events tell count once.
    """

    events: int = 0
    metered_nusd: int = 0
    upper_nusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    writes: int = 0
    wall_ns: int = 0

    def add(self, other: Spared) -> None:
        """Count `other` in."""
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))


class StopAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One stop: who, when, by which rule, what came after it, and whether it was right.

    `cut` counts the sessions (tasks, where none is named) that went on after it, `cut_good` those known to be good.
    """

    ts: int
    kind: StopKind
    scope: Scope
    criterion: str
    anomaly: str
    after: Spared
    verdict: Verdict
    cut: int
    cut_good: int


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """One time a rule held: when, for whom, whether it asked for a stop that did not stand yet, whether it was right."""

    ts: int
    scope: Scope
    anomaly: str
    stopped: bool
    verdict: Verdict


class RuleAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What one criterion did: firings, stops by verdict, and what came after its stops. `info` asks for no stop."""

    criterion: str
    severity: Severity
    stop: str
    enabled: bool
    fired: int
    scopes: int
    stops: int
    fired_by_verdict: dict[str, int]
    stops_by_verdict: dict[str, int]
    after: Spared
    firings: list[Firing]


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a replay with a notional guard.

    `truth` says what verdicts rest on ("" = nothing is known); `spent` is the whole log; `after_kills` and
    `after_lockdowns` add up what the stops spared; `told_after` counts what was said of stopped scopes, by series.
    """

    truth: str
    rules: list[RuleAccount]
    stops: list[StopAccount]
    spent: Spared
    after_kills: Spared
    after_lockdowns: Spared
    told_after: dict[str, int]


class _Counted:
    """Events as `Spared` counts them: what several types tell of one call counts once."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.last = since
        self.events = self.metered = self.upper = self.writes = 0
        self.by_type: Counter[str] = Counter()
        self.tokens: dict[str, list[int]] = {kind: [0, 0] for kind in _MODEL}

    def add(self, event: Mapping[str, Any], metered: int, upper: int) -> None:
        kind = event["type"]
        self.events += 1
        self.last = max(self.last, event["ts"])
        self.by_type[kind] += 1
        self.writes += kind in _WRITES
        self.metered += metered
        self.upper += upper
        if (tokens := self.tokens.get(kind)) is not None:
            tokens[0] += event.get("input_tokens") or 0
            tokens[1] += event.get("output_tokens") or 0

    def spared(self) -> Spared:
        return Spared(
            events=self.events,
            metered_nusd=self.metered,
            upper_nusd=self.upper,
            input_tokens=max(tokens[0] for tokens in self.tokens.values()),
            output_tokens=max(tokens[1] for tokens in self.tokens.values()),
            model_calls=max(self.by_type[kind] for kind in _MODEL),
            tool_calls=max(self.by_type[kind] for kind in _TOOL),
            writes=self.writes,
            wall_ns=self.last - self.since,
        )


class _Standing:
    """A stop that holds."""

    def __init__(self, decision: Decision, since: int) -> None:
        self.decision = decision
        self.since = since
        self.counted = _Counted(decision.ts)
        self.cut: set[Name] = set()


class _Renumbered:
    """Sequence numbers as if the events that were spared had never been emitted; gaps of the log stay gaps."""

    def __init__(self) -> None:
        self._of: dict[str, list[Any]] = {}  # source -> [boot, newest seq, spared]

    def note(self, event: dict[str, Any], *, spared: bool) -> dict[str, Any]:
        """The event with the number it would have had; one that is spared takes none."""
        seq = event.get("seq")
        if seq is None:
            return event
        state = self._of.setdefault(event["source"], [event.get("boot"), seq - 1, 0])
        if seq <= 1 < state[1] or event.get("boot") != state[0]:
            state[:] = [event.get("boot"), seq - 1, 0]
        if spared:
            state[2] += seq == state[1] + 1
        state[1] = max(state[1], seq)
        return {**event, "seq": max(0, seq - state[2])} if state[2] else event


class NotionalGuard:
    """A guard in every session of a log: which events it lets through, and the account of its stops.

    Parameters
    ----------
    engine : judges what the guard lets through; agents and tenants are announced to it as they come
    options : of that engine
    truth : what is known about the sessions
    """

    def __init__(self, engine: Engine, options: EngineOptions, truth: Truth) -> None:
        self._engine = engine
        leaves = frozenset(leaf["name"] for leaf in catalog()["auditors"])
        # The whole log's money, whoever was stopped; it judges nothing.
        self._all = Engine(
            msgspec.structs.replace(options, disabled=options.disabled | leaves, caps_nusd={}), host_plane=False
        )
        self._options = options
        self._truth = truth
        self._numbers = _Renumbered()
        self._kills: dict[Name, _Standing] = {}
        self._locks: dict[Name, _Standing] = {}
        self._stops: list[_Standing] = []
        self._firings: list[tuple[Anomaly, bool]] = []
        self._told_after: Counter[str] = Counter()
        self._open_calls: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._gone: set[str] = set()
        self._ids: OrderedDict[int, None] = OrderedDict()
        self._announced: set[tuple[ScopeKind, str]] = set()
        self._metered = self._upper = 0
        self._whole: _Counted | None = None

    def __enter__(self) -> NotionalGuard:
        return self

    def __exit__(self, *_: object) -> None:
        self._all.close()

    def admit(self, frame: bytes) -> Iterator[tuple[bytes, Mapping[str, int]]]:
        """Each event of a frame for the judging engine, as its bytes; empty bytes: spared, with why it is no event."""
        for event in _decode(frame):
            packed = _encode(event)
            report = self._all.ingest(packed, now=EVENT_TIME)
            if not report.accepted:
                yield (b"", report.rejected) if self._covering(self._kills, event) else (packed, {})
                continue
            self._announce(event)
            fresh = self._is_fresh(event, packed)
            metered, upper = self._money(event)
            kill = self._covering(self._kills, event)
            paid = kill is not None and self._in_flight(event)
            stop = None if paid else kill or self._covering(self._locks, event)
            self._note(event, stop, fresh=fresh, metered=metered, upper=upper)
            yield self._passed(event, packed, spared=stop is not None and stop is kill), {}

    def judge(self, found: list[Anomaly], decided: list[Decision]) -> tuple[list[Anomaly], list[Decision]]:
        """What of it is new: not of a scope that is stopped already, unless it asks for a harder stop."""
        asked = {decision.anomaly for decision in decided}
        fresh = [anomaly for anomaly in found if not self._is_known(anomaly)]
        kept = {anomaly.id for anomaly in fresh}
        self._told_after.update(anomaly.series for anomaly in found if anomaly.id not in kept)
        since = {anomaly.id: anomaly.since or anomaly.ts for anomaly in fresh}
        self._firings += [(anomaly, anomaly.id in asked) for anomaly in fresh]
        decided = [decision for decision in decided if decision.anomaly in kept]
        for decision in decided:
            standing = _Standing(decision, since[decision.anomaly])
            self._stops.append(standing)
            held = self._kills if decision.kind is StopKind.HARD_KILL else self._locks
            held.setdefault((decision.scope.kind.value, decision.scope.id), standing)
        return fresh, decided

    def report(self) -> ShadowReport:
        """The account; sums are those of the stops."""
        totals = {kind: Spared() for kind in StopKind}
        stops = [self._account(standing) for standing in self._stops]
        for stop in stops:
            totals[stop.kind].add(stop.after)
        return ShadowReport(
            truth=self._truth.told if self._truth.knows() else "",
            rules=self._rules(stops),
            stops=stops,
            spent=self._whole.spared() if self._whole is not None else Spared(),
            after_kills=totals[StopKind.HARD_KILL],
            after_lockdowns=totals[StopKind.WRITE_LOCKDOWN],
            told_after=dict(self._told_after.most_common()),
        )

    # --- events ------------------------------------------------------------------------------------------------------

    def _is_fresh(self, event: Mapping[str, Any], packed: bytes) -> bool:
        """Not a retransmission: the same event of the same source was not told among the newest."""
        key = hash((event["source"], event["id"], packed))
        known = key in self._ids
        self._ids[key] = None
        if len(self._ids) > _IDS_MAX:
            self._ids.popitem(last=False)
        return not known

    def _announce(self, event: Mapping[str, Any]) -> None:
        named = {(kind, event[kind.value]) for kind in (ScopeKind.AGENT, ScopeKind.TENANT) if event.get(kind.value)}
        if named <= self._announced or len(self._announced) >= _ANNOUNCED_MAX:
            return
        self._announced |= named
        self._engine.set_guarded(self._announced)

    def _money(self, event: Mapping[str, Any]) -> tuple[int, int]:
        """By how much the event moved the ledger of the whole log: metered, and at the upper bound."""
        if event["type"] not in _MONEY:
            return 0, 0
        spend = self._all.spend(ScopeKind.HOST, "")
        moved = spend["metered"] - self._metered, spend["upper"] - self._upper
        self._metered, self._upper = spend["metered"], spend["upper"]
        return moved

    def _note(self, event: Mapping[str, Any], stop: _Standing | None, *, fresh: bool, metered: int, upper: int) -> None:
        if event["type"] in _ENDS:
            self._truth.note_end(event)
        if self._whole is None:
            self._whole = _Counted(event["ts"])
        if fresh:
            self._whole.add(event, metered, upper)
        if stop is not None and fresh:
            stop.counted.add(event, metered, upper)
            stop.cut.update((kind, event[kind]) for kind in ("task", "session") if event.get(kind))

    def _in_flight(self, event: Mapping[str, Any]) -> bool:
        """Whether the event tells the cost of a call that was reserved before its scope was stopped."""
        return event["type"] in ("token_cost_logged", "budget_settled") and _call(event) in self._open_calls

    def _passed(self, event: dict[str, Any], packed: bytes, *, spared: bool) -> bytes:
        told = self._numbers.note(event, spared=spared)
        if spared:
            self._gone.update(str(event[key]) for key in ("id", "task", "span") if event.get(key))
            return b""
        if event["type"] == "budget_reserved":
            self._open_calls[_call(event)] = None
            if len(self._open_calls) > _CALLS_MAX:
                self._open_calls.popitem(last=False)
        if event.get("parent") in self._gone:  # its parent was never done
            told = {key: value for key, value in told.items() if key != "parent"}
        return packed if told is event else _encode(told)

    @staticmethod
    def _covering(stops: Mapping[Name, _Standing], event: Mapping[str, Any]) -> _Standing | None:
        """The first stop that covers an event."""
        if not stops:
            return None
        names = [("host", ""), *((kind, event[kind]) for kind in NAMED if event.get(kind))]
        found = [stops[name] for name in names if name in stops]
        return min(found, key=lambda standing: standing.decision.ts, default=None)

    # --- judgement ---------------------------------------------------------------------------------------------------

    def _is_known(self, anomaly: Anomaly) -> bool:
        names = [("host", ""), *names_of(anomaly.scope)]
        kills = [self._kills[name] for name in names if name in self._kills]
        if any(anomaly.ts > standing.decision.ts for standing in kills):
            return True
        locks = [self._locks[name] for name in names if name in self._locks]
        if anomaly.severity is Severity.CRITICAL:
            return False
        return any(anomaly.ts > standing.decision.ts for standing in locks)

    def _account(self, standing: _Standing) -> StopAccount:
        decision = standing.decision
        sessions = sum(kind == "session" for kind, _ in standing.cut)
        return StopAccount(
            ts=decision.ts,
            kind=decision.kind,
            scope=decision.scope,
            criterion=decision.criterion,
            anomaly=decision.anomaly,
            after=standing.counted.spared(),
            verdict=self._truth.of_stop(decision.scope, standing.since, decision.ts, standing.cut),
            cut=sessions or len(standing.cut),
            cut_good=self._truth.good(standing.cut),
        )

    def _rules(self, stops: list[StopAccount]) -> list[RuleAccount]:
        described = [
            (c["name"], Severity(c["severity"]), c["name"] not in self._options.disabled) for c in catalog()["criteria"]
        ]
        return [self._rule(*row, stops) for row in (*described, (_INFO, Severity.INFO, True))]

    def _rule(self, name: str, severity: Severity, enabled: bool, stops: list[StopAccount]) -> RuleAccount:
        own = [stop for stop in stops if stop.criterion == name]
        firings = [
            Firing(
                ts=anomaly.ts,
                scope=anomaly.scope,
                anomaly=anomaly.id,
                stopped=stopped,
                verdict=self._truth.of(anomaly.scope, anomaly.since or anomaly.ts, anomaly.ts),
            )
            for anomaly, stopped in self._firings
            if (anomaly.criterion or _INFO) == name
        ]
        after = Spared()
        for stop in own:
            after.add(stop.after)
        return RuleAccount(
            criterion=name,
            severity=severity,
            stop={"critical": "hard_kill", "warning": "write_lockdown"}.get(severity, ""),
            enabled=enabled,
            fired=len(firings),
            scopes=len({str(firing.scope) for firing in firings}),
            stops=len(own),
            fired_by_verdict=_by_verdict(firing.verdict for firing in firings),
            stops_by_verdict=_by_verdict(stop.verdict for stop in own),
            after=after,
            firings=firings,
        )


def _by_verdict(verdicts: Iterator[Verdict]) -> dict[str, int]:
    counted = Counter(verdicts)
    return {verdict.value: counted[verdict] for verdict in Verdict}


def _call(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Whose call an event is about, as the ledger tells calls apart."""
    call = event.get("call") or ""
    actor = event.get("session") or event.get("task") or event.get("agent") or event["source"]
    return (event.get("tenant") or "", actor, call, "" if call else event.get("task") or "")
