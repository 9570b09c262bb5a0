// One JSON line a figure: {"name", "value", "unit", "against", "ratio", "bar", "pass"}.
#pragma once

#include <chrono>
#include <cstdio>

namespace argus::bench {

inline double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best wall time of `repeats` calls, in seconds.
template <class F>
double best_of(int repeats, F&& work) {
    double best = 1e300;
    for (int i = 0; i < repeats; ++i) {
        const double start = seconds_now();
        work();
        const double took = seconds_now() - start;
        best = took < best ? took : best;
    }
    return best;
}

// against: what the value is compared with, and ratio = value / that; bar: the limit on `value`.
inline bool report(const char* name, double value, const char* unit, const char* against, double ratio,
                   double bar, bool pass) {
    std::printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"against\": \"%s\", \"ratio\": %.4g, "
                "\"bar\": %.6g, \"pass\": %s}\n",
                name, value, unit, against, ratio, bar, pass ? "true" : "false");
    return pass;
}

}  // namespace argus::bench
