#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <limits>
#include <random>

#include "../allocations.hpp"
#include "../events/stream.hpp"

namespace argus::auditors {
extern const AuditorDescriptor claims_auditor;
}

namespace {

using namespace argus;
using namespace argus::test;
using auditors::Activity;
using auditors::Blind;
using auditors::ClaimReport;
using auditors::Ending;
using auditors::FileAnswer;
using auditors::FileQuestion;
using auditors::Presence;

Nanos wall(double at) { return kEpoch + static_cast<Nanos>(at * 1e9); }

engine::EventPlaneOptions only_claims() {
    engine::EventPlaneOptions options;
    options.auditors = {{&auditors::claims_auditor, {}}};
    return options;
}

struct Asked final : auditors::Witness {
    [[nodiscard]] bool ask(const FileQuestion& question) noexcept override {
        if (questions.size() >= room) return false;
        questions.push_back(question);
        return true;
    }
    std::deque<FileQuestion> questions;
    std::size_t room = 1000;
};

// A plane with one session that lives here, and a host whose answers the test gives.
struct Host : Stream {
    explicit Host(engine::EventPlaneOptions options = only_claims()) : Stream(std::move(options)) {
        plane.set_witness(&asked);
        plane.testify(Presence{"session"}, wall(0), said);
    }
    EventMap written(double at, std::string_view path, std::int64_t bytes = -1, std::string_view digest = {}) {
        EventMap e = event("file_written", at);
        e.str("path", path).str("session", "session").str("task", "t").str("agent", "agent");
        if (bytes >= 0) e.num("bytes", bytes);
        if (!digest.empty()) e.str("sha256", digest);
        return e;
    }
    void fact(const auditors::HostFact& fact, double at) { plane.testify(fact, wall(at), said); }
    // Answers what is asked at `at` by `find`.
    template <class Find>
    void answer(double at, Find&& find) {
        tick(at);
        while (!asked.questions.empty()) {
            const FileQuestion q = asked.questions.front();
            asked.questions.pop_front();
            FileAnswer a = find(q);
            a.claim = q.claim;
            a.turn = q.turn;
            fact(a, at);
        }
    }
    // Both looks at a claim told at `at`.
    template <class Find>
    void look(double at, Find&& find) {
        answer(at + 1.5, find);
        answer(at + 8, find);
    }
    [[nodiscard]] auditors::ClaimCounts counts() const { return plane.claims().counts; }
    Asked asked;
};

FileAnswer absent(Nanos folder_changed) {
    FileAnswer a;
    a.changed = folder_changed;
    return a;
}
FileAnswer file(std::int64_t bytes, Nanos changed) {
    FileAnswer a;
    a.exists = true;
    a.bytes = bytes;
    a.changed = changed;
    return a;
}
FileAnswer content(std::int64_t bytes, Nanos changed, bool same) {
    FileAnswer a = file(bytes, changed);
    a.read = true;
    a.same = same;
    return a;
}
FileAnswer unseen(Blind blind) {
    FileAnswer a;
    a.blind = blind;
    return a;
}

const std::string kDigest(64, 'a');

}  // namespace

TEST_CASE("claims: a file that was never written is refuted after two looks, with claim and fact in words") {
    Host host;
    host.send(host.written(100, "/data/report.md", 512));
    host.answer(101.5, [](const FileQuestion& q) {
        CHECK(q.path_view() == "/data/report.md");
        CHECK(q.bytes == 512);
        CHECK_FALSE(q.hashed);
        return absent(wall(10));
    });
    CHECK(host.said.empty());  // one look decides nothing
    host.answer(107, [](const FileQuestion&) { return absent(wall(10)); });
    REQUIRE(host.said.size() == 1);
    const Anomaly& a = host.said[0];
    CHECK(a.series == "claims.file_absent");
    CHECK(a.severity == Severity::warning);
    CHECK(a.criterion == "W9");
    CHECK(a.scope.kind == ScopeKind::session);
    CHECK(a.scope.session == "session");
    CHECK(a.scope.task == "t");
    CHECK(a.since == wall(100));
    CHECK(a.expected == 512);
    CHECK(a.evidence == std::vector<std::string>{"s-1"});
    CHECK(a.message.find("'/data/report.md', and its folder has not changed since 90.0 s before") != std::string::npos);
    CHECK(a.message.find("'s-1' claims it written with 512 bytes") != std::string::npos);
    CHECK(host.counts().refuted == 1);
}

TEST_CASE("claims: what a look at a file says of its claim") {
    struct Case {
        const char* what;
        std::int64_t bytes;
        bool digest;
        FileAnswer found;
        const char* series;  // "" = nothing is said
        std::uint64_t auditors::ClaimCounts::* counted;
    };
    using C = auditors::ClaimCounts;
    FileAnswer open = file(5, wall(99));
    open.being_written = true;
    FileAnswer large = file(10, wall(99));
    large.blind = Blind::large;
    FileAnswer large_but_small = file(5, wall(99));
    large_but_small.blind = Blind::large;
    const Case cases[] = {
        {"as claimed", 10, false, file(10, wall(99)), "", &C::confirmed},
        {"appended to: larger than what was written", 10, false, file(1000, wall(99)), "", &C::confirmed},
        {"no size claimed", -1, false, file(0, wall(99)), "", &C::confirmed},
        {"smaller, untouched since", 10, false, file(9, wall(99)), "claims.file_size", &C::refuted},
        {"smaller, cut by somebody since", 10, false, file(9, wall(100.001)), "", &C::undecided},
        {"smaller, still being written", 10, false, open, "", &C::undecided},
        {"same content", 10, true, content(10, wall(99), true), "", &C::confirmed},
        {"same content, touched since", 10, true, content(10, wall(105), true), "", &C::confirmed},
        {"other content", 10, true, content(10, wall(99), false), "claims.file_content", &C::refuted},
        {"other content, changed since", 10, true, content(10, wall(105), false), "", &C::undecided},
        {"changed while it was read", 10, true, file(10, wall(105)), "", &C::undecided},
        {"smaller than claimed and too large to read", 10, true, large_but_small, "claims.file_size", &C::refuted},
        {"gone, its folder changed", 10, false, absent(wall(99)), "claims.file_gone", &C::undecided},
        {"gone, its folder changed since", 10, false, absent(wall(101)), "claims.file_gone", &C::undecided},
        {"not touched for long before", 10, false, file(10, wall(20)), "claims.file_untouched", &C::undecided},
        {"not touched for long, but the content is as claimed", 10, true, content(10, wall(20), true), "",
         &C::confirmed},
    };
    for (const Case& c : cases) {
        CAPTURE(c.what);
        Host host;
        host.send(host.written(100, "/f", c.bytes, c.digest ? kDigest : ""));
        host.look(100, [&](const FileQuestion& q) {
            CHECK(q.hashed == c.digest);
            return c.found;
        });
        CHECK(host.said.size() == (*c.series == '\0' ? 0 : 1));
        if (!host.said.empty()) {
            CHECK(host.said[0].series == c.series);
            CHECK((host.said[0].severity == Severity::warning) == (c.counted == &C::refuted));
        }
        CHECK(host.counts().*c.counted == 1);
        CHECK(host.counts().files == 1);
    }
    Host host;
    host.send(host.written(100, "/f", 10, kDigest));
    host.look(100, [&](const FileQuestion&) { return large; });
    CHECK(host.counts().unverifiable[static_cast<std::size_t>(Blind::large)] == 1);
    CHECK(host.said.empty());
}

TEST_CASE("claims: a doubt that the second look does not share is none") {
    Host host;
    host.send(host.written(100, "/f", 10));
    host.answer(101.5, [](const FileQuestion&) { return file(0, wall(99)); });
    host.answer(107, [](const FileQuestion&) { return file(10, wall(103)); });
    CHECK(host.said.empty());
    CHECK(host.counts().confirmed == 1);
}

TEST_CASE("claims: a later word on the same path withdraws the claim, also while it is looked at") {
    for (const char* type : {"file_deleted", "delete", "rename", "file_written"}) {
        CAPTURE(type);
        Host host;
        host.send(host.written(100, "/f", 10));
        host.tick(101.5);
        REQUIRE(host.asked.questions.size() == 1);
        const FileQuestion first = host.asked.questions.front();
        host.asked.questions.clear();
        const bool is_type = std::string_view(type).starts_with("file_");
        EventMap later = host.event(is_type ? type : "file_written", 102);
        later.str("path", "/f").str("session", "session");
        if (!is_type) later.str("op", type);
        host.send(later);
        FileAnswer late = absent(wall(0));
        late.claim = first.claim;
        late.turn = first.turn;
        host.fact(late, 103);
        host.look(102, [](const FileQuestion&) { return file(10, wall(101.9)); });
        CHECK(host.said.empty());
        CHECK(host.counts().withdrawn == 1);
        CHECK(host.counts().confirmed == (std::string_view(type) == "file_written" ? 1 : 0));
    }
}

TEST_CASE("claims: what cannot be decided here is counted and not spoken of") {
    Host host;
    const auto blind = [&](Blind why) { return host.counts().unverifiable[static_cast<std::size_t>(why)]; };
    host.send(host.written(1, "/f").str("session", "elsewhere"));
    host.send(host.written(1, "/f").drop("session"));
    CHECK(blind(Blind::no_process) == 2);
    host.send(host.written(1, "relative/f"));
    host.send(host.written(1, std::string("/with\0nul", 9)));
    host.send(host.written(1, "/" + std::string(1023, 'x')));
    CHECK(blind(Blind::path) == 3);
    host.send(host.written(1, "/failed").set("ok", boolean(false)));
    CHECK(host.counts().files == 5);
    std::size_t n = 0;
    for (const Blind why : {Blind::foreign, Blind::mount, Blind::link, Blind::special, Blind::denied, Blind::failed}) {
        host.send(host.written(2, "/file" + std::to_string(n++)));
        host.look(2 + static_cast<double>(n) * 10, [&](const FileQuestion&) { return unseen(why); });
        CHECK(blind(why) == 1);
    }
    CHECK(host.said.empty());
}

TEST_CASE("claims: a ts in the future or the past decides nothing that arrival does not") {
    Host host;
    host.plane.tick(wall(100), host.said);
    std::vector<Anomaly> found;
    const EventMap ahead = host.written(5000, "/f", 10);
    host.plane.ingest(bytes_of(ahead.pack()), 0, true, wall(100), found);  // live: it arrives at 100
    host.look(100, [](const FileQuestion&) { return file(9, wall(101)); });
    CHECK(host.said.empty());  // cut after it arrived
    CHECK(host.counts().undecided == 1);
}

TEST_CASE("claims: many refuted claims are spoken of at doubling counts; a person's reset begins anew") {
    Host host;
    for (int i = 0; i < 20; ++i) host.send(host.written(100, "/f" + std::to_string(i), 1));
    host.look(100, [](const FileQuestion&) { return absent(wall(1)); });
    CHECK(host.count("claims.file_absent") == 5);  // 1, 2, 4, 8, 16
    CHECK(host.counts().refuted == 20);
    CHECK(host.said.back().message.find("; so with 16 claims of this session") != std::string::npos);
    Scope scope;
    scope.kind = ScopeKind::session;
    scope.id = "session";
    host.plane.rearm(scope);
    host.send(host.written(200, "/again", 1));
    host.look(200, [](const FileQuestion&) { return absent(wall(1)); });
    CHECK(host.count("claims.file_absent") == 6);
}

TEST_CASE("claims: W9 asks for as many refuted claims as it is told, or for none") {
    engine::EventPlaneOptions options = only_claims();
    options.criteria = {{"W9", true, {3, 0}}};
    Host host(std::move(options));
    for (int i = 0; i < 3; ++i) host.send(host.written(100, "/f" + std::to_string(i), 1));
    host.look(100, [](const FileQuestion&) { return absent(wall(1)); });
    REQUIRE(host.said.size() == 3);  // 1 and 2 as information, the third for its severity
    CHECK(host.said[1].severity == Severity::info);
    CHECK(host.said[2].severity == Severity::warning);
}

TEST_CASE("claims: 1e5 at once are shed beyond what a session may have looked at; all are counted") {
    Host host;
    host.asked.room = 64;
    for (int i = 0; i < 100'000; ++i) host.send(host.written(100, "/flood/" + std::to_string(i), 1));
    for (int i = 0; i < 20; ++i) host.look(100 + 10 * i, [](const FileQuestion&) { return file(1, wall(99)); });
    const auto counts = host.counts();
    CHECK(counts.files == 100'000);
    CHECK(counts.shed == 99'900);
    CHECK(counts.confirmed == 100);
    host.send(host.written(400, "/later", 1));  // the allowance has come back
    host.look(400, [](const FileQuestion&) { return file(1, wall(399)); });
    CHECK(host.counts().confirmed == 101);
}

TEST_CASE("claims: a look without an answer is given up") {
    Host host;
    host.send(host.written(100, "/f", 1));
    host.tick(102);
    CHECK(host.asked.questions.size() == 1);
    host.tick(163);
    CHECK(host.counts().shed == 1);
    FileAnswer late = absent(wall(1));
    late.turn = 1;
    host.fact(late, 164);
    late.claim = 0xffffffff;
    host.fact(late, 164);
    CHECK(host.said.empty());
}

TEST_CASE("claims: success claimed just before a failing exit") {
    struct Case {
        const char* what;
        Ending end;
        double at;
        bool ok, open, said;
    };
    const Case cases[] = {
        {"status 3", {"session", 3, 0, false}, 11, true, false, true},
        {"a fault", {"session", 0, 11, false}, 11, true, false, true},
        {"a fault as a shell tells it", {"session", 134, 0, false}, 11, true, false, true},
        {"status 0", {"session", 0, 0, false}, 11, true, false, false},
        {"SIGTERM", {"session", 0, 15, false}, 11, true, false, false},
        {"SIGINT as a shell tells it", {"session", 130, 0, false}, 11, true, false, false},
        {"the memory killer", {"session", 0, 9, false}, 11, true, false, false},
        {"stopped by Argus", {"session", 3, 0, true}, 11, true, false, false},
        {"long after", {"session", 3, 0, false}, 30, true, false, false},
        {"claimed as not ok", {"session", 3, 0, false}, 11, false, false, false},
        {"another task was open", {"session", 3, 0, false}, 11, true, true, false},
        {"another session", {"other", 3, 0, false}, 11, true, false, false},
        {"no number that wait() gives", {"session", 1 << 30, 0, false}, 11, true, false, true},
    };
    for (const Case& c : cases) {
        CAPTURE(c.what);
        Host host;
        host.task("task_started", 1, "t");
        if (c.open) host.task("task_started", 2, "u");
        host.send(host.event("task_completed", 10).str("task", "t").str("session", "session").set("ok", boolean(c.ok)));
        host.fact(c.end, c.at);
        host.fact(c.end, c.at);
        REQUIRE(host.count("claims.exit_status") == (c.said ? 1 : 0));
        if (c.said) CHECK(host.said[0].severity == Severity::info);  // its session is over
    }
    engine::EventPlaneOptions options = only_claims();
    options.criteria = {{"W9", true, {1, 1}}};
    Host host(std::move(options));
    host.task("task_completed", 10, "t");
    host.fact(Ending{"session", 3, 0, false}, 11);
    REQUIRE(host.said.size() == 1);
    CHECK(host.said[0].criterion == "W9");
    CHECK(host.said[0].message == "task 't' was claimed completed, and 1.0 s later its process ended with status 3");
}

namespace {

// One fact a second, as the process tables come.
struct Worker {
    double cpu_s = 0, written = 0;
    std::uint64_t started = 0;
    void work(Host& host, double from, double to, double cpu, double bytes = 0, std::uint64_t children = 0) {
        for (double at = from; at < to; ++at) {
            cpu_s += cpu;
            written += bytes;
            started += children;
            host.tick(at + 1);
            host.fact(Activity{"session", wall(at + 1), cpu_s, 0, written, started, 1}, at + 1);
        }
    }
};

const auditors::AgentCoverage& coverage(const ClaimReport& report) {
    REQUIRE(report.agents.size() == 1);
    return report.agents[0];
}

}  // namespace

TEST_CASE("claims: coverage is the share of activity that calls and events account for") {
    Host host;
    Worker worker;
    host.task("task_started", 0, "t");
    worker.work(host, 0, 100, 0.5);  // events account for [0, 6)
    host.send(host.event("tool_called", 100).str("tool", "x").str("session", "session").str("agent", "planner"));
    worker.work(host, 100, 300, 0.5, 1e6, 1);
    host.send(host.event("tool_returned", 300).str("tool", "x").str("session", "session"));
    worker.work(host, 300, 500, 0);
    const ClaimReport report = host.plane.claims();
    const auto& c = coverage(report);
    CHECK(c.session == "session");
    CHECK(c.agent == "planner");
    CHECK(c.alive);
    CHECK(c.cpu_s.all == doctest::Approx(150));
    CHECK(c.cpu_s.accounted == doctest::Approx(100 + 3 + 3).epsilon(0.02));
    CHECK(c.write_bytes.ratio() == doctest::Approx(1).epsilon(0.01));
    CHECK(c.processes.ratio() == doctest::Approx(1).epsilon(0.01));
}

TEST_CASE("claims: an event that comes late with a duration accounts for the time it tells of") {
    Host host;
    Worker worker;
    worker.work(host, 0, 100, 1);
    host.send(host.event("model_returned", 100).str("model", "m").str("session", "session").num(
        "duration_ns", 90'000'000'000));
    worker.work(host, 100, 300, 0);
    CHECK(coverage(host.plane.claims()).cpu_s.ratio() >= 0.95);
    CHECK(host.said.empty());
}

TEST_CASE("claims: work while nothing is claimed, and work that a task alone covers") {
    for (const bool task : {false, true}) {
        CAPTURE(task);
        Host host;
        Worker worker;
        host.task("task_started", 0, "t");
        if (!task) host.task("task_completed", 0.1, "t");
        worker.work(host, 0, 400, 0.5, 2e6, 1);
        const char* cpu = task ? "claims.unreported_cpu" : "claims.idle_work";
        CHECK(host.count(cpu) == (task ? 1 : 3));
        CHECK(host.count("claims.unreported_disk") == (task ? 1 : 0));
        CHECK(host.count("claims.unreported_children") == (task ? 1 : 0));
        for (const Anomaly& a : host.said) CHECK(a.severity == Severity::info);
        const Anomaly a = host.of(cpu).front();
        CHECK(a.message.find(task ? "no event accounts for" : "nothing is under way") != std::string::npos);
        CHECK(a.value >= a.upper);
        CHECK(a.since >= wall(-2));
        CHECK(a.since <= wall(10));
        // Said once a spell: the next begins when an event has accounted for some work.
        worker.work(host, 400, 600, 0.5, 2e6, 1);
        CHECK(host.count(cpu) == (task ? 1 : 3));
        host.send(host.event("tool_called", 600).str("tool", "x").str("session", "session").str("result_hash", "r"));
        worker.work(host, 600, 1000, 0.5, 2e6, 1);
        CHECK(host.count(cpu) == (task ? 2 : 6));
    }
}

TEST_CASE("claims: a command that tells of nothing at all is not spoken of; its coverage is nought") {
    Host host;
    Worker worker;
    host.send(host.event("heartbeat", 0).str("session", "session"));
    worker.work(host, 0, 600, 1, 1e7, 5);
    CHECK(host.said.empty());
    CHECK(coverage(host.plane.claims()).cpu_s.ratio() == 0);
}

TEST_CASE("claims: an agent that tells of its calls is left alone") {
    Host host;
    Worker worker;
    host.task("task_started", 0, "t");
    for (int i = 0; i < 60; ++i) {
        const double at = 20.0 * i;
        host.send(host.event("tool_called", at).str("tool", "x").str("session", "session"));
        worker.work(host, at, at + 18, 2, 1e7, 3);
        host.send(host.event("tool_returned", at + 18).str("tool", "x").str("session", "session"));
        worker.work(host, at + 18, at + 20, 0.1);
    }
    CHECK(host.said.empty());
    CHECK(coverage(host.plane.claims()).cpu_s.ratio() > 0.99);
}

TEST_CASE("claims: idle while a task is claimed is a stall; a call that is open, or work, is none") {
    for (const int kind : {0, 1, 2}) {
        CAPTURE(kind);
        Host host;
        Worker worker;
        host.task("task_started", 0, "t");
        if (kind == 1) host.send(host.event("model_called", 1).str("model", "m").str("session", "session"));
        worker.work(host, 0, 2500, kind == 2 ? 0.01 : 0);
        REQUIRE(host.count("claims.stalled") == (kind == 0 ? 1 : 0));
        if (kind == 0) CHECK(host.said[0].message.find("1800") != std::string::npos);
    }
    Host host;
    Worker worker;
    host.task("task_started", 0, "t");
    host.task("task_completed", 1, "t");
    worker.work(host, 0, 2500, 0);
    CHECK(host.said.empty());
}

TEST_CASE("claims: sums that fall, gaps and clocks that jump are no activity") {
    Host host;
    const double inf = std::numeric_limits<double>::infinity();
    host.fact(Activity{"session", wall(1), 5, 0, 5, 5, 1}, 1);
    host.fact(Activity{"session", wall(2), 1e9, 0, 1, 1, 1}, 2);        // bytes fell: begun anew
    host.fact(Activity{"session", wall(3), inf, 0, 1, 1, 1}, 3);
    host.fact(Activity{"session", wall(4), 1, 0, 1, 1, 1}, 4);
    host.fact(Activity{"session", wall(4000), 4000, 0, 1, 1, 1}, 4000);  // nobody looked for an hour
    host.fact(Activity{"session", wall(3), 4001, 0, 1, 1, 1}, 4001);     // monotonic time fell
    host.fact(Activity{"session", wall(5), 4001, 0, 1, 1, 1}, 4e9);      // a century later
    host.fact(Activity{"", wall(5), 4001, 0, 1, 1, 1}, 4e9);
    CHECK(coverage(host.plane.claims()).cpu_s.all == doctest::Approx(5));
    CHECK(host.said.empty());
}

TEST_CASE("claims: activity adds up to what a slow reference says, whatever the stream") {
    std::mt19937 random(7);
    for (int round = 0; round < 20; ++round) {
        CAPTURE(round);
        Host host;
        Worker worker;
        std::vector<std::pair<double, double>> told;
        std::vector<std::pair<double, double>> used;  // second, cpu
        bool open = false;
        double since = 0;
        for (int at = 0; at < 900; ++at) {
            const double cpu = static_cast<double>(random() % 4) * 0.25;
            const auto draw = random() % 60;
            bool said_so = draw == 2;
            if (draw == 0 && !open) {
                said_so = true;
                host.send(host.event("tool_called", at).str("tool", "x").str("session", "session"));
                open = true;
                since = at;
            } else if (draw == 1 && open) {
                said_so = true;
                host.send(host.event("tool_returned", at).str("tool", "x").str("session", "session"));
                open = false;
                told.emplace_back(since, at);
            } else if (draw == 2) {
                host.send(host.event("token_cost_logged", at).str("session", "session").num("cost_nusd", 1));
            }
            if (said_so) told.emplace_back(at - 5, at + 5);
            worker.work(host, at, at + 1, cpu);
            used.emplace_back(at, cpu);
        }
        if (open) told.emplace_back(since, 900);
        double accounted = 0;
        double all = 0;
        for (const auto& [at, cpu] : used) {
            const double begin = std::floor((1.7e18 / 1e9 + at) / 2) * 2 - 1.7e9;  // its bucket of 2 s
            all += cpu;
            accounted += std::any_of(told.begin(), told.end(), [&](const auto& t) {
                return t.second >= begin && t.first < begin + 2;
            }) ? cpu : 0;
        }
        const ClaimReport report = host.plane.claims();
        CHECK(coverage(report).cpu_s.all == doctest::Approx(all));
        CHECK(coverage(report).cpu_s.accounted == doctest::Approx(accounted).epsilon(0.001));
    }
}

TEST_CASE("claims: without facts it is silent, whatever is claimed") {
    Stream stream(only_claims());
    for (int i = 0; i < 1000; ++i) {
        stream.send(stream.event("file_written", i).str("path", "/f" + std::to_string(i)).str("session", "s"));
        stream.task(i % 2 == 0 ? "task_started" : "task_completed", i, "t");
    }
    stream.finish(1e6);
    CHECK(stream.said.empty());
    CHECK(stream.plane.claims().counts.unverifiable[static_cast<std::size_t>(Blind::no_process)] == 1000);
    CHECK(stream.plane.claims().agents.empty());
}

TEST_CASE("claims: a name that is used again begins anew; an ended session takes no more facts") {
    Host host;
    Worker worker;
    worker.work(host, 0, 10, 1);
    host.fact(Ending{"session", 0, 0, false}, 10);
    CHECK_FALSE(coverage(host.plane.claims()).alive);
    worker.work(host, 10, 20, 1);
    CHECK(coverage(host.plane.claims()).cpu_s.all == doctest::Approx(10));
    host.fact(Presence{"session"}, 21);
    CHECK(coverage(host.plane.claims()).cpu_s.all == 0);
}

TEST_CASE("claims: more sessions than fit forget the ones heard of longest ago") {
    Host host;
    for (int i = 0; i < 1000; ++i) host.fact(Presence{"s" + std::to_string(i)}, 1);
    CHECK(host.plane.claims().agents.size() == 256);
    host.send(host.written(100, "/f", 1));  // of a session that was forgotten
    CHECK(host.counts().unverifiable[static_cast<std::size_t>(Blind::no_process)] == 1);
}

TEST_CASE("claims: a saved state goes on as if nothing had happened; a damaged one is refused") {
    Host host;
    Worker worker;
    host.task("task_started", 0, "t");
    worker.work(host, 0, 90, 0.4);
    host.send(host.written(90, "/f", 10, kDigest));
    host.send(host.event("tool_called", 90).str("tool", "x").str("session", "session"));
    host.answer(91.5, [](const FileQuestion&) { return content(10, wall(80), false); });

    Writer writer(1, 1);
    host.plane.save(writer);
    const std::vector<std::byte> state = writer.finish();
    Host other;
    Reader reader(state, 1, 1);
    other.plane.load(reader);
    other.resume(host);
    Worker twin = worker;
    for (auto* each : {&host, &other}) {
        Worker& hand = each == &host ? worker : twin;
        each->answer(98, [](const FileQuestion&) { return content(10, wall(80), false); });
        each->send(each->event("tool_returned", 99).str("tool", "x").str("session", "session"));
        hand.work(*each, 99, 500, 0.4);
    }
    REQUIRE(host.said.size() == other.said.size());
    CHECK(host.count("claims.file_content") == 1);
    CHECK(host.count("claims.unreported_cpu") == 2);  // before the call, after it
    for (std::size_t i = 0; i < host.said.size(); ++i) {
        CHECK(host.said[i].id == other.said[i].id);
        CHECK(host.said[i].message == other.said[i].message);
    }
    Host third;
    std::vector<std::byte> torn(state.begin(), state.end() - 200);
    CHECK_THROWS_AS([&] { Reader r(torn, 1, 1); third.plane.load(r); }(), CodecError);
}

TEST_CASE("claims: nothing is allocated for an event, a tick or a fact that says nothing") {
    Host host;
    std::vector<std::string> frames;
    for (int i = 0; i < 300; ++i) {
        frames.push_back(host.written(100 + i * 0.01, "/f" + std::to_string(i % 50), 1).pack());
        frames.push_back(host.event("tool_called", 100 + i * 0.01).str("tool", "x").str("session", "session").pack());
    }
    struct Quiet final : auditors::Witness {
        [[nodiscard]] bool ask(const FileQuestion&) noexcept override { return true; }
    } quiet;
    host.plane.set_witness(&quiet);
    const auto before = allocations();
    for (const std::string& frame : frames) host.send_bytes(frame);
    for (int i = 0; i < 100; ++i) {
        host.tick(104 + i);
        host.fact(Activity{"session", wall(104 + i), 0.1 * i, 0, 1.0 * i, static_cast<std::uint64_t>(i), 1}, 104 + i);
    }
    CHECK(allocations() == before);
}
