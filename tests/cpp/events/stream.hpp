// A stream of events into an event plane on event time: numbers ids and sequence numbers, collects what is said.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "engine/event_plane.hpp"
#include "pack.hpp"

namespace argus::test {

class Stream {
public:
    explicit Stream(engine::EventPlaneOptions options = {}) : plane(std::move(options)) {}

    // An event `at` seconds after the epoch; extra keys by the returned map before send().
    EventMap event(std::string_view type, double at, std::string_view source = "s") {
        const std::string name(source);
        EventMap e(type, name + "-" + std::to_string(++ids_));
        e.str("source", source).num("ts", kEpoch + static_cast<std::int64_t>(at * 1e9)).num("seq", ++seq_[name]);
        return e;
    }
    engine::IngestReport send(const EventMap& e, std::uint32_t credential = 0) {
        return send_bytes(e.pack(), credential);
    }
    engine::IngestReport send_bytes(const std::string& frame, std::uint32_t credential = 0) {
        const auto report = plane.ingest(bytes_of(frame), credential, true, engine::kEventTime, said);
        accepted += report.accepted;
        return report;
    }
    void task(std::string_view type, double at, std::string_view task, std::string_view source = "s") {
        send(event(type, at, source).str("task", task).str("session", "session").str("agent", "agent"));
    }
    void skip_seq(std::string_view source, std::int64_t count) { seq_[std::string(source)] += count; }
    // Goes on with the ids and numbers of another stream.
    void resume(const Stream& other) {
        ids_ = other.ids_;
        seq_ = other.seq_;
    }
    void tick(double at) { plane.tick(kEpoch + static_cast<std::int64_t>(at * 1e9), said); }
    void finish(double at) { plane.finish(kEpoch + static_cast<std::int64_t>(at * 1e9), said); }

    [[nodiscard]] std::vector<Anomaly> of(std::string_view series) const {
        std::vector<Anomaly> out;
        const auto same = [&](const Anomaly& a) { return a.series == series; };
        std::copy_if(said.begin(), said.end(), std::back_inserter(out), same);
        return out;
    }
    [[nodiscard]] std::size_t count(std::string_view series) const { return of(series).size(); }

    engine::EventPlane plane;
    std::vector<Anomaly> said;
    std::uint32_t accepted = 0;

private:
    std::int64_t ids_ = 0;
    std::map<std::string, std::int64_t> seq_;
};

}  // namespace argus::test
