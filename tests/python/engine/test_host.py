"""argus.Host and argus.Processes on the real machine and on fixture trees."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from argus.engine.core import catalog
from argus.engine.host import Host, HostSample, Processes
from argus.errors import UnreachableError, UsageError

FIXTURES = Path(__file__).parents[2] / "fixtures"
KERNEL = FIXTURES / "6.18"


def by_key(path: Path) -> dict[str, int]:
    """An independent reading of a `key value [kB]` file."""
    out = {}
    for line in path.read_text().splitlines():
        key, value, *unit = line.replace(":", " ").split()
        out[key] = int(value) * (1024 if unit == ["kB"] else 1)
    return out


def record(found: dict[str, list[object]]) -> None:
    """One file a metric family, the first two parts of the name."""
    families: dict[str, dict[str, list[object]]] = {}
    for name, entry in found.items():
        families.setdefault(".".join(name.split("{")[0].split(".")[:2]), {})[name] = entry
    shutil.rmtree(KERNEL / "expected")
    (KERNEL / "expected").mkdir()
    for family, entries in families.items():
        (KERNEL / "expected" / f"{family}.json").write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")


@pytest.fixture(scope="module")
def captured() -> HostSample:
    return Host(proc=str(KERNEL / "proc"), sys=str(KERNEL / "sys")).read()


def test_golden_host_sample(captured: HostSample) -> None:
    """Every name, unit, kind and value of the captured machine is the recorded one."""
    found = {
        name: [unit, kind, value]
        for name, unit, kind, value in zip(
            captured.names, captured.units, captured.kinds, captured.values.tolist(), strict=True
        )
    }
    if os.environ.get("ARGUS_REWRITE") == "1":
        record(found)
    recorded: dict[str, list[object]] = {}
    for path in sorted((KERNEL / "expected").iterdir()):
        recorded |= json.loads(path.read_text())
    assert recorded == found


def test_values_agree_with_an_independent_reading(captured: HostSample) -> None:
    """The recorded values are what the files say, read by other code."""
    values = captured.as_dict()
    meminfo = by_key(KERNEL / "proc/meminfo")
    vmstat = by_key(KERNEL / "proc/vmstat")
    assert values["system.memory.limit"] == meminfo["MemTotal"]
    assert values["system.memory.linux.available"] == meminfo["MemAvailable"]
    assert values["system.memory.usage{system.memory.state=cached}"] == meminfo["Cached"] + meminfo["SReclaimable"]
    assert values["system.memory.linux.dirty"] == meminfo["Dirty"]
    assert values["system.paging.faults{system.paging.type=major}"] == vmstat["pgmajfault"]
    assert values["system.paging.faults{system.paging.type=minor}"] == vmstat["pgfault"] - vmstat["pgmajfault"]
    modes = ["user", "nice", "system", "idle", "iowait", "interrupt", "softirq", "steal", "guest", "guest_nice"]
    for line in (KERNEL / "proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if not name.startswith("cpu"):
            continue
        scope = f"cpu.logical_number={name[3:]}," if name != "cpu" else ""
        for mode, value in zip(modes, ticks, strict=True):
            assert values[f"system.cpu.time{{{scope}cpu.mode={mode}}}"] == int(value) / 100
    for line in (KERNEL / "proc/net/dev").read_text().splitlines()[2:]:
        name, counters = line.split(":")
        label = f"network.interface.name={name.strip()},network.io.direction="
        received, sent = int(counters.split()[0]), int(counters.split()[8])
        assert values[f"system.network.io{{{label}receive}}"] == received
        assert values[f"system.network.io{{{label}transmit}}"] == sent
    disks = {line.split()[2]: [int(word) for word in line.split()[3:]] for line in
             (KERNEL / "proc/diskstats").read_text().splitlines()}  # fmt: skip
    assert values["system.disk.io{disk.io.direction=write,system.device=vda}"] == disks["vda"][6] * 512
    assert values["system.disk.io_time{system.device=vda}"] == disks["vda"][9] / 1000
    assert [name for name in values if "system.device=loop" in name] == []
    node = dict(line.split() for line in (KERNEL / "sys/devices/system/node/node0/numastat").read_text().splitlines())
    assert values["system.numa.local{system.numa.node=0}"] == int(node["local_node"])
    caches = {name.split("cache=")[1][:-1] for name in values if ".slab.cache.usage{" in name}
    rows = [line.split() for line in (KERNEL / "proc/slabinfo").read_text().splitlines()[2:]]
    pages = sorted((-int(row[5]) * int(row[14]), row[0]) for row in rows)
    assert caches == {name for _, name in pages[:20]}
    cpus, *lines = (KERNEL / "proc/interrupts").read_text().splitlines()
    for line in lines:
        name, *fields = line.replace(":", " ", 1).split()
        label = f"interrupt.device={fields[-1]}," if name.isdigit() else ""
        counts = [int(field) for field in fields[: len(cpus.split())] if field.isdigit()]
        assert values[f"system.interrupts{{{label}interrupt.name={name}}}"] == sum(counts)
    allocated, unused, limit = map(int, (KERNEL / "proc/sys/fs/file-nr").read_text().split())
    assert values["system.file_handle.utilization"] == (allocated - unused) / limit


def protocol_name(group: str, key: str) -> str:
    """The naming rule of the kernel's protocol counters, written anew."""
    group = re.sub(r"(ext|msg)$", "", group.lower())
    key = re.sub(rf"^{group}(?=[A-Z])", "", key, flags=re.IGNORECASE) if key[len(group) :][:1].isupper() else key
    words = re.findall(r"HMac|[A-Z]{2,}s(?![a-z])|[A-Z]+v\d+|[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*", key)
    return f"system.network.{group}.{'_'.join(words).lower()}"


def test_tables_of_the_network_agree_with_an_independent_reading(captured: HostSample) -> None:
    """Each number of snmp, netstat and snmp6 is there under its name, and nothing else is in their groups."""
    values = captured.as_dict()
    expected: dict[str, float] = {}
    for name in ("snmp", "netstat"):
        lines = (KERNEL / "proc/net" / name).read_text().splitlines()
        for header, numbers in zip(lines[::2], lines[1::2], strict=True):
            group, keys = header.split(": ")
            for key, number in zip(keys.split(), numbers.split()[1:], strict=True):
                scale = 1e-3 if key in ("RtoMin", "RtoMax") or key.endswith("Chrono") else 1
                expected[protocol_name(group, key)] = int(number) * scale
    for line in (KERNEL / "proc/net/snmp6").read_text().splitlines():
        key, number = line.split()
        family, rest = key.split("6", 1)
        expected[protocol_name(f"{family}6", rest)] = int(number)
    assert expected.pop("system.network.tcp.max_conn") == -1
    assert {name: values[name] for name in expected} == expected
    groups = {name.rsplit(".", 1)[0] for name in expected} - {"system.network.tcp"}  # which sockets share
    assert {name for name in values if name.rsplit(".", 1)[0] in groups} <= set(expected)
    for cpu, line in enumerate((KERNEL / "proc/net/softnet_stat").read_text().splitlines()):
        words = [int(word, 16) for word in line.split()]
        assert words[12] == cpu
        for metric, word in zip(("processed", "dropped", "squeezed"), words, strict=False):
            assert values[f"system.network.softnet.{metric}{{cpu.logical_number={cpu}}}"] == word
    names, *rows = (KERNEL / "proc/net/stat/nf_conntrack").read_text().splitlines()
    for name, *column in zip(names.split(), *(row.split() for row in rows), strict=True):
        if name != "entries":
            assert values[f"system.network.conntrack.{name}"] == sum(int(word, 16) for word in column)


def test_sensors_of_a_machine_of_metal_are_read_in_base_units() -> None:
    """Every raw value of the tree is found again, in the unit that its series states."""
    tree = FIXTURES / "metal/sys"
    sample = Host(proc=str(FIXTURES / "metal/proc"), sys=str(tree)).read()
    values, units = sample.as_dict(), dict(zip(sample.names, sample.units, strict=True))
    scales = {"temp": (1e-3, "Cel"), "fan": (1, "rpm"), "in": (1e-3, "V"), "energy": (1e-6, "J")}
    found = 0
    for path in (tree / "class/hwmon").glob("*/*_input"):
        sensor = path.name.removesuffix("_input")
        scale, unit = scales[sensor.rstrip("0123456789")]
        fault = path.with_name(f"{sensor}_fault")
        named = [name for name in values if f"hw.id={path.parent.name}/{sensor}," in name]
        if (path.parent / "name").read_text() == "amdgpu\n" or (fault.exists() and int(fault.read_text())):
            assert named == []  # the GPU source's, or faulty
            continue
        assert [units[name] for name in named] == [unit]
        assert values[named[0]] == pytest.approx(int(path.read_text()) * scale)
        found += 1
    assert found == 8
    assert values["system.cpu.physical.count"] == 2
    assert {line.split(":")[0] for line in Host(proc=str(tree), sys=str(tree)).missing}.isdisjoint({"gpu", "thermal"})


def test_sample_is_frozen_and_consistent(captured: HostSample) -> None:
    """One label of each sort per value; counters and gauges only; nobody changes a sample."""
    assert len(captured) == len(captured.names) == len(captured.units) == len(captured.kinds) == captured.values.size
    assert len(set(captured.names)) == len(captured.names)
    assert set(captured.kinds) == {"gauge", "counter"}
    assert captured.values.dtype == np.float64
    with pytest.raises(AttributeError):
        captured.time_ns = 0  # type: ignore[misc]


def test_labels_are_shared_until_the_layout_changes(tmp_path: Path) -> None:
    """Reads of an unchanged machine give the same tuples; a new interface gives new ones."""
    shutil.copytree(KERNEL, tmp_path / "host")
    host = Host(proc=str(tmp_path / "host/proc"))
    first, second = host.read(), host.read()
    assert first.names is second.names
    assert first.values is not second.values
    dev = tmp_path / "host/proc/net/dev"
    dev.write_text(dev.read_text().replace(" ifb0:", "veth0:"))
    third = host.read()
    assert third.names is not first.names
    assert any("veth0" in name for name in third.names)
    assert not any("ifb0" in name for name in third.names)
    assert any("ifb0" in name for name in first.names)


def test_missing_sources_are_named_with_a_fix(tmp_path: Path) -> None:
    """A tree with nothing in it gives no values and says why, for each source."""
    host = Host(proc=str(tmp_path), sys=str(tmp_path))
    assert len(host.read()) == 0
    missing = {line.split(":")[0]: line for line in host.missing}
    assert list(missing) == [source["name"] for source in catalog()["sources"]]
    assert "Linux >= 4.20 with CONFIG_PSI" in missing["pressure"]
    assert "psi=1" in missing["pressure"]


def test_hostile_host_tree_is_survived() -> None:
    """Malformed files yield what is well-formed in them; names come out escaped."""
    sample = Host(proc=str(FIXTURES / "hostile/proc")).read()
    assert len(sample) > 80
    assert all(name.isascii() and name.isprintable() for name in sample.names)
    assert sample.as_dict()["system.network.io{network.interface.name=eth0:1,network.io.direction=receive}"] == 124


def test_real_machine_agrees_with_psutil() -> None:
    """Levels that hardly move agree with psutil."""
    psutil = pytest.importorskip("psutil")
    values = Host().read().as_dict()
    assert values["system.memory.limit"] == psutil.virtual_memory().total
    assert values["system.cpu.logical.count"] == psutil.cpu_count()
    assert values["system.boot_time"] == pytest.approx(psutil.boot_time(), abs=2)
    assert values["system.memory.linux.available"] == pytest.approx(psutil.virtual_memory().available, rel=0.05)
    links = psutil.net_io_counters(pernic=True)
    seen = {name.split("name=")[1].split(",")[0] for name in values if name.startswith("system.network.io{")}
    assert seen == set(links)


def test_host_reads_from_threads_at_once() -> None:
    """Concurrent reads of one Host neither crash nor mix labels and values."""
    host = Host()
    total = host.read().as_dict()["system.memory.limit"]
    failures = []

    def read() -> None:
        for _ in range(50):
            sample = host.read()
            if len(sample.names) != sample.values.size or sample.as_dict()["system.memory.limit"] != total:
                failures.append(sample)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_unknown_tier_names_the_known_ones() -> None:
    """A tier that does not exist is a usage error."""
    with pytest.raises(UsageError, match="auto, bpf, taskstats, gated, tree"):
        Processes(tier="bpf9")


def test_proc_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """An absent root says so; an empty one is a table without rows."""
    with pytest.raises(UnreachableError, match="could not list"):
        Processes(proc=str(tmp_path / "absent")).read()
    empty = Processes(proc=str(tmp_path)).read()
    assert all(column.shape == (0,) for column in empty.values())


def test_table_columns_have_one_row_per_process() -> None:
    """Columns, dtypes and order of the captured processes."""
    table = Processes(proc=str(KERNEL / "proc")).read()
    kinds = {name: column.dtype.str for name, column in table.items()}
    assert kinds == {
        **dict.fromkeys(("pid", "ppid", "threads", "nice", "last_cpu"), "<i4"),
        **dict.fromkeys(("start_time_ns", "uid", "cgroup_id"), "<i8"),
        "name": "|S64",
        "state": "|S1",
        "valid": "<u4",
        "tier": "<U9",
        **dict.fromkeys(("cpu_user_s", "cpu_system_s", "cpu_utilization", "run_delay_s"), "<f8"),
        **dict.fromkeys(("rss_bytes", "virtual_bytes", "shared_bytes", "minor_faults", "major_faults"), "<f8"),
        **dict.fromkeys(("read_bytes", "write_bytes", "read_chars", "write_chars"), "<f8"),
        **dict.fromkeys(("voluntary_switches", "involuntary_switches"), "<f8"),
        **dict.fromkeys(("rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes", "swap_bytes"), "<f8"),
    }
    assert {column.shape for column in table.values()} == {(4,)}
    assert table["pid"].tolist() == sorted(int(p.name) for p in (KERNEL / "proc").iterdir() if p.name.isdigit())
    assert table["name"].tolist() == [b"kthreadd", b"sleep", b"python", b"true"]
    assert table["state"].tolist() == [b"S", b"S", b"S", b"Z"]
    assert table["voluntary_switches"].tolist() == [71.0, 6.0, 9.0, 3.0]


def test_hostile_names_come_through_raw() -> None:
    """Names are bytes: parentheses, newlines, escapes and bytes that are no UTF-8 are kept as they are."""
    processes = Processes(proc=str(FIXTURES / "hostile/proc"))
    table = processes.read()
    names = dict(zip(table["pid"].tolist(), table["name"].tolist(), strict=True))
    assert names[10] == b"a) R 1 (b"
    assert names[11] == b"new\nline"
    assert names[12] == b"\x1b[2Jclear"
    assert names[13] == b"\xff\xfe\x80"
    assert names[16] == b"k" * 64
    assert processes.counts == {"vanished": 1, "unreadable": 0, "malformed": 2, "gated": 0}
    assert math.isnan(table["read_bytes"][table["pid"] == 15][0])


def test_own_process_agrees_with_psutil() -> None:
    """The row of this process is what psutil says of it."""
    psutil = pytest.importorskip("psutil")
    own = psutil.Process()
    processes = Processes()
    processes.read()
    sum(i * i for i in range(300_000))
    table = processes.read()
    row = int(np.flatnonzero(table["pid"] == os.getpid())[0])
    assert table["ppid"][row] == own.ppid()
    assert table["name"][row].decode() == own.name()[:15]
    assert table["uid"][row] == os.getuid()
    assert table["threads"][row] == own.num_threads()
    assert table["nice"][row] == own.nice()
    times = own.cpu_times()
    assert table["cpu_user_s"][row] == pytest.approx(times.user, abs=0.3)
    assert table["cpu_system_s"][row] == pytest.approx(times.system, abs=0.3)
    memory = own.memory_info()
    assert table["virtual_bytes"][row] == pytest.approx(memory.vms, rel=0.05)
    assert table["rss_bytes"][row] == pytest.approx(memory.rss, rel=0.1)
    io = own.io_counters()
    assert table["read_chars"][row] == pytest.approx(io.read_chars, rel=0.05)
    assert table["write_bytes"][row] == pytest.approx(io.write_bytes, rel=0.2, abs=1 << 20)
    created = table["start_time_ns"][row] * 1e-9 + psutil.boot_time()
    assert created == pytest.approx(own.create_time(), abs=2)
    assert 0 < table["cpu_utilization"][row] <= 64


def test_identity_survives_reads_and_tells_processes_apart() -> None:
    """(pid, start time) is the same in every read while a process lives, and unique within one."""
    processes = Processes()
    first, second = processes.read(), processes.read()

    def identities(table: dict[str, np.ndarray]) -> list[tuple[int, int]]:
        return list(zip(table["pid"].tolist(), table["start_time_ns"].tolist(), strict=True))

    assert len(set(identities(first))) == len(first["pid"])
    own = [pair for pair in identities(first) if pair[0] == os.getpid()]
    assert own == [pair for pair in identities(second) if pair[0] == os.getpid()]


def test_idle_processes_are_gated_with_exact_values() -> None:
    """An idle child's second row comes through the gate and equals its first."""
    child = subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    with child:
        child.stdout.readline()
        processes = Processes()
        rows = []
        for _ in range(6):
            table = processes.read()
            index = int(np.flatnonzero(table["pid"] == child.pid)[0])
            rows.append([table[name][index] for name in ("read_chars", "write_chars", "voluntary_switches")])
        assert rows[-1] == rows[-2]
        assert processes.counts["gated"] >= 1
        child.stdin.close()


def test_vanishing_processes_are_gone_not_errors() -> None:
    """Reads beside a storm of short processes never fail, and never list a reaped one."""
    storm = subprocess.Popen(["sh", "-c", "while :; do /bin/true & /bin/true & wait; done"])
    try:
        processes = Processes()
        for _ in range(200):
            table = processes.read()
            assert os.getpid() in table["pid"]
            assert (table["pid"] > 0).all()
            assert processes.counts["malformed"] == 0
            assert processes.counts["unreadable"] == 0
            utilization = table["cpu_utilization"]
            assert not (utilization < 0).any()
    finally:
        storm.kill()
        storm.wait()
    assert storm.pid not in processes.read()["pid"]


def test_arrays_are_the_callers_own() -> None:
    """Later reads, and the end of the reader, do not change what earlier reads returned; nor do callers the later."""
    processes = Processes(proc=str(KERNEL / "proc"))
    reads = [processes.read() for _ in range(6)]
    expected = {name: column.copy() for name, column in reads[0].items()}
    reads[0]["rss_bytes"][:] = -1.0
    reads[0]["name"][:] = b"mine"
    alone = reads[0].pop("rss_bytes")
    del reads[0]
    reads.append(processes.read())
    del processes
    for read in reads:
        for name in read.keys() - {"cpu_utilization", "valid"}:
            np.testing.assert_array_equal(expected[name], read[name])
    assert set(alone.tolist()) == {-1.0}


def test_a_loop_of_reads_uses_the_same_memory_again() -> None:
    """What the caller let go of is written again: a reader of a large table does not ask for memory each time."""
    processes = Processes(proc=str(KERNEL / "proc"))
    table = processes.read()
    places = set()
    for _ in range(20):
        table = processes.read()
        places.add(table["rss_bytes"].__array_interface__["data"][0])
    assert len(places) <= 2
    assert not table["tier"].flags.writeable
