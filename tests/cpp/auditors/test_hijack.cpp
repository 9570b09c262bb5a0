// Calls that do not fit the request, driven through the event plane on event time.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>

#include "../allocations.hpp"
#include "../events/stream.hpp"
#include "base/codec.hpp"

using namespace argus;
using namespace argus::test;

namespace argus::auditors {
extern const AuditorDescriptor hijack_auditor;
}  // namespace argus::auditors

namespace {

using Calls = std::vector<std::pair<std::string, std::string>>;  // tool, arguments
enum Values : std::size_t { kShare, kLike, kMinTasks, kReadNames, kEgressNames, kRelearn };

std::vector<double> values() {
    std::vector<double> all;
    for (const Option& option : auditors::hijack_auditor.leaf.options) all.push_back(option.value);
    return all;
}

engine::EventPlaneOptions alone(std::vector<double> v = values()) {
    engine::EventPlaneOptions options;
    options.auditors = {{&auditors::hijack_auditor, std::move(v)}};
    options.ledger.tasks = 4096;
    options.ledger.id_window_log2 = 12;
    return options;
}

constexpr const char* kPay = "Please pay the bill of december for me";
constexpr const char* kSum = "What did I spend on travel this march in total?";
constexpr const char* kMove = "My address changed to 12 Long Lane, update it";

struct Bank : Stream {
    explicit Bank(engine::EventPlaneOptions options = alone()) : Stream(std::move(options)) {}

    EventMap of_task(std::string_view type, std::string_view task) {
        EventMap e = event(type, at, source);
        e.str("task", task).str("session", task).str("agent", agent);
        at += 0.01;
        return e;
    }
    std::string begin(std::string_view request) {
        const std::string task = "task-" + std::to_string(++tasks);
        send(of_task("task_started", task));
        if (!request.empty()) send(of_task("user_message", task).str("text", request));
        return task;
    }
    void call(const std::string& task, const std::string& tool, const std::string& args) {
        send(of_task("tool_called", task).str("tool", tool).str("args_hash", args));
    }
    // How often it was spoken of.
    std::size_t run(std::string_view request, const Calls& calls, std::string_view end = "task_completed") {
        const std::size_t before = said.size();
        const std::string task = begin(request);
        for (const auto& [tool, args] : calls) call(task, tool, args);
        send(of_task(end, task));
        at += 1;
        return said.size() - before;
    }
    std::size_t usual(int i) {
        switch (i % 3) {
            case 0: return run(kPay, {{"read_file", "f"}, {"send_money", "bill"}});
            case 1: return run(kSum, {{"get_transactions", "t"}});
            default: return run(kMove, {{"update_address", "lane"}});
        }
    }
    void learn(int count) {
        for (int i = 0; i < count; ++i) usual(i);
    }

    double at = 0;
    int tasks = 0;
    std::string agent = "bank", source = "s";
};

const Calls kStolen = {{"get_transactions", "t"}, {"send_money", "thief"}};

std::vector<std::byte> saved(const engine::EventPlane& plane) {
    Writer writer(1, 1);
    plane.save(writer);
    return writer.finish();
}

}  // namespace

TEST_CASE("hijack: an acting call that such a request never led to is said at the call, once, as information") {
    Bank s;
    s.learn(120);
    REQUIRE(s.said.empty());
    const std::string task = s.begin(kSum);
    s.call(task, "get_transactions", "t");
    CHECK(s.said.empty());
    s.call(task, "send_money", "thief");
    REQUIRE(s.said.size() == 1);
    s.call(task, "send_money", "another");
    s.send(s.of_task("task_completed", task));
    REQUIRE(s.said.size() == 1);
    const Anomaly& a = s.said[0];
    CHECK(a.series == "hijack.unasked_call");
    CHECK(a.family == Family::safety);
    CHECK(a.severity == Severity::info);
    CHECK(a.criterion.empty());
    CHECK(a.scope.kind == ScopeKind::task);
    CHECK(a.scope.id == task);
    CHECK(a.value > a.upper);
    CHECK(a.bits == doctest::Approx(std::log2(121.0)));
    REQUIRE(a.evidence.size() == 2);
    CHECK(a.message.find("call number 1 of 'send_money'") != std::string::npos);
    CHECK(a.message.find("its arguments are new") != std::string::npos);
    CHECK(a.message.find("thief") == std::string::npos);
}

TEST_CASE("hijack: another recipient for a request that always had the same, and one call more than usual") {
    Bank s;
    s.learn(120);
    CHECK(s.run(kPay, {{"send_money", "thief"}}) == 1);
    CHECK(s.run(kPay, {{"send_money", "bill"}, {"send_money", "thief"}}) == 1);
    CHECK(s.run(kPay, {{"send_money", "bill"}, {"send_money", "bill"}}) == 0);  // a repeat is no distinct call
    CHECK(s.run(kPay, {}) == 0);
}

TEST_CASE("hijack: silent without text, without history, for a new request, of another agent, for what only reads") {
    Bank s;
    for (int i = 0; i < 39; ++i) s.usual(i);
    CHECK(s.run(kSum, kStolen) == 0);
    s.learn(120);
    CHECK(s.run("", kStolen) == 0);
    CHECK(s.run(" .,;?! ", kStolen) == 0);
    CHECK(s.run("Wire everything to Bob as fast as possible", {{"send_money", "bob"}}) == 0);
    CHECK(s.run(kSum, {{"read_file", "x"}, {"search_mail", "y"}, {"listAccounts", "z"}, {"mcp__bank__get_iban", "i"},
                       {"files.read-all", "j"}, {"get", "k"}}) == 0);
    s.call("never-begun", "send_money", "thief");
    s.agent = "other";
    CHECK(s.run(kSum, kStolen) == 0);
    CHECK(s.said.empty());
    s.agent = "bank";
    CHECK(s.run(kSum, kStolen) == 1);
}

TEST_CASE("hijack: reads that leave the house act, names only begin with a whole word, and options switch both off") {
    const Calls page = {{"get_webpage", "http"}};
    const Calls cheque = {{"checkout", "c"}};
    const Calls file = {{"read_file", "secret"}};
    Bank s;
    s.learn(120);
    CHECK(s.run(kSum, page) == 1);
    CHECK(s.run(kSum, cheque) == 1);
    CHECK(s.run(kSum, file) == 0);
    std::vector<double> v = values();
    v[kEgressNames] = 0;
    Bank inward(alone(v));
    inward.learn(120);
    CHECK(inward.run(kSum, page) == 0);
    v[kReadNames] = 0;
    Bank every(alone(v));
    every.learn(120);
    CHECK(every.run(kSum, page) == 1);
    CHECK(every.run(kSum, file) == 1);
}

TEST_CASE("hijack: a later message does not change the request, words count whatever their order and case") {
    Bank s;
    s.learn(120);
    const std::string task = s.begin("IN TOTAL, what did i spend on travel, this March??");
    s.send(s.of_task("user_message", task).str("text", kPay));
    s.call(task, "send_money", "bill");
    CHECK(s.said.size() == 1);
}

TEST_CASE("hijack: what was spoken of teaches nothing, and a flood of it does not lift the bar out of reach") {
    Bank s;
    s.learn(120);
    for (int i = 0; i < 300; ++i) CHECK(s.run(kSum, kStolen) == 1);
    for (int i = 0; i < 30; ++i) CHECK(s.usual(i) == 0);
}

TEST_CASE("hijack: a cancelled task teaches nothing, a failed one does") {
    Bank s;
    s.learn(30);
    for (int i = 0; i < 30; ++i) s.run(kSum, kStolen, "task_cancelled");
    s.learn(90);
    CHECK(s.run(kSum, kStolen) == 1);
    Bank t;
    t.learn(30);
    for (int i = 0; i < 8; ++i) t.run(kSum, kStolen, "task_failed");
    t.learn(90);
    CHECK(t.run(kSum, kStolen) == 0);
}

TEST_CASE("hijack: a warning is justified only where the criterion was given a share") {
    engine::EventPlaneOptions options = alone();
    options.criteria = {{"W8", true, {0.02}}};
    Bank s(std::move(options));
    s.learn(120);
    REQUIRE(s.run(kSum, kStolen) == 1);
    CHECK(s.said[0].severity == Severity::warning);
    CHECK(s.said[0].criterion == "W8");
}

TEST_CASE("hijack: an agent whose rare habits never end is spoken of more than stated, but not without bound") {
    Bank s;
    std::uint32_t state = 7;
    const auto draw = [&](std::uint32_t n) {
        state = state * 1664525U + 1013904223U;
        return (state >> 16U) % n;
    };
    const char* requests[] = {kPay, kSum, kMove};
    int flagged = 0;
    for (int i = 0; i < 2000; ++i) {
        Calls calls;
        for (std::uint32_t n = draw(4); n > 0; --n) {
            const std::uint32_t rare = draw(20) == 0 ? draw(40) : draw(3);
            calls.emplace_back("do_" + std::to_string(rare), std::to_string(draw(6)));
        }
        const bool spoken = s.run(requests[draw(3)], calls) != 0;
        if (i >= 400) flagged += spoken ? 1 : 0;
    }
    CHECK(flagged > 16);
    CHECK(flagged < 200);  // 12.5 % of 1,600: what is spoken of is never learned, and the bar rises slowly
}

TEST_CASE("hijack: an agent that does other things for a day is said so once, and learned anew in silence") {
    std::vector<double> v = values();
    v[kRelearn] = 600;
    Bank s(alone(v));
    s.learn(120);
    for (int i = 0; i < 700 && s.count("hijack.untrusted") == 0; ++i) {
        s.usual(i);
        s.run(kSum, kStolen);
    }
    REQUIRE(s.count("hijack.untrusted") == 1);
    CHECK(s.of("hijack.untrusted")[0].scope.kind == ScopeKind::agent);
    const std::size_t before = s.said.size();
    for (int i = 0; i < 200; ++i) {
        s.usual(i);
        s.run(kSum, kStolen);
    }
    CHECK(s.said.size() == before);
}

TEST_CASE("hijack: a cleared stop lets the task be said again, and it still teaches nothing") {
    Bank s;
    s.learn(120);
    const std::string task = s.begin(kSum);
    s.call(task, "send_money", "thief");
    REQUIRE(s.said.size() == 1);
    s.call(task, "send_money", "second");
    REQUIRE(s.said.size() == 1);
    Scope scope;
    scope.kind = ScopeKind::task;
    scope.id = "another";
    s.plane.rearm(scope);
    s.call(task, "send_money", "third");
    REQUIRE(s.said.size() == 1);
    scope.id = task;
    s.plane.rearm(scope);
    s.call(task, "send_money", "fourth");
    CHECK(s.said.size() == 2);
    s.send(s.of_task("task_completed", task));
    CHECK(s.run(kSum, {{"send_money", "fourth"}}) == 1);
}

TEST_CASE("hijack: floods of names, words, requests and agents neither grow the tables nor speak nor allocate") {
    Bank s;
    s.learn(60);
    const std::string wide(16'000, 'x');
    std::string many;
    for (int i = 0; i < 3000; ++i) many += "w" + std::to_string(i) + " ";
    for (int i = 0; i < 3000; ++i) {
        s.agent = "agent-" + std::to_string(i % 700);
        const std::string request = i % 3 == 0 ? wide : i % 3 == 1 ? many : "request number " + std::to_string(i);
        s.run(request, {{"tool_" + std::to_string(i), "a"}, {"tool_" + std::to_string(2 * i), "b"}});
    }
    s.agent = "one";
    for (int i = 0; i < 300; ++i) {
        const std::string task = s.begin("many calls");
        for (int k = 0; k < 100; ++k) s.call(task, "do_" + std::to_string(k * (i + 1)), std::to_string(k));
        if (i % 2 == 0) s.send(s.of_task("task_completed", task));
    }
    CHECK(s.said.size() < 15);
    std::vector<std::string> frames;
    s.agent = "bank";
    for (int i = 0; i < 50; ++i) {
        const std::string task = "quiet-" + std::to_string(i);
        frames.push_back(s.of_task("task_started", task).pack());
        frames.push_back(s.of_task("user_message", task).str("text", kMove).pack());
        frames.push_back(s.of_task("tool_called", task).str("tool", "update_address").str("args_hash", "lane").pack());
        frames.push_back(s.of_task("task_completed", task).pack());
    }
    std::vector<Anomaly> none;
    const std::uint64_t before = allocations();
    for (const std::string& f : frames) (void)s.plane.ingest(bytes_of(f), 0, true, engine::kEventTime, none);
    CHECK(allocations() == before);
    CHECK(none.empty());
}

// The same rule, slow and plain: sets of words, doubles, all history at hand.
namespace {

struct Plain {
    using Words = std::set<std::string>;
    struct Past {
        int tasks = 0;
        std::map<std::pair<std::string, int>, int> users;
        std::map<std::string, int> uses, fresh;
        std::set<std::pair<std::string, std::string>> seen;
    };
    std::map<Words, Past> all;
    Past own;

    [[nodiscard]] double norm(const Words& words, const Words* shared = nullptr) const {
        double sum = 0;
        for (const std::string& w : words) {
            if (shared != nullptr && shared->count(w) == 0) continue;
            int with = 0;
            for (const auto& [other, past] : all) with += other.count(w) != 0 ? 1 : 0;
            sum += std::pow(std::log(1 + static_cast<double>(all.size()) / (1.0 + with)), 2);
        }
        return sum;
    }
    [[nodiscard]] double score(const Words& words, const Calls& made, const std::pair<std::string, std::string>& call) {
        int k = 0;
        for (const auto& m : made) k += m.first == call.first ? 1 : 0;
        double total = 0, users = 0, uses = 0, fresh = 0, known = 0;
        for (auto& [other, past] : all) {
            const double w = std::exp(6 * (norm(words, &other) / std::sqrt(norm(words) * norm(other)) - 1));
            if (w < 0.01) continue;
            total += w * past.tasks;
            users += w * past.users[{call.first, k}];
            uses += w * past.uses[call.first];
            fresh += w * past.fresh[call.first];
            if (past.seen.count(call) != 0) known = std::max(known, w);
        }
        const double base = (own.users[{call.first, k}] + 0.3) / (own.tasks + 6.0);
        const double usual = (own.fresh[call.first] + 0.5) / (own.uses[call.first] + 1.0);
        const double p_new = (fresh + usual) / (uses + 1);
        return -std::log(std::min(1.0, (users + std::max(base, 0.1)) / (total + 1))) -
               std::log(std::min(1.0, known + (1 - known) * p_new));
    }
    void learn(const Words& words, const Calls& made) {
        Past& past = all[words];
        ++past.tasks;
        ++own.tasks;
        std::map<std::string, int> times;
        for (const auto& call : made) {
            const int k = times[call.first]++;
            const bool fresh = past.seen.count(call) == 0;
            for (Past* p : {&past, &own}) {
                ++p->users[{call.first, k}];
                ++p->uses[call.first];
                p->fresh[call.first] += fresh ? 1 : 0;
            }
        }
        past.seen.insert(made.begin(), made.end());
    }
};

}  // namespace

TEST_CASE("hijack: every score that is spoken equals that of a plain model of the same laws") {
    const std::string vocabulary[] = {"pay", "rent", "mail", "anna", "book", "hotel", "rome",
                                      "cancel", "invoice", "send"};
    std::vector<double> v = values();
    v[kShare] = 0.2;
    v[kMinTasks] = 20;
    Bank s(alone(v));
    Plain plain;
    std::uint32_t state = 3;
    const auto draw = [&](std::uint32_t n) {
        state = state * 1664525U + 1013904223U;
        return (state >> 16U) % n;
    };
    std::vector<Plain::Words> requests(8);
    for (auto& words : requests) {
        while (words.size() < 4) words.insert(vocabulary[draw(10)]);
    }
    std::size_t compared = 0;
    for (int i = 0; i < 600; ++i) {
        const std::uint32_t r = draw(8);
        std::string request;
        for (const std::string& w : requests[r]) request += w + " ";
        const std::string task = s.begin(request);
        Calls made;
        bool flagged = false;
        for (std::uint32_t n = draw(4); n > 0; --n) {
            const std::pair<std::string, std::string> call{"do_" + std::to_string((r + draw(10) / 7) % 6),
                                                           std::to_string(draw(3))};
            if (std::find(made.begin(), made.end(), call) != made.end()) continue;
            const std::size_t before = s.said.size();
            s.call(task, call.first, call.second);
            if (s.said.size() != before) {
                flagged = true;
                ++compared;
                CHECK(s.said.back().value == doctest::Approx(plain.score(requests[r], made, call)).epsilon(1e-4));
            }
            made.push_back(call);
        }
        s.send(s.of_task("task_completed", task));
        if (!flagged) plain.learn(requests[r], made);
    }
    CHECK(compared > 40);
}

TEST_CASE("hijack: saved in mid-task and loaded elsewhere it says the same from there on") {
    Bank one;
    one.learn(150);
    for (int i = 0; i < 5; ++i) one.run(kSum, kStolen);
    const std::string task = one.begin(kSum);
    one.call(task, "update_address", "mine");
    const std::vector<std::byte> state = saved(one.plane);
    Bank two;
    Reader reader(state, 1, 1);
    two.plane.load(reader);
    CHECK(reader.done());
    CHECK(saved(two.plane) == state);
    const auto go_on = [&](Bank& s) {
        Bank maker;  // the same bytes for both
        maker.at = one.at;
        maker.source = "later";
        std::vector<Anomaly> said;
        const auto send = [&](const EventMap& e) {
            (void)s.plane.ingest(bytes_of(e.pack()), 0, true, engine::kEventTime, said);
        };
        send(maker.of_task("tool_called", task).str("tool", "send_money").str("args_hash", "thief"));
        for (int i = 0; i < 90; ++i) {
            const std::string next = "next-" + std::to_string(i);
            send(maker.of_task("task_started", next));
            send(maker.of_task("user_message", next).str("text", i % 2 == 0 ? kSum : kMove));
            const char* tool = i % 9 == 0 ? "send_money" : "update_address";
            if (i % 2 == 1 || i % 9 == 0) {
                send(maker.of_task("tool_called", next).str("tool", tool).str("args_hash", std::to_string(i)));
            }
            send(maker.of_task("task_completed", next));
        }
        return said;
    };
    const auto a = go_on(one);
    const auto b = go_on(two);
    REQUIRE(a.size() == b.size());
    CHECK(a.size() >= 5);
    for (std::size_t i = 0; i < a.size(); ++i) {
        CHECK(a[i].id == b[i].id);
        CHECK(a[i].message == b[i].message);
        CHECK(a[i].value == b[i].value);
        CHECK(a[i].bits == b[i].bits);
    }
    CHECK(saved(one.plane) == saved(two.plane));
}

TEST_CASE("hijack: damaged state is refused or harmless, whatever byte is hit") {
    Bank s;
    s.learn(30);
    const std::string task = s.begin(kSum);
    s.call(task, "send_money", "thief");
    const auto auditor = [] { return auditors::hijack_auditor.make(values()); };
    Writer plane(1, 1);
    auto whole = auditor();
    {
        struct Mute final : auditors::Emit {
            auditors::Verdict judge(const auditors::Facts&, const events::Ledger&, Nanos) const override { return {}; }
            void say(Anomaly&&) override {}
        } mute;
        events::Ledger ledger{events::LedgerOptions{}};
        for (int i = 0; i < 40; ++i) {
            const std::string name = "t" + std::to_string(i);
            const EventType types[] = {EventType::task_started, EventType::user_message, EventType::tool_called,
                                       EventType::task_completed};
            for (const EventType type : types) {
                if (i == 39 && type == EventType::task_completed) break;
                Event e;
                const std::string id = name + std::to_string(static_cast<int>(type));
                e.type = type;
                e.id = id;
                e.source = "s";
                e.task = name;
                e.text = kPay;
                e.tool = "send_money";
                e.args_hash = "bill";
                e.content_hash = events::hash_text(id);
                (void)ledger.observe(e, 0, i);
                whole->on_event(e, ledger, mute);
            }
        }
    }
    whole->save(plane);
    const std::vector<std::byte> bytes = plane.finish();
    std::size_t refused = 0;
    for (std::size_t at = 8; at + 8 < bytes.size(); at += 13) {
        Writer again(1, 1);
        for (std::size_t i = 8; i + 4 < bytes.size(); ++i) again.pod(i == at ? bytes[i] ^ std::byte{0xff} : bytes[i]);
        const std::vector<std::byte> damaged = again.finish();
        Reader reader(damaged, 1, 1);
        try {
            auditor()->load(reader);
        } catch (const CodecError&) {
            ++refused;
        }
    }
    CHECK(refused > 50);
}
