// The words of GenAI telemetry: which attribute of a span or a log record is which key of an Argus event.
// Sources: OpenTelemetry semantic conventions for GenAI (both the names up to 1.36 and those after), OpenInference's
// `llm.*`, OpenLLMetry's `traceloop.*`, OpenLIT's cost. An attribute has one of four fates: it fills a key (the first
// name present wins), it is kept in `attrs`, it is content and is left out, or it is unknown, left out and counted.
#pragma once

#include <cstdint>
#include <string_view>

namespace argus::events {

// Keys of an event, and words of the mapping itself; the last two are fates without a key.
enum class Word : std::uint8_t {
    operation, openinference, traceloop, request, mcp, event_name, provider, model, session, agent, agent_version,
    workflow, entity, input_tokens, output_tokens, total_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, cost, ttft, tool, call, args, result, error, eval, score, label, tenant,
    count_, kept, content, unknown,
};
inline constexpr auto kWords = static_cast<std::size_t>(Word::count_);

struct Meaning {
    Word word = Word::unknown;
    std::uint8_t rank = 0;  // of several names for one key, the lower wins
};

[[nodiscard]] Meaning meaning_of(std::string_view attribute) noexcept;

// Whether an attribute lies under a content name: `llm.input_messages.0.message.content`.
[[nodiscard]] bool is_content(std::string_view attribute) noexcept;

[[nodiscard]] std::string_view word_name(Word word) noexcept;

}  // namespace argus::events
