// The bank: every detector over every series of one scope. One row in, bits and utterances out.
//
// Per tile of at most 128 series, so that state stays in the second-level cache, and per row:
//   value - origin (first finite value of the slot, in double, so that large levels keep their precision in
//   float32) -> each detector's statistics -> bits per channel (Calibration) -> bits of the row and evidence
//   (Fusion) -> Gate -> learning.
// Then, row by row over the whole scope: entity score, AlarmBudget and Speaker. All state is per slot, per tile or per
// row in order, so any split of the same rows into calls gives the same bits. Infinite values count as missing.
// step() does not allocate.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "detectors/detector.hpp"
#include "engine/alarm_budget.hpp"
#include "engine/calibration.hpp"
#include "engine/entity.hpp"
#include "engine/fusion.hpp"
#include "engine/speaking.hpp"

namespace argus::engine {

struct DetectorChoice {
    const detectors::DetectorDescriptor* descriptor = nullptr;
    std::vector<double> option_values;  // in descriptor order; empty = defaults
};

struct BankOptions {
    std::vector<DetectorChoice> detectors = {{&detectors::residual_detector, {}},
                                             {&detectors::season_detector, {}},
                                             {&detectors::increment_detector, {}}};
    double false_alarms_per_day = 1.0;  // of the whole scope, shared alike by its live series
    bool entity = true;                 // keep the score of all series as one entity
    bool speaks = true;                 // raise alarms and speak; without it the bits alone are computed
    PolicyOptions policy;
};

// A block of rows, oldest first: values[row * stride + slot], `capacity` values a row.
template <class T>
struct Rows {
    const T* values = nullptr;
    std::size_t stride = 0;
    std::span<const Nanos> mono;  // one per row, growing
    std::span<const Nanos> wall;
};

struct Spoken {
    std::uint32_t row = 0;  // within the block
    Utterance utterance;
};

// Where run() writes: row-major, `capacity` values a row; null = not wanted.
struct Outputs {
    float* bits = nullptr;
    float* alarm_bits = nullptr;
    double* expected = nullptr;
    double* lower = nullptr;
    double* upper = nullptr;
    float* entity_bits = nullptr;           // one per row; 0 without BankOptions::entity
    float* entity_parts = nullptr;          // three per row: found / expected deviance of each channel; likewise
    std::vector<float*> parts;              // one per channel: its statistic; empty = not wanted
    std::vector<Spoken>* spoken = nullptr;  // appended
};

class Bank {
public:
    // capacity: slots, at least 1. Throws std::invalid_argument when the options do not fit their
    // descriptors.
    Bank(std::uint32_t capacity, BankOptions options);
    ~Bank();
    Bank(Bank&&) noexcept;
    Bank& operator=(Bank&&) noexcept;

    // One row of `capacity` values, NaN = not observed. Scores, then learns.
    void step(std::span<const double> row, Nanos mono_now, Nanos wall_now);

    // Many rows at once, faster than as many steps and with the same bits. The spans of the last step are not
    // renewed.
    void run(const Rows<double>& rows, const Outputs& out);
    void run(const Rows<float>& rows, const Outputs& out);

    // Of the last step, one per slot, in base units. NaN = not known (yet). Band: about 1 value in 1,024 lies
    // outside.
    [[nodiscard]] std::span<const float> bits() const noexcept { return bits_; }
    [[nodiscard]] std::span<const float> alarm_bits() const noexcept { return alarm_bits_; }
    [[nodiscard]] std::span<const double> expected() const noexcept { return expected_; }
    [[nodiscard]] std::span<const double> lower() const noexcept { return lower_; }
    [[nodiscard]] std::span<const double> upper() const noexcept { return upper_; }
    [[nodiscard]] std::span<const Utterance> spoken() const noexcept { return utterances_; }
    [[nodiscard]] float entity_bits() const noexcept { return entity_bits_; }
    // The series that moved the entity in the last row, strongest first; empty without BankOptions::entity.
    [[nodiscard]] std::span<const Driver> drivers() noexcept;

    [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] std::uint64_t live_series() const noexcept { return live_; }   // warmed up
    [[nodiscard]] std::uint64_t infinities() const noexcept { return infinities_; }
    [[nodiscard]] const AlarmBudget& budget() const noexcept { return budget_; }
    [[nodiscard]] double false_alarms_per_day() const noexcept { return options_.false_alarms_per_day; }
    [[nodiscard]] std::vector<std::string> channels() const;  // "residual", "residual.shift"

    // The series' last spoken alarm was, or was not, of something that a person wanted to know.
    void confirm(std::uint32_t slot, bool true_alarm) noexcept { budget_.confirm(slot, true_alarm); }

    // The slot's series is a sibling of all in the same pool: alarm levels are learned together. All begin in pool 0.
    void join(std::uint32_t slot, std::uint32_t pool) noexcept { budget_.assign(slot, pool); }

    // The next value of the slots' series is their new normal: levels and seasons start from it, open incidents end
    // unspoken; that value itself is not judged. How the values scatter stays known.
    void learn_anew(std::span<const std::uint32_t> slots);

    // The slots' series are new: everything known of them goes, their incidents end unspoken.
    void reset(std::span<const std::uint32_t> slots);

    void save(Writer& writer) const;
    void load(Reader& reader);  // throws CodecError when saved with another capacity or other detectors

private:
    struct Tile;
    struct Scratch;
    struct Block;
    struct Asked {  // of the budget, in force
        float warming_level = std::numeric_limits<float>::infinity();
        std::uint64_t live = 0;
    };

    template <class T>
    void run_rows(const Rows<T>& rows, const Outputs& out);
    template <class T>
    void run_block(const Rows<T>& rows, std::size_t first, const Outputs& out);
    void renew_request() noexcept;
    void speak(std::size_t row, Nanos mono, Nanos wall, std::size_t& next_alarm, std::vector<Spoken>* spoken);
    template <class T>
    void run_tile(Tile& tile, const Rows<T>& rows, const Outputs& out);
    void judge_entity(std::size_t row, const Outputs& out);
    [[nodiscard]] detectors::View view_of(const Tile& tile, Nanos mono, Nanos wall, double interval_s) const;
    void score_tile(Tile& tile, const detectors::View& view);
    void learn_tile(Tile& tile, const detectors::View& view);
    void mark_anew(const Tile& tile, std::uint8_t how);
    void write_row(const Tile& tile, std::size_t row, const Outputs& out);
    void write_nothing(const Tile& tile, std::size_t row, const Outputs& out);
    void forecast_tile(Tile& tile);
    [[nodiscard]] std::span<const GateEvent> pass_gate(Tile& tile, std::size_t row);
    void collect(const Tile& tile, std::uint32_t row, std::span<const GateEvent> events);

    std::uint32_t capacity_;
    BankOptions options_;
    std::uint32_t channel_count_ = 0;
    std::vector<const char*> channel_detector_;
    std::vector<Tile> tiles_;
    std::unique_ptr<Scratch> scratch_;
    std::unique_ptr<EntityScore> entity_;  // null without BankOptions::entity
    std::unique_ptr<Block> block_;
    Speaker speaker_;
    AlarmBudget budget_;
    Asked asked_;
    Cadence cadence_;
    std::int64_t rows_ = 0;
    std::uint64_t live_ = 0;
    std::uint64_t infinities_ = 0;
    std::vector<float> bits_;
    std::vector<float> alarm_bits_;
    std::vector<double> expected_;
    std::vector<double> lower_;
    std::vector<double> upper_;
    std::vector<Utterance> utterances_;
    std::vector<Spoken> spoken_;
    float entity_bits_ = 0.0F;
};

}  // namespace argus::engine
