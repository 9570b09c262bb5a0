// Counts heap allocations of the calling thread, for tests that forbid them.
#pragma once

#include <cstdint>

namespace argus::test {

[[nodiscard]] std::uint64_t allocations() noexcept;

}  // namespace argus::test
