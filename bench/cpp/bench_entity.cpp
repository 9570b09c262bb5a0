// The entity score: cost of a value at the width of one small machine, of a host and of a wide host, the longest single
// row, and the bytes of state. Before timing, values added row by row and run by run are checked to give the same bits.
#include <algorithm>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "report.hpp"
#include "engine/entity.hpp"

namespace {

using argus::Nanos;
using argus::bench::report;
using argus::engine::EntityScore;

constexpr Nanos kStep = 60 * argus::kSecond;

std::vector<float> walks(std::size_t rows, std::size_t series, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(rows * series);
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = (i < series ? 0.0F : 0.9F * values[i - series]) + normal(engine);
    }
    return values;
}

float add_row(EntityScore& score, Nanos now, std::span<const float> row, std::size_t run) {
    EntityScore::Deviance deviance;
    for (std::size_t first = 0; first < row.size(); first += run) {
        score.add(now, static_cast<std::uint32_t>(first), row.subspan(first, std::min(run, row.size() - first)),
                  deviance);
    }
    return score.finish(deviance);
}

bool same_bits() {
    constexpr std::size_t kSeries = 200;
    constexpr std::size_t kRows = 700;
    const auto values = walks(kRows, kSeries, 3);
    EntityScore whole(kSeries);
    EntityScore parts(kSeries);
    for (std::size_t r = 0; r < kRows; ++r) {
        const std::span row(values.data() + r * kSeries, kSeries);
        const Nanos now = static_cast<Nanos>(r) * kStep;
        const float a = add_row(whole, now, row, kSeries);
        const float b = add_row(parts, now, row, EntityScore::kGroup);
        if (std::memcmp(&a, &b, sizeof(a)) != 0) return false;
    }
    return true;
}

// CPU time of this thread: the longest row is not to be one that the scheduler took away.
double cpu_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Runs `rows` rows a minute apart; reports ns a value, bar 50, and the longest row.
bool cost(std::uint32_t series, std::size_t rows, double longest_bar_ms) {
    const auto values = walks(rows, series, series);
    double per_value_ns = 1e300;
    double longest_ms = 1e300;
    std::size_t bytes = 0;
    const auto add = [&](EntityScore& score, std::size_t r) {
        add_row(score, static_cast<Nanos>(r) * kStep, std::span(values).subspan(r * series, series), series);
    };
    for (int repeat = 0; repeat < 5; ++repeat) {
        EntityScore timed(series);
        const double start = cpu_seconds();
        for (std::size_t r = 0; r < rows; ++r) add(timed, r);
        const double took = cpu_seconds() - start;
        per_value_ns = std::min(per_value_ns, took / static_cast<double>(values.size()) * 1e9);
        EntityScore watched(series);
        double longest = 0.0;
        for (std::size_t r = 0; r < rows; ++r) {
            const double before = cpu_seconds();
            add(watched, r);
            longest = std::max(longest, cpu_seconds() - before);
        }
        longest_ms = std::min(longest_ms, longest * 1e3);
        bytes = timed.bytes();
    }
    const std::string size = std::to_string(series);
    bool pass = report(("entity_value/" + size).c_str(), per_value_ns, "ns", "bar", per_value_ns / 50.0, 50.0,
                       per_value_ns <= 50.0);
    pass &= report(("entity_longest_row/" + size).c_str(), longest_ms, "ms", "bar", longest_ms / longest_bar_ms,
                   longest_bar_ms, longest_ms <= longest_bar_ms);
    report(("entity_bytes/" + size).c_str(), static_cast<double>(bytes), "B", "a slot",
           static_cast<double>(bytes) / series, 0.0, true);
    return pass;
}

}  // namespace

int main() {
    if (!same_bits()) {
        std::fprintf(stderr, "bench_entity: whole rows and runs of slots differ in their bits; nothing timed\n");
        return 1;
    }
    bool pass = cost(38, 10'000, 1.0);
    pass &= cost(1000, 2'000, 2.0);
    pass &= cost(2000, 2'000, 4.0);
    return pass ? 0 : 1;
}
