"""Single detectors over arrays, and the lightest tier: what they find, keep and refuse."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from numpy.typing import NDArray

import argus
from argus.engine import columns
from argus.engine.columns import Detector
from argus.engine.detection import LightScores, detect
from argus.errors import ShapeError, UsageError

ROWS = 1200


def noise(streams: int = 3, seed: int = 1) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.random.default_rng(seed).normal(100.0, 2.0, size=(ROWS, streams))
    return values


def changed(name: str) -> NDArray[np.float64]:
    """Three streams of which the last changes at row 1,000, as this detector sees it."""
    rng = np.random.default_rng(2)
    values = noise()
    match name:
        case "variance":
            values[1000:, 2] = 100.0 + 3.0 * (values[1000:, 2] - 100.0)
        case "silence":
            values[1000:, 2] = np.nan
        case "rate":
            values = rng.poisson(4.0, size=(ROWS, 3)).astype(np.float64)
            values[1000:, 2] = rng.poisson(16.0, size=ROWS - 1000)
        case "tail":
            values = np.exp(rng.normal(size=(ROWS, 3)))
            values[1000:, 2] *= 30.0
        case _:
            values[1000:, 2] += 20.0
    return values


@pytest.mark.parametrize("name", ["shift", "variance", "silence", "rate", "tail", "residual", "increment"])
def test_each_detector_of_series_sees_its_change_and_not_its_neighbours(name: str) -> None:
    channels = Detector(name, 3).run(changed(name))
    evidence = channels[""]
    assert evidence.dtype == np.float32
    assert evidence.shape == (ROWS, 3)
    moved = np.nanmax(evidence[1000:1040], axis=0)
    assert moved[2] > 10.0
    assert moved[2] > 2.0 * max(moved[0], moved[1])


def test_a_mix_and_an_embedding_are_of_entities() -> None:
    rng = np.random.default_rng(3)
    usual, other = [0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]
    calls = np.concatenate([rng.multinomial(5, usual, size=1000), rng.multinomial(5, other, size=100)])
    of_two = np.concatenate([calls, calls[np.r_[:1000, :100]]], axis=1)
    evidence = Detector("mix", 2, width=4).run(of_two)[""]
    assert evidence[1030, 0] > 2.0 * evidence[1030, 4]
    vectors = rng.normal(size=(1500, 32)) * 0.5 + np.r_[np.ones(16), np.zeros(16)]
    vectors[1400:] = vectors[1400:, ::-1]
    drift = Detector("embedding", 1, width=32).run(vectors)[""]
    assert drift[1430, 0] > 1.5 * drift[1000:1400, 0].max()


def test_calls_go_on_where_the_last_ended_and_a_saved_detector_resumes() -> None:
    values = changed("shift")
    whole = Detector("shift", 3).run(values)
    first = Detector("shift", 3)
    head = first.run(values[:990])
    second = Detector("shift", 3)
    second.load(first.save())
    for name, channel in whole.items():
        np.testing.assert_array_equal(
            np.concatenate([head[name], second.run(values[990:])[name]]), channel, err_msg=name
        )
        second.load(first.save())


def test_a_mask_and_an_exposure_are_heeded() -> None:
    values = changed("shift")
    frozen = Detector("shift", 3)
    learn = np.ones(values.shape, np.uint8)
    learn[1000:] = 0
    assert frozen.run(values, learn=learn)[""][-1, 2] > 60.0
    hits = np.random.default_rng(4).binomial(100, 0.05, size=(ROWS, 1)).astype(np.float64)
    trials = np.full((ROWS, 1), 100.0)
    trials[1000:] = 10.0  # as many hits of a tenth of the trials
    assert np.nanmax(Detector("rate", 1).run(hits, exposure=trials)[""][1000:1010]) > 20.0


def test_a_reset_stream_is_young_again() -> None:
    detector = Detector("shift", 3)
    detector.run(changed("shift"))
    detector.reset([2])
    young = Detector("shift", 3).run(noise()[:200])[""]
    mine = detector.run(noise()[:200])[""]
    np.testing.assert_array_equal(mine[:, 2], young[:, 2])
    assert (mine[:, 0] != young[:, 0]).any()
    with pytest.raises(UsageError, match="no stream 3"):
        detector.reset([3])


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.zeros(7), r"expected shape \(n, 3\), found \(7,\)"),
        (np.zeros((7, 4)), r"expected shape \(n, 3\), found \(7, 4\)"),
        (np.zeros((2, 7, 3)), r"expected shape \(n, 3\)"),
        (np.float64(1.0), r"expected shape \(n, 3\)"),
    ],
)
def test_wrong_shapes_say_got_and_wanted(values: NDArray[np.float64], wanted: str) -> None:
    with pytest.raises(ShapeError, match=wanted):
        Detector("shift", 3).run(values)


def test_wrong_companions_are_refused() -> None:
    detector = Detector("rate", 3)
    with pytest.raises(ShapeError, match="exposure"):
        detector.run(np.zeros((5, 3)), exposure=np.zeros((4, 3)))
    with pytest.raises(ShapeError, match="learn"):
        detector.run(np.zeros((5, 3)), learn=np.zeros((5, 2)))


@pytest.mark.parametrize(
    "values", [[["a", "b", "c"]], np.zeros((4, 3), complex), [[1.0, 2.0, 3.0], [1.0]], [[{}, 1, 2]]]
)
def test_what_are_no_numbers_is_refused(values: object) -> None:
    with pytest.raises(ShapeError, match="expected real numbers"):
        Detector("shift", 3).run(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
def test_any_real_dtype_and_layout(dtype: str) -> None:
    values = np.random.default_rng(5).integers(0, 2, size=(3, 400)).astype(dtype).T
    want = Detector("shift", 3).run(np.ascontiguousarray(values, np.float32))[""]
    np.testing.assert_array_equal(Detector("shift", 3).run(values)[""], want)


def test_unknown_names_options_and_states_are_refused() -> None:
    with pytest.raises(UsageError, match=r"expected one of .*shift.*, found 'drift'"):
        Detector("drift", 3)
    with pytest.raises(UsageError, match=r"shift: expected options .*, found 'speed'"):
        Detector("shift", 3, speed=1.0)
    with pytest.raises(UsageError, match=r"shift\.cut: expected a number in \[2, 100\], found 1\.0"):
        Detector("shift", 3, cut=1.0)
    with pytest.raises(UsageError, match="slots"):
        Detector("shift", 0)
    with pytest.raises(UsageError):
        Detector("shift", -1)
    state = Detector("shift", 3).save()
    with pytest.raises(UsageError, match="of another detector"):
        Detector("variance", 3).load(state)
    with pytest.raises(UsageError):
        Detector("shift", 4).load(state)
    with pytest.raises(UsageError):
        Detector("shift", 3).load(state[:-1])


def test_nothing_to_run() -> None:
    assert Detector("shift", 3).run(np.empty((0, 3)))[""].shape == (0, 3)


def test_docstring_examples() -> None:
    assert doctest.testmod(columns).failed == 0
    assert argus.Detector is Detector


def test_the_light_tier_finds_a_leap_and_a_stop_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(5)
    values[1000:, 1] += 40.0
    values[1000:, 3] = np.nan
    times = np.arange(ROWS) * 60.0
    scores = detect(values, times, false_alarms_per_day=0.001, tier="light")
    assert isinstance(scores, LightScores)
    assert scores.bits.dtype == np.float32
    assert not np.isnan(scores.bits).any()
    first = {column: (row, value) for row, column, _, value, _ in reversed(scores.alarms)}
    assert first[1][0] == 1000
    assert first[1][1] == pytest.approx(values[1000, 1], rel=1e-6)
    assert 1002 <= first[3][0] < 1010
    assert np.isnan(first[3][1])
    monkeypatch.setattr("argus.engine.detection._VALUES_PER_CALL", 35)
    done: list[float] = []
    again = detect(values, times, false_alarms_per_day=0.001, tier="light", progress=done.append)
    np.testing.assert_array_equal(again.bits, scores.bits)
    assert [a[:3] for a in again.alarms] == [a[:3] for a in scores.alarms]
    assert done[-1] == 1.0
    np.testing.assert_array_equal(detect(values[:500], times[:500], tier="light").bits, scores.bits[:500])


def test_the_light_tier_of_nothing_and_of_no_such_tier() -> None:
    assert detect(np.empty((0, 3)), [], tier="light").alarms == []
    with pytest.raises(UsageError, match="tier: expected 'full' or 'light', found 'lite'"):
        detect(np.zeros((3, 2)), [0, 1, 2], tier="lite")  # type: ignore[call-overload]
