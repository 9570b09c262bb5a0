#include "engine/sampler.hpp"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>

namespace argus::engine {
namespace {

template <class T>
void raise_to(std::atomic<T>& target, T value) noexcept {
    if (value > target.load(std::memory_order_relaxed)) target.store(value, std::memory_order_relaxed);
}

void add(std::atomic<std::uint64_t>& target, std::uint64_t by) noexcept {
    if (by != 0) target.store(target.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace

Sampler::Sampler(const char* thread_name, Registry& registry, const Clock& clock, std::size_t ring_capacity)
    : thread_name_(thread_name), clock_(&clock), emit_(registry, ring_capacity) {}

Sampler::~Sampler() { stop(); }

void Sampler::start() {
    ARGUS_ASSERT(!running());
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
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof one);
    thread_.join();
    ::close(wake_);
    wake_ = -1;
}

// Deadlines are absolute and only ever move by whole intervals, so lateness never adds up. ppoll and not
// clock_nanosleep(TIMER_ABSTIME): it sleeps on the same clock and stop() can end it at once.
bool Sampler::sleep_until(Nanos deadline) {
    while (true) {
        const Nanos left = std::max<Nanos>(0, deadline - read_clock(CLOCK_MONOTONIC));
        const timespec wait{static_cast<time_t>(left / kSecond), static_cast<long>(left % kSecond)};
        pollfd fd{wake_, POLLIN, 0};
        const int ready = ::ppoll(&fd, 1, &wait, nullptr);
        if (ready > 0) return false;
        if (ready == 0 && read_clock(CLOCK_MONOTONIC) >= deadline) return true;
    }
}

void Sampler::loop() {
    const Nanos start = read_clock(CLOCK_MONOTONIC);
    for (auto& task : tasks_) task->due = start;
    while (true) {
        Nanos next = std::numeric_limits<Nanos>::max();
        for (const auto& task : tasks_) next = std::min(next, task->due);
        if (next == std::numeric_limits<Nanos>::max()) next = read_clock(CLOCK_MONOTONIC) + 3600 * kSecond;
        if (!sleep_until(next)) return;
        for (auto& task : tasks_) {
            const Nanos now = read_clock(CLOCK_MONOTONIC);
            if (task->due > now) continue;
            run(*task, now - task->due);
            schedule(*task, read_clock(CLOCK_MONOTONIC));
        }
    }
}

void Sampler::schedule(Task& task, Nanos now) {
    task.due += task.interval();
    if (task.due > now) return;
    const Nanos missed = (now - task.due) / task.interval() + 1;
    task.due += missed * task.interval();
    engine::add(task.counters().missed, static_cast<std::uint64_t>(missed));
}

void Sampler::run(Task& task, Nanos lateness) {
    TaskCounters& counters = task.counters();
    const Nanos before = read_clock(CLOCK_MONOTONIC);
    const Nanos now = clock_->mono();
    emit_.begin(now);
    const auto report = task.poll(now, emit_);
    const Nanos duration = read_clock(CLOCK_MONOTONIC) - before;
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
        run(*task, now - task->due);
        schedule(*task, now);
    }
}

}  // namespace argus::engine
