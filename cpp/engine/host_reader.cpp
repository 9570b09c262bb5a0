#include "engine/host_reader.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace argus::engine {

class HostReader::Collect final : public sources::Emit {
public:
    explicit Collect(HostReader& reader) : reader_(&reader) {}
    std::size_t source = 0;  // that is polled now

    [[nodiscard]] Slot open_series(SeriesInfo info) override {
        HostReader& r = *reader_;
        ++r.version_;
        if (r.free_.empty()) {
            r.free_.push_back(static_cast<std::uint32_t>(r.series_.size()));
            r.series_.emplace_back();
            r.values_.push_back(0);
        }
        const Slot slot{r.free_.back(), 0};
        r.free_.pop_back();
        r.series_[slot.index] = {std::move(info), true, source};
        return slot;
    }
    void close_series(Slot slot) override {
        ++reader_->version_;
        reader_->series_[slot.index].open = false;
        reader_->free_.push_back(slot.index);
    }
    void value(Slot slot, double value) override { reader_->values_[slot.index] = value; }

private:
    HostReader* reader_;
};

HostReader::HostReader(const sources::Roots& roots, std::span<const sources::SourceDescriptor* const> catalog,
                       const Io& io, const Clock& clock)
    : clock_(&clock) {
    for (const sources::SourceDescriptor* descriptor : catalog) {
        auto opened = descriptor->open(roots, io);
        if (opened) {
            const bool slow = descriptor->lane == sources::Lane::slow;
            sources_.push_back({std::move(*opened), slow ? descriptor->interval_ms * kMillisecond : 0});
        } else {
            missing_.push_back(std::string(descriptor->name) + ": " + opened.error().what + ": " +
                               to_string(opened.error().code) + ", needs " + descriptor->requires_ + "; " +
                               descriptor->fix);
        }
    }
}

Nanos HostReader::read() {
    const Nanos wall = clock_->wall();
    const std::uint64_t before = version_;
    const Nanos started = clock_->mono();
    for (Opened& each : sources_) {
        each.polled = each.due <= started;
        if (each.polled) each.due = started + each.interval;
    }
    for (std::size_t i = 0; i < values_.size(); ++i) {
        if (sources_[series_[i].source].polled) values_[i] = std::numeric_limits<double>::quiet_NaN();
    }
    Collect collect(*this);
    for (Opened& each : sources_) {
        collect.source = static_cast<std::size_t>(&each - sources_.data());
        // A source that fails this once leaves its series NaN: not observed.
        if (each.polled) [[maybe_unused]] const auto report = each.source->poll(clock_->mono(), collect);
    }
    if (version_ != before) {
        order_.clear();
        for (std::uint32_t i = 0; i < series_.size(); ++i) {
            if (series_[i].open) order_.push_back(i);
        }
    }
    return wall;
}

void HostReader::copy_values(std::span<double> out) const noexcept {
    for (std::size_t i = 0; i < order_.size() && i < out.size(); ++i) out[i] = values_[order_[i]];
}

}  // namespace argus::engine
