"""`argus run -- command`: an agent as a guarded session, from registration to the verified end of its process tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from argus.errors import ArgusError, UnreachableError
from argus.killswitch import supervise
from argus.schema import Scope, ScopeKind
from argus.services.sessions import SessionRequest, own_identity, parse_usd
from argus.wire.zmq import CommandClient

if TYPE_CHECKING:
    from argus.config import Config

_START_TIMEOUT_S = 15.0
_REPORT_TIMEOUT_S = 5.0


def run_session(
    command: Sequence[str],
    *,
    config: Config,
    config_path: Path | None = None,
    budget_usd: str | None = None,
    session: str | None = None,
    observe: bool = False,
    pause: bool = False,
    grace_s: float = 0.5,
) -> int:
    """Run `command` under Argus and return its exit status, or 137 when it was stopped.

    Asks the running collector for a private socket and a cap; with none running, starts one for this session. Without a
    budget nothing was declared that could stop it, so the session is observed.

    Raises
    ------
    UsageError : the budget or the session id cannot be used
    UnreachableError : no collector answers and none could be started
    """
    cap_nusd = parse_usd(budget_usd, "--budget-usd") if budget_usd is not None else 0
    name = session or f"run-{uuid.uuid4().hex[:12]}"
    pid, start_time = own_identity()
    request = SessionRequest(
        session=name, pid=pid, start_time=start_time, cap_nusd=cap_nusd, observe=observe or not cap_nusd
    )
    own_collector: subprocess.Popen[bytes] | None = None
    try:
        try:
            reply = register(config.home, request, timeout_s=1.0)
        except UnreachableError:
            own_collector = start_collector(config.home, config_path)
            reply = register(config.home, request, timeout_s=5.0)
        result = supervise.run(
            list(command),
            control=reply["control"],
            scope=Scope(ScopeKind.SESSION, name, session=name),
            env=session_environment(name, reply),
            pause=pause,
            grace_s=grace_s,
            when_silent=config.killswitch.when_silent,
            silent_after_s=config.killswitch.silent_after_ms / 1000,
        )
        report(config.home, name, result)
        _say(result)
        return result.exit_code
    finally:
        if own_collector is not None:
            own_collector.terminate()
            own_collector.wait(15)


def start_collector(home: Path, config_path: Path | None, *, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `argus-collect` in the background and wait until it answers.

    Raises
    ------
    UnreachableError : it ended or did not answer in time; names its log
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = log or home / "collect.log"
    words = [sys.executable, "-m", "argus.cli.collect"]
    if config_path is not None:
        words += ["--config", str(config_path)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            CommandClient(home, timeout_s=0.25).request({"verb": "ping"})
            return process
        except UnreachableError:
            time.sleep(0.02)
    process.terminate()
    process.wait(10)
    raise UnreachableError(
        f"argus-collect: expected it to answer within {_START_TIMEOUT_S:g} s, it "
        f"{'did not' if process.returncode in (0, -15) else f'ended with {process.returncode}'}; "
        f"nothing was run, read {log}"
    )


def register(home: Path, request: SessionRequest, *, timeout_s: float) -> dict[str, Any]:
    """Ask the collector for a session: its reply names the private endpoint and the control directory."""
    return CommandClient(home, timeout_s=timeout_s).request({"verb": "register", **msgspec.to_builtins(request)})


def report(home: Path, session: str, result: supervise.RunResult) -> dict[str, Any]:
    """Tell the collector how the run ended, so that journal and issue say what was verified; returns its answer."""
    try:
        return CommandClient(home, timeout_s=_REPORT_TIMEOUT_S).request(
            {"verb": "finished", "session": session, "result": msgspec.to_builtins(result)}
        )
    except ArgusError as error:
        print(f"argus run: the end of session {session} could not be reported: {error}", file=sys.stderr)
        return {}


def session_environment(session: str, reply: dict[str, Any]) -> dict[str, str]:
    """What an agent of `session` inherits: this environment, with the session's own scope, endpoint and control."""
    return {
        **os.environ,
        "ARGUS_SESSION": session,
        "ARGUS_EVENTS": reply["endpoint"],
        "ARGUS_CONTROL": reply["control"],
    }


def told(result: supervise.RunResult) -> str:
    """How a stopped run ended, in a sentence."""
    left = f"; still there: {', '.join(result.left)}" if result.left else ""
    return (
        f"{result.stop}: {result.signalled} processes signalled, first after {result.first_signal_ns / 1e6:.1f} ms, "
        f"all gone after {result.all_gone_ns / 1e6:.1f} ms{left}"
    )


def _say(result: supervise.RunResult) -> None:
    if result.stop:
        print(f"argus run: stopped, {result.cause}: {told(result)}", file=sys.stderr)
