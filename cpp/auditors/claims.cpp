// Claims against facts: what agents say they did, held against what this host shows. Needs facts (host_facts.hpp): a
// session that no process of this host belongs to, and every replay, is counted as unverifiable and never spoken of.
//   file_absent     refuted: not there, and the folder that would hold it has not changed since `report_lag_s` before
//   file_size       refuted: smaller than claimed, and not touched since the claim
//   file_content    refuted: another SHA-256 than claimed, and not touched since the claim
//   file_gone       undecided: not there, but its folder has changed: removed since, or never written
//   file_untouched  undecided: there, but not touched for `report_lag_s` before the claim
//   exit_status     success was the session's last word, then its process failed
//   idle_work       works while it claims that nothing is under way
//   unreported_cpu, unreported_disk, unreported_children   a task is claimed, but no event accounts for the work
//   stalled         claims a task to be under way, with no event, no open call and no work
// A claim holds at the earlier of its ts and its arrival. "Touched" is the inode's change time, which no process can
// set: a file that somebody changed after the claim decides nothing, nor one that the session holds open for writing,
// nor a path that a later event writes, deletes or renames. A doubt is looked at twice before it is spoken of.
// Coverage: activity between two process tables is accounted for when a call was open, or an event (heartbeats aside)
// came within `grace_s`, or told of a duration that reaches so far. An open task alone accounts for nothing. Activity
// is processor time, bytes written to storage and processes started; it is settled after `late_s`.
// Method: exact comparison, thresholds as stated, no learning.  Cost: bench_events events/claims; 5 kB a session with
// processes here, 1.5 kB a claim that waits.
// Not promised: files on network or FUSE mounts, in containers or behind a final link; what was sent over the network
// (the kernel keeps no such sum by process); who wrote a file, once it is closed.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"

namespace argus::auditors {
namespace {

using events::hash_text;
using events::InlineText;
using events::kNone;
using events::Ledger;

enum Values : std::size_t {
    kSettle, kRecheck, kLag, kLooks, kExit, kGrace, kLate, kCpu, kBytes, kChildren, kStalled
};
constexpr Option kOptions[] = {
    {"settle_s", "s", 1, 0.1, 60, "from a claim to the first look at its file"},
    {"recheck_s", "s", 5, 0.1, 600, "from there to the second look, at a file that does not fit"},
    {"report_lag_s", "s", 60, 1, 86400, "how long after the deed an agent may claim a file"},
    {"looks_per_minute", "1", 600, 1, 1e6, "files of one session looked at; claims beyond are counted as shed"},
    {"exit_within_s", "s", 10, 0, 600, "from a claimed success to the exit that it is held against"},
    {"grace_s", "s", 5, 0, 60, "around an event, in which it accounts for activity"},
    {"late_s", "s", 120, 10, 240, "how late an event may tell of what took time"},
    {"unreported_cpu_s", "s", 30, 1, 1e6, "processor time without an event that is spoken of"},
    {"unreported_bytes", "By", 268435456, 1, 1e15, "bytes written to storage without an event that are spoken of"},
    {"unreported_children", "1", 20, 1, 1e6, "processes started without an event that are spoken of"},
    {"stalled_s", "s", 1800, 10, 1e6, "a claimed task without event, open call or work that is spoken of"},
};

constexpr std::uint32_t kSessions = 256;
constexpr std::uint32_t kClaims = 2048;
constexpr std::size_t kBuckets = 128;
constexpr Nanos kWidth = 2 * kSecond;
constexpr std::size_t kCalls = 16;
constexpr std::size_t kTasks = 16;
constexpr double kBurst = 100;                // looks of a session at once
constexpr Nanos kUnanswered = 60 * kSecond;   // a look that was lost, over a restart say
constexpr Nanos kGap = 30 * kSecond;          // between facts: what lies in it cannot be told apart
constexpr double kIdleShare = 0.001;          // of one processor
constexpr Nanos kAliveFor = 10 * kSecond;

// Lists of claims; a full table gives up the last first.
enum : std::size_t { kDoubted, kAsked, kWaiting, kClaimLists };

struct Claim {
    InlineText<64> id;
    InlineText<128> task;
    std::uint32_t session = kNone, generation = 0;
    std::uint32_t turn = 0;      // a newer claim on the same path has another
    std::uint16_t path_bytes = 0;
    std::uint8_t hashed = 0, doubted = 0;
    std::int64_t bytes = kAbsent;
    Digest digest{};
    Nanos told = 0;    // when it was so: the earlier of ts and arrival
    Nanos waits = 0;   // since
    std::array<char, kQuestionPath> path{};

    [[nodiscard]] std::string_view path_view() const noexcept { return {path.data(), path_bytes}; }
};

struct Bucket {
    double cpu_s = 0, write_bytes = 0, processes = 0;
    std::uint8_t accounted = 0, claimed = 0;
};

struct Amount {
    double cpu_s = 0, write_bytes = 0, processes = 0;
    void add(const Bucket& b) noexcept {
        cpu_s += b.cpu_s;
        write_bytes += b.write_bytes;
        processes += b.processes;
    }
};

enum Spoken : std::uint8_t { kSaidCpu = 1, kSaidDisk = 2, kSaidChildren = 4, kSaidStalled = 8 };

struct Session {
    InlineText<64> tenant;
    InlineText<128> session, agent;
    Nanos since = 0, last_fact = 0, last_event = 0;
    InlineText<64> last_id;
    // claims
    double looks = kBurst;
    Nanos looks_at = 0;
    std::uint32_t refuted = 0;
    std::array<std::uint32_t, 5> found{};  // doubtful claims by Finding
    std::uint8_t severity = 0;  // said of refuted claims, + 1
    // the last end of a task
    InlineText<64> end_id;
    InlineText<128> end_task;
    Nanos end_at = 0;
    std::uint8_t succeeded = 0, ended = 0;
    // what is claimed to be under way
    std::array<std::uint64_t, kTasks> tasks{};
    std::array<std::uint64_t, kCalls> calls{};
    std::array<Nanos, kCalls> call_since{};
    std::uint32_t next_task = 0, next_call = 0, open_tasks = 0, open_calls = 0;
    // activity
    Nanos last_mono = 0;  // of the fact before, and what it showed
    double last_cpu_s = 0, last_write_bytes = 0;
    std::uint64_t last_started = 0;
    double cpu_since_event = 0;
    Nanos accounted_until = 0;
    std::int64_t newest = 0, settled = 0;  // buckets by number: settled are those before
    std::array<Bucket, kBuckets> buckets{};
    Amount all, accounted;
    Amount spell;        // since an event last accounted for activity
    Nanos spell_since = 0;
    std::uint8_t spell_claimed = 0, said = 0;
};

enum class Finding : std::uint8_t { absent, size, content, gone, untouched, confirmed, undecided, blind };

[[nodiscard]] bool refutes(Finding f) noexcept {
    return f == Finding::absent || f == Finding::size || f == Finding::content;
}
[[nodiscard]] bool doubts(Finding f) noexcept { return f <= Finding::untouched; }

// What one look at a file says of the claim.
[[nodiscard]] Finding judge(const Claim& claim, const FileAnswer& found, Nanos lag) noexcept {
    const bool decided = found.exists && found.blind == Blind::large;  // by its size alone
    if (found.blind != Blind::none && !decided) return Finding::blind;
    if (!found.exists) return found.changed < claim.told - lag ? Finding::absent : Finding::gone;
    if (found.read && found.same) return Finding::confirmed;
    const bool smaller = claim.bytes != kAbsent && found.bytes < claim.bytes;
    const bool other = found.read && !found.same;
    if (!smaller && !other) {
        if (claim.hashed != 0) return decided ? Finding::blind : Finding::undecided;  // it changed while it was read
        return found.changed < claim.told - lag ? Finding::untouched : Finding::confirmed;
    }
    if (found.being_written || found.changed > claim.told) return Finding::undecided;
    return smaller ? Finding::size : Finding::content;
}

[[nodiscard]] bool is_power_of_two(std::uint32_t n) noexcept { return n != 0 && (n & (n - 1)) == 0; }

[[nodiscard]] int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// Raw, or in hexadecimal.
[[nodiscard]] bool parse_digest(std::string_view text, Digest& out) noexcept {
    if (text.size() == out.size()) {
        std::copy_n(text.begin(), out.size(), out.begin());
        return true;
    }
    if (text.size() != 2 * out.size()) return false;
    for (std::size_t i = 0; i < out.size(); ++i) {
        const int high = hex_digit(text[2 * i]);
        const int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return true;
}

[[nodiscard]] bool tells_of_work(EventType type) noexcept {
    switch (type) {
        case EventType::heartbeat:
        case EventType::source_started:
        case EventType::source_stopped:
        case EventType::price_table_changed:
        case EventType::lockdown_set:
        case EventType::lockdown_cleared:
        case EventType::kill_set:
        case EventType::kill_cleared: return false;
        default: return true;
    }
}

[[nodiscard]] std::string seconds(Nanos span) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f s", static_cast<double>(span) * 1e-9);
    return text;
}

class Claims final : public Auditor {
public:
    explicit Claims(std::span<const double> v)
        : settle_(nanos(v[kSettle])), recheck_(nanos(v[kRecheck])), lag_(nanos(v[kLag])),
          looks_per_ns_(v[kLooks] / 60e9), exit_within_(nanos(v[kExit])), grace_(nanos(v[kGrace])),
          late_(nanos(v[kLate])), cpu_s_(v[kCpu]), bytes_(v[kBytes]), children_(v[kChildren]),
          stalled_(nanos(v[kStalled])), sessions_(kSessions), claims_(kClaims) {}

    void on_event(const Event& event, Ledger& ledger, Emit&) override {
        const bool file = event.type == EventType::file_written || event.type == EventType::file_deleted;
        if (!file && sessions_.size() == 0) return;
        const std::uint32_t i = event.session.empty() ? kNone : find(event.session);
        const Nanos now = ledger.sighting().now;
        if (file) take_file(event, i, now);
        if (i == kNone || !tells_of_work(event.type)) return;
        note(sessions_[i], event, now);
    }

    void on_tick(Nanos now, Ledger&, Emit& emit) override {
        send_due(kWaiting, settle_, now, emit);
        send_due(kDoubted, recheck_, now, emit);
        for (std::uint32_t i = claims_.oldest(kAsked); i != kNone && now - claims_[i].waits > kUnanswered;
             i = claims_.oldest(kAsked)) {
            claims_.erase(i);
            ++counts_.shed;
        }
    }

    void on_fact(const HostFact& fact, Nanos now, Ledger& ledger, Emit& emit) override {
        if (const auto* found = std::get_if<FileAnswer>(&fact)) return looked(*found, now, ledger, emit);
        if (const auto* present = std::get_if<Presence>(&fact)) return met(present->session, now);
        if (const auto* used = std::get_if<Activity>(&fact)) return worked(*used, now, ledger, emit);
        if (const auto* end = std::get_if<Ending>(&fact)) return ended(*end, now, ledger, emit);
    }

    void rearm(const Scope& scope, Ledger&) override {
        for (std::uint32_t i = sessions_.oldest(); i != kNone; i = sessions_.newer(i)) {
            Session& s = sessions_[i];
            const bool within = scope.kind == ScopeKind::host ||
                                (scope.kind == ScopeKind::tenant && s.tenant == scope.id) ||
                                (scope.kind == ScopeKind::agent && s.agent == scope.id) ||
                                (scope.kind == ScopeKind::session && s.session == scope.id);
            if (within) s.severity = 0, s.refuted = 0, s.found = {}, s.said = 0;
        }
    }

    void report(ClaimReport& out) const override {
        out.counts = counts_;
        for (std::uint32_t i = sessions_.newest(); i != kNone; i = sessions_.older(i)) {
            const Session& s = sessions_[i];
            Amount all = s.all;
            Amount accounted = s.accounted;
            for (std::int64_t n = s.settled; s.newest != 0 && n <= s.newest; ++n) {
                const Bucket& b = s.buckets[slot(n)];
                all.add(b);
                if (b.accounted != 0) accounted.add(b);
            }
            out.agents.push_back({s.session.str(), s.agent.str(), {all.cpu_s, accounted.cpu_s},
                                  {all.write_bytes, accounted.write_bytes}, {all.processes, accounted.processes},
                                  s.since, s.ended == 0 && seen_ - s.last_fact < kAliveFor});
        }
    }

    void save(Writer& writer) const override {
        writer.pod(counts_);
        writer.pod(turn_);
        writer.pod(seen_);
        sessions_.save(writer);
        claims_.save(writer);
    }
    void load(Reader& reader) override {
        counts_ = reader.pod<ClaimCounts>();
        turn_ = reader.pod<std::uint32_t>();
        seen_ = reader.pod<Nanos>();
        sessions_.load(reader);
        claims_.load(reader);
        for (std::uint32_t i = sessions_.oldest(); i != kNone; i = sessions_.newer(i)) {
            const Session& s = sessions_[i];
            const bool whole = s.settled <= s.newest + 1 && s.newest - s.settled < std::int64_t{kBuckets} &&
                               s.open_tasks <= kTasks && s.open_calls <= kCalls;
            if (!whole) throw CodecError("state: an agent's activity is out of place");
        }
    }

private:
    [[nodiscard]] static Nanos nanos(double s) noexcept { return static_cast<Nanos>(s * 1e9); }
    [[nodiscard]] static std::size_t slot(std::int64_t number) noexcept {
        return static_cast<std::uint64_t>(number) % kBuckets;
    }

    [[nodiscard]] std::uint32_t find(std::string_view session) const noexcept {
        return sessions_.find(hash_text(session), [&](const Session& s) { return s.session == session; });
    }

    void met(std::string_view session, Nanos now) noexcept {
        if (session.empty()) return;
        seen_ = std::max(seen_, now);
        std::uint32_t i = find(session);
        if (i != kNone && sessions_[i].ended == 0) return;
        if (i != kNone) sessions_.erase(i);  // the name of one that ended is used again
        i = sessions_.create(hash_text(session), 0, [](std::uint32_t) {});
        Session& s = sessions_[i];
        s = Session{};
        s.session.assign(session);
        s.since = s.last_fact = s.last_event = s.looks_at = now;
    }

    // --- What is claimed --------------------------------------------------------------------------------------------

    void note(Session& s, const Event& event, Nanos now) noexcept {
        if (!event.agent.empty()) s.agent.assign(event.agent);
        s.tenant.assign(event.tenant);
        s.last_id.assign(event.id);
        s.last_event = now;
        s.cpu_since_event = 0;
        s.said &= static_cast<std::uint8_t>(~kSaidStalled);
        account(s, now - grace_, now + grace_);
        if (event.duration_ns > 0) {
            const Nanos end = std::clamp(event.ts, now - late_, now);
            account(s, end - std::min(event.duration_ns, late_) - grace_, end);
        }
        switch (event.type) {
            case EventType::task_started: return start_task(s, event, now);
            case EventType::task_completed:
            case EventType::task_failed:
            case EventType::task_cancelled: return end_task(s, event, now);
            case EventType::tool_called:
            case EventType::model_called: return open_call(s, event, now);
            case EventType::tool_returned:
            case EventType::model_returned: return close_call(s, event, now);
            default: return;
        }
    }

    static void start_task(Session& s, const Event& event, Nanos now) noexcept {
        const std::uint64_t name = hash_text(event.task) | 1U;
        if (std::find(s.tasks.begin(), s.tasks.end(), name) != s.tasks.end()) return;
        std::uint64_t& place = s.tasks[s.next_task++ % kTasks];
        s.open_tasks += place == 0 ? 1U : 0U;
        place = name;
        if (s.newest == now / kWidth) s.buckets[slot(s.newest)].claimed = 1;
    }

    static void end_task(Session& s, const Event& event, Nanos now) noexcept {
        const auto at = std::find(s.tasks.begin(), s.tasks.end(), hash_text(event.task) | 1U);
        if (at != s.tasks.end()) {
            *at = 0;
            --s.open_tasks;
        }
        s.end_at = now;
        s.end_id.assign(event.id);
        s.end_task.assign(event.task);
        s.succeeded = event.type == EventType::task_completed && event.ok != 0 ? 1 : 0;
    }

    [[nodiscard]] static std::uint64_t call_name(const Event& event) noexcept {
        const bool tool = event.type == EventType::tool_called || event.type == EventType::tool_returned;
        const std::string_view name = tool ? event.tool : event.model;
        return (event.call.empty() ? hash_text(name, tool ? 1 : 2) : hash_text(event.call, 3)) | 1U;
    }

    static void open_call(Session& s, const Event& event, Nanos now) noexcept {
        if (!event.result_hash.empty()) return;  // told when it was over
        const std::size_t at = s.next_call++ % kCalls;
        s.open_calls += s.calls[at] == 0 ? 1U : 0U;
        s.calls[at] = call_name(event);
        s.call_since[at] = now;
    }

    void close_call(Session& s, const Event& event, Nanos now) noexcept {
        const std::uint64_t name = call_name(event);
        for (std::size_t n = 0; n < kCalls; ++n) {  // oldest first
            const std::size_t at = (s.next_call + n) % kCalls;
            if (s.calls[at] != name) continue;
            s.calls[at] = 0;
            --s.open_calls;
            account(s, s.call_since[at], now);
            return;
        }
    }

    // --- Files -------------------------------------------------------------------------------------------------------

    void take_file(const Event& event, std::uint32_t session, Nanos now) noexcept {
        if (event.ok == 0) return;  // says itself that it failed
        const std::uint64_t hash = hash_text(event.path);
        const std::uint32_t known = claims_.find(hash, [&](const Claim& c) { return c.path_view() == event.path; });
        if (known != kNone) ++counts_.withdrawn;
        const bool written = event.type == EventType::file_written && event.op != "delete" && event.op != "rename";
        Blind blind = Blind::none;
        if (session == kNone) {
            blind = Blind::no_process;
        } else if (event.path.empty() || event.path.front() != '/' || event.path.size() >= kQuestionPath ||
                   event.path.find('\0') != std::string_view::npos) {
            blind = Blind::path;
        }
        if (written) ++counts_.files;
        if (written && blind != Blind::none) ++counts_.unverifiable[static_cast<std::size_t>(blind)];
        const bool room = written && blind == Blind::none &&
                          (known != kNone || afford(sessions_[session], now));
        if (written && blind == Blind::none && !room) ++counts_.shed;
        if (!room) {
            if (known != kNone) claims_.erase(known);
            return;
        }
        std::uint32_t i = known;
        if (i == kNone) i = claims_.create(hash, kWaiting, [this](std::uint32_t) { ++counts_.shed; });
        else claims_.move(i, kWaiting);
        fill(claims_[i], event, session, now);
    }

    [[nodiscard]] bool afford(Session& s, Nanos now) const noexcept {
        const auto passed = static_cast<double>(std::max<Nanos>(0, now - s.looks_at));
        s.looks = std::min(kBurst, s.looks + passed * looks_per_ns_);
        s.looks_at = now;
        if (s.looks < 1) return false;
        s.looks -= 1;
        return true;
    }

    void fill(Claim& claim, const Event& event, std::uint32_t session, Nanos now) noexcept {
        claim = Claim{};
        claim.id.assign(event.id);
        std::copy(event.path.begin(), event.path.end(), claim.path.begin());
        claim.path_bytes = static_cast<std::uint16_t>(event.path.size());
        claim.task.assign(event.task);
        claim.session = session;
        claim.generation = sessions_.generation(session);
        claim.turn = ++turn_;
        claim.bytes = event.bytes;
        claim.hashed = parse_digest(event.sha256, claim.digest) ? 1 : 0;
        claim.told = std::min(event.ts, now);
        claim.waits = now;
    }

    void send_due(std::size_t list, Nanos after, Nanos now, Emit& emit) {
        for (std::uint32_t i = claims_.oldest(list); i != kNone && now - claims_[i].waits >= after;
             i = claims_.oldest(list)) {
            if (!emit.ask(question(i))) return;
            claims_[i].waits = now;
            claims_.move(i, kAsked);
        }
    }

    [[nodiscard]] FileQuestion question(std::uint32_t i) const noexcept {
        const Claim& claim = claims_[i];
        FileQuestion q;
        q.claim = i;
        q.turn = claim.turn;
        q.session = sessions_.holds(claim.session, claim.generation) ? sessions_.hash(claim.session) : 0;
        q.bytes = claim.bytes;
        q.hashed = claim.hashed != 0;
        q.digest = claim.digest;
        q.path_bytes = claim.path_bytes;
        std::copy_n(claim.path.begin(), claim.path_bytes, q.path.begin());
        return q;
    }

    void looked(const FileAnswer& found, Nanos now, const Ledger& ledger, Emit& emit) {
        const std::uint32_t i = found.claim;
        const bool stands = i < claims_.capacity() && claims_.holds(i, claims_.generation(i)) &&
                            claims_[i].turn == found.turn && claims_.list_of(i) == kAsked;
        if (!stands) return;  // withdrawn while it was looked at
        Claim& claim = claims_[i];
        const Finding finding = judge(claim, found, lag_);
        if (doubts(finding) && claim.doubted == 0) {
            claim.doubted = 1;
            claim.waits = now;
            claims_.move(i, kDoubted);
            return;
        }
        if (finding == Finding::confirmed) ++counts_.confirmed;
        else if (refutes(finding)) ++counts_.refuted;
        else if (finding == Finding::blind) ++counts_.unverifiable[static_cast<std::size_t>(found.blind)];
        else ++counts_.undecided;
        if (doubts(finding) && sessions_.holds(claim.session, claim.generation)) {
            doubt(sessions_[claim.session], claim, found, finding, now, ledger, emit);
        }
        claims_.erase(i);
    }

    void doubt(Session& s, const Claim& claim, const FileAnswer& found, Finding finding, Nanos now,
               const Ledger& ledger, Emit& emit) const {
        Verdict verdict;
        const std::uint32_t count = ++s.found[static_cast<std::size_t>(finding)];
        if (refutes(finding)) {
            Facts facts;
            facts.rule = Facts::Rule::claim;
            facts.repeats = ++s.refuted;
            verdict = emit.judge(facts, ledger, now);
        }
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(verdict.severity) + 1U);
        const bool rises = refutes(finding) && level > s.severity;
        if (!rises && !is_power_of_two(count)) return;
        if (refutes(finding)) s.severity = std::max(s.severity, level);
        Anomaly a = about(s, now, claim.task.view());
        a.since = claim.told;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence = {claim.id.str()};
        word(a, claim, found, finding);
        a.message += told(claim);
        if (count > 1) a.message += "; so with " + std::to_string(count) + " claims of this session";
        emit.say(std::move(a));
    }

    [[nodiscard]] static std::string told(const Claim& claim) {
        std::string text = "; event '" + claim.id.str() + "' claims it written";
        if (claim.bytes != kAbsent) text += " with " + std::to_string(claim.bytes) + " bytes";
        return claim.hashed != 0 ? text + " and a SHA-256" : text;
    }

    static void word(Anomaly& a, const Claim& claim, const FileAnswer& found, Finding finding) {
        const std::string path = "'" + std::string(claim.path_view().substr(0, 200)) + "'";
        const std::string ago = seconds(std::max<Nanos>(0, claim.told - found.changed));
        a.value = found.exists ? static_cast<double>(found.bytes) : 0;
        if (claim.bytes != kAbsent) a.expected = static_cast<double>(claim.bytes);
        a.direction = Direction::down;
        switch (finding) {
            case Finding::absent:
                a.series = "claims.file_absent";
                a.message = "no file " + path + ", and its folder has not changed since " + ago +
                            " before the claim";
                return;
            case Finding::gone:
                a.series = "claims.file_gone";
                a.message = "no file " + path + ": removed without an event, or never written";
                return;
            case Finding::size:
                a.series = "claims.file_size";
                a.message = path + " holds " + std::to_string(found.bytes) + " bytes, not touched since the claim";
                return;
            case Finding::content:
                a.series = "claims.file_content";
                a.direction = Direction::none;
                a.message = path + " has another content than claimed, not touched since the claim";
                return;
            default:
                a.series = "claims.file_untouched";
                a.direction = Direction::none;
                a.message = path + " has not been touched since " + ago + " before the claim";
        }
    }

    [[nodiscard]] static Anomaly about(const Session& s, Nanos now, std::string_view task) {
        Anomaly a;
        a.ts = now;
        a.family = Family::behavioural;
        a.detector = "claims";
        a.scope = narrowest_scope(s.tenant.view(), s.agent.view(), s.session.view(), {});
        a.scope.task = task;
        a.bits = kDeterministicBits;
        return a;
    }

    // --- Activity ----------------------------------------------------------------------------------------------------

    static void account(Session& s, Nanos from, Nanos to) noexcept {
        s.accounted_until = std::max(s.accounted_until, to);
        if (s.newest == 0) return;
        const std::int64_t last = std::min(s.newest, to / kWidth);
        for (std::int64_t n = std::max(s.settled, from / kWidth); n <= last; ++n) s.buckets[slot(n)].accounted = 1;
    }

    void worked(const Activity& now_used, Nanos now, const Ledger& ledger, Emit& emit) {
        if (find(now_used.session) == kNone) met(now_used.session, now);
        const std::uint32_t i = find(now_used.session);
        if (i == kNone || sessions_[i].ended != 0) return;
        seen_ = std::max(seen_, now);
        Session& s = sessions_[i];
        sessions_.touch(i);
        Bucket used;
        used.cpu_s = now_used.cpu_s - s.last_cpu_s;
        used.write_bytes = now_used.write_bytes - s.last_write_bytes;
        used.processes = static_cast<double>(now_used.started) - static_cast<double>(s.last_started);
        const Nanos span = s.last_mono == 0 ? std::max<Nanos>(0, now - s.since) : now_used.mono - s.last_mono;
        const bool whole = std::isfinite(used.cpu_s) && std::isfinite(used.write_bytes) && used.cpu_s >= 0 &&
                           used.write_bytes >= 0 && used.processes >= 0 && span >= 0 && span <= kGap;
        s.last_mono = now_used.mono;
        s.last_cpu_s = now_used.cpu_s;
        s.last_write_bytes = now_used.write_bytes;
        s.last_started = now_used.started;
        s.last_fact = now;
        advance(s, now, ledger, emit);
        if (!whole) return;  // begun anew, or nobody looked for long
        s.cpu_since_event += used.cpu_s;
        spread(s, used, now - span, now);
        if (s.open_tasks > 0 && s.open_calls == 0) look_for_stall(s, now, emit);
    }

    // Opens the buckets up to now and settles those that no event can tell of any longer.
    void advance(Session& s, Nanos now, const Ledger& ledger, Emit& emit) {
        const std::int64_t number = now / kWidth;
        if (s.newest == 0) s.settled = s.newest = number - 1, s.buckets = {};
        const std::int64_t limit = (now - late_) / kWidth;
        if (number - s.newest >= std::int64_t{kBuckets}) {  // nobody looked for long: nothing lies between
            while (s.settled <= s.newest) settle(s, ledger, emit);
            s.settled = s.newest = number - 1;
            s.buckets = {};
        }
        while (s.newest < number) {
            if (s.newest + 1 - s.settled >= std::int64_t{kBuckets}) settle(s, ledger, emit);
            Bucket& fresh = s.buckets[slot(++s.newest)];
            fresh = Bucket{};
            fresh.accounted = s.open_calls > 0 || s.newest * kWidth <= s.accounted_until ? 1 : 0;
            fresh.claimed = s.open_tasks > 0 ? 1 : 0;
        }
        while (s.settled < limit && s.settled <= s.newest) settle(s, ledger, emit);
    }

    static void spread(Session& s, const Bucket& used, Nanos from, Nanos to) noexcept {
        const std::int64_t last = s.newest;
        const std::int64_t first = std::clamp(from / kWidth, std::max(s.settled, last - 15), last);
        const Nanos span = std::max<Nanos>(1, to - std::max(from, first * kWidth));
        for (std::int64_t n = first; n <= last; ++n) {
            const Nanos begin = n == first ? std::max(from, n * kWidth) : n * kWidth;
            const Nanos end = n == last ? to : (n + 1) * kWidth;
            const double part = first == last ? 1.0 : static_cast<double>(end - begin) / static_cast<double>(span);
            Bucket& b = s.buckets[slot(n)];
            b.cpu_s += part * used.cpu_s;
            b.write_bytes += part * used.write_bytes;
            b.processes += part * used.processes;
        }
    }

    void settle(Session& s, const Ledger&, Emit& emit) {
        const std::int64_t number = s.settled++;
        const Bucket& b = s.buckets[slot(number)];
        s.all.add(b);
        if (b.accounted != 0) {
            s.accounted.add(b);
            s.spell = Amount{};
            s.spell_since = 0;
            s.spell_claimed = 0;
            s.said &= kSaidStalled;
            return;
        }
        if (s.spell_since == 0) s.spell_since = number * kWidth;
        s.spell_claimed |= b.claimed;
        s.spell.add(b);
        const Nanos end = (number + 1) * kWidth;
        unreported(s, kSaidCpu, s.spell.cpu_s, cpu_s_, "cpu", end, emit);
        unreported(s, kSaidDisk, s.spell.write_bytes, bytes_, "disk", end, emit);
        unreported(s, kSaidChildren, s.spell.processes, children_, "children", end, emit);
    }

    static void unreported(Session& s, std::uint8_t bit, double amount, double bar, const char* kind, Nanos end,
                           Emit& emit) {
        // One that never told of anything claims nothing: its coverage says it all.
        if (amount < bar || (s.said & bit) != 0 || s.last_id.empty()) return;
        s.said |= bit;
        Anomaly a = about(s, end, {});
        a.since = s.spell_since;
        a.value = amount;
        a.expected = 0;
        a.upper = bar;
        a.direction = Direction::up;
        a.evidence = {s.last_id.str()};
        a.series = s.spell_claimed != 0 ? std::string("claims.unreported_") + kind : "claims.idle_work";
        char text[160];
        std::snprintf(text, sizeof text, "%.1f s of processor time, %.1f MB written and %.0f processes started in %s",
                      s.spell.cpu_s, s.spell.write_bytes * 1e-6, s.spell.processes,
                      seconds(end - s.spell_since).c_str());
        a.message = std::string(text) + (s.spell_claimed != 0 ? " that no event accounts for, while a task is claimed"
                                                              : " while it claims that nothing is under way");
        emit.say(std::move(a));
    }

    void look_for_stall(Session& s, Nanos now, Emit& emit) const {
        const Nanos silent = now - std::max(s.last_event, s.since);
        const double idle = kIdleShare * static_cast<double>(silent) * 1e-9;
        if (silent < stalled_ || s.cpu_since_event > idle || (s.said & kSaidStalled) != 0) return;
        s.said |= kSaidStalled;
        Anomaly a = about(s, now, {});
        a.series = "claims.stalled";
        a.since = s.last_event;
        a.value = s.cpu_since_event;
        a.lower = idle;
        a.direction = Direction::down;
        if (!s.last_id.empty()) a.evidence = {s.last_id.str()};
        char used[32];
        std::snprintf(used, sizeof used, "%.2f", s.cpu_since_event);
        a.message = "claims " + std::to_string(s.open_tasks) + " tasks to be under way, but for " + seconds(silent) +
                    " there was no event, no open call, and " + used + " s of processor time";
        emit.say(std::move(a));
    }

    // --- The end -----------------------------------------------------------------------------------------------------

    void ended(const Ending& end, Nanos now, const Ledger& ledger, Emit& emit) {
        const std::uint32_t i = find(end.session);
        if (i == kNone || sessions_[i].ended != 0) return;
        Session& s = sessions_[i];
        s.ended = 1;
        // SIGINT, SIGTERM and the like, also as a shell tells them (128 + n), come from without and refute nothing.
        const int signal = end.signal != 0 ? end.signal : end.code > 128 ? end.code - 128 : 0;
        constexpr int kFaults[] = {4, 6, 7, 8, 11, 31};  // ILL, ABRT, BUS, FPE, SEGV, SYS
        const bool fault = std::find(std::begin(kFaults), std::end(kFaults), signal) != std::end(kFaults);
        const bool failed = signal != 0 && signal <= 64 ? fault : end.code != 0;
        const bool claimed = s.succeeded != 0 && s.open_tasks == 0 && now - s.end_at <= exit_within_;
        if (!failed || !claimed || end.stopped) return;
        Facts facts;
        facts.rule = Facts::Rule::claim;
        facts.ended = true;
        facts.repeats = s.refuted + 1;
        const Verdict verdict = emit.judge(facts, ledger, now);
        Anomaly a = about(s, now, s.end_task.view());
        a.series = "claims.exit_status";
        a.since = s.end_at;
        a.value = end.signal != 0 ? 128 + end.signal : end.code;
        a.expected = 0;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence = {s.end_id.str()};
        a.message = "task '" + s.end_task.str() + "' was claimed completed, and " + seconds(now - s.end_at) +
                    " later its process ended with " +
                    (end.signal != 0 ? "signal " + std::to_string(end.signal) : "status " + std::to_string(end.code));
        emit.say(std::move(a));
    }

    Nanos settle_, recheck_, lag_;
    double looks_per_ns_;
    Nanos exit_within_, grace_, late_;
    double cpu_s_, bytes_, children_;
    Nanos stalled_;
    events::Slab<Session> sessions_;
    events::Slab<Claim, kClaimLists> claims_;
    ClaimCounts counts_;
    std::uint32_t turn_ = 0;
    Nanos seen_ = 0;  // the newest fact
};

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Claims>(values); }

}  // namespace

extern const AuditorDescriptor claims_auditor;
const AuditorDescriptor claims_auditor{
    {"claims", "what agents say they did, held against files, exit status and the work of their processes",
     "exact comparison with inode, content digest, exit status and process sums; thresholds as stated", kOptions},
    make};

}  // namespace argus::auditors
