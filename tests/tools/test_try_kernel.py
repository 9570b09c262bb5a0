"""The emulated machine: what goes into its RAM disk, and which exit status its output means."""

from __future__ import annotations

import gzip
import shlex
import sys
from pathlib import Path

import pytest

import try_kernel

CPIO = "#!/bin/sh\nexec cat\n"  # of an archive, the names


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that comes first, with stand-ins for cpio and busybox."""
    folder = tmp_path / "programs"
    folder.mkdir()
    _program(folder / "cpio", CPIO)
    _program(folder / "busybox", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin:/usr/sbin:/sbin")
    monkeypatch.setattr(try_kernel, "BUSYBOX", folder / "busybox")
    return folder


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _run(
    programs: Path, monkeypatch: pytest.MonkeyPatch, machine: str, *words: str, kernel: str = "kernel", tests: str = ""
) -> int:
    """Exit status of the tool with a machine that runs a shell script."""
    _program(programs / "qemu-system-x86_64", f"#!/bin/sh\n{machine}\n")
    (programs / "kernel").touch()
    chosen = tests or str(Path("/bin/true").resolve())
    monkeypatch.setattr(sys, "argv", ["try_kernel", str(programs / kernel), "--tests", chosen, *words])
    return try_kernel.main()


@pytest.mark.parametrize("status", [0, 1, 17])
def test_the_exit_status_is_that_of_the_tests(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """What the machine says last of the tests is what the caller gets; what else it says is shown."""
    assert _run(programs, monkeypatch, f"echo kernel 6.1; echo tests ended with status {status}") == status
    assert "kernel 6.1\n" in capsys.readouterr().out


def test_a_machine_that_never_says_how_the_tests_ended_is_2(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that panics ends the machine without a status."""
    assert _run(programs, monkeypatch, "echo Kernel panic") == 2


def test_a_machine_that_hangs_is_ended(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that was given it is killed, and that is 2."""
    assert _run(programs, monkeypatch, "exec sleep 600", "--timeout", "0.2") == 2


@pytest.mark.parametrize("word", ["kernel", "tests"])
def test_a_file_that_is_missing_is_named(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    """Nothing is started without a kernel or the tests."""
    with pytest.raises(SystemExit):
        _run(programs, monkeypatch, "echo tests ended with status 0", **{word: "absent"})
    assert "absent" in capsys.readouterr().err


def test_a_program_that_is_missing_is_named(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the packages that have it."""
    (programs / "busybox").unlink()
    with pytest.raises(SystemExit):
        _run(programs, monkeypatch, "echo tests ended with status 0")
    assert "busybox, found none (Debian: apt-get install" in capsys.readouterr().err


def test_the_disk_holds_the_tests_their_libraries_and_the_fixtures(programs: Path, tmp_path: Path) -> None:
    """Each where it lies here, and the shell's own rules do not reach what was asked for."""
    tests = Path("/bin/sh").resolve()
    only = "process tiers*,it's"
    image = try_kernel.ram_disk(tests, only, tmp_path)
    names = gzip.decompress(image.read_bytes()).decode().splitlines()
    root = tmp_path / "root"
    assert str(tests.relative_to("/")) in names
    libraries = try_kernel.libraries(tests)
    assert libraries
    for library in libraries:
        assert str(library.relative_to("/")) in names
    assert (root / (try_kernel.ROOT / "tests/fixtures/README.md").relative_to("/")).is_file()
    command = next(line for line in (root / "init").read_text().splitlines() if line.startswith(str(tests)))
    assert shlex.split(command) == [str(tests), "-nc", f"-tc={only}"]
    assert (root / "init").stat().st_mode & 0o111


def test_libbpf_is_found_by_the_loaders_own_list(programs: Path) -> None:
    """And without one the disk goes without."""
    line = "\tlibbpf.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libbpf.so.1"
    _program(programs / "ldconfig", f"#!/bin/sh\necho '{line}'\n")
    assert try_kernel.bpf_library() == [Path("/lib/x86_64-linux-gnu/libbpf.so.1")]
    _program(programs / "ldconfig", "#!/bin/sh\necho libc.so.6\n")
    assert try_kernel.bpf_library() == []
