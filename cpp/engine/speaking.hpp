// When Argus speaks: from evidence per row to incidents and utterances.
//
// Strength: the evidence of a row plus 0.4 times the running mean (about ten rows) of the evidence before it:
//   persistence. In noise most rows have none; in a lasting anomaly it adds up.
// Gate (one per tile): per series, an incident opens when strength reaches incident_bits, or the level at which the
//   series speaks where that is lower, and stays one while it is reached again within calm_rows. Independent of any
//   budget it raises an alarm: alarm = the strength on the row that reaches incident_bits, else 0; then none for
//   hold_off_rows; an incident that lasts longer raises it again.
// Speaker (one per bank = scope): says an onset where the alarm budget (engine/alarm_budget.hpp) lets the series speak,
//   and the end of an incident whose onset was said. Until the budget knows the series its level is
//   kStrengthPerBit * log2(live series * rows per day / alarms per day), never below incident_bits: in independent
//   noise no more is spoken than asked for, which a test holds.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "model/anomaly.hpp"

namespace argus::engine {

inline constexpr float kStrengthPerBit = 1.6F;  // of rarity: a row in 2^bits

struct PolicyOptions {
    float incident_bits = 22.0F;
    std::uint32_t calm_rows = 10;
    std::uint32_t hold_off_rows = 100;
};

// What a gate says of one slot on one row.
struct GateEvent {
    enum class Kind : std::uint8_t { opens, goes_on, ends };
    std::uint32_t slot = 0;  // within the tile
    Kind kind = Kind::opens;
    float strength = 0.0F;
};

class Gate {
public:
    Gate(std::uint32_t slots, PolicyOptions options);

    struct Row {
        std::span<const float> values;        // NaN = not observed
        std::span<const float> evidence;
        std::span<const float> level;         // at which each series speaks
        std::span<float> strength;            // out: NaN = not observed
        std::span<float> alarm;               // out: strength where an alarm is raised, else 0
    };
    // Passes one row; rows are numbered without gaps. Returns the events in slot order, valid until the next
    // call.
    std::span<const GateEvent> pass(std::int64_t row, const Row& io) noexcept;

    void reset(std::span<const std::uint32_t> slots) noexcept;
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    struct Incident {
        std::int64_t last_alarm = kNever;
        std::int64_t last_loud = kNever;
    };
    static constexpr std::int64_t kNever = -1'000'000'000'000;

    void judge(std::uint32_t slot, std::int64_t row, const Row& io) noexcept;

    PolicyOptions options_;
    std::vector<float> recent_;         // running mean of the evidence
    std::vector<std::uint8_t> open_;
    std::vector<Incident> incidents_;
    std::vector<std::uint8_t> active_;  // scratch of one row: loud or open
    std::vector<GateEvent> events_;     // capacity: one per slot
};

// Median interval between rows: measured, never assumed; renewed every 16 rows.
class Cadence {
public:
    void push(Nanos mono) noexcept;
    [[nodiscard]] double median_s() const noexcept { return median_s_; }  // 0 before the second row
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    static constexpr std::size_t kKept = 63;
    static constexpr std::uint64_t kRenewed = 16;
    std::array<Nanos, kKept> intervals_{};
    std::uint64_t pushed_ = 0;  // intervals
    Nanos last_ = 0;
    bool started_ = false;
    double median_s_ = 0.0;

    [[nodiscard]] double median() const noexcept;
};

// One sentence of the bank: a series left, or came back to, what is normal for it.
struct Utterance {
    std::uint32_t slot = 0;
    bool onset = true;  // false = end
    float bits = 0.0F;
    double value = kNotANumber;
    double expected = kNotANumber;
    double lower = kNotANumber;
    double upper = kNotANumber;
    Nanos since_wall = 0;  // when the incident opened
    Direction direction = Direction::none;
    double false_alarm_interval_s = 0.0;  // mean time between alarms this strong in a scope that keeps its budget
    const char* detector = "";            // descriptor's name of the strongest channel
};

// One event of a gate with all that an utterance needs.
struct Alarm {
    std::uint32_t row = 0;  // within the block of rows
    GateEvent::Kind kind = GateEvent::Kind::opens;
    float strength = 0.0F;
    Utterance said;         // slot, bits, value, expected, lower, upper, detector filled in
};

class Speaker {
public:
    Speaker(std::uint32_t slots, PolicyOptions options, double alarms_per_day);

    // Strength that a series needs of which nothing is known yet; infinite while nothing can speak.
    [[nodiscard]] float warming_level(std::uint64_t live_series, double interval_s) const noexcept;

    // True if `alarm` is to be spoken, as the budget lets it (`may_speak`) at `level`; then `alarm.said` is complete.
    [[nodiscard]] bool hear(Alarm& alarm, bool may_speak, float level, Nanos wall) noexcept;

    void reset(std::span<const std::uint32_t> slots) noexcept;
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    PolicyOptions options_;
    double alarms_per_day_;
    std::vector<std::uint8_t> speaking_;  // onset spoken, end not yet
    std::vector<Nanos> since_wall_;
};

}  // namespace argus::engine
