#include "engine/bank.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>

#include "base/assert.hpp"
#include "base/dispatch.hpp"

namespace argus::engine {
namespace {

using detectors::kTileSlots;

constexpr float kFarthest = 1.0e30F;  // values are kept this close to their origin, so that sums stay finite
constexpr double kFewestAlarms = 1e-6;  // a day and series
constexpr double kMostAlarms = 1e6;
constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
constexpr float kUnknownFloat = std::numeric_limits<float>::quiet_NaN();

struct Prepared {
    std::uint32_t finite = 0;
    std::uint32_t infinite = 0;
    std::uint32_t warmed = 0;  // slots that saw their kWarmValues-th value in this row
};

// Values minus their origin as float32, NaN where not observed; the first finite value becomes the origin.
template <class T>
ARGUS_INLINE void prepare_body(const T* row, std::size_t count, double* origin, std::int32_t* seen,
                               float* values, Prepared* prepared) {
    std::uint32_t finite_values = 0;
    std::uint32_t infinite = 0;
    std::uint32_t warmed = 0;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const double x = static_cast<double>(row[i]);
        const bool finite = x - x == 0.0;
        const double first = origin[i];
        const double from = ((first != first) & finite) ? x : first;
        const double apart = x - from;
        const double low = apart > -static_cast<double>(kFarthest) ? apart : -static_cast<double>(kFarthest);
        const double near = low < static_cast<double>(kFarthest) ? low : static_cast<double>(kFarthest);
        const std::int32_t now = seen[i] + ((finite & (seen[i] < 0x7FFFFFFF)) ? 1 : 0);
        finite_values += finite ? 1U : 0U;
        infinite += (!finite & (x == x)) ? 1U : 0U;
        warmed += (finite & (now == static_cast<std::int32_t>(kWarmValues)) & (now != seen[i])) ? 1U : 0U;
        origin[i] = from;
        seen[i] = now;
        values[i] = finite ? static_cast<float>(near) : kUnknownFloat;
    }
    prepared->finite = finite_values;
    prepared->infinite = infinite;
    prepared->warmed = warmed;
}

ARGUS_KERNEL(prepare_f64, prepare_body,
             (const double* row, std::size_t count, double* origin, std::int32_t* seen, float* values,
              Prepared* prepared),
             (row, count, origin, seen, values, prepared))

ARGUS_KERNEL(prepare_f32, prepare_body,
             (const float* row, std::size_t count, double* origin, std::int32_t* seen, float* values,
              Prepared* prepared),
             (row, count, origin, seen, values, prepared))

void prepare(const double* row, std::size_t count, double* origin, std::int32_t* seen, float* values,
             Prepared* out) {
    prepare_f64(row, count, origin, seen, values, out);
}

void prepare(const float* row, std::size_t count, double* origin, std::int32_t* seen, float* values,
             Prepared* out) {
    prepare_f32(row, count, origin, seen, values, out);
}

void check(const DetectorChoice& choice) {
    if (choice.descriptor == nullptr) throw std::invalid_argument("Bank: a detector without descriptor");
    const Leaf& leaf = choice.descriptor->leaf;
    const std::string name = leaf.name;
    if (choice.descriptor->channels.empty()) {
        throw std::invalid_argument("Bank: detector '" + name + "' has no channel");
    }
    if (choice.option_values.size() != leaf.options.size()) {
        throw std::invalid_argument("Bank: detector '" + name + "': expected " +
                                    std::to_string(leaf.options.size()) + " option values, found " +
                                    std::to_string(choice.option_values.size()));
    }
    for (std::size_t i = 0; i < leaf.options.size(); ++i) {
        const Option& option = leaf.options[i];
        const double value = choice.option_values[i];
        if (value >= option.min && value <= option.max) continue;
        throw std::invalid_argument("Bank: detector '" + name + "': " + option.name +
                                    ": expected a number in [" + std::to_string(option.min) + ", " +
                                    std::to_string(option.max) + "], found " + std::to_string(value));
    }
}

// Alarms a day of each series.
double share_of(double alarms_per_day, std::uint64_t live_series) {
    return std::clamp(alarms_per_day / static_cast<double>(std::max<std::uint64_t>(live_series, 1)), kFewestAlarms,
                      kMostAlarms);
}

BankOptions completed(BankOptions options) {
    if (options.detectors.empty())
        throw std::invalid_argument("Bank: expected at least one detector, found none");
    if (!(options.false_alarms_per_day > 0.0) || !(options.false_alarms_per_day < 1e12)) {
        throw std::invalid_argument(
            "Bank: false_alarms_per_day: expected a number above 0 and below 1e12, found " +
            std::to_string(options.false_alarms_per_day));
    }
    for (DetectorChoice& choice : options.detectors) {
        if (choice.descriptor != nullptr && choice.option_values.empty()) {
            for (const Option& option : choice.descriptor->leaf.options)
                choice.option_values.push_back(option.value);
        }
        check(choice);
    }
    return options;
}

BudgetOptions budget_of(const BankOptions& options) {
    return {.alarms_per_day = share_of(options.false_alarms_per_day, 1),
            .warming_level = std::numeric_limits<float>::infinity(),
            .hold_off_rows = options.policy.hold_off_rows};
}

// Keeps a scope's rows and outputs together while they are taken block by block.
template <class T>
Rows<T> part(const Rows<T>& rows, std::size_t first, std::size_t count) {
    return {rows.values + first * rows.stride, rows.stride, rows.mono.subspan(first, count),
            rows.wall.subspan(first, count)};
}

Outputs part(const Outputs& out, std::size_t row, std::size_t capacity) {
    const auto advance = [](auto*& pointer, std::size_t by) {
        if (pointer != nullptr) pointer += by;
    };
    Outputs rest = out;
    const std::size_t at = row * capacity;
    advance(rest.bits, at);
    advance(rest.alarm_bits, at);
    advance(rest.expected, at);
    advance(rest.lower, at);
    advance(rest.upper, at);
    advance(rest.entity_bits, row);
    advance(rest.entity_parts, row * EntityScore::kChannels);
    for (float*& channel : rest.parts) channel += at;
    return rest;
}

}  // namespace

struct Bank::Tile {
    Tile(std::uint32_t first_slot, std::uint32_t slots, const BankOptions& options)
        : first(first_slot),
          count(slots),
          detectors(made(slots, options)),
          forecaster(first_forecaster(slots, options)),
          ranks(slots * static_cast<std::uint32_t>(scales_of(options).size()), {forecaster.channel * slots, slots}),
          fusion(slots, scales_of(options)),
          gate(slots, options.policy),
          origin(slots, kUnknown),
          seen(slots, 0),
          anew(slots, 0) {}

    struct Forecaster {  // the first detector that forecasts, and its first channel: |value - expected|
        detectors::Detector* detector = nullptr;
        std::uint32_t channel = 0;
    };

    [[nodiscard]] static std::vector<std::unique_ptr<detectors::Detector>> made(std::uint32_t slots,
                                                                               const BankOptions& options) {
        std::vector<std::unique_ptr<detectors::Detector>> all;
        for (const DetectorChoice& choice : options.detectors) {
            all.push_back(choice.descriptor->make(slots, choice.option_values));
        }
        return all;
    }

    [[nodiscard]] Forecaster first_forecaster(std::uint32_t slots, const BankOptions& options) const {
        std::vector<float> expected(slots);
        std::vector<float> scale(slots);
        std::uint32_t channel = 0;
        for (std::size_t d = 0; d < detectors.size(); ++d) {
            if (detectors[d]->forecast(expected, scale)) return {detectors[d].get(), channel};
            channel += static_cast<std::uint32_t>(options.detectors[d].descriptor->channels.size());
        }
        return {};
    }

    [[nodiscard]] static std::vector<detectors::Scale> scales_of(const BankOptions& options) {
        std::vector<detectors::Scale> scales;
        for (const DetectorChoice& choice : options.detectors) {
            for (const detectors::Channel& channel : choice.descriptor->channels) scales.push_back(channel.scale);
        }
        return scales;
    }

    std::uint32_t first;
    std::uint32_t count;
    detectors::Entity whole{0, count};
    bool used = false;  // a series of it had a value
    std::vector<std::unique_ptr<detectors::Detector>> detectors;
    Forecaster forecaster;
    Calibration ranks;  // slots of the first channel, then those of the next
    Fusion fusion;
    Gate gate;
    std::vector<double> origin;
    std::vector<std::int32_t> seen;  // finite values
    std::vector<std::uint8_t> anew;  // 1 = the next finite value is the new normal
    bool renews = false;             // one of them is
};

// One row of one tile at a time.
struct Bank::Scratch {
    explicit Scratch(std::size_t channels)
        : statistic(channels * kTileSlots) {
        learn.fill(detectors::kLearn);
    }

    std::array<float, kTileSlots> values{};
    std::array<float, kTileSlots> bits{};
    std::array<float, kTileSlots> evidence{};
    std::array<float, kTileSlots> alarm{};
    std::array<float, kTileSlots> expected{};
    std::array<float, kTileSlots> scale{};
    std::array<std::uint8_t, kTileSlots> learn{};  // kLearn: every value, bounded by each detector
    std::vector<float> statistic;  // channel after channel, tile.count each
    Calibration::Ranks ranks;
};

// What the tiles leave behind for each row of the block in hand. Alarm levels do not change within it.
struct Bank::Block {
    static constexpr std::size_t kMostRows = AlarmBudget::kRefreshRows;

    std::uint32_t capacity = 0;
    std::size_t first = 0;  // of its rows, within the call
    std::array<EntityScore::Deviance, kMostRows> deviance{};
    std::array<std::uint32_t, kMostRows> warmed{};
    std::array<std::uint32_t, kMostRows> used{};  // slots up to the last tile in use
    std::array<double, kMostRows> interval_s{};
    std::vector<float> strength;  // row-major; tiles that are not in use keep theirs unknown
    std::vector<Alarm> alarms;

    explicit Block(std::uint32_t slots) : capacity(slots), strength(slots, kUnknownFloat) { alarms.reserve(slots); }

    void start(std::size_t rows, std::size_t first_row) {
        first = first_row;
        deviance.fill({});
        warmed.fill(0);
        used.fill(0);
        if (strength.size() < rows * capacity) strength.assign(rows * capacity, kUnknownFloat);
        alarms.clear();
    }
    [[nodiscard]] std::span<float> strength_of(std::size_t row) {
        return std::span(strength).subspan(row * capacity, capacity);
    }
};

Bank::Bank(std::uint32_t capacity, BankOptions options)
    : capacity_(capacity),
      options_(completed(std::move(options))),
      entity_(options_.entity ? std::make_unique<EntityScore>(capacity) : nullptr),
      block_(std::make_unique<Block>(capacity)),
      speaker_(capacity, options_.policy, options_.false_alarms_per_day),
      budget_(std::max(capacity, 1U), budget_of(options_)),
      bits_(capacity, 0.0F),
      alarm_bits_(capacity, 0.0F),
      expected_(capacity, kUnknown),
      lower_(capacity, kUnknown),
      upper_(capacity, kUnknown) {
    if (capacity == 0) throw std::invalid_argument("Bank: expected at least one slot, found 0");
    for (const DetectorChoice& choice : options_.detectors) {
        for (std::size_t c = 0; c < choice.descriptor->channels.size(); ++c) {
            channel_detector_.push_back(choice.descriptor->leaf.name);
        }
    }
    channel_count_ = static_cast<std::uint32_t>(channel_detector_.size());
    for (std::uint32_t first = 0; first < capacity; first += kTileSlots) {
        tiles_.emplace_back(first, std::min(kTileSlots, capacity - first), options_);
    }
    scratch_ = std::make_unique<Scratch>(channel_count_);
    spoken_.reserve(capacity);
    utterances_.reserve(capacity);
}

Bank::~Bank() = default;
Bank::Bank(Bank&&) noexcept = default;
Bank& Bank::operator=(Bank&&) noexcept = default;

void Bank::step(std::span<const double> row, Nanos mono_now, Nanos wall_now) {
    ARGUS_ASSERT(row.size() == capacity_);
    Outputs out;
    out.bits = bits_.data();
    out.alarm_bits = alarm_bits_.data();
    out.expected = expected_.data();
    out.lower = lower_.data();
    out.upper = upper_.data();
    out.entity_bits = &entity_bits_;
    out.spoken = &spoken_;
    spoken_.clear();
    run_rows(Rows<double>{row.data(), capacity_, {&mono_now, 1}, {&wall_now, 1}}, out);
    utterances_.clear();
    for (const Spoken& spoken : spoken_) utterances_.push_back(spoken.utterance);
}

void Bank::run(const Rows<double>& rows, const Outputs& out) { run_rows(rows, out); }
void Bank::run(const Rows<float>& rows, const Outputs& out) { run_rows(rows, out); }

template <class T>
void Bank::run_rows(const Rows<T>& rows, const Outputs& out) {
    ARGUS_ASSERT(rows.mono.size() == rows.wall.size() && rows.stride >= capacity_);
    ARGUS_ASSERT(out.parts.empty() || out.parts.size() == channel_count_);
    for (std::size_t first = 0; first < rows.mono.size();) {
        const std::size_t of_block = static_cast<std::size_t>(rows_) % Block::kMostRows;
        const std::size_t count = std::min(rows.mono.size() - first, Block::kMostRows - of_block);
        if (of_block == 0) renew_request();
        run_block(part(rows, first, count), first, part(out, first, capacity_));
        first += count;
    }
}

template <class T>
void Bank::run_block(const Rows<T>& rows, std::size_t first, const Outputs& out) {
    block_->start(rows.mono.size(), first);
    for (std::size_t row = 0; row < rows.mono.size(); ++row) {
        cadence_.push(rows.mono[row]);
        block_->interval_s[row] = cadence_.median_s();
    }
    for (Tile& tile : tiles_) run_tile(tile, rows, out);
    std::sort(block_->alarms.begin(), block_->alarms.end(), [](const Alarm& a, const Alarm& b) {
        return a.row != b.row ? a.row < b.row : a.said.slot < b.said.slot;
    });
    std::size_t next_alarm = 0;
    for (std::size_t row = 0; row < rows.mono.size(); ++row) {
        live_ += block_->warmed[row];
        judge_entity(row, out);
        if (options_.speaks) speak(row, rows.mono[row], rows.wall[row], next_alarm, out.spoken);
        ++rows_;
    }
}

// The scope's budget, shared alike by its live series.
void Bank::renew_request() noexcept {
    const Asked now{speaker_.warming_level(live_, cadence_.median_s()), live_};
    if (now.live != asked_.live) budget_.request_of_each(share_of(options_.false_alarms_per_day, live_));
    if (now.warming_level != asked_.warming_level) budget_.warm_at(now.warming_level);
    asked_ = now;
}

// Who may speak is in slot order, as are the row's alarms.
void Bank::speak(std::size_t row, Nanos mono, Nanos wall, std::size_t& next_alarm, std::vector<Spoken>* spoken) {
    const auto loud = budget_.step(block_->strength_of(row).first(block_->used[row]), mono);
    auto may_speak = loud.begin();
    for (; next_alarm < block_->alarms.size() && block_->alarms[next_alarm].row == row; ++next_alarm) {
        Alarm& alarm = block_->alarms[next_alarm];
        const std::uint32_t slot = alarm.said.slot;
        while (may_speak != loud.end() && *may_speak < slot) ++may_speak;
        const bool may = may_speak != loud.end() && *may_speak == slot;
        const bool said = speaker_.hear(alarm, may, budget_.levels()[slot], wall);
        if (said && spoken != nullptr) {
            spoken->push_back({static_cast<std::uint32_t>(block_->first + row), alarm.said});
        }
    }
}

void Bank::judge_entity(std::size_t row, const Outputs& out) {
    const EntityScore::Deviance& found = block_->deviance[row];
    const float bits = options_.entity ? entity_->finish(found) : 0.0F;
    if (out.entity_bits != nullptr) out.entity_bits[row] = bits;
    if (out.entity_parts == nullptr) return;
    for (std::size_t c = 0; c < EntityScore::kChannels; ++c) {
        out.entity_parts[row * EntityScore::kChannels + c] = options_.entity ? found.ratio(c) : 0.0F;
    }
}

template <class T>
void Bank::run_tile(Tile& tile, const Rows<T>& rows, const Outputs& out) {
    Scratch& s = *scratch_;
    const bool banded = out.expected != nullptr || out.lower != nullptr || out.upper != nullptr;
    for (std::size_t row = 0; row < rows.mono.size(); ++row) {
        Prepared prepared;
        prepare(rows.values + row * rows.stride + tile.first, tile.count, tile.origin.data(),
                tile.seen.data(), s.values.data(), &prepared);
        infinities_ += prepared.infinite;
        block_->warmed[row] += prepared.warmed;
        tile.used |= prepared.finite > 0;
        if (!tile.used) {  // no series yet: its state stays untouched
            write_nothing(tile, row, out);
            continue;
        }
        const detectors::View view = view_of(tile, rows.mono[row], rows.wall[row], block_->interval_s[row]);
        score_tile(tile, view);
        const auto events = options_.speaks ? pass_gate(tile, row) : std::span<const GateEvent>{};
        if (banded || !events.empty()) forecast_tile(tile);
        if (options_.entity) {
            entity_->add(rows.mono[row], tile.first, std::span(s.values).first(tile.count), block_->deviance[row]);
        }
        write_row(tile, row, out);
        if (!events.empty()) collect(tile, static_cast<std::uint32_t>(row), events);
        learn_tile(tile, view);
    }
}

std::span<const GateEvent> Bank::pass_gate(Tile& tile, std::size_t row) {
    Scratch& s = *scratch_;
    block_->used[row] = std::max(block_->used[row], tile.first + tile.count);
    return tile.gate.pass(rows_ + static_cast<std::int64_t>(row),
                          {.values = std::span(s.values).first(tile.count),
                           .evidence = std::span(s.evidence).first(tile.count),
                           .level = budget_.levels().subspan(tile.first, tile.count),
                           .strength = block_->strength_of(row).subspan(tile.first, tile.count),
                           .alarm = std::span(s.alarm).first(tile.count)});
}

detectors::View Bank::view_of(const Tile& tile, Nanos mono, Nanos wall, double interval_s) const {
    return {std::span(scratch_->values).first(tile.count), {&tile.whole, 1}, mono, wall, interval_s,
            tile.origin};
}

void Bank::score_tile(Tile& tile, const detectors::View& view) {
    Scratch& s = *scratch_;
    const std::size_t count = tile.count;
    std::size_t channel = 0;
    for (std::size_t d = 0; d < tile.detectors.size(); ++d) {
        const std::size_t channels = options_.detectors[d].descriptor->channels.size();
        tile.detectors[d]->score(view, std::span(s.statistic).subspan(channel * count, channels * count));
        channel += channels;
    }
    s.ranks = tile.ranks.score(std::span(s.statistic).first(channel_count_ * count));
    tile.fusion.fuse(std::span(s.values).first(count), s.ranks.slot, s.ranks.bits, std::span(s.bits).first(count),
                     std::span(s.evidence).first(count));
    if (!tile.renews) return;
    for (std::size_t i = 0; i < count; ++i) {
        if (tile.anew[i] != 0) s.bits[i] = s.evidence[i] = 0.0F;
    }
}

void Bank::learn_tile(Tile& tile, const detectors::View& view) {
    Scratch& s = *scratch_;
    const std::size_t count = tile.count;
    if (tile.renews) mark_anew(tile, detectors::kLearnNothing);  // what it is far from is no past of the new normal
    tile.ranks.learn(tile.seen, std::span(s.statistic).first(channel_count_ * count),
                     std::span(s.learn).first(count));
    tile.fusion.learn(std::span(s.values).first(count));
    if (tile.renews) mark_anew(tile, detectors::kLearnAnew);
    for (auto& detector : tile.detectors) detector->learn(view, std::span(s.learn).first(count));
    if (!tile.renews) return;
    for (std::size_t i = 0; i < count; ++i) {
        if (s.values[i] == s.values[i]) tile.anew[i] = 0;
    }
    tile.renews = std::find(tile.anew.begin(), tile.anew.end(), 1) != tile.anew.end();
    s.learn.fill(detectors::kLearn);
}

void Bank::mark_anew(const Tile& tile, std::uint8_t how) {
    for (std::size_t i = 0; i < tile.count; ++i) {
        if (tile.anew[i] != 0) scratch_->learn[i] = how;
    }
}

// Unknown when no detector forecasts.
void Bank::forecast_tile(Tile& tile) {
    Scratch& s = *scratch_;
    const bool told = tile.forecaster.detector != nullptr &&
                      tile.forecaster.detector->forecast(std::span(s.expected).first(tile.count),
                                                         std::span(s.scale).first(tile.count));
    if (!told) s.expected.fill(kUnknownFloat);
}

void Bank::write_nothing(const Tile& tile, std::size_t row, const Outputs& out) {
    Scratch& s = *scratch_;
    s.bits.fill(0.0F);
    s.alarm.fill(0.0F);
    s.expected.fill(kUnknownFloat);
    if (!out.parts.empty()) std::fill(s.statistic.begin(), s.statistic.end(), kUnknownFloat);
    write_row(tile, row, out);
}

void Bank::write_row(const Tile& tile, std::size_t row, const Outputs& out) {
    const Scratch& s = *scratch_;
    const std::size_t at = row * capacity_ + tile.first;
    if (out.bits != nullptr) std::copy_n(s.bits.begin(), tile.count, out.bits + at);
    if (out.alarm_bits != nullptr) std::copy_n(s.alarm.begin(), tile.count, out.alarm_bits + at);
    for (std::size_t c = 0; c < out.parts.size(); ++c) {
        std::copy_n(s.statistic.data() + c * tile.count, tile.count, out.parts[c] + at);
    }
    if (out.expected == nullptr && out.lower == nullptr && out.upper == nullptr) return;
    const auto reach = tile.ranks.reach();
    for (std::size_t i = 0; i < tile.count; ++i) {
        const double expected = tile.origin[i] + static_cast<double>(s.expected[i]);
        const double around = static_cast<double>(reach[i]);
        if (out.expected != nullptr) out.expected[at + i] = expected;
        if (out.lower != nullptr) out.lower[at + i] = expected - around;
        if (out.upper != nullptr) out.upper[at + i] = expected + around;
    }
}

void Bank::collect(const Tile& tile, std::uint32_t row, std::span<const GateEvent> events) {
    const Scratch& s = *scratch_;
    const auto reach = tile.ranks.reach();
    for (const GateEvent& event : events) {
        std::size_t loudest = 0;
        float most = 0.0F;
        for (std::size_t i = 0; i < s.ranks.slot.size(); ++i) {
            if (s.ranks.slot[i] % tile.count != event.slot || !(s.ranks.bits[i] > most)) continue;
            most = s.ranks.bits[i];
            loudest = s.ranks.slot[i] / tile.count;
        }
        Alarm alarm{.row = row, .kind = event.kind, .strength = event.strength, .said = {}};
        Utterance& said = alarm.said;
        const double expected = tile.origin[event.slot] + static_cast<double>(s.expected[event.slot]);
        const double around = static_cast<double>(reach[event.slot]);
        said.slot = tile.first + event.slot;
        said.bits = s.bits[event.slot];
        said.value = tile.origin[event.slot] + static_cast<double>(s.values[event.slot]);
        said.expected = expected;
        said.lower = expected - around;
        said.upper = expected + around;
        said.detector = channel_detector_[loudest];
        block_->alarms.push_back(alarm);
    }
}

std::span<const Driver> Bank::drivers() noexcept {
    return options_.entity ? entity_->drivers() : std::span<const Driver>{};
}

std::vector<std::string> Bank::channels() const {
    std::vector<std::string> names;
    for (const DetectorChoice& choice : options_.detectors) {
        for (const detectors::Channel& channel : choice.descriptor->channels) {
            const std::string part = channel.name;
            names.push_back(part.empty() ? choice.descriptor->leaf.name
                                         : choice.descriptor->leaf.name + ("." + part));
        }
    }
    return names;
}

void Bank::learn_anew(std::span<const std::uint32_t> slots) {
    for (const std::uint32_t slot : slots) {
        ARGUS_ASSERT(slot < capacity_);
        Tile& tile = tiles_[slot / kTileSlots];
        const std::uint32_t local = slot % kTileSlots;
        tile.anew[local] = 1;
        tile.renews = true;
        tile.gate.reset({&local, 1});
    }
    if (options_.entity) entity_->reset(slots);
    speaker_.reset(slots);
}

void Bank::reset(std::span<const std::uint32_t> slots) {
    for (const std::uint32_t slot : slots) {
        ARGUS_ASSERT(slot < capacity_);
        Tile& tile = tiles_[slot / kTileSlots];
        const std::uint32_t local = slot % kTileSlots;
        const std::span<const std::uint32_t> one(&local, 1);
        if (tile.seen[local] >= static_cast<std::int32_t>(kWarmValues)) --live_;
        tile.origin[local] = kUnknown;
        tile.seen[local] = 0;
        tile.anew[local] = 0;
        tile.fusion.reset(one);
        tile.gate.reset(one);
        for (auto& detector : tile.detectors) detector->reset(one);
        for (std::uint32_t c = 0; c < channel_count_; ++c) {
            const std::uint32_t of_channel = c * tile.count + local;
            tile.ranks.reset({&of_channel, 1});
        }
    }
    if (options_.entity) entity_->reset(slots);
    speaker_.reset(slots);
    budget_.reset(slots);
}

void Bank::save(Writer& writer) const {
    writer.pod(capacity_);
    writer.pod(channel_count_);
    for (const std::string& name : channels()) writer.text(name);
    writer.pod(rows_);
    writer.pod(live_);
    writer.pod(infinities_);
    cadence_.save(writer);
    speaker_.save(writer);
    budget_.save(writer);
    writer.pod(asked_.warming_level);
    writer.pod(asked_.live);
    writer.pod(std::uint8_t{options_.entity});
    if (options_.entity) entity_->save(writer);
    for (const Tile& tile : tiles_) {
        writer.pod(std::uint8_t{tile.used});
        if (!tile.used) continue;
        writer.array(std::span<const double>(tile.origin));
        writer.array(std::span<const std::int32_t>(tile.seen));
        writer.array(std::span<const std::uint8_t>(tile.anew));
        tile.fusion.save(writer);
        tile.gate.save(writer);
        for (const auto& detector : tile.detectors) detector->save(writer);
        tile.ranks.save(writer);
    }
}

void Bank::load(Reader& reader) {
    if (reader.pod<std::uint32_t>() != capacity_)
        throw CodecError("bank: saved with another number of slots");
    if (reader.pod<std::uint32_t>() != channel_count_) throw CodecError("bank: saved with other detectors");
    for (const std::string& name : channels()) {
        if (reader.text() != name) throw CodecError("bank: saved with other detectors than '" + name + "'");
    }
    rows_ = reader.pod<std::int64_t>();
    live_ = reader.pod<std::uint64_t>();
    infinities_ = reader.pod<std::uint64_t>();
    cadence_.load(reader);
    speaker_.load(reader);
    budget_.load(reader);
    asked_.warming_level = reader.pod<float>();
    asked_.live = reader.pod<std::uint64_t>();
    block_ = std::make_unique<Block>(capacity_);
    if ((reader.pod<std::uint8_t>() != 0) != options_.entity)
        throw CodecError("bank: saved with another choice of entity");
    if (options_.entity) entity_->load(reader);
    for (Tile& tile : tiles_) {
        if (reader.pod<std::uint8_t>() == 0) {
            if (tile.used) tile = Tile(tile.first, tile.count, options_);
            continue;
        }
        tile.used = true;
        reader.array(std::span<double>(tile.origin));
        reader.array(std::span<std::int32_t>(tile.seen));
        reader.array(std::span<std::uint8_t>(tile.anew));
        tile.renews = std::find(tile.anew.begin(), tile.anew.end(), 1) != tile.anew.end();
        tile.fusion.load(reader);
        tile.gate.load(reader);
        for (auto& detector : tile.detectors) detector->load(reader);
        tile.ranks.load(reader);
    }
}

}  // namespace argus::engine
