"""P0 and P1 issues: one Markdown file for each scope and cause, written for the person who is woken by it.

A repeat updates its file (count, last seen, newest evidence) and never makes another; what was P1 and turns critical
moves to P0 and stays there. Everything that came from outside (ids, messages, names) is untrusted: control characters
and direction marks are dropped, Markdown and HTML are escaped, mentions, issue references and links are broken up,
lengths are capped. Commands name a scope by its directory's hash wherever its id holds anything but plain characters.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from argus.guard import scope_directory
from argus.killswitch.files import open_private_directory, read_at, write_durable_at
from argus.schema import Hypothesis, Incident, Issue, Priority, Scope, ScopeKind, Severity, StopKind

ISSUE_BYTES_MAX = 65_536
TEXT_CHARS_MAX = 500
LIST_ITEMS_MAX = 50
_MARK = "<!-- argus-issue "
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>$^=:])")
_ANOMALY_ID = re.compile(r"[0-9a-f]{16}")
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,127}")
_BREAK = "\u200b"  # zero-width space: readable as before, but no mention, reference or link


class _State(msgspec.Struct):
    """What a file must remember; its first line."""

    key: str
    priority: Priority
    first_seen: int
    last_seen: int
    count: int
    incident: str
    updated: int
    stopped: list[str] = []
    verified: bool | None = None
    v: int = 1


def escape(text: str, limit: int = TEXT_CHARS_MAX) -> str:
    """Untrusted text as inert Markdown of one line and at most `limit` characters before escaping."""
    kept = []
    for char in text[: 4 * limit]:
        category = unicodedata.category(char)
        if category in ("Zl", "Zp", "Zs") or char in "\t\n\r\v\f":
            kept.append(" ")
        elif category not in ("Cc", "Cf", "Cs", "Co", "Cn"):
            kept.append(char)
    line = " ".join("".join(kept).split())
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    line = _MARKDOWN.sub(r"\\\1", line).replace("\\>", "&gt;")
    line = line.replace("@", f"@{_BREAK}").replace("\\#", f"\\#{_BREAK}").replace("\\:", f"\\:{_BREAK}")
    return re.sub(r"(?i)\bwww", lambda match: match[0] + _BREAK, line)


def issue_key(scope: Scope, cause: str) -> str:
    """Stable key of a scope's cause: 16 hex digits. The session or task an agent happens to be in plays no part."""
    parts = (str(scope.kind), scope.id, scope.tenant, cause)
    joined = "\0".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def scope_argument(scope: Scope) -> str:
    """A scope for a command line that may be pasted into a shell as it is."""
    if scope.kind is ScopeKind.HOST:
        return "host"
    if _PLAIN_ID.fullmatch(scope.id):
        return f"{scope.kind}:{scope.id}"
    return scope_directory(str(scope.kind), scope.id)


class IssueFiler:
    """Writes issues into one directory (`issues/` of the state directory), made where absent.

    Raises
    ------
    RefusedError, UnreachableError : the directory is not what only its owner may change, or cannot be made
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()
        self._fd = open_private_directory(self.directory, create=True, owner=os.geteuid())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> IssueFiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def file(
        self,
        incident: Incident,
        *,
        stopped: Sequence[str] = (),
        verified: bool | None = None,
        stop: StopKind | None = None,
        now: int | None = None,
    ) -> Issue | None:
        """Write or update the issue of an incident; None for one that is only information.

        Parameters
        ----------
        stopped : what was stopped, one line each · verified : whether that was checked; None = nothing to check, or
        not yet
        stop : the flag that was set, for the command that resets it · now : wall-clock ns, default the system's

        Raises
        ------
        OSError : the disk refused; the earlier file is whole
        """
        if incident.severity is Severity.INFO:
            return None
        ts = time.time_ns() if now is None else now
        key = issue_key(incident.scope, incident.cause)
        priority = Priority.P0 if incident.severity is Severity.CRITICAL else Priority.P1
        earlier = self._earlier(key)
        if earlier is not None and earlier.priority is Priority.P0:
            priority = Priority.P0
        state = _State(
            key=key, priority=priority, first_seen=ts, last_seen=ts, count=1, incident=_plain_id(incident.id),
            updated=incident.updated,
        )  # fmt: skip
        if earlier is not None:
            # Writing the same state of the same incident again, after a crash say, is no repeat.
            again = (earlier.incident, earlier.updated) == (state.incident, state.updated)
            state.first_seen = min(earlier.first_seen, ts)
            state.last_seen = max(earlier.last_seen, ts)
            state.count = earlier.count + (0 if again else 1)
            if not stopped:  # a repeat that stops nothing must not hide what an earlier one stopped
                stopped, verified = earlier.stopped, earlier.verified if verified is None else verified
        state.stopped = [text[:TEXT_CHARS_MAX] for text in stopped[:LIST_ITEMS_MAX]]
        state.verified = verified
        name = f"{priority}-{key}.md"
        issue = Issue(
            key=key, priority=priority, path=str(self.directory / name), incident=incident, first_seen=state.first_seen,
            last_seen=state.last_seen, count=state.count, stopped=list(stopped), verified=verified,
        )  # fmt: skip
        write_durable_at(self._fd, name, render(issue, state_line=_state_line(state), stop=stop).encode())
        if earlier is not None and earlier.priority is not priority:
            with suppress(FileNotFoundError):
                os.unlink(f"{earlier.priority}-{key}.md", dir_fd=self._fd)
            os.fsync(self._fd)
        return issue

    def _earlier(self, key: str) -> _State | None:
        for priority in (Priority.P0, Priority.P1):
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                first = read_at(self._fd, f"{priority}-{key}.md", ISSUE_BYTES_MAX).split(b"\n", 1)[0].decode()
                if first.startswith(_MARK) and first.endswith(" -->"):
                    state = msgspec.json.decode(first[len(_MARK) : -4].encode(), type=_State)
                    if state.key == key and state.priority is priority and state.count > 0:
                        return state
        return None


def render(issue: Issue, *, state_line: str, stop: StopKind | None = None) -> str:
    """The issue's file. `state_line` is its first line."""
    incident, scope = issue.incident, issue.incident.scope
    told = escape(str(scope), 200)
    words = {True: "verified", False: "**not verified: somebody may still run**", None: "not checked"}
    parts = [
        state_line,
        f"# {issue.priority}: {escape(incident.cause, 120)} on {told}",
        "",
        escape(incident.message, 2000) or "No message.",
        "",
        f"- Severity: {incident.severity}, state: {incident.state}",
        f"- Host: {escape(incident.host, 128)}",
        f"- Scope: {told}{_belongs(scope)}",
        f"- First seen: {_time(issue.first_seen)}",
        f"- Last seen: {_time(issue.last_seen)}",
        f"- Count: {issue.count} ({incident.count} anomalies in the last incident)",
        f"- Incident: {escape(incident.id, 64)}",
        "",
        "## What was stopped",
        "",
        *(_list(issue.stopped, "Nothing was stopped.")),
    ]
    if issue.stopped:
        parts += ["", f"Stop: {words[issue.verified]}."]
    if incident.actions:
        parts += ["", "## What Argus did", "", *_list(incident.actions, "")]
    parts += ["", "## Why", "", *_hypotheses(incident.hypotheses)]
    parts += ["", "## Evidence", "", *_list(incident.evidence, "None recorded.")]
    parts += ["", "Anomalies:", "", *_list(incident.anomalies, "None recorded.")]
    parts += ["", "## What to do", "", *_commands(scope, stop, issue.priority, incident.anomalies)]
    return _capped("\n".join(parts) + "\n")


def _commands(scope: Scope, stop: StopKind | None, priority: Priority, anomalies: Sequence[str] = ()) -> Iterable[str]:
    argument = scope_argument(scope)
    flag = stop or (StopKind.HARD_KILL if priority is Priority.P0 else StopKind.WRITE_LOCKDOWN)
    yield "```sh"
    why = "--reason 'why, in ten characters or more'"
    if told := [name for name in anomalies if _ANOMALY_ID.fullmatch(name)]:
        yield f"argus show {' '.join(told[:3])}  # what was found, and the events behind it"
    yield f"argus hold --scope {argument} --for 30m {why}  # no automatic stop for a while"
    if stop is not None:
        yield f"argus reset {flag} --scope {argument} {why}  # clear the stop"
        if stop is StopKind.HARD_KILL:
            yield "# a hard kill after a breach needs --second NAME, another person, as well"
    else:
        yield f"argus trip {flag} --scope {argument} {why}  # stop it now"
    yield "```"


def _belongs(scope: Scope) -> str:
    wider = [(k, getattr(scope, k)) for k in ("tenant", "agent", "session", "task") if getattr(scope, k)]
    told = ", ".join(f"{kind} {escape(name, 120)}" for kind, name in wider if kind != scope.kind)
    return f" ({told})" if told else ""


def _hypotheses(hypotheses: Sequence[Hypothesis]) -> Iterable[str]:
    if not hypotheses:
        yield "No hypothesis."
    for each in hypotheses[:10]:
        yield f"- {escape(each.cause, 200)}: {max(0.0, min(1.0, each.posterior)):.0%}"
        for word, items in (("for", each.evidence_for), ("against", each.evidence_against)):
            for item in items[:10]:
                yield f"  - {word}: {escape(item, 200)}"
        if each.refuted_by:
            yield f"  - would be refuted by: {escape(each.refuted_by, 200)}"


def _list(items: Sequence[str], none: str) -> Iterable[str]:
    if not items and none:
        yield none
    for item in items[:LIST_ITEMS_MAX]:
        yield f"- {escape(item)}"
    if len(items) > LIST_ITEMS_MAX:
        yield f"- and {len(items) - LIST_ITEMS_MAX} more, in the journal"


def _capped(text: str) -> str:
    raw = text.encode()
    if len(raw) <= ISSUE_BYTES_MAX:
        return text
    cut = raw[: ISSUE_BYTES_MAX - 64].decode("utf-8", "ignore").rpartition("\n")[0]
    return f"{cut}\n\nCut here: the whole record is in the journal.\n"


def _state_line(state: _State) -> str:
    # Without angle brackets nothing in it can end the comment; in JSON they only stand in strings.
    raw = msgspec.json.encode(state).decode().replace("<", "\\u003c").replace(">", "\\u003e")
    return f"{_MARK}{raw} -->"


def _plain_id(identity: str) -> str:
    return (
        identity
        if re.fullmatch(r"[A-Za-z0-9_.]{1,64}", identity)
        else hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    )


def _time(ns: int) -> str:
    with suppress(OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return f"{ns} ns"
