"""What the core says of three recorded series: signal and expected band, bits, alarms, and what the budget spoke.

    pip install 'argus-auditor[compare]'
    ARGUS_DATA=... python bench/python/plot_detection.py     writes docs/images/detection_*.png

The series are of the Numenta Anomaly Benchmark (MIT licence), whole and with what was labelled; chosen for their kinds
(a season, a level that wears, bursts), not for how well they are judged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nab
import numpy as np
from support import ROOT

import argus

IMAGES = ROOT / "docs" / "images"
_SERIES = {
    "taxi": ("realKnownCause/nyc_taxi.csv", "New York taxi passengers, half an hour a row"),
    "machine": ("realKnownCause/machine_temperature_system_failure.csv", "Temperature of a machine, 5 minutes a row"),
    "latency": ("realKnownCause/ec2_request_latency_system_failure.csv", "Latency of a cloud server, 5 minutes a row"),
}
_BUDGET = 1 / 30  # alarms a day: one a month
_INK, _SIGNAL, _BAND, _BITS, _ALARM, _LABEL = "#333333", "#1f5a96", "#9ec5e8", "#7a7a7a", "#c8321e", "#f3dfa8"


def draw(series: nab.Series, title: str, path: Path) -> None:
    """One picture: signal and band above, bits below, anomalies as lines through both."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import dates, pyplot

    scores = argus.detect(series.values[:, None], series.seconds, names=["series"], false_alarms_per_day=_BUDGET)
    times = series.seconds.astype("datetime64[s]")
    style = {"font.size": 8, "axes.edgecolor": _INK, "axes.spines.top": False, "axes.spines.right": False}
    with pyplot.rc_context(style):
        figure, (above, below) = pyplot.subplots(
            2, 1, sharex=True, figsize=(9, 3.8), height_ratios=[3, 1], layout="constrained"
        )
        lower, upper = scores.lower[:, 0], scores.upper[:, 0]
        band = above.fill_between(times, lower, upper, color=_BAND, linewidth=0, alpha=0.7, label="expected band")
        (line,) = above.plot(times, series.values, color=_SIGNAL, linewidth=0.6, label="value")
        _limit(above, series.values, lower, upper)
        below.vlines(times, 0, scores.bits[:, 0], color=_BITS, linewidth=0.5)
        top = max(20.0, float(scores.bits.max()) * 1.05)
        below.set_ylim(0, top)
        raised = times[scores.alarm_bits[:, 0] > 0]
        (mark,) = below.plot(
            raised, np.full(len(raised), 0.92 * top), "v", color=_ALARM, markersize=3.5, label="alarm at the fixed bar"
        )
        shades = [axes.axvspan(times[a], times[b], color=_LABEL, zorder=0, label="labelled window")
                  for axes in (above, below) for a, b in series.windows]  # fmt: skip
        for anomaly in scores.anomalies:
            for axes in (above, below):
                axes.axvline(np.datetime64(anomaly.ts, "ns"), color=_ALARM, linewidth=0.9, linestyle=(0, (4, 2)))
        (said,) = above.plot([], [], color=_ALARM, linewidth=0.9, linestyle=(0, (4, 2)), label="spoken by the budget")
        above.set_title(title, loc="left", fontsize=9, color=_INK)
        figure.legend(handles=[line, band, mark, said, *shades[:1]], loc="outside lower center", ncols=5, frameon=False)
        below.set_ylabel("bits")
        below.xaxis.set_major_formatter(dates.ConciseDateFormatter(below.xaxis.get_major_locator()))
        below.set_xlim(times[0], times[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Software": None})
        pyplot.close(figure)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB, {len(scores.anomalies)} anomalies")


def _limit(axes: Any, values: nab.Values, lower: nab.Values, upper: nab.Values) -> None:
    """Show all values, and of the band what lies within half their span of them."""
    low, high = float(values.min()), float(values.max())
    margin = 0.5 * (high - low)
    bottom = min(low, max(low - margin, float(np.nanpercentile(lower, 1))))
    top = max(high, min(high + margin, float(np.nanpercentile(upper, 99))))
    axes.set_ylim(bottom - 0.03 * (top - bottom), top + 0.03 * (top - bottom))


def main() -> None:
    """All three."""
    corpus = {one.name: one for one in nab.load(Path(os.environ.get("ARGUS_DATA", "")) / "nab")}
    if not corpus:
        raise SystemExit("plot_detection: expected the folder with nab/ in ARGUS_DATA, found none; nothing drawn")
    for name, (file, title) in _SERIES.items():
        draw(corpus[file], title, IMAGES / f"detection_{name}.png")


if __name__ == "__main__":
    main()
