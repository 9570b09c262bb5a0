"""A bound on slow change: what is normal now, held against a reference that a person froze and the collector signed.

Detectors follow what they see, so whoever changes a series slowly enough teaches them the new normal. The reference does not
follow: it holds, for every series and hour of the day, the mean of the hours seen until it was frozen, and how far hours of
that time lay from it. When the means of two hours in a row lie on the same side outside

    reference +- max(share * |reference|, 6 * usual distance of an hour)

the series has drifted, and is back when two hours in a row lie within half of that. A ramp of any slope up to 5 % an hour is so
told before 1.5 times the reference where hours usually lie within 5 % of it. Only a person moves the reference, by freezing
it anew. (A bound and no detector: Kloft and Laskov 2012, JMLR 13, on what an adversary can teach an online learner.)

Hourly means cost 20 us every tenth second for 1,000 series, and 0.5 kB a series.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from argus.errors import UsageError
from argus.record.keys import SigningKey
from argus.schema import Anomaly, Direction, Family, Scope, ScopeKind, Severity

SHARE: Final = 0.3
_DISTANCES: Final = 6.0
_HOUR_NS: Final = 3600 * 10**9
_FEWEST_HOURS: Final = 24
_FEWEST_VALUES: Final = 30  # of an hour, else it says nothing
_MOST_DAYS: Final = 14  # hours weigh as much as if so many had been seen
_HOURS_OUTSIDE: Final = 2

Floats = NDArray[np.float64]


class FrozenSeries(msgspec.Struct, frozen=True):
    """One series of a reference: mean by hour of the day (UTC; None = never seen), usual distance of an hour from it."""

    hours: tuple[float | None, ...]
    distance: float


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What was normal when a person froze it; `key_id` and `signature` (hex, Ed25519) are of the collector's key."""

    frozen_at: int
    actor: str
    series: dict[str, FrozenSeries]
    key_id: str = ""
    signature: str = ""
    v: int = 1

    def signed(self, key: SigningKey) -> Reference:
        """The same with a signature."""
        return msgspec.structs.replace(self, key_id=key.key_id, signature=key.sign(self._content()).hex())

    def check(self, key: SigningKey) -> None:
        """Raise UsageError unless this key signed just this content."""
        from cryptography.exceptions import InvalidSignature

        try:
            key.public.verify(bytes.fromhex(self.signature), self._content())
        except (InvalidSignature, ValueError):
            raise UsageError(
                f"reference: expected the signature of key {key.key_id}, found none that holds (key {self.key_id!r}); "
                "it is not used. Freeze it anew, and find out who changed it"
            ) from None

    def _content(self) -> bytes:
        bare = msgspec.structs.replace(self, key_id="", signature="")
        return json.dumps(msgspec.to_builtins(bare), sort_keys=True, separators=(",", ":")).encode()


class DriftWatch:
    """Hourly means of every series, and what became of them since a reference was frozen.

    Parameters
    ----------
    host : name of the machine, for anomalies
    share : of the reference's hour that its mean may move
    """

    def __init__(self, host: str, *, share: float = SHARE) -> None:
        self.reference: Reference | None = None
        self._host = host
        self._share = share
        self._row: dict[str, int] = {}
        self._names: Sequence[str] = ()
        self._of_names: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._means: Floats = np.full((0, 24), np.nan)
        self._days: Floats = np.zeros((0, 24))
        self._distance: Floats = np.full(0, np.nan)
        self._sum: Floats = np.zeros(0)
        self._count: Floats = np.zeros(0)
        self._outside: NDArray[np.int8] = np.zeros(0, dtype=np.int8)  # hours in a row; below 0 = under the bound
        self._inside: NDArray[np.int8] = np.zeros(0, dtype=np.int8)
        self._drifted: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._hour: int | None = None

    def push(self, names: Sequence[str], values: Floats, now: int, *, left_out: Iterable[str] = ()) -> list[Anomaly]:
        """Take one row; at the end of an hour, say which series left or came back to their reference.

        Parameters
        ----------
        names, values : full names of the live series and their values, shape (n,), NaN = not observed
        now : Unix ns
        left_out : names that are not judged now; what was seen of them in this hour is dropped
        """
        hour = now // _HOUR_NS
        said = self._end_hour(self._hour, now) if self._hour is not None and hour != self._hour else []
        self._hour = hour
        if names is not self._names:
            self._of_names = np.array([self._row_of(name) for name in names], dtype=np.intp)
            self._names = names
        seen = np.isfinite(values)
        rows = self._of_names[seen]
        np.add.at(self._sum, rows, values[seen])
        np.add.at(self._count, rows, 1.0)
        for name in left_out:
            if (row := self._row.get(name)) is not None:
                self._count[row] = self._sum[row] = 0.0
        return said

    def freeze(self, *, now: int, actor: str, key: SigningKey) -> Reference:
        """Make what is known now the reference.

        Raises
        ------
        UsageError : no series has been seen for 24 hours yet
        """
        known = {
            name: FrozenSeries(
                tuple(None if mean != mean else float(mean) for mean in self._means[row]), float(self._distance[row])
            )
            for name, row in self._row.items()
            if self._days[row].sum() >= _FEWEST_HOURS and np.isfinite(self._distance[row])
        }
        if not known:
            most = int(self._days.sum(axis=1).max()) if len(self._days) else 0
            raise UsageError(
                f"reference: expected series that were seen for {_FEWEST_HOURS} hours, found {most} hours at most; "
                "let the collector run and freeze later"
            )
        self.adopt(Reference(frozen_at=now, actor=actor, series=known).signed(key))
        assert self.reference is not None
        return self.reference

    def adopt(self, reference: Reference | None) -> None:
        """Judge by this reference from now on."""
        self.reference = reference
        self._outside[:] = self._inside[:] = 0
        self._drifted[:] = False

    def drifted(self) -> list[str]:
        """Names of the series that have left their reference."""
        return [name for name, row in self._row.items() if self._drifted[row]]

    def save(self) -> bytes:
        """What was learned of hours, as an .npz file."""
        out = io.BytesIO()
        names = np.array(list(self._row), dtype=np.str_)
        n = len(names)
        np.savez(out, names=names, means=self._means[:n], days=self._days[:n], distance=self._distance[:n])
        return out.getvalue()

    def load(self, state: bytes) -> None:
        """Go on from `save()`. Errors: UsageError when the state is damaged; nothing changes."""
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as file:
                names = [str(name) for name in file["names"]]
                means, days, distance = (np.asarray(file[k], dtype=np.float64) for k in ("means", "days", "distance"))
        except Exception as error:  # zipfile, zlib and numpy have a dozen of their own
            raise UsageError(f"hours: expected an .npz file, found {error}; they are learned afresh") from None
        if means.shape != (len(names), 24) or days.shape != means.shape or distance.shape != (len(names),):
            raise UsageError(f"hours: expected 24 means of {len(names)} series, found {means.shape}; learned afresh")
        for name in names:
            self._row_of(name)
        rows = [self._row[name] for name in names]
        self._means[rows], self._days[rows], self._distance[rows] = means, days, distance

    def _row_of(self, name: str) -> int:
        row = self._row.setdefault(name, len(self._row))
        if row == len(self._count):
            more = max(64, row)
            self._means = np.concatenate([self._means, np.full((more, 24), np.nan)])
            self._days = np.concatenate([self._days, np.zeros((more, 24))])
            self._distance = np.concatenate([self._distance, np.full(more, np.nan)])
            self._sum, self._count = (np.concatenate([a, np.zeros(more)]) for a in (self._sum, self._count))
            self._outside, self._inside = (
                np.concatenate([a, np.zeros(more, dtype=np.int8)]) for a in (self._outside, self._inside)
            )
            self._drifted = np.concatenate([self._drifted, np.zeros(more, dtype=np.bool_)])
        return row

    def _end_hour(self, hour: int, now: int) -> list[Anomaly]:
        of_day = hour % 24
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(self._count >= _FEWEST_VALUES, self._sum / self._count, np.nan)
        self._sum[:] = self._count[:] = 0.0
        said = self._judge(means, of_day, now)
        self._learn(means, of_day)
        return said

    def _learn(self, means: Floats, of_day: int) -> None:
        """Move the mean of this hour of the day; what has drifted teaches nothing."""
        seen = np.isfinite(means) & ~self._drifted
        before, days = self._means[:, of_day], self._days[:, of_day]
        known = seen & (days > 0)
        apart = np.where(known, np.abs(means - before), 0.0)
        # Until an hour of the day comes again, the distance of one hour from the last stands in for it.
        last = self._means[:, of_day - 1]
        first = seen & (days == 0) & np.isfinite(last)
        apart = np.where(first, np.abs(means - last), apart)
        told = known | first
        moved = self._distance + (apart - self._distance) / 24.0
        self._distance = np.where(told, np.where(np.isfinite(self._distance), moved, apart), self._distance)
        rate = 1.0 / np.minimum(days + 1.0, float(_MOST_DAYS))
        self._means[:, of_day] = np.where(seen, np.where(days > 0, before + rate * (means - before), means), before)
        self._days[:, of_day] = days + seen

    def _judge(self, means: Floats, of_day: int, now: int) -> list[Anomaly]:
        if self.reference is None:
            return []
        said = []
        for name, frozen in self.reference.series.items():
            row, expected = self._row.get(name), frozen.hours[of_day]
            if row is None or expected is None or not np.isfinite(means[row]):
                continue
            mean, reach = float(means[row]), self._reach(frozen, expected)
            side = int(np.sign(mean - expected)) if abs(mean - expected) > reach else 0
            before = int(self._outside[row])
            self._outside[row] = np.clip(before + side if side * before >= 0 else side, -100, 100) if side else 0
            self._inside[row] = min(int(self._inside[row]) + 1, 100) if abs(mean - expected) <= reach / 2 else 0
            if not self._drifted[row] and abs(int(self._outside[row])) >= _HOURS_OUTSIDE:
                self._drifted[row] = True
                said.append(self._anomaly(name, mean, expected, reach, now, left=True))
            elif self._drifted[row] and self._inside[row] >= _HOURS_OUTSIDE:
                self._drifted[row] = False
                said.append(self._anomaly(name, mean, expected, reach, now, left=False))
        return said

    def _reach(self, frozen: FrozenSeries, expected: float) -> float:
        return max(self._share * abs(expected), _DISTANCES * frozen.distance, 1e-12)

    def _anomaly(self, name: str, mean: float, expected: float, reach: float, now: int, *, left: bool) -> Anomaly:
        assert self.reference is not None
        day = f"{datetime.fromtimestamp(self.reference.frozen_at / 1e9, UTC):%Y-%m-%d}"
        how = "has drifted from" if left else "is back within"
        return Anomaly(
            id=f"ref-{now:x}-{self._row[name]:x}",
            ts=now,
            host=self._host,
            family=Family.HOST,
            detector="reference",
            scope=Scope(ScopeKind.HOST, ""),
            series=name,
            severity=Severity.INFO,
            message=f"{name} {how} the reference of {day}: {mean:.4g} in the mean of an hour, expected "
            f"{expected - reach:.4g} to {expected + reach:.4g}; if it should be so, argus reference freeze",
            value=mean,
            expected=expected,
            lower=expected - reach,
            upper=expected + reach,
            since=now - _HOURS_OUTSIDE * _HOUR_NS,
            direction=Direction.UP if mean > expected else Direction.DOWN,
            evidence=[name],
        )
