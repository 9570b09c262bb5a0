// A series of a source that opens with its first value: what a machine never shows never gets a slot.
#pragma once

#include <cstdint>
#include <utility>

#include "sources/source.hpp"

namespace argus::sources {

class SeriesSlot {
public:
    // `describe` returns the SeriesInfo; it is called once per opening, so the steady poll never builds text.
    template <class Describe>
    void emit(Emit& emit, PollReport& report, double value, Describe&& describe) {
        if (!open_) {
            slot_ = emit.open_series(std::forward<Describe>(describe)());
            open_ = true;
        }
        emit.value(slot_, value);
        ++report.emitted;
    }

    void close(Emit& emit) {
        if (open_) emit.close_series(slot_);
        open_ = false;
    }

private:
    Slot slot_{};
    bool open_ = false;
};

}  // namespace argus::sources
