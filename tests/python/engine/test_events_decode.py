"""Decoding against an independent reading: `msgpack` plus the schema as the manual states it."""

from __future__ import annotations

import math
import random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus import _core

TEXT_LIMITS = {
    "id": 64, "type": 48, "source": 128, "boot": 36, "tenant": 64, "session": 128, "task": 128, "parent": 128,
    "agent": 128, "agent_version": 128, "provider": 128, "model": 128, "strategy": 64, "tool": 128, "call": 128,
    "args_hash": 64, "result_hash": 64, "path": 4096, "op": 16, "error": 128, "eval": 64, "label": 32, "text": 16384,
}  # fmt: skip
AMOUNTS = {
    "ts", "seq", "mono", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "reasoning_tokens", "cost_nusd", "bytes",
}  # fmt: skip
SIGNED = {"duration_ns", "ttft_ns"}
LENGTHS = {"args_len", "result_len"}
FLAGS = {"ok", "cost_estimated"}
IDENTIFIERS = {"trace": 16, "span": 8, "parent_span": 8, "sha256": 32}
KNOWN = {*TEXT_LIMITS, *AMOUNTS, *SIGNED, *LENGTHS, *FLAGS, *IDENTIFIERS, "v", "score", "entities", "attrs"}
REQUIRED = {
    "task_started": "task", "task_completed": "task", "task_failed": "task", "task_cancelled": "task",
    "tool_called": "tool", "tool_returned": "tool", "file_written": "path", "file_deleted": "path",
}  # fmt: skip


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def text_faults(value: Any, limit: int) -> set[str]:
    if not isinstance(value, str):
        return {"wrong_type"}
    return {"over_limit"} if len(value.encode()) > limit else set()


def integer_faults(value: Any, low: int, high: int) -> set[str]:
    if isinstance(value, float) and not math.isfinite(value):
        return {"non_finite"}
    if not is_int(value):
        return {"wrong_type"}
    return set() if low <= value <= high else {"over_limit"}


def tree_faults(value: Any, depth: int) -> set[str]:
    """Faults of a value under an unknown key, opened at `depth`."""
    if isinstance(value, float):
        return set() if math.isfinite(value) else {"non_finite"}
    if isinstance(value, (list, dict)):
        inner = list(value.values()) if isinstance(value, dict) else value
        found = {"too_deep"} if depth > 4 else set()
        if isinstance(value, dict):
            found |= {"over_limit"} if len(value) > 64 else set()
            found |= {"wrong_type"} if any(not isinstance(k, str) for k in value) else set()
        return found.union(*(tree_faults(v, depth + 1) for v in inner)) if inner else found
    return set()


def attr_faults(value: Any) -> set[str]:
    if not isinstance(value, dict):
        return {"wrong_type"}
    found = {"over_limit"} if len(value) > 32 else set()
    for key, item in value.items():
        found |= text_faults(key, 64)
        if isinstance(item, (bytes, list, dict)):
            found.add("wrong_type")
        elif isinstance(item, str):
            found |= text_faults(item, 512)
        elif isinstance(item, float) and not math.isfinite(item):
            found.add("non_finite")
    return found


def field_faults(key: Any, value: Any) -> set[str]:
    if not isinstance(key, str):
        return {"wrong_type"}
    if key in TEXT_LIMITS:
        return text_faults(value, TEXT_LIMITS[key])
    if key in AMOUNTS:
        return integer_faults(value, 0, 2**63 - 1)
    if key in SIGNED:
        return integer_faults(value, -(2**63) + 1, 2**63 - 1)
    if key in LENGTHS:
        return integer_faults(value, 0, 2**32 - 1)
    if key in FLAGS:
        return set() if isinstance(value, bool) else {"wrong_type"}
    if key in IDENTIFIERS:
        if isinstance(value, bytes):
            return set() if len(value) == IDENTIFIERS[key] else {"over_limit"}
        return text_faults(value, 2 * IDENTIFIERS[key])
    if key == "v":
        return set() if value == 1 and is_int(value) else {"unsupported_version", "wrong_type"}
    if key == "score":
        if isinstance(value, float):
            return set() if math.isfinite(value) else {"non_finite"}
        return set() if is_int(value) else {"wrong_type"}
    if key == "entities":
        if not isinstance(value, list):
            return {"wrong_type"}
        found = {"over_limit"} if len(value) > 32 else set()
        return found.union(*(text_faults(v, 128) for v in value)) if value else found
    if key == "attrs":
        return attr_faults(value)
    return tree_faults(value, 2)


def faults(event: Any, size: int) -> set[str]:
    """Every reason for which this event may be refused; empty = it must be accepted."""
    if not isinstance(event, dict):
        return {"wrong_type"}
    found = {"over_limit"} if size > 65536 else set()
    for key, value in event.items():
        found |= field_faults(key, value)
    needed = ["v", "id", "type", "ts", "source"]
    kind = event.get("type")
    if isinstance(kind, str) and kind in REQUIRED:
        needed.append(REQUIRED[kind])
    if any(key not in event or event[key] == "" for key in needed):
        found.add("missing_key")
    if kind == "token_cost_logged" and not {"cost_nusd", "input_tokens", "output_tokens"} & set(event):
        found.add("missing_key")
    return found


def known_part(event: dict[str, Any]) -> dict[str, Any]:
    part = {key: value for key, value in event.items() if key in KNOWN}
    if "score" in part:
        part["score"] = float(part["score"])
    return part


def check_one(event: Any) -> None:
    raw = msgpack.packb(event)
    reasons = faults(event, len(raw))
    (got,) = _core.decode_events(raw)
    if not reasons:
        assert got == known_part(event)
    else:
        assert isinstance(got, tuple), f"accepted despite {reasons}: {event!r}"
        assert got[0] in reasons, f"refused as {got} where {reasons} hold"


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=70),
    st.binary(max_size=40),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
values = st.one_of(scalars, trees, st.integers(0, 100), st.just(True), st.binary(min_size=8, max_size=8))
base = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "id": st.text(min_size=1, max_size=16),
        "type": st.sampled_from(["heartbeat", "own_type", "token_cost_logged", *REQUIRED]),
        "ts": st.integers(0, 2**63 - 1),
        "source": st.text(min_size=1, max_size=32),
    }
)
good_fields = st.fixed_dictionaries(
    {},
    optional={
        **{
            key: st.text(min_size=1, max_size=min(limit, 32) // 4)
            for key, limit in TEXT_LIMITS.items()
            if key not in ("id", "type", "source")
        },
        **{key: st.integers(0, 2**63 - 1) for key in sorted(AMOUNTS - {"ts"})},
        **{key: st.integers(-(2**63) + 1, 2**63 - 1) for key in sorted(SIGNED)},
        **{key: st.integers(0, 2**32 - 1) for key in sorted(LENGTHS)},
        **{key: st.booleans() for key in sorted(FLAGS)},
        "trace": st.text("0123456789abcdef", min_size=32, max_size=32),
        "score": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
        "entities": st.lists(st.text(max_size=30), max_size=32),
        "attrs": st.dictionaries(
            st.text(max_size=16),
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=60),
            max_size=32,
        ),
    },
)


@given(base, good_fields)
def test_a_valid_event_reads_back_as_it_was_packed(head: dict[str, Any], fields: dict[str, Any]) -> None:
    """Same values, same absence."""
    check_one({**head, **fields})


@given(
    base,
    good_fields,
    st.dictionaries(st.sampled_from(sorted(KNOWN)) | st.text(max_size=10), values, max_size=3),
    st.sets(st.sampled_from(sorted(KNOWN)), max_size=2),
)
def test_a_mutated_event_is_read_or_refused_for_a_reason_that_holds(
    head: dict[str, Any], fields: dict[str, Any], changes: dict[str, Any], gone: set[str]
) -> None:
    """Whatever is put in or taken away, the verdict is the schema's."""
    event = {key: value for key, value in {**head, **fields, **changes}.items() if key not in gone}
    check_one(event)


@given(trees)
def test_anything_that_is_no_event_is_refused(value: Any) -> None:
    """A frame may hold any value; only maps and arrays of maps are events."""
    got = _core.decode_events(msgpack.packb(value))
    for outcome, item in zip(got, value if isinstance(value, list) else [value], strict=True):
        assert isinstance(outcome, tuple)
        assert outcome[0] in faults(item, 0)


@settings(max_examples=300)
@given(st.lists(st.tuples(base, good_fields), min_size=1, max_size=4), st.integers(0, 2**32))
def test_damaged_bytes_never_give_other_values_than_msgpack_reads(
    parts: list[tuple[dict[str, Any], dict[str, Any]]], seed: int
) -> None:
    """Flip, cut or insert bytes: what is still accepted is what msgpack itself reads there."""
    chance = random.Random(seed)
    raw = bytearray(msgpack.packb([{**head, **fields} for head, fields in parts]))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(raw))
        kind = chance.randrange(3)
        if kind == 0:
            raw[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del raw[at:]
        else:
            raw.insert(at, chance.randrange(256))
        if not raw:
            break
    got = _core.decode_events(bytes(raw))
    accepted = [event for event in got if isinstance(event, dict)]
    try:
        whole = msgpack.unpackb(bytes(raw), strict_map_key=False)
    except Exception:
        assert any(isinstance(outcome, tuple) for outcome in got)
        return
    events = whole if isinstance(whole, list) else [whole]
    assert len(got) == len(events)
    if accepted:
        for outcome, event in zip(got, events, strict=True):
            assert isinstance(outcome, tuple) or outcome == known_part(event)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"\x91" * 100_000, "malformed"),
        (b"\xdd\xff\xff\xff\xff", "over_limit"),
        (b"\x00" * ((1 << 20) + 1), "over_limit"),
        (msgpack.packb(7), "wrong_type"),
        (msgpack.packb({"v": 2, "id": "a", "type": "x", "ts": 1, "source": "s"}), "unsupported_version"),
        (b"\x82\xa1v\x01\xa1v\x01", "duplicate_key"),
        (b"\x81\xa1x\xd4\x01z", "extension_type"),
        (b"\x81\xa2id\xa1\xff", "bad_utf8"),
        (msgpack.packb({"score": math.nan}), "non_finite"),
        (msgpack.packb({"x": [[[[1]]]]}), "too_deep"),
    ],
)
def test_each_reason_has_a_frame_that_earns_it(raw: bytes, reason: str) -> None:
    """The first cause found names the reason."""
    assert _core.decode_events(raw)[0][0] == reason
    assert reason in _core.REJECT_REASONS


def test_a_sequence_number_is_required_on_the_bus_only() -> None:
    """Files and OTLP may lack it."""
    raw = msgpack.packb({"v": 1, "id": "a", "type": "heartbeat", "ts": 1, "source": "s"})
    assert isinstance(_core.decode_events(raw)[0], dict)
    assert _core.decode_events(raw, require_seq=True) == [("missing_key", "seq")]
