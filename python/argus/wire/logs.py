"""A `logging` handler: log records of an agent as events, through the Emitter.

    logging.getLogger().addHandler(argus.EventHandler(agent="planner"))
    log.info("searched", extra={"argus": {"type": "tool_called", "tool": "search"}})

A record becomes one event: `extra={"argus": {...}}` names its type and fields (schema v1), and without it the type is
`log_record`. Either way `attrs` say logger, level, function, line, and a hash of the message's template, so that equal
messages can be counted without being kept. The message itself is sent only with `text=True`; of an exception only its
class. A handler never raises and never blocks: what cannot be an event is counted in `refused`.
"""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import Any, Final

from argus.errors import UsageError
from argus.wire.emitter import Emitter

_TEXT_BYTES_MAX: Final = 16_384


class EventHandler(logging.Handler):
    """Sends log records as events. Safe from any thread.

    Parameters
    ----------
    emitter : whom to send through; stays the caller's. None = an own one, made from `options` and closed with the
        handler
    level : records below it are left alone
    text : send the formatted message as `text` (at most 16 KiB; Argus scores and drops it)
    options : of the own Emitter: endpoint, source, session, tenant, agent, …

    Raises
    ------
    UsageError : both an emitter and options for one, or options that Emitter refuses
    """

    def __init__(
        self, emitter: Emitter | None = None, *, level: int | str = logging.NOTSET, text: bool = False, **options: Any
    ) -> None:
        super().__init__(level)
        if emitter is not None and options:
            raise UsageError(
                f"EventHandler: expected an emitter or options for one, found both ({', '.join(sorted(options))}); "
                "not opened. Give these to the emitter."
            )
        self.refused = 0
        self._own = emitter is None
        self._emitter = Emitter(**options) if emitter is None else emitter
        self._text = text

    @property
    def emitter(self) -> Emitter:
        """Where the events go; its `sent` and `dropped` count them."""
        return self._emitter

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; called by `logging`."""
        try:
            kind, fields = self._event(record)
            self._emitter.emit(kind, **fields)
        except Exception:
            self.refused += 1
            self.handleError(record)

    def close(self) -> None:
        """Close the own emitter, and leave `logging`'s list of handlers."""
        if self._own:
            self._emitter.close()
        super().close()

    def _event(self, record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
        given = getattr(record, "argus", None)
        if given is not None and not isinstance(given, dict):
            raise UsageError(f"EventHandler: extra['argus']: expected a dict of fields, found {given!r:.80}; not sent.")
        fields = dict(given or {})
        kind = fields.pop("type", "log_record")
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__qualname__
        attributes = {
            "logger": _clip(record.name or "", 512),
            "level": record.levelno,
            "function": _clip(record.funcName or "", 512),
            "line": record.lineno,
            "template": sha256(template.encode("utf-8", "replace")).hexdigest()[:16],
        }
        fields["attrs"] = {**attributes, **fields.get("attrs", {})}
        fields.setdefault("ts", int(record.created * 1e6) * 1000)
        if record.exc_info and record.exc_info[0] is not None:
            fields.setdefault("error", _clip(record.exc_info[0].__qualname__, 128))
        if self._text:
            fields.setdefault("text", _clip(record.getMessage(), _TEXT_BYTES_MAX))
        return kind, fields


def _clip(text: str, limit: int) -> str:
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
