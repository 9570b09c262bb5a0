"""Signing keys: made once, kept private, refused when others could have read them."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from argus.errors import JournalError, RefusedError, UnreachableError
from argus.record.keys import key_id, load_public, load_publics, open_keys, public_pem, signature_holds


def test_pair_is_created_once_private_and_durable(tmp_path: Path) -> None:
    first = open_keys(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / "journal.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert open_keys(tmp_path / "keys").key_id == first.key_id
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["journal.key", "journal.pub"]
    assert "PRIVATE" not in repr(first)
    assert signature_holds(load_public(first.public_path), first.sign(b"x"), b"x")
    assert not signature_holds(load_public(first.public_path), first.sign(b"x"), b"y")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_private_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    open_keys(tmp_path)
    (tmp_path / "journal.key").chmod(mode)
    with pytest.raises(RefusedError, match=f"expected mode 0600, found {mode:04o}.*chmod 600"):
        open_keys(tmp_path)


def test_link_and_fifo_in_place_of_the_key_are_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "journal.key").symlink_to(victim)
    with pytest.raises(RefusedError, match="symbolic link"):
        open_keys(tmp_path / "a")
    assert not victim.exists()
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / "journal.key", 0o600)
    with pytest.raises(RefusedError, match="plain file"):
        open_keys(tmp_path / "b")


def test_damaged_or_foreign_keys_are_named(tmp_path: Path) -> None:
    open_keys(tmp_path)
    (tmp_path / "journal.pub").write_bytes(public_pem(Ed25519PrivateKey.generate().public_key()))
    with pytest.raises(JournalError, match=r"journal\.pub: expected the public half"):
        open_keys(tmp_path)
    (tmp_path / "journal.key").write_bytes(b"rubbish")
    with pytest.raises(JournalError, match="expected an Ed25519 private key"):
        open_keys(tmp_path)
    with pytest.raises(JournalError, match="expected an Ed25519 public key"):
        load_public(tmp_path / "journal.key")
    with pytest.raises(UnreachableError, match="nothing verified"):
        load_public(tmp_path / "absent.pub")


def test_lost_public_file_is_derived_again(tmp_path: Path) -> None:
    first = open_keys(tmp_path)
    first.public_path.unlink()
    assert open_keys(tmp_path).key_id == first.key_id
    assert key_id(load_public(first.public_path)) == first.key_id


def test_two_that_create_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {key.key_id for key in pool.map(lambda _: open_keys(tmp_path / "keys"), range(16))}
    assert len(ids) == 1
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["journal.key", "journal.pub"]


def test_several_public_keys_by_id(tmp_path: Path) -> None:
    one, two = open_keys(tmp_path, name="one"), open_keys(tmp_path, name="two")
    raw = two.public.public_bytes_raw()
    assert set(load_publics([one.public_path, raw])) == {one.key_id, two.key_id}
    assert set(load_publics(one.public_path)) == {one.key_id}
