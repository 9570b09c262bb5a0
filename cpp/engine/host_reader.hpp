// One poll of all sources into one dense array, without threads, rings or rates: what argus.Host().read() is. Sources
// of the slow lane are polled when their interval is over; between, their last values stand.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/io.hpp"
#include "sources/source.hpp"

namespace argus::engine {

class HostReader {
public:
    // Opens every source; those that this machine lacks are listed by missing() and tried again by no one.
    HostReader(const sources::Roots& roots, std::span<const sources::SourceDescriptor* const> catalog, const Io& io,
               const Clock& clock);

    // Polls what is due; the views below hold until the next call. Returns Clock::wall() of the poll.
    [[nodiscard]] Nanos read();

    [[nodiscard]] std::size_t size() const noexcept { return order_.size(); }  // open series
    void copy_values(std::span<double> out) const noexcept;                    // raw; NaN = not seen by this poll
    [[nodiscard]] const SeriesInfo& info(std::size_t index) const noexcept { return series_[order_[index]].info; }
    [[nodiscard]] std::uint64_t layout_version() const noexcept { return version_; }
    [[nodiscard]] std::span<const std::string> missing() const noexcept { return missing_; }  // "pressure: proc/…"

private:
    struct Entry {
        SeriesInfo info;
        bool open = false;
        std::size_t source = 0;
    };
    struct Opened {
        std::unique_ptr<sources::Source> source;
        Nanos interval = 0;  // 0 = polled by every read
        Nanos due = 0;
        bool polled = false;  // by this read
    };
    class Collect;

    const Clock* clock_;
    std::vector<Opened> sources_;
    std::vector<std::string> missing_;
    std::vector<Entry> series_;
    std::vector<double> values_;
    std::vector<std::uint32_t> free_;
    std::vector<std::uint32_t> order_;  // open slots, ascending
    std::uint64_t version_ = 0;
};

}  // namespace argus::engine
