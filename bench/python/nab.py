"""The Numenta Anomaly Benchmark's score, from its public definition (Lavin and Ahmad 2015; Ahmad et al. 2017).

A detector gives a score a row; a row is a detection at or above the threshold. The first 15 % of a file (750 rows at
most) do not count. Of a window of w rows only the earliest detection counts: r rows before its right edge it is worth
s(-(r + 1) / w) / s(-1), with s(y) = 2 / (1 + e^(5 y)) - 1; a window without one costs the weight of a miss. Outside, a
detection costs s(y) of the weight of a false alarm, y rows behind the last window's right edge in widths of it, at most
the whole. One threshold for all files: the best. 0 = says nothing, 100 = each window at its first row and nothing else.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Detector = Callable[[Values, NDArray[np.int64]], NDArray[Any]]
_OUTSIDE, _PROBATION = -1, -2
_PROBATION_SHARE, _PROBATION_ROWS = 0.15, 750
_SAME_ALARM_ROWS = 12
_SILENT_ROWS = 100
_WEEK_S = 604_800


class Profile(NamedTuple):
    """Weights of a miss and of a false alarm; a hit weighs 1."""

    miss: float
    false: float


PROFILES = {"standard": Profile(1.0, 0.11), "low_fp": Profile(1.0, 0.22), "low_fn": Profile(2.0, 0.11)}


class Series(NamedTuple):
    """A file: rows of Unix seconds and values, and its windows as first and last row."""

    name: str
    seconds: NDArray[np.int64]
    values: Values
    windows: list[tuple[int, int]]


class Judged(NamedTuple):
    """A file as the score sees it: for each row the window it lies in (below 0: none), and what a detection is worth."""

    window: NDArray[np.int64]
    worth: Values
    windows: int


class Found(NamedTuple):
    """The best threshold of a profile and its normalised score."""

    threshold: float
    score: float


def _epoch(text: str) -> int:
    moment = datetime.datetime.strptime(text.partition(".")[0], "%Y-%m-%d %H:%M:%S")
    return int(moment.replace(tzinfo=datetime.UTC).timestamp())


def load(folder: Path) -> list[Series]:
    """All files under `folder`/data with their windows, in order of their names; none where there is no such folder."""
    labels = folder / "labels" / "combined_windows.json"
    if not labels.exists():
        return []
    corpus = []
    for name, spans in sorted(json.loads(labels.read_text()).items()):
        with gzip.open(folder / "data" / f"{name}.gz") as packed:
            rows = list(csv.reader(io.TextIOWrapper(packed)))[1:]
        seconds = np.array([_epoch(row[0]) for row in rows], np.int64)
        hits = [np.flatnonzero((seconds >= _epoch(a)) & (seconds <= _epoch(b))) for a, b in spans]
        windows = [(int(hit[0]), int(hit[-1])) for hit in hits if len(hit)]
        corpus.append(Series(name, seconds, np.array([float(row[1]) for row in rows]), windows))
    return corpus


def _sigmoid(y: Values) -> Values:
    return np.where(y > 3.0, -1.0, 2.0 / (1.0 + np.exp(np.minimum(5.0 * y, 700.0))) - 1.0)


def judge(series: Series) -> Judged:
    """What a detection at each row is worth, before the weights of a profile."""
    rows = np.arange(len(series.values))
    window, worth = np.full(len(rows), _OUTSIDE), np.full(len(rows), -1.0)
    for first, last in series.windows:
        behind = rows > last
        worth[behind] = _sigmoid((rows[behind] - last) / max(float(last - first), 1e-12))
    for number, (first, last) in enumerate(series.windows):
        inside = slice(first, last + 1)
        window[inside] = number
        worth[inside] = _sigmoid(-(last - rows[inside] + 1) / (last - first + 1)) / _sigmoid(np.array(-1.0))
    window[: min(int(_PROBATION_SHARE * len(rows)), _PROBATION_ROWS)] = _PROBATION
    return Judged(window, worth, len(np.unique(window[window >= 0])))


def _steps(judged: Judged, scores: NDArray[Any], profile: Profile) -> tuple[Values, Values]:
    """Thresholds at which the file's total changes, and by how much as the threshold falls to them."""
    heights = np.where(np.isfinite(scores), scores, -np.inf).astype(np.float64)
    outside = judged.window == _OUTSIDE
    at, change = [heights[outside]], [profile.false * judged.worth[outside]]
    for number in np.unique(judged.window[judged.window >= 0]):
        inside = np.flatnonzero(judged.window == number)
        records = inside[np.r_[True, heights[inside][1:] > np.maximum.accumulate(heights[inside])[:-1]]]
        worth = judged.worth[records]
        at.append(heights[records])
        change.append(worth - np.r_[worth[1:], -profile.miss])
    return np.concatenate(at), np.concatenate(change)


def _normalised(gain: float, windows: int, profile: Profile) -> float:
    return 100.0 * gain / ((1.0 + profile.miss) * windows) if windows else 0.0


def best(corpus: Iterable[Judged], scores: Iterable[NDArray[Any]], profile: Profile) -> Found:
    """The threshold with the largest total over these files."""
    judged = list(corpus)
    parts = [_steps(one, score, profile) for one, score in zip(judged, scores, strict=True)]
    at, change = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-at, kind="stable")
    at, gains = at[order], np.cumsum(change[order])
    ends = np.flatnonzero(np.r_[at[1:] != at[:-1], True])
    top = ends[np.argmax(gains[ends])]
    if gains[top] < 0:
        return Found(np.inf, 0.0)
    return Found(float(at[top]), _normalised(float(gains[top]), sum(one.windows for one in judged), profile))


def _gain(judged: Judged, scores: NDArray[Any], threshold: float, profile: Profile) -> float:
    at, change = _steps(judged, scores, profile)
    return float(change[at >= threshold].sum())


def transfer(corpus: list[Judged], scores: list[NDArray[Any]], splits: int = 20) -> float:
    """Standard score where each half of the files is judged with the other half's threshold; mean of seeded halvings."""
    profile, chance, found = PROFILES["standard"], np.random.default_rng(0), []
    for _ in range(splits):
        order = chance.permutation(len(corpus))
        half = len(order) // 2
        gain = 0.0
        for fit, test in ((order[:half], order[half:]), (order[half:], order[:half])):
            threshold = best([corpus[i] for i in fit], [scores[i] for i in fit], profile).threshold
            gain += sum(_gain(corpus[i], scores[i], threshold, profile) for i in test)
        found.append(_normalised(gain, sum(one.windows for one in corpus), profile))
    return float(np.mean(found))


def alarms_per_week(
    corpus: list[Series], judged: list[Judged], scores: list[NDArray[Any]], threshold: float
) -> tuple[float, int]:
    """Alarms outside windows a stream and week (detections within 12 rows are one alarm), and windows caught."""
    alarms = caught = 0
    weeks = 0.0
    for series, one, score in zip(corpus, judged, scores, strict=True):
        said = np.isfinite(score) & (score >= threshold)
        outside = one.window == _OUTSIDE
        rows = np.flatnonzero(said & outside)
        alarms += int((np.diff(rows, prepend=-_SAME_ALARM_ROWS - 1) > _SAME_ALARM_ROWS).sum()) if len(rows) else 0
        weeks += outside.sum() * float(np.median(np.diff(series.seconds))) / _WEEK_S
        caught += len(np.unique(one.window[said & (one.window >= 0)]))
    return alarms / weeks, caught


def looks_ahead(corpus: list[Series], detector: Detector, files: int = 6) -> list[str]:
    """Names of those of a few seeded files whose scores change where their later rows are cut off."""
    chance, found = np.random.default_rng(0), []
    for index in chance.permutation(len(corpus))[:files]:
        series = corpus[index]
        cut = int(chance.integers(len(series.values) // 3, len(series.values)))
        whole = detector(series.values.copy(), series.seconds.copy())[:cut]
        part = detector(series.values[:cut].copy(), series.seconds[:cut].copy())
        if not np.array_equal(whole, part, equal_nan=True):
            found.append(series.name)
    return found


def scoreboard(corpus: list[Series], scores: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Normalised score of each profile, threshold transfer, alarms a stream-week and windows caught (standard)."""
    judged = [judge(series) for series in corpus]
    rows = [np.asarray(scores[series.name]) for series in corpus]
    found = {name: best(judged, rows, profile) for name, profile in PROFILES.items()}
    alarms, caught = alarms_per_week(corpus, judged, rows, found["standard"].threshold)
    return {
        **{name: one.score for name, one in found.items()},
        "transfer": transfer(judged, rows),
        "alarms": alarms,
        "caught": caught,
        "windows": sum(one.windows for one in judged),
    }


def best_by_incident(corpus: list[Series], scores: Mapping[str, NDArray[Any]], levels: int = 40) -> float:
    """Standard score where a detection is the first row at or above the threshold, then 100 rows of silence.

    The threshold is the best of `levels` heights of all scores, evenly spaced in the logarithm of their rank.
    """
    profile, judged = PROFILES["standard"], [judge(series) for series in corpus]
    rows = [np.nan_to_num(np.asarray(scores[series.name], np.float64), nan=-np.inf) for series in corpus]
    ranked = np.unique(np.concatenate(rows))[::-1]
    places = np.unique(np.geomspace(1, len(ranked), levels).astype(int)) - 1
    windows = sum(one.windows for one in judged)
    totals = [0.0]
    for threshold in ranked[places]:
        said = [onsets(score, threshold) for score in rows]
        totals.append(sum(_gain(one, onset, 1.0, profile) for one, onset in zip(judged, said, strict=True)))
    return _normalised(max(totals), windows, profile)


def onsets(scores: Values, threshold: float) -> Values:
    """1 where a score reaches the threshold after more than 100 rows without an alarm, else 0."""
    loud = np.flatnonzero(scores >= threshold)
    out = np.zeros(len(scores))
    at = 0
    while at < len(loud):
        out[loud[at]] = 1.0
        at = int(np.searchsorted(loud, loud[at] + _SILENT_ROWS, side="right"))
    return out
