#include "events/otlp_words.hpp"

#include <array>

#include "events/text.hpp"

namespace argus::events {
namespace {

struct Names {
    Word word;
    std::array<std::string_view, 7> names;  // in order of precedence
};

constexpr Names kNames[] = {
    {Word::operation, {"gen_ai.operation.name"}},
    {Word::openinference, {"openinference.span.kind"}},
    {Word::traceloop, {"traceloop.span.kind"}},
    {Word::request, {"llm.request.type"}},
    {Word::mcp, {"mcp.method.name"}},
    {Word::event_name, {"event.name"}},
    {Word::provider, {"gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"}},
    {Word::model,
     {"gen_ai.response.model", "llm.response.model_name", "gen_ai.request.model", "llm.request.model_name",
      "llm.model_name", "embedding.model_name", "reranker.model_name"}},
    {Word::session, {"gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id"}},
    {Word::agent, {"gen_ai.agent.name", "agent.name", "gen_ai.agent.id"}},
    {Word::agent_version, {"gen_ai.agent.version", "traceloop.entity.version"}},
    {Word::workflow, {"gen_ai.workflow.name", "traceloop.workflow.name"}},
    {Word::entity, {"traceloop.entity.name", "graph.node.name"}},
    {Word::input_tokens,
     {"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt",
      "llm.usage.prompt_tokens"}},
    {Word::output_tokens,
     {"gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion",
      "llm.usage.completion_tokens"}},
    {Word::total_tokens, {"gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"}},
    {Word::cache_read_tokens,
     {"gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
      "llm.token_count.prompt_details.cache_read", "llm.token_count.prompt_details.cache_input"}},
    {Word::cache_write_tokens,
     {"gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_creation_input_tokens",
      "llm.token_count.prompt_details.cache_write"}},
    {Word::reasoning_tokens,
     {"gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens",
      "llm.token_count.completion_details.reasoning"}},
    {Word::cost, {"llm.cost.total", "gen_ai.usage.cost"}},
    {Word::ttft, {"gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token", "gen_ai.server.ttft"}},
    {Word::tool, {"gen_ai.tool.name", "tool.name"}},
    {Word::call, {"gen_ai.tool.call.id", "tool.id", "tool_call.id"}},
    {Word::args, {"gen_ai.tool.call.arguments", "tool.parameters", "traceloop.entity.input", "input.value"}},
    {Word::result, {"gen_ai.tool.call.result", "traceloop.entity.output", "output.value"}},
    {Word::error, {"error.type", "exception.type"}},
    {Word::eval, {"gen_ai.evaluation.name", "evaluation.name", "annotation.name"}},
    {Word::score, {"gen_ai.evaluation.score.value", "evaluation.score", "annotation.score"}},
    {Word::label, {"gen_ai.evaluation.score.label", "evaluation.label", "annotation.label"}},
};

// Kept in `attrs` under their own names, as a scalar of at most 512 bytes.
constexpr std::string_view kKept[] = {
    "gen_ai.data_source.id", "gen_ai.output.type", "gen_ai.response.id", "gen_ai.response.finish_reasons",
    "gen_ai.tool.type", "gen_ai.token.type", "gen_ai.request.max_tokens", "gen_ai.request.choice.count",
    "gen_ai.request.temperature", "gen_ai.request.top_p", "gen_ai.request.top_k", "gen_ai.request.frequency_penalty",
    "gen_ai.request.presence_penalty", "gen_ai.request.seed", "gen_ai.request.stream",
    "gen_ai.request.encoding_formats", "gen_ai.request.reasoning_effort", "gen_ai.embeddings.dimension.count",
    "gen_ai.openai.request.response_format", "gen_ai.openai.request.service_tier",
    "gen_ai.openai.response.service_tier", "gen_ai.openai.response.system_fingerprint",
    "gen_ai.openai.system_fingerprint", "gen_ai.openai.api_version", "gen_ai.openai.api_type",
    "openai.request.service_tier", "openai.response.service_tier", "openai.response.system_fingerprint",
    "openai.api.type", "gen_ai.prompt.name", "server.port", "llm.is_streaming", "llm.top_k", "llm.frequency_penalty",
    "llm.presence_penalty", "llm.response.finish_reason", "llm.response.stop_reason", "llm.finish_reason",
    "llm.request.repetition_penalty", "llm.cost.prompt", "llm.cost.completion",
    "llm.token_count.prompt_details.audio", "llm.token_count.completion_details.audio", "llm.prompt_template.version",
    "gen_ai.is_streaming", "traceloop.entity.path", "traceloop.prompt.key", "traceloop.prompt.version",
    "traceloop.prompt.managed", "graph.node.id", "graph.node.parent_id", "input.mime_type", "output.mime_type",
    "prompt.id", "prompt.vendor", "mcp.session.id", "mcp.protocol.version", "mcp.request.id", "jsonrpc.request.id",
    "rpc.response.status_code", "network.transport", "telemetry.sdk.name", "deployment.environment",
    "deployment.environment.name", "evaluation.annotator_kind", "annotation.annotator_kind",
};

// Content, or what people wrote: left out. A name, or the beginning of one up to a dot.
constexpr std::string_view kContent[] = {
    "gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions",
    "gen_ai.tool.description", "gen_ai.agent.description", "gen_ai.request.stop_sequences", "gen_ai.prompt",
    "gen_ai.completion", "gen_ai.retrieval.query.text", "gen_ai.retrieval.documents", "gen_ai.evaluation.explanation",
    "gen_ai.content.prompt", "gen_ai.content.completion", "gen_ai.openai.api_base", "gen_ai.user",
    "gen_ai.request.structured_output_schema", "llm.input_messages", "llm.output_messages", "llm.prompts",
    "llm.choices", "llm.completions", "llm.tools", "llm.function_call", "llm.invocation_parameters",
    "llm.prompt_template.template", "llm.prompt_template.variables", "llm.headers", "llm.user",
    "llm.chat.stop_sequences", "llm.request.functions", "llm.content.completion.chunk", "embedding.text",
    "embedding.vector", "embedding.embeddings", "embedding.invocation_parameters", "retrieval.documents",
    "reranker.query", "reranker.input_documents", "reranker.output_documents", "document", "tool.description",
    "tool.json_schema", "metadata", "tag.tags", "user.id", "input.images", "prompt.url",
    "traceloop.association.properties", "traceloop.prompt.template", "traceloop.prompt.template_variables",
    "traceloop.correlation.id", "evaluation.explanation", "evaluation.metadata", "annotation.explanation",
    "annotation.metadata", "annotations", "evaluations", "mcp.request.argument", "mcp.response.value",
    "mcp.resource.uri", "exception.message", "exception.stacktrace", "exception.escaped", "server.address",
};

constexpr std::array<std::string_view, kWords> kWordNames{
    "operation", "openinference", "traceloop", "request", "mcp", "event_name", "provider", "model", "session", "agent",
    "agent_version", "workflow", "entity", "input_tokens", "output_tokens", "total_tokens", "cache_read_tokens",
    "cache_write_tokens", "reasoning_tokens", "cost", "ttft", "tool", "call", "args", "result", "error", "eval",
    "score", "label", "tenant"};

// Open addressing from a name's hash to its meaning; filled once.
class Table {
public:
    Table() noexcept {
        for (const Names& entry : kNames) {
            std::uint8_t rank = 0;
            for (const std::string_view name : entry.names) {
                if (!name.empty()) add(name, {entry.word, rank++});
            }
        }
        for (const std::string_view name : kKept) add(name, {Word::kept, 0});
        for (const std::string_view name : kContent) add(name, {Word::content, 0});
    }
    [[nodiscard]] Meaning find(std::string_view name) const noexcept {
        for (std::size_t at = slot(name); !entries_[at].name.empty(); at = (at + 1) % kSlots) {
            if (entries_[at].name == name) return entries_[at].meaning;
        }
        return {};
    }

private:
    static constexpr std::size_t kSlots = 1024;
    static_assert(std::size(kNames) * 7 + std::size(kKept) + std::size(kContent) < kSlots / 2);
    struct Entry {
        std::string_view name;
        Meaning meaning;
    };
    [[nodiscard]] static std::size_t slot(std::string_view name) noexcept { return hash_text(name) % kSlots; }
    void add(std::string_view name, Meaning meaning) noexcept {
        std::size_t at = slot(name);
        while (!entries_[at].name.empty() && entries_[at].name != name) at = (at + 1) % kSlots;
        entries_[at] = {name, meaning};
    }
    std::array<Entry, kSlots> entries_{};
};

[[nodiscard]] const Table& table() noexcept {
    static const Table words;
    return words;
}

}  // namespace

Meaning meaning_of(std::string_view attribute) noexcept { return table().find(attribute); }

bool is_content(std::string_view attribute) noexcept {
    constexpr std::size_t kLongest = 64;
    const std::string_view begins = attribute.substr(0, kLongest);
    for (std::size_t at = begins.find('.'); at != std::string_view::npos; at = begins.find('.', at + 1)) {
        if (at > 0 && table().find(attribute.substr(0, at)).word == Word::content) return true;
    }
    return false;
}

std::string_view word_name(Word word) noexcept {
    return word < Word::count_ ? kWordNames[static_cast<std::size_t>(word)] : std::string_view{};
}

}  // namespace argus::events
