#include "engine/light_bank.hpp"

#include <algorithm>
#include <array>
#include <cstring>
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
constexpr float kSettled = 1.0F / kRate;  // values
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
constexpr float kLeastAlarm = 1.0e-6F;  // 0 bits are no alarm, whatever is asked for
constexpr float kNever = std::numeric_limits<float>::infinity();
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

ARGUS_INLINE float least(float a, float b) noexcept { return a < b ? a : b; }
ARGUS_INLINE float most(float a, float b) noexcept { return a > b ? a : b; }
ARGUS_INLINE float between(float x, float low, float high) noexcept { return least(most(x, low), high); }

template <class Line>
State state_of(Line* at, std::size_t count) noexcept {
    const std::size_t lines = (count + std::size(at->of) - 1) / std::size(at->of);
    const auto array = [&](std::size_t which) { return at[which * lines].of; };
    return {array(0), array(1), array(2), array(3), array(4), array(5), array(6), array(7), array(8)};
}

struct Tally {  // of a tile's row
    std::int32_t missing = 0;
    std::int32_t loud = 0;   // bits at or above the bar
    std::int32_t young = 0;  // series
};

// Values minus origin; the first finite one becomes it. kMet: every series has one. Returns how many are missing.
template <bool kMet, class T>
ARGUS_INLINE void prepare_body(const T* row, std::size_t count, double* origin, const float* age, float* values,
                               Tally* tally) {
    std::int32_t missing = 0;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const double x = static_cast<double>(row[i]);
        const bool finite = x - x == 0.0;
        const double old = origin[i];
        const double from = !kMet && finite && age[i] == 0.0F ? x : old;
        const double apart = x - from;
        const double low = apart > -kFarthest ? apart : -kFarthest;
        const double near = low < kFarthest ? low : kFarthest;
        missing += finite ? 0 : 1;
        if constexpr (!kMet) origin[i] = from;
        values[i] = finite ? static_cast<float>(near) : kNone;
    }
    tally->missing = missing;
}

// Scores, then learns: bits of what is there, NaN where nothing is. Counts gaps. kCalm: every series is past its youth,
// none is missing and none was in the row before; then ages are added by the caller, and the bits are the same.
template <bool kCalm>
ARGUS_INLINE void value_body(const float* values, std::size_t count, const State& s, float alarm, float* bits,
                             Tally* tally) {
    const State of = s;  // a copy: what is written cannot move it
    std::int32_t loud = 0;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const float level = of.level[i];
        const float scale = of.scale[i];
        const float up = of.up[i];
        const float down = of.down[i];
        const float bar = of.bar[i];
        const float excess = of.excess[i];
        const float age = kCalm ? kSettled : of.age[i];
        const float gap = kCalm ? 0.0F : of.gap[i];
        const float longest = of.longest[i];
        const bool seen = kCalm || x == x;
        const float known = age >= kYoung ? 1.0F : 0.0F;
        const float warm = age >= kWarm ? 1.0F : 0.0F;
        const float apart = x - level;
        const float limit = kCut * scale + (1.0F - known) * kNoLimit + kLeast;
        const float cut = between(apart, -limit, limit);
        const float per_sigma = kSigma / (scale + kLeast);
        const float z = known * between(cut * per_sigma, -kMostSigma, kMostSigma);
        const float rise = between(up + z - kHalf, 0.0F, kMostEvidence);
        const float fall = between(down - z - kHalf, 0.0F, kMostEvidence);
        const float moved = most(rise, fall);
        const float ratio = magnitude(apart) * per_sigma;
        const float far = known * least(ratio, kMostStrength);
        const float strength = most(far, moved);
        const float over = strength - bar;
        const float tail = most(excess, kLeastExcess);
        const float beyond = over > 0.0F ? 1.0F : 0.0F;
        const bool young = age < kSettled;  // learns as a plain mean, else the less the more evidence there is
        const float slowness = young ? age + 1.0F : 2.0F + moved;
        const float inverse = 1.0F / (tail * slowness);  // one division for two
        const float rate = (young ? 1.0F : 2.0F * kRate) * (tail * inverse);
        const float ranked = kBitsOfShare + kBitsPerNat * (over * (slowness * inverse));
        const float found = warm * beyond * least(ranked, kMostBits) + (kCalm ? 0.0F : x - x);
        const float step = kStep * tail * (4.0F - 3.0F * warm);
        const float bounded = least(over, 20.0F);
        const float new_level = level + rate * cut;
        const float new_scale = scale + rate * (magnitude(cut) - scale);
        const float new_bar = most(bar + known * step * (beyond - kShare), 0.0F);  // no strength is never beyond
        const float new_excess = excess + beyond * known * kTailRate * (bounded - excess);
        const float usual = most(longest, 1.0F);
        const float waited = gap + (age > 0.0F ? 1.0F : 0.0F);
        const float twice = 2.0F * usual + (age < kWarm ? kNoLimit : 0.0F);
        const float length = least(waited, twice);
        const float faded = usual - (1.0F / kRemembered) * (usual - 1.0F);
        const float new_longest = !kCalm && length > faded ? length : faded;
        const float older = age < kOldest ? age + 1.0F : age;
        loud += found >= alarm ? 1 : 0;
        bits[i] = found;
        of.level[i] = seen ? new_level : level;
        of.scale[i] = seen ? new_scale : scale;
        of.up[i] = seen ? rise : up;
        of.down[i] = seen ? fall : down;
        of.bar[i] = seen ? new_bar : bar;
        of.excess[i] = seen ? new_excess : excess;
        of.longest[i] = seen ? new_longest : longest;
        if constexpr (!kCalm) {
            of.gap[i] = seen ? 0.0F : waited;
            of.age[i] = seen ? older : age;
        }
    }
    tally->loud = loud;
}

// Puts the bits of a gap where there is no value. Run where one is missing at all.
ARGUS_INLINE void gap_body(const float* values, std::size_t count, const State& s, float alarm, float* bits,
                           Tally* tally) {
    const float* age_of = s.age;
    const float* gap_of = s.gap;
    const float* longest_of = s.longest;
    std::int32_t loud = 0;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const float age = age_of[i];
        const float waited = gap_of[i];
        const float longest = longest_of[i];
        const float value_bits = bits[i];
        const float usual = most(longest, 1.0F);
        const float lengths = between(age, 2.0F, kRemembered);
        const float surprise = fast_log2(lengths) * (waited / usual);
        const bool tells = (age >= kWarm) & (waited >= most(2.0F * usual, 3.0F));
        const float gap_bits = tells ? least(surprise, kMostBits) : 0.0F;
        const float found = x == x ? value_bits : gap_bits;
        bits[i] = found;
        loud += found >= alarm ? 1 : 0;
    }
    tally->loud = loud;
}

// 1 where bits are an alarm's.
ARGUS_INLINE void mark_body(const float* bits, std::size_t count, float alarm, std::uint8_t* marks) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) marks[i] = bits[i] >= alarm ? 1 : 0;
}

// Ages after `rows` more values, one after the other.
ARGUS_INLINE void age_body(float* age, std::size_t count, float rows) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float older = age[i] + rows;
        age[i] = older < kOldest ? older : kOldest;
    }
}

ARGUS_INLINE void young_body(const float* age, std::size_t count, Tally* tally) {
    std::int32_t young = 0;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) young += age[i] < kSettled ? 1 : 0;
    tally->young = young;
}

#define ARGUS_PREPARE(name, met, type)                                                                            \
    ARGUS_KERNEL(name, prepare_body<met>,                                                                         \
                 (const type* row, std::size_t count, double* origin, const float* age, float* values, Tally* tally), \
                 (row, count, origin, age, values, tally))
ARGUS_PREPARE(prepare_f32, false, float)
ARGUS_PREPARE(prepare_f64, false, double)
ARGUS_PREPARE(prepare_met_f32, true, float)
ARGUS_PREPARE(prepare_met_f64, true, double)
#undef ARGUS_PREPARE
ARGUS_KERNEL(value_kernel, value_body<false>,
             (const float* values, std::size_t count, const State& s, float alarm, float* bits, Tally* tally),
             (values, count, s, alarm, bits, tally))
ARGUS_KERNEL(calm_kernel, value_body<true>,
             (const float* values, std::size_t count, const State& s, float alarm, float* bits, Tally* tally),
             (values, count, s, alarm, bits, tally))
ARGUS_KERNEL(gap_kernel, gap_body,
             (const float* values, std::size_t count, const State& s, float alarm, float* bits, Tally* tally),
             (values, count, s, alarm, bits, tally))
ARGUS_KERNEL(mark_kernel, mark_body, (const float* bits, std::size_t count, float alarm, std::uint8_t* marks),
             (bits, count, alarm, marks))
ARGUS_KERNEL(age_kernel, age_body, (float* age, std::size_t count, float rows), (age, count, rows))
ARGUS_KERNEL(young_kernel, young_body, (const float* age, std::size_t count, Tally* tally), (age, count, tally))

void prepare(bool met, const float* row, std::size_t count, double* origin, const float* age, float* values,
             Tally* tally) {
    if (met) prepare_met_f32(row, count, origin, age, values, tally);
    else prepare_f32(row, count, origin, age, values, tally);
}
void prepare(bool met, const double* row, std::size_t count, double* origin, const float* age, float* values,
             Tally* tally) {
    if (met) prepare_met_f64(row, count, origin, age, values, tally);
    else prepare_f64(row, count, origin, age, values, tally);
}

// Rows of a tile lie far apart: the prefetcher of the processor does not follow them.
template <class T>
void prefetch(const T* begin, std::size_t count) {
    constexpr std::size_t kLine = 64 / sizeof(T);
    for (std::size_t i = 0; i < count; i += kLine) __builtin_prefetch(begin + i);
}

}  // namespace

LightBank::LightBank(std::uint32_t series, double false_alarms_per_day)
    : series_(series),
      alarms_per_day_(false_alarms_per_day),
      tiles_((std::size_t{series} + kTile - 1) / kTile),
      state_(kArrays * ((std::size_t{series} + kLine - 1) / kLine)),
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
    const float alarm = alarms != nullptr ? std::max(alarm_bits(interval_s), kLeastAlarm) : kNever;
    const std::size_t before = alarms != nullptr ? alarms->size() : 0;
    std::array<float, kTile> prepared;
    std::array<float, kTile> found;
    for (std::uint32_t first = 0; first < series_; first += kTile) {
        const std::uint32_t count = std::min(kTile, series_ - first);
        const State state = state_of(state_.data() + kArrays * std::size_t{first} / kLine, count);
        Tile& tile = tiles_[first / kTile];
        std::size_t unaged = 0;  // calm rows, which ages wait for
        const auto add_ages = [&] {
            if (unaged > 0) age_kernel(state.age, count, static_cast<float>(std::min<std::size_t>(unaged, 1U << 24U)));
            unaged = 0;
        };
        for (std::size_t row = 0; row < rows; ++row) {
            const std::size_t offset = row * series_ + first;
            float* const out = bits != nullptr ? bits + offset : found.data();
            if (row + 1 < rows) {
                prefetch(values + offset + series_, count);
                if (bits != nullptr) prefetch(out + series_, count);
            }
            Tally tally;
            prepare(tile.settled, values + offset, count, origin_.data() + first, state.age, prepared.data(), &tally);
            if (tile.settled && tile.complete && tally.missing == 0) {
                calm_kernel(prepared.data(), count, state, alarm, out, &tally);
                ++unaged;
            } else {
                add_ages();
                value_kernel(prepared.data(), count, state, alarm, out, &tally);
                if (tally.missing > 0) gap_kernel(prepared.data(), count, state, alarm, out, &tally);
                tile.complete = tally.missing == 0;
            }
            if (tally.loud == 0 || alarms == nullptr) continue;
            const auto quiet = alarms->size();
            speak(row, first, count, alarm, out, *alarms);
            for (std::size_t a = quiet; a < alarms->size(); ++a) {
                LightAlarm& said = (*alarms)[a];
                const std::size_t i = said.slot - first;
                said.value = static_cast<float>(static_cast<double>(prepared[i]) + origin_[said.slot]);
                said.expected = static_cast<float>(static_cast<double>(state.level[i]) + origin_[said.slot]);
            }
        }
        add_ages();
        if (tile.settled) continue;
        Tally tally;
        young_kernel(state.age, count, &tally);
        tile.settled = tally.young == 0;
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

void LightBank::speak(std::size_t row, std::uint32_t first, std::uint32_t count, float alarm, const float* found,
                      std::vector<LightAlarm>& alarms) {
    constexpr std::size_t kWord = sizeof(std::uint64_t);
    std::array<std::uint8_t, kTile> marks{};
    static_assert(kTile % kWord == 0);
    mark_kernel(found, count, alarm, marks.data());
    const std::int64_t now = rows_ + static_cast<std::int64_t>(row) + 1;
    for (std::uint32_t begin = 0; begin < count; begin += kWord) {
        std::uint64_t word = 0;
        std::memcpy(&word, marks.data() + begin, kWord);
        if (word == 0) continue;
        for (std::uint32_t i = begin; i < begin + kWord; ++i) {
            if (marks[i] == 0) continue;
            std::int64_t& last = last_alarm_[first + i];
            const bool again = last == 0 || now - last > kHoldOff;
            last = now;
            if (again) alarms.push_back({static_cast<std::uint32_t>(row), first + i, found[i], kNone, kNone});
        }
    }
}

void LightBank::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        const std::uint32_t first = slot / kTile * kTile;
        const State state = state_of(state_.data() + kArrays * std::size_t{first} / kLine,
                                     std::min(kTile, series_ - first));
        for (float* array : {state.level, state.scale, state.up, state.down, state.bar, state.excess, state.age,
                             state.gap, state.longest}) {
            array[slot - first] = 0.0F;
        }
        tiles_[slot / kTile] = Tile{};
        origin_[slot] = 0.0;
        last_alarm_[slot] = 0;
    }
}

void LightBank::save(Writer& writer) const {
    writer.pod(series_);
    writer.pod(rows_);
    writer.array(std::span<const Line>(state_));
    writer.array(std::span<const double>(origin_));
    writer.array(std::span<const std::int64_t>(last_alarm_));
}

void LightBank::load(Reader& reader) {
    if (reader.pod<std::uint32_t>() != series_) throw CodecError("state: of another number of series");
    rows_ = reader.pod<std::int64_t>();
    reader.array(std::span<Line>(state_));
    reader.array(std::span<double>(origin_));
    reader.array(std::span<std::int64_t>(last_alarm_));
    tiles_.assign(tiles_.size(), Tile{});
}

}  // namespace argus::engine
