#include "engine/sampler.hpp"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <limits>
#include <system_error>

namespace argus::engine {
namespace {

constexpr std::size_t kMaxUrgent = 8;
constexpr Nanos kBurstShare = 20;  // a task is polled in a burst while it takes at most 1/20 of the interval

template <class T>
void raise_to(std::atomic<T>& target, T value) noexcept {
    if (value > target.load(std::memory_order_relaxed)) target.store(value, std::memory_order_relaxed);
}

void add(std::atomic<std::uint64_t>& target, std::uint64_t by) noexcept {
    if (by != 0) target.store(target.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

double rate_between(const Sample& before, Nanos now, double raw) noexcept {
    if (now <= before.time || raw < before.value) return std::numeric_limits<double>::quiet_NaN();
    return (raw - before.value) / (static_cast<double>(now - before.time) * 1e-9);
}

}  // namespace

Slot RingEmit::open_series(SeriesInfo info) {
    const Kind kind = info.kind;
    const Slot slot = registry_->open(std::move(info));
    if (slot.index == kNoSlot) return slot;
    if (slot.index >= windows_.size()) {
        windows_.resize(slot.index + std::size_t{1});
        waiting_.reserve(windows_.size());
    }
    Window& window = windows_[slot.index];
    const bool waiting = window.waiting;  // of a predecessor: it stands in waiting_ already
    window = {};
    window.kind = kind;
    window.open = true;
    window.waiting = waiting;
    window.sample.slot = slot;
    return slot;
}

void RingEmit::close_series(Slot slot) {
    registry_->close(slot);
    if (slot.index < windows_.size()) windows_[slot.index].open = false;
}

void RingEmit::value(Slot slot, double value) {
    if (slot.index == kNoSlot) {
        ++dropped_;
        return;
    }
    Window& window = windows_[slot.index];
    Sample& sample = window.sample;
    const double fine = window.kind == Kind::gauge ? value
                        : window.seen              ? rate_between(sample, now_, value)
                                                   : std::numeric_limits<double>::quiet_NaN();
    sample.time = now_;
    sample.value = value;
    window.seen = true;
    if (!gather_) {
        if (!ring_.try_push({slot, now_, value})) ++dropped_;
        return;
    }
    sample.low = std::fmin(sample.low, fine);
    sample.high = std::fmax(sample.high, fine);
    if (!window.waiting) {
        window.waiting = true;
        waiting_.push_back(slot.index);
    }
}

void RingEmit::flush() {
    for (const std::uint32_t index : waiting_) {
        Window& window = windows_[index];
        window.waiting = false;
        if (window.open && window.seen && !ring_.try_push(window.sample)) ++dropped_of_windows_;
        window.sample.low = window.sample.high = std::numeric_limits<double>::quiet_NaN();
    }
    waiting_.clear();
}

std::size_t Lateness::bucket(std::uint64_t us) noexcept {
    if (us < 4) return static_cast<std::size_t>(us);
    const auto octave = static_cast<std::size_t>(std::bit_width(us)) - 1;
    return std::min(kBuckets - 1, 4 * (octave - 1) + static_cast<std::size_t>((us >> (octave - 2)) & 3));
}

void Lateness::add(Nanos lateness) noexcept {
    const std::size_t at = bucket(static_cast<std::uint64_t>(std::max<Nanos>(0, lateness)) / 1000);
    engine::add(counts_[at], 1);
    engine::add(count_, 1);
}

Nanos Lateness::quantile(double q) const noexcept {
    const auto wanted = static_cast<double>(count()) * q;
    double seen = 0;
    for (std::size_t at = 0; at < kBuckets && count() > 0; ++at) {
        seen += static_cast<double>(counts_[at].load(std::memory_order_relaxed));
        if (seen < wanted) continue;
        if (at < 4) return static_cast<Nanos>(at + 1) * kMicrosecond;
        const auto octave = static_cast<unsigned>(at / 4 + 1);
        return static_cast<Nanos>((5 + at % 4) << (octave - 2)) * kMicrosecond;
    }
    return 0;
}

Sampler::Sampler(const char* thread_name, Registry& registry, const Clock& clock, std::size_t ring_capacity)
    : thread_name_(thread_name), clock_(&clock), emit_(registry, ring_capacity) {}

Sampler::~Sampler() { stop(); }

void Sampler::start() {
    ARGUS_ASSERT(!running());
    stopping_.store(false, std::memory_order_relaxed);
    wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_ < 0) throw std::system_error(errno, std::generic_category(), "Sampler: eventfd");
    // Signals belong to the main thread (Python handles them there): the sampler inherits a mask of all.
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    try {
        thread_ = std::thread([this] { loop(); });
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
        ::close(wake_);
        wake_ = -1;
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    pthread_setname_np(thread_.native_handle(), thread_name_);
}

void Sampler::stop() {
    if (!running()) return;
    stopping_.store(true, std::memory_order_release);
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof one);
    thread_.join();
    ::close(wake_);
    wake_ = -1;
}

void Sampler::burst() {
    if (!running()) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof one);
}

// Deadlines are absolute and only ever move by whole intervals, so lateness never adds up. ppoll and not
// clock_nanosleep(TIMER_ABSTIME): it sleeps on the same clock, and stop() or pressure can end it at once.
Sampler::Woken Sampler::sleep_until(Nanos deadline) {
    std::array<pollfd, 1 + kMaxUrgent> fds{};
    const std::size_t count = 1 + std::min(urgent_.size(), kMaxUrgent);
    fds[0] = {wake_, POLLIN, 0};
    for (std::size_t i = 1; i < count; ++i) fds[i] = {urgent_[i - 1], POLLPRI, 0};
    while (true) {
        const Nanos left = std::max<Nanos>(0, deadline - read_clock(CLOCK_MONOTONIC));
        const timespec wait{static_cast<time_t>(left / kSecond), static_cast<long>(left % kSecond)};
        const int ready = ::ppoll(fds.data(), count, &wait, nullptr);
        if (stopping_.load(std::memory_order_acquire)) return Woken::stop;
        if (ready > 0) {
            std::uint64_t taken = 0;
            [[maybe_unused]] const ssize_t got = ::read(wake_, &taken, sizeof taken);
            bool urgent = (fds[0].revents & POLLIN) != 0;
            for (std::size_t i = 1; i < count; ++i) {
                urgent = urgent || (fds[i].revents & POLLPRI) != 0;
                if ((fds[i].revents & (POLLERR | POLLNVAL)) != 0) urgent_[i - 1] = fds[i].fd = -1;  // its file is gone
            }
            if (urgent) return Woken::urgent;
        }
        if (ready == 0 && read_clock(CLOCK_MONOTONIC) >= deadline) return Woken::deadline;
    }
}

void Sampler::loop() {
    ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);  // of this thread: 50 us by default
    const Nanos start = read_clock(CLOCK_MONOTONIC);
    for (auto& task : tasks_) task->due = start;
    flush_due_ = start + window_;
    while (true) {
        const Nanos deadline = next_deadline(read_clock(CLOCK_MONOTONIC));
        const Woken woken = sleep_until(deadline);
        if (woken == Woken::stop) return;
        const Nanos now = read_clock(CLOCK_MONOTONIC);
        if (woken == Woken::urgent) begin_burst(now);
        if (woken == Woken::deadline) lateness_.add(now - deadline);
        turn(now);
    }
}

Nanos Sampler::next_deadline(Nanos now) const {
    Nanos next = now + 3600 * kSecond;
    for (const auto& task : tasks_) next = std::min(next, task->due);
    if (now < burst_until_) next = std::min(next, burst_due_);
    if (window_ > 0 && emit_.gathered()) next = std::min(next, flush_due_);
    return next;
}

void Sampler::turn(Nanos now) {
    const bool bursting = now < burst_until_;
    for (auto& task : tasks_) {
        now = read_clock(CLOCK_MONOTONIC);
        if (task->due > now) continue;
        run(*task, now - task->due, bursting || task->interval() < window_);
        schedule(*task, read_clock(CLOCK_MONOTONIC));
    }
    if (bursting && burst_due_ <= now) run_burst(now);
    if (window_ > 0 && flush_due_ <= now) {
        emit_.flush();
        flush_due_ += (1 + (now - flush_due_) / window_) * window_;
    }
}

void Sampler::begin_burst(Nanos now) {
    if (bursts_.interval == 0 || now < no_burst_before_) return;
    burst_until_ = now + bursts_.length;
    no_burst_before_ = burst_until_ + bursts_.pause;
    burst_due_ = now;
    for (auto& task : tasks_) task->cost = 0;  // each is tried once
    engine::add(burst_count_, 1);
}

// What costs much of the interval is left out: looking closely must not become the load.
void Sampler::run_burst(Nanos now) {
    for (auto& task : tasks_) {
        const TaskCounters& counters = task->counters();
        if (task->cost > bursts_.interval / kBurstShare) continue;
        if (counters.state.load(std::memory_order_relaxed) == SourceState::running) run(*task, now - burst_due_, true);
    }
    burst_due_ += (1 + (read_clock(CLOCK_MONOTONIC) - burst_due_) / bursts_.interval) * bursts_.interval;
}

void Sampler::schedule(Task& task, Nanos now) {
    task.due += task.interval();
    if (task.due > now) return;
    const Nanos missed = (now - task.due) / task.interval() + 1;
    task.due += missed * task.interval();
    engine::add(task.counters().missed, static_cast<std::uint64_t>(missed));
}

void Sampler::run(Task& task, Nanos lateness, bool gather) {
    TaskCounters& counters = task.counters();
    const Nanos before = read_clock(CLOCK_MONOTONIC);
    const Nanos now = clock_->mono();
    emit_.begin(now, gather);
    const auto report = task.poll(now, emit_);
    const Nanos duration = read_clock(CLOCK_MONOTONIC) - before;
    // A poll that lost the processor for a while is not dearer for it: the cost falls at once and rises slowly.
    task.cost = task.cost == 0 ? duration : std::min(duration, task.cost + task.cost / 4);
    engine::add(counters.polls, 1);
    engine::add(counters.dropped, emit_.dropped());
    counters.duration_last_ns.store(duration, std::memory_order_relaxed);
    raise_to(counters.duration_max_ns, duration);
    raise_to(counters.lateness_max_ns, lateness);
    if (report) {
        engine::add(counters.emitted, report.value().emitted);
        engine::add(counters.malformed, report.value().malformed);
        counters.failure.store(0, std::memory_order_relaxed);
        counters.state.store(SourceState::running, std::memory_order_relaxed);
        return;
    }
    const Error& error = report.error();
    engine::add(counters.errors, 1);
    counters.what.store(error.what, std::memory_order_relaxed);
    counters.failure.store(static_cast<std::uint32_t>(error.code) << 24 |
                               (static_cast<std::uint32_t>(error.sys_errno) & 0xFFFFFFU),
                           std::memory_order_relaxed);
    counters.state.store(SourceState::unavailable, std::memory_order_relaxed);
}

void Sampler::poll_due() {
    ARGUS_ASSERT(!running());
    for (auto& task : tasks_) {
        const Nanos now = clock_->mono();
        if (task->due == 0) task->due = now;
        if (task->due > now) continue;
        run(*task, now - task->due, false);
        schedule(*task, now);
    }
}

}  // namespace argus::engine
