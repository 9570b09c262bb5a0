"""Processes by identity: the tree below this process, and signals that can hit nobody else.

A process is (pid, start time ns since boot); a signal goes through a pidfd whose process is checked after it was
opened, so a pid that was reused is never hit. Never signalled: pid 1, this process, its ancestors.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from argus.guard import start_time_ns

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process as /proc tells; `name` is display only and untrusted."""

    pid: int
    start_time: int
    parent: int
    alive: bool
    name: str

    def __str__(self) -> str:
        return f"{self.pid} ({''.join(c if c.isprintable() else '?' for c in self.name)})"


def read_process(pid: int) -> Process | None:
    """A process from /proc/<pid>/stat; None = gone."""
    try:
        raw = Path("/proc", str(pid), "stat").read_bytes()
        close = raw.rindex(b")")
        fields = raw[close + 2 :].split()
        # A leader that has ended while its threads run on shows Z as well, but counts more than one thread.
        alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
        name = raw[raw.index(b"(") + 1 : close].decode("utf-8", "replace")
        return Process(pid, int(fields[19]) * _NS_PER_TICK, int(fields[1]), alive, name)
    except (OSError, ValueError, IndexError):
        return None


def descendants(root: int, exclude: frozenset[tuple[int, int]] = frozenset()) -> list[Process]:
    """Every process below `root`, zombies included; `exclude` names (pid, start time) whose branches are left out."""
    children: dict[int, list[Process]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            process = read_process(int(entry.name))
            if process is not None:
                children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        for child in children.pop(waiting.pop(), ()):
            if (child.pid, child.start_time) not in exclude:
                found.append(child)
                waiting.append(child.pid)
    return found


def protected_pids() -> frozenset[int]:
    """Pids that Argus never signals: 0, 1, this process and its ancestors."""
    found = {0, 1, os.getpid()}
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        process = read_process(pid)
        pid = process.parent if process else 0
    return frozenset(found)


def send_signal(process: Process, number: signal.Signals, protected: frozenset[int]) -> bool:
    """Signal exactly this process; returns whether it was there to be signalled.

    Raises
    ------
    PermissionError : it belongs to somebody else
    """
    if process.pid in protected:
        return False
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSYS):
            raise
        # No descriptor left: the check and the signal are then two steps, microseconds apart.
        if start_time_ns(process.pid) != process.start_time:
            return False
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
            return True
        return False
    try:
        if start_time_ns(process.pid) != process.start_time:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
