"""One-shot reads of the machine: host numbers and the process table, as NumPy arrays."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from argus.errors import UnreachableError, UsageError

_core: Any = import_module("argus._core")

TIERS = ("auto", "tree")


class HostSample(msgspec.Struct, frozen=True, eq=False):
    """What one read of the host saw.

    Attributes
    ----------
    time_ns : wall clock of the read, nanoseconds since the Unix epoch
    names : one per value, OpenTelemetry style with attributes: ``system.cpu.time{cpu.logical_number=0,cpu.mode=user}``
    units : one per value, UCUM: ``s``, ``By``, ``1``
    kinds : one per value, ``gauge`` (a level) or ``counter`` (since boot, raw)
    values : float64, shape (n_series,), base units; NaN = the file could not be read this time
    """

    time_ns: int
    names: tuple[str, ...]
    units: tuple[str, ...]
    kinds: tuple[str, ...]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.names)

    def as_dict(self) -> dict[str, float]:
        """Values by name."""
        return dict(zip(self.names, self.values.tolist(), strict=True))


class Host:
    """The host's sources, opened once and read on demand.

    Parameters
    ----------
    proc, sys, cgroup : roots of procfs, sysfs and the cgroup tree; another root reads a container's host or a
        fixture tree. ``cgroup=None`` = found from the mount table.

    Examples
    --------
    >>> from argus import Host
    >>> sample = Host().read()
    >>> sample.as_dict()["system.memory.limit"] > 0
    True

    Source
    ------
    /proc/{stat,loadavg,uptime,meminfo,vmstat,net/dev,pressure/*}.
    """

    def __init__(self, proc: str = "/proc", sys: str = "/sys", cgroup: str | None = None) -> None:
        self._core = _core.Host(proc=str(proc), sys=str(sys), cgroup="" if cgroup is None else str(cgroup))

    def read(self) -> HostSample:
        """Read every source once. The GIL is released; `names`, `units`, `kinds` are shared until the layout changes.

        Returns
        -------
        HostSample. What this machine lacks has no series; see `missing`.
        """
        time_ns, values, names, units, kinds = self._core.read()
        return HostSample(time_ns, names, units, kinds, values)

    @property
    def missing(self) -> tuple[str, ...]:
        """Sources that this machine lacks, each with the file, what it needs and what to do."""
        return tuple(self._core.missing())


class Processes:
    """The process table: every process, one array per field.

    Parameters
    ----------
    tier : how the table is read. ``tree`` walks the proc tree: any user, any root. ``auto`` picks the best that works.
    proc : root of procfs, or of a fixture tree

    Raises
    ------
    UsageError : `tier` is not one of the known ones
    """

    def __init__(self, tier: Literal["auto", "tree"] | str = "auto", proc: str = "/proc") -> None:
        if tier not in TIERS:
            raise UsageError(f"Processes: tier: expected one of {', '.join(TIERS)}, found {tier!r}; nothing opened")
        self._tier = "tree"
        self._proc = str(proc)
        self._core = _core.Processes(proc=self._proc)

    def read(self) -> dict[str, NDArray[Any]]:
        """Read every process once; the GIL is released.

        Returns
        -------
        dict of arrays of shape (n_processes,), ascending by ``pid``. A process is (``pid``, ``start_time_ns``).
        ``pid ppid threads nice last_cpu`` int32; ``start_time_ns`` int64, since boot; ``uid`` int64, -1 = not readable;
        ``name`` S64 and ``state`` S1, raw bytes: names are untrusted, decode with ``errors="backslashreplace"``;
        float64 in base units, NaN = not observed: ``cpu_user_s cpu_system_s cpu_utilization rss_bytes virtual_bytes
        shared_bytes minor_faults major_faults read_bytes write_bytes read_chars write_chars voluntary_switches
        involuntary_switches run_delay_s``; ``valid`` uint32 bits (1 stat, 2 memory, 4 io, 8 status, 16 schedule,
        32 utilization); ``tier``, the way each row was read. ``cpu_utilization`` is NaN the first time a process is
        seen; switches and run delay are those of the main thread.

        Raises
        ------
        UnreachableError : the proc root cannot be listed
        """
        columns: dict[str, NDArray[Any]] | None = self._core.read()
        if columns is None:
            raise UnreachableError(
                f"Processes: {self._proc}: expected a directory of processes, could not list it; nothing read. "
                "Mount procfs, or name another root with proc="
            )
        columns["tier"] = np.full(len(columns["pid"]), self._tier, dtype="U9")
        return columns

    @property
    def counts(self) -> dict[str, int]:
        """Of the last read: processes ``vanished``, ``unreadable``, ``malformed``, and rows ``gated`` (proved idle)."""
        return dict(self._core.counts())
