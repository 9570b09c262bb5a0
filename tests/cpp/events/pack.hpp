// A small msgpack writer for tests: what agents send, and what they should not.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace argus::test {

inline std::span<const std::byte> bytes_of(const std::string& s) {
    return std::as_bytes(std::span(s.data(), s.size()));
}

inline std::string be(std::uint64_t value, int size) {
    std::string out;
    for (int i = size - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
    return out;
}
// A head byte and what follows it, built by append (GCC 12 misjudges `literal + temporary`).
inline std::string headed(char head, const std::string& rest) {
    std::string out(1, head);
    return out.append(rest);
}
inline std::string integer(std::int64_t v) { return headed('\xd3', be(static_cast<std::uint64_t>(v), 8)); }
inline std::string big(std::uint64_t v) { return headed('\xcf', be(v, 8)); }
inline std::string real(double v) {
    std::uint64_t raw = 0;
    std::memcpy(&raw, &v, 8);
    return headed('\xcb', be(raw, 8));
}
inline std::string boolean(bool v) { return v ? "\xc3" : "\xc2"; }
inline std::string nil() { return "\xc0"; }
inline std::string text(std::string_view s) { return headed('\xdb', be(s.size(), 4)).append(s); }
inline std::string binary(std::string_view s) { return headed('\xc6', be(s.size(), 4)).append(s); }
inline std::string array(const std::vector<std::string>& items) {
    std::string out = headed('\xdd', be(items.size(), 4));
    for (const auto& item : items) out += item;
    return out;
}
using Entries = std::vector<std::pair<std::string, std::string>>;
inline std::string map(const Entries& entries) {
    std::string out = headed('\xdf', be(entries.size(), 4));
    for (const auto& [key, value] : entries) out += text(key) + value;
    return out;
}

inline constexpr std::int64_t kEpoch = 1'700'000'000'000'000'000;

// One event with its keys in order of setting; starts from a valid heartbeat.
class EventMap {
public:
    explicit EventMap(std::string_view type = "heartbeat", std::string_view id = "e1") {
        set("v", integer(1)).set("id", text(id)).set("type", text(type)).set("ts", integer(kEpoch));
        set("source", text("s")).set("seq", integer(1));
    }
    EventMap& set(const std::string& key, std::string value) {
        for (auto& entry : entries_) {
            if (entry.first != key) continue;
            entry.second = std::move(value);
            return *this;
        }
        entries_.emplace_back(key, std::move(value));
        return *this;
    }
    EventMap& str(const std::string& key, std::string_view value) { return set(key, text(value)); }
    EventMap& num(const std::string& key, std::int64_t value) { return set(key, integer(value)); }
    EventMap& drop(const std::string& key) {
        std::erase_if(entries_, [&](const auto& entry) { return entry.first == key; });
        return *this;
    }
    EventMap& repeat(const std::string& key, std::string value) {
        entries_.emplace_back(key, std::move(value));
        return *this;
    }
    [[nodiscard]] std::string pack() const { return map(entries_); }

private:
    Entries entries_;
};

}  // namespace argus::test
