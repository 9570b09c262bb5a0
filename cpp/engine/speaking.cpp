#include "engine/speaking.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/arithmetic.hpp"
#include "base/dispatch.hpp"

namespace argus::engine {
namespace {

constexpr float kRecentRate = 0.1F;
constexpr float kPersistence = 0.4F;
constexpr float kMostBits = 60.0F;
constexpr double kSecondsPerDay = 86400.0;
constexpr float kNotObserved = std::numeric_limits<float>::quiet_NaN();

struct Series {  // one array each, a value per slot
    const float* values;
    const float* evidence;
    const float* level;
    const std::uint8_t* open;
    float* recent;
    float* strength;
    float* alarm;
    std::uint8_t* active;
};

ARGUS_INLINE void strength_body(const Series& series, float incident_bits, std::size_t count) {
    const float* values = series.values;
    const float* evidence = series.evidence;
    const float* level = series.level;
    const std::uint8_t* open = series.open;
    float* recent = series.recent;
    float* strength = series.strength;
    float* alarm = series.alarm;
    std::uint8_t* active = series.active;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const bool seen = values[i] == values[i];
        const float now = evidence[i];
        const float before = recent[i];
        const float total = now + kPersistence * before;
        const float loud = level[i] < incident_bits ? level[i] : incident_bits;
        strength[i] = seen ? total : kNotObserved;
        recent[i] = seen ? before + kRecentRate * (now - before) : before;
        active[i] = static_cast<std::uint8_t>(((seen & (total >= loud)) ? 1 : 0) | open[i]);
        alarm[i] = 0.0F;
    }
}

ARGUS_KERNEL(strength_kernel, strength_body, (const Series& series, float incident_bits, std::size_t count),
             (series, incident_bits, count))

}  // namespace

Gate::Gate(std::uint32_t slots, PolicyOptions options)
    : options_(options), recent_(slots, 0.0F), open_(slots, 0), incidents_(slots), active_(slots, 0) {
    events_.reserve(slots);
}

std::span<const GateEvent> Gate::pass(std::int64_t row, const Row& io) noexcept {
    const std::size_t count = open_.size();
    strength_kernel({io.values.data(), io.evidence.data(), io.level.data(), open_.data(), recent_.data(),
                     io.strength.data(), io.alarm.data(), active_.data()},
                    options_.incident_bits, count);
    events_.clear();
    constexpr std::size_t kWord = sizeof(std::uint64_t);
    for (std::size_t first = 0; first < count; first += kWord) {
        std::uint64_t any = 0;
        const std::size_t size = std::min(kWord, count - first);
        std::memcpy(&any, active_.data() + first, size);
        if (any == 0) continue;
        for (std::size_t i = first; i < first + size; ++i) {
            if (active_[i] != 0) judge(static_cast<std::uint32_t>(i), row, io);
        }
    }
    return events_;
}

void Gate::judge(std::uint32_t slot, std::int64_t row, const Row& io) noexcept {
    Incident& incident = incidents_[slot];
    const float strength = io.strength[slot];
    const bool open = open_[slot] != 0;
    if (!(strength >= std::min(options_.incident_bits, io.level[slot]))) {
        if (row - incident.last_loud >= options_.calm_rows) {
            open_[slot] = 0;
            events_.push_back({slot, GateEvent::Kind::ends, strength == strength ? strength : 0.0F});
        }
        return;
    }
    if (strength >= options_.incident_bits && row - incident.last_alarm > options_.hold_off_rows) {
        incident.last_alarm = row;
        io.alarm[slot] = strength;
    }
    incident.last_loud = row;
    open_[slot] = 1;
    events_.push_back({slot, open ? GateEvent::Kind::goes_on : GateEvent::Kind::opens, strength});
}

void Gate::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        recent_[slot] = 0.0F;
        open_[slot] = 0;
        incidents_[slot] = {};
    }
}

void Gate::save(Writer& writer) const {
    writer.array(std::span<const float>(recent_));
    writer.array(std::span<const std::uint8_t>(open_));
    writer.array(std::span<const Incident>(incidents_));
}

void Gate::load(Reader& reader) {
    reader.array(std::span<float>(recent_));
    reader.array(std::span<std::uint8_t>(open_));
    reader.array(std::span<Incident>(incidents_));
}

void Cadence::push(Nanos mono) noexcept {
    if (started_ && mono > last_) {
        intervals_[pushed_++ % kKept] = mono - last_;
        if (pushed_ <= kKept || pushed_ % kRenewed == 0) median_s_ = median();
    }
    last_ = mono;
    started_ = true;
}

double Cadence::median() const noexcept {
    const std::size_t count = static_cast<std::size_t>(std::min<std::uint64_t>(pushed_, kKept));
    if (count == 0) return 0.0;
    std::array<Nanos, kKept> sorted = intervals_;
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(count / 2);
    std::nth_element(sorted.begin(), middle, sorted.begin() + static_cast<std::ptrdiff_t>(count));
    return static_cast<double>(*middle) / static_cast<double>(kSecond);
}

void Cadence::save(Writer& writer) const {
    writer.pod(intervals_);
    writer.pod(pushed_);
    writer.pod(last_);
    writer.pod(std::uint8_t{started_});
    writer.pod(median_s_);
}

void Cadence::load(Reader& reader) {
    intervals_ = reader.pod<decltype(intervals_)>();
    pushed_ = reader.pod<std::uint64_t>();
    last_ = reader.pod<Nanos>();
    started_ = reader.pod<std::uint8_t>() != 0;
    median_s_ = reader.pod<double>();
}

Speaker::Speaker(std::uint32_t slots, PolicyOptions options, double alarms_per_day)
    : options_(options), alarms_per_day_(alarms_per_day), speaking_(slots, 0), since_wall_(slots, 0) {}

float Speaker::warming_level(std::uint64_t live_series, double interval_s) const noexcept {
    if (live_series == 0 || !(interval_s > 0.0)) return std::numeric_limits<float>::infinity();
    const double rows = static_cast<double>(live_series) * kSecondsPerDay / interval_s;
    const float bits = fast_log2(static_cast<float>(rows / alarms_per_day_));
    return std::max(kStrengthPerBit * bits, options_.incident_bits);
}

bool Speaker::hear(Alarm& alarm, bool may_speak, float level, Nanos wall) noexcept {
    Utterance& said = alarm.said;
    const std::uint32_t slot = said.slot;
    if (alarm.kind == GateEvent::Kind::opens) since_wall_[slot] = wall;
    said.since_wall = since_wall_[slot];
    said.direction = said.value > said.expected   ? Direction::up
                     : said.value < said.expected ? Direction::down
                                                  : Direction::none;
    const float rarer = (alarm.strength - level) / kStrengthPerBit;
    said.false_alarm_interval_s =
        kSecondsPerDay / alarms_per_day_ * static_cast<double>(fast_exp2(std::clamp(rarer, -kMostBits, kMostBits)));
    if (alarm.kind == GateEvent::Kind::ends) {
        const bool was_speaking = speaking_[slot] != 0;
        speaking_[slot] = 0;
        said.onset = false;
        return was_speaking;
    }
    if (may_speak) speaking_[slot] = 1;
    said.onset = true;
    return may_speak;
}

void Speaker::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        speaking_[slot] = 0;
        since_wall_[slot] = 0;
    }
}

void Speaker::save(Writer& writer) const {
    writer.array(std::span<const std::uint8_t>(speaking_));
    writer.array(std::span<const Nanos>(since_wall_));
}

void Speaker::load(Reader& reader) {
    reader.array(std::span<std::uint8_t>(speaking_));
    reader.array(std::span<Nanos>(since_wall_));
}

}  // namespace argus::engine
