// What Argus says: the one Anomaly of host series and of agent events alike. Anomalies are rare, so these records own
// their text; nothing on the hot path builds one before it has something to say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "base/clock.hpp"

namespace argus {

enum class Severity : std::uint8_t { info, warning, critical };
enum class Family : std::uint8_t { safety, economic, behavioural, causal, host, policy, self };
inline constexpr std::size_t kSeverities = 3;
inline constexpr std::size_t kFamilies = 7;
enum class ScopeKind : std::uint8_t { host, tenant, agent, session, task };
enum class Direction : std::int8_t { down = -1, none = 0, up = 1 };

[[nodiscard]] constexpr const char* to_string(Severity s) noexcept {
    constexpr const char* names[] = {"info", "warning", "critical"};
    return names[static_cast<int>(s)];
}
[[nodiscard]] constexpr const char* to_string(Family f) noexcept {
    constexpr const char* names[] = {"safety", "economic", "behavioural", "causal", "host", "policy", "self"};
    return names[static_cast<int>(f)];
}
[[nodiscard]] constexpr const char* to_string(ScopeKind k) noexcept {
    constexpr const char* names[] = {"host", "tenant", "agent", "session", "task"};
    return names[static_cast<int>(k)];
}
[[nodiscard]] constexpr const char* to_string(Direction d) noexcept {
    return d == Direction::up ? "up" : d == Direction::down ? "down" : "none";
}

struct Scope {
    ScopeKind kind = ScopeKind::host;
    std::string id;  // of that kind: the session's id for a session
    std::string tenant;
    std::string agent;
    std::string session;
    std::string task;
};

inline constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();

struct Anomaly {
    std::string id;  // 16 hex digits; the same observations give the same id
    Nanos ts = 0;    // wall clock: of the event, or of the tick
    Family family = Family::host;
    const char* detector = "";  // static name of the leaf that spoke
    Scope scope;
    std::string series;  // a metric's full name, or "<auditor>.<kind>" for events
    double value = kNotANumber;
    double expected = kNotANumber;
    double lower = kNotANumber;
    double upper = kNotANumber;
    double bits = 0.0;                    // surprise; infinite surprise of a deterministic rule is written as 64
    double false_alarm_interval_s = 0.0;  // ARL0 of this rule on this scope; 0 = deterministic, none by chance
    Nanos since = 0;                      // wall clock at which the condition began
    Direction direction = Direction::none;
    Severity severity = Severity::info;  // what it justifies alone
    std::string criterion;               // "C1" .. "W7" when a criterion gave the severity, else empty
    std::vector<std::string> evidence;   // event ids and series names, most telling first, at most 8
    std::string message;                 // one sentence in plain words
};

inline constexpr double kDeterministicBits = 64.0;

}  // namespace argus
