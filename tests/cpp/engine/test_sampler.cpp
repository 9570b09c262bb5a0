#include <doctest/doctest.h>

#include <atomic>

#include "engine/sampler.hpp"

namespace argus::engine {
namespace {

// Emits its poll count; may take longer than its interval.
class Ticker final : public Task {
public:
    Ticker(Nanos interval, ManualClock* clock, Nanos takes) : Task("ticker", interval), clock_(clock), takes_(takes) {}
    [[nodiscard]] Result<sources::PollReport> poll(Nanos now, RingEmit& emit) override {
        if (fails) return Error{Errc::io, 5, "proc/ticker"};
        if (slot_.index == kNoSlot) slot_ = emit.open_series({"ticker", "1", Kind::counter, ""});
        emit.value(slot_, static_cast<double>(++count_));
        times.push_back(now);
        if (clock_ != nullptr) clock_->advance(takes_);
        return sources::PollReport{1, 2};
    }
    std::vector<Nanos> times;
    bool fails = false;

private:
    ManualClock* clock_;
    Nanos takes_;
    Slot slot_{kNoSlot, 0};
    int count_ = 0;
};

}  // namespace

TEST_CASE("sampler: deadlines stay on their grid, a late poll does not shift them") {
    ManualClock clock(kSecond);
    Registry registry(4);
    Sampler sampler("test", registry, clock, 64);
    auto made = std::make_unique<Ticker>(100 * kMillisecond, nullptr, 0);
    Ticker& ticker = *made;
    sampler.add(std::move(made));
    sampler.poll_due();
    clock.advance(130 * kMillisecond);
    sampler.poll_due();
    clock.advance(60 * kMillisecond);
    sampler.poll_due();  // 1.19 s: not due
    clock.advance(20 * kMillisecond);
    sampler.poll_due();  // 1.21 s: the one of 1.2 s
    const std::vector<Nanos> expected{kSecond, kSecond + 130 * kMillisecond, kSecond + 210 * kMillisecond};
    CHECK(ticker.times == expected);
    CHECK(ticker.counters().lateness_max_ns.load() == 30 * kMillisecond);
    CHECK(ticker.counters().missed.load() == 0);
    CHECK(ticker.counters().emitted.load() == 3);
    CHECK(ticker.counters().malformed.load() == 6);
}

TEST_CASE("sampler: missed ticks are counted and skipped, not made up for") {
    ManualClock clock(kSecond);
    Registry registry(4);
    Sampler sampler("test", registry, clock, 64);
    auto made = std::make_unique<Ticker>(100 * kMillisecond, nullptr, 0);
    Ticker& ticker = *made;
    sampler.add(std::move(made));
    sampler.poll_due();
    clock.advance(450 * kMillisecond);
    sampler.poll_due();
    sampler.poll_due();
    CHECK(ticker.times.size() == 2);
    CHECK(ticker.counters().missed.load() == 3);
    clock.advance(50 * kMillisecond);
    sampler.poll_due();
    CHECK(ticker.times.size() == 3);
}

TEST_CASE("sampler: a full ring drops and counts, the sampler goes on") {
    ManualClock clock(kSecond);
    Registry registry(4);
    Sampler sampler("test", registry, clock, 2);
    auto made = std::make_unique<Ticker>(kMillisecond, nullptr, 0);
    Ticker& ticker = *made;
    sampler.add(std::move(made));
    for (int i = 0; i < 5; ++i) {
        sampler.poll_due();
        clock.advance(kMillisecond);
    }
    CHECK(ticker.counters().dropped.load() == 3);
    std::array<Sample, 8> out;
    REQUIRE(sampler.ring().pop(out) == 2);
    CHECK(out[0].value == 1.0);
    CHECK(out[1].time == kSecond + kMillisecond);
}

TEST_CASE("sampler: an error is counted and kept, and forgotten by the next good poll") {
    ManualClock clock(kSecond);
    Registry registry(4);
    Sampler sampler("test", registry, clock, 64);
    auto made = std::make_unique<Ticker>(kMillisecond, nullptr, 0);
    Ticker& ticker = *made;
    ticker.fails = true;
    sampler.add(std::move(made));
    sampler.poll_due();
    CHECK(ticker.counters().errors.load() == 1);
    CHECK(ticker.counters().state.load() == SourceState::unavailable);
    CHECK(std::string(ticker.counters().what.load()) == "proc/ticker");
    ticker.fails = false;
    clock.advance(kMillisecond);
    sampler.poll_due();
    CHECK(ticker.counters().state.load() == SourceState::running);
    CHECK(ticker.counters().failure.load() == 0);
}

TEST_CASE("sampler: the thread polls, stops at once however far the next deadline is, and starts again") {
    const SystemClock clock;
    Registry registry(4);
    Sampler sampler("test", registry, clock, 64);
    auto made = std::make_unique<Ticker>(3600 * kSecond, nullptr, 0);
    Ticker& ticker = *made;
    sampler.add(std::move(made));
    for (std::uint64_t round = 1; round <= 2; ++round) {
        const Nanos before = read_clock(CLOCK_MONOTONIC);
        sampler.start();
        CHECK(sampler.running());
        while (ticker.counters().polls.load() < round) std::this_thread::yield();
        sampler.stop();
        CHECK(!sampler.running());
        CHECK(read_clock(CLOCK_MONOTONIC) - before < 60 * kSecond);
    }
    std::array<Sample, 8> out;
    CHECK(sampler.ring().pop(out) == 2);
}

TEST_CASE("sampler: a reader beside the running thread gets every sample in order") {
    const SystemClock clock;
    Registry registry(4);
    Sampler sampler("test", registry, clock, 1024);
    auto made = std::make_unique<Ticker>(100 * kMicrosecond, nullptr, 0);
    const Ticker& ticker = *made;
    sampler.add(std::move(made));
    sampler.start();
    std::vector<Sample> seen;
    std::array<Sample, 16> out;
    while (seen.size() < 200) {
        const std::size_t count = sampler.ring().pop(out);
        seen.insert(seen.end(), out.begin(), out.begin() + static_cast<std::ptrdiff_t>(count));
        if (count == 0) std::this_thread::yield();
    }
    sampler.stop();
    bool ordered = true;
    for (std::size_t i = 1; i < seen.size(); ++i) {
        ordered = ordered && seen[i].value > seen[i - 1].value && seen[i].time >= seen[i - 1].time;
    }
    CHECK(ordered);
    CHECK(ticker.counters().polls.load() >= 200);
}

}  // namespace argus::engine
