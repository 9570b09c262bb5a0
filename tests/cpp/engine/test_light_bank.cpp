#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "base/dispatch.hpp"
#include "engine/light_bank.hpp"

namespace argus::engine {
namespace {

constexpr std::uint32_t kSeries = 1100;  // more than a tile, no multiple of any vector
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kMinute = 60.0;

struct Found {
    std::vector<float> bits;
    std::vector<LightAlarm> alarms;
};

std::vector<std::tuple<std::uint32_t, std::uint32_t, float>> told(const std::vector<LightAlarm>& alarms) {
    std::vector<std::tuple<std::uint32_t, std::uint32_t, float>> out;
    for (const LightAlarm& a : alarms) out.emplace_back(a.row, a.slot, a.bits);
    return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Noise with gaps; series 5 leaps at row 300, series 7 stops there, series 9 never was.
std::vector<float> rows(std::size_t count, unsigned seed = 1) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(1000.0F, 2.0F);
    std::vector<float> values(count * kSeries);
    for (float& value : values) value = normal(engine);
    for (std::size_t r = 0; r < count; ++r) {
        float* row = values.data() + r * kSeries;
        for (std::size_t i = 20; i < kSeries; i += 37) row[i] = r % 3 == 0 ? row[i] : kNan;
        if (r >= 300) row[5] += 40.0F;
        if (r >= 300) row[7] = kNan;
        row[9] = kNan;
    }
    return values;
}

// Fed `block` rows at a time; row numbers of alarms count from the first.
Found run(LightBank& bank, const std::vector<float>& values, std::size_t block = 1000) {
    Found found;
    found.bits.resize(values.size());
    const std::size_t count = values.size() / bank.series();
    for (std::size_t first = 0; first < count; first += block) {
        const std::size_t before = found.alarms.size();
        const std::size_t at = first * bank.series();
        bank.run(values.data() + at, std::min(block, count - first), kMinute, found.bits.data() + at, &found.alarms);
        for (std::size_t a = before; a < found.alarms.size(); ++a) {
            found.alarms[a].row += static_cast<std::uint32_t>(first);
        }
    }
    return found;
}

std::vector<std::byte> saved(const LightBank& bank) {
    Writer writer(1, 1);
    bank.save(writer);
    return writer.finish();
}

}  // namespace

TEST_CASE("light bank: a leap and a stop alarm once each, where and as they happened") {
    LightBank bank(kSeries, 1.0);
    const Found found = run(bank, rows(390));
    REQUIRE(found.alarms.size() == 2);
    CHECK(found.alarms[0].row == 300);
    CHECK(found.alarms[0].slot == 5);
    CHECK(found.alarms[0].value == doctest::Approx(1040.0F).epsilon(0.01));
    CHECK(found.alarms[0].expected == doctest::Approx(1000.0F).epsilon(0.01));
    CHECK(found.alarms[1].slot == 7);
    CHECK(found.alarms[1].row >= 302);
    CHECK(found.alarms[1].row < 310);
    CHECK(std::isnan(found.alarms[1].value));
    for (std::size_t r = 0; r < 390; ++r) CHECK(found.bits[r * kSeries + 9] == 0.0F);  // never there, never missed
}

TEST_CASE("light bank: any split of the rows, and wanting alarms or not, gives the same bits") {
    const auto values = rows(400);
    LightBank whole(kSeries, 1.0);
    const Found wanted = run(whole, values);
    for (const std::size_t block : {std::size_t{1}, std::size_t{7}, std::size_t{399}}) {
        LightBank bank(kSeries, 1.0);
        const Found found = run(bank, values, block);
        CHECK(same_bits(found.bits, wanted.bits));
        CHECK(told(found.alarms) == told(wanted.alarms));
        CHECK(saved(bank) == saved(whole));
    }
    LightBank quiet(kSeries, 1.0);
    std::vector<float> bits(values.size());
    quiet.run(values.data(), 400, kMinute, bits.data(), nullptr);
    CHECK(same_bits(bits, wanted.bits));
    LightBank alarms_only(kSeries, 1.0);
    std::vector<LightAlarm> alarms;
    alarms_only.run(values.data(), 400, kMinute, nullptr, &alarms);
    CHECK(told(alarms) == told(wanted.alarms));
}

TEST_CASE("light bank: the same bits on every instruction set, of float32 and float64 alike") {
    const auto values = rows(400);
    LightBank widest(kSeries, 1.0);
    const Found wanted = run(widest, values);
    for (const Isa level : {Isa::baseline, Isa::v3}) {
        const ScopedIsa scoped(level);
        LightBank bank(kSeries, 1.0);
        const Found found = run(bank, values);
        CHECK(same_bits(found.bits, wanted.bits));
        CHECK(told(found.alarms) == told(wanted.alarms));
    }
    const std::vector<double> wide(values.begin(), values.end());
    LightBank bank(kSeries, 1.0);
    std::vector<float> bits(values.size());
    bank.run(wide.data(), 400, kMinute, bits.data(), nullptr);
    CHECK(same_bits(bits, wanted.bits));
}

TEST_CASE("light bank: rows without gaps take a shorter way to the bits they have beside a series with gaps") {
    std::mt19937 engine(5);
    std::normal_distribution<float> normal(50.0F, 3.0F);
    std::vector<float> calm(700 * kSeries);
    for (float& value : calm) value = normal(engine);
    for (std::size_t r = 500; r < 520; ++r) calm[r * kSeries + 11] = kNan;  // on the short way, off it, back
    auto gapped = calm;
    for (std::size_t i = 0; i < gapped.size(); ++i) {
        if (i % kSeries % 100 == 50) gapped[i] = kNan;
    }
    LightBank a(kSeries, 1e6);
    LightBank b(kSeries, 1e6);
    const Found quick = run(a, calm);
    const Found slow = run(b, gapped, 3);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < calm.size(); ++i) {
        wrong += i % kSeries % 100 != 50 && quick.bits[i] != slow.bits[i] ? 1 : 0;
    }
    CHECK(wrong == 0);
    auto said = told(quick.alarms);
    std::erase_if(said, [](const auto& alarm) { return std::get<1>(alarm) % 100 == 50; });
    CHECK(said.size() > 10);
    CHECK(said == told(slow.alarms));
}

TEST_CASE("light bank: a saved one goes on with the same bits; of other series it is refused") {
    const auto values = rows(400);
    const auto half = static_cast<std::ptrdiff_t>(305 * kSeries);
    const std::vector<float> rest(values.begin() + half, values.end());
    LightBank first(kSeries, 1.0);
    (void)run(first, {values.begin(), values.begin() + half});
    const auto state = saved(first);
    LightBank second(kSeries, 1.0);
    Reader reader(state, 1, 1);
    second.load(reader);
    CHECK(reader.done());
    const Found a = run(first, rest);
    const Found b = run(second, rest);
    CHECK(same_bits(a.bits, b.bits));
    CHECK(told(a.alarms) == told(b.alarms));
    LightBank other(kSeries + 1, 1.0);
    Reader again(state, 1, 1);
    CHECK_THROWS_AS(other.load(again), CodecError);
}

TEST_CASE("light bank: bits are finite and bounded whatever comes; a missing value teaches nothing but its gap") {
    const float odd[] = {0.0F, 5.0F, 1e30F, -1e38F, 1e-40F, INFINITY, -INFINITY, kNan, 3.4e38F};
    std::mt19937 engine(3);
    LightBank bank(kSeries, 1.0);
    std::vector<float> values(kSeries);
    std::vector<float> bits(kSeries);
    std::size_t bad = 0;
    for (int r = 0; r < 1000; ++r) {
        for (std::size_t i = 0; i < kSeries; ++i) {
            values[i] = i < 300 ? odd[i % std::size(odd)] : odd[engine() % std::size(odd)];
        }
        bank.run(values.data(), 1, kMinute, bits.data(), nullptr);
        for (const float b : bits) bad += b >= 0.0F && b <= 60.0F ? 0 : 1;
        for (std::size_t i = 0; i < 300; ++i) bad += bits[i] == 0.0F ? 0 : 1;  // constants, and nothing at all
    }
    CHECK(bad == 0);
}

TEST_CASE("light bank: infinite values are missing ones") {
    auto values = rows(400);
    auto infinite = values;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (std::isnan(values[i])) infinite[i] = i % 2 == 0 ? INFINITY : -INFINITY;
    }
    LightBank a(kSeries, 1.0);
    LightBank b(kSeries, 1.0);
    CHECK(same_bits(run(a, values).bits, run(b, infinite).bits));
    CHECK(saved(a) == saved(b));
}

TEST_CASE("light bank: a reset series is like new, its neighbours keep their past") {
    const auto past = rows(200);
    const auto next = rows(300, 2);
    LightBank kept(kSeries, 1.0);
    LightBank cleared(kSeries, 1.0);
    LightBank fresh(kSeries, 1.0);
    (void)run(kept, past);
    (void)run(cleared, past);
    const std::uint32_t slots[] = {3, 1050};
    cleared.reset(slots);
    const auto old = run(kept, next).bits;
    const auto mine = run(cleared, next).bits;
    const auto young = run(fresh, next).bits;
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < mine.size(); ++i) {
        const std::size_t slot = i % kSeries;
        const float want = slot == 3 || slot == 1050 ? young[i] : old[i];
        wrong += mine[i] == want ? 0 : 1;
    }
    CHECK(wrong == 0);
    CHECK_FALSE(same_bits(mine, old));
}

TEST_CASE("light bank: an unknown interval alarms nothing; no series, and no budget, are refused") {
    LightBank bank(kSeries, 1.0);
    const auto values = rows(390);
    std::vector<LightAlarm> alarms;
    bank.run(values.data(), 390, 0.0, nullptr, &alarms);
    CHECK(alarms.empty());
    CHECK_THROWS_AS(LightBank(0, 1.0), std::invalid_argument);
    CHECK_THROWS_AS(LightBank(3, 0.0), std::invalid_argument);
    CHECK_THROWS_AS(LightBank(3, std::nan("")), std::invalid_argument);
}

}  // namespace argus::engine
