// The contract of a source: one kernel interface, one file, one line in engine/catalog.hpp.
//
// open(roots, io, settings) never throws for what a machine may lack: it returns Errc::unavailable with the file named,
// and the source is listed as a blind spot. poll() reads, parses and emits; it never blocks, allocates (after the first
// poll of an unchanged machine) or throws. The host loop measures duration and counts emitted values and errors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/io.hpp"
#include "base/result.hpp"
#include "model/option.hpp"
#include "model/series.hpp"

namespace argus::sources {

struct Roots {
    std::string proc = "/proc";
    std::string sys = "/sys";
    std::string cgroup;  // empty = discover from mountinfo

    // These are the running kernel's own file systems. A source that asks the kernel by other ways than files (netlink,
    // perf, BPF) sees this machine whatever the roots say, so with other roots it is unavailable.
    [[nodiscard]] bool live() const noexcept { return proc == "/proc" && sys == "/sys"; }
};

// Where a source puts what it saw. Opening and closing series is rare (start, hot-plug); value() is the hot call.
class Emit {
public:
    virtual ~Emit() = default;
    [[nodiscard]] virtual Slot open_series(SeriesInfo info) = 0;
    virtual void close_series(Slot slot) = 0;
    virtual void value(Slot slot, double value) = 0;
};

struct PollReport {
    std::uint32_t emitted = 0;    // values emitted
    std::uint32_t malformed = 0;  // lines or fields skipped because they do not follow the documented format
};

class Source {
public:
    virtual ~Source() = default;
    [[nodiscard]] virtual Result<PollReport> poll(Nanos now, Emit& emit) = 0;
};

// Which thread polls it. The slow lane is for what may take more than 1 ms, or is dear and changes little.
enum class Lane : std::uint8_t { fast, slow };

struct SourceSettings {
    std::vector<double> options;       // in the descriptor's order; empty = the defaults
    std::vector<std::string> targets;  // what to look at, for sources that are told: see SourceDescriptor::targets
};

struct SourceDescriptor {
    const char* name;           // "pressure": the configuration table is [sources.pressure]
    const char* documentation;  // one sentence: what it emits and from which files
    const char* requires_;      // what the kernel must offer: "Linux >= 4.20 with CONFIG_PSI"
    const char* fix;            // what an operator does when it is unavailable
    std::int64_t interval_ms;   // default
    Lane lane;
    Result<std::unique_ptr<Source>> (*make)(const Roots&, const Io&, const SourceSettings&);
    std::span<const Option> options = {};
    const char* targets = "";   // what `targets` may list; "" = it takes none

    // With the defaults of the options that are not given. A target that means nothing: std::invalid_argument.
    [[nodiscard]] Result<std::unique_ptr<Source>> open(const Roots& roots, const Io& io,
                                                       SourceSettings settings = {}) const {
        for (std::size_t i = settings.options.size(); i < options.size(); ++i) {
            settings.options.push_back(options[i].value);
        }
        return make(roots, io, settings);
    }
};

}  // namespace argus::sources
