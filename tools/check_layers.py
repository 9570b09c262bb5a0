#!/usr/bin/env python3
"""Holds the floors: lower ones never include or import higher ones. Exit status 1 lists every violation as file:line.

    python3 tools/check_layers.py [ROOT]

Standard library only.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Rank by floor: a file may use floors of a lower rank and its own; floors of one rank do not know each other.
CPP_FLOORS = {
    "base": 0,
    "model": 1,
    "ring": 2,
    "sources": 3,
    "detectors": 3,
    "events": 3,
    "auditors": 4,
    "engine": 5,
    "bindings": 6,
}
PYTHON_FLOORS = {
    "errors": 0,
    "guard": 0,
    "schema": 1,
    "engine": 2,
    "config": 3,
    "record": 4,
    "killswitch": 5,
    "wire": 6,
    "judge": 7,
    "insight": 8,
    "services": 9,
    "cli": 10,
}
CORE = "argus._core"  # the compiled module: argus/engine alone imports it
# What a module may not load, itself or through another: agents import these two, and pay for what they load.
LIGHT_MODULES = {
    "argus.guard": "anything but the standard library",
    "argus.wire.emitter": "argus.engine or numpy",
}
_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Violation(NamedTuple):
    """A line that reaches upwards."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


# --- C++ -------------------------------------------------------------------------------------------------------------


def cpp_violations(root: Path) -> Iterator[Violation]:
    """Includes in cpp/ that break the order, name no floor, or bring Python below bindings."""
    for path in sorted([*(root / "cpp").rglob("*.hpp"), *(root / "cpp").rglob("*.cpp")]):
        floor = path.relative_to(root / "cpp").parts[0]
        where = path.relative_to(root)
        if floor not in CPP_FLOORS:
            yield Violation(where, 1, f"expected a floor of cpp/, found {floor!r}")
            continue
        for number, text in enumerate(path.read_text().splitlines(), 1):
            found = _INCLUDE.match(text)
            if found:
                message = _include_fault(floor, *found.groups())
                if message:
                    yield Violation(where, number, message)


def _include_fault(floor: str, bracket: str, target: str) -> str | None:
    if bracket == "<":
        if floor != "bindings" and (target.startswith("pybind11/") or target == "Python.h"):
            return f"{floor} includes <{target}>: Python is known to bindings alone"
        return None
    used = target.split("/")[0]
    if "/" not in target or used not in CPP_FLOORS:
        return f'expected an include by its path from cpp/, found "{target}"'
    if used != floor and CPP_FLOORS[used] >= CPP_FLOORS[floor]:
        return f"{floor} includes {used}, which is not below it"
    return None


# --- Python ----------------------------------------------------------------------------------------------------------


class Import(NamedTuple):
    """An imported module; `lazy` = inside a function, or for types only: not loaded with the importing module."""

    module: str
    line: int
    lazy: bool


def python_violations(root: Path) -> Iterator[Violation]:
    """Imports in python/argus that break the order, reach the compiled core, or make a light module heavy."""
    base = root / "python"
    files = {_module(path.relative_to(base)): path for path in sorted((base / "argus").rglob("*.py"))}
    imports = {name: list(_imports(name, path, set(files))) for name, path in files.items()}
    for name, path in files.items():
        where = path.relative_to(root)
        if name == "argus":
            for item in imports[name]:
                if not item.lazy and item.module.split(".")[0] not in sys.stdlib_module_names:
                    yield Violation(where, item.line, f"argus loads {item.module}: its names load on first use")
            continue
        floor = name.split(".")[1]
        if floor not in PYTHON_FLOORS:
            yield Violation(where, 1, f"expected a floor of argus, found {floor!r}")
            continue
        for item in imports[name]:
            message = _import_fault(floor, item.module)
            if message:
                yield Violation(where, item.line, message)
    for name, refused in LIGHT_MODULES.items():
        if name in files:
            yield from _heavy(root, name, files, imports, refused)


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Every import of a file, by the full name of the module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            parent = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = ".".join(part for part in (parent if node.level else "", node.module or "") if part)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield Import(whole if whole in known or whole == CORE else base, node.lineno, lazy)
        for child in ast.iter_child_nodes(node):
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, lazy or inside or _for_types(node, child))

    yield from visit(ast.parse(path.read_text(), str(path)), False)


def _for_types(node: ast.AST, child: ast.AST) -> bool:
    """Whether `child` is in the body of `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and child in node.body and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _import_fault(floor: str, module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "argus":
        return None
    if module == CORE or module.startswith(f"{CORE}."):
        return None if floor == "engine" else f"{floor} imports {CORE}: argus.engine alone does"
    if len(parts) == 1:
        return f"{floor} imports from argus itself: name the module that holds it"
    used = parts[1]
    if used not in PYTHON_FLOORS:
        return f"{floor} imports {module}, which has no floor"
    if used != floor and PYTHON_FLOORS[used] >= PYTHON_FLOORS[floor]:
        return f"{floor} imports {used}, which is not below it"
    return None


def _heavy(
    root: Path, name: str, files: dict[str, Path], imports: dict[str, list[Import]], refused: str
) -> Iterator[Violation]:
    """What a light module loads and may not, with the way there."""
    seen: set[str] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(name, (name,))]
    while waiting:
        module, way = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for item in imports[module]:
            if item.lazy:
                continue
            if _is_refused(name, item.module):
                where = files[module].relative_to(root)
                via = f" (by {' -> '.join(way)})" if len(way) > 1 else ""
                yield Violation(where, item.line, f"{name} loads {item.module}{via}; it may not load {refused}")
            parents = item.module.split(".")
            for length in range(2, len(parents) + 1):  # importing a.b.c runs a.b too
                ancestor = ".".join(parents[:length])
                if ancestor in imports:
                    waiting.append((ancestor, (*way, ancestor)))


def _is_refused(name: str, module: str) -> bool:
    if name == "argus.guard":
        return module.split(".")[0] not in sys.stdlib_module_names
    return module == "numpy" or module.startswith(("numpy.", "argus.engine", CORE))


def main(arguments: list[str]) -> int:
    """Print the violations; exit status 1 when there are any."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    found = [*cpp_violations(root), *python_violations(root)]
    for violation in found:
        print(violation)
    print(f"layers: {len(found)} violations" if found else "layers: ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
