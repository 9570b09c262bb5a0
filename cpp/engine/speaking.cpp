#include "engine/speaking.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/dispatch.hpp"

namespace argus::engine {
namespace {

constexpr float kRecentRate = 0.1F;
constexpr float kPersistence = 0.4F;
constexpr double kSecondsPerDay = 86400.0;
constexpr std::int64_t kLongAgo = -1'000'000'000'000;

ARGUS_INLINE void strength_body(const float* values, const float* evidence, const std::uint8_t* open, float loud,
                                std::size_t count, float* recent, float* strength, std::uint8_t* active,
                                float* alarm) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float now = evidence[i];
        const float before = recent[i];
        const float total = now + kPersistence * before;
        strength[i] = total;
        recent[i] = values[i] == values[i] ? before + kRecentRate * (now - before) : before;
        active[i] = static_cast<std::uint8_t>((total >= loud ? 1 : 0) | open[i]);
        alarm[i] = 0.0F;
    }
}

ARGUS_KERNEL(strength_kernel, strength_body,
             (const float* values, const float* evidence, const std::uint8_t* open, float loud,
              std::size_t count, float* recent, float* strength, std::uint8_t* active, float* alarm),
             (values, evidence, open, loud, count, recent, strength, active, alarm))

}  // namespace

Gate::Gate(std::uint32_t slots, PolicyOptions options)
    : options_(options), recent_(slots, 0.0F), open_(slots, 0), incidents_(slots), strength_(slots, 0.0F),
      active_(slots, 0) {
    events_.reserve(slots);
}

std::span<const GateEvent> Gate::pass(std::int64_t row, const Row& io) noexcept {
    const std::size_t count = open_.size();
    strength_kernel(io.values.data(), io.evidence.data(), open_.data(), options_.incident_bits, count,
                    recent_.data(), strength_.data(), active_.data(), io.alarm.data());
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
    const float strength = strength_[slot];
    if (strength < options_.incident_bits) {
        if (row - incident.last_loud >= options_.calm_rows) {
            open_[slot] = 0;
            events_.push_back({slot, GateEvent::Kind::ends, strength});
        }
        return;
    }
    const bool raised = row - incident.opened > options_.hold_off_rows;
    const auto kind = open_[slot] != 0 ? GateEvent::Kind::goes_on
                      : raised         ? GateEvent::Kind::opens
                                       : GateEvent::Kind::resumes;
    if (raised) {
        incident.opened = row;
        io.alarm[slot] = strength;
    }
    incident.last_loud = row;
    open_[slot] = 1;
    events_.push_back({slot, kind, strength});
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

Speaker::Speaker(std::uint32_t slots, PolicyOptions options, double false_alarms_per_day)
    : options_(options),
      false_alarms_per_day_(false_alarms_per_day),
      speaking_(slots, 0),
      last_onset_(slots, kLongAgo),
      since_wall_(slots, 0) {}

double Speaker::threshold(std::uint64_t live_series, double interval_s) const noexcept {
    if (live_series == 0 || !(interval_s > 0.0)) return std::numeric_limits<double>::infinity();
    const double rows_per_day = kSecondsPerDay / interval_s;
    const double bits = std::log2(static_cast<double>(live_series) * rows_per_day / false_alarms_per_day_);
    return std::max(static_cast<double>(kStrengthPerBit) * bits, static_cast<double>(options_.incident_bits));
}

bool Speaker::hear(Alarm& alarm, std::int64_t row, Nanos wall, std::uint64_t live_series,
                   double interval_s) noexcept {
    Utterance& said = alarm.said;
    const std::uint32_t slot = said.slot;
    const bool begins = alarm.kind == GateEvent::Kind::opens || alarm.kind == GateEvent::Kind::resumes;
    if (begins) since_wall_[slot] = wall;
    said.since_wall = since_wall_[slot];
    said.direction = said.value > said.expected   ? Direction::up
                     : said.value < said.expected ? Direction::down
                                                  : Direction::none;
    said.false_alarm_interval_s = interval_s * std::exp2(static_cast<double>(alarm.strength / kStrengthPerBit)) /
                                  static_cast<double>(std::max<std::uint64_t>(live_series, 1));
    if (alarm.kind == GateEvent::Kind::ends) {
        const bool was_speaking = speaking_[slot] != 0;
        speaking_[slot] = 0;
        said.onset = false;
        return was_speaking;
    }
    if (speaking_[slot] != 0 || row - last_onset_[slot] < options_.hold_off_rows) return false;
    if (!(static_cast<double>(alarm.strength) >= threshold(live_series, interval_s))) return false;
    speaking_[slot] = 1;
    last_onset_[slot] = row;
    said.onset = true;
    return true;
}

void Speaker::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        speaking_[slot] = 0;
        last_onset_[slot] = kLongAgo;
        since_wall_[slot] = 0;
    }
}

void Speaker::save(Writer& writer) const {
    writer.array(std::span<const std::uint8_t>(speaking_));
    writer.array(std::span<const std::int64_t>(last_onset_));
    writer.array(std::span<const Nanos>(since_wall_));
}

void Speaker::load(Reader& reader) {
    reader.array(std::span<std::uint8_t>(speaking_));
    reader.array(std::span<std::int64_t>(last_onset_));
    reader.array(std::span<Nanos>(since_wall_));
}

}  // namespace argus::engine
