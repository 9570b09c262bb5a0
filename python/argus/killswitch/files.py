"""Files of the control directory: opened by descriptor, put in place without replacing, prepared before they are
needed.

A stop must not depend on free space, on a free descriptor or on a friendly directory. So every flag begins as a
prepared ("armed") file of 4 KiB whose blocks are already allocated and whose descriptor is already open; a trip
overwrites it and renames it into place (`renameat2` with RENAME_NOREPLACE: the first cause survives).
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from argus.errors import RefusedError, UnreachableError
from argus.guard import start_time_ns

ARMED_BYTES = 4096
ARMED_PREFIX = ".armed-"  # free to take by any process that trips here
TAKEN_PREFIX = ".taken-"  # belongs to the process whose pid follows
NOREPLACE = 1
EXCHANGE = 2
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_FILE_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def rename_at(old_dir: int, old: str, new_dir: int, new: str, flags: int) -> None:
    """Rename between open directories; with NOREPLACE an existing name raises FileExistsError and stays as it is.

    Falls back to link and unlink where the file system knows no RENAME_NOREPLACE; EXCHANGE has no such way out.
    """
    call = getattr(_libc(), "renameat2", None)
    code = errno.ENOSYS
    if call is not None:
        if call(old_dir, os.fsencode(old), new_dir, os.fsencode(new), ctypes.c_uint(flags)) == 0:
            return
        code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS) and flags == NOREPLACE:
        os.link(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir, follow_symlinks=False)
        os.unlink(old, dir_fd=old_dir)
        return
    raise OSError(code, os.strerror(code), new)


def exists_at(directory: int, name: str) -> bool:
    """Whether anything at all has this name, a dangling link included. What cannot be looked at counts as there."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def names_at(directory: int) -> list[str]:
    """Names in an open directory, sorted."""
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries)


def read_at(directory: int, name: str, limit: int) -> bytes:
    """First `limit` bytes of a regular file; never follows a link, never waits on a FIFO."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        return os.read(fd, limit)
    finally:
        os.close(fd)


def write_durable_at(directory: int, name: str, content: bytes, mode: int = 0o640) -> None:
    """Replace a file whole: temporary with a random name, fsync, rename, fsync of the directory."""
    temporary = f"{TAKEN_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    fd = os.open(temporary, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, mode, dir_fd=directory)
    try:
        try:
            write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def write_all(fd: int, content: bytes) -> None:
    """Write from the start of the file, whole."""
    done = 0
    while done < len(content):
        done += os.pwrite(fd, content[done:], done)


def open_private_directory(path: Path, *, create: bool, owner: int, mode: int = 0o750) -> int:
    """Open a directory that only its owner may change; returns a descriptor.

    Raises
    ------
    RefusedError : a symbolic link, another owner, or writable by group or others, or a parent anyone may rename in
    UnreachableError : it cannot be made or opened
    """
    try:
        if create:
            with suppress(FileExistsError):
                path.mkdir(mode=mode, parents=True)
                path.chmod(mode)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise RefusedError(
                f"{path}: expected a directory, found a symbolic link or a file; not opened. Name the real directory"
            ) from None
        raise UnreachableError(
            f"{path}: expected a directory Argus can open, found {error.strerror}; not opened. "
            f"Create it, or name another"
        ) from None
    try:
        _check_directory(path, os.fstat(fd), owner)
        for parent in path.absolute().resolve().parents:
            info = parent.stat()
            if info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
                raise RefusedError(
                    f"{path}: expected parents that others may not change, found {parent} world-writable without the "
                    f"sticky bit; not opened. Run: chmod o-w {parent}"
                )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_directory(path: Path, info: os.stat_result, owner: int) -> None:
    if info.st_uid != owner:
        raise RefusedError(
            f"{path}: expected owner uid {owner}, found uid {info.st_uid}; not opened. "
            f"Run as that user, or: chown {owner} {path}"
        )
    if info.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
        raise RefusedError(
            f"{path}: expected a directory only its owner may change, found mode {stat.S_IMODE(info.st_mode):04o}; "
            f"not opened, for others could remove what is in it. Run: chmod go-w {path}"
        )


class Armed(NamedTuple):
    """A prepared file: its name in the control directory and its open descriptor."""

    name: str
    fd: int


class Reserve:
    """One descriptor held back, given up for the length of a block that must open a file at EMFILE."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def released(self) -> Iterator[None]:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            try:
                yield
            finally:
                with suppress(OSError):
                    self._fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def refill(self) -> None:
        """Take the descriptor back where that was not possible when it was given up."""
        with self._lock:
            if self._fd < 0:
                self._fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1


def owner_pid(name: str) -> int:
    """Pid in the name of a prepared or taken file; 0 = none."""
    text = name.removeprefix(ARMED_PREFIX).removeprefix(TAKEN_PREFIX).partition("-")[0]
    return int(text) if text.isdecimal() else 0


class Pool:
    """Prepared flag files of one control directory, and one prepared scope directory.

    Prepared files stay behind when the process ends: a later `argus trip` on a full disk takes them over.
    """

    def __init__(self, root: int, scopes: int, *, size: int = 2) -> None:
        self._root = root
        self._scopes = scopes
        self._size = size
        self._armed: deque[Armed] = deque()
        self._spare: str = ""
        self._reserve = Reserve()
        self._fill_lock = threading.Lock()

    def fill(self) -> OSError | None:
        """Prepare what is missing; returns why it could not. Allocates and syncs: never called on the way of a stop."""
        with self._fill_lock:
            try:
                self._reserve.refill()
                self._adopt()
                while len(self._armed) < self._size:
                    self._armed.append(self._create(ARMED_PREFIX, sync=True))
                if not (self._spare and exists_at(self._scopes, self._spare)):
                    name = f"{ARMED_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
                    os.mkdir(name, 0o750, dir_fd=self._scopes)
                    os.chmod(name, 0o750, dir_fd=self._scopes)
                    self._spare = name
            except OSError as error:
                return error
        return None

    def take(self) -> Armed:
        """A file that is this caller's alone: a prepared one, else a new one, else one another process prepared."""
        while True:
            try:
                armed = self._armed.popleft()
            except IndexError:
                break
            name = f"{TAKEN_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
            try:
                os.rename(armed.name, name, src_dir_fd=self._root, dst_dir_fd=self._root)
            except FileNotFoundError:  # another process was in greater need
                os.close(armed.fd)
                continue
            except OSError:
                os.close(armed.fd)
                raise
            return Armed(name, armed.fd)
        try:
            return self._create(TAKEN_PREFIX, sync=False)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
        with self._reserve.released():
            stolen = self._steal(dead_only=False)
            if stolen is not None:
                return stolen
            return self._create(TAKEN_PREFIX, sync=False)

    def scope_directory(self, name: str, planted: str) -> None:
        """Make sure that `scopes/<name>` is a directory. Anything else at that name becomes `scopes/<planted>`."""
        for _ in range(3):
            try:
                if stat.S_ISDIR(os.stat(name, dir_fd=self._scopes, follow_symlinks=False).st_mode):
                    return
                os.rename(name, planted, src_dir_fd=self._scopes, dst_dir_fd=self._scopes)
            except FileNotFoundError:
                pass
            spare, self._spare = self._spare, ""
            with suppress(FileExistsError):
                if spare:
                    with suppress(FileNotFoundError):
                        rename_at(self._scopes, spare, self._scopes, name, NOREPLACE)
                        return
                self._make_scope_directory(name)
                return
        raise OSError(errno.EEXIST, "something keeps taking this name", name)

    def sync_scope_directory(self, name: str) -> None:
        """Flush a scope directory and the entry that names it."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._scopes)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            with self._reserve.released():
                self._sync_at(name)
        else:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        os.fsync(self._scopes)

    def discard(self, armed: Armed) -> None:
        """Give up a taken file that was not put in place."""
        with suppress(OSError):
            os.unlink(armed.name, dir_fd=self._root)
        os.close(armed.fd)

    def tidy(self) -> int:
        """Remove unfinished files of processes that are gone; returns how many."""
        removed = 0
        for name in names_at(self._root):
            if name.startswith(TAKEN_PREFIX) and start_time_ns(owner_pid(name)) is None:
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._root)
                    removed += 1
        for name in names_at(self._scopes):
            if name.startswith(ARMED_PREFIX) and start_time_ns(owner_pid(name)) is None:
                with suppress(OSError):
                    os.rmdir(name, dir_fd=self._scopes)
                    removed += 1
        return removed

    def close(self) -> None:
        while self._armed:
            os.close(self._armed.popleft().fd)
        self._reserve.close()

    def _sync_at(self, name: str) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._scopes)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _make_scope_directory(self, name: str) -> None:
        try:
            os.mkdir(name, 0o750, dir_fd=self._scopes)
            return
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            full = error
        with self._reserve.released():
            for other in names_at(self._scopes):
                if other.startswith(ARMED_PREFIX):
                    with suppress(FileNotFoundError):
                        rename_at(self._scopes, other, self._scopes, name, NOREPLACE)
                        return
        raise full

    def _create(self, prefix: str, *, sync: bool) -> Armed:
        name = f"{prefix}{os.getpid()}-{secrets.token_hex(8)}"
        fd = os.open(name, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=self._root)
        try:
            write_all(fd, b" " * ARMED_BYTES)
            if sync:
                os.fsync(fd)
        except OSError:
            self.discard(Armed(name, fd))
            raise
        return Armed(name, fd)

    def _adopt(self) -> None:
        """Take over what processes that are gone have prepared, so that prepared files do not pile up."""
        while len(self._armed) < self._size:
            found = self._steal(dead_only=True)
            if found is None:
                return
            name = f"{ARMED_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
            os.rename(found.name, name, src_dir_fd=self._root, dst_dir_fd=self._root)
            self._armed.append(Armed(name, found.fd))

    def _steal(self, *, dead_only: bool) -> Armed | None:
        for other in names_at(self._root):
            if not other.startswith(ARMED_PREFIX):
                continue
            pid = owner_pid(other)
            if dead_only and (pid == os.getpid() or start_time_ns(pid) is not None):
                continue
            name = f"{TAKEN_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
            try:
                os.rename(other, name, src_dir_fd=self._root, dst_dir_fd=self._root)
            except FileNotFoundError:
                continue
            fd = os.open(name, _FILE_FLAGS, dir_fd=self._root)
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and info.st_size == ARMED_BYTES:
                return Armed(name, fd)
            self.discard(Armed(name, fd))
        return None
