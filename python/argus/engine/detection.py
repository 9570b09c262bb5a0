"""Detection over whole arrays: what is strange in these series, in bits, causally and in one pass."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from importlib import import_module
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from argus.errors import ShapeError, UsageError
from argus.schema import Anomaly, Direction, Family, Scope, ScopeKind, Severity

_core: Any = import_module("argus._core")

DEFAULT_FALSE_ALARMS_PER_DAY = 1.0
STRANGE_ENTITY_BITS = 2.0  # three times the expected deviance: a threshold that needs no labels
_VALUES_PER_CALL = 1 << 21
_LARGEST_TIME_S = 9.2e9  # int64 nanoseconds end a little later
_DIRECTIONS = {-1: Direction.DOWN, 0: Direction.NONE, 1: Direction.UP}

Progress = Callable[[float], None]


class Scores:
    """What `detect` found. `bits` is there at once; everything else is computed on first use by a second, equal pass.

    Attributes
    ----------
    bits : float32, shape (n_time, n_series)
        Surprise of each row before learning from it. Seven signals (distance from a slow and a fast level, from what
        is usual at this hour of the day and of the week, steps) are ranked in their own past, -log2 of the share at or
        above (about 5,000 values weigh), plus up to 10 for the distance beyond the record; below 1 in 20 a signal has
        0. The strongest, plus 0.3 of each other. 0 for missing values and the first 150 of a series. Not a probability:
        in independent noise 1 row in 9 has any bits, about 1 in 5,000 has more than 20.
    """

    def __init__(
        self,
        values: NDArray[Any],
        times_ns: NDArray[np.int64],
        names: Sequence[str],
        false_alarms_per_day: float,
        progress: Progress | None,
    ) -> None:
        self._values = values
        self._times_ns = times_ns
        self._names = names
        self._false_alarms_per_day = false_alarms_per_day
        self.bits: NDArray[np.float32] = np.zeros(values.shape, np.float32)
        self._run({"bits": self.bits}, progress=progress)

    def __repr__(self) -> str:
        rows, series = self.bits.shape
        return f"Scores({rows} rows, {series} series, loudest {self.bits.max(initial=0.0):.1f} bits)"

    @cached_property
    def alarm_bits(self) -> NDArray[np.float32]:
        """float32, shape (n_time, n_series): strength where the speaking policy raises an alarm, 0 = silent.

        Strength: the same ranks and those of means over 3, 10 and 30 rows, fused by time scale, plus 0.4 of the running
        mean of the rows before. One alarm an incident, again after 100 rows if it lasts. Never cut by the budget.
        """
        alarm_bits = np.zeros(self.bits.shape, np.float32)
        self._run({"alarm_bits": alarm_bits}, speaks=True)
        return alarm_bits

    @cached_property
    def entity_bits(self) -> NDArray[np.float32]:
        """float32, shape (n_time,): how strange all series are together, as one machine.

        log2(1 + deviance / expected deviance): 1 = as expected, one more for each doubling from there on; 2 and above
        is strange. 0 for the first 150 rows. Like `bits` no tail probability.
        """
        entity_bits = np.zeros(self.bits.shape[0], np.float32)
        self._run({"entity_bits": entity_bits}, entity=True)
        return entity_bits

    @property
    def expected(self) -> NDArray[np.float64]:
        """float64, shape (n_time, n_series), units of the series: forecast before the value is seen, NaN = none yet."""
        return self._band[0]

    @property
    def lower(self) -> NDArray[np.float64]:
        """float64, shape (n_time, n_series), units of the series: 1 value in 1,024 lies outside lower to upper."""
        return self._band[1]

    @property
    def upper(self) -> NDArray[np.float64]:
        """float64, shape (n_time, n_series), units of the series: see `lower`."""
        return self._band[2]

    @cached_property
    def parts(self) -> dict[str, NDArray[np.float32]]:
        """Name of detector (and channel) -> its statistic, float32, shape (n_time, n_series).

        NaN = not observed, below 0 = the detector abstains.
        """
        names = list(self._bank().channels) if self.bits.shape[1] else []
        parts = {name: np.full(self.bits.shape, np.nan, np.float32) for name in names}
        self._run({"parts": list(parts.values())})
        return parts

    @cached_property
    def anomalies(self) -> list[Anomaly]:
        """Onsets of the incidents that the false-alarm budget lets speak, in order of time.

        The budget is for all series together. `ts` is the row's time, `series` the name given, else "column_<index>".
        """
        return [self._anomaly(row, said) for row, said in self._run({}, speaks=True) if said[1]]

    @cached_property
    def _band(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        expected, lower, upper = (np.full(self.bits.shape, np.nan) for _ in range(3))
        self._run({"expected": expected, "lower": lower, "upper": upper})
        return expected, lower, upper

    def _bank(self, *, entity: bool = False, speaks: bool = False) -> Any:
        bank = _core.Bank(
            self._values.shape[1], false_alarms_per_day=self._false_alarms_per_day, entity=entity, speaks=speaks
        )
        pools: dict[str, int] = {}
        for slot, name in enumerate(self._names):
            bank.join(slot, pools.setdefault(name.split("{", 1)[0], len(pools)))
        return bank

    def _run(
        self, outputs: dict[str, Any], *, entity: bool = False, speaks: bool = False, progress: Progress | None = None
    ) -> list[tuple[int, tuple[Any, ...]]]:
        """One pass from the beginning, in blocks of rows; returns (row, utterance) of all that was spoken."""
        rows, series = self._values.shape
        if rows == 0 or series == 0:
            return []
        bank = self._bank(entity=entity, speaks=speaks)
        step = max(1, _VALUES_PER_CALL // series)
        spoken: list[tuple[int, tuple[Any, ...]]] = []
        for first in range(0, rows, step):
            block = slice(first, min(first + step, rows))
            views = {
                name: [part[block] for part in out] if isinstance(out, list) else out[block]
                for name, out in outputs.items()
            }
            said = bank.run(self._values[block], self._times_ns[block], **views)
            spoken += [(first + row, rest) for row, *rest in said]
            if progress is not None:
                progress(block.stop / rows)
        return spoken

    def _anomaly(self, row: int, said: tuple[Any, ...]) -> Anomaly:
        slot, _, bits, value, expected, lower, upper, since, direction, interval_s, detector = said
        series = self._names[slot] if self._names else f"column_{slot}"
        ts = int(self._times_ns[row])
        host = platform.node()
        return Anomaly(
            id=blake2b(f"{detector}\0{series}\0{ts}".encode(), digest_size=8).hexdigest(),
            ts=ts,
            host=host,
            family=Family.HOST,
            detector=detector,
            scope=Scope(kind=ScopeKind.HOST, id=host),
            series=series,
            severity=Severity.INFO,
            message=f"{series} is {value:g} where {expected:g} is expected ({lower:g} to {upper:g}): {bits:.1f} bits",
            value=_known(value),
            expected=_known(expected),
            lower=_known(lower),
            upper=_known(upper),
            bits=bits,
            false_alarm_interval_s=interval_s,
            since=since,
            direction=_DIRECTIONS[direction],
            evidence=[series],
        )


class LightScores:
    """What `detect(..., tier="light")` found: residual, two-sided CUSUM and silence alone.

    Attributes
    ----------
    bits : float32, shape (n_time, n_series); see `cpp/engine/light_bank.hpp`. A missing value has those of its gap
    alarms : list of (row, column, bits, value, expected); value NaN = the series is silent. Bits that chance reaches
        `false_alarms_per_day` times a day over all series, if tails are exponential: nothing corrects it afterwards
    """

    def __init__(
        self, values: NDArray[Any], times_ns: NDArray[np.int64], false_alarms_per_day: float, progress: Progress | None
    ) -> None:
        rows, series = values.shape
        self.bits: NDArray[np.float32] = np.zeros(values.shape, np.float32)
        self.alarms: list[tuple[int, int, float, float, float]] = []
        if rows == 0 or series == 0:
            return
        interval_s = float(np.median(np.diff(times_ns[:10_000]))) * 1e-9 if rows > 1 else 0.0
        bank = _core.LightBank(series, false_alarms_per_day)
        step = max(1, _VALUES_PER_CALL // series)
        for first in range(0, rows, step):
            block = slice(first, min(first + step, rows))
            said = bank.run(values[block], interval_s, bits=self.bits[block])
            self.alarms += [(first + row, *rest) for row, *rest in said]
            if progress is not None:
                progress(block.stop / rows)

    def __repr__(self) -> str:
        rows, series = self.bits.shape
        return f"LightScores({rows} rows, {series} series, {len(self.alarms)} alarms)"


@overload
def detect(
    values: ArrayLike,
    times_s: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    false_alarms_per_day: float | None = None,
    progress: Progress | None = None,
    tier: Literal["full"] = "full",
) -> Scores: ...
@overload
def detect(
    values: ArrayLike,
    times_s: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    false_alarms_per_day: float | None = None,
    progress: Progress | None = None,
    tier: Literal["light"],
) -> LightScores: ...
def detect(
    values: ArrayLike,
    times_s: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    false_alarms_per_day: float | None = None,
    progress: Progress | None = None,
    tier: Literal["full", "light"] = "full",
) -> Scores | LightScores:
    """Score every value of every series against its own past: causal, one pass, deterministic.

    Parameters
    ----------
    values : float, shape (n_time, n_series), any unit; NaN = missing. Infinities count as missing.
    times_s : float, shape (n_time,), seconds (Unix time, or since any start), in order of arrival; rows whose time
        repeats or steps back, as clocks do, are scored all the same and left out of the measured cadence
    names : of the series, n_series of them; those that differ only in what stands in braces (`cpu{core=1}`) are siblings,
        from which each other's alarm levels are learned; default: all are
    false_alarms_per_day : budget of `anomalies`, for all series together; default 1
    progress : called with the share done, 0 to 1, after each block of rows
    tier : "light" = residual, shift and silence alone, for a million series

    Returns
    -------
    Scores, or LightScores

    Raises
    ------
    ShapeError : values are not two-dimensional real numbers, or times_s does not have one entry per row
    UsageError : times_s is not finite, the budget is not a positive number, or there are more or fewer names than series

    Examples
    --------
    >>> import numpy as np
    >>> values = np.random.default_rng(1).normal(size=(1000, 2))
    >>> values[900, 1] = 50.0
    >>> scores = detect(values, np.arange(1000.0))
    >>> bool(scores.bits[900, 1] > 8)
    True
    """
    budget = DEFAULT_FALSE_ALARMS_PER_DAY if false_alarms_per_day is None else float(false_alarms_per_day)
    if not (math.isfinite(budget) and 0 < budget < 1e12):
        raise UsageError(f"detect: false_alarms_per_day: expected a number above 0, found {budget!r}; nothing scored")
    rows = _checked_values(values)
    called = list(names) if names is not None else []
    if names is not None and len(called) != rows.shape[1]:
        raise UsageError(f"detect: names: expected {rows.shape[1]}, one a series, found {len(called)}; nothing scored")
    times = _checked_times(times_s, rows.shape[0])
    if tier not in ("full", "light"):
        raise UsageError(f"detect: tier: expected 'full' or 'light', found {tier!r}; nothing scored")
    if tier == "light":
        return LightScores(rows, times, budget, progress)
    return Scores(rows, times, called, budget, progress)


def _checked_values(values: ArrayLike) -> NDArray[Any]:
    """An own C-ordered copy as float32 or float64, so that later passes see what the first one saw."""
    found = np.asarray(values)
    if found.ndim != 2:
        hint = "; use values[:, None] for one series" if found.ndim == 1 else ""
        raise ShapeError(
            f"detect: values: expected shape (n_time, n_series), found shape {found.shape}; nothing scored{hint}"
        )
    if found.dtype.kind not in "fiu":
        raise ShapeError(f"detect: values: expected real numbers, found dtype {found.dtype}; nothing scored")
    single = found.dtype.kind == "f" and found.dtype.itemsize <= 4
    return np.array(found, dtype=np.float32 if single else np.float64, order="C")


def _checked_times(times_s: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Times in nanoseconds, rounded without passing 1e9 times a large float through float64."""
    found = np.asarray(times_s)
    if found.shape != (rows,) or found.dtype.kind not in "fiu":
        raise ShapeError(
            f"detect: times_s: expected numbers of shape ({rows},), one per row of values, "
            f"found {found.dtype} of shape {found.shape}; nothing scored"
        )
    times = found.astype(np.float64)
    wrong = np.flatnonzero(~(np.abs(times) <= _LARGEST_TIME_S))
    if wrong.size:
        raise UsageError(
            f"detect: times_s[{wrong[0]}]: expected finite seconds within {_LARGEST_TIME_S:g}, "
            f"found {times[wrong[0]]}; nothing scored"
        )
    whole = np.floor(times)
    return whole.astype(np.int64) * 1_000_000_000 + np.rint((times - whole) * 1e9).astype(np.int64)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
