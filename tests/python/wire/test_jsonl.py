"""JSON lines: every good line arrives as it was, every bad one is counted by reason, and nothing is fatal."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.errors import UnreachableError
from argus.wire import jsonl
from argus.wire.jsonl import Follower, Frame, frames


def events(found: list[Frame]) -> list[Any]:
    return [event for frame in found if frame.count for event in msgpack.unpackb(frame.data, strict_map_key=True)]


def errors(found: list[Frame]) -> dict[str, int]:
    return dict(sum((Counter(frame.errors) for frame in found), Counter()))


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def test_file_arrives_whole_in_frames_within_both_limits(tmp_path: Path) -> None:
    made = [{"id": str(i), "ts": 1_700_000_000_000_000_000 + i, "text": "x" * (i % 3000)} for i in range(5000)]
    path = write(tmp_path / "e.ndjson", *(json.dumps(e).encode() + b"\n" for e in made))
    found = list(frames(path))
    assert events(found) == made
    assert errors(found) == {}
    assert all(0 < frame.count <= 1024 and len(frame.data) <= 1 << 20 for frame in found)
    assert any(frame.count < 1024 and len(frame.data) > (1 << 20) - 4000 for frame in found)
    assert sum(frame.count for frame in found) == 5000


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n"])
def test_gzip_is_told_by_content_and_last_newline_is_optional(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "named-otherwise"
    path.write_bytes(gzip.compress(b'{"a":1}\n\n  \n{"a":2}' + end))
    found = list(frames(str(path)))
    assert events(found) == [{"a": 1}, {"a": 2}] and errors(found) == {}


_BAD = [
    (b'{"a":', "not_json"), (b"nonsense", "not_json"), (b"[1]", "not_object"), (b"3", "not_object"),
    (b'{"a":1,"b":2,"a":1}', "duplicate_key"), (b'{"a":1, "a" :1}', "duplicate_key"),
    (b'{"a":1,"\\u0061":1}', "duplicate_key"),
    (b'{"x":{"b":1,"b":2}}', "duplicate_key"), (b'{"x":[{"b":1,"b":2}]}', "duplicate_key"),
    (b'{":":1,":":2}', "duplicate_key"),
    (b'{"a\\"":1,"a\\"":2}', "duplicate_key"), (b'{"a\\\\":1,"a\\\\":2}', "duplicate_key"),
    (b'{"t":"say \\"a\\": 1","a":1,"a":2}', "duplicate_key"), (b'{"t":":","a":1,"a":2}', "duplicate_key"),
    (b'{"a":NaN}', "not_finite"), (b'{"a":-Infinity}', "not_finite"), (b'{"a":[Infinity]}', "not_finite"),
    (b'{"a":1e999}', "not_finite"), (b'{"a":9223372036854775808}', "integer_range"),
    (b'{"a":-9223372036854775809}', "integer_range"), (b'{"a":[99999999999999999999999]}', "integer_range"),
    (b'{"a":"\xff"}', "bad_utf8"), (b'{"a":"' + b"x" * 65_536 + b'"}', "too_long"), (b"{" * 60_000, "not_json"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), _BAD, ids=[f"{r}-{i}" for i, (_, r) in enumerate(_BAD)])
def test_bad_line_is_counted_with_its_number_and_sample_and_the_rest_lives(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = write(tmp_path / "e.ndjson", b'{"good":1}\n', line, b'\n{"good":2}\n')
    found = list(frames(path))
    assert events(found) == [{"good": 1}, {"good": 2}]
    assert errors(found) == {reason: 1}
    (bad,) = [bad for frame in found for bad in frame.bad]
    assert (bad.line, bad.reason) == (2, reason)
    assert bad.sample == line[:160].decode("utf-8", "replace")


@pytest.mark.parametrize(
    "line",
    [b'{"a":"b\\":","c":1}', b'{"a":":b"}', b'{"a" : 1}', b'{"a":"\\\\","b":1}', b'{"a\\\\":1}',
     b'{"a":"say \\"b\\" : 1"}',
     b'{"a":9223372036854775807,"b":-9223372036854775808}', b'{"":{"":1},"x":{"":1}}', b'{"a":[[],[{}]],"b":null}'],
)  # fmt: skip
def test_odd_but_good_lines_are_taken(tmp_path: Path, line: bytes) -> None:
    found = list(frames(write(tmp_path / "e.ndjson", line, b"\n")))
    assert events(found) == [json.loads(line)] and errors(found) == {}


def test_torn_last_line_is_told_from_a_bad_one(tmp_path: Path) -> None:
    found = list(frames(write(tmp_path / "e.ndjson", b'{"a":1}\n{"a":2,"te')))
    assert events(found) == [{"a": 1}] and errors(found) == {"torn_line": 1}
    assert found[-1].bad[0].line == 2


def test_damaged_archive_keeps_what_was_readable(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(b'{"a":%d}\n' % i for i in range(400_000)))
    found = list(frames(write(tmp_path / "e.ndjson.gz", data[: len(data) // 2])))
    assert errors(found).get("torn_archive") == 1
    taken = events(found)
    assert taken == [{"a": i} for i in range(len(taken))]


def test_endless_line_costs_no_memory_and_one_error(tmp_path: Path) -> None:
    found = list(frames(write(tmp_path / "e.ndjson", b'{"a":"', b"x" * (5 << 20), b'"}\n{"b":1}\n')))
    assert events(found) == [{"b": 1}] and errors(found) == {"too_long": 1}
    assert found[0].bad[0].line == 1


def test_line_numbers_continue_after_an_endless_line(tmp_path: Path) -> None:
    found = list(frames(write(tmp_path / "e.ndjson", b"x" * (3 << 20), b"\n{}\nbad\n")))
    assert [(bad.line, bad.reason) for frame in found for bad in frame.bad] == [(1, "too_long"), (3, "not_json")]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(b'{"a":1}\n{"a":2}\n'))  # type: ignore[arg-type]

    monkeypatch.setattr("sys.stdin", Stdin)
    assert events(list(frames("-"))) == [{"a": 1}, {"a": 2}]


def test_dicts_are_held_to_the_same_rules() -> None:
    given_events: list[Any] = [
        {"a": 1}, {"a": float("nan")}, {"a": {"b": [float("inf")]}}, {"a": 1 << 63}, {"a": 1 << 70}, {"a": object()},
        {1: 2}, "text", {"a": "x" * 70_000}, {"a": "\ud800"}, {"b": 2},
    ]  # fmt: skip
    found = list(frames(given_events))
    assert events(found) == [{"a": 1}, {"b": 2}]
    assert errors(found) == {"not_finite": 2, "integer_range": 2, "not_encodable": 3, "not_object": 1, "too_long": 1}


def test_absent_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"absent\.ndjson: expected a readable file"):
        list(frames(tmp_path / "absent.ndjson"))
    with pytest.raises(UnreachableError):
        list(frames(tmp_path))


_scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
_values = st.recursive(
    _scalars | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text(max_size=8), _values, max_size=6)


@settings(max_examples=120, deadline=None)
@given(made=st.lists(_objects, max_size=5), tight=st.booleans(), ascii_only=st.booleans())
def test_any_object_comes_through_unchanged(made: list[Any], tight: bool, ascii_only: bool) -> None:
    separators = (",", ":") if tight else (" , ", " : ")
    packer = jsonl._Packer(3)
    text = "\n".join(json.dumps(e, separators=separators, ensure_ascii=ascii_only) for e in made)
    found = [*packer.add_block(text.encode("utf-8")), *packer.finish()]
    assert events(found) == made and errors(found) == {}


@settings(max_examples=120, deadline=None)
@given(made=_objects.filter(bool), space=st.sampled_from(["", " ", "\t"]), data=st.data())
def test_any_repeated_key_is_found(made: dict[str, Any], space: str, data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(sorted(made)))
    pairs = [*made.items(), (again, data.draw(_scalars))]
    line = "{" + ",".join(f"{json.dumps(k)}{space}:{json.dumps(v)}" for k, v in data.draw(st.permutations(pairs))) + "}"
    assert jsonl.parse_event(line.encode())[1] == "duplicate_key"


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_in_any_blocks_never_raise_and_every_line_is_accounted_for(data: bytes, step: int) -> None:
    packer = jsonl._Packer(1024)
    found: list[Frame] = []
    for i in range(0, len(data), step):
        found.extend(packer.add_block(data[i : i + step]))
    found.extend(packer.finish())
    lines = [line for line in data.split(b"\n") if line and not line.isspace()]
    assert len(events(found)) + sum(errors(found).values()) == len(lines)


# -- following ---------------------------------------------------------------------------------------------------------


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_follower_takes_whole_lines_only_and_remembers_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Follower(path) as follower:
        assert follower.poll() == []
        append(path, b'{"a":1}\n{"a":')
        assert events(follower.poll()) == [{"a": 1}]
        assert follower.poll() == []
        append(path, b'2}\nbad\n{"a":3}\n')
        found = follower.poll()
        assert events(found) == [{"a": 2}, {"a": 3}] and errors(found) == {"not_json": 1}
        assert found[0].bad[0].line == 3


def test_follower_from_the_end_leaves_the_past_and_a_line_that_began_in_it(tmp_path: Path) -> None:
    path = write(tmp_path / "log", b'{"old":1}\n{"ol')
    with Follower(path, from_end=True) as follower:
        append(path, b'd":2}\n{"new":1}\n')
        found = follower.poll()
        assert events(found) == [{"new": 1}] and errors(found) == {}
    with Follower(write(tmp_path / "other", b'{"old":1}\n'), from_end=True) as follower:
        append(tmp_path / "other", b'{"new":1}\n')
        assert events(follower.poll()) == [{"new": 1}]


def test_follower_survives_rotation_without_loss(tmp_path: Path) -> None:
    path = write(tmp_path / "log", b'{"a":1}\n')
    with Follower(path) as follower:
        assert events(follower.poll()) == [{"a": 1}]
        append(path, b'{"a":2}\n')
        path.rename(tmp_path / "log.1")
        append(tmp_path / "log.1", b'{"a":3}')
        write(path, b'{"a":4}\n')
        assert events(follower.poll()) == [{"a": 2}, {"a": 3}, {"a": 4}]
        assert (follower.rotations, follower.truncations) == (1, 0)
        append(path, b'{"a":5}\n')
        assert events(follower.poll()) == [{"a": 5}]


def test_follower_survives_truncation_deletion_and_return(tmp_path: Path) -> None:
    path = write(tmp_path / "log", b'{"a":1}\n{"a":2}\n{"torn')
    with Follower(path) as follower:
        assert len(events(follower.poll())) == 2
        write(path, b'{"b":1}\n')
        assert events(follower.poll()) == [{"b": 1}]
        assert follower.truncations == 1
        path.unlink()
        assert follower.poll() == [] and follower.poll() == []
        write(path, b'{"c":1}\n')
        assert events(follower.poll()) == [{"c": 1}]
        assert follower.rotations == 1


def test_follower_reads_a_bounded_share_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path / "log", *(b'{"i":%d}\n' % i for i in range(1000)))
    with Follower(path) as follower:
        found: list[Any] = []
        polls = 0
        while more := events(follower.poll(max_bytes=1000)):
            found += more
            polls += 1
        assert [event["i"] for event in found] == list(range(1000)) and polls > 5


def test_follower_says_when_it_may_not_read(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(UnreachableError, match="followed no further"):
        Follower(tmp_path / "log").poll()


def test_real_data_comes_through_whole() -> None:
    home = os.environ.get("ARGUS_DATA")
    if not home:
        pytest.skip("ARGUS_DATA is not set: no event data to read")
    path = Path(home) / "events" / "faults.ndjson.gz"
    found = list(frames(path))
    with gzip.open(path) as file:
        assert events(found) == [json.loads(line) for line in file]
    assert errors(found) == {}
