#include "engine/prometheus_names.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <utility>

namespace argus::engine {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct UnitWord {
    std::string_view unit;
    std::string_view word;
};
// UCUM -> Prometheus, as the specification lists them.
constexpr UnitWord kUnits[] = {
    {"d", "days"},         {"h", "hours"},        {"min", "minutes"},   {"s", "seconds"},     {"ms", "milliseconds"},
    {"us", "microseconds"}, {"ns", "nanoseconds"}, {"By", "bytes"},      {"KiBy", "kibibytes"}, {"MiBy", "mebibytes"},
    {"GiBy", "gibibytes"}, {"TiBy", "tibibytes"}, {"KBy", "kilobytes"}, {"MBy", "megabytes"}, {"GBy", "gigabytes"},
    {"TBy", "terabytes"},  {"m", "meters"},       {"V", "volts"},       {"A", "amperes"},     {"J", "joules"},
    {"W", "watts"},        {"g", "grams"},        {"Cel", "celsius"},   {"Hz", "hertz"},      {"%", "percent"},
    {"1", ""},
};
constexpr UnitWord kPerUnits[] = {{"s", "second"}, {"m", "minute"}, {"min", "minute"}, {"h", "hour"}, {"d", "day"},
                                  {"w", "week"},   {"mo", "month"}, {"y", "year"}};

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::vector<std::string> words_of(std::string_view text) {
    std::vector<std::string> words(1);
    for (const char c : text) {
        if (is_letter(c) || is_digit(c)) {
            words.back() += c;
        } else if (!words.back().empty()) {
            words.emplace_back();
        }
    }
    if (words.back().empty()) words.pop_back();
    return words;
}

template <std::size_t N>
std::string_view word_for(const UnitWord (&table)[N], std::string_view unit) noexcept {
    for (const UnitWord& row : table) {
        if (row.unit == unit) return row.word;
    }
    return unit;
}

std::string without_annotations(std::string_view unit) {
    std::string out;
    bool inside = false;
    for (const char c : unit) {
        if (c == '{') inside = true;
        if (!inside && c != ' ') out += c;
        if (c == '}') inside = false;
    }
    return out;
}

void move_to_end(std::vector<std::string>& words, const char* word) {
    std::erase(words, word);
    words.emplace_back(word);
}

void append_unit(std::vector<std::string>& words, std::string_view given) {
    const std::string unit = without_annotations(given);
    const std::size_t slash = unit.find('/');
    const auto add = [&words](std::string_view word, const char* before) {
        for (const std::string& part : words_of(word)) {
            if (std::find(words.begin(), words.end(), part) != words.end()) continue;
            if (*before != '\0') words.emplace_back(before);
            words.push_back(part);
        }
    };
    add(word_for(kUnits, std::string_view(unit).substr(0, slash)), "");
    if (slash != std::string::npos) add(word_for(kPerUnits, std::string_view(unit).substr(slash + 1)), "per");
}

int hex_digit(char c) noexcept {
    if (is_digit(c)) return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

std::string percent_decoded(std::string_view written) {
    std::string out;
    out.reserve(written.size());
    for (std::size_t i = 0; i < written.size(); ++i) {
        const bool whole = written[i] == '%' && i + 2 < written.size();
        const int high = whole ? hex_digit(written[i + 1]) : -1;
        const int low = whole ? hex_digit(written[i + 2]) : -1;
        if (high < 0 || low < 0) {
            out += written[i];
        } else {
            out += static_cast<char>(high * 16 + low);
            i += 2;
        }
    }
    return out;
}

// Bytes of the well-formed UTF-8 sequence at the beginning (Unicode 15, table 3-7); 0 = there is none.
std::size_t utf8_sequence(std::string_view text) noexcept {
    const auto byte = [text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
    const auto follows = [&](std::size_t i, int low = 0x80, int high = 0xBF) {
        return i < text.size() && byte(i) >= low && byte(i) <= high;
    };
    const std::uint8_t first = byte(0);
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
    if (first >= 0xE0 && first <= 0xEF) {
        const int low = first == 0xE0 ? 0xA0 : 0x80;
        const int high = first == 0xED ? 0x9F : 0xBF;
        return follows(1, low, high) && follows(2) ? 3 : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const int low = first == 0xF0 ? 0x90 : 0x80;
        const int high = first == 0xF4 ? 0x8F : 0xBF;
        return follows(1, low, high) && follows(2) && follows(3) ? 4 : 0;
    }
    return 0;
}

bool is_control(char c) noexcept {
    const auto byte = static_cast<std::uint8_t>(c);
    return (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F;
}

void append_escaped(std::string& out, std::string_view text, bool quotes) {
    for (const char c : text) {
        if (c == '\\' || (quotes && c == '"')) {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else {
            out += c;
        }
    }
}

}  // namespace

std::string metric_name(std::string_view name, std::string_view unit, Kind kind) {
    std::vector<std::string> words = words_of(name);
    if (words.empty()) return {};
    append_unit(words, unit);
    if (kind == Kind::counter) {
        move_to_end(words, "total");
    } else if (unit == "1") {
        move_to_end(words, "ratio");
    }
    std::string out;
    for (const std::string& word : words) {
        if (!out.empty()) out += '_';
        out += word;
    }
    if (is_digit(out.front())) out.insert(out.begin(), '_');
    return out;
}

std::string label_name(std::string_view key) {
    std::string out;
    for (const char c : key) {
        const bool plain = is_letter(c) || is_digit(c);
        if (plain || out.empty() || out.back() != '_') out += plain ? c : '_';
    }
    if (out.empty() || is_digit(out.front())) return "key_" + out;
    return out.front() == '_' ? "key" + out : out;  // leading underscores are Prometheus's own
}

std::string label_value(std::string_view written) {
    const std::string bytes = percent_decoded(written);
    std::string out;
    out.reserve(bytes.size());
    for (std::string_view rest = bytes; !rest.empty();) {
        const std::size_t size = utf8_sequence(rest);
        const bool bad = size == 0 || (size == 1 && is_control(rest.front()));
        out += bad ? kReplacement : rest.substr(0, size);
        rest.remove_prefix(std::max<std::size_t>(size, 1));
    }
    return out;
}

std::vector<Label> labels_of(std::string_view attributes) {
    std::vector<Label> out;
    while (!attributes.empty()) {
        const std::string_view pair = attributes.substr(0, attributes.find(','));
        attributes.remove_prefix(std::min(pair.size() + 1, attributes.size()));
        const std::size_t equals = pair.find('=');
        if (equals == std::string_view::npos) continue;
        Label label{label_name(pair.substr(0, equals)), label_value(pair.substr(equals + 1))};
        const auto same = std::find_if(out.begin(), out.end(), [&](const Label& l) { return l.name == label.name; });
        if (same == out.end()) {
            out.push_back(std::move(label));
        } else {
            same->value += ";" + label.value;
        }
    }
    return out;
}

void append_labels(std::string& out, const std::vector<Label>& labels) {
    if (labels.empty()) return;
    char before = '{';
    for (const Label& label : labels) {
        out += before;
        out += label.name;
        out += "=\"";
        append_escaped(out, label.value, true);
        out += '"';
        before = ',';
    }
    out += '}';
}

void append_help(std::string& out, std::string_view text, bool quotes) { append_escaped(out, text, quotes); }

void append_number(std::string& out, double value) {
    constexpr double kExact = 9007199254740992.0;  // 2^53: whole numbers below it are written without an exponent
    if (std::isnan(value)) {
        out += "NaN";
        return;
    }
    if (std::isinf(value)) {
        out += value > 0 ? "+Inf" : "-Inf";
        return;
    }
    char text[32];
    const bool whole = std::fabs(value) < kExact && value == std::trunc(value);
    const auto done = whole ? std::to_chars(text, text + sizeof text, static_cast<std::int64_t>(value))
                            : std::to_chars(text, text + sizeof text, value);
    out.append(text, done.ptr);
}

}  // namespace argus::engine
