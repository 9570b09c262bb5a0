// A sampler: one thread that polls its tasks on absolute deadlines and puts what they emit into its own ring.
// A deadline that passed while a task ran is a missed tick: counted, skipped, never made up for by a burst. Nothing
// here waits for the reader: a full ring drops the sample and counts it.
#pragma once

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

// Emit into a ring.
class RingEmit final : public sources::Emit {
public:
    RingEmit(Registry& registry, std::size_t capacity) : registry_(&registry), ring_(capacity) {}

    [[nodiscard]] Slot open_series(SeriesInfo info) override { return registry_->open(std::move(info)); }
    void close_series(Slot slot) override { registry_->close(slot); }
    void value(Slot slot, double value) override {
        if (slot.index == kNoSlot || !ring_.try_push({slot, now_, value})) ++dropped_;
    }

    void begin(Nanos now) noexcept {
        now_ = now;
        dropped_ = 0;
    }
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }  // since begin()
    [[nodiscard]] ring::SpscRing<Sample>& ring() noexcept { return ring_; }

private:
    Registry* registry_;
    ring::SpscRing<Sample> ring_;
    Nanos now_ = 0;
    std::uint64_t dropped_ = 0;
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

    Nanos due = 0;  // the sampler's: when it is polled next

private:
    const char* name_;
    Nanos interval_;
    TaskCounters counters_;
};

class Sampler {
public:
    Sampler(const char* thread_name, Registry& registry, const Clock& clock, std::size_t ring_capacity);
    ~Sampler();
    Sampler(const Sampler&) = delete;
    Sampler& operator=(const Sampler&) = delete;

    void add(std::unique_ptr<Task> task) { tasks_.push_back(std::move(task)); }  // before start()
    void start();  // throws std::system_error when the thread or its wake-up cannot be made
    void stop();   // returns when the thread has ended; start() may follow

    // Polls what is due at Clock::mono(), in the calling thread. Not while the thread runs.
    void poll_due();

    [[nodiscard]] ring::SpscRing<Sample>& ring() noexcept { return emit_.ring(); }
    [[nodiscard]] bool running() const noexcept { return thread_.joinable(); }

private:
    void loop();
    void run(Task& task, Nanos lateness);
    void schedule(Task& task, Nanos now);
    [[nodiscard]] bool sleep_until(Nanos deadline);  // false = stop was asked for

    const char* thread_name_;
    const Clock* clock_;
    RingEmit emit_;
    std::vector<std::unique_ptr<Task>> tasks_;
    int wake_ = -1;  // eventfd
    std::thread thread_;
};

}  // namespace argus::engine
