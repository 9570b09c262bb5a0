// Has the law of a stream of finished tasks changed, and since when? A two-segment Bayes factor with
// Dirichlet-multinomial marginals: how much better two laws, before and after a split, explain the tasks than one does.
// The evidence of a split is AVERAGED over four views of a task, coarse to fine:
//   ok (2 categories, a = 1); ok x calls (14, 1/2); ok x first tool x calls (280, 1/10); ok x first tool x exact calls
//   (400, 1/10); the joint with success is what makes a handful of tasks enough.
// Splits lie at geometric distances (an exponential histogram: four of a size over blocks of three tasks), so that a
// slow decline is met by a split far back. `Evidence mix` takes the best split; `outcome` looks at success alone, at
// every task, and sums over its splits. Exact in its integers; logarithms and exponentials are own series, so that the
// bits do not depend on the machine's mathematical library.
// Source: Barry and Hartigan 1993 (product partition models); Datar et al. 2002 (exponential histograms).
//
// A finer view is silent while more of its categories were seen once than its prior leaves to the unseen: names that
// hardly come again have no law. A full table folds all but its most used tools into one.
//
// Memory a stream: the last 256 tasks as cells of the finest view, what is older as buckets of (ok, calls) counts that
// merge as they age, 32 cells a page from a shared pool. Beyond 8,192 tasks what is old counts half.
// Not promised: splits farther back than 256 tasks are judged by the two coarse views alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/codec.hpp"
#include "events/slab.hpp"

namespace argus::auditors {

[[nodiscard]] double natural_log(double x) noexcept;  // finite x > 0; relative error < 1e-15
[[nodiscard]] double exponential(double x) noexcept;  // relative error < 1e-14; 0 below -700, e^700 above

enum class Success : std::uint8_t { no, yes, unknown };
inline constexpr std::size_t kSuccesses = 3;
inline constexpr std::uint32_t kCallsMax = 12;     // exact calls are told apart up to here
inline constexpr std::size_t kCallBuckets = 7;     // 0, 1, 2, 3, 4-5, 6-8, 9 and more
inline constexpr std::size_t kCoarseCells = kSuccesses * kCallBuckets;

[[nodiscard]] std::size_t calls_bucket(std::uint32_t calls) noexcept;

struct FinishedTask {
    Success success = Success::unknown;
    std::uint32_t calls = 0;
    std::uint32_t tool = 0;  // hash of the first tool's name, of which 24 bits are kept
};

enum class View : std::uint8_t { success, calls, tool_calls, tool_exact_calls };
inline constexpr std::size_t kViews = 4;

inline constexpr std::size_t kRecentTasks = 256;
inline constexpr std::size_t kOldBuckets = 10;
inline constexpr std::size_t kPageCells = 32;
inline constexpr std::size_t kPages = 13;
inline constexpr std::size_t kCellsMax = 400;
inline constexpr std::size_t kTimes = 33;
inline constexpr std::uint32_t kTasksMax = 8192;

// One category of the finest view; `coarse` numbers its category of the view with bucketed calls.
struct Cell {
    std::uint32_t key = 0;
    std::uint16_t count = 0, coarse = 0;

    [[nodiscard]] Success success() const noexcept { return static_cast<Success>(key & 3U); }
    [[nodiscard]] std::uint32_t calls() const noexcept { return key >> 2U & 15U; }
    [[nodiscard]] std::uint32_t tool() const noexcept { return key >> 8U; }
};

struct OldBucket {
    std::array<std::uint16_t, kCoarseCells> counts{};
    std::uint16_t size_class = 0, known = 0, succeeded = 0;
    std::uint32_t began_s = 0;
};

// One stream's memory. All zero = nothing seen.
struct History {
    std::uint32_t tasks = 0;  // seen since the last restart
    std::uint16_t cells = 0, coarse = 0;
    std::uint16_t total = 0, known = 0, succeeded = 0;  // tasks that still count
    std::uint16_t old_count = 0, open_tasks = 0;
    bool crowded = false;  // more tools came than have a place: the rare ones are one
    std::array<std::uint16_t, kPages> pages{};          // + 1; 0 = none
    std::array<std::uint64_t, kRecentTasks / 64> recent_known{}, recent_succeeded{};  // newest task is bit 0
    std::array<std::uint16_t, kRecentTasks> codes{};    // cell of task t at t mod 256
    std::array<std::uint32_t, kTimes> times_s{};        // arrival of every eighth task
    OldBucket open;                                     // what left the recent tasks last
    std::array<OldBucket, kOldBuckets> old{};           // oldest first
};

// Tasks after the split: `recent` of the newest, and whole old buckets before those.
struct Split {
    std::uint32_t recent = 0;
    std::uint32_t buckets = 0;  // the open one counts as the first
};

struct Evidence {
    double ln_bf = -std::numeric_limits<double>::infinity();
    View view = View::success;  // that carried it
    Split split;
};

struct Segment {
    std::uint32_t tasks = 0, known = 0, succeeded = 0;
    double calls = 0.0;  // mean number, buckets taken at their middle
};

struct ToolShift {
    std::uint32_t tool = 0;  // 24 bits of the hash
    double before = 0.0, after = 0.0;  // share of tasks that begin with it
};

// Beta(1 + successes, 1 + failures): mean, and the central 95 % interval.
struct Rate {
    double mean = 0.5, lower = 0.0, upper = 1.0;
};

struct Comparison {
    Rate before, after;
    double chance = 0.0;
};

class ChangePoint {
public:
    explicit ChangePoint(std::uint32_t cell_pages);

    void learn(History& history, const FinishedTask& task, std::uint32_t now_s) noexcept;
    void restart(History& history) noexcept;  // also gives back its cells

    // Nothing (-infinity) before 40 tasks lie left and 6 right of a split; mix() also between blocks of three tasks.
    [[nodiscard]] Evidence mix(const History& history) noexcept;
    [[nodiscard]] Evidence outcome(const History& history) const noexcept;

    // What a long stream pays on top of any bar: the more tasks it holds, the more often a chance run of some length
    // comes by. 0 up to 1,000 tasks, then the logarithm of how many times that.
    [[nodiscard]] static double length_toll(const History& history) noexcept;

    // ln Bayes factor of success alone for two given segments.
    [[nodiscard]] double success_ln_bf(const Segment& before, const Segment& after) const noexcept;

    // The two success rates, and the chance that they differ by at least delta.
    [[nodiscard]] Comparison compare(const Segment& before, const Segment& after, double delta) const noexcept;

    [[nodiscard]] std::array<Segment, 2> segments(const History& history, const Split& split) const noexcept;
    [[nodiscard]] std::uint32_t began_s(const History& history, const Split& split) const noexcept;
    [[nodiscard]] ToolShift largest_tool_shift(const History& history, const Split& split) const noexcept;

    void save(const History& history, Writer& writer) const;  // the cells; the history itself is its owner's
    void load(History& history, Reader& reader);              // refuses a history that cannot be
    void forget_all_pages() noexcept;                         // before a load

private:
    // ln Gamma(k + a) - ln Gamma(a) for k = 0, 1, ..., and its steps ln(k + a).
    struct Law {
        explicit Law(double a);
        [[nodiscard]] double operator()(std::uint32_t k) const noexcept { return table[k]; }
        std::vector<double> table, step;
    };
    static constexpr double kPriorTools = 28.0, kPriorExactCalls = 40.0;  // pseudo-tasks of the finer views
    struct Tally;
    static constexpr std::size_t kGrid = 1000;
    using Posterior = std::array<double, kGrid>;
    [[nodiscard]] Posterior posterior(const Segment& segment) const noexcept;
    [[nodiscard]] static Rate rate_of(const Segment& segment, const Posterior& mass) noexcept;
    struct Sides {
        std::uint16_t left = 0, right = 0;
    };
    struct Scratch {
        std::array<Sides, kCellsMax> cells{}, coarse{};
        std::array<std::uint16_t, kCellsMax> coarse_of{};
        std::array<std::uint8_t, kCellsMax> calls_of{};
    };
    [[nodiscard]] Cell& cell(const History& h, std::size_t i) noexcept;
    [[nodiscard]] const Cell& cell(const History& h, std::size_t i) const noexcept;
    [[nodiscard]] std::uint16_t cell_of(History& h, const FinishedTask& task) noexcept;
    [[nodiscard]] std::uint16_t find_cell(const History& h, std::uint32_t key) const noexcept;
    [[nodiscard]] std::uint32_t tasks_of_tool(const History& h, std::uint32_t tool) const noexcept;
    void crowd(History& h) noexcept;
    [[nodiscard]] std::uint16_t new_cell(History& h, std::uint32_t key) noexcept;
    void number_coarse(History& h, std::size_t i) noexcept;
    void retire(History& h) noexcept;
    static void close_open_bucket(History& h) noexcept;
    void fade(History& h) noexcept;
    void prepare(const History& h, Tally& tally) noexcept;
    void consider(const Tally& tally, const Split& split, std::size_t views, Evidence& best) const noexcept;

    Law gain_one_{1.0}, gain_half_{0.5}, gain_tenth_{0.1}, gain_two_{2.0};
    Law loss2_{2.0}, loss14_{7.0}, loss280_{kPriorTools}, loss400_{kPriorExactCalls}, loss_two_{4.0};
    events::MappedArray<Cell> pool_;
    std::vector<std::uint16_t> free_;
    Scratch scratch_;
    Posterior grid_log_{};
};

}  // namespace argus::auditors
