"""Signing keys of the journal: Ed25519, one pair per name, created on first use.

`keys/<name>.key` is the private key (PKCS #8 PEM, mode 0600), `keys/<name>.pub` the public one (PEM), which is all that
`argus verify` needs. Whoever can read the private key can rewrite the journal from the first record on: keep it
away from the agents' user, and hand checkpoints to a witness that this key cannot reach.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from argus.errors import JournalError, RefusedError, UnreachableError

_KEY_BYTES_MAX = 16_384

PublicKeySource = str | os.PathLike[str] | bytes | Ed25519PublicKey
"""A public key: a path to a PEM file, PEM bytes, 32 raw bytes, or the key itself."""


def key_id(public: Ed25519PublicKey) -> str:
    """The short name of a public key: the first 16 hex digits of the SHA-256 of its 32 raw bytes."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return sha256(raw).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its public half. Never shows the private bytes in its representation."""

    private: Ed25519PrivateKey
    public: Ed25519PublicKey
    key_id: str
    public_path: Path

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self.private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self.key_id!r}, public_path={str(self.public_path)!r})"


def open_keys(directory: str | os.PathLike[str], *, name: str = "journal") -> SigningKey:
    """Load `<directory>/<name>.key`, creating the pair when there is none.

    Raises
    ------
    RefusedError : the private key can be read by others, is a link, or belongs to another user
    JournalError : the file does not hold an Ed25519 key, or the public file is of another key
    UnreachableError : the directory cannot be written or read
    """
    folder = Path(directory)
    private_path = folder / f"{name}.key"
    public_path = folder / f"{name}.pub"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # lexists: a dangling link must be refused by the loader, never followed or replaced here.
        if not os.path.lexists(private_path):
            _create(private_path, _private_pem(Ed25519PrivateKey.generate()), 0o600)
        private = _load_private(private_path)
        public = private.public_key()
        if not os.path.lexists(public_path):
            _create(public_path, public_pem(public), 0o644)
    except OSError as error:
        raise UnreachableError(
            f"{private_path}: expected to read or create the signing key, found {error.strerror}; journal not opened. "
            f"Check owner and mode of {folder} and free space."
        ) from error
    found = key_id(load_public(public_path))
    if found != key_id(public):
        raise JournalError(
            f"{public_path}: expected the public half of {private_path} ({key_id(public)}), found key {found}; "
            f"journal not opened. Put the matching pair back, or move both files away to start with a new key."
        )
    return SigningKey(private, public, key_id(public), public_path)


def public_pem(public: Ed25519PublicKey) -> bytes:
    """The public key as PEM (SubjectPublicKeyInfo)."""
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_public(source: PublicKeySource) -> Ed25519PublicKey:
    """A public key from a PEM file, PEM bytes, or 32 raw bytes.

    Raises
    ------
    UnreachableError : the file cannot be read
    JournalError : not an Ed25519 public key
    """
    if isinstance(source, Ed25519PublicKey):
        return source
    if isinstance(source, bytes):
        where, data = "public key", source
    else:
        where = os.fspath(source)
        try:
            with Path(where).open("rb") as file:
                data = file.read(_KEY_BYTES_MAX)
        except OSError as error:
            raise UnreachableError(
                f"{where}: expected a public key (PEM), found {error.strerror}; nothing verified. "
                f"Name the key with its path; the collector keeps it in keys/journal.pub."
            ) from error
    try:
        if len(data) == 32:
            return Ed25519PublicKey.from_public_bytes(data)
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise JournalError(
            f"{where}: expected an Ed25519 public key as PEM, found {error}; nothing verified."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise JournalError(f"{where}: expected an Ed25519 public key, found {type(key).__name__}; nothing verified.")
    return key


def load_publics(source: PublicKeySource | Iterable[PublicKeySource]) -> dict[str, Ed25519PublicKey]:
    """One or several public keys by key id."""
    if isinstance(source, (str, bytes, os.PathLike, Ed25519PublicKey)):
        source = [source]
    keys = [load_public(one) for one in source]
    return {key_id(key): key for key in keys}


def signature_holds(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is that of `message` by the owner of `public`."""
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _private_pem(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _create(path: Path, data: bytes, mode: int) -> None:
    """Write `path` whole and durable, or leave what another process put there first."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fsync_directory(folder: Path) -> None:
    """Make names created in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load_private(path: Path) -> Ed25519PrivateKey:
    if path.is_symlink():
        raise RefusedError(
            f"{path}: expected a plain file, found a symbolic link; key not used. Put the key itself there."
        )
    # O_NONBLOCK: a FIFO in the key's place must not hang the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise RefusedError(f"{path}: expected a plain file, found something else; key not used.")
        if about.st_mode & 0o077:
            raise RefusedError(
                f"{path}: expected mode 0600, found {stat.S_IMODE(about.st_mode):04o}; key not used. "
                f"If nobody else can have read it: chmod 600 {path}; else move it away and a new one is made."
            )
        if about.st_uid not in (os.geteuid(), 0):
            raise RefusedError(
                f"{path}: expected owner uid {os.geteuid()}, found uid {about.st_uid}; key not used. "
                f"Run as that user, or chown the keys directory."
            )
        data = file.read(_KEY_BYTES_MAX)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise JournalError(
            f"{path}: expected an Ed25519 private key as PEM, found {len(data)} bytes that are none; journal "
            "not opened. "
            f"Restore the key from a backup; a new key cannot continue an old journal."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise JournalError(f"{path}: expected an Ed25519 key, found {type(key).__name__}; journal not opened.")
    return key
