"""The journal: every decision of Argus in one append-only SQLite file, hash-chained and signed. See `chain.py` for
the format.

Durability: a record is acknowledged only when `commit()` returned, which is one transaction in WAL mode with
synchronous=FULL, closed by a signed checkpoint. A commit that fails is never repeated behind the caller's back: it
raises, the records stay in memory and are counted, and the next `commit()` writes them with what came since.

Honesty: the chain shows edits, insertions, swaps and holes. It cannot show that the tail was cut back to an earlier
checkpoint or that the holder of the key rewrote it: for that, keep `Journal.checkpoint` outside this machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from argus.errors import JournalError, RefusedError, UnreachableError, UsageError
from argus.record.chain import (
    ACTOR_BYTES_MAX,
    FORMAT,
    KIND_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SCHEMA,
    Checkpoint,
    genesis,
    record_hash,
)
from argus.record.keys import SigningKey, fsync_directory, open_keys, signature_holds

_INSERT_RECORD = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_CHECKPOINT = "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LAST_CHECKPOINTS = (
    "SELECT n, seq, ts, head, count, epoch, boot, key_id, signature FROM checkpoints ORDER BY n DESC LIMIT 2"
)

_Row = tuple[int, int, str, str, bytes, bytes, bytes]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record as read back: `ts` in wall-clock ns, `hash` in hex."""

    seq: int
    ts: int
    kind: str
    actor: str
    payload: dict[str, Any]
    hash: str


class Journal:
    """Writer of one journal file. Safe to call from several threads; one writer at a time owns the file.

    Parameters
    ----------
    path : the SQLite file, created with its directory (0700) when absent
    keys : directory of the signing key (see `keys.open_keys`), or the key itself
    clock : wall clock, ns
    buffer_limit : records held in memory at most; beyond it `append` raises and keeps what it has
    boot_id : file with the kernel's boot id

    Raises
    ------
    RefusedError : another process writes this journal, or the key may not be used
    JournalError : not a journal, damaged, signed by another key, or its tail does not verify
    UnreachableError : the file or directory cannot be opened
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keys: str | os.PathLike[str] | SigningKey,
        *,
        clock: Callable[[], int] = time.time_ns,
        buffer_limit: int = 65_536,
        boot_id: str | os.PathLike[str] = "/proc/sys/kernel/random/boot_id",
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._buffer_limit = buffer_limit
        self._mutex = threading.RLock()
        self._buffer: list[_Row] = []
        self._db: sqlite3.Connection | None = None
        self._checkpoint: Checkpoint
        self._journal_id: bytes
        self._closed = False
        self._failed_commits = 0
        try:
            self._boot = Path(boot_id).read_text().strip()[:64]
        except OSError:
            self._boot = ""
        self._lock_fd = self._take_lock()
        try:
            self._key = keys if isinstance(keys, SigningKey) else open_keys(keys)
            self._connect()
        except BaseException:
            self._disconnect()
            os.close(self._lock_fd)
            raise
        self._epoch = self._checkpoint.epoch + 1
        self._next_seq: int = self._checkpoint.seq + 1
        self._next_head: bytes = self._checkpoint.head

    # -- writing

    def append(self, kind: str, payload: Mapping[str, Any], *, actor: str = "argus", ts: int | None = None) -> int:
        """Add a record to the open group; durable after the next `commit()`.

        Parameters
        ----------
        kind : what it is, e.g. `flag_set`; 1 to 64 bytes
        payload : msgpack-able map (schema records allowed inside), at most 1 MiB encoded
        actor : who did it; at most 256 bytes
        ts : wall-clock ns; None = now

        Returns
        -------
        the record's seq, counting from 1 without gaps

        Raises
        ------
        UsageError : not encodable or over a limit; nothing appended
        JournalError : closed, or the buffer is full; nothing appended
        """
        try:
            data = msgspec.msgpack.encode(payload)
            kind_bytes, actor_bytes = kind.encode(), actor.encode()
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise UsageError(
                f"journal.append({kind!r}): expected a payload of plain data, found {error}; not appended."
            ) from error
        if not 0 < len(kind_bytes) <= KIND_BYTES_MAX or len(actor_bytes) > ACTOR_BYTES_MAX:
            raise UsageError(
                f"journal.append: expected a kind of 1 to {KIND_BYTES_MAX} bytes and an actor of at most "
                f"{ACTOR_BYTES_MAX}, "
                f"found {len(kind_bytes)} and {len(actor_bytes)}; not appended."
            )
        if not isinstance(payload, Mapping) or len(data) > PAYLOAD_BYTES_MAX:
            raise UsageError(
                f"journal.append({kind!r}): expected a map of at most {PAYLOAD_BYTES_MAX} bytes, found "
                f"{type(payload).__name__} of {len(data)}; not appended."
            )
        when = self._clock() if ts is None else ts
        if not -(2**63) <= when < 2**63:
            raise UsageError(f"journal.append({kind!r}): expected ts in int64 ns, found {when}; not appended.")
        with self._mutex:
            self._check_open()
            if len(self._buffer) >= self._buffer_limit:
                raise JournalError(
                    f"{self.path}: expected room for a record, found {len(self._buffer)} waiting to be committed; "
                    f"not appended. Commit, or find out why commits fail."
                )
            seq, prev = self._next_seq, self._next_head
            digest = record_hash(seq, when, kind_bytes, actor_bytes, data, prev)
            self._buffer.append((seq, when, kind, actor, data, prev, digest))
            self._next_seq, self._next_head = seq + 1, digest
            return seq

    def commit(self) -> Checkpoint:
        """Write the open group and a signed checkpoint in one transaction and wait until it is on disk.

        Returns
        -------
        the checkpoint that now covers every record appended so far (the last one when there was nothing to write)

        Raises
        ------
        JournalError : not written (full disk, I/O error, …); the records stay in memory, `pending` counts them
        """
        with self._mutex:
            self._check_open()
            if self._db is None:
                self._reconnect()
            if not self._buffer:
                return self._checkpoint
            db = self._db
            assert db is not None
            last = self._buffer[-1]
            mark = self._sign(
                Checkpoint(
                    n=self._checkpoint.n + 1,
                    seq=last[0],
                    ts=self._clock(),
                    head=last[6],
                    count=self._checkpoint.count + len(self._buffer),
                    epoch=self._epoch,
                    boot=self._boot,
                    key_id=self._key.key_id,
                ),
                self._checkpoint.signature,
            )
            try:
                db.execute("BEGIN IMMEDIATE")
                db.executemany(_INSERT_RECORD, self._buffer)
                db.execute(_INSERT_CHECKPOINT, msgspec.structs.astuple(mark))
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._failed_commits += 1
                self._after_failure(error)
                raise JournalError(self._commit_message(error)) from error
            self._checkpoint = mark
            self._buffer.clear()
            return mark

    def close(self) -> None:
        """Commit what is open, fold the WAL into the file and give the lock back. Raises JournalError as `commit`
        does.
        """
        with self._mutex:
            if self._closed:
                return
            try:
                if self._buffer:
                    self.commit()
            finally:
                self._closed = True
                self._disconnect()
                os.close(self._lock_fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- looking

    def now(self) -> int:
        """The journal's clock, wall-clock ns."""
        return self._clock()

    @property
    def checkpoint(self) -> Checkpoint:
        """The last durable signed checkpoint: what an outside witness should keep."""
        return self._checkpoint

    @property
    def head(self) -> str:
        """Hash of the last durable record, hex."""
        return self._checkpoint.head.hex()

    @property
    def committed(self) -> int:
        """Seq of the last durable record; 0 = none."""
        return self._checkpoint.seq

    @property
    def pending(self) -> int:
        """Records in memory that are not durable yet."""
        return len(self._buffer)

    @property
    def failed_commits(self) -> int:
        """Commits that raised since this writer opened."""
        return self._failed_commits

    @property
    def key_id(self) -> str:
        return self._key.key_id

    @property
    def public_key_path(self) -> Path:
        """Where the public key is that `verify` needs."""
        return self._key.public_path

    @property
    def journal_id(self) -> str:
        """Random name of this journal, hex; every checkpoint signs it."""
        return self._journal_id.hex()

    # -- inside

    def _check_open(self) -> None:
        if self._closed:
            raise JournalError(f"{self.path}: expected an open journal, found it closed; nothing written.")

    def _take_lock(self) -> int:
        lock = lock_path(self.path)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnreachableError(
                f"{lock}: expected to open the journal's lock, found {error.strerror}; journal not opened. "
                f"Check owner, mode and free space of {self.path.parent}."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise UnreachableError(
                    f"{lock}: expected to lock the journal, found {error.strerror}; not opened."
                ) from error
            raise RefusedError(
                f"{self.path}: expected to be the only writer, found another one (pid {holder}); journal not opened. "
                f"Stop that process, or use another home (ARGUS_HOME)."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def _connect(self) -> None:
        try:
            new = not self.path.exists() or self.path.stat().st_size == 0
            if new:
                # Created here so that the mode does not depend on the umask.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=1.0)
            empty = not self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if not empty:
                self._check_file()
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA trusted_schema = OFF")
            if empty:
                self._create()
            fsync_directory(self.path.parent)
            self._checkpoint = self._check_tail()
        except JournalError:
            self._disconnect()
            raise
        except (sqlite3.Error, struct.error, TypeError, ValueError, AttributeError) as error:
            self._disconnect()
            # Beside SQLite's own complaints: columns whose content is of another type than the journal writes.
            raise JournalError(
                f"{self.path}: expected an Argus journal, found: {error}; not opened, nothing changed. "
                f"Run `argus verify` for what can still be read; move the file away to start a new journal."
            ) from error
        except OSError as error:
            self._disconnect()
            raise UnreachableError(
                f"{self.path}: expected to open the journal, found {error.strerror}; not opened. "
                f"Check owner, mode and free space of {self.path.parent}."
            ) from error

    def _create(self) -> None:
        assert self._db is not None
        journal_id = secrets.token_bytes(16)
        self._journal_id = journal_id
        first = self._sign(
            Checkpoint(
                n=0, seq=0, ts=self._clock(), head=genesis(journal_id), count=0, epoch=0, boot=self._boot,
                key_id=self._key.key_id,
            ),
            b"",
        )  # fmt: skip
        self._db.execute("BEGIN IMMEDIATE")
        for sql in SCHEMA.values():
            self._db.execute(sql)
        self._db.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            [("format", str(FORMAT).encode()), ("id", journal_id), ("created", str(first.ts).encode())],
        )
        self._db.execute(_INSERT_CHECKPOINT, msgspec.structs.astuple(first))
        self._db.execute("COMMIT")

    def _check_file(self) -> None:
        assert self._db is not None
        found = {(str(t), str(n)): str(s) for t, n, s in self._db.execute("SELECT type, name, sql FROM sqlite_master")}
        if ("table", "meta") not in found or ("table", "checkpoints") not in found:
            raise JournalError(
                f"{self.path}: expected an Argus journal, found another SQLite file ({len(found)} objects); not opened."
            )
        if found != SCHEMA:
            odd = sorted({name for (_, name), _ in found.items() ^ SCHEMA.items()})
            raise JournalError(
                f"{self.path}: expected the journal's tables and triggers, found others or altered ones "
                f"({', '.join(odd)}); "
                f"not opened. Keep the file as evidence and move it away to start a new journal."
            )
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if meta.get("format") != str(FORMAT).encode():
            raise JournalError(
                f"{self.path}: expected journal format {FORMAT}, found {meta.get('format')!r}; not opened."
            )
        self._journal_id = bytes(meta["id"])

    def _check_tail(self) -> Checkpoint:
        """The last checkpoint, after checking its signature and the chain of the group that it closed."""
        assert self._db is not None
        marks = [_checkpoint(row) for row in self._db.execute(_LAST_CHECKPOINTS)]
        if not marks:
            raise self._tail_error("a signed checkpoint", "none")
        last = marks[0]
        if last.key_id != self._key.key_id:
            raise self._tail_error(f"the last checkpoint signed by key {self._key.key_id}", f"key {last.key_id}")
        before = marks[1] if len(marks) > 1 else None
        if last.n > 0 and (before is None or before.n != last.n - 1):
            raise self._tail_error(f"checkpoint {last.n - 1} before checkpoint {last.n}", "none")
        message = last.message(self._journal_id, before.signature if before else b"")
        if not signature_holds(self._key.public, last.signature, message):
            raise self._tail_error(f"the signature of checkpoint {last.n} to hold", "a bad one")
        seq = before.seq if before else 0
        head = before.head if before else genesis(self._journal_id)
        rows = self._db.execute(
            "SELECT seq, ts, kind, actor, payload, prev_hash, hash FROM records WHERE seq > ? ORDER BY seq", (seq,)
        )
        for found, ts, kind, actor, payload, prev, digest in rows:
            seq += 1
            if found != seq:
                raise self._tail_error(f"record {seq}", f"record {found}")
            if seq > last.seq:
                raise self._tail_error(f"the last checkpoint to cover record {seq}", f"it ends at record {last.seq}")
            if prev != head or digest != record_hash(seq, ts, kind.encode(), actor.encode(), payload, prev):
                raise self._tail_error(f"record {seq} as it was chained", "another content")
            head = digest
        if seq != last.seq or head != last.head:
            raise self._tail_error(f"records up to {last.seq} under the last checkpoint", f"they end at {seq}")
        return last

    def _tail_error(self, expected: str, found: str) -> JournalError:
        return JournalError(
            f"{self.path}: expected {expected}, found {found}; not opened, nothing changed. "
            f"Run `argus verify`, keep the file as evidence, and move it away to start a new journal."
        )

    def _sign(self, mark: Checkpoint, previous_signature: bytes) -> Checkpoint:
        message = mark.message(self._journal_id, previous_signature)
        return msgspec.structs.replace(mark, signature=self._key.sign(message))

    def _after_failure(self, error: sqlite3.Error) -> None:
        db = self._db
        if db is None:
            return
        with contextlib.suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
        # After an I/O error the kernel may have dropped dirty pages: only a fresh look at the file says what it holds.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code != sqlite3.SQLITE_FULL:
            self._disconnect()

    def _reconnect(self) -> None:
        """Open the file anew after an I/O error; a group whose commit reached the disk after all is not written
        twice.
        """
        known = self._checkpoint
        try:
            self._connect()
        except (JournalError, UnreachableError) as error:
            self._failed_commits += 1
            raise JournalError(
                f"{self.path}: expected to open it again and commit {len(self._buffer)} records, found: "
                f"{error.__cause__ or error}; not durable, all stay in memory. Check the disk and its mount."
            ) from error
        if self._checkpoint.n == known.n and self._checkpoint.signature == known.signature:
            return
        covered = [row for row in self._buffer if row[0] <= self._checkpoint.seq]
        if self._checkpoint.n != known.n + 1 or not covered or covered[-1][6] != self._checkpoint.head:
            found = self._checkpoint
            self._checkpoint = known
            self._disconnect()
            raise self._tail_error(
                f"checkpoint {known.n} or the group after it", f"checkpoint {found.n}, another content"
            )
        del self._buffer[: len(covered)]

    def _commit_message(self, error: sqlite3.Error) -> str:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        advice = (
            "Disk full: free space, then commit again."
            if full
            else "Check the disk and its mount; the file is read anew before the next commit."
        )
        return (
            f"{self.path}: expected to commit {len(self._buffer)} records, found: {error}; not durable, all of "
            "them are kept "
            f"in memory. {advice}"
        )

    def _disconnect(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def lock_path(path: Path) -> Path:
    """The lock file beside a journal: held (flock) by its writer."""
    return path.with_name(path.name + ".lock")


def read(
    path: str | os.PathLike[str], *, kind: str | None = None, after: int = 0, limit: int | None = None
) -> Iterator[Record]:
    """Records in order, without verifying them; also while a collector writes.

    Parameters
    ----------
    kind : only records of this kind
    after : only records with a greater seq
    limit : at most so many

    Raises
    ------
    UnreachableError : there is no such file
    JournalError : not a journal, or damaged
    """
    file = Path(path)
    if not file.is_file():
        raise UnreachableError(f"{file}: expected a journal, found no file; nothing read. Is ARGUS_HOME right?")
    try:
        db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(db):
            rows = db.execute(
                "SELECT seq, ts, kind, actor, payload, hash FROM records WHERE seq > ? AND (? IS NULL OR kind = ?) "
                "ORDER BY seq LIMIT ?",
                (after, kind, kind, -1 if limit is None else limit),
            )
            for seq, ts, name, actor, payload, digest in rows:
                content = msgspec.msgpack.decode(payload)
                yield Record(seq=seq, ts=ts, kind=name, actor=actor, payload=content, hash=digest.hex())
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise JournalError(
            f"{file}: expected an Argus journal, found: {error}; reading ends here. Run `argus verify`."
        ) from error


def _checkpoint(row: tuple[Any, ...]) -> Checkpoint:
    n, seq, ts, head, count, epoch, boot, key, signature = row
    return Checkpoint(
        n=n, seq=seq, ts=ts, head=head, count=count, epoch=epoch, boot=boot, key_id=key, signature=signature
    )
