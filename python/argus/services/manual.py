"""What a person does to the stops: trip, hold, reset. Needs no collector, only the control directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argus.killswitch.control import Control
from argus.schema import Scope, StopKind

if TYPE_CHECKING:
    from argus.config import Config


def _control(config: Config) -> Control:
    control = Control(config.control, mode=config.killswitch.mode)
    control.open()
    return control


def trip(config: Config, kind: StopKind, scope: Scope, *, reason: str, actor: str) -> str:
    """Set a flag by hand; always real, also in observe mode. Returns one line for the person."""
    done = _control(config).trip(
        kind, scope, reason=reason, reason_code="manual", actor=actor, automatic=False
    )
    done.make_durable()
    said = "stood already; your reason joins it" if done.existed else "is set"
    return f"{done.path}: {kind} {said} (epoch {done.epoch})"


def hold(config: Config, scope: Scope, *, seconds: float, reason: str, actor: str) -> str:
    """Hold automatic stops of a scope for a while. Returns one line for the person."""
    until = _control(config).hold(scope, minutes=seconds / 60, actor=actor, reason=reason)
    return f"automatic stops of {scope} are held until {until}; manual trips and absolute budgets are not"


def reset(
    config: Config, kind: StopKind, scope: Scope, *, reason: str, actor: str, second_actor: str | None
) -> str:
    """Clear a stop. Returns one line for the person."""
    archived = _control(config).reset(kind, scope, actor=actor, reason=reason, second_actor=second_actor)
    return f"{kind} of {scope} cleared by {actor}; the flag is kept at {archived}"
