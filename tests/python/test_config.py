"""Configuration: defaults, every kind of bad input with its exact words, exact money, the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus import config as configuration
from argus.config import Config, defaults, load, locate, to_toml
from argus.errors import ConfigError

CATALOG: dict[str, Any] = {
    "sources": [
        {"name": "cpu", "documentation": "Times.", "requires": "Linux", "fix": "none", "interval_ms": 1000},
        {"name": "pressure", "documentation": "Stalls.", "requires": "CONFIG_PSI", "fix": "psi=1", "interval_ms": 2000},
    ],
    "detectors": [
        {
            "name": "residual",
            "documentation": "Distance from the forecast.",
            "reference": "Page 1954",
            "options": [
                {
                    "name": "half_life_s",
                    "unit": "s",
                    "default": 300.0,
                    "min": 1.0,
                    "max": 86400.0,
                    "documentation": "Memory.",
                },
                {"name": "share", "unit": "1", "default": 0.25, "min": 0.0, "max": 1.0, "documentation": "A share."},
            ],
        }
    ],
    "auditors": [{"name": "loop", "documentation": "Repeats.", "reference": "", "options": []}],
    "criteria": [{"name": "C1", "severity": "critical", "documentation": "A cap is reached.", "options": []}],
}


def read(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "argus.toml"
    path.write_text(text)
    return load(path, catalog=CATALOG, environ=environ)


def refused(tmp_path: Path, text: str) -> list[str]:
    """The lines of the refusal, without the folder."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "").split("\n")


def test_defaults_are_complete():
    """Every catalogue entry has its settings, whether a file names it or not."""
    config = defaults(catalog=CATALOG, environ={})
    assert ["cpu", "pressure"] == list(config.sources)
    assert 2000 == config.sources["pressure"].interval_ms
    assert {"half_life_s": 300.0, "share": 0.25} == config.detectors["residual"].options
    assert config.criteria["C1"].enabled and config.auditors["loop"].enabled
    assert None is config.budgets.host_nusd
    assert Path("argus-data") == config.home
    assert Path("control") == config.control
    assert "ipc://argus-data/events.sock" == config.inlets.ipc


def test_an_empty_file_is_the_defaults(tmp_path):
    assert defaults(catalog=CATALOG, environ={}) == read(tmp_path, "")


def test_options_come_in_the_descriptor_order(tmp_path):
    """The core takes option values by position, so the file's order must not matter."""
    config = read(tmp_path, "[detectors.residual]\nshare = 1\nhalf_life_s = 2.5\nenabled = false\n")
    assert [("half_life_s", 2.5), ("share", 1.0)] == list(config.detectors["residual"].options.items())
    assert not config.detectors["residual"].enabled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[engin]\ntick_ms = 5\n",
            "argus.toml:1: engin: expected the name of a table, found 'engin' (nearest: 'engine'); not started",
        ),
        (
            "\n\n[engine]\ntick_msec = 5\n",
            "argus.toml:4: engine.tick_msec: expected a key of [engine], found 'tick_msec' "
            "(nearest: 'tick_ms'); not started",
        ),
        (
            "[detectors.residuals]\nenabled = true\n",
            "argus.toml:1: detectors.residuals: expected the name of a detector, found 'residuals' "
            "(nearest: 'residual'); not started",
        ),
        (
            "[criteria]\nZZ = {}\n",
            "argus.toml:2: criteria.ZZ: expected the name of a criterion, found 'ZZ'; not started",
        ),
        (
            "[outlets.zqm]\n",
            "argus.toml:1: outlets.zqm: expected the name of an outlet, found 'zqm' (nearest: 'zmq'); not started",
        ),
        (
            "[sources.cpu]\ninterval_ms = 5\n",
            "argus.toml:2: sources.cpu.interval_ms: expected integer in [10, 60000], found 5; not started",
        ),
        (
            "[sources.cpu]\ninterval_ms = true\n",
            "argus.toml:2: sources.cpu.interval_ms: expected integer in [10, 60000], found true; not started",
        ),
        (
            "[engine]\ntick_ms = 1000.0\n",
            "argus.toml:2: engine.tick_ms: expected integer in [10, 60000], found 1000.0; not started",
        ),
        (
            "[engine]\nhistory_secs = -1\n",
            "argus.toml:2: engine.history_secs: expected integer in [60, 86400], found -1; not started",
        ),
        (
            "[detectors.residual]\nshare = 1.5\n",
            "argus.toml:2: detectors.residual.share: expected number in [0, 1], found 1.5; not started",
        ),
        (
            "[detectors.residual]\nshare = nan\n",
            "argus.toml:2: detectors.residual.share: expected number in [0, 1], found NaN; not started",
        ),
        (
            "[detectors.residual]\nshare = 1" + "0" * 400 + "\n",
            "argus.toml:2: detectors.residual.share: expected number in [0, 1], found 1" + "0" * 400 + "; not started",
        ),
        (
            "[sources.cpu]\nenabled = 1\n",
            "argus.toml:2: sources.cpu.enabled: expected true or false, found 1; not started",
        ),
        ("host = 3\n", "argus.toml:1: host: expected a table, found 3; not started"),
        ("[[host]]\nproc = '/p'\n", "argus.toml:1: host: expected a table, found a list; not started"),
        ("[sources]\ncpu = false\n", "argus.toml:2: sources.cpu: expected a table, found false; not started"),
        ("[host]\nproc = 7\n", "argus.toml:2: host.proc: expected text, found 7; not started"),
        ("[host]\nproc = 2020-01-01\n", "argus.toml:2: host.proc: expected text, found a date; not started"),
        (
            "[killswitch]\nmode = 'enforced'\n",
            "argus.toml:2: killswitch.mode: expected one of 'enforce', 'observe', found 'enforced' "
            "(nearest: 'enforce'); not started",
        ),
        (
            "[killswitch]\nmode = '\\u001b'\n".replace("'", '"'),
            "argus.toml:2: killswitch.mode: expected one of 'enforce', 'observe', found '\\x1b'; not started",
        ),
        (
            "[budgets]\nhost_usd = 0.0000000001\n",
            "argus.toml:2: budgets.host_usd: expected amount in USD above 0, at most 9.2e9, at most 9 decimals, "
            "found 1E-10; not started",
        ),
        (
            "[budgets]\nhost_usd = '1,50'\n",
            "argus.toml:2: budgets.host_usd: expected amount in USD above 0, at most 9.2e9, at most 9 decimals, "
            "found '1,50'; not started",
        ),
        (
            "[budgets]\nhost_usd = 0\n",
            "argus.toml:2: budgets.host_usd: expected amount in USD above 0, at most 9.2e9, at most 9 decimals, "
            "found 0; not started",
        ),
        (
            "[budgets]\nhost_usd = 10000000000\n",
            "argus.toml:2: budgets.host_usd: expected amount in USD above 0, at most 9.2e9, at most 9 decimals, "
            "found 10000000000; not started",
        ),
        (
            '[prices."gpt-4.1"]\ninput_usd_per_mtok = 2\n',
            'argus.toml:1: prices."gpt-4.1".output_usd_per_mtok: expected amount in USD of at least 0, at most 9.2e9, '
            "at most 9 decimals, found nothing; not started",
        ),
        (
            "[inlets]\npull = 'tcp://127.0.0.1'\n",
            "argus.toml:2: inlets.pull: expected 'tcp://host:port', 'ipc://path' or '' for none, "
            "found 'tcp://127.0.0.1'; not started",
        ),
        (
            "[inlets]\npull = 'tcp://127.0.0.1:70000'\n",
            "argus.toml:2: inlets.pull: expected 'tcp://host:port', 'ipc://path' or '' for none, "
            "found 'tcp://127.0.0.1:70000'; not started",
        ),
        (
            "[inlets]\nsub = [\n  'tcp://10.0.0.1:1', # first\n  'nowhere',\n]\n",
            "argus.toml:4: inlets.sub.1: expected 'tcp://host:port' or 'ipc://path', found 'nowhere'; not started",
        ),
        (
            "[inlets]\njsonl = 'a'\n",
            "argus.toml:2: inlets.jsonl: expected list of texts, found 'a'; not started",
        ),
        (
            "[inlets]\npull = 'tcp://127.0.0.1:6162'\n",
            "argus.toml: outlets.zmq.endpoint: expected another endpoint than inlets.pull, "
            "found 'tcp://127.0.0.1:6162'; not started",
        ),
        (
            "[host]\nproc = '/proc'\nproc = '/p'\n",
            "argus.toml:3: syntax: expected TOML, found \"proc = '/p'\" (column 12: "
            "Cannot overwrite a value); not started",
        ),
        (
            "[engine]\ntick_ms\n",
            "argus.toml:2: syntax: expected TOML, found 'tick_ms' "
            "(column 8: Expected '=' after a key in a key/value pair); not started",
        ),
        (
            "[state]\nhome = ''\n",
            "argus.toml:2: state.home: expected the path of a folder, found ''; not started",
        ),
    ],
)
def test_a_bad_input_is_told_with_its_line(tmp_path, text, message):
    """Line, key, what was expected, what was found, the nearest name, and what happens."""
    assert [message] == refused(tmp_path, text)


def test_all_problems_are_told_in_the_order_of_lines(tmp_path):
    found = refused(tmp_path, "[killswitch]\nmode = 1\n[host]\nx = 1\n[sources.cpu]\ninterval_ms = 1\nenabled = 'no'\n")
    assert ["argus.toml:2", "argus.toml:4", "argus.toml:6", "argus.toml:7"] == [line.split(": ")[0] for line in found]


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(ConfigError) as missing:
        load(tmp_path / "no.toml", catalog=CATALOG, environ={})
    assert (
        f"{tmp_path}/no.toml: expected a readable file, found none (ENOENT: No such file or directory); not started"
        == str(missing.value)
    )
    (tmp_path / "latin.toml").write_bytes(b"[host]\n# caf\xe9\n")
    with pytest.raises(ConfigError) as latin:
        load(tmp_path / "latin.toml", catalog=CATALOG, environ={})
    assert f"{tmp_path}/latin.toml:2: encoding: expected UTF-8, found byte 0xe9; not started" == str(latin.value)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, 'a = "', "a = 1e"])
def test_hostile_syntax_is_refused_not_crashed_on(tmp_path, text):
    [line] = refused(tmp_path, text)
    assert line.startswith("argus.toml:1: syntax: expected TOML, found ") and line.endswith("; not started")


@pytest.mark.parametrize(
    ("written", "nano"),
    [
        ("0.1", 100_000_000),
        ('"0.1"', 100_000_000),
        ("1", 1_000_000_000),
        ("1.10", 1_100_000_000),
        ("0.000000001", 1),
        ("1e-9", 1),
        ("2.5e3", 2_500_000_000_000),
        ("9007199.254740993", 9_007_199_254_740_993),
        ('"9223372036.854775807"', 9_223_372_036_854_775_807),
    ],
)
def test_money_is_exact(tmp_path, written, nano):
    """2**53 + 1 nano-USD survives, which a binary float would not."""
    assert nano == read(tmp_path, f"[budgets]\nsession_usd = {written}\n").budgets.session_nusd


def test_a_price_changes_on_a_day_and_the_file_written_back_says_so(tmp_path):
    text = (
        '[prices."a.b"]\ninput_usd_per_mtok = 2\noutput_usd_per_mtok = 8\n'
        '[prices."a.b".since.2026-06-01]\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 4\n'
    )
    config = read(tmp_path, text)
    june = 1_780_272_000_000_000_000
    assert ((("a.b", june, 1_000_000_000, 4_000_000_000)),) == config.engine_options().price_changes
    assert config == read(tmp_path, to_toml(config, catalog=CATALOG))
    for table, message in (
        ("since.2026-6-1", "expected a day as 2026-06-01, found '2026-6-1'"),
        ("since.2026-02-30", "expected a day as 2026-06-01, found '2026-02-30'"),
        ("since.2026-06-02", "input_usd_per_mtok: expected amount in USD .* found nothing"),
        ("before.2026-06-02", "expected a key of"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(tmp_path, text + f'[prices."a.b".{table}]\noutput_usd_per_mtok = 1\n')


def test_maintenance_windows_are_named_and_state_when_and_how_long(tmp_path):
    config = read(tmp_path, '[maintenance.backup]\nat = "02:30"\nlength_secs = 5400\ndays = ["sun"]\n')
    window = config.maintenance["backup"]
    assert ("02:30", 5400, ["sun"], ("*",)) == (window.at, window.length_secs, window.days, window.series)
    for text, message in (
        ('at = "2:30"\nlength_secs = 60', "at: expected 'HH:MM', found '2:30'"),
        ('at = "02:30"', r"length_secs: expected integer in \[60, 604800\], found nothing"),
        (
            'at = "02:30"\nlength_secs = 60\ndays = ["sun", "someday"]',
            "days.1: expected one of mon, .* found 'someday'",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            read(tmp_path, f"[maintenance.backup]\n{text}\n")


def test_prices_of_models_stand_beside_the_upper_bound(tmp_path):
    config = read(tmp_path, '[prices."a.b/c"]\ninput_usd_per_mtok = 2\noutput_usd_per_mtok = "0"\n')
    assert {"default", "a.b/c"} == set(config.prices)
    assert 2_000_000_000 == config.prices["a.b/c"].input_nusd_per_mtok
    assert 0 == config.prices["a.b/c"].output_nusd_per_mtok


def test_the_environment_stands_above_the_file(tmp_path):
    """Control lies beside the state's home; both move together unless ARGUS_CONTROL says otherwise."""
    text = "[state]\nhome = 'elsewhere'\n"
    assert Path("elsewhere") == read(tmp_path, text).home
    moved = read(tmp_path, text, ARGUS_HOME="/srv/argus/state")
    assert (Path("/srv/argus/state"), Path("/srv/argus/control")) == (moved.home, moved.control)
    assert "ipc:///srv/argus/state/events.sock" == moved.inlets.ipc
    apart = read(tmp_path, text, ARGUS_HOME="/srv/argus/state", ARGUS_CONTROL="/run/stop", ARGUS_TICK_MS="1")
    assert Path("/run/stop") == apart.control
    assert Path("/srv/c") == read(tmp_path, "[killswitch]\ndirectory = '/srv/c'\n").control


def test_a_home_too_deep_for_a_socket_is_told():
    with pytest.raises(ConfigError) as caught:
        defaults(catalog=CATALOG, environ={"ARGUS_HOME": "/" + "d" * 120})
    assert str(caught.value).startswith(
        "embedded defaults: inlets.ipc: expected a path of at most 107 bytes, found 133 in 'ipc:///ddd"
    )


def test_the_reference_loads_to_the_same(tmp_path):
    """`argus config show` prints a file that means what was loaded, for defaults and for anything set."""
    text = (
        "[budgets]\nhost_usd = 12.345\nstrict = true\n[prices.'odd \"name\"']\ninput_usd_per_mtok = 0.1\n"
        "output_usd_per_mtok = 0.000000001\n[inlets]\nsub = []\nipc = ''\njsonl = ['a\\b', 'c']\n"
        "[detectors.residual]\nshare = 0.1\n[killswitch]\nwhen_silent = 'kill'\n[state]\nhome = 'x y'\n"
    )
    for config in (defaults(catalog=CATALOG, environ={}), read(tmp_path, text)):
        assert config == read(tmp_path, to_toml(config, catalog=CATALOG))


def test_the_reference_documents_every_key():
    """Documentation, unit, range and default stand above each key."""
    shown = to_toml(defaults(catalog=CATALOG, environ={}), catalog=CATALOG)
    assert "# Memory. (s, number in [1, 86400], default 300.0)\nhalf_life_s = 300.0\n" in shown
    assert "# Distance from the forecast. After Page 1954.\n[detectors.residual]\n" in shown
    assert "# critical: A cap is reached.\n[criteria.C1]\nenabled = true\n" in shown
    assert '# Cap of each session. (default none)\n# session_usd = "10.00"\n' in shown


def test_fixed_tables_accept_their_own_defaults():
    """A default outside its own bounds would be refused as soon as it is written down."""
    for table in (configuration.HostRoots, configuration.EngineSettings, configuration.Inlets, configuration.ZmqOutlet):
        for key in configuration._keys(table):
            assert configuration._convert(key, key.default) == (True, key.default)


def test_lines_are_found_through_every_syntax():
    text = (
        "# [not.a.table]\n"
        'top."dotted key".x = 1\n'
        '[a . "b.c"]\n'
        "s = '''\n"
        "[fake]\n"
        "k = 1\n"
        "'''\n"
        'm = """\n'
        'q = \\"""\n'
        '"""\n'
        "list = [ # first\n"
        "  [1, 2],\n"
        "  { z = 3, 'y' = '}' },\n"
        "]\r\n"
        'last = "a#b]" # end\n'
        "[[many]]\n"
        "n = 1\n"
        "[[many]]\n"
        "n = 2\n"
    )
    lines = locate(text)
    assert 2 == lines["top", "dotted key", "x"]
    assert 3 == lines["a", "b.c"]
    assert ("fake",) not in lines and ("a", "b.c", "k") not in lines and ("a", "b.c", "q") not in lines
    assert 4 == lines["a", "b.c", "s"]
    assert 8 == lines["a", "b.c", "m"]
    assert (12, 13, 13) == tuple(lines["a", "b.c", "list", *rest] for rest in (("0",), ("1",), ("1", "y")))
    assert 15 == lines["a", "b.c", "last"]
    assert (16, 16, 17) == (lines["many",], lines["many", "0"], lines["many", "0", "n"])
    assert (18, 19) == (lines["many", "1"], lines["many", "1", "n"])


_scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=8))


@given(
    st.dictionaries(
        st.text(max_size=6),
        st.dictionaries(st.text(max_size=6), st.one_of(_scalars, st.lists(_scalars, max_size=3)), max_size=3),
        max_size=3,
    )
)
def test_any_document_is_loaded_or_refused_with_lines(tmp_path_factory, document):
    """No TOML makes Argus crash, and every problem has a line of the file."""
    import json

    def quote(value: object) -> str:
        return json.dumps(value).replace("\x7f", "\\u007f")

    text = "".join(
        f"[{quote(t)}]\n" + "".join(f"{quote(k)} = {quote(v)}\n" for k, v in body.items())
        for t, body in document.items()
    )
    path = tmp_path_factory.mktemp("any") / "argus.toml"
    path.write_text(text)
    try:
        config = load(path, catalog=CATALOG, environ={})
    except ConfigError as error:
        assert all(line.startswith(f"{path}:") and line.endswith("; not started") for line in str(error).split("\n"))
    else:
        assert isinstance(config, msgspec.Struct)


def test_a_table_below_a_fixed_one_is_read_checked_and_printed(tmp_path):
    path = tmp_path / "argus.toml"
    path.write_text("[inlets]\nsub = []\n[inlets.otlp]\nenabled = true\ntenant_attribute = 'customer'\n")
    config = load(path)
    assert (True, "customer", "127.0.0.1:4318") == (
        config.inlets.otlp.enabled, config.inlets.otlp.tenant_attribute, config.inlets.otlp.endpoint,
    )  # fmt: skip
    path.write_text(to_toml(config))
    assert load(path).inlets == config.inlets
    path.write_text("[inlets.otlp]\nenabeld = true\nendpoint = '127.0.0.1'\n")
    with pytest.raises(ConfigError) as found:
        load(path)
    lines = str(found.value).splitlines()
    assert "argus.toml:2: inlets.otlp.enabeld: expected a key of [inlets.otlp]" in lines[0]
    assert "(nearest: 'enabled')" in lines[0]
    assert "argus.toml:3: inlets.otlp.endpoint: expected '127.0.0.1:port'" in lines[1]


CONSTRAINTS = """
[[constraints]]
name = "answered"
template = "response"
activation = { event = ["tool_called", "my.step"], tool = "search", ok = true }
target = "eval_logged"
scope = "session"
deadline_s = 30
severity = "info"
message = "a search is rated"

[[constraints]]
name = "duplicate_terminal"
enabled = false
"""


def test_constraints_are_read_and_printed(tmp_path):
    config = read(tmp_path, CONSTRAINTS)
    answered, off = config.constraints
    assert answered.activation is not None and answered.target is not None
    assert answered.activation.events == ("tool_called", "my.step")
    assert answered.activation.where == {"tool": "search", "ok": "true"}
    assert (answered.target.events, answered.scope, answered.deadline_s) == (("eval_logged",), "session", 30.0)
    assert (off.name, off.enabled) == ("duplicate_terminal", False)
    assert read(tmp_path, to_toml(config, catalog=CATALOG)) == config
    chosen = config.engine_options().constraints
    assert [(c.name, c.template, c.enabled) for c in chosen] == [
        ("answered", "response", True),
        ("duplicate_terminal", "absence", False),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "6: constraints.0.target: expected the name of an event"),
        ('target = "eval_loged"', "10: constraints.0.target: expected the name of an event, found 'eval_loged' "
         "(nearest: 'eval_logged')"),
        ('target = "x"\nscope = "session"', "6: constraints.0.deadline_s: expected a deadline for response"),
        ('target = "x"\ntimes = 2', "11: constraints.0.times: expected none for response, found 2"),
        ('target = { event = "x", tol = "y" }', "10: constraints.0.target.tol: expected a field"),
        ('target = { event = "x", ok = "yes" }', "10: constraints.0.target.ok: expected true or false, found 'yes'"),
        ('target = "x"\nfoo = 1', "11: constraints.0.foo: expected a key of [[constraints]]"),
        ('target = "x"\nseverity = "kill"', "11: constraints.0.severity: expected one of"),
        ('target = "x"\ndeadline_from = "silence"', "11: constraints.0.deadline_from: expected 'activation'"),
        ('target = []', "10: constraints.0.target: expected the name of an event, a list"),
    ],
)  # fmt: skip
def test_a_constraint_is_refused_with_its_line(tmp_path, given, message):
    head = "\n\n\n\n\n[[constraints]]\nname = 'r'\ntemplate = 'response'\nactivation = 'tool_called'\n"
    assert any(message in line for line in refused(tmp_path, head + given)), refused(tmp_path, head + given)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("name = 'seq_gap'\ntemplate = 'absence'\nactivation = 'x'", "name: expected a name that is not that"),
        ("name = 'R r'\ntemplate = 'absence'\nactivation = 'x'", "name: expected small letters"),
        ("name = 'r'\ntemplate = 'responce'\nactivation = 'x'", "(nearest: 'response')"),
        ("name = 'r'\ntemplate = 'absence'", "activation: expected the name of an event"),
        ("name = 'r'\ntemplate = 'absence'\nactivation = 'x'\ntarget = 'y'", "target: expected none for absence"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(tmp_path, row, message):
    assert any(message in line for line in refused(tmp_path, f"[[constraints]]\n{row}\n"))


def test_two_constraints_of_one_name_and_too_many_are_refused(tmp_path):
    one = "[[constraints]]\nname = '{}'\ntemplate = 'absence'\nactivation = 'x'\n"
    assert "a name of its own" in refused(tmp_path, one.format("r") * 2)[0]
    assert "at most 32" in refused(tmp_path, "".join(one.format(f"r{i}") for i in range(29)))[0]
    assert "tables" in refused(tmp_path, "constraints = 1\n")[0]
