// Processes that are gone: how they ended, and what they had used. What lives less than an interval is in no process
// table, yet may be most of the machine's work.
// Source: one of two ways, the better one that this machine allows.
//         bpf:     bpf/exits.bpf.c, programs on the tracepoints sched_process_exit and sched_process_free. Counts in
//                  kernel memory, so no exit can be missed; exact accounts; a record of each exit for who wants it.
//         cn_proc: the process connector (netlink), kernel Documentation/driver-api/connector.rst. Exits and how they
//                  ended; no accounts. An exec by another thread than the first counts an exit too many.
// Emits:  system.process.exits {process.exit.reason}, .exits.short_lived (lived less than 1 s); by bpf alone
//         system.process.exited.cpu.time {cpu.mode} s and .disk.io {disk.io.direction} By, of tasks as the kernel lets
//         go of them: live processes and these add up to the machine's work. argus.exits.lost: records that found no
//         room and program runs that the kernel skipped; by cn_proc: messages that never came, at most so many exits.
//         argus.exits.way {argus.way}: 1. Counters since the source was opened.
// Cost:   bench_exits. bpf: in the kernel 0.3 us an exit; a poll adds up 16 KiB of counters. cn_proc: 1 us a message,
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

constexpr std::size_t kRecordsPerPoll = 16'384;
constexpr std::size_t kMessagesPerPoll = 8192;
constexpr int kSocketBytes = 4 << 20;  // about as many messages as one poll takes

struct Totals {
    std::array<std::uint64_t, kExitReasons> exits{};
    std::uint64_t short_lived = 0;
    std::uint64_t lost = 0;
    bool accounts = false;  // the rest is known
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
        }
        slots_[9].emit(emit, report, 1.0, [&] {
            return SeriesInfo{"argus.exits.way", "1", Kind::gauge, std::string("argus.way=") + way};
        });
    }

private:
    std::array<SeriesSlot, 10> slots_;
};

// --- bpf -------------------------------------------------------------------------------------------------------------

class BpfExits final : public ExitSource {
public:
    [[nodiscard]] static Result<std::unique_ptr<BpfExits>> open() {
        auto source = std::make_unique<BpfExits>();
        auto object = bpf::Object::open(bpf::compiled("exits"), "argus_exits");
        if (!object) return object.error();
        source->object_ = std::move(*object);
        if (const auto loaded = source->object_.load(); !loaded) return loaded.error();
        auto shared = source->object_.map_memory(".bss");
        if (!shared) return shared.error();
        if (shared->size() < sizeof(ExitShared)) {
            return Error{Errc::unavailable, 0, "BPF: exits.bpf.c and exits.cpp disagree about their counters"};
        }
        source->shared_ = std::move(*shared);
        // The later moment first: what exits between the two attachments is in no count of exits, but in the accounts.
        constexpr const char* kPrograms[] = {"task_is_freed", "process_exits"};
        for (std::size_t i = 0; i < std::size(kPrograms); ++i) {
            auto link = source->object_.attach(kPrograms[i]);
            if (!link) return link.error();
            source->links_[i] = std::move(*link);
            const auto program = source->object_.program(kPrograms[i]);
            if (!program) return program.error();
            source->programs_[i] = *program;
        }
        return source;
    }

    [[nodiscard]] const char* way() const noexcept override { return "bpf"; }

    [[nodiscard]] Result<bool> deliver(ring::SpscRing<ExitRecord>* sink) override {
        if (sink != nullptr && !ring_open_) {
            auto ring = object_.ring("records", on_record, this);
            if (!ring) return ring.error();
            ring_ = std::move(*ring);
            ring_open_ = true;
        }
        sink_ = sink;
        std::atomic_ref(counters().records_wanted).store(sink != nullptr, std::memory_order_relaxed);
        return true;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        add_up();
        if (sink_ != nullptr) {
            room_ = kRecordsPerPoll;
            malformed_ = 0;
            (void)ring_.consume();  // negative = on_record had enough: a poll is bounded
            report.malformed = malformed_;
        }
        totals_.lost = lost_in_kernel_ + lost_at_sink_;
        for (const int program : programs_) totals_.lost += skipped_runs(program);
        series_.emit(totals_, way(), emit, report);
        return report;
    }

private:
    [[nodiscard]] ExitShared& counters() const noexcept { return *reinterpret_cast<ExitShared*>(shared_.data()); }

    void add_up() noexcept {
        const auto read = [](unsigned long long& counter) {
            return std::uint64_t{std::atomic_ref(counter).load(std::memory_order_relaxed)};
        };
        Totals sum;
        std::uint64_t cpu_ns = 0, user_ticks = 0, system_ticks = 0;
        lost_in_kernel_ = 0;
        for (ExitLine& line : counters().lines) {
            for (std::size_t i = 0; i < kExitReasons; ++i) sum.exits[i] += read(line.exits[i]);
            sum.short_lived += read(line.short_lived);
            sum.read_bytes += read(line.read_bytes);
            sum.write_bytes += read(line.write_bytes);
            cpu_ns += read(line.cpu_ns);
            user_ticks += read(line.user_ticks_ns);
            system_ticks += read(line.system_ticks_ns);
            lost_in_kernel_ += read(line.lost_records);
        }
        split_time(sum, cpu_ns, user_ticks, system_ticks);
        sum.accounts = true;
        totals_ = sum;
    }

    // By the ticks of this poll, so that neither mode ever falls; by those of all polls where this one had none.
    void split_time(Totals& sum, std::uint64_t cpu_ns, std::uint64_t user_ticks, std::uint64_t system_ticks) noexcept {
        const std::uint64_t grown = cpu_ns - cpu_ns_;
        std::uint64_t user = user_ticks - user_ticks_;
        std::uint64_t system = system_ticks - system_ticks_;
        if (user + system == 0) {
            user = user_ticks;
            system = system_ticks;
        }
        const std::uint64_t user_ns = user_part(grown, user, system);
        sum.cpu_user_ns = totals_.cpu_user_ns + user_ns;
        sum.cpu_system_ns = totals_.cpu_system_ns + (grown - user_ns);
        cpu_ns_ = cpu_ns;
        user_ticks_ = user_ticks;
        system_ticks_ = system_ticks;
    }

    static int on_record(void* context, void* data, std::size_t size) noexcept {
        auto& self = *static_cast<BpfExits*>(context);
        if (size < sizeof(ExitRaw)) {
            ++self.malformed_;
        } else if (!self.sink_->try_push(exit_record(*static_cast<const ExitRaw*>(data), self.page_bytes_))) {
            ++self.lost_at_sink_;
        }
        return --self.room_ == 0 ? -1 : 0;
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
    bpf::Mapping shared_;
    bpf::Ring ring_;
    std::array<bpf::Link, 2> links_;
    std::array<int, 2> programs_{-1, -1};
    bool ring_open_ = false;
    ring::SpscRing<ExitRecord>* sink_ = nullptr;
    std::size_t room_ = 0;
    std::uint32_t malformed_ = 0;
    std::uint64_t page_bytes_ = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    std::uint64_t lost_in_kernel_ = 0, lost_at_sink_ = 0;
    std::uint64_t cpu_ns_ = 0, user_ticks_ = 0, system_ticks_ = 0;
    Totals totals_;
    ExitSeries series_;
};

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
        if (event.kind == ProcessEvent::Kind::fork) forks_.forked(event.process, event.time_ns);
        if (event.kind != ProcessEvent::Kind::exit) return;
        const Nanos start = forks_.take(event.process);
        ++totals_.exits[static_cast<std::size_t>(exit_reason(event.status))];
        if (start != 0 && event.time_ns - start < static_cast<Nanos>(ARGUS_SHORT_LIVED_NS)) ++totals_.short_lived;
        if (sink_ == nullptr) return;
        ExitRecord record;
        record.pid = event.process;
        record.parent = event.parent;
        record.code = static_cast<std::int32_t>(event.status >> 8 & 0xFF);
        record.signal = static_cast<std::int32_t>(event.status & 0x7F);
        record.start_ns = start == 0 ? 0 : start + clock_offset_;
        record.end_ns = event.time_ns + clock_offset_;
        record.valid = start == 0 ? kExitEnd : kExitStart | kExitEnd;
        if (!sink_->try_push(record)) ++lost_at_sink_;
    }

    int socket_ = -1;
    std::array<std::array<std::byte, kMessageBytes>, kBatch> buffers_{};
    std::array<sockaddr_nl, kBatch> senders_{};
    std::array<iovec, kBatch> parts_{};
    std::array<mmsghdr, kBatch> messages_{};
    ForkTimes forks_;
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
    if (system_ticks == 0 || !(all > 0)) return cpu_ns;
    const double part = static_cast<double>(cpu_ns) * (user / all);
    return part < static_cast<double>(cpu_ns) ? std::min(cpu_ns, static_cast<std::uint64_t>(part)) : cpu_ns;
}

ExitRecord exit_record(const ExitRaw& raw, std::uint64_t page_bytes) noexcept {
    ExitRecord out;
    out.pid = raw.pid;
    out.parent = raw.parent;
    out.code = static_cast<std::int32_t>(raw.status >> 8 & 0xFF);
    out.signal = static_cast<std::int32_t>(raw.status & 0x7F);
    out.start_ns = static_cast<Nanos>(raw.start_ns);
    out.end_ns = static_cast<Nanos>(raw.end_ns);
    out.cpu_user_ns = user_part(raw.cpu_ns, raw.user_ticks_ns, raw.system_ticks_ns);
    out.cpu_system_ns = raw.cpu_ns - out.cpu_user_ns;
    out.rss_max_bytes = raw.rss_pages_max * page_bytes;
    out.read_bytes = raw.read_bytes;
    out.write_bytes = raw.write_bytes;
    out.cgroup_id = raw.cgroup_id;
    out.valid = kExitStart | kExitAccounts | (raw.end_ns == 0 ? 0U : std::uint32_t{kExitEnd});
    std::copy_n(raw.name, out.name.size(), out.name.begin());
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

Nanos ForkTimes::take(std::int32_t pid) noexcept {
    Slot& found = slots_[slot(pid)];
    return found.pid == pid ? std::exchange(found, {}).time : 0;
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
        auto source = BpfExits::open();
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
