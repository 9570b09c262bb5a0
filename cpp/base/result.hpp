// Result<T>: the outcome of an operation that is expected to fail at times (file gone, malformed line).
// Setup errors throw; bugs go through ARGUS_ASSERT. Errors carry static text only, so returning one never allocates.
#pragma once

#include <cstdint>
#include <utility>

#include "base/assert.hpp"

namespace argus {

enum class Errc : std::uint8_t {
    ok,
    unavailable,  // the kernel lacks the interface (ENOENT on a whole file)
    gone,         // the object vanished between listing and reading (ENOENT, ESRCH)
    permission,   // EACCES, EPERM
    truncated,    // input ended before the record did
    malformed,    // input does not follow the documented format
    too_large,    // input is larger than the stated cap
    limit,        // a resource limit was hit (EMFILE, full table)
    io,           // any other errno
};

[[nodiscard]] constexpr const char* to_string(Errc code) noexcept {
    switch (code) {
        case Errc::ok: return "ok";
        case Errc::unavailable: return "unavailable";
        case Errc::gone: return "gone";
        case Errc::permission: return "permission";
        case Errc::truncated: return "truncated";
        case Errc::malformed: return "malformed";
        case Errc::too_large: return "too_large";
        case Errc::limit: return "limit";
        case Errc::io: return "io";
    }
    return "unknown";
}

struct Error {
    Errc code = Errc::ok;
    int sys_errno = 0;
    const char* what = "";  // static text: the file or field, and what was expected
};

template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : value_(std::move(value)) {}
    Result(Error error) : error_(error) { ARGUS_ASSERT(error.code != Errc::ok); }

    [[nodiscard]] bool ok() const noexcept { return error_.code == Errc::ok; }
    explicit operator bool() const noexcept { return ok(); }
    [[nodiscard]] const Error& error() const noexcept { return error_; }
    [[nodiscard]] T& value() {
        ARGUS_ASSERT(ok());
        return value_;
    }
    [[nodiscard]] const T& value() const {
        ARGUS_ASSERT(ok());
        return value_;
    }
    T& operator*() { return value(); }
    const T& operator*() const { return value(); }
    T* operator->() { return &value(); }

private:
    T value_{};
    Error error_{};
};

}  // namespace argus
