"""What the documentation says of the host plane is so: its groups are the catalogue's, its expressions give values."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import argus
from argus.engine.core import catalog

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "host.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| `([^|]+)` \|$", PAGE.split("## From psutil")[1], re.MULTILINE)


def test_every_group_of_the_catalogue_is_named_in_its_lane():
    listed = {
        lane: set(re.findall(r"`(\w+)`", text)) for lane, text in re.findall(r"^\| (fast|slow) \| (.*) \|$", PAGE, re.M)
    }
    assert listed["fast"] | listed["slow"] == {source["name"] for source in catalog()["sources"]}
    assert not listed["fast"] & listed["slow"]
    assert {s["name"] for s in catalog()["sources"] if s["interval_ms"] > 1000} <= listed["slow"]


@pytest.fixture(scope="module")
def read() -> dict[str, object]:
    return {"h": argus.Host().read().as_dict(), "t": argus.Processes().read()}


@pytest.mark.parametrize(("psutil_words", "expression"), ROWS, ids=[row[0] for row in ROWS])
def test_an_expression_of_the_migration_table_gives_a_value(
    psutil_words: str, expression: str, read: dict[str, object]
):
    value = eval(expression, {"__builtins__": {"bytes": bytes}}, read)
    assert np.size(value) > 0 if not isinstance(value, dict) else True


def test_the_table_agrees_with_psutil_where_the_machine_stands_still(read: dict[str, object]):
    psutil = pytest.importorskip("psutil")
    expressions = dict(ROWS)
    assert len(ROWS) > 20
    for words in ("cpu_count()", "virtual_memory().total"):
        ours = eval(expressions[words], {"__builtins__": {}}, read)
        assert ours == eval(f"psutil.{words}", {"psutil": psutil})
