"""Every entry of the catalogue keeps the contract: documented, bounded, configurable at its bounds, and it can be off."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from argus import config
from argus.engine.core import Engine, EngineOptions, SourceChoice, catalog
from argus.errors import ConfigError, UsageError

CATALOG = catalog()
LEAF_TABLES = ("detectors", "auditors", "criteria")
LEAVES = [(table, leaf) for table in LEAF_TABLES for leaf in CATALOG[table]]
OPTIONS = [(table, leaf["name"], option) for table, leaf in LEAVES for option in leaf["options"]]
ENTRIES = [(table, entry) for table, entries in CATALOG.items() for entry in entries]
FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "6.18"
UNITS = {"1", "s", "ms", "ns", "By", "USD", "%"}

each_entry = pytest.mark.parametrize(("table", "entry"), ENTRIES, ids=lambda x: x if isinstance(x, str) else x["name"])
each_leaf = pytest.mark.parametrize(("table", "leaf"), LEAVES, ids=lambda x: x if isinstance(x, str) else x["name"])
each_option = pytest.mark.parametrize(
    ("table", "leaf", "option"), OPTIONS, ids=lambda x: x if isinstance(x, str) else x["name"]
)
each_source = pytest.mark.parametrize("source", CATALOG["sources"], ids=lambda source: source["name"])


def on_fixture(**options: Any) -> EngineOptions:
    return EngineOptions(proc=str(FIXTURE / "proc"), sys=str(FIXTURE / "sys"), **options)


def load(folder: Path, text: str) -> config.Config:
    path = folder / "argus.toml"
    path.write_text(text)
    return config.load(path, environ={})


def toml(value: float) -> str:
    """A number as TOML writes it, exactly."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def test_the_catalogue_has_every_table_and_none_is_empty():
    assert set(CATALOG) == {"sources", "detectors", "auditors", "criteria"}
    assert all(CATALOG.values())


def test_names_are_unique_over_all_tables_because_disabled_tells_them_apart_by_name_alone():
    names = [entry["name"] for _, entry in ENTRIES]
    assert len(set(names)) == len(names)


@each_entry
def test_an_entry_is_documented_on_one_line(table: str, entry: dict[str, Any]):
    assert entry["name"].isidentifier()
    assert len(entry["documentation"]) >= 20
    assert entry["documentation"].isprintable()
    assert entry["documentation"] == entry["documentation"].strip()


@pytest.mark.parametrize("leaf", CATALOG["detectors"] + CATALOG["auditors"], ids=lambda leaf: leaf["name"])
def test_a_method_names_where_it_comes_from(leaf: dict[str, Any]):
    assert len(leaf["reference"]) >= 10


@pytest.mark.parametrize("criterion", CATALOG["criteria"], ids=lambda criterion: criterion["name"])
def test_a_criterion_justifies_a_stop(criterion: dict[str, Any]):
    assert criterion["severity"] == {"C": "critical", "W": "warning"}[criterion["name"][0]]
    assert criterion["options"]


@each_source
def test_a_source_says_what_it_needs_and_what_mends_its_absence(source: dict[str, Any]):
    assert source["requires"]
    assert source["fix"]
    assert 10 <= source["interval_ms"] <= 60_000


@each_option
def test_an_option_has_unit_documentation_and_bounds_around_its_default(table: str, leaf: str, option: dict[str, Any]):
    assert option["name"].isidentifier()
    assert option["unit"] in UNITS
    assert len(option["documentation"]) >= 8
    assert all(math.isfinite(option[key]) for key in ("min", "default", "max"))
    assert option["min"] <= option["default"] <= option["max"]
    assert option["min"] < option["max"]
    if option["unit"] in ("s", "ms", "USD"):
        assert option["name"].endswith("_" + option["unit"].lower())


@each_leaf
def test_options_have_names_of_their_own(table: str, leaf: dict[str, Any]):
    names = [option["name"] for option in leaf["options"]]
    assert len(set(names)) == len(names)
    assert "enabled" not in names


@each_option
def test_the_configuration_takes_an_option_at_its_bounds(tmp_path: Path, table: str, leaf: str, option: dict[str, Any]):
    for value in (option["min"], option["max"]):
        loaded = load(tmp_path, f"[{table}.{leaf}]\n{option['name']} = {toml(value)}\n")
        assert getattr(loaded, table)[leaf].options[option["name"]] == value
        Engine(loaded, host_plane=False).close()


@each_option
def test_configuration_and_engine_refuse_an_option_beyond_its_bounds_by_name_and_range(
    tmp_path: Path, table: str, leaf: str, option: dict[str, Any]
):
    where = f"{table}.{leaf}.{option['name']}"
    for value in (math.nextafter(option["min"], -math.inf), option["max"] * 1.01 + 1):
        with pytest.raises(ConfigError, match=f"argus.toml:2: {where}: expected number in ") as refused:
            load(tmp_path, f"[{table}.{leaf}]\n{option['name']} = {value:.330f}\n")
        assert str(refused.value).endswith("not started")
        with pytest.raises(UsageError, match=f"{where}: expected a number in "):
            Engine(EngineOptions(**{table: {leaf: {option["name"]: value}}}), host_plane=False)


def test_defaults_of_the_configuration_are_those_of_the_descriptors():
    loaded = config.defaults(environ={})
    for table, leaf in LEAVES:
        assert getattr(loaded, table)[leaf["name"]].enabled
        assert getattr(loaded, table)[leaf["name"]].options == {o["name"]: o["default"] for o in leaf["options"]}
    assert {name: s.interval_ms for name, s in loaded.sources.items()} == {
        s["name"]: s["interval_ms"] for s in CATALOG["sources"]
    }


@each_source
def test_the_configuration_takes_an_interval_at_its_bounds_and_refuses_one_beyond(
    tmp_path: Path, source: dict[str, Any]
):
    for interval in (10, 60_000):
        loaded = load(tmp_path, f"[sources.{source['name']}]\ninterval_ms = {interval}\n")
        options = {o["name"]: o["default"] for o in source["options"]}
        assert loaded.engine_options().sources[source["name"]] == SourceChoice(interval_ms=interval, options=options)
        Engine(loaded).close()
    for interval in (9, 60_001):
        with pytest.raises(ConfigError, match=f"sources.{source['name']}.interval_ms: expected integer in "):
            load(tmp_path, f"[sources.{source['name']}]\ninterval_ms = {interval}\n")


@each_entry
def test_an_entry_can_be_off_and_the_engine_still_starts(tmp_path: Path, table: str, entry: dict[str, Any]):
    loaded = load(
        tmp_path,
        f'[host]\nproc = "{FIXTURE}/proc"\nsys = "{FIXTURE}/sys"\n[{table}.{entry["name"]}]\nenabled = false\n',
    )
    for options in (loaded, on_fixture(disabled=frozenset({entry["name"]}))):
        with Engine(options) as engine:
            engine.start()
            assert engine.step(1) == []
            states = {s["name"]: s["state"] for s in engine.statistics()["sources_read"]}
        off = [name for name, state in states.items() if state == "disabled"]
        assert off == ([entry["name"]] if table == "sources" else [])


@pytest.mark.parametrize("tables", [*itertools.combinations(CATALOG, 2), tuple(CATALOG)], ids="+".join)
def test_whole_tables_can_be_off_together(tables: tuple[str, ...]):
    off = frozenset(entry["name"] for table, entry in ENTRIES if table in tables)
    with Engine(on_fixture(disabled=off)) as engine:
        assert engine.step(1) == []
        assert engine.statistics()["failed"] is False


@each_leaf
def test_every_leaf_is_explained_in_the_written_configuration(table: str, leaf: dict[str, Any]):
    written = config.to_toml(config.defaults(environ={}))
    assert f"[{table}.{leaf['name']}]" in written
    for option in leaf["options"]:
        assert f"\n{option['name']} = " in written
