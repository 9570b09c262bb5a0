"""The logging handler: records become events, messages stay behind, and logging never fails for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

import argus
from argus.engine.core import EVENT_TIME, Engine
from argus.errors import UsageError
from argus.wire.emitter import Emitter
from argus.wire.logs import EventHandler
from argus.wire.zmq import EventInlet


class Heard:
    """A logger whose handler sends to a PULL socket, and what came."""

    def __init__(self, folder: Path) -> None:
        endpoint = f"ipc://{folder / 'run' / 'events.sock'}"
        self.inlet = EventInlet((endpoint,))
        self.emitter = Emitter(endpoint, agent="planner")
        self.log = logging.getLogger(f"argus.test.{folder.name}")
        self.log.propagate = False
        self.log.setLevel(logging.DEBUG)

    def add(self, **options: Any) -> EventHandler:
        handler = EventHandler(self.emitter, **options)
        self.log.addHandler(handler)
        return handler

    def take(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < count and self.inlet.wait(5000):
            found.extend(msgpack.unpackb(frame.data) for frame in self.inlet.drain())
        return found


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    opened = Heard(tmp_path)
    yield opened
    for handler in list(opened.log.handlers):
        opened.log.removeHandler(handler)
        handler.close()
    opened.emitter.close()
    opened.inlet.close()


def test_a_record_becomes_an_event_without_its_message(heard: Heard):
    heard.add(level="INFO")
    heard.log.debug("below the level")
    heard.log.warning("found %d of %s", 3, "PRIVATE")
    heard.log.warning("found %d of %s", 9, "another PRIVATE")
    first, second = heard.take(2)
    assert (first["type"], first["agent"], first["attrs"]["level"]) == ("log_record", "planner", logging.WARNING)
    assert first["attrs"]["function"] == "test_a_record_becomes_an_event_without_its_message"
    assert first["attrs"]["template"] == second["attrs"]["template"], "equal templates can be counted"
    assert "PRIVATE" not in str(first) and "text" not in first
    with Engine(host_plane=False) as engine:
        report = engine.ingest(msgpack.packb([first, second]), now=EVENT_TIME)
    assert report.accepted == 2


def test_extra_names_type_and_fields_and_the_task_is_that_around_it(heard: Heard):
    heard.add()
    with heard.emitter.task("t"):
        heard.log.info("x", extra={"argus": {"type": "tool_called", "tool": "search", "attrs": {"shard": 3}}})
    event = heard.take(3)[1]
    assert (event["type"], event["tool"], event["task"], event["attrs"]["shard"]) == ("tool_called", "search", "t", 3)


def test_an_exception_is_told_by_its_class_and_text_only_on_request(heard: Heard):
    heard.add(text=True)
    try:
        raise ValueError("PRIVATE")
    except ValueError:
        heard.log.exception("failed: %s", "é" * 20_000)
    event = heard.take(1)[0]
    assert event["error"] == "ValueError" and "PRIVATE" not in str(event)
    assert event["text"].startswith("failed: é") and len(event["text"].encode()) <= 16_384


@pytest.mark.parametrize("given", ["no dict", {"type": "tool_called"}, {"type": "x", "ok": "yes"}, {"seq": 3}])
def test_what_cannot_be_an_event_is_counted_and_logging_goes_on(
    heard: Heard, given: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = heard.add()
    heard.log.info("bad", extra={"argus": given})
    heard.log.info("bad %d arguments", "not a number")
    heard.log.info("\ud800 \x00")
    assert handler.refused == 1 and capsys.readouterr().err == ""
    assert len(heard.take(2)) == 2


def test_an_own_emitter_is_closed_with_the_handler(tmp_path: Path):
    handler = argus.EventHandler(endpoint=f"ipc://{tmp_path / 'nobody.sock'}", linger_s=0, session="s")
    handler.handle(logging.makeLogRecord({"msg": "x"}))
    assert handler.emitter.sent == 1
    handler.close()
    assert handler.emitter.emit("heartbeat") is False
    with Emitter(f"ipc://{tmp_path / 'nobody.sock'}", linger_s=0) as emitter:
        with pytest.raises(UsageError, match=r"found both \(session\)"):
            EventHandler(emitter, session="s")
        EventHandler(emitter).close()
        assert emitter.emit("heartbeat") is True, "a given emitter stays its owner's"
