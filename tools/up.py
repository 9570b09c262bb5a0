#!/usr/bin/env python3
"""From a fresh Debian or Ubuntu to a running Argus, with Python >= 3.11 alone.

    python3 tools/up.py [ARGUMENTS]          set up, build, check, then run argus-collect with the arguments
    python3 tools/up.py build                set up and build only
    python3 tools/up.py doctor [ARGUMENTS]   set up, then argus doctor
    python3 tools/up.py test [ARGUMENTS]     set up with the development tools, then every check, pytest last

Missing system packages are installed when this runs as root and apt is there; otherwise the one line that installs them
is printed. Everything else lives in .venv and build/. A second run does only what has changed since.
Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
CMAKE_LEAST = (3, 21)
GIB_PER_COMPILER = 1.0  # memory that one C++ compilation may need
PIP_ATTEMPTS = 3
BPF_COMPILERS = ("clang", *(f"clang-{version}" for version in range(20, 13, -1)))  # as cpp/sources/bpf/embed.cmake

PROBE = (
    "#include <span>\n#include <version>\nint main() { std::span<const int> s; return static_cast<int>(s.size()); }\n"
)
FUZZ_PROBE = (
    '#include <cstddef>\n#include <cstdint>\nextern "C" int LLVMFuzzerTestOneInput(const std::uint8_t*, std::size_t) '
    "{ return 0; }\n"
)


class Failed(Exception):
    """Something that the user has to mend; the message says what and how."""


# --- The machine -----------------------------------------------------------------------------------------------------


class System:
    """What this machine has; tests put another in its place."""

    def __init__(self) -> None:
        self.is_root = os.geteuid() == 0
        self.environ: Mapping[str, str] = os.environ
        self.executable = str(getattr(sys, "_base_executable", None) or sys.executable)
        self.version = (sys.version_info[0], sys.version_info[1])

    def which(self, name: str) -> str | None:
        """Path of a command."""
        return shutil.which(name)

    def has_file(self, path: str) -> bool:
        """Whether a file exists."""
        return Path(path).exists()

    def has_library(self, name: str) -> bool:
        """Whether a shared library can be loaded."""
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    def has_module(self, name: str) -> bool:
        """Whether this interpreter can import a module."""
        return importlib.util.find_spec(name) is not None

    def include(self) -> str:
        """Folder of the interpreter's headers."""
        return sysconfig.get_paths()["include"]

    def output(self, command: Sequence[str]) -> tuple[int, str]:
        """Exit status and output of a command; 127 when it cannot run."""
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            return 127, str(error)
        return done.returncode, done.stdout

    def compiles(self, compiler: str, source: str, *flags: str) -> bool:
        """Whether a compiler turns a source into a program."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "probe.cpp"
            file.write_text(source)
            return self.output([compiler, "-std=c++20", *flags, str(file), "-o", str(file.with_suffix(""))])[0] == 0


def compiler(system: System) -> str | None:
    """The C++20 compiler to use: $CXX, else the first that works (the one Python was built with may not exist here)."""
    for name in (system.environ.get("CXX", ""), "g++", "c++", "clang++"):
        found = system.which(name) if name else None
        if found and system.compiles(found, PROBE):
            return found
    return None


def fuzz_compiler(system: System) -> str | None:
    """A clang++ that links libFuzzer with its sanitizers."""
    found = system.which("clang++")
    if found and system.compiles(found, FUZZ_PROBE, "-fsanitize=fuzzer,address,undefined"):
        return found
    return None


class Missing(NamedTuple):
    """System packages that are not there: without `required` nothing works, without `wanted` a check is left out."""

    required: list[str]
    wanted: list[str]


def missing_packages(system: System, *, for_tests: bool) -> Missing:
    """The Debian packages that this machine lacks."""
    required, wanted = [], []
    if compiler(system) is None:
        required.append("g++")
    if not system.has_file(f"{system.include()}/Python.h"):
        required.append(_python_package(system, "dev"))
    if not (system.has_module("ensurepip") and system.has_module("venv")):
        required.append(_python_package(system, "venv"))
    folders = ("/usr/include", "/usr/local/include")
    # One system call for the whole process table, and every exit: without these Argus reads files instead.
    if not any(system.which(name) for name in BPF_COMPILERS):
        wanted.append("clang")
    if not any(system.has_file(f"{folder}/bpf/bpf_helpers.h") for folder in folders):
        wanted.append("libbpf-dev")
    if not system.has_library("libbpf.so.1"):
        wanted.append("libbpf1")
    if for_tests:
        if not any(system.has_file(f"{folder}/doctest/doctest.h") for folder in folders):
            required.append("doctest-dev")
        if not any(system.has_file(f"{folder}/relacy/relacy.hpp") for folder in folders):
            wanted.append("relacy-dev")
        if system.which("ccache") is None:
            wanted.append("ccache")
        if system.which("clang++") is None:
            wanted.extend([] if "clang" in wanted else ["clang"])
        elif fuzz_compiler(system) is None:
            wanted.append(_sanitizer_package(system))
    return Missing(required, wanted)


def _python_package(system: System, part: str) -> str:
    """python3-dev for the distribution's Python, python3.12-dev for a second one."""
    major, minor = system.version
    _, default = system.output(["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"])
    return f"python3-{part}" if default.split() == [str(major), str(minor)] else f"python{major}.{minor}-{part}"


def _sanitizer_package(system: System) -> str:
    """The run-time library of the installed clang; before version 14 it came in libclang-common."""
    found = re.search(r"version (\d+)", system.output(["clang++", "--version"])[1])
    version = int(found[1]) if found else 14
    name = f"libclang-rt-{version}-dev"
    return name if system.output(["apt-cache", "show", name])[0] == 0 else f"libclang-common-{version}-dev"


def ensure_packages(system: System, *, for_tests: bool) -> None:
    """Install what is missing, or say the line that does. Errors: `Failed` when a required package stays missing."""
    missing = missing_packages(system, for_tests=for_tests)
    if not any(missing):
        return
    names = [*missing.required, *missing.wanted]
    line = "apt-get install -y --no-install-recommends " + " ".join(names)
    if system.is_root and system.which("apt-get"):
        say(f"installing {' '.join(names)}")
        _apt_install(missing.required, must=True)
        for name in missing.wanted:  # one by one: a name that an older release does not know spoils no other
            _apt_install([name], must=False)
        again = missing_packages(system, for_tests=for_tests)  # clang's run-time library is known once clang is there
        _apt_install([name for name in again.wanted if name not in missing.wanted], must=False)
        missing = missing_packages(system, for_tests=for_tests)
    if missing.required:
        sudo = "" if system.is_root else "sudo "
        raise Failed(
            f"system: expected a C++20 compiler, Python headers and venv for {system.executable}"
            f"{', doctest' if for_tests else ''}, found no {' '.join(missing.required)}; nothing built. Run:\n\n"
            f"    {sudo}{line}\n\n(on another distribution: the packages of the same purpose)"
        )
    for name in missing.wanted:
        say(f"NOTICE: {name} is not there; what needs it is left out (as root: apt-get install -y {name})")


def _apt_install(names: Sequence[str], *, must: bool) -> None:
    if not names:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names]
    for attempt in range(3):  # a fresh container has no package lists, and mirrors have bad moments
        if attempt:
            subprocess.run(["apt-get", "update", "-qq"], env=env, stdout=subprocess.DEVNULL)
        if subprocess.run(install, env=env, stdout=subprocess.DEVNULL).returncode == 0:
            return
    if must:
        raise Failed(f"system: expected apt-get to install {' '.join(names)}, found that it failed; nothing built")


# --- The project -----------------------------------------------------------------------------------------------------


def digest(root: Path, *, python: str, compiler_path: str) -> str:
    """What the compiled module and its installation depend on: a change of it means a rebuild.

    The contents of pyproject.toml, CMakeLists.txt and cpp/**, the names of the Python files (an editable installation
    maps them), the interpreter and the compiler.
    """
    total = hashlib.sha256(f"{root}\0{python}\0{compiler_path}\0".encode())
    files = [root / "pyproject.toml", root / "CMakeLists.txt", *sorted((root / "cpp").rglob("*"))]
    for file in files:
        if file.is_file():
            total.update(f"{file.relative_to(root)}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    for file in sorted((root / "python").rglob("*.py")):
        total.update(f"{file.relative_to(root)}\0".encode())
    return total.hexdigest()


def requirements(root: Path, *, for_tests: bool) -> list[str]:
    """What pip has to install, from pyproject.toml: build, run-time and, for tests, the dev extra."""
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())
    extra = project["project"].get("optional-dependencies", {}).get("dev", []) if for_tests else []
    return [*project["build-system"]["requires"], *project["project"]["dependencies"], *extra]


def build_tools(system: System) -> list[str]:
    """cmake and ninja from pip, where the system has none that will do."""
    wanted = []
    found = (
        re.search(r"version (\d+)\.(\d+)", system.output(["cmake", "--version"])[1]) if system.which("cmake") else None
    )
    if found is None or (int(found[1]), int(found[2])) < CMAKE_LEAST:
        wanted.append(f"cmake>={CMAKE_LEAST[0]}.{CMAKE_LEAST[1]}")
    if not (system.which("ninja") or system.which("ninja-build")):
        wanted.append("ninja")
    return wanted


def jobs(root: Path = Path("/")) -> int:
    """Compilations at once: the cores that this process may use, within its memory."""
    asked = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    gib = 64.0
    with contextlib.suppress(OSError, AttributeError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
        gib = int(found[1]) / 2**20 if found else gib
    with contextlib.suppress(OSError, ValueError):  # "max" = no limit
        gib = min(gib, int((root / "sys/fs/cgroup/memory.max").read_text()) / 2**30)
    return max(1, min(len(os.sched_getaffinity(0)), int(gib / GIB_PER_COMPILER)))


class Stamp:
    """What the last complete set-up was made of; absent while one is under way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """The stamp; empty when there is none."""
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, values: dict[str, Any]) -> None:
        """Replace the stamp."""
        self.path.write_text(json.dumps(values))


def say(text: str) -> None:
    """One line of progress."""
    print(f"up: {text}", flush=True)


def environment(root: Path, cxx: str) -> dict[str, str]:
    """Environment of every tool: the project's .venv first, the compiler by name, pip patient and quiet."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")}
    env["PATH"] = f"{root / '.venv/bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["CXX"] = cxx
    env["CMAKE_GENERATOR"] = "Ninja"
    env["CMAKE_BUILD_PARALLEL_LEVEL"] = str(jobs())
    for name, value in (
        ("PIP_RETRIES", "8"),
        ("PIP_DEFAULT_TIMEOUT", "60"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
    ):
        env.setdefault(name, value)
    return env


def _pip(root: Path, env: Mapping[str, str], what: str, *arguments: str, attempts: int = PIP_ATTEMPTS) -> None:
    """pip install, tried again when the network had a bad moment; what it said is shown when it fails."""
    command = [str(root / ".venv/bin/python"), "-m", "pip", "install", "--no-input", *arguments]
    said = ""
    for attempt in range(attempts):
        if attempt:
            say(f"{what}: again in {4 * attempt} s")
            time.sleep(4 * attempt)
        done = subprocess.run(command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            return
        said = done.stdout
    print("\n".join(said.splitlines()[-60:]), file=sys.stderr)
    raise Failed(f"{what}: expected pip to succeed, found the errors above; not started")


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One set-up at a time."""
    (root / "build").mkdir(exist_ok=True)
    with (root / "build" / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up(root: Path, system: System, stamp: Stamp, *, for_tests: bool) -> None:
    """Bring .venv up to date; nothing is started when it is."""
    python = f"{system.executable} {system.version}"
    with _alone(root):
        old = stamp.read()
        wanted = requirements(root, for_tests=for_tests)
        current = digest(root, python=python, compiler_path=old.get("compiler", ""))
        installed = set(wanted) <= set(old.get("requirements", []))
        tools_there = not for_tests or old.get("for_tests")
        if old.get("digest") == current and installed and tools_there and (root / ".venv/bin/argus-collect").exists():
            return
        ensure_packages(system, for_tests=for_tests)
        cxx = compiler(system)
        assert cxx is not None  # ensure_packages has raised otherwise
        stamp.path.unlink(missing_ok=True)
        if old.get("python") != python or old.get("root") != str(root) or not (root / ".venv/bin/pip").exists():
            say(f"making .venv with {system.executable}")
            _run("venv", [system.executable, "-m", "venv", "--clear", str(root / ".venv")], root)
            shutil.rmtree(root / "build" / "python", ignore_errors=True)
            old = {}
        env = environment(root, cxx)
        state = {"root": str(root), "python": python, "compiler": cxx, "digest": "", "checked": False}
        if not installed or not tools_there or not old:
            say("installing Python packages")
            _pip(root, env, "packages", *wanted, *build_tools(system))
        state["requirements"] = sorted({*wanted, *old.get("requirements", [])})
        state["for_tests"] = for_tests or bool(old.get("for_tests"))
        stamp.write(state)  # a build that fails leaves the packages in place
        fresh = digest(root, python=python, compiler_path=cxx)
        if fresh != old.get("digest"):
            if old.get("compiler") not in (None, cxx):
                shutil.rmtree(root / "build" / "python", ignore_errors=True)
            start = time.monotonic()
            say(f"building with {cxx}, {env['CMAKE_BUILD_PARALLEL_LEVEL']} at once")
            _pip(root, env, "build", "--no-build-isolation", "--no-deps", "--editable", str(root), attempts=1)
            say(f"built in {time.monotonic() - start:.0f} s")
        stamp.write({**state, "digest": fresh})


def _run(what: str, command: Sequence[str], root: Path) -> None:
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise Failed(f"{what}: expected exit status 0, found {done.returncode} (output above); not started")


def self_check(root: Path, stamp: Stamp) -> None:
    """Once a set-up: import what was built, and let Argus say what it can see here. A gap is a finding, no failure."""
    if stamp.read().get("checked"):
        return
    python = str(root / ".venv/bin/python")
    _run("self-check", [python, "-c", "import argus; from argus import Engine, Host, guard"], root)
    command = [str(root / ".venv/bin/argus"), "doctor"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="")
    # A crash ends with status 1 too, as a gap does: only a report that was written to its end counts.
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not (lines and lines[-1].startswith("coverage ")):
        raise Failed("argus doctor: expected a report that ends with its coverage, found the above; not started")
    stamp.write({**stamp.read(), "checked": True})


def become(root: Path, program: str, arguments: Sequence[str]) -> NoReturn:
    """Give this process to a program of .venv."""
    sys.stdout.flush()
    path = str(root / ".venv/bin" / program)
    os.execv(path, [path, *arguments])


def main(arguments: Sequence[str]) -> int:
    """The command line; exit status 0 = done, 1 = failed or found something, 2 = usage."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the one file that an older Python may be asked to run
        print(f"up: expected Python 3.11 or newer, found {sys.version.split()[0]} ({sys.executable}); nothing done")
        return 1
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    verbs = ("build", "doctor", "test")
    verb = arguments[0] if arguments and arguments[0] in verbs else "run"
    rest = list(arguments if verb == "run" else arguments[1:])
    if verb == "run" and rest and not rest[0].startswith("-"):
        print(f"up: expected one of {', '.join(verbs)} or options of argus-collect, found {rest[0]!r}; nothing done")
        return 2
    system = System()
    stamp = Stamp(ROOT / ".venv" / "argus-up.json")
    try:
        set_up(ROOT, system, stamp, for_tests=verb == "test")
        if verb == "test":
            import checks

            return checks.run_all(ROOT, environment(ROOT, compiler(system) or "c++"), fuzz_compiler(system), rest)
        if verb == "doctor":
            become(ROOT, "argus", ["doctor", *rest])
        self_check(ROOT, stamp)
        if verb == "run":
            become(ROOT, "argus-collect", rest)
    except Failed as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
