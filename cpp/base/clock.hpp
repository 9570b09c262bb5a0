// Time. int64 nanoseconds everywhere. `wall` labels records (CLOCK_REALTIME, may step); `mono` measures intervals
// (CLOCK_BOOTTIME: runs on through suspend). Components take a `now`; only the edges read a Clock.
#pragma once

#include <cstdint>
#include <ctime>

namespace argus {

using Nanos = std::int64_t;
inline constexpr Nanos kMicrosecond = 1'000;
inline constexpr Nanos kMillisecond = 1'000'000;
inline constexpr Nanos kSecond = 1'000'000'000;

[[nodiscard]] inline Nanos read_clock(clockid_t id) noexcept {
    timespec t{};
    clock_gettime(id, &t);
    return Nanos{t.tv_sec} * kSecond + t.tv_nsec;
}

class Clock {
public:
    virtual ~Clock() = default;
    [[nodiscard]] virtual Nanos wall() const noexcept = 0;
    [[nodiscard]] virtual Nanos mono() const noexcept = 0;
};

class SystemClock final : public Clock {
public:
    [[nodiscard]] Nanos wall() const noexcept override { return read_clock(CLOCK_REALTIME); }
    [[nodiscard]] Nanos mono() const noexcept override { return read_clock(CLOCK_BOOTTIME); }
};

class ManualClock final : public Clock {
public:
    explicit ManualClock(Nanos start = 0) : wall_(start), mono_(start) {}
    [[nodiscard]] Nanos wall() const noexcept override { return wall_; }
    [[nodiscard]] Nanos mono() const noexcept override { return mono_; }
    void advance(Nanos by) noexcept {
        wall_ += by;
        mono_ += by;
    }
    void step_wall(Nanos by) noexcept { wall_ += by; }

private:
    Nanos wall_;
    Nanos mono_;
};

}  // namespace argus
