"""Recorded agent events with their truth, for the benchmarks: ARGUS_DATA/events, gzip JSON lines."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def folder() -> Path:
    """Where the recordings lie; FileNotFoundError where there are none, so that no figure is missed in silence."""
    path = Path(os.environ.get("ARGUS_DATA", "")) / "events"
    if not path.is_dir():
        raise FileNotFoundError("recorded events: expected the folder with events/ in ARGUS_DATA, found none")
    return path


def records(path: Path) -> Iterator[Event]:
    """The objects of a file, in its order."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)


def labels(name: str) -> list[Event]:
    """The truth of a recording."""
    return list(records(folder() / f"{name}.labels.ndjson.gz"))


def events(name: str) -> list[Event]:
    """A recording, in bus order."""
    return list(records(folder() / f"{name}.ndjson.gz"))


def renumbered(stream: Iterable[Event]) -> Iterator[Event]:
    """The same events without gaps in their sequence: a selection leaves some that are no fault of the source."""
    for number, event in enumerate(stream, 1):
        yield {**event, "seq": number}
