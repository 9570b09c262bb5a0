"""Rows from a change to the alarm, at one false alarm in 10,000 rows of a series, beside an oracle that knows the change.

    python bench/python/bench_delay.py

Changes: a level shift of 5 and of 1 standard deviations, three times the variance's root, a failure rate from 1 to 3 %
at 100 events a row. 1,000 series, 40,000 quiet rows (28 days of minutes), then the change; the false alarms are those
of the last 20,000 quiet rows. The oracle is Page's (1954) CUSUM of the log likelihood ratio with both laws known,
its bar set to as many false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from support import figure

from argus import _core  # type: ignore[attr-defined]

Values = NDArray[np.float32]
_SERIES = 1000
_QUIET = 40_000
_JUDGED = 20_000
_AFTER = 400
_EVERY = 10_000
_HOLD_OFF = 100
_STEP_S = 60


class Change(NamedTuple):
    draw: Callable[[np.random.Generator, bool, tuple[int, int]], NDArray[Any]]
    evidence: Callable[[Values], NDArray[Any]]  # log likelihood ratio of a value, changed against quiet
    bar_rows: float


CHANGES = {
    "shift_5_sigma": Change(lambda rng, on, n: rng.normal(5.0 * on, 1.0, n), lambda x: 5 * x - 12.5, 1),
    "shift_1_sigma": Change(lambda rng, on, n: rng.normal(1.0 * on, 1.0, n), lambda x: x - 0.5, 25),
    "scale_x3": Change(lambda rng, on, n: rng.normal(0.0, 1 + 2.0 * on, n), lambda x: 4 / 9 * x**2 - np.log(3), 12),
    "rate_1_to_3_percent": Change(
        lambda rng, on, n: rng.binomial(100, 0.01 + 0.02 * on, n) / 100,
        lambda x: 100 * x * np.log(3) + (100 - 100 * x) * np.log(0.97 / 0.99),
        8,
    ),
}


def delays(alarms: list[tuple[int, int]]) -> tuple[float, float]:
    """Median rows to the first alarm after the change, and false alarms per 10,000 quiet rows before it."""
    first = np.full(_SERIES, np.inf)
    false = 0
    for row, series in alarms:
        if row >= _QUIET:
            first[series] = min(first[series], row - _QUIET + 1)
        elif row >= _QUIET - _JUDGED:
            false += 1
    return float(np.median(first)), false / (_SERIES * _JUDGED) * _EVERY


def spoken(values: Values) -> list[tuple[int, int]]:
    """Onsets of the bank as (row, series)."""
    per_day = 86400 / _STEP_S / _EVERY * _SERIES
    bank = _core.Bank(_SERIES, false_alarms_per_day=per_day, entity=False)
    times = np.arange(len(values), dtype=np.int64) * _STEP_S * 1_000_000_000
    return [(row, series) for row, series, onset, *_ in bank.run(values, times) if onset]


def cusum(evidence: NDArray[Any], bar: float) -> list[tuple[int, int]]:
    """Alarms of the one-sided CUSUM, restarted at each, none within the hold-off, as (row, series)."""
    total = np.zeros(_SERIES)
    last = np.full(_SERIES, -_HOLD_OFF - 1)
    alarms = []
    for row, step in enumerate(evidence):
        total = np.maximum(0.0, total + step)
        loud = np.flatnonzero((total > bar) & (row - last > _HOLD_OFF))
        last[loud] = row
        alarms += [(row, int(series)) for series in loud]
        total[total > bar] = 0.0
    return alarms


def oracle(evidence: NDArray[Any]) -> float:
    """Median delay of the CUSUM whose bar gives one false alarm in 10,000 rows."""
    low, high = 0.0, 30.0
    for _ in range(12):
        bar = (low + high) / 2
        found = len(cusum(evidence[_QUIET - _JUDGED : _QUIET], bar)) / (_SERIES * _JUDGED) * _EVERY
        low, high = (bar, high) if found > 1.0 else (low, bar)
    return delays([(row + _QUIET - _JUDGED, s) for row, s in cusum(evidence[_QUIET - _JUDGED :], high)])[0]


def figures() -> Iterator[dict[str, Any]]:
    for name, change in CHANGES.items():
        rng = np.random.default_rng(1)
        quiet, changed = (change.draw(rng, on, (n, _SERIES)) for on, n in ((False, _QUIET), (True, _AFTER)))
        values = np.concatenate([quiet, changed]).astype(np.float32)
        rows, false = delays(spoken(values))
        best = oracle(change.evidence(values).astype(np.float64))
        good = rows <= change.bar_rows and 0.8 <= false <= 1.25
        against = f"CUSUM that knows both laws: {best:g}; {false:.2f} false in 10,000 rows"
        yield figure(f"delay/{name}", rows, "rows", against=against, ratio=rows / best, bar=change.bar_rows, good=good)


if __name__ == "__main__":
    for one in figures():
        print(f"{one['name']:28} {one['value']:6.1f} rows, {one['ratio']:.2f} x  {one['against']}")
