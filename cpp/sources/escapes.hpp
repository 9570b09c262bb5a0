// The kernel writes a path into a table (mountinfo, swaps) with its blanks, newlines and backslashes as \NNN in octal.
#pragma once

#include <string>
#include <string_view>

namespace argus::sources {

// Whatever is no full escape stays as it stands.
[[nodiscard]] inline std::string octal_unescaped(std::string_view raw) {
    const auto octal = [](char c) { return c >= '0' && c <= '7'; };
    std::string out;
    out.reserve(raw.size());
    for (std::size_t i = 0; i < raw.size(); ++i) {
        const bool escape = raw[i] == '\\' && i + 3 < raw.size() && raw[i + 1] <= '3' && octal(raw[i + 1]) &&
                            octal(raw[i + 2]) && octal(raw[i + 3]);
        if (escape) {
            out += static_cast<char>((raw[i + 1] - '0') * 64 + (raw[i + 2] - '0') * 8 + (raw[i + 3] - '0'));
            i += 3;
        } else {
            out += raw[i];
        }
    }
    return out;
}

}  // namespace argus::sources
