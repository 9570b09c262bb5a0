"""What a journal is on disk: tables, the hash chain and the signed checkpoints. Writer and verifier share this file
only.

Hash of a record = SHA-256(domain, seq, ts, len(kind), len(actor), len(payload), previous hash, kind, actor,
payload): all lengths are fixed-width, so that no two records share an encoding. A checkpoint signs the journal's
id, its own number, the last seq, the time, the number of records, the head hash, the writer's epoch and boot, and
the previous checkpoint: neither records nor checkpoints can be edited, swapped, inserted or taken from the middle
unseen.

What a chain cannot show without an outside witness: that its *tail* was cut back to an earlier checkpoint, that the
whole file was replaced by an older copy, or that the holder of the private key wrote it anew. Keep a checkpoint
(seq and head) somewhere else and pass it to `verify(..., witness=...)` to see these too.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Final

import msgspec

FORMAT: Final = 1
HASH_BYTES: Final = 32
KIND_BYTES_MAX: Final = 64
ACTOR_BYTES_MAX: Final = 256
PAYLOAD_BYTES_MAX: Final = 1 << 20

_RECORD_DOMAIN: Final = b"argus-journal-record-v1\0"
_GENESIS_DOMAIN: Final = b"argus-journal-genesis-v1\0"
_CHECKPOINT_DOMAIN: Final = b"argus-journal-checkpoint-v1\0"
_RECORD_HEAD: Final = struct.Struct(">qqIIQ")
_CHECKPOINT_HEAD: Final = struct.Struct(">qqqqqII")

_TABLES: Final = {
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "records": (
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL, "
        "payload BLOB NOT NULL, prev_hash BLOB NOT NULL, hash BLOB NOT NULL)"
    ),
    "checkpoints": (
        "CREATE TABLE checkpoints (n INTEGER PRIMARY KEY, seq INTEGER NOT NULL, ts INTEGER NOT NULL, head BLOB "
        "NOT NULL, "
        "count INTEGER NOT NULL, epoch INTEGER NOT NULL, boot TEXT NOT NULL, key_id TEXT NOT NULL, "
        "signature BLOB NOT NULL)"
    ),
}
# The insert triggers also stop INSERT OR REPLACE, which fires no delete trigger.
_NEXT: Final = {
    "records": "NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM records)",
    "checkpoints": "NEW.n IS NOT (SELECT coalesce(max(n), -1) + 1 FROM checkpoints)",
    "meta": "EXISTS (SELECT 1 FROM checkpoints)",
}


def _schema() -> dict[tuple[str, str], str]:
    objects = {("table", name): sql for name, sql in _TABLES.items()}
    for table in _TABLES:
        for verb in ("UPDATE", "DELETE"):
            name = f"{table}_no_{verb.lower()}"
            objects["trigger", name] = (
                f"CREATE TRIGGER {name} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the journal is append-only: {verb} refused'); END"
            )
        name = f"{table}_in_order"
        objects["trigger", name] = (
            f"CREATE TRIGGER {name} BEFORE INSERT ON {table} WHEN {_NEXT[table]} "
            f"BEGIN SELECT RAISE(ABORT, 'the journal is append-only: INSERT out of order refused'); END"
        )
    return objects


SCHEMA: Final = _schema()
"""(type, name) -> SQL of every object in the file, as `sqlite_master` shows it; anything else is a sign of
tampering.
"""


def genesis(journal_id: bytes) -> bytes:
    """The previous hash of record 1."""
    return sha256(_GENESIS_DOMAIN + journal_id).digest()


def record_hash(seq: int, ts: int, kind: bytes, actor: bytes, payload: bytes, prev_hash: bytes) -> bytes:
    """Hash of one record; see the module for the encoding."""
    head = _RECORD_HEAD.pack(seq, ts, len(kind), len(actor), len(payload))
    return sha256(b"".join((_RECORD_DOMAIN, head, prev_hash, kind, actor, payload))).digest()


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A signed statement: after `count` records, the last being `seq`, the chain's head was `head`.

    `n` counts checkpoints from 0 (the empty journal); `epoch` counts the writers that opened the file, `boot` is the
    kernel's boot id; `ts` is in wall-clock ns.
    """

    n: int
    seq: int
    ts: int
    head: bytes
    count: int
    epoch: int
    boot: str
    key_id: str
    signature: bytes = b""

    def message(self, journal_id: bytes, previous_signature: bytes) -> bytes:
        """The bytes that are signed; `previous_signature` is that of checkpoint n - 1 (empty for the first)."""
        boot = self.boot.encode()
        key = self.key_id.encode()
        head = _CHECKPOINT_HEAD.pack(self.n, self.seq, self.ts, self.count, self.epoch, len(boot), len(key))
        before = sha256(previous_signature).digest()
        return b"".join((_CHECKPOINT_DOMAIN, sha256(journal_id).digest(), head, self.head, before, boot, key))
