"""Rules of the tree that no compiler holds: leaves are complete, functions are short, words stay out.

Each rule is a function from a tree to its violations; it is run on this tree and on a small one that breaks it.
An exemption stands in a table here, or in the leaf itself, with its reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FUNCTION_LINES = 70
CPP_COLUMNS = 120

# Folder of leaves: the catalogue's macro, and the suffix of the descriptor that makes a file a leaf.
LEAVES = {
    "cpp/sources": ("ARGUS_SOURCES", "source"),
    "cpp/detectors": ("ARGUS_DETECTORS", "detector"),
    "cpp/auditors": ("ARGUS_AUDITORS", "auditor"),
}
# In a leaf: why it has no test or benchmark of its own.
LEAF_EXEMPTION = re.compile(r"^// No (test|bench): \S.{10,}", re.MULTILINE)
# file:function -> why it may be longer.
LONG_FUNCTIONS: dict[str, str] = {}
# Verbatim recordings: neither their lines nor their words are ours.
RECORDED = ("tests/fixtures/", "tests/fuzz/corpus/", "tests/replay/")
BANNED = {
    "unfinished work": re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"),
    "a path of one machine": re.compile(r"(?<![\w.])/(work|farm|home/\w+|Users/\w+)/"),
    "the host of a package registry": re.compile(
        r"pypi\.org|pythonhosted|artifactory|npmjs\.(com|org)|deb\.debian\.org|archive\.ubuntu\.com|proxy\.golang",
        re.IGNORECASE,
    ),
}
BANNED_EXEMPTIONS = {
    "tests/test_tidy.py": "holds the list",
    "LICENSE": "verbatim",
}
TEXT_SUFFIXES = {
    ".py",
    ".cpp",
    ".hpp",
    ".h",
    ".c",
    ".md",
    ".toml",
    ".txt",
    ".cmake",
    ".sh",
    ".yml",
    ".yaml",
    ".json",
    "",
}


def files(root: Path, *suffixes: str, under: str = "") -> Iterator[tuple[str, Path]]:
    """Files of the tree that belong to it: what git knows or would add; without git, everything but build products."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    else:
        names = [str(path.relative_to(root)) for path in sorted(root.rglob("*"))]
    for name in names:
        path = root / name
        skipped = name.startswith((".git/", ".venv/", "build/", *RECORDED)) or "__pycache__" in name
        if (
            name
            and name.startswith(under)
            and not skipped
            and path.is_file()
            and path.suffix in (suffixes or (path.suffix,))
        ):
            yield name, path


# --- Leaves ----------------------------------------------------------------------------------------------------------


def leaf_faults(root: Path) -> Iterator[str]:
    """A leaf has its line in the catalogue, its test and its benchmark; a line has its leaf."""
    catalogue = "\n".join(path.read_text() for _, path in files(root, ".hpp", ".cpp", under="cpp/engine/catalog."))
    benches = "\n".join(path.read_text() for _, path in files(root, ".cpp", ".py", under="bench/"))
    for folder, (macro, kind) in LEAVES.items():
        found = re.search(rf"#define {macro}\(X\)((?:.*\\\n)*.*)", catalogue)
        listed = set(re.findall(r"\bX\((\w+)\)", found[1])) if found else set()
        leaves = {}
        for name, path in files(root, ".cpp", under=f"{folder}/"):
            text = path.read_text()
            for leaf in re.findall(rf"\b\w+Descriptor (\w+)_{kind}\s*[={{]", text):
                leaves[leaf] = (name, text)
        for leaf in sorted(listed - set(leaves)):
            yield f"cpp/engine/catalog: X({leaf}): expected {folder}/{leaf}.cpp with its descriptor, found none"
        for leaf, (name, text) in leaves.items():
            exempt = set(LEAF_EXEMPTION.findall(text))
            if leaf not in listed:
                yield f"{name}: expected X({leaf}) in {macro}, found none"
            if Path(name).parent == Path(folder) and Path(name).stem != leaf:
                yield f"{name}: expected the leaf '{leaf}' in {leaf}.cpp"
            test = f"tests/{folder}/test_{leaf}.cpp"
            if "test" not in exempt and not (root / test).exists():
                yield f"{name}: expected {test}, found none"
            if "bench" not in exempt and not re.search(rf"\b{leaf}(_{kind})?\b", benches):
                yield f"{name}: expected a benchmark in bench/ that names it, found none"


# --- Functions and lines ---------------------------------------------------------------------------------------------


def long_functions(root: Path) -> Iterator[str]:
    """No function is longer than a screen and a half; docstrings do not count."""
    for name, path in files(root, ".cpp", ".hpp", under="cpp/"):
        for line, length, function in cpp_functions(path.read_text()):
            if length > FUNCTION_LINES and f"{name}:{function}" not in LONG_FUNCTIONS:
                yield f"{name}:{line}: {function}: expected at most {FUNCTION_LINES} lines, found {length}"
    for under in ("python/", "tools/", "bench/"):
        for name, path in files(root, ".py", under=under):
            for line, length, function in python_functions(name, path.read_text()):
                if length > FUNCTION_LINES and f"{name}:{function}" not in LONG_FUNCTIONS:
                    yield f"{name}:{line}: {function}: expected at most {FUNCTION_LINES} lines, found {length}"


def python_functions(name: str, text: str) -> Iterator[tuple[int, int, str]]:
    """Line, length without docstring, and name of every function."""
    for node in ast.walk(ast.parse(text, name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            described = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            documentation = (first.end_lineno or 0) - first.lineno + 1 if described else 0
            yield node.lineno, (node.end_lineno or 0) - node.lineno + 1 - documentation, node.name


def without_comments(text: str) -> str:
    """C++ with comments, strings and characters blanked; lines stay where they are."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.DOTALL
    )
    return token.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def cpp_functions(text: str) -> Iterator[tuple[int, int, str]]:
    """Line, length and name of every outermost function body: a brace after a parameter list, outside any other."""
    code = re.sub(r"^[ \t]*#(?:.*\\\n)*.*$", lambda m: re.sub(r"[^\n]", " ", m[0]), without_comments(text), flags=re.M)
    stack: list[tuple[bool, int, str]] = []
    header = 0
    for found in re.finditer(r"[{};]", code):
        at, mark = found.start(), found[0]
        if mark == "{":
            words = code[header:at]
            inside = any(is_function for is_function, _, _ in stack)
            named = re.search(r"([~\w:]+|operator\W+)\s*\(", words)
            scope = re.search(r"\b(namespace|class|struct|union|enum)\b[^()]*$", words)
            is_function = not inside and named is not None and scope is None and "=" not in words.split("(")[0]
            begin = header + len(words) - len(words.lstrip())
            stack.append((is_function, code.count("\n", 0, begin) + 1, named[1] if named else ""))
        elif mark == "}" and stack:
            is_function, line, name = stack.pop()
            if is_function:
                yield line, code.count("\n", 0, at) + 2 - line, name
        header = at + 1


def long_lines(root: Path) -> Iterator[str]:
    """C++ lines are as long as Python's, which the formatter holds."""
    for name, path in files(root, ".cpp", ".hpp"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > CPP_COLUMNS:
                yield f"{name}:{number}: expected at most {CPP_COLUMNS} columns, found {len(line)}"


# --- Words, docstrings, imports, names -------------------------------------------------------------------------------


def banned_words(root: Path) -> Iterator[str]:
    """The repository speaks of Argus only, and of finished work."""
    for name, path in files(root):
        if name in BANNED_EXEMPTIONS or path.suffix not in TEXT_SUFFIXES:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            for meaning, pattern in BANNED.items():
                found = pattern.search(line)
                if found:
                    yield f"{name}:{number}: expected no {meaning}, found {found[0]!r}"


def undocumented_modules(root: Path) -> Iterator[str]:
    """Every module says what it is for; an empty package file has nothing to say."""
    for under in ("python/argus/", "tools/", "bench/"):
        for name, path in files(root, ".py", under=under):
            text = path.read_text()
            if text.strip() and ast.get_docstring(ast.parse(text)) is None:
                yield f"{name}:1: expected a module docstring, found none"


def wildcard_imports(root: Path) -> Iterator[str]:
    """Every name can be traced to where it comes from."""
    for name, path in files(root, ".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield f"{name}:{node.lineno}: expected named imports, found *"


def missing_guards(root: Path) -> Iterator[str]:
    """A header is read once."""
    for name, path in files(root, ".hpp"):
        if not re.search(r"^#pragma once$", path.read_text(), re.MULTILINE):
            yield f"{name}: expected #pragma once, found none"


def repeated_test_names(root: Path) -> Iterator[str]:
    """Test files are told apart by their name: pytest imports them so."""
    seen = Counter(path.name for _, path in files(root, ".py", under="tests/") if path.name.startswith("test_"))
    for name, count in seen.items():
        if count > 1:
            yield f"tests: expected one {name}, found {count}"


RULES: tuple[Callable[[Path], Iterator[str]], ...] = (
    leaf_faults,
    long_functions,
    long_lines,
    banned_words,
    undocumented_modules,
    wildcard_imports,
    missing_guards,
    repeated_test_names,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_this_tree_is_tidy(rule):
    found = list(rule(ROOT))
    assert not found, "\n" + "\n".join(found)


# --- The rules themselves --------------------------------------------------------------------------------------------

LEAF = "const SourceDescriptor cpu_source{};\n"
CATALOGUE = "#define ARGUS_SOURCES(X) \\\n    X(cpu) \\\n    X(disk)\n"
LONG_BODY = "    f();\n" * FUNCTION_LINES


@pytest.mark.parametrize(
    ("rule", "tree", "expected"),
    [
        (leaf_faults, {"cpp/sources/cpu.cpp": LEAF}, "expected X(cpu) in ARGUS_SOURCES"),
        (leaf_faults, {"cpp/engine/catalog.hpp": CATALOGUE}, "X(disk): expected cpp/sources/disk.cpp"),
        (leaf_faults, {"cpp/sources/cpu.cpp": LEAF}, "expected tests/cpp/sources/test_cpu.cpp"),
        (leaf_faults, {"cpp/sources/cpu.cpp": LEAF}, "expected a benchmark in bench/ that names it"),
        (leaf_faults, {"cpp/sources/other.cpp": LEAF}, "expected the leaf 'cpu' in cpu.cpp"),
        (
            long_functions,
            {"cpp/base/a.cpp": f"namespace a {{\nint g(int x) {{\n{LONG_BODY}}}\n}}\n"},
            ":2: g: expected",
        ),
        (long_functions, {"cpp/base/a.hpp": f"struct A {{\n  A() : b_(1) {{\n{LONG_BODY}}}\n}};\n"}, ":2: A: expected"),
        (long_functions, {"python/argus/a.py": "def f():\n" + "    g()\n" * 71}, "python/argus/a.py:1: f: expected"),
        (long_lines, {"tests/cpp/a.cpp": "//" + "x" * 119}, "a.cpp:1: expected at most 120 columns, found 121"),
        (banned_words, {"README.md": "a\n" + "TO" + "DO later"}, "README.md:2: expected no unfinished work"),
        (banned_words, {"docs/a.md": "see /ho" + "me/me/x"}, "expected no a path of one machine"),
        (banned_words, {".ci/run": "https://py" + "pi.org/simple"}, "expected no the host of a package registry"),
        (
            undocumented_modules,
            {"python/argus/a.py": "import os\n"},
            "python/argus/a.py:1: expected a module docstring",
        ),
        (wildcard_imports, {"tests/a.py": "from os import *\n"}, "tests/a.py:1: expected named imports"),
        (missing_guards, {"cpp/base/a.hpp": "int a;\n"}, "cpp/base/a.hpp: expected #pragma once"),
        (repeated_test_names, {"tests/a/test_x.py": "", "tests/b/test_x.py": ""}, "expected one test_x.py, found 2"),
    ],
)
def test_a_rule_sees_what_breaks_it(tmp_path, rule, tree, expected):
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = list(rule(tmp_path))
    assert any(expected in line for line in found), found


def test_a_complete_leaf_is_in_order(tmp_path):
    """Also one that says why it has no benchmark; helpers beside leaves are no leaves."""
    for name, text in {
        "cpp/engine/catalog.hpp": CATALOGUE,
        "cpp/sources/cpu.cpp": LEAF,
        "cpp/sources/disk.cpp": "// No bench: opened once at start only\nconst SourceDescriptor disk_source = {};\n",
        "cpp/sources/kernel_file.cpp": "int read_file() { return 0; }\n",
        "tests/cpp/sources/test_cpu.cpp": "",
        "tests/cpp/sources/test_disk.cpp": "",
        "bench/cpp/bench_sources.cpp": "poll(cpu_source);",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [] == list(leaf_faults(tmp_path))


def test_functions_are_told_from_other_braces():
    text = (
        "namespace argus {\n"
        "constexpr int kTable[] = {1, 2};  // {\n"
        'const char* kText = "{ ( ) {";\n'
        "struct S final : Base {\n"
        "    int a = f(3);\n"
        "    void method() const noexcept override {\n"
        "        if (a) { b(); }\n"
        "        auto l = [&](int x) { return x; };\n"
        "    }\n"
        "};\n"
        "template <typename T>\n"
        "auto free_function(T t) -> int {\n"
        "    return 1'000'000 + t;\n"
        "}\n"
        "}\n"
    )
    assert [(6, 4, "method"), (11, 4, "free_function")] == list(cpp_functions(text))
