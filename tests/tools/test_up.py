"""Setting up: what is missing, what a rebuild depends on, and what pip is asked for, on machines made up for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import up

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ("g++", "clang", "clang++", "ccache", "cmake", "ninja", "apt-get")


class Machine(up.System):
    """A machine that has what it is told, and runs nothing."""

    def __init__(
        self,
        *,
        commands: Sequence[str] = EVERYTHING,
        working: Sequence[str] = ("g++", "clang++"),
        fuzzing: bool = True,
        files: Sequence[str] = (
            "/usr/include/python3.12/Python.h",
            "/usr/include/doctest/doctest.h",
            "/usr/include/bpf/bpf_helpers.h",
            "/usr/include/relacy/relacy.hpp",
        ),
        libraries: Sequence[str] = ("libbpf.so.1",),
        modules: Sequence[str] = ("venv", "ensurepip"),
        outputs: dict[str, tuple[int, str]] | None = None,
        environ: dict[str, str] | None = None,
        root: bool = False,
    ) -> None:
        self.is_root, self.environ = root, environ or {}
        self.executable, self.version = "/usr/bin/python3", (3, 12)
        self.commands, self.working, self.fuzzing, self.files, self.modules = commands, working, fuzzing, files, modules
        self.libraries = libraries
        self.outputs = {"/usr/bin/python3": (0, "3 12\n"), "cmake": (0, "cmake version 3.25.1\n"), **(outputs or {})}

    def which(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.commands else None

    def has_file(self, path: str) -> bool:
        return path in self.files

    def has_library(self, name: str) -> bool:
        return name in self.libraries

    def has_module(self, name: str) -> bool:
        return name in self.modules

    def include(self) -> str:
        return "/usr/include/python3.12"

    def output(self, command: Sequence[str]) -> tuple[int, str]:
        return self.outputs.get(command[0], (127, ""))

    def compiles(self, compiler: str, source: str, *flags: str) -> bool:
        if "-fsanitize=fuzzer,address,undefined" in flags and not self.fuzzing:
            return False
        return Path(compiler).name in self.working


def test_a_complete_machine_lacks_nothing():
    assert up.Missing([], []) == up.missing_packages(Machine(), for_tests=True)


def test_a_bare_machine_lacks_exactly_these():
    """Headers, ensurepip and a compiler are separate Debian packages; a plain run asks for no test tools."""
    bare = Machine(commands=(), files=(), modules=(), libraries=())
    bpf = ["clang", "libbpf-dev", "libbpf1"]
    assert up.Missing(["g++", "python3-dev", "python3-venv"], bpf) == up.missing_packages(bare, for_tests=False)
    expected = up.Missing(["g++", "python3-dev", "python3-venv", "doctest-dev"], [*bpf, "relacy-dev", "ccache"])
    assert expected == up.missing_packages(bare, for_tests=True)


def test_what_bpf_needs_is_wanted_and_never_required():
    """Without it everything builds and runs; a clang of any version that can compile the programs will do."""
    without = Machine(commands=("g++", "cmake", "ninja"), files=("/usr/include/python3.12/Python.h",), libraries=())
    assert up.Missing([], ["clang", "libbpf-dev", "libbpf1"]) == up.missing_packages(without, for_tests=False)
    older = Machine(commands=("g++", "clang-14"), libraries=())
    assert up.Missing([], ["libbpf1"]) == up.missing_packages(older, for_tests=False)


def test_a_compiler_that_cannot_do_cpp20_is_none():
    assert ["g++"] == up.missing_packages(Machine(working=()), for_tests=False).required


def test_the_named_compiler_comes_first():
    machine = Machine(commands=("g++", "g++-13"), working=("g++", "g++-13"), environ={"CXX": "g++-13"})
    assert "/usr/bin/g++-13" == up.compiler(machine)
    assert "/usr/bin/g++" == up.compiler(Machine(environ={"CXX": "absent-g++"}))


def test_a_second_python_needs_packages_of_its_own():
    machine = Machine(files=(), modules=(), outputs={"/usr/bin/python3": (0, "3 11\n")})
    assert ["python3.12-dev", "python3.12-venv"] == up.missing_packages(machine, for_tests=False).required


@pytest.mark.parametrize(("known", "package"), [(0, "libclang-rt-14-dev"), (100, "libclang-common-14-dev")])
def test_clang_without_its_runtime_wants_the_one_of_its_version(known, package):
    said = {"clang++": (0, "Debian clang version 14.0.6\n"), "apt-cache": (known, "")}
    machine = Machine(fuzzing=False, outputs=said)
    assert up.Missing([], [package]) == up.missing_packages(machine, for_tests=True)


def test_without_root_the_one_line_is_printed_and_nothing_is_run(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))
    with pytest.raises(up.Failed) as caught:
        up.ensure_packages(Machine(commands=("apt-get",), files=()), for_tests=False)
    assert "\n    sudo apt-get install -y --no-install-recommends g++ python3-dev clang libbpf-dev\n" in str(
        caught.value
    )


def test_a_missing_wanted_package_is_a_notice(capsys):
    """Without clang everything but the fuzzing can go on."""
    up.ensure_packages(Machine(commands=("g++", "ccache"), working=("g++",)), for_tests=True)
    assert "NOTICE: clang is not there" in capsys.readouterr().out


def test_cmake_and_ninja_come_from_pip_when_the_system_ones_will_not_do():
    assert [] == up.build_tools(Machine())
    assert ["cmake>=3.21"] == up.build_tools(Machine(outputs={"cmake": (0, "cmake version 3.16.3\n")}))
    assert ["cmake>=3.21", "ninja"] == up.build_tools(Machine(commands=("g++",)))


@pytest.fixture
def project(tmp_path):
    """A project small enough to hash by hand."""
    for name, text in {
        "pyproject.toml": "[build-system]\nrequires=['b']\n[project]\ndependencies=['d']\n"
        "[project.optional-dependencies]\ndev=['t']\n",
        "CMakeLists.txt": "",
        "cpp/base/a.cpp": "int a;",
        "python/argus/x.py": "x = 1",
        "README.md": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "rebuilt"),
    [
        ("cpp/base/a.cpp", "int b;", True),
        ("cpp/base/new.hpp", "", True),
        ("CMakeLists.txt", "#", True),
        ("pyproject.toml", "[x]\n", True),
        ("python/argus/new.py", "", True),
        ("python/argus/x.py", "x = 2", False),
        ("README.md", "words", False),
    ],
)
def test_what_a_rebuild_depends_on(project, name, text, rebuilt):
    """Python is installed editable: its contents are live, only a new file has to be mapped."""
    before = up.digest(project, python="3.11", compiler_path="g++")
    (project / name).write_text(text)
    assert rebuilt == (before != up.digest(project, python="3.11", compiler_path="g++"))


def test_another_interpreter_or_compiler_means_a_rebuild(project):
    first = up.digest(project, python="3.11", compiler_path="g++")
    assert first != up.digest(project, python="3.12", compiler_path="g++")
    assert first != up.digest(project, python="3.11", compiler_path="clang++")
    assert first == up.digest(project, python="3.11", compiler_path="g++")


def test_a_moved_file_is_a_change(project):
    """The same bytes under another name are another tree."""
    before = up.digest(project, python="3.11", compiler_path="g++")
    (project / "cpp/base/a.cpp").rename(project / "cpp/base/b.cpp")
    assert before != up.digest(project, python="3.11", compiler_path="g++")


def test_requirements_come_from_the_project_file(project):
    assert ["b", "d"] == up.requirements(project, for_tests=False)
    assert ["b", "d", "t"] == up.requirements(project, for_tests=True)


def test_compilations_at_once_fit_the_memory(tmp_path, monkeypatch):
    monkeypatch.delenv("CMAKE_BUILD_PARALLEL_LEVEL", raising=False)
    monkeypatch.setattr(up.os, "sched_getaffinity", lambda _: set(range(16)))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    6291456 kB\n")
    assert 6 == up.jobs(tmp_path)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("2147483648\n")
    assert 2 == up.jobs(tmp_path)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert 6 == up.jobs(tmp_path)
    monkeypatch.setenv("CMAKE_BUILD_PARALLEL_LEVEL", "3")
    assert 3 == up.jobs(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_stamp_is_no_stamp(tmp_path, text):
    stamp = up.Stamp(tmp_path / "stamp.json")
    assert {} == stamp.read()
    stamp.path.write_text(text)
    assert {} == stamp.read()
    stamp.write({"digest": "x"})
    assert {"digest": "x"} == json.loads(stamp.path.read_text()) == stamp.read()


def test_an_up_to_date_tree_starts_nothing(project, monkeypatch):
    """The second run costs the hash and no process."""
    machine = Machine()
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/argus-collect").touch()
    python = f"{machine.executable} {machine.version}"
    stamp = up.Stamp(project / ".venv/argus-up.json")
    stamp.write(
        {
            "digest": up.digest(project, python=python, compiler_path="g++"),
            "compiler": "g++",
            "requirements": ["b", "d"],
            "checked": True,
        }
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))
    up.set_up(project, machine, stamp, for_tests=False)
    up.self_check(project, stamp)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["tset"], 2)])
def test_the_command_line_says_what_it_takes(arguments, status, capsys):
    assert status == up.main(arguments)
    assert "build" in capsys.readouterr().out


def test_the_real_project_states_its_requirements():
    names = up.requirements(ROOT, for_tests=True)
    assert any(name.startswith("numpy") for name in names) and any(name.startswith("pytest") for name in names)


@pytest.mark.parametrize(
    ("doctor", "passes"),
    [
        ("print('ok  disk'); print('coverage 3 of 4'); raise SystemExit(1)", True),
        ("print('coverage 3 of 4'); raise SystemExit(0)", True),
        ("print('coverage 3 of 4', flush=True); raise ValueError", False),
        ("raise SystemExit(0)", False),
        ("print('coverage 3 of 4'); raise SystemExit(78)", False),
    ],
)
def test_a_doctor_that_crashes_is_not_one_that_finds_a_gap(tmp_path, doctor, passes):
    """Both end with status 1; only a complete report is a passed self-check, and it is asked for once."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, code in (("python", "#!/bin/sh\nexit 0\n"), ("argus", f"#!{sys.executable}\n{doctor}\n")):
        (programs / name).write_text(code)
        (programs / name).chmod(0o755)
    stamp = up.Stamp(tmp_path / "stamp.json")
    stamp.write({"checked": False})
    if passes:
        up.self_check(tmp_path, stamp)
    else:
        with pytest.raises(up.Failed):
            up.self_check(tmp_path, stamp)
    assert passes == stamp.read()["checked"]
