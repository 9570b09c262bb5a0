"""argus.detect: causal, honest about what is missing, and firm about its arguments."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import argus.engine.detection as detection
from argus.engine.detection import Scores, detect
from argus.errors import ArgusError, ShapeError, UsageError
from argus.schema import Anomaly, Direction, Family, ScopeKind, Severity


def wandering(rows: int = 3000, series: int = 5, seed: int = 3) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(rows, series)).cumsum(0) * 0.01
    values: NDArray[np.float64] = walk + rng.normal(size=(rows, series))
    return values


def minutes(rows: int) -> NDArray[np.float64]:
    return np.arange(rows, dtype=np.float64) * np.float64(60.0)


def test_prefix_scores_the_same() -> None:
    """No value depends on a later one: bits, alarms, entity and band of a prefix are those of the whole."""
    values = wandering()
    values[700:760, 1] = np.nan
    values[1800, 2] += 30
    whole, part = detect(values, minutes(3000)), detect(values[:2000], minutes(2000))
    for name in ("bits", "alarm_bits", "entity_bits", "lower", "upper", "expected"):
        np.testing.assert_array_equal(getattr(whole, name)[:2000], getattr(part, name), err_msg=name)
    assert [a for a in whole.anomalies if a.ts < 2000 * 60 * 10**9] == part.anomalies


def test_planted_spike_is_loud_and_spoken() -> None:
    values = wandering()
    values[1800, 2] += 30
    scores = detect(values, minutes(3000))
    assert scores.bits[1800, 2] >= 8
    assert scores.alarm_bits[1800, 2] >= 8
    assert values[1800, 2] > scores.upper[1800, 2]
    spoken = [a for a in scores.anomalies if a.series == "column_2" and a.ts == 1800 * 60 * 10**9]
    assert len(spoken) == 1
    (anomaly,) = spoken
    assert isinstance(anomaly, Anomaly)
    assert anomaly.family is Family.HOST
    assert anomaly.detector in ("residual", "increment")
    assert anomaly.scope.kind is ScopeKind.HOST
    assert anomaly.severity is Severity.INFO
    assert anomaly.direction is Direction.UP
    assert anomaly.value == pytest.approx(values[1800, 2], rel=1e-6)
    assert anomaly.upper == scores.upper[1800, 2]
    assert anomaly.false_alarm_interval_s >= 86400
    assert anomaly.since == anomaly.ts


def test_missing_scores_nothing_and_nothing_is_nan() -> None:
    values = wandering()
    values[700:760, 1] = np.nan
    values[800:810, 3] = np.inf
    values[:, 4] = np.nan
    scores = detect(values, minutes(3000))
    assert (scores.bits[700:760, 1] == 0).all()
    assert (scores.bits[800:810, 3] == 0).all()
    assert (scores.bits[:, 4] == 0).all()
    for name in ("bits", "alarm_bits", "entity_bits"):
        found = getattr(scores, name)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
    assert np.isnan(scores.parts["residual"][700:760, 1]).all()
    assert np.isnan(scores.upper[:, 4]).all()


def test_first_150_values_are_silent() -> None:
    values = wandering(400, 2)
    values[100, 0] = 1e6
    values[:50, 1] = np.nan
    bits = detect(values, minutes(400)).bits
    assert (bits[:150, 0] == 0).all()
    assert (bits[:200, 1] == 0).all()
    assert bits[250:].max() > 0


def test_bits_keep_to_their_bound() -> None:
    """A channel has at most 1.13 times log2 of the values seen plus 10 bits; six of seven count 0.3 beside the loudest."""
    values = wandering(2000, 3)
    values[160, 0] = 1e9
    values[1999, 1] = -1e9
    seen = np.arange(2000)[:, None] + 2.0
    assert (detect(values, minutes(2000)).bits <= 2.8 * 1.13 * (np.log2(seen) + 10)).all()


def test_lazy_parts_agree_with_the_eager_bits() -> None:
    values = wandering(1200, 3)
    values[900, 1] += 25
    scores = detect(values, minutes(1200))
    loud = scores.alarm_bits > 0
    assert loud.any()
    assert (scores.alarm_bits[loud] >= 22).all()
    assert len(scores.parts) == 15
    assert {"residual", "residual.fast", "season.day", "season.week.30", "increment"} <= scores.parts.keys()
    residual = scores.parts["residual"][1:]
    np.testing.assert_allclose(residual, np.abs(values - scores.expected)[1:], rtol=1e-4, atol=1e-5)
    assert scores.parts["residual"] is scores.parts["residual"]
    assert "1200 rows, 3 series" in repr(scores)


def test_later_changes_of_the_input_change_nothing() -> None:
    values = wandering(600, 2)
    untouched = detect(values.copy(), minutes(600))
    scores = detect(values, minutes(600))
    values[:] = 0.0
    np.testing.assert_array_equal(scores.alarm_bits, untouched.alarm_bits)
    np.testing.assert_array_equal(scores.upper, untouched.upper)


def test_budget_cuts_anomalies_only() -> None:
    values = wandering(3000, 10)
    values[1500::100, 3] += np.linspace(2, 20, 15)
    loose = detect(values, minutes(3000), false_alarms_per_day=1000)
    tight = detect(values, minutes(3000), false_alarms_per_day=1e-4)
    np.testing.assert_array_equal(loose.bits, tight.bits)
    np.testing.assert_array_equal(loose.alarm_bits, tight.alarm_bits)
    assert len(loose.anomalies) > len(tight.anomalies)
    assert {a.id for a in loose.anomalies} >= {a.id for a in tight.anomalies if a.since == a.ts}


def test_entity_sees_what_all_series_share() -> None:
    """A departure too small for any one series is plain for all of them together."""
    values = np.random.default_rng(5).normal(size=(2000, 60))
    values[1500:1520] *= 2.2
    scores = detect(values, minutes(2000))
    assert scores.entity_bits.shape == (2000,)
    assert scores.entity_bits[1500:1520].max() >= 2
    assert scores.entity_bits[400:1500].max() < scores.entity_bits[1500:1520].max()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.int32, ">f8"])
def test_any_real_dtype_and_layout(dtype: str) -> None:
    values = np.asfortranarray(np.round(wandering(400, 3) * 8).astype(dtype))
    want = detect(np.asarray(values, np.float64), minutes(400)).bits
    np.testing.assert_array_equal(detect(values, minutes(400)).bits, want)


def test_blocks_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a block changes no bit; progress grows to 1."""
    values = wandering(700, 4)
    whole = detect(values, minutes(700))
    monkeypatch.setattr(detection, "_VALUES_PER_CALL", 4 * 97)
    told: list[float] = []
    split = detect(values, minutes(700), progress=told.append)
    np.testing.assert_array_equal(whole.bits, split.bits)
    np.testing.assert_array_equal(whole.entity_bits, split.entity_bits)
    assert whole.anomalies == split.anomalies
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 8


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_nothing_to_see(shape: tuple[int, int]) -> None:
    scores = detect(np.zeros(shape), np.arange(shape[0], dtype=float))
    assert scores.bits.shape == scores.alarm_bits.shape == scores.lower.shape == shape
    assert scores.entity_bits.shape == shape[:1]
    assert scores.anomalies == []
    assert isinstance(scores, Scores)


@pytest.mark.parametrize(
    ("values", "times", "budget", "error", "words"),
    [
        (np.zeros(5), np.arange(5.0), None, ShapeError, r"\(n_time, n_series\).*\(5,\).*values\[:, None\]"),
        (np.zeros((5, 2, 1)), np.arange(5.0), None, ShapeError, r"found shape \(5, 2, 1\)"),
        (np.zeros((5, 2), complex), np.arange(5.0), None, ShapeError, "complex128"),
        (np.array([["a"]]), np.arange(1.0), None, ShapeError, "dtype"),
        (np.zeros((5, 2)), np.arange(4.0), None, ShapeError, r"\(5,\).*found float64 of shape \(4,\)"),
        (np.zeros((3, 1)), [0.0, np.nan, 2.0], None, UsageError, r"times_s\[1\].*nan"),
        (np.zeros((2, 1)), [0.0, 1e12], None, UsageError, r"times_s\[1\]"),
        (np.zeros((2, 1)), [0.0, 1.0], 0.0, UsageError, "false_alarms_per_day"),
        (np.zeros((2, 1)), [0.0, 1.0], float("nan"), UsageError, "false_alarms_per_day"),
    ],
)
def test_wrong_arguments_say_got_and_wanted(
    values: NDArray[np.float64], times: NDArray[np.float64], budget: float | None, error: type[ArgusError], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        detect(values, times, false_alarms_per_day=budget)
    assert "nothing scored" in str(raised.value)


def test_unix_times_keep_their_second() -> None:
    start = 1_700_000_000
    values = wandering(600, 1)
    values[500] += 60
    scores = detect(values, start + np.arange(600))
    assert (start + 500) * 10**9 in {a.ts for a in scores.anomalies}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 500),
    series=st.integers(1, 9),
    scale=st.floats(1e-12, 1e12),
    level=st.floats(-1e12, 1e12),
    gaps=st.floats(0.0, 0.9),
)
def test_properties(seed: int, rows: int, series: int, scale: float, level: float, gaps: float) -> None:
    """Bits are finite, not negative, 0 where missing; a column's bits do not depend on its neighbours."""
    rng = np.random.default_rng(seed)
    values = level + scale * rng.standard_t(2, size=(rows, series))
    values[rng.random((rows, series)) < gaps] = np.nan
    bits = detect(values, minutes(rows)).bits
    assert np.isfinite(bits).all()
    assert (bits >= 0).all()
    assert (bits[np.isnan(values)] == 0).all()
    column = int(rng.integers(series))
    np.testing.assert_array_equal(detect(values[:, [column]], minutes(rows)).bits[:, 0], bits[:, column])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), octaves=st.integers(-20, 20))
def test_units_do_not_matter(seed: int, octaves: int) -> None:
    """The same series in another unit (a power of two, so that nothing is rounded) has the same bits."""
    values = np.random.default_rng(seed).normal(size=(400, 2))
    np.testing.assert_array_equal(detect(values, minutes(400)).bits, detect(values * 2.0**octaves, minutes(400)).bits)


def test_docstring_examples() -> None:
    assert doctest.testmod(detection).failed == 0


def test_times_that_repeat_or_step_back_are_scored_like_any_other_row() -> None:
    values = np.random.default_rng(11).normal(size=(600, 2))
    times = np.arange(600.0) * 60
    values[500, 0] += 30
    broken = times.copy()
    broken[300] = broken[299]
    broken[400:420] -= 3600
    found, plain = detect(values, broken).bits, detect(values, times).bits
    np.testing.assert_array_equal(found[:300], plain[:300])
    # Later only what is usual at this hour may differ.
    assert np.isfinite(found).all() and np.mean(np.abs(found - plain) > 4) < 0.1
    assert found[500, 0] > 20
