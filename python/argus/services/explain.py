"""Why Argus judges as it does: criteria and constraints in force, and the alarm budget with what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from argus.engine.core import (
    AlarmBudget,
    EngineOptions,
    HasEngineOptions,
    catalog,
    constraint_catalog,
    constraint_row,
)


def criteria(config: EngineOptions | HasEngineOptions) -> list[dict[str, Any]]:
    """Every criterion: name, severity, the stop it asks for, whether it is on, and its values beside their defaults."""
    options = config if isinstance(config, EngineOptions) else config.engine_options()
    rows = []
    for described in catalog()["criteria"]:
        given = options.criteria.get(described["name"], {})
        rows.append(
            {
                "name": described["name"],
                "severity": described["severity"],
                "stop": "hard_kill" if described["severity"] == "critical" else "write_lockdown",
                "enabled": described["name"] not in options.disabled,
                "documentation": described["documentation"],
                "options": [{**o, "value": given.get(o["name"], o["default"])} for o in described["options"]],
            }
        )
    return rows


def render_criteria(rows: list[dict[str, Any]]) -> str:
    """The criteria as plain text."""
    lines = []
    for row in rows:
        state = "on" if row["enabled"] else "OFF"
        lines.append(f"{row['name']}  {row['severity']} → {row['stop']}.flag  [{state}]  {row['documentation']}")
        for o in row["options"]:
            changed = "" if o["value"] == o["default"] else f"  (default {o['default']:g})"
            unit = "" if o["unit"] == "1" else f" {o['unit']}"
            lines.append(f"      {o['name']} = {o['value']:g}{unit}{changed}  {o['documentation']}")
    return "\n".join(lines)


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
