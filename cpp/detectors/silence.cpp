// Silence: a series that stops arriving, or goes on arriving with the same value.
// Channels: silence          bits while a value is missing, 0 when it is there
//           silence.frozen   bits while the last value repeats itself
// Method:   lengths of gaps (rows from one value to the next) and of runs (equal values in a row) are learned: their
//           mean, and the longest of about the last 4,096. With an exponential tail through the longest of n, one as
//           long as g has -log2 P = log2(n) g/longest: those are the bits. Nothing is said of fewer than 32 lengths, of
//           a gap below `gap_intervals` mean ones, or of a run below `run_intervals` longest ones. Where gaps are
//           uneven (longest above twice the mean), and of runs always, nothing before `settled_s` of rows: nights come
//           first.
//           A length that ends teaches at most twice the longest: a new cadence is accepted after one or two gaps.
//           Under the mask kLearnAnew nothing is taught, and the length so far is forgotten.
//           A constant series is not frozen: it has no runs that ended. Zero is rest: its runs neither count nor teach.
// Delay:    gap_intervals usual intervals once 1,000 values are known, at one false alarm in 10^9 rows.
// Cost:     36 bytes a series; bench_leaves. Values are compared as float32.
#include <algorithm>
#include <array>

#include "base/dispatch.hpp"
#include "detectors/detector.hpp"
#include "detectors/evidence.hpp"

namespace argus::detectors {
namespace {

constexpr float kFewest = 32.0F;       // lengths before one is judged
constexpr float kRemembered = 4096.0F;  // lengths that weigh
constexpr float kLongest = 1.0e6F;     // rows: lengths stop here
constexpr float kEven = 2.0F;          // longest over mean
constexpr float kShortestRun = 16.0F;

struct Settings {
    float gap_intervals;
    float run_intervals;
    float settled_s;
};

struct Lengths {  // of gaps, or of runs: one array each, a float per slot
    float* now;   // length so far
    float* mean;
    float* longest;
    float* count;
};

struct State {
    Lengths gap;
    Lengths run;
    float* last;  // value
};

ARGUS_INLINE float bits_of(float length, float longest, float count) noexcept {
    const float n = between(count, 2.0F, kRemembered);
    return fast_log2(n) * length / (longest > 1.0F ? longest : 1.0F);
}

ARGUS_INLINE void score_body(const float* values, const State& state, Settings s, float interval_s, std::size_t count,
                             float* out) {
    const Lengths gap = state.gap;
    const Lengths run = state.run;
    const float* last = state.last;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const bool missing = x != x;
        const float rows = gap.count[i] * gap.mean[i];
        const bool settled = rows * interval_s >= s.settled_s;
        const float g = gap.now[i] + 1.0F;
        const bool even = gap.longest[i] <= kEven * gap.mean[i];
        const bool long_gap = (g >= s.gap_intervals * gap.mean[i]) & (gap.count[i] >= kFewest) & (even | settled);
        const float gap_bits = bits_of(g, gap.longest[i], gap.count[i]);
        const float r = run.now[i] + 1.0F;
        const bool same = (x == last[i]) & (x != 0.0F);
        const bool long_run = (r >= s.run_intervals * run.longest[i]) & (r >= kShortestRun) &
                              (run.count[i] >= kFewest) & settled;
        const float run_bits = bits_of(r, run.longest[i], run.count[i]);
        out[i] = (missing & long_gap) ? gap_bits : 0.0F;
        out[count + i] = (same & long_run) ? run_bits : 0.0F;
    }
}

struct Known {  // of one slot
    float mean;
    float longest;
    float count;
};

// After a length that has ended.
ARGUS_INLINE Known taught(Known old, float length) noexcept {
    const float most = 2.0F * old.longest + (old.count < kFewest ? kLongest : 0.0F);
    const float cut = length > most ? most : length;
    const float next = old.count + (old.count < kOldestValue ? 1.0F : 0.0F);
    const float rate = 1.0F / (next < kRemembered ? next : kRemembered);
    const float mean = old.mean + rate * (cut - old.mean);
    const float faded = old.longest - (1.0F / kRemembered) * (old.longest - mean);
    return {mean, cut > faded ? cut : faded, next};
}

ARGUS_INLINE void learn_body(const float* values, const std::uint8_t* mask, const State& state,
                             std::size_t count) {
    const Lengths gap = state.gap;
    const Lengths run = state.run;
    float* last = state.last;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const bool anew = mask[i] == kLearnAnew;
        const float before = last[i];
        const float so_far = run.now[i];
        const float waited = gap.now[i];
        const Known gaps{gap.mean[i], gap.longest[i], gap.count[i]};
        const Known runs{run.mean[i], run.longest[i], run.count[i]};
        const bool seen = x == x;
        const bool begun = so_far > 0.0F;  // a value has been there
        const bool arrived = seen & begun & !anew;
        const bool changed = arrived & (x != before);
        const bool taught_run = changed & (before != 0.0F);
        const float g = waited + ((begun & (waited < kLongest)) ? 1.0F : 0.0F);
        const float longer = so_far + (so_far < kLongest ? 1.0F : 0.0F);
        const Known new_gaps = taught(gaps, g);
        const Known new_runs = taught(runs, so_far);
        gap.mean[i] = arrived ? new_gaps.mean : gaps.mean;
        gap.longest[i] = arrived ? new_gaps.longest : gaps.longest;
        gap.count[i] = arrived ? new_gaps.count : gaps.count;
        gap.now[i] = (seen | anew) ? 0.0F : g;
        run.mean[i] = taught_run ? new_runs.mean : runs.mean;
        run.longest[i] = taught_run ? new_runs.longest : runs.longest;
        run.count[i] = taught_run ? new_runs.count : runs.count;
        const float now = (changed | anew) ? 1.0F : longer;
        run.now[i] = (seen | (anew & begun)) ? now : so_far;
        last[i] = seen ? x : before;
    }
}

ARGUS_KERNEL(score_kernel, score_body,
             (const float* values, const State& state, Settings s, float interval_s, std::size_t count, float* out),
             (values, state, s, interval_s, count, out))
ARGUS_KERNEL(learn_kernel, learn_body,
             (const float* values, const std::uint8_t* mask, const State& state, std::size_t count),
             (values, mask, state, count))

class Silence final : public Detector {
public:
    Silence(std::uint32_t slots, Settings settings) : settings_(settings), arrays_(slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        // The kernel only reads through it.
        const State state = const_cast<Silence*>(this)->state();
        score_kernel(view.values.data(), state, settings_, static_cast<float>(view.interval_s), view.values.size(),
                     statistic.data());
    }

    // What a flagged length may teach is bounded by itself: kLearnNothing is as kLearn.
    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        learn_kernel(view.values.data(), mask.data(), state(), view.values.size());
    }

    // What is usual: of a missing row the mean gap, else the longest run; both in rows.
    [[nodiscard]] bool forecast(std::span<float> expected, std::span<float> scale) const override {
        std::copy_n(arrays_.array(1), expected.size(), expected.begin());
        std::copy_n(arrays_.array(6), scale.size(), scale.begin());
        return true;
    }

    void reset(std::span<const std::uint32_t> slots) override { arrays_.reset(slots); }
    void save(Writer& writer) const override { arrays_.save(writer); }
    void load(Reader& reader) override { arrays_.load(reader); }

private:
    [[nodiscard]] State state() noexcept {
        const auto lengths = [this](std::size_t first) {
            return Lengths{arrays_.array(first), arrays_.array(first + 1), arrays_.array(first + 2),
                           arrays_.array(first + 3)};
        };
        return {lengths(0), lengths(4), arrays_.array(8)};
    }

    Settings settings_;
    SlotArrays<9> arrays_;
};

constexpr std::array<Option, 3> kOptions{{
    {"gap_intervals", "1", 3.0, 2.0, 1000.0, "usual intervals without a value before anything is said"},
    {"run_intervals", "1", 3.0, 1.5, 1000.0, "longest runs of one value before anything is said of the next"},
    {"settled_s", "s", 86400.0, 0.0, 1e7, "of a series that comes or changes unevenly, nothing is said before"},
}};

constexpr std::array<Channel, 2> kChannels{{{"", Scale::row}, {"frozen", Scale::row}}};

std::unique_ptr<Detector> make_silence(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Silence>(slots,
                                     Settings{static_cast<float>(options[0]), static_cast<float>(options[1]),
                                              static_cast<float>(options[2])});
}

}  // namespace

const DetectorDescriptor silence_detector{
    .leaf = {.name = "silence",
             .documentation = "A series that stops arriving, or that repeats one value for longer than it ever did.",
             .reference = "Gumbel (1958), Statistics of Extremes: return levels of the longest of n lengths",
             .options = kOptions},
    .make = make_silence,
    .channels = kChannels,
    .use = Use::arrivals,
};

}  // namespace argus::detectors
