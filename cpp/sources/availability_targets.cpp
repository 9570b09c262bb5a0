// Reading what availability is told to look at: units, processes, ports and URLs.
#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "sources/availability.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMaxNameBytes = 255;
constexpr std::size_t kMaxUrlBytes = 2048;
constexpr std::uint16_t kHttpPort = 80;

[[noreturn]] void refuse(std::string_view written, const std::string& expected) {
    std::string shown(written.substr(0, 120));
    for (char& c : shown) {
        if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F) c = '?';
    }
    throw std::invalid_argument("sources.availability.targets: expected " + expected + ", found '" + shown + "'");
}

bool is_plain(std::string_view text) noexcept {
    return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

bool parse_port(std::string_view text, std::uint16_t& out) noexcept {
    if (text.empty() || text.size() > 5) return false;
    std::uint32_t value = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return false;
        value = value * 10 + static_cast<std::uint32_t>(c - '0');
    }
    out = static_cast<std::uint16_t>(value);
    return value >= 1 && value <= 65535;
}

bool set_address(std::string_view host, std::uint16_t port, Target& out) {
    const std::string text(host == "localhost" ? "127.0.0.1" : host);
    sockaddr_in v4{};
    if (inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        std::memcpy(&out.address, &v4, sizeof v4);
        out.address_size = sizeof v4;
        return true;
    }
    sockaddr_in6 v6{};
    const bool bracketed = text.size() > 2 && text.front() == '[' && text.back() == ']';
    if (!bracketed || inet_pton(AF_INET6, text.substr(1, text.size() - 2).c_str(), &v6.sin6_addr) != 1) return false;
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&out.address, &v6, sizeof v6);
    out.address_size = sizeof v6;
    return true;
}

// "127.0.0.1:80", "[::1]:80", "localhost:80"; without a port the default, when there is one.
bool parse_authority(std::string_view text, std::uint16_t port, Target& out) {
    const std::size_t colon = text.rfind(':');
    const std::size_t bracket = text.rfind(']');
    const bool has_port = colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket);
    if (has_port && !parse_port(text.substr(colon + 1), port)) return false;
    return port != 0 && set_address(text.substr(0, has_port ? colon : text.size()), port, out);
}

// systemd's rule: "a-b.slice" lies in "a.slice".
std::string slice_path(std::string_view slice) {
    constexpr std::string_view kSuffix = ".slice";
    const std::string_view stem = slice.substr(0, slice.size() - kSuffix.size());
    std::string path;
    for (std::size_t dash = stem.find('-'); dash != std::string_view::npos; dash = stem.find('-', dash + 1)) {
        path += std::string(stem.substr(0, dash)) + ".slice/";
    }
    return path + std::string(slice);
}

// "getty@tty1.service" lies in "system-getty.slice", with the dashes of its own name escaped.
std::string template_slice(std::string_view unit) {
    std::string out = "system.slice/system-";
    for (const char c : unit.substr(0, unit.find('@'))) out += c == '-' ? std::string("\\x2d") : std::string(1, c);
    return out + ".slice/";
}

void parse_unit(std::string_view written, std::string name, Target& out) {
    const std::string_view last = std::string_view(name).substr(name.rfind('/') + 1);
    const bool bare = last.find('.') == std::string_view::npos;
    if (bare) name += ".service";
    const std::string unit = name.substr(name.rfind('/') + 1);
    const bool fits = unit.ends_with(".service") || unit.ends_with(".scope") || unit.ends_with(".slice");
    const std::string_view path = name;
    const bool inside = !path.starts_with('/') && !path.starts_with("../") && path.find("/../") == path.npos;
    if (!is_plain(name) || name.size() > kMaxNameBytes || unit.starts_with(".") || !fits || !inside) {
        refuse(written, "unit:NAME of a .service, .scope or .slice (others have no processes to be seen), or its path "
                        "from the root of the control groups");
    }
    out.name = name;
    if (name.find('/') != std::string::npos) {
        out.paths = {name};
    } else if (unit.ends_with(".slice")) {
        out.paths = {slice_path(unit)};
    } else {
        out.paths = {"system.slice/" + unit};
        if (unit.find('@') != std::string::npos) out.paths.push_back(template_slice(unit) + unit);
        if (unit.ends_with(".scope")) out.paths.push_back(unit);
    }
}

void parse_http(std::string_view written, Target& out) {
    std::string_view rest = written.substr(std::string_view("http://").size());
    const std::size_t slash = std::min(rest.find_first_of("/?"), rest.size());
    const std::string authority(rest.substr(0, slash));
    std::string path;
    if (!rest.substr(slash).starts_with('/')) path += '/';
    path += rest.substr(slash);
    const bool fits = written.size() <= kMaxUrlBytes && is_plain(written) && path.find('#') == std::string::npos;
    if (!fits || !parse_authority(authority, kHttpPort, out)) {
        refuse(written, "http://ADDRESS:PORT/PATH with an IP address or localhost (names would have to be looked up)");
    }
    out.name = written;
    out.request = "GET " + path + " HTTP/1.1\r\nHost: " + authority +
                  "\r\nUser-Agent: argus\r\nAccept: */*\r\nConnection: close\r\n\r\n";
}

}  // namespace

Target parse_target(std::string_view written) {
    Target out;
    const std::size_t colon = std::min(written.find(':'), written.size());
    const std::string_view prefix = written.substr(0, colon);
    const std::string name(written.substr(std::min(colon + 1, written.size())));
    if (prefix == "unit") {
        out.kind = TargetKind::unit;
        parse_unit(written, name, out);
    } else if (prefix == "process") {
        out.kind = TargetKind::process;
        if (name.empty() || name.size() > kMaxNameBytes || name.find('/') != std::string::npos ||
            name.find('\0') != std::string::npos) {
            refuse(written, "process:NAME, the name of a process or the last part of its executable's path");
        }
        out.name = name;
    } else if (prefix == "port") {
        out.kind = TargetKind::port;
        if (!parse_authority(name, 0, out)) {
            refuse(written, "port:ADDRESS:PORT with an IP address or localhost (names would have to be looked up)");
        }
        out.name = name;
    } else if (written.starts_with("http://")) {
        out.kind = TargetKind::http;
        parse_http(written, out);
    } else if (prefix == "https") {
        refuse(written, "http://: https is not offered here; use port:ADDRESS:PORT to see whether it is listening");
    } else {
        refuse(written, "unit:NAME, process:NAME, port:ADDRESS:PORT or http://ADDRESS:PORT/PATH");
    }
    return out;
}

int http_status(std::string_view response) noexcept {
    constexpr std::string_view kProtocol = "HTTP/1.";
    constexpr std::size_t kDigits = kProtocol.size() + 2;  // "HTTP/1.1 200"
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    const std::size_t known = std::min(response.size(), kProtocol.size());
    if (response.substr(0, known) != kProtocol.substr(0, known)) return -1;
    if (response.size() < kDigits + 4) return response.find('\n') == std::string_view::npos ? 0 : -1;
    int status = 0;
    for (std::size_t i = 0; i < 3; ++i) {
        if (!digit(response[kDigits + i])) return -1;
        status = status * 10 + (response[kDigits + i] - '0');
    }
    const char after = response[kDigits + 3];
    const bool good = digit(response[kProtocol.size()]) && response[kDigits - 1] == ' ' && status >= 100 &&
                      (after == ' ' || after == '\r' || after == '\n');
    return good ? status : -1;
}

bool name_and_state(std::string_view stat, std::string_view& name, char& state) noexcept {
    const std::size_t open = stat.find('(');
    const std::size_t close = stat.rfind(')');
    if (open == std::string_view::npos || close == std::string_view::npos || close < open) return false;
    if (close + 2 >= stat.size() || stat[close + 1] != ' ') return false;
    name = stat.substr(open + 1, close - open - 1);
    state = stat[close + 2];
    return true;
}

}  // namespace argus::sources
