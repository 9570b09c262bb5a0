#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "../allocations.hpp"
#include "base/arithmetic.hpp"
#include "base/dispatch.hpp"
#include "engine/alarm_budget.hpp"

using namespace argus::engine;
using argus::kSecond;
using argus::Nanos;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr Nanos kMinute = 60 * kSecond;
constexpr std::int64_t kDay = 1440;  // rows of a minute

// Bits as a calm series has them: -log2 of a uniform number.
struct Bits {
    explicit Bits(unsigned seed) : engine(seed) {}
    float operator()() {
        return -argus::fast_log2(static_cast<float>(std::generate_canonical<double, 53>(engine)) + 1e-9F);
    }
    std::mt19937 engine;
};

std::vector<std::byte> saved(const AlarmBudget& budget) {
    argus::Writer writer(7, 1);
    budget.save(writer);
    return writer.finish();
}

struct Counts {
    std::array<std::uint16_t, 128> at;
};

// The ladder and floor of slot 0 of one.
std::pair<Counts, float> ladder(const AlarmBudget& budget) {
    const auto bytes = saved(budget);
    argus::Reader reader(bytes, 7, 1);
    (void)reader.pod<std::uint32_t>();  // slots in use
    (void)reader.pod<argus::engine::BudgetOptions>();
    std::array<Counts, 1> counts{};
    std::array<float, 1> floor{};
    reader.array(std::span<Counts>(counts));
    reader.array(std::span<float>(floor));
    return {counts[0], floor[0]};
}

float height(int level) {
    return __builtin_bit_cast(float, 0x3F000000 + ((level + 1) << 19)) - 0.5F;
}

// Does the policy speak at `level` on the last row? `hold` rows before it, fewer at the beginning.
bool speaks(const std::vector<float>& scores, std::size_t row, std::size_t hold, float level) {
    if (!(scores[row] >= level) || !std::isfinite(scores[row])) return false;
    for (std::size_t back = 1; back <= hold && back <= row; ++back) {
        if (std::isfinite(scores[row - back]) && scores[row - back] >= level) return false;
    }
    return true;
}

// Runs `days` of minutes over all slots; alarms of the last `counted` days.
double run(AlarmBudget& budget, std::uint32_t slots, Bits& bits, std::int64_t& row, int days, int counted,
           float scale = 1.0F) {
    std::vector<float> scores(slots);
    double alarms = 0;
    const std::int64_t end = row + days * kDay;
    for (; row < end; ++row) {
        for (float& s : scores) s = scale * bits();
        const auto said = budget.step(scores, row * kMinute);
        if (row >= end - counted * kDay) alarms += static_cast<double>(said.size());
    }
    return alarms;
}

}  // namespace

TEST_CASE("alarm budget: a level speaks when it is reached and was not within the hold-off") {
    for (const std::uint32_t hold : {1U, 7U, 100U, 500U}) {
        AlarmBudget budget(1, {.alarms_per_day = 1.0, .warming_level = 6.0F, .hold_off_rows = hold});
        Bits bits(hold);
        std::vector<float> scores;
        for (std::size_t row = 0; row < 3000; ++row) {
            scores.push_back(row % 11 == 3 ? kNan : row % 97 == 5 ? kInf : bits());
            const auto said = budget.step(std::span(&scores.back(), 1), static_cast<Nanos>(row) * kSecond);
            REQUIRE((said.size() == 1) == speaks(scores, row, hold, 6.0F));
        }
    }
}

TEST_CASE("alarm budget: every level of the ladder counts what the policy would have spoken there") {
    for (const std::uint32_t hold : {1U, 30U, 100U}) {
        AlarmBudget budget(1, {.alarms_per_day = 1.0, .warming_level = 30.0F, .hold_off_rows = hold});
        Bits bits(hold + 1);
        std::vector<float> scores;
        std::size_t row = 0;
        const auto feed = [&](std::size_t until) {
            for (; row < until; ++row) {
                scores.push_back(row % 13 == 3 ? kNan : bits());
                (void)budget.step(std::span(&scores.back(), 1), static_cast<Nanos>(row) * kSecond);
            }
        };
        feed(1000);  // by now the floor has its place
        const auto [before, floor_before] = ladder(budget);
        feed(3400);  // and no refresh comes yet
        const auto [after, floor] = ladder(budget);
        REQUIRE(floor == floor_before);
        int counted = 0;
        for (int level = 0; level < 128; ++level) {
            int expected = 0;
            for (std::size_t r = 1000; r < 3400; ++r) {
                expected += speaks(scores, r, hold, floor + height(level)) ? 1 : 0;
            }
            const auto at = static_cast<std::size_t>(level);
            CHECK(expected == after.at[at] - before.at[at]);
            counted += expected;
        }
        CHECK(counted > 100);
    }
}

TEST_CASE("alarm budget: thirty siblings speak as often as asked, from the third day and more closely later") {
    constexpr std::uint32_t kSeries = 30;
    for (const bool light : {false, true}) {
        for (const double rate : {1.0, 0.3}) {
            AlarmBudget budget(kSeries, {.alarms_per_day = rate});
            std::mt19937 engine(static_cast<unsigned>(rate * 10) + (light ? 1U : 0U));
            std::normal_distribution<float> normal;
            Bits bits(3);
            std::vector<float> scores(kSeries);
            std::array<double, 2> alarms{};
            for (std::int64_t row = 0; row < 20 * kDay; ++row) {
                for (std::uint32_t i = 0; i < kSeries; ++i) {
                    // Each has its own place; light tails in the logarithm, or bits.
                    scores[i] = 3.0F + 0.1F * static_cast<float>(i) +
                                (light ? argus::fast_log2(std::abs(normal(engine)) + 0.02F) : bits());
                }
                const double said = static_cast<double>(budget.step(scores, row * kMinute).size());
                if (row >= 3 * kDay) alarms[row < 10 * kDay ? 0 : 1] += said;
            }
            const double early = alarms[0] / (rate * kSeries * 7);
            const double late = alarms[1] / (rate * kSeries * 10);
            CHECK(early > 0.6);  // of 63 alarms or more
            CHECK(early < 1.67);
            CHECK(late > 0.75);  // of 90
            CHECK(late < 1.33);
            CHECK(budget.state(0) == BudgetState::own);
            CHECK_FALSE(budget.broken());
        }
    }
}

TEST_CASE("alarm budget: a series alone warms for a day, then keeps a request it has seen often") {
    AlarmBudget budget(1, {.alarms_per_day = 2.0, .warming_level = 40.0F});
    Bits bits(5);
    std::int64_t row = 0;
    CHECK(0.0 == run(budget, 1, bits, row, 1, 1));
    CHECK(budget.state(0) == BudgetState::warming);
    CHECK(40.0F == budget.levels()[0]);
    run(budget, 1, bits, row, 9, 1);
    CHECK(budget.state(0) == BudgetState::own);
    const double ratio = run(budget, 1, bits, row, 40, 40) / 80.0;
    CHECK(ratio > 0.8);
    CHECK(ratio < 1.25);
}

TEST_CASE("alarm budget: a rare request is pooled until five alarms were asked for") {
    AlarmBudget budget(4, {.alarms_per_day = 0.5});
    Bits bits(6);
    std::int64_t row = 0;
    run(budget, 4, bits, row, 5, 1);
    CHECK(budget.state(0) == BudgetState::pooled);
    run(budget, 4, bits, row, 8, 1);
    CHECK(budget.state(0) == BudgetState::own);
}

TEST_CASE("alarm budget: a series that joins starts where its siblings speak") {
    AlarmBudget budget(10, {.alarms_per_day = 0.5, .warming_level = 90.0F});
    budget.assign(9, 1);  // a pool of its own
    Bits bits(8);
    std::int64_t row = 0;
    run(budget, 10, bits, row, 10, 1);
    const float usual = budget.levels()[4];
    const std::array<std::uint32_t, 2> slots{3, 9};
    budget.reset(slots);
    CHECK(90.0F == budget.levels()[3]);
    CHECK(0.0 == budget.days(3));
    std::vector<float> scores(10, 1.0F);
    for (std::uint32_t i = 0; i < AlarmBudget::kRefreshRows; ++i) (void)budget.step(scores, row++ * kMinute);
    CHECK(budget.state(3) == BudgetState::pooled);
    CHECK(std::abs(budget.levels()[3] - usual) < 3.0F);
    CHECK(budget.state(9) == BudgetState::warming);
    CHECK(90.0F == budget.levels()[9]);
}

TEST_CASE("alarm budget: a request may change, and differ between series") {
    constexpr std::uint32_t kSeries = 20;
    AlarmBudget budget(kSeries, {.alarms_per_day = 0.2});
    Bits bits(9);
    std::int64_t row = 0;
    run(budget, kSeries, bits, row, 15, 1);
    for (std::uint32_t slot = 0; slot < kSeries; ++slot) budget.request(slot, slot < 10 ? 2.0 : 0.4);
    run(budget, kSeries, bits, row, 3, 1);
    const Realised before = budget.realised();
    const double alarms = run(budget, kSeries, bits, row, 10, 10);
    CHECK(alarms == doctest::Approx(budget.realised().alarms - before.alarms));
    CHECK(budget.realised().requested - before.requested == doctest::Approx(240.0).epsilon(0.02));
    CHECK(alarms / 240.0 > 0.8);
    CHECK(alarms / 240.0 < 1.25);
    CHECK(budget.levels()[0] < budget.levels()[15]);
    budget.request(0, kNan);
    budget.request(1, -5.0);
    run(budget, kSeries, bits, row, 2, 1);
    CHECK(budget.levels()[0] == budget.levels()[0]);
}

TEST_CASE("alarm budget: days are observed rows at the median interval, whatever the clock does") {
    AlarmBudget budget(2, {});
    Bits bits(10);
    Nanos now = 0;
    for (int row = 0; row < 4000; ++row) {
        now += row == 1500 ? 3650 * 86'400 * kSecond : row == 2500 ? -7200 * kSecond : kMinute;
        const std::array<float, 2> scores{bits(), row % 2 == 0 ? bits() : row % 4 == 1 ? kNan : -kInf};
        (void)budget.step(scores, now);
    }
    // A floor is sought for two blocks of 100 rows, then rows count.
    CHECK(budget.days(0) == doctest::Approx(3800.0 / 1440.0).epsilon(0.01));
    CHECK(budget.days(1) == doctest::Approx(1900.0 / 1440.0).epsilon(0.01));
    for (const float level : budget.levels()) CHECK(level == level);
}

TEST_CASE("alarm budget: a series that is never observed is left as it was") {
    AlarmBudget with(3, {});
    AlarmBudget without(2, {});
    Bits bits(11);
    for (std::int64_t row = 0; row < 3 * kDay; ++row) {
        const std::array<float, 3> scores{bits(), bits(), row % 2 == 0 ? kNan : kInf};
        const auto said = with.step(scores, row * kMinute);
        const std::vector<std::uint32_t> expected(said.begin(), said.end());
        const auto found = without.step(std::span(scores).first(2), row * kMinute);
        REQUIRE(expected == std::vector<std::uint32_t>(found.begin(), found.end()));
    }
    CHECK(0.0 == with.days(2));
    CHECK(with.levels()[0] == without.levels()[0]);
}

TEST_CASE("alarm budget: what is confirmed as true counts neither as spoken nor in the ladder") {
    AlarmBudget budget(1, {.alarms_per_day = 1.0});
    Bits bits(12);
    std::int64_t row = 0;
    run(budget, 1, bits, row, 12, 1);
    std::array<float, 1> quiet{0.0F};
    for (int i = 0; i < 150; ++i) (void)budget.step(quiet, row++ * kMinute);
    const auto [before, floor] = ladder(budget);
    const double spoken = budget.realised().alarms;
    for (const float score : {60.0F, 70.0F}) {
        const std::array<float, 1> spike{score};
        CHECK(budget.step(spike, row++ * kMinute).size() == (score == 60.0F ? 1 : 0));
    }
    CHECK(before.at != ladder(budget).first.at);
    CHECK(budget.realised().alarms == doctest::Approx(spoken + 1.0));
    budget.confirm(0, false);
    CHECK(budget.realised().alarms == doctest::Approx(spoken + 1.0));
    budget.confirm(0, true);
    budget.confirm(0, true);  // the same alarm again
    CHECK(budget.realised().alarms == doctest::Approx(spoken));
    CHECK(before.at == ladder(budget).first.at);
}

TEST_CASE("alarm budget: a broken promise is told, a kept one is not") {
    AlarmBudget budget(40, {.alarms_per_day = 0.3});
    Bits bits(13);
    std::int64_t row = 0;
    run(budget, 40, bits, row, 20, 1);
    CHECK_FALSE(budget.broken());
    run(budget, 40, bits, row, 1, 1, 3.0F);  // every score thrice as high
    run(budget, 40, bits, row, 1, 1);
    CHECK(budget.broken());
}

TEST_CASE("alarm budget: a storm over many series raises their levels within two hours") {
    constexpr std::uint32_t kSeries = 100;
    AlarmBudget budget(kSeries, {.alarms_per_day = 0.01});  // one a day of all
    Bits bits(17);
    std::int64_t row = 0;
    run(budget, kSeries, bits, row, 12, 1);
    std::vector<float> scores(kSeries);
    const auto hours = [&](int count, float scale) {
        for (const std::int64_t end = row + 60 * count; row < end; ++row) {
            for (float& s : scores) s = scale * bits();
            (void)budget.step(scores, row * kMinute);
        }
    };
    hours(1, 1.0F);
    const float calm = budget.levels()[0];
    hours(1, 1.0F);
    CHECK(calm == budget.levels()[0]);
    hours(3, 1.6F);
    CHECK(budget.levels()[0] > calm);
}

TEST_CASE("alarm budget: state resumes bit for bit, also within a refresh, on every instruction set") {
    constexpr std::uint32_t kSlots = 1500;  // a refresh takes several rows
    const argus::Isa best = argus::best_isa();
    for (const std::int64_t cut : {700, 777, 1439, 1441, 1442, 1447}) {
        AlarmBudget whole(kSlots, {.alarms_per_day = 0.5});
        for (std::uint32_t slot = 0; slot < kSlots; ++slot) whole.assign(slot, slot % 7);
        Bits bits(14);
        std::vector<float> scores(kSlots);
        std::vector<std::byte> at_cut;
        std::vector<std::vector<float>> later;
        for (std::int64_t row = 0; row < cut + 1500; ++row) {
            for (std::uint32_t i = 0; i < kSlots; ++i) scores[i] = (i + row) % 17 == 0 ? kNan : bits();
            if (row == cut) at_cut = saved(whole);
            if (row >= cut) later.push_back(scores);
            (void)whole.step(scores, row * kMinute);
        }
        for (const argus::Isa level : {argus::Isa::baseline, argus::Isa::v3, best}) {
            const argus::ScopedIsa scoped(level);
            AlarmBudget resumed(kSlots, {.alarms_per_day = 0.5});
            argus::Reader reader(at_cut, 7, 1);
            resumed.load(reader);
            CHECK(reader.done());
            CHECK(saved(resumed) == at_cut);
            for (std::size_t row = 0; row < later.size(); ++row) {
                (void)resumed.step(later[row], (cut + static_cast<std::int64_t>(row)) * kMinute);
            }
            CHECK(saved(resumed) == saved(whole));
        }
        if (cut != 700) continue;
        AlarmBudget other(kSlots + 1, {});
        argus::Reader reader(at_cut, 7, 1);
        CHECK_THROWS_AS(other.load(reader), argus::CodecError);
    }
}

TEST_CASE("alarm budget: old days are half forgotten, the rate is kept") {
    constexpr std::uint32_t kSeries = 10;
    AlarmBudget budget(kSeries, {.alarms_per_day = 0.1, .warming_level = 30.0F, .hold_off_rows = 10});
    Bits bits(18);
    std::vector<float> scores(kSeries);
    double alarms = 0;
    for (std::int64_t row = 0; row < 900 * 24; ++row) {
        for (float& s : scores) s = bits();
        const auto said = budget.step(scores, row * 60 * kMinute);
        if (row >= 700 * 24) alarms += static_cast<double>(said.size());
    }
    CHECK(budget.days(0) > 256.0);
    CHECK(budget.days(0) <= 513.0);
    CHECK(alarms / 200.0 > 0.75);
    CHECK(alarms / 200.0 < 1.33);
}

TEST_CASE("alarm budget: no score makes a level that is not a number") {
    constexpr std::array<float, 9> kStrange{0.0F, -5.0F, 3e38F, -3e38F, 1e-40F, kNan, kInf, 80.0F, 7.0F};
    AlarmBudget budget(10, {.alarms_per_day = 0.5});
    Bits bits(15);
    for (std::int64_t row = 0; row < 6 * kDay; ++row) {
        std::array<float, 10> scores{};
        std::copy(kStrange.begin(), kStrange.end(), scores.begin());
        scores[9] = row % 3 == 0 ? kStrange[static_cast<std::size_t>(row / 3 % 9)] : bits();
        (void)budget.step(scores, row * kMinute);
        for (const float level : budget.levels()) REQUIRE(level == level);
    }
    const Realised realised = budget.realised();
    CHECK(std::isfinite(realised.alarms));
    CHECK(std::isfinite(realised.requested));
}

TEST_CASE("alarm budget: no row allocates, nor does a request, a confirmation or a new series") {
    AlarmBudget budget(600, {});
    Bits bits(16);
    std::vector<float> scores(600);
    const std::uint64_t before = argus::test::allocations();
    for (std::int64_t row = 0; row < 3 * kDay; ++row) {
        for (float& s : scores) s = bits();
        for (const std::uint32_t slot : budget.step(scores, row * kMinute)) budget.confirm(slot, row % 2 == 0);
        if (row % 500 == 0) budget.assign(static_cast<std::uint32_t>(row / 500), 5);
        budget.request(static_cast<std::uint32_t>(row % 600), 2.0);
    }
    CHECK(argus::test::allocations() == before);
}

TEST_CASE("alarm budget: options out of range are refused") {
    CHECK_THROWS_AS(AlarmBudget(0, {}), std::invalid_argument);
    CHECK_THROWS_AS(AlarmBudget(1, {.alarms_per_day = 0.0}), std::invalid_argument);
    CHECK_THROWS_AS(AlarmBudget(1, {.alarms_per_day = 1.0, .warming_level = kNan}), std::invalid_argument);
    CHECK_THROWS_AS(AlarmBudget(1, {.alarms_per_day = 1.0, .warming_level = 1.0F, .hold_off_rows = 0}),
                    std::invalid_argument);
}
