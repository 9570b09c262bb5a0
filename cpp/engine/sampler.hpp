// A sampler: one thread that polls its tasks on absolute deadlines and puts what they emit into its own ring.
// A deadline that passed while a task ran is a missed tick: counted, skipped, never made up for. Nothing here waits for
// the reader: a full ring drops the sample and counts it. What is polled more often than once a window (10 ms sources,
// bursts) goes into the ring once a window, with its least and greatest value: a spike of 10 ms is seen at 1 Hz.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "engine/registry.hpp"
#include "ring/spsc_ring.hpp"
#include "sources/source.hpp"

namespace argus::engine {

enum class SourceState : std::uint8_t { running, disabled, unavailable };

[[nodiscard]] constexpr const char* to_string(SourceState state) noexcept {
    return state == SourceState::running ? "running" : state == SourceState::disabled ? "disabled" : "unavailable";
}

// What the host loop counts for each task, written by the sampler, read by anyone.
struct TaskCounters {
    std::atomic<SourceState> state{SourceState::running};
    std::atomic<std::uint64_t> polls{0}, emitted{0}, malformed{0}, errors{0}, missed{0}, dropped{0};
    std::atomic<Nanos> lateness_max_ns{0}, duration_last_ns{0}, duration_max_ns{0};
    std::atomic<const char*> what{""};       // of the newest error, static text
    std::atomic<std::uint32_t> failure{0};   // of the newest error: Errc << 24 | errno; 0 = the last poll went well
};

// Emit into a ring: each value at once, or the newest of a window with its extremes.
class RingEmit final : public sources::Emit {
public:
    RingEmit(Registry& registry, std::size_t capacity) : registry_(&registry), ring_(capacity) {}

    [[nodiscard]] Slot open_series(SeriesInfo info) override;
    void close_series(Slot slot) override;
    void value(Slot slot, double value) override;

    // `gather`: values wait for flush().
    void begin(Nanos now, bool gather) noexcept {
        now_ = now;
        gather_ = gather;
        dropped_ = 0;
    }
    void flush();
    [[nodiscard]] bool gathered() const noexcept { return !waiting_.empty(); }
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }  // since begin()
    [[nodiscard]] std::uint64_t dropped_of_windows() const noexcept { return dropped_of_windows_; }
    [[nodiscard]] ring::SpscRing<Sample>& ring() noexcept { return ring_; }

private:
    struct Window {
        Sample sample;  // the newest
        Kind kind = Kind::gauge;
        bool open = false, seen = false, waiting = false;
    };

    Registry* registry_;
    ring::SpscRing<Sample> ring_;
    std::vector<Window> windows_;         // by slot index
    std::vector<std::uint32_t> waiting_;  // slots whose window holds something
    Nanos now_ = 0;
    bool gather_ = false;
    std::uint64_t dropped_ = 0;
    std::uint64_t dropped_of_windows_ = 0;
};

// One thing that is polled.
class Task {
public:
    Task(const char* name, Nanos interval) : name_(name), interval_(interval) {}
    virtual ~Task() = default;
    [[nodiscard]] virtual Result<sources::PollReport> poll(Nanos now, RingEmit& emit) = 0;

    [[nodiscard]] const char* name() const noexcept { return name_; }
    [[nodiscard]] virtual Nanos interval() const noexcept { return interval_; }  // until the next poll
    [[nodiscard]] TaskCounters& counters() noexcept { return counters_; }
    [[nodiscard]] const TaskCounters& counters() const noexcept { return counters_; }

    // The sampler's: when it is polled next, and what a poll takes when nothing disturbs it; 0 = not known.
    Nanos due = 0;
    Nanos cost = 0;

private:
    const char* name_;
    Nanos interval_;
    TaskCounters counters_;
};

// When something urgent happens, what is cheap is polled much more often for a while.
struct BurstOptions {
    Nanos interval = 0;  // between polls; 0 = never
    Nanos length = 5 * kSecond;
    Nanos pause = 60 * kSecond;  // from the end of one to the next
};

// How late the thread woke, in buckets of a quarter octave of microseconds.
class Lateness {
public:
    void add(Nanos lateness) noexcept;
    [[nodiscard]] Nanos quantile(double q) const noexcept;  // the upper end of its bucket; 0 = none yet
    [[nodiscard]] std::uint64_t count() const noexcept { return count_.load(std::memory_order_relaxed); }

private:
    static constexpr std::size_t kBuckets = 128;
    static std::size_t bucket(std::uint64_t microseconds) noexcept;
    std::array<std::atomic<std::uint64_t>, kBuckets> counts_{};
    std::atomic<std::uint64_t> count_{0};
};

class Sampler {
public:
    Sampler(const char* thread_name, Registry& registry, const Clock& clock, std::size_t ring_capacity);
    ~Sampler();
    Sampler(const Sampler&) = delete;
    Sampler& operator=(const Sampler&) = delete;

    // Before start().
    void add(std::unique_ptr<Task> task) { tasks_.push_back(std::move(task)); }
    void set_window(Nanos window) { window_ = window; }  // 0 = every value goes into the ring at once
    void set_bursts(const BurstOptions& bursts) { bursts_ = bursts; }
    void wake_on(int fd) { urgent_.push_back(fd); }  // POLLPRI there begins a burst; the fd outlives the sampler

    void start();  // throws std::system_error when the thread or its wake-up cannot be made
    void stop();   // returns when the thread has ended; start() may follow
    void burst();  // any thread: as if something urgent had happened

    // Polls what is due at Clock::mono(), in the calling thread. Not while the thread runs.
    void poll_due();

    [[nodiscard]] ring::SpscRing<Sample>& ring() noexcept { return emit_.ring(); }
    [[nodiscard]] bool running() const noexcept { return thread_.joinable(); }
    [[nodiscard]] const char* name() const noexcept { return thread_name_; }
    [[nodiscard]] const Lateness& lateness() const noexcept { return lateness_; }
    [[nodiscard]] std::uint64_t bursts() const noexcept { return burst_count_.load(std::memory_order_relaxed); }

private:
    enum class Woken : std::uint8_t { deadline, urgent, stop };

    void loop();
    void turn(Nanos now);
    void run(Task& task, Nanos lateness, bool gather);
    void run_burst(Nanos now);
    void schedule(Task& task, Nanos now);
    void begin_burst(Nanos now);
    [[nodiscard]] Nanos next_deadline(Nanos now) const;
    [[nodiscard]] Woken sleep_until(Nanos deadline);

    const char* thread_name_;
    const Clock* clock_;
    RingEmit emit_;
    std::vector<std::unique_ptr<Task>> tasks_;
    Nanos window_ = 0;
    Nanos flush_due_ = 0;
    BurstOptions bursts_;
    Nanos burst_until_ = 0;
    Nanos burst_due_ = 0;
    Nanos no_burst_before_ = 0;
    std::atomic<std::uint64_t> burst_count_{0};
    std::vector<int> urgent_;
    Lateness lateness_;
    std::atomic<bool> stopping_{false};
    int wake_ = -1;  // eventfd
    std::thread thread_;
};

}  // namespace argus::engine
