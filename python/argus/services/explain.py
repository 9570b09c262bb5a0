"""Why Argus judges as it does: the criteria in force, read from the same descriptors that the core judges by."""

from __future__ import annotations

from typing import Any

from argus.engine.core import EngineOptions, HasEngineOptions, catalog


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
