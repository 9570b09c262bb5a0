"""What is known about past sessions: labels of an operator, or how their tasks ended. Pure but for reading the file.

A label is one JSON object a line: `session`, `task`, `agent` or `tenant` names whom it is about; `bad`, `anomaly` or
`hijacked` = true says that a stop was right there, = false (or `success` = true) that it was false; `ts_from` and
`ts_to` (ns) bound the time it holds for, and are a verdict of bad by themselves. Outside the windows of a name all is
good. A failed task is no proof that a stop was right, so `success` = false leaves it open.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from argus.errors import UnreachableError, UsageError
from argus.schema import Scope, ScopeKind

LINE_BYTES_MAX: Final = 65_536
NAMED: Final = ("task", "session", "agent", "tenant")
"""Kinds a label may name; the narrowest that is labelled decides."""

_WRONG: Final = ("bad", "anomaly", "hijacked")
_PROXY: Final = "ends of tasks: a stop of a session that succeeded was false; of the others nothing is known"

Name = tuple[str, str]
"""Kind and id of a labelled scope."""


class Verdict(StrEnum):
    RIGHT = "right"
    FALSE = "false"
    UNKNOWN = "unknown"


class Truth:
    """Verdicts by name. Without labels it learns from ends of tasks (`note_end`), as a stated proxy."""

    def __init__(self, labels: str | os.PathLike[str] | None = None) -> None:
        self.told = _PROXY if labels is None else f"labels of {Path(labels).name}"
        self._labelled = labels is not None
        self._good: set[Name] = set()
        self._bad: set[Name] = set()
        self._windows: defaultdict[Name, list[tuple[int, int]]] = defaultdict(list)
        self._failed: set[Name] = set()
        if labels is not None:
            self._read(Path(labels))

    def note_end(self, event: Mapping[str, Any]) -> None:
        """How a task ended, from its event; ignored where labels were given."""
        if self._labelled:
            return
        succeeded = event["type"] == "task_completed" and event.get("ok", True) is True
        for kind in ("task", "session"):
            if name := event.get(kind):
                (self._good if succeeded else self._failed).add((kind, name))

    def knows(self) -> bool:
        """Whether there is any verdict at all."""
        return bool(self._good or self._bad or self._windows)

    def of(self, scope: Scope, since: int, ts: int) -> Verdict:
        """Verdict on something said about `scope` at `ts` that began at `since` (wall-clock ns)."""
        for name in names_of(scope):
            verdict = self._of_name(name, since, ts)
            if verdict is not Verdict.UNKNOWN:
                return verdict
        return Verdict.UNKNOWN

    def of_stop(self, scope: Scope, since: int, ts: int, cut: Iterable[Name]) -> Verdict:
        """Verdict on a stop: right where it cut anything bad, else false where it cut anything good.

        cut : names that had events in the scope after the stop
        """
        found = {self.of(scope, since, ts), *(self._of_name(name, since, ts) for name in cut)}
        return next((v for v in (Verdict.RIGHT, Verdict.FALSE) if v in found), Verdict.UNKNOWN)

    def good(self, cut: Iterable[Name]) -> int:
        """How many sessions of `cut`, or tasks where no session is labelled, are known to be good."""
        found = [name for name in cut if name in self._good and name not in self._failed and name not in self._bad]
        return sum(kind == "session" for kind, _ in found) or sum(kind == "task" for kind, _ in found)

    def _of_name(self, name: Name, since: int, ts: int) -> Verdict:
        if windows := self._windows.get(name):
            within = any(first <= ts and min(since, ts) <= last for first, last in windows)
            return Verdict.RIGHT if within else Verdict.FALSE
        if name in self._bad:
            return Verdict.RIGHT
        return Verdict.FALSE if name in self._good and name not in self._failed else Verdict.UNKNOWN

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as raw:
                packed = raw.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(path, "rb") if packed else path.open("rb") as lines:
                number = 0
                while line := lines.readline(LINE_BYTES_MAX + 1):
                    number += 1
                    if line.strip():
                        self._add(f"{path}:{number}", line)
        except (OSError, EOFError) as error:
            found = getattr(error, "strerror", None) or error
            raise UnreachableError(
                f"{path}: expected a readable file of labels, found {found}; not replayed."
            ) from None

    def _add(self, where: str, line: bytes) -> None:
        try:
            label = json.loads(line) if len(line) <= LINE_BYTES_MAX else None
        except ValueError:
            label = None
        if not isinstance(label, dict):
            raise UsageError(f"{where}: expected one JSON object of at most 64 KiB a line; not replayed.")
        named = [(kind, label[kind]) for kind in NAMED if label.get(kind)]
        if not named or not isinstance(named[0][1], str):
            raise UsageError(f"{where}: expected {', '.join(NAMED)} to name whom the label is about; not replayed.")
        window = [label.get(key) for key in ("ts_from", "ts_to")]
        verdicts = {key: label[key] for key in (*_WRONG, "success") if label.get(key) is not None}
        if wrong := next((key for key, value in verdicts.items() if not isinstance(value, bool)), None):
            raise UsageError(f"{where}: {wrong}: expected true or false, found {verdicts[wrong]!r}; not replayed.")
        if window != [None, None]:
            if any(isinstance(at, bool) or not isinstance(at, int) for at in window):
                raise UsageError(f"{where}: expected ts_from and ts_to, both in ns, found {window}; not replayed.")
            if all(value for key, value in verdicts.items() if key in _WRONG):
                self._windows[named[0]].append((window[0], window[1]))  # type: ignore[arg-type]
            return
        if not verdicts:
            wanted = ", ".join((*_WRONG, "success"))
            raise UsageError(f"{where}: expected a verdict ({wanted}, or ts_from and ts_to); not replayed.")
        self._judge(named[0], verdicts)

    def _judge(self, name: Name, verdicts: Mapping[str, bool]) -> None:
        if any(verdicts.get(key) for key in _WRONG):
            self._bad.add(name)
        elif verdicts.get("success", True):
            self._good.add(name)
        else:
            self._failed.add(name)


def names_of(scope: Scope) -> list[Name]:
    """The names a scope carries, narrowest first."""
    named = {"task": scope.task, "session": scope.session, "agent": scope.agent, "tenant": scope.tenant}
    if scope.kind is not ScopeKind.HOST:
        named[scope.kind.value] = scope.id
    return [(kind, named[kind]) for kind in NAMED if named[kind]]
