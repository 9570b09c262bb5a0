"""From an exporter's request to the ledger: a real collector takes spans over HTTP, and a cap stops what they cost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

NOW_NS = time.time_ns()


def chat(number: int) -> dict[str, object]:
    def text(key: str, value: str) -> dict[str, object]:
        return {"key": key, "value": {"stringValue": value}}

    attributes = [
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.conversation.id", "conv-1"),
        text("gen_ai.request.model", "m"),
        {"key": "llm.cost.total", "value": {"doubleValue": 0.05}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "900"}},
    ]
    return {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": f"{number:016x}", "name": "chat m",
        "startTimeUnixNano": str(NOW_NS), "endTimeUnixNano": str(NOW_NS + number), "attributes": attributes,
    }  # fmt: skip


def test_spans_over_http_reach_the_ledger_and_their_cap(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "argus.toml").write_text(
        f'[state]\nhome = "{tmp_path}/argus-data"\n[budgets]\nsession_usd = "1.00"\n'
        f'[inlets]\npull = ""\nsub = []\nipc = ""\n[inlets.otlp]\nenabled = true\nendpoint = "127.0.0.1:{port}"\n'
        '[outlets.zmq]\nendpoint = ""\n[outlets.prometheus]\nenabled = false\n'
    )
    command = [sys.executable, "-m", "argus.cli.collect", "--config", "argus.toml", "--for", "60s"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert f"OTLP on 127.0.0.1:{port}" in process.stdout.readline()
            spans = [chat(n) for n in range(1, 26)] + [{"traceId": "00"}]
            body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/traces", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert json.loads(answer.read())["partialSuccess"]["rejectedSpans"] == "1"
            flags, refused = tmp_path / "control", tmp_path / "argus-data" / "quarantine" / "rejected_http.ndjson"
            for _ in range(200):
                if refused.exists() and list(flags.rglob("hard_kill.flag")):
                    break
                time.sleep(0.05)
            assert "C1" in next(flags.rglob("hard_kill.flag")).read_text()
            assert "bad_id" in refused.read_text()
        finally:
            process.terminate()
            process.communicate(timeout=20)
