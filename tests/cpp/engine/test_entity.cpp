#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../allocations.hpp"
#include "base/dispatch.hpp"
#include "engine/entity.hpp"

using namespace argus::engine;
using argus::Isa;
using argus::kSecond;
using argus::Nanos;
using argus::ScopedIsa;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Nanos kMinute = 60 * kSecond;
constexpr std::size_t kDay = 1440;  // rows a minute apart

struct Table {
    std::size_t series;
    std::vector<float> values;
    [[nodiscard]] std::size_t rows() const { return values.size() / series; }
    float& at(std::size_t row, std::size_t slot) { return values[row * series + slot]; }
    [[nodiscard]] std::span<const float> row(std::size_t r) const {
        return std::span(values).subspan(r * series, series);
    }
};

// Series that share one factor and add noise of their own: correlated, and 0 in the first row as in the bank.
Table machine(std::size_t rows, std::size_t series, unsigned seed, float own = 0.3F) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    Table table{series, std::vector<float>(rows * series)};
    float load = 0.0F;
    for (std::size_t r = 1; r < rows; ++r) {
        load = 0.9F * load + 0.4F * normal(engine);
        for (std::size_t i = 0; i < series; ++i) table.at(r, i) = load + own * normal(engine);
    }
    return table;
}

float step(EntityScore& score, std::span<const float> row, Nanos now) {
    EntityScore::Deviance deviance;
    score.add(now, 0, row, deviance);
    return score.finish(deviance);
}

std::vector<float> run(EntityScore& score, const Table& table, std::size_t first = 0, std::size_t last = SIZE_MAX,
                       Nanos interval = kMinute) {
    std::vector<float> bits;
    for (std::size_t r = first; r < std::min(last, table.rows()); ++r) {
        bits.push_back(step(score, table.row(r), static_cast<Nanos>(r) * interval));
    }
    return bits;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

float loudest(const std::vector<float>& bits, std::size_t first, std::size_t last) {
    return *std::max_element(bits.begin() + static_cast<std::ptrdiff_t>(first),
                             bits.begin() + static_cast<std::ptrdiff_t>(last));
}

float mean(const std::vector<float>& bits, std::size_t first, std::size_t last) {
    double sum = 0.0;
    for (std::size_t r = first; r < last; ++r) sum += static_cast<double>(bits[r]);
    return static_cast<float>(sum / static_cast<double>(last - first));
}

bool sound(const std::vector<float>& bits) {
    return std::all_of(bits.begin(), bits.end(), [](float b) { return std::isfinite(b) && b >= 0.0F; });
}

}  // namespace

TEST_CASE("entity: a row is scored before it is learned from: what follows changes nothing before it") {
    Table one = machine(700, 70, 1);
    Table other = one;
    for (std::size_t r = 400; r < 700; ++r) {
        for (std::size_t i = 0; i < 70; ++i) other.at(r, i) *= -3.0F;
    }
    EntityScore a(70);
    EntityScore b(70);
    const auto whole = run(a, one);
    const auto changed = run(b, other);
    CHECK(same({whole.begin(), whole.begin() + 400}, {changed.begin(), changed.begin() + 400}));
    CHECK(whole[400] < changed[400]);
}

TEST_CASE("entity: silent while young, about one bit on what it knows") {
    const Table table = machine(3000, 20, 2);
    EntityScore score(20);
    const auto bits = run(score, table);
    CHECK(loudest(bits, 0, 150) == 0.0F);
    CHECK(bits[150] > 0.0F);
    CHECK(mean(bits, 1000, 3000) > 0.7F);
    CHECK(mean(bits, 1000, 3000) < 1.2F);
    CHECK(loudest(bits, 1000, 3000) < 2.0F);
}

TEST_CASE("entity: a combination that no series shows alone is found, and its driver named") {
    Table table = machine(3000, 20, 3, 0.1F);
    // Series 7 goes against the shared factor for 20 rows, well within its own range.
    for (std::size_t r = 2500; r < 2520; ++r) table.at(r, 7) = -table.at(r, 7);
    float widest = 0.0F;
    for (std::size_t r = 100; r < 2500; ++r) widest = std::max(widest, std::abs(table.at(r, 7)));
    for (std::size_t r = 2500; r < 2520; ++r) CHECK(std::abs(table.at(r, 7)) < widest);
    EntityScore score(20);
    auto bits = run(score, table, 0, 2500);
    std::size_t named = 0;
    for (std::size_t r = 2500; r < 2520; ++r) {
        bits.push_back(step(score, table.row(r), static_cast<Nanos>(r) * kMinute));
        const auto drivers = score.drivers();
        REQUIRE(!drivers.empty());
        named += drivers[0].slot == 7 && drivers[0].share > 0.2F ? 1 : 0;
    }
    CHECK(loudest(bits, 2500, 2520) > loudest(bits, 1000, 2500) + 0.3F);
    CHECK(named >= 10);
}

TEST_CASE("entity: drivers come strongest first, with shares of one whole, from any group") {
    constexpr std::size_t kSeries = 150;
    Table table = machine(1001, kSeries, 4);
    table.at(1000, 140) += 9.0F;
    table.at(1000, 3) += 6.0F;
    EntityScore score(kSeries);
    run(score, table);
    const auto drivers = score.drivers();
    REQUIRE(drivers.size() == EntityScore::kDrivers);
    CHECK(drivers[0].slot == 140);
    CHECK(drivers[1].slot == 3);
    float total = 0.0F;
    for (std::size_t i = 0; i < drivers.size(); ++i) {
        total += drivers[i].share;
        CHECK(drivers[i].share > 0.0F);
        if (i > 0) CHECK(drivers[i].share <= drivers[i - 1].share);
    }
    CHECK(total <= 1.001F);
    CHECK(drivers[0].share > 0.3F);
}

TEST_CASE("entity: the same bits run by run of slots, and in every instruction set") {
    constexpr std::size_t kSeries = 200;
    const Table table = machine(900, kSeries, 5);
    EntityScore whole(kSeries);
    const auto reference = run(whole, table);
    EntityScore parts(kSeries);
    std::vector<EntityScore::Deviance> deviance(table.rows());
    // All rows of a run before the next run, as the bank's tiles do.
    for (std::uint32_t first = 0; first < kSeries; first += 128) {
        for (std::size_t r = 0; r < table.rows(); ++r) {
            parts.add(static_cast<Nanos>(r) * kMinute, first,
                      table.row(r).subspan(first, std::min<std::size_t>(128, kSeries - first)), deviance[r]);
        }
    }
    std::vector<float> bits;
    for (const auto& row : deviance) bits.push_back(parts.finish(row));
    CHECK(same(bits, reference));
    for (const Isa level : {Isa::baseline, Isa::v3, Isa::v4}) {
        if (level > argus::best_isa()) {
            MESSAGE("skipped: this CPU lacks " << argus::to_string(level));
            continue;
        }
        const ScopedIsa scoped(level);
        EntityScore score(kSeries);
        CHECK(same(run(score, table), reference));
    }
}

TEST_CASE("entity: saved and loaded it goes on with the same bits and drivers; another width is refused") {
    constexpr std::size_t kSeries = 100;
    const Table table = machine(1200, kSeries, 6);
    EntityScore whole(kSeries);
    run(whole, table, 0, 715);
    argus::Writer writer(9, 1);
    whole.save(writer);
    const auto bytes = writer.finish();
    EntityScore loaded(kSeries);
    argus::Reader reader(bytes, 9, 1);
    loaded.load(reader);
    CHECK(reader.done());
    CHECK(loaded.drivers()[0].slot == whole.drivers()[0].slot);
    CHECK(same(run(whole, table, 715), run(loaded, table, 715)));
    EntityScore narrower(kSeries - 1);
    argus::Reader again(bytes, 9, 1);
    CHECK_THROWS_AS(narrower.load(again), argus::CodecError);
    EntityScore wider(kSeries + 64);
    argus::Reader once_more(bytes, 9, 1);
    CHECK_THROWS_AS(wider.load(once_more), argus::CodecError);
}

TEST_CASE("entity: nothing but finite bits, whatever comes in") {
    constexpr std::size_t kSeries = 12;
    Table table = machine(2000, kSeries, 7);
    constexpr float kInf = std::numeric_limits<float>::infinity();
    for (std::size_t r = 0; r < 2000; ++r) {
        table.at(r, 0) = 0.0F;
        table.at(r, 1) = kNan;
        table.at(r, 2) = r % 2 == 0 ? 0.0F : 1.0F;
        table.at(r, 3) = r % 300 == 299 ? 3.0e38F : 0.0F;
        table.at(r, 4) = r % 3 == 1 ? kInf : table.at(r, 4);
        table.at(r, 5) = static_cast<float>(r % 7) * 1.0e-42F;
        table.at(r, 6) = r % 2 == 0 ? -1.0e30F : 1.0e30F;
        table.at(r, 7) = r < 1000 ? kNan : table.at(r, 7);
    }
    EntityScore score(kSeries);
    CHECK(sound(run(score, table)));
    for (const Driver& driver : score.drivers()) {
        CHECK(driver.slot < kSeries);
        CHECK(std::isfinite(driver.share));
    }
    for (const float constant : {0.0F, kNan}) {
        const Table still{3, std::vector<float>(3 * 600, constant)};
        EntityScore idle(3);
        const auto bits = run(idle, still);
        CHECK(sound(bits));
        CHECK(loudest(bits, 0, bits.size()) < 1.001F);
        CHECK(idle.drivers().empty());
    }
}

TEST_CASE("entity: clocks that stand, step back or leap ten years disturb nothing") {
    const Table table = machine(3000, 8, 8);
    EntityScore score(8);
    std::vector<float> bits;
    for (std::size_t r = 0; r < 3000; ++r) {
        Nanos now = static_cast<Nanos>(r) * kMinute;
        if (r % 50 == 49) now = 0;
        if (r >= 1500) now += Nanos{3650} * 86'400 * kSecond;
        if (r == 2000) now = std::numeric_limits<Nanos>::max();
        if (r == 2001) now = std::numeric_limits<Nanos>::min();
        bits.push_back(step(score, table.row(r), now));
    }
    CHECK(sound(bits));
    CHECK(loudest(bits, 1000, 3000) < 2.0F);
}

TEST_CASE("entity: missing values hold the last one and a series of gaps alone takes no part") {
    Table table = machine(2000, 9, 9);
    Table without{8, std::vector<float>(2000 * 8)};
    for (std::size_t r = 0; r < 2000; ++r) {
        for (std::size_t i = 0; i < 8; ++i) without.at(r, i) = table.at(r, i);
        table.at(r, 8) = kNan;
    }
    EntityScore nine(9);
    EntityScore eight(8);
    CHECK(same(run(nine, table), run(eight, without)));
    Table held = without;
    for (std::size_t r = 700; r < 760; ++r) held.at(r, 2) = held.at(699, 2);
    Table missing = without;
    for (std::size_t r = 700; r < 760; ++r) missing.at(r, 2) = kNan;
    EntityScore a(8);
    EntityScore b(8);
    CHECK(same(run(a, held), run(b, missing)));
}

TEST_CASE("entity: an anomaly of half a day does not teach its own judge once the machine is three days old") {
    Table table = machine(6 * kDay, 10, 10);
    const std::size_t onset = 4 * kDay + 100;
    for (std::size_t r = onset; r < onset + 720; ++r) {
        for (std::size_t i = 0; i < 5; ++i) table.at(r, i) = 1.5F - table.at(r, i);
    }
    EntityScore score(10);
    const auto bits = run(score, table);
    const float early = mean(bits, onset + 20, onset + 120);
    const float late = mean(bits, onset + 620, onset + 720);
    CHECK(early > 1.8F);
    CHECK(late > 0.8F * early);
    // Two days on the new state is normal: it has come of age.
    Table lasting = machine(8 * kDay, 10, 10);
    for (std::size_t r = onset; r < lasting.rows(); ++r) {
        for (std::size_t i = 0; i < 5; ++i) lasting.at(r, i) = 1.5F - lasting.at(r, i);
    }
    EntityScore accepting(10);
    const auto accepted = run(accepting, lasting);
    CHECK(mean(accepted, 7 * kDay + 720, 8 * kDay) < 0.9F * mean(accepted, onset + 20, onset + 120));
}

TEST_CASE("entity: a model comes of age by time, not by rows") {
    // The same onset after four days; 50 rows later the judge is still the old one at any cadence, and after two more
    // days it has learned.
    for (const Nanos interval : {10 * kSecond, kMinute, 5 * kMinute}) {
        const auto day = static_cast<std::size_t>(Nanos{86'400} * kSecond / interval);
        Table table = machine(7 * day, 6, 11);
        const std::size_t onset = 4 * day + 7;
        for (std::size_t r = onset; r < table.rows(); ++r) {
            for (std::size_t i = 0; i < 3; ++i) table.at(r, i) = 1.5F - table.at(r, i);
        }
        EntityScore score(6);
        const auto bits = run(score, table, 0, SIZE_MAX, interval);
        const float fresh = mean(bits, onset + 10, onset + 60);
        const float day_end = mean(bits, onset + day - 60, onset + day - 10);
        const float old = mean(bits, 7 * day - 100, 7 * day);
        CAPTURE(interval);
        CHECK(fresh > 1.8F);
        CHECK(day_end > 0.75F * fresh);
        CHECK(old < 0.95F * fresh);
    }
}

TEST_CASE("entity: a reset series is forgotten, takes part again when known, and the others go on") {
    Table table = machine(3000, 8, 12);
    for (std::size_t r = 1500; r < 3000; ++r) table.at(r, 2) = 1000.0F * (table.at(r, 2) - table.at(1500, 2));
    EntityScore score(8);
    EntityScore kept(8);
    const auto first = run(score, table, 0, 1500);
    run(kept, table, 0, 1500);
    const std::array<std::uint32_t, 1> slot{2};
    score.reset(slot);
    const auto after = run(score, table, 1500);
    const auto unaware = run(kept, table, 1500);
    CHECK(sound(after));
    CHECK(loudest(unaware, 0, 200) > 4.0F);
    CHECK(loudest(after, 0, 1500) < 2.0F);
    // Learned anew: a departure from the shared factor is seen in it again.
    Table broken = table;
    for (std::size_t r = 2900; r < 2920; ++r) broken.at(r, 2) = -broken.at(r, 2) - 2000.0F * table.at(1500, 2);
    EntityScore again(8);
    run(again, table, 0, 1500);
    again.reset(slot);
    const auto seen = run(again, broken, 1500);
    CHECK(loudest(seen, 1400, 1430) > loudest(after, 1400, 1430) + 0.3F);
}

TEST_CASE("entity: what a reset series leaves behind is the model of the others") {
    // Series 0 and 1 are near copies; with 1 gone, a move of 0 is no departure from it.
    Table table = machine(2000, 6, 13);
    for (std::size_t r = 0; r < 2000; ++r) table.at(r, 1) = table.at(r, 0) + 0.01F * table.at(r, 1);
    EntityScore score(6);
    run(score, table, 0, 1990);
    const std::array<std::uint32_t, 1> slot{1};
    score.reset(slot);
    for (std::size_t r = 1990; r < 2000; ++r) table.at(r, 1) = kNan;
    const auto bits = run(score, table, 1990);
    CHECK(loudest(bits, 0, 10) < 1.6F);
}

TEST_CASE("entity: nothing is allocated after construction") {
    constexpr std::size_t kSeries = 130;
    const Table table = machine(1000, kSeries, 14);
    EntityScore score(kSeries);
    const std::array<std::uint32_t, 2> slots{3, 129};
    const std::uint64_t before = argus::test::allocations();
    float last = 0.0F;
    for (std::size_t r = 0; r < table.rows(); ++r) {
        last = step(score, table.row(r), static_cast<Nanos>(r) * 10 * kMinute);
        if (r == 800) score.reset(slots);
    }
    const bool named = !score.drivers().empty();
    CHECK(argus::test::allocations() == before);
    CHECK(last > 0.0F);
    CHECK(named);
}

TEST_CASE("entity: a group without a series sleeps, and wakes with its first") {
    Table table = machine(1500, 140, 15);
    for (std::size_t r = 0; r < 1500; ++r) {
        for (std::size_t i = 64; i < 140; ++i) {
            if (i >= 128 || r < 700) table.at(r, i) = kNan;
            else table.at(r, i) -= r == 700 ? table.at(r, i) : 0.0F;
        }
    }
    Table first{64, std::vector<float>(700 * 64)};
    for (std::size_t r = 0; r < 700; ++r) {
        for (std::size_t i = 0; i < 64; ++i) first.at(r, i) = table.at(r, i);
    }
    EntityScore all(140);
    EntityScore alone(64);
    const auto bits = run(all, table);
    CHECK(sound(bits));
    CHECK(same({bits.begin(), bits.begin() + 700}, run(alone, first)));
    CHECK(loudest(bits, 700, 1500) < 2.0F);
    argus::Writer awake(9, 1);
    argus::Writer asleep(9, 1);
    all.save(awake);
    EntityScore(140).save(asleep);
    CHECK(asleep.finish().size() < 400);
    CHECK(awake.finish().size() < all.bytes());
}

TEST_CASE("entity: the state is bounded by the slots") {
    CHECK(EntityScore(10'000).bytes() < 10'000 * 2800);
    CHECK(EntityScore(38).bytes() < 300'000);
}
