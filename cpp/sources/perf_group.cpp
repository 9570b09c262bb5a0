#include "sources/perf_group.hpp"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sources/kernel_file.hpp"

namespace argus::sources {
namespace {

constexpr const char* kWhat = "perf_event_open";

int system_open(perf_event_attr* attributes, pid_t pid, int cpu, int group, unsigned long flags) {
    const long fd = syscall(SYS_perf_event_open, attributes, pid, cpu, group, flags | PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : static_cast<int>(fd);
}

ssize_t system_read(int fd, void* buffer, std::size_t size) {
    ssize_t got = 0;
    for (int i = 0; i < 16; ++i) {
        got = ::read(fd, buffer, size);
        if (got >= 0 || errno != EINTR) break;
    }
    return got < 0 ? -errno : got;
}

int system_close(int fd) { return ::close(fd) < 0 ? -errno : 0; }

constexpr PerfCalls kSystemCalls{system_open, system_read, system_close};

// The event does not exist here, whatever else may: no PMU, not this one, not with these flags.
bool is_missing(int error) {
    return error == -ENOENT || error == -EINVAL || error == -EOPNOTSUPP || error == -ENODEV || error == -ENXIO;
}

Error error_of(int error) {
    const bool absent = is_missing(error) || error == -ENOSYS;
    return {absent ? Errc::unavailable : errc_of(-error), -error, kWhat};
}

}  // namespace

const PerfCalls& system_perf_calls() noexcept { return kSystemCalls; }

PerfDelta perf_delta(const PerfReading& before, const PerfReading& now) noexcept {
    constexpr std::uint64_t half = std::uint64_t{1} << 63;
    const bool wrapped = before.value >= half && now.value < half;
    const bool fell = now.value < before.value && !wrapped;
    if (fell || now.enabled_ns < before.enabled_ns || now.running_ns < before.running_ns) return {PerfStep::reset, 0};
    const std::uint64_t enabled = now.enabled_ns - before.enabled_ns;
    const std::uint64_t running = now.running_ns - before.running_ns;
    const auto value = static_cast<double>(now.value - before.value);  // modulo 2^64
    if (running == 0) return {enabled == 0 ? PerfStep::counted : PerfStep::unobserved, enabled == 0 ? value : 0};
    const double share = std::max(1.0, static_cast<double>(enabled) / static_cast<double>(running));
    return {PerfStep::counted, value * share};
}

PerfGroup::PerfGroup(PerfGroup&& other) noexcept
    : calls_(other.calls_), fds_(other.fds_), buffer_(other.buffer_), count_(other.count_), leader_(other.leader_) {
    other.fds_.fill(-1);
    other.count_ = 0;
    other.leader_ = -1;
}

PerfGroup& PerfGroup::operator=(PerfGroup&& other) noexcept {
    std::swap(calls_, other.calls_);
    std::swap(fds_, other.fds_);
    std::swap(buffer_, other.buffer_);
    std::swap(count_, other.count_);
    std::swap(leader_, other.leader_);
    return *this;
}

void PerfGroup::close() noexcept {
    for (int& fd : fds_) {
        if (fd >= 0 && fd != leader_) calls_->close(fd);
        fd = -1;
    }
    if (leader_ >= 0) calls_->close(leader_);  // last: without its leader a group falls apart
    leader_ = -1;
    count_ = 0;
}

int PerfGroup::open_one(const PerfEvent& event, const PerfTarget& target, int leader) const {
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    attributes.type = event.type;
    attributes.config = event.config;
    attributes.read_format = PERF_FORMAT_GROUP | PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
    attributes.inherit = target.inherit ? 1 : 0;
#if defined(PERF_ATTR_SIZE_VER7)
    attributes.inherit_thread = attributes.inherit;  // threads, but not child processes: Linux >= 5.13
    const int fd = calls_->open(&attributes, target.pid, target.cpu, leader, target.flags);
    if (fd != -EINVAL || !target.inherit) return fd;
    attributes.inherit_thread = 0;
#endif
    return calls_->open(&attributes, target.pid, target.cpu, leader, target.flags);
}

Result<bool> PerfGroup::open(std::span<const PerfEvent> events, const PerfTarget& target) {
    close();
    int missing = -ENOENT;
    for (std::size_t i = 0; i < std::min(events.size(), kMaxEvents); ++i) {
        const int fd = open_one(events[i], target, leader_);
        if (is_missing(fd)) {
            missing = fd;
            continue;
        }
        if (fd < 0) {
            close();
            return error_of(fd);
        }
        fds_[i] = fd;
        if (leader_ < 0) leader_ = fd;
        ++count_;
    }
    if (count_ == 0) return error_of(missing);
    buffer_.fill(0);
    return true;
}

Result<bool> PerfGroup::read() {
    if (count_ == 0) return Error{Errc::gone, 0, kWhat};
    const std::size_t size = (3 + count_) * sizeof buffer_[0];
    const ssize_t got = calls_->read(leader_, buffer_.data(), size);
    if (got < 0) return Error{errc_of(static_cast<int>(-got)), static_cast<int>(-got), kWhat};
    if (static_cast<std::size_t>(got) != size || buffer_[0] != count_) return Error{Errc::gone, 0, kWhat};
    return true;
}

std::optional<PerfReading> PerfGroup::reading(std::size_t event) const noexcept {
    if (event >= kMaxEvents || fds_[event] < 0) return std::nullopt;
    std::size_t place = 3;
    for (std::size_t i = 0; i < event; ++i) place += fds_[i] >= 0 ? 1 : 0;
    return PerfReading{buffer_[place], buffer_[1], buffer_[2]};
}

}  // namespace argus::sources
