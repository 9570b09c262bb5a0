// What the source `availability` is told to look at, and how it counts what it saw; apart from the source for tests and
// fuzzers.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"

namespace argus::sources {

inline constexpr std::size_t kMaxAvailabilityTargets = 64;

enum class TargetKind : std::uint8_t { unit, process, port, http };

[[nodiscard]] constexpr const char* to_string(TargetKind kind) noexcept {
    constexpr const char* names[] = {"unit", "process", "port", "http"};
    return names[static_cast<int>(kind)];
}

struct Target {
    TargetKind kind = TargetKind::process;
    std::string name;                // as it was written, without "unit:", "process:", "port:"
    std::vector<std::string> paths;  // unit: where its control group may be, from the root of the tree
    sockaddr_storage address{};      // port, http
    socklen_t address_size = 0;
    std::string request;             // http: what is sent
};

// Throws std::invalid_argument, naming the target and what was expected.
[[nodiscard]] Target parse_target(std::string_view written);

// The status of an HTTP response by its first bytes; 0 = more are needed, -1 = this is no HTTP.
[[nodiscard]] int http_status(std::string_view response) noexcept;

// Name and state in /proc/<pid>/stat; false when it holds none.
[[nodiscard]] bool name_and_state(std::string_view stat, std::string_view& name, char& state) noexcept;

// Share of observations that were up, over a sliding window of whole buckets.
template <std::size_t kBuckets, Nanos kWidth>
class UptimeShare {
public:
    void see(Nanos now, bool up) noexcept {
        Bucket& bucket = at(now / kWidth);
        ++bucket.seen;
        if (up) ++bucket.up;
    }
    // NaN when the window holds none.
    [[nodiscard]] double share(Nanos now) const noexcept {
        const std::int64_t newest = now / kWidth;
        double up = 0;
        double seen = 0;
        for (const Bucket& bucket : buckets_) {
            if (bucket.index > newest - static_cast<std::int64_t>(kBuckets) && bucket.index <= newest) {
                up += bucket.up;
                seen += bucket.seen;
            }
        }
        return up / seen;
    }

private:
    struct Bucket {
        std::int64_t index = -1;
        std::uint32_t up = 0;
        std::uint32_t seen = 0;
    };
    Bucket& at(std::int64_t index) noexcept {
        Bucket& bucket = buckets_[static_cast<std::size_t>(index) % kBuckets];
        if (bucket.index != index) bucket = Bucket{index, 0, 0};
        return bucket;
    }
    std::array<Bucket, kBuckets> buckets_{};
};

}  // namespace argus::sources
