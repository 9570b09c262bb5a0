// Residuals against the usual value of this hour of the day and of this hour of the week.
// Channels: season.day, .day.3, .day.10, .day.30      |x - usual value of the hour of the day|, and running means
//           season.week, .week.3, .week.10, .week.30  the same for the hour of the week
// Method:   24 and 168 buckets of an hour (UTC), each an exponential mean that moves by about 40 % in an hour of
//           rows whatever their cadence; plain mean while that weighs more. A season whose residuals are not
//           smaller than those of a slow level explains nothing: it abstains (statistics below 0). A new normal
//           shifts all buckets.
// Cost:     1.2 KB a series, taken hour by hour as it is first used; bench_bank.  NaN: statistic NaN, state untouched.
#include <array>
#include <cstring>

#include "base/dispatch.hpp"
#include "base/zeroed.hpp"
#include "detectors/detector.hpp"
#include "detectors/running_means.hpp"

namespace argus::detectors {
namespace {

constexpr Nanos kHour = 3600 * kSecond;
constexpr float kLevelRate = 0.005F;
constexpr float kScaleRate = 0.002F;
constexpr float kOldest = 1.0e6F;
constexpr std::int32_t kMostVisits = 65535;

struct State {  // of one season: one array each, a float per slot
    float* mean_3;  // running means of the residual
    float* mean_10;
    float* mean_30;
    float* scale;       // mean absolute residual
    float* level_scale;  // that of the level, over the same rows
};

ARGUS_INLINE void score_body(const float* values, const float* bucket, const std::uint16_t* visits, const State& state,
                             std::size_t count, float* out) {
    const float* mean_3 = state.mean_3;
    const float* mean_10 = state.mean_10;
    const float* mean_30 = state.mean_30;
    const float* scale = state.scale;
    const float* level_scale = state.level_scale;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const float usual = visits[i] > 0 ? bucket[i] : x;
        const float residual = x - usual;
        const float sign = scale[i] < level_scale[i] ? 1.0F : -1.0F;
        out[i] = sign * magnitude(residual);
        out[count + i] = sign * magnitude(towards(mean_3[i], residual, kRate3));
        out[2 * count + i] = sign * magnitude(towards(mean_10[i], residual, kRate10));
        out[3 * count + i] = sign * magnitude(towards(mean_30[i], residual, kRate30));
    }
}

ARGUS_INLINE void season_body(const float* values, const std::uint8_t* mask, const float* level, const float* age,
                              float rate, std::size_t count, float* bucket, std::uint16_t* visits,
                              const State& state) {
    float* mean_3 = state.mean_3;
    float* mean_10 = state.mean_10;
    float* mean_30 = state.mean_30;
    float* scale = state.scale;
    float* level_scale = state.level_scale;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const bool seen = x == x;
        const bool keep = (mask[i] != kLearnNothing) & seen;
        const std::int32_t before = visits[i];
        const float usual = before > 0 ? bucket[i] : x;
        const float residual = x - usual;
        const float apart = age[i] > 0.0F ? magnitude(x - level[i]) : 0.0F;
        const float young = 1.0F / (age[i] + 1.0F);
        const float scale_rate = young > kScaleRate ? young : kScaleRate;
        const std::int32_t now = before < kMostVisits ? before + 1 : before;
        const float plain = 1.0F / static_cast<float>(now);
        const float weight = plain > rate ? plain : rate;
        bucket[i] = keep ? usual + weight * residual : bucket[i];
        visits[i] = static_cast<std::uint16_t>(keep ? now : before);
        mean_3[i] = seen ? towards(mean_3[i], residual, kRate3) : mean_3[i];
        mean_10[i] = seen ? towards(mean_10[i], residual, kRate10) : mean_10[i];
        mean_30[i] = seen ? towards(mean_30[i], residual, kRate30) : mean_30[i];
        const float new_scale = towards(scale[i], magnitude(residual), scale_rate);
        const float new_level_scale = towards(level_scale[i], apart, scale_rate);
        scale[i] = keep ? new_scale : scale[i];
        level_scale[i] = keep ? new_level_scale : level_scale[i];
    }
}

ARGUS_INLINE void level_body(const float* values, const std::uint8_t* mask, std::size_t count, float* level,
                             float* age) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const bool keep = (mask[i] != kLearnNothing) & (x == x);
        const bool anew = (mask[i] == kLearnAnew) | (age[i] == 0.0F);
        const float young = 1.0F / (age[i] + 1.0F);
        const float rate = anew ? 1.0F : young > kLevelRate ? young : kLevelRate;
        const float moved = towards(level[i], x, rate);
        level[i] = keep ? moved : level[i];
        age[i] = (keep & (age[i] < kOldest)) ? age[i] + 1.0F : age[i];
    }
}

ARGUS_KERNEL(score_kernel, score_body,
             (const float* values, const float* bucket, const std::uint16_t* visits, const State& state,
              std::size_t count, float* out),
             (values, bucket, visits, state, count, out))

ARGUS_KERNEL(season_kernel, season_body,
             (const float* values, const std::uint8_t* mask, const float* level, const float* age, float rate,
              std::size_t count, float* bucket, std::uint16_t* visits, const State& state),
             (values, mask, level, age, rate, count, bucket, visits, state))

ARGUS_KERNEL(level_kernel, level_body,
             (const float* values, const std::uint8_t* mask, std::size_t count, float* level, float* age),
             (values, mask, count, level, age))

class Season final : public Detector {
public:
    Season(std::uint32_t slots, double hour_weight)
        : hour_weight_(hour_weight),
          slots_(slots),
          buckets_((kDay + kWeek) * slots),
          visits_((kDay + kWeek) * slots),
          all_((kArrays * kSeasons + 2) * slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        auto* self = const_cast<Season*>(this);  // the kernel only reads through it
        const std::size_t count = view.values.size();
        for (std::size_t k = 0; k < kSeasons; ++k) {
            const std::size_t hour = hour_of(view.wall, k);
            score_kernel(view.values.data(), self->bucket(k, hour), self->visits(k, hour), self->state(k),
                         count, statistic.data() + 4 * k * count);
        }
    }

    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        // An hour of rows weighs hour_weight in its bucket: w = x/(1 + x), close to 1 - exp(-x) and the same
        // bits everywhere.
        const double x = hour_weight_ * view.interval_s / 3600.0;
        const auto rate = static_cast<float>(x / (1.0 + x));
        const bool anew = std::memchr(mask.data(), kLearnAnew, mask.size()) != nullptr;
        for (std::size_t k = 0; k < kSeasons; ++k) {
            const std::size_t hour = hour_of(view.wall, k);
            if (anew) shift(k, hour, view, mask);
            season_kernel(view.values.data(), mask.data(), level(), age(), rate, view.values.size(),
                          bucket(k, hour), visits(k, hour), state(k));
        }
        level_kernel(view.values.data(), mask.data(), view.values.size(), level(), age());
    }

    void reset(std::span<const std::uint32_t> slots) override {
        for (const std::uint32_t slot : slots) {
            for (std::size_t at = slot; at < buckets_.size(); at += slots_) {
                buckets_[at] = 0.0F;
                visits_[at] = 0;
            }
            for (std::size_t at = slot; at < all_.size(); at += slots_) all_[at] = 0.0F;
        }
    }

    void save(Writer& writer) const override {
        writer.array(std::span<const float>(buckets_));
        writer.array(std::span<const float>(all_));
        writer.array(std::span<const std::uint16_t>(visits_));
    }

    void load(Reader& reader) override {
        reader.array(std::span<float>(buckets_));
        reader.array(std::span<float>(all_));
        reader.array(std::span<std::uint16_t>(visits_));
    }

private:
    static constexpr std::size_t kSeasons = 2;
    static constexpr std::size_t kDay = 24;
    static constexpr std::size_t kWeek = 168;
    static constexpr std::size_t kArrays = 5;

    [[nodiscard]] static std::size_t hour_of(Nanos wall, std::size_t season) noexcept {
        const Nanos period = (season == 0 ? Nanos{kDay} : Nanos{kWeek}) * kHour;
        const Nanos phase = wall % period;
        return static_cast<std::size_t>((phase < 0 ? phase + period : phase) / kHour);
    }

    [[nodiscard]] float* bucket(std::size_t season, std::size_t hour) noexcept {
        return buckets_.data() + ((season == 0 ? 0 : kDay) + hour) * slots_;
    }
    [[nodiscard]] std::uint16_t* visits(std::size_t season, std::size_t hour) noexcept {
        return visits_.data() + ((season == 0 ? 0 : kDay) + hour) * slots_;
    }
    [[nodiscard]] State state(std::size_t season) noexcept {
        float* at = all_.data() + season * kArrays * slots_;
        const std::size_t n = slots_;
        return {at, at + n, at + 2 * n, at + 3 * n, at + 4 * n};
    }
    [[nodiscard]] float* level() noexcept { return all_.data() + kArrays * kSeasons * slots_; }
    [[nodiscard]] float* age() noexcept { return level() + slots_; }

    // A new normal keeps its daily shape: every bucket moves by as much as this hour's has to.
    void shift(std::size_t season, std::size_t hour, const View& view, std::span<const std::uint8_t> mask) noexcept {
        const State s = state(season);
        for (std::size_t i = 0; i < mask.size(); ++i) {
            const float by = view.values[i] - bucket(season, hour)[i];
            if (mask[i] != kLearnAnew || !(by == by) || visits(season, hour)[i] == 0) continue;
            for (std::size_t h = 0; h < (season == 0 ? kDay : kWeek); ++h) bucket(season, h)[i] += by;
            s.mean_3[i] = s.mean_10[i] = s.mean_30[i] = 0.0F;
        }
    }

    double hour_weight_;
    std::size_t slots_;
    ZeroedVector<float> buckets_;         // usual values, hour after hour, a float per slot
    ZeroedVector<std::uint16_t> visits_;  // values learned by each
    ZeroedVector<float> all_;             // the arrays of State per season, then the level and its age
};

constexpr std::array<Option, 1> kOptions{{
    {"hour_weight", "1", 0.63, 0.05, 5.0,
     "how much an hour of values moves the usual value of its hour; 0.63 = by about 40 %"},
}};

constexpr std::array<Channel, 8> kChannels{{{"day", Scale::row},
                                            {"day.3", Scale::rows_3},
                                            {"day.10", Scale::rows_10},
                                            {"day.30", Scale::rows_30},
                                            {"week", Scale::row},
                                            {"week.3", Scale::rows_3},
                                            {"week.10", Scale::rows_10},
                                            {"week.30", Scale::rows_30}}};

std::unique_ptr<Detector> make_season(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Season>(slots, options[0]);
}

}  // namespace

const DetectorDescriptor season_detector{
    .leaf = {.name = "season",
             .documentation = "Distance of a value, and of the mean of the last 3, 10 and 30, from what is usual "
                              "at this hour of the day and of the week.",
             .reference = "Chatfield (1978), Applied Statistics 27(3): exponential smoothing of seasonal means",
             .options = kOptions},
    .make = make_season,
    .channels = kChannels,
};

}  // namespace argus::detectors
