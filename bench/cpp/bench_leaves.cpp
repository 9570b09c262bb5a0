// Single detectors and the lightest tier: nanoseconds to score and learn a value, on tiles of 1,024 slots of normal
// noise; microseconds of the daemon's watch for silence; and the lightest tier at a million series, alarms on, in
// blocks of 16 rows and row by row.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "detectors/detector.hpp"
#include "engine/light_bank.hpp"
#include "engine/silence_watch.hpp"
#include "report.hpp"

namespace {

using namespace argus::detectors;
using argus::bench::best_of;
using argus::bench::report;

constexpr std::uint32_t kSlots = 1024;
constexpr std::uint32_t kWidth = 64;
constexpr std::size_t kRows = 32;

std::vector<float> noise(std::size_t count) {
    std::mt19937 engine(1);
    std::normal_distribution<float> normal(10.0F, 2.0F);
    std::vector<float> values(count);
    for (float& value : values) value = normal(engine);
    return values;
}

void time_leaf(const DetectorDescriptor& leaf) {
    std::vector<double> options;
    for (const argus::Option& option : leaf.leaf.options) options.push_back(option.value);
    const auto detector = leaf.make(kSlots, options);
    std::vector<Entity> entities;
    for (std::uint32_t first = 0; first < kSlots; first += kWidth) entities.push_back({first, kWidth});
    const auto values = noise(kSlots * kRows);
    const std::vector<std::uint8_t> mask(kSlots, kLearn);
    std::vector<float> statistic(leaf.channels.size() * kSlots);
    const auto pass = [&] {
        for (std::size_t row = 0; row < kRows; ++row) {
            const View view{std::span(values).subspan(row * kSlots, kSlots), entities, 0, 0, 1.0};
            detector->score(view, statistic);
            detector->learn(view, mask);
        }
    };
    for (int warm = 0; warm < 10; ++warm) pass();
    const double ns = best_of(20, pass) / static_cast<double>(kRows * kSlots) * 1e9;
    report(("leaf_" + std::string(leaf.leaf.name) + "/1024").c_str(), ns, "ns", "", 0.0, 0.0, true);
}

bool time_light(std::size_t rows, const char* name, double bar_ns) {
    constexpr std::uint32_t kMillion = 1'000'000;
    argus::engine::LightBank bank(kMillion, 1.0);
    const auto values = noise(kMillion * rows);
    std::vector<float> bits(values.size());
    std::vector<argus::engine::LightAlarm> alarms;
    const auto pass = [&] { bank.run(values.data(), rows, 1.0, bits.data(), &alarms); };
    for (std::size_t warm = 0; warm < 208; warm += rows) pass();  // past youth
    const double ns = best_of(5, pass) / static_cast<double>(values.size()) * 1e9;
    return report(name, ns, "ns", "bar", ns / bar_ns, bar_ns, ns <= bar_ns);
}

// A second of the daemon: every slot of it observed, one in 16 of them missing at random.
void time_silence(std::uint32_t slots) {
    argus::engine::SilenceWatch watch(slots, {}, 1.0);
    const auto values = noise(slots);
    std::vector<double> row(slots);
    std::mt19937 engine(2);
    argus::Nanos now = 0;
    const auto tick = [&] {
        now += 1'000'000'000;
        (void)watch.step(row, now, now);
    };
    for (int warm = 0; warm < 300; ++warm) {
        for (std::size_t i = 0; i < slots; ++i) {
            row[i] = engine() % 16 == 0 ? std::nan("") : static_cast<double>(values[(i + engine() % 7) % slots]);
        }
        tick();
    }
    const double us = best_of(50, tick) * 1e6;
    report(("silence_tick/" + std::to_string(slots)).c_str(), us, "us", "", 0.0, 0.0, true);
}

}  // namespace

int main() {
    for (const auto* leaf : {&shift_detector, &variance_detector, &silence_detector, &rate_detector, &tail_detector,
                             &mix_detector, &embedding_detector}) {
        time_leaf(*leaf);
    }
    time_silence(1024);
    time_silence(16384);
    const bool pass = time_light(16, "light_value/1000000", 3.0);
    (void)time_light(1, "light_row/1000000", 6.0);
    return pass ? 0 : 1;
}
