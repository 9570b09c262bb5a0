#include "engine/event_plane.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>

#include "../events/stream.hpp"

using namespace argus;
using namespace argus::test;
using engine::EventPlane;
using events::Reject;

namespace {

std::vector<std::string> ids(const std::vector<Anomaly>& all) {
    std::vector<std::string> out;
    for (const Anomaly& a : all) out.push_back(a.id + a.series + std::to_string(a.ts));
    return out;
}

// A stream with every kind of trouble in it, from two sources.
std::vector<std::string> troubled() {
    Stream maker;
    std::vector<std::string> out;
    for (int i = 0; i < 400; ++i) {
        const char* source = i % 3 == 0 ? "b" : "a";
        const double at = i * 0.7;
        const std::string task = "task-" + std::to_string(i / 5);
        const char* types[] = {"task_started", "tool_called", "tool_called", "token_cost_logged", "task_completed"};
        EventMap e = maker.event(types[i % 5], at, source);
        e.str("task", task).str("session", "se" + std::to_string(i % 2)).str("tool", "x").num("cost_nusd", 30'000'000);
        e.str("args_hash", "aa").str("result_hash", "bb");
        if (i % 41 == 0) e.str("parent", "nowhere");
        if (i % 43 == 0) maker.skip_seq(source, 2);
        if (i % 37 == 0) e.num("ts", kEpoch);
        out.push_back(e.pack());
        if (i % 29 == 0) out.push_back(e.pack());
        if (i % 31 == 0) out.push_back(EventMap().drop("ts").pack());
    }
    return out;
}

}  // namespace

TEST_CASE("plane: a bound credential speaks for its session alone, and nobody else does") {
    Stream s;
    const std::uint32_t mine = s.plane.bind_session("t", "mine");
    const std::uint32_t other = s.plane.bind_session("t", "other");
    CHECK(mine > 0);
    CHECK(other > mine);
    CHECK_THROWS_AS((void)s.plane.bind_session("t2", "mine"), std::invalid_argument);
    const auto cost = [&](std::string_view session) {
        EventMap e = s.event("token_cost_logged", 1).num("cost_nusd", 7);
        if (!session.empty()) e.str("session", session);
        return e;
    };
    const auto forged = static_cast<std::size_t>(Reject::forged_scope);
    CHECK(s.send(cost("mine")).rejected[forged] == 1);
    CHECK(s.send(cost("mine").str("tenant", "t")).rejected[forged] == 1);
    CHECK(s.send(cost("mine"), other).rejected[forged] == 1);
    CHECK(s.plane.spend(ScopeKind::session, "t", "mine").metered == 0);
    CHECK(s.send(cost(""), mine).accepted == 1);
    CHECK(s.send(cost("mine"), mine).accepted == 1);
    CHECK(s.send(cost("an own name"), mine).accepted == 1);  // spends on its session, whatever it says
    CHECK(s.plane.spend(ScopeKind::session, "t", "mine").metered == 21);
    CHECK(s.plane.spend(ScopeKind::tenant, "", "t").metered == 21);
    CHECK(s.send(cost("free")).accepted == 1);
    s.plane.release(mine);
    CHECK(s.send(cost(""), mine).rejected[forged] == 1);
    CHECK(s.send(cost("mine")).accepted == 1);
    CHECK(s.plane.totals().rejected[forged] == 4);
}

TEST_CASE("plane: a forged event leaves no trace in money, tasks or order") {
    Stream s;
    (void)s.plane.bind_session("", "owned");
    s.send(s.event("task_completed", 1).str("task", "t").str("session", "owned"));
    CHECK(s.plane.totals().tasks == 0);
    CHECK(s.plane.sources().empty());
    CHECK(s.said.empty());
    REQUIRE(s.plane.quarantine().size() == 1);
    CHECK(s.plane.quarantine()[0].reason == Reject::forged_scope);
    CHECK(s.plane.quarantine()[0].source == "s");
}

TEST_CASE("plane: the same stream gives the same anomalies, whatever the batches") {
    const auto events = troubled();
    std::vector<std::vector<std::string>> runs;
    for (const std::size_t batch : {std::size_t{1}, std::size_t{7}, std::size_t{1024}}) {
        EventPlane plane({});
        std::vector<Anomaly> said;
        for (std::size_t i = 0; i < events.size(); i += batch) {
            const std::span<const std::string> part(events.data() + i, std::min(batch, events.size() - i));
            const std::string frame = array({part.begin(), part.end()});
            plane.ingest(bytes_of(frame), 0, true, engine::kEventTime, said);
        }
        plane.finish(kEpoch + 3000 * kSecond, said);
        runs.push_back(ids(said));
        CHECK(plane.totals().retransmissions == 14);
    }
    CHECK(runs[0].size() > 20);
    CHECK(runs[0] == runs[1]);
    CHECK(runs[0] == runs[2]);
}

TEST_CASE("plane: saved in mid-stream and loaded elsewhere it says the same from there on") {
    const auto events = troubled();
    EventPlane one({});
    std::vector<Anomaly> before;
    for (std::size_t i = 0; i < 200; ++i) one.ingest(bytes_of(events[i]), 0, true, engine::kEventTime, before);
    Writer writer(1, 1);
    one.save(writer);
    const auto state = writer.finish();
    EventPlane two({});
    Reader reader(state, 1, 1);
    two.load(reader);
    CHECK(reader.done());
    std::vector<Anomaly> a;
    std::vector<Anomaly> b;
    for (std::size_t i = 200; i < events.size(); ++i) {
        one.ingest(bytes_of(events[i]), 0, true, engine::kEventTime, a);
        two.ingest(bytes_of(events[i]), 0, true, engine::kEventTime, b);
    }
    one.finish(kEpoch + 3000 * kSecond, a);
    two.finish(kEpoch + 3000 * kSecond, b);
    CHECK(a.size() > 10);
    CHECK(ids(a) == ids(b));
    CHECK(one.spend(ScopeKind::host, "", "").metered == two.spend(ScopeKind::host, "", "").metered);
}

TEST_CASE("plane: damaged state is refused") {
    EventPlane plane({});
    Writer writer(1, 1);
    plane.save(writer);
    auto state = writer.finish();
    state[20] ^= std::byte{1};
    CHECK_THROWS_AS(Reader(state, 1, 1), CodecError);
}

TEST_CASE("plane: anomalies of one call are bounded, the rest is counted") {
    engine::EventPlaneOptions options;
    options.max_anomalies = 10;
    Stream s(options);
    std::vector<std::string> batch;
    for (int i = 0; i < 100; ++i) {
        s.skip_seq("s", 1);
        batch.push_back(s.event("heartbeat", 1).pack());
    }
    s.send_bytes(array(batch));
    CHECK(s.said.size() == 10);
    CHECK(s.plane.totals().unspoken == 89);
}

TEST_CASE("plane: the quarantine keeps the newest, cut to their head") {
    engine::EventPlaneOptions options;
    options.quarantine = 4;
    Stream s(options);
    for (int i = 0; i < 10; ++i) {
        const std::string source = std::string("s").append(std::to_string(i));
        s.send(s.event("heartbeat", 1, source).str("extra", std::string(1000, 'x')).drop("ts"));
    }
    const auto kept = s.plane.quarantine();
    REQUIRE(kept.size() == 4);
    CHECK(kept[3].source == "s9");
    CHECK(kept[0].source == "s6");
    CHECK(kept[0].size == 256);
    CHECK(kept[0].whole > 1000);
    CHECK(std::string(kept[0].detail) == "ts");
}

TEST_CASE("plane: wall-clock deadlines do not depend on the events' own ts") {
    EventPlane plane({});
    std::vector<Anomaly> said;
    Stream maker;
    const Nanos wall = kEpoch + 86'400 * kSecond;
    plane.ingest(bytes_of(maker.event("task_started", 0).str("task", "a").pack()), 0, true, wall, said);
    plane.ingest(bytes_of(maker.event("task_completed", 1).str("task", "a").pack()), 0, true, wall, said);
    plane.ingest(bytes_of(maker.event("task_started", 2).str("task", "b").pack()), 0, true, wall, said);
    plane.tick(wall + 599 * kSecond, said);
    CHECK(said.empty());
    plane.tick(wall + 600 * kSecond, said);
    REQUIRE(said.size() == 1);
    CHECK(said[0].series == "causal.missing_terminal");
    CHECK(said[0].ts == wall + 600 * kSecond);
}

TEST_CASE("plane: rates are per second since the last look, unknown at the first") {
    Stream s;
    CHECK(std::isnan(s.plane.series(kEpoch)[0].value));
    for (int i = 0; i < 10; ++i) s.send(s.event("token_cost_logged", 1).num("cost_nusd", 500'000'000));
    s.send(s.event("heartbeat", 1).drop("ts"));
    const auto series = s.plane.series(kEpoch + 2 * kSecond);
    CHECK(series[0].value == 5);
    CHECK(series[1].value == 0.5);
    CHECK(series[2].value == doctest::Approx(2.5));
    CHECK(s.plane.series(kEpoch + 4 * kSecond)[0].value == 0);
}

TEST_CASE("plane: option values out of bounds are refused with their name") {
    engine::EventPlaneOptions options;
    options.criteria.push_back({"W5", true, {0, 600}});
    CHECK_THROWS_WITH_AS(EventPlane{options},
                         "criteria.W5.lossy_faults: expected a number in [1.000000, 16.000000], found 0.000000; "
                         "not started",
                         std::invalid_argument);
}
