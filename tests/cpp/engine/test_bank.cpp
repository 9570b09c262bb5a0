#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/dispatch.hpp"
#include "engine/bank.hpp"

using namespace argus::engine;
using argus::Isa;
using argus::kSecond;
using argus::Nanos;
using argus::ScopedIsa;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// rows x series of noise with gaps, spikes, a step, a constant and a large level.
std::vector<double> world(std::size_t rows, std::size_t series, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal;
    std::vector<double> values(rows * series);
    for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t i = 0; i < series; ++i) {
            double x = normal(engine);
            if (i % 5 == 1 && r % 97 < 9) x = kNan;
            if (i % 5 == 2 && r % 211 == 210) x += 40.0;
            if (i % 5 == 3 && r > rows / 2) x += 12.0;
            if (i % 7 == 4) x = 5.0;
            if (i % 11 == 6) x += 1e12;
            values[r * series + i] = x;
        }
    }
    return values;
}

std::vector<Nanos> clock_of(std::size_t rows) {
    std::vector<Nanos> times(rows);
    for (std::size_t r = 0; r < rows; ++r) times[r] = static_cast<Nanos>(r + 1) * 60 * kSecond;
    return times;
}

struct Result {
    std::vector<float> bits, alarm, entity;
    std::vector<double> lower, upper;
    std::vector<Spoken> spoken;
    friend bool operator==(const Result& a, const Result& b) {
        const auto equal = [](const auto& x, const auto& y) {
            return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0;
        };
        bool same = equal(a.bits, b.bits) && equal(a.alarm, b.alarm) && equal(a.entity, b.entity) &&
                    equal(a.lower, b.lower) && equal(a.upper, b.upper) && a.spoken.size() == b.spoken.size();
        for (std::size_t i = 0; same && i < a.spoken.size(); ++i) {
            const Utterance& x = a.spoken[i].utterance;
            const Utterance& y = b.spoken[i].utterance;
            same = a.spoken[i].row == b.spoken[i].row && x.slot == y.slot && x.onset == y.onset &&
                   x.bits == y.bits && x.since_wall == y.since_wall &&
                   x.false_alarm_interval_s == y.false_alarm_interval_s;
        }
        return same;
    }
};

// Runs `values` through `bank` in blocks of the given sizes, repeated.
Result run(Bank& bank, const std::vector<double>& values, const std::vector<std::size_t>& blocks,
           std::size_t first = 0, std::size_t last = SIZE_MAX) {
    const std::size_t series = bank.capacity();
    const std::size_t rows = std::min(last, values.size() / series);
    const auto times = clock_of(rows);
    Result all;
    for (std::size_t row = first, turn = 0; row < rows; ++turn) {
        const std::size_t count = std::min(blocks[turn % blocks.size()], rows - row);
        Result part;
        part.bits.resize(count * series);
        part.alarm.resize(count * series);
        part.lower.resize(count * series);
        part.upper.resize(count * series);
        part.entity.resize(count);
        Outputs out;
        out.bits = part.bits.data();
        out.alarm_bits = part.alarm.data();
        out.lower = part.lower.data();
        out.upper = part.upper.data();
        out.entity_bits = part.entity.data();
        out.spoken = &part.spoken;
        const auto at = std::span(times).subspan(row, count);
        bank.run(Rows<double>{values.data() + row * series, series, at, at}, out);
        for (Spoken& spoken : part.spoken) spoken.row += static_cast<std::uint32_t>(row - first);
        const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
        append(all.bits, part.bits);
        append(all.alarm, part.alarm);
        append(all.lower, part.lower);
        append(all.upper, part.upper);
        append(all.entity, part.entity);
        append(all.spoken, part.spoken);
        row += count;
    }
    return all;
}

}  // namespace

TEST_CASE("bank: the same bits however the rows are split into calls, over several tiles") {
    constexpr std::size_t kSeries = 1100;
    const auto values = world(400, kSeries, 1);
    Bank whole(kSeries, {});
    const Result reference = run(whole, values, {400});
    CHECK_FALSE(reference.spoken.empty());
    Bank split(kSeries, {});
    CHECK(reference == run(split, values, {1, 7, 64, 3}));

    Bank stepped(kSeries, {});
    const auto times = clock_of(400);
    std::size_t spoken = 0;
    bool equal = true;
    for (std::size_t r = 0; r < 400; ++r) {
        stepped.step(std::span(values).subspan(r * kSeries, kSeries), times[r], times[r]);
        equal = equal &&
                std::memcmp(stepped.bits().data(), reference.bits.data() + r * kSeries, kSeries * 4) == 0 &&
                std::memcmp(stepped.lower().data(), reference.lower.data() + r * kSeries, kSeries * 8) == 0 &&
                stepped.entity_bits() == reference.entity[r];
        spoken += stepped.spoken().size();
    }
    CHECK(equal);
    CHECK(spoken == reference.spoken.size());
}

TEST_CASE("bank: saved and loaded it goes on with the same bits; another shape is refused") {
    constexpr std::size_t kSeries = 40;
    const auto values = world(1200, kSeries, 2);
    Bank whole(kSeries, {});
    run(whole, values, {700}, 0, 700);
    argus::Writer writer(9, 1);
    whole.save(writer);
    const auto bytes = writer.finish();
    Bank loaded(kSeries, {});
    argus::Reader reader(bytes, 9, 1);
    loaded.load(reader);
    CHECK(reader.done());
    CHECK(loaded.live_series() == whole.live_series());
    CHECK(run(whole, values, {100}, 700) == run(loaded, values, {33}, 700));
    Bank other(kSeries + 1, {});
    argus::Reader again(bytes, 9, 1);
    CHECK_THROWS_AS(other.load(again), argus::CodecError);
}

TEST_CASE("bank: every instruction set gives the same bits") {
    constexpr std::size_t kSeries = 70;
    const auto values = world(900, kSeries, 3);
    std::vector<Result> results;
    for (const Isa level : {Isa::baseline, Isa::v3, Isa::v4}) {
        if (level > argus::best_isa()) {
            MESSAGE("skipped: this CPU lacks " << argus::to_string(level));
            continue;
        }
        const ScopedIsa scoped(level);
        Bank bank(kSeries, {});
        results.push_back(run(bank, values, {128}));
    }
    for (const Result& result : results) CHECK(result == results[0]);
}

TEST_CASE("bank: missing and infinite values score 0, teach nothing, and only infinities are counted") {
    constexpr std::size_t kRows = 600;
    constexpr std::size_t kHoles = 3000;
    const std::vector<double> clean = world(kRows, 1, 4);
    std::vector<double> holed(clean.begin(), clean.begin() + 400);
    for (std::size_t i = 0; i < kHoles; ++i) holed.push_back(i % 3 == 0 ? kNan : i % 3 == 1 ? kInf : -kInf);
    holed.insert(holed.end(), clean.begin() + 400, clean.end());
    Bank one(1, {});
    Bank other(1, {});
    const Result plain = run(one, clean, {64});
    const Result gaps = run(other, holed, {64});
    for (std::size_t r = 0; r < 400; ++r) CHECK(plain.bits[r] == gaps.bits[r]);
    for (std::size_t r = 400; r < 400 + kHoles; ++r) CHECK(gaps.bits[r] == 0.0F);
    // Afterwards only the hours of the day differ, and which of the bulk is sampled.
    std::size_t apart = 0;
    for (std::size_t r = 404; r < kRows; ++r) apart += std::fabs(plain.bits[r] - gaps.bits[r + kHoles]) > 6.0F ? 1 : 0;
    CHECK(apart < 10);
    CHECK(other.infinities() == 2 * (kHoles / 3));
    CHECK(one.infinities() == 0);
}

TEST_CASE("bank: a constant series is silent and its band is the constant; its first change is strange") {
    Bank bank(1, {});
    std::vector<double> values(500, 42.0);
    values.push_back(43.0);
    const Result result = run(bank, values, {50});
    for (std::size_t r = 0; r < 500; ++r) CHECK(result.bits[r] < 0.1F);
    CHECK(result.lower[499] == 42.0);
    CHECK(result.upper[499] == 42.0);
    CHECK(result.bits[500] > 10.0F);
}

TEST_CASE("bank: a small change upon a large level is seen as well as upon none") {
    const auto values = world(1500, 1, 5);
    std::vector<double> lifted = values;
    for (double& value : lifted) value = std::ldexp(std::round(std::ldexp(value, 8)), -8) + 1e9;
    std::vector<double> rounded = values;
    for (double& value : rounded) value = std::ldexp(std::round(std::ldexp(value, 8)), -8);
    Bank near(1, {});
    Bank far(1, {});
    CHECK(run(near, rounded, {100}).bits == run(far, lifted, {100}).bits);
}

TEST_CASE("bank: a reset slot starts anew, as a new bank does, and its neighbour goes on") {
    constexpr std::size_t kSeries = 2;
    const auto values = world(800, kSeries, 6);
    Bank bank(kSeries, {});
    Bank kept(kSeries, {});
    run(bank, values, {400}, 0, 400);
    run(kept, values, {400}, 0, 400);
    CHECK(bank.live_series() == 2);
    bank.reset(std::array<std::uint32_t, 1>{0});
    CHECK(bank.live_series() == 1);
    const Result after = run(bank, values, {400}, 400);
    const Result before = run(kept, values, {400}, 400);
    Bank fresh(kSeries, {});
    std::vector<double> late(values);
    std::fill(late.begin(), late.begin() + 400 * kSeries, kNan);
    run(fresh, late, {400}, 0, 400);
    const Result young = run(fresh, late, {400}, 400);
    for (std::size_t r = 0; r < 400; ++r) {
        CHECK(after.bits[r * 2] == young.bits[r * 2]);
        CHECK(after.bits[r * 2 + 1] == before.bits[r * 2 + 1]);
    }
    CHECK(bank.live_series() == 2);
}

TEST_CASE("bank: on independent noise few rows have any bits, and each further bit is as rare again") {
    constexpr std::size_t kSeries = 20;
    constexpr std::size_t kRows = 20'000;
    std::mt19937 engine(7);
    std::normal_distribution<double> normal;
    std::vector<double> values(kRows * kSeries);
    for (double& value : values) value = normal(engine);
    Bank bank(kSeries, {});
    const Result result = run(bank, values, {1000});
    const auto share = [&](float least) {
        const auto reached = std::count_if(result.bits.begin(), result.bits.end(), [&](float b) { return b >= least; });
        return static_cast<double>(reached) / static_cast<double>(values.size());
    };
    CHECK(share(4.0F) > 0.03);
    CHECK(share(4.0F) < 0.25);  // seven channels of a row at 5 %
    CHECK(share(12.0F) < share(8.0F) / 3);
    CHECK(share(20.0F) < share(12.0F) / 8);
    CHECK(share(30.0F) < 1e-4);
}

TEST_CASE("bank: a lasting new level is spoken once, accepted, and scores low again") {
    std::mt19937 engine(8);
    std::normal_distribution<double> normal;
    std::vector<double> values(4000);
    for (std::size_t r = 0; r < values.size(); ++r) values[r] = normal(engine) + (r >= 2000 ? 25.0 : 0.0);
    BankOptions strict;
    strict.false_alarms_per_day = 0.01;
    Bank bank(1, strict);
    const Result result = run(bank, values, {100});
    std::size_t onsets = 0;
    std::size_t ends = 0;
    for (const Spoken& spoken : result.spoken) {
        if (spoken.utterance.onset) {
            ++onsets;
            CHECK(spoken.row >= 2000);
            CHECK(spoken.row <= 2010);
            CHECK(spoken.utterance.direction == argus::Direction::up);
        } else {
            ++ends;
            CHECK(spoken.row < 2600);
        }
    }
    CHECK(onsets == 1);
    CHECK(ends == 1);
    float loudest = 0.0F;
    for (std::size_t r = 2800; r < 4000; ++r) loudest = std::max(loudest, result.bits[r]);
    CHECK(loudest < 25.0F);
}

TEST_CASE("bank: a new normal that was announced is not spoken of, and its neighbour's is") {
    const std::size_t rows = 600;
    std::mt19937 engine(3);
    std::normal_distribution<double> normal;
    Bank bank(2, {});
    std::vector<std::uint32_t> spoken;
    float strangest = 0.0F;
    const std::vector<Nanos> times = clock_of(rows);
    for (std::size_t r = 0; r < rows; ++r) {
        const double level = r < 400 ? 0.0 : 60.0;
        const std::array<double, 2> row{level + normal(engine), level + normal(engine)};
        if (r == 400) {
            const std::uint32_t announced = 0;
            bank.learn_anew({&announced, 1});
        }
        bank.step(row, times[r], times[r]);
        for (const Utterance& said : bank.spoken()) spoken.push_back(said.slot);
        if (r > 401) strangest = std::max(strangest, bank.alarm_bits()[0]);
        if (r == 401) CHECK(std::abs(bank.expected()[0] - 60.0) < 4.0);
    }
    CHECK(std::count(spoken.begin(), spoken.end(), 0U) == 0);
    CHECK(std::count(spoken.begin(), spoken.end(), 1U) >= 1);
    CHECK(strangest == 0.0F);
}

TEST_CASE("bank: an announced new normal waits for the next value, also through a restart") {
    Bank bank(1, {}), again(1, {});
    const std::vector<Nanos> times = clock_of(400);
    const auto step = [&](Bank& of, std::size_t r, double value) { of.step({&value, 1}, times[r], times[r]); };
    for (std::size_t r = 0; r < 300; ++r) step(bank, r, static_cast<double>(r % 7));
    const std::uint32_t slot = 0;
    bank.learn_anew({&slot, 1});
    step(bank, 300, kNan);
    argus::Writer writer(1, 1);
    bank.save(writer);
    const auto state = writer.finish();
    argus::Reader reader(state, 1, 1);
    again.load(reader);
    for (Bank* of : {&bank, &again}) {
        step(*of, 301, 1000.0);
        step(*of, 302, 1000.0);
        CHECK(of->expected()[0] == doctest::Approx(1000.0));
        step(*of, 303, 2000.0);
        step(*of, 304, 2000.0);
        CHECK(of->expected()[0] < 1500.0);
    }
}

TEST_CASE("bank: the budget changes who speaks, never the bits or the alarm bits") {
    constexpr std::size_t kSeries = 30;
    const auto values = world(1500, kSeries, 9);
    BankOptions generous;
    generous.false_alarms_per_day = 100.0;
    BankOptions strict;
    strict.false_alarms_per_day = 1e-9;
    Bank a(kSeries, generous);
    Bank b(kSeries, strict);
    const Result loud = run(a, values, {500});
    const Result quiet = run(b, values, {500});
    CHECK(loud.bits == quiet.bits);
    CHECK(loud.alarm == quiet.alarm);
    CHECK(loud.spoken.size() > quiet.spoken.size());
    CHECK(a.budget().levels()[0] <= b.budget().levels()[0]);
}

TEST_CASE("bank: on independent noise as much is spoken as the budget allows") {
    constexpr std::size_t kSeries = 50;
    constexpr std::size_t kRows = 20'000;  // 13.9 days of minutes
    std::mt19937 engine(10);
    std::normal_distribution<double> normal;
    std::vector<double> values(kRows * kSeries);
    for (double& value : values) value = normal(engine);
    Bank bank(kSeries, {});
    std::size_t onsets = 0;
    for (const Spoken& spoken : run(bank, values, {1000}).spoken) onsets += spoken.utterance.onset ? 1 : 0;
    CHECK(onsets >= 7);
    CHECK(onsets <= 24);
}

TEST_CASE("bank: without speech the bits are the same, and nothing is raised or said") {
    constexpr std::size_t kSeries = 30;
    const auto values = world(1500, kSeries, 9);
    BankOptions mute;
    mute.speaks = false;
    Bank a(kSeries, mute);
    Bank b(kSeries, {});
    const Result silent = run(a, values, {500});
    const Result loud = run(b, values, {500});
    CHECK(silent.bits == loud.bits);
    CHECK(silent.lower.back() == loud.lower.back());
    CHECK_FALSE(loud.spoken.empty());
    CHECK(silent.spoken.empty());
    CHECK(std::all_of(silent.alarm.begin(), silent.alarm.end(), [](float x) { return x == 0.0F; }));
}

TEST_CASE("bank: options that do not fit are refused with what was expected") {
    CHECK_THROWS_AS(Bank(0, {}), std::invalid_argument);
    BankOptions no_detector;
    no_detector.detectors.clear();
    CHECK_THROWS_AS(Bank(1, no_detector), std::invalid_argument);
    BankOptions out_of_bounds;
    out_of_bounds.detectors = {{&argus::detectors::residual_detector, {7.0, 0.1, 6.0}}};
    CHECK_THROWS_WITH_AS(Bank(1, out_of_bounds), doctest::Contains("level_rate"), std::invalid_argument);
    BankOptions too_few;
    too_few.detectors = {{&argus::detectors::residual_detector, {0.005}}};
    CHECK_THROWS_AS(Bank(1, too_few), std::invalid_argument);
    BankOptions no_budget;
    no_budget.false_alarms_per_day = 0.0;
    CHECK_THROWS_AS(Bank(1, no_budget), std::invalid_argument);
}

TEST_CASE("bank: detectors and their channels are named, two of a kind too") {
    BankOptions two;
    two.detectors = {{&argus::detectors::residual_detector, {}},
                     {&argus::detectors::increment_detector, {}},
                     {&argus::detectors::increment_detector, {}}};
    Bank bank(3, two);
    CHECK(bank.channels() ==
          std::vector<std::string>{"residual", "residual.3", "residual.10", "residual.30", "residual.fast",
                                   "increment", "increment.3", "increment", "increment.3"});
    const auto values = world(600, 3, 11);
    const Result result = run(bank, values, {600});
    for (const float bits : result.bits) CHECK(std::isfinite(bits));
}
