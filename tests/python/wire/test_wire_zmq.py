"""ZeroMQ: a publisher that never waits, loss that is always seen, private sockets, and typed refusals."""

from __future__ import annotations

import os
import socket as std_socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
import zmq

from argus.errors import ArgusError, RefusedError, UnreachableError, UsageError
from argus.schema import (
    Anomaly,
    Family,
    Flag,
    Incident,
    Issue,
    Priority,
    Scope,
    ScopeKind,
    Severity,
    StopKind,
)  # fmt: skip
from argus.wire.zmq import (
    CommandClient,
    CommandServer,
    EventInlet,
    Gap,
    Publisher,
    ReplayServer,
    Subscription,
    require_local,
    subscribe,
    topic_of,
)

_SCOPE = Scope(ScopeKind.SESSION, "s")


def anomaly(number: int, severity: Severity = Severity.WARNING, text: str = "") -> Anomaly:
    return Anomaly(
        id=f"a{number}", ts=number, host="h", family=Family.HOST, detector="d", scope=_SCOPE, series="x",
        severity=severity, message=text,
    )  # fmt: skip


def incident() -> Incident:
    return Incident(id="i", key="k", ts=1, updated=2, host="h", scope=_SCOPE, cause="c", severity=Severity.CRITICAL)


def flag(kind: StopKind = StopKind.HARD_KILL) -> Flag:
    return Flag(ts=1, host="h", kind=kind, scope=_SCOPE, set=True, reason="r", actor="argus", epoch=1)


def issue() -> Issue:
    return Issue(key="k", priority=Priority.P1, path="p", incident=incident(), first_seen=1, last_seen=2, count=1)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path / 'run' / 'out.sock'}"


def joined(publisher: Publisher, subscription: Subscription, *, attempts: int = 400) -> None:
    """Wait, by heartbeats, until the subscription is in place."""
    for _ in range(attempts):
        publisher.heartbeat()
        if subscription._socket.poll(10):
            subscription._take(subscription._socket.recv_multipart())
            return
    raise AssertionError("never connected")


def collect(subscription: Subscription, count: int) -> list[Any]:
    return [next(subscription) for _ in range(count)]


@pytest.fixture
def pair(endpoint: str) -> Iterator[tuple[Publisher, Subscription]]:
    with Publisher(endpoint, host="h.example") as publisher, subscribe(endpoint, timeout_s=20) as subscription:
        joined(publisher, subscription)
        yield publisher, subscription


# -- publisher and subscriber ------------------------------------------------------------------------------------------


def test_every_kind_arrives_typed_and_in_order(pair: tuple[Publisher, Subscription]) -> None:
    publisher, subscription = pair
    records = [anomaly(1), anomaly(2, Severity.CRITICAL), incident(), flag(), issue(), anomaly(3)]
    assert publisher.publish(records) == 6
    assert publisher.publish(flag(StopKind.WRITE_LOCKDOWN)) == 1
    assert collect(subscription, 7) == [*records, flag(StopKind.WRITE_LOCKDOWN)]
    assert publisher.last_seq() == {"anomaly": 3, "incident": 1, "flag": 2, "issue": 1}
    assert (subscription.heard, subscription.lost, subscription.malformed, publisher.dropped) == (True, 0, 0, 0)


def test_frames_are_as_documented(endpoint: str) -> None:
    with Publisher(endpoint, host="h.example", clock=lambda: 99) as publisher:
        context: zmq.Context[Any] = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.subscribe(b"v1.")
        socket.connect(endpoint)
        while not socket.poll(10):
            publisher.heartbeat()
        while socket.poll(50):
            topic, head, body = socket.recv_multipart()
        assert topic == b"v1.status.info.-.h.example"
        assert msgpack.unpackb(head) == [99, 0, 99, 0]
        assert msgpack.unpackb(body) == {"anomaly": 0, "incident": 0, "flag": 0, "issue": 0}
        publisher.publish([anomaly(1), anomaly(2)])
        publisher.publish(anomaly(3))
        first, second = socket.recv_multipart(), socket.recv_multipart()
        socket.close(0)
        context.term()
    assert first[0] == b"v1.anomaly.warning.host.h.example"
    assert msgpack.unpackb(first[1]) == [99, 1, 99, 2] and msgpack.unpackb(second[1]) == [99, 3, 99, 1]
    assert [record["id"] for record in msgpack.unpackb(first[2])] == ["a1", "a2"]


@pytest.mark.parametrize(
    ("record", "topic"),
    [
        (anomaly(1), "v1.anomaly.warning.host.h"), (incident(), "v1.incident.critical.-.h"),
        (flag(), "v1.flag.critical.-.h"), (flag(StopKind.WRITE_LOCKDOWN), "v1.flag.warning.-.h"),
        (issue(), "v1.issue.warning.-.h"),
    ],
)  # fmt: skip
def test_topics(record: Any, topic: str) -> None:
    assert topic_of(record, "h") == topic


def test_host_name_cannot_break_the_topic(endpoint: str) -> None:
    with Publisher(endpoint, host="bad host\x1b[31m\n.v1") as publisher:
        assert publisher.host == "bad_host__31m_.v1"


def test_narrow_topics_are_filtered_without_false_gaps(endpoint: str) -> None:
    with (
        Publisher(endpoint, host="h") as publisher,
        subscribe(endpoint, ["v1.anomaly.critical", "v1.flag"], timeout_s=20) as subscription,
    ):
        joined(publisher, subscription)
        for number in range(10):
            publisher.publish(anomaly(number, Severity.CRITICAL if number % 5 == 0 else Severity.INFO))
            publisher.publish(incident())
        publisher.publish(flag())
        assert collect(subscription, 3) == [anomaly(0, Severity.CRITICAL), anomaly(5, Severity.CRITICAL), flag()]
        assert subscription.lost == 0


def test_late_joiner_reports_no_gap_for_what_was_before(endpoint: str) -> None:
    with Publisher(endpoint, host="h") as publisher:
        publisher.publish([anomaly(number) for number in range(50)])
        with subscribe(endpoint, timeout_s=20) as subscription:
            joined(publisher, subscription)
            publisher.publish(anomaly(50))
            assert next(subscription) == anomaly(50)
        with subscribe(endpoint, timeout_s=20) as subscription:
            while not subscription._socket.poll(10):
                publisher.publish(anomaly(51))
            assert next(subscription) == anomaly(51)


def skip(publisher: Publisher, records: list[Any]) -> None:
    """Publish into the void: numbered and kept for replay, but not sent."""
    offer = publisher._offer
    publisher._offer = lambda frames: True  # type: ignore[method-assign]
    publisher.publish(records)
    publisher._offer = offer  # type: ignore[method-assign]


def test_hole_is_reported_in_its_place(pair: tuple[Publisher, Subscription]) -> None:
    publisher, subscription = pair
    publisher.publish(anomaly(1))
    skip(publisher, [anomaly(2), anomaly(3)])
    publisher.publish(anomaly(4))
    gap = Gap(kind="anomaly", epoch=publisher.epoch, first=2, count=2, reason="lost")
    assert collect(subscription, 3) == [anomaly(1), gap, anomaly(4)]
    assert subscription.lost == 2


def test_cut_tail_is_found_by_the_heartbeat_alone(pair: tuple[Publisher, Subscription]) -> None:
    publisher, subscription = pair
    publisher.publish(anomaly(1))
    skip(publisher, [anomaly(2), anomaly(3), flag()])
    publisher.heartbeat()
    publisher.heartbeat()
    publisher.publish(incident())
    assert collect(subscription, 4) == [
        anomaly(1),
        Gap(kind="anomaly", epoch=publisher.epoch, first=2, count=2, reason="tail"),
        Gap(kind="flag", epoch=publisher.epoch, first=1, count=1, reason="tail"),
        incident(),
    ]


def test_gaps_go_to_the_callback_when_there_is_one(endpoint: str) -> None:
    gaps: list[Gap] = []
    with (
        Publisher(endpoint, host="h") as publisher,
        subscribe(endpoint, timeout_s=20, on_gap=gaps.append) as subscription,
    ):
        joined(publisher, subscription)
        skip(publisher, [anomaly(1)])
        publisher.publish(anomaly(2))
        assert next(subscription) == anomaly(2)
    assert [(gap.first, gap.count) for gap in gaps] == [(1, 1)]


def test_restarted_publisher_is_a_new_epoch_and_its_lost_start_a_gap(endpoint: str) -> None:
    with subscribe(endpoint, timeout_s=20) as subscription:
        with Publisher(endpoint, host="h", clock=lambda: 1000) as publisher:
            joined(publisher, subscription)
            publisher.publish(anomaly(1))
            assert next(subscription) == anomaly(1)
        with Publisher(endpoint, host="h", clock=lambda: 2000) as publisher:
            skip(publisher, [anomaly(2)])
            while not subscription._socket.poll(10):
                publisher.heartbeat()
            publisher.publish(anomaly(3))
            found = collect(subscription, 3)
    assert found == [
        Gap(kind="*", epoch=2000, first=0, count=0, reason="restart"),
        Gap(kind="anomaly", epoch=2000, first=1, count=1, reason="tail"),
        anomaly(3),
    ]


def test_frames_of_an_epoch_that_is_over_are_left_out(pair: tuple[Publisher, Subscription]) -> None:
    publisher, subscription = pair
    publisher.publish(anomaly(1))
    publisher.epoch -= 1
    publisher.publish(anomaly(2))
    publisher.epoch += 1
    publisher.publish(flag())
    assert collect(subscription, 2) == [anomaly(1), flag()]
    assert subscription.malformed == 1


def test_unreadable_frames_are_counted_and_left_out(pair: tuple[Publisher, Subscription]) -> None:
    publisher, subscription = pair
    head = msgspec.msgpack.encode((publisher.epoch, 1, 0, 1))
    for parts in [
        (b"v1.anomaly.x", b"", b""), (b"v1.anomaly.x", head, b"\xc1"), (b"v1.anomaly.x", head),
        (b"v1.status.x", head, b"\x90"),
        (b"v1.anomaly.x", head, b"\x92\x80\x80"), (b"v1.anomaly.x", head, b"\x91\x80"),
    ]:  # fmt: skip
        publisher._socket.send_multipart(parts)
    publisher.publish(flag())
    assert next(subscription) == flag()
    assert subscription.malformed == 6


def test_record_beyond_the_frame_limit_is_counted_and_large_batches_are_split(
    pair: tuple[Publisher, Subscription],
) -> None:
    publisher, subscription = pair
    big = [anomaly(number, text="x" * 300_000) for number in range(8)]
    assert publisher.publish([anomaly(99, text="x" * (1 << 20)), *big]) == 8
    assert publisher.oversize == 1
    assert collect(subscription, 8) == big
    assert subscription.lost == 0


def test_subscription_ends_when_nothing_comes_and_knows_whether_anything_was_heard(endpoint: str) -> None:
    with subscribe(endpoint, timeout_s=0.05) as subscription:
        assert list(subscription) == [] and not subscription.heard
    with Publisher(endpoint, host="h") as publisher, subscribe(endpoint, timeout_s=0.05) as subscription:
        joined(publisher, subscription)
        assert list(subscription) == [] and subscription.heard


def test_dead_subscriber_costs_nothing_and_one_that_caught_up_is_served_again(endpoint: str) -> None:
    with Publisher(endpoint, host="h", queue_limit=5) as publisher:
        dead = subscribe(endpoint, queue_limit=5)
        joined(publisher, dead)
        with subscribe(endpoint, timeout_s=20, queue_limit=5) as subscription:
            joined(publisher, subscription)
            for number in range(200):
                publisher.publish(anomaly(number, text="x" * 20_000))
            dead.close()
            received = subscription.lost
            while received < 200:
                publisher.heartbeat()
                if subscription._socket.poll(20):
                    subscription._take(subscription._socket.recv_multipart())
                received = subscription.lost + sum(isinstance(record, Anomaly) for record in subscription._ready)
            subscription._ready.clear()
            assert received == 200 and subscription.lost > 0
            # The heartbeats above may still fill the queue: what is published now may be dropped, not what comes later.
            for _ in range(400):
                publisher.publish(flag())
                if subscription._socket.poll(20):
                    subscription._take(subscription._socket.recv_multipart())
                if flag() in subscription._ready:
                    break
            assert flag() in subscription._ready


def test_slow_subscriber_never_delays_the_publisher_and_costs_the_others_nothing(endpoint: str) -> None:
    """One subscriber does not read: it learns exactly what it lost, the other gets every record."""
    with (
        Publisher(endpoint, host="h", queue_limit=20) as publisher,
        subscribe(endpoint, timeout_s=20, queue_limit=20) as slow,
        subscribe(endpoint, timeout_s=20) as fast,
    ):
        joined(publisher, slow)
        joined(publisher, fast)
        waits = []
        for number in range(600):
            start = time.perf_counter()
            publisher.publish(anomaly(number, text="x" * 20_000))
            waits.append(time.perf_counter() - start)
            assert next(fast) == anomaly(number, text="x" * 20_000)
        assert publisher.dropped > 0
        assert sorted(waits)[len(waits) // 2] < 0.05
        assert fast.lost == 0
        taken = 0
        while taken + slow.lost < 600:
            publisher.heartbeat()
            while slow._socket.poll(20):
                slow._take(slow._socket.recv_multipart())
            taken = sum(isinstance(record, Anomaly) for record in slow._ready)
        assert taken + slow.lost == 600 and slow.lost >= publisher.dropped


def served(server: ReplayServer, stop: threading.Event) -> threading.Thread:
    def run() -> None:
        while not stop.is_set():
            server.socket.poll(5)
            server.poll()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_replay_fills_holes_and_tails_in_order(endpoint: str) -> None:
    stop = threading.Event()
    with (
        Publisher(endpoint, host="h") as publisher,
        ReplayServer(publisher, endpoint.replace("out", "replay")) as server,
        subscribe(endpoint, timeout_s=20, replay_endpoint=server.endpoint) as subscription,
    ):
        joined(publisher, subscription)
        thread = served(server, stop)
        try:
            publisher.publish(anomaly(0))
            for number in range(1, 700):
                skip(publisher, [anomaly(number)])
            publisher.publish([anomaly(700), anomaly(701)])
            assert collect(subscription, 702) == [anomaly(number) for number in range(702)]
            skip(publisher, [flag()])
            publisher.heartbeat()
            assert next(subscription) == flag()
            assert subscription.lost == 0
        finally:
            stop.set()
            thread.join()


def test_replay_reports_what_the_ring_no_longer_has(endpoint: str) -> None:
    stop = threading.Event()
    with (
        Publisher(endpoint, host="h", replay_frames=3) as publisher,
        ReplayServer(publisher, endpoint.replace("out", "replay")) as server,
        subscribe(endpoint, timeout_s=20, replay_endpoint=server.endpoint) as subscription,
    ):
        joined(publisher, subscription)
        thread = served(server, stop)
        try:
            for number in range(1, 11):
                skip(publisher, [anomaly(number)])
            publisher.publish(anomaly(11))
            found = collect(subscription, 4)
        finally:
            stop.set()
            thread.join()
    assert found == [
        Gap(kind="anomaly", epoch=publisher.epoch, first=1, count=8, reason="lost"),
        anomaly(9), anomaly(10), anomaly(11),
    ]  # fmt: skip


def test_replay_that_does_not_answer_becomes_a_gap(endpoint: str, tmp_path: Path) -> None:
    with (
        Publisher(endpoint, host="h") as publisher,
        subscribe(endpoint, timeout_s=20, replay_endpoint=f"ipc://{tmp_path}/nobody") as subscription,
    ):
        joined(publisher, subscription)
        skip(publisher, [anomaly(1)])
        publisher.publish(anomaly(2))
        assert collect(subscription, 2) == [
            Gap(kind="anomaly", epoch=publisher.epoch, first=1, count=1, reason="lost"), anomaly(2),
        ]  # fmt: skip


def test_replay_server_answers_only_what_it_understands(endpoint: str) -> None:
    with (
        Publisher(endpoint, host="h") as publisher,
        ReplayServer(publisher, endpoint.replace("out", "replay")) as server,
    ):
        publisher.publish([anomaly(1), flag()])
        context: zmq.Context[Any] = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.connect(server.endpoint)

        def ask(request: Any) -> list[bytes] | None:
            dealer.send_multipart([b"", request if isinstance(request, bytes) else msgpack.packb(request)])
            assert server.socket.poll(20_000)
            return dealer.recv_multipart() if server.poll() and dealer.poll(20_000) else None

        for bad in [b"", b"\xc1", [], {}, {"class": "x", "epoch": 1}, {"class": "flag", "epoch": "1"},
                    {"class": "flag", "epoch": 1, "from_seq": "a"}]:  # fmt: skip
            assert ask(bad) is None
        reply = ask({"class": "", "epoch": 0})
        assert reply is not None
        about = msgpack.unpackb(reply[1])
        assert about["epoch"] == publisher.epoch and about["last"]["flag"] == 1
        reply = ask({"class": "flag", "epoch": publisher.epoch - 1, "from_seq": 1})
        assert reply is not None and msgpack.unpackb(reply[1])["ok"] is False and len(reply) == 2
        reply = ask({"class": "flag", "epoch": publisher.epoch, "from_seq": 1})
        assert reply is not None and len(reply) == 5
        assert (server.requests, server.malformed) == (10, 7)
        dealer.close(0)
        context.term()


# -- endpoints ---------------------------------------------------------------------------------------------------------


def test_port_in_use_says_which_and_what_to_do() -> None:
    with std_socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RefusedError, match=rf"{endpoint}, found the port in use.*ss -ltnp.*outlets\.zmq\.endpoint"):
            Publisher(endpoint, host="h")
        with pytest.raises(RefusedError, match=r"inlets\.pull"):
            EventInlet((endpoint,))


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:6162", "tcp://0.0.0.0:6162", "tcp://192.0.2.1:6162", "tcp://eth0:1", "tcp://[2001:db8::1]:1"]
)
def test_endpoint_that_others_can_reach_is_refused(endpoint: str) -> None:
    for call in (
        lambda: Publisher(endpoint, host="h"),
        lambda: EventInlet((endpoint,)),
        lambda: EventInlet((), (endpoint,)),
        lambda: subscribe(endpoint),
        lambda: subscribe(replay_endpoint=endpoint),
    ):
        with pytest.raises(RefusedError, match="other machines can reach"):
            call()


def test_local_endpoints_are_taken() -> None:
    for endpoint in (
        "tcp://127.0.0.1:1",
        "tcp://127.8.8.8:1",
        "tcp://[::1]:1",
        "tcp://localhost:1",
        "ipc://x",
        "inproc://x",
    ):
        require_local(endpoint, "test")
    for wrong in ("", "127.0.0.1:1", "http://x", "tcp://"):
        with pytest.raises(UsageError, match="expected tcp://"):
            require_local(wrong, "test")


def test_free_port_is_told() -> None:
    with Publisher("tcp://127.0.0.1:0", host="h") as publisher:
        assert publisher.endpoint.startswith("tcp://127.0.0.1:") and not publisher.endpoint.endswith(":0")
        with subscribe(publisher.endpoint, timeout_s=20) as subscription:
            joined(publisher, subscription)
            publisher.publish(flag())
            assert next(subscription) == flag()


def test_living_socket_keeps_its_name_and_a_dead_one_gives_it_up(endpoint: str) -> None:
    path = Path(endpoint.removeprefix("ipc://"))
    with Publisher(endpoint, host="h"):
        with pytest.raises(RefusedError, match="another process listening"):
            Publisher(endpoint, host="h")
        assert path.is_socket()
    dead = std_socket.socket(std_socket.AF_UNIX)
    path.unlink(missing_ok=True)
    dead.bind(str(path))
    dead.close()
    Publisher(endpoint, host="h").close()


def test_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(RefusedError, match=r"mode 0777.*chmod 700"):
        Publisher(f"ipc://{tmp_path}/open/x.sock", host="h")
    (tmp_path / "run").mkdir(0o700)
    (tmp_path / "run" / "x.sock").write_text("precious")
    with pytest.raises(RefusedError, match="found another file"):
        Publisher(f"ipc://{tmp_path}/run/x.sock", host="h")
    assert (tmp_path / "run" / "x.sock").read_text() == "precious"
    with pytest.raises(UsageError, match="at most 107 bytes"):
        Publisher(f"ipc://{tmp_path}/run/{'x' * 108}", host="h")


# -- events in ---------------------------------------------------------------------------------------------------------


class Sender:
    def __init__(self, endpoint: str, kind: int = zmq.PUSH) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 5000)
        self.socket.bind(endpoint) if kind == zmq.PUB else self.socket.connect(endpoint)

    def __enter__(self) -> Any:
        return self.socket

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.context.term()


def drain(inlet: EventInlet, count: int) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        inlet.wait(20)
        found.extend(inlet.drain())
    return found


def test_frames_arrive_with_their_credential(tmp_path: Path) -> None:
    shared = f"ipc://{tmp_path}/run/events.sock"
    with EventInlet((shared, "tcp://127.0.0.1:0")) as inlet:
        private = inlet.open_session("run-1", tmp_path / "run")
        for endpoint in (shared, inlet.endpoints[1], private):
            with Sender(endpoint) as socket:
                socket.send(endpoint.encode())
        found = sorted(drain(inlet, 3))
        assert found == sorted([(shared.encode(), ""), (inlet.endpoints[1].encode(), ""), (private.encode(), private)])
        about = inlet.statistics()
        assert (about.frames, about.sessions, about.refused) == (3, 1, 0)
        assert about.frames_by_credential == {"": 2, private: 1}
        assert inlet.drain() == [] and not inlet.wait(0)


def test_sessions_are_private_and_leave_nothing(tmp_path: Path) -> None:
    with EventInlet(()) as inlet:
        first = inlet.open_session("../../evil name", tmp_path / "run")
        second = inlet.open_session("../../evil name", tmp_path / "run")
        assert first != second and len(inlet.sockets) == 2
        path = Path(first.removeprefix("ipc://"))
        assert path.parent == tmp_path / "run"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700 and stat.S_IMODE(path.stat().st_mode) == 0o600
        inlet.close_session(first)
        inlet.close_session(first)
        inlet.close_session("ipc://unknown")
        assert not path.exists() and inlet.statistics().sessions == 1
        with Sender(second) as socket:
            socket.send(b"x")
            assert drain(inlet, 1) == [(b"x", second)]
    assert list((tmp_path / "run").iterdir()) == []


def test_session_in_a_directory_too_long_for_a_socket_goes_to_a_short_private_one(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with EventInlet(()) as inlet:
        endpoint = inlet.open_session("run", deep)
        path = Path(endpoint.removeprefix("ipc://"))
        assert len(os.fsencode(path)) <= 107 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with Sender(endpoint) as socket:
            socket.send(b"x")
            assert drain(inlet, 1) == [(b"x", endpoint)]
        inlet.close_session(endpoint)
        assert not path.parent.exists()


def test_frame_over_the_limit_is_refused_and_the_next_one_taken(tmp_path: Path) -> None:
    shared = f"ipc://{tmp_path}/run/events.sock"
    with EventInlet((shared,)) as inlet:
        with Sender(shared) as socket:
            socket.send(b"x" * ((1 << 20) + 1))
        with Sender(shared) as socket:
            socket.send(b"y" * (1 << 20))
            (frame,) = drain(inlet, 1)
        assert frame.data == b"y" * (1 << 20)


def test_messages_of_several_parts_are_refused_and_counted(tmp_path: Path) -> None:
    shared = f"ipc://{tmp_path}/run/events.sock"
    with EventInlet((shared,)) as inlet, Sender(shared) as socket:
        socket.send_multipart([b"a", b"b"])
        socket.send(b"c")
        assert drain(inlet, 1) == [(b"c", "")]
        assert inlet.statistics().refused == 1


def test_subscribed_sources_give_their_payload(tmp_path: Path) -> None:
    outside = f"ipc://{tmp_path}/outside.sock"
    with Sender(outside, zmq.PUB) as publisher, EventInlet((), (outside,)) as inlet:
        deadline = time.monotonic() + 20
        while not inlet.wait(10) and time.monotonic() < deadline:
            publisher.send_multipart([b"topic", b"payload"])
        assert set(drain(inlet, 1)) == {(b"payload", "")}


@pytest.mark.parametrize("topics", [(), ("agents.",)])
def test_a_publisher_that_is_there_already_is_read_by_topic(tmp_path: Path, topics: tuple[str, ...]) -> None:
    outside = f"ipc://{tmp_path}/outside.sock"
    with Sender(outside, zmq.PUB) as publisher, EventInlet((), (outside,), topics=topics) as inlet:
        deadline = time.monotonic() + 20
        while not inlet.wait(10) and time.monotonic() < deadline:
            publisher.send_multipart([b"agents.a", b"beginning"])
        for parts in ([b"prices", b"other"], [b"alone"], [b"agents.a", b"b", b"c"], [b"agents.b", b"end"]):
            publisher.send_multipart(parts)
        found: list[bytes] = []
        while b"end" not in found and time.monotonic() < deadline:
            found += [data for data, _ in drain(inlet, 1)]
        wanted = {b"beginning", b"end"} | (set() if topics else {b"other", b"alone"})
        assert wanted == set(found)
        assert inlet.statistics().refused == 1


def test_a_publisher_on_another_machine_is_connected_to_where_that_is_said() -> None:
    with EventInlet((), ("tcp://192.0.2.1:6161",), allow_remote=True) as inlet:
        assert len(inlet.sockets) == 1
    with pytest.raises(RefusedError, match=r"inlets\.sub_allow_remote"):
        EventInlet((), ("tcp://192.0.2.1:6161",))
    with pytest.raises(UsageError):
        EventInlet((), ("http://127.0.0.1:1",), allow_remote=True)


def test_flood_on_one_socket_leaves_the_others_their_share(tmp_path: Path) -> None:
    with EventInlet((f"ipc://{tmp_path}/run/events.sock",), queue_limit=10_000) as inlet:
        session = inlet.open_session("quiet", tmp_path / "run")
        with Sender(inlet.endpoints[0]) as loud, Sender(session) as quiet:
            for _ in range(2000):
                loud.send(b"loud")
            quiet.send(b"quiet")
            poller = zmq.Poller()
            inlet.register(poller)
            deadline = time.monotonic() + 20
            while len(poller.poll(10)) < 2 and time.monotonic() < deadline:
                pass
            first = inlet.drain(100)
            assert (b"quiet", session) in first and len(first) <= 100
            assert len(drain(inlet, 2001 - len(first))) == 2001 - len(first)


# -- commands ----------------------------------------------------------------------------------------------------------


class Answering:
    """A command server polled by a thread."""

    def __init__(self, home: Path, handler: Any) -> None:
        self.server = CommandServer(home)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(handler,))
        self.thread.start()

    def run(self, handler: Any) -> None:
        while not self.stop.is_set():
            self.server.socket.poll(5)
            self.server.poll(handler)
        self.server.close()

    def __enter__(self) -> CommandServer:
        return self.server

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["verb"] == "refuse":
        raise RefusedError("session 's': already claimed")
    if request["verb"] == "break":
        raise ZeroDivisionError("inside")
    if request["verb"] == "unencodable":
        return {"x": object()}
    return {"echo": request}


@pytest.mark.parametrize("deep", [False, True], ids=["short path", "path too long for a socket"])
def test_request_and_reply(tmp_path: Path, deep: bool) -> None:
    home = tmp_path / ("h" * 120) if deep else tmp_path / "home"
    with Answering(home, answer):
        client = CommandClient(home, timeout_s=20)
        assert client.request({"verb": "status", "n": [1, None, b"x"]}) == {
            "echo": {"verb": "status", "n": [1, None, b"x"]}
        }
        with pytest.raises(RefusedError, match="already claimed"):
            client.request({"verb": "refuse"})
        with pytest.raises(ArgusError, match="ZeroDivisionError"):
            client.request({"verb": "break"})
        with pytest.raises(ArgusError, match="the request failed"):
            client.request({"verb": "unencodable"})
        assert client.request({"verb": "again"}) == {"echo": {"verb": "again"}}
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "collector.sock").stat().st_mode) == 0o600
    assert not (home / "collector.sock").exists()


def test_no_collector_and_a_hung_one_are_told_apart_from_a_reply(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"found no socket.*argus-collect"):
        CommandClient(tmp_path).request({})
    with CommandServer(tmp_path / "home"):
        start = time.monotonic()
        with pytest.raises(UnreachableError, match=r"in 0.1 s, found none"):
            CommandClient(tmp_path / "home").request({}, timeout_s=0.1)
        assert time.monotonic() - start < 5
    dead = std_socket.socket(std_socket.AF_UNIX)
    dead.bind(str(tmp_path / "collector.sock"))
    dead.close()
    with pytest.raises(UnreachableError, match="found none"):
        CommandClient(tmp_path, timeout_s=0.1).request({})


def test_second_collector_on_one_home_is_refused(tmp_path: Path) -> None:
    with Answering(tmp_path / "home", answer):
        with pytest.raises(RefusedError, match="another process listening"):
            CommandServer(tmp_path / "home")
        assert CommandClient(tmp_path / "home", timeout_s=20).request({"verb": "x"}) == {"echo": {"verb": "x"}}


def test_malformed_commands_are_counted_and_do_no_harm(tmp_path: Path) -> None:
    with Answering(tmp_path / "home", answer) as server:
        with Sender(f"ipc://{tmp_path}/home/collector.sock", zmq.DEALER) as socket:
            for parts in ([b"x"], [b"n", b"\xc1"], [b"n", b"\x90"], [b"a", b"b", b"c"]):
                socket.send_multipart(parts)
            assert CommandClient(tmp_path / "home", timeout_s=20).request({"verb": "x"}) == {"echo": {"verb": "x"}}
            deadline = time.monotonic() + 20
            while server.malformed < 4 and time.monotonic() < deadline:
                time.sleep(0.005)
        assert server.malformed == 4


def test_many_clients_at_once(tmp_path: Path) -> None:
    replies: list[Any] = []
    with Answering(tmp_path / "home", answer):

        def ask(number: int) -> None:
            replies.append(
                CommandClient(tmp_path / "home", timeout_s=20).request({"verb": "x", "n": number})["echo"]["n"]
            )

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(replies) == list(range(16))
