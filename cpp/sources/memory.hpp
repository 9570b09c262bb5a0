// Parser of "key value" files (/proc/meminfo, /proc/vmstat), pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace argus::sources {

// A fixed set of keys, found by hash: these files have 60 to 200 lines, in an order that differs between kernels.
class KeyTable {
public:
    explicit KeyTable(std::span<const std::string_view> keys);
    [[nodiscard]] int find(std::string_view key) const noexcept;  // index of the key, -1 = not one of them
    [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }

private:
    [[nodiscard]] static std::uint32_t hash(std::string_view key) noexcept;
    std::vector<std::string_view> keys_;
    std::vector<std::int16_t> cells_;  // open addressing, a power of two, sparse: most lines name none of the keys
};

struct KeyedValues {
    static constexpr std::size_t kMaxKeys = 96;
    std::array<std::uint64_t, kMaxKeys> values{};  // bytes where the line says kB
    std::array<bool, kMaxKeys> seen{};
    std::uint32_t malformed = 0;  // lines of known keys skipped
};

// How the lines of a file differ from that.
struct KeyedFormat {
    std::string_view prefix = {};  // of each line; one without it is malformed
    bool kib_only = false;         // a value without kB is malformed
};

// Which key each line of a file had when it was last read: a kernel's files keep their lines, so a line is recognised
// by one comparison instead of being looked up. Learned anew when a line is another; of one table and one format.
class KeyedLines {
public:
    static constexpr std::size_t kMaxLines = 512;

private:
    friend class KeyedParser;
    struct Line {
        std::uint32_t start = 0;  // in heads_
        std::uint16_t head = 0;   // bytes up to the blank after the key; 0 = a line that is not to be recognised
        std::int16_t key = -1;    // -1 = not one of the table
    };
    std::string heads_;
    std::vector<Line> lines_;
};

// Lines "key value", "key: value" or "key: value kB"; the first of a repeated key counts, the rest are malformed. What
// it gives does not depend on `lines`, which is for texts that are much alike: those of one file.
void parse_keyed(std::string_view text, const KeyTable& keys, KeyedValues& out, KeyedFormat format = {},
                 KeyedLines* lines = nullptr);

[[nodiscard]] const KeyTable& meminfo_keys();
[[nodiscard]] const KeyTable& vmstat_keys();

}  // namespace argus::sources
