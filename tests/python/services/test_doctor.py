"""The doctor: every gap is a finding with its fix, and nothing that it meets makes it crash."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from argus import guard
from argus.config import Config, Inlets, Killswitch, Outlets, SourceSettings, State, ZmqOutlet
from argus.services import doctor
from argus.services.doctor import State as Seen

CATALOG: dict[str, Any] = {
    "sources": [
        {"name": "cpu", "documentation": "", "requires": "procfs", "fix": "mount proc", "interval_ms": 1000},
        {"name": "pressure", "documentation": "", "requires": "PSI", "fix": "boot with psi=1", "interval_ms": 1000},
    ],
    "detectors": [],
    "auditors": [],
    "criteria": [],
}


class _Host:
    missing = ("pressure: proc/pressure/cpu: not present (ENOENT), needs PSI",)

    def __init__(self, proc: str, sys: str, cgroup: str | None) -> None:
        pass

    def read(self) -> Any:
        return msgspec.defstruct("Sample", [("names", list), ("values", Any)])(["a", "b"], np.array([1.0, np.nan]))


class _Tier(NamedTuple):
    name: str
    available: bool
    reason: str


class _Processes:
    tiers = (_Tier("bpf", False, "BPF: not permitted; run with CAP_BPF"), _Tier("gated", True, ""))

    def __init__(self, tier: str = "auto", proc: str = "/proc") -> None:
        pass

    def read(self) -> dict[str, Any]:
        return {"pid": np.arange(4), "tier": np.full(4, "gated"), "valid": np.array([7, 3, 3, 3], np.uint32)}


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    """An engine that reads what these tests say."""
    module = ModuleType("argus.engine.host")
    module.__dict__.update(Host=_Host, Processes=_Processes)
    monkeypatch.setitem(sys.modules, "argus.engine.host", module)
    return module


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(
        sources={"cpu": SourceSettings(), "pressure": SourceSettings()},
        inlets=Inlets(pull="", sub=[], ipc=f"ipc://{tmp_path}/d/events.sock"),
        outlets=Outlets(zmq=ZmqOutlet(endpoint="", replay_endpoint="")),
        killswitch=Killswitch(directory=str(tmp_path / "control")),
        state=State(home=str(tmp_path / "d")),
    )


def findings(config: Config) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine(config, catalog=CATALOG).findings}


def test_every_gap_has_its_fix(config):
    """Whatever is not ok says what would make it so."""
    report = doctor.examine(config, catalog=CATALOG)
    assert [] == [finding for finding in report.findings if finding.state is not Seen.OK and not finding.fix]


def test_sources_are_judged_by_what_the_machine_lacks(config):
    found = findings(config)
    assert Seen.OK is found["source cpu"].state
    assert (Seen.MISSING, "boot with psi=1") == (found["source pressure"].state, found["source pressure"].fix)
    assert (1, 2) == (found["host series"].seen, found["host series"].total)


def test_a_source_switched_off_is_no_silent_gap(config):
    off = msgspec.structs.replace(config, sources={"cpu": SourceSettings(enabled=False)})
    assert Seen.PARTIAL is findings(off)["source cpu"].state


def test_unreadable_io_is_counted_over_all_processes(config):
    found = findings(config)["process I/O"]
    assert (Seen.PARTIAL, 1, 4) == (found.state, found.seen, found.total)


def test_a_cheaper_way_to_read_processes_is_told_with_its_fix(config, engine, monkeypatch):
    found = findings(config)["process tier"]
    assert (Seen.PARTIAL, "run with CAP_BPF") == (found.state, found.fix)
    assert "'gated' works, dearer: 'bpf' is not available (BPF: not permitted)" == found.detail
    monkeypatch.setattr(engine.Processes, "tiers", (_Tier("gated", True, ""),))
    assert Seen.OK is findings(config)["process tier"].state


def test_a_check_that_fails_is_a_finding(config, engine, monkeypatch):
    """Also with a name that would write to the terminal."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("\x1b[2Jgone")

    monkeypatch.setattr(engine, "Host", broken)
    found = findings(config)["sources"]
    assert Seen.MISSING is found.state
    assert "\\x1b[2Jgone" in found.detail and "\x1b" not in found.detail
    assert "disk" in findings(config)


def test_without_a_core_the_rest_is_still_examined(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "argus.engine.core", None)
    found = findings(config)
    assert Seen.MISSING is found["core"].state
    assert "control directory" in found and "disk" in found


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_in_use_names_its_holder(config, family, host):
    with socket.socket(family) as taken:
        try:
            taken.bind((host, 0))
        except OSError as error:
            pytest.skip(f"no {host} on this machine: {error}")
        taken.listen()
        port = taken.getsockname()[1]
        shown = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        found = findings(msgspec.structs.replace(config, inlets=Inlets(pull=shown, sub=[], ipc="")))["inlet pull"]
        assert Seen.MISSING is found.state
        assert f"in use by pid {os.getpid()}" in found.detail
    after = findings(msgspec.structs.replace(config, inlets=Inlets(pull=shown, sub=[], ipc="")))["inlet pull"]
    assert Seen.OK is after.state


def test_a_socket_file_counts_only_while_somebody_listens(config, tmp_path):
    (tmp_path / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "d/events.sock"))
        taken.listen()
        assert f"pid {os.getpid()}" in findings(config)["inlet ipc"].detail
    assert Seen.OK is findings(config)["inlet ipc"].state


def test_the_running_collector_is_no_stranger(config, tmp_path):
    """Whoever holds control/lock is the collector: its sockets are no conflict."""
    (tmp_path / "control").mkdir()
    (tmp_path / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as taken, (tmp_path / "control/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taken.bind(str(tmp_path / "d/events.sock"))
        taken.listen()
        found = findings(config)
        if f"owned by the collector with pid {os.getpid()}" not in found["control directory"].detail:
            pytest.skip("/proc/locks does not show this process here")
        assert Seen.OK is found["inlet ipc"].state


def test_a_control_directory_open_to_others_is_told(config, tmp_path):
    control = tmp_path / "control"
    control.mkdir(mode=0o755)
    assert Seen.OK is findings(config)["control directory"].state
    control.chmod(0o777)
    found = findings(config)["control directory"]
    assert Seen.PARTIAL is found.state and "mode 0777: others may forge or remove flags" in found.detail


def test_a_control_directory_that_is_a_link_is_told(config, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "control").symlink_to(tmp_path / "elsewhere")
    assert "is a symbolic link" in findings(config)["control directory"].detail


def test_a_set_flag_is_told(config, tmp_path):
    (tmp_path / "control").mkdir()
    assert "flag hard_kill" not in findings(config)
    (tmp_path / "control/hard_kill.flag").touch()
    assert "agents here are stopped" in findings(config)["flag hard_kill"].detail


def test_announced_guards_are_counted(config, tmp_path):
    assert Seen.PARTIAL is findings(config)["guards"].state
    (tmp_path / "control/guards").mkdir(parents=True)
    (tmp_path / "control/guards/1.json").touch()
    (tmp_path / "control/guards/.temporary").touch()
    assert "1 left behind" in findings(config)["guards"].detail
    with guard.Guard(tmp_path / "control"):
        assert findings(config)["guards"].detail == "1 announced and alive, 1 left behind by processes that are gone"


def test_keys_that_others_reach_are_told(config, tmp_path):
    (tmp_path / "d/keys").mkdir(parents=True)
    (tmp_path / "d/keys").chmod(0o755)
    assert Seen.PARTIAL is findings(config)["keys"].state
    (tmp_path / "d/keys").chmod(0o700)
    assert Seen.OK is findings(config)["keys"].state


def test_nothing_is_made_by_looking(config, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    doctor.examine(config, catalog=CATALOG)
    assert before == sorted(tmp_path.rglob("*"))


def test_a_recorded_tree_is_examined_like_a_machine(config, tmp_path):
    """Roots are parameters: what an empty tree lacks is missing, nothing raises."""
    roots = msgspec.structs.replace(config.host, proc=str(tmp_path / "proc"), sys=str(tmp_path / "sys"))
    found = findings(msgspec.structs.replace(config, host=roots))
    assert Seen.MISSING is found["kernel pressure"].state
    assert Seen.PARTIAL is found["kernel BTF"].state
    assert Seen.MISSING is found["kernel perf"].state
    assert "the check itself failed" not in " ".join(str(f) for f in found.values())


def test_the_report_reads_as_lines_and_as_json(config):
    report = doctor.examine(config, catalog=CATALOG)
    lines = report.render().splitlines()
    assert len(report.findings) + 1 == len(lines)
    assert f"coverage {report.seen} of {report.total}" in lines[-1]
    told = json.loads(json.dumps(report.to_dict()))
    assert {"seen": report.seen, "total": report.total} == told["coverage"]
    assert {"what", "state", "detail", "fix", "seen", "total"} == set(told["findings"][0])
    assert all(0 <= f.seen <= f.total for f in report.findings)
    assert int(any(f.state is Seen.MISSING for f in report.findings)) == report.exit_code == int(not report.ok)


def test_it_works_for_another_user(tmp_path):
    """Nothing needs root; what cannot be read is a finding."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user here")
    # Imports come first: the interpreter's own files may be root's alone.
    code = (
        "import os\nfrom argus.config import Config\nfrom argus.services import doctor\n"
        "os.chdir('/'); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(len(doctor.examine(Config(), catalog={}).findings))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    assert int(done.stdout) > 10
