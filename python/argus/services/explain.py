"""Why Argus judges as it does: criteria and constraints in force, and the alarm budget with what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np

from argus.engine.core import (
    AlarmBudget,
    EngineOptions,
    HasEngineOptions,
    catalog,
    constraint_catalog,
    constraint_row,
)


class Need(NamedTuple):
    """What a criterion must have to speak: auditors that state its facts, events they read, and what must be set."""

    auditors: tuple[str, ...]
    events: tuple[tuple[str, ...], ...]  # one of each group
    words: str
    capped: bool = False
    option: str = ""  # must be above 0


_CALLS: Final = ("tool_called", "tool_returned")
_SPEND: Final = ("token_cost_logged", "budget_reserved", "budget_settled")
_TASK_ENDS: Final = ("task_completed", "task_failed", "task_cancelled")

NEEDS: Final[Mapping[str, Need]] = {
    "C1": Need(("budget", "limits"), (_SPEND,), "a cap, and events that tell spend", capped=True),
    "C2": Need(("loop",), (_CALLS,), "tool calls with args_hash and result_hash; a duration, or events that tell spend"),
    "C4": Need(("cost",), (("token_cost_logged", "model_returned"),), "costs of model calls with their tokens"),
    "C5": Need(("causal",), (), "a constraint of yours with severity = \"critical\""),
    "W1": Need(("budget", "limits", "forecast"), (_SPEND,), "a cap, and events that tell spend", capped=True),
    "W2": Need(("cost",), (("token_cost_logged", "model_returned"),), "costs of model calls with their tokens"),
    "W3": Need(("loop", "progress"), (_CALLS,),
               "tool calls with args_hash and result_hash; a duration, or events that tell spend"),
    "W4": Need(("outcome",), (_TASK_ENDS,), "ends of tasks with ok, at least 46 of an agent or tenant"),
    "W5": Need(("causal",), (), "any events; losses and repeats are seen by seq and id, orders by starts and ends"),
    "W8": Need(("hijack",), (("user_message", "task_started"), _CALLS), "requests as text or words; chance above 0",
               option="chance"),
    "W9": Need(("claims",), (("file_written", "task_completed"),), "file_written with absolute paths of this machine"),
}  # fmt: skip
"""By criterion; one that is not listed is held to need nothing."""


def criteria(
    config: EngineOptions | HasEngineOptions,
    *,
    given: Mapping[tuple[str, ...], int] | None = None,
    live: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Every criterion as it stands here.

    Parameters
    ----------
    given : line of every key that the configuration file sets (argus.config.locate); None = no file
    live : `criteria` of the running collector; None = none runs

    Returns
    -------
    list of dict: name, severity, the stop it asks for, enabled, values beside defaults with their source, `needs` in
    words, `lacks` (what of it is missing here, [] = nothing known to be), and `since_start` of the collector or None
    """
    options = config if isinstance(config, EngineOptions) else config.engine_options()
    lines = given or {}
    rows = []
    for described in catalog()["criteria"]:
        name = described["name"]
        values = options.criteria.get(name, {})
        explained = []
        for option in described["options"]:
            line = lines.get(("criteria", name, option["name"]))
            value = values.get(option["name"], option["default"])
            changed = line is None and value != option["default"]
            source = f"line {line}" if line is not None else "caller" if changed else "default"
            explained.append({**option, "value": value, "source": source})
        rows.append(
            {
                "name": name,
                "severity": described["severity"],
                "stop": "hard_kill" if described["severity"] == "critical" else "write_lockdown",
                "enabled": name not in options.disabled,
                "documentation": described["documentation"],
                "options": explained,
                "needs": NEEDS[name].words if name in NEEDS else "",
                "lacks": _lacks(name, options, explained, live),
                "since_start": None
                if live is None
                else live["fired"].get(name, {"fired": 0, "stops": 0, "last_ts": 0}),
            }
        )
    return rows


def _lacks(
    name: str, options: EngineOptions, explained: list[dict[str, Any]], live: Mapping[str, Any] | None
) -> list[str]:
    """What a criterion lacks here, as far as configuration and collector tell."""
    need = NEEDS.get(name)
    if need is None:
        return []
    lacks = []
    if all(auditor in options.disabled for auditor in need.auditors):
        lacks.append(f"auditor {' or '.join(need.auditors)}: off in the configuration")
    limited = any(cap > 0 for name, cap in options.auditors.get("limits", {}).items() if name != "silence_s")
    if need.capped and not options.caps_nusd and not limited and not (live and live["session_caps"]):
        lacks.append("a cap: none in [budgets] or [auditors.limits], and none of a session")
    if any(option["name"] == need.option and option["value"] <= 0 for option in explained):
        lacks.append(f"{need.option}: is 0, so it never holds")
    if live is not None:
        seen = set(live["event_types"])
        lacks += [f"events: no {' or '.join(group)} since the start" for group in need.events if not seen & set(group)]
    return lacks


def render_criteria(rows: list[dict[str, Any]]) -> str:
    """The criteria as plain text."""
    lines = []
    for row in rows:
        state = "on" if row["enabled"] else "OFF"
        lines.append(f"{row['name']}  {row['severity']} → {row['stop']}.flag  [{state}]  {row['documentation']}")
        for o in row["options"]:
            changed = "" if o["value"] == o["default"] else f"  (default {o['default']:g})"
            source = "" if o["source"] == "default" else f"  [{o['source']}]"
            unit = "" if o["unit"] == "1" else f" {o['unit']}"
            lines.append(f"      {o['name']} = {o['value']:g}{unit}{changed}{source}  {o['documentation']}")
        if row["needs"]:
            lines.append(f"      needs {row['needs']}: {'; '.join(row['lacks']) or 'nothing is known to lack'}")
        lines.append(f"      {_since_start(row['since_start'])}")
    return "\n".join(lines)


def _since_start(counted: Mapping[str, int] | None) -> str:
    if counted is None:
        return "held: not known, no collector runs here"
    if not counted["fired"]:
        return "held: never since the collector's start"
    when = datetime.fromtimestamp(counted["last_ts"] / 1e9, UTC).isoformat(timespec="seconds")
    return f"held: {counted['fired']} times since the collector's start, {counted['stops']} stops, last {when}"


def constraints(config: EngineOptions | HasEngineOptions) -> list[dict[str, Any]]:
    """Every constraint, built-in ones first: what it asks for in words, where it comes from, and whether it holds."""
    options = config if isinstance(config, EngineOptions) else config.engine_options()
    known = constraint_catalog()
    documented = {t["name"]: t["documentation"] for t in known["templates"]}
    given = {choice.name: constraint_row(choice) for choice in options.constraints}
    held = {row["name"]: (row, "built in") for row in known["defaults"]}
    silence = options.auditors.get("causal", {}).get("terminal_deadline_s")
    if silence is not None:
        held["missing_terminal"][0]["deadline_ns"] = round(silence * 1e9)
    for name, row in given.items():
        if row["enabled"] or name not in held:
            held[name] = (row, "replaces the built-in one" if name in held else "configured")
    judged = "causal" not in options.disabled
    return [
        {
            **row,
            "origin": origin,
            "enabled": judged and given.get(name, row)["enabled"],
            "documentation": documented[row["template"]],
            "criterion": {"info": None, "warning": "W5", "critical": "C5"}[row["severity"]],
        }
        for name, (row, origin) in held.items()
    ]


def render_constraints(rows: list[dict[str, Any]]) -> str:
    """The constraints as plain text."""
    lines = []
    for row in rows:
        asks = f"{row['severity']} by {row['criterion']}" if row["criterion"] else row["severity"]
        state = "on" if row["enabled"] else "OFF"
        lines.append(f"causal.{row['name']}  [{state}]  {row['origin']}; {asks}; in each {row['scope']}")
        times = f", times = {row['times']}" if row["times"] != 1 else ""
        lines.append(f"      {row['template']}{times}: {row['documentation']}")
        for side in ("activation", "target"):
            if row[side] is not None:
                events, where = row[side]
                fields = "".join(f", {field} = {value!r}" for field, value in where.items())
                lines.append(f"      {side} = {' or '.join(events)}{fields}")
        if row["deadline_ns"]:
            since = "silence" if row["of_silence"] else "the activation"
            lines.append(f"      deadline = {row['deadline_ns'] / 1e9:g} s from {since}")
        if row["witnessed"]:
            lines.append("      of sources only that have shown that they emit what is missing")
        if row["message"]:
            lines.append(f"      means: {row['message']}")
    return "\n".join(lines)


def budget(kept: AlarmBudget) -> dict[str, Any]:
    """The alarm budget as plain values: totals, and one entry a metric with the states and levels of its series."""
    metrics: dict[str, list[int]] = {}
    for i, name in enumerate(kept.names):
        metrics.setdefault(name.split("{", 1)[0], []).append(i)
    rows = []
    for metric, members in sorted(metrics.items()):
        levels = kept.levels[members]
        speaking = levels[np.isfinite(levels)]
        rows.append(
            {
                "metric": metric,
                "series": len(members),
                "states": dict(Counter(kept.states[i] for i in members)),
                "level_min": float(speaking.min()) if speaking.size else None,
                "level_max": float(speaking.max()) if speaking.size else None,
                "days": float(np.median(kept.days[members])),
            }
        )
    return {
        "alarms_per_day": kept.alarms_per_day,
        "alarms": kept.alarms,
        "requested": kept.requested,
        "ratio": kept.alarms / kept.requested if kept.requested > 0 else None,
        "broken": kept.broken,
        "states": dict(Counter(kept.states)),
        "metrics": rows,
    }


def render_budget(found: Mapping[str, Any]) -> str:
    """The alarm budget as plain text."""
    ratio = "not known yet" if found["ratio"] is None else f"{found['ratio']:.2f} of what was asked for"
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["states"].items())) or "none"
    lines = [
        f"asked for   {found['alarms_per_day']:g} alarms a day, all series together; true ones count until argus ack",
        f"spoken      {found['alarms']:g} where {found['requested']:.3g} were asked for since warming: {ratio}",
        f"promise     {'BROKEN over the last month' if found['broken'] else 'kept, or too young to tell'}",
        f"series      {states}   (warming: first day, strict; pooled: siblings' tails; own: its own count)",
    ]
    for row in found["metrics"]:
        span = "silent" if row["level_min"] is None else f"speaks from {row['level_min']:.1f} to {row['level_max']:.1f}"
        told = ", ".join(f"{count} {state}" for state, count in sorted(row["states"].items()))
        lines.append(f"  {row['metric']:52} {row['series']:5}  {span:28} {row['days']:6.1f} days  {told}")
    return "\n".join(lines)
