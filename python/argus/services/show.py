"""Show: the events and anomalies behind what Argus said, by id, from logs of events and from the journal.

Events of the bus are judged and forgotten; those of a followed file, an import or any log can be found there again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from argus.record.journal import read
from argus.schema import Anomaly
from argus.services.status import printable
from argus.wire import jsonl

EVIDENCE_SHOWN: Final = 3

_KINDS: Final = ("anomaly", "stop")
_FIRST: Final = ("id", "type", "ts", "source", "seq", "tenant", "agent", "session", "task", "parent")
_FOUND_MAX: Final = 64  # of one name: ids are unique only within a source

_decode: Final = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A record that bears a name: `kind` is event, anomaly or stop; `where` is the file it was found in."""

    name: str
    kind: str
    where: str
    record: dict[str, Any]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, in the order it was asked for, and the names that nothing bears."""

    found: list[Found]
    missing: list[str]


def show(names: Sequence[str], *, logs: Iterable[Path | str], journal: Path | None) -> Shown:
    """Look names up.

    Parameters
    ----------
    names : ids of events or anomalies; of an anomaly the first three events of its evidence are looked up too
    logs : files of events (JSON lines, .gz too)
    journal : the collector's journal; None = none

    Raises
    ------
    UnreachableError : a log or the journal cannot be read
    JournalError : the journal is damaged
    """
    logs = list(logs)
    kept = _in_journal(set(names), journal)
    anomalies = {f.name: Anomaly(**_anomaly_fields(f.record)) for f in kept if f.kind == "anomaly"}
    wanted = {*names, *(id_ for a in anomalies.values() for id_ in a.evidence[:EVIDENCE_SHOWN])}
    events: dict[str, list[Found]] = {}
    for log in logs:
        for event in _in_log(wanted, log):
            of_name = events.setdefault(event.name, [])
            if len(of_name) < _FOUND_MAX:
                of_name.append(event)
    found: list[Found] = []
    for name in dict.fromkeys(names):
        found += [f for f in kept if f.name == name]
        behind = anomalies[name].evidence[:EVIDENCE_SHOWN] if name in anomalies else []
        for each in dict.fromkeys([name, *behind]):
            found += [f for f in events.get(each, []) if f not in found]
    borne = {f.name for f in found}
    return Shown(found=found, missing=[name for name in dict.fromkeys(names) if name not in borne])


def _in_journal(names: set[str], journal: Path | None) -> list[Found]:
    if journal is None:
        return []
    return [
        Found(name=record.payload["id"], kind=kind, where=str(journal), record=record.payload)
        for kind in _KINDS
        for record in read(journal, kind=kind)
        if record.payload.get("id") in names
    ]


def _in_log(names: set[str], log: Path | str) -> Iterable[Found]:
    sought = [name.encode("utf-8", "surrogateescape") for name in names]
    for frame in jsonl.frames(log):
        if not any(name in frame.data for name in sought):
            continue
        for event in _decode(frame.data):
            if event.get("id") in names:
                yield Found(name=event["id"], kind="event", where=str(log), record=event)


def _anomaly_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    converted = msgspec.convert(dict(record), Anomaly)
    return msgspec.structs.asdict(converted)


def expectation(anomaly: Anomaly) -> str:
    """What was expected in place of the value, in words; "" = the anomaly does not say."""
    low, high = anomaly.lower, anomaly.upper
    between = f"{low:.6g} to {high:.6g}" if low is not None and high is not None else ""
    if anomaly.expected is not None:
        return f"{anomaly.expected:.6g}" + (f" ({between})" if between else "")
    if between:
        return between
    if high is not None:
        return f"less than {high:.6g}"
    return f"more than {low:.6g}" if low is not None else ""


def render(shown: Shown, *, searched: Sequence[str]) -> str:
    """What was found as plain text; every name in it is untrusted."""
    lines: list[str] = []
    for found in shown.found:
        lines.append(f"{found.kind} {printable(found.name, 128)}  in {printable(found.where, 240)}")
        if found.kind == "anomaly":
            lines += _anomaly_lines(Anomaly(**_anomaly_fields(found.record)))
        else:
            lines += [f"  {key:15} {_value(key, value)}" for key, value in _ordered(found.record)]
    for name in shown.missing:
        lines.append(
            f"{printable(name, 128)}: in none of {', '.join(printable(s, 240) for s in searched) or 'no file'}"
        )
    if shown.missing:
        lines.append("Events of the bus are not kept: name the file they were replayed or imported from with --log.")
    return "\n".join(lines)


def _anomaly_lines(anomaly: Anomaly) -> list[str]:
    rule = f" by {anomaly.criterion}" if anomaly.criterion else ", by no criterion"
    value = "not a number" if anomaly.value is None else f"{anomaly.value:.6g}"
    chance = f", one false in {anomaly.false_alarm_interval_s:.3g} s" if anomaly.false_alarm_interval_s else ""
    told = [
        ("scope", str(anomaly.scope)),
        ("said by", f"{anomaly.detector}: {anomaly.series}, {anomaly.severity}{rule}"),
        ("at", f"{_when(anomaly.ts)}, since {_when(anomaly.since or anomaly.ts)}"),
        ("value", value),
        ("expected", expectation(anomaly) or "not stated"),
        ("surprise", f"{anomaly.bits:.3g} bits{chance}"),
        ("why", anomaly.message),
        ("evidence", ", ".join(anomaly.evidence)),
    ]
    return [f"  {key:15} {printable(text, 400)}" for key, text in told]


def _when(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1e9, UTC).isoformat(timespec="milliseconds")


def _ordered(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rest = [key for key in record if key not in _FIRST and key != "v"]
    return [(key, record[key]) for key in (*_FIRST, *rest) if key in record]


def _value(key: str, value: Any) -> str:
    if key == "text":
        return f"{len(str(value))} characters, not shown"
    if key in ("ts", "event_ts") and isinstance(value, int) and abs(value) < 2**62:
        return f"{value}  {_when(value)}"
    if isinstance(value, bytes):
        return value.hex()
    return printable(str(value), 400)
