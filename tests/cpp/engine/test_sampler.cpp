#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

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

TEST_CASE("ring emit: a window carries its newest value and the extremes of levels and rates") {
    Registry registry(4);
    RingEmit emit(registry, 16);
    const Slot gauge = emit.open_series({"level", "1", Kind::gauge, ""});
    const Slot counter = emit.open_series({"count", "1", Kind::counter, ""});
    const double levels[] = {5, 9, 1, 4};
    const double counts[] = {100, 101, 151, 152};  // 100/s, 5000/s, 100/s
    for (int i = 0; i < 4; ++i) {
        emit.begin(kSecond + i * 10 * kMillisecond, true);
        emit.value(gauge, levels[i]);
        emit.value(counter, counts[i]);
    }
    CHECK(emit.gathered());
    emit.flush();
    CHECK(!emit.gathered());
    std::array<Sample, 4> out;
    REQUIRE(emit.ring().pop(out) == 2);
    CHECK(out[0].value == 4);
    CHECK(out[0].low == 1);
    CHECK(out[0].high == 9);
    CHECK(out[1].value == 152);
    CHECK(out[1].time == kSecond + 30 * kMillisecond);
    CHECK(out[1].low == doctest::Approx(100));
    CHECK(out[1].high == doctest::Approx(5000));
    emit.begin(2 * kSecond, false);  // one alone has no extremes
    emit.value(gauge, 7);
    REQUIRE(emit.ring().pop(out) == 1);
    CHECK(out[0].value == 7);
    CHECK(std::isnan(out[0].low));
}

TEST_CASE("ring emit: a reset makes no rate, a closed series leaves no window, its successor starts anew") {
    Registry registry(1);
    RingEmit emit(registry, 16);
    const Slot first = emit.open_series({"count", "1", Kind::counter, ""});
    for (const double raw : {50.0, 60.0, 1.0}) {
        emit.begin(emit.gathered() ? kSecond + static_cast<Nanos>(raw) : kSecond, true);
        emit.value(first, raw);
    }
    emit.close_series(first);
    const Slot second = emit.open_series({"level", "1", Kind::gauge, ""});
    REQUIRE(second.index == first.index);
    emit.flush();
    std::array<Sample, 4> out;
    CHECK(emit.ring().pop(out) == 0);
    emit.begin(2 * kSecond, true);
    emit.value(second, 3);
    emit.flush();
    REQUIRE(emit.ring().pop(out) == 1);
    CHECK(out[0].slot == second);
    CHECK(out[0].high == 3);
}

TEST_CASE("sampler: lateness quantiles are the upper ends of buckets of a quarter octave") {
    Lateness lateness;
    CHECK(lateness.quantile(0.99) == 0);
    for (int i = 0; i < 990; ++i) lateness.add(60 * kMicrosecond);
    for (int i = 0; i < 10; ++i) lateness.add(5 * kMillisecond);
    CHECK(lateness.quantile(0.5) >= 60 * kMicrosecond);
    CHECK(lateness.quantile(0.5) <= 75 * kMicrosecond);
    CHECK(lateness.quantile(0.99) <= 75 * kMicrosecond);
    CHECK(lateness.quantile(0.999) >= 5 * kMillisecond);
    CHECK(lateness.quantile(0.999) <= 6'250 * kMicrosecond);
    lateness.add(-5);
    lateness.add(3600 * kSecond);
    CHECK(lateness.count() == 1002);
    Lateness prompt;
    prompt.add(900);
    CHECK(prompt.quantile(0.5) == kMicrosecond);
}

TEST_CASE("sampler: 10 ms polls reach the ring once a window") {
    const SystemClock clock;
    Registry registry(4);
    Sampler sampler("test", registry, clock, 64);
    sampler.set_window(100 * kMillisecond);
    auto made = std::make_unique<Ticker>(10 * kMillisecond, nullptr, 0);
    Ticker& ticker = *made;
    sampler.add(std::move(made));
    sampler.start();
    while (ticker.counters().polls.load() < 45) std::this_thread::yield();
    sampler.stop();
    std::array<Sample, 64> out;
    const std::size_t count = sampler.ring().pop(out);
    CHECK(count >= 3);
    CHECK(count <= ticker.counters().polls.load() / 5 + 2);
    CHECK(out[0].low > 0);  // polls a second
    CHECK(out[0].high >= out[0].low);
    CHECK(ticker.counters().dropped.load() == 0);
    CHECK(sampler.lateness().count() > 0);
}

TEST_CASE("sampler: something urgent polls at once and for a while at the burst's interval, then not for its pause") {
    const SystemClock clock;
    Registry registry(4);
    Sampler sampler("test", registry, clock, 64);
    sampler.set_window(50 * kMillisecond);
    sampler.set_bursts({kMillisecond, 100 * kMillisecond, 3600 * kSecond});
    auto made = std::make_unique<Ticker>(3600 * kSecond, nullptr, 0);
    Ticker& ticker = *made;
    sampler.add(std::move(made));
    sampler.start();
    while (ticker.counters().polls.load() == 0) std::this_thread::yield();
    for (int i = 0; i < 3; ++i) {
        sampler.burst();
        std::this_thread::sleep_for(std::chrono::milliseconds(150));
    }
    sampler.stop();
    const std::uint64_t polls = ticker.counters().polls.load();
    CHECK(polls >= 20);  // 100 on a machine with nothing else to do
    CHECK(polls <= 103);
    CHECK(sampler.bursts() == 1);
    std::array<Sample, 64> out;
    const std::size_t count = sampler.ring().pop(out);
    CHECK(count >= 2);
    CHECK(count <= 6);
    CHECK(out[count - 1].value == static_cast<double>(polls));
}

TEST_CASE("sampler: an urgent descriptor that fails is left, not spun on") {
    const SystemClock clock;
    Registry registry(4);
    Sampler sampler("test", registry, clock, 64);
    sampler.set_bursts({kMillisecond, kSecond, kSecond});
    auto made = std::make_unique<Ticker>(20 * kMillisecond, nullptr, 0);
    Ticker& ticker = *made;
    sampler.add(std::move(made));
    sampler.wake_on(1'000'000);  // no such descriptor: POLLNVAL
    sampler.start();
    while (ticker.counters().polls.load() < 5) std::this_thread::yield();
    sampler.stop();
    CHECK(sampler.bursts() == 0);
    CHECK(ticker.counters().polls.load() <= 6);
}

}  // namespace argus::engine
