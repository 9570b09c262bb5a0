"""Guards of agents side by side: which stop healthy agents, and which see a runaway, and when. Writes docs/comparison.md.

    pip install 'argus-auditor[compare]'
    python bench/python/compare_agents.py --write

The streams are made (fleet.py): thirty healthy agents for eight hours, and five agents that go on calling after an hour
of healthy work, one of them for a reason. Guards have their defaults and are asked before or after every call, as their
own adapters do; a guard that speaks has stopped the agent. Without --write the tables are printed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import fleet
from fleet import Call
from support import ROOT, machine, write_between

import argus

PAGE = ROOT / "docs" / "comparison.md"
_START_S = 1_760_000_000.0
_MINUTE_S = 60.0
Stop = int | None  # index of the call at which an agent is stopped
Asked = Callable[[Call], bool]


class Seen(NamedTuple):
    """Of a runaway: calls refused in the healthy hour before it, and the index of the first refused one of its own."""

    before: int
    stop: Stop


class Guard(NamedTuple):
    """A guard of others: its package, its setting, and what makes one for an agent; the made one says stop."""

    name: str
    package: str
    setting: str
    make: Callable[[], Asked]


def _agentguard(name: str, a_session: bool, **options: Any) -> Callable[[], Asked]:
    def make() -> Asked:
        import agentguard

        guards: dict[str, Any] = {}

        def asked(call: Call) -> bool:
            key = call.session if a_session else ""
            if key not in guards:
                guards.clear()
                guards[key] = getattr(agentguard, name)(**options)
            try:
                guards[key].check(call.tool, {"argument": call.argument})
            except agentguard.LoopDetected:
                return True
            return False

        return asked

    return make


def _rogue_detector() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its new home exports the same class
        from agent_sre.anomaly.rogue_detector import RogueAgentDetector, RogueDetectorConfig

    logging.getLogger("agent_sre.anomaly.rogue_detector").setLevel(logging.ERROR)
    detector = RogueAgentDetector(config=RogueDetectorConfig())
    detector.register_capability_profile("agent", [*fleet.TOOLS, "build_state"])
    return detector


def _rogue_each_call() -> Asked:
    detector = _rogue_detector()

    def asked(call: Call) -> bool:
        now = _START_S + call.at
        detector.record_action("agent", call.tool, call.tool, timestamp=now)
        return bool(detector.assess("agent", timestamp=now).quarantine_recommended)

    return asked


def _rogue_each_minute() -> Asked:
    """The kindest use: asked once a window, just before it is full, so that no window is judged in part."""
    detector = _rogue_detector()
    begun, last = -_MINUTE_S, 0.0

    def asked(call: Call) -> bool:
        nonlocal begun, last
        rogue = False
        if call.at - begun >= _MINUTE_S:
            end = _START_S + begun + _MINUTE_S - 1e-3
            rogue = begun >= 0 and bool(detector.assess("agent", timestamp=end).quarantine_recommended)
            begun = call.at
        detector.record_action("agent", call.tool, call.tool, timestamp=_START_S + call.at)
        return rogue

    return asked


GUARDS = (
    Guard("LoopGuard", "agentguard47", "3 equal calls, one guard a session", _agentguard("LoopGuard", True)),
    Guard(
        "LoopGuard as `init()` sets it", "agentguard47", "5 equal calls, one guard a session",
        _agentguard("LoopGuard", True, max_repeats=5),
    ),
    Guard(
        "FuzzyLoopGuard", "agentguard47", "5 of 10 calls, or 3 turns of two; one guard a session",
        _agentguard("FuzzyLoopGuard", True),
    ),
    Guard(
        "rogue detector, asked at each call", "agent-governance-toolkit", "as its middleware does; tools registered",
        _rogue_each_call,
    ),
    Guard(
        "rogue detector, asked once a minute", "agent-governance-toolkit", "kindest use, by hand; tools registered",
        _rogue_each_minute,
    ),
)  # fmt: skip


def first_stop(guard: Guard, calls: list[Call]) -> Stop:
    """Index of the call at which the guard stops the agent; None = never."""
    asked = guard.make()
    return next((index for index, call in enumerate(calls) if asked(call)), None)


def watched(guard: Guard, calls: list[Call], first: int) -> Seen:
    """What a guard says of a runaway when the agent goes on whatever it said before."""
    asked = guard.make()
    before = sum(asked(call) for call in calls[:first])
    return Seen(before, next((at for at, call in enumerate(calls[first:]) if asked(call)), None))


def own_stops(agents: dict[str, list[Call]]) -> dict[str, Stop]:
    """Argus over all agents on one host: the first call after which a stop holds the agent; None = never."""
    report = argus.replay(fleet.events(call for calls in agents.values() for call in calls))
    stops: dict[str, Stop] = {}
    for agent, calls in agents.items():
        sessions = {call.session for call in calls}
        times = [
            stop.ts for stop in report.stops
            if stop.scope.kind in ("host", "tenant") or {stop.scope.id, stop.scope.agent} & {agent}
            or {stop.scope.id, stop.scope.session, stop.scope.task} & sessions
        ]  # fmt: skip
        at = (min(times) / 1e9 - _START_S) if times else float("inf")
        stops[agent] = next((index for index, call in enumerate(calls) if call.at + 1e-6 >= at), None)
    return stops


def own_watch(calls: list[Call], first: int) -> Seen:
    """The same of Argus; a stop holds until a person clears it."""
    stop = own_stops({"agent-0": calls})["agent-0"]
    if stop is None:
        return Seen(0, None)
    return Seen(max(0, first - stop), max(0, stop - first))


class Line(NamedTuple):
    """Of one guard: stops of the healthy fleet, of the fleet that never polls, and of each runaway."""

    name: str
    setting: str
    healthy: dict[str, Stop]
    never_polling: dict[str, Stop]
    runaways: dict[str, Seen]


def lines() -> Iterator[Line]:
    """Argus and the guards that are installed."""
    fleets = fleet.healthy(), fleet.healthy(polls=False)
    runaways = {name: fleet.runaway(name) for name in fleet.RUNAWAYS}
    ours = {name: own_watch(calls, first) for name, (calls, first) in runaways.items()}
    yield Line(
        f"**Argus {argus.__version__}**", "defaults, no budget set", own_stops(fleets[0]), own_stops(fleets[1]), ours
    )
    for guard in GUARDS:
        try:
            version = importlib.metadata.version(guard.package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{guard.package}: not installed, left out; pip install 'argus-auditor[compare]'", file=sys.stderr)
            continue
        stopped = [{agent: first_stop(guard, calls) for agent, calls in agents.items()} for agents in fleets]
        seen = {name: watched(guard, calls, first) for name, (calls, first) in runaways.items()}
        yield Line(f"{guard.package} {version} {guard.name}", guard.setting, stopped[0], stopped[1], seen)


def _counted(stops: dict[str, Stop], agents: dict[str, list[Call]]) -> tuple[int, str]:
    minutes = [agents[agent][at].at / _MINUTE_S for agent, at in stops.items() if at is not None]
    return len(minutes), f"{statistics.median(minutes):.0f}" if minutes else ""


def _told(seen: Seen) -> str:
    return "never" if seen.stop is None else f"call {seen.stop + 1}"


def _healthy_calls() -> int:
    return fleet.runaway(next(iter(fleet.RUNAWAYS)))[1]


def tables() -> dict[str, str]:
    """The tables of the page by their names."""
    found = list(lines())
    agents, quiet = fleet.healthy(), fleet.healthy(polls=False)
    calls = sum(map(len, agents.values()))
    healthy = [
        f"*{len(agents)} agents, {fleet.HOURS:.0f} h each, {calls:,} calls; {machine()}.*",
        "",
        "| guard | setting | healthy agents stopped | at minute, median | of those that never poll | at minute, median |",
        "|---|---|---|---|---|---|",
    ]
    titles = [*fleet.RUNAWAYS, "calls refused in the healthy hour before"]
    runaways = [f"| guard | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for line in found:
        count, minute = _counted(line.healthy, agents)
        fewer, later = _counted(line.never_polling, quiet)
        cells = f"{count} of {len(agents)} | {minute} | {fewer} of {len(quiet)} | {later}"
        healthy.append(f"| {line.name} | {line.setting} | {cells} |")
        seen = [line.runaways[name] for name in fleet.RUNAWAYS]
        runaways.append(f"| {line.name} | {' | '.join(map(_told, seen))} | {seen[0].before} of {_healthy_calls()} |")
    return {"healthy": "\n".join(healthy), "runaways": "\n".join(runaways)}


def main() -> None:
    """Print both tables; with --write, keep them in the documentation."""
    for name, text in tables().items():
        print(text, end="\n\n")
        if "--write" in sys.argv[1:]:
            write_between(PAGE, name, text)


if __name__ == "__main__":
    main()
