#include "events/any_value.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "events/msgpack_reader.hpp"

namespace argus::events {

bool AnyValue::says_something() const noexcept {
    switch (kind) {
        case Kind::none: return false;
        case Kind::text: return !text.empty();
        case Kind::integer: return integer != 0;
        case Kind::real: return real != 0.0;
        case Kind::boolean: return boolean;
        case Kind::array:
        case Kind::map: return count != 0;
    }
    return false;
}

void AnyPool::write(MsgpackWriter& out, std::uint32_t index) const {
    const AnyValue& value = values_[index];
    switch (value.kind) {
        case AnyValue::Kind::none: out.nil(); return;
        case AnyValue::Kind::text: out.text(value.text); return;
        case AnyValue::Kind::integer: out.integer(value.integer); return;
        case AnyValue::Kind::real: out.real(value.real); return;
        case AnyValue::Kind::boolean: out.boolean(value.boolean); return;
        case AnyValue::Kind::array: out.array(value.count); break;
        case AnyValue::Kind::map: out.map(value.count); break;
    }
    for (std::uint32_t child = value.first; child != 0; child = values_[child].next) {
        if (value.kind == AnyValue::Kind::map) out.text(values_[child].key);
        write(out, child);
    }
}

std::string_view CanonicalJson::of_text(std::string_view text) {
    out_.clear();
    if (!text.empty() && (text[0] == '{' || text[0] == '[') && valid_utf8(text)) {
        arena_.clear();
        arena_.reserve(text.size());
        members_.clear();
        JsonReader reader(text, arena_);
        if (read(reader, 0) && reader.at_end()) return out_;
        out_.clear();
    }
    quoted(text);
    return out_;
}

std::string_view CanonicalJson::of_value(const AnyPool& pool, std::uint32_t index) {
    if (pool[index].kind == AnyValue::Kind::text) return of_text(pool[index].text);
    out_.clear();
    members_.clear();
    value(pool, index);
    return out_;
}

bool CanonicalJson::read(JsonReader& reader, int depth) {
    std::string_view text;
    bool flag = false;
    const std::size_t begin = out_.size();
    const std::size_t first = members_.size();
    switch (reader.peek()) {
        case Json::none: return false;
        case Json::null: out_ += "null"; return reader.null();
        case Json::boolean:
            if (!reader.boolean(flag)) return false;
            out_ += flag ? "true" : "false";
            return true;
        case Json::text:
            if (!reader.text(text)) return false;
            quoted(text);
            return true;
        case Json::number: {
            if (!reader.number(text, flag)) return false;
            if (flag) {
                out_ += text == "-0" ? std::string_view("0") : text;
                return true;
            }
            double number = 0.0;
            if (!to_double(text, number)) return false;
            real(number);
            return true;
        }
        case Json::array:
            out_ += '[';
            if (depth == kMaxCanonicalDepth || !reader.array([&] {
                    if (out_.size() != begin + 1) out_ += ',';
                    return read(reader, depth + 1);
                })) {
                return false;
            }
            out_ += ']';
            return true;
        case Json::object:
            if (depth == kMaxCanonicalDepth || !reader.object([&](std::string_view key) {
                    const std::size_t from = out_.size();
                    if (!read(reader, depth + 1)) return false;
                    members_.push_back({key, from, out_.size()});
                    return true;
                })) {
                return false;
            }
            sort_members(first, begin);
            return true;
    }
    return false;
}

void CanonicalJson::value(const AnyPool& pool, std::uint32_t index) {
    const AnyValue& value = pool[index];
    const std::size_t begin = out_.size();
    const std::size_t first = members_.size();
    switch (value.kind) {
        case AnyValue::Kind::none: out_ += "null"; break;
        case AnyValue::Kind::text: quoted(value.text); break;
        case AnyValue::Kind::integer: out_ += std::to_string(value.integer); break;
        case AnyValue::Kind::real: real(value.real); break;
        case AnyValue::Kind::boolean: out_ += value.boolean ? "true" : "false"; break;
        case AnyValue::Kind::array:
            out_ += '[';
            for (std::uint32_t child = value.first; child != 0; child = pool[child].next) {
                if (child != value.first) out_ += ',';
                this->value(pool, child);
            }
            out_ += ']';
            break;
        case AnyValue::Kind::map:
            for (std::uint32_t child = value.first; child != 0; child = pool[child].next) {
                const std::size_t from = out_.size();
                this->value(pool, child);
                members_.push_back({pool[child].key, from, out_.size()});
            }
            sort_members(first, begin);
            break;
    }
}

// Turns the values that lie in out_ from `begin` on, members_[first..], into one object; of equal keys the last stands.
void CanonicalJson::sort_members(std::size_t first, std::size_t begin) {
    const auto from = members_.begin() + static_cast<std::ptrdiff_t>(first);
    std::stable_sort(from, members_.end(), [](const Member& a, const Member& b) { return a.key < b.key; });
    const std::string values = out_.substr(begin);
    out_.resize(begin);
    out_ += '{';
    for (auto member = from; member != members_.end(); ++member) {
        if (member + 1 != members_.end() && member[1].key == member->key) continue;
        if (out_.size() != begin + 1) out_ += ',';
        quoted(member->key);
        out_ += ':';
        out_.append(values, member->begin - begin, member->end - member->begin);
    }
    out_ += '}';
    members_.resize(first);
}

void CanonicalJson::quoted(std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    out_ += '"';
    std::size_t from = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
        out_.append(text, from, i - from);
        from = i + 1;
        out_ += '\\';
        switch (byte) {
            case '"':
            case '\\': out_ += static_cast<char>(byte); break;
            case '\b': out_ += 'b'; break;
            case '\f': out_ += 'f'; break;
            case '\n': out_ += 'n'; break;
            case '\r': out_ += 'r'; break;
            case '\t': out_ += 't'; break;
            default:
                out_ += "u00";
                out_ += kHex[byte >> 4];
                out_ += kHex[byte & 0xfU];
        }
    }
    out_.append(text, from);
    out_ += '"';
}

void CanonicalJson::real(double value) {
    if (!std::isfinite(value)) {
        out_ += "null";
        return;
    }
    const double size = std::fabs(value);
    const bool plain = size == 0.0 || (size >= 1e-5 && size < 1e16);
    char buffer[64];
    const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
    const char* end = std::to_chars(buffer, buffer + sizeof buffer, value, format).ptr;
    const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
    const std::size_t exponent = text.find('e');
    out_ += text.substr(0, exponent);
    if (plain && text.find('.') == std::string_view::npos) out_ += ".0";
    if (exponent == std::string_view::npos) return;
    out_ += text[exponent + 1] == '-' ? "e-" : "e";
    out_ += text.substr(text[exponent + 2] == '0' ? exponent + 3 : exponent + 2);  // it writes two digits at least
}

}  // namespace argus::events
