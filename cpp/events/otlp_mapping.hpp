// From attributes to events: what the two readers of OTLP fill, item by item, and what is written of it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "events/any_value.hpp"
#include "events/otlp.hpp"
#include "events/otlp_words.hpp"

namespace argus::events {

// What a span, an event of a span, or a record says in attributes that the tables name.
struct Findings {
    std::uint64_t present = 0;                // one bit a Word
    std::array<std::uint32_t, kWords> value;  // in the pool
    std::array<std::uint8_t, kWords> rank;
    std::vector<std::pair<std::string_view, std::uint32_t>> kept;

    void clear() {
        present = 0;
        kept.clear();
    }
    [[nodiscard]] bool has(Word word) const noexcept { return (present >> static_cast<unsigned>(word) & 1U) != 0; }
    [[nodiscard]] std::uint32_t operator[](Word word) const noexcept { return value[static_cast<std::size_t>(word)]; }
    void drop(Word word) noexcept { present &= ~(std::uint64_t{1} << static_cast<unsigned>(word)); }
    void set(Word word, std::uint32_t index, std::uint8_t rank_of = 0) noexcept {
        present |= std::uint64_t{1} << static_cast<unsigned>(word);
        value[static_cast<std::size_t>(word)] = index;
        rank[static_cast<std::size_t>(word)] = rank_of;
    }
};
static_assert(kWords <= 64, "one bit a word");

struct SpanEvent {
    std::uint64_t time = 0;
    std::string_view name;
    Findings found;
};

// A span or a log record as the readers fill it. Ids are bytes in protobuf and digits in JSON.
struct OtlpItem {
    std::string_view trace, span, parent, name, event_name;
    std::uint64_t start = 0;
    std::uint64_t end = 0;       // of a record: its time
    std::uint64_t observed = 0;  // of a record
    bool failed = false;
    Findings found;
    bool has_exception = false;  // of a type that `exception` names
    std::uint32_t exception = 0;

    void clear() {
        trace = span = parent = name = event_name = {};
        start = end = observed = 0;
        failed = has_exception = false;
        exception = 0;
        found.clear();
    }
};

class OtlpMapping {
public:
    explicit OtlpMapping(std::string tenant_attribute) : tenant_attribute_(std::move(tenant_attribute)) {}

    void begin(std::size_t body_bytes, OtlpSignal signal, OtlpEncoding encoding);
    void end(OtlpLanes& lanes);
    void fail(std::string reason, std::string detail);

    // --- What the readers call ---------------------------------------------------------------------------------------
    void resource_begin() { resource_.clear(); }
    [[nodiscard]] bool of_resource(std::string_view key) const noexcept;
    void resource_attribute(std::string_view key, std::uint32_t value);
    void resource_end();
    OtlpItem& item_begin();
    void item_end();
    // What an attribute means; one that nobody knows is counted. `wanted` tells whether its value is to be read at all.
    [[nodiscard]] Meaning meaning(std::string_view key) noexcept;
    [[nodiscard]] static bool wanted(Meaning meaning) noexcept {
        return meaning.word != Word::content && meaning.word != Word::unknown;
    }
    void take(Findings& found, std::string_view key, Meaning meaning, std::uint32_t value);
    [[nodiscard]] static bool wants_event(std::string_view name) noexcept {
        return name == "exception" || name.starts_with("gen_ai.e");
    }
    [[nodiscard]] bool room_for_value() { return room(pool.size(), kOtlpValues, "values"); }
    [[nodiscard]] bool room_for_event() { return room(below_count_, kOtlpEvents, "events"); }
    [[nodiscard]] SpanEvent& event_begin();
    void event_end();
    void refuse(const char* reason, std::string detail);  // the item; the first cause stands

    AnyPool pool;
    std::string arena;  // of unescaped text; never grows beyond what begin() reserved
    OtlpBatch batch;
    OtlpSignal signal = OtlpSignal::traces;

private:
    struct Moment {
        std::string_view trace, span, parent;  // hexadecimal; empty = none
        std::int64_t start = 0;
        std::int64_t end = 0;
        bool failed = false;
    };
    struct Pending {  // an event in out_, without its source, which may still get a lane
        std::int64_t ts;
        std::size_t offset;
        std::size_t size;
        std::uint32_t entries;
        std::uint32_t source;
    };
    struct Hash {
        std::array<char, 32> digits;
        std::size_t length;
    };
    struct Model;

    // What is read of a value; false = refused.
    [[nodiscard]] bool amount(std::uint32_t index, std::string_view what, std::int64_t& out);
    [[nodiscard]] bool number(std::uint32_t index, std::string_view what, double& out);
    [[nodiscard]] bool scaled(std::uint32_t index, std::string_view what, std::int64_t& out);
    [[nodiscard]] bool identifier(std::string_view raw, std::size_t bytes, const char* what, std::string& out);
    [[nodiscard]] bool moment_in_time(std::uint64_t value, const char* what, std::int64_t& out);
    [[nodiscard]] std::string shown(std::uint32_t index) const;
    [[nodiscard]] std::string text_of(std::uint32_t index) const;
    [[nodiscard]] bool keepable(std::uint32_t index) const noexcept;

    [[nodiscard]] bool span_moment(Moment& out);
    [[nodiscard]] bool span_events();
    [[nodiscard]] bool record_events();
    [[nodiscard]] bool evaluation_of(SpanEvent& event, const Moment& span, std::size_t number);
    [[nodiscard]] bool evaluation(const Moment& at, const Findings& found, const std::string& id, bool attrs);
    [[nodiscard]] bool model_events(const Moment& at, const Findings& found, std::string_view id);
    [[nodiscard]] bool read_model(const Findings& found, Model& out);
    void model_event(const Moment& at, const Findings& found, std::string_view id, const Model& model, bool cost);
    void tool_event(const Moment& at, const Findings& found);
    void task_event(const Moment& at, const Findings& found, bool agent);
    void other_event(const Moment& at, const Findings& found, std::string_view operation);
    [[nodiscard]] std::string operation_of(const Findings& found, bool has_parent) const;
    [[nodiscard]] std::string record_identity(const Moment& at, std::string_view name) const;

    // Whether a refusal is still told in words: a body may hold millions.
    [[nodiscard]] bool words_wanted() const noexcept { return batch.samples.size() < kOtlpSamples; }
    [[nodiscard]] bool room(std::size_t used, std::size_t limit, const char* what);
    void write_scalar(std::string& out, std::uint32_t index, std::size_t limit) const;
    void event_open(const Moment& at, const Findings& found, std::string_view task);
    void event_close(std::int64_t ts);
    void put(std::string_view key, std::string_view text);
    void put(std::string_view key, std::int64_t value);
    void put_flag(std::string_view key, bool value);
    void put_value(std::string_view key, std::uint32_t index);
    void put_found(std::string_view key, const Findings& found, Word word);
    void put_base(std::string_view key, const std::string& encoded);
    void put_hash(std::string_view name, const Findings& found, Word word);
    void put_attrs(const Findings& found, std::uint32_t task_type);
    void count_refusal(const std::string& source);
    void write_frames(OtlpLanes& lanes);

    std::string tenant_attribute_;
    OtlpEncoding encoding_ = OtlpEncoding::json;
    // Of the resource: attributes by name, then what every event of it has.
    std::vector<std::pair<std::string_view, std::uint32_t>> resource_;
    std::uint32_t source_ = 0;
    std::vector<std::string> sources_;
    std::string base_session_, base_agent_, base_version_, base_tenant_;  // encoded; empty = none
    // Of the item.
    OtlpItem item_;
    std::vector<SpanEvent> below_;
    std::size_t below_count_ = 0;
    std::string trace_, span_, parent_;
    bool in_item_ = false;
    const char* refused_ = nullptr;
    std::string refusal_;
    std::size_t item_pending_ = 0;
    std::size_t item_offset_ = 0;
    // Of the body.
    std::string out_;
    std::vector<Pending> pending_;
    std::uint32_t entries_ = 0;
    std::size_t opened_at_ = 0;
    CanonicalJson canonical_;
};

void read_otlp_json(std::string_view body, OtlpMapping& mapping);
void read_otlp_protobuf(std::string_view body, OtlpMapping& mapping);

}  // namespace argus::events
