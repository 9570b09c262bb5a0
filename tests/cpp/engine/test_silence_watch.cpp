#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/silence_watch.hpp"

namespace argus::engine {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kAtOnce[] = {3.0, 3.0, 0.0};  // no day of settling

// Rows of a second, one series after the other; what was said is kept as text: "slot:onset:kind".
class Watched {
public:
    explicit Watched(std::uint32_t slots) : watch(slots, kAtOnce, 1.0), held(slots, 0) {}

    std::vector<std::string> row(const std::vector<double>& values) {
        std::vector<std::string> told;
        const Nanos at = ++rows_ * kSecond;
        for (const SilenceSaid& s : watch.step(values, at, at, held)) {
            told.push_back(std::to_string(s.slot) + (s.onset ? ":begins:" : ":ends:") +
                           (s.frozen ? "frozen" : "missing"));
            last = s;
        }
        return told;
    }
    // Gathers over `count` rows, of which `values(row)` makes each.
    template <class Values>
    std::vector<std::string> rows(int count, Values&& values) {
        std::vector<std::string> told;
        for (int r = 0; r < count; ++r) {
            for (std::string& one : row(values(r))) told.push_back(std::move(one));
        }
        return told;
    }

    SilenceWatch watch;
    std::vector<std::uint8_t> held;
    SilenceSaid last;

private:
    Nanos rows_ = 0;
};

using Told = std::vector<std::string>;
std::vector<double> moving(int r) { return {std::sin(static_cast<double>(r)), 7.0}; }

}  // namespace

TEST_CASE("silence watch: a series that stops is told once, and once when it is back, also with its last value") {
    Watched w(2);
    CHECK(w.rows(2000, moving).empty());
    CHECK(w.rows(30, [](int r) { return std::vector{std::sin(r), kNan}; }) == Told{"1:begins:missing"});
    CHECK(w.last.value == 7.0);
    CHECK(w.last.length_s == doctest::Approx(3.0));
    CHECK(w.last.usual_s == doctest::Approx(1.0));
    CHECK(w.last.bits >= 17.0F);  // 2 series, 86,400 rows a day
    CHECK(w.row({1.5, 7.0}) == Told{"1:ends:missing"});
    CHECK(w.rows(50, moving).empty());
}

TEST_CASE("silence watch: a series that moved and repeats itself is frozen; a constant one never is") {
    Watched w(2);
    CHECK(w.rows(2000, moving).empty());
    CHECK(w.rows(40, [](int) { return std::vector{0.25, 7.0}; }) == Told{"0:begins:frozen"});
    CHECK(w.last.value == 0.25);
    CHECK(w.last.length_s == doctest::Approx(16.0));
    CHECK(w.row({0.5, 7.0}) == Told{"0:ends:frozen"});
}

TEST_CASE("silence watch: of what is held nothing is said, and a gap begins again when it is let go") {
    Watched w(2);
    CHECK(w.rows(2000, moving).empty());
    w.held = {1, 0};
    const auto gone = [](int) { return std::vector{kNan, 7.0}; };
    CHECK(w.rows(100, gone).empty());
    w.held = {0, 0};
    CHECK(w.rows(2, gone).empty());
    CHECK(w.rows(10, gone) == Told{"0:begins:missing"});
    CHECK(w.last.length_s == doctest::Approx(3.0));
    w.held = {1, 0};
    CHECK(w.rows(5, moving).empty());  // told, held, back: said when it is let go
    w.held = {0, 0};
    CHECK(w.rows(5, moving) == Told{"0:ends:missing"});
}

TEST_CASE("silence watch: a reset slot is a stranger; infinite values are missing ones") {
    Watched w(2);
    CHECK(w.rows(2000, moving).empty());
    w.watch.reset(1);
    const auto odd = [](int) { return std::vector<double>{-INFINITY, kNan}; };
    CHECK(w.rows(50, odd) == Told{"0:begins:missing"});
}

TEST_CASE("silence watch: a saved one goes on with the same words") {
    for (const int cut : {1500, 2001, 2010}) {
        Watched whole(300);
        Watched first(300);
        const auto at = [](int r) {
            std::vector<double> values(300, kNan);
            for (std::size_t i = 0; i < 200; ++i) {
                const bool gone = r >= 2000 && r < 2020 && i % 3 == 0;
                values[i] = gone ? kNan : std::sin(r + static_cast<double>(i));
            }
            return values;
        };
        Told wanted;
        Told found;
        for (int r = 0; r < 2100; ++r) {
            for (const auto& s : whole.row(at(r))) wanted.push_back(s);
            if (r == cut) {
                Writer writer(1, 1);
                first.watch.save(writer);
                const auto bytes = writer.finish();
                first.watch = SilenceWatch(300, kAtOnce, 1.0);
                Reader reader(bytes, 1, 1);
                first.watch.load(reader);
                CHECK(reader.done());
            }
            for (const auto& s : first.row(at(r))) found.push_back(s);
        }
        CHECK(found == wanted);
        CHECK(wanted.size() == 2 * 67);
    }
}

}  // namespace argus::engine
