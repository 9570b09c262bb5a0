"""The frozen reference: what it learns of hours, what it tells of ramps, and that nobody but its key moves it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.errors import UsageError
from argus.record.keys import SigningKey, open_keys
from argus.schema import Anomaly, Direction
from argus.services.reference import DriftWatch, Reference

HOUR = 3600 * 10**9
START = 20_000 * 24 * HOUR  # midnight, UTC
NAMES = ("load", "requests")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return open_keys(tmp_path_factory.mktemp("keys"))


def normal(hour: int, rng: np.random.Generator) -> np.ndarray:
    """A flat series and one that triples by day."""
    return np.array([10.0, 200.0 - 100.0 * np.cos(2 * np.pi * hour / 24)]) * rng.normal(1, 0.02, 2)


def live(
    watch: DriftWatch, hours: range, rng: np.random.Generator, scale: float = 1.0, slope: float = 0.0
) -> list[tuple[float, Anomaly]]:
    """Runs hours of 40 rows; the first series is multiplied by a ramp. Anomalies with the ramp where they were said."""
    said = []
    for hour in hours:
        level = normal(hour, rng)
        for minute in range(40):
            scale *= (1 + slope) ** (1 / 40)
            now = START + hour * HOUR + minute * 90 * 10**9
            values = level * rng.normal(1, 0.02, 2) * [scale, 1.0]
            said += [(scale, anomaly) for anomaly in watch.push(NAMES, values, now)]
    return said


def frozen(key: SigningKey, days: int = 3) -> tuple[DriftWatch, np.random.Generator]:
    rng = np.random.default_rng(7)
    watch = DriftWatch("h")
    assert live(watch, range(days * 24), rng) == []
    watch.freeze(now=START + days * 24 * HOUR, actor="anna", key=key)
    return watch, rng


@pytest.mark.parametrize("slope", [0.001, 0.005, 0.01, 0.02, 0.05, -0.005, -0.05])
def test_a_slow_ramp_is_told_before_half_as_much_again_and_nothing_else_is(key: SigningKey, slope: float):
    watch, rng = frozen(key)
    said = live(watch, range(72, 72 + int(np.log(3) / np.log1p(abs(slope))) + 1), rng, slope=slope)
    assert [anomaly.series for _, anomaly in said] == ["load"]
    scale, anomaly = said[0]
    assert 0.6 < scale < 1.5
    assert anomaly.direction is (Direction.UP if slope > 0 else Direction.DOWN)
    assert anomaly.lower < anomaly.expected < anomaly.upper
    assert not anomaly.lower <= anomaly.value <= anomaly.upper
    assert watch.drifted() == ["load"]


def test_weeks_as_they_were_are_silent_and_a_series_that_comes_back_is_said_to(key: SigningKey):
    watch, rng = frozen(key)
    assert live(watch, range(72, 72 + 14 * 24), rng) == []
    out = live(watch, range(408, 420), rng, scale=2.0)
    back = live(watch, range(420, 430), rng)
    assert [("drifted" in a.message, "back within" in a.message) for _, a in out + back] == [
        (True, False),
        (False, True),
    ]
    assert watch.drifted() == []


def test_what_has_drifted_teaches_nothing_and_freezing_anew_accepts_it(key: SigningKey):
    watch, rng = frozen(key)
    live(watch, range(72, 72 + 10 * 24), rng, scale=2.0)
    assert watch.drifted() == ["load"]
    again = watch.freeze(now=START + 312 * HOUR, actor="anna", key=key)
    assert max(h for h in again.series["load"].hours if h is not None) < 14
    watch.adopt(None)
    live(watch, range(312, 312 + 20 * 24), rng, scale=2.0)
    accepted = watch.freeze(now=START + 792 * HOUR, actor="anna", key=key)
    assert min(h for h in accepted.series["load"].hours if h is not None) > 15
    assert live(watch, range(792, 840), rng, scale=2.0) == []


def test_hours_under_maintenance_are_dropped(key: SigningKey):
    watch, rng = frozen(key)
    said = []
    for hour in range(72, 80):
        for minute in range(40):
            values = normal(hour, rng) * [5.0, 1.0]
            said += watch.push(NAMES, values, START + hour * HOUR + minute * 90 * 10**9, left_out=["load"])
    assert said == []


def test_too_short_a_past_makes_no_reference(key: SigningKey):
    watch = DriftWatch("h")
    for hours in (0, 10):
        live(watch, range(hours), np.random.default_rng(1))
        with pytest.raises(UsageError, match="expected series that were seen for 24 hours"):
            watch.freeze(now=START, actor="anna", key=key)


@settings(max_examples=60)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 127))
def test_a_reference_that_was_touched_is_not_used(key: SigningKey, at: float, flip: int):
    reference = frozen(key, days=2)[0].reference
    assert reference is not None
    content = bytearray(msgspec.json.encode(reference))
    msgspec.json.decode(bytes(content), type=Reference).check(key)
    content[int(at * len(content))] ^= flip
    try:
        touched = msgspec.json.decode(bytes(content), type=Reference)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if touched == reference:  # a digit that no double tells apart, the case of a hexadecimal one
        return
    if touched.signature.lower() == reference.signature and touched.series == reference.series:
        same = (touched.frozen_at, touched.actor, touched.v) == (reference.frozen_at, reference.actor, reference.v)
        if same:  # only the key's name differs, which proves nothing
            return
    with pytest.raises(UsageError, match="expected the signature of key"):
        touched.check(key)


def test_another_keys_reference_is_not_used(key: SigningKey, tmp_path: Path):
    reference = frozen(key, days=2)[0].reference
    assert reference is not None
    with pytest.raises(UsageError, match="expected the signature"):
        reference.check(open_keys(tmp_path))


def test_what_was_learned_of_hours_outlives_a_restart(key: SigningKey):
    watch, _ = frozen(key)
    again = DriftWatch("h")
    again.load(watch.save())
    assert again.freeze(now=1, actor="b", key=key).series == watch.freeze(now=1, actor="b", key=key).series
    for damaged in (b"", b"PK", watch.save()[:-40], json.dumps([1]).encode()):
        with pytest.raises(UsageError, match=r"^hours: "):
            again.load(damaged)


def test_series_that_come_go_and_are_not_observed(key: SigningKey):
    watch, rng = frozen(key)
    for hour in range(72, 76):
        for minute in range(40):
            now = START + hour * HOUR + minute * 90 * 10**9
            names = tuple(f"new{i}" for i in range(hour * 7 % 100))
            assert watch.push((*names, "load"), np.full(len(names) + 1, np.nan), now) == []
    assert live(watch, range(76, 80), rng) == []
