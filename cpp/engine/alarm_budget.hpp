// Alarms a day, kept: from a one-sided score per row and series to the level at which a series speaks, online,
// in one pass, whatever the score's distribution and the dependence between its rows.
//
// Policy: a series speaks at level L when its score reaches L and did not within the last hold_off_rows rows.
// Ladder: per series, for 128 levels at once, how often the policy would have spoken. A row adds one to the
//   levels above the largest score of the hold-off and up to its own. Episodes are counted, not rows, so
//   dependence needs no correction. Levels stand log-spaced above a floor of the series' own, which follows
//   the busiest level: 1/32 bit apart at the floor, 4 bits 100 bits above it. Counts are u16 and saturate,
//   which only levels that speak all day can see; they halve together with their days after 512 days.
// Level for a rate r after T days: the rarest rate that a series knows by itself is r0 = max(r, 5/T); its own
//   ladder gives the level of r0; the step from r0 to r is read from the ladders of its siblings (its pool: the
//   same metric elsewhere), each laid on its own level of 5/T: place from the series, shape from its siblings
//   (the index flood of hydrology: Dalrymple 1960; Hosking and Wallis 1997). Beyond the last 5 counts of the
//   pool the tail is exponential.
// Feedback: what was spoken against what was promised moves the rate asked of the ladder, in octaves, per
//   series and, in common, per pool. A request may change at any time: the feedback is relative to it.
// Young series: below one day the level at which the mean sibling speaks r times a day, once the siblings show
//   25 counts in more than a day; else the caller's warming level.
// Refresh: when a series joins, 1, 3, 8, 24 and 36 hours later, then daily, and within the hour when a series or
//   the scope spoke far more than its day's request; in slices of 4,096 series. Levels change after each 32nd row
//   only, so that a block of rows between can be judged against the levels in force at its beginning.
//
// A day is 86,400 s of rows seen: observed rows times the median interval between rows, so gaps, steps and
// jumps of the clock count nothing. NaN and infinite scores are missing: they teach nothing and age only the
// hold-off, which counts rows of the scope.
//
// Not promised: that alarms are false (unconfirmed, the request is a budget for all alarms); single streams to
// better than Poisson noise; the first three days, or a process whose memory is longer than its history; requests
// above half of what the hold-off admits. A series without siblings errs to the quiet side where its tail is
// lighter than exponential, until it has seen what it asks for. Cost and figures: bench_alarm_budget.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "base/zeroed.hpp"

namespace argus::engine {

class Cadence;

struct BudgetOptions {
    double alarms_per_day = 1.0;          // of each series, until request() says otherwise
    float warming_level = 30.0F;          // in force while nothing is known of a series
    std::uint32_t hold_off_rows = 100;    // exact up to 128 rows; beyond, the ladder's is right to 1 %
};

enum class BudgetState : std::uint8_t {
    warming,  // less than a day, no siblings with history: the warming level
    pooled,   // fewer than 5 alarms asked for so far: tail from the siblings, or its own extended where it has none
    own,      // the series' own count
};

// What was asked and what was said, over all series, outside of warming.
struct Realised {
    double alarms = 0.0;     // confirmed ones left out
    double requested = 0.0;
    double days = 0.0;       // series-days
};

class AlarmBudget {
public:
    static constexpr std::uint32_t kRefreshRows = 32;

    // Throws std::invalid_argument when an option is out of range.
    AlarmBudget(std::uint32_t slots, BudgetOptions options);
    ~AlarmBudget();
    AlarmBudget(AlarmBudget&&) noexcept;
    AlarmBudget& operator=(AlarmBudget&&) noexcept;

    // A new series takes the slot; pool < slots groups it with its siblings. All begin in pool 0. What the slot was
    // asked for stays.
    void assign(std::uint32_t slot, std::uint32_t pool) noexcept;

    // Alarms a day that the series may speak from now on, kept within 1e-6 .. 1e6.
    void request(std::uint32_t slot, double alarms_per_day) noexcept;

    void request_of_each(double alarms_per_day) noexcept;  // of slots that come into use later, too

    // In force from now on where nothing is known of a series. Only between blocks of kRefreshRows rows.
    void warm_at(float level) noexcept;

    // One row: a score per slot, NaN = not observed; slots behind the last score are not in use yet and cost nothing.
    // Returns the slots that speak, valid until the next call.
    std::span<const std::uint32_t> step(std::span<const float> scores, Nanos mono) noexcept;

    // Of the slot's last spoken alarm. A true one counts neither as spoken nor in the ladder.
    void confirm(std::uint32_t slot, bool true_alarm) noexcept;

    [[nodiscard]] std::span<const float> levels() const noexcept { return level_; }  // in force; infinite = silent
    [[nodiscard]] BudgetState state(std::uint32_t slot) const noexcept { return state_[slot]; }
    [[nodiscard]] double days(std::uint32_t slot) const noexcept;
    [[nodiscard]] std::uint32_t used() const noexcept { return used_; }  // slots up to the last one in use

    [[nodiscard]] Realised realised() const noexcept;
    // Of the last month or so, up to the last refresh.
    [[nodiscard]] Realised recent() const noexcept { return recent_; }
    // -log2 of Chernoff's bound on the chance that a Poisson count lies as far from the request as the recent one.
    [[nodiscard]] double surprise_bits() const noexcept;
    // The recent count is as far from the request as a Poisson count is once in 10,000 times and, when it is too
    // large, at least 5 alarms.
    [[nodiscard]] bool broken() const noexcept;

    void reset(std::span<const std::uint32_t> slots) noexcept;  // new series in the same pools
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    static constexpr std::uint32_t kLevels = 128;
    static constexpr std::uint32_t kBelow = 64;  // points of the aligned curve below its origin

    struct Ladder {
        std::array<std::uint16_t, kLevels> spoken{};
    };
    struct Survival;
    // A refresh in progress: pool after pool, first all members are gathered, then all levels set.
    struct Pass {
        std::uint32_t running = 0;
        std::uint32_t slots = 0;    // in use when it began
        std::uint32_t settling = 0;
        std::uint32_t first = 0;  // of the pool in hand, in order_
        std::uint32_t at = 0;
        float floor = 0.0F;       // common floor of the absolute curve
        std::uint32_t spare = 0;
        double typical_days = 0.0;
        double absolute_days = 0.0;
        double aligned_days = 0.0;
        double anchor_counts = 0.0;
        double anchor_days = 0.0;
        double spoken = 0.0;
        double promised = 0.0;
        double period_days = 0.0;
        double rate_of_all = 0.0;
        std::array<float, kLevels> absolute{};           // counts at levels above `floor`
        std::array<float, kBelow + kLevels> aligned{};   // counts at distances from each one's own level
    };

    void learn_window(std::uint32_t slot, std::uint8_t before, std::uint8_t now, bool speaks) noexcept;
    void advance_window() noexcept;
    void keep_time(Nanos mono) noexcept;
    void begin_pass() noexcept;
    void run_pass() noexcept;
    void open_pool() noexcept;
    void gather(std::uint32_t slot) noexcept;
    void account(std::uint32_t slot) noexcept;
    void seek_floor(std::uint32_t slot) noexcept;
    void move_floor(std::uint32_t slot, float floor) noexcept;
    [[nodiscard]] bool place_floor(std::uint32_t slot, const Survival& survival) noexcept;
    void close_gathering() noexcept;
    void settle(std::uint32_t slot) noexcept;
    void put_in_force(std::uint32_t slot, float level, BudgetState state) noexcept;
    void promise(std::uint32_t slot) noexcept;
    void clear(std::uint32_t slot) noexcept;
    void use(std::uint32_t slots) noexcept;
    template <class Self, class Visit>
    static void each_array(Self& self, Visit&& visit);  // of what is kept of the slots in use
    [[nodiscard]] double row_days() const noexcept;

    BudgetOptions options_;
    std::uint32_t slots_;
    std::uint32_t used_ = 0;
    std::uint32_t granule_rows_;
    std::uint32_t granules_;

    ZeroedVector<Ladder> ladder_;
    std::vector<float> floor_;
    std::vector<float> level_;
    std::vector<std::uint32_t> last_loud_;     // row on which the score last reached the level
    std::vector<std::uint32_t> observed_;      // rows since the slot's last account
    std::vector<std::uint32_t> promised_rows_; // of them, those before the last change of the request
    ZeroedVector<std::uint8_t> window_;        // [granule][slot] ladder steps: suffix maxima of the block before,
                                               // then what is new of this one
    std::vector<std::uint8_t> block_max_;      // of the present block of the window
    std::vector<std::uint8_t> granule_max_;
    std::vector<std::uint8_t> sought_;         // least maximum of a block while the floor is sought; 255 = placed
    std::vector<std::uint8_t> episode_from_;   // ladder steps that the last alarm's episode added
    std::vector<std::uint8_t> episode_to_;
    std::vector<BudgetState> state_;
    std::vector<float> rate_;                  // requested alarms a day
    std::vector<float> own_octaves_;           // feedback
    std::vector<float> pool_octaves_;          // by pool
    std::vector<float> promised_;              // alarms, since the last account
    std::vector<std::int32_t> spoken_;         // likewise
    std::vector<double> days_;
    std::vector<std::uint32_t> pool_;
    std::vector<std::uint32_t> order_;         // slots by pool; the top bit marks the last of a pool

    std::unique_ptr<Cadence> cadence_;
    Pass pass_;
    double interval_days_ = 0.0;
    double elapsed_days_ = 0.0;   // at the last pass
    double joined_days_ = 0.0;    // when the youngest series joined
    std::uint64_t rows_ = 0;
    std::uint64_t rows_at_pass_ = 0;
    std::uint32_t block_row_ = 0;
    std::uint32_t join_pending_ = 0;
    std::uint32_t storm_ = 0;     // far more than a day's request was spoken since the last pass
    std::uint32_t said_ = 0;      // alarms since the last pass, outside of warming
    double rate_of_all_ = 0.0;    // alarms a day that all series ask for, outside of warming
    Realised total_;
    Realised recent_;

    std::vector<std::uint8_t> step_now_;       // scratch of one row
    std::vector<std::uint8_t> step_before_;
    std::vector<std::uint8_t> flags_;
    std::vector<std::uint32_t> speaks_;
    std::vector<std::uint32_t> pool_begin_;    // scratch of begin_pass
};

}  // namespace argus::engine
