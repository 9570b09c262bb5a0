#include "engine/alarm_budget.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "base/arithmetic.hpp"
#include "base/assert.hpp"
#include "base/dispatch.hpp"
#include "engine/speaking.hpp"

namespace argus::engine {
namespace {

constexpr float kInfinite = std::numeric_limits<float>::infinity();
constexpr double kSecondsPerDay = 86400.0;
constexpr double kSmallestRate = 1e-6;
constexpr double kLargestRate = 1e6;

// Steps of a ladder: step k begins at edge(k) above the floor, 16 steps an octave of (height + 1/2).
constexpr std::int32_t kSteps = 128;
constexpr int kStepBits = 19;  // float bits below the step
constexpr float kOffset = 0.5F;
constexpr std::int32_t kOffsetRaw = 0x3F000000;
constexpr float kHighest = 127.5F;
constexpr std::uint8_t kNoEpisode = 255;
constexpr std::uint8_t kPlaced = 255;
constexpr std::uint32_t kSeekBlocks = 16;  // of the hold-off: so long a floor is sought, at most
constexpr float kSoughtAt = 0.5F;          // bits above the floor where the least of two maxima stands

constexpr std::uint32_t kGranulesMost = 128;
constexpr std::uint32_t kVisitsPerRefresh = 4096;
constexpr std::uint32_t kLastOfPool = 0x80000000U;
constexpr std::uint32_t kLongAgo = 1U << 30;

constexpr double kKnownCounts = 5.0;  // the rarest rate a series knows by itself: so many in its days
constexpr double kYoungDays = 1.0;
constexpr double kMemoryDays = 512.0;
constexpr double kRecentDays = 30.0;
constexpr std::array<double, 5> kJoinMarks{1.0 / 24, 3.0 / 24, 8.0 / 24, 1.0, 1.5};

constexpr double kStormAlarms = 4.0;        // above twice a day's: feedback does not wait for the day's end
constexpr double kStormEvery = 1.0 / 24.0;  // days

constexpr double kTailCounts = 5.0;    // the tail begins here
constexpr double kSlopeCounts = 25.0;  // and has the slope from here to there
constexpr double kUnbent = 0.5;        // of the busiest level's count: above, the hold-off bends the curve
constexpr float kPlainHalving = 1.0F;       // bits that halve a rate when no slope is known: scores that are -log2 p
constexpr float kSteepestHalving = 0.02F;   // bits
constexpr double kFewestCounts = 1e-9;

constexpr double kOwnGain = 1.0;  // octaves of rate per alarm too many, at first
constexpr double kOwnMost = 6.0;
constexpr double kPoolGain = 0.5;  // octaves of rate per share too many
constexpr double kPoolMost = 2.0;
constexpr double kPoolLeak = 0.03;  // a day

constexpr float kBusiestAt = 0.25F;  // bits above the floor
constexpr float kBusiestMost = 1.0F;
constexpr std::uint16_t kBusiestCounts = 8;  // fewer do not show where it is

ARGUS_INLINE std::int32_t step_of(float height) noexcept {
    const float up = height > 0.0F ? height : 0.0F;
    const float most = up < kHighest ? up : kHighest;
    return (__builtin_bit_cast(std::int32_t, most + kOffset) - kOffsetRaw) >> kStepBits;
}

[[nodiscard]] constexpr float edge(std::int32_t step) noexcept {
    return __builtin_bit_cast(float, kOffsetRaw + (step << kStepBits)) - kOffset;
}

// Heights of the levels above a floor, and distances from a series' own level: some below, itself, all above.
constexpr auto kHeights = [] {
    std::array<float, kSteps> heights{};
    for (std::int32_t k = 0; k < kSteps; ++k) heights[static_cast<std::size_t>(k)] = edge(k + 1);
    return heights;
}();
constexpr std::int32_t kBelowSteps = 64;
constexpr auto kDistances = [] {
    std::array<float, kBelowSteps + kSteps> distances{};
    for (std::int32_t k = 0; k < kBelowSteps + kSteps; ++k) {
        distances[static_cast<std::size_t>(k)] = k < kBelowSteps ? -edge(kBelowSteps - k) : edge(k - kBelowSteps);
    }
    return distances;
}();

// 2^x for |x| <= 64 by plain arithmetic: the same bits everywhere. Relative error < 1e-9.
[[nodiscard]] double exp2_plain(double x) noexcept {
    const double bounded = std::clamp(x, -64.0, 64.0);
    const double whole = std::floor(bounded);
    const double t = (bounded - whole) * 0.69314718055994531;
    double sum = 1.0;
    for (int n = 12; n > 0; --n) sum = 1.0 + t / static_cast<double>(n) * sum;
    const auto raw = static_cast<std::uint64_t>(static_cast<std::int64_t>(whole) + 1023) << 52;
    return sum * __builtin_bit_cast(double, raw);
}

// Where a falling curve reaches `count`, on a straight line of its logarithm; infinite when it never does.
[[nodiscard]] float crossing(std::span<const float> at, std::span<const float> counts, float count) noexcept {
    constexpr float kLeast = 0.25F;  // stands for a count of zero
    std::size_t k = 0;
    while (k < counts.size() && counts[k] > count) ++k;
    if (k == counts.size()) return kInfinite;
    if (k == 0) return at[0];
    const float above = counts[k - 1];
    const float below = std::min(std::max(counts[k], kLeast), count);
    const float share = fast_log2(above / count) / fast_log2(above / below);
    return at[k - 1] + share * (at[k] - at[k - 1]);
}

// The same below the last counts too, where the curve goes on as an exponential tail.
[[nodiscard]] float reach(std::span<const float> at, std::span<const float> counts, double count) noexcept {
    if (count >= kTailCounts) return crossing(at, counts, static_cast<float>(count));
    const double begin = std::min(kTailCounts, static_cast<double>(counts[0]));
    if (!(count < begin)) return at[0];
    const double high = std::min(kSlopeCounts, kUnbent * static_cast<double>(counts[0]));
    const float from = crossing(at, counts, static_cast<float>(begin));
    float halving = kPlainHalving;
    if (high > 1.5 * begin) {
        const float octaves = fast_log2(static_cast<float>(high / begin));
        halving = std::max((from - crossing(at, counts, static_cast<float>(high))) / octaves, kSteepestHalving);
    }
    return from + halving * fast_log2(static_cast<float>(begin / std::max(count, kFewestCounts)));
}

// A row against the levels in force.
ARGUS_INLINE void row_body(const float* score, const float* floor, const float* level, std::size_t count,
                           std::uint32_t row, std::uint32_t hold_off, std::uint32_t* last_loud,
                           std::uint32_t* observed, std::uint8_t* step, std::uint8_t* speaks) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float s = score[i];
        const bool seen = s - s == 0.0F;
        const bool loud = seen & (s >= level[i]);
        const std::uint32_t last = last_loud[i];
        step[i] = static_cast<std::uint8_t>(step_of(seen ? s - floor[i] : 0.0F));
        speaks[i] = (loud & (row - last > hold_off)) ? 1 : 0;
        last_loud[i] = loud ? row : last;
        observed[i] += seen ? 1U : 0U;
    }
}

// Ladder steps against the largest of the hold-off; flag 1 = speaks, 2 = higher than all of the hold-off.
ARGUS_INLINE void window_body(const std::uint8_t* window, const std::uint8_t* step, std::size_t count,
                              std::uint8_t* block_max, std::uint8_t* granule_max, std::uint8_t* before,
                              std::uint8_t* flags) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t recent = window[i] > block_max[i] ? window[i] : block_max[i];
        const std::uint8_t now = step[i];
        before[i] = recent;
        flags[i] = static_cast<std::uint8_t>(flags[i] | (now > recent ? 2 : 0));
        block_max[i] = now > block_max[i] ? now : block_max[i];
        granule_max[i] = now > granule_max[i] ? now : granule_max[i];
    }
}

ARGUS_INLINE void maximum_body(const std::uint8_t* other, std::size_t count, std::uint8_t* values) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) values[i] = other[i] > values[i] ? other[i] : values[i];
}

ARGUS_KERNEL(row_kernel, row_body,
             (const float* score, const float* floor, const float* level, std::size_t count, std::uint32_t row,
              std::uint32_t hold_off, std::uint32_t* last_loud, std::uint32_t* observed, std::uint8_t* step,
              std::uint8_t* speaks),
             (score, floor, level, count, row, hold_off, last_loud, observed, step, speaks))

ARGUS_KERNEL(window_kernel, window_body,
             (const std::uint8_t* window, const std::uint8_t* step, std::size_t count, std::uint8_t* block_max,
              std::uint8_t* granule_max, std::uint8_t* before, std::uint8_t* flags),
             (window, step, count, block_max, granule_max, before, flags))

ARGUS_KERNEL(maximum_kernel, maximum_body,
             (const std::uint8_t* other, std::size_t count, std::uint8_t* values),
             (other, count, values))

[[nodiscard]] float bounded_rate(double alarms_per_day) noexcept {
    const double known = alarms_per_day == alarms_per_day ? alarms_per_day : 1.0;
    return static_cast<float>(std::clamp(known, kSmallestRate, kLargestRate));
}

}  // namespace

// The ladder of one series as a curve that never rises: below the busiest level the policy speaks less because
// the score hardly ever leaves it, so that its count there is the busiest one's.
struct AlarmBudget::Survival {
    Survival(const Ladder& ladder, float floor_at) : floor(floor_at) {
        float most = 0.0F;
        for (std::size_t k = kLevels; k-- > 0;) {
            const float here = static_cast<float>(ladder.spoken[k]);
            if (here > most) {
                most = here;
                busiest = k;
            }
            counts[k] = most;
        }
    }
    [[nodiscard]] float at(float level) const noexcept {
        const float height = level - floor;
        if (!(height >= kHeights[0])) return counts[0];
        if (height >= kHighest) return 0.0F;
        constexpr std::int32_t kWithin = (1 << kStepBits) - 1;
        const std::int32_t raw = __builtin_bit_cast(std::int32_t, height + kOffset) - kOffsetRaw;
        const auto k = static_cast<std::size_t>(raw >> kStepBits);
        const float share = static_cast<float>(raw & kWithin) / static_cast<float>(kWithin + 1);
        return counts[k - 1] + share * (counts[k] - counts[k - 1]);
    }
    [[nodiscard]] float level_of(double count) const noexcept {
        const std::span<const float> known = std::span(counts).first(kLevels);
        return floor + crossing(kHeights, known, static_cast<float>(std::max(count, 0.5)));
    }
    // The rarest rate that is known after `known` days, of a series of `days` days.
    [[nodiscard]] double rarest_rate(double days, double known) const noexcept {
        const double most = kUnbent * static_cast<double>(counts[0]) / days;
        return std::min(kKnownCounts / std::max(known, kYoungDays), most);
    }
    [[nodiscard]] float busiest_level() const noexcept { return floor + kHeights[busiest]; }

    std::array<float, kLevels + 1> counts{};
    float floor;
    std::size_t busiest = 0;
};

AlarmBudget::AlarmBudget(std::uint32_t slots, BudgetOptions options)
    : options_(options),
      slots_(slots),
      granule_rows_((options.hold_off_rows + kGranulesMost - 1) / kGranulesMost),
      granules_(granule_rows_ == 0 ? 1 : (options.hold_off_rows - granule_rows_ / 2) / granule_rows_),
      ladder_(slots), floor_(slots, 0.0F), level_(slots, options.warming_level), last_loud_(slots, 0),
      observed_(slots, 0), promised_rows_(slots, 0), window_(std::size_t{slots} * granules_, 0),
      block_max_(slots, 0), granule_max_(slots, 0), sought_(slots, 0),
      episode_from_(slots, kNoEpisode), episode_to_(slots, 0),
      state_(slots, BudgetState::warming), rate_(slots, bounded_rate(options.alarms_per_day)),
      own_octaves_(slots, 0.0F), pool_octaves_(slots, 0.0F), promised_(slots, 0.0F), spoken_(slots, 0),
      days_(slots, 0.0), pool_(slots, 0), order_(slots, 0), cadence_(std::make_unique<Cadence>()),
      step_now_(slots, 0), step_before_(slots, 0), flags_(slots, 0), pool_begin_(std::size_t{slots} + 1, 0) {
    if (slots == 0 || slots >= kLastOfPool) {
        throw std::invalid_argument("AlarmBudget: expected 1 .. 2^31 - 1 slots, found " + std::to_string(slots));
    }
    if (options.hold_off_rows == 0 || options.hold_off_rows >= kLongAgo) {
        throw std::invalid_argument("AlarmBudget: hold_off_rows: expected a number in [1, 2^30), found " +
                                    std::to_string(options.hold_off_rows));
    }
    if (!(options.alarms_per_day >= kSmallestRate && options.alarms_per_day <= kLargestRate)) {
        throw std::invalid_argument("AlarmBudget: alarms_per_day: expected a number in [1e-6, 1e6], found " +
                                    std::to_string(options.alarms_per_day));
    }
    if (!(options.warming_level == options.warming_level)) {
        throw std::invalid_argument("AlarmBudget: warming_level: expected a number, found NaN");
    }
    std::fill(last_loud_.begin(), last_loud_.end(), 0U - kLongAgo);
    speaks_.reserve(slots);
}

AlarmBudget::~AlarmBudget() = default;
AlarmBudget::AlarmBudget(AlarmBudget&&) noexcept = default;
AlarmBudget& AlarmBudget::operator=(AlarmBudget&&) noexcept = default;

void AlarmBudget::assign(std::uint32_t slot, std::uint32_t pool) noexcept {
    if (slot >= used_) use(slot + 1);
    pool_[slot] = std::min(pool, slots_ - 1);
    clear(slot);
}

void AlarmBudget::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) clear(slot);
}

// What was kept of a slot before its first row is as new: only the hold-off counts from now.
void AlarmBudget::use(std::uint32_t slots) noexcept {
    for (; used_ < slots; ++used_) {
        last_loud_[used_] = static_cast<std::uint32_t>(rows_) - kLongAgo;
        rate_[used_] = bounded_rate(options_.alarms_per_day);
    }
}

void AlarmBudget::warm_at(float level) noexcept {
    options_.warming_level = level;
    for (std::uint32_t slot = 0; slot < slots_; ++slot) {
        level_[slot] = state_[slot] == BudgetState::warming ? level : level_[slot];
    }
}

void AlarmBudget::clear(std::uint32_t slot) noexcept {
    if (slot >= used_) return;
    promise(slot);
    total_.alarms += static_cast<double>(spoken_[slot]);
    total_.requested += static_cast<double>(promised_[slot]);
    ladder_[slot] = {};
    floor_[slot] = 0.0F;
    level_[slot] = options_.warming_level;
    last_loud_[slot] = static_cast<std::uint32_t>(rows_) - kLongAgo;
    observed_[slot] = 0;
    promised_rows_[slot] = 0;
    for (std::uint32_t g = 0; g < granules_; ++g) window_[std::size_t{g} * slots_ + slot] = 0;
    block_max_[slot] = 0;
    granule_max_[slot] = 0;
    episode_from_[slot] = kNoEpisode;
    episode_to_[slot] = 0;
    sought_[slot] = 0;
    state_[slot] = BudgetState::warming;
    own_octaves_[slot] = 0.0F;
    promised_[slot] = 0.0F;
    spoken_[slot] = 0;
    days_[slot] = 0.0;
    joined_days_ = elapsed_days_ + static_cast<double>(rows_ - rows_at_pass_) * interval_days_;
    join_pending_ = rows_ > 0 ? 1 : 0;
}

void AlarmBudget::request(std::uint32_t slot, double alarms_per_day) noexcept {
    promise(slot);
    rate_[slot] = bounded_rate(alarms_per_day);
}

void AlarmBudget::request_of_each(double alarms_per_day) noexcept {
    options_.alarms_per_day = alarms_per_day;
    for (std::uint32_t slot = 0; slot < used_; ++slot) request(slot, alarms_per_day);
}

// What the rows since the last call were promised, at the request of their time.
void AlarmBudget::promise(std::uint32_t slot) noexcept {
    const double days = static_cast<double>(observed_[slot] - promised_rows_[slot]) * interval_days_;
    promised_rows_[slot] = observed_[slot];
    if (state_[slot] == BudgetState::warming) return;
    promised_[slot] += static_cast<float>(static_cast<double>(rate_[slot]) * days);
}

double AlarmBudget::days(std::uint32_t slot) const noexcept {
    if (sought_[slot] != kPlaced) return 0.0;
    return days_[slot] + static_cast<double>(observed_[slot]) * interval_days_;
}

std::span<const std::uint32_t> AlarmBudget::step(std::span<const float> scores, Nanos mono) noexcept {
    ARGUS_ASSERT(scores.size() <= slots_);
    if (scores.size() > used_) use(static_cast<std::uint32_t>(scores.size()));
    const std::size_t count = scores.size();
    row_kernel(scores.data(), floor_.data(), level_.data(), count, static_cast<std::uint32_t>(rows_),
               options_.hold_off_rows, last_loud_.data(), observed_.data(), step_now_.data(), flags_.data());
    const std::size_t granule = block_row_ / granule_rows_;
    window_kernel(window_.data() + granule * slots_, step_now_.data(), count, block_max_.data(),
                  granule_max_.data(), step_before_.data(), flags_.data());
    speaks_.clear();
    constexpr std::size_t kWord = sizeof(std::uint64_t);
    for (std::size_t first = 0; first < count; first += kWord) {
        std::uint64_t any = 0;
        const std::size_t size = std::min(kWord, count - first);
        std::memcpy(&any, flags_.data() + first, size);
        if (any == 0) continue;
        for (std::size_t i = first; i < first + size; ++i) {
            if (flags_[i] == 0) continue;
            const bool speaks = (flags_[i] & 1U) != 0;
            learn_window(static_cast<std::uint32_t>(i), step_before_[i], step_now_[i], speaks);
            if (speaks) speaks_.push_back(static_cast<std::uint32_t>(i));
        }
    }
    advance_window();
    keep_time(mono);
    if (pass_.running != 0 && rows_ % kRefreshRows == 0) run_pass();
    return speaks_;
}

void AlarmBudget::learn_window(std::uint32_t slot, std::uint8_t before, std::uint8_t now, bool speaks) noexcept {
    auto& spoken = ladder_[slot].spoken;
    for (std::size_t k = before; k < now; ++k) {
        spoken[k] = static_cast<std::uint16_t>(spoken[k] + (spoken[k] != 0xFFFF ? 1 : 0));
    }
    if (speaks) {
        episode_from_[slot] = before;
        episode_to_[slot] = std::max(before, now);
        if (state_[slot] == BudgetState::warming) return;
        ++spoken_[slot];
        ++said_;
        const bool series = static_cast<double>(spoken_[slot]) > kStormAlarms + 2.0 * static_cast<double>(rate_[slot]);
        const bool scope = static_cast<double>(said_) > kStormAlarms + 2.0 * rate_of_all_;
        if (series || scope) storm_ = 1;
    } else if (episode_from_[slot] != kNoEpisode && before == episode_to_[slot]) {
        episode_to_[slot] = now;
    }
}

// The largest step of the hold-off is the larger of the suffix maximum of the block before, from where the
// present one stands, and of the maximum of the present one (van Herk 1992): O(1) a row.
void AlarmBudget::advance_window() noexcept {
    if (++block_row_ % granule_rows_ != 0) return;
    const std::size_t count = used_;
    const std::size_t done = block_row_ / granule_rows_;
    std::memcpy(window_.data() + (done - 1) * slots_, granule_max_.data(), count);
    std::fill_n(granule_max_.begin(), count, std::uint8_t{0});
    if (done < granules_) return;
    for (std::size_t g = granules_ - 1; g-- > 0;) {
        maximum_kernel(window_.data() + (g + 1) * slots_, count, window_.data() + g * slots_);
    }
    for (std::uint32_t slot = 0; slot < used_; ++slot) {
        if (sought_[slot] != kPlaced) seek_floor(slot);
    }
    std::fill_n(block_max_.begin(), count, std::uint8_t{0});
    block_row_ = 0;
}

// The largest score of a hold-off is about what the busiest level is. Two of them place the floor; what the
// ladder counted before, in its coarse upper steps, is forgotten.
void AlarmBudget::seek_floor(std::uint32_t slot) noexcept {
    const std::uint8_t most = block_max_[slot];
    const bool late = observed_[slot] / kSeekBlocks >= options_.hold_off_rows;
    const bool second = most != 0 && sought_[slot] != 0;
    if (most != 0) sought_[slot] = second ? std::min(sought_[slot], most) : most;
    if (!second && !late) return;
    const float floor = std::max(0.0F, edge(sought_[slot]) - kSoughtAt);
    sought_[slot] = kPlaced;
    move_floor(slot, floor);
    ladder_[slot] = {};
    observed_[slot] = 0;
    promised_rows_[slot] = 0;
    days_[slot] = 0.0;
}

void AlarmBudget::keep_time(Nanos mono) noexcept {
    constexpr std::uint64_t kOften = 64;
    constexpr std::uint64_t kSeldom = 32;
    cadence_->push(mono);
    ++rows_;
    if (rows_ < kOften || rows_ % kSeldom == 0) interval_days_ = cadence_->median_s() / kSecondsPerDay;
    if (pass_.running != 0 || used_ == 0) return;
    const double now = elapsed_days_ + static_cast<double>(rows_ - rows_at_pass_) * interval_days_;
    bool due = join_pending_ != 0 || now - elapsed_days_ >= 1.0;
    due |= storm_ != 0 && now - elapsed_days_ >= kStormEvery;
    for (const double mark : kJoinMarks) {
        due |= elapsed_days_ - joined_days_ < mark && now - joined_days_ >= mark;
    }
    if (due) begin_pass();
}

void AlarmBudget::begin_pass() noexcept {
    const double now = elapsed_days_ + static_cast<double>(rows_ - rows_at_pass_) * interval_days_;
    pass_ = {};
    pass_.running = 1;
    pass_.slots = used_;
    pass_.period_days = now - elapsed_days_;
    elapsed_days_ = now;
    rows_at_pass_ = rows_;
    join_pending_ = 0;
    storm_ = 0;
    said_ = 0;
    const double kept = 1.0 - std::min(pass_.period_days / kRecentDays, 1.0);
    recent_ = {recent_.alarms * kept, recent_.requested * kept, recent_.days * kept};
    std::fill(pool_begin_.begin(), pool_begin_.end(), 0U);
    for (std::uint32_t slot = 0; slot < used_; ++slot) ++pool_begin_[pool_[slot] + 1];
    for (std::uint32_t pool = 0; pool < slots_; ++pool) pool_begin_[pool + 1] += pool_begin_[pool];
    for (std::uint32_t slot = 0; slot < used_; ++slot) order_[pool_begin_[pool_[slot]]++] = slot;
    for (std::uint32_t i = 0; i < used_; ++i) {
        if (i + 1 == used_ || pool_[order_[i]] != pool_[order_[i + 1]]) order_[i] |= kLastOfPool;
    }
    open_pool();
}

void AlarmBudget::run_pass() noexcept {
    for (std::uint32_t visits = 0; visits < kVisitsPerRefresh && pass_.running != 0; ++visits) {
        const std::uint32_t slot = order_[pass_.at] & ~kLastOfPool;
        const bool last = (order_[pass_.at] & kLastOfPool) != 0;
        if (pass_.settling == 0) {
            gather(slot);
        } else {
            settle(slot);
        }
        ++pass_.at;
        if (!last) continue;
        if (pass_.settling == 0) {
            close_gathering();
            pass_.settling = 1;
            pass_.at = pass_.first;
            continue;
        }
        pass_.settling = 0;
        pass_.first = pass_.at;
        if (pass_.at == pass_.slots) {
            pass_.running = 0;
            rate_of_all_ = pass_.rate_of_all;
        } else {
            open_pool();
        }
    }
}

void AlarmBudget::open_pool() noexcept {
    double sum = 0.0;
    double squares = 0.0;
    double floors = 0.0;
    for (std::uint32_t i = pass_.first;; ++i) {
        const std::uint32_t slot = order_[i] & ~kLastOfPool;
        const double known = days(slot);
        sum += known;
        squares += known * known;
        floors += known * static_cast<double>(floor_[slot]);
        if ((order_[i] & kLastOfPool) != 0) break;
    }
    pass_.typical_days = sum > 0.0 ? squares / sum : 0.0;
    pass_.floor = sum > 0.0 ? static_cast<float>(floors / sum) : 0.0F;
    pass_.absolute_days = 0.0;
    pass_.aligned_days = 0.0;
    pass_.anchor_counts = 0.0;
    pass_.anchor_days = 0.0;
    pass_.spoken = 0.0;
    pass_.promised = 0.0;
    pass_.absolute.fill(0.0F);
    pass_.aligned.fill(0.0F);
}

void AlarmBudget::gather(std::uint32_t slot) noexcept {
    account(slot);
    if (!(days_[slot] > 0.0) || sought_[slot] != kPlaced) return;
    Survival survival(ladder_[slot], floor_[slot]);
    if (place_floor(slot, survival)) survival = Survival(ladder_[slot], floor_[slot]);
    pass_.absolute_days += days_[slot];
    for (std::size_t k = 0; k < kLevels; ++k) pass_.absolute[k] += survival.at(pass_.floor + kHeights[k]);
    if (days_[slot] < kYoungDays || 2.0 * days_[slot] < pass_.typical_days) return;
    const double rarest = survival.rarest_rate(days_[slot], pass_.typical_days);
    const float own = survival.level_of(rarest * days_[slot] - 0.5);
    if (!(own < kInfinite)) return;
    pass_.anchor_counts += rarest * days_[slot];
    pass_.anchor_days += days_[slot];
    for (std::size_t k = 0; k < kBelow + kLevels; ++k) pass_.aligned[k] += survival.at(own + kDistances[k]);
}

// Books what was said and promised since the last time, and takes it as feedback.
void AlarmBudget::account(std::uint32_t slot) noexcept {
    const auto row = static_cast<std::uint32_t>(rows_);
    if (row - last_loud_[slot] > kLongAgo) last_loud_[slot] = row - kLongAgo;
    if (sought_[slot] != kPlaced) return;
    promise(slot);
    const double new_days = static_cast<double>(observed_[slot]) * interval_days_;
    const double said = static_cast<double>(spoken_[slot]);
    const double promised = static_cast<double>(promised_[slot]);
    days_[slot] += new_days;
    observed_[slot] = 0;
    promised_rows_[slot] = 0;
    spoken_[slot] = 0;
    promised_[slot] = 0.0F;
    if (days_[slot] > kMemoryDays) {
        days_[slot] *= 0.5;
        const std::uint16_t up = slot & 1U;  // siblings round both ways
        for (std::uint16_t& count : ladder_[slot].spoken) count = static_cast<std::uint16_t>((count + up) / 2);
    }
    if (state_[slot] == BudgetState::warming) return;
    for (Realised* book : {&total_, &recent_}) {
        book->alarms += said;
        book->requested += promised;
        book->days += new_days;
    }
    if (days_[slot] - new_days < kYoungDays) return;
    const double asked = std::sqrt(static_cast<double>(rate_[slot]) * days_[slot]);
    const double moved =
        static_cast<double>(own_octaves_[slot]) + kOwnGain * (said - promised) / std::max(1.0, asked);
    own_octaves_[slot] = static_cast<float>(std::clamp(moved, -kOwnMost, kOwnMost));
    pass_.spoken += said;
    pass_.promised += promised;
}

// Moves the floor to just below the busiest level, where the fine steps are of use.
bool AlarmBudget::place_floor(std::uint32_t slot, const Survival& survival) noexcept {
    if (ladder_[slot].spoken[survival.busiest] < kBusiestCounts) return false;
    const float height = kHeights[survival.busiest];
    const bool low = survival.busiest == 0 && floor_[slot] > 0.0F;
    if (height <= kBusiestMost && !low) return false;
    const float floor = std::max(0.0F, survival.busiest_level() - kBusiestAt);
    for (std::size_t k = 0; k < kLevels; ++k) {
        ladder_[slot].spoken[k] = static_cast<std::uint16_t>(survival.at(floor + kHeights[k]) + 0.5F);
    }
    move_floor(slot, floor);
    return true;
}

// All that is kept in steps follows the floor; the counts are the caller's.
void AlarmBudget::move_floor(std::uint32_t slot, float floor) noexcept {
    const float up = floor - floor_[slot];
    const auto move = [up](std::uint8_t& step) {
        if (step != 0) step = static_cast<std::uint8_t>(step_of(edge(step) - up));
    };
    for (std::uint32_t g = 0; g < granules_; ++g) move(window_[std::size_t{g} * slots_ + slot]);
    move(block_max_[slot]);
    move(granule_max_[slot]);
    if (episode_from_[slot] != kNoEpisode) move(episode_from_[slot]);
    move(episode_to_[slot]);
    floor_[slot] = floor;
}

void AlarmBudget::close_gathering() noexcept {
    // Days such that the curve has the anchors' mean rate where it is aligned.
    pass_.aligned_days = pass_.anchor_counts > 0.0 ? static_cast<double>(pass_.aligned[kBelow]) *
                                                         pass_.anchor_days / pass_.anchor_counts
                                                   : 0.0;
    float& octaves = pool_octaves_[pool_[order_[pass_.first] & ~kLastOfPool]];
    const double leak = 1.0 - kPoolLeak * std::min(pass_.period_days, 1.0);
    const double excess = (pass_.spoken - pass_.promised) / std::max(pass_.promised, kKnownCounts);
    const double moved = static_cast<double>(octaves) * leak + kPoolGain * excess;
    octaves = static_cast<float>(std::clamp(moved, -kPoolMost, kPoolMost));
}

void AlarmBudget::settle(std::uint32_t slot) noexcept {
    const double known = days_[slot];
    const double octaves = static_cast<double>(own_octaves_[slot] + pool_octaves_[pool_[slot]]);
    const double rate = static_cast<double>(rate_[slot]) * exp2_plain(-octaves);
    if (known < kYoungDays) {
        const bool shown = static_cast<double>(pass_.absolute[0]) >= kSlopeCounts;
        if (!shown || pass_.absolute_days - known < kYoungDays) {
            put_in_force(slot, options_.warming_level, BudgetState::warming);
            return;
        }
        const float height = reach(kHeights, pass_.absolute, rate * pass_.absolute_days);
        put_in_force(slot, pass_.floor + height, BudgetState::pooled);
        return;
    }
    const Survival survival(ladder_[slot], floor_[slot]);
    const double rarest = std::max(rate, survival.rarest_rate(known, known));
    float level = survival.level_of(rarest * known - 0.5);
    if (rarest > rate) {
        level += reach(kDistances, pass_.aligned, rate * pass_.aligned_days) -
                 reach(kDistances, pass_.aligned, rarest * pass_.aligned_days);
    }
    const bool counted = static_cast<double>(rate_[slot]) * known >= kKnownCounts;
    put_in_force(slot, std::max(level, survival.busiest_level()),
                 counted ? BudgetState::own : BudgetState::pooled);
}

void AlarmBudget::put_in_force(std::uint32_t slot, float level, BudgetState state) noexcept {
    promise(slot);
    state_[slot] = state;
    if (state != BudgetState::warming) pass_.rate_of_all += static_cast<double>(rate_[slot]);
    const float now = level == level ? level : kInfinite;
    const std::size_t granule = block_row_ / granule_rows_;
    const std::uint8_t recent = std::max(window_[granule * slots_ + slot], block_max_[slot]);
    const bool loud = recent > 0 && floor_[slot] + edge(recent) >= now;
    if (now < level_[slot] && loud) last_loud_[slot] = static_cast<std::uint32_t>(rows_) - 1;
    level_[slot] = now;
}

void AlarmBudget::confirm(std::uint32_t slot, bool true_alarm) noexcept {
    if (!true_alarm || episode_from_[slot] == kNoEpisode) return;
    auto& spoken = ladder_[slot].spoken;
    for (std::size_t k = episode_from_[slot]; k < episode_to_[slot]; ++k) {
        if (spoken[k] != 0 && spoken[k] != 0xFFFF) --spoken[k];
    }
    episode_from_[slot] = kNoEpisode;
    if (state_[slot] != BudgetState::warming) --spoken_[slot];
}

Realised AlarmBudget::realised() const noexcept {
    Realised sum = total_;
    for (std::uint32_t slot = 0; slot < used_; ++slot) {
        sum.alarms += static_cast<double>(spoken_[slot]);
        if (state_[slot] == BudgetState::warming) continue;
        const double unbooked = static_cast<double>(observed_[slot] - promised_rows_[slot]) * interval_days_;
        sum.requested += static_cast<double>(promised_[slot]) + static_cast<double>(rate_[slot]) * unbooked;
        sum.days += static_cast<double>(observed_[slot]) * interval_days_;
    }
    return sum;
}

double AlarmBudget::surprise_bits() const noexcept {
    constexpr double kBitsPerNat = 1.4426950408889634;
    const double said = std::max(recent_.alarms, 0.0);
    const double asked = recent_.requested;
    if (!(asked > 0.0)) return 0.0;
    const double in_proportion = said > 0.0 ? static_cast<double>(fast_log2(static_cast<float>(said / asked))) : 0.0;
    return kBitsPerNat * (asked - said) + said * in_proportion;
}

bool AlarmBudget::broken() const noexcept {
    constexpr double kUnlikelyBits = 13.287712;  // 1 in 10,000
    constexpr double kFewest = 5.0;
    if (recent_.alarms > recent_.requested && recent_.alarms < kFewest) return false;
    return surprise_bits() > kUnlikelyBits;
}

template <class Self, class Visit>
void AlarmBudget::each_array(Self& self, Visit&& visit) {
    const std::size_t used = self.used_;
    visit(std::span(self.ladder_).first(used));
    visit(std::span(self.floor_).first(used));
    visit(std::span(self.level_).first(used));
    visit(std::span(self.last_loud_).first(used));
    visit(std::span(self.observed_).first(used));
    visit(std::span(self.promised_rows_).first(used));
    visit(std::span(self.block_max_).first(used));
    visit(std::span(self.granule_max_).first(used));
    visit(std::span(self.sought_).first(used));
    visit(std::span(self.episode_from_).first(used));
    visit(std::span(self.episode_to_).first(used));
    visit(std::span(self.state_).first(used));
    visit(std::span(self.rate_).first(used));
    visit(std::span(self.own_octaves_).first(used));
    visit(std::span(self.promised_).first(used));
    visit(std::span(self.spoken_).first(used));
    visit(std::span(self.days_).first(used));
    visit(std::span(self.pool_).first(used));
    visit(std::span(self.order_).first(used));
    for (std::uint32_t g = 0; g < self.granules_; ++g) {
        visit(std::span(self.window_).subspan(std::size_t{g} * self.slots_, used));
    }
    visit(std::span(self.pool_octaves_));
}

void AlarmBudget::save(Writer& writer) const {
    writer.pod(used_);
    writer.pod(options_);
    each_array(*this, [&writer](auto values) { writer.array(values); });
    cadence_->save(writer);
    writer.pod(pass_);
    writer.pod(interval_days_);
    writer.pod(elapsed_days_);
    writer.pod(joined_days_);
    writer.pod(rows_);
    writer.pod(rows_at_pass_);
    writer.pod(block_row_);
    writer.pod(join_pending_);
    writer.pod(storm_);
    writer.pod(said_);
    writer.pod(rate_of_all_);
    writer.pod(total_);
    writer.pod(recent_);
}

void AlarmBudget::load(Reader& reader) {
    const auto used = reader.pod<std::uint32_t>();
    if (used > slots_) throw CodecError("alarm budget: saved with more slots");
    *this = AlarmBudget(slots_, reader.pod<BudgetOptions>());
    use(used);
    each_array(*this, [&reader](auto values) { reader.array(values); });
    cadence_->load(reader);
    pass_ = reader.pod<Pass>();
    interval_days_ = reader.pod<double>();
    elapsed_days_ = reader.pod<double>();
    joined_days_ = reader.pod<double>();
    rows_ = reader.pod<std::uint64_t>();
    rows_at_pass_ = reader.pod<std::uint64_t>();
    block_row_ = reader.pod<std::uint32_t>();
    join_pending_ = reader.pod<std::uint32_t>();
    storm_ = reader.pod<std::uint32_t>();
    said_ = reader.pod<std::uint32_t>();
    rate_of_all_ = reader.pod<double>();
    total_ = reader.pod<Realised>();
    recent_ = reader.pod<Realised>();
}

}  // namespace argus::engine
