"""When series are not judged: maintenance windows (scheduled or begun by a person) and deployments.

Under maintenance a series is observed, kept and exported, but it raises no alarm and nothing is learned of it, so that
afterwards it is judged by what was normal before. After a deployment what is normal may rightly be another: the series is
left alone until the deployment has settled, and its next value is then the new normal. Only the statistical alarms of the host
plane are held back this way: no criterion, no cap and no stop is. What is held back is always shown.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from argus.config import DAYS
from argus.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from argus.config import MaintenanceSettings

_LONGEST_S = 30 * 86_400
_MOST = 100  # windows that people may have open at once
_NS = 1_000_000_000


class WindowKind(StrEnum):
    """Why series are not judged."""

    MAINTENANCE = "maintenance"
    DEPLOYMENT = "deployment"


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Series that are not judged for a while; start and end are Unix ns."""

    name: str
    kind: WindowKind = WindowKind.MAINTENANCE
    series: tuple[str, ...] = ("*",)
    start: int
    end: int
    reason: str = ""
    actor: str = ""


class Calendar:
    """The windows that are open: those of the schedule, and those that people began, which outlive a restart.

    Parameters
    ----------
    schedule : the configuration's windows by name
    path : where the windows that people began are kept
    """

    def __init__(self, schedule: Mapping[str, MaintenanceSettings], path: Path) -> None:
        self._schedule = dict(schedule)
        self._path = path
        self._begun: dict[str, Window] = {}

    def read(self) -> None:
        """Take up what people had begun before a restart.

        Raises
        ------
        UsageError : the file is damaged; none of its windows is taken
        """
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=list[Window])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(
                f"{self._path}: expected a list of maintenance windows, found {error}; none is open, begin them again"
            ) from None
        self._begun = {window.name: window for window in found}

    def open_at(self, now: int) -> list[Window]:
        """The windows open at `now` (Unix ns), by name; those that have ended are forgotten."""
        self._begun = {name: window for name, window in self._begun.items() if window.end > now}
        scheduled = [
            Window(name=name, series=tuple(each.series), start=start, end=end, reason="scheduled")
            for name, each in self._schedule.items()
            if (times := occurrence(each, now)) is not None
            for start, end in (times,)
        ]
        return sorted([*self._begun.values(), *scheduled], key=lambda window: window.name)

    def begin(
        self, kind: WindowKind, series: tuple[str, ...], seconds: float, *, now: int, name: str, reason: str, actor: str
    ) -> Window:
        """Open a window from `now` (Unix ns) on; an empty name is chosen.

        Raises
        ------
        UsageError : the name is taken, nothing is named, it is to last longer than 30 days, or too many are open
        """
        taken = {window.name for window in self.open_at(now)} | set(self._schedule)
        chosen = name or next(f"{kind}-{i}" for i in range(1, len(taken) + 2) if f"{kind}-{i}" not in taken)
        if chosen in taken:
            raise UsageError(f"{kind}: name: expected a name that no window has, found {chosen!r}; end that one first")
        if not 0 < seconds <= _LONGEST_S:
            raise UsageError(f"{kind}: expected a length of at most 30 days, found {seconds:g} s")
        if not series or not all(series):
            raise UsageError(f"{kind}: series: expected patterns such as 'system.disk.*', found {list(series)}")
        if len(self._begun) >= _MOST:
            raise UsageError(f"{kind}: expected at most {_MOST} open windows, found as many; end some first")
        window = Window(
            name=chosen, kind=kind, series=series, start=now, end=now + int(seconds * _NS), reason=reason, actor=actor
        )
        self._begun[chosen] = window
        return window

    def end(self, name: str, *, now: int) -> Window:
        """Close a window that a person began.

        Raises
        ------
        UsageError : no such window is open, or it is one of the schedule
        """
        if name in self._schedule:
            raise UsageError(f"maintenance: {name!r} is in the configuration: change it there")
        window = self._begun.pop(name, None)
        if window is None or window.end <= now:
            raise UsageError(
                f"maintenance: expected the name of an open window, found {name!r}; see argus maintenance list"
            )
        return window

    def save(self) -> None:
        """Write what people began, whole and durably."""
        fresh = self._path.with_suffix(".tmp")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(list(self._begun.values())))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def suspensions(windows: list[Window]) -> list[tuple[str, bool]]:
    """What the engine is told: pattern, and whether the next value afterwards is the new normal."""
    return sorted({(pattern, each.kind is WindowKind.DEPLOYMENT) for each in windows for pattern in each.series})


def occurrence(settings: MaintenanceSettings, now: int) -> tuple[int, int] | None:
    """Start and end (Unix ns) of the scheduled window that is open at `now`, None when none is."""
    moment = datetime.fromtimestamp(now / _NS, UTC)
    hours, minutes = map(int, settings.at.split(":"))
    for back in range(settings.length_secs // 86_400 + 2):
        start = (moment - timedelta(days=back)).replace(hour=hours, minute=minutes, second=0, microsecond=0)
        end = start + timedelta(seconds=settings.length_secs)
        if start <= moment < end and (not settings.days or DAYS[start.weekday()] in settings.days):
            return int(start.timestamp()) * _NS, int(end.timestamp()) * _NS
    return None


def window_words(windows: list[Window], series: int) -> str:
    """What is held back, in words: `12 series not judged: backup until 14:00 UTC`."""
    if not windows:
        return ""
    told = ", ".join(
        f"{each.name} until {datetime.fromtimestamp(each.end / _NS, UTC):%Y-%m-%d %H:%M} UTC" for each in windows
    )
    return f"{series} series not judged: {told}"
