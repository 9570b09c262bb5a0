// Drift of embeddings: have the vectors begun to come from elsewhere? (NEWMA over random Fourier features)
// Channels: embedding   |fast - slow|^2 over what it is for unchanged rows: 1 = as expected; at the entity's first
// slot,
//                       NaN at the others; 0 before 32 vectors
// Input:    an entity's slots are the dimensions of one vector, of which direction counts, not length; a vector with a
//           missing component is missing. Text does not enter Argus: whoever has it embeds it.
// Method:   64 features sqrt(2/64) cos(w.x + b), w normal of deviation 1/`width`, the same for all from a fixed seed;
//           two exponential means of different speed; their gap is the maximum mean discrepancy of recent and less
//           recent vectors, so any change of the distribution counts, not of the mean alone.
// Cost:     520 bytes a vector's stream and 256 bytes a dimension shared by all; bench_leaves.
// Not:      a probability: rank it in its own past.
#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "base/dispatch.hpp"
#include "base/zeroed.hpp"
#include "detectors/detector.hpp"
#include "detectors/evidence.hpp"

namespace argus::detectors {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t kFeatures = 64;
constexpr float kFewest = 32.0F;
using Features = std::array<float, kFeatures>;

struct Settings {
    std::uint32_t dimensions;
    float width;
    float fast;
    float slow;
};

struct State {  // of one entity
    Features fast;
    Features slow;
    float spread;  // mean |features - slow|^2
    float count;
};

// splitmix64 (Steele, Lea and Flood 2014).
class Random {
public:
    [[nodiscard]] float uniform() noexcept {  // in [0, 1)
        state_ += 0x9E3779B97F4A7C15ULL;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
        return static_cast<float>((z ^ (z >> 31U)) >> 40U) * 0x1p-24F;
    }
    [[nodiscard]] float normal() noexcept {  // nearly: the sum of twelve uniforms
        float sum = -6.0F;
        for (int i = 0; i < 12; ++i) sum += uniform();
        return sum;
    }

private:
    std::uint64_t state_ = 1;
};

// cos(2 pi t) for |t| < 2^22; absolute error < 4e-6.
ARGUS_INLINE float cosine_of_turns(float t) noexcept {
    const float nearest = static_cast<float>(static_cast<std::int32_t>(t + (t < 0.0F ? -0.5F : 0.5F)));
    const float y = 6.28318531F * (0.25F - magnitude(t - nearest));  // cos(2 pi t) = sin(y), |y| <= pi/2
    const float y2 = y * y;
    return y * (1.0F + y2 * (-0.166666667F + y2 * (0.00833333333F + y2 * (-0.000198412698F + y2 * 2.75573192e-6F))));
}

// Features of a vector times `scale`: weights are in turns, kFeatures a dimension.
ARGUS_INLINE void feature_body(const float* vector, float scale, const float* weights, const float* phases,
                               std::size_t dimensions, float* out) {
    float turns[kFeatures];
    for (std::size_t j = 0; j < kFeatures; ++j) turns[j] = phases[j];
    for (std::size_t d = 0; d < dimensions; ++d) {
        const float x = vector[d] * scale;
        for (std::size_t j = 0; j < kFeatures; ++j) turns[j] += x * weights[d * kFeatures + j];
    }
    for (std::size_t j = 0; j < kFeatures; ++j) out[j] = 0.176776695F * cosine_of_turns(turns[j]);
}

ARGUS_KERNEL(feature_kernel, feature_body,
             (const float* vector, float scale, const float* weights, const float* phases, std::size_t dimensions,
              float* out),
             (vector, scale, weights, phases, dimensions, out))

class Embedding final : public Detector {
public:
    Embedding(std::uint32_t slots, Settings settings)
        : settings_(settings),
          slots_(slots),
          weights_(settings.dimensions * kFeatures),
          states_((slots + settings.dimensions - 1) / settings.dimensions) {
        Random random;
        for (float& phase : phases_) phase = random.uniform();
        for (float& weight : weights_) weight = random.normal() / settings.width * 0.159154943F;
        const float f = settings.fast;
        const float s = settings.slow;
        usual_ = f / (2.0F - f) + s / (2.0F - s) - 2.0F * f * s / (f + s - f * s);
    }

    void score(const View& view, std::span<float> statistic) const override {
        std::fill(statistic.begin(), statistic.end(), kNone);
        for (const Entity& entity : view.entities) {
            Features features;
            if (!transform(view, entity, features)) continue;
            const State& state = states_[entity.first / settings_.dimensions];
            float gap = 0.0F;
            for (std::size_t j = 0; j < kFeatures; ++j) {
                const float fast = state.fast[j] + settings_.fast * (features[j] - state.fast[j]);
                const float apart = fast - state.slow[j];
                gap += apart * apart;
            }
            const float expected = usual_ * (state.spread > 1.0e-6F ? state.spread : 1.0e-6F);
            statistic[entity.first] = state.count >= kFewest ? gap / expected : 0.0F;
        }
    }

    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        for (const Entity& entity : view.entities) {
            Features features;
            if (transform(view, entity, features)) {
                learn(states_[entity.first / settings_.dimensions], features, mask[entity.first]);
            }
        }
    }

    void reset(std::span<const std::uint32_t> slots) override {
        for (const std::uint32_t slot : slots) states_[slot / settings_.dimensions] = State{};
    }
    void save(Writer& writer) const override {
        writer.pod(slots_);
        writer.array(std::span<const State>(states_));
    }
    void load(Reader& reader) override {
        if (reader.pod<std::uint32_t>() != slots_) throw CodecError("embedding: saved with another number of slots");
        reader.array(std::span<State>(states_));
    }

private:
    [[nodiscard]] bool transform(const View& view, const Entity& entity, Features& features) const noexcept {
        const auto vector = view.values.subspan(entity.first, std::min(entity.count, settings_.dimensions));
        float largest = 0.0F;
        for (const float x : vector) {
            if (x != x) return false;
            largest = magnitude(x) > largest ? magnitude(x) : largest;
        }
        float squares = 0.0F;
        const bool any = largest > 1.0e-30F;
        for (const float x : vector) squares += any ? (x / largest) * (x / largest) : 0.0F;
        const float scale = any ? 1.0F / __builtin_sqrtf(squares) / largest : 0.0F;
        feature_kernel(vector.data(), scale, weights_.data(), phases_.data(), vector.size(), features.data());
        return true;
    }

    void learn(State& state, const Features& features, std::uint8_t what) const noexcept {
        if (what == kLearnAnew) state = State{};
        const bool first = state.count == 0.0F;
        const float young = 1.0F / (state.count + 1.0F);
        const float fast = young > settings_.fast ? young : settings_.fast;
        const float slow = young > settings_.slow ? young : settings_.slow;
        float apart = 0.0F;
        for (std::size_t j = 0; j < kFeatures; ++j) {
            const float off = features[j] - state.slow[j];
            apart += off * off;
            state.fast[j] += fast * (features[j] - state.fast[j]);
            if (what != kLearnNothing) state.slow[j] += slow * off;
        }
        if (what == kLearnNothing) return;
        if (!first) state.spread += (state.count > 1.0F ? slow : 1.0F) * (apart - state.spread);
        state.count = state.count < kOldestValue ? state.count + 1.0F : state.count;
    }

    Settings settings_;
    std::uint32_t slots_;
    Features phases_;
    std::vector<float> weights_;
    ZeroedVector<State> states_;
    float usual_ = 1.0F;  // E|fast - slow|^2 of unchanged rows, in spreads
};

constexpr std::array<Option, 4> kOptions{{
    {"dimensions", "1", 64.0, 1.0, 4096.0, "of a vector; an entity's first slot is a multiple of it"},
    {"width", "1", 0.7, 0.05, 10.0, "distance between directions at which they count as different"},
    {"fast_rate", "1", 0.05, 0.005, 0.5, "weight of one vector in the recent mean; 0.05 = about 20"},
    {"slow_rate", "1", 0.002, 1e-5, 0.1, "weight of one vector in the usual mean; 0.002 = about 500"},
}};

constexpr std::array<Channel, 1> kChannels{{{"", Scale::rows_10}}};

std::unique_ptr<Detector> make_embedding(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Embedding>(
        slots, Settings{static_cast<std::uint32_t>(options[0]), static_cast<float>(options[1]),
                        static_cast<float>(options[2]), static_cast<float>(options[3])});
}

}  // namespace

const DetectorDescriptor embedding_detector{
    .leaf = {.name = "embedding",
             .documentation = "How far recent embedding vectors are from those before them, as distributions.",
             .reference = "Keriven, Garreau and Poli (2020), IEEE Trans. Signal Processing 68: NEWMA",
             .options = kOptions},
    .make = make_embedding,
    .channels = kChannels,
    .use = Use::arrays,
};

}  // namespace argus::detectors
