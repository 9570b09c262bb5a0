"""Verification: every change of a record is seen and the first one named; a clean journal never raises a false
alarm.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from argus.errors import JournalError, UnreachableError
from argus.record.chain import SCHEMA, Checkpoint, record_hash
from argus.record.journal import Journal
from argus.record.keys import SigningKey, open_keys
from argus.record.verify import VerifyReport, verify

_RECORDS = 12
_GROUP = 3


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A closed journal of 12 records in 4 groups."""
    with Journal(tmp_path / "journal.db", tmp_path / "keys", clock=lambda: 1_700_000_000_000_000_000) as journal:
        for i in range(1, _RECORDS + 1):
            journal.append("sample", {"i": i, "text": f"unmistakable-payload-{i:03d}"})
            if i % _GROUP == 0:
                journal.commit()
    return tmp_path / "journal.db"


def check(path: Path, witness: tuple[int, str] | None = None) -> VerifyReport:
    return verify(path, path.parent / "keys" / "journal.pub", witness=witness)


def tamper(path: Path, change: Callable[[sqlite3.Connection], object]) -> VerifyReport:
    """Do `change` behind the triggers' back, put them back, and verify."""
    db = sqlite3.connect(path, isolation_level=None)
    triggers = {name: sql for (kind, name), sql in SCHEMA.items() if kind == "trigger"}
    for name in triggers:
        db.execute(f"DROP TRIGGER {name}")
    change(db)
    for sql in triggers.values():
        db.execute(sql)
    db.close()
    return check(path)


def rechain(db: sqlite3.Connection, start: int) -> bytes:
    """What a forger without the key would do: recompute every hash from `start` on."""
    (head,) = db.execute("SELECT hash FROM records WHERE seq = ?", (start - 1,)).fetchone()
    for seq, ts, kind, actor, payload in db.execute(
        "SELECT seq, ts, kind, actor, payload FROM records WHERE seq >= ? ORDER BY seq", (start,)
    ).fetchall():
        digest = record_hash(seq, ts, kind.encode(), actor.encode(), payload, head)
        db.execute("UPDATE records SET prev_hash = ?, hash = ? WHERE seq = ?", (head, digest, seq))
        head = digest
    return bytes(head)


def test_clean_journal_is_ok(clean: Path) -> None:
    report = check(clean)
    assert (report.ok, report.records, report.checkpoints, report.first_bad, report.reason) == (True, 12, 5, None, "")
    assert (report.last_seq, report.last_ts) == (12, 1_700_000_000_000_000_000)


@pytest.mark.parametrize(
    "column", ["ts = ts + 1", "kind = 'other'", "actor = 'eve'", "payload = x'80'", "hash = zeroblob(32)"]
)
def test_edited_record_is_named(clean: Path, column: str) -> None:
    report = tamper(clean, lambda db: db.execute(f"UPDATE records SET {column} WHERE seq = 5"))
    assert (report.ok, report.first_bad, report.records) == (False, 5, 4)
    assert "record 5 was edited" in report.reason


@pytest.mark.parametrize("value", ["'text'", "NULL", "1.5", "x'00'"])
@pytest.mark.parametrize("column", ["ts", "kind", "actor", "payload", "prev_hash", "hash"])
def test_columns_of_another_type_are_named(clean: Path, column: str, value: str) -> None:
    def change(db: sqlite3.Connection) -> None:
        db.execute("UPDATE records SET " + column + " = " + value + " WHERE seq = 7")

    if value == "NULL":
        with pytest.raises(sqlite3.IntegrityError):
            tamper(clean, change)
        return
    report = tamper(clean, change)
    assert (report.ok, report.first_bad) == (False, 7), report


def test_text_stored_as_blob_is_seen(clean: Path) -> None:
    report = tamper(clean, lambda db: db.execute("UPDATE records SET payload = CAST(payload AS TEXT) WHERE seq = 6"))
    assert (report.ok, report.first_bad) == (False, 6) and "another type" in report.reason


def test_deleted_swapped_and_inserted_records_are_named(clean: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copytree(tmp_path / "keys", folder / "keys")
        return Path(shutil.copy(clean, folder / "journal.db"))

    report = tamper(copy("delete"), lambda db: db.execute("DELETE FROM records WHERE seq = 5"))
    assert (report.first_bad, report.ok) == (5, False) and "record 5 is missing" in report.reason

    def swap(db: sqlite3.Connection) -> None:
        for old, new in [(5, 100), (6, 5), (100, 6)]:
            db.execute("UPDATE records SET seq = ? WHERE seq = ?", (new, old))

    assert tamper(copy("swap"), swap).first_bad == 5

    def insert(db: sqlite3.Connection) -> None:
        db.execute("UPDATE records SET seq = -seq WHERE seq >= 5")
        db.execute("UPDATE records SET seq = 1 - seq WHERE seq < 0")
        db.execute("INSERT INTO records SELECT 5, ts, kind, actor, payload, prev_hash, hash FROM records WHERE seq = 4")

    assert tamper(copy("insert"), insert).first_bad == 5

    def before_the_first(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO records SELECT 0, ts, kind, actor, payload, prev_hash, hash FROM records WHERE seq = 1")

    assert tamper(copy("zero"), before_the_first).first_bad == 1


def test_forged_chain_without_the_key_fails_on_its_signature(clean: Path) -> None:
    def forge(db: sqlite3.Connection) -> None:
        db.execute("UPDATE records SET actor = 'eve' WHERE seq = 5")
        rechain(db, 5)

    report = tamper(clean, forge)
    assert (report.ok, report.first_bad) == (False, 4)  # the group 4..6 has no signature that vouches for it
    assert "checkpoint 2" in report.reason


def test_edited_last_hash_in_a_group_points_at_the_replaced_record(clean: Path) -> None:
    def replace(db: sqlite3.Connection) -> None:
        ts, kind, payload, prev = db.execute(
            "SELECT ts, kind, payload, prev_hash FROM records WHERE seq = 4"
        ).fetchone()
        db.execute(
            "UPDATE records SET actor = 'eve', hash = ? WHERE seq = 4",
            (record_hash(4, ts, kind.encode(), b"eve", payload, prev),),
        )

    report = tamper(clean, replace)
    assert (report.first_bad, report.records, report.head) == (4, 3, "")
    assert "chain is broken" in report.reason


def resign(path: Path, key: SigningKey, claim: str) -> VerifyReport:
    def change(db: sqlite3.Connection) -> None:
        journal_id = dict(db.execute("SELECT key, value FROM meta"))["id"]
        before = b""
        rows = db.execute("SELECT n, seq, ts, head, count, epoch, boot, key_id, signature FROM checkpoints").fetchall()
        for n, seq, ts, head, count, epoch, boot, *_ in rows:
            mark = Checkpoint(n=n, seq=seq, ts=ts, head=head, count=count, epoch=epoch, boot=boot, key_id=claim)
            before = key.sign(mark.message(journal_id, before))
            db.execute("UPDATE checkpoints SET key_id = ?, signature = ? WHERE n = ?", (claim, before, n))

    return tamper(path, change)


def test_resigning_with_another_key_is_seen(clean: Path, tmp_path: Path) -> None:
    eve = open_keys(tmp_path / "eve")
    report = resign(clean, eve, eve.key_id)
    assert (report.ok, report.first_bad) == (False, 1) and f"signed by key '{eve.key_id}'" in report.reason
    report = resign(clean, eve, open_keys(tmp_path / "keys").key_id)
    assert (report.ok, report.first_bad) == (False, 1) and "signature of checkpoint 0 does not hold" in report.reason


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("DELETE FROM checkpoints WHERE n = 2", "checkpoint 2 is missing"),
        ("DELETE FROM checkpoints", "no signed checkpoint"),
        ("DELETE FROM checkpoints WHERE n = 4", "not covered by any signed checkpoint"),
        ("UPDATE checkpoints SET ts = ts + 1 WHERE n = 3", "signature of checkpoint 3"),
        ("UPDATE checkpoints SET count = 0 WHERE n = 3", "signature of checkpoint 3"),
        ("UPDATE checkpoints SET signature = zeroblob(64) WHERE n = 0", "signature of checkpoint 0"),
        ("UPDATE checkpoints SET seq = seq - 1 WHERE n = 3", "signature of checkpoint 3"),
        ("UPDATE checkpoints SET boot = 7 WHERE n = 3", "signature of checkpoint 3"),
        ("UPDATE meta SET value = zeroblob(16) WHERE key = 'id'", ""),
        ("DELETE FROM meta WHERE key = 'id'", "description was edited"),
        ("INSERT INTO meta VALUES ('x', x'00')", "description was edited"),
    ],
)
def test_edited_checkpoints_and_description_are_seen(clean: Path, sql: str, reason: str) -> None:
    report = tamper(clean, lambda db: db.execute(sql))
    assert not report.ok and reason in report.reason, report


def test_cut_tail_is_seen_within_a_group_and_by_a_witness_only_at_its_end(clean: Path) -> None:
    """A tail cut back to an earlier checkpoint is a valid, shorter journal: only a witness can tell."""
    full = check(clean)
    report = tamper(clean, lambda db: db.execute("DELETE FROM records WHERE seq > 10"))
    assert (report.ok, report.first_bad) == (False, 11) and "12 records, 10 are left" in report.reason
    report = tamper(
        clean,
        lambda db: (
            db.execute("DELETE FROM records WHERE seq > 9"),
            db.execute("DELETE FROM checkpoints WHERE n > 3"),
        ),
    )
    assert (report.ok, report.records) == (True, 9)
    cut = check(clean, witness=(full.last_seq, full.head))
    assert (cut.ok, cut.first_bad) == (False, 10) and "tail was cut" in cut.reason
    assert check(clean, witness=(9, report.head)).ok
    other = check(clean, witness=(9, "00" * 32))
    assert not other.ok and "rewritten" in other.reason


def test_altered_tables_and_triggers_are_seen(clean: Path) -> None:
    db = sqlite3.connect(clean)
    db.execute("DROP TRIGGER records_no_delete")
    db.close()
    report = check(clean)
    assert not report.ok and "records_no_delete" in report.reason


def test_every_flipped_byte_of_a_record_is_flagged_and_no_flip_passes_as_another_content(clean: Path) -> None:
    """Flip every byte of the pages that hold records, a sample of the others: content changed must mean not ok."""
    original = clean.read_bytes()
    page = 4096
    marked = {offset // page for i in range(1, _RECORDS + 1) for offset in [original.find(f"payload-{i:03d}".encode())]}
    assert marked and -1 not in marked

    def content() -> list[tuple[object, ...]] | None:
        db = sqlite3.connect(f"file:{clean}?immutable=1", uri=True)
        db.text_factory = bytes
        try:
            return db.execute("SELECT * FROM records ORDER BY seq").fetchall()
        except sqlite3.Error:
            return None
        finally:
            db.close()

    truth = content()
    flagged = unaffected = 0
    for offset in range(len(original)):
        in_records = offset // page in marked
        if not in_records and offset % 37 and offset > 100:
            continue
        if in_records and original[offset] == 0 and offset % 23:
            continue  # free space within the page, sampled
        damaged = bytearray(original)
        damaged[offset] ^= 0xFF
        clean.write_bytes(damaged)
        report = check(clean)
        if report.ok:
            assert content() == truth, f"flip at {offset} changed a record and was not flagged"
            unaffected += 1
        else:
            assert report.reason
            flagged += 1
    clean.write_bytes(original)
    assert check(clean).ok
    start = original.find(b"unmistakable-payload-001")
    assert flagged > 1000 and start > 0


@pytest.mark.parametrize("keep", [0, 1, 50, 100, 511, 4096, 5000, 8192, 12288, -1])
def test_truncated_file_is_not_ok(clean: Path, keep: int) -> None:
    data = clean.read_bytes()
    clean.write_bytes(data[:keep])
    report = check(clean)
    assert not report.ok and report.reason


def test_a_cut_that_takes_only_zeros_is_told(clean: Path) -> None:
    clean.write_bytes(clean.read_bytes() + bytes(4096))
    assert check(clean).ok
    clean.write_bytes(clean.read_bytes()[:-1])
    assert "the file was cut" in check(clean).reason


def test_what_is_no_journal_is_said(tmp_path: Path, clean: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"x" * 10_000)
    report = verify(rubbish, tmp_path / "keys" / "journal.pub")
    assert not report.ok and "file is not a database" in report.reason
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE records (a)")
    db.close()
    assert "not an Argus journal" in verify(other, tmp_path / "keys" / "journal.pub").reason
    with pytest.raises(UnreachableError, match="nothing verified"):
        verify(tmp_path / "absent.db", tmp_path / "keys" / "journal.pub")
    with pytest.raises(JournalError, match="public key"):
        verify(clean, b"not a key")


def test_beside_a_live_writer_and_after_its_death(tmp_path: Path) -> None:
    """Verification reads a snapshot while another process writes, and a copy of the WAL that a dead one left."""
    path, keys = tmp_path / "journal.db", tmp_path / "keys"
    code = (
        "import sys; from argus.record.journal import Journal\n"
        "j = Journal(sys.argv[1], sys.argv[2])\n"
        "for i in range(50): j.append('a', {'i': i}); j.commit()\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for i in range(300): j.append('b', {'i': i}); j.commit()\n"
        "print('done', flush=True); sys.stdin.readline()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(keys)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert check(path).records == 50
        child.stdin.write("\n")
        child.stdin.flush()
        reports = [check(path) for _ in range(10)]
        assert all(report.ok for report in reports), reports
        assert child.stdout.readline() == "done\n"
        child.kill()
    wal = path.with_name("journal.db-wal")
    assert wal.stat().st_size > 0
    before = (path.read_bytes(), wal.read_bytes(), sorted(p.name for p in tmp_path.iterdir()))
    report = check(path)
    assert (report.ok, report.records) == (True, 350)
    assert before == (path.read_bytes(), wal.read_bytes(), sorted(p.name for p in tmp_path.iterdir()))


def test_while_this_process_writes(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db", tmp_path / "keys") as journal:
        for i in range(5):
            journal.append("a", {"i": i})
            journal.commit()
            assert check(tmp_path / "journal.db").records == i + 1


def test_no_false_alarm_on_clean_journals(tmp_path: Path) -> None:
    keys = open_keys(tmp_path / "keys")
    for i in range(40):
        path = tmp_path / f"{i}.db"
        with Journal(path, keys) as journal:
            for j in range(i):
                journal.append(f"kind{j % 3}", {"j": j, "blob": bytes([j % 256]) * (j * 97 % 9000)})
                if j % (1 + i % 5) == 0:
                    journal.commit()
        report = verify(path, keys.public_path)
        assert (report.ok, report.records) == (True, i), report
