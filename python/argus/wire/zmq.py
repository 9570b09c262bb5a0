"""ZeroMQ: events in, records out, commands between `argus` and its collector.

Out: XPUB, topic `v1.<kind>.<severity>.<family>.<host>`, frames (topic, [epoch, seq, time_ns, count], list of
records) in msgpack. `seq` counts records per kind from 1 within an epoch (the publisher's start, ns) and is that of
the frame's first record; a heartbeat each second carries the last seq of every kind, so that a subscriber sees loss
at the tail as well. The publisher never waits: what a slow subscriber did not take is counted, the others still get
it, and the ROUTER beside the XPUB gives it again by seq, as far as the ring reaches.

In: PULL and SUB sockets of at most 1 MiB a frame; one private ipc PULL per session, whose endpoint is its credential.

Only loopback and ipc endpoints are opened here: without CURVE, anyone on the network could forge events or read
records.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import secrets
import shutil
import socket as std_socket
import stat
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import zmq

from argus import errors
from argus.errors import ArgusError, RefusedError, UnreachableError, UsageError
from argus.schema import Anomaly, Flag, Incident, Issue, Priority, Severity, StopKind

FRAME_BYTES_MAX: Final = 1 << 20
KINDS: Final = ("anomaly", "incident", "flag", "issue")
HEARTBEAT_S: Final = 1.0

_STATUS_TOPIC: Final = b"v1.status."
_REPLY_BYTES_MAX: Final = 8 << 20
_IPC_PATH_BYTES_MAX: Final = 107
_BATCH_RECORDS_MAX: Final = 256

Published = Anomaly | Incident | Flag | Issue

_encoder: Final = msgspec.msgpack.Encoder()
_head_decoder: Final = msgspec.msgpack.Decoder(tuple[int, int, int, int])
_raw_list_decoder: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_any_decoder: Final = msgspec.msgpack.Decoder()
_seqs_decoder: Final = msgspec.msgpack.Decoder(dict[str, int])
_RECORD_DECODERS: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "anomaly": msgspec.msgpack.Decoder(Anomaly),
    "incident": msgspec.msgpack.Decoder(Incident),
    "flag": msgspec.msgpack.Decoder(Flag),
    "issue": msgspec.msgpack.Decoder(Issue),
}


class _Closing:
    """A `with` block that closes what it holds."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Records that were published and did not arrive here.

    `first` and `count` say which (seq per kind and epoch). `reason`: `lost` = a later record shows the hole, `tail` = a
    heartbeat does, `restart` = the publisher began a new epoch: what it still sent in the old one is unknown (count 0).
    """

    kind: str
    epoch: int
    first: int
    count: int
    reason: str


class Frame(NamedTuple):
    """A frame of events as it came; `credential` is the session's private endpoint, "" for the shared sockets."""

    data: bytes
    credential: str


# -- endpoints ---------------------------------------------------------------------------------------------------------


def require_local(endpoint: str, where: str) -> None:
    """Refuse an endpoint that another machine could reach.

    Raises
    ------
    UsageError : not an endpoint
    RefusedError : neither loopback TCP nor ipc nor inproc
    """
    scheme, found, rest = endpoint.partition("://")
    if not found or scheme not in ("tcp", "ipc", "inproc") or not rest:
        raise UsageError(f"{where}: expected tcp://127.0.0.1:PORT or ipc://PATH, found {endpoint!r}; not opened.")
    if scheme != "tcp":
        return
    host = rest.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RefusedError(
            f"{where}: expected a loopback address or ipc://, found {endpoint!r}, which other machines can "
            "reach without "
            "proving who they are (no CURVE here); not opened. Use tcp://127.0.0.1:PORT, and ssh -L for a "
            "remote reader."
        )


def private_directory(folder: Path, where: str) -> None:
    """Create `folder` (0700), or refuse one that another user owns or may write into."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise UnreachableError(
            f"{where}: expected to create {folder}, found {error.strerror}; not opened. Check its owner and free space."
        ) from error
    if about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise RefusedError(
            f"{where}: expected {folder} to be owned by uid {os.geteuid()} and writable by nobody else, found uid "
            f"{about.st_uid}, mode {stat.S_IMODE(about.st_mode):04o}; not opened. chmod 700 it, or choose "
            "another home (ARGUS_HOME)."
        )


def _limit(socket: zmq.Socket[bytes], queue_limit: int) -> None:
    """Every limit that libzmq leaves open by default."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, queue_limit)
    socket.setsockopt(zmq.RCVHWM, queue_limit)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6_000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 10_000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)


def _bind(socket: zmq.Socket[bytes], endpoint: str, where: str, key: str) -> str:
    """Bind, and say where; errors name the endpoint and what to do."""
    require_local(endpoint, where)
    if endpoint.startswith("ipc://"):
        _bind_ipc(socket, Path(endpoint.removeprefix("ipc://")), where)
        return endpoint
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        port = endpoint.rpartition(":")[2]
        if error.errno == errno.EADDRINUSE:
            raise RefusedError(
                f"{where}: expected to bind {endpoint}, found the port in use; not opened. See who has it: "
                f"ss -ltnp 'sport = :{port}'; stop it, or set {key} to another port."
            ) from error
        raise UnreachableError(
            f"{where}: expected to bind {endpoint}, found {error.strerror}; not opened. Set {key} to an address "
            "of this "
            f"machine."
        ) from error
    return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]


def _bind_ipc(socket: zmq.Socket[bytes], path: Path, where: str) -> None:
    private_directory(path.parent, where)
    if len(os.fsencode(path)) > _IPC_PATH_BYTES_MAX:
        raise UsageError(
            f"{where}: expected a socket path of at most {_IPC_PATH_BYTES_MAX} bytes, found {len(os.fsencode(path))}: "
            f"{str(path)!r}; not opened. Use a shorter home (ARGUS_HOME)."
        )
    # libzmq unlinks what is there before it binds: a living socket would lose its name without a word.
    if _answers(path):
        raise RefusedError(
            f"{where}: expected to bind ipc://{path}, found another process listening there; not opened. Is a "
            f"collector running on this home (ARGUS_HOME)? See `argus status`, or: ss -lxp | grep {path.name}"
        )
    if path.exists() and not path.is_socket():
        raise RefusedError(f"{where}: expected {path} to be a socket or absent, found another file; not opened.")
    before = os.umask(0o077)
    try:
        socket.bind(f"ipc://{path}")
        path.chmod(0o600)
    except (zmq.ZMQError, OSError) as error:
        raise UnreachableError(f"{where}: expected to bind ipc://{path}, found {error}; not opened.") from error
    finally:
        os.umask(before)


def _answers(path: Path) -> bool:
    with std_socket.socket(std_socket.AF_UNIX, std_socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


# -- out: publisher and replay -----------------------------------------------------------------------------------------


def kind_of(record: Published) -> str:
    """`anomaly`, `incident`, `flag` or `issue`."""
    return type(record).__name__.lower()


def topic_of(record: Published, host: str) -> str:
    """Topic of a record; family is `-` where a record has none. The host comes last, for it may hold dots."""
    if isinstance(record, Anomaly):
        severity, family = record.severity, str(record.family)
    elif isinstance(record, Incident):
        severity, family = record.severity, "-"
    elif isinstance(record, Flag):
        severity = Severity.CRITICAL if record.kind == StopKind.HARD_KILL else Severity.WARNING
        family = "-"
    else:
        severity = Severity.CRITICAL if record.priority == Priority.P0 else Severity.WARNING
        family = "-"
    return f"v1.{kind_of(record)}.{severity}.{family}.{host}"


class _Sent(NamedTuple):
    first: int
    records: int
    frames: tuple[bytes, bytes, bytes]


class Publisher(_Closing):
    """Publishes records on an XPUB socket; never waits for a subscriber. For one thread.

    Parameters
    ----------
    endpoint : tcp://127.0.0.1:PORT (0 = a free one) or ipc://PATH
    host : name of this machine in the topics
    queue_limit : frames held for one subscriber; beyond it that subscriber loses frames (and can replay them)
    replay_frames, replay_bytes : what the ring keeps per kind for replay
    context : ZeroMQ context; None = a private one

    Raises
    ------
    RefusedError : the port is in use, or the endpoint can be reached from other machines
    UnreachableError : the address is not of this machine
    """

    def __init__(
        self,
        endpoint: str,
        *,
        host: str,
        queue_limit: int = 10_000,
        replay_frames: int = 4096,
        replay_bytes: int = 16 << 20,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self.epoch = clock()
        self.host = re.sub(r"[^A-Za-z0-9_.-]", "_", host)[:128] or "-"
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._seq = dict.fromkeys(KINDS, 0)
        self._ring: dict[str, deque[_Sent]] = {kind: deque() for kind in KINDS}
        self._ring_bytes = dict.fromkeys(KINDS, 0)
        self._replay_frames, self._replay_bytes = replay_frames, replay_bytes
        self._dropped = self._dropped_heartbeats = self._oversize = self._sent = 0
        self._socket = self._context.socket(zmq.XPUB)
        try:
            _limit(self._socket, queue_limit)
            self._socket.setsockopt(zmq.XPUB_NODROP, 1)
            self.endpoint = _bind(self._socket, endpoint, "wire.zmq.Publisher", "outlets.zmq.endpoint")
        except BaseException:
            self.close()
            raise

    @property
    def dropped_heartbeats(self) -> int:
        """Heartbeats refused because a subscriber's queue was found full."""
        return self._dropped_heartbeats

    @property
    def dropped(self) -> int:
        """Records refused because a subscriber's queue was found full: a lower bound.

        libzmq leaves a full queue out, without a word, until its reader has caught up; how much it lost in the meantime
        its own `Subscription.lost` counts exactly, from seq and heartbeats, and the replay gives it again.
        """
        return self._dropped

    @property
    def oversize(self) -> int:
        """Records beyond 1 MiB that were not published at all."""
        return self._oversize

    @property
    def sent(self) -> int:
        """Records published since start."""
        return self._sent

    def last_seq(self) -> dict[str, int]:
        """Last seq of every kind in this epoch; 0 = none yet."""
        return dict(self._seq)

    def publish(self, records: Published | Iterable[Published]) -> int:
        """Publish records; neighbours with one topic share a frame.

        Returns
        -------
        records published; what is larger than 1 MiB is not, and counted in `oversize`
        """
        self._drain_subscriptions()
        done = 0
        batch: list[bytes] = []
        size = 0
        topic = kind = ""
        for record in (records,) if isinstance(records, Published) else records:
            data = _encoder.encode(record)
            if len(data) > FRAME_BYTES_MAX - 64:
                self._oversize += 1
                continue
            its_topic = topic_of(record, self.host)
            if batch and (
                its_topic != topic or len(batch) >= _BATCH_RECORDS_MAX or size + len(data) > FRAME_BYTES_MAX - 64
            ):
                done += self._send(kind, topic, batch)
                batch, size = [], 0
            topic, kind = its_topic, kind_of(record)
            batch.append(data)
            size += len(data)
        if batch:
            done += self._send(kind, topic, batch)
        return done

    def heartbeat(self) -> None:
        """Say the last seq of every kind; call it each second."""
        self._drain_subscriptions()
        head = _encoder.encode((self.epoch, 0, self._clock(), 0))
        body = _encoder.encode(self._seq)
        if not self._offer((_STATUS_TOPIC + b"info.-." + self.host.encode(), head, body)):
            self._dropped_heartbeats += 1

    def replay(
        self, kind: str, from_seq: int, to_seq: int | None = None
    ) -> tuple[list[tuple[bytes, bytes, bytes]], bool]:
        """Frames of `kind` from the ring that hold a seq in [from_seq, to_seq]; the second value: there are more."""
        frames: list[tuple[bytes, bytes, bytes]] = []
        size = 0
        for sent in self._ring[kind]:
            if sent.first + sent.records <= from_seq:
                continue
            if to_seq is not None and sent.first > to_seq:
                break
            size += sum(map(len, sent.frames))
            if frames and (size > _REPLY_BYTES_MAX or len(frames) >= 256):
                return frames, True
            frames.append(sent.frames)
        return frames, False

    def oldest_seq(self, kind: str) -> int:
        """First seq that the ring can replay."""
        ring = self._ring[kind]
        return ring[0].first if ring else self._seq[kind] + 1

    def close(self) -> None:
        """Close; a private context takes the sockets of its replay servers with it."""
        self._socket.close(linger=200)
        if self._own_context:
            self._context.destroy(linger=0)

    def _send(self, kind: str, topic: str, batch: list[bytes]) -> int:
        first = self._seq[kind] + 1
        self._seq[kind] += len(batch)
        head = _encoder.encode((self.epoch, first, self._clock(), len(batch)))
        frames = (topic.encode(), head, array_header(len(batch)) + b"".join(batch))
        ring = self._ring[kind]
        ring.append(_Sent(first, len(batch), frames))
        self._ring_bytes[kind] += len(frames[2])
        while len(ring) > self._replay_frames or (self._ring_bytes[kind] > self._replay_bytes and len(ring) > 1):
            self._ring_bytes[kind] -= len(ring.popleft().frames[2])
        if not self._offer(frames):
            self._dropped += len(batch)
        self._sent += len(batch)
        return len(batch)

    def _offer(self, frames: tuple[bytes, bytes, bytes]) -> bool:
        """Send to every subscriber that has room; False when one had none.

        With NODROP a single full queue refuses the frame for all, which would let one stuck reader silence Argus.
        So the refusal is counted, and the frame sent again with NODROP off: the full queue alone loses it.
        """
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT, copy=True)
        except zmq.Again:
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            try:
                with contextlib.suppress(zmq.Again):
                    self._socket.send_multipart(frames, zmq.DONTWAIT, copy=True)
            finally:
                self._socket.setsockopt(zmq.XPUB_NODROP, 1)
            return False
        return True

    def _drain_subscriptions(self) -> None:
        # XPUB queues one message for each subscription change; unread they would pile up.
        with contextlib.suppress(zmq.Again):
            for _ in range(1000):
                self._socket.recv(zmq.DONTWAIT)


class ReplayServer(_Closing):
    """ROUTER beside a publisher: gives frames again by seq. Call `poll` from the publisher's thread.

    A request is msgpack `{"class": kind, "epoch": int, "from_seq": int, "to_seq": int | absent}`; class "" asks for the
    epoch and last seqs only. The reply is a header map `{ok, epoch, class, oldest, last, more, error}` followed by the
    frames (topic, head, body of each).
    """

    def __init__(self, publisher: Publisher, endpoint: str, *, queue_limit: int = 64) -> None:
        self._publisher = publisher
        self._socket = publisher._context.socket(zmq.ROUTER)
        self.requests = self.malformed = self.dropped = 0
        try:
            _limit(self._socket, queue_limit)
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._socket.setsockopt(zmq.MAXMSGSIZE, 4096)
            self.endpoint = _bind(self._socket, endpoint, "wire.zmq.ReplayServer", "outlets.zmq.replay_endpoint")
        except BaseException:
            self.close()
            raise

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """For a poller."""
        return self._socket

    def poll(self, max_requests: int = 8) -> int:
        """Answer what waits, at most so many; never blocks. Returns how many were answered."""
        answered = 0
        for _ in range(max_requests):
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            self.requests += 1
            reply = self._answer(parts[-1]) if len(parts) >= 2 else None
            if reply is None:
                self.malformed += 1
                continue
            try:
                self._socket.send_multipart([parts[0], b"", *reply], zmq.DONTWAIT)
                answered += 1
            except zmq.ZMQError:
                self.dropped += 1
        return answered

    def close(self) -> None:
        self._socket.close(linger=0)

    def _answer(self, request: bytes) -> list[bytes] | None:
        publisher = self._publisher
        try:
            asked = _any_decoder.decode(request)
            kind, epoch = asked["class"], asked["epoch"]
            first, last = asked.get("from_seq", 1), asked.get("to_seq")
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError, AttributeError):
            return None
        if type(epoch) is not int or type(first) is not int or not (last is None or type(last) is int):
            return None
        about = {"ok": True, "epoch": publisher.epoch, "class": kind, "last": publisher.last_seq(), "more": False}
        if kind == "":
            return [_encoder.encode(about)]
        if kind not in KINDS:
            return None
        if epoch != publisher.epoch:
            return [_encoder.encode(about | {"ok": False, "error": "another epoch"})]
        frames, more = publisher.replay(kind, first, last)
        about |= {"oldest": publisher.oldest_seq(kind), "more": more}
        return [_encoder.encode(about), *(part for frame in frames for part in frame)]


def array_header(count: int) -> bytes:
    """msgpack header of an array of `count` items (at most 65,535)."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


# -- out: subscriber ---------------------------------------------------------------------------------------------------


class _Track:
    """What is known of one kind in the present epoch: `next` is the seq expected, None before the first frame."""

    __slots__ = ("next",)

    def __init__(self, expected: int | None) -> None:
        self.next = expected


class Subscription(_Closing):
    """Iterator over what a collector publishes; made by `subscribe`. For one thread; close it, or use it in a `with`.

    `heard` tells whether anything, a heartbeat included, has come; `malformed` counts frames and records that could
    not be read (another version), `lost` the records that gaps named.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[str],
        timeout_s: float | None,
        replay_endpoint: str | None,
        on_gap: Callable[[Gap], None] | None,
        queue_limit: int,
        context: zmq.Context[zmq.Socket[bytes]] | None,
    ) -> None:
        require_local(endpoint, "subscribe")
        if replay_endpoint is not None:
            require_local(replay_endpoint, "subscribe")
        self.endpoint = endpoint
        self.heard = False
        self.malformed = self.lost = 0
        self.epoch = 0
        self._prefixes = [topic.encode() for topic in topics]
        self._timeout_s = timeout_s
        self._replay_endpoint = replay_endpoint
        self._on_gap = on_gap
        self._ready: deque[Published | Gap] = deque()
        self._tracks: dict[str, _Track] = {}
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._closed = False
        self._socket = self._context.socket(zmq.SUB)
        try:
            _limit(self._socket, queue_limit)
            # Whole kinds are subscribed and narrower topics filtered here: seq counts per kind, and a filter at the
            # publisher would look like loss.
            for kind in self._wanted_kinds():
                self._socket.setsockopt(zmq.SUBSCRIBE, f"v1.{kind}.".encode())
                self._tracks[kind] = _Track(None)
            self._socket.setsockopt(zmq.SUBSCRIBE, _STATUS_TOPIC)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(
                f"subscribe: expected an endpoint, found {endpoint!r} ({error}); not connected."
            ) from error

    def __iter__(self) -> Iterator[Published | Gap]:
        return self

    def __next__(self) -> Published | Gap:
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while not self._ready:
            if self._closed:
                raise StopIteration
            wait_ms = None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
            if not self._socket.poll(wait_ms):
                if deadline is not None and time.monotonic() >= deadline:
                    raise StopIteration
                continue
            self._take(self._socket.recv_multipart())
            if deadline is not None and not self._ready and time.monotonic() >= deadline:
                raise StopIteration
        return self._ready.popleft()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.close(linger=0)
            if self._own_context:
                self._context.term()

    def __del__(self) -> None:
        # An abandoned `for x in subscribe(...)` must not leak its sockets.
        if not getattr(self, "_closed", True):
            self.close()

    def _wanted_kinds(self) -> list[str]:
        if not self._prefixes:
            return list(KINDS)
        wanted = []
        for kind in KINDS:
            whole = f"v1.{kind}.".encode()
            if any(whole.startswith(prefix) or prefix.startswith(whole) for prefix in self._prefixes):
                wanted.append(kind)
        return wanted

    def _take(self, parts: list[bytes]) -> None:
        self.heard = True
        try:
            topic, head, body = parts
            epoch, seq, _, count = _head_decoder.decode(head)
            if topic.startswith(_STATUS_TOPIC):
                self._on_heartbeat(epoch, _seqs_decoder.decode(body))
                return
            kind = topic.split(b".", 2)[1].decode()
            records = _raw_list_decoder.decode(body)
        except (ValueError, IndexError, msgspec.MsgspecError):
            self.malformed += 1
            return
        track = self._tracks.get(kind)
        if track is None or seq < 1 or count != len(records):
            self.malformed += 1
            return
        if not self._enter_epoch(epoch):
            return
        if track.next is not None and seq > track.next:
            self._missing(kind, track, seq - 1, "lost")
        self._accept(kind, track, topic, seq, records)

    def _on_heartbeat(self, epoch: int, last: dict[str, int]) -> None:
        if not self._enter_epoch(epoch):
            return
        for kind, track in self._tracks.items():
            seq = last.get(kind, 0)
            if track.next is None:
                track.next = seq + 1
            elif seq >= track.next:
                self._missing(kind, track, seq, "tail")

    def _enter_epoch(self, epoch: int) -> bool:
        """False for a frame of an epoch that is over."""
        if epoch == self.epoch:
            return True
        if epoch < self.epoch:
            self.malformed += 1
            return False
        if self.epoch:
            self._report(Gap(kind="*", epoch=epoch, first=0, count=0, reason="restart"))
            for track in self._tracks.values():
                track.next = 1  # subscribed before it began, so everything from its first record on is ours
        self.epoch = epoch
        return True

    def _accept(self, kind: str, track: _Track, topic: bytes, seq: int, records: list[msgspec.Raw]) -> None:
        expected = seq if track.next is None else track.next
        wanted = not self._prefixes or any(topic.startswith(prefix) for prefix in self._prefixes)
        for raw in records[max(0, expected - seq) :] if wanted else []:
            try:
                self._ready.append(_RECORD_DECODERS[kind].decode(raw))
            except (msgspec.MsgspecError, ValueError):
                self.malformed += 1
        track.next = max(expected, seq + len(records))

    def _missing(self, kind: str, track: _Track, last: int, reason: str) -> None:
        """Records track.next..last did not come: fetch what the ring still has, and report the rest."""
        assert track.next is not None
        if self._replay_endpoint is not None:
            for topic, seq, records in self._fetch(kind, track.next, last):
                if seq > track.next:
                    self._lose(kind, track, seq - 1, reason)
                self._accept(kind, track, topic, seq, records[: last + 1 - seq])
        if track.next <= last:
            self._lose(kind, track, last, reason)

    def _lose(self, kind: str, track: _Track, last: int, reason: str) -> None:
        assert track.next is not None
        count = last + 1 - track.next
        self.lost += count
        self._report(Gap(kind=kind, epoch=self.epoch, first=track.next, count=count, reason=reason))
        track.next = last + 1

    def _report(self, gap: Gap) -> None:
        if self._on_gap is not None:
            self._on_gap(gap)
        else:
            self._ready.append(gap)

    def _fetch(self, kind: str, first: int, last: int) -> Iterator[tuple[bytes, int, list[msgspec.Raw]]]:
        """Frames of the ring that cover [first, last], in order; ends early when the server does not answer in 1 s."""
        dealer = self._context.socket(zmq.DEALER)
        try:
            _limit(dealer, 16)
            dealer.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
            dealer.connect(str(self._replay_endpoint))
            while first <= last:
                asked = {"class": kind, "epoch": self.epoch, "from_seq": first, "to_seq": last}
                dealer.send_multipart([b"", _encoder.encode(asked)], zmq.DONTWAIT)
                if not dealer.poll(1000):
                    return
                _, about, *parts = dealer.recv_multipart()
                if not _any_decoder.decode(about).get("ok") or not parts:
                    return
                for topic, head, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
                    _, seq, _, count = _head_decoder.decode(head)
                    yield topic, seq, _raw_list_decoder.decode(body)
                    first = max(first, seq + count)
        except (zmq.ZMQError, ValueError, AttributeError, msgspec.MsgspecError):
            self.malformed += 1
        finally:
            dealer.close(linger=0)


def subscribe(
    endpoint: str = "tcp://127.0.0.1:6162",
    topics: Sequence[str] = (),
    *,
    timeout_s: float | None = None,
    replay_endpoint: str | None = None,
    on_gap: Callable[[Gap], None] | None = None,
    queue_limit: int = 100_000,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> Subscription:
    """Read what a collector publishes, from now on.

    Parameters
    ----------
    topics : prefixes such as `v1.anomaly.critical`; () = everything
    timeout_s : iteration ends when no record came for so long; None = never
    replay_endpoint : ROUTER of the publisher (default port 6163): holes are filled from its ring
    on_gap : called with each Gap; None = gaps come out of the iterator, in their place
    queue_limit : frames held here while nobody iterates

    Returns
    -------
    Subscription : iterator of Anomaly | Incident | Flag | Issue | Gap; connects now, also when no collector runs yet

    Raises
    ------
    RefusedError : the endpoint is on another machine
    UsageError : not an endpoint
    """
    if isinstance(topics, str):
        topics = (topics,)
    return Subscription(endpoint, topics, timeout_s, replay_endpoint, on_gap, queue_limit, context)


# -- in: events --------------------------------------------------------------------------------------------------------


class InletStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since start: frames and bytes taken, messages refused (more than one part of a PUSH, two of a PUB)."""

    frames: int
    bytes: int
    refused: int
    sessions: int
    frames_by_credential: dict[str, int]


class EventInlet(_Closing):
    """Sockets that agents send events to; drained without blocking by one thread.

    Parameters
    ----------
    pull : endpoints to bind (PULL, one frame a message)
    sub : endpoints to connect to, where somebody publishes (SUB: topic and payload, or payload alone)
    topics : beginnings of the topics to take; () = all. A payload alone is its own topic: it comes only where all do
    allow_remote : connect `sub` also to other machines, whose events nothing proves
    queue_limit : frames held per sender; beyond it a sender's own queue fills, and it counts what it drops

    A frame over 1 MiB is refused by libzmq, which ends that connection; the hole in the sender's seq shows it.

    Raises
    ------
    RefusedError : a port or socket is in use, or reachable from other machines, or its directory is not private
    """

    def __init__(
        self,
        pull: Sequence[str] = ("tcp://127.0.0.1:6160",),
        sub: Sequence[str] = (),
        *,
        topics: Sequence[str] = (),
        allow_remote: bool = False,
        queue_limit: int = 1000,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._topics, self._allow_remote = tuple(topics), allow_remote
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._queue_limit = queue_limit
        self._sockets: dict[str, zmq.Socket[bytes]] = {}  # by endpoint
        self._credentials: dict[str, str] = {}  # endpoint -> credential
        self._folders: dict[str, Path] = {}  # endpoint -> temporary directory to remove
        self._poller = zmq.Poller()
        self._frames = self._bytes = self._refused = self._turn = 0
        self._by_credential: dict[str, int] = {}
        try:
            self.endpoints = [self._open(zmq.PULL, endpoint, "", bind=True) for endpoint in pull]
            for endpoint in sub:
                self._open(zmq.SUB, endpoint, "", bind=False)
        except BaseException:
            self.close()
            raise

    def open_session(self, name: str, directory: str | os.PathLike[str]) -> str:
        """Open a private ipc socket (0600 in a 0700 directory) for one session.

        Parameters
        ----------
        name : used in the file's name, made safe
        directory : where the socket goes; a short temporary directory is used when the path were too long for a socket

        Returns
        -------
        the endpoint, which is the session's credential
        """
        safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:24] or "session"
        file = f"{safe}-{secrets.token_hex(8)}.sock"
        folder = Path(directory).absolute()
        temporary = len(os.fsencode(folder / file)) > _IPC_PATH_BYTES_MAX
        if temporary:
            folder = Path(tempfile.mkdtemp(prefix="argus-", dir=_short_temporary()))
        endpoint = f"ipc://{folder / file}"
        try:
            self._open(zmq.PULL, endpoint, endpoint, bind=True)
        except BaseException:
            if temporary:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if temporary:
            self._folders[endpoint] = folder
        return endpoint

    def close_session(self, endpoint: str) -> None:
        """Close a session's socket and remove its file; what was not drained is gone. Unknown endpoints are ignored."""
        if self._credentials.get(endpoint):
            self._shut(endpoint)

    def wait(self, timeout_ms: int) -> bool:
        """Wait until a frame is there, at most so long."""
        return bool(self._poller.poll(timeout_ms))

    def register(self, poller: zmq.Poller) -> None:
        """Add every socket open now to a poller; sessions opened later are not in it (see `sockets`)."""
        for socket in self._sockets.values():
            poller.register(socket, zmq.POLLIN)

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """Sockets open now."""
        return list(self._sockets.values())

    def drain(self, max_frames: int = 256) -> list[Frame]:
        """Frames that wait, at most so many; never blocks. Each socket has its share first: a flood starves nobody."""
        frames: list[Frame] = []
        ready = [(e, s) for e, s in self._sockets.items() if int(s.getsockopt(zmq.EVENTS)) & zmq.POLLIN]
        if not ready:
            return frames
        self._turn += 1
        start = self._turn % len(ready)
        ready = ready[start:] + ready[:start]
        share = max(1, max_frames // len(ready))
        for quota in (share, max_frames):
            for endpoint, socket in ready:
                self._drain_one(socket, self._credentials[endpoint], min(quota, max_frames - len(frames)), frames)
        return frames

    def statistics(self) -> InletStatistics:
        """Counts since start."""
        return InletStatistics(
            frames=self._frames,
            bytes=self._bytes,
            refused=self._refused,
            sessions=sum(1 for credential in self._credentials.values() if credential),
            frames_by_credential=dict(self._by_credential),
        )

    def close(self) -> None:
        for endpoint in list(self._sockets):
            self._shut(endpoint)
        if self._own_context:
            self._context.term()

    def _open(self, kind: int, endpoint: str, credential: str, *, bind: bool) -> str:
        socket = self._context.socket(kind)
        try:
            _limit(socket, self._queue_limit)
            if bind:
                endpoint = _bind(socket, endpoint, "wire.zmq.EventInlet", "inlets.pull")
            else:
                self._subscribe(socket, endpoint)
        except BaseException:
            socket.close(linger=0)
            raise
        self._sockets[endpoint] = socket
        self._credentials[endpoint] = credential
        self._poller.register(socket, zmq.POLLIN)
        return endpoint

    def _subscribe(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        try:
            require_local(endpoint, "wire.zmq.EventInlet")
        except RefusedError as error:
            if not self._allow_remote:
                raise RefusedError(f"{error} Or set inlets.sub_allow_remote, and trust that network.") from None
        for topic in self._topics or ("",):
            socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        socket.connect(endpoint)

    def _shut(self, endpoint: str) -> None:
        socket = self._sockets.pop(endpoint)
        credential = self._credentials.pop(endpoint)
        self._by_credential.pop(credential, None) if credential else None
        self._poller.unregister(socket)
        socket.close(linger=0)
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
        folder = self._folders.pop(endpoint, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _drain_one(self, socket: zmq.Socket[bytes], credential: str, quota: int, frames: list[Frame]) -> None:
        parts_max = 1 if socket.getsockopt(zmq.TYPE) == zmq.PULL else 2
        for _ in range(quota):
            try:
                parts = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            if len(parts) > parts_max:
                self._refused += 1
                continue
            frames.append(Frame(parts[-1], credential))
            self._frames += 1
            self._bytes += len(parts[-1])
            self._by_credential[credential] = self._by_credential.get(credential, 0) + 1


def _short_temporary() -> str | None:
    """A directory short enough for a socket below it; None = the platform's own."""
    for folder in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if folder and len(os.fsencode(folder)) <= 40 and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


# -- commands ----------------------------------------------------------------------------------------------------------


def command_endpoint(home: str | os.PathLike[str]) -> Path:
    """Where the collector of `home` listens for commands."""
    return Path(home).absolute() / "collector.sock"


class _ShortPath:
    """A name for a socket that fits into a socket address: the path itself, or one through a held directory handle."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.path = path
        if len(os.fsencode(path)) > _IPC_PATH_BYTES_MAX:
            self.descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.path = Path(f"/proc/self/fd/{self.descriptor}/{path.name}")

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class CommandServer(_Closing):
    """Answers requests of `argus` on `<home>/collector.sock` (0600, directory 0700). Call `poll` from the main loop.

    Raises
    ------
    RefusedError : another collector listens there, or the directory is not private
    """

    def __init__(self, home: str | os.PathLike[str], *, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self.path = command_endpoint(home)
        private_directory(self.path.parent, "wire.zmq.CommandServer")
        self.requests = self.malformed = self.dropped = 0
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._short = _ShortPath(self.path)
        self._bound = False
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            _limit(self._socket, 256)
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            _bind_ipc(self._socket, self._short.path, "wire.zmq.CommandServer")
            self._bound = True
        except BaseException:
            self.close()
            raise

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """For a poller."""
        return self._socket

    def poll(self, handler: Callable[[dict[str, Any]], Mapping[str, Any]], max_requests: int = 16) -> int:
        """Answer what waits, at most so many; never blocks.

        Parameters
        ----------
        handler : request -> reply; an ArgusError that it raises reaches the caller as the same error

        Returns
        -------
        requests answered
        """
        answered = 0
        for _ in range(max_requests):
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            self.requests += 1
            try:
                peer, number, body = parts
                request = _any_decoder.decode(body)
                if not isinstance(request, dict):
                    raise ValueError("not a map")
            except (ValueError, msgspec.MsgspecError):
                self.malformed += 1
                continue
            try:
                self._socket.send_multipart([peer, number, self._reply(handler, request)], zmq.DONTWAIT)
                answered += 1
            except zmq.ZMQError:
                self.dropped += 1
        return answered

    @staticmethod
    def _reply(handler: Callable[[dict[str, Any]], Mapping[str, Any]], request: dict[str, Any]) -> bytes:
        try:
            return _encoder.encode({"reply": handler(request)})
        except ArgusError as error:
            return _encoder.encode({"error": str(error), "type": type(error).__name__})
        except Exception as error:  # a bad request must not stop the collector
            return _encoder.encode({"error": f"collector: the request failed: {error!r}", "type": "ArgusError"})

    def close(self) -> None:
        self._socket.close(linger=200)
        if self._own_context:
            self._context.term()
        if self._bound:
            self.path.unlink(missing_ok=True)
            self._bound = False
        self._short.close()


class CommandClient:
    """Asks the collector of `home`; see CommandServer.

    Parameters
    ----------
    timeout_s : how long `request` waits for its answer
    """

    def __init__(self, home: str | os.PathLike[str], *, timeout_s: float = 2.0) -> None:
        self.path = command_endpoint(home)
        self.timeout_s = timeout_s

    def request(self, request: Mapping[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        """Send one request and wait for its reply.

        Raises
        ------
        UnreachableError : no collector answered in time
        RefusedError, UsageError, … : what the collector raised
        """
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        body = _encoder.encode(request)
        if not self.path.is_socket():
            raise UnreachableError(
                f"{self.path}: expected a running collector, found no socket; nothing asked. Start "
                "`argus-collect`, or name its home with ARGUS_HOME."
            )
        short = _ShortPath(self.path)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        try:
            _limit(socket, 16)
            socket.connect(f"ipc://{short.path}")
            number = secrets.token_bytes(8)
            socket.send_multipart([number, body], zmq.DONTWAIT)
            answer = self._await(socket, number, time.monotonic() + wait_s)
        except zmq.ZMQError as error:
            raise UnreachableError(
                f"{self.path}: expected to reach the collector, found {error}; nothing asked."
            ) from error
        finally:
            socket.close(linger=0)
            context.term()
            short.close()
        if answer is None:
            raise UnreachableError(
                f"{self.path}: expected an answer of the collector in {wait_s:g} s, found none; it may be "
                "stopped or hung. "
                f"Stops by `argus trip` work without it."
            )
        if "error" in answer:
            kind = getattr(errors, str(answer.get("type")), ArgusError)
            known = isinstance(kind, type) and issubclass(kind, ArgusError)
            raise (kind if known else ArgusError)(str(answer["error"]))
        reply: dict[str, Any] = answer["reply"]
        return reply

    @staticmethod
    def _await(socket: zmq.Socket[bytes], number: bytes, deadline: float) -> dict[str, Any] | None:
        while (left := deadline - time.monotonic()) > 0:
            if not socket.poll(max(1, round(left * 1000))):
                break
            parts = socket.recv_multipart()
            if len(parts) == 2 and parts[0] == number:
                answer: dict[str, Any] = _any_decoder.decode(parts[1])
                return answer
        return None
