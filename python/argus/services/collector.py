"""The daemon's loop: sockets → ingest → step → stop; disk is another thread's work.

The main thread never waits for disk or network. A stop goes first: epoch word (flipped in C++ where it is host-wide), flag,
then fsync, journal and issue on the writer thread, then publication.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import zmq

from argus.engine.core import Decision, Engine, Latest
from argus.errors import ArgusError, RefusedError, UnreachableError, UsageError
from argus.judge.incident import IncidentBook
from argus.killswitch.control import Control, Trip
from argus.killswitch.issues import IssueFiler, issue_key
from argus.killswitch.records import GuardInfo
from argus.record.journal import Journal
from argus.record.keys import SigningKey, open_keys
from argus.record.writer import JournalWriter
from argus.schema import Anomaly, Flag, Incident, IncidentState, Scope, ScopeKind, Severity, StopKind
from argus.services import explain
from argus.services.maintenance import Calendar, Window, WindowKind, suspensions, window_words
from argus.services.metrics import Metrics
from argus.services.reference import DriftWatch, Reference
from argus.services.sessions import SessionRequest, Sessions
from argus.services.status import NOT_OBSERVED, anomaly_line, busiest, host_line, printable
from argus.wire.jsonl import Follower, Frame, Stream
from argus.wire.zmq import HEARTBEAT_S, CommandServer, EventInlet, Publisher, ReplayServer

if TYPE_CHECKING:
    from argus.config import Config
    from argus.wire.http_inlet import HttpInlet

_FOLLOW_S = 0.1
_FRAMES_PER_TURN = 8  # each may hold 1,024 events: the heartbeat must not wait for more
_LINES_PER_TICK = 50
_HOST_LATE_S = 10.0
_LEARNED_S = 300.0  # what was learned is written so often
_REFERENCE_S = 10.0  # hourly means take one row in so long
_SCOPE_KINDS = frozenset(map(str, ScopeKind))
_ABSOLUTE = frozenset({"C1"})  # criteria that no hold suppresses
_ACTOR = "argus"


class _IssueDue(NamedTuple):
    incident: Incident
    verified: bool | None
    stopped: tuple[str, ...]


class MaintenanceRequest(msgspec.Struct, kw_only=True):
    """A command about maintenance windows: begin one, end one by name, or neither to list them."""

    begin: WindowKind | None = None
    series: tuple[str, ...] = ("*",)
    seconds: float = 0.0
    name: str = ""
    reason: str = ""
    actor: str = ""
    end: str = ""


class Collector:
    """One collector: owns the engine, the control directory, the journal and the sockets.

    Parameters
    ----------
    config : where everything is and how it judges
    extra_jsonl : files of JSON-lines events to follow besides those of the configuration
    stdin : read JSON-lines events from standard input
    observe : automatic stops go to control/shadow, whatever the configuration says
    status_every_s : seconds between status lines
    say : where lines for a person go
    """

    def __init__(
        self,
        config: Config,
        *,
        extra_jsonl: tuple[Path, ...] = (),
        stdin: bool = False,
        observe: bool = False,
        status_every_s: float = 5.0,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._config = config
        self._jsonl = (*map(Path, config.inlets.jsonl), *extra_jsonl)
        self._stdin = stdin or config.inlets.stdin
        self._mode = "observe" if observe else config.killswitch.mode
        self._status_every_s = status_every_s
        self._say = say or _print_line
        self._stopping = False
        self._started = time.monotonic()
        self._accepted = 0
        self._rejected = 0
        self._accepted_shown = 0
        self._rejected_kept = self._http_rejected = 0
        self._book = IncidentBook()
        self._fired: dict[str, dict[str, int]] = {}  # by criterion
        self._guards_changed = 0
        self._lines_left, self._untold = _LINES_PER_TICK, 0
        self._standing: dict[str, Flag] = {}  # by path
        self._held: list[tuple[StopKind, Scope]] = []  # stops that a hold kept back
        self._issues_due: dict[str, _IssueDue] = {}
        self._issues_lock = threading.Lock()
        self._last_trouble = ""
        self._told_blind: set[str] = set()
        self._host_seen = (self._started, NOT_OBSERVED)
        self._calendar = Calendar(config.maintenance, config.home / "maintenance.json")
        self._windows: list[Window] = []
        self._suspended: list[tuple[str, bool]] = []
        self._learned_next = self._started + _LEARNED_S
        self._reference_next = self._started

    def run(self, seconds: float | None = None) -> int:
        """Collect until Ctrl-C, SIGTERM or `seconds` have passed; returns the exit status.

        Raises
        ------
        RefusedError : another collector owns the control directory, or a socket is taken
        """
        with ExitStack() as stack:
            self._open(stack)
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.signal(number, self._on_signal)
                stack.callback(signal.signal, number, previous)
            self._say(self._opening_line())
            try:
                return self._loop(None if seconds is None else self._started + seconds)
            except Exception as error:
                # The heartbeat ends with this process, so guards fall back to their own policy; the record says why.
                self._writer.put("failed", {"error": f"{type(error).__name__}: {error}"}, urgent=True)
                raise

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    # --- start -------------------------------------------------------------------------------------------------------

    def _open(self, stack: ExitStack) -> None:
        config, home = self._config, self._config.home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = key = open_keys(home / "keys")
        self._control = stack.enter_context(Control(config.control, mode=self._mode, signer=_signer(key)))
        self._control.acquire()
        journal = stack.enter_context(Journal(home / "journal.db", key))
        self._writer = JournalWriter(journal, on_error=self._trouble)
        stack.callback(self._close_writer)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argus-disk")
        stack.callback(self._disk.shutdown)
        self._issues = stack.enter_context(IssueFiler(home / "issues"))
        self._engine = stack.enter_context(Engine(config))
        self._engine.attach_control(str(config.control / "epoch"))
        self._drift = DriftWatch(self._engine.host)
        self._take_up_learned()
        self._renew_windows()
        self._open_sockets(stack)
        recovered = self._control.recover()
        self._adopt_flags(recovered=True)
        self._writer.put("started", {"pid": os.getpid(), "mode": self._mode, "bits": recovered.bits})
        self._look_at_control()
        self._control.heartbeat()
        self._engine.start()

    def _take_up_learned(self) -> None:
        """Go on from what was learned before a restart; what cannot be read is told, and learned afresh."""
        try:
            self._calendar.read()
        except UsageError as error:
            self._trouble(error)
        for name, take in (
            ("learned.bin", self._engine.learn_from),
            ("hours.npz", self._drift.load),
            ("reference.json", self._adopt_reference),
        ):
            path = self._config.home / name
            try:
                take(path.read_bytes())
            except FileNotFoundError:
                continue
            except (UsageError, OSError) as error:
                self._trouble(UsageError(f"{path}: {error}"))
                self._writer.put("state_refused", {"path": str(path), "error": str(error)}, urgent=True)

    def _adopt_reference(self, content: bytes) -> None:
        """Judge by a reference that this collector's key signed."""
        try:
            reference = msgspec.json.decode(content, type=Reference)
        except msgspec.MsgspecError as error:
            raise UsageError(f"expected a reference, found {error}; it is not used") from None
        reference.check(self._key)
        self._drift.adopt(reference)

    def _keep_learned(self) -> None:
        """Hand what was learned to the disk thread, which replaces the files whole."""
        home, learned, hours = self._config.home, self._engine.learned(), self._drift.save()
        self._on_disk(lambda: _replace(home / "learned.bin", learned))
        self._on_disk(lambda: _replace(home / "hours.npz", hours))

    def _open_sockets(self, stack: ExitStack) -> None:
        config, home = self._config, self._config.home
        context = stack.enter_context(zmq.Context())
        outlet = config.outlets.zmq
        self._publisher: Publisher | None = None
        self._replays: ReplayServer | None = None
        if outlet.endpoint:
            self._publisher = stack.enter_context(
                Publisher(outlet.endpoint, host=self._engine.host, queue_limit=outlet.queue_limit, context=context)
            )
            if outlet.replay_endpoint:
                self._replays = stack.enter_context(ReplayServer(self._publisher, outlet.replay_endpoint))
        self._commands = stack.enter_context(CommandServer(home, context=context))
        self._metrics = stack.enter_context(
            Metrics(config.outlets.prometheus, tick_s=config.engine.tick_ms / 1000, say=self._say)
        )
        pull = tuple(endpoint for endpoint in (config.inlets.pull, config.inlets.ipc) if endpoint)
        inlets = config.inlets
        self._inlet = stack.enter_context(
            EventInlet(
                pull,
                tuple(inlets.sub),
                topics=inlets.sub_topics,
                allow_remote=inlets.sub_allow_remote,
                context=context,
            )
        )
        self._sessions = Sessions(self._engine, self._inlet, home / "sessions")
        stack.callback(self._sessions.close)
        self._http = self._open_http(stack)
        self._followers: list[Follower | Stream] = [stack.enter_context(Follower(path)) for path in self._jsonl]
        if self._stdin:
            self._followers.append(Stream(0))
        self._renew_poller()

    def _open_http(self, stack: ExitStack) -> HttpInlet | None:
        """The inlet for OTLP and CloudEvents; one that cannot listen is told, and the collector goes on."""
        settings = self._config.inlets.otlp
        if not (settings.enabled and settings.endpoint):
            return None
        from argus.wire.http_inlet import HttpInlet  # http.server is 2 MB that a closed inlet need not pay
        from argus.wire.otlp import Mapper

        causal = self._config.auditors.get("causal")
        tolerance_s = causal.options.get("clock_tolerance_s", 2.0) if causal is not None else 2.0
        mapper = Mapper(tenant_attribute=settings.tenant_attribute, tolerance_ns=int(tolerance_s * 1e9))
        try:
            inlet = HttpInlet(settings.endpoint, mapper, allow_remote=settings.allow_remote)
        except (RefusedError, UnreachableError) as error:
            self._say(f"argus: {error}; the collector goes on")
            return None
        if not inlet.local:
            self._say(f"argus: WARNING: http://{inlet.endpoint} takes events from other machines, whoever they are")
        stack.enter_context(inlet)
        if settings.grpc_endpoint:
            self._open_grpc(stack, inlet)
        return inlet

    def _open_grpc(self, stack: ExitStack, inlet: HttpInlet) -> None:
        """OTLP over gRPC into the same inlet; where it cannot listen, that is told, and HTTP goes on."""
        from argus.wire.grpc_inlet import GrpcInlet

        settings = self._config.inlets.otlp
        try:
            grpc = stack.enter_context(GrpcInlet(settings.grpc_endpoint, inlet, allow_remote=settings.allow_remote))
            self._say(f"argus: OTLP over gRPC on {grpc.endpoint}")
        except ArgusError as error:
            self._say(f"argus: {error}; the collector goes on")

    def _renew_poller(self) -> None:
        self._poller = zmq.Poller()
        self._inlet.register(self._poller)
        self._poller.register(self._commands.socket, zmq.POLLIN)
        if self._replays is not None:
            self._poller.register(self._replays.socket, zmq.POLLIN)
        if self._http is not None:
            self._poller.register(self._http.fileno(), zmq.POLLIN)

    def _close_writer(self) -> None:
        self._writer.put("stopped", {"pid": os.getpid()})
        if left := self._writer.close():
            self._say(f"argus: {left} records did not reach the journal in time; see `argus verify`")

    def _trouble(self, error: BaseException) -> None:
        """Tell a fault of disk or journal, once while it lasts the same."""
        if (text := str(error)) != self._last_trouble:
            self._last_trouble = text
            self._say(f"argus: {printable(text, 400)}")

    def _on_disk(self, job: Callable[[], object]) -> None:
        """Run work that waits for a disk on the disk thread, in order; its faults are told, never fatal."""

        def run() -> None:
            try:
                job()
            except (ArgusError, OSError) as error:
                self._trouble(error)

        self._disk.submit(run)

    def _opening_line(self) -> str:
        config = self._config
        heard = ", ".join(e for e in (config.inlets.pull, config.inlets.ipc, *map(str, self._jsonl)) if e) or "nothing"
        return (
            f"argus-collect on {self._engine.host}: mode {self._mode}, state {config.home}, control {config.control}; "
            f"events from {heard}; anomalies on {config.outlets.zmq.endpoint or 'no socket'}; "
            f"OTLP on {self._http.endpoint if self._http is not None else 'no port'}; "
            f"metrics on {self._metrics.endpoint or 'no port'}; Ctrl-C ends"
        )

    # --- loop --------------------------------------------------------------------------------------------------------

    def _loop(self, until: float | None) -> int:
        tick_s = self._config.engine.tick_ms / 1000
        now = time.monotonic()
        next_tick, next_beat, next_status, next_follow = now + tick_s, now, now + self._status_every_s, now
        while not self._stopping:
            now = time.monotonic()
            if until is not None and now >= until:
                break
            if now >= next_beat:
                self._beat()
                next_beat += HEARTBEAT_S * (1 + int((now - next_beat) / HEARTBEAT_S))
            if now >= next_tick:
                self._tick()
                next_tick += tick_s * (1 + int((now - next_tick) / tick_s))
            if self._followers and now >= next_follow:
                self._follow()
                next_follow = now + _FOLLOW_S
            if now >= next_status:
                self._say_status()
                next_status += self._status_every_s * (1 + int((now - next_status) / self._status_every_s))
            deadline = min(next_tick, next_beat, next_status, *((next_follow,) if self._followers else ()))
            if until is not None:
                deadline = min(deadline, until)
            self._turn(max(0.0, deadline - time.monotonic()))
        self._say_status()
        self._keep_learned()
        return 0

    def _turn(self, wait_s: float) -> None:
        """Wait for sockets, at most `wait_s`, and handle what they have."""
        try:
            ready = self._poller.poll(int(wait_s * 1000))
        except InterruptedError:
            return
        if not ready:
            return
        # A guard that announced itself a moment ago must be known before its first event is judged.
        if self._guards_stamp() != self._guards_changed:
            self._look_at_control()
        self._drain()
        self._commands.poll(self._command)
        if self._replays is not None:
            self._replays.poll()

    def _drain(self) -> None:
        for frame in self._inlet.drain(_FRAMES_PER_TURN):
            self._ingest(frame.data, self._sessions.credential(frame.credential), require_seq=True)
        if self._http is not None:
            for waiting in self._http.drain(_FRAMES_PER_TURN):
                waiting.settle(self._ingest(waiting.data, 0, require_seq=False))

    def _ingest(self, frame: bytes, credential: int, *, require_seq: bool) -> dict[str, int]:
        report = self._engine.ingest(frame, credential=credential, require_seq=require_seq)
        self._accepted += report.accepted
        self._rejected += sum(report.rejected.values())
        if report.anomalies:
            self._handle(report.anomalies, self._engine.decisions())
        return report.rejected

    def _follow(self) -> None:
        for follower in self._followers:
            try:
                frames = follower.poll()
            except UnreachableError as error:
                self._trouble(error)
                continue
            for frame in frames:
                self._take_lines(frame)

    def _take_lines(self, frame: Frame) -> None:
        self._rejected += sum(frame.errors.values())
        for bad in frame.bad:
            self._trouble(UsageError(f"events: line {bad.line}: {bad.reason}: {bad.sample}; the line is skipped"))
        if frame.count:
            self._ingest(frame.data, 0, require_seq=False)

    def _tick(self) -> None:
        self._renew_lines()
        self._look_at_control()
        self._adopt_flags()
        if self._rejected != self._rejected_kept:
            self._rejected_kept = self._rejected
            sample = [{**item, "bytes": item["bytes"].hex()} for item in self._engine.quarantine()]
            self._on_disk(lambda: _keep_sample(self._config.home / "quarantine" / "rejected.ndjson", sample))
        if self._http is not None and self._http.rejected != self._http_rejected:
            self._http_rejected = self._http.rejected
            words = self._http.quarantine()
            self._on_disk(lambda: _keep_sample(self._config.home / "quarantine" / "rejected_http.ndjson", words))
        self._renew_windows()
        found = self._engine.step()
        if found:
            self._handle(found, self._engine.decisions())
        if (now := time.monotonic()) >= self._reference_next:
            self._reference_next = now + _REFERENCE_S
            self._hold_against_reference()
        if now >= self._learned_next:
            self._learned_next = now + _LEARNED_S
            self._keep_learned()
        self._metrics.publish(self._engine, self._numbers)
        for session in self._sessions.orphaned():
            self._writer.put("session_orphaned", {"session": session.request.session, "pid": session.request.pid})
            self._release(session.request.session)

    def _hold_against_reference(self) -> None:
        latest = self._engine.latest()
        patterns = [pattern for window in self._windows for pattern in window.series]
        left_out = [name for name in latest.names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if said := self._drift.push(latest.names, latest.values, time.time_ns(), left_out=left_out):
            self._handle(said, [])

    def _renew_windows(self) -> None:
        """Open and close maintenance windows when their time has come, and say so."""
        windows = self._calendar.open_at(time.time_ns())
        if windows == self._windows:
            return
        before, self._windows = {w.name: w for w in self._windows}, windows
        for window in windows:
            if window.name not in before:
                self._writer.put("maintenance_began", msgspec.structs.asdict(window), actor=window.actor or _ACTOR)
                self._say(f"{window.kind} {printable(window.name)} begins: {', '.join(map(printable, window.series))}")
        for name in before.keys() - {w.name for w in windows}:
            self._writer.put("maintenance_ended", {"name": name})
            self._say(f"{before[name].kind} {printable(name)} has ended")
        if (wanted := suspensions(windows)) != self._suspended:
            self._suspended = wanted
            self._engine.suspend(wanted)

    def _beat(self) -> None:
        self._control.heartbeat()
        if self._publisher is not None:
            self._publisher.heartbeat()

    def _look_at_control(self) -> None:
        """Who is guarded, and whether the core may flip the word itself (a hold forbids it)."""
        self._guards_changed = self._guards_stamp()
        guards = self._control.guards()
        announced = _guarded(text for guard in guards for text in guard.scopes)
        # A registered session has its supervisor, announced or about to be.
        supervised = {(ScopeKind.SESSION, session.request.session) for session in self._sessions}
        self._engine.set_guarded(announced | supervised)
        self._engine.set_agents(_agents(guards, [session.request for session in self._sessions]))
        holds = self._control.holds()
        self._engine.set_enforce(self._mode == "enforce" and not holds)
        if self._held and not holds:
            for kind, scope in self._held:
                self._engine.release_stop(kind, scope)
            self._held.clear()

    def _guards_stamp(self) -> int:
        """Changes when a guard announces or withdraws itself."""
        try:
            return (self._config.control / "guards").stat().st_mtime_ns
        except OSError as error:
            raise RefusedError(
                f"{self._config.control}: expected the control directory that this collector owns, found "
                f"{error.strerror}; it ends, and guards that know it close. Start it again"
            ) from None

    def _tell(self, anomaly: Anomaly) -> None:
        """Print an anomaly; under a flood only the critical ones, the others are counted until the next tick."""
        if self._lines_left > 0 or anomaly.severity is Severity.CRITICAL:
            self._lines_left -= 1
            self._say(anomaly_line(anomaly))
        else:
            self._untold += 1

    def _renew_lines(self) -> None:
        if self._untold:
            self._say(f"… and {self._untold} more anomalies in the last moment: see `argus tail` and the journal")
        self._lines_left, self._untold = _LINES_PER_TICK, 0

    def _publish(self, record: Anomaly | Incident | Flag) -> None:
        if self._publisher is not None:
            self._publisher.publish(record)

    # --- judgement and stops -----------------------------------------------------------------------------------------

    def _handle(self, found: list[Anomaly], decided: list[Decision]) -> None:
        """File anomalies, make the stops first, then tell everybody."""
        touched: dict[str, Incident] = {}
        of_anomaly: dict[str, Incident] = {}
        for anomaly in found:
            incident = self._book.add(anomaly)
            touched[incident.key] = of_anomaly[anomaly.id] = incident
        self._count_criteria(found, decided)
        by_id = {anomaly.id: anomaly for anomaly in found}
        for decision in decided:
            acted = self._stop(decision, by_id[decision.anomaly], of_anomaly[decision.anomaly])
            touched[acted.key] = acted
        for anomaly in found:
            self._publish(anomaly)
            self._writer.put("anomaly", msgspec.structs.asdict(anomaly), decision=False)
            self._tell(anomaly)
        for incident in touched.values():
            self._publish(incident)
            self._file_issue(incident)

    def _count_criteria(self, found: list[Anomaly], decided: list[Decision]) -> None:
        for anomaly in found:
            if anomaly.criterion:
                counted = self._fired.setdefault(anomaly.criterion, {"fired": 0, "stops": 0, "last_ts": 0})
                counted["fired"] += 1
                counted["last_ts"] = max(counted["last_ts"], anomaly.ts)
        for decision in decided:
            self._fired[decision.criterion]["stops"] += 1

    def _stop(self, decision: Decision, anomaly: Anomaly, incident: Incident) -> Incident:
        """Set the flag of a decision; disk work and journal follow on other threads."""
        decided_ns = time.time_ns()
        session = self._sessions.get(decision.scope.session)
        trip = self._control.trip(
            decision.kind,
            decision.scope,
            reason=decision.reason,
            reason_code=decision.criterion,
            actor=_ACTOR,
            automatic=True,
            observe=session is not None and session.request.observe,
            detectors=[_detector(anomaly)],
            evidence=anomaly.evidence,
            incident=incident.id,
            absolute=decision.criterion in _ABSOLUTE,
        )
        linked_ns = time.time_ns()
        action = f"{decision.kind} {_what_happened(trip)} on {decision.scope} ({decision.criterion})"
        acted = self._book.acted(incident.key, action, state=IncidentState.STOPPED if trip.stops else None)
        record = {
            "id": decision.anomaly,
            "kind": decision.kind.value,
            "scope": msgspec.to_builtins(decision.scope),
            "criterion": decision.criterion,
            "reason": decision.reason,
            "incident": incident.id,
            "event_ts": decision.ts,
            "decided_ns": decided_ns,
            "linked_ns": linked_ns,
            "outcome": _what_happened(trip),
            "epoch": trip.epoch,
            "path": trip.path,
            "error": trip.error,
        }
        self._writer.put("stop", record, urgent=True)
        self._on_disk(lambda: self._make_durable(trip, decision.anomaly))
        if trip.error:
            self._trouble(RefusedError(f"{trip.path or self._config.control}: {trip.error}"))
        if trip.held:
            self._held.append((decision.kind, decision.scope))
        if trip.stops and not trip.existed:
            self._announce(trip.flag())
        self._say(f"  → {printable(action, 200)}: {trip.path}")
        return acted or incident

    def _make_durable(self, trip: Trip, stop: str) -> None:
        trip.make_durable()
        self._writer.put("stop_durable", {"stop": stop, "durable_ns": time.time_ns()}, urgent=True)

    def _announce(self, flag: Flag) -> None:
        if flag.set:
            self._standing[flag.path] = flag
        else:
            self._standing.pop(flag.path, None)
        self._publish(flag)

    def _adopt_flags(self, *, recovered: bool = False) -> None:
        """See what people did to the flags since the last look: journal and publish it."""
        present = {flag.path: flag for flag in self._control.flags()}
        for path, flag in present.items():
            if path not in self._standing:
                self._announce(flag)
                self._writer.put(
                    "flag_recovered" if recovered else "flag_set", msgspec.structs.asdict(flag), actor=flag.actor
                )
                if not recovered:
                    self._say(f"flag set by {printable(flag.actor, 60)}: {path}: {printable(flag.reason, 200)}")
        for path, flag in list(self._standing.items()):
            if path not in present:
                self._see_cleared(flag)

    def _see_cleared(self, flag: Flag) -> None:
        """A flag went: by a reset, which left its record, or by somebody who deleted it, and then it is set again."""
        stem = Path(flag.path).parent.name if flag.scope.kind is not ScopeKind.HOST else "host"
        reset = next((r for r in reversed(self._control.resets()) if r.kind == flag.kind and r.key == stem), None)
        if reset is None or reset.ts < flag.ts:
            again = self._control.trip(
                flag.kind,
                flag.scope,
                reason=f"the flag was deleted without a reset and is set again; it said: {flag.reason}",
                reason_code="tampering",
                actor=_ACTOR,
                automatic=False,
            )
            self._on_disk(again.make_durable)
            self._writer.put("flag_deleted", msgspec.structs.asdict(flag), urgent=True)
            self._announce(again.flag())
            self._say(f"CRITICAL flag deleted without a reset, set again: {flag.path}")
            return
        gone = msgspec.structs.replace(flag, ts=reset.ts, set=False, actor=reset.actor, reason=reset.reason)
        self._announce(gone)
        self._engine.release_stop(flag.kind, flag.scope)
        self._writer.put("flag_cleared", msgspec.structs.asdict(gone), actor=reset.actor)
        self._say(f"flag cleared by {printable(reset.actor, 60)}: {flag.path}: {printable(reset.reason, 200)}")

    def _file_issue(self, incident: Incident, *, verified: bool | None = None, stopped: tuple[str, ...] = ()) -> None:
        """Have the issue written; incidents that grow faster than the disk writes are written once, as they then stand."""
        if incident.severity is Severity.INFO:
            return
        with self._issues_lock:
            waiting = self._issues_due.get(incident.key)
            if waiting is not None and verified is None:
                verified, stopped = waiting.verified, waiting.stopped
            self._issues_due[incident.key] = _IssueDue(incident, verified, stopped)
        if waiting is None:
            self._on_disk(lambda: self._write_issue(incident.key))

    def _write_issue(self, key: str) -> None:
        with self._issues_lock:
            due = self._issues_due.pop(key)
        stop = StopKind.HARD_KILL if due.incident.severity is Severity.CRITICAL else StopKind.WRITE_LOCKDOWN
        issue = self._issues.file(
            due.incident, verified=due.verified, stopped=due.stopped, stop=stop if due.incident.actions else None
        )
        if issue is not None:
            self._writer.put("issue", {"key": issue.key, "priority": issue.priority.value, "path": issue.path})

    # --- commands ----------------------------------------------------------------------------------------------------

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("verb"):
            case "ping":
                return {"pid": os.getpid()}
            case "register":
                return self._register(msgspec.convert(_without_verb(request), SessionRequest))
            case "finished":
                return self._finished(str(request["session"]), dict(request["result"]))
            case "status":
                return self._status()
            case "incidents":
                return {"incidents": msgspec.to_builtins(self._book.open())}
            case "criteria":
                return {"criteria": self._criteria()}
            case "budget":
                return {"budget": explain.budget(self._engine.budget())}
            case "ack":
                return self._acknowledge(str(request["key"]), bool(request["true_alarm"]), str(request["actor"]))
            case "reference":
                return self._refer(str(request.get("freeze_by", "")))
            case "maintenance":
                return self._maintain(msgspec.convert(_without_verb(request), MaintenanceRequest))
        raise UsageError(
            "command: expected ping, register, finished, status, incidents, criteria, budget, ack, reference or maintenance, "
            f"found {request.get('verb')!r}"
        )

    def _refer(self, freeze_by: str) -> dict[str, Any]:
        """Freeze what is normal now, or tell what has left the reference."""
        if freeze_by:
            reference = self._drift.freeze(now=time.time_ns(), actor=freeze_by, key=self._key)
            content = msgspec.json.encode(reference)
            self._on_disk(lambda: _replace(self._config.home / "reference.json", content))
            self._writer.put(
                "reference_frozen",
                {"series": len(reference.series), "signature": reference.signature},
                actor=freeze_by,
                urgent=True,
            )
        kept = self._drift.reference
        return {
            "frozen_at": kept.frozen_at if kept is not None else None,
            "actor": kept.actor if kept is not None else "",
            "series": len(kept.series) if kept is not None else 0,
            "drifted": self._drift.drifted(),
        }

    def _maintain(self, request: MaintenanceRequest) -> dict[str, Any]:
        """Begin, end or list maintenance windows and deployments."""
        now = time.time_ns()
        if request.begin is not None:
            self._calendar.begin(
                request.begin,
                request.series,
                request.seconds,
                now=now,
                name=request.name,
                reason=request.reason,
                actor=request.actor,
            )
        elif request.end:
            self._calendar.end(request.end, now=now)
        if request.begin is not None or request.end:
            self._on_disk(self._calendar.save)
            self._renew_windows()
        return {"windows": msgspec.to_builtins(self._windows), "suspended": self._engine.suspended()}

    def _acknowledge(self, key: str, true_alarm: bool, actor: str) -> dict[str, Any]:
        """A person judges an open incident: its series' alarms count against the budget, or no longer do."""
        verdict = "true" if true_alarm else "false"
        incident = self._book.acted(key, f"acknowledged as {verdict} by {actor}")
        if incident is None:
            raise UsageError(f"ack: expected the key of an open incident, found {key!r}; see argus incidents")
        confirmed = [name for name in incident.evidence if self._engine.confirm(name, true_alarm=true_alarm)]
        self._writer.put("acknowledged", {"key": key, "true_alarm": true_alarm, "actor": actor}, urgent=True)
        return {"key": key, "message": incident.message, "series": confirmed}

    def _register(self, request: SessionRequest) -> dict[str, Any]:
        session = self._sessions.register(request)
        self._renew_poller()
        self._look_at_control()
        self._writer.put("session_registered", msgspec.structs.asdict(request))
        return {"endpoint": session.endpoint, "control": str(self._config.control.absolute())}

    def _finished(self, name: str, result: dict[str, Any]) -> dict[str, Any]:
        """A supervisor says how its run ended: journal it, let the issue say what was verified, answer once durable."""
        session = self._sessions.get(name)
        if session is None:
            raise UsageError(f"finished: expected a registered session, found {name!r}")
        self._drain()
        if (status := result.get("status")) is not None:
            found = self._engine.end_session(
                name, code=max(status, 0), signal=max(-status, 0), stopped=bool(result.get("stop"))
            )
            if found:
                self._handle(found, self._engine.decisions())
        issue = ""
        if result.get("stop"):
            scope = Scope(ScopeKind.SESSION, name, session=name)
            incident = self._book.acted(
                issue_key(scope, "runaway"), f"process tree: {result['stop']}", state=IncidentState.STOPPED
            )
            if incident is not None:
                verified = result["stop"] == "verified_stopped"
                self._file_issue(incident, verified=verified, stopped=(_ending(result),))
                issue = str(self._issues.directory / f"P0-{incident.key}.md")
        self._writer.put("session_finished", {"session": name, **result}, urgent=True)
        self._release(name)
        return {"issue": issue}

    def _release(self, name: str) -> None:
        self._sessions.release(name)
        self._renew_poller()

    # --- status ------------------------------------------------------------------------------------------------------

    def _criteria(self) -> dict[str, Any]:
        """What became of the criteria since the start, and what they have to go by."""
        sources = self._engine.statistics()["event_sources"]
        return {
            "fired": self._fired,
            "session_caps": sum(session.request.cap_nusd > 0 for session in self._sessions),
            "event_types": sorted({name for source in sources for name in source["types"]}),
        }

    def _say_status(self) -> None:
        counted = self._engine.statistics()
        self._tell_blind_spots(counted["sources_read"])
        self._say(self._status_line(len(counted["event_sources"])))

    def _tell_blind_spots(self, sources: list[dict[str, Any]]) -> None:
        """One line per cause for what cannot be read."""
        for source in sources:
            if source["error"] and source["error"] not in self._told_blind:
                self._told_blind.add(source["error"])
                self._say(f"blind spot: {printable(source['error'], 300)}")
                self._writer.put("blind_spot", {"source": source["name"], "error": source["error"]})

    def _status_line(self, senders: int) -> str:
        latest = self._engine.latest()
        rate = (self._accepted - self._accepted_shown) / self._status_every_s
        self._accepted_shown = self._accepted
        flags = ", ".join(sorted(f"{f.kind} {f.scope}" for f in self._standing.values())) or "none"
        parts = [
            time.strftime("%H:%M:%S"),
            self._host_words(latest),
            "busiest " + (" ".join(busiest(self._engine.processes())) or "none"),
            f"events {rate:.1f}/s from {senders} sources, {self._rejected} rejected",
            f"sessions {len(self._sessions)}",
            f"incidents {len(self._book)}",
            f"flags {printable(flags, 120)}",
        ]
        if self._windows:
            parts.append(printable(window_words(self._windows, self._engine.suspended()), 160))
        return " | ".join(parts)

    def _host_words(self, latest: Latest) -> str:
        """The newest row in words; a sample that is late by a moment leaves the words of the row before."""
        words = host_line(latest.names, latest.values)
        now = time.monotonic()
        if words != NOT_OBSERVED or now - self._host_seen[0] > _HOST_LATE_S:
            self._host_seen = (now, words) if words != NOT_OBSERVED else (self._host_seen[0], words)
        return self._host_seen[1]

    def _numbers(self) -> dict[str, float]:
        """What only the collector knows, by the names in `argus.services.metrics`."""
        written = self._writer.statistics()
        budget = self._engine.budget_totals()
        numbers = {
            "argus_alarm_budget_broken": float(budget.broken),
            "argus_enforcing": float(self._mode == "enforce"),
            "argus_entity_surprise": self._engine.entity().bits,
            "argus_events_refused_total": self._rejected + (self._http.rejected if self._http is not None else 0),
            "argus_flags": len(self._standing),
            "argus_host_alarms": budget.alarms,
            "argus_host_alarms_requested_total": budget.requested,
            "argus_incidents_open": len(self._book),
            "argus_journal_commits_total": written.commits,
            "argus_journal_failed_commits_total": written.failed_commits,
            "argus_journal_lag_max_seconds": written.lag_ns_max / 1e9,
            "argus_journal_queued": written.queued,
            "argus_journal_rejected_total": written.rejected,
            "argus_journal_shed_decisions_total": written.shed_decisions,
            "argus_journal_shed_samples_total": written.shed_samples,
            "argus_journal_written_total": written.written,
            "argus_series_suspended": self._engine.suspended(),
            "argus_sessions": len(self._sessions),
        }
        if self._publisher is not None:
            numbers |= {
                "argus_publish_dropped_heartbeats_total": self._publisher.dropped_heartbeats,
                "argus_publish_dropped_total": self._publisher.dropped,
                "argus_publish_oversize_total": self._publisher.oversize,
                "argus_publish_records_total": self._publisher.sent,
            }
        return numbers

    def _status(self) -> dict[str, Any]:
        counted = self._engine.statistics()
        written = self._writer.statistics()
        latest = self._engine.latest()
        return {
            **counted,
            "pid": os.getpid(),
            "host": self._engine.host,
            "uptime_s": time.monotonic() - self._started,
            "mode": self._mode,
            "home": str(self._config.home.absolute()),
            "host_line": self._host_words(latest),
            "processes": len(self._engine.processes().get("pid", ())),
            "entity": msgspec.structs.asdict(self._engine.entity()),
            "claims": msgspec.to_builtins(self._engine.claims()),
            "accepted": self._accepted,
            "rejected_total": self._rejected + (self._http.rejected if self._http is not None else 0),
            "otlp": self._http.statistics() if self._http is not None else None,
            "shed": written.shed_samples + written.shed_decisions,
            "dropped": self._publisher.dropped if self._publisher is not None else 0,
            "metrics": self._metrics.endpoint,
            "dropped_heartbeats": self._publisher.dropped_heartbeats if self._publisher is not None else 0,
            "flags": [f"{f.kind} {f.scope}" for f in self._standing.values()],
            "incidents": len(self._book),
            "sessions": [s.request.session for s in self._sessions],
            "maintenance": window_words(self._windows, self._engine.suspended()),
            "criteria": self._fired,
        }


def _replace(path: Path, content: bytes) -> None:
    """Replace a file whole and durably."""
    fresh = path.with_suffix(".tmp")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _keep_sample(path: Path, sample: list[dict[str, Any]]) -> None:
    """The newest refused events, so that their sender's author can see why: one JSON object a line, replaced whole."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(item) + "\n" for item in sample))
    fresh.replace(path)


def _print_line(text: str) -> None:
    """A line for a person; when nobody reads any more, the auditor goes on without."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _without_verb(request: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key != "verb"}


def _detector(anomaly: Anomaly) -> dict[str, Any]:
    return {
        "name": anomaly.detector,
        "family": anomaly.family.value,
        "value": anomaly.value,
        "threshold": anomaly.upper,
        "bits": anomaly.bits,
        "since": anomaly.since,
    }


def _ending(result: dict[str, Any]) -> str:
    """How a supervisor ended its process tree, for the issue."""
    left = f"; still there: {', '.join(result['left'])}" if result["left"] else ""
    gone_ms = result["all_gone_ns"] / 1e6
    return f"{result['stop']}: {result['signalled']} processes, all gone {gone_ms:.1f} ms after the flag{left}"


def _what_happened(trip: Trip) -> str:
    if trip.held:
        return "held"
    if trip.shadow:
        return "shadowed"
    return "stood already" if trip.existed else "set"


def _signer(key: SigningKey) -> Callable[[bytes], dict[str, str]]:
    """Signs flags with the journal's key."""
    return lambda data: {"alg": "ed25519", "key_id": key.key_id, "value": key.sign(data).hex()}


def _agents(guards: Iterable[GuardInfo], supervisors: Iterable[SessionRequest]) -> list[tuple[str, int, int, bool]]:
    """Roots of the sessions' process trees: guarded processes, and what supervisors started (not they themselves)."""
    roots = {(each.pid, each.start_time): (each.session, True) for each in supervisors}
    for guard in guards:
        for kind, name in _guarded(guard.scopes):
            if kind is ScopeKind.SESSION:
                roots.setdefault((guard.pid, guard.start_time), (name, False))
    return [(session, pid, start, below) for (pid, start), (session, below) in roots.items()]


def _guarded(scopes: Iterable[str]) -> set[tuple[ScopeKind, str]]:
    """Announced scopes as pairs; what is not `kind:id` of a known kind guards nothing."""
    pairs = (text.partition(":") for text in scopes)
    return {(ScopeKind(kind), name) for kind, _, name in pairs if kind in _SCOPE_KINDS and name}
