"""What Argus can and cannot see on this machine, each gap with its fix.

Every check is one `Finding`; a check that fails in a way nobody foresaw is a finding too, never a crash. Nothing is
changed: no lock is taken, no socket bound, no file written, and nothing needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import ipaddress
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from argus.config import Config, SourceSettings, read_catalogue
from argus.guard import start_time_ns
from argus.schema import StopKind

_GIB: Final = 2**30
_ESSENTIAL: Final = frozenset({"cpu", "memory", "pressure", "network"})  # sources that any Linux host can feed
_IO_VALID: Final = 4  # bit of the process table's `valid` column
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "lustre", "ocfs2", "gfs2"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs"}
)
_CAPABILITIES: Final = {19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised


class State(StrEnum):
    """How much of a thing is there."""

    OK = "ok"
    PARTIAL = "partial"
    MISSING = "missing"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a check: `seen` of `total` things it looked for are there; `fix` says what would close the gap."""

    what: str
    state: State
    detail: str
    fix: str = ""
    seen: int = 0
    total: int = 1

    def __str__(self) -> str:
        fix = f" -> {self.fix}" if self.fix else ""
        return f"{self.state:<7}  {self.what:<20}  {self.detail}{fix}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, with what they cover: `seen` of `total` things that Argus looks for."""

    findings: list[Finding]

    @property
    def seen(self) -> int:
        """Things found, over all checks."""
        return sum(finding.seen for finding in self.findings)

    @property
    def total(self) -> int:
        """Things looked for, over all checks."""
        return sum(finding.total for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing altogether."""
        return all(finding.state is not State.MISSING for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0, or 1 when something is missing altogether."""
        return int(not self.ok)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "coverage": {"seen": self.seen, "total": self.total},
            "findings": [msgspec.to_builtins(finding) for finding in self.findings],
        }

    def render(self) -> str:
        """Plain text, one line a check, the coverage last."""
        counts = ", ".join(f"{sum(f.state is state for f in self.findings)} {state}" for state in State)
        share = 100 * self.seen / self.total if self.total else 0.0
        return "\n".join(
            [*map(str, self.findings), f"coverage {self.seen} of {self.total} ({share:.0f} %); checks: {counts}"]
        )


def examine(config: Config, *, catalog: Mapping[str, Any] | None = None) -> Report:
    """Look at this machine as the collector with this configuration would.

    Parameters
    ----------
    config : roots, endpoints and folders that are looked at
    catalog : what `_core.catalog()` gives; None = that of the core in use

    Returns
    -------
    Report; one finding a check, also for a check that failed
    """
    checks: list[tuple[str, Callable[[Config], Iterable[Finding]]]] = [
        ("core", _core),
        ("sources", partial(_sources, catalog)),
        ("processes", _processes),
        ("proc mount", _proc_mount),
        ("kernel", _kernel),
        ("capabilities", _capabilities),
        ("clock", _clock),
        ("inlets", _inlets),
        ("outlets", _outlets),
        ("control directory", _control),
        ("guards", _guards),
        ("journal", _journal),
        ("disk", _disk),
    ]
    return Report(findings=[finding for what, check in checks for finding in _careful(what, check, config)])


def _careful(what: str, check: Callable[[Config], Iterable[Finding]], config: Config) -> list[Finding]:
    """The findings of a check, up to where it failed."""
    found: list[Finding] = []
    try:
        found.extend(check(config))
    except Exception as error:  # the doctor's work is to say what does not work here
        reason = f"{type(error).__name__}: {_printable(str(error))[:300]}"
        found.append(_missing(what, f"the check itself failed: {reason}", "report this line"))
    return found


def _ok(what: str, detail: str, *, seen: int = 1, total: int = 1) -> Finding:
    return Finding(what=what, state=State.OK, detail=detail, seen=seen, total=total)


def _partial(what: str, detail: str, fix: str, *, seen: int = 0, total: int = 1) -> Finding:
    return Finding(what=what, state=State.PARTIAL, detail=detail, fix=fix, seen=seen, total=total)


def _missing(what: str, detail: str, fix: str, *, total: int = 1) -> Finding:
    return Finding(what=what, state=State.MISSING, detail=detail, fix=fix, total=total)


def _printable(text: str) -> str:
    """Names of processes and files are anybody's text: no control characters reach a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _read(path: Path) -> str:
    return path.read_text(errors="replace")


# --- The core and what it reads --------------------------------------------------------------------------------------


def _core(_: Config) -> Iterator[Finding]:
    from argus.engine.core import instruction_set  # loads the compiled module: a failure becomes the finding

    wide = {"v4": "AVX-512", "v3": "AVX2"}
    level = instruction_set()
    yield _ok("core", f"loaded; kernels run for {level} ({wide.get(level, 'any ' + os.uname().machine)})")


def _sources(catalog: Mapping[str, Any] | None, config: Config) -> Iterator[Finding]:
    from argus.engine.host import Host

    host = Host(config.host.proc, config.host.sys, config.host.cgroup or None)
    sample = host.read()
    gaps = {line.partition(":")[0]: line.partition(":")[2].strip() for line in host.missing}
    entries = read_catalogue(catalog).sources
    seen = [e for e in entries if e.name not in gaps and config.sources.get(e.name, SourceSettings()).enabled]
    yield _count("metric groups", len(seen), len(entries), "sources of the catalogue are read", "see the sources below")
    observed = sum(1 for value in sample.values if value == value)
    yield _count("host series", observed, len(sample.names), "values read", "see the sources below")
    for entry in entries:
        what = f"source {entry.name}"
        settings = config.sources.get(entry.name)
        if settings is not None and not settings.enabled:
            yield _partial(what, "switched off by the configuration", f"set sources.{entry.name}.enabled = true")
        elif entry.name in gaps:
            # Not every machine has sensors or a GPU; without a processor's or memory's numbers there is no host plane.
            lacking = _missing if entry.name in _ESSENTIAL else _partial
            yield lacking(
                what,
                _printable(gaps[entry.name].removesuffix(f"; {entry.fix}")),
                entry.fix or f"needs {entry.requires}",
            )
        elif entry.name == "perf" and sample.as_dict().get("system.perf.events{perf.type=hardware}") == 0:
            fix = "run where the processor's counters are shown to the machine: few virtual ones do"
            yield _partial(what, "software events only: there is no PMU", fix)
        else:
            yield _ok(what, f"read every {settings.interval_ms if settings else entry.interval_ms} ms")


def _count(what: str, seen: int, total: int, noun: str, fix: str) -> Finding:
    """A share: all = ok, some = partial, none = missing."""
    detail = f"{seen} of {total} {noun}"
    if seen == total and total:
        return _ok(what, detail, seen=seen, total=total)
    if seen:
        return _partial(what, detail, fix, seen=seen, total=total)
    return _missing(what, detail, fix, total=max(total, 1))


def _processes(config: Config) -> Iterator[Finding]:
    from argus.engine.host import Processes

    if not config.processes.enabled:
        yield _partial("processes", "switched off by the configuration", "set processes.enabled = true")
        return
    processes = Processes(tier=config.processes.tier, proc=config.host.proc)
    table = processes.read()
    pids = len(table["pid"])
    tier = str(table["tier"][0]) if pids else "none"
    readable = sum(1 for bits in table["valid"].tolist() if bits & _IO_VALID)
    yield _count("processes", pids, pids, f"rows read by tier '{tier}'", "mount procfs at host.proc")
    if config.host.proc == "/proc" and config.processes.tier == "auto":
        names = [found.name for found in processes.tiers]
        better = [found for found in processes.tiers[: names.index(tier)] if not found.available]
        yield _tier(tier, [(found.name, found.reason) for found in better])
    fix = "run the collector as root or with CAP_SYS_PTRACE to read the I/O of other users' processes"
    yield _count("process I/O", readable, pids, "processes show their I/O", fix)


def _tier(tier: str, better: list[tuple[str, str]]) -> Finding:
    """Whether the process table is read in the best way there is."""
    if not better:
        return _ok("process tier", f"'{tier}', the best there is")
    parts = [(name, *reason.partition("; ")) for name, reason in better]
    why = ", ".join(f"'{name}' is not available ({cause})" for name, cause, _, _ in parts)
    return _partial("process tier", f"'{tier}' works, dearer: {why}", parts[0][3])


def _proc_mount(config: Config) -> Iterator[Finding]:
    mount = _mount_of(Path(config.host.proc))
    if mount is None or mount.kind != "proc":
        yield _ok("proc mount", f"{config.host.proc} is no procfs mount: read as a recorded tree")
        return
    limits = [option for option in mount.options if option.startswith(("hidepid=", "subset="))]
    if any(option not in ("hidepid=0", "hidepid=off") for option in limits):
        fix = "mount -o remount,hidepid=0 /proc, or run the collector in the group that gid= names"
        yield _partial("proc mount", f"{', '.join(limits)}: processes of other users are hidden", fix)
    else:
        yield _ok("proc mount", "shows the processes of all users")


def _kernel(config: Config) -> Iterator[Finding]:
    proc = Path(config.host.proc)
    try:
        lines = len(_read(proc / "pressure/cpu").splitlines())
        yield _ok("kernel pressure", f"pressure stall information, {lines} lines for cpu")
    except OSError as error:
        fix = "boot a kernel >= 4.20 with CONFIG_PSI and psi=1"
        yield _missing("kernel pressure", f"pressure/cpu cannot be read ({error.strerror})", fix)
    yield _cgroup(config)
    if (Path(config.host.sys) / "kernel/btf/vmlinux").exists():
        yield _ok("kernel BTF", "type information is there")
    else:
        yield _partial(
            "kernel BTF", "kernel/btf/vmlinux is absent: no BPF tier", "a kernel with CONFIG_DEBUG_INFO_BTF=y"
        )
    yield _perf(proc)


def _cgroup(config: Config) -> Finding:
    what = "kernel cgroup"
    root = config.host.cgroup
    if root:
        version = 2 if (Path(root) / "cgroup.controllers").exists() else 1
    else:
        kinds = {mount.kind for mount in _mounts()}
        version = 2 if "cgroup2" in kinds else 1 if "cgroup" in kinds else 0
    if version == 2:
        return _ok(what, f"version 2 at {root or 'the mounted root'}")
    if version == 1:
        fix = "boot with systemd.unified_cgroup_hierarchy=1"
        return _partial(what, "version 1 only: no pressure and no events of a group", fix)
    return _missing(what, "no cgroup file system is mounted", "mount -t cgroup2 none /sys/fs/cgroup")


def _perf(proc: Path) -> Finding:
    try:
        level = int(_read(proc / "sys/kernel/perf_event_paranoid"))
    except (OSError, ValueError):
        return _missing(
            "kernel perf", "no perf_event_paranoid: no hardware counters", "a kernel with CONFIG_PERF_EVENTS"
        )
    if level <= 0 or _effective() & (1 << 38 | 1 << 21):
        return _ok("kernel perf", f"perf_event_paranoid = {level}: counters of the whole machine may be opened")
    fix = "sysctl kernel.perf_event_paranoid=0, or CAP_PERFMON"
    return _partial("kernel perf", f"perf_event_paranoid = {level}: no counters of the whole machine", fix)


def _effective() -> int:
    """Effective capabilities of this process, as bits."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", _read(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1], 16) if found else 0


def _capabilities(_: Config) -> Iterator[Finding]:
    bits = _effective()
    held = [name for bit, name in _CAPABILITIES.items() if bits >> bit & 1]
    lacking = [name for bit, name in _CAPABILITIES.items() if not bits >> bit & 1 and name != "CAP_SYS_ADMIN"]
    total = len(_CAPABILITIES) - 1
    if "CAP_SYS_ADMIN" in held and "CAP_SYS_PTRACE" in held:
        lacking = []  # it includes CAP_PERFMON and CAP_BPF
    if not lacking:
        yield _ok("capabilities", ", ".join(held), seen=total, total=total)
        return
    fix = f"grant {' '.join(lacking)} to the collector (AmbientCapabilities= of its unit) for the cheaper tiers"
    detail = f"{', '.join(held) or 'none'} of {', '.join(_CAPABILITIES.values())}"
    yield _partial("capabilities", detail, fix, seen=total - len(lacking), total=total)


def _clock(config: Config) -> Iterator[Finding]:
    path = Path(config.host.sys) / "devices/system/clocksource/clocksource0/current_clocksource"
    try:
        source = _printable(_read(path).strip())
    except OSError:
        source = "unknown"
    if source in ("hpet", "acpi_pm", "jiffies"):
        yield _partial(
            "clock source", f"{source}: each reading costs microseconds", "find in dmesg why tsc was refused"
        )
    else:
        yield _ok("clock source", source)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.create_string_buffer(512)) == _TIME_ERROR:  # modes = 0 only reads
        yield _partial("clock synchronised", "the kernel says it is not", "run chrony or systemd-timesyncd")
    else:
        yield _ok("clock synchronised", "the kernel says so")


# --- Sockets ---------------------------------------------------------------------------------------------------------


def _inlets(config: Config) -> Iterator[Finding]:
    inlets = config.inlets
    owner = _lock_owner(config)
    for name, endpoint in (("inlet pull", inlets.pull), ("inlet ipc", inlets.ipc)):
        if endpoint:
            yield _endpoint(name, endpoint, owner, f"set inlets.{name.split()[1]} to another one")
    for endpoint in inlets.sub:
        yield _ok("inlet sub", f"connects to {_printable(endpoint)} whenever it is there")
    for name in inlets.jsonl:
        if os.access(name, os.R_OK):
            yield _ok("inlet jsonl", f"{_printable(name)} can be read")
        else:
            yield _missing(
                "inlet jsonl", f"{_printable(name)} cannot be read", "create it, or let the collector read it"
            )
    if inlets.otlp.enabled:
        yield _ok("inlet otlp", "takes JSON and protobuf")
        if inlets.otlp.grpc_endpoint and importlib.util.find_spec("grpc") is None:
            yield _missing("inlet otlp grpc", "grpcio is not installed", "install argus-auditor[otlp-grpc]")
    if not (inlets.pull or inlets.ipc or inlets.sub or inlets.jsonl or inlets.stdin or inlets.otlp.enabled):
        yield _missing("inlets", "all closed: no agent is audited", "set inlets.pull or inlets.ipc")


def _outlets(config: Config) -> Iterator[Finding]:
    owner = _lock_owner(config)
    zmq = config.outlets.zmq
    for name, endpoint in (("endpoint", zmq.endpoint), ("replay_endpoint", zmq.replay_endpoint)):
        if endpoint:
            yield _endpoint(f"outlet {name.replace('_endpoint', '')}", endpoint, owner, f"set outlets.zmq.{name}")
    web = config.outlets.prometheus
    if web.enabled and web.endpoint:
        yield _endpoint("outlet prometheus", f"tcp://{web.endpoint}", owner, "set outlets.prometheus.endpoint")


def _endpoint(what: str, endpoint: str, owner: int | None, fix: str) -> Finding:
    shown = _printable(endpoint)
    if endpoint.startswith("tcp://"):
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        inode = _listening(host.strip("[]"), int(port))
        if inode is None:
            return _ok(what, f"{shown} is free")
        return _taken(what, shown, _holder(inode), owner, fix)
    if endpoint.startswith("ipc://"):
        path = Path(endpoint.removeprefix("ipc://"))
        inode = _bound_socket(path)
        if inode is not None:
            return _taken(what, shown, _holder(inode), owner, fix)
        folder = _existing(path.parent)
        if not os.access(folder, os.W_OK | os.X_OK):
            return _missing(what, f"{shown}: {folder} cannot be written", "let the collector own that folder")
        return _ok(what, f"{shown} is free")
    return _ok(what, f"{shown} is inside the process")


def _taken(what: str, endpoint: str, holder: tuple[int, str] | None, owner: int | None, fix: str) -> Finding:
    if holder is None:
        return _partial(what, f"{endpoint} is in use, by whom cannot be read here", f"run as its user, or {fix}")
    pid, name = holder
    if pid == owner or name.startswith("argus"):
        return _ok(what, f"{endpoint} is held by the running collector (pid {pid})")
    return _missing(what, f"{endpoint} is in use by pid {pid} ({_printable(name)})", fix)


def _listening(host: str, port: int) -> str | None:
    """Inode of the socket that listens where a bind to this host and port would collide; None = free."""
    for table, loopback in (("tcp", "127.0.0.1"), ("tcp6", "::1")):
        try:
            rows = _read(Path("/proc/self/net") / table).splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == "0A" and int(number, 16) == port:
                bound = _address(address)
                wanted = loopback if host == "localhost" else host
                if bound.is_unspecified or wanted in ("*", "0.0.0.0", "::") or str(bound) == wanted:
                    return fields[9]
    return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of /proc/net/tcp{,6}: 32-bit words, each in the machine's byte order."""
    words = [int(text[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(words))


def _bound_socket(path: Path) -> str | None:
    """Inode of the socket that is bound to a path, by /proc/net/unix; None = nobody listens there."""
    names = {str(path), str(path.absolute())}
    try:
        rows = _read(Path("/proc/self/net/unix")).splitlines()[1:]
    except OSError:
        return None
    for row in rows:
        fields = row.split(maxsplit=7)
        if len(fields) == 8 and fields[7] in names and path.exists():
            return fields[6]
    return None


def _holder(inode: str) -> tuple[int, str] | None:
    """(pid, name) of a process that has a socket open."""
    target = f"socket:[{inode}]"
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and target in _links(folder / "fd"):
            words = [Path(word).name for word in _cmdline(folder).split("\0")[:2] if word]
            return int(folder.name), next((w for w in words if w.startswith("argus")), (words or ["?"])[0])
    return None


def _links(folder: Path) -> Iterator[str]:
    """Where the open files of a process lead; both it and they may vanish meanwhile."""
    try:
        links = list(folder.iterdir())
    except OSError:
        return
    for link in links:
        with contextlib.suppress(OSError):
            yield str(link.readlink())


def _cmdline(folder: Path) -> str:
    try:
        return _read(folder / "cmdline")
    except OSError:
        return ""


# --- Folders ---------------------------------------------------------------------------------------------------------


class _Mount(msgspec.Struct, frozen=True):
    point: str
    kind: str
    options: list[str]


def _mounts() -> list[_Mount]:
    """What is mounted here, from mountinfo; spaces come as \\040."""
    found = []
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(), right.split()
        if len(fields) >= 6 and len(rest) >= 3:
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            found.append(_Mount(point, rest[0], [*fields[5].split(","), *rest[2].split(",")]))
    return found


def _mount_of(path: Path) -> _Mount | None:
    """The mount that a path lies on: the last of the longest."""
    real = path.resolve()
    best = None
    for mount in _mounts():
        point = Path(mount.point)
        if (real == point or point in real.parents) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _lock_owner(config: Config) -> int | None:
    """Pid that holds control/lock, by /proc/locks: asking the lock itself could disturb a collector that starts."""
    try:
        inode = (config.control / "lock").stat().st_ino
        locks = _read(Path("/proc/locks"))
    except OSError:
        return None
    found = re.search(rf"^\d+: \S+\s+\S+\s+\S+\s+(\d+)\s+\S+:{inode}\s", locks, re.MULTILINE)
    return int(found[1]) if found else None


def _control(config: Config) -> Iterator[Finding]:
    what, folder = "control directory", config.control
    if not folder.exists():
        above = _existing(folder)
        if os.access(above, os.W_OK | os.X_OK):
            yield _ok(what, f"{folder} is made at the first start")
        else:
            yield _missing(
                what, f"{folder}: {above} cannot be written", "let the collector own it, or set ARGUS_CONTROL"
            )
        return
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    faults = []
    if folder.is_symlink():
        faults.append("is a symbolic link")
    if not folder.is_dir():
        faults.append("is no folder")
    if mode & 0o022:
        faults.append(f"mode {mode:04o}: others may forge or remove flags")
    if status.st_uid not in (0, os.geteuid()):
        faults.append(f"belongs to uid {status.st_uid}, this is uid {os.geteuid()}")
    if not os.access(folder, os.W_OK | os.X_OK):
        faults.append("cannot be written")
    mount = _mount_of(folder)
    if mount is not None and mount.kind in _NETWORK_FILE_SYSTEMS:
        faults.append(f"lies on {mount.kind}: a stop would depend on the network")
    owner = _lock_owner(config)
    held = f"owned by the collector with pid {owner}" if owner else "no collector owns it now"
    if faults:
        fix = f"chown to the collector's user, chmod 0755, a local file system ({folder})"
        yield _partial(what, f"{folder} {'; '.join(faults)}; {held}", fix)
    else:
        yield _ok(what, f"{folder}, uid {status.st_uid}, mode {mode:04o}, {mount.kind if mount else 'unknown'}; {held}")
    for kind in StopKind:
        flag = folder / f"{kind}.flag"
        if os.path.lexists(flag):
            yield _partial(f"flag {kind}", f"{flag} is set: agents here are stopped", "argus status, then argus reset")


def _guards(config: Config) -> Iterator[Finding]:
    folder = config.control / "guards"
    try:
        announced = [_announced(path) for path in folder.glob("[!.]*.json")] if folder.is_dir() else []
    except OSError as error:
        yield _missing("guards", f"{folder}: {error.strerror}", "let this user read the control directory")
        return
    live = sum(announced)
    stale = f", {len(announced) - live} left behind by processes that are gone" if live < len(announced) else ""
    if live:
        yield _ok("guards", f"{live} announced and alive{stale}")
    else:
        fix = "start agents by 'argus run -- COMMAND', or call argus.guard.attach() in them"
        yield _partial("guards", f"none announced: a stop has no reader yet{stale}", fix)


def _announced(path: Path) -> bool:
    """Whether the process that announced itself there lives."""
    try:
        told = msgspec.json.decode(path.read_bytes()[:4096])
        return bool(start_time_ns(int(told["pid"])) == told["start_time"])
    except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
        return False


def _journal(config: Config) -> Iterator[Finding]:
    journal, keys = config.home / "journal.db", config.home / "keys"
    if not journal.exists():
        yield _ok("journal", f"{journal} is made at the first start")
    elif os.access(journal, os.R_OK):
        yield _ok("journal", f"{journal}, {journal.stat().st_size / 2**20:.1f} MiB (argus verify checks it)")
    else:
        yield _missing("journal", f"{journal} cannot be read", "run as the collector's user")
    if not keys.exists():
        yield _ok("keys", f"{keys} is made at the first start")
        return
    mode = stat.S_IMODE(keys.stat().st_mode)
    if mode & 0o077:
        yield _partial("keys", f"{keys} has mode {mode:04o}: others may reach the signing key", f"chmod 0700 {keys}")
    else:
        yield _ok("keys", f"{keys}, mode {mode:04o}")


def _disk(config: Config) -> Iterator[Finding]:
    folder = _existing(config.home)
    usage = shutil.disk_usage(folder)
    files = os.statvfs(folder)
    detail = f"{usage.free / _GIB:.1f} GiB free of {usage.total / _GIB:.1f} at {folder}"
    fix = "free space, or set ARGUS_HOME to another file system"
    if not os.access(folder, os.W_OK | os.X_OK):
        yield _missing("disk", f"{folder} cannot be written", "let the collector own it, or set ARGUS_HOME")
    elif usage.free < _GIB // 10 or (files.f_files and files.f_favail < 100):
        yield _missing("disk", f"{detail}, {files.f_favail} inodes", fix)
    elif usage.free < _GIB:
        yield _partial("disk", detail, fix)
    else:
        yield _ok("disk", detail)
