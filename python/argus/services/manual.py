"""What a person does to the stops: trip, hold, reset. Needs no collector, only the control directory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from argus.killswitch.control import Control
from argus.schema import Scope, StopKind

if TYPE_CHECKING:
    from argus.config import Config


def trip(config: Config, kind: StopKind, scope: Scope, *, reason: str, actor: str) -> str:
    """Set a flag by hand; always real, also in observe mode. Returns one line for the person."""
    with Control(config.control) as control:
        done = control.trip(kind, scope, reason=reason, reason_code="manual", actor=actor, automatic=False)
        late = ""
        try:
            done.make_durable()
        except OSError as error:
            late = f"; the disk refused to sync it ({error.strerror}), a power cut may lose it"
    said = "stood already; your reason joins it" if done.existed else "is set"
    where = done.path if done.on_disk else f"the epoch word says so, the flag is NOT on disk ({done.error})"
    return f"{kind} of {scope} {said} (epoch {done.epoch}): {where}{late}"


def hold(config: Config, scope: Scope, *, seconds: float, reason: str, actor: str) -> str:
    """Hold automatic stops of a scope for a while. Returns one line for the person."""
    with Control(config.control) as control:
        held = control.hold(scope, seconds / 60, actor, reason)
    until = datetime.fromtimestamp(held.until / 1e9, UTC).astimezone().strftime("%H:%M:%S")
    return f"automatic stops of {scope} are held until {until}; manual trips and absolute budgets are not"


def reset(config: Config, kind: StopKind, scope: Scope, *, reason: str, actor: str, second_actor: str | None) -> str:
    """Clear a stop. Returns one line for the person."""
    with Control(config.control) as control:
        done = control.reset(kind, scope, actor=actor, reason=reason, second_actor=second_actor)
    people = f"{done.actor} and {done.second_actor}" if done.second_actor else done.actor
    return f"{kind} of {scope} cleared by {people}; the flag is kept as {config.control}/archive/{done.archived}"
