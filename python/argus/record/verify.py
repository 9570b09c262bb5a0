"""Verification of a journal, offline, from the file and the public key alone.

Says whether every record is the one that was written, and names the first that is not. It opens the file read-only;
a WAL that a crashed writer left is read through a copy, so that the evidence itself is never touched; beside a
running collector it reads one consistent snapshot.

What it cannot show without a witness: a tail cut back to an earlier checkpoint, an older copy put in place of the
file, a rewrite by the holder of the private key, or flipped bytes in the WAL of a crashed writer (they read as a
shorter tail). Pass `witness=(seq, head)`, kept elsewhere from `Journal.checkpoint` or an earlier report, to see
these too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from argus.errors import UnreachableError
from argus.record.chain import FORMAT, HASH_BYTES, SCHEMA, Checkpoint, genesis, record_hash
from argus.record.journal import lock_path
from argus.record.keys import PublicKeySource, load_publics, signature_holds

_BATCH = 4096
_COLUMN_TYPES = (int, bytearray, bytearray, bytes, bytes, bytes)


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found.

    `records` and `checkpoints` count those that hold, up to the first that does not; `first_bad` is the seq of that
    record (None = nothing bad, or not about one record), `reason` says why ("" = ok); `head` is the hash (hex) of
    the last good record ("" = its place in the chain is not known), `last_seq` and `last_ts` (wall-clock ns) its
    place and time; `keys` are the ids of the keys that signed.
    """

    ok: bool
    records: int
    checkpoints: int
    first_bad: int | None
    reason: str
    head: str
    last_seq: int = 0
    last_ts: int = 0
    keys: list[str] = []


class _BadError(Exception):
    def __init__(self, reason: str, seq: int | None = None) -> None:
        super().__init__(reason)
        self.seq = seq


def verify(
    path: str | os.PathLike[str],
    public_key: PublicKeySource | Iterable[PublicKeySource],
    *,
    witness: tuple[int, str] | None = None,
) -> VerifyReport:
    """Check every record, the chain and every signature.

    Parameters
    ----------
    path : the journal file
    public_key : path of the PEM file, PEM or raw bytes, a key, or several of these
    witness : (seq, head hash in hex) of a checkpoint kept elsewhere: the journal must still contain it

    Raises
    ------
    UnreachableError : the file or the key cannot be read
    JournalError : the public key is none
    """
    file = Path(path)
    keys = load_publics(public_key)
    if not file.is_file() or not os.access(file, os.R_OK):
        raise UnreachableError(
            f"{file}: expected a journal, found no readable file; nothing verified. Is ARGUS_HOME right?"
        )
    for _ in range(3):
        live = _has_writer(file)
        before = _fingerprint(file)
        report = _verify_once(file, keys, witness, live=live)
        # A writer that started, or finished, while we read an unlocked file explains a fault that is none.
        if report.ok or (live == _has_writer(file) and (live or before == _fingerprint(file))):
            return report
    return report


def _verify_once(
    file: Path, keys: dict[str, Ed25519PublicKey], witness: tuple[int, str] | None, *, live: bool
) -> VerifyReport:
    state = _Progress()
    first_bad: int | None = None
    reason = ""
    try:
        with _opened(file, live=live) as db:
            db.text_factory = bytearray  # tells TEXT from BLOB (bytes), and never fails on bad UTF-8
            db.execute("BEGIN")
            _check_schema(db)
            if not live:
                _check_size(db, file)
            _walk(db, keys, state, witness)
    except _BadError as bad:
        first_bad, reason = bad.seq, str(bad)
    except sqlite3.Error as error:
        first_bad = state.seq + 1 if state.started else None
        reason = f"not readable as SQLite: {error}"
    except (struct.error, TypeError, ValueError, AttributeError, OverflowError) as error:
        first_bad = state.seq + 1
        reason = f"holds a value that the journal never writes: {error}"
    good = state.seq if first_bad is None else min(state.seq, first_bad - 1)
    return VerifyReport(
        ok=not reason,
        records=good,
        checkpoints=state.checkpoints,
        first_bad=first_bad,
        reason=reason,
        head=state.head.hex() if good == state.seq else "",
        last_seq=good,
        last_ts=state.ts,
        keys=sorted(state.keys),
    )


class _Progress:
    """How far the walk got: everything up to `seq` holds."""

    def __init__(self) -> None:
        self.started = False
        self.seq = 0
        self.ts = 0
        self.head = b""
        self.checkpoints = 0
        self.signature = b""
        self.signed = 0
        self.keys: set[str] = set()


def _walk(
    db: sqlite3.Connection, keys: dict[str, Ed25519PublicKey], state: _Progress, witness: tuple[int, str] | None
) -> None:
    meta = {bytes(key): value for key, value in db.execute("SELECT key, value FROM meta")}
    if meta.get(b"format") != str(FORMAT).encode():
        raise _BadError(f"journal format {meta.get(b'format')!r}, this Argus verifies format {FORMAT}")
    journal_id = meta.get(b"id")
    if type(journal_id) is not bytes or set(meta) != {b"format", b"id", b"created"}:
        raise _BadError("the journal's own description was edited")
    state.head = genesis(journal_id)
    state.started = True
    marks = _checkpoints(db)
    mark = next(marks, None)
    if mark is None:
        raise _BadError("no signed checkpoint at all", 1)
    witnessed = witness is None
    if witness is not None and witness[0] == 0:
        witnessed = state.head.hex() == witness[1]
    while mark is not None and mark.seq == 0:
        _check_mark(mark, keys, state, journal_id)
        mark = next(marks, None)
    rows = db.execute("SELECT seq, ts, kind, actor, payload, prev_hash, hash FROM records ORDER BY seq")
    while batch := rows.fetchmany(_BATCH):
        for seq, ts, kind, actor, payload, prev, digest in batch:
            expected = state.seq + 1
            if seq != expected:
                raise _BadError(f"record {expected} is missing (the next one found is {seq})", expected)
            if mark is None:
                raise _BadError(f"record {seq} and what follows is not covered by any signed checkpoint", seq)
            if record_hash(seq, ts, kind, actor, payload, prev) != digest:
                raise _BadError(f"record {seq} was edited: its content does not give its hash", seq)
            if prev != state.head:
                # The record itself is whole, so it is the one before that is no longer what was chained.
                raise _BadError(
                    f"the chain is broken: record {seq} continues another record than the one before it",
                    max(seq - 1, 1),
                )
            _same_types(seq, ts, kind, actor, payload, prev, digest)
            if seq == mark.seq:
                # The signature decides before the record counts: a chain rewritten up to here fails on it.
                _check_mark(mark, keys, state, journal_id, head=digest)
                mark = next(marks, None)
            state.seq, state.ts, state.head = seq, ts, digest
            if not witnessed and witness is not None and seq == witness[0]:
                if digest.hex() != witness[1]:
                    raise _BadError(f"record {seq} is not the one that the witness saw: the journal was rewritten", seq)
                witnessed = True
    if mark is not None:
        raise _BadError(
            f"record {state.seq + 1} is missing: checkpoint {mark.n} signed {mark.count} records, {state.seq} are left",
            state.seq + 1,
        )
    if not witnessed and witness is not None:
        raise _BadError(
            f"the tail was cut: the witness saw record {witness[0]}, the last one here is {state.seq}", state.seq + 1
        )


def _check_mark(
    mark: Checkpoint, keys: dict[str, Ed25519PublicKey], state: _Progress, journal_id: bytes, head: bytes | None = None
) -> None:
    """One checkpoint against the records and the checkpoint before it. A bad signature vouches for no record since
    the last.
    """
    if mark.n != state.checkpoints:
        raise _BadError(f"checkpoint {state.checkpoints} is missing (the next one found is {mark.n})", state.seq + 1)
    key = keys.get(mark.key_id)
    if key is None:
        raise _BadError(
            f"checkpoint {mark.n} is signed by key {mark.key_id[:64]!r}, not by {' or '.join(sorted(keys))}",
            state.signed + 1,
        )
    if not signature_holds(key, mark.signature, mark.message(journal_id, state.signature)):
        raise _BadError(f"the signature of checkpoint {mark.n} does not hold", state.signed + 1)
    if mark.count != mark.seq or mark.head != (state.head if head is None else head):
        raise _BadError(f"checkpoint {mark.n} was signed over another record {mark.seq}", state.signed + 1)
    state.checkpoints += 1
    state.signature = mark.signature
    state.signed = mark.seq
    state.keys.add(mark.key_id)


def _same_types(seq: int, *columns: object) -> None:
    if tuple(map(type, columns)) != _COLUMN_TYPES:
        raise _BadError(f"record {seq} was edited: a column has another type", seq)


def _checkpoints(db: sqlite3.Connection) -> Iterator[Checkpoint]:
    rows = db.execute("SELECT n, seq, ts, head, count, epoch, boot, key_id, signature FROM checkpoints ORDER BY n")
    last = -1
    for n, seq, ts, head, count, epoch, boot, key, signature in rows:
        if seq < last or len(head) != HASH_BYTES:
            raise _BadError(f"checkpoint {n} is out of order", max(seq, 1))
        last = seq
        yield Checkpoint(
            n=n, seq=seq, ts=ts, head=head, count=count, epoch=epoch, boot=boot.decode(), key_id=key.decode(),
            signature=signature,
        )  # fmt: skip


def _check_schema(db: sqlite3.Connection) -> None:
    found = {
        (t.decode(), n.decode("utf-8", "replace")): (s or b"").decode("utf-8", "replace")
        for t, n, s in db.execute("SELECT type, name, sql FROM sqlite_master")
    }
    if ("table", "records") not in found or ("table", "checkpoints") not in found:
        raise _BadError("not an Argus journal: its tables are not there")
    if found != SCHEMA:
        odd = sorted({name for (_, name), _ in found.items() ^ SCHEMA.items()})
        raise _BadError(f"tables or triggers that keep the journal append-only were altered: {', '.join(odd)[:200]}")


def _check_size(db: sqlite3.Connection, file: Path) -> None:
    """SQLite reads zeros for what is cut off within the last page, and may never miss it."""
    page = db.execute("PRAGMA page_size").fetchone()[0]
    if file.stat().st_size % page:
        raise _BadError(f"ends within a page of {page} bytes: the file was cut")


@contextlib.contextmanager
def _opened(file: Path, *, live: bool) -> Iterator[sqlite3.Connection]:
    """A read-only connection: a snapshot beside a writer, the bare file at rest, a copy when a WAL was left behind."""
    wal = file.with_name(file.name + "-wal")
    with contextlib.ExitStack() as stack:
        if live:
            uri = f"{file.absolute().as_uri()}?mode=ro"
        elif wal.is_file() and wal.stat().st_size > 0:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="argus-verify-")))
            shutil.copyfile(file, folder / "journal.db")
            shutil.copyfile(wal, folder / "journal.db-wal")
            uri = (folder / "journal.db").as_uri()
        else:
            uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        db = sqlite3.connect(uri, uri=True, isolation_level=None)
        stack.callback(db.close)
        yield db


def _has_writer(file: Path) -> bool:
    try:
        descriptor = os.open(lock_path(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _fingerprint(file: Path) -> tuple[int, int, int]:
    about = file.stat()
    wal = file.with_name(file.name + "-wal")
    return about.st_mtime_ns, about.st_size, wal.stat().st_size if wal.exists() else -1
