// A detector alone, fed row by row, for the tests of single leaves.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include "detectors/detector.hpp"

namespace leaf_rows {

using namespace argus::detectors;

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Alone {
public:
    Alone(const DetectorDescriptor& descriptor, std::uint32_t slots, std::vector<double> options = {})
        : descriptor_(descriptor), slots_(slots), statistic_(descriptor.channels.size() * slots) {
        for (const argus::Option& option : descriptor.leaf.options) {
            if (options_.size() >= options.size()) options_.push_back(option.value);
            else options_.push_back(options[options_.size()]);
        }
        detector_ = descriptor.make(slots, options_);
    }

    // Scores, then learns; channel after channel.
    const std::vector<float>& row(const std::vector<float>& values, std::uint8_t what = kLearn,
                                  std::span<const float> exposure = {}) {
        const Entity whole{0, slots_};
        const View view{values, {&whole, 1}, 0, 0, 60.0, {}, exposure};
        const std::vector<std::uint8_t> mask(slots_, what);
        detector_->score(view, statistic_);
        detector_->learn(view, mask);
        return statistic_;
    }
    const std::vector<float>& row(float value, std::uint8_t what = kLearn) {
        return row(std::vector<float>(slots_, value), what);
    }

private:
    const DetectorDescriptor& descriptor_;
    std::uint32_t slots_;
    std::vector<double> options_;
    std::vector<float> statistic_;
    std::unique_ptr<Detector> detector_;
};

// Rises of the first channel to `bar`, none counted within 100 rows of the last.
class Onsets {
public:
    explicit Onsets(std::size_t slots) : last_(slots, -1000) {}
    int operator()(int row, const std::vector<float>& bits, float bar) {
        int found = 0;
        for (std::size_t i = 0; i < last_.size(); ++i) {
            if (!(bits[i] >= bar)) continue;
            found += row - last_[i] > 100 ? 1 : 0;
            last_[i] = row;
        }
        return found;
    }

private:
    std::vector<int> last_;
};

}  // namespace leaf_rows
