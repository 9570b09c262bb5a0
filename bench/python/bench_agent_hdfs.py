"""Block life cycles (HDFS): the order of tasks learned online from a normal recording, then judged on another.

F1 at the true share of abnormal tasks, 2.93 %: the test recording has 86 % of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import recordings
from support import figure

import argus

_TRUE_SHARE = 0.0293
_FALSE_BAR = 2


def figures() -> Iterator[dict[str, Any]]:
    """Recall, false tasks, F1 at the true share."""
    truth = {x["task"]: x["anomaly"] for x in recordings.labels("hdfs_test")}
    stream, test = recordings.events("hdfs_train"), recordings.events("hdfs_test")
    shift = stream[-1]["ts"] + 1_000_000_000 - test[0]["ts"]
    stream += [{**e, "id": f"test-{e['id']}", "source": f"{e['source']}-test", "ts": e["ts"] + shift} for e in test]
    spoken = [a for a in argus.replay(stream).anomalies if a.family in ("causal", "behavioural")]
    flagged = {task for a in spoken for task in (a.scope.id, a.scope.task)}
    bad = {task for task, is_bad in truth.items() if is_bad}
    good = truth.keys() - bad
    recall, false = len(bad & flagged) / len(bad), len(good & flagged)
    hits = _TRUE_SHARE * recall
    strays = (1 - _TRUE_SHARE) * false / len(good)
    score = 2 * hits / (hits + strays + _TRUE_SHARE)
    yield figure("agent_hdfs/recall", recall, "of tasks", against=f"{len(bad)}", bar=0.99, good=recall >= 0.99)
    against = f"{len(good)} normal tasks"
    yield figure("agent_hdfs/false", false, "tasks", against=against, bar=_FALSE_BAR, good=false <= _FALSE_BAR)
    against = "DeepLog 0.945, LogAnomaly 0.976"
    yield figure("agent_hdfs/f1", score, "F1", against=against, ratio=score / 0.976, bar=0.96, good=score >= 0.96)
