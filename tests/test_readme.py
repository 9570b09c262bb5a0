"""The README is true: its snippets run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"^```(sh|python)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
RUNNABLE = [(language, body) for language, body in SNIPPETS if "tools/up.py" not in body]


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ARGUS_")}
    return {**clean, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_the_readme_names_the_two_commands_and_ci_runs_the_second():
    setup = [body for _, body in SNIPPETS if "tools/up.py" in body]
    assert len(setup) == 1
    commands = [line.split("#")[0].strip() for line in setup[0].splitlines()]
    assert commands == ["python3 tools/up.py", "python3 tools/up.py test"]
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(("language", "body"), RUNNABLE, ids=[body.splitlines()[0][:50] for _, body in RUNNABLE])
def test_snippet_runs(language: str, body: str, tmp_path: Path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    words = [sys.executable, "-W", "error", "-c", body] if language == "python" else ["bash", "-euc", body]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_drill_capture_is_one():
    capture = re.search(r"<!-- drill -->\n```text\n(.*?)```", TEXT, re.DOTALL)
    assert capture is not None
    for step in (
        "detected",
        "flag visible",
        "durable",
        "every pid gone",
        "P0 issue",
        "journal verified",
        "drill passed",
    ):
        assert step in capture[1]
