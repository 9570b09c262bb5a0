#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <thread>

#include "../allocations.hpp"
#include "sources/exits.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

using sources::ExitRecord;
using sources::ProcessEvent;

// --- Messages --------------------------------------------------------------------------------------------------------

constexpr std::size_t kHeaders = sizeof(nlmsghdr) + sizeof(cn_msg);

std::vector<std::byte> message(const proc_event& event, std::size_t event_bytes = sizeof(proc_event)) {
    nlmsghdr netlink{};
    cn_msg connector{};
    netlink.nlmsg_len = static_cast<std::uint32_t>(kHeaders + event_bytes);
    netlink.nlmsg_type = NLMSG_DONE;
    connector.id = {CN_IDX_PROC, CN_VAL_PROC};
    connector.seq = 41;
    connector.len = static_cast<std::uint16_t>(event_bytes);
    std::vector<std::byte> out(kHeaders + event_bytes);
    std::memcpy(out.data(), &netlink, sizeof netlink);
    std::memcpy(out.data() + sizeof netlink, &connector, sizeof connector);
    std::memcpy(out.data() + kHeaders, &event, event_bytes);
    return out;
}

proc_event exit_of(std::int32_t process, std::uint32_t status) {
    proc_event event{};
    event.what = proc_event::PROC_EVENT_EXIT;
    event.cpu = 3;
    event.timestamp_ns = 1'000'000'007;
    event.event_data.exit = {process, process, status, SIGCHLD, 77, 77};
    return event;
}

// --- The running kernel ----------------------------------------------------------------------------------------------

enum Way : std::uint8_t { connector = 1, bpf = 2, bpf_before_6_16 = 3 };
constexpr Way kWays[] = {connector, bpf, bpf_before_6_16};

std::int32_t start(const std::function<void()>& body) {
    const pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    return child;
}

rusage reap(std::int32_t child) {
    rusage usage{};
    REQUIRE(wait4(child, nullptr, 0, &usage) == child);
    return usage;
}

struct Live {
    std::unique_ptr<sources::Source> source;
    sources::ExitSource* exits = nullptr;
    ring::SpscRing<ExitRecord> sink{4096};
    Memory memory;
    std::map<std::int32_t, std::vector<ExitRecord>> records;

    // False, and why in the output, where this machine does not allow this way.
    bool open(Way way) {
        Error error;
        if (way == bpf_before_6_16) {
            auto opened = sources::open_bpf_exits(false);
            error = opened.error();
            if (opened) source = std::move(*opened);
        } else {
            auto opened = sources::exits_source.open({}, system_io(), {{static_cast<double>(way)}, {}});
            error = opened.error();
            if (opened) source = std::move(*opened);
        }
        if (source == nullptr) {
            MESSAGE("not tested here: " << std::string(error.what));
            return false;
        }
        exits = dynamic_cast<sources::ExitSource*>(source.get());
        REQUIRE(exits != nullptr);
        REQUIRE(exits->deliver(&sink).ok());
        poll();
        return true;
    }
    void poll() {
        REQUIRE(source->poll(0, memory).ok());
        std::array<ExitRecord, 256> some;
        while (const std::size_t count = sink.pop(some)) {
            for (std::size_t i = 0; i < count; ++i) records[some[i].pid].push_back(some[i]);
        }
    }
    // Until there is a record of each: the kernel lets go of a task some milliseconds after it was reaped. Where it
    // runs no program while it does, the source gives the record up as unsettled after ten seconds.
    bool saw(const std::vector<std::int32_t>& pids) {
        const SystemClock clock;
        const Nanos deadline = clock.mono() + 15 * kSecond;
        do {
            poll();
            if (std::all_of(pids.begin(), pids.end(), [&](std::int32_t pid) { return records.contains(pid); })) {
                return true;
            }
            usleep(2000);
        } while (clock.mono() < deadline);
        return false;
    }
    // Of one child that does this, with how its parent was told of it; one that is settled, of some.
    ExitRecord record_of(const std::function<void()>& body, rusage& usage) {
        for (int i = 0; i < 5; ++i) {
            const std::int32_t child = start(body);
            usage = reap(child);
            REQUIRE(saw({child}));
            REQUIRE(records[child].size() == 1);
            if ((records[child].front().valid & sources::kExitTime) != 0) return records[child].front();
        }
        FAIL("expected a settled record of one child in five, found none");
        return {};
    }
    [[nodiscard]] double exited(const char* reason) const {
        return memory.at(std::string("system.process.exits{process.exit.reason=") + reason + "}");
    }
};

void burn(Nanos duration) {
    const Nanos end = read_clock(CLOCK_THREAD_CPUTIME_ID) + duration;
    while (read_clock(CLOCK_THREAD_CPUTIME_ID) < end) {
    }
}

std::uint64_t nanos(const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(time.tv_usec) * 1000U;
}

}  // namespace

TEST_CASE("exits: a message of the process connector says who ended and how") {
    auto exited = sources::parse_process_event(message(exit_of(1234, 0x0300)));
    REQUIRE(exited.ok());
    CHECK(exited->kind == ProcessEvent::Kind::exit);
    CHECK(exited->process == 1234);
    CHECK(exited->thread == 1234);
    CHECK(exited->parent == 77);
    CHECK(exited->status == 0x0300);
    CHECK(exited->processor == 3);
    CHECK(exited->sequence == 41);
    CHECK(exited->time_ns == 1'000'000'007);

    proc_event fork_event{};
    fork_event.what = proc_event::PROC_EVENT_FORK;
    fork_event.event_data.fork = {1, 2, 3, 4};
    auto forked = sources::parse_process_event(message(fork_event));
    REQUIRE(forked.ok());
    CHECK(forked->kind == ProcessEvent::Kind::fork);
    CHECK(forked->thread == 3);
    CHECK(forked->process == 4);
    CHECK(forked->parent == 2);

    proc_event answer{};
    answer.event_data.ack.err = EINVAL;
    auto answered = sources::parse_process_event(message(answer));
    REQUIRE(answered.ok());
    CHECK(answered->kind == ProcessEvent::Kind::answer);
    CHECK(answered->status == EINVAL);

    proc_event comm{};
    comm.what = proc_event::PROC_EVENT_COMM;
    CHECK(sources::parse_process_event(message(comm))->kind == ProcessEvent::Kind::other);
}

TEST_CASE("exits: a message cut anywhere, or of another sender, is no event") {
    const std::vector<std::byte> whole = message(exit_of(1, 0));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        auto cut = sources::parse_process_event({whole.data(), size});
        CAPTURE(size);
        REQUIRE(!cut.ok());
        CHECK(cut.error().code == Errc::truncated);
    }
    std::vector<std::byte> foreign = whole;
    foreign[sizeof(nlmsghdr)] = std::byte{9};  // another connector
    CHECK(sources::parse_process_event(foreign).error().code == Errc::malformed);
    std::vector<std::byte> boastful = whole;
    boastful[sizeof(nlmsghdr) + offsetof(cn_msg, len)] = std::byte{0xFF};  // longer than the message that holds it
    CHECK(sources::parse_process_event(boastful).error().code == Errc::truncated);
    std::vector<std::byte> empty = whole;
    empty[sizeof(nlmsghdr) + offsetof(cn_msg, len)] = std::byte{0};
    CHECK(sources::parse_process_event(empty).error().code == Errc::truncated);
}

TEST_CASE("exits: an old kernel does not name the parent") {
    auto old = sources::parse_process_event(message(exit_of(5, 9), offsetof(proc_event, event_data) + 16));
    REQUIRE(old.ok());
    CHECK(old->process == 5);
    CHECK(old->status == 9);
    CHECK(old->parent == 0);
}

TEST_CASE("exits: a signal is told from a code, a core dump is a signal") {
    CHECK(sources::exit_reason(0) == sources::ExitReason::success);
    CHECK(sources::exit_reason(0x0100) == sources::ExitReason::failure);
    CHECK(sources::exit_reason(0xFF00) == sources::ExitReason::failure);
    CHECK(sources::exit_reason(SIGKILL) == sources::ExitReason::signal);
    CHECK(sources::exit_reason(SIGSEGV | 0x80) == sources::ExitReason::signal);
}

TEST_CASE("exits: time is split by the ticks and never grows or shrinks by it") {
    constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();
    CHECK(sources::user_part(1000, 0, 0) == 1000);
    CHECK(sources::user_part(1000, 4, 0) == 1000);
    CHECK(sources::user_part(1000, 0, 4) == 0);
    CHECK(sources::user_part(1000, 1, 3) == 250);
    CHECK(sources::user_part(kMost, kMost, 1) == kMost);
    CHECK(sources::user_part(kMost, 1, kMost) == 1);
    CHECK(sources::user_part(0, 1, 1) == 0);
}

TEST_CASE("exits: the time of many is split without falling, and nothing of it goes missing") {
    sources::TimeSplit split;
    split.add(100, 250);  // ticks of a thread come before its time, when it was long
    CHECK(split.user_ns() == 100);
    CHECK(split.system_ns() == 0);
    split.add(200, 0);
    CHECK(split.user_ns() == 250);
    CHECK(split.system_ns() == 50);
    split.add(0, 0);
    split.add(1000, 300);
    CHECK(split.user_ns() == 550);
    CHECK(split.system_ns() == 750);
}

TEST_CASE("exits: a record that is not settled says so") {
    ExitRaw raw{};
    raw.start_ns = 5;
    raw.lived_ns = 7;
    raw.cpu_ns = 100;
    raw.user_ticks_ns = 3;
    raw.system_ticks_ns = 1;
    raw.rss_pages_max = 10;
    raw.status = SIGSEGV | 0x80;
    std::memcpy(raw.name, "a name of 16 byt", 16);
    const ExitRecord record = sources::exit_record(raw, 4096);
    CHECK(record.valid == (sources::kExitStart | sources::kExitAccounts));
    CHECK(record.end_ns == 12);
    CHECK(record.signal == SIGSEGV);
    CHECK(record.code == 0);
    CHECK(record.cpu_user_ns == 75);
    CHECK(record.cpu_system_ns == 25);
    CHECK(record.rss_max_bytes == 40960);
    CHECK(std::string(record.name.data(), 16) == "a name of 16 byt");
    raw.settled = 1;
    CHECK((sources::exit_record(raw, 4096).valid & sources::kExitTime) != 0);
}

TEST_CASE("exits: when a process was forked is known once, and not by another's pid") {
    sources::Forks forks;
    forks.forked(10, {100, 7});
    CHECK(forks.take(10 + 32'768).time == 0);  // the same slot
    CHECK(forks.take(10).time == 100);
    CHECK(forks.take(10).time == 0);
    CHECK(forks.take(10).parent == 0);
    forks.forked(10, {100, 7});
    forks.forked(10 + 32'768, {200, 7});
    CHECK(forks.take(10).time == 0);
    CHECK(forks.take(-1).time == 0);
}

TEST_CASE("exits: gaps in a processor's sequence are counted, also across its wrap") {
    sources::SequenceGaps gaps;
    CHECK(gaps.before(0, 4'294'967'294U) == 0);  // the first: what came before is not ours
    CHECK(gaps.before(0, 4'294'967'295U) == 0);
    CHECK(gaps.before(0, 0) == 0);
    CHECK(gaps.before(0, 4) == 3);
    CHECK(gaps.before(1, 900) == 0);
    CHECK(gaps.before(1, 901) == 0);
    CHECK(gaps.before(1, 5) == 0);  // went back: counted anew
    CHECK(gaps.before(1, 7) == 1);
    CHECK(gaps.before(4'000'000'000U, 7) == 0);
}

TEST_CASE("exits: on roots that are not the running kernel's it is unavailable, and says so") {
    const Tree tree("6.18");
    const auto source = sources::exits_source.open(tree.roots(), system_io());
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
    CHECK(std::string(source.error().what).find("roots") != std::string::npos);
}

TEST_CASE("exits: a steady poll allocates nothing and gives every series") {
    for (const Way way : kWays) {
        Live live;
        if (!live.open(way)) continue;
        const std::uint64_t before = allocations();
        const auto report = live.source->poll(1, live.memory);
        CHECK(allocations() == before);
        REQUIRE(report.ok());
        CHECK(report.value().malformed == 0);
        CHECK(report.value().emitted == live.memory.names.size());
        CHECK(live.memory.names.size() == (way == connector ? 6 : 11));
        CHECK(live.memory.at(std::string("argus.exits.way{argus.way=") + live.exits->way() + "}") == 1);
        CHECK(std::string(live.exits->way()) == (way == connector ? "cn_proc" : "bpf"));
    }
}

TEST_CASE("exits: every child is counted by how it ended, and recorded once") {
    for (const Way way : kWays) {
        Live live;
        if (!live.open(way)) continue;
        CAPTURE(live.exits->way());
        const double before[] = {live.exited("success"), live.exited("failure"), live.exited("signal")};
        const double short_before = live.memory.at("system.process.exits.short_lived");
        std::vector<std::int32_t> pids;
        for (int i = 0; i < 30; ++i) {
            pids.push_back(start([i] {
                if (i % 3 == 1) _exit(40 + i % 2);
                if (i % 3 == 2) kill(getpid(), SIGKILL);
            }));
            (void)reap(pids.back());
        }
        REQUIRE(live.saw(pids));
        CHECK(live.exited("success") >= before[0] + 10);
        CHECK(live.exited("failure") >= before[1] + 10);
        CHECK(live.exited("signal") >= before[2] + 10);
        CHECK(live.memory.at("system.process.exits.short_lived") >= short_before + 30);
        CHECK(live.memory.at("argus.exits.lost") == 0);
        for (std::size_t i = 0; i < pids.size(); ++i) {
            const auto& found = live.records[pids[i]];
            CAPTURE(i);
            REQUIRE(found.size() == 1);
            CHECK(found[0].code == (i % 3 == 1 ? 40 + static_cast<int>(i) % 2 : 0));
            CHECK(found[0].signal == (i % 3 == 2 ? SIGKILL : 0));
            CHECK(found[0].parent == getpid());
            CHECK((found[0].valid & sources::kExitStart) != 0);
            CHECK(found[0].start_ns > 0);
            CHECK(found[0].end_ns > found[0].start_ns);
            CHECK(found[0].end_ns <= SystemClock().mono());
            CHECK(((found[0].valid & sources::kExitAccounts) != 0) == (way != connector));
        }
    }
}

TEST_CASE("exits: the accounts of a process are what its parent is told of it") {
    Live live;
    if (!live.open(bpf)) return;
    const Tree tree;
    const std::string file = tree.proc() + "-written";
    rusage usage{};
    const ExitRecord record = live.record_of(
        [&] {
            burn(30 * kMillisecond);
            static std::array<char, 1 << 20> block{};
            block.fill('a');  // touched: it counts as memory
            const int fd = ::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
            if (::write(fd, block.data(), block.size()) > 0) (void)fdatasync(fd);
        },
        usage);
    const std::uint64_t told = nanos(usage.ru_utime) + nanos(usage.ru_stime);
    const std::uint64_t ours = record.cpu_user_ns + record.cpu_system_ns;
    CHECK(ours + 2000 >= told);  // the parent is told in microseconds, before the child left the processor for good
    CHECK(ours <= told + 5'000'000);
    CHECK(ours >= 30'000'000);
    CHECK(record.rss_max_bytes == static_cast<std::uint64_t>(usage.ru_maxrss) * 1024);
    CHECK(record.write_bytes / 512 == static_cast<std::uint64_t>(usage.ru_oublock));
    CHECK(std::string(record.name.data()).starts_with("argus_tests"));
}

TEST_CASE("exits: threads are folded into their process, whichever ends last") {
    for (const Way way : {bpf, bpf_before_6_16}) {
        for (const bool first_thread_first : {true, false}) {
            Live live;
            if (!live.open(way)) continue;
            rusage usage{};
            const ExitRecord record = live.record_of(
                [first_thread_first] {
                    std::array<std::thread, 3> threads;
                    for (std::thread& thread : threads) thread = std::thread([] { burn(10 * kMillisecond); });
                    if (first_thread_first) {
                        for (std::thread& thread : threads) thread.detach();
                        (void)syscall(SYS_exit, 0);  // this thread alone
                    }
                    for (std::thread& thread : threads) thread.join();
                },
                usage);
            CAPTURE(first_thread_first);
            CHECK(record.cpu_user_ns + record.cpu_system_ns >= 30'000'000);
            CHECK(record.code == 0);
            CHECK(record.signal == 0);
            live.poll();
            CHECK(live.records[record.pid].size() == 1);
        }
    }
}

TEST_CASE("exits: a program started by another thread than the first is one process with one exit") {
    for (const Way way : {bpf, bpf_before_6_16}) {
        Live live;
        if (!live.open(way)) continue;
        rusage usage{};
        const ExitRecord record = live.record_of(
            [] { std::thread([] { execl("/bin/sh", "sh", "-c", "exit 5", nullptr); }).join(); }, usage);
        CHECK(record.code == 5);
        CHECK(std::string(record.name.data()) == "sh");
    }
}

TEST_CASE("exits: who is not reaped is counted, unsettled until then") {
    Live live;
    if (!live.open(bpf)) return;
    const double before = live.exited("failure");
    const std::int32_t child = start([] { _exit(3); });
    siginfo_t info{};
    REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
    live.poll();
    CHECK(live.exited("failure") >= before + 1);
    CHECK(live.memory.at("argus.exits.unsettled") >= 1);
    CHECK(!live.records.contains(child));
    (void)reap(child);
    REQUIRE(live.saw({child}));
    CHECK(live.records[child].front().code == 3);
}

TEST_CASE("exits: what the reader leaves no room for is lost, and counted") {
    for (const Way way : kWays) {
        Live live;
        if (!live.open(way)) continue;
        ring::SpscRing<ExitRecord> small(2);
        REQUIRE(live.exits->deliver(&small).ok());
        std::vector<std::int32_t> pids;
        for (int i = 0; i < 8; ++i) {
            pids.push_back(start([] {}));
            (void)reap(pids.back());
        }
        const SystemClock clock;
        const Nanos deadline = clock.mono() + 5 * kSecond;
        while (!(live.memory.at("argus.exits.lost") >= 6) && clock.mono() < deadline) {
            live.poll();
            usleep(2000);
        }
        CHECK(live.memory.at("argus.exits.lost") >= 6);
        REQUIRE(live.exits->deliver(nullptr).ok());
        const double lost = live.memory.at("argus.exits.lost");
        (void)reap(start([] {}));
        usleep(50'000);
        live.poll();
        CHECK(live.memory.at("argus.exits.lost") == lost);
    }
}

TEST_CASE("exits: processor time of the gone never falls and both modes add up") {
    Live live;
    if (!live.open(bpf)) return;
    const std::string user = "system.process.exited.cpu.time{cpu.mode=user}";
    const std::string system = "system.process.exited.cpu.time{cpu.mode=system}";
    double user_before = live.memory.at(user), system_before = live.memory.at(system);
    const double first = user_before + system_before;
    std::vector<std::int32_t> pids;
    for (int i = 0; i < 10; ++i) {
        pids.push_back(start([] { burn(5 * kMillisecond); }));
        (void)reap(pids.back());
        live.poll();
        CHECK(live.memory.at(user) >= user_before);
        CHECK(live.memory.at(system) >= system_before);
        user_before = live.memory.at(user);
        system_before = live.memory.at(system);
    }
    REQUIRE(live.saw(pids));
    CHECK(live.memory.at(user) + live.memory.at(system) >= first + 0.03);  // of those that the kernel told of
}

TEST_CASE("exits: the sums are those of the processes that ended, not of threads whose process lives on") {
    Live live;
    if (!live.open(bpf)) return;
    const auto gone = [&] {
        return live.memory.at("system.process.exited.cpu.time{cpu.mode=user}") +
               live.memory.at("system.process.exited.cpu.time{cpu.mode=system}");
    };
    live.records.clear();
    const double before = gone();
    std::thread([] { burn(400 * kMillisecond); }).join();
    (void)reap(start([] { burn(50 * kMillisecond); }));
    // What ended just now has no record yet, so they agree a moment later.
    const SystemClock clock;
    const Nanos deadline = clock.mono() + 20 * kSecond;
    double recorded = 0;
    do {
        usleep(20'000);
        live.poll();
        recorded = 0;
        for (const auto& [pid, list] : live.records) {
            for (const ExitRecord& record : list) {
                recorded += static_cast<double>(record.cpu_user_ns + record.cpu_system_ns) * 1e-9;
            }
        }
    } while ((recorded < 0.04 || std::abs(gone() - before - recorded) > 0.1) && clock.mono() < deadline);
    CHECK(recorded >= 0.04);
    CHECK(std::abs(gone() - before - recorded) <= 0.1);
}

}  // namespace argus::test
