// The contract of a source: one kernel interface, one file, one line in engine/catalog.cpp.
//
// open(roots, io) never throws for what a machine may lack: it returns Errc::unavailable with the file named, and the
// source is listed as a blind spot. poll() reads, parses and emits; it never blocks, allocates (after the first poll of
// an unchanged machine) or throws. The host loop measures duration and counts emitted values and errors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/clock.hpp"
#include "base/io.hpp"
#include "base/result.hpp"
#include "model/series.hpp"

namespace argus::sources {

struct Roots {
    std::string proc = "/proc";
    std::string sys = "/sys";
    std::string cgroup;  // empty = discover from mountinfo
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

struct SourceDescriptor {
    const char* name;           // "pressure": the configuration table is [sources.pressure]
    const char* documentation;  // one sentence: what it emits and from which files
    const char* requires_;      // what the kernel must offer: "Linux >= 4.20 with CONFIG_PSI"
    const char* fix;            // what an operator does when it is unavailable
    std::int64_t interval_ms;   // default
    Result<std::unique_ptr<Source>> (*open)(const Roots&, const Io&);
};

}  // namespace argus::sources
