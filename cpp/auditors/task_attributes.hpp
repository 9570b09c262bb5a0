// The attributes of a task's end that auditors read: `tool_calls` and `task_type`. The decoder has validated attrs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "events/msgpack_reader.hpp"
#include "model/event.hpp"

namespace argus::auditors {

struct TaskAttributes {
    std::int64_t tool_calls = kAbsent;
    std::string_view task_type;
};

[[nodiscard]] inline TaskAttributes read_task_attributes(std::span<const std::byte> encoded) noexcept {
    TaskAttributes found;
    if (encoded.empty()) return found;
    events::MsgpackReader reader(encoded);
    events::Value map, key, value;
    if (reader.next(map) != events::Fault::none || map.wire != events::Wire::map) return found;
    for (std::uint32_t i = 0; i < map.count; ++i) {
        if (reader.next(key) != events::Fault::none) return found;
        const bool calls = key.bytes == "tool_calls";
        if (!calls && key.bytes != "task_type") {
            if (!reader.skip()) return found;
            continue;
        }
        if (reader.next(value) != events::Fault::none) return found;
        if (calls && value.wire == events::Wire::integer) found.tool_calls = value.integer;
        if (!calls && value.wire == events::Wire::text) found.task_type = value.bytes;
    }
    return found;
}

}  // namespace argus::auditors
