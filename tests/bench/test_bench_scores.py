"""The scorers of the benchmarks: NAB's against its definition, row by row, and the core's figures against their reference."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _bench_on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench" / "python"))
        yield


@pytest.fixture(scope="module")
def nab(_bench_on_path: None) -> ModuleType:
    import nab

    return nab


@pytest.fixture(scope="module")
def corpus(data: Path, nab: ModuleType) -> list[Any]:
    found: list[Any] = nab.load(data / "nab")
    if not found:
        pytest.skip("NAB: expected its files in ARGUS_DATA/nab, found none")
    return found


def series(nab: ModuleType, rows: int, windows: list[tuple[int, int]]) -> Any:
    return nab.Series("a", np.arange(rows, dtype=np.int64) * 300, np.zeros(rows), windows)


def slow_total(one: Any, detections: Any, miss: float, false: float) -> float:
    """NAB's total of a file at given detections, as its definition reads, gained over saying nothing."""
    rows = len(one.values)
    probation = min(int(0.15 * rows), 750)
    sigmoid = lambda y: 2 / (1 + np.exp(5 * y)) - 1 if y <= 3 else -1.0  # noqa: E731
    total = 0.0
    inside = np.zeros(rows, bool)
    for first, last in one.windows:
        inside[first : last + 1] = True
        hits = [row for row in range(max(first, probation), last + 1) if detections[row]]
        width = last - first + 1
        total += miss + sigmoid(-(last - hits[0] + 1) / width) / sigmoid(-1.0) if hits else 0.0
    for row in range(probation, rows):
        if detections[row] and not inside[row]:
            before = [(first, last) for first, last in one.windows if last < row]
            if before:
                first, last = max(before, key=lambda window: window[1])
                total += false * sigmoid((row - last) / max(last - first, 1e-12))
            else:
                total -= false
    return total


@given(heights=st.lists(st.integers(0, 4), min_size=60, max_size=60))
def test_the_best_threshold_is_the_best_of_all_by_the_definition(nab: ModuleType, heights: list[int]) -> None:
    one = series(nab, 60, [(15, 24), (40, 44)])
    scores = np.array(heights, float)
    for profile in nab.PROFILES.values():
        totals = [slow_total(one, scores >= bar, profile.miss, profile.false) for bar in range(6)]
        expected = 100 * max(0.0, *totals) / ((1 + profile.miss) * 2)
        assert expected == pytest.approx(nab.best([nab.judge(one)], [scores], profile).score, abs=1e-9)


def test_first_rows_of_windows_are_100_and_silence_is_0(nab: ModuleType) -> None:
    one = series(nab, 1000, [(300, 349), (700, 749)])
    perfect = np.zeros(1000)
    perfect[[300, 700]] = 1.0
    found = nab.scoreboard([one, one._replace(name="b")], {"a": perfect, "b": perfect})
    assert [100.0] * 4 == pytest.approx([found[key] for key in ("standard", "low_fp", "low_fn", "transfer")])
    assert (0.0, 4) == (found["alarms"], found["caught"])
    assert 0.0 == nab.best([nab.judge(one)], [np.full(1000, np.nan)], nab.PROFILES["standard"]).score


def test_one_alarm_an_incident_helps_who_alarms_on_every_row(nab: ModuleType) -> None:
    one = series(nab, 1000, [(300, 349)])
    loud = np.zeros(1000)
    loud[300:420] = 1.0
    plain = nab.best([nab.judge(one)], [loud], nab.PROFILES["standard"]).score
    assert plain < nab.best_by_incident([one], {"a": loud}) == pytest.approx(100.0 * (2 - 0.11) / 2, abs=0.1)
    assert [300, 401] == np.flatnonzero(nab.onsets(loud, 1.0)).tolist()


def test_a_detector_that_looks_ahead_is_named(nab: ModuleType) -> None:
    one = series(nab, 1000, [])._replace(values=np.arange(1000.0))
    assert ["a"] == nab.looks_ahead([one], lambda values, _: values / values.max())
    assert [] == nab.looks_ahead([one], lambda values, _: np.cumsum(values))


def test_equal_to_an_independent_scorer_on_the_corpus(data: Path, nab: ModuleType, corpus: list[Any]) -> None:
    path = data.parent / "tools" / "nab_score.py"
    if not path.exists():
        pytest.skip("independent scorer: expected tools/nab_score.py beside ARGUS_DATA, found none")
    spec = importlib.util.spec_from_file_location("nab_score", path)
    assert spec is not None and spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    sys.modules["nab_score"] = other  # its dataclass looks itself up
    spec.loader.exec_module(other)
    chance = np.random.default_rng(3)
    scores = {one.name: np.round(chance.random(len(one.values)) ** 8 * np.abs(one.values), 3) for one in corpus}
    theirs = other.evaluate(other.load_corpus(str(data / "nab")), scores)
    ours = nab.scoreboard(corpus, scores)
    names = {"standard": "standard", "reward_low_FP_rate": "low_fp", "reward_low_FN_rate": "low_fn"}
    assert {ours[name]: theirs[key]["score"] for key, name in names.items()} == pytest.approx(
        {ours[name]: ours[name] for name in names.values()}
    )
    assert theirs["standard_cross_validated"]["score"] == pytest.approx(ours["transfer"])
    point = theirs["operating_point_standard"]
    assert (point["alarms_per_stream_week"], point["windows_caught"]) == pytest.approx((ours["alarms"], ours["caught"]))


@given(rows=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_average_precision_and_best_f1_are_those_of_every_threshold(rows: list[tuple[int, bool]]) -> None:
    from scoring import average_precision, f1

    score, truth = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    area = best = recall = 0.0
    for bar in sorted(set(score.tolist()), reverse=True) if truth.any() else ():
        said = score >= bar
        hits = (said & truth).sum()
        area += (hits / truth.sum() - recall) * hits / said.sum()
        recall, best = hits / truth.sum(), max(best, f1(said, truth))
    assert (area, best) == pytest.approx(average_precision(score, truth))


def test_the_core_keeps_the_figures_of_its_reference_on_nab(nab: ModuleType, corpus: list[Any]) -> None:
    """Within half a point; the other profiles differ on purpose: the core catches more and says more."""
    from bench_nab import REFERENCE, REFERENCE_BAR, detector

    found = nab.scoreboard(corpus, {one.name: detector(one.values, one.seconds) for one in corpus})
    assert {name: pytest.approx(known, abs=REFERENCE_BAR) for name, known in REFERENCE.items()} == {
        name: found[name] for name in REFERENCE
    }


@pytest.mark.parametrize(("name", "machine"), [("smd", "machine-1-3"), ("asd", "omi-4")])
def test_the_core_keeps_the_figures_of_its_reference_on_machines(data: Path, name: str, machine: str) -> None:
    """Half a point of AUC-PR on one machine of each set; `bench/run.py smd asd` judges all of them."""
    import machines

    if not (data / name / f"{machine}.npz").exists():
        pytest.skip(f"recorded machines: expected {name}/{machine}.npz in ARGUS_DATA, found none")
    found = machines.one(data / name / f"{machine}.npz", machines.STEP_S[name])
    assert machines.judged(found, found.bits)[0] == pytest.approx(machines.REFERENCE[name][machine], abs=0.005)
