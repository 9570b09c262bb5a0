// The bank with its detectors, residual, season and increment: time of one row of 10,000 series, cost of a value
// in blocks of rows, and the share of the memory bandwidth that this machine shows in the same run. Before timing,
// steps and blocks are checked to give the same bits.
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "report.hpp"
#include "engine/bank.hpp"

namespace {

using argus::Nanos;
using argus::bench::best_of;
using argus::bench::report;

std::vector<float> noise(std::size_t count, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = normal(engine);
    return values;
}

std::vector<Nanos> times(std::size_t count, std::int64_t first) {
    std::vector<Nanos> out(count);
    for (std::size_t i = 0; i < count; ++i) out[i] = (first + static_cast<std::int64_t>(i)) * argus::kSecond;
    return out;
}

bool same_bits(std::uint32_t series) {
    constexpr std::size_t kRows = 300;
    const auto values = noise(kRows * series, 7);
    const auto at = times(kRows, 1);
    argus::engine::Bank whole(series, {});
    argus::engine::Bank single(series, {});
    std::vector<float> bits(kRows * series);
    argus::engine::Outputs out;
    out.bits = bits.data();
    whole.run(argus::engine::Rows<float>{values.data(), series, at, at}, out);
    std::vector<double> row(series);
    for (std::size_t r = 0; r < kRows; ++r) {
        for (std::size_t i = 0; i < series; ++i) row[i] = static_cast<double>(values[r * series + i]);
        single.step(row, at[r], at[r]);
        if (std::memcmp(single.bits().data(), bits.data() + r * series, series * sizeof(float)) != 0)
            return false;
    }
    return true;
}

// Read and write in place, both counted, over as many bytes as one tile's state: GB/s.
double bandwidth_gbs() {
    constexpr std::size_t kBytes = 320 * 1024;
    std::vector<float> data(kBytes / sizeof(float), 1.0F);
    constexpr int kPasses = 2000;
    const double took = best_of(5, [&] {
        for (int pass = 0; pass < kPasses; ++pass) {
            float* at = data.data();
            for (std::size_t i = 0; i < data.size(); ++i) at[i] = at[i] * 0.999F + 0.001F;
            asm volatile("" : : "r"(at) : "memory");
        }
    });
    return 2.0 * static_cast<double>(kBytes) * kPasses / took / 1e9;
}

}  // namespace

int main() {
    constexpr std::uint32_t kSeries = 10'000;
    if (!same_bits(1500)) {
        std::fprintf(stderr, "bench_bank: steps and blocks differ in their bits; nothing timed\n");
        return 1;
    }
    constexpr std::size_t kBlock = 64;
    const auto values = noise(kBlock * kSeries, 11);
    argus::engine::Bank bank(kSeries, {});
    argus::engine::BankOptions without_entity;
    without_entity.entity = false;
    argus::engine::Bank lean(kSeries, without_entity);
    std::vector<float> bits(kBlock * kSeries);
    argus::engine::Outputs out;
    out.bits = bits.data();
    std::int64_t row = 1;
    const auto run_block = [&](argus::engine::Bank& which) {
        const auto at = times(kBlock, row);
        row += kBlock;
        which.run(argus::engine::Rows<float>{values.data(), kSeries, at, at}, out);
    };
    for (int warm = 0; warm < 6; ++warm) {
        run_block(bank);
        run_block(lean);
    }
    std::vector<double> one(kSeries);
    for (std::size_t i = 0; i < kSeries; ++i) one[i] = static_cast<double>(values[i]);
    const double step_s = best_of(100, [&] {
        bank.step(one, row * argus::kSecond, row * argus::kSecond);
        ++row;
    });
    const double block_s = best_of(8, [&] { run_block(lean); });
    const double per_value_ns = block_s / static_cast<double>(kBlock * kSeries) * 1e9;
    const double peer = bandwidth_gbs();
    // Per value: the marks of 15 channels read, one past in ten of them read and written, the rest of the state read
    // and written (two hours of the seasons), the value in, the bits out.
    constexpr double kBytesMoved = 15 * 4 + 0.1 * 15 * 2 * 96 + 2 * (28 + 48 + 2 * 6 + 16 + 20 + 40) + 4 + 4;
    const double moved = kBytesMoved / per_value_ns;
    bool pass = report("bank_step/10000", step_s * 1e3, "ms", "bar", step_s * 1e3 / 1.0, 1.0, step_s <= 1e-3);
    pass &= report("bank_value/10000", per_value_ns, "ns", "bar", per_value_ns / 40.0, 40.0,
                   per_value_ns <= 40.0);
    report("bank_bandwidth/10000", moved, "GB/s", "read+write in place, 320 KiB, same run", moved / peer, 0.0,
           true);
    return pass ? 0 : 1;
}
