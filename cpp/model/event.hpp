// An agent event, schema v1, as decoded from one msgpack map: views into the caller's bytes, valid until they go.
// Absent text is an empty view with data() == nullptr; absent numbers are kAbsent. Limits are those of the schema.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "base/clock.hpp"

namespace argus {

enum class EventType : std::uint8_t {
    unknown,
    task_started, task_completed, task_failed, task_cancelled,
    file_written, file_deleted,
    token_cost_logged, budget_reserved, budget_settled,
    tool_called, tool_returned, model_called, model_returned,
    prediction_made, label_received, retrieval_done, eval_logged,
    user_message, user_feedback, policy_violation, deployment,
    lockdown_set, lockdown_cleared, kill_set, kill_cleared,
    heartbeat, source_started, source_stopped, price_table_changed,
    count_,
};

inline constexpr std::int64_t kAbsent = std::numeric_limits<std::int64_t>::min();

struct Event {
    EventType type = EventType::unknown;
    std::string_view type_name, id, source;
    Nanos ts = 0;
    std::int64_t seq = kAbsent, mono = kAbsent;
    std::string_view boot;
    std::string_view tenant, session, task, parent, agent, agent_version, provider, model, strategy;
    std::string_view trace, span, parent_span;
    std::int64_t input_tokens = kAbsent, output_tokens = kAbsent, cache_read_tokens = kAbsent;
    std::int64_t cache_write_tokens = kAbsent, reasoning_tokens = kAbsent;
    std::int64_t cost_nusd = kAbsent, duration_ns = kAbsent, ttft_ns = kAbsent;
    std::string_view tool, call, args_hash, result_hash;
    std::int64_t args_len = kAbsent, result_len = kAbsent;
    std::string_view path, op, sha256;
    std::int64_t bytes = kAbsent;
    std::int8_t ok = -1;              // -1 absent, 0 false, 1 true
    std::int8_t cost_estimated = -1;  // likewise
    std::string_view error, eval, label, text;
    double score = std::numeric_limits<double>::quiet_NaN();
    std::span<const std::byte> entities, attrs;  // the validated msgpack array and map, still encoded; empty = absent
    std::uint64_t content_hash = 0;  // of the whole encoded map: tells a retransmission from a reused id
};

}  // namespace argus
