"""What all tests share: recorded data, folders of their own, an environment without Argus, no process left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Cores are shared and slow at times: a wall-clock deadline would test the machine.
hypothesis.settings.register_profile("argus", deadline=None, print_blob=True)
hypothesis.settings.load_profile("argus")

_KEPT = ("ARGUS_DATA", "ARGUS_REQUIRE_DATA", "ARGUS_CHECKS", "ARGUS_REWRITE")
_GRACE_S = 5.0
_LASTING = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")  # Python's own, until it ends


@pytest.fixture(autouse=True)
def _no_surrounding_argus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a surrounding `argus run` or collector must not reach a test."""
    for name in [name for name in os.environ if name.startswith("ARGUS_") and name not in _KEPT]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of recorded data (ARGUS_DATA). Absent: skip; with ARGUS_REQUIRE_DATA=1: fail."""
    folder = os.environ.get("ARGUS_DATA", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"recorded data: expected a folder in ARGUS_DATA, found {folder!r}"
    if os.environ.get("ARGUS_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State home of a test, as ARGUS_HOME, with the working folder beside it: control/ lies in the same folder."""
    folder = tmp_path / "argus-data"
    monkeypatch.setenv("ARGUS_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def free_endpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ZeroMQ endpoint nobody else has: a socket file, short enough for its 107 bytes."""
    path = tmp_path_factory.mktemp("z") / "s"
    assert len(str(path)) <= 107, f"socket path: expected at most 107 bytes, found {path}"
    return f"ipc://{path}"


def children() -> dict[int, str]:
    """Processes that this one has started and that are still there, by pid."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except OSError:  # the thread is gone, or the kernel lists no children
            continue
        for pid in pids:
            try:
                name = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() or "(ended)"
            except OSError:
                continue
            if not any(lasting in name for lasting in _LASTING):
                found[int(pid)] = name
    return found


@pytest.fixture(scope="session", autouse=True)
def _no_process_left() -> Iterator[None]:
    """A test that leaves a process behind has not ended: the session fails and names it."""
    before = set(children())
    yield
    deadline = time.monotonic() + _GRACE_S
    while (
        left := {pid: name for pid, name in children().items() if pid not in before}
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"processes left behind: {left}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What ran before the tests, above their own last line, so that a failure there is not overlooked."""
    before = os.environ.get("ARGUS_CHECKS", "")
    if before:
        terminalreporter.section("checks before the tests")
        for line in before.splitlines():
            failed = "FAILED" in line
            terminalreporter.write_line(line, red=failed, bold=failed)
