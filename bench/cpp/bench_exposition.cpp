// host_exposition: all of 10,000 open series as one Prometheus page, node_exporter's names beside ours, against the bar
// of 10 ms, and its size; the first page, which lays the families out; and what one step pays to hand the values over.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/exposition.hpp"
#include "engine/host_plane.hpp"
#include "report.hpp"

namespace {

using namespace argus;

constexpr std::size_t kSeries = 10'000;
constexpr double kBarMs = 10.0;

// 256 interfaces as network.cpp names them, 1,000 processors as cpu.cpp does: what a large machine shows most of.
SeriesInfo describe(std::size_t i) {
    constexpr const char* kModes[] = {"user", "nice", "system", "idle", "iowait", "softirq"};
    if (i < 4000) {
        const std::string name = i % 2 == 0 ? "system.network.io" : "system.network.packet.count";
        return {name, i % 2 == 0 ? "By" : "{packet}", Kind::counter,
                "network.interface.name=veth" + std::to_string(i / 4) +
                    (i % 4 < 2 ? ",network.io.direction=receive" : ",network.io.direction=transmit")};
    }
    return {"system.cpu.time", "s", Kind::counter,
            "cpu.logical_number=" + std::to_string((i - 4000) / 6) + ",cpu.mode=" + kModes[(i - 4000) % 6]};
}

class Many final : public sources::Source {
public:
    [[nodiscard]] Result<sources::PollReport> poll(Nanos now, sources::Emit& emit) override {
        if (slots_.empty()) {
            for (std::size_t i = 0; i < kSeries; ++i) slots_.push_back(emit.open_series(describe(i)));
        }
        for (std::size_t i = 0; i < kSeries; ++i) {
            emit.value(slots_[i], static_cast<double>(now / kMillisecond + static_cast<Nanos>(i)) / 100.0);
        }
        return sources::PollReport{kSeries, 0};
    }

private:
    std::vector<Slot> slots_;
};

Result<std::unique_ptr<sources::Source>> open_many(const sources::Roots&, const Io&, const sources::SourceSettings&) {
    return std::unique_ptr<sources::Source>(std::make_unique<Many>());
}

const sources::SourceDescriptor kMany{"many", "", "", "", 1000, sources::Lane::fast, open_many};
constexpr const sources::SourceDescriptor* kCatalog[] = {&kMany};

std::size_t lines_of(const std::string& page, const char* prefix) {
    std::size_t count = 0;
    const std::string wanted = std::string("\n") + prefix;
    for (std::size_t at = page.find(wanted); at != std::string::npos; at = page.find(wanted, at + 1)) ++count;
    return count;
}

}  // namespace

int main() {
    ManualClock clock(1000 * kSecond);
    engine::HostOptions options;
    options.processes = false;
    engine::HostPlane plane(options, kCatalog, system_io(), clock);
    engine::Exposition exposition({});
    const auto step = [&] {
        clock.advance(kSecond);
        plane.poll_once();
        plane.drain();
    };
    step();
    exposition.publish({.host = &plane});
    std::string page;
    const auto render = [&] { exposition.render(engine::Exposition::Format::text, clock.mono(), page); };
    const double first = bench::best_of(1, render);
    const bool both = lines_of(page, "system_") == kSeries && lines_of(page, "node_") == kSeries;
    constexpr const char* kLast = "node_cpu_seconds_total{cpu=\"999\",mode=\"softirq\"} 10109.99\n";
    const bool whole = both && page.find(kLast) != std::string::npos;
    if (!whole) return bench::report("host_exposition/10000", 0, "ms", "every series once", 0, kBarMs, false) ? 0 : 1;

    std::string copy(page.size(), '\0');
    const double bare = bench::best_of(50, [&] { std::memcpy(copy.data(), page.data(), page.size()); });
    const double rendered = bench::best_of(50, render);
    const double handed = bench::best_of(200, [&] { exposition.publish({.host = &plane}); });
    const double drained = bench::best_of(50, step);
    bool good = bench::report("host_exposition/10000", rendered * 1e3, "ms", "memcpy of the page", rendered / bare,
                              kBarMs, rendered * 1e3 <= kBarMs);
    constexpr double kFirstBarMs = 100.0;
    good = bench::report("host_exposition/first", first * 1e3, "ms", "a later page", first / rendered, kFirstBarMs,
                         first * 1e3 <= kFirstBarMs) && good;
    good = bench::report("host_exposition/publish", handed * 1e6, "us", "poll and drain of as many", handed / drained,
                         drained * 1e6, handed <= drained) && good;
    constexpr double kBytesBar = 4e6;
    const auto bytes = static_cast<double>(page.size());
    good = bench::report("host_exposition/size", bytes, "By", "bytes a series", bytes / (2.0 * kSeries), kBytesBar,
                         bytes <= kBytesBar) && good;
    return good ? 0 : 1;
}
