"""From the kernel's files to a scrape: a real collector, its page read by a strict parser, hostile names and hot-plug."""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from argus.config import PrometheusOutlet
from argus.engine.core import Engine, EngineOptions, SourceChoice
from argus.engine.exposition import Exposition, OwnMetric
from argus.errors import UsageError
from argus.services.metrics import OWN, Metrics

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures"

# --- a strict parser of text format 0.0.4 and OpenMetrics 1.0 ---------------------------------------------------------

NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
LABEL = rf'({NAME})="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
TYPES = {False: {"counter", "gauge", "untyped"}, True: {"counter", "gauge", "unknown"}}


class Parsed(NamedTuple):
    """Values by series, types by family."""

    values: dict[str, float]
    types: dict[str, str]

    def of(self, family: str) -> dict[str, float]:
        return {series: value for series, value in self.values.items() if series.split("{")[0] == family}


def parse(page: bytes, *, openmetrics: bool = False) -> Parsed:
    """The page's series; anything that either format forbids is an AssertionError that names the line."""
    lines = page.decode("utf-8").split("\n")
    assert lines.pop() == "", "expected a newline at the end"
    if openmetrics:
        assert lines.pop() == "# EOF"
    values: dict[str, float] = {}
    types: dict[str, str] = {}
    helped: set[str] = set()
    family = ""
    for line in lines:
        if line.startswith("# HELP "):
            family, text = re.fullmatch(rf"# HELP ({NAME}) (.*)", line).groups()  # type: ignore[union-attr]
            assert family not in helped, f"second HELP, or a family in two places: {line}"
            assert re.fullmatch(r"(?:[^\\]|\\[\\n\"])*", text), line
            helped.add(family)
        elif line.startswith("# TYPE "):
            named, kind = re.fullmatch(rf"# TYPE ({NAME}) (\w+)", line).groups()  # type: ignore[union-attr]
            assert named == family, f"TYPE apart from its HELP: {line}"
            assert named not in types, line
            assert kind in TYPES[openmetrics], line
            types[named] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found is not None, f"no sample: {line!r}"
            suffix = "_total" if openmetrics and types[family] == "counter" else ""
            assert found[1] == family + suffix, f"outside its family {family}: {line}"
            labels = [name for name, _ in re.findall(LABEL, found[2] or "")]
            assert len(set(labels)) == len(labels), f"a label twice: {line}"
            assert not any(name.startswith("__") for name in labels), line
            series = line.rpartition(" ")[0]
            assert series not in values, f"a series twice: {line}"
            values[series] = float(found[found.re.groups])
    assert set(types) == helped
    return Parsed(values, types)


@pytest.mark.parametrize(
    "page",
    [
        b"# HELP a A.\n# TYPE a gauge\na 1",
        b"# HELP a A.\n# TYPE a gauge\na 1\na 2\n",
        b"# HELP a A.\n# TYPE a gauge\na 1\nb 2\n",
        b"# HELP a A.\n# TYPE a gauge\na 1\n# HELP b B.\n# TYPE b gauge\nb 1\n# HELP a A.\na{x=\"1\"} 2\n",
        b"# HELP a A.\n# TYPE a gauge\na{x=\"\n\"} 1\n",
        b"# HELP a A.\n# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n",
        b"# HELP a A.\n# TYPE a gauge\na one\n",
        b"# HELP a A.\n# TYPE a level\na 1\n",
        b"# HELP a A.\n# TYPE a gauge\na{x=\"\xff\"} 1\n",
        b"# TYPE a gauge\na 1\n",
        b"# HELP a.b A.\n# TYPE a.b gauge\na.b 1\n",
    ],
)  # fmt: skip
def test_the_parser_is_strict(page: bytes):
    with pytest.raises((AssertionError, AttributeError, UnicodeDecodeError, ValueError)):
        parse(page)


# --- the page --------------------------------------------------------------------------------------------------------


def tree(tmp_path: Path, fixture: str = "6.18") -> Path:
    root = tmp_path / "tree"
    shutil.copytree(FIXTURES / fixture, root, symlinks=True)
    return root


def engine_on(root: Path, sources: dict[str, SourceChoice] | None = None) -> Engine:
    options = EngineOptions(
        proc=str(root / "proc"),
        sys=str(root / "sys"),
        processes=SourceChoice(enabled=False),
        sources=sources or {},
    )
    return Engine(options)


def pages(exposition: Exposition) -> Iterator[Parsed]:
    yield parse(exposition.render())
    yield parse(exposition.render(openmetrics=True), openmetrics=True)


def test_every_series_of_a_machine_is_there_once_raw_in_both_formats(tmp_path: Path):
    engine, exposition = engine_on(tree(tmp_path)), Exposition()
    engine.step()
    exposition.publish(engine)
    text, openmetrics = pages(exposition)
    assert text.values == openmetrics.values
    assert len(text.of("argus_source_up")) >= 4
    assert text.values['argus_scrape_left_out_series{reason="name_taken"}'] == 0
    assert text.values['argus_scrape_left_out_series{reason="no_name"}'] == 0
    device = '{network_interface_name="eth0",network_io_direction="receive"}'
    assert text.values[f"system_network_io_bytes_total{device}"] == 175680374
    assert text.values['node_network_receive_bytes_total{device="eth0"}'] == 175680374
    assert text.types["system_network_io_bytes_total"] == "counter"
    assert text.values["node_memory_MemTotal_bytes"] == 24684096 * 1024
    latest = [name.split("{")[0].replace(".", "_") for name in engine.latest().names if name.startswith("system.")]
    assert not [n for n in latest if not any(series.startswith(n) for series in text.values)]


def test_hostile_names_are_legal_text(tmp_path: Path):
    engine, exposition = engine_on(tree(tmp_path, "hostile")), Exposition()
    engine.step()
    exposition.publish(engine)
    for page in pages(exposition):
        names = {re.search(r'device="(.*)"}$', s)[1] for s in page.of("node_network_receive_bytes_total")}  # type: ignore[index]
        assert {"eth0", "eth0:1", "wl=an,0", "big0", "\ufffd[31m\ufffd0"} == names
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", "".join(page.values))


def test_an_interface_that_goes_takes_its_series_along(tmp_path: Path):
    root = tree(tmp_path)
    engine, exposition = engine_on(root, {"network": SourceChoice(interval_ms=10)}), Exposition()
    engine.step()
    exposition.publish(engine)
    assert 'node_network_receive_bytes_total{device="ifb0"}' in parse(exposition.render()).values
    path = root / "proc" / "net" / "dev"
    path.write_text(path.read_text().replace(" ifb0:", "veth9:"))
    time.sleep(0.02)
    engine.step()
    exposition.publish(engine)
    devices = parse(exposition.render()).of("node_network_receive_bytes_total")
    assert 'node_network_receive_bytes_total{device="veth9"}' in devices
    assert 'node_network_receive_bytes_total{device="ifb0"}' not in devices


def test_without_node_exporter_names(tmp_path: Path):
    engine, exposition = engine_on(tree(tmp_path)), Exposition(node_exporter_names=False)
    engine.step()
    exposition.publish(engine)
    assert not [series for series in parse(exposition.render()).values if series.startswith("node_")]


def test_own_metrics_that_make_no_page_are_refused():
    with pytest.raises(UsageError, match="'argus_processes'"):
        Exposition(own=[OwnMetric(name="argus_processes", help="Taken.")])
    with pytest.raises(UsageError, match="'a b'"):
        Exposition(own=[OwnMetric(name="a b", help="No name.")])


# --- a live collector ------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def collector(folder: Path, port: int, *, seconds: int = 60) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "argus.toml").write_text(
        f'[state]\nhome = "{folder}/argus-data"\n[engine]\ntick_ms = 100\n[sources.cpu]\ninterval_ms = 100\n'
        '[inlets]\npull = ""\nsub = []\nipc = ""\n'
        f'[outlets.zmq]\nendpoint = "ipc://{folder}/out.sock"\nreplay_endpoint = ""\n'
        f'[outlets.prometheus]\nendpoint = "127.0.0.1:{port}"\n'
    )
    command = [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", f"{seconds}s"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def scrape(port: int, path: str = "/metrics", **headers: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return bytes(response.read())


def wait_ready(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()[0]
        try:
            scrape(port, "/-/ready")
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the collector did not become ready")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    process = collector(tmp_path_factory.mktemp("live"), port)
    try:
        wait_ready(port, process)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_live_scrape_agrees_with_the_kernel(live: int):
    page = parse(scrape(live))
    assert page.values["node_memory_MemTotal_bytes"] == psutil.virtual_memory().total
    assert page.values["node_boot_time_seconds"] == pytest.approx(psutil.boot_time(), abs=2)
    assert page.values['node_cpu_seconds_total{cpu="0",mode="idle"}'] <= psutil.cpu_times(percpu=True)[0].idle + 1
    assert page.values["process_resident_memory_bytes"] > 10e6
    assert page.values["argus_engine_failed"] == 0
    uname = os.uname()
    assert [s for s in page.of("node_uname_info") if f'nodename="{uname.nodename}"' in s]
    assert {m.name for m in OWN} <= {s.split("{")[0] for s in page.values}


def test_counters_never_fall_from_scrape_to_scrape(live: int):
    seen: dict[str, float] = {}
    steps = set()
    deadline = time.monotonic() + 20
    while len(steps) < 4 and time.monotonic() < deadline:
        page = parse(scrape(live))
        steps.add(page.values["argus_engine_steps_total"])
        for series, value in page.values.items():
            if page.types[series.split("{")[0]] == "counter":
                assert value >= seen.get(series, -math.inf), series
                seen[series] = value
        time.sleep(0.4)
    assert len(steps) == 4
    assert len(seen) > 100


def test_openmetrics_of_a_live_collector(live: int):
    page = scrape(live, Accept="application/openmetrics-text;version=1.0.0")
    assert parse(page, openmetrics=True).values["argus_enforcing"] == 1


# promtool's opinions on names that others gave: OpenTelemetry's gauges that count, and node_exporter's meminfo.
GIVEN = re.compile(
    r'\w+_count non-histogram and non-summary metrics should not have "_count" suffix'
    r"|node_(memory|netstat|sockstat)_\w+ metric names should be written in 'snake_case' not 'camelCase'"
)


def test_promtool_finds_no_fault(live: int):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there (Debian: apt-get install prometheus)")
    done = subprocess.run([promtool, "check", "metrics"], input=scrape(live), capture_output=True, timeout=30)
    told = [line for line in (done.stdout + done.stderr).decode().splitlines() if line]
    assert done.returncode in (0, 3), told  # 3 = it parsed, and there are opinions on names
    assert [] == [line for line in told if not GIVEN.fullmatch(line)]


def test_a_second_collector_says_that_the_port_is_taken_and_goes_on(live: int, tmp_path: Path):
    process = collector(tmp_path / "second", live, seconds=2)
    output = process.communicate(timeout=40)[0]
    assert process.returncode == 0, output
    assert f"expected to bind 127.0.0.1:{live}, found the port in use; /metrics is not served" in output
    assert "the collector goes on" in output
    assert output.count("port in use") == 1
    assert "metrics on no port" in output
    assert parse(scrape(live)).values["argus_engine_failed"] == 0


# --- the settings ----------------------------------------------------------------------------------------------------


def numbers() -> dict[str, float]:
    return {}


def test_an_open_port_is_warned_of_and_a_closed_outlet_costs_nothing():
    said: list[str] = []
    settings = PrometheusOutlet(endpoint=f"0.0.0.0:{free_port()}", allow_remote=True)
    with Metrics(settings, tick_s=1, say=said.append) as metrics:
        assert metrics.endpoint.startswith("0.0.0.0:")
    assert len(said) == 1
    assert "WARNING" in said[0]
    unused: Any = None
    for closed in (PrometheusOutlet(enabled=False), PrometheusOutlet(endpoint="")):
        with Metrics(closed, tick_s=1, say=said.append) as metrics:
            assert metrics.endpoint == ""
            metrics.publish(unused, numbers)
    assert len(said) == 1


def test_an_address_for_all_without_leave_is_refused_and_the_collector_goes_on():
    said: list[str] = []
    with Metrics(PrometheusOutlet(endpoint="0.0.0.0:6164"), tick_s=1, say=said.append) as metrics:
        assert metrics.endpoint == ""
    assert "outlets.prometheus.allow_remote" in said[0]


def test_a_loop_that_hangs_is_not_healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    port = free_port()
    engine = engine_on(tree(tmp_path))
    with Metrics(PrometheusOutlet(endpoint=f"127.0.0.1:{port}"), tick_s=1, say=print) as metrics:
        with pytest.raises(OSError, match="503"):
            scrape(port, "/-/ready")
        assert scrape(port, "/-/healthy") == b"healthy\n"
        engine.step()
        metrics.publish(engine, numbers)
        assert scrape(port, "/-/ready") == b"ready\n"
        now = time.monotonic()
        monkeypatch.setattr("argus.services.metrics.time.monotonic", lambda: now + 11)
        with pytest.raises(OSError, match="503"):
            scrape(port, "/-/healthy")
