"""Streaming detectors side by side: NAB score, nanoseconds a value, bytes of state. Writes docs/comparison.md.

    pip install 'argus-auditor[compare]'
    ARGUS_DATA=... python bench/python/compare_detectors.py --write

Every detector reads each file once, row by row, and scores a row before it learns it; none is told a file's length.
Scores are kept in build/compare, a file each, so that a run that was cut goes on where it ended; `--fresh` begins anew.
RelativeEntropy and rrcf, dear and long, read every fourth file only. Without --write the tables are printed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nab
import numpy as np
from numpy.typing import NDArray
from support import ROOT, machine, write_between

import argus
from argus import _core  # type: ignore[attr-defined]

Score = Callable[[float], float]
KEPT = ROOT / "build" / "compare"
PAGE = ROOT / "docs" / "comparison.md"
_STATE_ROWS = 3000
_TIMED_AFTER, _TIMED_BLOCKS, _TIMED_ROWS = 1000, 5, 200
_SUBSET = slice(0, None, 4)
_FLEET, _FLEET_ROWS = 5000, 2000


class Peer(NamedTuple):
    """A detector of others: its package, how it is set, and what makes one for a file of values."""

    name: str
    package: str
    setting: str
    make: Callable[[NDArray[np.float64]], Score]
    every_file: bool = True


class Cost(NamedTuple):
    """CPU nanoseconds a value and bytes of state a series."""

    ns: float
    state: float


def _river_scorer(name: str) -> Callable[[NDArray[np.float64]], Score]:
    def make(_: NDArray[np.float64]) -> Score:
        from river import anomaly

        model = getattr(anomaly, name)()

        def score(value: float) -> float:
            found: float = model.score_one(None, value)
            model.learn_one(None, value)
            return found

        return score

    return make


def _half_space_trees(_: NDArray[np.float64]) -> Score:
    from river import anomaly, preprocessing

    scale, trees = preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=1)

    def score(value: float) -> float:
        row = {"x": value}
        scale.learn_one(row)
        placed = scale.transform_one(row)
        found: float = trees.score_one(placed)
        trees.learn_one(placed)
        return found

    return score


def _adwin(_: NDArray[np.float64]) -> Score:
    from river import drift

    model = drift.ADWIN()

    def score(value: float) -> float:
        model.update(value)
        return float(model.drift_detected)

    return score


def _pysad(name: str) -> Callable[[NDArray[np.float64]], Score]:
    def make(values: NDArray[np.float64]) -> Score:
        from pysad import models

        told: dict[str, dict[str, float]] = {
            "KNNCAD": {"probationary_period": 750},
            "RelativeEntropy": {"min_val": float(values.min()), "max_val": float(values.max())},
        }
        model = getattr(models, name)(**told.get(name, {}))
        return lambda value: float(model.fit_score_partial(np.array([value])))

    return make


def _rrcf(_: NDArray[np.float64], trees: int = 10, leaves: int = 128, shingle: int = 4) -> Score:
    import rrcf

    chance = np.random.default_rng(1).integers(1 << 31, size=trees)
    forest = [rrcf.RCTree(random_state=int(seed)) for seed in chance]
    recent: deque[float] = deque(maxlen=shingle)
    row = -1

    def score(value: float) -> float:
        nonlocal row
        recent.append(value)
        if len(recent) < shingle:
            return 0.0
        row += 1
        found = 0.0
        for tree in forest:
            if len(tree.leaves) >= leaves:
                tree.forget_point(row - leaves)
            tree.insert_point(np.array(recent), index=row)
            found += tree.codisp(row) / trees
        return found

    return score


PEERS = (
    Peer("HalfSpaceTrees", "river", "default (10 trees), values through MinMaxScaler", _half_space_trees),
    Peer("GaussianScorer", "river", "default", _river_scorer("GaussianScorer")),
    Peer("z-score (StandardAbsoluteDeviation)", "river", "default", _river_scorer("StandardAbsoluteDeviation")),
    Peer("ADWIN", "river", "default; 1 where a drift is found", _adwin),
    Peer("MedianAbsoluteDeviation", "pysad", "default (500 rows)", _pysad("MedianAbsoluteDeviation")),
    Peer("KNNCAD", "pysad", "750 rows of probation", _pysad("KNNCAD")),
    Peer("RelativeEntropy", "pysad", "default; is told each file's range", _pysad("RelativeEntropy"), False),
    Peer("robust random cut forest", "rrcf", "10 trees of 128, shingle 4", _rrcf, False),
)


def bank_scores(values: NDArray[np.float64], seconds: NDArray[np.int64]) -> NDArray[np.float32]:
    """Argus' own, one pass: strength where an incident raises its alarm, shape (n_rows,)."""
    bits, alarms = (np.zeros((len(values), 1), np.float32) for _ in range(2))
    bank = _core.Bank(1, entity=False)
    bank.run(np.ascontiguousarray(values[:, None]), seconds * 1_000_000_000, bits=bits, alarm_bits=alarms)
    return alarms[:, 0]


def _kept(peer: Peer, what: str) -> Path:
    version = importlib.metadata.version(peer.package)
    return KEPT / f"{peer.name.split(' (')[0].replace(' ', '_')}-{version}-{what.replace('/', '-')}.npz"


def scored(peer: Peer, series: nab.Series) -> NDArray[np.float64]:
    """A file's scores, from an earlier run where there was one."""
    path = _kept(peer, series.name)
    if not path.exists():
        score = peer.make(series.values)
        with contextlib.redirect_stdout(io.StringIO()):  # KNNCAD prints a line for each singular matrix
            found = np.array([score(float(value)) for value in series.values])
        np.savez_compressed(path, scores=found)
    with np.load(path) as kept:
        scores: NDArray[np.float64] = kept["scores"]
        return scores


def peer_ns(peer: Peer, values: NDArray[np.float64]) -> float:
    """CPU nanoseconds a value on one thread, 1,000 rows after the start: the best of five blocks of 200 rows."""
    from threadpoolctl import threadpool_limits  # comes with pysad; numpy's threads would only wait for each other

    blocks = []
    with threadpool_limits(1), contextlib.redirect_stdout(io.StringIO()):
        score = peer.make(values)
        for value in values[:_TIMED_AFTER]:
            score(float(value))
        for block in range(_TIMED_BLOCKS):
            rows = values[_TIMED_AFTER + block * _TIMED_ROWS :][:_TIMED_ROWS].tolist()
            start = time.process_time()
            for value in rows:
                score(value)
            blocks.append((time.process_time() - start) / len(rows) * 1e9)
    return min(blocks)


def peer_state(peer: Peer) -> float:
    """Bytes that Python and numpy still hold for one series after 3,000 rows of noise, from an earlier run if any."""
    path = _kept(peer, "state").with_suffix(".json")
    if path.exists():
        return float(json.loads(path.read_text()))
    values = np.random.default_rng(1).normal(size=_STATE_ROWS)
    warm = peer.make(values)
    for value in values[:300]:
        warm(float(value))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    score = peer.make(values)
    for value in values:
        score(float(value))
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    path.write_text(json.dumps(held))
    return float(held)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def fleet_cost() -> Cost:
    """Argus over many series at once: bits and alarms of 5,000 series."""
    values = np.random.default_rng(5).normal(size=(_FLEET_ROWS, _FLEET)).astype(np.float32)
    times = np.arange(_FLEET_ROWS, dtype=np.int64) * 60_000_000_000
    bits, alarms = (np.ones_like(values) for _ in range(2))
    before = _resident()
    spent, state = [], 0.0
    for _ in range(_TIMED_BLOCKS):
        bank = _core.Bank(_FLEET, entity=False)
        start = time.process_time()
        bank.run(values, times, bits=bits, alarm_bits=alarms)
        spent.append((time.process_time() - start) / values.size * 1e9)
        state = state or (_resident() - before) / _FLEET  # of the first: later ones may reuse its pages
    return Cost(min(spent), state)


def alone_ns(series: nab.Series) -> float:
    """Argus over one file of one series: the best of five."""
    spent = []
    for _ in range(_TIMED_BLOCKS):
        start = time.process_time()
        bank_scores(series.values, series.seconds)
        spent.append((time.process_time() - start) / len(series.values) * 1e9)
    return min(spent)


class Row(NamedTuple):
    """A line of the table; NaN = not measured."""

    name: str
    setting: str
    all_files: dict[str, float] | None
    subset: dict[str, float]
    by_incident: tuple[float, float]  # of all files, of the subset
    cost: Cost


def rows(corpus: list[nab.Series]) -> Iterator[Row]:
    """Argus and the peers that are installed."""
    some = corpus[_SUBSET]
    timed = max(corpus, key=lambda one: len(one.values))
    ours = {one.name: bank_scores(one.values, one.seconds) for one in corpus}
    fleet = fleet_cost()
    board, part = nab.scoreboard(corpus, ours), nab.scoreboard(some, ours)
    yield Row(
        f"**Argus {argus.__version__}**, one series at a time", "default", board, part,
        (board["standard"], part["standard"]), Cost(alone_ns(timed), fleet.state),
    )  # fmt: skip
    yield Row(f"**Argus {argus.__version__}**, {_FLEET:,} series at once", "default", None, {}, (np.nan, np.nan), fleet)
    for peer in PEERS:
        try:
            version = importlib.metadata.version(peer.package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{peer.package}: not installed, left out; pip install 'argus-auditor[compare]'", file=sys.stderr)
            continue
        files = corpus if peer.every_file else some
        found = {}
        for number, series in enumerate(files, 1):
            found[series.name] = scored(peer, series)
            if sys.stderr.isatty():
                print(f"\r{peer.name} {number} of {len(files)}   ", end="", file=sys.stderr, flush=True)
        by_incident = (
            nab.best_by_incident(corpus, found) if peer.every_file else np.nan,
            nab.best_by_incident(some, found),
        )
        everything = nab.scoreboard(corpus, found) if peer.every_file else None
        yield Row(
            f"{peer.package} {version} {peer.name}", peer.setting, everything, nab.scoreboard(some, found),
            by_incident, Cost(peer_ns(peer, timed.values), peer_state(peer)),
        )  # fmt: skip


def _number(value: float, digits: int = 1) -> str:
    return "" if np.isnan(value) else f"{value:,.{digits}f}"


def measured_table(corpus: list[nab.Series]) -> str:
    """The table of what was run here."""
    subset, count = corpus[_SUBSET], sum(len(one.values) for one in corpus)
    lines = [
        f"*{machine()}; Python {sys.version.split()[0]}; {len(corpus)} files, {count:,} rows; the subset is every fourth"
        f" file by name ({len(subset)} files, {sum(len(one.values) for one in subset):,} rows).*",
        "",
        "| detector | setting | standard | low FP | low FN | transfer | alarms a stream-week | one alarm an incident"
        " | subset: standard | subset: one alarm an incident | ns a value | state, bytes |",
        "|---" * 12 + "|",
    ]
    for row in rows(corpus):
        whole = row.all_files or {}
        cells = [_number(whole.get(key, np.nan)) for key in ("standard", "low_fp", "low_fn", "transfer")]
        cells += [_number(whole.get("alarms", np.nan), 2), _number(row.by_incident[0])]
        cells += [_number(row.subset.get("standard", np.nan)), _number(row.by_incident[1])]
        cells += [_number(row.cost.ns, 0), _number(row.cost.state, 0)]
        lines.append(f"| {row.name} | {row.setting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def published_table(folder: Path) -> str:
    """NAB's own scoreboard, as published with the corpus."""
    found = json.loads((folder / "scoreboard" / "final_results.json").read_text())
    lines = ["| detector | standard | low FP | low FN |", "|---|---|---|---|"]
    for name, scores in sorted(found.items(), key=lambda item: -item[1]["standard"]):
        cells = (scores[key] for key in ("standard", "reward_low_FP_rate", "reward_low_FN_rate"))
        lines.append(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables; with --write, keep them in the documentation."""
    folder = Path(os.environ.get("ARGUS_DATA", "")) / "nab"
    corpus = nab.load(folder)
    if not corpus:
        raise SystemExit("compare_detectors: expected the folder with nab/ in ARGUS_DATA, found none; nothing compared")
    KEPT.mkdir(parents=True, exist_ok=True)
    if "--fresh" in sys.argv[1:]:
        for path in [*KEPT.glob("*.npz"), *KEPT.glob("*.json")]:
            path.unlink()
    tables = {"detectors": measured_table(corpus), "published": published_table(folder)}
    for name, text in tables.items():
        print(text, end="\n\n")
        if "--write" in sys.argv[1:]:
            write_between(PAGE, name, text)


if __name__ == "__main__":
    main()
