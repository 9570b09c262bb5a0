"""Import: session logs of coding agents as events, into a file, a replay, or a running collector.

Events are told in order of time, with the keyed hashes of this installation: the key is made on first use, 0600, and
never leaves this machine, so that nobody else can find a short argument by trying.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from argus.errors import ArgusError, RefusedError, UnreachableError
from argus.wire.emitter import Emitter
from argus.wire.transcripts.common import Context, Converter, Counts, Event
from argus.wire.transcripts.reader import LogFollower
from argus.wire.zmq import private_directory

KEY_BYTES: Final = 32
POLL_S: Final = 0.25
SCAN_S: Final = 2.0

_WAIT_S: Final = 5.0
_OURS: Final = ("v", "type", "source")

_encode: Final = msgspec.json.Encoder().encode


def load_key(path: Path) -> bytes:
    """The key of the hashes, 32 bytes; made when there is none.

    Raises
    ------
    RefusedError : the file is a link, of another user, or readable by others
    UnreachableError : it cannot be read or written, or does not hold 32 bytes
    """
    try:
        private_directory(path.parent, "import")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "wb") as made:
                made.write(secrets.token_bytes(KEY_BYTES))
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid() or about.st_mode & 0o077:
                raise RefusedError(
                    f"{path}: expected a key that uid {os.geteuid()} alone can read, found uid {about.st_uid}, mode "
                    f"{stat.S_IMODE(about.st_mode):04o}; nothing imported. chmod 600 it, or name another with --key."
                )
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise UnreachableError(
            f"{path}: expected the key of the hashes, found {error.strerror or error}; nothing imported."
        ) from error
    if len(key) != KEY_BYTES:
        raise UnreachableError(f"{path}: expected {KEY_BYTES} bytes of key, found {len(key)}; nothing imported.")
    return key


def to_file(events: Iterable[Event], target: Path) -> None:
    """Write events as JSON lines into a new file (0600).

    Raises
    ------
    RefusedError : the file is there already
    UnreachableError : it cannot be written
    """
    try:
        with _opened(target, os.O_EXCL) as file:
            write(events, file)
    except FileExistsError as error:
        raise RefusedError(f"{target}: expected no file yet, found one; nothing imported. Remove it first.") from error
    except OSError as error:
        raise UnreachableError(f"{target}: expected to write, found {error.strerror or error}; ended here.") from error


def write(events: Iterable[Event], file: BinaryIO) -> None:
    """Write events as JSON lines."""
    for event in events:
        file.write(_encode(event))
        file.write(b"\n")
    file.flush()


def follow(
    paths: Sequence[Path],
    context: Context,
    *,
    kind: type[Converter] | None = None,
    endpoint: str | None = None,
    target: Path | None = None,
    from_start: bool = False,
    seconds: float = inf,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Tell what logs say as they grow, to a running collector or into a growing file.

    Parameters
    ----------
    endpoint : of the collector; None = $ARGUS_EVENTS, else tcp://127.0.0.1:6160
    target : append JSON lines to this file instead, for a collector whose `inlets.jsonl` names it
    from_start : begin with what the logs already hold
    seconds, stop : when to end

    Returns
    -------
    events that found no room in 5 s each, and were left out

    Raises
    ------
    UnreachableError : a path that is not there, a file that cannot be read or written
    UsageError, RefusedError : an endpoint that cannot be
    """
    until = time.monotonic() + seconds
    with ExitStack() as stack:
        tell = _teller(stack, context.counts, endpoint, target)
        logs = LogFollower(paths, context, kind=kind, since=0 if from_start else time.time_ns())
        stack.callback(logs.close)
        scan_at = 0.0
        lost = 0
        while True:
            now = time.monotonic()
            if now >= scan_at:
                logs.scan(now)
                scan_at = now + SCAN_S
            for event in logs.poll(now):
                lost += not tell(event)
            if now >= until or stop():
                return lost
            if not logs.behind:
                time.sleep(min(POLL_S, max(0.0, until - now)))


def _teller(stack: ExitStack, counts: Counts, endpoint: str | None, target: Path | None) -> Callable[[Event], bool]:
    """How one event is told; False = it was left out."""
    if target is not None:
        try:
            file = stack.enter_context(_opened(target, os.O_APPEND))
        except OSError as error:
            raise UnreachableError(f"{target}: expected to append, found {error.strerror}; not followed.") from error

        def append(event: Event) -> bool:
            file.write(_encode(event) + b"\n")
            file.flush()
            return True

        return append
    emitter = stack.enter_context(Emitter(endpoint, linger_s=_WAIT_S, wait_s=_WAIT_S))
    latest = 0

    def emit(event: Event) -> bool:
        nonlocal latest
        # One source speaks for all logs: its clock may not fall back when one of them was flushed late.
        latest = max(latest, event["ts"])
        fields: dict[str, Any] = {key: value for key, value in event.items() if key not in _OURS}
        try:
            return emitter.emit(event["type"], **{**fields, "ts": latest})
        except ArgusError:
            counts.rejected["not_mapped"] += 1
            return False

    return emit


def _opened(path: Path, flags: int) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    return os.fdopen(descriptor, "wb")


def render(counts: Counts, clean: Callable[[str], str]) -> str:
    """An import's account on a few lines; `clean` makes untrusted text printable."""
    lines = [
        f"{counts.events} events of {counts.records} records in {counts.files} files"
        + (f" ({', '.join(f'{name} {n}' for name, n in counts.by_format.most_common())})" if counts.by_format else "")
    ]
    if counts.repeated or counts.reordered:
        lines.append(f"{counts.repeated} records met before, {counts.reordered} events put after later ones")
    if counts.unknown:
        lines.append("unknown records: " + ", ".join(f"{clean(k)} {n}" for k, n in counts.unknown.most_common(20)))
    if counts.rejected:
        lines.append("not taken: " + ", ".join(f"{k} {n}" for k, n in counts.rejected.most_common()))
        lines += [f"  {clean(fault.file)}:{fault.line}: {fault.reason}" for fault in counts.faults[:8]]
    return "\n".join(lines)
