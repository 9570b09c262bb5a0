#include "auditors/change_point.hpp"

#include <algorithm>
#include <bit>

namespace argus::auditors {
namespace {

constexpr double kLn2 = 0.693147180559945309417;
constexpr std::uint32_t kBlock = 3;        // tasks between two readings of the mix
constexpr std::uint32_t kLeftMin = 40, kRightMin = 6;
constexpr std::uint32_t kOldTasks = 96;    // of the youngest old bucket
constexpr std::size_t kOldOfASize = 2;
constexpr std::uint32_t kOtherTool = 0xffffff;
constexpr std::size_t kOtherCells = kSuccesses * (kCallsMax + 1);  // kept back for tools beyond the table
constexpr std::size_t kCoarseMax = 280, kOtherCoarse = kCoarseCells;
constexpr std::uint32_t kRounding = 1024;  // tasks by which halved cells may exceed halved buckets
constexpr std::size_t kCrowdedTools = (kCellsMax - kOtherCells) / kOtherCells;
constexpr std::size_t kCoarseViews = 2;
constexpr double kNovelty = 1.5;  // new categories a view may show, in multiples of what its prior expects
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr std::array<double, kCallBuckets> kBucketMiddle{0, 1, 2, 3, 4.5, 7, 11};

[[nodiscard]] std::uint32_t key_of(const FinishedTask& task, std::uint32_t tool) noexcept {
    return static_cast<std::uint32_t>(task.success) | std::min(task.calls, kCallsMax) << 2U | tool << 8U;
}

[[nodiscard]] std::size_t coarse_cell(Success success, std::uint32_t calls) noexcept {
    return static_cast<std::size_t>(success) * kCallBuckets + calls_bucket(calls);
}

// Is a boundary `age` units back, `position` units from the start, kept by an exponential histogram of `of_a_size`
// buckets of each size? At age of_a_size (2^k - 1) and more it lies on a multiple of 2^k.
[[nodiscard]] bool kept(std::uint32_t position, std::uint32_t age, std::uint32_t of_a_size) noexcept {
    return position == 0 || std::countr_zero(position) + 1 >= static_cast<int>(std::bit_width(age / of_a_size + 1));
}

template <std::size_t kWords>
void push(std::array<std::uint64_t, kWords>& bits, bool value) noexcept {
    for (std::size_t w = kWords; w-- > 1;) bits[w] = bits[w] << 1U | bits[w - 1] >> 63U;
    bits[0] = bits[0] << 1U | (value ? 1U : 0U);
}

// How many of the newest n tasks carry the mark.
class NewestCount {
public:
    explicit NewestCount(const std::array<std::uint64_t, kRecentTasks / 64>& bits) noexcept : bits_(bits) {
        for (std::size_t w = 0; w < bits.size(); ++w) {
            sums_[w + 1] = sums_[w] + static_cast<std::uint32_t>(std::popcount(bits[w]));
        }
    }
    [[nodiscard]] std::uint32_t operator()(std::uint32_t n) const noexcept {
        const std::size_t word = n / 64;
        if (n % 64 == 0) return sums_[word];
        const std::uint64_t newest = bits_[word] & ((std::uint64_t{1} << n % 64) - 1);
        return sums_[word] + static_cast<std::uint32_t>(std::popcount(newest));
    }

private:
    const std::array<std::uint64_t, kRecentTasks / 64>& bits_;
    std::array<std::uint32_t, kRecentTasks / 64 + 1> sums_{};
};

// The sums of success over a bucket's categories.
void settle(OldBucket& bucket) noexcept {
    std::uint32_t failed = 0, succeeded = 0;
    for (std::size_t i = 0; i < kCallBuckets; ++i) {
        failed += bucket.counts[i];
        succeeded += bucket.counts[kCallBuckets + i];
    }
    bucket.known = static_cast<std::uint16_t>(failed + succeeded);
    bucket.succeeded = static_cast<std::uint16_t>(succeeded);
}

[[nodiscard]] std::uint32_t tasks_of(const OldBucket& bucket) noexcept {
    std::uint32_t unknown = 0;
    for (std::size_t i = 2 * kCallBuckets; i < kCoarseCells; ++i) unknown += bucket.counts[i];
    return bucket.known + unknown;
}

// The open bucket is the youngest of the old ones.
[[nodiscard]] const OldBucket& old_bucket(const History& h, std::uint32_t youngest_first) noexcept {
    return youngest_first == 0 ? h.open : h.old[h.old_count - youngest_first];
}

}  // namespace

double natural_log(double x) noexcept {
    const auto raw = std::bit_cast<std::uint64_t>(x);
    constexpr std::uint64_t kRootHalf = 0x3FE6A09E667F3BCDULL;
    const auto shifted = static_cast<std::int64_t>(raw - kRootHalf);
    const std::int64_t exponent = shifted >> 52;
    constexpr std::uint64_t kMantissa = 0x000FFFFFFFFFFFFFULL;
    const double m = std::bit_cast<double>(((raw - kRootHalf) & kMantissa) + kRootHalf);
    const double t = (m - 1.0) / (m + 1.0);
    const double t2 = t * t;
    double series = 0.0;
    for (int k = 23; k >= 3; k -= 2) series = t2 * (1.0 / k + series);
    return static_cast<double>(exponent) * kLn2 + 2.0 * t * (1.0 + series);
}

double exponential(double x) noexcept {
    if (x < -700.0) return 0.0;
    const double bounded = std::min(x, 700.0);
    constexpr double kLn2High = 0x1.62e42fee00000p-1;  // 32 bits, so that a product with the exponent is exact
    constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
    const auto whole = static_cast<std::int64_t>(bounded * (1.0 / kLn2) + (bounded < 0 ? -0.5 : 0.5));
    const auto k = static_cast<double>(whole);
    const double r = (bounded - k * kLn2High) - k * kLn2Low;
    double series = 1.0;
    for (int n = 14; n >= 1; --n) series = 1.0 + r * (1.0 / n) * series;
    return series * std::bit_cast<double>(static_cast<std::uint64_t>(whole + 1023) << 52U);
}

std::size_t calls_bucket(std::uint32_t calls) noexcept {
    constexpr std::array<std::uint8_t, 10> kBuckets{0, 1, 2, 3, 4, 4, 5, 5, 5, 6};
    return kBuckets[std::min<std::uint32_t>(calls, 9)];
}

ChangePoint::Law::Law(double a) : table(kTasksMax + kRounding + 1), step(table.size()) {
    for (std::uint32_t k = 0; k + 1 < table.size(); ++k) {
        step[k] = natural_log(k + a);
        table[k + 1] = table[k] + step[k];
    }
}

ChangePoint::ChangePoint(std::uint32_t cell_pages) : pool_(std::size_t{cell_pages} * kPageCells) {
    free_.reserve(cell_pages);
    for (std::size_t i = 0; i < kGrid; ++i) grid_log_[i] = natural_log((static_cast<double>(i) + 0.5) / kGrid);
    forget_all_pages();
}

void ChangePoint::forget_all_pages() noexcept {
    free_.clear();  // never grows beyond what was reserved
    for (std::size_t page = pool_.size() / kPageCells; page > 0; --page) {
        free_.push_back(static_cast<std::uint16_t>(page));
    }
}

Cell& ChangePoint::cell(const History& h, std::size_t i) noexcept {
    return pool_[(h.pages[i / kPageCells] - 1U) * kPageCells + i % kPageCells];
}
const Cell& ChangePoint::cell(const History& h, std::size_t i) const noexcept {
    return pool_[(h.pages[i / kPageCells] - 1U) * kPageCells + i % kPageCells];
}

std::uint16_t ChangePoint::find_cell(const History& h, std::uint32_t key) const noexcept {
    for (std::size_t first = 0; first < h.cells; first += kPageCells) {
        const Cell* const page = &cell(h, first);
        const std::size_t count = std::min<std::size_t>(kPageCells, h.cells - first);
        for (std::size_t i = 0; i < count; ++i) {
            if (page[i].key == key) return static_cast<std::uint16_t>(first + i);
        }
    }
    return kCellsMax;
}

std::uint32_t ChangePoint::tasks_of_tool(const History& h, std::uint32_t tool) const noexcept {
    std::uint32_t tasks = 0;
    for (std::size_t i = 0; i < h.cells; ++i) tasks += cell(h, i).tool() == tool ? cell(h, i).count : 0U;
    return tasks;
}

// Gives cell i, the newest, its category of the coarser view.
void ChangePoint::number_coarse(History& h, std::size_t i) noexcept {
    Cell& fresh = cell(h, i);
    const std::size_t calls = coarse_cell(fresh.success(), fresh.calls());
    for (std::size_t j = 0; j < i; ++j) {
        const Cell& other = cell(h, j);
        if (other.tool() != fresh.tool() || coarse_cell(other.success(), other.calls()) != calls) continue;
        fresh.coarse = other.coarse;
        return;
    }
    fresh.coarse = h.coarse++;
}

// The table is full: all but the most used tools become one, in the past as from now on. Otherwise what has no place
// any more would seem to change the law.
void ChangePoint::crowd(History& h) noexcept {
    h.crowded = true;
    std::array<Cell, kCellsMax> before;
    std::array<std::uint16_t, kCellsMax> tasks{}, moved{};
    const std::size_t count = h.cells;
    for (std::size_t i = 0; i < count; ++i) before[i] = cell(h, i);
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < count; ++j) {
            if (before[j].tool() == before[i].tool()) tasks[i] = static_cast<std::uint16_t>(tasks[i] + before[j].count);
        }
    }
    // As many tools stay as have a place for all they may do: what is kept never lacks a cell again.
    std::uint32_t enough = 2;
    const auto kept_tools = [&] {
        std::size_t tools = 0;
        for (std::size_t i = 0; i < count; ++i) {
            bool first = tasks[i] >= enough;
            for (std::size_t j = 0; first && j < i; ++j) first = before[j].tool() != before[i].tool();
            tools += first ? 1U : 0U;
        }
        return tools;
    };
    while (kept_tools() > kCrowdedTools) ++enough;
    h.cells = h.coarse = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t key = tasks[i] >= enough ? before[i].key : before[i].key | kOtherTool << 8U;
        moved[i] = find_cell(h, key);
        if (moved[i] == kCellsMax) {
            moved[i] = h.cells++;
            cell(h, moved[i]) = {key, 0, 0};
            number_coarse(h, moved[i]);
        }
        Cell& to = cell(h, moved[i]);
        to.count = static_cast<std::uint16_t>(to.count + before[i].count);
    }
    const std::size_t recent = std::min<std::size_t>(h.tasks, kRecentTasks);
    for (std::size_t t = 0; t < recent; ++t) h.codes[t] = moved[h.codes[t]];
    const auto pages = [](std::size_t cells) { return (cells + kPageCells - 1) / kPageCells; };
    for (std::size_t page = pages(h.cells); page < pages(count); ++page) free_.push_back(h.pages[page]);
}

// An empty cell of that key; kCellsMax: no page is free.
std::uint16_t ChangePoint::new_cell(History& h, std::uint32_t key) noexcept {
    if (h.cells % kPageCells == 0) {
        if (free_.empty()) return kCellsMax;
        h.pages[h.cells / kPageCells] = free_.back();
        free_.pop_back();
    }
    const std::uint16_t i = h.cells++;
    cell(h, i) = {key, 0, 0};
    number_coarse(h, i);
    return i;
}

// The cell of a task, made where there is none; kCellsMax: no page is free.
std::uint16_t ChangePoint::cell_of(History& h, const FinishedTask& task) noexcept {
    const std::uint32_t tool = task.tool & 0xffffffU;
    std::uint32_t key = key_of(task, tool);
    std::uint16_t i = find_cell(h, key);
    if (i != kCellsMax) return i;
    const auto full = [&h] { return h.cells >= kCellsMax - kOtherCells || h.coarse >= kCoarseMax - kOtherCoarse; };
    if (full() && !h.crowded) crowd(h);
    if (h.crowded && tasks_of_tool(h, tool) == 0) {
        key = key_of(task, kOtherTool);
        i = find_cell(h, key);
        if (i != kCellsMax) return i;
    }
    return new_cell(h, key);
}

void ChangePoint::learn(History& h, const FinishedTask& task, std::uint32_t now_s) noexcept {
    const std::uint16_t code = cell_of(h, task);
    if (code == kCellsMax) {
        restart(h);  // the pool is spent: begin anew rather than mislead
        return;
    }
    if (h.total == kTasksMax) fade(h);
    if (h.tasks >= kRecentTasks) retire(h);
    ++cell(h, code).count;
    h.codes[h.tasks % kRecentTasks] = code;
    if (h.tasks % 8 == 0) h.times_s[h.tasks / 8 % kTimes] = now_s;
    const bool known = task.success != Success::unknown;
    const bool succeeded = task.success == Success::yes;
    push(h.recent_known, known);
    push(h.recent_succeeded, succeeded);
    ++h.total;
    h.known = static_cast<std::uint16_t>(h.known + (known ? 1 : 0));
    h.succeeded = static_cast<std::uint16_t>(h.succeeded + (succeeded ? 1 : 0));
    // Far beyond the recent tasks only their order modulo the blocks matters.
    if (++h.tasks == 3U << 30U) h.tasks = 3U << 29U;
}

void ChangePoint::restart(History& h) noexcept {
    for (std::size_t first = 0; first < h.cells; first += kPageCells) free_.push_back(h.pages[first / kPageCells]);
    h = History{};
}

// The oldest recent task joins the open old bucket.
void ChangePoint::retire(History& h) noexcept {
    const auto oldest = static_cast<std::uint32_t>(h.tasks - kRecentTasks);
    const Cell& gone = cell(h, h.codes[oldest % kRecentTasks]);
    if (h.open_tasks == 0) h.open.began_s = h.times_s[oldest / 8 % kTimes];
    ++h.open.counts[coarse_cell(gone.success(), gone.calls())];
    h.open.known = static_cast<std::uint16_t>(h.open.known + (gone.success() != Success::unknown ? 1 : 0));
    h.open.succeeded = static_cast<std::uint16_t>(h.open.succeeded + (gone.success() == Success::yes ? 1 : 0));
    if (++h.open_tasks == kOldTasks) close_open_bucket(h);
}

void ChangePoint::close_open_bucket(History& h) noexcept {
    const auto merge = [&h](std::size_t older) {
        for (std::size_t c = 0; c < kCoarseCells; ++c) {
            h.old[older].counts[c] =
                static_cast<std::uint16_t>(h.old[older].counts[c] + h.old[older + 1].counts[c]);
        }
        settle(h.old[older]);
        ++h.old[older].size_class;
        std::move(h.old.begin() + static_cast<std::ptrdiff_t>(older) + 2, h.old.begin() + h.old_count,
                  h.old.begin() + static_cast<std::ptrdiff_t>(older) + 1);
        h.old[--h.old_count] = OldBucket{};
    };
    if (h.old_count == kOldBuckets) merge(0);
    h.old[h.old_count++] = h.open;
    h.open = OldBucket{};
    h.open_tasks = 0;
    for (std::uint16_t size = 0;; ++size) {
        const auto first = std::find_if(h.old.begin(), h.old.begin() + h.old_count,
                                        [size](const OldBucket& b) { return b.size_class == size; });
        const auto same = std::count_if(first, h.old.begin() + h.old_count,
                                        [size](const OldBucket& b) { return b.size_class == size; });
        if (static_cast<std::size_t>(same) <= kOldOfASize) return;
        merge(static_cast<std::size_t>(first - h.old.begin()));
    }
}

// What is older than the recent tasks counts half from now on.
void ChangePoint::fade(History& h) noexcept {
    std::array<std::uint16_t, kCellsMax> recent{};
    for (const std::uint16_t code : h.codes) ++recent[code];
    std::uint32_t total = 0, known = 0, succeeded = 0;
    for (std::size_t i = 0; i < h.cells; ++i) {
        Cell& c = cell(h, i);
        c.count = static_cast<std::uint16_t>(recent[i] + (c.count - recent[i]) / 2);
    }
    const auto halve = [](OldBucket& bucket) {
        for (std::uint16_t& count : bucket.counts) count = static_cast<std::uint16_t>(count / 2);
        settle(bucket);
    };
    halve(h.open);
    for (OldBucket& bucket : h.old) halve(bucket);
    for (std::uint32_t b = 0; b <= h.old_count; ++b) {
        const OldBucket& bucket = old_bucket(h, b);
        total += tasks_of(bucket);
        known += bucket.known;
        succeeded += bucket.succeeded;
    }
    h.total = static_cast<std::uint16_t>(total + kRecentTasks);
    h.known = static_cast<std::uint16_t>(known + NewestCount(h.recent_known)(kRecentTasks));
    h.succeeded = static_cast<std::uint16_t>(succeeded + NewestCount(h.recent_succeeded)(kRecentTasks));
}

// The running sums of all views while tasks move from the left of the split to its right.
struct ChangePoint::Tally {
    std::uint32_t left_n = 0, right_n = 0;
    std::array<double, kViews> gain{};  // sum over categories of g(left) + g(right) - g(all); success: see consider()
    std::array<Sides, kCoarseCells> calls{};
    std::array<Sides, 2> success{};
    std::size_t views = kCoarseViews;  // that may be read, coarse to fine
};

void ChangePoint::consider(const Tally& tally, const Split& split, std::size_t views, Evidence& best) const noexcept {
    if (tally.left_n < kLeftMin || tally.right_n < kRightMin) return;
    const auto loss = [](const Law& law, std::uint32_t left, std::uint32_t right) {
        return (law(left) + law(right)) - law(left + right);
    };
    const auto [failed, succeeded] = tally.success;
    std::array<double, kViews> ln_bf{};
    ln_bf[0] = loss(gain_one_, failed.left, failed.right) + loss(gain_one_, succeeded.left, succeeded.right) -
               loss(loss2_, std::uint32_t{failed.left} + succeeded.left, std::uint32_t{failed.right} + succeeded.right);
    const std::array<const Law*, kViews> losses{nullptr, &loss14_, &loss280_, &loss400_};
    std::size_t strongest = 0;
    for (std::size_t v = 1; v < views; ++v) {
        ln_bf[v] = tally.gain[v] - loss(*losses[v], tally.left_n, tally.right_n);
        if (ln_bf[v] > ln_bf[strongest]) strongest = v;
    }
    if (ln_bf[strongest] <= best.ln_bf) return;  // a mean is no larger than its largest part
    double sum = 0.0;
    for (std::size_t v = 0; v < views; ++v) sum += exponential(ln_bf[v] - ln_bf[strongest]);
    const double mean = ln_bf[strongest] + natural_log(sum / static_cast<double>(kViews));
    if (mean > best.ln_bf) best = {mean, static_cast<View>(strongest), split};
}

// All tasks left of the split.
void ChangePoint::prepare(const History& h, Tally& tally) noexcept {
    Scratch& s = scratch_;
    std::uint32_t single = 0, single_coarse = 0;
    std::fill_n(s.coarse.begin(), h.coarse, Sides{});
    for (std::size_t i = 0; i < h.cells; ++i) {
        const Cell& c = cell(h, i);
        const std::size_t calls = coarse_cell(c.success(), c.calls());
        const auto add = [&c](Sides& sides) { sides.left = static_cast<std::uint16_t>(sides.left + c.count); };
        s.cells[i] = {c.count, 0};
        s.coarse_of[i] = c.coarse;
        s.calls_of[i] = static_cast<std::uint8_t>(calls);
        add(s.coarse[c.coarse]);
        add(tally.calls[calls]);
        if (c.success() != Success::unknown) add(tally.success[static_cast<std::size_t>(c.success())]);
        tally.left_n += c.count;
        single += c.count == 1 ? 1 : 0;
    }
    for (std::size_t i = 0; i < h.coarse; ++i) single_coarse += s.coarse[i].left == 1 ? 1 : 0;
    // The share of categories seen once estimates how much is still unseen (Good 1953). A stream whose names hardly
    // come again has no law of them to compare: its finer views would find every span of tasks a new one.
    const auto lawful = [&tally](double once, double prior) {
        return once * (tally.left_n + prior) <= kNovelty * prior * tally.left_n;
    };
    if (lawful(single_coarse, kPriorTools)) tally.views = lawful(single, kPriorExactCalls) ? kViews : kViews - 1;
}

Evidence ChangePoint::mix(const History& h) noexcept {
    Evidence best;
    if (h.tasks % kBlock != 0 || h.total < kLeftMin + kRightMin) return best;
    Tally tally;
    prepare(h, tally);
    Scratch& s = scratch_;
    const double* const tenth = gain_tenth_.step.data();
    const double* const half = gain_half_.step.data();
    const std::uint32_t failed = tally.success[0].left, succeeded = tally.success[1].left;
    const NewestCount known_of(h.recent_known), succeeded_of(h.recent_succeeded);
    const auto place = [&](std::uint32_t known_right, std::uint32_t succeeded_right) {
        const auto split = [](std::uint32_t all, std::uint32_t right) {
            return Sides{static_cast<std::uint16_t>(all - right), static_cast<std::uint16_t>(right)};
        };
        tally.success = {split(failed, known_right - succeeded_right), split(succeeded, succeeded_right)};
    };
    const auto recent = static_cast<std::uint32_t>(std::min<std::size_t>(h.tasks, kRecentTasks));
    for (std::uint32_t n = 1; n <= recent; ++n) {
        const std::uint16_t c = h.codes[(h.tasks - n) % kRecentTasks];
        const auto moved = [](Sides& sides, const double* step) { return step[sides.right++] - step[--sides.left]; };
        tally.gain[3] += moved(s.cells[c], tenth);
        tally.gain[2] += moved(s.coarse[s.coarse_of[c]], tenth);
        tally.gain[1] += moved(tally.calls[s.calls_of[c]], half);
        --tally.left_n;
        ++tally.right_n;
        if (n % kBlock != 0 || !kept((h.tasks - n) / kBlock, n / kBlock, 4)) continue;
        place(known_of(n), succeeded_of(n));
        consider(tally, {n, 0}, tally.views, best);
    }
    std::uint32_t known_right = known_of(recent), succeeded_right = succeeded_of(recent);
    for (std::uint32_t b = 0; h.tasks >= kRecentTasks && b <= h.old_count; ++b) {
        const OldBucket& bucket = old_bucket(h, b);
        for (std::size_t c = 0; c < kCoarseCells; ++c) {
            // Halves were rounded apart in cells and buckets: never take more than is left.
            Sides& sides = tally.calls[c];
            const std::uint32_t k = std::min(bucket.counts[c], sides.left);
            if (k == 0) continue;
            tally.gain[1] += (gain_half_(sides.left - k) - gain_half_(sides.left)) +
                             (gain_half_(sides.right + k) - gain_half_(sides.right));
            sides = {static_cast<std::uint16_t>(sides.left - k), static_cast<std::uint16_t>(sides.right + k)};
            tally.left_n -= k;
            tally.right_n += k;
            if (c < kCallBuckets || c >= 2 * kCallBuckets) continue;
            succeeded_right += k;
        }
        known_right = 0;
        for (std::size_t c = 0; c < 2 * kCallBuckets; ++c) known_right += tally.calls[c].right;
        place(known_right, succeeded_right);
        consider(tally, {recent, b + 1}, kCoarseViews, best);
    }
    return best;
}

double ChangePoint::length_toll(const History& h) noexcept {
    return h.total <= 1000 ? 0.0 : natural_log(h.total / 1000.0);
}

double ChangePoint::success_ln_bf(const Segment& before, const Segment& after) const noexcept {
    const auto marginal = [this](std::uint32_t known, std::uint32_t succeeded) {
        return gain_two_(succeeded) + gain_two_(known - succeeded) - loss_two_(known);
    };
    const std::uint32_t known = before.known + after.known;
    if (known > kTasksMax) return kMinusInfinity;
    return marginal(before.known, before.succeeded) + marginal(after.known, after.succeeded) -
           marginal(known, before.succeeded + after.succeeded);
}

Evidence ChangePoint::outcome(const History& h) const noexcept {
    Evidence best;
    if (h.known < kLeftMin + kRightMin) return best;
    double sum = 0.0;
    const auto read = [&](const Split& split, std::uint32_t known, std::uint32_t succeeded) {
        if (known < kRightMin || h.known - known < kLeftMin) return;
        const Segment after{0, known, succeeded, 0.0};
        const Segment before{0, static_cast<std::uint32_t>(h.known - known),
                             static_cast<std::uint32_t>(h.succeeded - succeeded), 0.0};
        const double ln_bf = success_ln_bf(before, after);
        if (ln_bf > 0.0) sum += exponential(ln_bf);  // one that speaks against a change adds nothing
        if (ln_bf > best.ln_bf) best = {ln_bf, View::success, split};
    };
    const NewestCount known_of(h.recent_known), succeeded_of(h.recent_succeeded);
    const auto recent = static_cast<std::uint32_t>(std::min<std::size_t>(h.tasks, kRecentTasks));
    for (std::uint32_t step = 1, age = kRightMin; age <= recent; age += step) {
        while (age >= 2 * (2 * step - 1)) step *= 2;
        age += (h.tasks - age) % step;  // splits lie on multiples of the step
        while (age >= 2 * (2 * step - 1)) {
            step *= 2;
            age += (h.tasks - age) % step;
        }
        if (age <= recent) read({age, 0}, known_of(age), succeeded_of(age));
    }
    std::uint32_t known = known_of(recent), succeeded = succeeded_of(recent);
    for (std::uint32_t b = 0; h.tasks >= kRecentTasks && b <= h.old_count; ++b) {
        const OldBucket& bucket = old_bucket(h, b);
        known += bucket.known;
        succeeded += bucket.succeeded;
        if (bucket.known > 0) read({recent, b + 1}, known, succeeded);
    }
    if (sum > 0.0) best.ln_bf = natural_log(sum);
    return best;
}

std::array<Segment, 2> ChangePoint::segments(const History& h, const Split& split) const noexcept {
    std::array<Segment, 2> parts{};
    const auto add = [](Segment& part, std::size_t coarse, std::uint32_t k) {
        const std::size_t success = coarse / kCallBuckets;
        part.tasks += k;
        part.known += success < 2 ? k : 0;
        part.succeeded += success == 1 ? k : 0;
        part.calls += k * kBucketMiddle[coarse % kCallBuckets];
    };
    const auto recent = static_cast<std::uint32_t>(std::min<std::size_t>(h.tasks, kRecentTasks));
    for (std::uint32_t n = 1; n <= recent; ++n) {
        const Cell& c = cell(h, h.codes[(h.tasks - n) % kRecentTasks]);
        add(parts[n <= split.recent ? 1 : 0], coarse_cell(c.success(), c.calls()), 1);
    }
    for (std::uint32_t b = 0; h.tasks >= kRecentTasks && b <= h.old_count; ++b) {
        const OldBucket& bucket = old_bucket(h, b);
        for (std::size_t c = 0; c < kCoarseCells; ++c) add(parts[b < split.buckets ? 1 : 0], c, bucket.counts[c]);
    }
    for (Segment& part : parts) part.calls /= std::max<double>(part.tasks, 1);
    return parts;
}

std::uint32_t ChangePoint::began_s(const History& h, const Split& split) const noexcept {
    if (split.buckets > 1) return old_bucket(h, split.buckets - 1).began_s;
    if (split.buckets == 1 && h.open_tasks > 0) return h.open.began_s;
    return h.times_s[(h.tasks - split.recent) / 8 % kTimes];
}

ToolShift ChangePoint::largest_tool_shift(const History& h, const Split& split) const noexcept {
    std::array<std::uint16_t, kCellsMax> after{};
    for (std::uint32_t n = 1; n <= split.recent; ++n) ++after[h.codes[(h.tasks - n) % kRecentTasks]];
    const double after_n = std::max(split.recent, 1U);
    const double before_n = std::max(h.total - static_cast<double>(split.recent), 1.0);
    ToolShift largest;
    for (std::size_t i = 0; i < h.cells; ++i) {
        const std::uint32_t tool = cell(h, i).tool();
        std::uint32_t before_k = 0, after_k = 0;
        for (std::size_t j = 0; j < h.cells; ++j) {
            if (cell(h, j).tool() != tool) continue;
            after_k += after[j];
            before_k += static_cast<std::uint32_t>(cell(h, j).count - after[j]);
        }
        const ToolShift shift{tool, before_k / before_n, after_k / after_n};
        const auto size = [](const ToolShift& t) { return std::max(t.after - t.before, t.before - t.after); };
        // Of one that came and one that went, the one that came.
        const bool came = size(shift) == size(largest) && shift.after > largest.after;
        if (size(shift) > size(largest) || came) largest = shift;
    }
    return largest;
}

void ChangePoint::save(const History& h, Writer& writer) const {
    for (std::size_t i = 0; i < h.cells; ++i) writer.pod(cell(h, i));
}

void ChangePoint::load(History& h, Reader& reader) {
    const auto refuse = [](bool wrong) {
        if (wrong) throw CodecError("state: outcome: a stream's history contradicts itself");
    };
    refuse(h.cells > kCellsMax || h.coarse > std::min<std::size_t>(h.cells, kCoarseMax));
    refuse(h.old_count > kOldBuckets || h.open_tasks >= kOldTasks || h.total > kTasksMax);
    refuse(h.known > h.total || h.succeeded > h.known || h.tasks < h.total || h.tasks > 3U << 30U);
    refuse((h.cells + kPageCells - 1) / kPageCells > free_.size());
    for (std::size_t page = 0; page * kPageCells < h.cells; ++page) {
        h.pages[page] = free_.back();
        free_.pop_back();
    }
    std::array<std::uint16_t, kCellsMax> recent{};
    const std::size_t used = std::min<std::size_t>(h.tasks, kRecentTasks);
    for (std::size_t t = 0; t < used; ++t) {
        refuse(h.codes[t] >= h.cells);
        ++recent[h.codes[t]];
    }
    std::uint32_t all = 0;
    for (std::size_t i = 0; i < h.cells; ++i) {
        Cell& c = cell(h, i);
        c = reader.pod<Cell>();
        refuse(c.coarse >= h.coarse || static_cast<std::size_t>(c.success()) >= kSuccesses || c.calls() > kCallsMax);
        refuse(c.count < recent[i]);
        all += c.count;
    }
    refuse(all > kTasksMax + kRounding);

    auto total = static_cast<std::uint32_t>(used);
    std::uint32_t known = NewestCount(h.recent_known)(kRecentTasks);
    std::uint32_t succeeded = NewestCount(h.recent_succeeded)(kRecentTasks);
    for (std::uint32_t b = 0; h.tasks >= kRecentTasks && b <= h.old_count; ++b) {
        OldBucket bucket = old_bucket(h, b);
        settle(bucket);
        refuse(bucket.known != old_bucket(h, b).known || bucket.succeeded != old_bucket(h, b).succeeded);
        total += tasks_of(bucket);
        known += bucket.known;
        succeeded += bucket.succeeded;
    }
    refuse(total != h.total || known != h.known || succeeded != h.succeeded);
}

// The posterior on a grid: 1,000 steps resolve the narrowest law of 8,192 tasks, and nothing depends on libm.
ChangePoint::Posterior ChangePoint::posterior(const Segment& segment) const noexcept {
    Posterior mass{};
    const double successes = segment.succeeded;
    const double failures = static_cast<double>(segment.known) - successes;
    double largest = kMinusInfinity;
    for (std::size_t i = 0; i < kGrid; ++i) {
        mass[i] = successes * grid_log_[i] + failures * grid_log_[kGrid - 1 - i];
        largest = std::max(largest, mass[i]);
    }
    double sum = 0.0;
    for (double& m : mass) sum += m = m - largest < -40.0 ? 0.0 : exponential(m - largest);
    for (double& m : mass) m /= sum;
    return mass;
}

Rate ChangePoint::rate_of(const Segment& segment, const Posterior& mass) noexcept {
    Rate rate{(segment.succeeded + 1.0) / (segment.known + 2.0), 0.0, 1.0};
    double below = 0.0;
    for (std::size_t i = 0; i < kGrid; ++i) {
        const double edge = (static_cast<double>(i) + 1.0) / kGrid;
        if (below < 0.025 && below + mass[i] >= 0.025) rate.lower = edge - 1.0 / kGrid;
        if (below < 0.975 && below + mass[i] >= 0.975) rate.upper = edge;
        below += mass[i];
    }
    return rate;
}

Comparison ChangePoint::compare(const Segment& before, const Segment& after, double delta) const noexcept {
    const Posterior first = posterior(before);
    const Posterior second = posterior(after);
    const auto steps = static_cast<std::size_t>(delta * kGrid + 0.5);
    std::array<double, kGrid + 1> below{};  // of `second`, below step i
    for (std::size_t i = 0; i < kGrid; ++i) below[i + 1] = below[i] + second[i];
    double chance = 0.0;
    for (std::size_t i = 0; i < kGrid; ++i) {
        const double lower = i >= steps ? below[i - steps + 1] : 0.0;
        const double upper = i + steps < kGrid ? below[kGrid] - below[i + steps] : 0.0;
        chance += first[i] * (steps == 0 ? 1.0 : lower + upper);
    }
    return {rate_of(before, first), rate_of(after, second), chance};
}

}  // namespace argus::auditors
