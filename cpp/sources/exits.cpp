// Processes that are gone: how they ended, and what they had used. What lives less than an interval is in no process
// table, yet may be most of the machine's work.
// Source: one of two ways, the better one that this machine allows.
//         bpf:     bpf/exits.bpf.c, programs on the tracepoints sched_process_exit and sched_process_free. Counts in
//                  kernel memory, so no exit can be missed; exact accounts; a record of each exit for who wants it.
//         cn_proc: the process connector (netlink), kernel Documentation/driver-api/connector.rst. Exits and how they
//                  ended; no accounts. An exec by another thread than the first counts an exit too many.
// Emits:  system.process.exits {process.exit.reason}, .exits.short_lived (lived less than 1 s); by bpf alone
//         system.process.exited.cpu.time {cpu.mode} s: with the time of those that live, zombies left out, it is what
//         the machine was busy; system.process.exited.disk.io {disk.io.direction} By.
//         argus.exits.unsettled: exited, but the time of their last milliseconds is not known: not reaped by their
//         parents, just about to be settled, or the kernel never said. argus.exits.lost: records that found no room
//         and program runs that the kernel skipped; by cn_proc: messages that never came, at most so many exits.
//         argus.exits.way {argus.way}: 1. Counters since the source was opened.
// Cost:   bench_exits. bpf: two short program runs an exit; a poll adds up 16 KiB of counters. cn_proc: 1 us a message,
//         and every fork, thread, exec and change of credentials is one.
// Failure: not the running kernel's own roots, or neither way: unavailable. A poll takes a bounded number of records
//         and messages; the rest waits, and what finds no room then is counted as lost.
#include "sources/exits.hpp"

#include <linux/bpf.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "sources/bpf/loader.hpp"
#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kPendingRecords = 4096;
constexpr std::uint64_t kAhead = 8;  // records that are fetched while others are worked on
constexpr Nanos kPatience = 10 * kSecond;  // for the kernel to let go of a process: it takes milliseconds once reaped
constexpr std::size_t kMessagesPerPoll = 8192;
constexpr int kSocketBytes = 4 << 20;  // about as many messages as one poll takes

struct Totals {
    std::array<std::uint64_t, kExitReasons> exits{};
    std::uint64_t short_lived = 0;
    std::uint64_t lost = 0;
    bool accounts = false;  // the rest is known
    std::uint64_t unsettled = 0;
    std::uint64_t cpu_user_ns = 0, cpu_system_ns = 0, read_bytes = 0, write_bytes = 0;
};

class ExitSeries {
public:
    void emit(const Totals& totals, const char* way, Emit& emit, PollReport& report) {
        constexpr double kNanos = 1e-9;
        constexpr const char* kReasons[] = {"success", "failure", "signal"};
        const auto put = [&](std::size_t slot, const char* name, const char* unit, const char* key, const char* word,
                             double value) {
            slots_[slot].emit(emit, report, value, [&] {
                return SeriesInfo{name, unit, Kind::counter, word == nullptr ? "" : std::string(key) + "=" + word};
            });
        };
        const auto real = [](std::uint64_t count) { return static_cast<double>(count); };
        for (std::size_t i = 0; i < kExitReasons; ++i) {
            put(i, "system.process.exits", "{process}", "process.exit.reason", kReasons[i], real(totals.exits[i]));
        }
        put(3, "system.process.exits.short_lived", "{process}", "", nullptr, real(totals.short_lived));
        put(4, "argus.exits.lost", "{exit}", "", nullptr, real(totals.lost));
        if (totals.accounts) {
            constexpr const char* kTime = "system.process.exited.cpu.time";
            constexpr const char* kIo = "system.process.exited.disk.io";
            put(5, kTime, "s", "cpu.mode", "user", real(totals.cpu_user_ns) * kNanos);
            put(6, kTime, "s", "cpu.mode", "system", real(totals.cpu_system_ns) * kNanos);
            put(7, kIo, "By", "disk.io.direction", "read", real(totals.read_bytes));
            put(8, kIo, "By", "disk.io.direction", "write", real(totals.write_bytes));
            slots_[10].emit(emit, report, real(totals.unsettled), [] {
                return SeriesInfo{"argus.exits.unsettled", "{process}", Kind::gauge, ""};
            });
        }
        slots_[9].emit(emit, report, 1.0, [&] {
            return SeriesInfo{"argus.exits.way", "1", Kind::gauge, std::string("argus.way=") + way};
        });
    }

private:
    std::array<SeriesSlot, 11> slots_;
};

// Writes every field of `out`. Inlined, so that no record is made elsewhere first.
[[gnu::always_inline]] inline void put_exit_record(const ExitRaw& raw, bool settled, std::uint64_t page_bytes,
                                                   ExitRecord& out) noexcept {
    const std::uint64_t cpu_ns = raw.cpu_ns;
    const std::uint64_t start_ns = raw.start_ns;
    out.pid = raw.pid;
    out.parent = raw.parent;
    out.code = static_cast<std::int32_t>(raw.status >> 8 & 0xFF);
    out.signal = static_cast<std::int32_t>(raw.status & 0x7F);
    out.start_ns = static_cast<Nanos>(start_ns);
    out.end_ns = static_cast<Nanos>(start_ns + raw.lived_ns);
    out.cpu_user_ns = user_part(cpu_ns, raw.user_ticks_ns, raw.system_ticks_ns);
    out.cpu_system_ns = cpu_ns - out.cpu_user_ns;
    out.rss_max_bytes = raw.rss_pages_max * page_bytes;
    out.read_bytes = raw.read_bytes;
    out.write_bytes = raw.write_bytes;
    out.cgroup_id = raw.cgroup_id;
    out.valid = kExitStart | kExitAccounts | (settled ? std::uint32_t{kExitTime} : 0U);
    std::memcpy(out.name.data(), raw.name, out.name.size());
}

// --- bpf -------------------------------------------------------------------------------------------------------------

// Memory that the kernel writes meanwhile.
template <class T>
T load(const T& value, std::memory_order order = std::memory_order_relaxed) noexcept {
    return std::atomic_ref(const_cast<T&>(value)).load(order);
}

class BpfExits final : public ExitSource {
public:
    [[nodiscard]] Result<bool> open(bool tells_last) {
        auto object = bpf::Object::open(bpf::compiled("exits"), "argus_exits");
        if (!object) return object.error();
        object_ = std::move(*object);
        const char* const at_exit = tells_last ? "process_exits" : "exits_old";
        if (const auto left = object_.choose(tells_last ? "exits_old" : "process_exits", false); !left) return left;
        if (const auto loaded = object_.load(); !loaded) return loaded;
        auto shared = object_.map_memory(".bss");
        if (!shared) return shared.error();
        if (shared->size() < sizeof(ExitShared)) {
            return Error{Errc::unavailable, 0, "BPF: exits.bpf.c and exits.cpp disagree about their counters"};
        }
        shared_ = std::move(*shared);
#if defined(__x86_64__)
        counters().stores_in_order = 1;
#endif
        const char* const programs[] = {at_exit, "task_is_freed"};
        for (std::size_t i = 0; i < std::size(programs); ++i) {
            auto link = object_.attach(programs[i]);
            if (!link) return link.error();
            links_[i] = std::move(*link);
            const auto program = object_.program(programs[i]);
            if (!program) return program.error();
            programs_[i] = *program;
        }
        return true;
    }

    [[nodiscard]] const char* way() const noexcept override { return "bpf"; }

    [[nodiscard]] Result<bool> deliver(ring::SpscRing<ExitRecord>* sink) override {
        if (sink != nullptr && records_.data() == nullptr) {
            auto records = object_.map_memory("exit_records");
            if (!records) return records.error();
            records_ = std::move(*records);
            pending_.reserve(kPendingRecords);
        }
        if (sink_ == nullptr) next_ = load(counters().records_made);
        sink_ = sink;
        pending_.clear();
        std::atomic_ref(counters().records_wanted).store(sink != nullptr, std::memory_order_relaxed);
        return true;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        add_up();
        if (sink_ != nullptr) take_records();
        totals_.lost = lost_;
        for (const int program : programs_) totals_.lost += skipped_runs(program);
        series_.emit(totals_, way(), emit, report);
        return report;
    }

private:
    [[nodiscard]] ExitShared& counters() const noexcept { return *reinterpret_cast<ExitShared*>(shared_.data()); }
    [[nodiscard]] const ExitRaw& slot_of(std::uint64_t number) const noexcept {
        return reinterpret_cast<const ExitRaw*>(records_.data())[number % kExitRecords];
    }

    void add_up() noexcept {
        Totals sum;
        std::uint64_t cpu_ns = 0, user_ticks = 0, released = 0, exits = 0;
        for (const ExitLine& line : counters().lines) {
            for (std::size_t i = 0; i < kExitReasons; ++i) {
                const std::uint64_t brief = load(line.exits[i][1]);
                sum.exits[i] += load(line.exits[i][0]) + brief;
                sum.short_lived += brief;
            }
            sum.read_bytes += load(line.read_bytes);
            sum.write_bytes += load(line.write_bytes);
            cpu_ns += load(line.cpu_ns);
            user_ticks += load(line.user_ticks_ns);
            released += load(line.released);
        }
        for (const std::uint64_t count : sum.exits) exits += count;
        split_.add(cpu_ns - cpu_ns_, user_ticks - user_ticks_);
        cpu_ns_ = cpu_ns;
        user_ticks_ = user_ticks;
        sum.cpu_user_ns = split_.user_ns();
        sum.cpu_system_ns = split_.system_ns();
        sum.unsettled = exits > released ? exits - released : 0;
        sum.accounts = true;
        totals_ = sum;
    }

    // First those that waited for their accounts, then the new ones; at most all slots, each once.
    void take_records() noexcept {
        now_ = read_clock(CLOCK_BOOTTIME);
        const std::uint64_t made = load(counters().records_made, std::memory_order_acquire);
        std::erase_if(pending_, [&](std::uint64_t number) { return take(number, made) != Taken::later; });
        if (made - next_ > kExitRecords) {
            lost_ += made - next_ - kExitRecords;
            next_ = made - kExitRecords;
        }
        for (; next_ != made; ++next_) {
            // Another processor wrote them: each would be waited for.
            const ExitRaw& ahead = slot_of(next_ + kAhead);
            __builtin_prefetch(&ahead.number);
            __builtin_prefetch(&ahead.user_ticks_ns);
            sink_->expect(kAhead);
            const Taken taken = take(next_, made);
            if (taken == Taken::unwritten) return;
            if (taken == Taken::later) pending_.push_back(next_);
        }
    }

    enum class Taken : std::uint8_t { done, later, unwritten };

    Taken take(std::uint64_t number, std::uint64_t made) noexcept {
        const ExitRaw& slot = slot_of(number);
        const std::uint64_t written = load(slot.number, std::memory_order_acquire);
        if (written < number + 1) return Taken::unwritten;
        bool settled = false;
        if (written == number + 1) {
            settled = load(slot.settled, std::memory_order_acquire) != 0;
            // Waits no more when its slot is about to be another's, or nobody may ever settle it.
            const bool hurry = made - number > kExitRecords / 2 || pending_.size() == kPendingRecords;
            const bool old = now_ - static_cast<Nanos>(load(slot.start_ns) + load(slot.lived_ns)) > kPatience;
            if (!settled && !hurry && !old) return Taken::later;
        }
        // Straight from the slot into the sink: copies cost more than the record. The slot may become another's
        // meanwhile; then what was made of both is thrown away.
        const bool told = written == number + 1 && sink_->try_push_with([&](ExitRecord& out) {
            put_exit_record(slot, settled, page_bytes_, out);
            std::atomic_thread_fence(std::memory_order_acquire);
            return load(counters().records_made) - number <= kExitRecords;
        });
        if (!told) ++lost_;
        return Taken::done;
    }

    // Runs of a program that the kernel left out because it was running already on that processor.
    static std::uint64_t skipped_runs(int program) noexcept {
        bpf_prog_info info{};
        bpf_attr attributes{};
        attributes.info.bpf_fd = static_cast<std::uint32_t>(program);
        attributes.info.info_len = sizeof info;
        attributes.info.info = reinterpret_cast<std::uintptr_t>(&info);
        return syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attributes, sizeof attributes) < 0 ? 0 : info.recursion_misses;
    }

    bpf::Object object_;
    bpf::Mapping shared_, records_;
    std::array<bpf::Link, 2> links_;
    std::array<int, 2> programs_{-1, -1};
    ring::SpscRing<ExitRecord>* sink_ = nullptr;
    std::vector<std::uint64_t> pending_;  // numbers of records that are not settled
    std::uint64_t next_ = 0;
    Nanos now_ = 0;
    std::uint64_t page_bytes_ = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    std::uint64_t lost_ = 0, cpu_ns_ = 0, user_ticks_ = 0;
    TimeSplit split_;
    Totals totals_;
    ExitSeries series_;
};

static_assert(sizeof(ExitRaw) == 128 && sizeof(ExitLine) == 128);

// --- cn_proc ---------------------------------------------------------------------------------------------------------

class ConnectorExits final : public ExitSource {
public:
    ConnectorExits() {
        for (std::size_t i = 0; i < kBatch; ++i) {
            parts_[i] = {buffers_[i].data(), buffers_[i].size()};
            messages_[i].msg_hdr.msg_iov = &parts_[i];
            messages_[i].msg_hdr.msg_iovlen = 1;
            messages_[i].msg_hdr.msg_name = &senders_[i];
        }
    }
    ~ConnectorExits() override {
        if (socket_ >= 0) ::close(socket_);
    }
    ConnectorExits(const ConnectorExits&) = delete;
    ConnectorExits& operator=(const ConnectorExits&) = delete;

    [[nodiscard]] Result<bool> open() {
        constexpr const char* kAbsent = "process connector: not in this kernel (CONFIG_PROC_EVENTS)";
        constexpr const char* kRefused = "process connector: needs Linux >= 6.6 or CAP_NET_ADMIN";
        socket_ = ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_CONNECTOR);
        if (socket_ < 0) return error(errno, kAbsent);
        // As much as the privilege allows; what does not fit is lost and counted.
        if (setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBytes, sizeof kSocketBytes) != 0) {
            (void)setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &kSocketBytes, sizeof kSocketBytes);
        }
        sockaddr_nl address{};
        address.nl_family = AF_NETLINK;
        address.nl_groups = CN_IDX_PROC;
        if (bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
            return error(errno, kRefused);
        }
        if (!tell(PROC_CN_MCAST_LISTEN)) return error(errno, kRefused);
        return answered();
    }

    [[nodiscard]] const char* way() const noexcept override { return "cn_proc"; }

    [[nodiscard]] Result<bool> deliver(ring::SpscRing<ExitRecord>* sink) override {
        sink_ = sink;
        return true;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        clock_offset_ = read_clock(CLOCK_BOOTTIME) - read_clock(CLOCK_MONOTONIC);
        const int broken = drain(report, [this](const ProcessEvent& event) { take(event); });
        if (broken != 0) return Error{errc_of(broken), broken, "process connector: cannot be read"};
        totals_.lost = lost_messages_ + lost_at_sink_;
        series_.emit(totals_, way(), emit, report);
        return report;
    }

private:
    static constexpr std::size_t kBatch = 64;
    static constexpr std::size_t kMessageBytes = 256;  // longer than any: 76 today

    static Error error(int number, const char* what) noexcept {
        const bool denied = number == EPERM || number == EACCES;
        const Errc code = denied ? Errc::permission : Errc::unavailable;
        return {errc_of(number) == Errc::limit ? Errc::limit : code, number, what};
    }

    [[nodiscard]] bool tell(proc_cn_mcast_op operation) const noexcept {
        nlmsghdr netlink{};
        cn_msg connector{};
        const std::uint32_t word = operation;
        std::array<std::byte, sizeof netlink + sizeof connector + sizeof word> request;
        netlink.nlmsg_len = static_cast<std::uint32_t>(request.size());
        netlink.nlmsg_type = NLMSG_DONE;
        connector.id = {CN_IDX_PROC, CN_VAL_PROC};
        connector.len = sizeof word;
        std::memcpy(request.data(), &netlink, sizeof netlink);
        std::memcpy(request.data() + sizeof netlink, &connector, sizeof connector);
        std::memcpy(request.data() + sizeof netlink + sizeof connector, &word, sizeof word);
        return ::send(socket_, request.data(), request.size(), 0) == static_cast<ssize_t>(request.size());
    }

    // The kernel answers before send() returns, or not at all.
    [[nodiscard]] Result<bool> answered() {
        PollReport ignored;
        bool found = false;
        std::uint32_t refusal = 0;
        const int broken = drain(ignored, [&](const ProcessEvent& event) {
            if (event.kind != ProcessEvent::Kind::answer) return take(event);
            found = true;
            refusal = event.status;
        });
        constexpr const char* kSilent = "process connector: speaks in the first pid, user and network namespace only";
        if (broken != 0) return error(broken, kSilent);
        if (!found) return error(ENOENT, kSilent);
        if (refusal != 0) return error(static_cast<int>(refusal), "process connector: refuses to speak");
        return true;
    }

    // Messages that are there, at most so many; 0 or an errno. ENOBUFS says that some were lost, which the next gap in
    // the sequence counts.
    template <class Take>
    int drain(PollReport& report, Take&& take_event) {
        for (std::size_t taken = 0; taken < kMessagesPerPoll; taken += kBatch) {
            for (mmsghdr& message : messages_) message.msg_hdr.msg_namelen = sizeof(sockaddr_nl);
            const int count = recvmmsg(socket_, messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
            if (count < 0 && (errno == ENOBUFS || errno == EINTR)) continue;
            if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
            for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
                if (senders_[i].nl_pid != 0) continue;  // not the kernel: anyone may write to a netlink socket
                const std::size_t size = std::min<std::size_t>(messages_[i].msg_len, kMessageBytes);
                const auto event = parse_process_event({buffers_[i].data(), size});
                if (event) {
                    take_event(*event);
                } else {
                    ++report.malformed;
                }
            }
            if (static_cast<std::size_t>(count) < kBatch) return 0;
        }
        return 0;
    }

    void take(const ProcessEvent& event) noexcept {
        if (event.kind == ProcessEvent::Kind::answer) return;  // to another listener
        lost_messages_ += gaps_.before(event.processor, event.sequence);
        if (event.thread != event.process) return;
        if (event.kind == ProcessEvent::Kind::fork) {
            forks_.forked(event.process, {event.time_ns, event.parent});
        }
        if (event.kind != ProcessEvent::Kind::exit) return;
        const auto [start, parent] = forks_.take(event.process);
        ++totals_.exits[static_cast<std::size_t>(exit_reason(event.status))];
        if (start != 0 && event.time_ns - start < static_cast<Nanos>(ARGUS_SHORT_LIVED_NS)) ++totals_.short_lived;
        if (sink_ == nullptr) return;
        ExitRecord record;
        record.pid = event.process;
        record.parent = event.parent != 0 ? event.parent : parent;  // 0: reaped before the kernel wrote the message
        record.code = static_cast<std::int32_t>(event.status >> 8 & 0xFF);
        record.signal = static_cast<std::int32_t>(event.status & 0x7F);
        record.start_ns = start == 0 ? 0 : start + clock_offset_;
        record.end_ns = event.time_ns + clock_offset_;
        record.valid = start == 0 ? 0U : std::uint32_t{kExitStart};
        if (!sink_->try_push(record)) ++lost_at_sink_;
    }

    int socket_ = -1;
    std::array<std::array<std::byte, kMessageBytes>, kBatch> buffers_{};
    std::array<sockaddr_nl, kBatch> senders_{};
    std::array<iovec, kBatch> parts_{};
    std::array<mmsghdr, kBatch> messages_{};
    Forks forks_;
    SequenceGaps gaps_;
    ring::SpscRing<ExitRecord>* sink_ = nullptr;
    Nanos clock_offset_ = 0;
    std::uint64_t lost_messages_ = 0, lost_at_sink_ = 0;
    Totals totals_;
    ExitSeries series_;
};

}  // namespace

// --- Pure parts ------------------------------------------------------------------------------------------------------

ExitReason exit_reason(std::uint32_t status) noexcept {
    if ((status & 0x7F) != 0) return ExitReason::signal;
    return (status >> 8 & 0xFF) != 0 ? ExitReason::failure : ExitReason::success;
}

std::uint64_t user_part(std::uint64_t cpu_ns, std::uint64_t user_ticks, std::uint64_t system_ticks) noexcept {
    const double user = static_cast<double>(user_ticks);
    const double all = user + static_cast<double>(system_ticks);
    if (system_ticks == 0) return cpu_ns;
    if (user_ticks == 0) return 0;
    const double part = static_cast<double>(cpu_ns) * (user / all);
    return part < static_cast<double>(cpu_ns) ? std::min(cpu_ns, static_cast<std::uint64_t>(part)) : cpu_ns;
}

void TimeSplit::add(std::uint64_t cpu_ns, std::uint64_t user_ticks_ns) noexcept {
    const std::uint64_t ticks = ahead_ns_ + user_ticks_ns;
    const std::uint64_t user = std::min(cpu_ns, ticks);
    ahead_ns_ = ticks - user;
    user_ns_ += user;
    system_ns_ += cpu_ns - user;
}

ExitRecord exit_record(const ExitRaw& raw, std::uint64_t page_bytes) noexcept {
    ExitRecord out;
    put_exit_record(raw, raw.settled != 0, page_bytes, out);
    return out;
}

Result<ProcessEvent> parse_process_event(std::span<const std::byte> datagram) noexcept {
    constexpr std::size_t kHeaders = sizeof(nlmsghdr) + sizeof(cn_msg);
    constexpr std::size_t kCommon = offsetof(proc_event, event_data);
    constexpr Error kCut{Errc::truncated, 0, "process connector: expected a whole message"};
    constexpr Error kForeign{Errc::malformed, 0, "process connector: expected a message of the process connector"};
    nlmsghdr netlink;
    cn_msg connector;
    if (datagram.size() < kHeaders + kCommon) return kCut;
    std::memcpy(&netlink, datagram.data(), sizeof netlink);
    std::memcpy(&connector, datagram.data() + sizeof netlink, sizeof connector);
    if (netlink.nlmsg_len > datagram.size() || netlink.nlmsg_len < kHeaders) return kCut;
    if (connector.id.idx != CN_IDX_PROC || connector.id.val != CN_VAL_PROC) return kForeign;
    if (connector.len > netlink.nlmsg_len - kHeaders || connector.len < kCommon) return kCut;

    proc_event event{};  // what an old kernel does not send stays zero
    std::memcpy(&event, datagram.data() + kHeaders, std::min<std::size_t>(connector.len, sizeof event));
    const std::size_t details = connector.len - kCommon;
    ProcessEvent out;
    out.processor = event.cpu;
    out.sequence = connector.seq;
    out.time_ns = static_cast<Nanos>(event.timestamp_ns);
    switch (static_cast<std::uint32_t>(event.what)) {
        case proc_event::PROC_EVENT_NONE:
            if (details < sizeof event.event_data.ack) return kCut;
            out.kind = ProcessEvent::Kind::answer;
            out.status = event.event_data.ack.err;
            return out;
        case proc_event::PROC_EVENT_FORK:
            if (details < sizeof event.event_data.fork) return kCut;
            out.kind = ProcessEvent::Kind::fork;
            out.thread = event.event_data.fork.child_pid;
            out.process = event.event_data.fork.child_tgid;
            out.parent = event.event_data.fork.parent_tgid;
            return out;
        case static_cast<std::uint32_t>(proc_event::PROC_EVENT_EXIT):
            if (details < 4 * sizeof(std::uint32_t)) return kCut;  // without the parent before Linux 4.18
            out.kind = ProcessEvent::Kind::exit;
            out.thread = event.event_data.exit.process_pid;
            out.process = event.event_data.exit.process_tgid;
            out.parent = event.event_data.exit.parent_tgid;
            out.status = event.event_data.exit.exit_code;
            return out;
        default: return out;
    }
}

Forks::Fork Forks::take(std::int32_t pid) noexcept {
    Slot& found = slots_[slot(pid)];
    return found.pid == pid ? std::exchange(found, {}).fork : Fork{};
}

std::uint64_t SequenceGaps::before(std::uint32_t processor, std::uint32_t sequence) noexcept {
    constexpr std::uint32_t kBack = std::uint32_t{1} << 31;
    if (processor >= kProcessors) return 0;
    Next& next = next_[processor];
    const std::uint32_t gap = sequence - next.sequence;
    const bool counts = next.known && gap < kBack;
    next = {sequence + 1, true};
    return counts ? gap : 0;
}

Result<std::unique_ptr<ExitSource>> open_bpf_exits(bool tells_last) {
    auto source = std::make_unique<BpfExits>();
    if (const auto opened = source->open(tells_last); !opened) return opened.error();
    return std::unique_ptr<ExitSource>(std::move(source));
}

namespace {

constexpr double kBest = 0, kConnector = 1, kPrograms = 2;
constexpr Option kOptions[] = {
    {"way", "1", kBest, kBest, kPrograms,
     "How exits are seen: 0 = the better way that this machine allows, 1 = the process connector, 2 = BPF."},
};

Result<std::unique_ptr<Source>> open_exits(const Roots& roots, const Io&, const SourceSettings& settings) {
    if (!roots.live()) {
        return Error{Errc::unavailable, 0, "exits: the running kernel is asked, and the roots are not its own"};
    }
    const double way = settings.options.empty() ? kBest : settings.options.front();
    if (way != kConnector) {
        auto source = open_bpf_exits(true);
        if (!source && source.error().code == Errc::unavailable) source = open_bpf_exits(false);
        if (source) return std::unique_ptr<Source>(std::move(*source));
        if (way == kPrograms) return source.error();
    }
    auto source = std::make_unique<ConnectorExits>();
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor exits_source;
const SourceDescriptor exits_source{
    "exits",
    "Exits of processes and what they had used, also of those that lived less than an interval, from the kernel's "
    "tracepoints (BPF) or the process connector.",
    "CAP_BPF and CAP_PERFMON with BTF of the kernel (CONFIG_DEBUG_INFO_BTF) and libbpf 1, or the process connector "
    "(CONFIG_PROC_EVENTS)",
    "give argus-collect CAP_BPF and CAP_PERFMON, or start it in the first pid and network namespace",
    1000,
    Lane::fast,
    open_exits,
    kOptions,
};

}  // namespace argus::sources
