"""`argus drill`: rehearse a stop with everything real but the place.

A real collector, a real agent process that loops and spends, the real bus and a control directory of their own under a
temporary folder. Every step is timed from the event that crossed the line; the verdict needs all of them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from argus.config import load
from argus.killswitch import supervise
from argus.killswitch.control import Control
from argus.record.journal import read
from argus.record.verify import verify
from argus.schema import Scope, ScopeKind, StopKind
from argus.services.session import register, report, session_environment, start_collector, told
from argus.services.sessions import SessionRequest, own_identity

_BUDGET_NUSD = 1_000_000_000
_LIMIT_S = 15.0
_SESSION = "drill"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the rehearsal: `after_ms` counts from the event that crossed the line; None = it did not happen."""

    name: str
    ok: bool
    after_ms: float | None
    detail: str


class DrillReport(msgspec.Struct, frozen=True, kw_only=True):
    """The rehearsal's verdict."""

    ok: bool
    took_s: float
    steps: list[Step]


def drill(say: Callable[[str], object] | None = None) -> DrillReport:
    """Run the rehearsal in a temporary folder and report every step.

    Parameters
    ----------
    say : called with a line for each step as it is known

    Raises
    ------
    UnreachableError : the collector did not start
    """
    tell = say or (lambda _: None)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="argus-drill-") as folder:
        steps = _rehearse(Path(folder), tell)
    took = time.monotonic() - began
    steps.append(
        Step(name="in time", ok=took < _LIMIT_S, after_ms=None, detail=f"{took:.1f} s of at most {_LIMIT_S:g} s")
    )
    ok = all(step.ok for step in steps)
    tell(_line(steps[-1]))
    tell("drill passed: Argus can halt an agent on this machine" if ok else "drill FAILED: do not rely on a stop here")
    return DrillReport(ok=ok, took_s=took, steps=steps)


def _rehearse(folder: Path, tell: Callable[[str], object]) -> list[Step]:
    home, path = folder / "argus-data", folder / "argus.toml"
    path.write_text(_configuration(folder))
    config = load(path, environ={})
    collector = start_collector(home, path, log=folder / "collect.log")
    try:
        tell(f"collector up (pid {collector.pid}), sandbox {folder}")
        pid, start_time = own_identity()
        reply = register(
            home, SessionRequest(session=_SESSION, pid=pid, start_time=start_time, cap_nusd=_BUDGET_NUSD), timeout_s=5
        )
        tell("runaway agent starts: the same call over and over, 0.05 USD each, budget 1 USD")
        result = supervise.run(
            [sys.executable, "-m", "argus.services.runaway"],
            control=reply["control"],
            scope=Scope(ScopeKind.SESSION, _SESSION, session=_SESSION),
            env=session_environment(_SESSION, reply),
            grace_s=0.2,
        )
        gone_ns = time.time_ns() - time.monotonic_ns() + result.flag_seen_ns + result.all_gone_ns
        finished = report(home, _SESSION, result)
    finally:
        collector.terminate()
        collector.wait(15)
    with Control(config.control) as control:
        flags = [flag.path for flag in control.flags() if flag.kind is StopKind.HARD_KILL]
    steps = _judge(home, flags, result, gone_ns, str(finished.get("issue", "")))
    for step in steps:
        tell(_line(step))
    return steps


def _judge(home: Path, flags: list[str], result: supervise.RunResult, gone_ns: int, issue: str) -> list[Step]:
    """What happened, read from the journal and the disk, not from anybody's word."""
    journal, key = home / "journal.db", home / "keys" / "journal.pub"
    records = list(read(journal))
    kill = next((r for r in records if r.kind == "stop" and r.payload["kind"] == StopKind.HARD_KILL), None)
    if kill is None:
        return [Step(name="detected", ok=False, after_ms=None, detail="no hard_kill was decided")]
    crossed = int(kill.payload["event_ts"])

    def after(ns: int | None) -> float | None:
        return None if not ns else (int(ns) - crossed) / 1e6

    durable = next((r for r in records if r.kind == "stop_durable" and r.payload["stop"] == kill.payload["id"]), None)
    verdict = verify(journal, key)
    return [
        Step(
            name="detected",
            ok=True,
            after_ms=after(kill.payload["decided_ns"]),
            detail=f"{kill.payload['criterion']}: {kill.payload['reason']}",
        ),
        Step(
            name="flag visible",
            ok=bool(flags),
            after_ms=after(kill.payload["linked_ns"]),
            detail=", ".join(_within(home, flag) for flag in flags) or "no hard_kill.flag found",
        ),
        Step(
            name="durable",
            ok=durable is not None,
            after_ms=after(durable.payload["durable_ns"]) if durable else None,
            detail="flag and directory are synced",
        ),
        Step(
            name="every pid gone",
            ok=result.stop == "verified_stopped",
            after_ms=after(gone_ns),
            detail=told(result),
        ),
        Step(name="P0 issue", ok=bool(issue) and Path(issue).exists(), after_ms=None, detail=_within(home, issue)),
        Step(
            name="journal verified",
            ok=verdict.ok,
            after_ms=None,
            detail=f"{verdict.records} records, {verdict.checkpoints} signed checkpoints"
            if verdict.ok
            else verdict.reason,
        ),
    ]


def _within(home: Path, path: str) -> str:
    """A path as seen from the sandbox."""
    return path.removeprefix(f"{home.parent}/") or "none"


def _line(step: Step) -> str:
    when = f"{step.after_ms:8.1f} ms" if step.after_ms is not None else " " * 11
    return f"  {'ok  ' if step.ok else 'FAIL'} {step.name:16} {when}  {step.detail}"


def _configuration(folder: Path) -> str:
    """A collector that shares no socket, folder or name with a real one."""
    return (
        f'[state]\nhome = "{folder}/argus-data"\n'
        f'[inlets]\npull = ""\nsub = []\nipc = "ipc://{folder}/events.sock"\n'
        f'[outlets.zmq]\nendpoint = "ipc://{folder}/out.sock"\nreplay_endpoint = "ipc://{folder}/replay.sock"\n'
        "[outlets.prometheus]\nenabled = false\n"
    )
