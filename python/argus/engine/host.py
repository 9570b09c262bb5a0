"""One-shot reads of the machine: host numbers and the process table, as NumPy arrays."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from argus.errors import UnreachableError, UsageError

_core: Any = import_module("argus._core")

TIERS = ("auto", "bpf", "taskstats", "gated", "tree")


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

    Notes
    -----
    Sources of the slow lane (file systems, sensors, cgroups, sockets, …) are read again when
    their interval is over, most after 10 s; between, their last values stand.
    """

    def __init__(self, proc: str = "/proc", sys: str = "/sys", cgroup: str | None = None) -> None:
        self._core = _core.Host(proc=str(proc), sys=str(sys), cgroup="" if cgroup is None else str(cgroup))

    def read(self) -> HostSample:
        """Read every source that is due. The GIL is released; `names`, `units`, `kinds` are shared until the layout changes.

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


class Tier(NamedTuple):
    """A way to read the process table, and why this machine does not offer it."""

    name: str
    available: bool
    reason: str


class Processes:
    """The process table: every process, one array per field.

    Parameters
    ----------
    tier : how the table is read. ``bpf``: one system call for all; ``taskstats``, ``gated``: only what ran since the
        last read; ``tree``: every process' files, any user, any root. ``auto`` picks the best that works, and the next
        best when it stops working.
    proc : root of procfs, or of a fixture tree

    Raises
    ------
    UsageError : `tier` is not one of the known ones
    UnreachableError : this machine does not offer the `tier`
    """

    def __init__(
        self, tier: Literal["auto", "bpf", "taskstats", "gated", "tree"] | str = "auto", proc: str = "/proc"
    ) -> None:
        if tier not in TIERS:
            raise UsageError(f"Processes: tier: expected one of {', '.join(TIERS)}, found {tier!r}; nothing opened")
        self._proc = str(proc)
        self._core = _core.Processes(proc=self._proc, tier=tier)
        if tier != "auto" and (reason := self._core.open()):
            raise UnreachableError(f"Processes: tier {tier!r} is not available: {reason}; nothing opened")

    def read(self) -> dict[str, NDArray[Any]]:
        """Read every process once; the GIL is released.

        Returns
        -------
        dict of arrays of shape (n_processes,), ascending by ``pid``. A process is (``pid``, ``start_time_ns``).
        ``pid ppid threads nice last_cpu`` int32; ``start_time_ns`` int64, since boot; ``uid`` int64, -1 = not readable;
        ``cgroup_id`` int64, inode in the v2 tree, -1 = not observed (all tiers but ``bpf``);
        ``name`` S64 and ``state`` S1, raw bytes: names are untrusted, decode with ``errors="backslashreplace"``;
        float64 in base units, NaN = not observed: ``cpu_user_s cpu_system_s cpu_utilization rss_bytes virtual_bytes
        shared_bytes minor_faults major_faults read_bytes write_bytes read_chars write_chars voluntary_switches
        involuntary_switches run_delay_s rss_anon_bytes rss_file_bytes rss_shmem_bytes swap_bytes``; ``valid`` uint32
        bits (1 stat, 2 memory, 4 io, 8 status, 16 schedule, 32 utilization, 64 memory by kind, 128 cgroup);
        ``tier``, the way the table was read, read-only. ``cpu_utilization`` is NaN the first time a process is seen.
        Switches and run delay are those of all threads in tier ``bpf``, of the main thread in the others. The arrays of
        one read share their memory, which is the caller's until the last of them is gone: copy one that is kept long.

        Raises
        ------
        UnreachableError : the proc root cannot be listed
        """
        columns: dict[str, NDArray[Any]] | str = self._core.read()
        if isinstance(columns, str):
            raise UnreachableError(
                f"Processes: {self._proc}: expected a directory of processes, could not list it ({columns}); nothing "
                "read. Mount procfs, or name another root with proc="
            )
        return columns

    @property
    def tier(self) -> str:
        """The tier in use; empty before the first read."""
        return str(self._core.tier())

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Every tier, best first, and for those that this machine does not offer the reason with its fix."""
        return tuple(Tier(*item) for item in self._core.tiers())

    @property
    def counts(self) -> dict[str, int]:
        """Of the last read: processes ``vanished``, ``unreadable``, ``malformed``, and rows ``gated`` (proved idle)."""
        return dict(self._core.counts())
