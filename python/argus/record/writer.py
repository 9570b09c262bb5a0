"""The writer thread of the journal: a bounded queue in front of `Journal`, one group commit every 25 ms.

Callers never wait for the disk. When the queue is full, samples are shed before decisions, and what was shed is
counted and written into the journal itself (`journal_shed`) with the next group. A commit that fails is reported
through `on_error` each time and attempted again after a pause; what waits stays in memory, in order, and nothing of
it is acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import msgspec

from argus.errors import ArgusError, JournalError
from argus.record.journal import Journal

_GROUP_MAX = 8192
_RETRY_S = 1.0


class Durable(msgspec.Struct, frozen=True):
    """A record that is on disk: its seq, and when it was known to be (wall-clock ns)."""

    seq: int
    time_ns: int


class WriterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since start; `accepted` = `written` + `rejected` + `queued` + `shed_after_accepting`.

    `shed_samples` and `shed_decisions` count what was never written for lack of room; `rejected` what could not be
    encoded; `lag_ns_max` is the longest time from put to durable; `error` is the failure that commits meet now (""
    = none).
    """

    accepted: int
    written: int
    queued: int
    rejected: int
    shed_samples: int
    shed_decisions: int
    shed_after_accepting: int
    commits: int
    failed_commits: int
    lag_ns_max: int
    error: str


class _Item:
    __slots__ = ("actor", "kind", "number", "on_durable", "payload", "put_ns", "seq", "ts")

    def __init__(
        self, number: int, kind: str, payload: Mapping[str, Any], actor: str, ts: int | None,
        on_durable: Callable[[Durable | None], None] | None,
    ) -> None:  # fmt: skip
        self.number = number
        self.kind = kind
        self.payload = payload
        self.actor = actor
        self.ts = ts
        self.on_durable = on_durable
        self.put_ns = time.monotonic_ns()
        self.seq = 0


class JournalWriter:
    """Owns a thread that appends to `journal` and commits in groups. `put` and `submit` are safe from any thread.

    Parameters
    ----------
    journal : written by this thread alone from now on; closing the writer does not close it
    interval_s : time between group commits
    queue_limit : records waiting at most
    on_error : called in the writer thread with each JournalError of a commit or append

    Records keep the order of their arrival, samples and decisions alike. Payloads must not be changed after `put`.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        interval_s: float = 0.025,
        queue_limit: int = 32_768,
        on_error: Callable[[ArgusError], None] | None = None,
    ) -> None:
        self._journal = journal
        self._interval_s = interval_s
        self._limit = queue_limit
        self._on_error = on_error
        self._condition = threading.Condition()
        self._decisions: deque[_Item] = deque()
        self._samples: deque[_Item] = deque()
        self._group: list[_Item] = []
        self._number = 0
        self._settled = 0  # every item up to this number is durable, rejected or shed
        self._urgent = False
        self._stopping = False
        self._shed = {"samples": 0, "decisions": 0}
        self._shed_told = {"samples": 0, "decisions": 0}
        self._shed_after = self._accepted = self._written = self._rejected = self._commits = self._failed = (
            self._lag
        ) = 0
        self._error = ""
        self._thread = threading.Thread(target=self._run, name="argus-journal", daemon=True)
        self._thread.start()

    def put(
        self,
        kind: str,
        payload: Mapping[str, Any],
        *,
        actor: str = "argus",
        ts: int | None = None,
        decision: bool = True,
        urgent: bool = False,
        on_durable: Callable[[Durable | None], None] | None = None,
    ) -> bool:
        """Queue a record; never waits for the disk.

        Parameters
        ----------
        decision : False = a sample, shed first when there is no room
        urgent : commit at once, not with the next group (before a flag is acknowledged)
        on_durable : called once, in the writer thread with the record's place, or with None when it was rejected, or
            (in the thread that needed the room) when it was shed

        Returns
        -------
        False : shed at once (counted), nothing queued
        """
        when = self._journal.now() if ts is None else ts
        with self._condition:
            if self._stopping or not self._make_room(decision):
                self._shed["decisions" if decision else "samples"] += 1
                return False
            self._number += 1
            self._accepted += 1
            item = _Item(self._number, kind, payload, actor, when, on_durable)
            (self._decisions if decision else self._samples).append(item)
            if urgent:
                self._urgent = True
                self._condition.notify_all()
        return True

    def submit(
        self, kind: str, payload: Mapping[str, Any], *, actor: str = "argus", ts: int | None = None, urgent: bool = True
    ) -> Future[Durable]:
        """Queue a decision and return a future of its becoming durable; the future fails with JournalError when
        shed.
        """
        future: Future[Durable] = Future()

        def done(durable: Durable | None) -> None:
            if durable is None:
                future.set_exception(
                    JournalError(f"journal: record {kind!r} was shed or could not be encoded; not written.")
                )
            else:
                future.set_result(durable)

        if not self.put(kind, payload, actor=actor, ts=ts, urgent=urgent, on_durable=done):
            done(None)
        return future

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything put so far is durable.

        Returns
        -------
        False : not within `timeout` seconds

        Raises
        ------
        JournalError : commits fail now; what waits stays in memory
        """
        deadline = time.monotonic() + timeout
        with self._condition:
            target = self._number
            self._urgent = True
            self._condition.notify_all()
            failed = self._failed
            while self._settled < target:
                if self._failed > failed:
                    raise JournalError(
                        self._error or f"{self._journal.path}: a commit failed; {self._queued()} records wait."
                    )
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._condition.wait(left)
        return True

    def close(self, timeout: float = 5.0) -> int:
        """Stop the thread after a last attempt to write everything.

        Returns
        -------
        records that are not durable (0 = all are)
        """
        with self._condition:
            self._stopping = True
            self._urgent = True
            self._condition.notify_all()
        self._thread.join(timeout)
        return self._queued()

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> WriterStatistics:
        """Counts since start."""
        with self._condition:
            return WriterStatistics(
                accepted=self._accepted,
                written=self._written,
                queued=self._queued(),
                rejected=self._rejected,
                shed_samples=self._shed["samples"],
                shed_decisions=self._shed["decisions"],
                shed_after_accepting=self._shed_after,
                commits=self._commits,
                failed_commits=self._failed,
                lag_ns_max=self._lag,
                error=self._error,
            )

    # -- inside

    def _queued(self) -> int:
        return len(self._decisions) + len(self._samples) + len(self._group)

    def _make_room(self, decision: bool) -> bool:
        """Room for one more; a decision pushes out the oldest waiting sample. Called with the condition held."""
        if self._queued() < self._limit:
            return True
        if not decision or not self._samples:
            return False
        item = self._samples.popleft()
        self._shed["samples"] += 1
        self._shed_after += 1
        if item.on_durable is not None:
            item.on_durable(None)
        return True

    def _run(self) -> None:
        next_commit = time.monotonic() + self._interval_s
        while True:
            with self._condition:
                while not self._urgent and (left := next_commit - time.monotonic()) > 0:
                    self._condition.wait(left)
                self._urgent = False
                stopping = self._stopping
                if not self._group:
                    self._take_group()
            written = self._write_group()
            with self._condition:
                idle = not (self._decisions or self._samples or self._group)
                if stopping and (idle or not written):
                    self._condition.notify_all()
                    return
                more = bool(self._decisions or self._samples) and written and stopping
                self._urgent = self._urgent or more
            next_commit = time.monotonic() + (self._interval_s if written else _RETRY_S)

    def _take_group(self) -> None:
        """Move what waits into the group, in order of arrival. Called with the condition held."""
        decisions, samples = self._decisions, self._samples
        while (decisions or samples) and len(self._group) < _GROUP_MAX:
            first = samples if not decisions or (samples and samples[0].number < decisions[0].number) else decisions
            self._group.append(first.popleft())

    def _write_group(self) -> bool:
        """Append what is new in the group and commit; False when the commit failed (the group then stays as it is)."""
        group = self._group
        journal = self._journal
        rejected: list[_Item] = []
        if not group and self._shed == self._shed_told:
            return True
        shed = dict(self._shed)
        try:
            if shed != self._shed_told:
                lost = {name: count - self._shed_told[name] for name, count in shed.items()}
                journal.append("journal_shed", lost)
                self._shed_told = shed
            for item in group:
                if item.seq:
                    continue
                try:
                    item.seq = journal.append(item.kind, item.payload, actor=item.actor, ts=item.ts)
                except JournalError:
                    raise
                except ArgusError as error:
                    item.seq = -1
                    rejected.append(item)
                    self._tell(error)
            journal.commit()
        except ArgusError as error:
            with self._condition:
                self._failed += 1
                self._rejected += len(rejected)
                self._error = str(error)
                self._condition.notify_all()
            self._tell(error)
            return False
        self._settle(group, len(rejected))
        return True

    def _settle(self, group: list[_Item], rejected: int) -> None:
        now, mono = time.time_ns(), time.monotonic_ns()
        with self._condition:
            self._group = []
            self._commits += 1
            self._error = ""
            self._rejected += rejected
            self._written += sum(item.seq > 0 for item in group)
            if group:
                self._lag = max(self._lag, mono - min(item.put_ns for item in group))
        for item in group:
            if item.on_durable is not None:
                try:
                    item.on_durable(Durable(item.seq, now) if item.seq > 0 else None)
                except Exception as error:
                    self._tell(
                        JournalError(f"journal: on_durable of {item.kind!r} raised {error!r}; the record is written.")
                    )
        with self._condition:
            waiting = [queue[0].number for queue in (self._decisions, self._samples) if queue]
            self._settled = min(waiting) - 1 if waiting else self._number
            self._condition.notify_all()

    def _tell(self, error: ArgusError) -> None:
        if self._on_error is not None:
            self._on_error(error)
