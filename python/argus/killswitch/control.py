"""The control directory: flags, epoch word, holds, announcements (DESIGN section 7).

    control/epoch                       mapped word; guards read it          control/override.json   holds
    control/hard_kill.flag              stops the host's agents              control/guards/         announcements
    control/write_lockdown.flag         no new actions, no writes            control/archive/        flags that were
    reset control/scopes/<kind>-<hash>/       the same two names, one scope        control/shadow/         observe mode
    control/lock                        the one collector                    control/.armed-*        prepared flags

Order of a host trip: word, flag (prepared file renamed into place without replacing), word again, then the caller
enforces, then `Trip.make_durable` on a writer thread. The second raise starts an epoch after the flag is visible, so
that a reset that looked at the directory in between cannot clear the word. A scoped trip links its flag first and
raises after it. Where a scoped flag cannot be written the stop is widened to the host, whose word needs neither space
nor descriptor.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from argus.engine.control import HOST_KILL, HOST_LOCKDOWN, NARROWER, EpochWord, EpochWordError
from argus.errors import RefusedError, UnreachableError, UsageError
from argus.guard import boot_id, scope_directory, start_time_ns
from argus.killswitch import files
from argus.killswitch.records import (
    LADDER,
    Cause,
    GuardInfo,
    Hold,
    Holds,
    Recovery,
    Reset,
    Target,
    canonical,
    fit,
    parse_scope,
    plain,
    short,
    stop_kind,
)  # fmt: skip
from argus.schema import Flag, Scope, ScopeKind, StopKind

Mode = Literal["enforce", "observe"]
Signer = Callable[[bytes], Mapping[str, str]]

FLAG_BYTES_MAX = files.ARMED_BYTES
REASON_CHARS_MIN = 10
HOLD_MINUTES_MAX = 240
AUTO_CLEARS_PER_DAY = 2
DETECTORS_MAX = 8
PIDS_MAX = 32
SIGNATURE_BYTES = 512
ANNOUNCEMENT_BYTES_MAX = 16_384
ANNOUNCEMENTS_MAX = 4_096
DAY_NS = 86_400_000_000_000
# Causes in which somebody, or something, broke a rule on purpose as far as Argus can tell: two people clear them.
BREACH_CODES = frozenset(
    {"C3", "C5", "harm", "forged_source", "tampering", "locked_write", "policy_violation", "interrupted_trip"}
)
_AUDITOR_NAMES = frozenset({"argus", "argus-collect", "auditor", "collector"})
_HOST_BITS = {StopKind.HARD_KILL: HOST_KILL, StopKind.WRITE_LOCKDOWN: HOST_LOCKDOWN}
_DIRECTORY_NAME = re.compile(r"(?:scopes/)?((task|session|agent|tenant)-[0-9a-f]{32})")
_PLANTED = "planted"


class Trip:
    """A stop, as far as it has come. Fields are final once `Control.trip` returns; `durable_ns` follows `make_durable`.

    `existed` another cause came first and stays on the flag; this one is only here · `shadow` written to `shadow/`,
    nothing is stopped · `held` that is because of a hold · `escalated` the scope's flag could not be written, so the
    host's was · `on_disk` a flag is in place · `signalled_ns`, `linked_ns` nanoseconds from the call to the word and
    to the flag.
    """

    __slots__ = (
        "_control", "_directory", "_fd", "actor", "automatic", "content", "durable_ns", "epoch", "error", "escalated",
        "existed", "held", "incident", "issued_at", "kind", "linked_ns", "on_disk", "path", "reason", "reason_code",
        "requested", "scope", "shadow", "signalled_ns",
    )  # fmt: skip

    def __init__(self, control: Control, cause: Cause, target: Target) -> None:
        self._control = control
        self._directory = target.directory
        self._fd = -1
        self.kind = cause.kind
        self.scope = target.scope
        self.requested = target.scope
        self.reason = cause.reason
        self.reason_code = cause.reason_code
        self.actor = cause.actor
        self.automatic = cause.automatic
        self.incident = cause.incident
        self.issued_at = time.time_ns()
        self.path = ""
        self.epoch = 0
        self.existed = self.shadow = self.held = self.escalated = self.on_disk = False
        self.signalled_ns = self.linked_ns = self.durable_ns = 0
        self.content = b""
        self.error = ""

    @property
    def stops(self) -> bool:
        """Whether anything is stopped by it: not a shadow."""
        return not self.shadow

    def flag(self) -> Flag:
        """The record of this flag, as published."""
        return Flag(
            ts=self.issued_at, host=self._control.host, kind=self.kind, scope=self.scope, set=True, reason=self.reason,
            actor=self.actor, epoch=self.epoch, path=self.path,
        )  # fmt: skip

    def make_durable(self) -> int:
        """Flush flag and directories, prepare the next flag; returns the nanoseconds it took. For a writer thread.

        Raises
        ------
        OSError : the disk refused; the flag is in place all the same, but a power cut may lose it. Never retried:
        after a
            failed fsync the kernel may have dropped the pages.
        """
        started = time.monotonic_ns()
        fd, self._fd = self._fd, -1
        try:
            if fd >= 0:
                os.fsync(fd)
                self._control._sync(self._directory)
        finally:
            if fd >= 0:
                os.close(fd)
            self._control.rearm()
        self.durable_ns = time.monotonic_ns() - started
        return self.durable_ns

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            with suppress(OSError):
                os.close(self._fd)

    def __repr__(self) -> str:
        how = "shadow" if self.shadow else "existed" if self.existed else "set"
        return f"<Trip {self.kind} {self.scope} {how} epoch={self.epoch} path={self.path!r}>"


class Control:
    """One control directory.

    Parameters
    ----------
    directory : the control directory, made by `open` where absent
    mode : `enforce`, or `observe`: automatic trips go to `shadow/`; a manual trip is always real
    signer : signs the flag's bytes, returns {"alg", "key_id", "value"}; None, or one that fails, leaves flags unsigned
    host : name of this host in records, default the system's
    owner : uid that must own the directory, default this process's; root may name the auditor's
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        mode: Mode = "enforce",
        signer: Signer | None = None,
        host: str | None = None,
        owner: int | None = None,
    ) -> None:
        if mode not in ("enforce", "observe"):
            raise UsageError(f"Control: mode: expected enforce or observe, found {mode!r}; not opened")
        self.directory = Path(directory).absolute()
        self.mode = mode
        self.host = host or socket.gethostname()
        self._signer = signer
        self._owner = os.geteuid() if owner is None else owner
        self._root = self._scopes = self._archive = self._shadow = self._guards = self._lock_fd = -1
        self._pool: files.Pool | None = None
        self._word: EpochWord | None = None
        self._boot = ""
        self._previous = ""
        self._holds: tuple[tuple[int, int, int], list[Hold]] | None = None
        self._reset_lock = threading.Lock()

    # --- opening ---------------------------------------------------------------------------------------------------

    def open(self, *, arm: bool = True) -> Control:
        """Open the directory, make what is missing, prepare flags (`arm=False`: not, for a short-lived command).

        Raises
        ------
        RefusedError : the directory, or something in it, is not what only its owner may change
        UnreachableError : it cannot be made or opened
        """
        if self._root >= 0:
            return self
        try:
            self._root = files.open_private_directory(self.directory, create=True, owner=self._owner)
            self._scopes = self._inner("scopes")
            self._archive = self._inner("archive")
            self._shadow = self._inner("shadow")
            self._guards = self._inner_guards()
            self._word = EpochWord(self.directory / "epoch")
        except EpochWordError as error:
            self.close()
            kind = UnreachableError if error.errno else RefusedError
            raise kind(f"{error}. Move it aside; `recover` then rebuilds it from the flags") from None
        except BaseException:
            self.close()
            raise
        self._boot = boot_id()
        self._pool = files.Pool(self._root, self._scopes)
        self._previous = self._newest_flag_hash()
        if arm:
            self._pool.fill()
        return self

    def close(self) -> None:
        """Release descriptors and the lock. Flags, word and prepared files stay."""
        if self._pool is not None:
            self._pool.close()
        self._pool = self._word = None
        for name in ("_root", "_scopes", "_archive", "_shadow", "_guards", "_lock_fd"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
            setattr(self, name, -1)

    def __enter__(self) -> Control:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self) -> None:
        """Become the one collector of this directory; trips by people, guards and standbys need no lock.

        Raises
        ------
        RefusedError : another process is; names its pid
        """
        self._opened()
        if self._lock_fd >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        # 0600: whoever can open the file could hold its lock, and so keep the collector from starting.
        fd = os.open("lock", flags, 0o600, dir_fd=self._root)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            pid = text if text.isdecimal() else "unknown"
            raise RefusedError(
                f"{self.directory}: expected to be its only collector, found process {pid} holding the lock; "
                f"not started. Stop that one, or start this as a standby"
            ) from None
        os.ftruncate(fd, 0)
        files.write_all(fd, f"{os.getpid()}\n".encode())
        self._lock_fd = fd

    @property
    def acquired(self) -> bool:
        """Whether this process is the collector."""
        return self._lock_fd >= 0

    @property
    def word(self) -> EpochWord:
        """The mapped word."""
        if self._word is None:
            raise UsageError(f"{self.directory}: expected an open control directory; call open() first")
        return self._word

    def heartbeat(self) -> None:
        """Tell the guards that the auditor lives."""
        self.word.heartbeat()

    def rearm(self) -> str:
        """Prepare the flags that are missing; returns why that failed, "" = all is prepared."""
        error = self._opened().fill()
        return f"{self.directory}: flags not prepared ({error.strerror}); a trip takes a new file" if error else ""

    # --- stopping --------------------------------------------------------------------------------------------------

    def trip(
        self,
        kind: StopKind | str,
        scope: Scope | str,
        *,
        reason: str,
        reason_code: str,
        actor: str,
        automatic: bool,
        detectors: Sequence[Any] = (),
        evidence: Iterable[str] = (),
        incident: str = "",
        pids: Iterable[tuple[int, int]] = (),
        absolute: bool = False,
        observe: bool = False,
    ) -> Trip:
        """Stop a scope. Never waits for the disk: `Trip.make_durable` does, later, on another thread.

        Parameters
        ----------
        kind : hard_kill or write_lockdown
        scope : whom; a Scope, "host" or "kind:id"; the engine decides which one has a reader
        reason, reason_code, actor : for people; the code names the criterion; the actor a person or `argus`
        automatic : a rule decided, not a person: observe mode and holds then apply
        detectors : JSON-able descriptions of what spoke · evidence : ids of events and anomalies
        incident : its id · pids : (pid, start time ns since boot) pairs that this is about
        absolute : an absolute budget: no hold suppresses it
        observe : this scope is only observed: an automatic trip goes to `shadow/` whatever the mode

        Returns
        -------
        Trip : never raises for the state of disk or directory; `error` and `on_disk` tell

        Raises
        ------
        UsageError : no such kind or scope
        """
        started = time.monotonic_ns()
        self._opened()
        cause = Cause(
            stop_kind(kind), reason, reason_code, actor, automatic, absolute, tuple(detectors), tuple(evidence),
            incident, tuple(pids),
        )  # fmt: skip
        target = self._target(scope)
        trip = Trip(self, cause, target)
        if automatic:
            trip.held = not absolute and self._is_held(target)
            trip.shadow = trip.held or observe or self.mode == "observe"
        if trip.shadow:
            self._put_shadow(trip, cause, target)
        elif target.directory:
            self._trip_scope(trip, cause, target, started)
        else:
            self._trip_host(trip, cause, target, started)
        return trip

    def _trip_host(self, trip: Trip, cause: Cause, target: Target, started: int) -> None:
        word, bit = self.word, _HOST_BITS[cause.kind]
        bits, trip.epoch, _ = word.load()
        if not bits & bit:
            trip.epoch = word.raise_bits(bit)
        trip.signalled_ns = time.monotonic_ns() - started
        self._put_flag(trip, cause, target)
        # Also where the flag could not be written: a reset that ran in between must not leave the word clear.
        if not trip.existed or not word.load()[0] & bit:
            trip.epoch = word.raise_bits(bit)
        trip.linked_ns = time.monotonic_ns() - started

    def _trip_scope(self, trip: Trip, cause: Cause, target: Target, started: int) -> None:
        trip.epoch = self.word.load()[1] + 1
        self._put_flag(trip, cause, target)
        if not trip.on_disk:
            trip.escalated = True
            self._trip_host(trip, cause, self._target("host"), started)
            return
        trip.linked_ns = time.monotonic_ns() - started
        if not trip.existed or not self.word.load()[0] & NARROWER:
            trip.epoch = self.word.raise_bits(NARROWER)
        trip.signalled_ns = time.monotonic_ns() - started

    def _put_flag(self, trip: Trip, cause: Cause, target: Target) -> None:
        """Put the flag in place, or find the one that came first. Errors are told, never raised."""
        trip.scope, trip._directory = target.scope, target.directory
        trip.content = self._content(trip, cause)
        pool = self._opened()
        armed: files.Armed | None = None
        placed = False
        try:
            if target.directory:
                pool.scope_directory(target.directory, f"{_PLANTED}-{secrets.token_hex(8)}")
            if self._is_flag(target.path(cause.kind)):
                trip.existed = True
            else:
                armed = pool.take()
                files.write_all(armed.fd, trip.content)
                os.fchmod(armed.fd, 0o440)
                placed = self._place(armed, target.path(cause.kind))
                trip.existed = not placed
            trip.on_disk = True
            trip.path = str(self.directory / target.path(cause.kind))
        except OSError as error:
            trip.on_disk = files.exists_at(self._root, target.path(cause.kind))
            trip.error = f"{target.path(cause.kind)}: not written ({error.strerror})"
        finally:
            if armed is not None and placed:
                trip._fd = armed.fd
                self._previous = hashlib.sha256(trip.content).hexdigest()
            elif armed is not None:
                pool.discard(armed)

    def _is_flag(self, path: str) -> bool:
        """Whether a regular file has this name. Anything else stops as well, but holds no cause and is moved aside."""
        try:
            return (os.stat(path, dir_fd=self._root, follow_symlinks=False).st_mode & 0o170000) == 0o100000
        except FileNotFoundError:
            return False

    def _place(self, armed: files.Armed, path: str) -> bool:
        """Rename into place; False = another flag came first. What is no file there goes to the archive, in one
        exchange where the file system can, so that at no moment nothing has the flag's name."""
        for _ in range(3):
            try:
                files.rename_at(self._root, armed.name, self._root, path, files.NOREPLACE)
                return True
            except FileExistsError:
                if self._is_flag(path):
                    return False
            planted = f"{time.time_ns()}-{_PLANTED}-{secrets.token_hex(8)}"
            with suppress(FileNotFoundError):
                try:
                    files.rename_at(self._root, armed.name, self._root, path, files.EXCHANGE)
                except OSError:
                    os.rename(path, planted, src_dir_fd=self._root, dst_dir_fd=self._archive)
                    continue
                with suppress(OSError):
                    os.rename(armed.name, planted, src_dir_fd=self._root, dst_dir_fd=self._archive)
                return True
        raise FileExistsError(17, "something keeps taking this name", path)

    def _put_shadow(self, trip: Trip, cause: Cause, target: Target) -> None:
        """What would have happened. One file per kind and scope, the first cause: repeats do not pile up."""
        trip.epoch = self.word.load()[1]
        trip.content = self._content(trip, cause)
        name = f"{cause.kind}-{target.key}.json"
        trip.path = str(self.directory / "shadow" / name)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o440, dir_fd=self._shadow)
            try:
                files.write_all(fd, trip.content)
            finally:
                os.close(fd)
            trip.on_disk = True
        except FileExistsError:
            trip.existed = trip.on_disk = True
        except OSError as error:
            trip.error = f"shadow/{name}: not written ({error.strerror})"

    def _content(self, trip: Trip, cause: Cause) -> bytes:
        """The flag's JSON, padded to the prepared size: overwriting it whole needs no new block."""
        digest = hashlib.sha256("\n".join(cause.evidence).encode("utf-8", "replace")).hexdigest()
        first, last = (cause.evidence[0], cause.evidence[-1]) if cause.evidence else ("", "")
        scope = {k: fit(str(v), 300 if k == "id" else 130) for k, v in msgspec.to_builtins(trip.scope).items()}
        content: dict[str, Any] = {
            "v": 1, "kind": str(cause.kind), "epoch": trip.epoch, "mode": self.mode,
            "scope": scope | {"pids": [{"pid": p, "start_time": s} for p, s in cause.pids[:PIDS_MAX]]},
            "requested": str(trip.requested.kind), "reason": fit(cause.reason, 800),
            "reason_code": fit(cause.reason_code, 70), "incident": fit(cause.incident, 70),
            "actor": fit(cause.actor, 140), "automatic": cause.automatic, "absolute": cause.absolute,
            "held": trip.held, "latched": True, "detectors": plain(cause.detectors[:DETECTORS_MAX]),
            "evidence": {
                "first_id": fit(first, 70), "last_id": fit(last, 70), "n": len(cause.evidence), "sha256": digest,
            },
            "issued_at": trip.issued_at, "mono_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            "boot_id": self._boot, "host": fit(self.host, 140),
            "auditor": {"pid": os.getpid(), "collector": self.acquired}, "expires_at": None,
            "prev_sha256": self._previous,
        }  # fmt: skip
        # Room for the signature stays free. The texts above fit in any case; the lists go where they do not.
        if len(canonical(content)) > FLAG_BYTES_MAX - SIGNATURE_BYTES:
            content["detectors"] = []
        if len(canonical(content)) > FLAG_BYTES_MAX - SIGNATURE_BYTES:
            content["scope"]["pids"] = []
        content["sig"] = self._sign(canonical(content))
        raw = canonical(content)
        if len(raw) > FLAG_BYTES_MAX:
            content["sig"] = None
            raw = canonical(content)
        return raw.ljust(FLAG_BYTES_MAX - 1) + b"\n"

    def _sign(self, raw: bytes) -> dict[str, str] | None:
        if self._signer is None:
            return None
        # An unsigned flag stops as well: no fault of a signer, whatever it is, may keep it from being written.
        with suppress(Exception):
            return {str(key): str(value) for key, value in self._signer(raw).items()}
        return None

    def _sync(self, directory: str) -> None:
        if directory:
            self._opened().sync_scope_directory(directory)
        os.fsync(self._root)

    # --- clearing --------------------------------------------------------------------------------------------------

    def reset(
        self, kind: StopKind | str, scope: Scope | str, *, actor: str, reason: str, second_actor: str | None = None
    ) -> Reset:
        """Clear a flag: it moves to the archive. `scope` may also be a flag's directory, `session-<32 hex>`.

        Raises
        ------
        RefusedError : no named person, no reason, the auditor itself, or a breach that needs a second person
        UsageError : no such flag
        """
        kind, target = stop_kind(kind), self._target(scope)
        person = self._person(actor, reason, "reset")
        second = second_actor.strip() if second_actor else ""
        if not self._is_set(kind, target):
            raise UsageError(f"reset: {target.path(kind)}: no such flag in {self.directory}; nothing to clear")
        if kind is StopKind.HARD_KILL:
            if self.acquired:
                raise RefusedError("reset: expected a person to clear a hard kill, found the auditor; the flag stays")
            if self._is_breach(kind, target):
                if not second:
                    raise RefusedError(
                        f"reset: expected two people for a hard kill of this cause, found only {person!r}; "
                        f"the flag stays. Name the second with --second"
                    )
                second = self._person(second, reason, "reset")
                if second.casefold() == person.casefold():
                    raise RefusedError(f"reset: expected two different people, found {person!r} twice; the flag stays")
        return self._clear(kind, target, actor=person, second_actor=second, reason=reason.strip(), automatic=False)

    def auto_clear(self, scope: Scope | str, *, reason: str) -> Reset:
        """Clear an automatic write lockdown whose cause has gone (hysteresis): at most twice a day and scope.

        Raises
        ------
        RefusedError : a person set it, nobody can tell who did, or it was cleared so twice within a day
        UsageError : no such flag
        """
        kind, target = StopKind.WRITE_LOCKDOWN, self._target(scope)
        content = self._read_flag(target.path(kind))
        if content is None and not files.exists_at(self._root, target.path(kind)):
            raise UsageError(f"auto_clear: {target.path(kind)}: no such flag; nothing to clear")
        if content is None or content.get("automatic") is not True:
            raise RefusedError(f"auto_clear: {target.path(kind)}: expected an automatic one; a person must reset it")
        since = time.time_ns() - DAY_NS
        cleared = [r for r in self.resets() if r.automatic and r.key == target.key and r.ts > since]
        if len(cleared) >= AUTO_CLEARS_PER_DAY:
            raise RefusedError(
                f"auto_clear: {target.path(kind)}: cleared itself {len(cleared)} times in 24 h, the most allowed; it "
                f"stays until a person resets it"
            )
        return self._clear(kind, target, actor="argus", second_actor="", reason=reason, automatic=True)

    def resets(self) -> list[Reset]:
        """Records of cleared flags, oldest first."""
        found = []
        self._opened()
        for name in files.names_at(self._archive):
            if name.endswith("-reset.json"):
                with suppress(OSError, msgspec.DecodeError):
                    found.append(msgspec.json.decode(files.read_at(self._archive, name, 8192), type=Reset))
        return found

    def _clear(
        self, kind: StopKind, target: Target, *, actor: str, second_actor: str, reason: str, automatic: bool
    ) -> Reset:
        path = target.path(kind)
        with self._reset_lock:
            _, epoch, _ = self.word.load()
            try:
                raw = files.read_at(self._root, path, FLAG_BYTES_MAX)
            except OSError:
                raw = b""
            stem = f"{time.time_ns()}-{kind}-{target.key}"
            record = Reset(
                ts=time.time_ns(), kind=kind, scope=short(str(target.scope), 300), key=target.key, actor=actor,
                second_actor=second_actor, reason=short(reason, 1000), automatic=automatic, epoch=epoch,
                sha256=hashlib.sha256(raw).hexdigest() if raw else "", archived=f"{stem}.json",
            )  # fmt: skip
            # The record first: a crash after the move is then known as a finished reset, not as an interrupted trip.
            files.write_durable_at(self._archive, f"{stem}-reset.json", msgspec.json.encode(record))
            with suppress(FileNotFoundError):
                os.rename(path, record.archived, src_dir_fd=self._root, dst_dir_fd=self._archive)
            self._sync(target.directory)
            os.fsync(self._archive)
            self._settle()
        return record

    def _is_set(self, kind: StopKind, target: Target) -> bool:
        """Whether a flag is in place, or the word says so where it could not be written."""
        return files.exists_at(self._root, target.path(kind)) or bool(
            not target.directory and self.word.load()[0] & _HOST_BITS[kind]
        )

    def _settle(self) -> None:
        """Make the word say what the files say. A trip in between starts an epoch, and is looked at again."""
        while True:
            _, epoch, _ = self.word.load()
            if self.word.replace_bits_if(self._bits_of_files(), epoch) is not None:
                return

    def _bits_of_files(self) -> int:
        bits = 0
        for kind, bit in _HOST_BITS.items():
            if files.exists_at(self._root, f"{kind}.flag"):
                bits |= bit
        if any(True for _ in self._scoped_flags()):
            bits |= NARROWER
        return bits

    def _scoped_flags(self) -> Iterable[tuple[StopKind, Target]]:
        for name in files.names_at(self._scopes):
            match = _DIRECTORY_NAME.fullmatch(name)
            if match:
                target = Target(Scope(kind=ScopeKind(match[2]), id=f"unknown ({name})"), name)
                for kind in StopKind:
                    if files.exists_at(self._root, target.path(kind)):
                        yield kind, target

    def _is_breach(self, kind: StopKind, target: Target) -> bool:
        content = self._read_flag(target.path(kind))
        if content is None:
            return True  # nobody can tell the cause: the stricter rule
        return str(content.get("reason_code", "")) in BREACH_CODES

    def _person(self, actor: str, reason: str, verb: str) -> str:
        name = " ".join(actor.split())
        if not name or name.casefold() in _AUDITOR_NAMES or name.casefold().startswith("argus:"):
            raise RefusedError(f"{verb}: expected the name of a person, found {actor!r}; nothing changed")
        if len(reason.strip()) < REASON_CHARS_MIN:
            raise RefusedError(
                f"{verb}: expected a reason of at least {REASON_CHARS_MIN} characters, found {len(reason.strip())}; "
                f"nothing changed"
            )
        return short(name, 128)

    # --- holding ---------------------------------------------------------------------------------------------------

    def hold(self, scope: Scope | str, minutes: float, actor: str, reason: str) -> Hold:
        """Suppress automatic trips of a scope and of what is inside it; never manual ones nor an absolute budget.

        Raises
        ------
        RefusedError : no named person, no reason, or more than 240 minutes
        """
        self._opened()
        person = self._person(actor, reason, "hold")
        if not 0 < minutes <= HOLD_MINUTES_MAX:
            raise RefusedError(f"hold: expected more than 0 and at most {HOLD_MINUTES_MAX} minutes, found {minutes!r}")
        target, now, length = self._target(scope), time.time_ns(), int(minutes * 60e9)
        hold = Hold(
            key=target.key, scope=short(str(target.scope), 300), actor=person, reason=short(reason.strip(), 1000),
            issued_at=now, until=now + length, until_boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME) + length,
            boot_id=self._boot,
        )  # fmt: skip
        self._write_holds([h for h in self.holds() if h.key != hold.key] + [hold])
        return hold

    def release(self, scope: Scope | str, actor: str, reason: str) -> bool:
        """End a hold before its time; returns whether there was one."""
        self._person(actor, reason, "release")
        key, before = self._target(scope).key, self.holds()
        after = [h for h in before if h.key != key]
        if len(after) != len(before):
            self._write_holds(after)
        return len(after) != len(before)

    def holds(self) -> list[Hold]:
        """Holds in force. An override file that cannot be read holds nothing: trips then act."""
        self._opened()
        try:
            info = os.stat("override.json", dir_fd=self._root, follow_symlinks=False)
            stamp = (info.st_ino, info.st_mtime_ns, info.st_size)
            if self._holds is None or self._holds[0] != stamp:
                raw = files.read_at(self._root, "override.json", 1 << 20)
                self._holds = (stamp, msgspec.json.decode(raw, type=Holds).holds)
        except (OSError, msgspec.DecodeError):
            return []
        wall, boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return [
            h for h in self._holds[1]
            if h.issued_at <= wall < h.until and h.boot_id == self._boot and boot < h.until_boot_ns
        ]  # fmt: skip

    def _write_holds(self, holds: list[Hold]) -> None:
        files.write_durable_at(self._root, "override.json", msgspec.json.encode(Holds(holds=holds)))
        self._holds = None

    def _is_held(self, target: Target) -> bool:
        keys = {target.key, *(t.key for t in self._ladder(target.scope))}
        return any(h.key in keys for h in self.holds())

    # --- reading ---------------------------------------------------------------------------------------------------

    def flags(self) -> list[Flag]:
        """Every flag in place, the host's first. One that cannot be read is listed as such: it stops as well."""
        self._opened()
        host = self._target("host")
        found = [(kind, host) for kind in StopKind if files.exists_at(self._root, host.path(kind))]
        return [self._flag(kind, target) for kind, target in [*found, *self._scoped_flags()]]

    def _flag(self, kind: StopKind, target: Target) -> Flag:
        path = target.path(kind)
        full = str(self.directory / path)
        content = self._read_flag(path)
        scope = target.scope
        if content is None:
            return Flag(
                ts=0, host=self.host, kind=kind, scope=scope, set=True, actor="", epoch=0, path=full,
                reason="its flag cannot be read; it stops all the same",
            )  # fmt: skip
        with suppress(msgspec.ValidationError):
            told = msgspec.convert({k: v for k, v in dict(content.get("scope") or {}).items() if k != "pids"}, Scope)
            # What a flag says of its scope counts only where it lies in that scope's directory.
            scope = told if not target.directory or self._target(told).directory == target.directory else scope
        ts, epoch = content.get("issued_at"), content.get("epoch")
        return Flag(
            ts=ts if isinstance(ts, int) else 0, host=self.host, kind=kind, scope=scope, set=True,
            reason=str(content.get("reason", "")), actor=str(content.get("actor", "")),
            epoch=epoch if isinstance(epoch, int) else 0, path=full,
        )  # fmt: skip

    def read(self, kind: StopKind | str, scope: Scope | str) -> dict[str, Any] | None:
        """A flag's content; None = there is none, or it cannot be read (`flags` tells which)."""
        self._opened()
        return self._read_flag(self._target(scope).path(stop_kind(kind)))

    def _read_flag(self, path: str) -> dict[str, Any] | None:
        try:
            content = json.loads(files.read_at(self._root, path, FLAG_BYTES_MAX))
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def guards(self) -> list[GuardInfo]:
        """Announced guards that live: same pid, start time and boot, and announced by the user whose process it is."""
        self._opened()
        found = []
        for name in files.names_at(self._guards)[:ANNOUNCEMENTS_MAX]:
            if name.startswith(".") or not name.endswith(".json"):
                continue
            try:
                raw = files.read_at(self._guards, name, ANNOUNCEMENT_BYTES_MAX)
                guard = msgspec.json.decode(raw, type=GuardInfo)
                announcer = os.stat(name, dir_fd=self._guards, follow_symlinks=False).st_uid
                process = Path("/proc", str(guard.pid)).stat().st_uid
            except (OSError, msgspec.DecodeError, ValueError):
                continue
            alive = start_time_ns(guard.pid) == guard.start_time and guard.boot_id in ("", self._boot)
            if alive and announcer in (process, self._owner, 0):
                found.append(msgspec.structs.replace(guard, path=str(self.directory / "guards" / name)))
        return found

    # --- after a restart -------------------------------------------------------------------------------------------

    def recover(self) -> Recovery:
        """Make word and files agree after a crash, and remove unfinished files.

        A bit without its flag is a trip that was interrupted between word and flag: it is completed, for guards may
        have acted on it. Only a reset that had recorded itself under this very epoch makes it a finished reset instead.
        """
        pool = self._opened()
        before, epoch, _ = self.word.load()
        resets = {r.kind for r in self.resets() if r.key == "host" and r.epoch == epoch}
        completed = []
        for kind, bit in _HOST_BITS.items():
            if before & bit and not files.exists_at(self._root, f"{kind}.flag") and kind not in resets:
                trip = self.trip(
                    kind, "host", reason="a trip was interrupted before its flag was written; completed at restart",
                    reason_code="interrupted_trip", actor="argus", automatic=False,
                )  # fmt: skip
                with suppress(OSError):
                    trip.make_durable()
                completed.append(kind)
        removed = pool.tidy()
        bits = self.word.load()[0]
        if bits != self._bits_of_files() and not any(not files.exists_at(self._root, f"{k}.flag") for k in completed):
            self._settle()
        pool.fill()
        bits, epoch, _ = self.word.load()
        return Recovery(bits_before=before, bits=bits, epoch=epoch, completed=completed, removed=removed)

    # --- inner -----------------------------------------------------------------------------------------------------

    def _opened(self) -> files.Pool:
        if self._pool is None:
            raise UsageError(f"{self.directory}: expected an open control directory; call open() first")
        return self._pool

    def _inner(self, name: str) -> int:
        return files.open_private_directory(self.directory / name, create=True, owner=self._owner)

    def _inner_guards(self) -> int:
        """Guards of the directory's group may add announcements, and (sticky) remove none but their own."""
        path = self.directory / "guards"
        try:
            path.mkdir(mode=0o1770)
            path.chmod(0o1770)
        except FileExistsError:
            pass
        except OSError as error:
            raise UnreachableError(f"{path}: cannot be made ({error.strerror}); not opened") from None
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise RefusedError(f"{path}: expected a directory, found {error.strerror}; not opened. Remove it") from None

    def _target(self, scope: Scope | str) -> Target:
        if isinstance(scope, str):
            match = _DIRECTORY_NAME.fullmatch(scope)
            if match:
                return Target(Scope(kind=ScopeKind(match[2]), id=f"unknown ({match[1]})"), match[1])
            scope = parse_scope(scope, host=self.host)
        if scope.kind is ScopeKind.HOST:
            return Target(msgspec.structs.replace(scope, id=scope.id or self.host), "")
        return Target(scope, scope_directory(str(scope.kind), scope.id))

    def _ladder(self, scope: Scope) -> list[Target]:
        """The scope and those it lies in, narrowest first, the host last."""
        names = {kind: str(getattr(scope, kind)) for kind in LADDER}
        found: list[Target] = []
        if scope.kind is not ScopeKind.HOST:
            names[scope.kind] = scope.id
            wider = [kind for kind in LADDER[LADDER.index(scope.kind) :] if names[kind]]
            found = [self._target(msgspec.structs.replace(scope, kind=kind, id=names[kind])) for kind in wider]
        return [*found, self._target("host")]

    def _newest_flag_hash(self) -> str:
        """SHA-256 of the newest flag's bytes, in place or archived: the link that the next flag carries."""
        newest, digest = -1, ""
        paths = [(self._root, t.path(k)) for k, t in self._scoped_flags()]
        paths += [(self._root, f"{kind}.flag") for kind in StopKind]
        archived = [n for n in files.names_at(self._archive) if n.endswith(".json") and not n.endswith("-reset.json")]
        paths += [(self._archive, name) for name in archived[-8:]]
        for directory, path in paths:
            with suppress(OSError, ValueError, RecursionError):
                raw = files.read_at(directory, path, FLAG_BYTES_MAX)
                issued = json.loads(raw).get("issued_at", -1)
                if isinstance(issued, int) and issued > newest:
                    newest, digest = issued, hashlib.sha256(raw).hexdigest()
        return digest
