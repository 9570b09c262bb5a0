// ARGUS_ASSERT: a broken invariant is a bug in Argus. Always on; throws InternalError, which is caught once above
// step(): the engine turns `failed` and its heartbeat stops, so guards fall back to their own policy.
#pragma once

#include <stdexcept>
#include <string>

namespace argus {

class InternalError : public std::logic_error {
public:
    using std::logic_error::logic_error;
};

[[noreturn]] inline void assertion_failed(const char* expression, const char* file, int line) {
    throw InternalError(std::string(file) + ":" + std::to_string(line) + ": broken invariant: " + expression);
}

}  // namespace argus

#define ARGUS_ASSERT(expression) \
    (static_cast<bool>(expression) ? void(0) : ::argus::assertion_failed(#expression, __FILE__, __LINE__))
