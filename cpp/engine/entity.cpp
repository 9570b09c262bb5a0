#include "engine/entity.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>

#include "base/arithmetic.hpp"
#include "base/assert.hpp"
#include "base/dispatch.hpp"

namespace argus::engine {
namespace {

constexpr std::size_t kWidth = EntityScore::kGroup;
constexpr std::size_t kLane = 16;  // columns of a panel
constexpr std::size_t kLags = 3;
constexpr std::size_t kMoments = 9;  // of the value and its lags: three cross products, six among the lags
constexpr std::size_t kModels = 5;   // four of age, 8 hours apart, and one in the making

constexpr float kShrink = 0.1F;
constexpr float kClip = 20.0F;
constexpr float kRangeShare = 0.01F;
constexpr float kTiny = 1.0e-30F;
constexpr float kFarthest = 1.0e30F;
constexpr double kRidge = 0.01;
constexpr float kFastLag = 0.3F;
constexpr float kSlowLag = 0.03F;
constexpr std::array<double, 3> kRecentRates{0.3, 0.1, 0.03};
constexpr double kQuiet = 0.01;  // deviance that counts as none
constexpr std::int64_t kWarmRows = 150;
constexpr std::int32_t kMemoryRows = 1 << 21;  // weights 1/n end here

constexpr Nanos kHour = 3600 * kSecond;
constexpr Nanos kModelAge = 24 * kHour;
constexpr Nanos kAgedFrom = 3 * kModelAge;
constexpr Nanos kModelEvery = 8 * kHour;
constexpr Nanos kLongestGap = kHour;

using Row = std::array<float, kWidth>;

// The upper triangle of a symmetric or triangular matrix in panels of kLane columns: panel p holds the rows
// 0 .. kLane (p + 1) - 1, each kLane numbers, one after the other.
constexpr std::size_t panel_at(std::size_t panel) { return kLane * kLane * panel * (panel + 1) / 2; }
constexpr std::size_t cell(std::size_t row, std::size_t column) {
    return panel_at(column / kLane) + row * kLane + column % kLane;
}
using Panels = std::array<float, panel_at(kWidth / kLane)>;

// What one register holds: at the baseline, and from x86-64-v3 on. Both give the same bits.
using Narrow __attribute__((vector_size(4 * sizeof(float)), may_alias)) = float;
using Wide __attribute__((vector_size(8 * sizeof(float)), may_alias)) = float;

template <class V>
constexpr std::size_t kHeld = sizeof(V) / sizeof(float);

ARGUS_INLINE float clipped(float x) {
    const float above = x > -kClip ? x : -kClip;
    return above < kClip ? above : kClip;
}

// Keeps a constant series silent and a hardly moving one from shouting.
ARGUS_INLINE float least_scale(float low, float high) { return kRangeShare * (high - low) + kTiny; }

// Without what is far below kTiny: numbers that small slow some processors down a hundredfold. Exact from 1e-22 on.
ARGUS_INLINE float without_dust(float x) { return (x + kTiny) - kTiny; }

// One step of an exponential mean.
ARGUS_INLINE float towards(float from, float to, float rate) { return without_dust(from + rate * (to - from)); }

enum Seen : std::uint8_t { never, joins, learns };  // joins: first seen within the block in hand

using Matrix = std::array<std::array<double, kWidth>, kWidth>;

}  // namespace

// What the machine is held against.
struct EntityModel {
    alignas(64) Row mean, scale, jump_mean, jump_scale;
    alignas(64) std::array<Row, kLags> forecast;  // weights of the lags
    alignas(64) Row part;                         // 1 = the series takes part, else 0
    alignas(64) Row jump_square;                  // expected, of the standardised increment
    alignas(64) Panels level, innovation;         // G with G G' = (C + shrink)^-1
    alignas(64) std::array<double, EntityScore::kChannels> expected;
    Nanos observed;         // group's age when it was made
    std::uint8_t made;
    std::uint8_t outdated;  // a series left after it was made: see settle()
};

// Plain memory without defaults: zero at birth, saved as it is.
struct EntityGroup {
    alignas(64) Row low, high, last, fast, slow;           // running: range, held value, lags
    alignas(64) Row start_last, start_fast, start_slow;    // before the block in hand
    alignas(64) Row standard, surprise, jump;              // the last row, standardised by the model in use
    alignas(64) std::array<Row, EntityScore::kBlock> rows;              // the block in hand, missing values held
    alignas(64) std::array<double, kWidth> mean, variance, jump_mean, jump_variance;
    alignas(64) std::array<Row, kMoments> moments;
    alignas(64) std::array<Row, kLags> forecast;
    alignas(64) Panels level, innovation;                  // covariances
    alignas(64) std::array<EntityModel, kModels> models;
    alignas(64) std::array<std::int32_t, kWidth> known;    // rows learned from
    std::array<std::uint8_t, kWidth> seen;
    std::array<double, EntityScore::kChannels> found;                   // of the last row
    Nanos last_mono, observed, sealed;
    std::int64_t blocks;
    std::uint32_t count, width;   // slots; the same up to whole lanes
    std::uint32_t begin, filled;  // rows of the block in hand
    std::uint32_t making, in_use;  // models
    std::uint32_t started;
    std::uint32_t unseen;  // slots
};

struct EntityScratch {
    alignas(64) Row input, mean, inverse, keep, weight;
    alignas(64) std::array<double, kWidth> share, sum;
    alignas(64) std::array<Row, EntityScore::kBlock> standard, surprise;
    alignas(64) Matrix square, factor;
};

namespace {

// --- Scoring -------------------------------------------------------------------------------------------------

// The sum of kLane running sums, in one order.
template <class V>
ARGUS_INLINE float sum_of(const V* sums) {
    float sum = 0.0F;
    for (std::size_t l = 0; l < kLane; ++l) sum += sums[l / kHeld<V>][l % kHeld<V>];
    return sum;
}

// |G' z|^2, in one order. Four partial sums: one would wait for itself.
template <class V>
ARGUS_INLINE float deviance(const float* factor, const float* z, std::size_t panels) {
    constexpr std::size_t kSums = 4;
    constexpr std::size_t kParts = kLane / kHeld<V>;
    V total[kParts]{};
    for (std::size_t p = 0; p < panels; ++p) {
        const V* row = reinterpret_cast<const V*>(factor + panel_at(p));
        V sum[kSums][kParts]{};
        for (std::size_t j = 0; j < kLane * (p + 1); j += kSums) {
            for (std::size_t k = 0; k < kSums; ++k) {
                for (std::size_t part = 0; part < kParts; ++part) sum[k][part] += z[j + k] * *row++;
            }
        }
        for (std::size_t part = 0; part < kParts; ++part) {
            const V u = (sum[0][part] + sum[1][part]) + (sum[2][part] + sum[3][part]);
            total[part] += u * u;
        }
    }
    return sum_of(total);
}

template <class V>
ARGUS_INLINE float sum_of_squares(const float* z, std::size_t panels) {
    constexpr std::size_t kParts = kLane / kHeld<V>;
    V total[kParts]{};
    const V* at = reinterpret_cast<const V*>(z);
    for (std::size_t p = 0; p < panels; ++p) {
        for (std::size_t part = 0; part < kParts; ++part, ++at) total[part] += *at * *at;
    }
    return sum_of(total);
}

// Takes in one row, standardises it by the model in use and sums the three deviances.
template <class V>
ARGUS_INLINE void score_body(EntityGroup& g, const EntityModel& m, const float* input, float* row,
                             std::size_t width) {
    ARGUS_IVDEP
    for (std::size_t j = 0; j < width; ++j) {
        const float given = input[j];
        const float held = g.last[j];
        const float above = given > -kFarthest ? given : -kFarthest;
        const float near = above < kFarthest ? above : kFarthest;
        const float x = given - given == 0.0F ? without_dust(near) : held;
        const float low = x < g.low[j] ? x : g.low[j];
        const float high = x > g.high[j] ? x : g.high[j];
        const float least = least_scale(low, high);
        const float inverse = m.part[j] / (m.scale[j] + least);
        const float mean = m.mean[j];
        const float z = clipped((x - mean) * inverse);
        const float explained = m.forecast[0][j] * clipped((held - mean) * inverse) +
                                m.forecast[1][j] * clipped((g.fast[j] - mean) * inverse) +
                                m.forecast[2][j] * clipped((g.slow[j] - mean) * inverse);
        const float step = ((x - held) - m.jump_mean[j]) * (m.part[j] / (m.jump_scale[j] + least));
        g.standard[j] = z;
        g.surprise[j] = z - explained;
        g.jump[j] = clipped(step);
        g.low[j] = low;
        g.high[j] = high;
        g.last[j] = x;
        g.fast[j] = towards(g.fast[j], x, kFastLag);
        g.slow[j] = towards(g.slow[j], x, kSlowLag);
        row[j] = x;
    }
    const std::size_t panels = width / kLane;
    g.found[0] = static_cast<double>(deviance<V>(m.level.data(), g.standard.data(), panels));
    g.found[1] = static_cast<double>(deviance<V>(m.innovation.data(), g.surprise.data(), panels));
    g.found[2] = static_cast<double>(sum_of_squares<V>(g.jump.data(), panels) / (1.0F + kShrink));
}

// --- Learning ------------------------------------------------------------------------------------------------

// Blends the block's mean and variance of value(row, series) into what is known; share = its weight per series.
template <class Value>
ARGUS_INLINE void blend(Value value, std::size_t begin, const double* share, double* sum, std::size_t width,
                        double* mean, double* variance) {
    const double count = static_cast<double>(EntityScore::kBlock - begin);
    for (std::size_t j = 0; j < width; ++j) sum[j] = 0.0;
    for (std::size_t i = begin; i < EntityScore::kBlock; ++i) {
        ARGUS_IVDEP
        for (std::size_t j = 0; j < width; ++j) sum[j] += value.at(i, j);
    }
    for (std::size_t j = 0; j < width; ++j) {
        const double moved = share[j] * (sum[j] / count - mean[j]);
        mean[j] += moved;
        variance[j] = (1.0 - share[j]) * (variance[j] + moved * moved);
        sum[j] = 0.0;
    }
    for (std::size_t i = begin; i < EntityScore::kBlock; ++i) {
        ARGUS_IVDEP
        for (std::size_t j = 0; j < width; ++j) {
            const double apart = value.at(i, j) - mean[j];
            sum[j] += apart * apart;
        }
    }
    for (std::size_t j = 0; j < width; ++j) variance[j] += share[j] * (sum[j] / count);
}

struct Level {
    const EntityGroup& g;
    ARGUS_INLINE double at(std::size_t i, std::size_t j) const { return static_cast<double>(g.rows[i][j]); }
};

struct Increment {
    const EntityGroup& g;
    ARGUS_INLINE double at(std::size_t i, std::size_t j) const {
        const Row& before = i > g.begin ? g.rows[i - 1] : g.start_last;
        return static_cast<double>(g.rows[i][j] - before[j]);
    }
};

ARGUS_INLINE void moments_body(EntityGroup& g, const double* share, double* sum, std::size_t width) {
    blend(Level{g}, g.begin, share, sum, width, g.mean.data(), g.variance.data());
    blend(Increment{g}, g.begin, share, sum, width, g.jump_mean.data(), g.jump_variance.data());
}

// Standardises the block by what is now known, weighs it, and adds to the moments of the lags.
ARGUS_INLINE void standardise_body(EntityGroup& g, EntityScratch& s, std::size_t width) {
    for (auto& moment : g.moments) {
        for (std::size_t j = 0; j < width; ++j) moment[j] *= s.keep[j] * s.keep[j];
    }
    const float* last = g.start_last.data();
    for (std::size_t i = g.begin; i < g.rows.size(); ++i) {
        ARGUS_IVDEP
        for (std::size_t j = 0; j < width; ++j) {
            const float x = g.rows[i][j];
            const float mean = s.mean[j];
            const float inverse = s.inverse[j];
            const float w = s.weight[j];
            const float z = clipped((x - mean) * inverse);
            const float a = clipped((last[j] - mean) * inverse);
            const float b = clipped((g.start_fast[j] - mean) * inverse);
            const float c = clipped((g.start_slow[j] - mean) * inverse);
            const float q = z - (g.forecast[0][j] * a + g.forecast[1][j] * b + g.forecast[2][j] * c);
            const float w2 = w * w;
            s.standard[i][j] = z * w;
            s.surprise[i][j] = q * w;
            g.moments[0][j] += w2 * (z * a);
            g.moments[1][j] += w2 * (z * b);
            g.moments[2][j] += w2 * (z * c);
            g.moments[3][j] += w2 * (a * a);
            g.moments[4][j] += w2 * (a * b);
            g.moments[5][j] += w2 * (a * c);
            g.moments[6][j] += w2 * (b * b);
            g.moments[7][j] += w2 * (b * c);
            g.moments[8][j] += w2 * (c * c);
            g.start_fast[j] = towards(g.start_fast[j], x, kFastLag);
            g.start_slow[j] = towards(g.start_slow[j], x, kSlowLag);
        }
        last = g.rows[i].data();
    }
}

// C = keep keep' C + sum of rows' outer products, four rows of C at a time in registers.
template <class V>
ARGUS_INLINE void covariance_body(float* covariance, const float* rows, const float* keep, std::size_t begin,
                                  std::size_t panels) {
    constexpr std::size_t kAtOnce = 4;
    constexpr std::size_t kParts = kLane / kHeld<V>;
    for (std::size_t p = 0; p < panels; ++p) {
        const V* kept = reinterpret_cast<const V*>(keep + p * kLane);
        for (std::size_t i = 0; i < kLane * (p + 1); i += kAtOnce) {
            V* at = reinterpret_cast<V*>(covariance + panel_at(p) + i * kLane);
            V sum[kAtOnce][kParts];
            for (std::size_t k = 0; k < kAtOnce; ++k) {
                for (std::size_t part = 0; part < kParts; ++part) {
                    sum[k][part] = at[k * kParts + part] * (keep[i + k] * kept[part]);
                }
            }
            for (std::size_t r = begin; r < EntityScore::kBlock; ++r) {
                const float* row = rows + r * kWidth;
                const V* across = reinterpret_cast<const V*>(row + p * kLane);
                for (std::size_t k = 0; k < kAtOnce; ++k) {
                    for (std::size_t part = 0; part < kParts; ++part) sum[k][part] += row[i + k] * across[part];
                }
            }
            for (std::size_t k = 0; k < kAtOnce; ++k) {
                for (std::size_t part = 0; part < kParts; ++part) at[k * kParts + part] = sum[k][part];
            }
        }
    }
}

// U upper triangular with U' U = the square matrix, in its place; what lies below the diagonal is not used.
ARGUS_INLINE void cholesky_body(Matrix& square, std::size_t width) {
    constexpr double kLeastPivot = static_cast<double>(kShrink) / 2.0;
    for (std::size_t k = 0; k < width; ++k) {
        const double found = square[k][k];
        const double pivot = std::sqrt(found > kLeastPivot ? found : kLeastPivot);
        const double inverse = 1.0 / pivot;
        square[k][k] = pivot;
        for (std::size_t j = k + 1; j < width; ++j) square[k][j] *= inverse;
        for (std::size_t i = k + 1; i < width; ++i) {
            const double factor = square[k][i];
            if (factor == 0.0) continue;  // a constant series
            ARGUS_IVDEP
            for (std::size_t j = i; j < width; ++j) square[i][j] -= factor * square[k][j];
        }
    }
}

// The inverse of an upper triangular matrix; zero below the diagonal.
ARGUS_INLINE void inverse_body(const Matrix& upper, Matrix& inverse, std::size_t width) {
    for (std::size_t j = width; j-- > 0;) {
        const double r = 1.0 / upper[j][j];
        for (std::size_t i = 0; i < width; ++i) inverse[j][i] = 0.0;
        for (std::size_t k = j + 1; k < width; ++k) {
            const double factor = -r * upper[j][k];
            if (factor == 0.0) continue;
            ARGUS_IVDEP
            for (std::size_t i = k; i < width; ++i) inverse[j][i] += factor * inverse[k][i];
        }
        inverse[j][j] = r;
    }
}

// U' U of an upper triangular matrix, upper half.
ARGUS_INLINE void product_body(const Matrix& upper, Matrix& square, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t j = 0; j < width; ++j) square[i][j] = 0.0;
        for (std::size_t k = 0; k <= i; ++k) {
            const double factor = upper[k][i];
            ARGUS_IVDEP
            for (std::size_t j = i; j < width; ++j) square[i][j] += factor * upper[k][j];
        }
    }
}

ARGUS_KERNEL(score_wide, score_body<Wide>,
             (EntityGroup & g, const EntityModel& m, const float* input, float* row, std::size_t width),
             (g, m, input, row, width))
ARGUS_KERNEL(moments_kernel, moments_body,
             (EntityGroup & g, const double* share, double* sum, std::size_t width), (g, share, sum, width))
ARGUS_KERNEL(standardise_kernel, standardise_body, (EntityGroup & g, EntityScratch& s, std::size_t width),
             (g, s, width))
ARGUS_KERNEL(cholesky, cholesky_body, (Matrix & square, std::size_t width), (square, width))
ARGUS_KERNEL(inverse_of, inverse_body, (const Matrix& upper, Matrix& inverse, std::size_t width),
             (upper, inverse, width))
ARGUS_KERNEL(product_of, product_body, (const Matrix& upper, Matrix& square, std::size_t width),
             (upper, square, width))
ARGUS_KERNEL(covariance_wide, covariance_body<Wide>,
             (float* covariance, const float* rows, const float* keep, std::size_t begin, std::size_t panels),
             (covariance, rows, keep, begin, panels))

void score_row(EntityGroup& g, const EntityModel& m, const float* input, float* row) noexcept {
    if (isa() == Isa::baseline) {
        score_body<Narrow>(g, m, input, row, g.width);
    } else {
        score_wide(g, m, input, row, g.width);
    }
}

void add_to_covariance(Panels& covariance, const Row* rows, const Row& keep, std::size_t begin,
                       std::size_t panels) noexcept {
    if (isa() == Isa::baseline) {
        covariance_body<Narrow>(covariance.data(), rows->data(), keep.data(), begin, panels);
    } else {
        covariance_wide(covariance.data(), rows->data(), keep.data(), begin, panels);
    }
}

// G of the square matrix, upper half given, into panels; returns the sum of squares of G, the trace of the
// inverse.
double factorise(Matrix& square, Matrix& factor, std::size_t width, Panels& out) noexcept {
    cholesky(square, width);
    inverse_of(square, factor, width);
    double trace = 0.0;
    for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t j = i / kLane * kLane; j < width; ++j) {
            out[cell(i, j)] = static_cast<float>(factor[i][j]);
            trace += factor[i][j] * factor[i][j];
        }
    }
    return trace;
}

// 2^x for |x| < 1000 in plain arithmetic, whose bits no library changes; relative error < 1e-7.
double power_of_two(double x) noexcept {
    const double whole = std::floor(x);
    const double y = (x - whole - 0.5) * 0.69314718055994531;
    const double series =
        1.0 + y * (1.0 + y * (1.0 / 2 + y * (1.0 / 6 + y * (1.0 / 24 + y * (1.0 / 120 + y * (1.0 / 720))))));
    const auto exponent = static_cast<std::uint64_t>(static_cast<std::int64_t>(whole) + 1023) << 52U;
    return std::bit_cast<double>(exponent) * series * 1.41421356237309505;
}

// Ridge regression on three lags from their moments: Cholesky by hand.
std::array<float, kLags> ridge(const std::array<double, kMoments>& m) noexcept {
    const double u00 = std::sqrt(m[3] + kRidge);
    const double u01 = m[4] / u00;
    const double u02 = m[5] / u00;
    const double u11 = std::sqrt(std::max(m[6] + kRidge - u01 * u01, kRidge / 2.0));
    const double u12 = (m[7] - u01 * u02) / u11;
    const double u22 = std::sqrt(std::max(m[8] + kRidge - u02 * u02 - u12 * u12, kRidge / 2.0));
    const double y0 = m[0] / u00;
    const double y1 = (m[1] - u01 * y0) / u11;
    const double y2 = (m[2] - u02 * y0 - u12 * y1) / u22;
    const double w2 = y2 / u22;
    const double w1 = (y1 - u12 * w2) / u11;
    const double w0 = (y0 - u01 * w1 - u02 * w2) / u00;
    return {static_cast<float>(w0), static_cast<float>(w1), static_cast<float>(w2)};
}

// What the model expects of the three deviances when the machine goes on as it did.
void expect(EntityModel& model, double level_trace, double innovation_trace, std::size_t width) noexcept {
    const double dimensions = static_cast<double>(width);
    model.expected[0] = std::max(0.0, dimensions - static_cast<double>(kShrink) * level_trace);
    model.expected[1] = std::max(0.0, dimensions - static_cast<double>(kShrink) * innovation_trace);
    double jumps = 0.0;
    for (std::size_t j = 0; j < width; ++j) {
        if (model.part[j] != 0.0F) jumps += static_cast<double>(model.jump_square[j]);
    }
    model.expected[2] = jumps / (1.0 + static_cast<double>(kShrink));
}

void invert(const Panels& covariance, EntityScratch& s, std::size_t width, Panels& out, double& trace) noexcept {
    for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t j = 0; j < width; ++j) {
            s.square[i][j] = j < i ? 0.0 : static_cast<double>(covariance[cell(i, j)]);
        }
        s.square[i][i] += static_cast<double>(kShrink);
    }
    trace = factorise(s.square, s.factor, width, out);
}

// A model as if the series that left had never been in it.
void settle(EntityModel& model, EntityScratch& s, std::size_t width) noexcept {
    std::array<double, 2> traces{};
    std::size_t which = 0;
    for (Panels* factor : {&model.level, &model.innovation}) {
        for (std::size_t i = 0; i < width; ++i) {
            for (std::size_t j = 0; j < width; ++j) {
                s.square[i][j] = j < i ? 0.0 : static_cast<double>((*factor)[cell(i, j)]);
            }
        }
        inverse_of(s.square, s.factor, width);
        product_of(s.factor, s.square, width);
        for (std::size_t i = 0; i < width; ++i) {
            for (std::size_t j = 0; j < width; ++j) {
                if (model.part[i] == 0.0F || model.part[j] == 0.0F) {
                    s.square[i][j] = i == j ? static_cast<double>(kShrink) : 0.0;
                }
            }
        }
        traces[which++] = factorise(s.square, s.factor, width, *factor);
    }
    expect(model, traces[0], traces[1], width);
    model.outdated = 0;
}

void make_model(EntityGroup& g, EntityScratch& s) noexcept {
    EntityModel& model = g.models[g.making];
    for (std::size_t j = 0; j < g.width; ++j) {
        const bool known = g.known[j] >= static_cast<std::int32_t>(EntityScore::kBlock);
        model.part[j] = known ? 1.0F : 0.0F;
        model.mean[j] = static_cast<float>(g.mean[j]);
        model.scale[j] = static_cast<float>(std::sqrt(g.variance[j]));
        model.jump_mean[j] = static_cast<float>(g.jump_mean[j]);
        model.jump_scale[j] = static_cast<float>(std::sqrt(g.jump_variance[j]));
        const float jump = model.jump_scale[j] / (model.jump_scale[j] + least_scale(g.low[j], g.high[j]));
        model.jump_square[j] = jump * jump;
    }
    model.forecast = g.forecast;
    double level_trace = 0.0;
    double innovation_trace = 0.0;
    invert(g.level, s, g.width, model.level, level_trace);
    invert(g.innovation, s, g.width, model.innovation, innovation_trace);
    expect(model, level_trace, innovation_trace, g.width);
    model.observed = g.observed;
    model.made = 1;
    model.outdated = 0;
}

void fit_forecasts(EntityGroup& g) noexcept {
    for (std::size_t j = 0; j < g.width; ++j) {
        std::array<double, kMoments> moments{};
        for (std::size_t m = 0; m < kMoments; ++m) moments[m] = static_cast<double>(g.moments[m][j]);
        const std::array<float, kLags> weights = ridge(moments);
        for (std::size_t lag = 0; lag < kLags; ++lag) g.forecast[lag][j] = weights[lag];
    }
}

// The newest model of age, if there is one.
void choose_model(EntityGroup& g) noexcept {
    Nanos newest = -1;
    for (std::uint32_t m = 0; m < kModels; ++m) {
        const EntityModel& model = g.models[m];
        if (model.made == 0 || model.observed > g.observed - kModelAge || model.observed <= newest) continue;
        newest = model.observed;
        g.in_use = m;
    }
}

// After a block: new models often while the machine is young, then as often as one must come of age.
void renew_models(EntityGroup& g, EntityScratch& s) noexcept {
    constexpr std::int64_t kYoungBlocks = 32;
    constexpr std::int64_t kEvery = 8;
    const bool aged = g.observed >= kAgedFrom;
    const bool due = g.observed - g.sealed >= kModelEvery;
    const bool regular = g.blocks % (g.blocks < kYoungBlocks ? 2 : kEvery) == 0;
    if (regular || due) fit_forecasts(g);
    if (due || (regular && !aged)) {
        make_model(g, s);
        if (!aged) g.in_use = g.making;
    }
    if (due) {
        g.sealed = g.observed;
        g.making = g.making + 1 < kModels ? g.making + 1 : 0;
    }
    if (aged) choose_model(g);
    ++g.blocks;
}

// Weights of the block in hand, per series.
void weigh(EntityGroup& g, EntityScratch& s) noexcept {
    const auto rows = static_cast<std::int32_t>(EntityScore::kBlock - g.begin);
    for (std::size_t j = 0; j < g.width; ++j) {
        s.share[j] = 0.0;
        if (g.seen[j] == learns) {
            g.known[j] = std::min(g.known[j] + rows, kMemoryRows);
            s.share[j] = static_cast<double>(rows) / static_cast<double>(g.known[j]);
        }
        s.keep[j] = static_cast<float>(std::sqrt(1.0 - s.share[j]));
        s.weight[j] = static_cast<float>(std::sqrt(s.share[j] / static_cast<double>(rows)));
    }
}

void learn_block(EntityGroup& g, EntityScratch& s) noexcept {
    weigh(g, s);
    moments_kernel(g, s.share.data(), s.sum.data(), g.width);
    for (std::size_t j = 0; j < g.width; ++j) {
        const float scale = static_cast<float>(std::sqrt(g.variance[j]));
        s.mean[j] = static_cast<float>(g.mean[j]);
        s.inverse[j] = 1.0F / (scale + least_scale(g.low[j], g.high[j]));
    }
    standardise_kernel(g, s, g.width);
    const std::size_t panels = g.width / kLane;
    add_to_covariance(g.level, s.standard.data(), s.keep, g.begin, panels);
    add_to_covariance(g.innovation, s.surprise.data(), s.keep, g.begin, panels);
    renew_models(g, s);
    for (std::size_t j = 0; j < g.width; ++j) {
        if (g.seen[j] == joins) g.seen[j] = learns;
    }
    g.start_last = g.last;
    g.start_fast = g.fast;
    g.start_slow = g.slow;
    g.begin = 0;
    g.filled = 0;
}

void pass_time(EntityGroup& g, Nanos mono) noexcept {
    if (g.started != 0 && mono > g.last_mono) {
        const auto apart = static_cast<std::uint64_t>(mono) - static_cast<std::uint64_t>(g.last_mono);
        g.observed += static_cast<Nanos>(std::min(apart, static_cast<std::uint64_t>(kLongestGap)));
    }
    g.last_mono = mono;
    g.started = 1;
}

// Marks the series that show themselves for the first time.
void meet(EntityGroup& g, const Row& input) noexcept {
    for (std::size_t j = 0; j < g.count; ++j) {
        if (g.seen[j] != never || !std::isfinite(input[j])) continue;
        g.seen[j] = g.filled == g.begin ? learns : joins;
        --g.unseen;
    }
}

void forget_slot(EntityGroup& g, std::size_t j) noexcept {
    for (Row* row : {&g.low, &g.high, &g.last, &g.fast, &g.slow, &g.start_last, &g.start_fast, &g.start_slow,
                     &g.standard, &g.surprise, &g.jump}) {
        (*row)[j] = 0.0F;
    }
    for (Row& row : g.rows) row[j] = 0.0F;
    for (Row& row : g.moments) row[j] = 0.0F;
    for (Row& row : g.forecast) row[j] = 0.0F;
    g.mean[j] = g.variance[j] = g.jump_mean[j] = g.jump_variance[j] = 0.0;
    for (Panels* covariance : {&g.level, &g.innovation}) {
        for (std::size_t i = 0; i < g.width; ++i) {
            if (i / kLane <= j / kLane) (*covariance)[cell(i, j)] = 0.0F;
            if (j / kLane <= i / kLane) (*covariance)[cell(j, i)] = 0.0F;
        }
    }
    g.known[j] = 0;
    if (g.seen[j] != never) ++g.unseen;
    g.seen[j] = never;
    for (EntityModel& model : g.models) {
        if (model.part[j] == 0.0F) continue;
        model.part[j] = 0.0F;
        model.outdated = 1;
    }
}

// What each series adds to |G' z|^2 = sum of z (G G' z), added to `share` in units of `expected`.
void attribute(const Panels& factor, const Row& z, double expected, std::size_t width,
               std::array<double, kWidth>& share) noexcept {
    if (!(expected > 0.0)) return;
    std::array<double, kWidth> u{};
    for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t j = i / kLane * kLane; j < width; ++j) {
            u[j] += static_cast<double>(z[i]) * static_cast<double>(factor[cell(i, j)]);
        }
    }
    for (std::size_t i = 0; i < width; ++i) {
        double pull = 0.0;
        for (std::size_t j = i / kLane * kLane; j < width; ++j) {
            pull += u[j] * static_cast<double>(factor[cell(i, j)]);
        }
        share[i] += static_cast<double>(z[i]) * pull / expected;
    }
}

bool all_missing(const EntityGroup& g, const Row& input) noexcept {
    bool missing = true;
    for (std::size_t j = 0; j < g.width; ++j) missing = missing & !(input[j] - input[j] == 0.0F);
    return missing;
}

std::uint32_t whole_lanes(std::uint32_t count) noexcept {
    constexpr auto lane = static_cast<std::uint32_t>(kLane);
    return (count + lane - 1) / lane * lane;
}

// Groups begin apart, so that they do not learn on the same row.
void begin_group(EntityGroup& g, std::size_t n, std::uint32_t slots) noexcept {
    constexpr std::size_t kApart = 37;
    g.count = std::min(EntityScore::kGroup, slots - static_cast<std::uint32_t>(n) * EntityScore::kGroup);
    g.width = whole_lanes(g.count);
    g.unseen = g.count;
    g.begin = g.filled = static_cast<std::uint32_t>(n * kApart % EntityScore::kBlock);
}

}  // namespace

EntityScore::EntityScore(std::uint32_t slots) : slots_(slots), scratch_(std::make_unique<EntityScratch>()) {
    // Zero pages that cost nothing until a group has its first series.
    const std::size_t count = (std::size_t{slots} + kGroup - 1) / kGroup;
    std::size_t space = count * sizeof(EntityGroup) + alignof(EntityGroup);
    memory_.reset(std::calloc(space, 1));
    if (memory_ == nullptr) throw std::bad_alloc();
    void* at = memory_.get();
    std::align(alignof(EntityGroup), count * sizeof(EntityGroup), at, space);
    groups_ = std::span(static_cast<EntityGroup*>(at), count);
    for (std::size_t n = 0; n < count; ++n) begin_group(groups_[n], n, slots);
}

void EntityScore::Free::operator()(void* memory) const noexcept { std::free(memory); }

EntityScore::~EntityScore() = default;
EntityScore::EntityScore(EntityScore&&) noexcept = default;
EntityScore& EntityScore::operator=(EntityScore&&) noexcept = default;

void EntityScore::add(Nanos mono, std::uint32_t first, std::span<const float> values, Deviance& row) noexcept {
    EntityScratch& s = *scratch_;
    for (std::size_t at = 0; at < values.size(); at += kGroup) {
        EntityGroup& g = groups_[(first + at) / kGroup];
        s.input.fill(std::numeric_limits<float>::quiet_NaN());
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(at), g.count, s.input.begin());
        if (g.started == 0 && all_missing(g, s.input)) continue;
        if (g.filled == kBlock) learn_block(g, s);
        pass_time(g, mono);
        if (g.unseen != 0) meet(g, s.input);
        EntityModel& model = g.models[g.in_use];
        if (model.outdated != 0) settle(model, s, g.width);
        score_row(g, model, s.input.data(), g.rows[g.filled].data());
        ++g.filled;
        for (std::size_t c = 0; c < kChannels; ++c) {
            row.found[c] += g.found[c];
            row.expected[c] += model.expected[c];
        }
    }
}

float EntityScore::Deviance::ratio(std::size_t channel) const noexcept {
    return static_cast<float>((found[channel] + kQuiet) / (expected[channel] + kQuiet));
}

float EntityScore::finish(const Deviance& row) noexcept {
    double octaves = 0.0;
    for (std::size_t c = 0; c < kChannels; ++c) {
        const auto expected = static_cast<float>(row.expected[c] + kQuiet);
        for (std::size_t r = 0; r < kRates; ++r) {
            recent_[c][r] += kRecentRates[r] * (row.found[c] - recent_[c][r]);
            octaves += static_cast<double>(fast_log2(static_cast<float>(recent_[c][r] + kQuiet) / expected));
        }
    }
    expected_ = row.expected;
    if (++rows_ <= kWarmRows) return 0.0F;
    const double ratio = power_of_two(octaves / static_cast<double>(kChannels * kRates));
    return fast_log2(static_cast<float>(1.0 + ratio));
}

std::span<const Driver> EntityScore::drivers() noexcept {
    std::size_t kept = 0;
    double total = 0.0;
    std::array<double, kDrivers> strongest{};
    for (std::size_t n = 0; n < groups_.size(); ++n) {
        const EntityGroup& g = groups_[n];
        const EntityModel& model = g.models[g.in_use];
        std::array<double, kWidth> share{};
        attribute(model.level, g.standard, expected_[0], g.width, share);
        attribute(model.innovation, g.surprise, expected_[1], g.width, share);
        for (std::size_t j = 0; j < g.count; ++j) {
            const double jump = static_cast<double>(g.jump[j]);
            if (expected_[2] > 0.0) {
                share[j] += jump * jump / (1.0 + static_cast<double>(kShrink)) / expected_[2];
            }
            total += share[j];
            if (!(share[j] > 0.0) || (kept == kDrivers && share[j] <= strongest[kept - 1])) continue;
            std::size_t at = kept < kDrivers ? kept++ : kept - 1;
            for (; at > 0 && strongest[at - 1] < share[j]; --at) {
                strongest[at] = strongest[at - 1];
                drivers_[at] = drivers_[at - 1];
            }
            strongest[at] = share[j];
            drivers_[at].slot = static_cast<std::uint32_t>(n * kGroup + j);
        }
    }
    for (std::size_t i = 0; i < kept; ++i) {
        drivers_[i].share = static_cast<float>(std::min(1.0, strongest[i] / total));
    }
    return std::span(drivers_).first(kept);
}

void EntityScore::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        if (slot < slots_) forget_slot(groups_[slot / kGroup], slot % kGroup);
    }
}

void EntityScore::save(Writer& writer) const {
    writer.pod(slots_);
    for (const EntityGroup& g : groups_) {
        writer.pod(static_cast<std::uint8_t>(g.started));
        if (g.started != 0) writer.array(std::span(&g, 1));
    }
    writer.pod(recent_);
    writer.pod(expected_);
    writer.pod(rows_);
}

void EntityScore::load(Reader& reader) {
    if (reader.pod<std::uint32_t>() != slots_) throw CodecError("entity: saved with another number of slots");
    for (std::size_t n = 0; n < groups_.size(); ++n) {
        EntityGroup& g = groups_[n];
        const bool started = reader.pod<std::uint8_t>() != 0;
        if (started) {
            reader.array(std::span(&g, 1));
        } else if (g.started != 0) {
            std::memset(static_cast<void*>(&g), 0, sizeof(g));
            begin_group(g, n, slots_);
        }
        const auto count = std::min(kGroup, slots_ - static_cast<std::uint32_t>(n) * kGroup);
        const bool fits = g.count == count && g.width == whole_lanes(count) && g.begin <= g.filled &&
                          g.filled <= kBlock && g.begin < kBlock && g.making < kModels && g.in_use < kModels;
        if (!fits) throw CodecError("entity: the state of a group does not hold together");
    }
    recent_ = reader.pod<decltype(recent_)>();
    expected_ = reader.pod<decltype(expected_)>();
    rows_ = reader.pod<std::int64_t>();
}

std::size_t EntityScore::bytes() const noexcept {
    return sizeof(*this) + groups_.size() * sizeof(EntityGroup) + sizeof(EntityScratch);
}

}  // namespace argus::engine
