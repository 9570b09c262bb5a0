#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "../allocations.hpp"
#include "engine/rates.hpp"

namespace argus::engine {
namespace {

constexpr double kTwo32 = 4294967296.0;

struct Counter {
    explicit Counter(bool integral = true) {
        rates.resize(1);
        rates.open(0, Kind::counter, integral);
    }
    double at(double seconds, double raw) { return rates.observe(0, static_cast<Nanos>(seconds * 1e9), raw); }
    Rates rates;
};

}  // namespace

TEST_CASE("rates: a gauge is itself, a counter its rate over the measured time") {
    Rates rates;
    rates.resize(2);
    rates.open(0, Kind::gauge, true);
    rates.open(1, Kind::counter, true);
    CHECK(rates.observe(0, 0, -3.5) == -3.5);
    CHECK(std::isnan(rates.observe(1, 0, 100)));
    CHECK(rates.observe(1, kSecond / 2, 150) == 100.0);
    CHECK(rates.observe(1, 4 * kSecond, 150) == 0.0);  // a late tick: 3.5 s
    CHECK(rates.faults() == RateFaults{});
}

TEST_CASE("rates: a reset is NaN for that tick, counted, and a new baseline") {
    Counter counter;
    (void)counter.at(0, 1e6);
    (void)counter.at(1, 2e6);
    CHECK(std::isnan(counter.at(2, 10)));
    CHECK(counter.rates.faults().resets == 1);
    CHECK(counter.at(3, 30) == 20.0);
}

TEST_CASE("rates: a 32-bit wrap that continues the rate is the true difference") {
    Counter counter;
    (void)counter.at(0, kTwo32 - 3000);
    CHECK(counter.at(1, kTwo32 - 1000) == 2000);
    CHECK(counter.at(2, 1000) == 2000);
    CHECK(counter.rates.faults().wraps == 1);
    CHECK(counter.at(3, 1500) == 500);
}

TEST_CASE("rates: a reset of a counter near 2^32 is no wrap: it would be a rate out of nowhere") {
    Counter counter;
    (void)counter.at(0, 0.8 * kTwo32 - 100);
    (void)counter.at(1, 0.8 * kTwo32);
    CHECK(std::isnan(counter.at(2, 50)));
    CHECK(counter.rates.faults().resets == 1);
    CHECK(counter.rates.faults().wraps == 0);
}

TEST_CASE("rates: a 64-bit wrap is the true difference, seconds never wrap") {
    Counter counter;
    const double top = 18446744073709551616.0;
    (void)counter.at(0, top - 16384.0 * 4096);
    (void)counter.at(1, top - 8192.0 * 4096);
    CHECK(counter.at(2, 4096.0) == doctest::Approx(8193.0 * 4096));
    CHECK(counter.rates.faults().wraps == 1);
    Counter seconds(false);
    (void)seconds.at(0, kTwo32 - 2);
    (void)seconds.at(1, kTwo32 - 1);
    CHECK(std::isnan(seconds.at(2, 1)));
    CHECK(seconds.rates.faults().resets == 1);
}

TEST_CASE("rates: a small step back is NaN, and what was taken back is not counted twice") {
    Counter counter(false);
    (void)counter.at(0, 1000.0);
    (void)counter.at(1, 1001.0);
    CHECK(std::isnan(counter.at(2, 1000.8)));
    CHECK(counter.rates.faults().backward == 1);
    CHECK(counter.at(3, 1003.0) == 1.0);  // 2 s over 2 s
}

TEST_CASE("rates: a counter that stays below its baseline gets a new one") {
    Counter counter(false);
    (void)counter.at(0, 1000.0);
    for (int tick = 1; tick <= 6; ++tick) CHECK(std::isnan(counter.at(tick, 995.0)));
    CHECK(counter.at(7, 996.0) == 1.0);
}

TEST_CASE("rates: no time, time going back and what is no number are NaN and counted") {
    Counter counter;
    (void)counter.at(10, 100);
    CHECK(std::isnan(counter.at(10, 200)));
    CHECK(counter.at(11, 300) == 200.0);
    CHECK(std::isnan(counter.at(5, 400)));  // the clock jumped back: start over from there
    CHECK(counter.rates.faults().no_time == 2);
    CHECK(counter.at(6, 450) == 50.0);
    CHECK(std::isnan(counter.at(7, std::nan(""))));
    CHECK(std::isnan(counter.at(7, std::numeric_limits<double>::infinity())));
    CHECK(counter.rates.faults().not_finite == 2);
    CHECK(counter.at(8, 550) == 50.0);
}

TEST_CASE("rates: a reopened slot forgets; nothing is ever negative or allocated") {
    Counter counter;
    (void)counter.at(0, 100);
    (void)counter.at(1, 200);
    counter.rates.open(0, Kind::counter, true);
    CHECK(std::isnan(counter.at(2, 300)));
    std::uint64_t seed = 7;
    const std::uint64_t before = test::allocations();
    bool negative = false;
    for (int i = 0; i < 20000; ++i) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        const double raw = static_cast<double>(seed >> (seed % 60));
        const double rate = counter.rates.observe(0, static_cast<Nanos>(i * 1000 + static_cast<int>(seed % 3000)), raw);
        negative = negative || rate < 0 || std::isinf(rate);
    }
    CHECK(test::allocations() == before);
    CHECK(!negative);
}

}  // namespace argus::engine
