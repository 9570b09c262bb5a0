// Core records as plain Python objects; python/argus/engine turns them into typed ones.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "auditors/constraints.hpp"
#include "engine/alarm_budget.hpp"
#include "engine/event_plane.hpp"
#include "engine/host_plane.hpp"
#include "model/anomaly.hpp"
#include "sources/processes/processes.hpp"

namespace argus::bindings {

// A process table as arrays by name, one for each column.
class ProcessColumns {
public:
    ProcessColumns();
    // Views of the table, which `owner` keeps alive and unchanged as long as an array is; without an owner, copies.
    [[nodiscard]] pybind11::dict arrays(const sources::ProcessTable& table, pybind11::handle owner = {}) const;

private:
    pybind11::dtype name_type_, state_type_;
    std::vector<pybind11::str> keys_;  // of the columns of numbers
};

// Untrusted bytes as text: what is not UTF-8 becomes U+FFFD.
[[nodiscard]] pybind11::str text(std::string_view bytes);

[[nodiscard]] pybind11::dict scope_to_dict(const Scope& scope);
[[nodiscard]] auditors::Constraint constraint_of(const pybind11::dict& row);  // throws ValueError, KeyError
[[nodiscard]] pybind11::dict constraint_to_dict(const auditors::Constraint& constraint);
[[nodiscard]] pybind11::dict anomaly_to_dict(const Anomaly& anomaly);  // keys of argus.schema.Anomaly but `host`
[[nodiscard]] pybind11::dict budget_totals(const engine::AlarmBudget& budget);
// The same, and of each of `slots` its level, state and days.
[[nodiscard]] pybind11::dict budget_dict(const engine::AlarmBudget& budget, std::span<const std::uint32_t> slots);
[[nodiscard]] pybind11::dict reject_dict(std::span<const std::uint32_t> counts);  // reason -> count, zeros left out
[[nodiscard]] pybind11::dict reject_dict(std::span<const std::uint64_t> counts);
[[nodiscard]] pybind11::list source_list(const engine::EventPlane& plane);
[[nodiscard]] pybind11::dict totals_dict(const engine::EventPlane& plane);
[[nodiscard]] pybind11::list quarantine_list(const engine::EventPlane& plane);
[[nodiscard]] ScopeKind scope_kind(const std::string& name);  // throws ValueError
[[nodiscard]] pybind11::list host_status_to_list(engine::HostPlane& host);

}  // namespace argus::bindings
