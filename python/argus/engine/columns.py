"""Single detectors over arrays: shift, variance, silence, rate, tail, mix, embedding, and those of the bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from argus.engine.core import catalog
from argus.engine.detection import _core
from argus.errors import ShapeError, UsageError


class Detector:
    """One detector of the catalogue, apart from ranks, fusion and budget: its raw statistics.

    Parameters
    ----------
    name : of the catalogue (`argus.engine.core.catalog()["detectors"]` describes them and their options)
    streams : series, or entities of `width` values: the categories of a `mix`, the dimensions of an `embedding`
    options : of the detector, by name; the rest take their defaults

    Raises
    ------
    UsageError : no such detector or option, or a value out of its bounds

    Examples
    --------
    >>> import numpy as np
    >>> values = np.random.default_rng(1).normal(size=(1000, 3))
    >>> values[900:, 2] += 2.0
    >>> evidence = Detector("shift", 3).run(values)[""]
    >>> bool(evidence[920, 2] > 20 > evidence[920, 0])
    True
    """

    def __init__(self, name: str, streams: int, *, width: int = 1, **options: float) -> None:
        described = {leaf["name"]: leaf for leaf in catalog()["detectors"]}
        if name not in described:
            raise UsageError(f"Detector: expected one of {', '.join(sorted(described))}, found {name!r}")
        if name == "embedding":
            options.setdefault("dimensions", width)
        known = {option["name"]: option for option in described[name]["options"]}
        if strangers := sorted(set(options) - set(known)):
            raise UsageError(f"Detector: {name}: expected options {', '.join(known)}, found {strangers[0]!r}")
        values = [float(options.get(key, option["default"])) for key, option in known.items()]
        for (key, option), value in zip(known.items(), values, strict=True):
            if not option["min"] <= value <= option["max"]:
                raise UsageError(
                    f"Detector: {name}.{key}: expected a number in [{option['min']:g}, {option['max']:g}], found {value!r}"
                )
        self.streams, self.width = streams, width
        try:
            self._core: Any = _core.Columns(name, streams, width, values)
        except (ValueError, TypeError) as error:
            raise UsageError(f"Detector: {error}") from None

    def run(
        self,
        values: ArrayLike,
        *,
        exposure: ArrayLike | None = None,
        learn: ArrayLike | None = None,
        interval_s: float = 60.0,
    ) -> dict[str, NDArray[np.float32]]:
        """Score each row before learning from it; goes on where the last call ended.

        Parameters
        ----------
        values : shape (n_time, streams * width), NaN = not observed
        exposure : the same shape: trials behind each count of a `rate`; None = counts a row
        learn : the same shape, uint8: 0 = learn nothing of this value, 1 = learn, 2 = the new normal; None = 1
        interval_s : time between rows

        Returns
        -------
        dict: channel ("" = the detector's own) -> float32, shape (n_time, streams * width); of an entity its first value

        Raises
        ------
        ShapeError : an array has another shape, or is not of real numbers
        """
        rows = _numbers(values, "values", np.float32)
        channels = self._core.channels
        out = np.empty((len(rows) if rows.ndim else 0, len(channels), self.streams * self.width), np.float32)
        try:
            self._core.run(
                rows,
                None if exposure is None else _numbers(exposure, "exposure", np.float32),
                None if learn is None else _numbers(learn, "learn", np.uint8),
                float(interval_s),
                out,
            )
        except ValueError as error:
            raise ShapeError(f"Detector.run: {error}; nothing scored") from None
        return {name: out[:, i] for i, name in enumerate(channels)}

    def reset(self, streams: Sequence[int]) -> None:
        """Forget everything of these streams."""
        try:
            self._core.reset(list(streams))
        except ValueError as error:
            raise UsageError(f"Detector.{error}") from None

    def save(self) -> bytes:
        """All that was learned: versioned, checksummed."""
        return bytes(self._core.save())

    def load(self, state: bytes) -> None:
        """Go on bit-exactly from `save()` of a detector with the same name, streams, width and options.

        Raises
        ------
        UsageError : the state is damaged or of another detector
        """
        try:
            self._core.load(state)
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"Detector.load: {error}") from None


def _numbers(values: ArrayLike, name: str, dtype: type[np.number[Any]]) -> NDArray[Any]:
    try:
        found = np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise ShapeError(f"Detector.run: {name}: expected real numbers, found {error}; nothing scored") from None
    if found.dtype.kind not in "fiu":
        raise ShapeError(f"Detector.run: {name}: expected real numbers, found dtype {found.dtype}; nothing scored")
    return np.ascontiguousarray(found, dtype=dtype)
