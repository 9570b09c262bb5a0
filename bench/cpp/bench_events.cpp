// The event plane on one core, in batches of 256 events of about 200 bytes: decoding alone, the ledger on top, each
// auditor on top of both, and all of it. Before timing counts, every event must be accepted and nothing may be said.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "auditors/change_point.hpp"
#include "auditors/constraints.hpp"
#include "engine/event_plane.hpp"
#include "report.hpp"

namespace argus::auditors {
extern const AuditorDescriptor causal_auditor;
extern const AuditorDescriptor loop_auditor;
extern const AuditorDescriptor budget_auditor;
extern const AuditorDescriptor cost_auditor;
extern const AuditorDescriptor forecast_auditor;
extern const AuditorDescriptor outcome_auditor;
extern const AuditorDescriptor sequence_auditor;
extern const AuditorDescriptor hijack_auditor;
extern const AuditorDescriptor progress_auditor;
extern const AuditorDescriptor behaviour_auditor;
extern const AuditorDescriptor claims_auditor;
extern const AuditorDescriptor limits_auditor;
}  // namespace argus::auditors

namespace {

using namespace argus;
using bench::best_of;
using bench::report;

constexpr std::size_t kBatch = 256;
constexpr int kSessions = 8000;
constexpr int kTurns = 5;
constexpr double kBar = 200'000;

void put_text(std::string& out, std::string_view text) {
    out.push_back('\xd9');
    out.push_back(static_cast<char>(text.size()));
    out.append(text);
}

void put_number(std::string& out, std::int64_t value) {
    out.push_back('\xd3');
    for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

class Maker {
public:
    // One event: the keys of a recorded agent session, texts left out.
    void add(std::string_view type, const std::string& task, int salt, std::string_view text = {},
             std::string_view name = "get_most_recent_transactions") {
        if (count_ % kBatch == 0) frames.emplace_back("\xdc\x01", 2).push_back('\0');
        ++count_;
        std::string& out = frames.back();
        const bool tool = type == "tool_called";
        out.push_back(static_cast<char>(0x80 + (tool ? 13 : text.empty() ? 10 : 11)));
        put_text(out, "v");
        out.push_back(1);
        const std::pair<std::string_view, std::string> texts[] = {
            {"id", "event-" + std::to_string(count_)}, {"type", std::string(type)}, {"source", "bench"},
            {"session", task}, {"task", task}, {"agent", "banking"}, {"model", "a-model-of-2024"}};
        for (const auto& [key, value] : texts) {
            put_text(out, key);
            put_text(out, value);
        }
        put_text(out, "ts");
        put_number(out, 1'700'000'000'000'000'000 + count_ * 1'000'000);
        put_text(out, "seq");
        put_number(out, count_);
        if (!text.empty()) {
            put_text(out, "text");
            put_text(out, text);
        }
        if (!tool) return;
        put_text(out, "tool");
        put_text(out, name);
        put_text(out, "args_hash");
        put_text(out, "18017451e31ac61c" + std::to_string(salt));
        put_text(out, "result_hash");
        put_text(out, "faae4e37a8cf1704");
    }
    // A call with its tokens and its cost, as a gateway tells it.
    void add_call(int tenant, int session, std::int64_t input) {
        if (count_ % kBatch == 0) frames.emplace_back("\xdc\x01", 2).push_back('\0');
        ++count_;
        std::string& out = frames.back();
        out.push_back(static_cast<char>(0x80 + 12));
        put_text(out, "v");
        out.push_back(1);
        const std::pair<std::string_view, std::string> texts[] = {
            {"id", "event-" + std::to_string(count_)}, {"type", "token_cost_logged"}, {"source", "bench"},
            {"tenant", "tenant-" + std::to_string(tenant)}, {"session", "session-" + std::to_string(session)},
            {"model", "a-model-of-2024"}};
        for (const auto& [key, value] : texts) {
            put_text(out, key);
            put_text(out, value);
        }
        const std::pair<std::string_view, std::int64_t> numbers[] = {
            {"ts", 1'700'000'000'000'000'000 + count_ * 20'000'000}, {"seq", count_}, {"input_tokens", input},
            {"output_tokens", 100}, {"cost_nusd", 2500 * input + 1'000'000}};
        for (const auto& [key, value] : numbers) {
            put_text(out, key);
            put_number(out, value);
        }
    }
    // Whole batches only: the head of a frame states 256 events.
    void trim() {
        if (count_ % kBatch != 0) frames.pop_back();
    }
    std::vector<std::string> frames;

private:
    std::int64_t count_ = 0;
};

std::vector<std::string> make_frames() {
    Maker maker;
    for (int s = 0; s < kSessions; ++s) {
        const std::string number = std::to_string(s);
        const std::string task = "a-model-of-2024/banking/user_task_" + number + "/none#" + number;
        maker.add("task_started", task, 0);
        for (int turn = 0; turn < kTurns; ++turn) {
            maker.add("model_called", task, turn);
            maker.add("tool_called", task, turn);
        }
        maker.add("task_completed", task, 0);
    }
    maker.trim();
    return std::move(maker.frames);
}

// Tasks with a request out of 40, whose calls act: the dearest load of the auditor of hijacks.
std::vector<std::string> make_requests() {
    Maker maker;
    for (int s = 0; s < kSessions; ++s) {
        const std::string task = "a-model-of-2024/banking/request/none#" + std::to_string(s);
        std::string request;
        for (int i = 0; i < 16; ++i) request += "word" + std::to_string((s % 40) * (i + 3) % 97) + " ";
        maker.add("task_started", task, 0);
        maker.add("user_message", task, 0, request);
        for (int turn = 0; turn < kTurns; ++turn) {
            maker.add("model_called", task, turn);
            maker.add("tool_called", task, turn, {}, turn % 2 == 0 ? "send_money" : "read_file");
        }
        maker.add("task_completed", task, 0);
    }
    maker.trim();
    return std::move(maker.frames);
}

// 64 tenants, 50 calls a second in all, sessions of one call: the dearest load of the cost auditor.
std::vector<std::string> make_calls() {
    Maker maker;
    std::uint64_t draw = 1;
    for (int i = 0; i < 100'000; ++i) {
        draw = draw * 6364136223846793005ULL + 1442695040888963407ULL;
        maker.add_call(static_cast<int>(draw >> 58), i, 1000 + static_cast<std::int64_t>(draw >> 40 & 0xfff));
    }
    maker.trim();
    return std::move(maker.frames);
}

std::span<const std::byte> as_bytes(const std::string& frame) {
    return std::as_bytes(std::span(frame.data(), frame.size()));
}

std::size_t decode_all(const std::vector<std::string>& frames) {
    std::size_t accepted = 0;
    events::Decoded decoded;
    for (const std::string& frame : frames) {
        events::FrameDecoder decoder(as_bytes(frame), true);
        while (decoder.next(decoded)) accepted += decoded.reject == events::Reject::none ? 1U : 0U;
    }
    return accepted;
}

std::size_t book_all(const std::vector<std::string>& frames) {
    events::Ledger ledger{events::LedgerOptions{}};
    std::size_t fresh = 0;
    events::Decoded decoded;
    for (const std::string& frame : frames) {
        events::FrameDecoder decoder(as_bytes(frame), true);
        while (decoder.next(decoded)) {
            fresh += ledger.observe(decoded.event, 0, decoded.event.ts).id == events::IdStatus::fresh ? 1U : 0U;
        }
    }
    return fresh;
}

// Events accepted, 0 when anything was said.
std::size_t ingest_all(const std::vector<std::string>& frames, std::vector<engine::AuditorChoice> auditors,
                       std::vector<auditors::Constraint> constraints = {}) {
    engine::EventPlaneOptions options;
    options.constraints = std::move(constraints);
    options.auditors = std::move(auditors);
    options.ledger.default_cap.fill(1'000'000'000'000'000);
    engine::EventPlane plane(std::move(options));
    std::vector<Anomaly> said;
    std::size_t accepted = 0;
    for (const std::string& frame : frames) {
        accepted += plane.ingest(as_bytes(frame), 0, true, engine::kEventTime, said).accepted;
    }
    return said.empty() ? accepted : 0;
}

// One more row of each template beside the built-in ones, all of them kept; half of tasks, half of sessions.
std::vector<auditors::Constraint> one_of_each() {
    std::vector<auditors::Constraint> rows;
    for (const auto& t : auditors::templates()) {
        auditors::Constraint& c = rows.emplace_back();
        c.name = std::string("bench_") + t.name;
        c.kind = static_cast<auditors::Template>(rows.size() - 1);
        const bool lasting = t.deadline == auditors::Deadline::needed;
        c.scope = rows.size() % 2 == 0 || lasting ? ScopeKind::task : ScopeKind::session;
        c.activation.events = {"policy_violation"};
        c.activation.conditions = {{"tool", "delete"}};
        if (t.target) c.target.events = {"tool_called", "model_called"};
        if (c.kind == auditors::Template::succession || c.kind == auditors::Template::chain_succession) {
            c.target.events = {"user_feedback"};
        }
        if (c.kind == auditors::Template::existence || c.kind == auditors::Template::init) {
            c.activation = {{"task_started"}, {}};
        }
        if (c.kind == auditors::Template::exactly || c.kind == auditors::Template::end) {
            c.activation = {{"task_completed", "task_failed", "task_cancelled"}, {}};
        }
    }
    return rows;
}

// A finished task alone, on a stream as long as its memory reaches: learned, and both statistics read.
bool report_outcome_task() {
    constexpr std::uint32_t kTasks = 20'000;
    constexpr double kBarNs = 20'000;
    auditors::ChangePoint changes(64);
    auditors::History history;
    std::uint32_t state = 1;
    const double seconds = best_of(5, [&] {
        for (std::uint32_t t = 0; t < kTasks; ++t) {
            state = state * 1664525U + 1013904223U;
            const bool yes = state >> 24U < 180;
            changes.learn(history, {yes ? auditors::Success::yes : auditors::Success::no, state >> 20U & 7U,
                                    state >> 14U & 15U}, t);
            if (changes.mix(history).ln_bf > 1e3 || changes.outcome(history).ln_bf > 1e3) changes.restart(history);
        }
    });
    const double ns = seconds / kTasks * 1e9;
    return report("events/outcome_task", ns, "ns", "bar", ns / kBarNs, kBarNs, ns <= kBarNs);
}

}  // namespace

int main() {
    const std::vector<std::string> frames = make_frames();
    const std::vector<std::string> calls = make_calls();
    const std::vector<std::string> requests = make_requests();
    bool pass = true;
    const auto figure_of = [&](const std::vector<std::string>& stream, const char* name, auto&& work) {
        const std::size_t total = stream.size() * kBatch;
        if (work() != total) {
            std::fprintf(stderr, "bench_events: %s: events were refused or spoken of; nothing timed\n", name);
            pass = false;
            return;
        }
        const double rate = static_cast<double>(total) / best_of(3, [&] { (void)work(); });
        pass = report(name, rate, "{event}/s", "bar", rate / kBar, kBar, rate >= kBar) && pass;
    };
    const auto figure = [&](const char* name, auto&& work, bool of_calls = false) {
        figure_of(of_calls ? calls : frames, name, work);
    };
    figure("events/decode", [&] { return decode_all(frames); });
    figure("events/ledger", [&] { return book_all(frames); });
    figure("events/causal", [&] { return ingest_all(frames, {{&auditors::causal_auditor, {}}}); });
    figure("events/constraints",
           [&] { return ingest_all(frames, {{&auditors::causal_auditor, {}}}, one_of_each()); });
    figure("events/loop", [&] { return ingest_all(frames, {{&auditors::loop_auditor, {}}}); });
    std::vector<double> limits(21, 1e12);
    figure("events/limits", [&] { return ingest_all(frames, {{&auditors::limits_auditor, limits}}); });
    figure("events/budget", [&] { return ingest_all(frames, {{&auditors::budget_auditor, {}}}); });
    figure("events/cost", [&] { return ingest_all(frames, {{&auditors::cost_auditor, {}}}); });
    figure("events/forecast", [&] { return ingest_all(frames, {{&auditors::forecast_auditor, {}}}); });
    figure("events/calls/ledger", [&] { return ingest_all(calls, {}); }, true);
    figure("events/calls/cost", [&] { return ingest_all(calls, {{&auditors::cost_auditor, {}}}); }, true);
    figure("events/calls/forecast", [&] { return ingest_all(calls, {{&auditors::forecast_auditor, {}}}); }, true);
    figure("events/outcome", [&] { return ingest_all(frames, {{&auditors::outcome_auditor, {}}}); });
    pass = report_outcome_task() && pass;
    figure("events/sequence", [&] { return ingest_all(frames, {{&auditors::sequence_auditor, {}}}); });
    figure("events/claims", [&] { return ingest_all(frames, {{&auditors::claims_auditor, {}}}); });
    figure("events/hijack", [&] { return ingest_all(frames, {{&auditors::hijack_auditor, {}}}); });
    figure_of(requests, "events/requests/ledger", [&] { return ingest_all(requests, {}); });
    figure_of(requests, "events/requests/hijack",
              [&] { return ingest_all(requests, {{&auditors::hijack_auditor, {}}}); });
    figure("events/progress", [&] { return ingest_all(frames, {{&auditors::progress_auditor, {}}}); });
    figure("events/behaviour", [&] { return ingest_all(frames, {{&auditors::behaviour_auditor, {}}}); });
    figure("events/calls/behaviour", [&] { return ingest_all(calls, {{&auditors::behaviour_auditor, {}}}); }, true);
    figure("events/ingest", [&] { return ingest_all(frames, engine::default_auditors()); });
    return pass ? 0 : 1;
}
