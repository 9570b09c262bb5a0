// `shift` and `variance` beside CUSUMs that know both laws: rows from a change to the alarm, median of 1,000 series,
// each at the bar that its own 10,000 quiet rows of 1,000 series pass once in 10,000 (rises within 100 rows are one).
// Independent normal rows; 3,000 to learn from. The CUSUM of a level knows the size but not the direction.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "detectors/detector.hpp"
#include "report.hpp"

namespace {

using namespace argus::detectors;

constexpr std::uint32_t kSeries = 1000;
constexpr int kYouth = 3000;
constexpr int kQuiet = 10000;
constexpr int kLate = 500;

struct Law {
    double mean = 0.0;
    double deviation = 1.0;
};

// Puts the evidence of one row, a number a series, into its second argument.
using Judge = std::function<void(const std::vector<float>&, std::vector<float>&)>;

Judge leaf(const DetectorDescriptor& descriptor) {
    std::vector<double> options;
    for (const argus::Option& option : descriptor.leaf.options) options.push_back(option.value);
    const std::shared_ptr<Detector> detector = descriptor.make(kSeries, options);
    std::vector<float> statistic(descriptor.channels.size() * kSeries);
    return [detector, statistic](const std::vector<float>& values, std::vector<float>& out) mutable {
        static const std::vector<std::uint8_t> all(kSeries, kLearn);
        const View view{values, {}, 0, 0, 60.0};
        detector->score(view, statistic);
        detector->learn(view, all);
        std::copy_n(statistic.begin(), kSeries, out.begin());
    };
}

Judge level_cusum(double by) {
    std::vector<double> up(kSeries);
    std::vector<double> down(kSeries);
    return [=](const std::vector<float>& values, std::vector<float>& out) mutable {
        for (std::size_t i = 0; i < kSeries; ++i) {
            const double x = static_cast<double>(values[i]);
            up[i] = std::max(0.0, up[i] + by * x - 0.5 * by * by);
            down[i] = std::max(0.0, down[i] - by * x - 0.5 * by * by);
            out[i] = static_cast<float>(std::max(up[i], down[i]));
        }
    };
}

Judge spread_cusum(double ratio) {
    std::vector<double> sum(kSeries);
    return [=](const std::vector<float>& values, std::vector<float>& out) mutable {
        for (std::size_t i = 0; i < kSeries; ++i) {
            const double x = static_cast<double>(values[i]);
            const double gain = 0.5 * x * x * (1.0 - 1.0 / (ratio * ratio)) - std::log(ratio);
            sum[i] = std::max(0.0, sum[i] + gain);
            out[i] = static_cast<float>(sum[i]);
        }
    };
}

class Rows {
public:
    const std::vector<float>& next(Law law) {
        for (float& value : values_) value = static_cast<float>(law.mean + law.deviation * normal_(engine_));
        return values_;
    }

private:
    std::mt19937 engine_{7};
    std::normal_distribution<double> normal_;
    std::vector<float> values_ = std::vector<float>(kSeries);
};

// The lowest bar, in steps of a tenth, from which on none is passed more than once in kQuiet rows a series. Not the
// first from below: a bar that is passed nearly always has few rises.
double bar_of(Judge& judge, Rows& rows) {
    constexpr std::size_t kBars = 400;
    std::vector<int> rises(kBars, 0);
    std::vector<int> last(kBars * kSeries, -1000);
    std::vector<float> found(kSeries);
    for (int row = 0; row < kQuiet; ++row) {
        judge(rows.next({}), found);
        for (std::size_t i = 0; i < kSeries; ++i) {
            const auto reached = static_cast<std::size_t>(std::clamp(found[i] * 10.0F, 0.0F, 399.0F));
            for (std::size_t bar = 20; bar <= reached; ++bar) {  // bars below 2 are passed far too often
                rises[bar] += row - last[bar * kSeries + i] > 100 ? 1 : 0;
                last[bar * kSeries + i] = row;
            }
        }
    }
    std::size_t bar = kBars - 1;
    while (bar > 20 && rises[bar - 1] <= static_cast<int>(kSeries)) --bar;
    return 0.1 * static_cast<double>(bar);
}

struct Measured {
    double bar;
    double rows;
};

Measured measure(const std::function<Judge()>& make, Law changed) {
    Rows rows;
    Judge judge = make();
    std::vector<float> found(kSeries);
    for (int row = 0; row < kYouth; ++row) judge(rows.next({}), found);
    const double bar = bar_of(judge, rows);
    judge = make();
    for (int row = 0; row < kYouth; ++row) judge(rows.next({}), found);
    std::vector<int> delay(kSeries, kLate);
    for (int row = 1; row <= kLate; ++row) {
        judge(rows.next(changed), found);
        for (std::size_t i = 0; i < kSeries; ++i) {
            if (static_cast<double>(found[i]) >= bar) delay[i] = std::min(delay[i], row);
        }
    }
    std::nth_element(delay.begin(), delay.begin() + kSeries / 2, delay.end());
    return {bar, static_cast<double>(delay[kSeries / 2])};
}

void compare(const char* name, const DetectorDescriptor& mine, const std::function<Judge()>& oracle, Law changed) {
    const Measured leaf_rows = measure([&] { return leaf(mine); }, changed);
    const Measured best = measure(oracle, changed);
    const std::string text = std::string("delay_") + name;
    argus::bench::report(text.c_str(), leaf_rows.rows, "rows", "cusum", leaf_rows.rows / best.rows, 0.0, true);
    argus::bench::report((text + "_bar").c_str(), leaf_rows.bar, "bits", "", 0.0, 0.0, true);
}

}  // namespace

int main() {
    compare("shift_1_sigma", shift_detector, [] { return level_cusum(1.0); }, {1.0, 1.0});
    compare("shift_5_sigma", shift_detector, [] { return level_cusum(5.0); }, {5.0, 1.0});
    compare("variance_x3", variance_detector, [] { return spread_cusum(3.0); }, {0.0, 3.0});
    compare("variance_third", variance_detector, [] { return spread_cusum(1.0 / 3.0); }, {0.0, 1.0 / 3.0});
    return 0;
}
