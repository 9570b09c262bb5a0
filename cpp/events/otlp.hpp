// OTLP requests (traces or logs; protobuf or JSON) as msgpack frames of schema v1: one reader an encoding, one mapping.
// Format: opentelemetry-proto 1.x, docs/specification.md. A span or record that cannot become an event is refused by
// source and reason, and its neighbours live; what is no agent's is ignored and counted; a body that is no such request
// at all is a failure. Arguments and results of tools are hashed; prompts, answers and documents are never kept.
// Cost: bench agent_otlp.  Memory: a few times the body while it is read, kept for the next; 4,096 senders' clocks.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace argus::events {

inline constexpr std::size_t kOtlpFrameEvents = 256;
inline constexpr std::size_t kOtlpLanes = 8;
inline constexpr std::size_t kOtlpSources = 4096;
inline constexpr std::size_t kOtlpReasons = 256;
inline constexpr std::size_t kOtlpSamples = 8;
inline constexpr std::size_t kOtlpValues = 65'536;  // of one span's attributes, nested ones counted
inline constexpr std::size_t kOtlpEvents = 256;     // of one span, those that are read
inline constexpr int kOtlpDepth = 16;  // containers within an attribute

struct OtlpRefusal {
    std::string source;
    std::string reason;  // short, to count by
    std::string detail;  // a sentence; of what is only counted, empty
    std::uint64_t count = 0;
};

struct OtlpBatch {
    std::vector<std::string> frames;  // msgpack arrays, events in the order of their time
    std::uint64_t items = 0;          // spans or records in the body
    std::uint64_t events = 0;
    std::uint64_t ignored = 0;        // items of no agent
    std::uint64_t unknown = 0;        // attributes that no table names
    std::vector<OtlpRefusal> rejected;
    std::vector<OtlpRefusal> samples;  // the first few, in words
    std::string failure;               // why the body is no request: a reason to count by; empty = it is one
    std::string failure_detail;
};

enum class OtlpSignal : std::uint8_t { traces, logs };
enum class OtlpEncoding : std::uint8_t { json, protobuf };

// A sender's spans come in no promised order, and the engine judges the clock of every source. What falls back by more
// than the tolerance is told as of another lane of the sender, `name~1` to `name~7`, each of which goes forward.
class OtlpLanes {
public:
    explicit OtlpLanes(std::int64_t tolerance_ns) noexcept : tolerance_ns_(tolerance_ns) {}
    [[nodiscard]] std::size_t lane(const std::string& source, std::int64_t ts);

private:
    struct Newest {
        std::array<std::int64_t, kOtlpLanes> ts{};
        std::size_t count = 0;
    };
    std::int64_t tolerance_ns_;
    std::unordered_map<std::string, Newest> by_source_;
    std::deque<std::string> order_;  // oldest first
};

class OtlpMapping;

// Reads one body at a time; not for two threads at once.
class OtlpMapper {
public:
    // tenant_attribute: of span, record or resource; empty = none.
    OtlpMapper(std::string tenant_attribute, std::int64_t tolerance_ns);
    ~OtlpMapper();
    OtlpMapper(const OtlpMapper&) = delete;
    OtlpMapper& operator=(const OtlpMapper&) = delete;

    [[nodiscard]] OtlpBatch map(std::string_view body, OtlpSignal signal, OtlpEncoding encoding);

private:
    std::unique_ptr<OtlpMapping> mapping_;
    OtlpLanes lanes_;
};

}  // namespace argus::events
