#include "engine/silence_watch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/arithmetic.hpp"

namespace argus::engine {
namespace {

using detectors::kTileSlots;
constexpr float kLeastBits = 10.0F;  // whatever is asked for
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

std::vector<double> completed(std::span<const double> given) {
    std::vector<double> values(given.begin(), given.end());
    for (const Option& option : detectors::silence_detector.leaf.options.subspan(values.size())) {
        values.push_back(option.value);
    }
    return values;
}

}  // namespace

SilenceWatch::SilenceWatch(std::uint32_t slots, std::span<const double> option_values, double alarms_per_day)
    : alarms_per_day_(alarms_per_day),
      last_(slots, kNone),
      missing_(slots, 0),
      same_(slots, 0),
      told_(slots, Told::nothing),
      since_wall_(slots, 0),
      usual_(kTileSlots),
      longest_(kTileSlots) {
    const auto options = completed(option_values);
    for (std::uint32_t first = 0; first < slots; first += kTileSlots) {
        const std::uint32_t count = std::min(kTileSlots, slots - first);
        tiles_.push_back({detectors::silence_detector.make(count, options), count, false});
    }
}

std::span<const SilenceSaid> SilenceWatch::step(std::span<const double> row, Nanos mono, Nanos wall,
                                                std::span<const std::uint8_t> held) {
    said_.clear();
    cadence_.push(mono);
    const double interval_s = cadence_.median_s();
    double series = 0.0;
    for (const Tile& tile : tiles_) series += tile.used ? static_cast<double>(tile.count) : 0.0;
    const double rows = std::max(series, 1.0) * 86400.0 / std::max(interval_s, 1e-3) / alarms_per_day_;
    const float bar = std::max(kLeastBits, fast_log2(static_cast<float>(std::clamp(rows, 1.0, 1e30))));
    std::array<float, kTileSlots> values;
    std::array<float, 2 * kTileSlots> bits;
    std::array<std::uint8_t, kTileSlots> mask;
    for (std::size_t t = 0; t < tiles_.size(); ++t) {
        Tile& tile = tiles_[t];
        const auto first = static_cast<std::uint32_t>(t) * kTileSlots;
        for (std::uint32_t i = 0; i < tile.count; ++i) {
            const double x = row[first + i];
            const bool finite = x - x == 0.0;
            values[i] = finite ? static_cast<float>(std::clamp(x, -1e30, 1e30)) : kNone;
            tile.used |= finite;
        }
        if (!tile.used) continue;
        const detectors::View view{std::span<const float>(values).first(tile.count), {}, mono, wall, interval_s};
        const auto found = std::span<float>(bits).first(2 * tile.count);
        tile.detector->score(view, found);
        for (std::uint32_t i = 0; i < tile.count; ++i) {
            const bool holds = !held.empty() && held[first + i] != 0;
            mask[i] = holds ? detectors::kLearnAnew : detectors::kLearn;
            count(first + i, values[i], holds);
            if (holds) bits[i] = bits[tile.count + i] = kNone;
        }
        judge(tile, first, std::span<const float>(values).first(tile.count), found, bar, wall);
        for (std::uint32_t i = 0; i < tile.count; ++i) {
            if (values[i] == values[i]) last_[first + i] = values[i];
        }
        tile.detector->learn(view, std::span<const std::uint8_t>(mask).first(tile.count));
    }
    return said_;
}

void SilenceWatch::count(std::uint32_t slot, float value, bool held) noexcept {
    const bool missing = value != value;
    const auto longer = [](std::uint32_t length) { return length + (length != ~0U ? 1U : 0U); };
    const std::uint32_t same = value == last_[slot] ? longer(same_[slot]) : 1U;
    missing_[slot] = missing && !held ? longer(missing_[slot]) : 0U;
    same_[slot] = held ? 1U : missing ? same_[slot] : same;
}

// Bits NaN = held.
void SilenceWatch::judge(const Tile& tile, std::uint32_t first, std::span<const float> values,
                         std::span<const float> bits, float bar, Nanos wall) {
    for (std::uint32_t i = 0; i < tile.count; ++i) {
        const float gap = bits[i];
        const float run = bits[tile.count + i];
        const std::uint32_t slot = first + i;
        if (told_[slot] == Told::nothing) {
            if (!(gap >= bar) && !(run >= bar)) continue;
            told_[slot] = gap >= bar ? Told::missing : Told::frozen;
            since_wall_[slot] = wall;
            say(tile, slot, i, told_[slot], true, std::max(gap, run));
            continue;
        }
        const bool seen = values[i] == values[i] && gap == gap;
        if (!seen || (told_[slot] == Told::frozen && values[i] == last_[slot])) continue;
        last_[slot] = values[i];
        say(tile, slot, i, told_[slot], false, 0.0F);
        told_[slot] = Told::nothing;
    }
}

void SilenceWatch::say(const Tile& tile, std::uint32_t slot, std::uint32_t within, Told what, bool onset,
                       float bits) {
    (void)tile.detector->forecast(std::span(usual_).first(tile.count), std::span(longest_).first(tile.count));
    const double row_s = cadence_.median_s();
    const bool frozen = what == Told::frozen;
    const double usual = static_cast<double>(usual_[within]);
    const double value_s = row_s * std::max(usual, 1.0);  // runs are counted in values, gaps in rows
    said_.push_back({.slot = slot,
                     .frozen = frozen,
                     .onset = onset,
                     .bits = std::min(bits, 64.0F),
                     .value = static_cast<double>(last_[slot]),
                     .length_s = frozen ? same_[slot] * value_s : missing_[slot] * row_s,
                     .usual_s = frozen ? static_cast<double>(longest_[within]) * value_s : usual * row_s,
                     .since_wall = since_wall_[slot]});
}

void SilenceWatch::reset(std::uint32_t slot) {
    const std::uint32_t within = slot % kTileSlots;
    tiles_[slot / kTileSlots].detector->reset({&within, 1});
    last_[slot] = kNone;
    missing_[slot] = 0;
    same_[slot] = 0;
    told_[slot] = Told::nothing;
    since_wall_[slot] = 0;
}

void SilenceWatch::save(Writer& writer) const {
    cadence_.save(writer);
    for (const Tile& tile : tiles_) {
        writer.pod(std::uint8_t{tile.used});
        if (tile.used) tile.detector->save(writer);
    }
    writer.array(std::span<const float>(last_));
    writer.array(std::span<const std::uint32_t>(missing_));
    writer.array(std::span<const std::uint32_t>(same_));
    writer.array(std::span<const Told>(told_));
    writer.array(std::span<const Nanos>(since_wall_));
}

void SilenceWatch::load(Reader& reader) {
    cadence_.load(reader);
    for (std::size_t t = 0; t < tiles_.size(); ++t) {
        Tile& tile = tiles_[t];
        const bool used = reader.pod<std::uint8_t>() != 0;
        if (used) tile.detector->load(reader);
        for (std::uint32_t i = 0; !used && tile.used && i < tile.count; ++i) {
            tile.detector->reset({&i, 1});
        }
        tile.used = used;
    }
    reader.array(std::span<float>(last_));
    reader.array(std::span<std::uint32_t>(missing_));
    reader.array(std::span<std::uint32_t>(same_));
    reader.array(std::span<Told>(told_));
    reader.array(std::span<Nanos>(since_wall_));
}

}  // namespace argus::engine
