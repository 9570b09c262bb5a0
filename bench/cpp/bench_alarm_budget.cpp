// Alarms a day, asked for and spoken. Eight families of series without anomalies, a plain score of each, five requests:
// a cell is a family at a request, its figure the alarms spoken over the alarms asked for, by age of the series.
//
//     bench_alarm_budget [STREAMS [DAYS]]     more of both, fleets of several sizes, other row rates
//
// Tables come as remarks: shares of cells within 0.5-2 and within 0.8-1.25 of the request, [least, most], by age.
//
// With ARGUS_DATA set, also the six unlabelled series of the Numenta benchmark under $ARGUS_DATA/nab.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "report.hpp"
#include "base/arithmetic.hpp"
#include "engine/alarm_budget.hpp"

namespace {

using argus::bench::best_of;
using argus::bench::report;
using argus::engine::AlarmBudget;
using argus::engine::BudgetOptions;

constexpr std::array<double, 5> kRequests{1.0, 0.3, 0.1, 0.03, 0.01};
constexpr std::array<const char*, 8> kFamilies{"gauss",   "t3",       "lognormal", "ar.9",
                                               "poisson", "seasonal", "rw_revert", "regime"};
// The last is that of the Numenta series and stays out of the tables.
constexpr std::array<std::array<int, 2>, 7> kAges{{{0, 1}, {1, 3}, {3, 10}, {10, 30}, {30, 60}, {10, 60}, {2, 14}}};
constexpr std::size_t kTableAges = 6;
constexpr std::size_t kSteadyAge = 5;
constexpr std::size_t kNumentaAge = 6;

struct Source {
    explicit Source(std::uint64_t seed) : engine(seed) {}
    double uniform(double low, double high) { return low + (high - low) * std::generate_canonical<double, 53>(engine); }
    double normal() { return gauss(engine); }
    std::mt19937_64 engine;
    std::normal_distribution<double> gauss;
};

void autoregress(std::vector<double>& x, double phi) {
    double y = x[0] / std::sqrt(std::max(1.0 - phi * phi, 1e-9));
    for (double& e : x) e = y = phi * y + e;
}

std::vector<double> normals(Source& from, std::size_t count) {
    std::vector<double> x(count);
    for (double& v : x) v = from.normal();
    return x;
}

std::vector<double> seasonal(Source& from, std::size_t rows, double per_day) {
    auto x = normals(from, rows);
    autoregress(x, 0.5);
    const double weekend = from.uniform(-1, 1);
    const double daily = from.uniform(2, 8);
    const double twice = from.uniform(0, 2);
    const double phase = from.uniform(0, 1);
    const double other = from.uniform(0, 1);
    constexpr double kTurn = 2 * std::numbers::pi;
    for (std::size_t i = 0; i < rows; ++i) {
        const double t = static_cast<double>(i) / per_day;
        const double w = 1.0 + 0.3 * weekend * (static_cast<int>(t) % 7 >= 5 ? 1.0 : 0.0);
        x[i] += w * (daily * std::sin(kTurn * (t + phase)) + twice * std::sin(2 * kTurn * (t + other)));
    }
    return x;
}

std::vector<double> regimes(Source& from, std::size_t rows, double per_day) {
    const int kinds = from.uniform(0, 1) < 0.5 ? 2 : 3;
    const double stay = from.uniform(6, 48) / 24 * per_day;
    std::array<double, 3> mean{};
    std::array<double, 3> spread{};
    for (int k = 0; k < kinds; ++k) {
        mean[static_cast<std::size_t>(k)] = from.uniform(-8, 8);
        spread[static_cast<std::size_t>(k)] = from.uniform(0.5, 2.5);
    }
    auto x = normals(from, rows);
    autoregress(x, 0.5);
    std::size_t now = 0;
    for (double& v : x) {
        if (from.uniform(0, 1) < 1.0 / stay) now = static_cast<std::size_t>(from.uniform(0, kinds));
        v = mean[now] + spread[now] * v * std::sqrt(0.75);
    }
    return x;
}

std::vector<double> series(int family, std::uint64_t seed, std::size_t rows, double per_day) {
    Source from(seed * 8 + static_cast<std::uint64_t>(family) + 1);
    std::vector<double> x(rows);
    if (family == 0 || family == 3) {
        x = normals(from, rows);
        if (family == 3) autoregress(x, 0.9);
    } else if (family == 1) {
        std::student_t_distribution<double> t3(3.0);
        for (double& v : x) v = t3(from.engine);
    } else if (family == 2) {
        const double spread = from.uniform(0.5, 1.2);
        for (double& v : x) v = std::exp(spread * from.normal());
    } else if (family == 4) {
        std::poisson_distribution<int> counts(std::exp(from.uniform(std::log(0.5), std::log(50.0))));
        for (double& v : x) v = counts(from.engine);
    } else if (family == 5) {
        x = seasonal(from, rows, per_day);
    } else if (family == 6) {
        const double memory = from.uniform(1, 5) * per_day;
        const double noise = from.uniform(0.5, 3);
        x = normals(from, rows);
        autoregress(x, 1.0 - 1.0 / memory);
        for (double& v : x) v += noise * from.normal();
    } else {
        x = regimes(from, rows, per_day);
    }
    const double scale = from.uniform(0.1, 100);
    const double place = from.uniform(-100, 100);
    for (double& v : x) v = v * scale + place;
    return x;
}

// Strength: log2 of the largest of four features over 1/50 of its early mean: residual, fast minus slow mean,
// increment, residual of the hour of day. 0 in the first `warm` rows.
void strength(const std::vector<double>& x, std::size_t per_day, std::size_t warm, float* out, std::size_t stride) {
    constexpr std::size_t kHours = 48;
    double mean = x[0];
    double variance = 0;
    double fast = x[0];
    double slow = x[0];
    double last = x[0];
    std::array<double, kHours> level{};
    std::array<double, kHours> seen{};
    std::array<double, 4> early{};
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t hour = i % per_day * kHours / per_day;
        const double n = static_cast<double>(i + 1);
        std::array<double, 4> f{std::abs(x[i] - mean), 0.0, std::abs(x[i] - last),
                                seen[hour] > 0 ? std::abs(x[i] - level[hour]) : 0.0};
        const double sd = std::sqrt(variance);
        const double e = i > 20 ? std::clamp(x[i] - mean, -6 * sd, 6 * sd) : x[i] - mean;
        mean += std::max(0.01, 1 / n) * e;
        variance += std::max(0.002, 1 / n) * (e * e - variance);
        fast += std::max(0.1, 1 / n) * (x[i] - fast);
        slow += std::max(0.003, 1 / n) * (x[i] - slow);
        f[1] = std::abs(fast - slow);
        last = x[i];
        seen[hour] += 1;
        level[hour] += std::max(1 / seen[hour], 0.002) * (x[i] - level[hour]);
        if (i < warm) {
            for (std::size_t a = 0; a < 4; ++a) early[a] += (f[a] - early[a]) / n;
            out[i * stride] = 0.0F;
            continue;
        }
        double most = 1.0;
        for (std::size_t a = 0; a < 4; ++a) most = std::max(most, f[a] / std::max(early[a] * 0.02, 1e-9));
        out[i * stride] = argus::fast_log2(static_cast<float>(most));
    }
}

struct Setting {
    std::size_t streams = 30;
    int days = 20;
    std::size_t per_day = 1440;
    std::uint32_t hold_off_rows = 100;
};

using Scores = std::vector<float>;  // [row][stream]

Scores family_scores(int family, const Setting& setting) {
    Scores scores(setting.streams * static_cast<std::size_t>(setting.days) * setting.per_day);
    const std::size_t rows = scores.size() / setting.streams;
    for (std::size_t k = 0; k < setting.streams; ++k) {
        strength(series(family, k, rows, static_cast<double>(setting.per_day)), setting.per_day, 200, scores.data() + k,
                 setting.streams);
    }
    return scores;
}

using Cell = std::array<double, kAges.size()>;  // spoken over requested, by age

// All requests at once, in fleets of `fleet` streams with the same request.
std::array<Cell, kRequests.size()> follow(const Scores& scores, const Setting& setting, std::size_t fleet) {
    const std::size_t streams = setting.streams;
    const auto slots = static_cast<std::uint32_t>(streams * kRequests.size());
    BudgetOptions options;
    options.warming_level = 1e6F;
    options.hold_off_rows = setting.hold_off_rows;
    AlarmBudget budget(slots, options);
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
        const std::size_t request = slot / streams;
        budget.assign(slot, static_cast<std::uint32_t>(request * streams + slot % streams / fleet));
        budget.request(slot, kRequests[request]);
    }
    std::array<Cell, kRequests.size()> cells{};
    std::vector<float> row(slots);
    const std::size_t rows = scores.size() / streams;
    const std::int64_t interval = 86'400 * argus::kSecond / static_cast<std::int64_t>(setting.per_day);
    for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t q = 0; q < kRequests.size(); ++q) {
            std::memcpy(row.data() + q * streams, scores.data() + r * streams, streams * sizeof(float));
        }
        const int day = static_cast<int>(r / setting.per_day);
        for (const std::uint32_t slot : budget.step(row, static_cast<std::int64_t>(r) * interval)) {
            for (std::size_t a = 0; a < kAges.size(); ++a) {
                if (day >= kAges[a][0] && day < kAges[a][1]) cells[slot / streams][a] += 1.0;
            }
        }
    }
    for (std::size_t q = 0; q < kRequests.size(); ++q) {
        for (std::size_t a = 0; a < kAges.size(); ++a) {
            const int days = std::min(kAges[a][1], setting.days) - kAges[a][0];
            cells[q][a] = days > 0 ? cells[q][a] / (kRequests[q] * static_cast<double>(streams) * days)
                                   : std::numeric_limits<double>::quiet_NaN();
        }
    }
    return cells;
}

struct Shares {
    double wide = 0;    // of cells within 0.5 - 2
    double narrow = 0;  // within 0.8 - 1.25
    double least = 1e9;
    double most = 0;
};

Shares shares(const std::vector<Cell>& cells, std::size_t age) {
    Shares s;
    for (const Cell& cell : cells) {
        const double x = cell[age];
        s.wide += x >= 0.5 && x <= 2.0 ? 1.0 : 0.0;
        s.narrow += x >= 0.8 && x <= 1.25 ? 1.0 : 0.0;
        s.least = std::min(s.least, x);
        s.most = std::max(s.most, x);
    }
    s.wide /= static_cast<double>(cells.size());
    s.narrow /= static_cast<double>(cells.size());
    return s;
}

// One table line a fleet size; cells of all families.
std::vector<std::vector<Cell>> table(const Setting& setting, const std::vector<std::size_t>& fleets, bool each) {
    std::vector<std::vector<Cell>> cells(fleets.size());
    for (std::size_t family = 0; family < kFamilies.size(); ++family) {
        const Scores scores = family_scores(static_cast<int>(family), setting);
        for (std::size_t f = 0; f < fleets.size(); ++f) {
            const auto found = follow(scores, setting, fleets[f]);
            cells[f].insert(cells[f].end(), found.begin(), found.end());
            if (!each) continue;
            std::printf("# fleet %3zu %-10s", fleets[f], kFamilies[family]);
            for (std::size_t q = 0; q < kRequests.size(); ++q) {
                std::printf(" | %g:", kRequests[q]);
                for (std::size_t a = 0; a < kTableAges; ++a) std::printf(" %.2f", found[q][a]);
            }
            std::printf("\n");
        }
    }
    for (std::size_t f = 0; f < fleets.size(); ++f) {
        std::printf("# %zu rows a day, fleet %3zu, %zu streams:", setting.per_day, fleets[f], setting.streams);
        for (std::size_t a = 0; a < kTableAges; ++a) {
            if (kAges[a][0] >= setting.days) continue;
            const Shares s = shares(cells[f], a);
            std::printf("  d%d-%d %.2f/%.2f [%.2f %.2f]", kAges[a][0], std::min(kAges[a][1], setting.days),
                        s.wide, s.narrow, s.least, s.most);
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    return cells;
}

bool speed() {
    constexpr std::uint32_t kSlots = 1024;
    constexpr std::size_t kRows = 4096;
    std::mt19937_64 engine(5);
    std::exponential_distribution<float> bits(0.693F);
    std::vector<float> scores(kRows * kSlots);
    for (float& s : scores) s = bits(engine);
    AlarmBudget budget(kSlots, {});
    std::int64_t row = 0;
    const auto run = [&](std::int64_t interval) {
        for (std::size_t r = 0; r < kRows; ++r) {
            (void)budget.step(std::span(scores).subspan(r * kSlots, kSlots), row);
            row += interval;
        }
    };
    run(60 * argus::kSecond);
    const double per_score = best_of(5, [&] { run(argus::kSecond); }) / static_cast<double>(kRows * kSlots) * 1e9;
    double longest = 1e9;  // the least of three: what the work takes, not what else the machine does
    for (int repeat = 0; repeat < 3; ++repeat) {
        double slowest = 0;
        for (std::size_t r = 0; r < kRows; ++r) {
            const std::span<const float> at = std::span(scores).subspan(r * kSlots, kSlots);
            const double start = argus::bench::seconds_now();
            (void)budget.step(at, row);
            slowest = std::max(slowest, argus::bench::seconds_now() - start);
            row += 60 * argus::kSecond;
        }
        longest = std::min(longest, slowest);
    }
    argus::Writer writer(1, 1);
    budget.save(writer);
    const double bytes = static_cast<double>(writer.finish().size()) / kSlots;
    bool pass = report("alarm_budget_score/1024", per_score, "ns", "bar", per_score / 3.0, 3.0, per_score <= 3.0);
    pass &= report("alarm_budget_row_max/1024", longest * 1e3, "ms", "bar", longest * 1e3 / 2.0, 2.0, longest <= 2e-3);
    report("alarm_budget_state/1024", bytes, "B", "none", 0.0, 0.0, true);
    return pass;
}

std::vector<double> numenta_series(const std::string& path) {
    std::vector<double> x;
    std::FILE* pipe = popen(("gzip -dc '" + path + "' 2>/dev/null").c_str(), "r");
    if (pipe == nullptr) return x;
    std::array<char, 256> line{};
    while (std::fgets(line.data(), line.size(), pipe) != nullptr) {
        const char* comma = std::strchr(line.data(), ',');
        char* end = nullptr;
        const double value = comma != nullptr ? std::strtod(comma + 1, &end) : 0.0;
        if (end != nullptr && end != comma + 1) x.push_back(value);
    }
    pclose(pipe);
    return x;
}

// Five-minute rows of 14 days; alarms of days 2-13 over those asked for, at 1, 0.3 and 0.1 a day.
bool numenta(const std::string& folder) {
    constexpr std::array<const char*, 6> kClean{
        "artificialNoAnomaly/art_daily_no_noise",    "artificialNoAnomaly/art_daily_perfect_square_wave",
        "artificialNoAnomaly/art_daily_small_noise", "artificialNoAnomaly/art_flatline",
        "artificialNoAnomaly/art_noisy",             "realAWSCloudwatch/ec2_cpu_utilization_c6585a"};
    constexpr std::size_t kRows = 4032;
    const Setting setting{.streams = kClean.size(), .days = 14, .per_day = 288, .hold_off_rows = 20};
    Scores scores(kRows * kClean.size(), 0.0F);
    for (std::size_t k = 0; k < kClean.size(); ++k) {
        auto x = numenta_series(folder + "/data/" + kClean[k] + ".csv.gz");
        if (x.size() < kRows) {
            std::printf("# %s: not found; nothing measured on it\n", kClean[k]);
            return true;
        }
        x.resize(kRows);
        strength(x, setting.per_day, 150, scores.data() + k, kClean.size());
    }
    bool pass = true;
    constexpr std::array<const char*, 3> kNames{"alarm_budget_numenta/1", "alarm_budget_numenta/0.3",
                                                "alarm_budget_numenta/0.1"};
    const auto cells = follow(scores, setting, kClean.size());
    for (std::size_t q = 0; q < kNames.size(); ++q) {
        const double ratio = cells[q][kNumentaAge];
        pass &= report(kNames[q], ratio, "x", "requested, days 2-13", ratio, 0.0, true);
    }
    return pass;
}

}  // namespace

int main(int argc, char** argv) {
    bool pass = speed();
    Setting setting;
    setting.streams = argc > 1 ? static_cast<std::size_t>(std::atoi(argv[1])) : 30;
    setting.days = argc > 2 ? std::atoi(argv[2]) : 30;
    const bool whole = argc > 1;
    const std::vector<std::size_t> fleets = whole ? std::vector<std::size_t>{1, 5, 30, setting.streams}
                                                  : std::vector<std::size_t>{1, setting.streams};
    const auto cells = table(setting, fleets, whole);
    const Shares pooled = shares(cells.back(), kSteadyAge);
    constexpr const char* kWide = "cells within 0.5-2 x, from day 10";
    constexpr const char* kNarrow = "cells within 0.8-1.25 x, from day 10";
    pass &= report("alarm_budget_kept/pooled", pooled.wide, "share", kWide, pooled.wide, 1.0, pooled.wide >= 1.0);
    // 30 streams ask for 6 alarms in 20 days at 0.01 a day: too few to hold them to 25 %.
    const bool narrow = !whole || pooled.narrow >= 0.97;
    pass &= report("alarm_budget_kept_narrow/pooled", pooled.narrow, "share", kNarrow, pooled.narrow,
                   whole ? 0.97 : 0.0, narrow);
    const Shares alone = shares(cells.front(), kSteadyAge);
    report("alarm_budget_kept/alone", alone.wide, "share", kWide, alone.wide, 0.0, true);
    if (whole) {
        table({.streams = setting.streams, .days = setting.days, .per_day = 288, .hold_off_rows = 20}, fleets, false);
        for (const std::uint32_t hold_off_rows : {100U, 6000U}) {
            std::printf("# hold-off of %u rows:\n", hold_off_rows);
            table({.streams = 30, .days = 8, .per_day = 86'400, .hold_off_rows = hold_off_rows}, {1, 30}, true);
        }
    }
    if (const char* data = std::getenv("ARGUS_DATA")) pass &= numenta(std::string(data) + "/nab");
    return pass ? 0 : 1;
}
