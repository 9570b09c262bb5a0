"""The mapped epoch word of the control directory, from the compiled core."""

from __future__ import annotations

from argus._core import HOST_KILL, HOST_LOCKDOWN, NARROWER, EpochWord, EpochWordError

__all__ = ["HOST_KILL", "HOST_LOCKDOWN", "NARROWER", "EpochWord", "EpochWordError"]
