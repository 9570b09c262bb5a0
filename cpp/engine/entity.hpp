// One score for all series of a machine: how far this row, and the rows just before it, lie from what the
// machine's own past leads to expect, jointly. Finds what no single series shows: an unusual combination.
//
// Three deviances over the standardised series (mean and standard deviation with weights 1/n, scale = deviation
// + 1 % of the range seen, so that a constant is silent until it moves; clipped at 20):
//   level       z'(C_z + I/10)^-1 z   Mahalanobis (1936), shrunken towards independence
//   innovation  r'(C_r + I/10)^-1 r   of r = z minus a ridge forecast from the series' own three lags
//   jump        sum of y^2 / 1.1      of the standardised increments, no correlations
// Each is averaged exponentially at three rates (0.3, 0.1, 0.03 a row) and divided by its expectation under the
// model in use; the score is log2(1 + geometric mean of the nine ratios). So bits here mean: 1 = as much deviance
// as expected, one more for each doubling from there on. They are comparable between machines, but are no tail
// probability. kStrangeBits, three times as much as expected, is the threshold that needs no labels.
//
// Learning: in blocks of kBlock rows, after the last of them was scored. From the third day of observed time on
// the model in use is the newest that is at least one day old (and at most about 1.4 days), so that an anomaly
// shorter than that does not teach its own judge. Observed time: clocks that step back do not age a model, and
// a gap ages it by an hour at most, for nothing was learned in it.
//
// Bounded for wide machines: covariances hold within groups of kGroup neighbouring slots, deviances add over
// the groups; up to kGroup slots nothing is lost. Groups learn on different rows, so that no row pays for all.
// A missing value holds the last one. A series takes part once the model in use has seen a block of it.
//
// Cost: bench_entity; about 2.7 KiB a slot in full groups, 260 KB for a machine of up to 64 series;
// groups without a series are not looked at, saved or touched.
// Does not promise: a rate of false alarms; a view of what two groups do jointly; recovery of a series from one
// value that dwarfs all others (its scale remembers it).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/clock.hpp"
#include "base/codec.hpp"

namespace argus::engine {

// A series that moved the entity, and its share of the row's deviance, 0 to 1.
struct Driver {
    std::uint32_t slot = 0;
    float share = 0.0F;
};

struct EntityGroup;
struct EntityScratch;

class EntityScore {
public:
    static constexpr std::uint32_t kGroup = 64;  // slots that are judged jointly
    static constexpr std::uint32_t kBlock = 64;  // rows learned from at once
    static constexpr std::size_t kChannels = 3;  // level, innovation, jump
    static constexpr std::size_t kDrivers = 5;
    static constexpr float kStrangeBits = 2.0F;

    // What the groups find in one row: add() sums into it, finish() turns it into bits.
    struct Deviance {
        std::array<double, kChannels> found{};
        std::array<double, kChannels> expected{};
        [[nodiscard]] float ratio(std::size_t channel) const noexcept;  // 1 = as expected
    };

    // slots: at least 1.
    explicit EntityScore(std::uint32_t slots);
    ~EntityScore();
    EntityScore(EntityScore&&) noexcept;
    EntityScore& operator=(EntityScore&&) noexcept;

    // One row in runs of slots, in order: first = a multiple of kGroup, values = base units minus a constant of
    // the slot that its first value gave (so that it begins at 0), NaN or infinite = not observed. Every run
    // ends at a multiple of kGroup or at the last slot. Rows may be added run by run or row by row.
    void add(Nanos mono, std::uint32_t first, std::span<const float> values, Deviance& row) noexcept;

    // Bits of the row whose runs were all added; once per row, in order.
    [[nodiscard]] float finish(const Deviance& row) noexcept;

    // The strongest series of the last row added, strongest first; valid until the next call.
    [[nodiscard]] std::span<const Driver> drivers() noexcept;

    // The slots' series are new; they take no part until they are known.
    void reset(std::span<const std::uint32_t> slots) noexcept;
    void save(Writer& writer) const;
    void load(Reader& reader);  // throws CodecError when saved with another number of slots
    [[nodiscard]] std::size_t bytes() const noexcept;

private:
    static constexpr std::size_t kRates = 3;
    struct Free {
        void operator()(void* memory) const noexcept;
    };

    std::uint32_t slots_;
    std::unique_ptr<void, Free> memory_;
    std::span<EntityGroup> groups_;
    std::unique_ptr<EntityScratch> scratch_;
    std::array<std::array<double, kRates>, kChannels> recent_{};
    std::array<double, kChannels> expected_{};  // of the last row
    std::int64_t rows_ = 0;
    std::array<Driver, kDrivers> drivers_{};
};

}  // namespace argus::engine
