"""The made fleet is healthy and the same each time; the guards beside Argus are asked as their packages mean it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import argus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _bench_on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench" / "python"))
        yield


@pytest.fixture(scope="module")
def fleet(_bench_on_path: None) -> ModuleType:
    import fleet

    return fleet


def test_a_fleet_is_the_same_each_time_and_of_all_kinds(fleet: ModuleType) -> None:
    agents = fleet.healthy(8, hours=0.5)
    assert agents == fleet.healthy(8, hours=0.5)
    assert agents != fleet.healthy(8, hours=0.5, seed=2)
    a_minute = [len(calls) / 30 for calls in agents.values()]
    assert [a_minute[k] for k in range(3)] == pytest.approx([5, 20, 60], rel=0.25)
    assert all(call.at < 1800 for calls in agents.values() for call in calls)


def test_no_healthy_call_is_repeated_but_a_poll_whose_result_moves(fleet: ModuleType) -> None:
    for polls in (True, False):
        calls = [call for own in fleet.healthy(4, hours=1.0, polls=polls).values() for call in own]
        whole = Counter((call.session, call.tool, call.argument, call.result) for call in calls)
        assert max(whole.values()) == 1
        asked = Counter((call.session, call.tool, call.argument) for call in calls)
        assert {tool for (_, tool, _), count in asked.items() if count > 1} == ({"build_state"} if polls else set())


def test_events_of_a_fleet_are_accepted_and_orderly(fleet: ModuleType) -> None:
    """Every task starts once and ends once, and nothing is said of any."""
    events = list(fleet.events(call for own in fleet.healthy(6, hours=0.5).values() for call in own))
    kinds = Counter(event["type"] for event in events)
    assert kinds["task_started"] == kinds["task_completed"] > 20
    report = argus.replay(events)
    assert report.rejected == {}
    assert [a.message for a in report.anomalies if a.severity != "info" or a.family == "causal"] == []
    assert report.stops == []


@pytest.mark.parametrize("name", ["the same call, the same result", "three calls in a circle, the same results"])
def test_a_runaway_is_stopped_within_ten_calls_and_not_before(fleet: ModuleType, name: str) -> None:
    import compare_agents

    calls, first = fleet.runaway(name, calls=60)
    seen = compare_agents.own_watch(calls, first)
    assert seen.before == 0
    assert seen.stop is not None and seen.stop < 10


def test_slow_work_is_no_runaway(fleet: ModuleType) -> None:
    import compare_agents

    calls, first = fleet.runaway("one tool, new arguments and results: slow work, not a fault", calls=300)
    assert compare_agents.own_watch(calls, first).stop is None


def test_a_loop_guard_refuses_the_third_equal_call(fleet: ModuleType) -> None:
    pytest.importorskip("agentguard", reason="the extra `compare` is not installed")
    import compare_agents

    calls, first = fleet.runaway("the same call, the same result", calls=20)
    assert compare_agents.watched(compare_agents.GUARDS[0], calls, first).stop == 2


def test_a_rogue_detector_asked_at_each_call_stops_a_steady_agent(fleet: ModuleType) -> None:
    pytest.importorskip("agent_sre", reason="the extra `compare` is not installed")
    import compare_agents

    calls = fleet.healthy(1, hours=1.0)["agent-0"]
    guard = next(guard for guard in compare_agents.GUARDS if "each call" in guard.name)
    assert compare_agents.first_stop(guard, calls) is not None


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    from support import write_between

    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
    write_between(page, "x", "| new |")
    assert page.read_text() == "a\n<!-- x -->\n| new |\n<!-- /x -->\nb\n"
    with pytest.raises(SystemExit, match="nothing written"):
        write_between(page, "y", "z")
    assert page.read_text().count("new") == 1
