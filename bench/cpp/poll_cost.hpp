// What benchmarks of sources share: who counts what they emit, CPU time of a call, a cache without what it reads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.hpp"
#include "sources/source.hpp"

namespace argus::bench {

class Count final : public sources::Emit {
public:
    [[nodiscard]] Slot open_series(SeriesInfo) override { return {opened++, 1}; }
    void close_series(Slot) override {}
    void value(Slot, double) override { ++values; }
    std::uint32_t opened = 0;
    std::uint32_t values = 0;
};

// Memory that fills the caches: touched before each reading, that one is cold.
class ColdCache {
public:
    void touch() {
        for (std::size_t i = 0; i < memory_.size(); i += 64) ++memory_[i];
    }

private:
    std::vector<unsigned char> memory_ = std::vector<unsigned char>(96 << 20);
};

// Median CPU ns of `work` in this thread, after one call of it; `before` each time outside the measurement.
inline double median_cpu_ns(int repeats, const std::function<void()>& work,
                            const std::function<void()>& before = [] {}) {
    std::vector<Nanos> took;
    work();
    for (int i = 0; i < repeats; ++i) {
        before();
        const Nanos start = read_clock(CLOCK_THREAD_CPUTIME_ID);
        work();
        took.push_back(read_clock(CLOCK_THREAD_CPUTIME_ID) - start);
    }
    std::nth_element(took.begin(), took.begin() + repeats / 2, took.end());
    return static_cast<double>(took[static_cast<std::size_t>(repeats) / 2]);
}

}  // namespace argus::bench
