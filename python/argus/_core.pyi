"""
The C++ core of Argus. Private: use the argus package.
"""

from __future__ import annotations

import collections.abc
import os
import typing

import numpy
import numpy.typing

__all__: list[str] = [
    "EVENT_TIME",
    "HOST_KILL",
    "HOST_LOCKDOWN",
    "NARROWER",
    "PROCESS_COLUMNS",
    "REJECT_REASONS",
    "Bank",
    "Engine",
    "EpochWord",
    "EpochWordError",
    "EventPlane",
    "Exposition",
    "Host",
    "OtlpDecoder",
    "Processes",
    "catalog",
    "constraint_catalog",
    "decode_events",
    "instruction_set",
    "otlp_fate",
]

class Host:
    def __init__(self, proc: str, sys: str, cgroup: str) -> None: ...
    def missing(self) -> list[str]: ...
    def read(self) -> tuple[typing.Any, ...]: ...

class Processes:
    def __init__(self, proc: str, tier: str) -> None: ...
    def open(self) -> str: ...
    def scan(self) -> int: ...
    def tier(self) -> str: ...
    def tiers(self) -> list[tuple[str, bool, str]]: ...
    def counts(self) -> dict[str, typing.Any]: ...
    def read(self) -> typing.Any: ...

class Bank:
    """
    All detectors over the series of one scope.
    """
    def __init__(
        self,
        series: typing.SupportsInt | typing.SupportsIndex,
        *,
        false_alarms_per_day: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        entity: bool = True,
        speaks: bool = True,
    ) -> None: ...
    @typing.overload
    def run(
        self,
        values: numpy.typing.NDArray[numpy.float32],
        times_ns: numpy.typing.NDArray[numpy.int64],
        *,
        bits: numpy.typing.NDArray[numpy.float32] | None = None,
        alarm_bits: numpy.typing.NDArray[numpy.float32] | None = None,
        expected: numpy.typing.NDArray[numpy.float64] | None = None,
        lower: numpy.typing.NDArray[numpy.float64] | None = None,
        upper: numpy.typing.NDArray[numpy.float64] | None = None,
        entity_bits: numpy.typing.NDArray[numpy.float32] | None = None,
        entity_parts: numpy.typing.NDArray[numpy.float32] | None = None,
        parts: list[numpy.typing.NDArray[numpy.float32]] = [],
    ) -> list[typing.Any]: ...
    @typing.overload
    def run(
        self,
        values: numpy.typing.NDArray[numpy.float64],
        times_ns: numpy.typing.NDArray[numpy.int64],
        *,
        bits: numpy.typing.NDArray[numpy.float32] | None = None,
        alarm_bits: numpy.typing.NDArray[numpy.float32] | None = None,
        expected: numpy.typing.NDArray[numpy.float64] | None = None,
        lower: numpy.typing.NDArray[numpy.float64] | None = None,
        upper: numpy.typing.NDArray[numpy.float64] | None = None,
        entity_bits: numpy.typing.NDArray[numpy.float32] | None = None,
        entity_parts: numpy.typing.NDArray[numpy.float32] | None = None,
        parts: list[numpy.typing.NDArray[numpy.float32]] = [],
    ) -> list[typing.Any]: ...
    @property
    def channels(self) -> list[str]: ...
    @property
    def drivers(self) -> list[typing.Any]: ...
    @property
    def infinities(self) -> int: ...
    def budget(self) -> dict[str, typing.Any]: ...
    def join(
        self, arg0: typing.SupportsInt | typing.SupportsIndex, arg1: typing.SupportsInt | typing.SupportsIndex
    ) -> None: ...

class EventPlane:
    """
    Frames of agent events in, judged anomalies out.
    """
    def __init__(
        self,
        prices: dict[str, typing.Any] = {},
        default_caps: dict[str, typing.Any] = {},
        criteria: dict[str, typing.Any] = {},
        constraints: collections.abc.Sequence[dict[str, typing.Any]] = [],
    ) -> None: ...
    def bind_session(self, arg0: str, arg1: str) -> int: ...
    def finish(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> list[typing.Any]: ...
    def ingest(
        self,
        frame: bytes,
        credential: typing.SupportsInt | typing.SupportsIndex = 0,
        require_seq: bool = False,
        now: typing.SupportsInt | typing.SupportsIndex | None = None,
    ) -> dict[str, typing.Any]:
        """
        One frame; `now` in wall-clock ns, None = event time.
        """
    def load(self, arg0: bytes) -> None: ...
    def quarantine(self) -> list[typing.Any]: ...
    def release(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def save(self) -> bytes: ...
    def series(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]: ...
    def set_cap(
        self, kind: str, tenant: str, id: str, cap_nusd: typing.SupportsInt | typing.SupportsIndex, strict: bool = False
    ) -> None: ...
    def sources(self) -> list[typing.Any]: ...
    def spend(self, arg0: str, arg1: str, arg2: str) -> dict[str, typing.Any]: ...
    def tick(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> list[typing.Any]: ...
    def totals(self) -> dict[str, typing.Any]: ...

class EpochWordError(OSError):
    pass

class EpochWord:
    """
    The 64 mapped bytes of control/epoch: state bits, epoch, heartbeat.
    """
    def __init__(self, path: os.PathLike[str] | str | bytes, create: bool = True) -> None: ...
    def bump(self) -> int:
        """
        Start a new epoch with the same bits; returns it.
        """
    def heartbeat(self) -> None:
        """
        Store CLOCK_MONOTONIC now, in nanoseconds.
        """
    def load(self) -> tuple[int, int, int]:
        """
        (bits, epoch, heartbeat_ns); heartbeat_ns 0 = there never was one.
        """
    def raise_bits(self, bits: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Set these bits, leave the others, start a new epoch; returns it.
        """
    def replace_bits(self, bits: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Make these bits the whole state and start a new epoch; returns it.
        """
    def replace_bits_if(
        self, bits: typing.SupportsInt | typing.SupportsIndex, expected_epoch: typing.SupportsInt | typing.SupportsIndex
    ) -> int | None:
        """
        The same, only while the epoch still is `expected_epoch`; returns the new epoch, or None.
        """

class Engine:
    def __init__(
        self,
        *,
        proc: str,
        sys: str,
        cgroup: str,
        host_plane: bool,
        sources: collections.abc.Sequence[
            tuple[
                str,
                bool,
                typing.SupportsInt | typing.SupportsIndex,
                collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
                collections.abc.Sequence[str],
            ]
        ],
        processes: tuple[bool, typing.SupportsInt | typing.SupportsIndex, str],
        window_ms: typing.SupportsInt | typing.SupportsIndex,
        bursts: tuple[
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsFloat | typing.SupportsIndex,
        ],
        detectors: collections.abc.Sequence[
            tuple[str, bool, collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]]
        ],
        named: collections.abc.Mapping[str, collections.abc.Sequence[str]],
        auditors: collections.abc.Sequence[
            tuple[str, bool, collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]]
        ],
        criteria: collections.abc.Sequence[
            tuple[str, bool, collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]]
        ],
        constraints: collections.abc.Sequence[dict[str, typing.Any]],
        caps_nusd: collections.abc.Mapping[str, typing.SupportsInt | typing.SupportsIndex],
        caps_strict: bool,
        prices: collections.abc.Sequence[
            tuple[
                str,
                typing.SupportsInt | typing.SupportsIndex | None,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
            ]
        ],
        false_alarms_per_day: typing.SupportsFloat | typing.SupportsIndex,
        history_rows: typing.SupportsInt | typing.SupportsIndex,
        guard_every_session: bool,
    ) -> None: ...
    def attach_control(self, arg0: str) -> None: ...
    def bind_session(self, arg0: str, arg1: str) -> int: ...
    def budget(self) -> dict[str, typing.Any]: ...
    def budget_totals(self) -> dict[str, typing.Any]: ...
    def burst(self) -> None: ...
    def claims(self) -> dict[str, typing.Any]: ...
    def confirm(self, arg0: str, arg1: bool) -> bool: ...
    def end_session(
        self,
        arg0: str,
        arg1: typing.SupportsInt | typing.SupportsIndex,
        arg2: typing.SupportsInt | typing.SupportsIndex,
        arg3: bool,
        arg4: typing.SupportsInt | typing.SupportsIndex,
    ) -> list[typing.Any]: ...
    def entity(self) -> dict[str, typing.Any]: ...
    def finish(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> list[typing.Any]: ...
    def history(self, arg0: str) -> typing.Any: ...
    def ingest(
        self,
        arg0: bytes,
        arg1: typing.SupportsInt | typing.SupportsIndex,
        arg2: bool,
        arg3: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple[int, dict[str, typing.Any], list[typing.Any]]: ...
    def latest(self) -> dict[str, typing.Any]: ...
    def learn_from(self, arg0: bytes) -> None: ...
    def learned(self) -> bytes: ...
    def process_groups(self, arg0: str) -> dict[str, typing.Any]: ...
    def process_keys(self, arg0: str) -> list[typing.Any]: ...
    def processes(self) -> dict[str, typing.Any]: ...
    def quarantine(self) -> list[typing.Any]: ...
    def release_session(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def release_stop(self, arg0: str, arg1: str, arg2: str) -> None: ...
    def restore(self, arg0: bytes) -> None: ...
    def set_agents(
        self,
        arg0: collections.abc.Sequence[
            tuple[str, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, bool]
        ],
    ) -> int: ...
    def set_cap(
        self, arg0: str, arg1: str, arg2: str, arg3: typing.SupportsInt | typing.SupportsIndex, arg4: bool
    ) -> None: ...
    def set_enforce(self, arg0: bool) -> None: ...
    def set_guarded(self, arg0: collections.abc.Sequence[tuple[str, str]]) -> None: ...
    def snapshot(self) -> bytes: ...
    def spend(self, arg0: str, arg1: str, arg2: str) -> dict[str, typing.Any]: ...
    def start(self) -> None: ...
    def statistics(self) -> dict[str, typing.Any]: ...
    def step(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> list[typing.Any]: ...
    def stop(self) -> None: ...
    def suspend(self, arg0: collections.abc.Sequence[tuple[str, bool]]) -> None: ...
    def suspended(self) -> int: ...
    def take_decisions(self) -> list[typing.Any]: ...
    def top_processes(self, arg0: str, arg1: typing.SupportsInt | typing.SupportsIndex) -> typing.Any: ...

class Columns:
    """
    One detector of the catalogue over arrays.
    """
    def __init__(
        self,
        arg0: str,
        arg1: typing.SupportsInt | typing.SupportsIndex,
        arg2: typing.SupportsInt | typing.SupportsIndex,
        arg3: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    ) -> None: ...
    @property
    def channels(self) -> list[str]: ...
    def load(self, arg0: bytes) -> None: ...
    def reset(self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> None: ...
    def run(
        self,
        values: numpy.typing.NDArray[numpy.float32],
        exposure: numpy.typing.NDArray[numpy.float32] | None,
        learn: numpy.typing.NDArray[numpy.uint8] | None,
        interval_s: typing.SupportsFloat | typing.SupportsIndex,
        out: numpy.typing.NDArray[numpy.float32],
    ) -> None: ...
    def save(self) -> bytes: ...

class LightBank:
    """
    The lightest tier: residual, shift and silence of many series.
    """
    def __init__(
        self, arg0: typing.SupportsInt | typing.SupportsIndex, arg1: typing.SupportsFloat | typing.SupportsIndex
    ) -> None: ...
    def run(
        self,
        values: numpy.typing.NDArray[numpy.float32] | numpy.typing.NDArray[numpy.float64],
        interval_s: typing.SupportsFloat | typing.SupportsIndex,
        *,
        bits: numpy.typing.NDArray[numpy.float32] | None = None,
    ) -> list[typing.Any]: ...

class Exposition:
    def __init__(
        self,
        *,
        node_exporter_names: bool,
        own: collections.abc.Sequence[tuple[str, str, str, collections.abc.Sequence[tuple[str, str]]],],
    ) -> None: ...
    def publish(
        self,
        engine: Engine,
        own: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    ) -> None: ...
    def render(self, *, openmetrics: bool) -> bytes: ...
    @property
    def version(self) -> int: ...

def catalog() -> dict[str, typing.Any]: ...
def constraint_catalog() -> dict[str, typing.Any]: ...
def decode_events(frame: bytes, require_seq: bool = False) -> list[typing.Any]:
    """
    The events of one frame as dicts; a refused one as (reason, detail).
    """

def instruction_set() -> str: ...

EVENT_TIME: int = -9223372036854775808
HOST_KILL: int = 1
HOST_LOCKDOWN: int = 2
NARROWER: int = 4
PROCESS_COLUMNS: dict[str, typing.Any] = {
    "cpu_user_s": ("s", "processor time in user mode since start, all threads"),
    "cpu_system_s": ("s", "processor time in kernel mode since start, all threads"),
    "cpu_utilization": ("1", "processors used since the previous read; NaN at first sight"),
    "rss_bytes": ("By", "resident memory; tier bpf: as of the processors' last handing over, a few hundred KiB each"),
    "virtual_bytes": ("By", "address space"),
    "shared_bytes": ("By", "resident memory backed by files or shared memory"),
    "minor_faults": ("{fault}", "page faults served without reading a disk"),
    "major_faults": ("{fault}", "page faults that read a disk"),
    "read_bytes": ("By", "bytes read from storage"),
    "write_bytes": ("By", "bytes written to storage"),
    "read_chars": ("By", "bytes read by system calls, also from caches and pipes"),
    "write_chars": ("By", "bytes written by system calls"),
    "voluntary_switches": (
        "{switch}",
        "context switches that gave the processor up: of all threads in tier bpf, of the main thread in the others",
    ),
    "involuntary_switches": (
        "{switch}",
        "context switches by preemption: of all threads in tier bpf, of the main thread in the others",
    ),
    "run_delay_s": (
        "s",
        "time ready and waiting for a processor: of all live threads in tier bpf, of the main thread in the others",
    ),
    "rss_anon_bytes": ("By", "resident memory that no file backs"),
    "rss_file_bytes": ("By", "resident memory of mapped files"),
    "rss_shmem_bytes": ("By", "resident shared memory"),
    "swap_bytes": ("By", "memory swapped out"),
}
REJECT_REASONS: tuple[typing.Any, ...] = (
    "malformed",
    "too_deep",
    "over_limit",
    "missing_key",
    "wrong_type",
    "duplicate_key",
    "non_finite",
    "bad_utf8",
    "extension_type",
    "unsupported_version",
    "forged_scope",
)

def otlp_fate(attribute: str) -> str:
    """
    What becomes of an attribute: the key it fills, "attrs", "content", or "" when no table names it.
    """

class OtlpDecoder:
    """
    OTLP bodies as msgpack frames of schema v1.
    """

    def __init__(self, *, tenant_attribute: str, tolerance_ns: int) -> None: ...
    def map(self, body: bytes, *, logs: bool, binary: bool) -> dict[str, typing.Any]:
        """
        Frames of one request and what was left out; `failure` is (reason, words), empty when it is one.
        """
