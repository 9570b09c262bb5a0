"""Tables of past metrics: what is read, what is counted, what is refused, and that a replay of one finds what is there."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

import argus
from argus.errors import ShapeError, UnreachableError, UsageError
from argus.wire import tables

T0 = 1_760_000_000


def write(folder: Path, text: str, name: str = "metrics.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.CSV", "metrics.csv.gz"])
def test_times_in_seconds_or_iso_and_missing_values_are_read(tmp_path: Path, name: str):
    text = "time,cpu,load\n1760000000,1.5,\n2025-10-09T08:53:21Z,2.5,NaN\n2025-10-09 08:53:22,3.5,4\n"
    path = write(tmp_path, text, name)
    assert tables.is_table(path)
    table = tables.read(path)
    assert table.names == ("cpu", "load")
    assert table.times_s.tolist() == [T0, T0 + 1, T0 + 2]
    assert table.values[:, 0].tolist() == [1.5, 2.5, 3.5]
    assert np.isnan(table.values[:2, 1]).all()
    assert table.rejected == {}


def test_what_cannot_be_read_is_counted_by_reason_and_stops_nothing(tmp_path: Path):
    table = tables.read(write(tmp_path, "t,a,b\n1,2\nsoon,1,2\n1e300,1,2\n\n5,high,7\n6,1,2,3\n8,9,10\n"))
    assert table.times_s.tolist() == [5.0, 8.0]
    assert table.rejected == {"bad_row": 2, "bad_time": 2, "bad_cell": 1}


@pytest.mark.parametrize("text", ["", "time\n1\n"])
def test_a_table_without_series_is_refused(tmp_path: Path, text: str):
    with pytest.raises(ShapeError, match="at least one series"):
        tables.read(write(tmp_path, text))


def test_a_header_alone_is_an_empty_table(tmp_path: Path):
    assert tables.read(write(tmp_path, "time,a\n")).values.shape == (0, 1)
    report = argus.replay(tmp_path / "metrics.csv")
    assert (report.events, report.anomalies) == (0, [])


def test_a_file_that_is_not_there_torn_or_no_text_is_named(tmp_path: Path):
    with pytest.raises(UnreachableError, match=r"nowhere\.csv"):
        tables.read(tmp_path / "nowhere.csv")
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(b"t,a\n" + b"1,2\n" * 9999)[:-20])
    with pytest.raises(UnreachableError, match=r"torn\.csv\.gz"):
        tables.read(torn)
    (tmp_path / "bytes.csv").write_bytes(b"t,a\n1,\xff\xfe\n")
    with pytest.raises(UnreachableError, match=r"bytes\.csv"):
        tables.read(tmp_path / "bytes.csv")


def test_a_replay_of_metrics_finds_the_spike_by_name_and_stops_nothing(tmp_path: Path):
    noise = np.random.default_rng(3).normal(size=(3000, 2))
    noise[2500, 1] += 30.0
    rows = [f"{T0 + 60 * i},{a:.4f},{b:.4f}" for i, (a, b) in enumerate(noise)]
    report = argus.replay(str(write(tmp_path, "\n".join(["time,queue{q=a},queue{q=b}", *rows]))))
    assert report.events == 3000
    assert [a.series for a in report.anomalies if a.ts == (T0 + 60 * 2500) * 10**9] == ["queue{q=b}"]
    assert len(report.anomalies) <= 6
    assert report.stops == []
    assert {i.cause for i in report.incidents} == {"host:queue"}


def test_parquet_reads_as_csv_does(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow import parquet

    times = pyarrow.array([T0, T0 + 1, None], pyarrow.timestamp("s", tz="UTC"))
    columns = {"time": times, "cpu": [1, None, 3], "load": [0.5, 1.5, 2.5]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    table = tables.read(tmp_path / "m.parquet")
    assert table.names == ("cpu", "load")
    assert table.times_s.tolist() == [T0, T0 + 1]
    assert table.values[:, 1].tolist() == [0.5, 1.5]
    assert np.isnan(table.values[1, 0])
    assert table.rejected == {"bad_time": 1}
    parquet.write_table(pyarrow.table({"time": [1], "name": ["x"]}), tmp_path / "text.parquet")
    with pytest.raises(ShapeError, match="column 'name': expected numbers"):
        tables.read(tmp_path / "text.parquet")
    (tmp_path / "no.parquet").write_bytes(b"nothing")
    with pytest.raises(UnreachableError, match=r"no\.parquet"):
        tables.read(tmp_path / "no.parquet")


def test_parquet_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"argus-auditor\[parquet\]"):
        tables.read(tmp_path / "m.parquet")
