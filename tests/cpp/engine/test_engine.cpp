#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <tuple>

#include "../events/pack.hpp"
#include "../sources/support.hpp"
#include "base/assert.hpp"
#include "engine/catalog.hpp"
#include "engine/engine.hpp"

namespace argus::engine {
namespace {

using test::EventMap;
using test::Tree;

constexpr std::int64_t kUsd = 1'000'000'000;
constexpr Nanos kStart = test::kEpoch;
constexpr std::int64_t kPollMs = 10;  // the shortest interval that sources take
constexpr const char* kLoad = "system.cpu.load_average.1m";
constexpr const char* kMemory = "system.memory.limit";

EngineOptions events_only() {
    EngineOptions options;
    options.host_plane = false;
    return options;
}

EngineOptions fixture(const Tree& tree) {
    EngineOptions options;
    options.host.roots = tree.roots();
    for (const auto* source : source_catalog()) options.host.sources.push_back({source->name, true, kPollMs});
    options.host.processes_interval_ms = kPollMs;
    options.host.max_series = 4096;
    options.history_rows = 64;
    return options;
}

// Longer than the interval of the sources: the next step polls every one of them.
void until_due() { std::this_thread::sleep_for(std::chrono::milliseconds(kPollMs + 1)); }

std::uint32_t slot_of(const Engine& engine, const std::string& name) {
    for (std::uint32_t slot = 0; slot < engine.row().size(); ++slot) {
        const SeriesInfo* info = engine.series(slot);
        if (info != nullptr && info->full_name() == name) return slot;
    }
    throw std::runtime_error("no series " + name);
}
double at(const Engine& engine, const std::string& name) { return engine.row()[slot_of(engine, name)]; }

struct History {
    std::vector<Nanos> times;
    std::vector<float> values;
};
History history_of(const Engine& engine, const std::string& name) {
    History history{std::vector<Nanos>(engine.history_capacity()), std::vector<float>(engine.history_capacity())};
    const std::size_t rows = engine.history(slot_of(engine, name), history.times, history.values);
    history.times.resize(rows);
    history.values.resize(rows);
    return history;
}

// What an anomaly says, ids included: equal text = the same anomaly.
std::string told(const Anomaly& a) {
    return a.id + "|" + std::to_string(a.ts) + "|" + a.detector + "|" + to_string(a.scope.kind) + ":" + a.scope.id +
           "|" + a.series + "|" + to_string(a.severity) + "|" + a.criterion + "|" + std::to_string(a.bits) + "|" +
           a.message;
}
std::vector<std::string> told(const std::vector<Anomaly>& anomalies) {
    std::vector<std::string> out;
    for (const Anomaly& a : anomalies) out.push_back(told(a));
    return out;
}

std::string spending(int number, std::int64_t nusd, const std::string& session = "session") {
    return EventMap("token_cost_logged", "cost-" + session + std::to_string(number))
        .num("seq", number)
        .num("ts", kStart + number * kSecond)
        .str("source", "of-" + session)
        .str("session", session)
        .str("model", "m")
        .num("cost_nusd", nusd)
        .pack();
}

IngestReport give(Engine& engine, const std::string& frame, std::vector<Anomaly>& out) {
    return engine.ingest(test::bytes_of(frame), 0, true, kEventTime, out);
}

// By append: GCC 12 misjudges `literal + temporary`.
std::string event_id(std::int64_t number) { return std::string("e").append(std::to_string(number)); }

// A run with an order fault, a loop that spends, and a cap that is reached: all three auditors speak.
std::vector<std::string> eventful(int calls) {
    std::vector<std::string> events;
    std::int64_t seq = 0;
    const auto add = [&](const char* type, double seconds, auto&& fill) {
        ++seq;
        EventMap e(type, event_id(seq));
        e.num("seq", seq).num("ts", kStart + static_cast<Nanos>(seconds * 1e9)).str("session", "session");
        fill(e);
        events.push_back(e.pack());
    };
    add("task_started", 0, [](EventMap& e) { e.str("task", "t"); });
    add("task_started", 1, [](EventMap& e) { e.str("task", "u").str("id", "e1"); });  // another's id
    for (int i = 0; i < calls; ++i) {
        add("tool_called", 2 + i, [](EventMap& e) {
            e.str("task", "t").str("tool", "search").str("args_hash", "aa").str("result_hash", "bb");
        });
        add("token_cost_logged", 2.5 + i,
            [](EventMap& e) { e.str("task", "t").str("model", "m").num("cost_nusd", kUsd / 4); });
    }
    add("task_completed", 4 + calls, [](EventMap& e) { e.str("task", "t"); });
    return events;
}

struct Control {
    Tree tree;
    std::string path;
    Control() {
        tree.write("control/keep", "");
        path = (test::fs::path(tree.proc()).parent_path() / "control" / "epoch").string();
    }
    [[nodiscard]] std::uint64_t bits() const { return EpochWord(path, false).load().bits; }
    [[nodiscard]] std::uint64_t epoch() const { return EpochWord(path, false).load().epoch; }
};

class Broken final : public auditors::Auditor {
public:
    void on_event(const Event& event, events::Ledger&, auditors::Emit&) override {
        ARGUS_ASSERT(event.session != "broken");
    }
    void on_tick(Nanos, events::Ledger&, auditors::Emit&) override {}
    void save(Writer&) const override {}
    void load(Reader&) override {}
};
const auditors::AuditorDescriptor kBroken{
    Leaf{"broken", "breaks an invariant", "", {}},
    [](std::span<const double>) -> std::unique_ptr<auditors::Auditor> { return std::make_unique<Broken>(); }};

}  // namespace

TEST_CASE("engine: a step without start() polls the roots it was given and fills row, names and history") {
    const Tree tree("6.18");
    Engine engine(fixture(tree));
    std::vector<Anomaly> out;
    engine.step(kStart, out);
    CHECK(at(engine, kMemory) == 24684096.0 * 1024);
    CHECK(engine.row_time() == kStart);
    CHECK(engine.series(slot_of(engine, kMemory))->shown_unit() == "By");
    CHECK(std::isnan(at(engine, "system.cpu.context_switches")));  // a counter has no rate yet
    CHECK(engine.host()->processes().count == 4);
    const History history = history_of(engine, kMemory);
    CHECK(history.times == std::vector<Nanos>{kStart});
    CHECK(history.values == std::vector<float>{24684096.0F * 1024});
    until_due();
    engine.step(kStart + kSecond, out);
    CHECK(at(engine, "system.cpu.context_switches") == 0.0);
    CHECK(history_of(engine, kMemory).times == std::vector<Nanos>{kStart, kStart + kSecond});
    CHECK(engine.statistics().steps == 2);
    CHECK(out.empty());
}

TEST_CASE("engine: the series of the event plane stand behind the host's and carry what was accepted and refused") {
    const Tree tree("6.18");
    Engine engine(fixture(tree));
    std::vector<Anomaly> out;
    engine.step(kStart, out);
    (void)give(engine, spending(1, kUsd), out);
    until_due();
    engine.step(kStart + kSecond, out);
    CHECK(slot_of(engine, "agent.events.rate") == 4096);
    CHECK(at(engine, "agent.events.rate") > 0.0);
    CHECK(at(engine, "agent.events.rejected.rate") == 0.0);
    CHECK(at(engine, "agent.cost.rate") == doctest::Approx(at(engine, "agent.events.rate")));  // one event, one USD
    CHECK(history_of(engine, "agent.cost.rate").values.size() == 2);
    CHECK(engine.series(static_cast<std::uint32_t>(engine.row().size())) == nullptr);
    CHECK(engine.series(4095) == nullptr);
}

TEST_CASE("engine: what was not polled since the last step is NaN in row and history, never the value before") {
    const Tree tree("6.18");
    EngineOptions options = fixture(tree);
    options.host.sources = {{"cpu", true, 3'600'000}, {"memory", true, kPollMs}};
    Engine engine(std::move(options));
    std::vector<Anomaly> out;
    engine.step(kStart, out);
    CHECK(!std::isnan(at(engine, kLoad)));
    until_due();
    engine.step(kStart + kSecond, out);
    CHECK(std::isnan(at(engine, kLoad)));
    CHECK(!std::isnan(at(engine, kMemory)));
    const History history = history_of(engine, kLoad);
    REQUIRE(history.values.size() == 2);
    CHECK(!std::isnan(history.values[0]));
    CHECK(std::isnan(history.values[1]));
}

TEST_CASE("engine: history keeps the last rows only, oldest first") {
    const Tree tree("6.18");
    EngineOptions options = fixture(tree);
    options.history_rows = 3;
    Engine engine(std::move(options));
    std::vector<Anomaly> out;
    for (int i = 0; i < 5; ++i) engine.step(kStart + i, out);
    CHECK(history_of(engine, kMemory).times == std::vector<Nanos>{kStart + 2, kStart + 3, kStart + 4});
}

TEST_CASE("engine: a newcomer in a freed slot inherits neither name, value nor history") {
    const Tree tree("6.18");
    tree.remove("sys/class/net");  // an interface has as many series as any other
    Engine engine(fixture(tree));
    std::vector<Anomaly> out;
    const auto received = [](const char* nic) {
        return std::string("system.network.io{network.interface.name=") + nic + ",network.io.direction=receive}";
    };
    engine.step(kStart, out);
    const std::uint32_t slot = slot_of(engine, received("eth0"));
    until_due();
    engine.step(kStart + 1, out);
    CHECK(engine.row()[slot] == 0.0);
    CHECK(!std::isnan(history_of(engine, received("eth0")).values.back()));
    tree.replace("proc/net/dev", " eth0:", "veth9:");
    until_due();
    engine.step(kStart + 2, out);
    CHECK_THROWS_AS(slot_of(engine, received("eth0")), std::runtime_error);
    tree.replace("proc/net/dev", " ifb0:", "veth8:");
    until_due();
    engine.step(kStart + 3, out);
    const auto of_newcomer = [&] { return engine.series(slot)->full_name().find("veth8") != std::string::npos; };
    REQUIRE((engine.series(slot) != nullptr && of_newcomer()));  // in the slot that eth0 left
    const History history = history_of(engine, engine.series(slot)->full_name());
    CHECK(std::all_of(history.values.begin(), history.values.end(), [](float v) { return std::isnan(v); }));
    until_due();
    engine.step(kStart + 4, out);
    CHECK(engine.row()[slot] == 0.0);
    CHECK(engine.bank().bits()[slot] == 0.0F);
}

TEST_CASE("engine: a host-wide stop flips the epoch word inside ingest, but only while enforce is set") {
    for (const bool enforce : {false, true}) {
        CAPTURE(enforce);
        const Control control;
        Engine engine(events_only());
        engine.attach_control(control.path);
        engine.set_enforce(enforce);
        engine.events().set_cap(ScopeKind::session, "", "session", kUsd, false);
        const std::uint64_t before = control.epoch();
        std::vector<Anomaly> out;
        (void)give(engine, spending(1, 2 * kUsd), out);
        CHECK(control.bits() == (enforce ? kHostKill : 0));
        CHECK((control.epoch() > before) == enforce);
        const auto decisions = engine.take_decisions();
        REQUIRE(decisions.size() == 1);
        CHECK(decisions[0].kind == StopKind::hard_kill);
        CHECK(decisions[0].scope.kind == ScopeKind::host);
        CHECK(decisions[0].criterion == "C1");
        CHECK(decisions[0].word_raised == enforce);
        CHECK(decisions[0].ts == kStart + kSecond);
        REQUIRE(out.size() == 1);
        CHECK(decisions[0].anomaly == out[0].id);
        CHECK(decisions[0].reason == out[0].message);
    }
}

TEST_CASE("engine: a warning locks down and does not kill; a kill later leaves the lockdown in place") {
    const Control control;
    Engine engine(events_only());
    engine.attach_control(control.path);
    engine.set_enforce(true);
    engine.events().set_cap(ScopeKind::session, "", "session", 10 * kUsd, false);
    std::vector<Anomaly> out;
    (void)give(engine, spending(1, 8 * kUsd), out);
    CHECK(control.bits() == kHostLockdown);
    (void)give(engine, spending(2, 2 * kUsd), out);
    CHECK(control.bits() == (kHostKill | kHostLockdown));
    const auto decisions = engine.take_decisions();
    REQUIRE(decisions.size() == 2);
    CHECK(std::string(to_string(decisions[0].kind)) == "write_lockdown");
    CHECK(std::string(to_string(decisions[1].kind)) == "hard_kill");
}

TEST_CASE("engine: a stop on a guarded session leaves the host's word alone, whatever enforce says") {
    const Control control;
    Engine engine(events_only());
    engine.attach_control(control.path);
    engine.set_enforce(true);
    engine.stops().set_guarded({{ScopeKind::session, "guarded"}});
    for (const char* session : {"guarded", "other"}) {
        engine.events().set_cap(ScopeKind::session, "", session, kUsd, false);
    }
    std::vector<Anomaly> out;
    (void)give(engine, spending(1, 2 * kUsd, "guarded"), out);
    auto decisions = engine.take_decisions();
    REQUIRE(decisions.size() == 1);
    CHECK(decisions[0].scope.kind == ScopeKind::session);
    CHECK(decisions[0].scope.id == "guarded");
    CHECK(!decisions[0].word_raised);
    CHECK(control.bits() == 0);
    (void)give(engine, spending(1, 2 * kUsd, "other"), out);
    decisions = engine.take_decisions();
    REQUIRE(decisions.size() == 1);
    CHECK(decisions[0].scope.kind == ScopeKind::host);
    CHECK(control.bits() == kHostKill);
}

TEST_CASE("engine: a stop that falls due on a tick flips the word within step") {
    const Control control;
    Engine engine(events_only());
    engine.attach_control(control.path);
    engine.set_enforce(true);
    std::vector<Anomaly> out;
    int seq = 0;
    for (const auto& [type, task] : {std::pair{"task_started", "a"}, {"task_completed", "a"}, {"task_started", "t"}}) {
        EventMap e(type, event_id(++seq));
        (void)give(engine, e.num("seq", seq).num("ts", kStart + seq * kSecond).str("task", task).pack(), out);
    }
    REQUIRE(out.empty());
    engine.step(kStart + 7200 * kSecond, out);  // the task has not ended
    REQUIRE(!out.empty());
    CHECK(engine.take_decisions().size() == 1);
    CHECK(control.bits() == kHostLockdown);
}

TEST_CASE("engine: decisions latch by kind and scope, are taken once, and count again after a release") {
    Engine engine(events_only());
    std::vector<Anomaly> out;
    for (const char* session : {"a", "b", "c"}) engine.events().set_cap(ScopeKind::session, "", session, kUsd, false);
    (void)give(engine, spending(1, 2 * kUsd, "a"), out);
    CHECK(engine.take_decisions().size() == 1);
    CHECK(engine.take_decisions().empty());
    (void)give(engine, spending(1, 2 * kUsd, "b"), out);
    CHECK(out.size() == 2);
    CHECK(engine.take_decisions().empty());  // the host is stopped already
    engine.stops().release(StopKind::write_lockdown, ScopeKind::host, "");
    (void)give(engine, spending(2, 2 * kUsd, "a"), out);
    CHECK(engine.take_decisions().empty());  // another stop was released
    engine.stops().release(StopKind::hard_kill, ScopeKind::host, "");
    (void)give(engine, spending(1, 2 * kUsd, "c"), out);
    CHECK(engine.take_decisions().size() == 1);
}

TEST_CASE("engine: any split of the events into frames gives the same anomalies, ids and decisions") {
    const auto events = eventful(12);
    EngineOptions options = events_only();
    options.events.ledger.default_cap[static_cast<std::size_t>(ScopeKind::session)] = 2 * kUsd;
    using Told = std::tuple<std::vector<std::string>, std::vector<std::string>>;
    const auto judged = [&](std::size_t frame) -> Told {
        Engine engine(options);
        std::vector<Anomaly> out;
        std::vector<std::string> decided;
        for (std::size_t i = 0; i < events.size(); i += frame) {
            const auto end = events.begin() + static_cast<std::ptrdiff_t>(std::min(i + frame, events.size()));
            (void)give(engine, test::array({events.begin() + static_cast<std::ptrdiff_t>(i), end}), out);
        }
        engine.finish(kStart + 7200 * kSecond, out);
        for (const Decision& d : engine.take_decisions()) {
            decided.push_back(std::string(to_string(d.kind)) + d.criterion + d.anomaly + std::to_string(d.ts));
        }
        return {told(out), decided};
    };
    const Told whole = judged(events.size());
    CHECK(std::get<0>(whole).size() >= 4);
    CHECK(std::get<1>(whole).size() == 2);
    for (std::size_t frame = 1; frame < events.size(); ++frame) {
        CAPTURE(frame);
        CHECK(judged(frame) == whole);
    }
}

TEST_CASE("engine: an interrupted run says what the uninterrupted one says, wherever it was cut") {
    const auto events = eventful(12);
    EngineOptions options = events_only();
    options.events.ledger.default_cap[static_cast<std::size_t>(ScopeKind::session)] = 2 * kUsd;
    std::vector<Anomaly> expected;
    Engine whole(options);
    for (const std::string& event : events) (void)give(whole, event, expected);
    whole.finish(kStart + 7200 * kSecond, expected);
    REQUIRE(expected.size() >= 4);
    for (std::size_t cut = 0; cut <= events.size(); cut += 3) {
        CAPTURE(cut);
        std::vector<Anomaly> found;
        Engine first(options), second(options);
        for (std::size_t i = 0; i < cut; ++i) (void)give(first, events[i], found);
        const auto state = first.snapshot();
        second.restore(state);
        CHECK(second.snapshot() == state);
        for (std::size_t i = cut; i < events.size(); ++i) (void)give(second, events[i], found);
        second.finish(kStart + 7200 * kSecond, found);
        CHECK(told(found) == told(expected));
        CHECK(second.events().spend(ScopeKind::session, "", "session").metered == 3 * kUsd);
    }
}

TEST_CASE("engine: what was learned of the host survives a restart, with the same bits and the same words") {
    const Tree tree("6.18");
    EngineOptions options = fixture(tree);
    options.host.sources = {{"cpu", true, kPollMs}, {"network", false, 0}, {"pressure", false, 0}};
    options.host.processes = false;
    options.host.max_series = 96;
    options.bank.false_alarms_per_day = 1e9;  // rows come a hundred times as often as in life
    Engine first(options);
    std::vector<Anomaly> ignored;
    Nanos now = kStart;
    const auto load = [&](int tick) {
        const int hundredths = tick < 240 ? 40 + tick * 7919 % 23 : 9000;
        const std::string digits = std::to_string(1'000'000 + hundredths);  // 1009000 is 90.00
        tree.write("proc/loadavg", digits.substr(1, 4) + "." + digits.substr(5) + " 0.50 0.50 1/100 1234\n");
    };
    int tick = 0;
    for (; tick < 220; ++tick) {
        load(tick);
        until_due();
        first.step(now += kSecond, ignored);
    }
    Engine second(options);
    second.restore(first.snapshot());
    std::vector<Anomaly> of_first, of_second;
    for (; tick < 246; ++tick) {
        load(tick);
        until_due();
        now += kSecond;
        first.step(now, of_first);
        second.step(now, of_second);
        const std::uint32_t slot = slot_of(first, kLoad);
        REQUIRE(slot_of(second, kLoad) == slot);
        REQUIRE(first.row()[slot] == second.row()[slot]);
        CHECK(first.bank().bits()[slot] == second.bank().bits()[slot]);
        CHECK(first.bank().expected()[slot] == second.bank().expected()[slot]);
        CHECK(first.bank().upper()[slot] == second.bank().upper()[slot]);
    }
    CHECK(first.bank().bits()[slot_of(first, kLoad)] > 6.0F);
    const auto of_load = [](const std::vector<Anomaly>& all) {
        std::vector<std::string> out;
        for (const Anomaly& a : all) {
            if (a.series == kLoad) out.push_back(told(a));
        }
        return out;
    };
    CHECK(!of_load(of_first).empty());
    CHECK(of_load(of_second) == of_load(of_first));
}

TEST_CASE("engine: what was learned of a series does not pass to another that opens in its slot after a restart") {
    const Tree tree("6.18");
    EngineOptions options = fixture(tree);
    Engine first(options);
    std::vector<Anomaly> out;
    for (int i = 0; i < 4; ++i) {
        until_due();
        first.step(kStart + i * kSecond, out);
    }
    const std::uint32_t slot = slot_of(first, kMemory);
    REQUIRE(!std::isnan(first.bank().expected()[slot]));
    options.host.sources[0].enabled = false;  // without cpu, every other series opens in a lower slot
    Engine second(options);
    second.restore(first.snapshot());
    second.step(kStart + 10 * kSecond, out);
    const std::uint32_t moved = slot_of(second, kMemory);
    REQUIRE(moved != slot);
    CHECK(std::isnan(second.bank().expected()[moved]));
    CHECK(second.bank().bits()[moved] == 0.0F);
}

TEST_CASE("engine: what was learned of series goes on without the event plane; damaged it changes nothing") {
    const Tree tree("6.18");
    EngineOptions options = fixture(tree);
    Engine first(options);
    std::vector<Anomaly> out;
    for (int i = 0; i < 4; ++i) {
        until_due();
        first.step(kStart + i * kSecond, out);
    }
    (void)give(first, spending(1, 5 * kUsd, "mine"), out);
    const auto learned = first.learned();
    Engine second(options);
    second.learn_from(learned);
    CHECK(second.learned() == learned);
    CHECK(second.events().spend(ScopeKind::session, "", "mine").metered == 0);
    auto flipped = learned;
    flipped[flipped.size() / 2] ^= std::byte{1};
    CHECK_THROWS_AS(second.learn_from(flipped), CodecError);
    CHECK_THROWS_AS(second.learn_from(first.snapshot()), CodecError);
    CHECK_THROWS_AS(second.restore(learned), CodecError);
    CHECK(second.learned() == learned);
}

TEST_CASE("engine: a suspended series is observed and kept, but neither judged nor learned from") {
    const Tree tree("6.18");
    EngineOptions options = fixture(tree);
    Engine engine(options);
    std::vector<Anomaly> out;
    int tick = 0;
    const auto step = [&] {
        until_due();
        engine.step(kStart + tick++ * kSecond, out);
    };
    for (int i = 0; i < 3; ++i) step();
    const std::uint32_t slot = slot_of(engine, kMemory);
    const double before = engine.bank().expected()[slot];
    REQUIRE(!std::isnan(before));
    engine.suspend({{"system.memory.*", true}});
    CHECK(engine.suspended() > 0);
    tree.write("proc/meminfo", "MemTotal: 9000000 kB\nMemFree: 1000 kB\nMemAvailable: 2000 kB\n");
    for (int i = 0; i < 3; ++i) step();
    CHECK(engine.row()[slot] == doctest::Approx(9000000.0 * 1024));
    CHECK(engine.bank().expected()[slot] == before);
    CHECK(engine.bank().bits()[slot] == 0.0F);
    engine.suspend({});
    CHECK(engine.suspended() == 0);
    step();
    step();
    CHECK(engine.bank().expected()[slot] == doctest::Approx(9000000.0 * 1024));
}

// Steps of a host whose sources all arrive, apart from what a test takes away.
struct Stepped {
    Tree tree{"6.18"};
    Engine engine;
    std::vector<Anomaly> out;
    int tick = 0;

    explicit Stepped(EngineOptions (*change)(EngineOptions) = nullptr)
        : engine(change != nullptr ? change(fixture(tree)) : fixture(tree)) {}
    // What the detector says in the next `count` ticks.
    std::vector<Anomaly> steps(int count, const std::string& detector = "silence") {
        out.clear();
        for (int i = 0; i < count; ++i) {
            until_due();
            engine.step(kStart + tick++ * kSecond, out);
        }
        std::erase_if(out, [&](const Anomaly& a) { return a.detector != detector; });
        return out;
    }
};

TEST_CASE("engine: a series that stops arriving is one anomaly, and one more when it is back; constant ones are none") {
    Stepped host([](EngineOptions options) {
        options.silence = std::vector<double>{3.0, 3.0, 0.0};  // no day of settling: a frozen one would be told
        return options;
    });
    CHECK(host.steps(60).empty());
    const std::string uptime = test::slurp(host.tree.path("proc/uptime"));
    host.tree.write("proc/uptime", "");
    const auto gone = host.steps(30);
    REQUIRE(gone.size() == 1);
    CHECK(gone[0].series == "system.uptime");
    CHECK(gone[0].message.find("system.uptime stopped arriving: nothing for ") == 0);
    CHECK(gone[0].bits >= 10.0);
    CHECK(gone[0].family == Family::host);
    host.tree.write("proc/uptime", uptime);
    const auto back = host.steps(10);
    REQUIRE(back.size() == 1);
    CHECK(back[0].message == "system.uptime arrives again");
}

TEST_CASE("engine: a source that dies with many series is one anomaly, and one when it is back") {
    Stepped host;
    CHECK(host.steps(60).empty());
    const std::string memory = test::slurp(host.tree.path("proc/meminfo"));
    host.tree.write("proc/meminfo", "");
    const auto gone = host.steps(30);
    REQUIRE(gone.size() == 1);
    CHECK(gone[0].message.find("more with it") != std::string::npos);
    CHECK(gone[0].evidence.size() == 8);
    host.tree.write("proc/meminfo", memory);
    const auto back = host.steps(10);
    REQUIRE(back.size() == 1);
    CHECK(back[0].message.find("arrives again; ") != std::string::npos);
}

TEST_CASE("engine: what is suspended is not told silent") {
    Stepped host;
    CHECK(host.steps(60).empty());
    host.engine.suspend({{"system.*", false}});
    host.tree.write("proc/meminfo", "");
    host.tree.write("proc/loadavg", "");
    CHECK(host.steps(30).empty());
    host.engine.suspend({});
    CHECK(host.steps(30).size() >= 1);  // still gone
}

TEST_CASE("engine: a named detector judges the series that fit its patterns, and is saved with the others") {
    const auto named = [](EngineOptions options) {
        options.bank.detectors.clear();  // nothing else speaks
        options.silence.reset();
        options.bank.false_alarms_per_day = 1e5;  // ticks are 11 ms: some 8 million a day
        options.named.push_back({{&detectors::shift_detector, {}}, {"system.cpu.load_average.1?"}});
        return options;
    };
    Stepped host(named);
    const auto load = [&](double one, double five) {
        host.tree.write("proc/loadavg", std::to_string(one) + " " + std::to_string(five) + " 0.10 1/100 4242\n");
    };
    for (int i = 0; i < 250; ++i) {
        const double usual = 0.5 + 0.01 * ((i * 7) % 10);
        load(usual, usual);
        for (const Anomaly& a : host.steps(1, "shift")) CHECK(a.series == kLoad);
    }
    const auto state = host.engine.snapshot();
    load(9.0, 9.0);
    const auto said = host.steps(30, "shift");
    REQUIRE(said.size() >= 1);
    for (const Anomaly& a : said) CHECK(a.series == kLoad);
    Stepped other(named);
    other.engine.restore(state);
    CHECK(other.engine.snapshot() == state);
    Stepped without;
    CHECK_THROWS_AS(without.engine.restore(state), CodecError);
}

TEST_CASE("engine: a state that is damaged or of other options is refused and changes nothing") {
    EngineOptions options = events_only();
    options.events.ledger.default_cap[static_cast<std::size_t>(ScopeKind::session)] = 100 * kUsd;
    Engine source(options);
    std::vector<Anomaly> out;
    for (const std::string& event : eventful(3)) (void)give(source, event, out);
    const auto state = source.snapshot();

    Engine engine(options);
    (void)give(engine, spending(1, 5 * kUsd, "mine"), out);
    const auto before = engine.snapshot();
    auto flipped = state;
    flipped[flipped.size() / 2] ^= std::byte{1};
    CHECK_THROWS_AS(engine.restore(flipped), CodecError);
    for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{12}, state.size() - 1}) {
        CHECK_THROWS_AS(engine.restore(std::span(state).first(size)), CodecError);
    }
    auto longer = state;
    longer.push_back(std::byte{0});
    CHECK_THROWS_AS(engine.restore(longer), CodecError);
    EngineOptions other = options;
    other.events.auditors = {{auditor_catalog()[0], {}}};
    CHECK_THROWS_AS(engine.restore(Engine(other).snapshot()), CodecError);
    const Tree tree("6.18");
    CHECK_THROWS_AS(engine.restore(Engine(fixture(tree)).snapshot()), CodecError);
    CHECK(engine.snapshot() == before);
    CHECK(engine.events().spend(ScopeKind::session, "", "mine").metered == 5 * kUsd);
    CHECK_NOTHROW(engine.restore(state));
    CHECK(engine.snapshot() == state);
}

TEST_CASE("engine: a broken invariant marks the engine failed for good") {
    EngineOptions options = events_only();
    options.events.auditors = {{&kBroken, {}}};
    Engine engine(std::move(options));
    std::vector<Anomaly> out;
    CHECK(give(engine, spending(1, kUsd), out).accepted == 1);
    CHECK(!engine.statistics().failed);
    CHECK_THROWS_AS(give(engine, spending(1, kUsd, "broken"), out), InternalError);
    CHECK(engine.statistics().failed);
    CHECK_THROWS_AS(give(engine, spending(2, kUsd), out), InternalError);
    CHECK_THROWS_AS(engine.step(kStart, out), InternalError);
    CHECK_THROWS_AS(engine.finish(kStart, out), InternalError);
    CHECK(engine.events().totals().accepted == 2);
}

TEST_CASE("engine: started samplers feed the same row, and a stopped engine can still be read") {
    const Tree tree("6.18");
    Engine engine(fixture(tree));
    engine.start();
    std::vector<Anomaly> out;
    double limit = kNotANumber;
    for (int i = 0; i < 200 && std::isnan(limit); ++i) {
        until_due();
        engine.step(kStart + i, out);
        try {
            limit = at(engine, kMemory);
        } catch (const std::runtime_error&) {
        }
    }
    CHECK(limit == 24684096.0 * 1024);
    engine.stop();
    CHECK(history_of(engine, kMemory).values.back() == 24684096.0F * 1024);
    engine.stop();
}

}  // namespace argus::engine
