"""Records of the control directory: who reads it, what is held, what was reset, and texts that fit into a flag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from argus.errors import UsageError
from argus.schema import Scope, ScopeKind, StopKind

LADDER = (ScopeKind.TASK, ScopeKind.SESSION, ScopeKind.AGENT, ScopeKind.TENANT)  # narrowest first; then the host


class GuardInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A live announced guard. `start_time` is ns since boot, `since` wall-clock ns; `scopes` are `kind:id`."""

    pid: int
    start_time: int
    scopes: list[str]
    since: int
    acknowledged_epoch: int
    standing: str = ""
    boot_id: str = ""
    path: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Automatic trips of a scope are suppressed, until the wall clock or the boot clock says that it is over."""

    key: str
    scope: str
    actor: str
    reason: str
    issued_at: int
    until: int
    until_boot_ns: int
    boot_id: str


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """A flag that was cleared: by whom, why, where it went. `sha256` is that of the flag's bytes, "" = unreadable."""

    ts: int
    kind: StopKind
    scope: str
    key: str
    actor: str
    second_actor: str
    reason: str
    automatic: bool
    epoch: int
    sha256: str
    archived: str
    v: int = 1


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What `recover` found: the word before and after, trips it completed, unfinished files it removed."""

    bits_before: int
    bits: int
    epoch: int
    completed: list[StopKind]
    removed: int


class Holds(msgspec.Struct):
    """The override file."""

    v: int = 1
    holds: list[Hold] = []


@dataclass(frozen=True, slots=True)
class Target:
    """Where a scope's flags are: `directory` is "" for the host, else a name under `scopes/`."""

    scope: Scope
    directory: str

    @property
    def key(self) -> str:
        return self.directory or "host"

    def path(self, kind: StopKind) -> str:
        return f"scopes/{self.directory}/{kind}.flag" if self.directory else f"{kind}.flag"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a trip was asked for."""

    kind: StopKind
    reason: str
    reason_code: str
    actor: str
    automatic: bool
    absolute: bool
    detectors: tuple[Any, ...]
    evidence: tuple[str, ...]
    incident: str
    pids: tuple[tuple[int, int], ...]


def parse_scope(text: str, *, host: str = "") -> Scope:
    """`host` or `kind:id` as a Scope.

    Raises
    ------
    UsageError : anything else
    """
    kind, colon, identity = text.partition(":")
    if kind == "host":
        return Scope(kind=ScopeKind.HOST, id=identity or host)
    if not colon or not identity or kind not in {str(each) for each in LADDER}:
        raise UsageError(
            f"scope: expected host, tenant:ID, agent:ID, session:ID or task:ID, found {text!r}; nothing done"
        )
    return Scope(kind=ScopeKind(kind), id=identity)


def stop_kind(kind: StopKind | str) -> StopKind:
    try:
        return StopKind(kind)
    except ValueError:
        raise UsageError(f"kind: expected hard_kill or write_lockdown, found {kind!r}; nothing done") from None


def canonical(content: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: sorted keys, no blanks, ASCII only (an id may hold any character)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def plain(values: tuple[Any, ...]) -> list[Any]:
    """Descriptions as JSON, whatever they are made of; what is no JSON is told as text."""
    found: list[Any] = []
    for value in values:
        try:
            raw = msgspec.to_builtins(value)
            json.dumps(raw, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raw = short(repr(value), 200)
        found.append(short(raw, 200) if isinstance(raw, str) else raw)
    return found


def short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def fit(text: str, limit: int) -> str:
    """Text that takes at most `limit` bytes as a JSON string, whatever characters it holds."""
    while (size := len(json.dumps(text))) > limit:
        text = text[: max(0, min(len(text) - 2, len(text) * (limit - 8) // size))] + "…"
    return text
