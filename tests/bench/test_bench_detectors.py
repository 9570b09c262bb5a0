"""The detectors beside Argus are read row by row, and what was scored once is not scored again."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "python"))
    import compare_detectors

    monkeypatch.setattr(compare_detectors, "KEPT", tmp_path)
    yield compare_detectors


def test_a_peer_knows_no_row_before_it_comes(compare: ModuleType) -> None:
    """Scores of a beginning are the beginning of the scores; only the one that must be told the range may differ."""
    values = np.random.default_rng(2).normal(size=400)
    installed = [peer for peer in compare.PEERS if importlib.util.find_spec(peer.package)]
    if not installed:
        pytest.skip("the extra `compare` is not installed")
    for peer in installed:
        if peer.name == "RelativeEntropy":
            assert "told" in peer.setting
            continue
        whole, part = peer.make(values), peer.make(values[:250])
        assert [part(float(value)) for value in values[:250]] == [whole(float(value)) for value in values[:250]]


def test_scores_are_kept_and_used_again(compare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def make(_: np.ndarray) -> compare.Score:  # type: ignore[name-defined]
        return lambda value: float(calls.append(value) or 2 * value)

    peer = compare.Peer("doubler", "numpy", "default", make)
    series = compare.nab.Series("a/b.csv", np.arange(5), np.arange(5.0), [])
    first = compare.scored(peer, series)
    again = compare.scored(peer, series)
    assert [0.0, 2.0, 4.0, 6.0, 8.0] == first.tolist() == again.tolist()
    assert len(calls) == 5


def test_every_row_has_as_many_cells_as_the_head(compare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    board = {"standard": 1.0, "low_fp": 1.0, "low_fn": 1.0, "transfer": 1.0, "alarms": 0.5}
    some = compare.Row("a", "default", board, board, (1.0, 2.0), compare.Cost(3.0, 4.0))
    bare = compare.Row("b", "default", None, {}, (np.nan, np.nan), compare.Cost(3.0, 4.0))
    monkeypatch.setattr(compare, "rows", lambda _: iter([some, bare]))
    corpus = [compare.nab.Series(str(k), np.arange(3), np.arange(3.0), []) for k in range(5)]
    lines = compare.measured_table(corpus).splitlines()[2:]
    assert len({line.count("|") for line in lines}) == 1
    assert "| 2.0 | 3 | 4 |" in lines[2]
