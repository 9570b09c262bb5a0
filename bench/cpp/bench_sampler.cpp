// host_tick_lateness/<rate>: how late a sampler wakes, in microseconds, p99, while it reads the cheap files of the real
// machine on absolute deadlines; the bar is 200. host_tick_drift/<rate>: deadlines that were neither met nor counted as
// missed, over the run; the bar is 0.
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>

#include "engine/catalog.hpp"
#include "engine/host_plane.hpp"
#include "report.hpp"

namespace {

using namespace argus;

constexpr double kSeconds = 5;

// Polls what a source polls, at any interval.
class Polling final : public engine::Task {
public:
    Polling(const sources::SourceDescriptor& descriptor, Nanos interval)
        : Task(descriptor.name, interval), source_(std::move(*descriptor.open({}, system_io()))) {}
    [[nodiscard]] Result<sources::PollReport> poll(Nanos now, engine::RingEmit& emit) override {
        return source_->poll(now, emit);
    }

private:
    std::unique_ptr<sources::Source> source_;
};

bool bench_rate(const char* rate, Nanos interval) {
    const SystemClock clock;
    engine::Registry registry(8192);
    engine::Sampler sampler("bench", registry, clock, 1 << 15);
    sampler.set_window(kSecond);
    const engine::Task* first = nullptr;
    for (const auto* descriptor : engine::source_catalog()) {
        const std::string name = descriptor->name;
        if (name != "cpu" && name != "pressure" && name != "network") continue;
        if (!descriptor->open({}, system_io()).ok()) continue;
        auto task = std::make_unique<Polling>(*descriptor, interval);
        first = first == nullptr ? task.get() : first;
        sampler.add(std::move(task));
    }
    const Nanos start = read_clock(CLOCK_MONOTONIC);
    sampler.start();
    std::this_thread::sleep_for(std::chrono::duration<double>(kSeconds));
    sampler.stop();
    const Nanos ran = read_clock(CLOCK_MONOTONIC) - start;
    const auto& counters = first->counters();
    const std::uint64_t accounted = counters.polls.load() + counters.missed.load();
    const double drift = std::abs(static_cast<double>(ran) / static_cast<double>(interval) -
                                  static_cast<double>(accounted));
    const double p99 = static_cast<double>(sampler.lateness().quantile(0.99)) / 1e3;
    const double p50 = static_cast<double>(sampler.lateness().quantile(0.5)) / 1e3;
    const bool late = bench::report((std::string("host_tick_lateness/") + rate).c_str(), p99, "us", "p50 of the run",
                                    p99 / p50, 200, p99 <= 200 && counters.emitted.load() > 0);
    const std::string name = std::string("host_tick_drift/") + rate;
    const bool kept = bench::report(name.c_str(), std::floor(drift > 2 ? drift : 0), "ticks", "ticks of the run",
                                    drift / static_cast<double>(accounted), 0, drift <= 2);  // start and end
    std::printf("# %s: %llu ticks, %llu missed\n", rate, static_cast<unsigned long long>(counters.polls.load()),
                static_cast<unsigned long long>(counters.missed.load()));
    return late && kept;
}

}  // namespace

int main() {
    const bool slow = bench_rate("100Hz", 10 * kMillisecond);
    return bench_rate("1kHz", kMillisecond) && slow ? 0 : 1;
}
