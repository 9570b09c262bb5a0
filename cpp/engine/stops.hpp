// Which stop an anomaly asks for, on which scope, and whether that was asked before. Deterministic and pure: the same
// anomalies with the same guards give the same decisions, live and in replay.
//
// A critical anomaly asks for hard_kill, a warning for write_lockdown; host statistics alone never ask for either. The
// stop goes to the narrowest scope that has a live announced guard, else to the next one up, so that it always has a
// reader or reaches the host. Decisions latch: one per kind and scope until it is released.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "model/anomaly.hpp"

namespace argus::engine {

enum class StopKind : std::uint8_t { write_lockdown, hard_kill };

[[nodiscard]] constexpr const char* to_string(StopKind kind) noexcept {
    return kind == StopKind::hard_kill ? "hard_kill" : "write_lockdown";
}

struct Decision {
    Nanos ts = 0;  // of the anomaly
    StopKind kind = StopKind::write_lockdown;
    Scope scope;  // after resolution to a guarded one
    std::string anomaly;
    std::string criterion;
    std::string reason;
    bool word_raised = false;  // the epoch word already says so
};

class StopPolicy {
public:
    // every_session: take a guard on every session for granted (replays).
    explicit StopPolicy(bool every_session) : every_session_(every_session) {}

    void set_guarded(std::set<std::pair<ScopeKind, std::string>> scopes) { guarded_ = std::move(scopes); }

    [[nodiscard]] Scope resolve(const Scope& scope) const;

    // What `anomaly` asks for, or nothing (too weak, or the same stop was decided before).
    [[nodiscard]] std::optional<Decision> decide(const Anomaly& anomaly);

    // A stop was cleared by a person or by hysteresis: the next reason counts again.
    void release(StopKind kind, ScopeKind scope_kind, const std::string& id);

private:
    [[nodiscard]] bool is_guarded(ScopeKind kind, const std::string& id) const;

    bool every_session_;
    std::set<std::pair<ScopeKind, std::string>> guarded_;
    std::set<std::pair<StopKind, std::pair<ScopeKind, std::string>>> latched_;
};

}  // namespace argus::engine
