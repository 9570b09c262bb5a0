"""`argus explain`: the criteria that the core judges by, with the values in force; the alarm budget as it is kept."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy as np
import pytest

from argus import config
from argus.engine.core import EVENT_TIME, AlarmBudget, Engine, EngineOptions, catalog
from argus.services import explain

T0 = 1_760_000_000_000_000_000
USD = 10**9


def load(folder: Path, text: str) -> config.Config:
    (folder / "argus.toml").write_text(text)
    return config.load(folder / "argus.toml", environ={})


def test_every_criterion_of_the_catalogue_is_explained_in_its_order():
    rows = explain.criteria(EngineOptions())
    assert [row["name"] for row in rows] == [c["name"] for c in catalog()["criteria"]]
    for row, described in zip(rows, catalog()["criteria"], strict=True):
        assert row["severity"] == described["severity"]
        assert row["documentation"] == described["documentation"]
        assert [o["name"] for o in row["options"]] == [o["name"] for o in described["options"]]
        assert all(o["value"] == o["default"] for o in row["options"])
        assert row["enabled"] is True


def test_a_critical_criterion_kills_and_a_warning_locks_down():
    stops = {row["severity"]: row["stop"] for row in explain.criteria(EngineOptions())}
    assert stops == {"critical": "hard_kill", "warning": "write_lockdown"}


def test_defaults_explained_from_options_and_from_a_configuration_are_the_same():
    assert explain.criteria(config.defaults(environ={})) == explain.criteria(EngineOptions())


def test_what_is_explained_is_what_is_configured(tmp_path: Path):
    loaded = load(tmp_path, "[criteria.W1]\nshare = 0.5\n[criteria.C2]\nenabled = false\n")
    rows = {row["name"]: row for row in explain.criteria(loaded)}
    assert rows["W1"]["options"][0]["value"] == 0.5
    assert rows["W1"]["options"][0]["default"] == 0.8
    assert [name for name, row in rows.items() if not row["enabled"]] == ["C2"]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_what_is_explained_is_what_is_judged_by(tmp_path: Path, share: float):
    loaded = load(tmp_path, f"[budgets]\nsession_usd = 100\n[criteria.W1]\nshare = {share}\n")
    (row,) = [row for row in explain.criteria(loaded) if row["name"] == "W1"]
    bar = round(row["options"][0]["value"] * 100 * USD)
    with Engine(loaded, host_plane=False) as engine:
        spoken = []
        for number, nusd in enumerate((bar - 1, 1), 1):
            event = {"v": 1, "id": f"e{number}", "type": "token_cost_logged", "ts": T0 + number, "source": "s"}
            event |= {"seq": number, "session": "run", "model": "m", "cost_nusd": nusd}
            spoken.append([a.criterion for a in engine.ingest(msgpack.packb(event), now=EVENT_TIME).anomalies])
    assert spoken == [[], ["W1"]]


def test_the_text_marks_what_differs_from_its_default_and_what_is_off(tmp_path: Path):
    loaded = load(tmp_path, "[criteria.W1]\nshare = 0.5\n[criteria.C2]\nenabled = false\nduration_s = 90\n")
    text = explain.render_criteria(explain.criteria(loaded))
    lines = text.split("\n")
    assert len(lines) == sum(3 + len(c["options"]) for c in catalog()["criteria"])
    (w1,) = [line for line in lines if line.startswith("W1 ")]
    assert "warning → write_lockdown.flag  [on]" in w1
    assert [line[:2] for line in lines if "[OFF]" in line] == ["C2"]
    assert [line.split()[0] for line in lines if "(default " in line] == ["duration_s", "share"]
    assert any("duration_s = 90 s  (default 120)" in line for line in lines)
    assert any(line.strip().startswith("share = 0.5  (default 0.8)") for line in lines)


# --- Needs, sources and what became of them --------------------------------------------------------------------------


def live(**changed: object) -> dict[str, object]:
    return {"fired": {}, "session_caps": 0, "event_types": [], **changed}


def row_of(name: str, rows: list[dict[str, object]]) -> dict[str, object]:
    return next(row for row in rows if row["name"] == name)


def test_every_criterion_says_what_it_needs():
    assert set(explain.NEEDS) == {c["name"] for c in catalog()["criteria"]}
    auditors = {a["name"] for a in catalog()["auditors"]}
    assert all(set(need.auditors) <= auditors for need in explain.NEEDS.values())
    assert all(row["needs"] for row in explain.criteria(EngineOptions()))


def test_a_value_is_told_with_the_line_that_sets_it(tmp_path: Path):
    loaded = load(tmp_path, "[criteria.W1]\nprobability = 0.9\nshare = 0.5\n")
    rows = explain.criteria(loaded, given=config.lines_of(tmp_path / "argus.toml"))
    assert {o["name"]: o["source"] for o in row_of("W1", rows)["options"]} == {
        "probability": "line 2",
        "share": "line 3",
    }
    assert {o["source"] for o in row_of("C2", rows)["options"]} == {"default"}
    assert "share = 0.5  (default 0.8)  [line 3]" in explain.render_criteria(rows)
    handed = explain.criteria(EngineOptions(criteria={"W1": {"share": 0.5}}))
    assert {o["name"]: o["source"] for o in row_of("W1", handed)["options"]}["share"] == "caller"


def test_a_cap_that_is_not_there_is_named_and_one_that_is_there_suffices(tmp_path: Path):
    bare = explain.criteria(EngineOptions())
    capped = explain.criteria(load(tmp_path, "[budgets]\ntenant_usd = 5\n"))
    for name in ("C1", "W1"):
        assert row_of(name, bare)["lacks"] == ["a cap: none in [budgets] or [auditors.limits], and none of a session"]
        assert row_of(name, capped)["lacks"] == []
    of_session = explain.criteria(EngineOptions(), live=live(session_caps=1, event_types=["token_cost_logged"]))
    assert row_of("C1", of_session)["lacks"] == []
    assert "needs a cap, and events that tell spend: a cap: none in [budgets]" in explain.render_criteria(bare)


def test_events_auditors_and_options_that_lack_are_named():
    rows = explain.criteria(EngineOptions(disabled=frozenset({"loop"})), live=live(event_types=["tool_called"]))
    assert row_of("C2", rows)["lacks"] == ["auditor loop: off in the configuration"]
    assert row_of("W2", rows)["lacks"] == ["events: no token_cost_logged or model_returned since the start"]
    assert row_of("W5", rows)["lacks"] == []
    assert "chance: is 0, so it never holds" in row_of("W8", rows)["lacks"]
    spoken = explain.criteria(EngineOptions(criteria={"W8": {"chance": 0.01}}))
    assert row_of("W8", spoken)["lacks"] == []
    assert row_of("W1", explain.criteria(EngineOptions(disabled=frozenset({"budget"}))))["lacks"][0].startswith("a cap")


def test_what_became_of_a_criterion_is_told_only_by_a_collector():
    counted = {"fired": 3, "stops": 2, "last_ts": T0}
    rows = explain.criteria(EngineOptions(), live=live(fired={"C1": counted}))
    assert row_of("C1", rows)["since_start"] == counted
    text = explain.render_criteria(rows)
    assert "held: 3 times since the collector's start, 2 stops, last 2025-10-09T" in text
    assert text.count("held: never since the collector's start") == len(rows) - 1
    assert explain.render_criteria(explain.criteria(EngineOptions())).count("no collector runs here") == len(rows)


def kept(**changed: object) -> AlarmBudget:
    values = {
        "alarms_per_day": 2.0,
        "alarms": 3.0,
        "requested": 4.0,
        "series_days": 12.0,
        "broken": False,
        "names": ["cpu{cpu=0}", "cpu{cpu=1}", "load"],
        "levels": np.array([20.0, 24.0, np.inf], np.float32),
        "days": np.array([3.0, 5.0, 0.0]),
        "states": ["own", "pooled", "warming"],
    }
    return AlarmBudget(**{**values, **changed})  # type: ignore[arg-type]


def test_a_budget_is_told_by_metric():
    found = explain.budget(kept())
    assert found["ratio"] == 0.75
    assert found["states"] == {"own": 1, "pooled": 1, "warming": 1}
    cpu, load = found["metrics"]
    assert (cpu["metric"], cpu["series"], cpu["level_min"], cpu["level_max"], cpu["days"]) == (
        "cpu",
        2,
        20.0,
        24.0,
        4.0,
    )
    assert (load["metric"], load["level_min"]) == ("load", None)
    text = explain.render_budget(found)
    assert "0.75 of what was asked for" in text
    assert "speaks from 20.0 to 24.0" in text
    assert "silent" in text
    assert "BROKEN" not in text


def test_a_broken_budget_and_an_untried_one_are_told():
    assert "BROKEN" in explain.render_budget(explain.budget(kept(broken=True)))
    young = explain.budget(kept(alarms=0.0, requested=0.0))
    assert young["ratio"] is None
    assert "not known yet" in explain.render_budget(young)


ROW = """
[[constraints]]
name = "review_before_deploy"
template = "precedence"
activation = { event = "tool_called", tool = "deploy" }
target = { event = "tool_called", tool = "review" }
severity = "critical"

[[constraints]]
name = "missing_terminal"
enabled = false
"""


def test_constraints_are_explained_with_their_state(tmp_path: Path):
    rows = {row["name"]: row for row in explain.constraints(load(tmp_path, ROW))}
    assert (rows["review_before_deploy"]["origin"], rows["review_before_deploy"]["criterion"]) == ("configured", "C5")
    assert (rows["duplicate_terminal"]["origin"], rows["duplicate_terminal"]["enabled"]) == ("built in", True)
    assert rows["missing_terminal"]["enabled"] is False
    shown = explain.render_constraints(list(rows.values()))
    assert "causal.missing_terminal  [OFF]" in shown
    assert "activation = tool_called, tool = 'deploy'" in shown


def test_explained_deadlines_and_switches_are_those_in_force(tmp_path: Path):
    text = "[auditors.causal]\nterminal_deadline_s = 30\n"
    rows = {row["name"]: row for row in explain.constraints(load(tmp_path, text))}
    assert rows["missing_terminal"]["deadline_ns"] == 30 * 10**9
    off = explain.constraints(load(tmp_path, "[auditors.causal]\nenabled = false\n"))
    assert not any(row["enabled"] for row in off)
