"""The tiers of argus.Processes: chosen by what this machine and this user may do, and alike in what they tell."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from argus.engine.host import TIERS, Processes
from argus.errors import UnreachableError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
NOBODY = 65534
STATUS_BITS = 8 | 16 | 64  # groups that not every tier reads each time


def available() -> dict[str, bool]:
    return {tier.name: tier.available for tier in Processes().tiers}


def opened(tier: str) -> Processes:
    """The tier, or the named reason why it is left out."""
    for found in Processes().tiers:
        if found.name == tier and not found.available:
            pytest.skip(found.reason)
    return Processes(tier=tier)


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that stand still, some with threads."""
    script = "import threading,time,os,signal\n[threading.Thread(target=time.sleep,args=(600,)).start() for _ in range(%d)]"
    children = [
        subprocess.Popen([sys.executable, "-c", f"{script % threads}\nos.kill(os.getpid(), signal.SIGSTOP)"])
        for threads in (0, 0, 3)
    ]
    for child in children:
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    yield [child.pid for child in children]
    for child in children:
        child.send_signal(signal.SIGKILL)
        child.wait()


def as_user(uid: int, code: str) -> dict[str, object]:
    """What a program prints, as JSON, that runs as another user."""
    become = f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})"
    dumpable = "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)"  # PR_SET_DUMPABLE: a change of user hides a process' own files
    program = f"import ctypes, json, os, argus\nargus.Processes\n{become}\n{dumpable}\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_auto_takes_the_best_that_works():
    """And says so, by table and by name; before the first read nothing is open."""
    processes = Processes()
    assert processes.tier == ""
    table = processes.read()
    best = next(tier.name for tier in processes.tiers if tier.available)
    assert (best, best) == (processes.tier, str(table["tier"][0]))


def test_every_tier_is_named_best_first_with_a_reason_when_it_is_not_there():
    found = Processes(proc=str(FIXTURES / "6.18/proc")).tiers
    assert TIERS[1:] == tuple(tier.name for tier in found)
    assert [False, False, False, True] == [tier.available for tier in found]
    for tier in found[:3]:
        assert "must be /proc; " in tier.reason
    assert found[3].reason == ""


@pytest.mark.parametrize("tier", ["bpf", "taskstats", "gated"])
def test_a_tier_that_is_not_available_says_why_and_what_to_do(tier):
    """Asked for by name it is an error, and no other takes its place."""
    with pytest.raises(UnreachableError, match=f"tier '{tier}' is not available: .*; (run|read) ") as caught:
        Processes(tier=tier, proc=str(FIXTURES / "6.18/proc"))
    assert str(caught.value).endswith("; nothing opened")


@pytest.mark.parametrize("tier", ["bpf", "taskstats", "gated"])
def test_tiers_agree_on_processes_that_stand_still(tier, stopped):
    """Ids, times to a tick, counters to the byte (taskstats: to the KiB), memory to what the processors hold back."""
    table, walked = opened(tier).read(), Processes(tier="tree").read()
    held_back = 3 * max(32, 2 * (os.cpu_count() or 1)) * (os.cpu_count() or 1) * resource.getpagesize()
    for pid in stopped:
        ours, theirs = (
            {name: column[np.flatnonzero(t["pid"] == pid)[0]].item() for name, column in t.items()}
            for t in (table, walked)
        )
        for name in ("pid", "ppid", "start_time_ns", "name", "state", "uid", "threads", "nice", "last_cpu"):
            assert ours[name] == theirs[name], name
        for name in ("minor_faults", "major_faults", "virtual_bytes"):
            assert ours[name] == theirs[name], name
        for name in ("cpu_user_s", "cpu_system_s"):
            assert ours[name] == pytest.approx(theirs[name], abs=0.0101), name
        for name in ("read_bytes", "write_bytes", "read_chars", "write_chars"):
            assert ours[name] == pytest.approx(theirs[name], abs=1023 if tier == "taskstats" else 0), name
        for name in ("rss_bytes", "shared_bytes"):
            assert ours[name] == pytest.approx(theirs[name], abs=held_back), name
        assert ours["valid"] & ~(128 | STATUS_BITS) == theirs["valid"] & ~STATUS_BITS


@pytest.mark.parametrize("tier", TIERS)
def test_a_child_that_ends_is_gone_from_the_next_read(tier):
    """And (pid, start time) stays the same while it lives."""
    processes = Processes() if tier == "auto" else opened(tier)
    processes.read()
    with subprocess.Popen(["sleep", "60"]) as child:
        seen = []
        for _ in range(2):
            table = processes.read()
            row = np.flatnonzero(table["pid"] == child.pid)
            assert len(row) == 1
            seen.append(int(table["start_time_ns"][row[0]]))
        assert seen[0] == seen[1]
        child.kill()
        child.wait()
    assert child.pid not in processes.read()["pid"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_unprivileged_user_reads_only_what_ran():
    """No right but its own: tier gated, I/O of its own processes alone, no row lost, no error."""
    if not available()["gated"]:
        pytest.skip("no processor clocks of other processes here")
    found = as_user(
        NOBODY,
        """
        processes = argus.Processes()
        processes.read()
        table = processes.read()
        own = table["pid"] == os.getpid()
        print(json.dumps({
            "tier": processes.tier,
            "rows": len(table["pid"]),
            "own_io": bool(table["valid"][own][0] & 4),
            "root_io": bool(table["valid"][table["pid"] == 1][0] & 4),
            "uids": sorted(set(table["uid"].tolist())),
            "reasons": {t.name: t.reason for t in processes.tiers if not t.available},
        }))
        """,
    )
    assert "gated" == found["tier"]
    assert (True, False) == (found["own_io"], found["root_io"])
    assert {0, NOBODY} <= set(found["uids"])  # type: ignore[call-overload]
    assert abs(len(Processes(tier="tree").read()["pid"]) - int(str(found["rows"]))) < 50
    assert "CAP_NET_ADMIN" in str(dict(found["reasons"])["taskstats"])  # type: ignore[call-overload]
    assert "CAP_BPF" in str(dict(found["reasons"])["bpf"])  # type: ignore[call-overload]


def test_few_descriptors_suffice():
    """Every tier that works reads within a limit of 32 open files, and gives back what it opened."""
    code = textwrap.dedent(
        """
        import json, os, resource, sys
        import argus
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        rows = {}
        for tier in argus.Processes().tiers:
            if tier.available:
                processes = argus.Processes(tier=tier.name)
                for _ in range(3):
                    table = processes.read()
                rows[tier.name] = [len(table["pid"]), processes.counts["unreadable"]]
                del processes
        print(json.dumps({"rows": rows, "left": len(os.listdir("/proc/self/fd"))}))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "tree" in found["rows"]
    assert [0] * len(found["rows"]) == [unreadable for _, unreadable in found["rows"].values()]
    assert min(rows for rows, _ in found["rows"].values()) > 1
    assert found["left"] < 16


def test_the_tier_column_costs_no_memory_and_cannot_be_written():
    table = Processes().read()
    assert table["tier"].strides == (0,)
    with pytest.raises(ValueError, match="read-only"):
        table["tier"][0] = "x"
