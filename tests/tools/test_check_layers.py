"""The floor table, on trees made for it and on this one."""

from __future__ import annotations

from pathlib import Path

import pytest

import check_layers

ROOT = Path(__file__).resolve().parents[2]


def violations(root: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [str(v) for v in (*check_layers.cpp_violations(root), *check_layers.python_violations(root))]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("cpp/base/a.hpp", '#include "model/x.hpp"', ":1: base includes model, which is not below it"),
        ("cpp/sources/a.cpp", '\n#include "detectors/x.hpp"', ":2: sources includes detectors, which is not below it"),
        ("cpp/auditors/a.cpp", '#  include "engine/x.hpp"', ":1: auditors includes engine, which is not below it"),
        ("cpp/base/a.hpp", '#include "b.hpp"', ':1: expected an include by its path from cpp/, found "b.hpp"'),
        ("cpp/engine/a.cpp", "#include <pybind11/numpy.h>", ":1: engine includes <pybind11/numpy.h>: Python is known"),
        ("cpp/extra/a.hpp", "", ":1: expected a floor of cpp/, found 'extra'"),
        ("python/argus/config.py", "from argus.cli import main", ":1: config imports cli, which is not below it"),
        ("python/argus/judge/a.py", "import argus.services.x", ":1: judge imports services, which is not below it"),
        ("python/argus/record/a.py", "def f():\n    from argus.wire import x", ":2: record imports wire, which is not"),
        ("python/argus/record/a.py", "from ..wire import x", ":1: record imports wire, which is not below it"),
        (
            "python/argus/judge/a.py",
            "from argus import _core",
            ":1: judge imports argus._core: argus.engine alone does",
        ),
        ("python/argus/cli/a.py", "import argus._core as c", ":1: cli imports argus._core: argus.engine alone does"),
        ("python/argus/cli/a.py", "from argus import Engine", ":1: cli imports from argus itself: name the module"),
        ("python/argus/extra.py", "", ":1: expected a floor of argus, found 'extra'"),
        ("python/argus/guard.py", "import msgpack", ":1: argus.guard loads msgpack; it may not load anything but"),
        (
            "python/argus/guard.py",
            "import argus.errors",
            ":1: argus.guard loads argus.errors; it may not load anything",
        ),
        (
            "python/argus/__init__.py",
            "import argus.schema",
            ":1: argus loads argus.schema: its names load on first use",
        ),
        ("python/argus/wire/emitter.py", "import numpy as np", ":1: argus.wire.emitter loads numpy; it may not load"),
    ],
)
def test_a_line_that_reaches_upwards_is_named(tmp_path, path, text, message):
    found = violations(tmp_path, {path: text})
    assert any(line.startswith(path + message) for line in found), found


def test_what_a_light_module_loads_through_another_counts(tmp_path):
    """The package's own __init__ runs too; what a function imports later does not."""
    found = violations(
        tmp_path,
        {
            "python/argus/engine/__init__.py": "import numpy",
            "python/argus/wire/__init__.py": "",
            "python/argus/wire/emitter.py": "from argus.record import frames\n",
            "python/argus/record/frames.py": "def f():\n    import numpy\nfrom argus.engine.host import Host\n",
            "python/argus/engine/host.py": "",
        },
    )
    assert (
        "python/argus/record/frames.py:3: argus.wire.emitter loads argus.engine.host "
        "(by argus.wire.emitter -> argus.record.frames); it may not load argus.engine or numpy"
    ) in found
    assert not any(":2:" in line for line in found)


def test_a_tree_in_order_has_no_violations(tmp_path):
    files = {
        "cpp/ring/a.hpp": '#include <vector>\n#include "base/b.hpp"\n#include "ring/c.hpp"\n',
        "cpp/bindings/m.cpp": '#include <pybind11/pybind11.h>\n#include "engine/e.hpp"\n',
        "python/argus/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import argus.guard\n",
        "python/argus/guard.py": "import os\nfrom json import loads\n",
        "python/argus/engine/host.py": "import numpy\nfrom argus import _core\nfrom argus.errors import ArgusError\n",
        "python/argus/killswitch/control.py": "from argus import guard\nfrom argus.record import journal\n",
        "python/argus/record/journal.py": "",
        "python/argus/errors.py": "",
    }
    assert [] == violations(tmp_path, files)


def test_this_tree_is_in_order(capsys):
    assert 0 == check_layers.main([str(ROOT)]), capsys.readouterr().out
