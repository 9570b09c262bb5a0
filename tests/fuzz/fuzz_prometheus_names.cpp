// Names, labels and values on their way to a scrape: whatever a device is called, the page stays legal.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/node_names.hpp"
#include "engine/prometheus_names.hpp"
#include "sources/text.hpp"

namespace {

using namespace argus;
using namespace argus::engine;

void must(bool condition) {
    if (!condition) std::abort();
}

bool legal(std::string_view name) {
    if (name.empty() || (name.front() >= '0' && name.front() <= '9')) return false;
    for (const char c : name) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && (c < '0' || c > '9')) return false;
    }
    return true;
}

// No raw newline, every quote inside a value escaped, no control character but tab.
void check_line(std::string_view labels) {
    if (labels.empty()) return;
    must(labels.front() == '{' && labels.back() == '}');
    bool quoted = false;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const auto byte = static_cast<unsigned char>(labels[i]);
        must(byte >= 0x20 || byte == '\t');
        must(byte != 0x7F);
        if (quoted && labels[i] == '\\') {
            ++i;
            must(i < labels.size() && (labels[i] == '\\' || labels[i] == '"' || labels[i] == 'n'));
        } else if (labels[i] == '"') {
            quoted = !quoted;
        }
    }
    must(!quoted);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const std::size_t half = size / 2;
    for (const Kind kind : {Kind::gauge, Kind::counter}) {
        const std::string name = metric_name(text.substr(0, half), text.substr(half), kind);
        must(name.empty() || legal(name));
    }
    must(legal(label_name(text)) && !label_name(text).starts_with("_"));
    const std::string once = label_value(sources::attribute_value(text));
    must(label_value(sources::attribute_value(once)) == once);  // what came out is clean already
    std::string out;
    append_labels(out, labels_of(text));
    check_line(out);
    out.clear();
    append_labels(out, labels_of("device=" + sources::attribute_value(text)));
    check_line(out);
    (void)node_series({"system.network.io", "By", Kind::counter, std::string(text)});
    return 0;
}
