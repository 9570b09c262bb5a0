"""The words of GenAI telemetry: which attribute of a span or a log record is which key of an Argus event.

Sources: OpenTelemetry semantic conventions for GenAI (both the names up to 1.36 and those after), OpenInference's
`llm.*`, OpenLLMetry's `traceloop.*`, OpenLIT's cost. An attribute has one of four fates: it fills a key (`FIELDS`, the
first name present wins), it is kept in `attrs` (`KEPT`), it is content and is left out (`CONTENT`), or it is unknown,
left out and counted. Arguments and results of tools are hashed, never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

import msgspec

from argus.wire.emitter import canonical_hash

# Key of the event (or a word of the mapping itself) -> names in order of precedence.
FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "operation": ("gen_ai.operation.name",),
    "openinference": ("openinference.span.kind",),
    "traceloop": ("traceloop.span.kind",),
    "request": ("llm.request.type",),
    "mcp": ("mcp.method.name",),
    "event_name": ("event.name",),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "model": (
        "gen_ai.response.model", "llm.response.model_name", "gen_ai.request.model", "llm.request.model_name",
        "llm.model_name", "embedding.model_name", "reranker.model_name",
    ),
    "session": ("gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id"),
    "agent": ("gen_ai.agent.name", "agent.name", "gen_ai.agent.id"),
    "agent_version": ("gen_ai.agent.version", "traceloop.entity.version"),
    "workflow": ("gen_ai.workflow.name", "traceloop.workflow.name"),
    "entity": ("traceloop.entity.name", "graph.node.name"),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt",
                     "llm.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion",
                      "llm.usage.completion_tokens"),
    "total_tokens": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"),
    "cache_read_tokens": ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
                          "llm.token_count.prompt_details.cache_read",
                          "llm.token_count.prompt_details.cache_input"),
    "cache_write_tokens": ("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_creation_input_tokens",
                           "llm.token_count.prompt_details.cache_write"),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens",
                         "llm.token_count.completion_details.reasoning"),
    "cost": ("llm.cost.total", "gen_ai.usage.cost"),
    "ttft": ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token", "gen_ai.server.ttft"),
    "tool": ("gen_ai.tool.name", "tool.name"),
    "call": ("gen_ai.tool.call.id", "tool.id", "tool_call.id"),
    "args": ("gen_ai.tool.call.arguments", "tool.parameters", "traceloop.entity.input", "input.value"),
    "result": ("gen_ai.tool.call.result", "traceloop.entity.output", "output.value"),
    "error": ("error.type", "exception.type"),
    "eval": ("gen_ai.evaluation.name", "evaluation.name", "annotation.name"),
    "score": ("gen_ai.evaluation.score.value", "evaluation.score", "annotation.score"),
    "label": ("gen_ai.evaluation.score.label", "evaluation.label", "annotation.label"),
}  # fmt: skip


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Kept in `attrs` under their own names, as a scalar of at most 512 bytes.
KEPT: Final = _names(
    "gen_ai.data_source.id gen_ai.output.type gen_ai.response.id gen_ai.response.finish_reasons gen_ai.tool.type "
    "gen_ai.token.type gen_ai.request.max_tokens gen_ai.request.choice.count gen_ai.request.temperature "
    "gen_ai.request.top_p gen_ai.request.top_k gen_ai.request.frequency_penalty gen_ai.request.presence_penalty "
    "gen_ai.request.seed gen_ai.request.stream gen_ai.request.encoding_formats gen_ai.request.reasoning_effort "
    "gen_ai.embeddings.dimension.count gen_ai.openai.request.response_format gen_ai.openai.request.service_tier "
    "gen_ai.openai.response.service_tier gen_ai.openai.response.system_fingerprint "
    "gen_ai.openai.system_fingerprint gen_ai.openai.api_version gen_ai.openai.api_type "
    "openai.request.service_tier openai.response.service_tier openai.response.system_fingerprint openai.api.type "
    "gen_ai.prompt.name server.port llm.is_streaming llm.top_k llm.frequency_penalty llm.presence_penalty "
    "llm.response.finish_reason llm.response.stop_reason llm.finish_reason llm.request.repetition_penalty "
    "llm.cost.prompt llm.cost.completion llm.token_count.prompt_details.audio "
    "llm.token_count.completion_details.audio llm.prompt_template.version gen_ai.is_streaming "
    "traceloop.entity.path traceloop.prompt.key traceloop.prompt.version traceloop.prompt.managed graph.node.id "
    "graph.node.parent_id input.mime_type output.mime_type prompt.id prompt.vendor mcp.session.id "
    "mcp.protocol.version mcp.request.id jsonrpc.request.id rpc.response.status_code network.transport "
    "telemetry.sdk.name deployment.environment deployment.environment.name evaluation.annotator_kind "
    "annotation.annotator_kind"
)

# Content, or what people wrote: left out. A name, or the beginning of one up to a dot.
CONTENT: Final = _names(
    "gen_ai.system_instructions gen_ai.input.messages gen_ai.output.messages gen_ai.tool.definitions "
    "gen_ai.tool.description gen_ai.agent.description gen_ai.request.stop_sequences gen_ai.prompt "
    "gen_ai.completion gen_ai.retrieval.query.text gen_ai.retrieval.documents gen_ai.evaluation.explanation "
    "gen_ai.content.prompt gen_ai.content.completion gen_ai.openai.api_base gen_ai.user "
    "gen_ai.request.structured_output_schema llm.input_messages llm.output_messages llm.prompts llm.choices "
    "llm.completions llm.tools llm.function_call llm.invocation_parameters llm.prompt_template.template "
    "llm.prompt_template.variables llm.headers llm.user llm.chat.stop_sequences llm.request.functions "
    "llm.content.completion.chunk embedding.text embedding.vector embedding.embeddings "
    "embedding.invocation_parameters retrieval.documents reranker.query reranker.input_documents "
    "reranker.output_documents document tool.description tool.json_schema metadata tag.tags user.id input.images "
    "prompt.url traceloop.association.properties traceloop.prompt.template traceloop.prompt.template_variables "
    "traceloop.correlation.id evaluation.explanation evaluation.metadata annotation.explanation "
    "annotation.metadata annotations evaluations mcp.request.argument mcp.response.value mcp.resource.uri "
    "exception.message exception.stacktrace exception.escaped server.address"
)

_KEPT, _LEFT_OUT = -1, -2
WORDS: Final[dict[str, tuple[int, str]]] = {
    **dict.fromkeys(CONTENT, (_LEFT_OUT, "")),
    **{name: (_KEPT, name) for name in KEPT},
    **{name: (rank, field) for field, names in FIELDS.items() for rank, name in enumerate(names)},
}
_TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_MODEL: Final = frozenset(("chat", "generate_content", "text_completion", "embeddings", "completion", "embedding"))
_TASK: Final = frozenset(("invoke_agent", "invoke_workflow"))
_OPENINFERENCE: Final = {
    "LLM": "chat", "EMBEDDING": "chat", "TOOL": "execute_tool", "AGENT": "invoke_agent", "RETRIEVER": "retrieval",
    "EVALUATOR": "evaluation",
}  # fmt: skip
_TRACELOOP: Final = {"workflow": "invoke_workflow", "agent": "invoke_agent", "tool": "execute_tool", "task": "step"}
_ATTRS_MAX, _ATTR_BYTES = 32, 512
_INT64_MAX: Final = 2**63 - 1


class MappingError(ValueError):
    """A span, record or event that cannot become an event: `reason` is a short name to count by, the text a sentence."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Moment(msgspec.Struct, frozen=True, gc=False):
    """Where and when a span or record stands: hexadecimal ids ("" = none), ns, and how it ended."""

    trace: str
    span: str
    parent: str
    name: str
    start: int
    end: int
    failed: bool = False


def fate(name: str) -> str:
    """What becomes of an attribute: the key it fills, "attrs", "content", or "" when it is unknown."""
    rank, field = WORDS.get(name) or (0, "")
    if rank == _KEPT:
        return "attrs"
    return "content" if rank == _LEFT_OUT or (not field and is_content(name)) else field


def is_content(name: str) -> bool:
    """Whether an attribute lies under a content name: `llm.input_messages.0.message.content`."""
    at = name.find(".")
    while at > 0:
        if name[:at] in CONTENT:
            return True
        at = name.find(".", at + 1)
    return False


def operation_of(found: Mapping[str, Any], parent: str) -> str:
    """Which operation a span is, in OpenTelemetry's words; "" = none of an agent."""
    if operation := found.get("operation"):
        return str(operation)
    if kind := found.get("openinference"):
        kind = str(kind)
        if kind == "CHAIN":
            return "chain" if parent else "invoke_workflow"
        return _OPENINFERENCE.get(kind) or kind.lower()
    if kind := found.get("traceloop"):
        return _TRACELOOP.get(str(kind)) or "step"
    if kind := found.get("request"):
        return str(kind)
    if found.get("mcp") == "tools/call" or "tool" in found:
        return "execute_tool"
    if "input_tokens" in found or "output_tokens" in found or ("provider" in found and "model" in found):
        return "chat"
    return ""


def events_of(at: Moment, found: dict[str, Any], attrs: dict[str, Any], base: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a finished span, by its attributes; [] = a span of no agent.

    Parameters
    ----------
    found : values by key of `FIELDS`
    attrs : what `KEPT` names, scalars
    base : keys that every event of the sender has: v, source, perhaps tenant, agent, session

    Raises
    ------
    MappingError : a number is none, is negative or beyond int64
    """
    operation = operation_of(found, at.parent)
    if not operation:
        return []
    event = _common(at, found, base)
    if operation in _MODEL:
        return _model(at, found, attrs, event)
    event["id"] = at.span + ":e"
    if operation == "execute_tool":
        _tool(at, found, event)
    elif operation in _TASK:
        event["type"] = "task_failed" if at.failed or "error" in found else "task_completed"
        event["task"] = at.span
        if kind := found.get("workflow") or found.get("entity"):
            attrs["task_type"] = kind
        if "agent" not in event and operation == "invoke_agent" and (name := found.get("entity") or at.name):
            event["agent"] = name
    elif "eval" in found:
        _evaluation(found, event)
    else:
        event["type"] = "retrieval_done" if operation == "retrieval" else operation
        _put(event, found, "model", "provider")
    if attrs:
        event["attrs"] = attrs
    return [event]


def record_of(
    name: str, at: Moment, found: dict[str, Any], attrs: dict[str, Any], base: dict[str, Any], identity: str
) -> list[dict[str, Any]]:
    """The events of a log record or a span's event called `name`; [] = it says nothing that a span does not say.

    Evaluations become `eval_logged`; the details of an inference only where no span carries them. The messages of the
    old generation repeat a whole conversation at every call: they are neither progress nor new, and are left out.

    Raises
    ------
    MappingError : as `events_of`
    """
    if name == "gen_ai.evaluation.result":
        event = {**_common(at, found, base), "id": identity}
        _evaluation(found, event)
        return [event]
    if name == "gen_ai.client.inference.operation.details" and not at.span:
        event = _common(at, found, base)
        return _model(msgspec.structs.replace(at, span=identity), found, attrs, event)
    return []


def _common(at: Moment, found: Mapping[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    event = {**base, "ts": at.end}
    if at.trace:
        event["trace"] = at.trace
        event.setdefault("session", at.trace)
    if at.span:
        event["span"] = at.span
        if at.parent:
            event["parent_span"] = event["task"] = at.parent
        failed = at.failed or "error" in found
        event["ok"] = not failed
        if failed:
            event["error"] = found.get("error") or "error"
        if 0 < at.start <= at.end:
            event["duration_ns"] = at.end - at.start
    for key in ("session", "agent", "agent_version"):
        if key in found:
            event[key] = found[key]
    return event


def _put(event: dict[str, Any], found: Mapping[str, Any], *keys: str) -> None:
    for key in keys:
        if key in found:
            event[key] = found[key]


def _model(at: Moment, found: dict[str, Any], attrs: dict[str, Any], event: dict[str, Any]) -> list[dict[str, Any]]:
    """What a call of a model did, and, where tokens or cost are known, what it cost."""
    event["type"], event["id"] = "model_returned", at.span + ":e"
    _put(event, found, "provider", "model")
    for key in _TOKENS:
        if key in found:
            event[key] = amount(found[key], key)
    if "ttft" in found:
        event["ttft_ns"] = scaled(found["ttft"], "time to first chunk")
    estimated = False
    if "total_tokens" in found and "input_tokens" not in event and "output_tokens" not in event:
        # Which tokens they were is unknown: the dearer kind bounds the cost.
        event["output_tokens"], estimated = amount(found["total_tokens"], "total_tokens"), True
    if not ("cost" in found or "input_tokens" in event or "output_tokens" in event):
        if attrs:
            event["attrs"] = attrs
        return [event]
    cost = {**event, "type": "token_cost_logged", "id": at.span + ":c"}
    if "cost" in found:
        cost["cost_nusd"] = scaled(found["cost"], "cost")
    if estimated:
        cost["cost_estimated"] = True
    if attrs:
        event["attrs"] = attrs
    return [event, cost]


def _tool(at: Moment, found: dict[str, Any], event: dict[str, Any]) -> None:
    event["type"] = "tool_returned"
    event["tool"] = found.get("tool") or found.get("entity") or at.name.removeprefix("execute_tool ")
    _put(event, found, "call")
    for key in ("args", "result"):
        if key in found:
            event[f"{key}_hash"], event[f"{key}_len"] = canonical_hash(_parsed(found[key]))


def _parsed(value: Any) -> Any:
    """A text that holds JSON, as that: two senders that space it in their own ways hash alike."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    return value


def _evaluation(found: Mapping[str, Any], event: dict[str, Any]) -> None:
    event["type"] = "eval_logged"
    _put(event, found, "eval", "label")
    if "score" in found:
        event["score"] = real(found["score"], "score")


def amount(value: Any, what: str) -> int:
    """A count: an integer in [0, 2**63), written as a number or as digits.

    Raises
    ------
    MappingError : it is none
    """
    if value.__class__ is int and 0 <= value <= _INT64_MAX:
        return value
    number: Any = value
    if (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19) or (
        isinstance(value, float) and value.is_integer()
    ):
        number = int(value)
    if number.__class__ is not int or not 0 <= number <= _INT64_MAX:
        raise MappingError("bad_number", f"{what}: expected an integer in [0, 2**63), found {shown(value)}")
    return int(number)


def real(value: Any, what: str) -> float:
    """A finite number. Errors: `MappingError`."""
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not isfinite(number):
        raise MappingError("bad_number", f"{what}: expected a finite number, found {shown(value)}")
    return number


def scaled(value: Any, what: str) -> int:
    """Seconds as ns, or USD as nano-USD, to the nearest; at most int64. Errors: `MappingError`."""
    number = real(value, what)
    if not 0 <= number < 9.2e9:
        raise MappingError("bad_number", f"{what}: expected a number in [0, 9.2e9), found {shown(value)}")
    return round(number * 1e9)


def keep(attrs: dict[str, Any], name: str, value: Any) -> bool:
    """Put a scalar into `attrs`, a list of texts joined; False = it does not fit there."""
    if value.__class__ is str and len(value) <= _ATTR_BYTES // 4 and len(attrs) < _ATTRS_MAX - 1:
        attrs[name] = value
        return True
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    if isinstance(value, str):
        fits = len(value) <= _ATTR_BYTES and len(value.encode("utf-8", "replace")) <= _ATTR_BYTES
    elif isinstance(value, float):
        fits = isfinite(value)
    else:
        fits = isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value <= _INT64_MAX)
    if fits and len(attrs) < _ATTRS_MAX - 1:  # one is left for task_type
        attrs[name] = value
        return True
    return False


def shown(value: Any) -> str:
    """A value in a message, short; content never comes here."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
