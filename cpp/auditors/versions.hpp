// Which models, or agent versions, a stream of observations used lately, and when that last changed: the known cause of
// many a drift. Names are kept beside, for messages alone; one that was forgotten is not named.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/codec.hpp"
#include "events/slab.hpp"
#include "events/text.hpp"

namespace argus::auditors {

[[nodiscard]] inline std::uint32_t short_hash(std::string_view text) noexcept {
    const std::uint64_t hash = events::hash_text(text);
    return text.empty() ? 0 : static_cast<std::uint32_t>(hash >> 32U) | 1U;
}

[[nodiscard]] inline std::string quoted(std::string_view text) {
    std::string out(1, '\'');
    return out.append(text).append(1, '\'');
}

class Names {
public:
    explicit Names(std::uint32_t capacity) : names_(capacity) {}

    std::uint32_t remember(std::string_view name) noexcept {
        const std::uint32_t hash = short_hash(name);
        if (hash == 0) return hash;
        std::uint32_t i = names_.find(hash, [](const auto&) { return true; });
        if (i == events::kNone) {
            i = names_.create(hash, 0, [](std::uint32_t) {});
            names_[i].assign(name);
        }
        names_.touch(i);
        return hash;
    }
    void learn(std::uint32_t& known, std::string_view name) noexcept {
        if (!name.empty() && short_hash(name) != known) known = remember(name);
    }
    [[nodiscard]] std::string operator[](std::uint32_t hash) const {
        const std::uint32_t i = names_.find(hash, [](const auto&) { return true; });
        return i == events::kNone ? "another" : quoted(names_[i].view());
    }
    [[nodiscard]] std::string_view view(std::uint32_t hash) const noexcept {
        const std::uint32_t i = names_.find(hash, [](const auto&) { return true; });
        return i == events::kNone ? std::string_view{} : names_[i].view();
    }
    // By the low 24 bits of the hash.
    [[nodiscard]] std::string by_low_bits(std::uint32_t bits) const {
        if (bits == 0) return "none";
        for (std::uint32_t i = names_.newest(); i != events::kNone; i = names_.older(i)) {
            if ((names_.hash(i) & 0xffffffU) == bits) return quoted(names_[i].view());
        }
        return "another";
    }
    void save(Writer& writer) const { names_.save(writer); }
    void load(Reader& reader) { names_.load(reader); }

private:
    events::Slab<events::InlineText<128>> names_;
};

struct Versions {
    static constexpr std::size_t kKnown = 4;
    static constexpr std::uint32_t kForgotten = 100;  // unused for so many observations is new again
    static constexpr std::uint32_t kCause = 20;       // a split is uncertain by about so many

    struct Used {
        std::uint32_t name = 0, last = 0;  // number of the observation
    };
    std::array<Used, kKnown> used{};          // newest first
    std::uint32_t from = 0, to = 0, at = 0;   // the newest change, at observation `at`; 0 = none

    // A change is the first use of a name that was not among the last four, or not lately.
    void note(std::uint32_t name, std::uint32_t number) noexcept {
        if (name == 0) return;
        if (used[0].name == name && number - used[0].last <= kForgotten) {
            used[0].last = number;
            return;
        }
        const auto place = std::find_if(used.begin(), used.end(), [name](const Used& u) { return u.name == name; });
        const bool known = place != used.end() && number - place->last <= kForgotten;
        const Used previous = used[0];
        if (!known && previous.name != 0 && previous.name != name) {
            from = previous.name;
            to = name;
            at = number;
        }
        const bool absent = place == used.end();
        std::move_backward(used.begin(), absent ? place - 1 : place, absent ? place : place + 1);
        used[0] = {name, number};
    }

    // Did it change at about observation `first`, or since?
    [[nodiscard]] bool explains(std::uint32_t first) const noexcept { return at != 0 && at + kCause >= first; }

    [[nodiscard]] std::string describe(const char* what, std::uint32_t number, const char* unit,
                                       const Names& names) const {
        std::string text("; known cause: ");
        text.append(what).append(" changed from ").append(names[from]).append(" to ").append(names[to]).append(" ");
        return text.append(std::to_string(number - at)).append(" ").append(unit).append(" ago");
    }
};

}  // namespace argus::auditors
