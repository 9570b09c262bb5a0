"""The entity score on machines with labelled anomalies: AUC-PR, best F1 and the F1 of the threshold without labels.

    ARGUS_DATA=... python bench/run.py smd asd
    ARGUS_DATA=... python bench/python/machines.py      the same, and without channels and smoothing rates, one by one

Data: ARGUS_DATA/smd (Server Machine Dataset, a row a minute) and ARGUS_DATA/asd (Application Server Dataset, a row in
five minutes), train and test half in one pass, judged on the test half, point by point, no point adjustment. Without
the data there are no figures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scoring import average_precision, f1
from support import figure

from argus import _core  # type: ignore[attr-defined]
from argus.engine.detection import STRANGE_ENTITY_BITS

STEP_S = {"smd": 60, "asd": 300}
_PRECISION_BARS = {"smd": 0.53, "asd": 0.36}
_F1_BARS = {"smd": 0.40, "asd": 0.40}
_BATCH = {"smd": 0.396, "asd": 0.211}  # fitted on the first half
# Of an independent implementation of the same score in Python, in float64, on the same rows.
REFERENCE = {
    "smd": {
        "machine-1-2": 0.4371, "machine-1-3": 0.5203, "machine-1-4": 0.5130, "machine-1-5": 0.6889,
        "machine-1-6": 0.6743, "machine-1-7": 0.6432, "machine-1-8": 0.4517,
    },
    "asd": {
        "omi-1": 0.1621, "omi-2": 0.5970, "omi-3": 0.2670, "omi-4": 0.4557, "omi-5": 0.4044, "omi-6": 0.4555,
    },
}  # fmt: skip
_REFERENCE_BAR = 0.005  # half a point
_CHANNELS = ("level", "innovation", "jump")
_RATES = (0.3, 0.1, 0.03)
_QUIET = 0.01
_WARM_ROWS = 150


class Machine(NamedTuple):
    name: str
    bits: NDArray[np.float32]
    parts: NDArray[np.float32]  # found / expected deviance, shape (n_time, 3)
    label: NDArray[np.bool_]  # of the test half


def one(path: Path, step_s: int) -> Machine:
    """A machine's recording, scored in one pass."""
    with np.load(path) as part:
        values = np.ascontiguousarray(np.concatenate([part["train"], part["test"]], 1).T, np.float32)
        label = part["label"].astype(bool)
    bank = _core.Bank(values.shape[1])
    bits = np.zeros(len(values), np.float32)
    parts = np.zeros((len(values), len(_CHANNELS)), np.float32)
    times = np.arange(len(values), dtype=np.int64) * step_s * 1_000_000_000
    bank.run(values, times, entity_bits=bits, entity_parts=parts)
    return Machine(path.stem, bits, parts, label)


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


def scoreboard(name: str, *, with_ablation: bool = False) -> Iterator[dict[str, Any]]:
    """Figures of the machines of one set, `smd` or `asd`; none without its data."""
    folder = Path(os.environ.get("ARGUS_DATA", "")) / name
    found = [one(path, STEP_S[name]) for path in sorted(folder.glob("*.npz"))]
    if not found:
        return
    precisions, firm = [], []
    for machine in found:
        precision, best = judged(machine, machine.bits)
        said = machine.bits[len(machine.bits) - len(machine.label) :] >= STRANGE_ENTITY_BITS
        precisions.append(precision)
        firm.append(f1(said, machine.label))
        yield figure(f"{name}/precision/{machine.name}", precision, "AUC-PR")
        yield figure(f"{name}/f1/{machine.name}", firm[-1], "F1", against="best", ratio=firm[-1] / best)
    mean, bar = float(np.mean(precisions)), _PRECISION_BARS[name]
    against = f"batch PCA-10 {_BATCH[name]}"
    yield figure(
        f"{name}/precision", mean, "AUC-PR", against=against, ratio=mean / _BATCH[name], bar=bar, good=mean >= bar
    )
    known = REFERENCE[name]
    if {machine.name for machine in found} == known.keys():
        gap = abs(mean - float(np.mean(list(known.values()))))
        told = f"{np.mean(list(known.values())):.3f} by its reference"
        yield figure(
            f"{name}/reference_gap", gap, "AUC-PR", against=told, bar=_REFERENCE_BAR, good=gap <= _REFERENCE_BAR
        )
    mean, bar = float(np.mean(firm)), _F1_BARS[name]
    against = "threshold without labels"
    yield figure(f"{name}/f1", mean, "F1", against=against, bar=bar, good=mean >= bar)
    for variant, precision, best in ablation(found) if with_ablation else ():
        yield figure(f"{name}/precision/{variant}", precision, "AUC-PR", against="best F1", ratio=best)


def main() -> None:
    for item in (item for name in STEP_S for item in scoreboard(name, with_ablation=True)):
        ratio = "" if item["ratio"] is None else f"  {item['against']} {item['ratio']:.3f}"
        print(
            f"{item['name']:44s} {item['value']:.3f} {item['unit']}{ratio}{'' if item['pass'] else '  below its bar'}"
        )


if __name__ == "__main__":
    main()
