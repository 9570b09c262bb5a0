#include "auditors/change_point.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

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
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr std::array<double, kCallBuckets> kBucketMiddle{0, 1, 2, 3, 4.5, 7, 11};

[[nodiscard]] std::uint32_t key_of(const FinishedTask& task, std::uint32_t tool) noexcept {
    return static_cast<std::uint32_t>(task.success) | std::min(task.calls, kCallsMax) << 2U | tool << 8U;
}

[[nodiscard]] std::size_t coarse_cell(Success success, std::uint32_t calls) noexcept {
    return static_cast<std::size_t>(success) * kCallBuckets + calls_bucket(calls);
}

// Is a boundary `age` units back, `position` units from the start, kept by an exponential histogram that holds `of_a_size`
// buckets of each size? At age of_a_size (2^k - 1) and more it lies on a multiple of 2^k.
[[nodiscard]] bool kept(std::uint32_t position, std::uint32_t age, std::uint32_t of_a_size) noexcept {
    return position == 0 || std::countr_zero(position) + 1 >= static_cast<int>(std::bit_width(age / of_a_size + 1));
}

template <std::size_t kWords>
void push(std::array<std::uint64_t, kWords>& bits, bool value) noexcept {
    for (std::size_t w = kWords; w-- > 1;) bits[w] = bits[w] << 1U | bits[w - 1] >> 63U;
    bits[0] = bits[0] << 1U | (value ? 1U : 0U);
}

template <std::size_t kWords>
[[nodiscard]] std::uint32_t count_newest(const std::array<std::uint64_t, kWords>& bits, std::uint32_t n) noexcept {
    int count = 0;
    for (std::size_t w = 0; w < kWords && n > 0; ++w) {
        const std::uint32_t take = std::min<std::uint32_t>(n, 64);
        count += std::popcount(bits[w] & (~std::uint64_t{0} >> (64 - take)));
        n -= take;
    }
    return static_cast<std::uint32_t>(count);
}

struct Counts {
    std::uint32_t known = 0, succeeded = 0, total = 0;
};

[[nodiscard]] Counts counts_of(const OldBucket& bucket) noexcept {
    Counts c;
    for (std::size_t i = 0; i < kCallBuckets; ++i) {
        const std::uint32_t failed = bucket.counts[i];
        const std::uint32_t succeeded = bucket.counts[kCallBuckets + i];
        c.succeeded += succeeded;
        c.known += failed + succeeded;
        c.total += failed + succeeded + bucket.counts[2 * kCallBuckets + i];
    }
    return c;
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
    for (int n = 14; n >= 1; --n) series = 1.0 + r / n * series;
    return series * std::bit_cast<double>(static_cast<std::uint64_t>(whole + 1023) << 52U);
}

std::size_t calls_bucket(std::uint32_t calls) noexcept {
    constexpr std::array<std::uint8_t, 10> kBuckets{0, 1, 2, 3, 4, 4, 5, 5, 5, 6};
    return kBuckets[std::min<std::uint32_t>(calls, 9)];
}

ChangePoint::Law::Law(double a) : table(kTasksMax + kRounding + 1) {
    for (std::uint32_t k = 0; k + 1 < table.size(); ++k) table[k + 1] = table[k] + natural_log(k + a);
}

ChangePoint::ChangePoint(std::uint32_t cell_pages) : pool_(std::size_t{cell_pages} * kPageCells) {
    free_.reserve(cell_pages);
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

// Tools beyond the table share one name. kCellsMax: no page is free.
std::uint16_t ChangePoint::cell_of(History& h, const FinishedTask& task) noexcept {
    std::uint32_t key = key_of(task, task.tool & 0xffffffU);
    std::uint16_t i = find_cell(h, key);
    if (i != kCellsMax) return i;
    if (h.cells >= kCellsMax - kOtherCells || h.coarse >= kCoarseMax - kOtherCoarse) {
        key = key_of(task, kOtherTool);
        i = find_cell(h, key);
        if (i != kCellsMax) return i;
    }
    const std::size_t page = h.cells / kPageCells;
    if (h.cells % kPageCells == 0) {
        if (free_.empty()) return kCellsMax;
        h.pages[page] = free_.back();
        free_.pop_back();
    }
    i = h.cells++;
    Cell& fresh = cell(h, i);
    fresh = {key, 0, h.coarse};
    for (std::size_t j = 0; j < i; ++j) {
        const Cell& other = cell(h, j);
        if (other.tool() == fresh.tool() &&
            coarse_cell(other.success(), other.calls()) == coarse_cell(fresh.success(), fresh.calls())) {
            fresh.coarse = other.coarse;
            return i;
        }
    }
    ++h.coarse;
    return i;
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
    const std::uint32_t oldest = h.tasks - kRecentTasks;
    const Cell& gone = cell(h, h.codes[oldest % kRecentTasks]);
    if (h.open_tasks == 0) h.open.began_s = h.times_s[oldest / 8 % kTimes];
    ++h.open.counts[coarse_cell(gone.success(), gone.calls())];
    if (++h.open_tasks == kOldTasks) close_open_bucket(h);
}

void ChangePoint::close_open_bucket(History& h) noexcept {
    const auto merge = [&h](std::size_t older) {
        for (std::size_t c = 0; c < kCoarseCells; ++c) {
            h.old[older].counts[c] =
                static_cast<std::uint16_t>(h.old[older].counts[c] + h.old[older + 1].counts[c]);
        }
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
    };
    halve(h.open);
    for (OldBucket& bucket : h.old) halve(bucket);
    for (std::uint32_t b = 0; b <= h.old_count; ++b) {
        const Counts c = counts_of(old_bucket(h, b));
        total += c.total;
        known += c.known;
        succeeded += c.succeeded;
    }
    h.total = static_cast<std::uint16_t>(total + kRecentTasks);
    h.known = static_cast<std::uint16_t>(known + count_newest(h.recent_known, kRecentTasks));
    h.succeeded = static_cast<std::uint16_t>(succeeded + count_newest(h.recent_succeeded, kRecentTasks));
}

// The running sums of all views while tasks move from the left of the split to its right.
struct ChangePoint::Tally {
    std::array<std::uint32_t, kViews> left_n{}, right_n{};
    std::array<double, kViews> gain{};  // sum over categories of g(left) + g(right) - g(all)
    std::array<std::uint16_t, kCoarseCells> left2{}, right2{};
    std::array<std::uint32_t, 2> left1{}, right1{};

    static double moved(const Law& g, std::uint32_t left, std::uint32_t right, std::uint32_t k) noexcept {
        return (g(left - k) - g(left)) + (g(right + k) - g(right));
    }
    void move(View view, std::uint32_t k) noexcept {
        left_n[static_cast<std::size_t>(view)] -= k;
        right_n[static_cast<std::size_t>(view)] += k;
    }
    void move_coarse(const ChangePoint& laws, std::size_t c, std::uint32_t k) noexcept {
        gain[1] += moved(laws.gain_half_, left2[c], right2[c], k);
        left2[c] = static_cast<std::uint16_t>(left2[c] - k);
        right2[c] = static_cast<std::uint16_t>(right2[c] + k);
        move(View::calls, k);
        const std::size_t success = c / kCallBuckets;
        if (success >= left1.size()) return;
        gain[0] += moved(laws.gain_one_, left1[success], right1[success], k);
        left1[success] -= k;
        right1[success] += k;
        move(View::success, k);
    }
};

void ChangePoint::consider(const Tally& tally, const Split& split, bool fine, Evidence& best) const noexcept {
    if (tally.left_n[1] < kLeftMin || tally.right_n[1] < kRightMin) return;
    const std::array<const Law*, kViews> losses{&loss2_, &loss14_, &loss280_, &loss400_};
    std::array<double, kViews> ln_bf{};
    std::size_t strongest = 0;
    for (std::size_t v = 0; v < (fine ? kViews : 2); ++v) {
        const Law& loss = *losses[v];
        const std::uint32_t left = tally.left_n[v];
        const std::uint32_t right = tally.right_n[v];
        ln_bf[v] = tally.gain[v] - ((loss(left) + loss(right)) - loss(left + right));
        if (ln_bf[v] > ln_bf[strongest]) strongest = v;
    }
    if (ln_bf[strongest] <= best.ln_bf) return;  // a mean is no larger than its largest part
    double sum = 0.0;
    for (std::size_t v = 0; v < (fine ? kViews : 2); ++v) sum += exponential(ln_bf[v] - ln_bf[strongest]);
    const double mean = ln_bf[strongest] + natural_log(sum / static_cast<double>(kViews));
    if (mean > best.ln_bf) best = {mean, static_cast<View>(strongest), split};
}

Evidence ChangePoint::mix(const History& h) noexcept {
    Evidence best;
    if (h.tasks % kBlock != 0 || h.total < kLeftMin + kRightMin) return best;
    Scratch& s = scratch_;
    Tally tally;
    std::fill_n(s.left_coarse.begin(), h.coarse, std::uint16_t{0});
    std::fill_n(s.right_coarse.begin(), h.coarse, std::uint16_t{0});
    std::fill_n(s.right.begin(), h.cells, std::uint16_t{0});
    std::uint32_t all = 0;
    for (std::size_t i = 0; i < h.cells; ++i) {
        const Cell& c = cell(h, i);
        s.left[i] = c.count;
        s.cell3[i] = c.coarse;
        s.cell2[i] = static_cast<std::uint8_t>(coarse_cell(c.success(), c.calls()));
        s.left_coarse[c.coarse] = static_cast<std::uint16_t>(s.left_coarse[c.coarse] + c.count);
        tally.left2[s.cell2[i]] = static_cast<std::uint16_t>(tally.left2[s.cell2[i]] + c.count);
        all += c.count;
    }
    for (std::size_t c = 0; c < 2 * kCallBuckets; ++c) tally.left1[c / kCallBuckets] += tally.left2[c];
    tally.left_n = {tally.left1[0] + tally.left1[1], all, all, all};
    const auto recent = static_cast<std::uint32_t>(std::min<std::size_t>(h.tasks, kRecentTasks));
    for (std::uint32_t n = 1; n <= recent; ++n) {
        const std::uint32_t position = h.tasks - n;
        const std::uint16_t c = h.codes[position % kRecentTasks];
        const std::uint16_t c3 = s.cell3[c];
        tally.gain[3] += Tally::moved(gain_tenth_, s.left[c]--, s.right[c]++, 1);
        tally.gain[2] += Tally::moved(gain_tenth_, s.left_coarse[c3]--, s.right_coarse[c3]++, 1);
        tally.move(View::tool_calls, 1);
        tally.move(View::tool_exact_calls, 1);
        tally.move_coarse(*this, s.cell2[c], 1);
        if (n < kRightMin || position % kBlock != 0 || !kept(position / kBlock, n / kBlock, 4)) continue;
        consider(tally, {n, 0}, true, best);
    }
    for (std::uint32_t b = 0; h.tasks >= kRecentTasks && b <= h.old_count; ++b) {
        const OldBucket& bucket = old_bucket(h, b);
        for (std::size_t c = 0; c < kCoarseCells; ++c) {
            // Halves were rounded apart in cells and buckets: never take more than is left.
            const std::uint32_t k = std::min(bucket.counts[c], tally.left2[c]);
            if (k > 0) tally.move_coarse(*this, c, k);
        }
        consider(tally, {recent, b + 1}, false, best);
    }
    return best;
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
        sum += exponential(ln_bf);
        if (ln_bf > best.ln_bf) best = {ln_bf, View::success, split};
    };
    const auto recent = static_cast<std::uint32_t>(std::min<std::size_t>(h.tasks, kRecentTasks));
    for (std::uint32_t step = 1, age = kRightMin; age <= recent;) {
        while (age >= 2 * (2 * step - 1)) step *= 2;
        const std::uint32_t off = (h.tasks - age) % step;  // splits lie on multiples of the step
        if (off != 0) {
            age += off;
            continue;
        }
        read({age, 0}, count_newest(h.recent_known, age), count_newest(h.recent_succeeded, age));
        age += step;
    }
    std::uint32_t known = count_newest(h.recent_known, recent);
    std::uint32_t succeeded = count_newest(h.recent_succeeded, recent);
    for (std::uint32_t b = 0; h.tasks >= kRecentTasks && b <= h.old_count; ++b) {
        const Counts c = counts_of(old_bucket(h, b));
        known += c.known;
        succeeded += c.succeeded;
        if (c.total > 0) read({recent, b + 1}, known, succeeded);
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

ToolShift ChangePoint::largest_tool_shift(const History& h, const Split& split) noexcept {
    std::array<std::uint16_t, kCellsMax>& after = scratch_.right;
    std::fill_n(after.begin(), h.cells, std::uint16_t{0});
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
        const auto size = [](const ToolShift& t) { return t.after > t.before ? t.after - t.before : t.before - t.after; };
        if (size(shift) > size(largest)) largest = shift;
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
    std::uint32_t known = count_newest(h.recent_known, kRecentTasks);
    std::uint32_t succeeded = count_newest(h.recent_succeeded, kRecentTasks);
    for (std::uint32_t b = 0; h.tasks >= kRecentTasks && b <= h.old_count; ++b) {
        const Counts c = counts_of(old_bucket(h, b));
        total += c.total;
        known += c.known;
        succeeded += c.succeeded;
    }
    refuse(total != h.total || known != h.known || succeeded != h.succeeded);
}

// The posterior on a grid: 2,000 steps resolve the narrowest law of 8,192 tasks, and nothing depends on libm.
namespace {

constexpr std::size_t kGrid = 2000;

[[nodiscard]] std::vector<double> posterior(const Segment& segment) {
    std::vector<double> mass(kGrid);
    const double successes = segment.succeeded;
    const double failures = static_cast<double>(segment.known) - successes;
    double largest = kMinusInfinity;
    for (std::size_t i = 0; i < kGrid; ++i) {
        const double p = (static_cast<double>(i) + 0.5) / kGrid;
        mass[i] = successes * natural_log(p) + failures * natural_log(1.0 - p);
        largest = std::max(largest, mass[i]);
    }
    double sum = 0.0;
    for (double& m : mass) sum += m = exponential(m - largest);
    for (double& m : mass) m /= sum;
    return mass;
}

}  // namespace

Rate success_rate(const Segment& segment) {
    Rate rate{(segment.succeeded + 1.0) / (segment.known + 2.0), 0.0, 1.0};
    const std::vector<double> mass = posterior(segment);
    double below = 0.0;
    for (std::size_t i = 0; i < kGrid; ++i) {
        const double edge = (static_cast<double>(i) + 1.0) / kGrid;
        if (below < 0.025 && below + mass[i] >= 0.025) rate.lower = edge - 1.0 / kGrid;
        if (below < 0.975 && below + mass[i] >= 0.975) rate.upper = edge;
        below += mass[i];
    }
    return rate;
}

double chance_of_difference(const Segment& before, const Segment& after, double delta) {
    const std::vector<double> first = posterior(before);
    const std::vector<double> second = posterior(after);
    const auto steps = static_cast<std::size_t>(std::llround(delta * kGrid));
    std::vector<double> below(kGrid + 1, 0.0);  // of `second`, below step i
    for (std::size_t i = 0; i < kGrid; ++i) below[i + 1] = below[i] + second[i];
    double chance = 0.0;
    for (std::size_t i = 0; i < kGrid; ++i) {
        const double lower = i >= steps ? below[i - steps + 1] : 0.0;
        const double upper = i + steps < kGrid ? below[kGrid] - below[i + steps] : 0.0;
        chance += first[i] * (steps == 0 ? 1.0 : lower + upper);
    }
    return chance;
}

}  // namespace argus::auditors
