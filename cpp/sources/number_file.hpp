// A file of one unsigned number that is read again and again, as sysfs has many: the descriptor is kept, nothing is
// allocated. The newline must be there, so that a file that was cut is no smaller number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "sources/kernel_file.hpp"
#include "sources/text.hpp"

namespace argus::sources {

[[nodiscard]] inline std::optional<std::uint64_t> parse_number_line(std::string_view text) noexcept {
    Scanner scanner(text);
    std::uint64_t value = 0;
    if (!scanner.number(value) || !scanner.literal("\n") || !scanner.done()) return std::nullopt;
    return value;
}

class NumberFile {
public:
    NumberFile(const Io& io, std::string path, const char* what) : file_(io, std::move(path), what, kCapBytes) {}

    // Nothing when it is absent, unreadable or holds anything else.
    [[nodiscard]] std::optional<std::uint64_t> read() {
        const auto text = file_.read();
        return text ? parse_number_line(*text) : std::nullopt;
    }

private:
    static constexpr std::size_t kCapBytes = 64;
    KernelFile file_;
};

}  // namespace argus::sources
