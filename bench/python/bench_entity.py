"""The entity score on machines with labelled anomalies: AUC-PR, best F1 and the F1 of the threshold without labels.

    ARGUS_DATA=... python bench/python/bench_entity.py [--ablation]

Data: ARGUS_DATA/smd (Server Machine Dataset, a row a minute) and ARGUS_DATA/asd (Application Server Dataset, a row in
five minutes), train and test half in one pass, judged on the test half, point by point, no point adjustment. Without
the data there are no figures. `--ablation` leaves out channels and smoothing rates, in the same units.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from support import figure

from argus import _core  # type: ignore[attr-defined]
from argus.engine.detection import STRANGE_ENTITY_BITS

_STEP_S = {"smd": 60, "asd": 300}
_PRECISION_BARS = {"smd": 0.53, "asd": 0.36}
_F1_BARS = {"smd": 0.40, "asd": 0.36}
_CHANNELS = ("level", "innovation", "jump")
_RATES = (0.3, 0.1, 0.03)
_QUIET = 0.01
_WARM_ROWS = 150


class Machine(NamedTuple):
    name: str
    bits: NDArray[np.float32]
    parts: NDArray[np.float32]  # found / expected deviance, shape (n_time, 3)
    label: NDArray[np.bool_]  # of the test half


def average_precision(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Area under precision over recall, and the best F1 of any threshold; equal scores are one step."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    hits = truth[order].cumsum()
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    precision = hits[ends] / (ends + 1)
    recall = hits[ends] / max(int(hits[-1]), 1)
    best = (2 * precision * recall / (precision + recall + 1e-12)).max()
    return float((np.diff(np.r_[0, recall]) * precision).sum()), float(best)


def f1(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (said & truth).sum() / max(int(said.sum() + truth.sum()), 1))


def machines(folder: Path, step_s: int) -> Iterator[Machine]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as part:
            values = np.ascontiguousarray(np.concatenate([part["train"], part["test"]], 1).T, np.float32)
            label = part["label"].astype(bool)
        bank = _core.Bank(values.shape[1])
        bits = np.zeros(len(values), np.float32)
        parts = np.zeros((len(values), len(_CHANNELS)), np.float32)
        times = np.arange(len(values), dtype=np.int64) * step_s * 1_000_000_000
        bank.run(values, times, entity_bits=bits, entity_parts=parts)
        yield Machine(path.stem, bits, parts, label)


def fused(parts: NDArray[np.float32], channels: list[int], rates: list[float]) -> NDArray[np.float64]:
    """The score of some channels and rates, as the core computes it from all."""
    rate = np.array(rates)[None, :]
    recent = np.zeros((len(channels), len(rates)))
    octaves = np.empty(len(parts))
    for row, found in enumerate(parts[:, channels].astype(np.float64)):
        recent += rate * (found[:, None] - recent)
        octaves[row] = np.log2(recent + _QUIET).mean()
    octaves[:_WARM_ROWS] = -np.inf
    return octaves


def judged(machine: Machine, score: NDArray[Any]) -> tuple[float, float]:
    return average_precision(score[len(score) - len(machine.label) :].astype(np.float64), machine.label)


def ablation(found: list[Machine]) -> Iterator[tuple[str, float, float]]:
    everything = list(range(len(_CHANNELS)))
    variants = [(f"only {name}", [c], list(_RATES)) for c, name in enumerate(_CHANNELS)]
    variants += [
        (f"without {name}", [d for d in everything if d != c], list(_RATES)) for c, name in enumerate(_CHANNELS)
    ]
    variants += [(f"rate {rate}", everything, [rate]) for rate in (1.0, *_RATES)]
    for name, channels, rates in variants:
        both = [judged(machine, fused(machine.parts, channels, rates)) for machine in found]
        yield name, float(np.mean([a for a, _ in both])), float(np.mean([b for _, b in both]))


def scoreboard(root: Path, *, with_ablation: bool) -> Iterator[dict[str, Any]]:
    for name, step_s in _STEP_S.items():
        found = list(machines(root / name, step_s))
        if not found:
            continue
        precisions, firm = [], []
        for machine in found:
            precision, best = judged(machine, machine.bits)
            said = machine.bits[len(machine.bits) - len(machine.label) :] >= STRANGE_ENTITY_BITS
            precisions.append(precision)
            firm.append(f1(said, machine.label))
            yield figure(f"entity_{name}_precision/{machine.name}", precision, "AUC-PR")
            yield figure(f"entity_{name}_f1/{machine.name}", firm[-1], "F1", against="best", ratio=firm[-1] / best)
        bar = _PRECISION_BARS[name]
        mean = float(np.mean(precisions))
        yield figure(f"entity_{name}_precision/mean", mean, "AUC-PR", bar=bar, good=mean >= bar)
        bar = _F1_BARS[name]
        mean = float(np.mean(firm))
        yield figure(f"entity_{name}_f1/mean", mean, "F1", bar=bar, good=mean >= bar)
        for variant, precision, best in ablation(found) if with_ablation else ():
            yield figure(f"entity_{name}_precision/{variant}", precision, "AUC-PR", against="best F1", ratio=best)


def figures() -> Iterator[dict[str, Any]]:
    """What bench/run.py asks for; nothing without data."""
    yield from scoreboard(Path(os.environ.get("ARGUS_DATA", "")), with_ablation=False)


def main() -> None:
    for one in scoreboard(Path(os.environ.get("ARGUS_DATA", "")), with_ablation="--ablation" in sys.argv):
        ratio = "" if one["ratio"] is None else f"  {one['against']} {one['ratio']:.3f}"
        print(f"{one['name']:44s} {one['value']:.3f} {one['unit']}{ratio}{'' if one['pass'] else '  below its bar'}")


if __name__ == "__main__":
    main()
