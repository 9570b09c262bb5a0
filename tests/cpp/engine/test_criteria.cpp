#include "engine/criteria.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <set>
#include <stdexcept>
#include <string>

using namespace argus;
using namespace argus::engine;
using auditors::Facts;

namespace {

struct Bench {
    events::Ledger ledger{events::LedgerOptions{}};
    Criteria criteria;
    [[nodiscard]] std::string judge(const Facts& f) const { return criteria.judge(f, ledger, 0).criterion; }
};

Facts loop(int period, std::uint64_t repeats, double seconds, std::int64_t nusd, std::int64_t cap = 0) {
    Facts f;
    f.rule = Facts::Rule::loop;
    f.period = period;
    f.repeats = repeats;
    f.duration_s = seconds;
    f.metered_nusd = f.upper_nusd = nusd;
    f.cap_nusd = cap;
    return f;
}

Facts budget(std::int64_t metered, std::int64_t upper, std::int64_t cap, bool strict = false) {
    Facts f;
    f.rule = Facts::Rule::budget;
    f.metered_nusd = metered;
    f.upper_nusd = upper;
    f.cap_nusd = cap;
    f.strict = strict;
    return f;
}

}  // namespace

TEST_CASE("criteria: every row documents itself and its defaults lie within their bounds") {
    std::set<std::string> names;
    for (const CriterionDescriptor& row : criteria()) {
        CHECK(names.insert(row.name).second);
        CHECK(std::string(row.documentation).size() > 10);
        for (const Option& o : row.options) {
            CHECK(o.value >= o.min);
            CHECK(o.value <= o.max);
            CHECK(std::string(o.documentation).size() > 5);
        }
    }
    CHECK(names == std::set<std::string>{"C1", "C2", "C4", "C5", "W1", "W2", "W3", "W4", "W5", "W8", "W9"});
}

TEST_CASE("criteria: loops stand on both sides of each bar") {
    const Bench b;
    CHECK(b.judge(loop(1, 8, 120, 0)) == "C2");
    CHECK(b.judge(loop(1, 7, 120, 0)) == "W3");
    CHECK(b.judge(loop(1, 8, 119.9, 0)) == "W3");
    CHECK(b.judge(loop(1, 8, 0, 1'000'000'000)) == "C2");
    CHECK(b.judge(loop(1, 8, 0, 999'999'999)) == "W3");
    CHECK(b.judge(loop(4, 6, 120, 0)) == "C2");
    CHECK(b.judge(loop(4, 5, 120, 0)) == "W3");
    CHECK(b.judge(loop(5, 60, 120, 0)) == "W3");
    CHECK(b.judge(loop(1, 4, 60, 0)) == "W3");
    CHECK(b.judge(loop(1, 3, 1000, 0)).empty());
    CHECK(b.judge(loop(1, 4, 59.9, 99'999'999)).empty());
    CHECK(b.judge(loop(1, 4, 0, 100'000'000)) == "W3");
    CHECK(b.judge(loop(1, 4, 0, 50'000'000, 1'000'000'000)) == "W3");
    CHECK(b.judge(loop(1, 8, 0, 1'000'000'000, 20'000'000'001)) == "W3");
    CHECK(b.judge(loop(1, 8, 0, 1'000'000'000, 20'000'000'000)) == "C2");
}

TEST_CASE("criteria: caps are compared exactly, also where a double no longer is") {
    const Bench b;
    const std::int64_t cap = std::numeric_limits<std::int64_t>::max() - 8;
    CHECK(b.judge(budget(cap, cap, cap)) == "C1");
    CHECK(b.judge(budget(cap - 1, cap, cap)) == "W1");
    CHECK(b.judge(budget(cap - 1, cap, cap, true)) == "C1");
    CHECK(b.judge(budget(0, 800, 1000)) == "W1");
    CHECK(b.judge(budget(0, 799, 1000)).empty());
    CHECK(b.judge(budget(5, 5, 0)).empty());
}

TEST_CASE("criteria: economic faults are material above each bar, and only loops and prices are ever critical") {
    const Bench b;
    const auto cost = [](Facts::Cost kind, double strength, std::uint64_t repeats, double ratio, double seconds) {
        Facts f;
        f.rule = Facts::Rule::cost;
        f.cost = kind;
        f.strength = strength;
        f.repeats = repeats;
        f.spend_ratio = ratio;
        f.excess_s = seconds;
        f.excess_nusd = 1e7;
        return f;
    };
    CHECK(b.judge(cost(Facts::Cost::statistic, 99, 99, 2.1, 30.1)) == "W2");
    CHECK(b.judge(cost(Facts::Cost::statistic, 99, 99, 2.0, 1000)).empty());
    CHECK(b.judge(cost(Facts::Cost::statistic, 99, 99, 9, 30)).empty());
    CHECK(b.judge(cost(Facts::Cost::price, 9, 5, 0, 61)) == "W2");
    CHECK(b.judge(cost(Facts::Cost::price, 4.9, 6, 0, 61)) == "W2");
    CHECK(b.judge(cost(Facts::Cost::price, 5, 6, 0, 60)) == "W2");
    CHECK(b.judge(cost(Facts::Cost::price, 5, 6, 0, 60.1)) == "C4");
    CHECK(b.judge(cost(Facts::Cost::price, 5, 6, 0, 30)).empty());
    CHECK(b.judge(cost(Facts::Cost::loop, 1, 6, 0, 0)) == "W2");
    CHECK(b.judge(cost(Facts::Cost::loop, 2, 12, 0, 60)) == "W2");
    CHECK(b.judge(cost(Facts::Cost::loop, 2, 12, 0, 60.1)) == "C4");
    Facts cents = cost(Facts::Cost::loop, 1, 6, 0, 0);
    cents.excess_nusd = 9.9e6;
    CHECK(b.judge(cents).empty());
}

TEST_CASE("criteria: a forecast warns from its probability on") {
    const Bench b;
    Facts f;
    f.rule = Facts::Rule::forecast;
    f.exhaust_probability = 0.9;
    CHECK(b.judge(f) == "W1");
    f.exhaust_probability = 0.899;
    CHECK(b.judge(f).empty());
}

TEST_CASE("criteria: a call that does not fit its request warns only where a share was given") {
    Bench b;
    Facts f;
    f.rule = Facts::Rule::hijack;
    f.chance = 0.01;
    CHECK(b.judge(f).empty());
    const double share[] = {0.01};
    b.criteria.configure("W8", share);
    CHECK(b.judge(f) == "W8");
    f.chance = 0.0101;
    CHECK(b.judge(f).empty());
}

TEST_CASE("criteria: loss alone is evidence, not a warning") {
    const Bench b;
    Facts f;
    f.rule = Facts::Rule::loss;
    CHECK(b.judge(f).empty());
    f.rule = Facts::Rule::order;
    f.lossless = true;
    CHECK(b.judge(f) == "W5");
}

TEST_CASE("criteria: options change the bars and refuse what they cannot be") {
    Bench b;
    const double stricter[] = {3, 10, 0.01, 0.05};
    b.criteria.configure("W3", stricter);
    CHECK(b.judge(loop(1, 3, 10, 0)) == "W3");
    const double one[] = {1.0};
    const double two[] = {2.0};
    CHECK_THROWS_AS(b.criteria.configure("W3", one), std::invalid_argument);
    CHECK_THROWS_AS(b.criteria.configure("C1", two), std::invalid_argument);
    CHECK_THROWS_AS(b.criteria.configure("C9", one), std::invalid_argument);
}

TEST_CASE("criteria: steps without progress warn by what they cost alone, shifts never") {
    const Bench b;
    const auto steps = [](std::uint64_t repeats, double seconds, std::int64_t nusd, std::int64_t cap = 0) {
        Facts f = loop(0, repeats, seconds, nusd, cap);
        f.rule = Facts::Rule::progress;
        return f;
    };
    CHECK(b.judge(steps(20, 1e6, 99'999'999)).empty());
    CHECK(b.judge(steps(20, 0, 100'000'000)) == "W3");
    CHECK(b.judge(steps(3, 0, 100'000'000)).empty());
    CHECK(b.judge(steps(20, 0, 50'000'000, 1'000'000'000)) == "W3");
    CHECK(b.judge(steps(1'000'000, 1e6, 1'000'000'000'000)) == "W3");
    Criteria off;
    off.enable("W3", false);
    CHECK(off.judge(steps(20, 0, 100'000'000), b.ledger, 0).severity == Severity::info);
    Facts shift;
    shift.rule = Facts::Rule::behaviour;
    shift.ln_bf = 1e6;
    CHECK(b.judge(shift).empty());
}
