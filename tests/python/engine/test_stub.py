"""The stub of the compiled module names what the module has, class by class."""

from __future__ import annotations

import ast
from pathlib import Path

import argus
from argus import _core

STUB = ast.parse((Path(argus.__file__).parent / "_core.pyi").read_text())


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def declared(body: list[ast.stmt]) -> set[str]:
    names = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    names += [n.target.id for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    return public(names)


def test_the_stub_and_the_module_have_the_same_names():
    assert declared(STUB.body) == public(dir(_core))


def test_each_class_has_the_same_members():
    for node in STUB.body:
        if isinstance(node, ast.ClassDef) and node.name != "EpochWordError":
            assert declared(node.body) == public(dir(getattr(_core, node.name))), node.name
