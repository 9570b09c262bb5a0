"""What a person names under [sources.availability] is judged before anything starts, and seen once it runs."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from argus import config
from argus.engine.core import Engine, EngineOptions, SourceChoice, catalog
from argus.errors import UsageError

OTHERS = {s["name"]: SourceChoice(enabled=False) for s in catalog()["sources"] if s["name"] != "availability"}


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 500)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def looking_at(*targets: str) -> EngineOptions:
    chosen = SourceChoice(interval_ms=10, targets=targets)
    return EngineOptions(sources={**OTHERS, "availability": chosen}, processes=SourceChoice(enabled=False))


def test_the_configuration_names_targets(tmp_path: Path):
    path = tmp_path / "argus.toml"
    path.write_text('[sources.availability]\ntargets = ["process:python3", "port:127.0.0.1:22"]\ntimeout_s = 1.5\n')
    settings = config.load(path, environ={}).sources["availability"]
    assert list(settings.targets) == ["process:python3", "port:127.0.0.1:22"]
    assert settings.options == {"timeout_s": 1.5}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://127.0.0.1/", "https is not offered"),
        ("ssh.service", "unit:NAME, process:NAME, port:ADDRESS:PORT or http://ADDRESS:PORT/PATH"),
        ("port:db.example:5432", "names would have to be looked up"),
        ("unit:daily.timer", "no processes to be seen"),
    ],
)
def test_a_target_that_means_nothing_is_said_before_the_start(target: str, expected: str):
    with pytest.raises(UsageError, match=expected) as told:
        Engine(looking_at("process:python3", target))
    assert repr(target) in str(told.value)


def test_what_is_there_and_what_is_not_are_told_apart(port: int):
    up = f"http://127.0.0.1:{port}/healthz"
    down = f"http://127.0.0.1:{port}/other"
    engine = Engine(looking_at(up, down, f"port:127.0.0.1:{port}", "process:no-such-process"))
    values: dict[str, float] = {}
    for _ in range(200):
        engine.step()
        latest = engine.latest()
        values |= {n: v for n, v in zip(latest.names, latest.values.tolist(), strict=True) if not np.isnan(v)}
        if sum(name.startswith("availability.up{") for name in values) == 4:
            break
        time.sleep(0.02)
    ups = {name: value for name, value in values.items() if name.startswith("availability.up{")}
    state = {name.split("target=")[1].rstrip("}"): value for name, value in ups.items()}
    assert state == {up: 1, down: 0, f"127.0.0.1:{port}": 1, "no-such-process": 0}
    assert [v for name, v in values.items() if name.startswith("availability.response_time")]
    assert all(abs(v - time.time()) < 60 for name, v in values.items() if name.startswith("availability.since"))
