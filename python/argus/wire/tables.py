"""Past metrics from a file: a column of times, then one column a series (CSV, gzip too; Parquet).

Times are Unix seconds, or ISO 8601 (UTC where no offset is given). An empty cell, `NaN` or `null` is a missing value. A
row that cannot be read never stops the rest: it is counted as `bad_time` or `bad_row` (too few or too many cells); a cell
that is no number is missing and counted as `bad_cell`.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from argus.errors import ShapeError, UnreachableError, UsageError

SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
_MISSING: Final = frozenset({"", "nan", "null", "none", "na"})
_GZIP: Final = b"\x1f\x8b"


class Table(msgspec.Struct, frozen=True):
    """Rows in the order of the file: `names` of the series, `times_s` float64 (n_time,), `values` float64 (n_time, n)."""

    names: tuple[str, ...]
    times_s: NDArray[np.float64]
    values: NDArray[np.float64]
    rejected: dict[str, int]


def is_table(source: object) -> bool:
    """Whether a path names a table by its suffix."""
    return isinstance(source, str | PathLike) and str(fspath(source)).lower().endswith(SUFFIXES)


def read(path: str | PathLike[str]) -> Table:
    """Read a whole table, told by its suffix.

    Raises
    ------
    UnreachableError : the file cannot be opened or read
    ShapeError : it has no header, no series, or (Parquet) a column that is no number
    UsageError : Parquet, and the extra `parquet` is not installed
    """
    place = Path(path)
    try:
        return _parquet(place) if place.name.lower().endswith(".parquet") else _csv(place)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UnreachableError(f"{place}: expected a readable table, found {error}; nothing read") from None


def _csv(place: Path) -> Table:
    with place.open("rb") as raw:
        packed = raw.read(2) == _GZIP
    opener: Any = gzip.open if packed else open
    with opener(place, "rt", encoding="utf-8-sig", newline="") as file:
        return _rows(file, place)


def _rows(file: TextIO, place: Path) -> Table:
    lines = csv.reader(file)
    header = next(lines, [])
    names = tuple(name.strip() for name in header[1:])
    if not names:
        raise ShapeError(
            f"{place}: expected a header with a time and at least one series, found {header}; nothing read"
        )
    rejected: Counter[str] = Counter()
    times: list[float] = []
    values: list[list[float]] = []
    for time_s, row in _good(lines, len(names), rejected):
        times.append(time_s)
        values.append(row)
    matrix = np.array(values, np.float64).reshape(len(values), len(names))
    return Table(names, np.array(times, np.float64), matrix, dict(rejected))


def _good(lines: Iterator[list[str]], width: int, rejected: Counter[str]) -> Iterator[tuple[float, list[float]]]:
    for cells in lines:
        if not cells:
            continue
        if len(cells) != width + 1:
            rejected["bad_row"] += 1
            continue
        time_s = _time(cells[0].strip())
        if time_s is None:
            rejected["bad_time"] += 1
            continue
        yield time_s, [_number(cell.strip(), rejected) for cell in cells[1:]]


def _time(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if abs(seconds) < 9.2e9 else None


def _number(text: str, rejected: Counter[str]) -> float:
    if text.lower() in _MISSING:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        rejected["bad_cell"] += 1
        return float("nan")


def _parquet(place: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        raise UsageError(
            f"{place}: expected pyarrow, which reads Parquet, found none; nothing read: pip install 'argus-auditor[parquet]'"
        ) from None
    try:
        table = parquet.read_table(place)
    except ArrowException as error:
        raise UnreachableError(f"{place}: expected a Parquet file, found {error}; nothing read") from None
    if table.num_columns < 2:
        raise ShapeError(
            f"{place}: expected a time and at least one series, found columns {table.column_names}; nothing read"
        )
    first = table.column(0)
    when = first.cast("timestamp[ns]").cast("int64") if types.is_timestamp(first.type) else first
    columns = []
    for name, column in zip(table.column_names[1:], table.columns[1:], strict=True):
        if not (types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type)):
            raise ShapeError(f"{place}: column {name!r}: expected numbers, found {column.type}; nothing read")
        columns.append(np.asarray(column.cast("float64").to_numpy(zero_copy_only=False), np.float64))
    times = np.asarray(when.to_numpy(zero_copy_only=False), np.float64)
    times = times / 1e9 if types.is_timestamp(first.type) else times
    good = np.abs(times) < 9.2e9
    rejected = {"bad_time": int((~good).sum())} if not good.all() else {}
    return Table(tuple(table.column_names[1:]), times[good], np.stack(columns, 1)[good], rejected)
