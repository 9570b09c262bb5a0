"""How many alarms are spoken for each that was asked for: the whole path from values to speech, on noise of eight kinds.

    python bench/python/bench_calibration.py

Thirty siblings a kind and one series alone, 60 days of a row a minute, nothing strange in them: every alarm is the
budget's. Requests are a series and day. Kinds after Siffer et al. 2017 and the ladder's own benchmark
(bench_alarm_budget, which feeds it scores): here the score is the bank's strength.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support import figure

from argus import _core  # type: ignore[attr-defined]

Noise = NDArray[np.float32]
_DAY = 1440
_DAYS = 60
_SIBLINGS = 30
_REQUESTS = (1.0, 0.3, 0.1, 0.03, 0.01)
_NAB_CLEAN = "artificialNoAnomaly", 300


def _filtered(noise: NDArray[np.float64], memory: float) -> NDArray[np.float64]:
    out = np.empty_like(noise)
    level = np.zeros(noise.shape[1])
    for row, shock in enumerate(noise):
        level = memory * level + shock
        out[row] = level
    return out


def _regimes(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    switches = rng.random(shape) < 1 / 2000
    return rng.normal(size=shape) * np.where(np.cumsum(switches, axis=0) % 2, 3.0, 1.0)


def _seasonal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    day = np.sin(2 * np.pi * np.arange(shape[0]) / _DAY)[:, None]
    return 3 * day + (1 + 0.5 * day) * rng.normal(size=shape)


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "gaussian": lambda rng, shape: rng.normal(size=shape),
    "student_t3": lambda rng, shape: rng.standard_t(3, size=shape),
    "log_normal": lambda rng, shape: rng.lognormal(size=shape),
    "ar_0.9": lambda rng, shape: _filtered(rng.normal(size=shape), 0.9),
    "poisson": lambda rng, shape: rng.poisson(5, size=shape).astype(float),
    "seasonal": _seasonal,
    "reverting_walk": lambda rng, shape: _filtered(rng.normal(size=shape), 0.999),
    "regimes": _regimes,
}


def onsets_by_day(values: Noise, alarms_per_day: float, step_s: int = 60) -> NDArray[np.int64]:
    """Alarms spoken on each day, all series together, int64, shape (days,)."""
    times = np.arange(len(values), dtype=np.int64) * step_s * 1_000_000_000
    bank = _core.Bank(values.shape[1], false_alarms_per_day=alarms_per_day * values.shape[1], entity=False)
    rows = [row for row, _, onset, *_ in bank.run(values, times) if onset]
    per_day = 86400 // step_s
    return np.bincount(np.array(rows, np.int64) // per_day, minlength=-(-len(values) // per_day))


def ratios(series: int, repeats: int) -> dict[tuple[str, float], float]:
    """Spoken / requested on days 10 to 60 by kind and request."""
    rng = np.random.default_rng(1)
    found: dict[tuple[str, float], float] = {}
    for kind, noise in KINDS.items():
        spoken = dict.fromkeys(_REQUESTS, 0.0)
        for _ in range(repeats):
            values = noise(rng, (_DAYS * _DAY, series)).astype(np.float32)
            for request in _REQUESTS:
                spoken[request] += onsets_by_day(values, request)[10:].sum()
        for request in _REQUESTS:
            found[kind, request] = spoken[request] / (request * (_DAYS - 10) * series * repeats)
    return found


def _shares(name: str, found: dict[tuple[str, float], float]) -> Iterator[dict[str, Any]]:
    values = np.array(list(found.values()))
    worst = max(found, key=lambda cell: abs(np.log2(found[cell] + 1e-3)))
    told = f"worst {worst[0]} at {worst[1]:g}: {found[worst]:.2f}"
    wide = float(((values >= 0.5) & (values <= 2)).mean())
    near = float(((values >= 0.8) & (values <= 1.25)).mean())
    yield figure(f"calibration/{name}/within_2x", wide, "of cells", against=told, bar=1.0, good=wide >= 1.0)
    yield figure(f"calibration/{name}/within_1.25x", near, "of cells", bar=0.97, good=near >= 0.97)


def _clean_files() -> Iterator[dict[str, Any]]:
    folder, step_s = _NAB_CLEAN
    files = sorted((Path(os.environ.get("ARGUS_DATA", "")) / "nab").rglob(f"{folder}/*.csv.gz"))
    if not files:
        return
    series = [np.loadtxt(path, delimiter=",", skiprows=1, usecols=1, dtype=np.float32) for path in files]
    rows = min(map(len, series))
    values = np.ascontiguousarray(np.stack([one[:rows] for one in series], 1))
    for request in _REQUESTS[:3]:
        spoken = onsets_by_day(values, request, step_s)[3:].sum()
        asked = request * (rows * step_s / 86400 - 3) * len(files)
        yield figure(f"calibration/nab_clean/{request:g}", spoken / asked, "x", against=f"{asked:.1f} asked for")


def figures() -> Iterator[dict[str, Any]]:
    yield from _shares("siblings", ratios(_SIBLINGS, 1))
    yield from _shares("alone", ratios(1, 8))
    yield from _clean_files()


if __name__ == "__main__":
    for one in figures():
        print(f"{one['name']:44} {one['value']:8.3f} {one['unit']:9} {one['against']}")
