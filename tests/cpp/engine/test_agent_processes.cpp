#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "../allocations.hpp"
#include "engine/agent_processes.hpp"

namespace argus::engine {
namespace {

struct Row {
    std::int32_t pid, ppid;
    std::int64_t start_s;
    double cpu_s = 0;
    double read = 0;
    double rss = 100;
};

sources::ProcessTable table_of(Nanos time_s, std::vector<Row> rows) {
    std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.pid < b.pid; });
    sources::ProcessTable table;
    table.reserve_rows(rows.size());
    table.count = rows.size();
    table.time = time_s * kSecond;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        table.pid[i] = rows[i].pid;
        table.ppid[i] = rows[i].ppid;
        table.start_time_ns[i] = rows[i].start_s * kSecond;
        table.threads[i] = 2;
        for (auto& column : table.columns) column[i] = std::numeric_limits<double>::quiet_NaN();
        const auto set = [&](sources::ProcessColumn which, double value) {
            table.columns[static_cast<std::size_t>(which)][i] = value;
        };
        set(sources::ProcessColumn::cpu_user, rows[i].cpu_s);
        set(sources::ProcessColumn::cpu_system, 0);
        set(sources::ProcessColumn::read_bytes, rows[i].read);
        set(sources::ProcessColumn::rss, rows[i].rss);
    }
    return table;
}

const AgentUsage& of(const AgentProcesses& agents, const std::string& session) {
    for (const AgentUsage& usage : agents.usage()) {
        if (usage.session == session) return usage;
    }
    static const AgentUsage none;
    return none;
}

sources::ExitRecord gone(std::int32_t pid, std::int32_t parent, double start_s, double cpu_s, std::uint64_t read = 0) {
    sources::ExitRecord out;
    out.pid = pid;
    out.parent = parent;
    out.start_ns = static_cast<Nanos>(start_s * 1e9);
    out.end_ns = out.start_ns + kMillisecond;
    out.cpu_user_ns = static_cast<std::uint64_t>(cpu_s * 1e9);
    out.read_bytes = read;
    out.valid = sources::kExitStart | sources::kExitAccounts | sources::kExitTime;
    return out;
}

}  // namespace

TEST_CASE("agent processes: a root and all that descend from it, in any order of pids") {
    AgentProcesses agents;
    CHECK(agents.set_roots({{"a", 50, 5 * kSecond, false}, {"b", 70, 7 * kSecond, false}}) == 0);
    agents.update(table_of(10, {{1, 0, 0}, {50, 1, 5}, {3, 50, 6}, {90, 3, 8}, {70, 1, 7}, {60, 1, 6}}));
    CHECK(of(agents, "a").processes == 3);  // 50, 3, 90
    CHECK(of(agents, "a").threads == 6);
    CHECK(of(agents, "a").rss_bytes == 300);
    CHECK(of(agents, "b").processes == 1);
    const std::vector<std::int32_t> owners(agents.owners().begin(), agents.owners().end());
    CHECK(owners == std::vector<std::int32_t>{-1, 0, 0, -1, 1, 0});
}

TEST_CASE("agent processes: a supervisor is not part of what it supervises") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, true}});
    agents.update(table_of(10, {{1, 0, 0}, {50, 1, 5}, {51, 50, 6}, {52, 51, 6}}));
    CHECK(of(agents, "a").processes == 2);
    CHECK(agents.owners()[1] == AgentProcesses::kNobody);
}

TEST_CASE("agent processes: a child that outlives its parent goes on belonging, a reused pid does not") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    agents.update(table_of(10, {{1, 0, 0}, {50, 1, 5}, {51, 50, 6}, {52, 50, 6}}));
    agents.update(table_of(11, {{1, 0, 0}, {51, 1, 6}, {52, 1, 10}}));  // 51 was orphaned, 52 is another
    CHECK(of(agents, "a").processes == 1);
    CHECK(agents.owners()[1] == 0);
    CHECK(agents.owners()[2] == AgentProcesses::kNobody);
}

TEST_CASE("agent processes: a root whose pid was reused is no root") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    agents.update(table_of(10, {{1, 0, 0}, {50, 1, 9}}));
    CHECK(of(agents, "a").processes == 0);
}

TEST_CASE("agent processes: what was used before registration does not count, a newborn counts whole, sums only grow") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    agents.update(table_of(10, {{50, 1, 5, 100, 1000}}));
    CHECK(of(agents, "a").cpu_s == 0);
    agents.update(table_of(11, {{50, 1, 5, 101, 1500}, {51, 50, 11, 0.25, 10}}));
    CHECK(of(agents, "a").cpu_s == doctest::Approx(1.25));
    CHECK(of(agents, "a").read_bytes == doctest::Approx(510));
    CHECK(of(agents, "a").started == 2);
    agents.update(table_of(12, {{51, 1, 11, 0.5, std::numeric_limits<double>::quiet_NaN()}}));
    CHECK(of(agents, "a").cpu_s == doctest::Approx(1.5));
    CHECK(of(agents, "a").read_bytes == doctest::Approx(510));
    CHECK(of(agents, "a").write_bytes == 0);
}

TEST_CASE("agent processes: a session ends with its last process and its place is reused") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    agents.update(table_of(10, {{50, 1, 5}, {51, 50, 6}}));
    (void)agents.set_roots({});
    agents.update(table_of(11, {{51, 1, 6}}));
    CHECK(of(agents, "a").processes == 1);  // unregistered, but its process lives
    agents.update(table_of(12, {{1, 0, 0}}));
    CHECK(agents.usage()[0].session.empty());
    (void)agents.set_roots({{"b", 60, 6 * kSecond, false}});
    CHECK(agents.usage().size() == 1);
    CHECK(of(agents, "b").started == 0);
}

TEST_CASE("agent processes: parents in a circle, more sessions than are followed, sessions without a name") {
    AgentProcesses agents;
    std::vector<AgentRoot> roots;
    for (std::int32_t i = 0; i < 260; ++i) roots.push_back({"s" + std::to_string(i), 1000 + i, kSecond, false});
    roots.push_back({"", 5, kSecond, false});
    CHECK(agents.set_roots(roots) == 5);
    agents.update(table_of(10, {{7, 8, 1}, {8, 7, 1}, {5, 5, 1}, {1259, 1, 1}, {1000, 1, 1}}));
    CHECK(of(agents, "s0").processes == 1);
    CHECK(of(agents, "s259").processes == 0);
    CHECK(agents.owners()[0] == AgentProcesses::kNobody);
}

TEST_CASE("agent processes: an unchanged machine allocates nothing") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    const auto table = table_of(10, {{1, 0, 0}, {50, 1, 5}, {3, 50, 6}, {90, 3, 8}});
    for (int i = 0; i < 3; ++i) agents.update(table);
    const std::uint64_t before = test::allocations();
    agents.update(table);
    CHECK(test::allocations() == before);
}

TEST_CASE("agent processes: what lives and dies between two tables counts, with its whole family") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}, {"s", 80, 8 * kSecond, true}});
    agents.update(table_of(10, {{1, 0, 0}, {50, 1, 5, 2}, {80, 1, 8}}));
    agents.ended(gone(62, 61, 10.4, 0.25, 100));  // its parent is told of later, and has gone, too
    agents.ended(gone(61, 50, 10.2, 0.5));
    agents.ended(gone(63, 1, 10.2, 4));    // of nobody
    agents.ended(gone(64, 50, 4.0, 4));    // older than the pid that is its parent now
    agents.ended(gone(81, 80, 10.2, 0.125));
    CHECK(of(agents, "a").cpu_s == 0);  // with the next table
    agents.update(table_of(11, {{1, 0, 0}, {50, 1, 5, 2}, {80, 1, 8}}));
    CHECK(of(agents, "a").cpu_s == doctest::Approx(0.75));
    CHECK(of(agents, "a").read_bytes == doctest::Approx(100));
    CHECK(of(agents, "a").started == 3);
    CHECK(of(agents, "a").processes == 1);
    CHECK(of(agents, "s").cpu_s == doctest::Approx(0.125));
    agents.update(table_of(12, {{1, 0, 0}, {50, 1, 5, 2}, {80, 1, 8}}));
    CHECK(of(agents, "a").cpu_s == doctest::Approx(0.75));
}

TEST_CASE("agent processes: the last of what a listed process used is added once, however late its exit is told") {
    for (const bool zombie : {false, true}) {
        for (const int tables_between : {0, 1, 3}) {
            AgentProcesses agents;
            (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
            agents.update(table_of(10, {{50, 1, 5}, {51, 50, 6, 1}}));
            int time = 11;
            const auto next = [&] {
                std::vector<Row> rows{{50, 1, 5}};
                if (zombie) rows.push_back({51, 50, 6, 1.5});
                agents.update(table_of(time++, rows));
            };
            for (int i = 0; i < tables_between; ++i) next();
            agents.ended(gone(51, 50, 6.004, 1.5));
            next();
            next();
            CHECK(of(agents, "a").cpu_s == doctest::Approx(0.5));
            CHECK(of(agents, "a").started == 2);
        }
    }
}

TEST_CASE("agent processes: an exit of another with the pid, or of a child whose parent's exit comes a table later") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    agents.update(table_of(10, {{50, 1, 5}, {51, 50, 6, 1}}));
    agents.ended(gone(51, 1, 10.5, 9));    // 51 was reused by somebody else, after
    agents.ended(gone(71, 70, 10.2, 0.5));
    agents.update(table_of(11, {{50, 1, 5}}));
    CHECK(of(agents, "a").cpu_s == 0);
    agents.ended(gone(70, 50, 10.1, 0.25));
    agents.update(table_of(12, {{50, 1, 5}}));
    CHECK(of(agents, "a").cpu_s == doctest::Approx(0.75));
    agents.ended(gone(72, 70, 10.15, 0.125));
    agents.update(table_of(13, {{50, 1, 5}}));
    CHECK(of(agents, "a").cpu_s == doctest::Approx(0.875));
    agents.update(table_of(14, {{50, 1, 5}}));
    CHECK(of(agents, "a").cpu_s == doctest::Approx(0.875));
}

TEST_CASE("agent processes: exits that find no room between two tables are counted, and there is room again after") {
    AgentProcesses agents;
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    agents.update(table_of(10, {{50, 1, 5}}));
    constexpr std::size_t kBeyond = 3;
    for (std::size_t i = 0; i < AgentProcesses::kMaxEnded + kBeyond; ++i) {
        agents.ended(gone(static_cast<std::int32_t>(100 + i), 50, 10.5, 0.001));
    }
    CHECK(agents.dropped() == kBeyond);
    agents.update(table_of(11, {{50, 1, 5}}));
    CHECK(of(agents, "a").started == 1 + AgentProcesses::kMaxEnded);
    agents.ended(gone(99, 50, 11.5, 0.001));
    CHECK(agents.dropped() == kBeyond);
    agents.update(table_of(12, {{50, 1, 5}}));
    CHECK(of(agents, "a").started == 2 + AgentProcesses::kMaxEnded);
}

TEST_CASE("agent processes: without a session, and without a start, no exit is kept") {
    AgentProcesses agents;
    agents.ended(gone(51, 50, 6, 1));
    (void)agents.set_roots({{"a", 50, 5 * kSecond, false}});
    agents.update(table_of(10, {{50, 1, 5}}));
    sources::ExitRecord unknown = gone(52, 50, 10.5, 1);
    unknown.valid = 0;
    agents.ended(unknown);
    agents.update(table_of(11, {{50, 1, 5}}));
    CHECK(of(agents, "a").cpu_s == 0);
}

}  // namespace argus::engine
