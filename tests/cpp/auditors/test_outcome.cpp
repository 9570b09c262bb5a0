// The outcome auditor: its statistic against a slow reference, then the auditor through the event plane on event time.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "../events/stream.hpp"
#include "auditors/change_point.hpp"

using namespace argus;
using namespace argus::test;
using namespace argus::auditors;

namespace {

class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ULL + 1) {}
    std::uint64_t next() {
        state_ ^= state_ << 13U;
        state_ ^= state_ >> 7U;
        state_ ^= state_ << 17U;
        return state_ * 0x2545f4914f6cdd1dULL >> 11U;
    }
    double uniform() { return static_cast<double>(next()) * 0x1p-53; }
    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(uniform() * n); }

private:
    std::uint64_t state_;
};

struct Statistic {
    std::unique_ptr<ChangePoint> changes = std::make_unique<ChangePoint>(64);
    std::unique_ptr<History> history = std::make_unique<History>();
    void learn(const FinishedTask& task) { changes->learn(*history, task, history->tasks); }
    Evidence mix() { return changes->mix(*history); }
    Evidence outcome() { return changes->outcome(*history); }
};

FinishedTask draw(Random& random, double success, std::uint32_t calls, std::uint32_t tools, double unknown = 0.0) {
    const bool hidden = random.uniform() < unknown;
    const Success s = hidden ? Success::unknown : random.uniform() < success ? Success::yes : Success::no;
    return {s, random.below(calls), 1 + random.below(tools)};
}

// --- the slow reference: categories in maps, every marginal from std::lgamma --------------------------------------

using Category = std::tuple<int, std::uint32_t, std::uint32_t>;

double marginal(const std::map<Category, int>& counts, double a, double slots) {
    double sum = 0;
    int n = 0;
    for (const auto& [category, count] : counts) {
        sum += std::lgamma(count + a) - std::lgamma(a);
        n += count;
    }
    return sum - std::lgamma(n + a * slots) + std::lgamma(a * slots);
}

std::optional<Category> category(const FinishedTask& task, int view) {
    if (view == 0 && task.success == Success::unknown) return {};
    const auto bucket = static_cast<std::uint32_t>(calls_bucket(task.calls));
    const std::uint32_t calls = view == 0 ? 0 : view == 3 ? std::min(task.calls, kCallsMax) : bucket;
    return Category{static_cast<int>(task.success), calls, view >= 2 ? task.tool : 0};
}

constexpr std::array<double, 4> kA{1, 0.5, 0.1, 0.1}, kSlots{2, 14, 280, 400};

double view_bf(const std::vector<FinishedTask>& tasks, std::size_t split, int view) {
    std::map<Category, int> left, right, all;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
        const auto c = category(tasks[t], view);
        if (!c) continue;
        ++all[*c];
        ++(t < split ? left : right)[*c];
    }
    const auto v = static_cast<std::size_t>(view);
    return marginal(left, kA[v], kSlots[v]) + marginal(right, kA[v], kSlots[v]) - marginal(all, kA[v], kSlots[v]);
}

// A finer view is read while its categories seen once are at most 1.5 times what its prior leaves to the unseen.
int readable_views(const std::vector<FinishedTask>& tasks) {
    const auto n = static_cast<double>(tasks.size());
    for (int view = 2; view < 4; ++view) {
        std::map<Category, int> all;
        for (const FinishedTask& task : tasks) ++all[*category(task, view)];
        const auto once = std::count_if(all.begin(), all.end(), [](const auto& c) { return c.second == 1; });
        const double prior = kA[static_cast<std::size_t>(view)] * kSlots[static_cast<std::size_t>(view)];
        if (static_cast<double>(once) / n > 1.5 * prior / (n + prior)) return view;
    }
    return 4;
}

double averaged(const std::vector<FinishedTask>& tasks, std::size_t split, int views) {
    double sum = 0;
    for (int v = 0; v < views; ++v) sum += std::exp(view_bf(tasks, split, v));
    return std::log(sum / 4);
}

// Splits of an exponential histogram over blocks of three tasks, four of a size, written as its definition.
double slow_mix(const std::vector<FinishedTask>& tasks) {
    double best = -std::numeric_limits<double>::infinity();
    const int views = readable_views(tasks);
    for (std::size_t split = 42; split + 6 <= tasks.size(); split += 3) {
        const std::size_t age = (tasks.size() - split) / 3;
        std::size_t size = 1;
        while (age >= 4 * (2 * size - 1)) size *= 2;
        if (split / 3 % size == 0) best = std::max(best, averaged(tasks, split, views));
    }
    return best;
}

}  // namespace

TEST_CASE("outcome: logarithm and exponential are those of mathematics") {
    for (double x = 1e-6; x < 1e6; x *= 1.37) {
        CHECK(natural_log(x) == doctest::Approx(std::log(x)).epsilon(1e-14));
        const double y = std::log(x) * 30;
        CHECK(exponential(y) == doctest::Approx(std::exp(y)).epsilon(1e-12));
    }
    CHECK(natural_log(1.0) == 0.0);
    CHECK(exponential(0.0) == 1.0);
    CHECK(exponential(-1e9) == 0.0);
    CHECK(std::isfinite(exponential(1e9)));
}

TEST_CASE("outcome: the evidence of the mix equals that of a slow reference") {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        Random random(seed);
        Statistic s;
        std::vector<FinishedTask> tasks;
        const std::uint32_t tools = 1 + random.below(15);
        const double unknown = seed % 3 == 0 ? 0.3 : 0.0;
        for (std::uint32_t t = 0; t < kRecentTasks; ++t) {
            const double success = t < 100 ? 0.8 : 0.5;
            tasks.push_back(draw(random, success, t < 100 ? 5 : 15, tools, unknown));
            s.learn(tasks.back());
            const Evidence evidence = s.mix();
            if (tasks.size() % 3 != 0 || tasks.size() < 48) {
                CHECK(evidence.ln_bf == -std::numeric_limits<double>::infinity());
            } else if (tasks.size() % 15 == 0) {
                CHECK_MESSAGE(evidence.ln_bf == doctest::Approx(slow_mix(tasks)).epsilon(1e-9), seed, " ", t);
                const std::size_t split = tasks.size() - evidence.split.recent;
                CHECK(averaged(tasks, split, readable_views(tasks)) == doctest::Approx(evidence.ln_bf).epsilon(1e-9));
            }
        }
    }
}

TEST_CASE("outcome: a split far back is judged by success and calls exactly, whatever was merged") {
    Random random(5);
    Statistic s;
    std::vector<FinishedTask> tasks;
    std::uint32_t far = 0;
    for (std::uint32_t t = 0; t < 5000; ++t) {
        tasks.push_back(draw(random, t < 1500 ? 0.62 : 0.5, 4, 6));
        s.learn(tasks.back());
        if (t % 300 != 2) continue;
        const Evidence evidence = s.mix();
        const auto parts = s.changes->segments(*s.history, evidence.split);
        CHECK(parts[0].tasks + parts[1].tasks == tasks.size());
        if (evidence.split.buckets == 0) continue;
        ++far;
        CHECK(averaged(tasks, parts[0].tasks, 2) == doctest::Approx(evidence.ln_bf).epsilon(1e-9));
        std::uint32_t succeeded = 0;
        for (std::uint32_t i = parts[0].tasks; i < tasks.size(); ++i) succeeded += tasks[i].success == Success::yes;
        CHECK(parts[1].succeeded == succeeded);
    }
    CHECK(far >= 5);
}

TEST_CASE("outcome: a stream of any length keeps its tables, and old tasks fade") {
    Random random(6);
    Statistic s;
    int alarms = 0;
    bool armed = true;
    for (std::uint32_t t = 0; t < 60'000; ++t) {
        s.learn(draw(random, 0.7, 14, 40, 0.05));
        REQUIRE(s.history->total <= kTasksMax);
        const double highest = std::max(s.mix().ln_bf, s.outcome().ln_bf) - ChangePoint::length_toll(*s.history);
        if (armed && highest > 7.7) ++alarms;
        armed = highest > 7.7 ? false : armed || (t % 3 == 2 && highest < 4);
    }
    MESSAGE(alarms << " chance alarms of 60,000 tasks");
    CHECK(alarms <= 6);
    CHECK(s.history->crowded);
    CHECK(s.history->cells <= kCellsMax);
    for (std::uint32_t t = 0; t < 400; ++t) s.learn(draw(random, 0.5, 14, 40, 0.05));
    CHECK(s.outcome().ln_bf > 7.7);
}

TEST_CASE("outcome: names that never come again are no change, whatever share of tasks has one") {
    for (const double nonce : {1.0, 0.7, 0.4, 0.2, 0.1}) {
        double highest = 0;
        for (std::uint64_t seed = 1; seed <= 4; ++seed) {
            Random random(seed);
            Statistic s;
            for (std::uint32_t t = 0; t < 3000; ++t) {
                FinishedTask task = draw(random, 0.5, 6, 5);
                if (random.uniform() < nonce) task.tool = t * 2654435761U >> 8U;
                s.learn(task);
                highest = std::max(highest, s.mix().ln_bf);
            }
            CHECK(s.history->cells <= kCellsMax);
            CHECK(s.history->coarse <= 280);
        }
        CHECK_MESSAGE(highest < 7.7, nonce);
    }
}

TEST_CASE("outcome: without a free page a stream learns nothing and says nothing") {
    ChangePoint changes(1);
    auto first = std::make_unique<History>();
    auto second = std::make_unique<History>();
    for (std::uint32_t t = 0; t < 200; ++t) {
        changes.learn(*first, {Success::yes, t % 2, 1}, t);
        changes.learn(*second, {Success::yes, t % 2, 1}, t);
    }
    CHECK(first->tasks == 200);
    CHECK(second->tasks == 0);
    changes.restart(*first);
    changes.learn(*second, {Success::yes, 0, 1}, 201);
    CHECK(second->tasks == 1);
}

TEST_CASE("outcome: intervals and the chance of a difference are those of two beta laws") {
    const ChangePoint changes(1);
    const Segment even{100, 100, 50, 0}, fewer{100, 100, 30, 0}, none{};
    const Comparison same = changes.compare(even, even, 0.1);
    CHECK(same.before.mean == doctest::Approx(0.5));
    CHECK(same.before.lower == doctest::Approx(0.404).epsilon(0.01));
    CHECK(same.before.upper == doctest::Approx(0.596).epsilon(0.01));
    CHECK(same.chance == doctest::Approx(0.154).epsilon(0.04));  // normal: 2 Phi(-0.1 / 0.0700)
    const Comparison fell = changes.compare(even, fewer, 0.1);
    CHECK(fell.chance == doctest::Approx(0.927).epsilon(0.01));
    CHECK(changes.compare(none, none, 0.1).chance == doctest::Approx(0.81).epsilon(0.01));  // both rates unknown
}

TEST_CASE("outcome: success alone is found nearly as fast as by a test that knows both rates") {
    // Oracle: CUSUM of the log likelihood ratio. Both at about 0.1 false alarms a 1,000 tasks; the quiet tasks before
    // the switches count for both.
    std::vector<std::uint32_t> ours, oracles;
    int our_false = 0, oracle_false = 0;
    constexpr std::uint32_t kSwitchAt = 250;
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
        Random random(seed);
        double before = 0, after = 0;
        do {
            before = 0.1 + 0.8 * random.uniform();
            after = 0.1 + 0.8 * random.uniform();
        } while (std::abs(before - after) < 0.2);
        Statistic s;
        double cusum = 0;
        std::uint32_t our_delay = 1000, oracle_delay = 1000;
        for (std::uint32_t t = 0; t < kSwitchAt + 500; ++t) {
            const bool yes = random.uniform() < (t < kSwitchAt ? before : after);
            s.learn({yes ? Success::yes : Success::no, 0, 1});
            cusum = std::max(0.0, cusum + std::log(yes ? after / before : (1 - after) / (1 - before)));
            if (s.outcome().ln_bf > 6.0) {
                if (t < kSwitchAt) ++our_false;
                else our_delay = std::min(our_delay, t - kSwitchAt);
                s.changes->restart(*s.history);
            }
            if (cusum > 7.0) {
                if (t < kSwitchAt) ++oracle_false;
                else oracle_delay = std::min(oracle_delay, t - kSwitchAt);
                cusum = 0;
            }
            if (our_delay < 1000 && oracle_delay < 1000) break;
        }
        ours.push_back(our_delay);
        oracles.push_back(oracle_delay);
    }
    std::sort(ours.begin(), ours.end());
    std::sort(oracles.begin(), oracles.end());
    MESSAGE("median " << ours[200] << " tasks, oracle " << oracles[200] << "; 90 % " << ours[360] << ", oracle "
                      << oracles[360] << "; false " << our_false << " and " << oracle_false << " of 100,000");
    CHECK(ours[200] <= 1.3 * oracles[200]);
    CHECK(our_false <= 10);
    CHECK(oracle_false >= our_false / 2);
}

// --- the auditor ---------------------------------------------------------------------------------------------------

namespace {

struct Agents : Stream {
    using Stream::Stream;
    explicit Agents(std::uint64_t seed) : random(seed) {}
    Random random{1};
    int tasks = 0;
    double now = 0;

    EventMap ended(bool ok, std::uint32_t calls = 2, std::string_view tool = "search") {
        EventMap e = event(ok ? "task_completed" : "task_failed", now += 10);
        e.str("task", "t" + std::to_string(++tasks)).str("agent", "writer").str("tenant", "acme");
        e.set("ok", boolean(ok)).str("tool", tool).set("attrs", map({{"tool_calls", integer(calls)}}));
        return e;
    }
    bool luck(double p) { return random.uniform() < p; }
    void run(int n, double success, std::uint32_t calls = 3, std::string_view tool = "search") {
        for (int i = 0; i < n; ++i) send(ended(luck(success), random.below(calls), tool));
    }
};

}  // namespace

TEST_CASE("outcome: a fall of success is found in few tasks, and is W4") {
    Agents s(1);
    s.run(200, 0.9);
    CHECK(s.said.empty());
    const double before = s.now;
    s.run(40, 0.3);
    REQUIRE(!s.said.empty());
    const Anomaly& a = s.said[0];
    CHECK(a.detector == std::string("outcome"));
    CHECK(a.family == Family::behavioural);
    CHECK(a.scope.kind == ScopeKind::agent);
    CHECK(a.scope.id == "writer");
    CHECK(a.scope.tenant == "acme");
    CHECK(a.scope.task.empty());
    CHECK(a.ts <= kEpoch + static_cast<Nanos>((before + 200) * 1e9));
    CHECK(std::abs(static_cast<double>(a.since - kEpoch) * 1e-9 - before) <= 100);
    CHECK(a.direction == Direction::down);
    CHECK(a.expected == doctest::Approx(0.9).epsilon(0.1));
    CHECK(a.lower < a.expected);
    CHECK(a.value < a.lower);
    CHECK(a.bits >= 7.7 / std::log(2.0));
    CHECK(a.evidence.size() >= 2);
    CHECK(a.evidence.size() <= 8);
    CHECK(a.message.find("agent 'writer': success went from 0.") == 0);
    CHECK(a.message.find("known cause") == std::string::npos);
    CHECK(s.said.back().severity == Severity::warning);
    CHECK(s.said.back().criterion == "W4");
    CHECK(s.said.size() <= 2);
}

TEST_CASE("outcome: a rise of success is info, however certain") {
    Agents s(2);
    s.run(200, 0.3);
    s.run(300, 0.95);
    REQUIRE(s.said.size() >= 1);
    for (const Anomaly& a : s.said) {
        CHECK(a.severity == Severity::info);
        CHECK(a.criterion.empty());
        CHECK(a.direction == Direction::up);
    }
}

TEST_CASE("outcome: success that stays is quiet, also over many tasks") {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
        Agents s(seed);
        s.run(3000, 0.2 * static_cast<double>(seed) - 0.1, 8);
        CHECK_MESSAGE(s.said.empty(), seed);
    }
}

TEST_CASE("outcome: another tool or number of calls at the same success is info, and the view is named") {
    Agents s(3);
    s.run(200, 0.7, 3, "search");
    s.run(60, 0.7, 3, "browse");
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].series == "outcome.mix");
    CHECK(s.said[0].severity == Severity::info);
    CHECK(s.said[0].message.find("carried by success, first tool") != std::string::npos);
    CHECK(s.said[0].message.find("with tool 'browse' from 0 % to 100 %") != std::string::npos);
    Agents more(4);
    more.run(200, 0.7, 3);
    more.run(60, 0.7, 12);
    REQUIRE(more.said.size() >= 1);
    CHECK(more.said[0].severity == Severity::info);
}

TEST_CASE("outcome: tasks without ok are judged by calls and first tool alone, and never warned of") {
    Agents s(5);
    const auto unknown = [&](int n, std::string_view tool) {
        for (int i = 0; i < n; ++i) s.send(s.ended(true, s.random.below(4), tool).drop("ok"));
    };
    unknown(300, "search");
    CHECK(s.said.empty());
    unknown(60, "browse");
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].severity == Severity::info);
    CHECK(s.said[0].message.find("the way of working changed") != std::string::npos);
}

TEST_CASE("outcome: calls and first tool are taken from the tool calls where the end does not tell") {
    Agents s(6);
    const auto run = [&](int n, std::string_view tool, int calls, std::string_view type) {
        for (int i = 0; i < n; ++i) {
            const std::string task = "x" + std::to_string(++s.tasks);
            s.now += 10;
            for (int c = 0; c < calls; ++c) {
                s.send(s.event(type, s.now + c * 0.1).str("task", task).str("agent", "writer").str(
                    "tool", c == 0 ? tool : "other"));
            }
            s.send(s.event("task_completed", s.now + 5).str("task", task).str("agent", "writer").set(
                "ok", boolean(true)));
        }
    };
    run(100, "search", 2, "tool_called");
    CHECK(s.said.empty());
    run(30, "browse", 2, "tool_called");
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].message.find("'browse'") != std::string::npos);
    Agents alone(7);
    for (int i = 0; i < 2; ++i) {
        for (int n = 0; n < 100 - 60 * i; ++n) {
            const std::string task = "y" + std::to_string(++alone.tasks);
            alone.now += 10;
            for (int c = 0; c <= i * 4; ++c) {
                alone.send(alone.event("tool_returned", alone.now).str("task", task).str("tool", "search"));
            }
            alone.send(alone.event("task_completed", alone.now + 1).str("task", task).set("ok", boolean(true)));
        }
    }
    CHECK(alone.said.size() == 1);
    CHECK(alone.said[0].scope.kind == ScopeKind::host);
}

TEST_CASE("outcome: a task that ends twice counts once, a reused id teaches nothing") {
    Agents s(8);
    s.run(100, 1.0);
    EventMap last = s.ended(true);
    s.send(last);
    for (int i = 0; i < 100; ++i) {
        s.send(s.event("task_failed", s.now + i).str("task", "t" + std::to_string(s.tasks)).str("agent", "writer").str(
            "tenant", "acme").set("ok", boolean(false)));
    }
    for (int i = 0; i < 100; ++i) {
        s.send(s.ended(false).str("id", "s-1"));
    }
    CHECK(s.count("outcome.mix") + s.count("outcome.success") == 0);
}

TEST_CASE("outcome: agents, tenants and task types do not mix") {
    Agents s(9);
    for (int i = 0; i < 400; ++i) {
        s.send(s.ended(true).str("agent", "good"));
        s.send(s.ended(false).str("agent", "bad"));
        s.send(s.ended(false).str("tenant", "other"));
        const bool easy = i < 200 ? i % 4 != 0 : i % 4 == 0;  // the request mix changes, no type does
        s.send(s.ended(easy).str("agent", "typed").set("attrs", map({{"task_type", text(easy ? "easy" : "hard")}})));
    }
    CHECK(s.said.empty());
}

TEST_CASE("outcome: a new model or version, or a deployment, is named and hides nothing") {
    for (const std::string key : {"model", "agent_version"}) {
        Agents s(10);
        for (int i = 0; i < 260; ++i) {
            s.send(s.ended(s.luck(i < 200 ? 0.9 : 0.2)).str(key, i < 200 ? "v1" : "v2"));
        }
        REQUIRE(!s.said.empty());
        CHECK(s.said[0].message.find("changed from 'v1' to 'v2'") != std::string::npos);
        CHECK(s.said.back().severity == Severity::warning);
    }
    Agents s(11);
    s.run(200, 0.9);
    s.send(s.event("deployment", s.now + 1).str("agent", "another").str("agent_version", "8.0"));
    EventMap deployed = s.event("deployment", s.now + 2).str("agent", "writer").str("agent_version", "9.1");
    s.send(deployed);
    s.run(60, 0.2);
    REQUIRE(!s.said.empty());
    CHECK(s.said[0].message.find("known cause: deployment 's-202' of '9.1'") != std::string::npos);
    CHECK(s.said[0].evidence[0] == "s-202");
    CHECK(s.said.back().severity == Severity::warning);
}

TEST_CASE("outcome: models used side by side, and one changed long before, are no known cause") {
    Agents s(12);
    for (int i = 0; i < 700; ++i) {
        s.send(s.ended(s.luck(i < 600 ? 0.9 : 0.2)).str("model", i % 3 == 0 ? "small" : "large"));
    }
    REQUIRE(!s.said.empty());
    CHECK(s.said[0].message.find("known cause") == std::string::npos);
    Agents early(13);
    for (int i = 0; i < 700; ++i) {
        early.send(early.ended(early.luck(i < 600 ? 0.9 : 0.2)).str("model", i < 100 ? "old" : "new"));
    }
    REQUIRE(!early.said.empty());
    CHECK(early.said[0].message.find("known cause") == std::string::npos);
}

TEST_CASE("outcome: a decline of one in a hundred an hour, which no window shows, is found") {
    std::vector<int> hours, after_h;
    for (std::uint64_t seed = 1; seed <= 11; ++seed) {
        Agents s(seed);
        s.run(1500, 0.9);
        REQUIRE_MESSAGE(s.said.empty(), seed);
        int hour = 0;
        for (; hour < 60 && s.said.empty(); ++hour) s.run(360, 0.9 - 0.01 * hour);
        REQUIRE(!s.said.empty());
        CHECK(s.said[0].direction == Direction::down);
        hours.push_back(hour);
        after_h.push_back(static_cast<int>((s.said[0].ts - s.said[0].since) / (3600 * kSecond)));
    }
    std::sort(hours.begin(), hours.end());
    std::sort(after_h.begin(), after_h.end());
    MESSAGE("360 tasks an hour: found after " << hours[5] << " hours, at most " << hours[10] << "; the split lies "
                                              << after_h[5] << " hours back");
    CHECK(hours[5] <= 8);
    CHECK(hours[10] <= 12);
    CHECK(after_h[5] >= 1);
}

TEST_CASE("outcome: a change seen first in the mix warns once the fall is certain, and again after a reset") {
    Agents s(15);
    s.run(400, 0.8, 3, "search");
    for (int i = 0; i < 100; ++i) s.send(s.ended(s.luck(0.5), s.random.below(3), "browse"));
    REQUIRE(s.said.size() == 2);
    CHECK(s.said[0].severity == Severity::info);
    CHECK(s.said[0].series == "outcome.mix");
    CHECK(s.said[1].severity == Severity::warning);
    CHECK(s.said[1].series == "outcome.success");
    Scope scope;
    scope.kind = ScopeKind::agent;
    scope.id = "another";
    s.plane.rearm(scope);
    for (int i = 0; i < 8; ++i) s.send(s.ended(i % 2 == 0, 1, "browse"));
    CHECK(s.said.size() == 2);
    scope.id = "writer";
    s.plane.rearm(scope);
    for (int i = 0; i < 8; ++i) s.send(s.ended(i % 2 == 0, 1, "browse"));
    CHECK(s.said.size() == 3);
    CHECK(s.said[2].severity == Severity::warning);
}

TEST_CASE("outcome: W4 decides, and can be configured or be off") {
    const auto worst = [](engine::EventPlaneOptions options) {
        Agents s(std::move(options));
        s.run(200, 0.9);
        s.run(60, 0.3);
        REQUIRE(!s.said.empty());
        return s.said.back().severity;
    };
    engine::EventPlaneOptions off, stern;
    off.criteria = {{"W4", false, {6, 0.95}}};
    stern.criteria = {{"W4", true, {1000, 0.95}}};
    CHECK(worst({}) == Severity::warning);
    CHECK(worst(off) == Severity::info);
    CHECK(worst(stern) == Severity::info);
}

TEST_CASE("outcome: hostile numbers, names and clocks neither crash nor speak") {
    Agents s(16);
    Random random(17);
    for (int i = 0; i < 30'000; ++i) {
        EventMap e = s.ended(i % 2 == 0);
        e.str("agent", "a" + std::to_string(random.next())).str("task", std::to_string(i));
        const std::int64_t wild[] = {-1, 0, std::numeric_limits<std::int64_t>::max(), 1'000'000};
        e.set("attrs", map({{"tool_calls", i % 5 == 4 ? big(~0ULL) : integer(wild[i % 5])},
                            {"task_type", i % 3 == 0 ? integer(4) : text(std::string(200, 'x'))}}));
        e.num("ts", kEpoch + (i % 7 == 0 ? -1'000'000'000'000 : 1'000'000'000 * static_cast<std::int64_t>(i % 100)));
        s.send(e.drop("seq").num("seq", i + 1));
    }
    CHECK(s.accepted == 30'000);
    CHECK(s.count("outcome.mix") + s.count("outcome.success") == 0);
}

TEST_CASE("outcome: an agent that was known is not pushed out by a flood of names") {
    Agents s(18);
    s.run(200, 0.9);
    for (int i = 0; i < 30'000; ++i) s.send(s.ended(true).str("agent", "flood" + std::to_string(i)));
    s.run(60, 0.2);
    CHECK(!s.said.empty());
}

TEST_CASE("outcome: saved and loaded in mid-stream, it says the same, bit by bit") {
    Agents one(19);
    one.run(500, 0.8, 5);
    for (int i = 0; i < 20; ++i) {
        one.send(one.event("tool_called", one.now).str("task", "later").str("agent", "writer").str("tool", "a"));
    }
    Writer writer(1, 1);
    one.plane.save(writer);
    const std::vector<std::byte> bytes = writer.finish();
    Agents fresh(19);
    Reader reader(bytes, 1, 1);
    fresh.plane.load(reader);
    CHECK(reader.done());
    Random random(20);
    for (int i = 0; i < 90; ++i) {
        const bool ok = random.uniform() < 0.3;
        const EventMap e = one.ended(ok, random.below(5));
        one.send(e);
        fresh.send(e);
    }
    REQUIRE(!one.said.empty());
    REQUIRE(one.said.size() == fresh.said.size());
    for (std::size_t i = 0; i < one.said.size(); ++i) {
        CHECK(one.said[i].id == fresh.said[i].id);
        CHECK(one.said[i].message == fresh.said[i].message);
        CHECK(one.said[i].bits == fresh.said[i].bits);
        CHECK(one.said[i].evidence == fresh.said[i].evidence);
    }
}

TEST_CASE("outcome: a history that contradicts itself is refused") {
    Statistic s;
    Random random(21);
    for (int i = 0; i < 700; ++i) s.learn(draw(random, 0.5, 5, 5));
    const auto load = [&](auto&& damage) {
        History damaged = *s.history;
        damage(damaged);
        Writer writer(1, 1);
        s.changes->save(*s.history, writer);
        const std::vector<std::byte> bytes = writer.finish();
        Reader reader(bytes, 1, 1);
        ChangePoint changes(64);
        changes.load(damaged, reader);
        return changes.mix(damaged).ln_bf;
    };
    CHECK_NOTHROW((void)load([](History&) {}));
    CHECK_THROWS_AS((void)load([](History& h) { h.cells = 1000; }), CodecError);
    CHECK_THROWS_AS((void)load([](History& h) { h.codes[7] = h.cells; }), CodecError);
    CHECK_THROWS_AS((void)load([](History& h) { h.old_count = 11; }), CodecError);
    CHECK_THROWS_AS((void)load([](History& h) { ++h.total; }), CodecError);
    CHECK_THROWS_AS((void)load([](History& h) { h.succeeded = h.known; }), CodecError);
    CHECK_THROWS_AS((void)load([](History& h) { h.open_tasks = 96; }), CodecError);
    CHECK_THROWS_AS((void)load([](History& h) { h.old[0].counts[0] = 9000; }), CodecError);
}
