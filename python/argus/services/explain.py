"""Why Argus judges as it does: the criteria in force, and the alarm budget with what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from argus.engine.core import AlarmBudget, EngineOptions, HasEngineOptions, catalog


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
