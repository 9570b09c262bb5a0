// Categorical mixes: has the share of each category (tools called, models used, status codes) changed?
// Channels: mix         standard deviations by which the G statistic of the recent counts lies above its expectation,
//                       at the entity's first slot; 0 while it is below; NaN at the others
//           mix.share   |log2(recent share/usual share)| of each category, at its slot: what moved
// Input:    an entity's slots are its categories, values counts in this row; a missing one counted nothing, all missing
//           = not observed. Its first slot's mask is the entity's.
// Method:   recent counts fade by 1/`recent` a row; what fades from them becomes the past, which fades by
// 1/`memory`, so
//           that a change is not its own judge. G = 2 sum r ln(r/R : p), p = the past's shares with half a count a
//           category; of fading counts about twice as large as chi square with K - 1 degrees for its size, hence G
//           times
//           (1 + d)/(1 + R/N); then Wilson and Hilferty's cube root.
// Cost:     8 bytes a category; bench_leaves, a scalar loop.
// Not:      exact where the recent counts hold few events, or calls come in bursts; alone, rank it in its own past.
#include <algorithm>
#include <array>
#include <limits>

#include "detectors/detector.hpp"
#include "detectors/evidence.hpp"

namespace argus::detectors {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr float kMostCounts = 1.0e12F;
constexpr float kHalf = 0.5F;       // pseudo count of a category
constexpr float kFewestPast = 32.0F;  // events known before a mix is judged
constexpr float kFewestRecent = 2.0F;

struct Settings {
    float keep_recent;  // per row
    float keep_past;
};

class Mix final : public Detector {
public:
    Mix(std::uint32_t slots, Settings settings) : settings_(settings), arrays_(slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        std::fill(statistic.begin(), statistic.end(), kNone);
        for (const Entity& entity : view.entities) {
            if (observed(view, entity)) judge(view, entity, statistic);
        }
    }

    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        for (const Entity& entity : view.entities) {
            if (!observed(view, entity)) continue;
            const std::uint8_t what = mask[entity.first];
            float* recent = arrays_.array(0);
            float* past = arrays_.array(1);
            for (std::uint32_t i = entity.first; i < entity.first + entity.count; ++i) {
                const float faded = (1.0F - settings_.keep_recent) * recent[i];
                if (what == kLearnAnew) past[i] = 0.0F;
                if (what != kLearnNothing) past[i] = settings_.keep_past * past[i] + faded;
                recent[i] = between(recent[i] - faded + count(view, i), 0.0F, kMostCounts);
            }
        }
    }

    void reset(std::span<const std::uint32_t> slots) override { arrays_.reset(slots); }
    void save(Writer& writer) const override { arrays_.save(writer); }
    void load(Reader& reader) override { arrays_.load(reader); }

private:
    [[nodiscard]] static float count(const View& view, std::uint32_t i) noexcept {
        const float x = view.values[i];
        return x > 0.0F ? (x < kMostCounts ? x : kMostCounts) : 0.0F;  // also of a missing one
    }
    [[nodiscard]] static bool observed(const View& view, const Entity& entity) noexcept {
        for (std::uint32_t i = entity.first; i < entity.first + entity.count; ++i) {
            if (view.values[i] == view.values[i]) return true;
        }
        return false;
    }

    void judge(const View& view, const Entity& entity, std::span<float> statistic) const noexcept {
        const float* recent = arrays_.array(0);
        const float* past = arrays_.array(1);
        float recent_sum = 0.0F;
        float past_sum = 0.0F;
        float categories = 0.0F;
        for (std::uint32_t i = entity.first; i < entity.first + entity.count; ++i) {
            const float now = settings_.keep_recent * recent[i] + count(view, i);
            recent_sum += now;
            past_sum += past[i];
            categories += ((now > 0.0F) | (past[i] > 0.0F)) ? 1.0F : 0.0F;
        }
        const bool known = (past_sum >= kFewestPast) & (recent_sum >= kFewestRecent) & (categories > 1.0F);
        const float all = past_sum + kHalf * categories;
        float g = 0.0F;
        for (std::uint32_t i = entity.first; i < entity.first + entity.count; ++i) {
            const float now = settings_.keep_recent * recent[i] + count(view, i);
            const bool any = (now > 0.0F) | (past[i] > 0.0F);
            const float usual = (past[i] + kHalf) / (all > 0.0F ? all : 1.0F);
            const float share = known ? (now + 1.0e-3F) / (recent_sum + 1.0e-3F * categories) : usual;
            const float ratio = (any & known) ? fast_log2(share / usual) : 0.0F;
            g += now * ratio;
            statistic[view.values.size() + i] = magnitude(ratio);
        }
        statistic[entity.first] = known ? deviations(2.0F * g / kBitsPerNat, recent_sum, past_sum,
            categories - 1.0F) : 0.0F;
    }

    // Of the corrected G above the mean of chi square with `freedom` degrees, by the cube root.
    [[nodiscard]] float deviations(float g, float recent_sum, float past_sum, float freedom) const noexcept {
        const float corrected = g * (1.0F + settings_.keep_recent) / (1.0F + recent_sum / past_sum);
        if (!(corrected > 1.0e-6F)) return 0.0F;
        const float spread = 2.0F / (9.0F * freedom);
        const float root = fast_exp2(fast_log2(corrected / freedom) * (1.0F / 3.0F));
        const float z = (root - (1.0F - spread)) / __builtin_sqrtf(spread);
        return z > 0.0F ? z : 0.0F;
    }

    Settings settings_;
    SlotArrays<2> arrays_;  // recent counts, past counts
};

constexpr std::array<Option, 2> kOptions{{
    {"recent", "1", 30.0, 2.0, 10000.0, "rows that the recent mix is about"},
    {"memory", "1", 5000.0, 50.0, 1e6, "rows over which the past mix fades"},
}};

constexpr std::array<Channel, 2> kChannels{{{"", Scale::rows_30}, {"share", Scale::rows_30}}};

std::unique_ptr<Detector> make_mix(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Mix>(slots, Settings{static_cast<float>(1.0 - 1.0 / options[0]),
                                                 static_cast<float>(1.0 - 1.0 / options[1])});
}

}  // namespace

const DetectorDescriptor mix_detector{
    .leaf = {.name = "mix",
             .documentation = "How far the recent shares of categories are from their usual ones.",
             .reference = "Sokal and Rohlf (1969), Biometry: the G test; Wilson and Hilferty (1931), PNAS 17",
             .options = kOptions},
    .make = make_mix,
    .channels = kChannels,
    .use = Use::arrays,
};

}  // namespace argus::detectors
