#include "engine/stops.hpp"

namespace argus::engine {

bool StopPolicy::is_guarded(ScopeKind kind, const std::string& id) const {
    if (id.empty()) return false;
    if (every_session_ && kind == ScopeKind::session) return true;
    return guarded_.contains({kind, id});
}

Scope StopPolicy::resolve(const Scope& scope) const {
    Scope resolved = scope;
    const auto narrow_to = [&](ScopeKind kind, const std::string& id) {
        if (static_cast<int>(kind) > static_cast<int>(scope.kind) || !is_guarded(kind, id)) return false;
        resolved.kind = kind;
        resolved.id = id;
        return true;
    };
    const std::string& task = scope.kind == ScopeKind::task ? scope.id : scope.task;
    const std::string& session = scope.kind == ScopeKind::session ? scope.id : scope.session;
    const std::string& agent = scope.kind == ScopeKind::agent ? scope.id : scope.agent;
    const std::string& tenant = scope.kind == ScopeKind::tenant ? scope.id : scope.tenant;
    if (narrow_to(ScopeKind::task, task) || narrow_to(ScopeKind::session, session) ||
        narrow_to(ScopeKind::agent, agent) || narrow_to(ScopeKind::tenant, tenant)) {
        return resolved;
    }
    return Scope{.kind = ScopeKind::host, .id = "", .tenant = {}, .agent = {}, .session = {}, .task = {}};
}

std::optional<Decision> StopPolicy::decide(const Anomaly& anomaly) {
    if (anomaly.severity == Severity::info || anomaly.family == Family::host) return std::nullopt;
    const StopKind kind = anomaly.severity == Severity::critical ? StopKind::hard_kill : StopKind::write_lockdown;
    Scope scope = resolve(anomaly.scope);
    if (!latched_.insert({kind, {scope.kind, scope.id}}).second) return std::nullopt;
    return Decision{.ts = anomaly.ts,
                    .kind = kind,
                    .scope = std::move(scope),
                    .anomaly = anomaly.id,
                    .criterion = anomaly.criterion,
                    .reason = anomaly.message};
}

void StopPolicy::release(StopKind kind, ScopeKind scope_kind, const std::string& id) {
    // There is one host: it is latched without a name, whatever its records call it.
    latched_.erase({kind, {scope_kind, scope_kind == ScopeKind::host ? std::string{} : id}});
}

}  // namespace argus::engine
