"""The entity score on recorded machines keeps the figures it is known for; bench/python/machines.py has them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from argus import _core  # type: ignore[attr-defined]
from argus.engine.detection import STRANGE_ENTITY_BITS, detect


@pytest.mark.parametrize(
    ("machine", "step_s", "precision", "f1"), [("smd/machine-1-6", 60, 0.65, 0.65), ("asd/omi-2", 300, 0.56, 0.48)]
)
def test_labelled_anomalies_rank_first(data: Path, machine: str, step_s: int, precision: float, f1: float) -> None:
    """AUC-PR over rows without point adjustment, and F1 at the threshold that knows no labels."""
    path = data / f"{machine}.npz"
    if not path.exists():
        pytest.skip(f"recorded machines: expected {machine}.npz in ARGUS_DATA, found none")
    with np.load(path) as part:
        values = np.concatenate([part["train"], part["test"]], 1).T.astype(np.float32)
        truth = part["label"].astype(bool)
    bits = detect(values, np.arange(len(values)) * float(step_s)).entity_bits[-len(truth) :]
    order = np.argsort(-bits, kind="stable")
    hits = truth[order].cumsum()
    found = hits / np.arange(1, len(hits) + 1)
    assert float(found[truth[order]].mean()) >= precision
    said = bits >= STRANGE_ENTITY_BITS
    assert 2 * (said & truth).sum() / (said.sum() + truth.sum()) >= f1


def test_drivers_name_the_series_that_broke_away() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(1500, 1)) + 0.1 * rng.normal(size=(1500, 6))
    values[-1, 4] = values[-1, 0] + 1.0
    bank = _core.Bank(6)
    assert bank.drivers == []
    parts = np.zeros((1500, 3), np.float32)
    bank.run(values, np.arange(1500, dtype=np.int64) * 10**9, entity_parts=parts)
    slot, share = bank.drivers[0]
    assert slot == 4
    assert 0.3 < share <= 1.0
    assert parts[-1, 0] > 3.0 > parts[500:-1, 0].mean()
    without = _core.Bank(6, entity=False)
    without.run(values, np.arange(1500, dtype=np.int64) * 10**9)
    assert without.drivers == []
