"""The agents' side: events to Argus, never in the agent's way.

`emit` encodes one event, hands it to ZeroMQ and returns; it never waits for a collector, and what finds no room is
counted in `dropped` and shows as a hole in `seq`. Schema v1; money is integer nano-USD (`cost_nusd`), times are
int64 ns.

    with argus.Emitter(agent="planner") as e:
        with e.task("ticket-4711"):
            with e.tool("search", args={"q": "argus"}) as call:
                call.result(search("argus"))
            with e.model("some-model") as call:
                call.usage(input_tokens=812, output_tokens=90, cost_nusd=1_450_000)

Spans opened from a task (`with e.task("t") as task: ... task.tool("search", args)`) name it themselves, so that they
stay its own in worker threads, callbacks and graphs that do not carry the context of their caller.

Hashes of arguments and results are SHA-256 of canonical JSON: contents never leave the process, but a short, guessable
argument can be found by trying; leave `args` out where that matters.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import socket as std_socket
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextvars import ContextVar, Token
from hashlib import sha256
from math import isfinite
from types import TracebackType
from typing import Any, Final

import msgspec
import zmq

from argus.errors import UsageError
from argus.wire.zmq import FRAME_BYTES_MAX, array_header, require_local

DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:6160"

_ATTRS_MAX: Final = 32
_ATTR_KEY_BYTES_MAX: Final = 64
_ATTR_BYTES_MAX: Final = 512
_INT_MAX: Final = 2**63 - 1
_BATCH_AGE_NS: Final = 50_000_000

# Text keys and their limits in UTF-8 bytes. All limits together stay below the 64 KiB of an event.
_TEXT: Final = {
    "id": 64, "tenant": 64, "session": 128, "task": 128, "parent": 128, "trace": 64, "span": 64, "parent_span": 64,
    "agent": 128, "agent_version": 128, "provider": 128, "model": 128, "strategy": 64, "tool": 128, "call": 128,
    "args_hash": 128, "result_hash": 128, "path": 4096, "op": 32, "sha256": 64, "error": 128, "eval": 64, "label": 32,
    "text": 16_384,
}  # fmt: skip
# Whole numbers, never negative but for money (a refund).
_WHOLE: Final = frozenset({
    "ts", "mono", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
    "duration_ns", "ttft_ns", "args_len", "result_len", "bytes",
})  # fmt: skip
_TRUTH: Final = frozenset({"ok", "cost_estimated"})
_OURS: Final = frozenset({"v", "type", "source", "boot", "seq"})
_TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")

_encode: Final = msgspec.msgpack.Encoder().encode
_task: ContextVar[str | None] = ContextVar("argus_task", default=None)
_live: weakref.WeakSet[Emitter] = weakref.WeakSet()
_inherited: list[object] = []  # sockets of a parent process, kept so that they are never closed from here


def canonical_hash(value: object) -> tuple[str, int]:
    """SHA-256 (32 hex digits) and length in bytes of the canonical JSON of `value`: sorted keys, no white space.

    What JSON cannot say is hashed by its representation without memory addresses, so that equal calls stay equal.
    """
    try:
        data = msgspec.json.encode(value, enc_hook=_plain, order="sorted")
    except Exception:
        data = _stable_repr(value).encode("utf-8", "replace")
    return sha256(data).hexdigest()[:32], len(data)


def _plain(value: object) -> object:
    if hasattr(value, "tolist"):  # NumPy
        return value.tolist()
    return _stable_repr(value)


def _stable_repr(value: object) -> str:
    try:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    except Exception:
        return type(value).__qualname__


class Emitter:
    """Sends events of this process to Argus. Safe from any thread, and across `fork`.

    Parameters
    ----------
    endpoint : where the collector listens; None = $ARGUS_EVENTS, else tcp://127.0.0.1:6160
    source : who speaks; None = host:pid:random
    session, tenant, agent : put into every event that does not name its own; session None = $ARGUS_SESSION
    queue_limit : events held while the collector is away or slow; beyond it they are dropped and counted
    linger_s : how long `close` and the end of the process may wait for what is still queued
    batch : events to a frame; above 1, events wait for a full frame, 50 ms, `flush` or `close`
    wait_s : how long one event may wait for room; 0 = never, as an agent should. For importers, whom nobody awaits

    Raises
    ------
    UsageError : an impossible endpoint or field
    RefusedError : the endpoint is on another machine
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        source: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        agent: str | None = None,
        queue_limit: int = 10_000,
        linger_s: float = 1.0,
        batch: int = 1,
        wait_s: float = 0.0,
    ) -> None:
        self.endpoint = endpoint or os.environ.get("ARGUS_EVENTS") or DEFAULT_ENDPOINT
        require_local(self.endpoint, "Emitter")
        if not 1 <= batch <= 1024 or queue_limit < 1:
            raise UsageError(
                f"Emitter: expected batch in 1..1024 and queue_limit >= 1, found {batch} and {queue_limit}."
            )
        session = session if session is not None else os.environ.get("ARGUS_SESSION") or None
        self._scope: dict[str, Any] = {}
        for key, value in (("tenant", tenant), ("session", session), ("agent", agent)):
            if value is not None:
                self._scope[key] = _text("Emitter", key, value, _TEXT[key])
        if source is not None:
            _text("Emitter", "source", source, 128)
        self._given_source = source
        self._queue_limit = queue_limit
        self._linger_ms = max(0, round(linger_s * 1000))
        self._batch = batch
        self._wait_ms = max(0, round(wait_s * 1000))
        self._begin()
        _live.add(self)

    def _begin(self) -> None:
        """A fresh identity and nothing sent: at the start, and in the child after a fork."""
        # Reentrant: a signal handler may emit while this thread is in the middle of it.
        self._lock = threading.RLock()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._closed = False
        self._seq = self._sent = self._dropped = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._waiting_since = 0
        self.boot = secrets.token_hex(8)
        host = std_socket.gethostname()[:64]
        self.source = self._given_source or f"{host}:{os.getpid()}:{self.boot[:6]}"
        self._prefix = self.boot[:12] + "-"

    @property
    def sent(self) -> int:
        """Events handed to ZeroMQ."""
        return self._sent

    @property
    def dropped(self) -> int:
        """Events that found no room, or came after `close`; each is a hole in `seq`."""
        return self._dropped

    def emit(self, type: str, /, **fields: Any) -> bool:
        """Send one event; returns at once.

        Parameters
        ----------
        type : schema v1 type, e.g. `tool_called`; others are counted and learned by Argus
        fields : keys of the schema; None = absent; unknown keys with a scalar value go into `attrs`

        Returns
        -------
        False : dropped (no room, or closed) and counted

        Raises
        ------
        UsageError : a key that only the emitter sets, a wrong type, a value over its limit, a missing required key
        """
        event: dict[str, Any] = {
            "v": 1, "id": "", "type": type, "ts": time.time_ns(), "source": self.source, "boot": self.boot, "seq": 0,
            "mono": time.monotonic_ns(), **self._scope,
        }  # fmt: skip
        _fill(event, type, fields)
        if "task" not in event and (task := _task.get()) is not None:
            event["task"] = task
        _require(event, type)
        own_id = not event["id"]
        with self._lock:
            self._seq += 1
            seq = self._seq
            event["seq"] = seq
            if own_id:
                event["id"] = f"{self._prefix}{seq}"
            try:
                data = _encode(event)
            except UnicodeEncodeError as error:
                self._seq -= 1
                raise UsageError(
                    f"emit({type!r}): expected text that UTF-8 can hold, found {error}; not sent."
                ) from error
            if self._batch == 1:
                return self._send(data, 1)
            return self._hold(data)

    def flush(self) -> bool:
        """Hand what a batch still holds to ZeroMQ (which sends it in the background)."""
        with self._lock:
            return self._flush()

    def task(self, name: str, /, **fields: Any) -> TaskSpan:
        """A task as a context manager: `task_started`, then `task_completed`, `task_failed` or `task_cancelled`.

        Events inside it, in this thread or coroutine, carry `task`; a task inside it carries `parent`. `name` must be
        unique within tenant and session.
        """
        return TaskSpan(self, name, fields)

    def tool(self, name: str, /, args: Any = None, **fields: Any) -> ToolSpan:
        """A tool call as a context manager: `tool_called`, then `tool_returned` with `ok` and `duration_ns`.

        `args`, and what is given to `.result(value)`, are hashed, not sent.
        """
        return ToolSpan(self, name, args, fields)

    def model(self, name: str, /, **fields: Any) -> ModelSpan:
        """A model call as a context manager: `model_called`, then `model_returned`; `.usage(...)` logs its cost."""
        return ModelSpan(self, name, fields)

    def close(self) -> None:
        """Send what is queued, waiting at most `linger_s`; later events are dropped and counted."""
        with self._lock:
            if self._closed:
                return
            self._flush()
            self._closed = True
            socket, context = self._socket, self._context
            self._socket = self._context = None
        if socket is not None and context is not None:
            socket.close(linger=self._linger_ms)
            context.term()

    def __enter__(self) -> Emitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_socket", None) is not None:
            self.close()

    # -- inside; the lock is held

    def _open(self) -> zmq.Socket[bytes]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            socket = context.socket(zmq.PUSH)
            for option, value in (
                (zmq.SNDHWM, max(1, self._queue_limit // self._batch)), (zmq.LINGER, self._linger_ms),
                (zmq.HEARTBEAT_IVL, 2_000), (zmq.HEARTBEAT_TIMEOUT, 6_000), (zmq.HEARTBEAT_TTL, 10_000),
                (zmq.HANDSHAKE_IVL, 5_000), (zmq.RECONNECT_IVL, 50), (zmq.RECONNECT_IVL_MAX, 2_000),
            ):  # fmt: skip
                socket.setsockopt(option, value)
            socket.connect(self.endpoint)
        except zmq.ZMQError:
            context.destroy(linger=0)  # out of descriptors: nothing may leak with each attempt
            raise
        self._context, self._socket = context, socket
        processes = sys.modules.get("multiprocessing")
        if processes is not None and processes.parent_process() is not None:
            # Children of multiprocessing end without atexit.
            from multiprocessing.util import Finalize

            Finalize(self, _close_reference, args=(weakref.ref(self),), exitpriority=10)
        return socket

    def _send(self, frame: bytes, events: int) -> bool:
        try:
            if self._closed:
                raise zmq.Again
            socket = self._socket or self._open()
            if self._wait_ms:
                socket.poll(self._wait_ms, zmq.POLLOUT)
            socket.send(frame, zmq.DONTWAIT)
        except zmq.ZMQError:
            self._dropped += events
            return False
        self._sent += events
        return True

    def _hold(self, data: bytes) -> bool:
        taken = not self._closed
        if not taken:
            self._dropped += 1
            return False
        if self._waiting_bytes + len(data) > FRAME_BYTES_MAX - 8:
            taken = self._flush()
        now = time.monotonic_ns()
        if not self._waiting:
            self._waiting_since = now
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if len(self._waiting) >= self._batch or now - self._waiting_since >= _BATCH_AGE_NS:
            taken = self._flush()
        return taken

    def _flush(self) -> bool:
        waiting = self._waiting
        if not waiting:
            return True
        frame = array_header(len(waiting)) + b"".join(waiting)
        self._waiting, self._waiting_bytes = [], 0
        return self._send(frame, len(waiting))


class _Span:
    """What the context managers share: start time, scope fields, and an end that never hides the body's exception."""

    def __init__(self, emitter: Emitter, fields: Mapping[str, Any]) -> None:
        self._emitter = emitter
        self._fields = dict(fields)
        self._started_ns = 0
        self._error: str | None = None

    def fail(self, error: str) -> None:
        """Mark as failed without an exception; `error` is a short reason."""
        self._error = _clip(error)

    def _outcome(self, error: BaseException | None) -> dict[str, Any]:
        """Fields of the closing event. Of an exception only its class is told: messages may hold secrets."""
        reason = self._error
        if error is not None:
            reason = _clip(type(error).__qualname__)
        outcome: dict[str, Any] = {"ok": reason is None, "duration_ns": time.monotonic_ns() - self._started_ns}
        if reason is not None:
            outcome["error"] = reason
        return outcome


class TaskSpan(_Span):
    """See Emitter.task. `id` is the task's name."""

    def __init__(self, emitter: Emitter, name: str, fields: Mapping[str, Any]) -> None:
        super().__init__(emitter, fields)
        self.id = name
        self._token: Token[str | None] | None = None

    def emit(self, type: str, /, **fields: Any) -> bool:
        """Send one event of this task; see Emitter.emit."""
        return self._emitter.emit(type, **{"task": self.id, **fields})

    def task(self, name: str, /, **fields: Any) -> TaskSpan:
        """A task below this one; see Emitter.task."""
        return self._emitter.task(name, **{"parent": self.id, **fields})

    def tool(self, name: str, /, args: Any = None, **fields: Any) -> ToolSpan:
        """A tool call of this task; see Emitter.tool."""
        return self._emitter.tool(name, args, **{"task": self.id, **fields})

    def model(self, name: str, /, **fields: Any) -> ModelSpan:
        """A model call of this task; see Emitter.model."""
        return self._emitter.model(name, **{"task": self.id, **fields})

    def __enter__(self) -> TaskSpan:
        self._fields.setdefault("parent", _task.get())
        self._emitter.emit("task_started", task=self.id, **self._fields)
        self._token = _task.set(self.id)
        self._started_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            with contextlib.suppress(ValueError):  # left in another context than entered (a generator)
                _task.reset(self._token)
        outcome = self._outcome(error)
        ended = "task_completed" if outcome["ok"] else "task_failed"
        if error is not None and not isinstance(error, Exception):
            ended = "task_cancelled"  # CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit
        self._emitter.emit(ended, task=self.id, **{**self._fields, **outcome})


class ToolSpan(_Span):
    """See Emitter.tool. `call` is the id that ties the two events together."""

    def __init__(self, emitter: Emitter, name: str, args: Any, fields: Mapping[str, Any]) -> None:
        super().__init__(emitter, fields)
        self._fields["tool"] = name
        self.call = str(self._fields.setdefault("call", secrets.token_hex(8)))
        if args is not None:
            self._fields["args_hash"], self._fields["args_len"] = canonical_hash(args)
        self._result: dict[str, Any] = {}

    def result(self, value: Any) -> None:
        """Note what the tool returned (hashed). Without it the event has no result, which equals nothing."""
        self._result["result_hash"], self._result["result_len"] = canonical_hash(value)

    def __enter__(self) -> ToolSpan:
        self._emitter.emit("tool_called", **self._fields)
        self._started_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._emitter.emit("tool_returned", **{**self._fields, **self._result, **self._outcome(error)})


class ModelSpan(_Span):
    """See Emitter.model."""

    def __init__(self, emitter: Emitter, name: str, fields: Mapping[str, Any]) -> None:
        super().__init__(emitter, fields)
        self._fields["model"] = name
        self.call = str(self._fields.setdefault("call", secrets.token_hex(8)))

    def usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_nusd: int | None = None,
        **fields: Any,
    ) -> bool:
        """Log what the call used: `token_cost_logged`. Without `cost_nusd` Argus prices it from its table."""
        return self._emitter.emit(
            "token_cost_logged",
            **{
                **self._fields,
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "cost_nusd": cost_nusd,
                **fields,
            },
        )

    def __enter__(self) -> ModelSpan:
        self._emitter.emit("model_called", **self._fields)
        self._started_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._emitter.emit("model_returned", **{**self._fields, **self._outcome(error)})


# -- checks ------------------------------------------------------------------------------------------------------------


def _fill(event: dict[str, Any], type_name: str, fields: Mapping[str, Any]) -> None:
    """Put checked fields into the event, unknown scalars into `attrs`."""
    if type_name.__class__ is not str or not 0 < len(type_name.encode("utf-8", "replace")) <= 48:
        raise UsageError(f"emit: expected a type of 1 to 48 bytes, found {type_name!r}; not sent.")
    extra: dict[str, Any] = {}
    for key, value in fields.items():
        if value is None:
            continue
        limit = _TEXT.get(key)
        if limit is not None:
            # Most text is far below its limit and needs no encoding to know it.
            if value.__class__ is not str or len(value) * 4 > limit:
                value = _text(f"emit({type_name!r})", key, value, limit)
            event[key] = value
        elif key in _WHOLE:
            if value.__class__ is not int or not 0 <= value <= _INT_MAX:
                raise _wrong(type_name, key, "a whole number from 0 to 2^63-1", value)
            event[key] = value
        elif key in _TRUTH:
            if value.__class__ is not bool:
                raise _wrong(type_name, key, "True or False", value)
            event[key] = value
        elif key == "cost_nusd":
            if value.__class__ is not int or not -_INT_MAX <= value <= _INT_MAX:
                raise _wrong(type_name, key, "a whole number of nano-USD (1e-9 USD)", value)
            event[key] = value
        elif key == "score":
            if value.__class__ not in (int, float) or not isfinite(value):
                raise _wrong(type_name, key, "a finite number", value)
            event[key] = float(value)
        elif key == "entities":
            event[key] = _entities(type_name, value)
        elif key == "attrs":
            if not isinstance(value, Mapping):
                raise _wrong(type_name, key, "a map of scalars", value)
            extra.update(value)
        elif key in _OURS:
            raise _wrong(type_name, key, "no such key: the emitter sets it", value)
        else:
            extra[key] = value
    if extra:
        event["attrs"] = _attributes(type_name, extra)


def _require(event: Mapping[str, Any], type_name: str) -> None:
    if type_name.startswith(("task_", "tool_", "file_")):
        key = "path" if type_name[0] == "f" else type_name[:4]
        if key not in event:
            raise UsageError(f"emit({type_name!r}): expected {key}=..., found none; not sent.")
    elif type_name == "token_cost_logged" and "cost_nusd" not in event and not any(key in event for key in _TOKENS):
        raise UsageError(f"emit({type_name!r}): expected cost_nusd or a number of tokens, found neither; not sent.")


def _text(where: str, key: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key}: expected text, found {value!r:.80}; not sent.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"{where}: {key}: expected text that UTF-8 can hold, found {error}; not sent.") from error
    if size > limit:
        raise UsageError(f"{where}: {key}: expected at most {limit} bytes, found {size}; not sent.")
    return str(value)


def _entities(type_name: str, value: object) -> list[str]:
    if not isinstance(value, (list, tuple)) or len(value) > 32:
        raise _wrong(type_name, "entities", "a list of at most 32 hashes", value)
    return [_text(f"emit({type_name!r})", "entities", item, 128) for item in value]


def _attributes(type_name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    if len(extra) > _ATTRS_MAX:
        raise UsageError(
            f"emit({type_name!r}): attrs: expected at most {_ATTRS_MAX} entries, found {len(extra)}; not sent."
        )
    attributes: dict[str, Any] = {}
    where = f"emit({type_name!r})"
    for key, value in extra.items():
        _text(where, "attrs", key, _ATTR_KEY_BYTES_MAX)
        if value is None:
            continue
        if isinstance(value, str):
            value = _text(where, f"attrs.{key}", value, _ATTR_BYTES_MAX)
        elif isinstance(value, bool):
            value = bool(value)
        elif isinstance(value, int):
            if not -_INT_MAX - 1 <= value <= _INT_MAX:
                raise _wrong(type_name, f"attrs.{key}", "an integer of 64 bits", value)
            value = int(value)
        elif isinstance(value, float):
            if not isfinite(value):
                raise _wrong(type_name, f"attrs.{key}", "a finite number", value)
            value = float(value)
        else:
            raise _wrong(type_name, f"attrs.{key}", "text, a number or True/False", value)
        attributes[key] = value
    return attributes


def _wrong(type_name: str, key: str, expected: str, found: object) -> UsageError:
    return UsageError(f"emit({type_name!r}): {key}: expected {expected}, found {found!r:.80}; not sent.")


def _clip(text: str) -> str:
    return text.encode("utf-8", "replace")[:128].decode("utf-8", "ignore")


# -- the process's beginning and end -----------------------------------------------------------------------------------


def _close_reference(reference: weakref.ref[Emitter]) -> None:
    emitter = reference()
    if emitter is not None:
        emitter.close()


@atexit.register
def _close_all() -> None:
    for emitter in list(_live):
        emitter.close()


def _after_fork() -> None:
    """In the child: another source and boot, an own socket; the parent's socket is neither used nor closed."""
    for emitter in list(_live):
        _inherited.append((emitter._socket, emitter._context))
        closed = emitter._closed
        emitter._begin()
        emitter._closed = closed


os.register_at_fork(after_in_child=_after_fork)
