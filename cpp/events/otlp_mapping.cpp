#include "events/otlp_mapping.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/sha256.hpp"

namespace argus::events {
namespace {

constexpr std::size_t kSourceBytes = 120;  // leaves room for a lane's name
constexpr std::size_t kTextBytes = 520;  // more than any key that is filled here takes,
constexpr std::size_t kBaseBytes = 136;  // or any key that a resource fills: it is told with each of its spans
constexpr std::size_t kAttrBytes = 512;
constexpr std::size_t kAttrsMax = 31;  // one is left for task_type
constexpr std::array kTokens{Word::input_tokens, Word::output_tokens, Word::cache_read_tokens,
                             Word::cache_write_tokens, Word::reasoning_tokens};

template <std::size_t kCount>
[[nodiscard]] bool one_of(std::string_view text, const std::array<std::string_view, kCount>& names) noexcept {
    return std::find(names.begin(), names.end(), text) != names.end();
}

[[nodiscard]] bool is_model_call(std::string_view operation) noexcept {
    return one_of(operation, std::array<std::string_view, 6>{"chat", "generate_content", "text_completion",
                                                             "embeddings", "completion", "embedding"});
}

[[nodiscard]] std::string openinference(std::string_view kind, bool has_parent) {
    if (kind == "CHAIN") return has_parent ? "chain" : "invoke_workflow";
    if (kind == "LLM" || kind == "EMBEDDING") return "chat";
    if (kind == "TOOL") return "execute_tool";
    if (kind == "AGENT") return "invoke_agent";
    if (kind == "RETRIEVER") return "retrieval";
    if (kind == "EVALUATOR") return "evaluation";
    std::string lower(kind);
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return lower;
}

[[nodiscard]] std::string_view traceloop(std::string_view kind) noexcept {
    if (kind == "workflow") return "invoke_workflow";
    if (kind == "agent") return "invoke_agent";
    return kind == "tool" ? "execute_tool" : "step";
}

// At most so many bytes, and no half of a character.
[[nodiscard]] std::string_view cut(std::string_view text, std::size_t bytes) noexcept {
    if (text.size() <= bytes) return text;
    while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0U) == 0x80U) --bytes;
    return text.substr(0, bytes);
}

[[nodiscard]] std::string_view trimmed(std::string_view text) noexcept {
    constexpr std::string_view kSpace = " \t\n\r";
    const std::size_t first = text.find_first_not_of(kSpace);
    return first == std::string_view::npos ? std::string_view{}
                                           : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

struct OtlpMapping::Model {
    std::array<std::int64_t, kTokens.size()> tokens;  // -1 = not said
    std::int64_t ttft_ns = -1;
    std::int64_t cost_nusd = -1;
    bool estimated = false;
};

// --- A body --------------------------------------------------------------------------------------------------------

void OtlpMapping::begin(std::size_t body_bytes, OtlpSignal of, OtlpEncoding encoding) {
    batch = OtlpBatch{};
    signal = of;
    encoding_ = encoding;
    arena.clear();
    arena.reserve(encoding == OtlpEncoding::json ? body_bytes : 2 * body_bytes);  // bytes are written as digits
    out_.clear();
    pending_.clear();
    sources_.clear();
    pool.clear();
    in_item_ = false;
    resource_begin();
    resource_end();
}

void OtlpMapping::fail(std::string reason, std::string detail) {
    if (!batch.failure.empty()) return;
    batch.failure = std::move(reason);
    batch.failure_detail = std::move(detail);
}

void OtlpMapping::end(OtlpLanes& lanes) {
    if (!batch.failure.empty()) return;
    std::stable_sort(pending_.begin(), pending_.end(), [](const Pending& a, const Pending& b) { return a.ts < b.ts; });
    batch.events = pending_.size();
    write_frames(lanes);
}

void OtlpMapping::write_frames(OtlpLanes& lanes) {
    std::string body;
    std::size_t count = 0;
    const auto close = [&] {
        if (count == 0) return;
        std::string& frame = batch.frames.emplace_back();
        frame.reserve(body.size() + 3);
        MsgpackWriter(frame).array(count);
        frame += body;
        body.clear();
        count = 0;
    };
    std::string name;
    for (const Pending& event : pending_) {
        name = sources_[event.source];
        if (const std::size_t lane = lanes.lane(name, event.ts); lane != 0) name += "~" + std::to_string(lane);
        const std::size_t size = event.size + name.size() + 16;
        if (count == kOtlpFrameEvents || (count != 0 && body.size() + size > (std::size_t{1} << 20) - 16)) close();
        MsgpackWriter writer(body);
        writer.map(event.entries + 1);
        writer.text("source");
        writer.text(name);
        body.append(out_, event.offset, event.size);
        ++count;
    }
    close();
}

// --- A resource ----------------------------------------------------------------------------------------------------

bool OtlpMapping::of_resource(std::string_view key) const noexcept {
    return one_of(key, std::array<std::string_view, 5>{"service.name", "service.instance.id", "session.id",
                                                       "gen_ai.agent.name", "gen_ai.agent.version"}) ||
           (!tenant_attribute_.empty() && key == tenant_attribute_);
}

void OtlpMapping::resource_attribute(std::string_view key, std::uint32_t value) {
    for (auto& [known, index] : resource_) {
        if (known == key) {
            index = value;
            return;
        }
    }
    resource_.emplace_back(key, value);
}

void OtlpMapping::resource_end() {
    for (std::string* text : {&base_session_, &base_agent_, &base_version_, &base_tenant_}) text->clear();
    std::string name;
    std::string instance;
    for (const auto& [key, index] : resource_) {
        const bool tenant = !tenant_attribute_.empty() && key == tenant_attribute_;
        const bool said = pool[index].says_something();
        if (key == "service.name" && said) name = text_of(index);
        if (key == "service.instance.id" && said) instance = text_of(index);
        std::string* base = tenant                            ? &base_tenant_
                            : key == "session.id"             ? &base_session_
                            : key == "gen_ai.agent.name"      ? &base_agent_
                            : key == "gen_ai.agent.version"   ? &base_version_
                                                              : nullptr;
        if (base == nullptr) continue;
        base->clear();
        write_scalar(*base, index, kBaseBytes);
    }
    if (name.empty()) name = "unknown_service";
    if (!instance.empty()) name += "/" + instance;
    if (const std::string_view source = cut(name, kSourceBytes); sources_.empty() || sources_.back() != source) {
        sources_.emplace_back(source);
    }
    source_ = static_cast<std::uint32_t>(sources_.size() - 1);
    pool.clear();
    resource_.clear();
}

// --- An item -------------------------------------------------------------------------------------------------------

OtlpItem& OtlpMapping::item_begin() {
    pool.clear();
    item_.clear();
    below_count_ = 0;
    refused_ = nullptr;
    in_item_ = true;
    item_pending_ = pending_.size();
    item_offset_ = out_.size();
    ++batch.items;
    return item_;
}

void OtlpMapping::item_end() {
    const bool told = refused_ == nullptr && (signal == OtlpSignal::traces ? span_events() : record_events());
    in_item_ = false;
    if (told) {
        batch.ignored += pending_.size() == item_pending_;
        return;
    }
    pending_.resize(item_pending_);
    out_.resize(item_offset_);
    count_refusal(sources_[source_]);
}

void OtlpMapping::refuse(const char* reason, std::string detail) {
    if (!in_item_) {
        fail(reason, "body: resource: " + detail);
        return;
    }
    if (refused_ != nullptr) return;
    refused_ = reason;
    refusal_ = std::move(detail);
}

void OtlpMapping::count_refusal(const std::string& source) {
    const auto known = std::find_if(batch.rejected.begin(), batch.rejected.end(), [&](const OtlpRefusal& r) {
        return r.source == source && r.reason == refused_;
    });
    if (known != batch.rejected.end()) {
        ++known->count;
    } else if (batch.rejected.size() < kOtlpReasons) {
        batch.rejected.push_back({source, refused_, "", 1});
    } else {
        OtlpRefusal& last = batch.rejected.back();
        if (last.reason != "other") batch.rejected.push_back({"", "other", "", 1});
        else ++last.count;
    }
    if (batch.samples.size() < kOtlpSamples) batch.samples.push_back({source, refused_, refusal_, 1});
}

Meaning OtlpMapping::meaning(std::string_view key) noexcept {
    if (!tenant_attribute_.empty() && key == tenant_attribute_) return {Word::tenant, 0};
    const Meaning found = meaning_of(key);
    if (found.word == Word::unknown && !is_content(key)) ++batch.unknown;
    return found;
}

void OtlpMapping::take(Findings& found, std::string_view key, Meaning meaning, std::uint32_t value) {
    if (meaning.word != Word::kept) {
        const auto word = static_cast<std::size_t>(meaning.word);
        if (meaning.rank == 0 || !found.has(meaning.word) || meaning.rank < found.rank[word]) {
            found.set(meaning.word, value, meaning.rank);
        }
        return;
    }
    if (!keepable(value) || found.kept.size() >= kAttrsMax) return;
    for (auto& [known, index] : found.kept) {
        if (known == key) {
            index = value;
            return;
        }
    }
    found.kept.emplace_back(key, value);
}

bool OtlpMapping::room(std::size_t used, std::size_t limit, const char* what) {
    if (used < limit) return true;
    if (refused_ != nullptr) return false;  // said already, and there may be millions more
    refuse("over_limit", std::string(what) + ": expected at most " + std::to_string(limit) + ", found more");
    return false;
}

SpanEvent& OtlpMapping::event_begin() {
    if (below_count_ == below_.size()) below_.emplace_back();
    SpanEvent& event = below_[below_count_++];
    event.time = 0;
    event.name = {};
    event.found.clear();
    return event;
}

void OtlpMapping::event_end() {
    const SpanEvent& event = below_[below_count_ - 1];
    if (event.name != "exception") return;
    --below_count_;
    if (item_.has_exception || !event.found.has(Word::error)) return;
    item_.has_exception = true;
    item_.exception = event.found[Word::error];
}

// --- Values --------------------------------------------------------------------------------------------------------

std::string OtlpMapping::text_of(std::uint32_t index) const {
    const AnyValue& value = pool[index];
    switch (value.kind) {
        case AnyValue::Kind::text: return std::string(value.text);
        case AnyValue::Kind::integer: return std::to_string(value.integer);
        case AnyValue::Kind::boolean: return value.boolean ? "True" : "False";
        case AnyValue::Kind::real: {
            char buffer[32];
            return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value.real).ptr};
        }
        default: return {};
    }
}

std::string OtlpMapping::shown(std::uint32_t index) const {
    const AnyValue& value = pool[index];
    switch (value.kind) {
        case AnyValue::Kind::none: return "none";
        case AnyValue::Kind::text: return "'" + std::string(cut(value.text, 36)) + "'";
        case AnyValue::Kind::array: return "an array";
        case AnyValue::Kind::map: return "a map";
        default: return text_of(index);
    }
}

bool OtlpMapping::amount(std::uint32_t index, std::string_view what, std::int64_t& out) {
    const AnyValue& value = pool[index];
    bool good = false;
    if (value.kind == AnyValue::Kind::integer) {
        out = value.integer;
        good = out >= 0;
    } else if (value.kind == AnyValue::Kind::text) {
        const char* end = value.text.data() + value.text.size();
        const auto [stop, error] = std::from_chars(value.text.data(), end, out);
        good = error == std::errc{} && stop == end && value.text.size() <= 19 && value.text[0] != '-';
    } else if (value.kind == AnyValue::Kind::real) {
        good = value.real >= 0 && value.real < 9223372036854775808.0 && std::trunc(value.real) == value.real;
        out = good ? static_cast<std::int64_t>(value.real) : 0;
    }
    if (!good) refuse("bad_number", std::string(what) + ": expected an integer in [0, 2**63), found " + shown(index));
    return good;
}

bool OtlpMapping::number(std::uint32_t index, std::string_view what, double& out) {
    const AnyValue& value = pool[index];
    bool good = true;
    if (value.kind == AnyValue::Kind::integer) {
        out = static_cast<double>(value.integer);
    } else if (value.kind == AnyValue::Kind::real) {
        out = value.real;
    } else {
        std::string_view text = value.kind == AnyValue::Kind::text ? trimmed(value.text) : std::string_view{};
        if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
        good = !text.empty() && to_double(text, out);
    }
    if (good && std::isfinite(out)) return true;
    refuse("bad_number", std::string(what) + ": expected a finite number, found " + shown(index));
    return false;
}

// Seconds as ns, or USD as nano-USD, to the nearest, ties to even.
bool OtlpMapping::scaled(std::uint32_t index, std::string_view what, std::int64_t& out) {
    double value = 0.0;
    if (!number(index, what, value)) return false;
    if (!(value >= 0 && value < 9.2e9)) {
        refuse("bad_number", std::string(what) + ": expected a number in [0, 9.2e9), found " + shown(index));
        return false;
    }
    out = static_cast<std::int64_t>(std::nearbyint(value * 1e9));
    return true;
}

bool OtlpMapping::identifier(std::string_view raw, std::size_t bytes, const char* what, std::string& out) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out.clear();
    bool nonzero = false;
    bool good = true;
    if (encoding_ == OtlpEncoding::json) {
        good = raw.size() == 2 * bytes;
        for (std::size_t i = 0; good && i < raw.size(); ++i) {
            const char c = raw[i] >= 'A' && raw[i] <= 'F' ? static_cast<char>(raw[i] - 'A' + 'a') : raw[i];
            good = kDigits.find(c) != std::string_view::npos;
            nonzero |= c != '0';
            out += c;
        }
    } else {
        good = raw.size() == bytes;
        for (std::size_t i = 0; good && i < raw.size(); ++i) {
            const auto byte = static_cast<unsigned char>(raw[i]);
            nonzero |= byte != 0;
            out += kDigits[byte >> 4];
            out += kDigits[byte & 0xfU];
        }
    }
    if (good && nonzero) return true;
    if (!words_wanted()) {
        refuse("bad_id", {});
        return false;
    }
    refuse("bad_id", std::string(what) + ": expected " + std::to_string(bytes) +
                         " bytes that are not all zero, found " + (good ? "zeros" : std::to_string(raw.size()) +
                         (encoding_ == OtlpEncoding::json ? " characters" : " bytes")));
    return false;
}

bool OtlpMapping::moment_in_time(std::uint64_t value, const char* what, std::int64_t& out) {
    out = static_cast<std::int64_t>(value);
    if (out > 0) return true;
    if (!words_wanted()) {
        refuse("bad_time", {});
        return false;
    }
    refuse("bad_time", std::string(what) + ": expected Unix time in ns in [1, 2**63), found " +
                           (value == 0 ? "none" : "one beyond it"));
    return false;
}

// A scalar of at most 512 bytes, or a list of texts that are no longer once joined.
bool OtlpMapping::keepable(std::uint32_t index) const noexcept {
    const AnyValue& value = pool[index];
    switch (value.kind) {
        case AnyValue::Kind::none:
        case AnyValue::Kind::map: return false;
        case AnyValue::Kind::text: return value.text.size() <= kAttrBytes;
        case AnyValue::Kind::real: return std::isfinite(value.real);
        case AnyValue::Kind::integer:
        case AnyValue::Kind::boolean: return true;
        case AnyValue::Kind::array: break;
    }
    std::size_t size = value.count == 0 ? 0 : value.count - 1;
    for (std::uint32_t child = value.first; child != 0; child = pool[child].next) {
        if (pool[child].kind != AnyValue::Kind::text) return false;
        size += pool[child].text.size();
    }
    return size <= kAttrBytes;
}

// --- Spans and records ---------------------------------------------------------------------------------------------

bool OtlpMapping::span_moment(Moment& out) {
    if (!identifier(item_.trace, 16, "traceId", trace_)) return false;
    parent_.clear();
    if (!item_.parent.empty() && !identifier(item_.parent, 8, "parentSpanId", parent_)) return false;
    if (!moment_in_time(item_.end, "endTimeUnixNano", out.end)) return false;
    if (!moment_in_time(item_.start != 0 ? item_.start : item_.end, "startTimeUnixNano", out.start)) return false;
    if (!identifier(item_.span, 8, "spanId", span_)) return false;
    out.trace = trace_;
    out.span = span_;
    out.parent = parent_;
    out.failed = item_.failed;
    return true;
}

bool OtlpMapping::span_events() {
    Moment at;
    if (!span_moment(at)) return false;
    Findings& found = item_.found;
    // An exception that was caught within the span is no failure of it.
    if (at.failed && item_.has_exception && !found.has(Word::error)) found.set(Word::error, item_.exception);
    const std::string operation = operation_of(found, !at.parent.empty());
    if (!operation.empty()) {
        if (is_model_call(operation)) {
            if (!model_events(at, found, at.span)) return false;
        } else if (operation == "execute_tool") {
            tool_event(at, found);
        } else if (operation == "invoke_agent" || operation == "invoke_workflow") {
            task_event(at, found, operation == "invoke_agent");
        } else if (found.has(Word::eval)) {
            if (!evaluation(at, found, std::string(at.span) + ":e", true)) return false;
        } else {
            other_event(at, found, operation);
        }
    }
    for (std::size_t i = 0; i < below_count_; ++i) {
        if (!evaluation_of(below_[i], at, i)) return false;
    }
    return true;
}

bool OtlpMapping::evaluation_of(SpanEvent& event, const Moment& span, std::size_t number) {
    Moment at = span;
    at.start = 0;
    at.failed = false;
    if (!moment_in_time(event.time, "timeUnixNano", at.end)) return false;
    if (event.name != "gen_ai.evaluation.result") return true;
    for (const Word word : {Word::session, Word::agent, Word::agent_version}) {
        if (item_.found.has(word) && !event.found.has(word)) event.found.set(word, item_.found[word]);
    }
    // Whose span it is says the span, also of what is below it.
    if (item_.found.has(Word::tenant)) event.found.set(Word::tenant, item_.found[Word::tenant]);
    else event.found.drop(Word::tenant);
    return evaluation(at, event.found, std::string(span.span) + ":v" + std::to_string(number), false);
}

// Of log records, evaluations are read, and the details of an inference where no span carries them. The messages of the
// old generation repeat a whole conversation at every call: they are neither progress nor new, and are left out.
bool OtlpMapping::record_events() {
    const Findings& found = item_.found;
    std::string name(item_.event_name);
    if (name.empty() && found.has(Word::event_name) && pool[found[Word::event_name]].says_something()) {
        name = text_of(found[Word::event_name]);
    }
    if (!name.starts_with("gen_ai.")) return true;
    Moment at;
    if (!item_.trace.empty() && !identifier(item_.trace, 16, "traceId", trace_)) return false;
    if (!item_.span.empty() && !identifier(item_.span, 8, "spanId", span_)) return false;
    if (!moment_in_time(item_.end != 0 ? item_.end : item_.observed, "timeUnixNano", at.end)) return false;
    if (!item_.trace.empty()) at.trace = trace_;
    if (!item_.span.empty()) at.span = span_;
    if (name == "gen_ai.evaluation.result") return evaluation(at, found, record_identity(at, name), false);
    if (name == "gen_ai.client.inference.operation.details" && at.span.empty()) {
        return model_events(at, found, record_identity(at, name));
    }
    return true;
}

// A record has no id of its own: equal content at an equal time is the same record sent again.
std::string OtlpMapping::record_identity(const Moment& at, std::string_view name) const {
    std::string content;
    MsgpackWriter writer(content);
    writer.text(at.trace);
    writer.text(at.span);
    writer.integer(at.end);
    writer.text(name);
    for (std::size_t word = 0; word < kWords; ++word) {
        if (!item_.found.has(static_cast<Word>(word))) continue;
        writer.integer(static_cast<std::int64_t>(word));
        pool.write(writer, item_.found.value[word]);
    }
    for (const auto& [key, index] : item_.found.kept) {
        writer.text(key);
        pool.write(writer, index);
    }
    const auto digits = sha256_hex(content);
    return {digits.data(), 32};
}

std::string OtlpMapping::operation_of(const Findings& found, bool has_parent) const {
    const auto said = [&](Word word) {
        return found.has(word) && pool[found[word]].says_something() ? text_of(found[word]) : std::string();
    };
    if (std::string operation = said(Word::operation); !operation.empty()) return operation;
    if (const std::string kind = said(Word::openinference); !kind.empty()) return openinference(kind, has_parent);
    if (const std::string kind = said(Word::traceloop); !kind.empty()) return std::string(traceloop(kind));
    if (std::string kind = said(Word::request); !kind.empty()) return kind;
    if (said(Word::mcp) == "tools/call" || found.has(Word::tool)) return "execute_tool";
    if (found.has(Word::input_tokens) || found.has(Word::output_tokens) ||
        (found.has(Word::provider) && found.has(Word::model))) {
        return "chat";
    }
    return {};
}

// --- Events --------------------------------------------------------------------------------------------------------

// What no key of the schema can hold is told as short as it can be for the engine to refuse it.
void OtlpMapping::write_scalar(std::string& out, std::uint32_t index, std::size_t limit) const {
    const AnyValue& value = pool[index];
    MsgpackWriter writer(out);
    if (value.kind == AnyValue::Kind::text) writer.text(cut(value.text, limit));
    else if (value.kind == AnyValue::Kind::array || value.kind == AnyValue::Kind::map) writer.array(0);
    else pool.write(writer, index);
}

void OtlpMapping::put(std::string_view key, std::string_view text) {
    MsgpackWriter writer(out_);
    writer.text(key);
    writer.text(cut(text, kTextBytes));
    ++entries_;
}
void OtlpMapping::put(std::string_view key, std::int64_t value) {
    MsgpackWriter writer(out_);
    writer.text(key);
    writer.integer(value);
    ++entries_;
}
void OtlpMapping::put_flag(std::string_view key, bool value) {
    MsgpackWriter writer(out_);
    writer.text(key);
    writer.boolean(value);
    ++entries_;
}
void OtlpMapping::put_value(std::string_view key, std::uint32_t index) {
    MsgpackWriter(out_).text(key);
    write_scalar(out_, index, kTextBytes);
    ++entries_;
}
void OtlpMapping::put_found(std::string_view key, const Findings& found, Word word) {
    if (found.has(word)) put_value(key, found[word]);
}
void OtlpMapping::put_base(std::string_view key, const std::string& encoded) {
    if (encoded.empty()) return;
    MsgpackWriter(out_).text(key);
    out_ += encoded;
    ++entries_;
}

// What every event has; `task` where the span itself is one, else the parent is.
void OtlpMapping::event_open(const Moment& at, const Findings& found, std::string_view task) {
    opened_at_ = out_.size();
    entries_ = 0;
    put("v", 1);
    put("ts", at.end);
    if (!at.trace.empty()) put("trace", at.trace);
    if (found.has(Word::session)) put_value("session", found[Word::session]);
    else if (!base_session_.empty()) put_base("session", base_session_);
    else if (!at.trace.empty()) put("session", at.trace);
    if (!at.span.empty()) {
        put("span", at.span);
        if (!at.parent.empty()) put("parent_span", at.parent);
        const bool failed = at.failed || found.has(Word::error);
        put_flag("ok", !failed);
        if (failed) {
            const bool named = found.has(Word::error) && pool[found[Word::error]].says_something();
            if (named) put_value("error", found[Word::error]);
            else put("error", "error");
        }
        if (at.start > 0 && at.start <= at.end) put("duration_ns", at.end - at.start);
    }
    const std::string_view own = task.empty() ? at.parent : task;
    if (!own.empty()) put("task", own);
    if (found.has(Word::agent_version)) put_value("agent_version", found[Word::agent_version]);
    else put_base("agent_version", base_version_);
    if (found.has(Word::tenant)) put_value("tenant", found[Word::tenant]);
    else put_base("tenant", base_tenant_);
    if (found.has(Word::agent)) put_value("agent", found[Word::agent]);
    else put_base("agent", base_agent_);
}

void OtlpMapping::event_close(std::int64_t ts) {
    pending_.push_back({ts, opened_at_, out_.size() - opened_at_, entries_, source_});
}

void OtlpMapping::put_attrs(const Findings& found, std::uint32_t task_type) {
    const std::size_t count = found.kept.size() + (task_type != 0);
    if (count == 0) return;
    MsgpackWriter writer(out_);
    writer.text("attrs");
    writer.map(count);
    std::string joined;
    for (const auto& [key, index] : found.kept) {
        writer.text(key);
        if (pool[index].kind != AnyValue::Kind::array) {
            pool.write(writer, index);
            continue;
        }
        joined.clear();
        for (std::uint32_t child = pool[index].first; child != 0; child = pool[child].next) {
            if (child != pool[index].first) joined += ',';
            joined += pool[child].text;
        }
        writer.text(joined);
    }
    if (task_type != 0) {
        writer.text("task_type");
        write_scalar(out_, task_type, kTextBytes);
    }
    ++entries_;
}

bool OtlpMapping::read_model(const Findings& found, Model& out) {
    out.tokens.fill(-1);
    for (std::size_t i = 0; i < kTokens.size(); ++i) {
        if (found.has(kTokens[i]) && !amount(found[kTokens[i]], word_name(kTokens[i]), out.tokens[i])) return false;
    }
    if (found.has(Word::ttft) && !scaled(found[Word::ttft], "time to first chunk", out.ttft_ns)) return false;
    if (found.has(Word::total_tokens) && out.tokens[0] < 0 && out.tokens[1] < 0) {
        // Which tokens they were is unknown: the dearer kind bounds the cost.
        if (!amount(found[Word::total_tokens], "total_tokens", out.tokens[1])) return false;
        out.estimated = true;
    }
    return !found.has(Word::cost) || scaled(found[Word::cost], "cost", out.cost_nusd);
}

// What a call of a model did, and, where tokens or cost are known, what it cost.
bool OtlpMapping::model_events(const Moment& at, const Findings& found, std::string_view id) {
    Model model;
    if (!read_model(found, model)) return false;
    model_event(at, found, id, model, false);
    if (model.cost_nusd >= 0 || model.tokens[0] >= 0 || model.tokens[1] >= 0) model_event(at, found, id, model, true);
    return true;
}

void OtlpMapping::model_event(const Moment& at, const Findings& found, std::string_view id, const Model& model,
                              bool cost) {
    event_open(at, found, {});
    put("type", cost ? "token_cost_logged" : "model_returned");
    put("id", std::string(id) + (cost ? ":c" : ":e"));
    put_found("provider", found, Word::provider);
    put_found("model", found, Word::model);
    for (std::size_t i = 0; i < kTokens.size(); ++i) {
        if (model.tokens[i] >= 0) put(word_name(kTokens[i]), model.tokens[i]);
    }
    if (model.ttft_ns >= 0) put("ttft_ns", model.ttft_ns);
    if (cost && model.cost_nusd >= 0) put("cost_nusd", model.cost_nusd);
    if (cost && model.estimated) put_flag("cost_estimated", true);
    if (!cost) put_attrs(found, 0);
    event_close(at.end);
}

void OtlpMapping::put_hash(std::string_view name, const Findings& found, Word word) {
    if (!found.has(word)) return;
    const std::string_view text = canonical_.of_value(pool, found[word]);
    const auto digits = sha256_hex(text);
    put(std::string(name) + "_hash", std::string_view(digits.data(), 32));
    put(std::string(name) + "_len", static_cast<std::int64_t>(text.size()));
}

void OtlpMapping::tool_event(const Moment& at, const Findings& found) {
    event_open(at, found, {});
    put("type", "tool_returned");
    put("id", std::string(at.span) + ":e");
    const auto said = [&](Word word) { return found.has(word) && pool[found[word]].says_something(); };
    if (said(Word::tool)) {
        put_value("tool", found[Word::tool]);
    } else if (said(Word::entity)) {
        put_value("tool", found[Word::entity]);
    } else {
        std::string_view name = item_.name;
        if (name.starts_with("execute_tool ")) name.remove_prefix(13);
        put("tool", name);
    }
    put_found("call", found, Word::call);
    put_hash("args", found, Word::args);
    put_hash("result", found, Word::result);
    put_attrs(found, 0);
    event_close(at.end);
}

void OtlpMapping::task_event(const Moment& at, const Findings& found, bool agent) {
    event_open(at, found, at.span);
    put("type", at.failed || found.has(Word::error) ? "task_failed" : "task_completed");
    put("id", std::string(at.span) + ":e");
    const auto said = [&](Word word) { return found.has(word) && pool[found[word]].says_something(); };
    const std::uint32_t kind = said(Word::workflow) ? found[Word::workflow]
                               : said(Word::entity) ? found[Word::entity]
                                                    : 0;
    if (agent && !found.has(Word::agent) && base_agent_.empty()) {
        if (said(Word::entity)) put_value("agent", found[Word::entity]);
        else if (!item_.name.empty()) put("agent", item_.name);
    }
    put_attrs(found, kind);
    event_close(at.end);
}

bool OtlpMapping::evaluation(const Moment& at, const Findings& found, const std::string& id, bool attrs) {
    double score = 0.0;
    if (found.has(Word::score) && !number(found[Word::score], "score", score)) return false;
    event_open(at, found, {});
    put("type", "eval_logged");
    put("id", id);
    put_found("eval", found, Word::eval);
    put_found("label", found, Word::label);
    if (found.has(Word::score)) {
        MsgpackWriter writer(out_);
        writer.text("score");
        writer.real(score);
        ++entries_;
    }
    if (attrs) put_attrs(found, 0);
    event_close(at.end);
    return true;
}

void OtlpMapping::other_event(const Moment& at, const Findings& found, std::string_view operation) {
    event_open(at, found, {});
    put("type", operation == "retrieval" ? "retrieval_done" : operation);
    put("id", std::string(at.span) + ":e");
    put_found("model", found, Word::model);
    put_found("provider", found, Word::provider);
    put_attrs(found, 0);
    event_close(at.end);
}

}  // namespace argus::events
