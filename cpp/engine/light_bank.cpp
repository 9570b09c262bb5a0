#include "engine/light_bank.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string>

#include "base/arithmetic.hpp"
#include "base/dispatch.hpp"

namespace argus::engine {
namespace {

constexpr float kYoung = 32.0F;
constexpr float kWarm = 150.0F;
constexpr float kOldest = 1.0e6F;
constexpr float kRate = 0.005F;
constexpr float kTailRate = 0.02F;    // of the mean excess, per value beyond the bar
constexpr float kShare = 0.02F;       // of strengths beyond the bar
constexpr float kBitsOfShare = 5.64385619F;
constexpr float kStep = 0.02F;        // of the bar, relative to the mean excess
constexpr float kMostBits = 60.0F;
constexpr float kBitsPerNat = 1.44269504F;
constexpr float kCut = 7.5F;          // mean absolute residuals: six sigma
constexpr float kMostSigma = 6.0F;
constexpr float kMostStrength = 1.0e6F;
constexpr float kLeast = 1.0e-30F;       // keeps a constant from dividing by 0
constexpr float kLeastExcess = 0.02F;
constexpr float kHalf = 0.5F;
constexpr float kMostEvidence = 64.0F;
constexpr float kSigma = 0.797884561F;  // 1 / (mean absolute residual to sigma)
constexpr float kNoLimit = 1.0e30F;
constexpr float kRemembered = 4096.0F;
constexpr double kFarthest = 1.0e30;
constexpr std::int64_t kHoldOff = 100;
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

struct State {  // of a tile: one array each, a float per slot
    float* level;
    float* scale;  // mean absolute residual
    float* up;
    float* down;
    float* bar;    // strength that kShare pass
    float* excess;  // mean of what passes it
    float* age;    // values learned
    float* gap;    // rows missing so far
    float* longest;
};

ARGUS_INLINE float between(float x, float low, float high) noexcept { return x < low ? low : x > high ? high : x; }

// Values minus origin; the first finite one becomes it.
template <class T>
ARGUS_INLINE void prepare_body(const T* row, std::size_t count, double* origin, const float* age, float* values) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const double x = static_cast<double>(row[i]);
        const bool finite = x - x == 0.0;
        const bool first = finite & (age[i] == 0.0F);
        const double old = origin[i];
        const double from = first ? x : old;
        const double apart = x - from;
        const double low = apart > -kFarthest ? apart : -kFarthest;
        const double near = low < kFarthest ? low : kFarthest;
        origin[i] = from;
        values[i] = finite ? static_cast<float>(near) : kNone;
    }
}

// Bits of what is there; NaN where nothing is.
ARGUS_INLINE void value_body(const float* values, std::size_t count, const State& s, float* bits) {
    float* level_of = s.level;
    float* scale_of = s.scale;
    float* up_of = s.up;
    float* down_of = s.down;
    float* bar_of = s.bar;
    float* excess_of = s.excess;
    const float* age_of = s.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const float level = level_of[i];
        const float scale = scale_of[i];
        const float up = up_of[i];
        const float down = down_of[i];
        const float bar = bar_of[i];
        const float excess = excess_of[i];
        const float age = age_of[i];
        const bool seen = x == x;
        const float known = age >= kYoung ? 1.0F : 0.0F;
        const float warm = age >= kWarm ? 1.0F : 0.0F;
        const float apart = x - level;
        const float limit = kCut * scale + (1.0F - known) * kNoLimit + kLeast;
        const float cut = between(apart, -limit, limit);
        const float per_sigma = kSigma / (scale + kLeast);
        const float z = known * between(cut * per_sigma, -kMostSigma, kMostSigma);
        const float rise = between(up + z - kHalf, 0.0F, kMostEvidence);
        const float fall = between(down - z - kHalf, 0.0F, kMostEvidence);
        const float moved = rise > fall ? rise : fall;
        const float ratio = magnitude(apart) * per_sigma;
        const float far = known * (ratio < kMostStrength ? ratio : kMostStrength);
        const float most = far > moved ? far : moved;
        const float strength = most < kMostStrength ? most : kMostStrength;
        const float over = strength - bar;
        const float tail = excess > kLeastExcess ? excess : kLeastExcess;
        const float beyond = over >= 0.0F ? 1.0F : 0.0F;
        const float ranked = kBitsOfShare + kBitsPerNat * (over / tail);
        bits[i] = warm * beyond * (ranked < kMostBits ? ranked : kMostBits) + (x - x);
        const bool young = age < 1.0F / kRate;  // learns as a plain mean, else the less the more evidence there is
        const float rate = (young ? 1.0F : 2.0F * kRate) / (young ? age + 1.0F : 2.0F + moved);
        const float step = kStep * tail * (4.0F - 3.0F * warm);
        const float bounded = over < 20.0F ? over : 20.0F;
        const float new_level = level + rate * cut;
        const float new_scale = scale + rate * (magnitude(cut) - scale);
        const float new_bar = bar + known * step * (beyond - kShare);
        const float new_excess = excess + beyond * known * kTailRate * (bounded - excess);
        level_of[i] = seen ? new_level : level;
        scale_of[i] = seen ? new_scale : scale;
        up_of[i] = seen ? rise : up;
        down_of[i] = seen ? fall : down;
        bar_of[i] = seen ? new_bar : bar;
        excess_of[i] = seen ? new_excess : excess;
    }
}

// Counts gaps and values; puts the bits of a gap where there is no value.
ARGUS_INLINE void gap_body(const float* values, std::size_t count, const State& s, float* bits) {
    float* age_of = s.age;
    float* gap_of = s.gap;
    float* longest_of = s.longest;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const float age = age_of[i];
        const float gap = gap_of[i];
        const float longest = longest_of[i];
        const bool seen = x == x;
        const float usual = longest > 1.0F ? longest : 1.0F;
        const float waited = gap + (age > 0.0F ? 1.0F : 0.0F);
        const float lengths = between(age, 2.0F, kRemembered);
        const float surprise = fast_log2(lengths) * (waited / usual);
        const float least = 2.0F * usual > 3.0F ? 2.0F * usual : 3.0F;
        const bool tells = (age >= kWarm) & (waited >= least);
        const float gap_bits = tells ? (surprise < kMostBits ? surprise : kMostBits) : 0.0F;
        const float twice = 2.0F * usual + (age < kWarm ? kNoLimit : 0.0F);
        const float length = waited < twice ? waited : twice;
        const float faded = usual - (1.0F / kRemembered) * (usual - 1.0F);
        const float new_longest = length > faded ? length : faded;
        const float value_bits = bits[i];
        bits[i] = seen ? value_bits : gap_bits;
        longest_of[i] = seen ? new_longest : longest;
        gap_of[i] = seen ? 0.0F : waited;
        age_of[i] = age + ((seen & (age < kOldest)) ? 1.0F : 0.0F);
    }
}

ARGUS_KERNEL(prepare_f32, prepare_body,
             (const float* row, std::size_t count, double* origin, const float* age, float* values),
             (row, count, origin, age, values))
ARGUS_KERNEL(prepare_f64, prepare_body,
             (const double* row, std::size_t count, double* origin, const float* age, float* values),
             (row, count, origin, age, values))
ARGUS_KERNEL(value_kernel, value_body, (const float* values, std::size_t count, const State& s, float* bits),
             (values, count, s, bits))
ARGUS_KERNEL(gap_kernel, gap_body, (const float* values, std::size_t count, const State& s, float* bits),
             (values, count, s, bits))

void prepare(const float* row, std::size_t count, double* origin, const float* age, float* values) {
    prepare_f32(row, count, origin, age, values);
}
void prepare(const double* row, std::size_t count, double* origin, const float* age, float* values) {
    prepare_f64(row, count, origin, age, values);
}

}  // namespace

LightBank::LightBank(std::uint32_t series, double false_alarms_per_day)
    : series_(series),
      alarms_per_day_(false_alarms_per_day),
      state_(kArrays * std::size_t{series}),
      origin_(series),
      last_alarm_(series) {
    if (series == 0) throw std::invalid_argument("LightBank: expected at least one series, found 0");
    if (!(false_alarms_per_day > 0.0) || !(false_alarms_per_day < 1e12)) {
        throw std::invalid_argument("LightBank: false_alarms_per_day: expected a number above 0 and below 1e12, "
                                    "found " +
                                    std::to_string(false_alarms_per_day));
    }
}

float LightBank::alarm_bits(double interval_s) const noexcept {
    if (!(interval_s > 0.0)) return std::numeric_limits<float>::infinity();
    const double rows = static_cast<double>(series_) * 86400.0 / interval_s / alarms_per_day_;
    return rows > 1.0 ? fast_log2(static_cast<float>(std::min(rows, 1e30))) : 0.0F;
}

template <class T>
void LightBank::run(const T* values, std::size_t rows, double interval_s, float* bits,
                    std::vector<LightAlarm>* alarms) {
    const float bar = alarm_bits(interval_s);
    const std::size_t before = alarms != nullptr ? alarms->size() : 0;
    std::array<float, kTile> prepared;
    std::array<float, kTile> found;
    for (std::uint32_t first = 0; first < series_; first += kTile) {
        const std::uint32_t count = std::min(kTile, series_ - first);
        float* at = state_.data() + kArrays * std::size_t{first};
        const auto array = [&](std::size_t which) { return at + which * count; };
        const State state{array(0), array(1), array(2), array(3), array(4),
                          array(5), array(6), array(7), array(8)};
        for (std::size_t row = 0; row < rows; ++row) {
            const std::size_t offset = row * series_ + first;
            float* const out = bits != nullptr ? bits + offset : found.data();
            prepare(values + offset, count, origin_.data() + first, state.age, prepared.data());
            value_kernel(prepared.data(), count, state, out);
            gap_kernel(prepared.data(), count, state, out);
            if (alarms == nullptr) continue;
            const auto quiet = alarms->size();
            speak(row, first, count, bar, out, *alarms);
            for (std::size_t a = quiet; a < alarms->size(); ++a) {
                LightAlarm& alarm = (*alarms)[a];
                const std::size_t i = alarm.slot - first;
                alarm.value = static_cast<float>(static_cast<double>(prepared[i]) + origin_[alarm.slot]);
                alarm.expected = static_cast<float>(static_cast<double>(state.level[i]) + origin_[alarm.slot]);
            }
        }
    }
    rows_ += static_cast<std::int64_t>(rows);
    if (alarms == nullptr) return;
    std::sort(alarms->begin() + static_cast<std::ptrdiff_t>(before), alarms->end(),
              [](const LightAlarm& a, const LightAlarm& b) {
                  return a.row != b.row ? a.row < b.row : a.slot < b.slot;
              });
}

template void LightBank::run(const float*, std::size_t, double, float*, std::vector<LightAlarm>*);
template void LightBank::run(const double*, std::size_t, double, float*, std::vector<LightAlarm>*);

void LightBank::speak(std::size_t row, std::uint32_t first, std::uint32_t count, float bar, const float* found,
                      std::vector<LightAlarm>& alarms) {
    float loudest = 0.0F;
    for (std::uint32_t i = 0; i < count; ++i) loudest = found[i] > loudest ? found[i] : loudest;
    if (loudest < bar) return;
    const std::int64_t now = rows_ + static_cast<std::int64_t>(row) + 1;
    for (std::uint32_t i = 0; i < count; ++i) {
        std::int64_t& last = last_alarm_[first + i];
        if (!(found[i] >= bar) || !(found[i] > 0.0F)) continue;
        const bool again = last == 0 || now - last > kHoldOff;
        last = now;
        if (again) alarms.push_back({static_cast<std::uint32_t>(row), first + i, found[i], kNone, kNone});
    }
}

void LightBank::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        const std::uint32_t first = slot / kTile * kTile;
        const std::uint32_t count = std::min(kTile, series_ - first);
        float* at = state_.data() + kArrays * std::size_t{first} + (slot - first);
        for (std::size_t a = 0; a < kArrays; ++a) at[a * count] = 0.0F;
        origin_[slot] = 0.0;
        last_alarm_[slot] = 0;
    }
}

void LightBank::save(Writer& writer) const {
    writer.pod(rows_);
    writer.array(std::span<const float>(state_));
    writer.array(std::span<const double>(origin_));
    writer.array(std::span<const std::int64_t>(last_alarm_));
}

void LightBank::load(Reader& reader) {
    rows_ = reader.pod<std::int64_t>();
    reader.array(std::span<float>(state_));
    reader.array(std::span<double>(origin_));
    reader.array(std::span<std::int64_t>(last_alarm_));
}

}  // namespace argus::engine
