// What every detector must hold. A new leaf joins by one line in kDetectors.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/dispatch.hpp"
#include "detectors/detector.hpp"

using namespace argus::detectors;
using argus::Isa;
using argus::ScopedIsa;

namespace {

const std::array kDetectors{&residual_detector, &season_detector, &increment_detector, &shift_detector,
                            &variance_detector, &silence_detector, &rate_detector, &tail_detector,
                            &mix_detector, &embedding_detector};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::uint32_t kSlots = 131;  // no multiple of any vector

std::unique_ptr<Detector> make(const DetectorDescriptor& descriptor, std::uint32_t slots = kSlots) {
    std::vector<double> values;
    for (const argus::Option& option : descriptor.leaf.options) values.push_back(option.value);
    return descriptor.make(slots, values);
}

std::vector<float> row(unsigned number, float scale = 1.0F) {
    std::mt19937 engine(number);
    std::normal_distribution<float> normal;
    std::vector<float> values(kSlots);
    for (float& value : values) value = scale * normal(engine);
    return values;
}

constexpr std::uint32_t kWidth = 64;  // slots of an entity
const std::array<Entity, 2> kEntities{{{0, kWidth}, {kWidth, kWidth}}};

View view_of(const std::vector<float>& values, argus::Nanos now = 0) { return {values, kEntities, now, now, 60.0}; }

bool named(const DetectorDescriptor& descriptor, const char* name) { return std::string(descriptor.leaf.name) == name; }
bool of_entities(const DetectorDescriptor& descriptor) { return descriptor.use == Use::arrays; }

std::vector<float> score(const DetectorDescriptor& descriptor, const Detector& detector,
                         const std::vector<float>& values) {
    std::vector<float> statistic(descriptor.channels.size() * values.size(), -1.0F);
    detector.score(view_of(values), statistic);
    return statistic;
}

std::vector<std::byte> state(const Detector& detector) {
    argus::Writer writer(1, 1);
    detector.save(writer);
    return writer.finish();
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const std::vector<std::uint8_t> kAll(kSlots, kLearn);

void teach(Detector& detector, unsigned first, unsigned rows) {
    for (unsigned r = first; r < first + rows; ++r) {
        const auto values = row(r);
        detector.learn(view_of(values), kAll);
    }
}

}  // namespace

TEST_CASE("every detector: describes itself, and its options hold their own bounds") {
    for (const auto* descriptor : kDetectors) {
        CAPTURE(std::string(descriptor->leaf.name));
        CHECK(std::string(descriptor->leaf.documentation).size() > 20);
        CHECK(std::string(descriptor->leaf.reference).size() > 10);
        CHECK_FALSE(descriptor->channels.empty());
        for (const Channel& channel : descriptor->channels) CHECK(static_cast<std::size_t>(channel.scale) < kScales);
        for (const argus::Option& option : descriptor->leaf.options) {
            CAPTURE(option.name);
            CHECK(option.min <= option.value);
            CHECK(option.value <= option.max);
            CHECK(std::string(option.documentation).size() > 10);
        }
    }
}

TEST_CASE("every detector: scoring changes nothing and repeats itself") {
    for (const auto* descriptor : kDetectors) {
        const auto detector = make(*descriptor);
        teach(*detector, 0, 200);
        const auto before = state(*detector);
        const auto values = row(999, 10.0F);
        const auto first = score(*descriptor, *detector, values);
        CHECK(same(first, score(*descriptor, *detector, values)));
        CHECK(before == state(*detector));
    }
}

TEST_CASE("every detector: a missing value scores NaN and leaves its slot's state alone") {
    for (const auto* descriptor : kDetectors) {
        const auto detector = make(*descriptor);
        if (descriptor->use == Use::arrivals) continue;  // it speaks of what is missing
        teach(*detector, 0, 100);
        const auto before = state(*detector);
        const std::vector<float> nothing(kSlots, kNan);
        for (const float y : score(*descriptor, *detector, nothing)) CHECK(std::isnan(y));
        detector->learn(view_of(nothing), kAll);
        if (std::string(descriptor->leaf.name) != "increment") CHECK(before == state(*detector));  // it counts gaps
    }
}

TEST_CASE("every detector: statistics are finite, also for constants and huge values") {
    for (const auto* descriptor : kDetectors) {
        for (const float level : {0.0F, 1.0F, -1e30F, 1e30F, 1e-38F}) {
            const auto detector = make(*descriptor);
            for (int r = 0; r < 300; ++r) {
                const std::vector<float> values(kSlots, r % 50 == 49 ? -level : level);
                // A negative count is none, and an entity's statistic is at its first slot.
                const bool may_be_none = named(*descriptor, "rate") || of_entities(*descriptor);
                for (const float y : score(*descriptor, *detector, values)) {
                    if (!(std::isfinite(y) || (may_be_none && std::isnan(y))))
                        FAIL(std::string(descriptor->leaf.name) << ": level " << level << ", row " << r << ": " << y);
                }
                detector->learn(view_of(values), kAll);
            }
        }
    }
}

TEST_CASE("every detector: a slot knows nothing of its neighbours") {
    for (const auto* descriptor : kDetectors) {
        const auto quiet = make(*descriptor);
        const auto loud = make(*descriptor);
        for (unsigned r = 0; r < 100; ++r) {
            auto values = row(r);
            quiet->learn(view_of(values), kAll);
            values[1] = 1e6F;
            loud->learn(view_of(values), kAll);
        }
        const auto values = row(500);
        const auto a = score(*descriptor, *quiet, values);
        const auto b = score(*descriptor, *loud, values);
        for (std::size_t i = 0; i < a.size(); ++i) {
            const bool its_own = of_entities(*descriptor) ? i % kSlots < kWidth : i % kSlots == 1;
            if (!its_own) CHECK(std::memcmp(&a[i], &b[i], sizeof(float)) == 0);
        }
    }
}

TEST_CASE("every detector: a reset slot is like new, the others keep their past") {
    for (const auto* descriptor : kDetectors) {
        const auto detector = make(*descriptor);
        const auto fresh = make(*descriptor);
        const auto kept = make(*descriptor);
        teach(*detector, 0, 100);
        teach(*kept, 0, 100);
        std::vector<std::uint32_t> slots{0, 77};
        if (of_entities(*descriptor)) {
            slots.resize(kWidth);
            std::iota(slots.begin(), slots.end(), 0U);
        }
        detector->reset(slots);
        for (unsigned r = 100; r < 140; ++r) {
            const auto values = row(r);
            const auto mine = score(*descriptor, *detector, values);
            const auto young = score(*descriptor, *fresh, values);
            const auto old = score(*descriptor, *kept, values);
            for (std::size_t i = 0; i < mine.size(); ++i) {
                const bool was_reset = std::count(slots.begin(), slots.end(), i % kSlots) > 0;
                const float want = was_reset ? young[i] : old[i];
                const bool equal = mine[i] == want || (std::isnan(mine[i]) && std::isnan(want));
                if (!equal)
                    FAIL(std::string(descriptor->leaf.name) << ": slot " << i % kSlots << ": " << mine[i]
                                               << " != " << want);
            }
            for (const auto* each : {&detector, &fresh, &kept}) (*each)->learn(view_of(values), kAll);
        }
    }
}

TEST_CASE("every detector: saved and loaded it goes on with the same bits; another size is refused") {
    for (const auto* descriptor : kDetectors) {
        const auto detector = make(*descriptor);
        teach(*detector, 0, 150);
        const auto bytes = state(*detector);
        const auto copy = make(*descriptor);
        argus::Reader reader(bytes, 1, 1);
        copy->load(reader);
        CHECK(reader.done());
        for (unsigned r = 150; r < 200; ++r) {
            const auto values = row(r, 2.0F);
            CHECK(same(score(*descriptor, *detector, values), score(*descriptor, *copy, values)));
            detector->learn(view_of(values), kAll);
            copy->learn(view_of(values), kAll);
        }
        const auto other = make(*descriptor, kSlots + 1);
        argus::Reader again(bytes, 1, 1);
        CHECK_THROWS_AS(other->load(again), argus::CodecError);
    }
}

TEST_CASE("every detector: the same bits on every instruction set") {
    for (const auto* descriptor : kDetectors) {
        std::vector<std::vector<float>> statistics;
        std::vector<std::vector<std::byte>> states;
        for (const Isa level : {Isa::baseline, Isa::v3, Isa::v4}) {
            if (level > argus::best_isa()) {
                MESSAGE("skipped: this CPU lacks " << argus::to_string(level));
                continue;
            }
            const ScopedIsa scoped(level);
            const auto detector = make(*descriptor);
            std::vector<float> all;
            for (unsigned r = 0; r < 300; ++r) {
                auto values = row(r, r % 40 == 7 ? 30.0F : 1.0F);
                values[r % kSlots] = kNan;
                auto mask = kAll;
                mask[(r * 3) % kSlots] = kLearnNothing;
                mask[(r * 5) % kSlots] = kLearnAnew;
                const auto y = score(*descriptor, *detector, values);
                all.insert(all.end(), y.begin(), y.end());
                detector->learn(view_of(values), mask);
            }
            statistics.push_back(all);
            states.push_back(state(*detector));
        }
        for (std::size_t i = 1; i < statistics.size(); ++i) {
            CHECK(same(statistics[0], statistics[i]));
            CHECK(states[0] == states[i]);
        }
    }
}

TEST_CASE("every detector: what it is told not to learn leaves no trace once it has gone by") {
    for (const auto* descriptor : kDetectors) {
        if (descriptor->use == Use::arrivals) continue;  // bounds what a flagged length teaches instead
        const auto calm = make(*descriptor);
        const auto shaken = make(*descriptor);
        teach(*calm, 0, 3000);
        teach(*shaken, 0, 3000);
        const std::vector<std::uint8_t> nothing(kSlots, kLearnNothing);
        for (unsigned r = 3000; r < 7000; ++r) {
            const auto usual = row(r);
            auto odd = row(r, 5.0F);
            for (float& value : odd) value += 20.0F;
            calm->learn(view_of(usual), nothing);
            shaken->learn(view_of(r < 3040 ? odd : usual), nothing);
        }
        const auto values = row(9000);
        const auto a = score(*descriptor, *calm, values);
        const auto b = score(*descriptor, *shaken, values);
        for (std::size_t i = 0; i < a.size(); ++i) {
            const float allowed = 0.06F * (1.0F + std::abs(a[i]));
            const bool equal = std::isnan(a[i]) ? std::isnan(b[i]) : std::abs(a[i] - b[i]) < allowed;
            if (!equal) FAIL(std::string(descriptor->leaf.name) << ": " << i << ": " << a[i] << " and " << b[i]);
        }
    }
}

TEST_CASE("every detector: its loops vectorise") {
#if defined(ARGUS_SANITIZED) || !defined(__OPTIMIZE__)
    MESSAGE("skipped: not an optimised build");
#else
    if (argus::best_isa() == Isa::baseline) {
        MESSAGE("skipped: this CPU has no wider vectors than the baseline to compare with");
        return;
    }
    constexpr std::uint32_t kWide = 1024;
    for (const auto* descriptor : kDetectors) {
        if (named(*descriptor, "tail") || named(*descriptor, "mix")) continue;  // scalar loops, as they say
        const auto seconds = [&](Isa level) {
            const ScopedIsa scoped(level);
            const auto detector = make(*descriptor, kWide);
            const std::vector<float> values(kWide, 1.5F);
            const std::vector<std::uint8_t> mask(kWide, kLearn);
            std::vector<float> statistic(descriptor->channels.size() * kWide);
            double best = 1e9;
            for (int repeat = 0; repeat < 60; ++repeat) {
                const auto start = std::chrono::steady_clock::now();
                for (int r = 0; r < 20; ++r) {
                    detector->score(view_of(values), statistic);
                    detector->learn(view_of(values), mask);
                }
                best = std::min(
                    best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
            }
            return best / (20.0 * kWide) * 1e9;
        };
        const double baseline_ns = seconds(Isa::baseline);
        const double widest_ns = seconds(argus::best_isa());
        CAPTURE(std::string(descriptor->leaf.name));
        CAPTURE(baseline_ns);
        CAPTURE(widest_ns);
        CHECK(widest_ns < baseline_ns / 1.25);
    }
#endif
}
