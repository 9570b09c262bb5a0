#include "sources/protocol_counters.hpp"

#include <algorithm>
#include <iterator>

#include "sources/text.hpp"

namespace argus::sources {
namespace {

bool upper(char c) noexcept { return c >= 'A' && c <= 'Z'; }
bool lower(char c) noexcept { return c >= 'a' && c <= 'z'; }
bool digit(char c) noexcept { return c >= '0' && c <= '9'; }
char to_lower(char c) noexcept { return upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower_case(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(), to_lower);
    return out;
}

// A capital begins a word after a small letter or a digit, and as the last of a run of capitals before a small letter;
// not when that letter is the plural of the run (OKs) or its version (MLDv2), nor within HMac.
bool begins_word(std::string_view key, std::size_t at) noexcept {
    if (at == 0 || !upper(key[at]) || key[at - 1] == '_') return false;
    if (!upper(key[at - 1])) return true;
    if (at + 1 >= key.size() || !lower(key[at + 1])) return false;
    const bool plural = key[at + 1] == 's' && (at + 2 == key.size() || !lower(key[at + 2]));
    const bool version = key[at + 1] == 'v' && at + 2 < key.size() && digit(key[at + 2]);
    return !plural && !version && key.substr(at - 1, 4) != "HMac";
}

std::string snake_case(std::string_view key) {
    std::string out;
    for (std::size_t i = 0; i < key.size(); ++i) {
        if (begins_word(key, i)) out += '_';
        out += to_lower(key[i]);
    }
    return out;
}

std::string group_name(std::string_view group) {
    std::string out = lower_case(group);
    for (const std::string_view ending : {"ext", "msg"}) {
        if (out.size() > ending.size() && out.ends_with(ending)) {
            out.resize(out.size() - ending.size());
            break;
        }
    }
    return out;
}

std::string_view without_group(std::string_view key, const std::string& group) {
    if (key.size() <= group.size() || lower_case(key.substr(0, group.size())) != group) return key;
    return upper(key[group.size()]) ? key.substr(group.size()) : key;
}

bool is_level(std::string_view key) noexcept {
    constexpr std::string_view kLevels[] = {"Forwarding", "DefaultTTL", "RtoAlgorithm", "RtoMin",
                                            "RtoMax",     "MaxConn",    "CurrEstab",    "MPCurrEstab"};
    return std::find(std::begin(kLevels), std::end(kLevels), key) != std::end(kLevels);
}

bool is_milliseconds(std::string_view key) noexcept {
    return key == "RtoMin" || key == "RtoMax" || key.ends_with("Chrono");
}

const char* unit_of(std::string_view key) noexcept {
    constexpr struct {
        std::string_view ending;
        const char* unit;
    } kUnits[] = {{"Octets", "By"},         {"Segs", "{segment}"},     {"Pkts", "{packet}"},
                  {"Datagrams", "{datagram}"}, {"Errors", "{error}"},  {"Errs", "{error}"},
                  {"Estab", "{connection}"},   {"MaxConn", "{connection}"}};
    if (is_milliseconds(key)) return "s";
    if (key == "Forwarding" || key == "RtoAlgorithm") return "1";
    if (key == "DefaultTTL") return "{hop}";
    for (const auto& rule : kUnits) {
        if (key.ends_with(rule.ending)) return rule.unit;
    }
    return "{event}";
}

}  // namespace

ProtocolCounter describe_protocol_counter(std::string_view group, std::string_view key) {
    ProtocolCounter out;
    const std::string family = group_name(group);
    out.info.name = "system.network." + family + "." + snake_case(without_group(key, family));
    out.info.unit = unit_of(key);
    out.info.kind = is_level(key) ? Kind::gauge : Kind::counter;
    out.scale = is_milliseconds(key) ? 1e-3 : 1.0;
    return out;
}

bool is_protocol_key(std::string_view text) noexcept {
    if (text.empty() || text.size() > kMaxProtocolKeyBytes || !(upper(text[0]) || lower(text[0]))) return false;
    return std::all_of(text.begin(), text.end(), [](char c) { return upper(c) || lower(c) || digit(c) || c == '_'; });
}

bool split_snmp6_key(std::string_view key, std::string_view& group, std::string_view& rest) noexcept {
    const std::size_t family = key.find('6');
    if (!is_protocol_key(key) || family == std::string_view::npos || !is_protocol_key(key.substr(family + 1))) {
        return false;
    }
    group = key.substr(0, family + 1);
    rest = key.substr(family + 1);
    return true;
}

bool next_pair(std::string_view& text, ProtocolPair& out, std::uint32_t& malformed) noexcept {
    Scanner scanner(text);
    std::string_view line;
    std::string_view before;  // a line that waits for its numbers
    while (scanner.line(line)) {
        text = scanner.rest();
        const std::size_t colon = line.find(": ");
        const bool titled = colon != std::string_view::npos && is_protocol_key(line.substr(0, colon));
        if (!before.empty() && titled && line.starts_with(out.group) && colon == out.group.size()) {
            out.header = before;
            out.names = before.substr(colon + 2);
            out.numbers = line.substr(colon + 2);
            return true;
        }
        if (!before.empty() || !titled) ++malformed;
        before = titled ? line : std::string_view{};
        out.group = line.substr(0, titled ? colon : 0);
    }
    if (!before.empty()) ++malformed;
    if (!text.empty()) ++malformed;  // the last line was cut
    text = {};
    return false;
}

std::int32_t ProtocolTable::find_or_add(std::string_view group, std::string_view key) {
    if (!is_protocol_key(group) || !is_protocol_key(key)) return -1;
    for (std::size_t i = 0; i < counters_.size(); ++i) {
        if (counters_[i].key == key && counters_[i].group == group) return static_cast<std::int32_t>(i);
    }
    if (counters_.size() >= kMaxProtocolCounters) return -1;
    ProtocolCounter described = describe_protocol_counter(group, key);
    for (const Counter& counter : counters_) {
        if (counter.name == described.info.name) return -1;  // two names of the kernel would share a series
    }
    Counter& added = counters_.emplace_back();
    added.group = group;
    added.key = key;
    added.name = std::move(described.info.name);
    added.scale = described.scale;
    added.kind = described.info.kind;
    return static_cast<std::int32_t>(counters_.size() - 1);
}

void ProtocolTable::lay_out(const ProtocolPair& pair, Layout& layout) {
    layout.header = pair.header;
    layout.columns.clear();
    Scanner names(pair.names);
    for (std::string_view name = names.word(); !name.empty(); name = names.word()) {
        layout.columns.push_back(find_or_add(pair.group, name));
    }
}

bool ProtocolTable::read_numbers(std::string_view text, std::size_t expected) {
    numbers_.clear();
    Scanner scanner(text);
    for (std::size_t i = 0; i < expected; ++i) {
        Number& number = numbers_.emplace_back();
        const Scanner start = scanner;
        number.good = scanner.number(number.value);
        if (number.good) continue;
        scanner = start;
        std::string_view word = scanner.word();
        if (word.empty()) return false;
        number.negative = word.starts_with('-');
        if (number.negative) word.remove_prefix(1);
        Scanner digits(word);
        number.good = number.negative && digits.number(number.value);
    }
    return scanner.word().empty();
}

void ProtocolTable::emit_counter(std::int32_t index, const Number& number, Emit& emit, PollReport& report) {
    if (index < 0 || !number.good) {
        ++report.malformed;
        return;
    }
    Counter& counter = counters_[static_cast<std::size_t>(index)];
    const bool repeated = counter.seen == polls_;
    counter.seen = polls_;
    if (number.negative && counter.kind == Kind::gauge && !repeated) {
        counter.series.close(emit);  // there is no such level
        return;
    }
    if (number.negative || repeated) {
        ++report.malformed;
        return;
    }
    counter.series.emit(emit, report, static_cast<double>(number.value) * counter.scale,
                        [&] { return describe_protocol_counter(counter.group, counter.key).info; });
}

// What a line that could not be read held is unknown, so only a file without fault tells what is gone.
void ProtocolTable::close_absent(Emit& emit, const PollReport& report, std::uint32_t malformed_before) {
    if (report.malformed != malformed_before) return;
    for (Counter& counter : counters_) {
        if (counter.seen != polls_) counter.series.close(emit);
    }
}

void ProtocolTable::emit_pairs(std::string_view text, Emit& emit, PollReport& report) {
    ++polls_;
    const std::uint32_t malformed_before = report.malformed;
    ProtocolPair pair;
    for (std::size_t position = 0; next_pair(text, pair, report.malformed); ++position) {
        if (position >= kMaxProtocolCounters) return;
        if (position == layouts_.size()) layouts_.emplace_back();
        Layout& layout = layouts_[position];
        if (layout.header != pair.header) lay_out(pair, layout);
        if (!read_numbers(pair.numbers, layout.columns.size())) {
            ++report.malformed;
            continue;
        }
        for (std::size_t i = 0; i < layout.columns.size(); ++i) {
            emit_counter(layout.columns[i], numbers_[i], emit, report);
        }
    }
    close_absent(emit, report, malformed_before);
}

void ProtocolTable::emit_lines(std::string_view text, Emit& emit, PollReport& report) {
    ++polls_;
    const std::uint32_t malformed_before = report.malformed;
    Scanner scanner(text);
    std::string_view line;
    std::size_t position = 0;
    while (scanner.line(line)) {
        Scanner fields(line);
        const std::string_view key = fields.word();
        std::string_view group, rest;
        if (!split_snmp6_key(key, group, rest) || !read_numbers(fields.rest(), 1)) {
            ++report.malformed;
            continue;
        }
        const bool expected =
            position < counters_.size() && counters_[position].key == rest && counters_[position].group == group;
        const std::int32_t index = expected ? static_cast<std::int32_t>(position) : find_or_add(group, rest);
        emit_counter(index, numbers_[0], emit, report);
        position = index >= 0 ? static_cast<std::size_t>(index) + 1 : position;
    }
    if (!scanner.done()) ++report.malformed;
    close_absent(emit, report, malformed_before);
}

}  // namespace argus::sources
