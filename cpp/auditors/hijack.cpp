// Calls that do not fit the user's request: what a task does after an instruction that was not the user's (an injected
// text, a swapped page) took over. Only calls that act are judged: those that change something or leave the house.
//   unasked_call  score = -ln P(k-th distinct call of this tool | request) - ln P(arguments new | tool, request), above
//                 all but 4 % of the agent's own tasks; said at the call, once a task
//   untrusted     for a day more than a quarter of the tasks were spoken of: the agent is learned anew, in silence
// Both laws are weighted counts over past tasks with like requests, weight exp(6 (cos - 1)) on squared-idf words, with
// one pseudo-task of the agent's own law (first probability at least 0.1). The bar is conformal (Vovk et al. 2005): the
// rank of a task's largest score among those of the agent's last 256 tasks, each scored by what all others taught and
// scored again as more is known. The share is below 5 % because a new model's tasks are a little less like the old.
// An agent is (tenant, agent of the request's event). The request is the text of the first user_message seen of a task;
// of it only the set of its words is kept, each hashed to one of 2,048 numbers, 96 words at most. Text is opt-in: an
// agent whose requests carry none, or whose requests are all new (fewer than two like tasks), is not judged at all.
// A task that was spoken of teaches nothing and enters the bar at the bar's own height. Tasks that failed teach like
// those that completed: to fail is not to depart from the request. Cancelled ones teach nothing.
// Which tools act is decided by name: a first word such as get, read, search or list means that it reads, unless the
// name has web, url, http, site, fetch or download in it. Options switch either rule off.
// Cost: bench_events events/hijack; 0.9 KB a live task, 30 KB an agent, 0.9 KB a kind of request; bounded tables.
// Not promised: a hijack that stays within what such requests usually do; one that only reads; one whose request was
// never seen; silence about an agent with a long tail of rare acts (spoken of up to three times as often as stated,
// until the bar has risen); an attack present in every task from the first day on, which is normal here.

#include <algorithm>
#include <array>
#include <bitset>
#include <cmath>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"
#include "base/arithmetic.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::Ledger;

enum Values : std::size_t { kShare, kEnough, kMinTasks, kReadNames, kEgressNames, kRelearn };
constexpr Option kOptions[] = {
    {"flagged_share", "1", 0.04, 0.004, 0.2, "share of an agent's own tasks that may be spoken of"},
    {"like_tasks", "1", 2, 1, 1000, "past tasks with a like request, weighted, below which a task is not judged"},
    {"min_tasks", "1", 40, 20, 256, "judged tasks of an agent before anything is said of it"},
    {"read_names", "1", 1, 0, 1, "1: tools named get_, read_, search_, list_ ... only read; 0: every tool acts"},
    {"egress_names", "1", 1, 0, 1, "1: reads named web, url, http, site, fetch, download act; 0: they only read"},
    {"relearn_after_s", "s", 86400, 60, 3.2e7, "time of mostly flagged tasks after which an agent is learned anew"},
};

constexpr std::uint32_t kLiveTasks = 6144;
constexpr std::uint32_t kAgents = 256;
constexpr std::uint32_t kRequests = 6144;
constexpr std::uint32_t kRequestsPerAgent = 128;
constexpr std::size_t kBuckets = 2048;  // of words
constexpr std::size_t kWords = 96;      // of a request
constexpr std::size_t kText = 4096;     // bytes of it that are read
constexpr std::size_t kNear = 16;       // like requests that a task is compared with
constexpr std::size_t kTools = 64;      // of an agent; the last stands for every further name
constexpr std::size_t kTimes = 8;       // k-th calls told apart
constexpr std::size_t kUses = 12;       // tools remembered of a kind of request
constexpr std::size_t kCalls = 64;      // distinct acting calls of a task, and of a kind of request
constexpr std::size_t kRecords = 256;   // tasks of an agent the bar is made of
constexpr std::size_t kRecorded = 16;   // acting calls of each
constexpr std::size_t kBins = 256;      // of scores, a sixteenth of a nat
constexpr float kSharpness = 6.0F / 0.693147181F;  // of the weight of a like request, as a power of two
constexpr float kLeastWeight = 0.01F;
constexpr float kPrior = 1.0F;
constexpr float kFloor = 0.1F;          // no act is rarer than this before its like is known
constexpr std::uint32_t kMemory = 128;  // tasks of a kind of request after which its counts are halved
constexpr std::uint32_t kOften = 8;     // records are scored anew after so many tasks, an eighth of those taught,
constexpr std::uint32_t kSeldom = 512;  // and so many at most
constexpr std::uint32_t kFewest = 20;   // tasks judged before an agent may be learned anew

using Words = std::array<std::uint16_t, kWords>;

struct Call {
    std::uint32_t what = 0;  // hash of tool and arguments
    std::uint8_t tool = 0;
};

// The likest past requests, the likest first.
struct Near {
    std::array<std::uint32_t, kNear> request{}, generation{};
    std::array<float, kNear> weight{};
    float total = 0.0F;  // weighted tasks
    std::uint8_t size = 0;
};

struct Live {
    std::uint32_t agent = kNone, agent_generation = 0;
    Near near;
    std::uint8_t words = 0, calls = 0;
    std::uint8_t worst = 0;  // largest score, a bin
    std::uint8_t judged = 0, flagged = 0, spoken = 0;  // no bool, which a damaged state could not be read into
    Words word{};
    std::array<Call, kCalls> call{};
    InlineText<64> request;  // event
};

// A past task, as far as it is scored again.
struct Record {
    std::uint32_t request = kNone, generation = 0;
    std::array<std::uint32_t, kRecorded> what{};
    std::array<std::uint8_t, kRecorded> tool{};
    std::uint8_t calls = 0;
    std::uint8_t score = 0;  // a bin
    std::uint8_t scored = 0;  // there were enough tasks with a like request
};

struct Agent {
    std::array<std::uint8_t, kBuckets> requests_with{};  // a word
    std::array<std::uint64_t, kTools> tool{};
    std::array<std::array<std::uint32_t, kTimes>, kTools> users{};  // tasks with a k-th distinct call
    std::array<std::uint32_t, kTools> uses{}, fresh{};  // distinct calls; of those, with arguments new for the request
    std::array<std::uint16_t, kBins> scores{};          // how many records of each bin
    std::uint32_t tasks = 0;                            // taught
    std::uint32_t first = kNone, last = kNone, requests = 0;
    std::uint32_t records = 0, next = 0;                // in use; the next to be written
    std::uint32_t scored = 0;                           // of them
    std::uint32_t refreshed = 0;                        // tasks when they were scored anew
    std::uint32_t judged = 0, flagged = 0;              // since `window`
    Nanos window = 0;
    std::uint8_t tools = 0;
    std::array<Record, kRecords> record{};
};

struct Use {
    std::array<std::uint16_t, kTimes> users{};
    std::uint16_t uses = 0, fresh = 0;
    std::uint8_t tool = 0;
};

struct Request {
    std::uint32_t agent = kNone, before = kNone, after = kNone;  // of its agent, by last use
    std::uint32_t tasks = 0;
    std::uint8_t words = 0, uses = 0;
    std::uint8_t calls = 0, next_call = 0;
    Words word{};
    std::array<Use, kUses> use{};
    std::array<std::uint32_t, kCalls> call{};
    std::array<std::uint8_t, kCalls> tasks_with{};  // that call, saturating
};

[[nodiscard]] constexpr char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
[[nodiscard]] constexpr bool letter(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || static_cast<unsigned char>(c) >= 0x80;
}

// The set of a text's words as ascending bucket numbers; words in order of reading until kWords are found.
[[nodiscard]] std::uint8_t words_of(std::string_view text, Words& out) noexcept {
    std::bitset<kBuckets> found;
    std::size_t count = 0, size = 0;
    char word[32];
    text = text.substr(0, kText);
    for (std::size_t i = 0; i <= text.size() && count < kWords; ++i) {
        const char c = i < text.size() ? lower(text[i]) : ' ';
        if (letter(c)) {
            if (size < sizeof word) word[size++] = c;
            continue;
        }
        if (size == 0) continue;
        const std::size_t bucket = events::hash_text({word, size}) % kBuckets;
        size = 0;
        if (found[bucket]) continue;
        found[bucket] = true;
        out[count++] = static_cast<std::uint16_t>(bucket);
    }
    std::sort(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(count));
    return static_cast<std::uint8_t>(count);
}

// The name's last part, past a server's name: "mcp__files__read_file", "files.read_file", "files/read_file".
[[nodiscard]] std::string_view own_name(std::string_view name) noexcept {
    const std::size_t at = name.find_last_of("./:");
    if (at != std::string_view::npos) name.remove_prefix(at + 1);
    const std::size_t twice = name.rfind("__");
    if (twice != std::string_view::npos) name.remove_prefix(twice + 2);
    return name;
}

[[nodiscard]] bool reads(std::string_view name) noexcept {
    constexpr std::string_view kFirst[] = {"get", "read", "search", "list", "check",
                                             "find", "show", "describe", "count"};
    name = own_name(name);
    for (const std::string_view first : kFirst) {
        if (name.size() < first.size()) continue;
        bool same = true;
        for (std::size_t i = 0; i < first.size() && same; ++i) same = lower(name[i]) == first[i];
        if (!same) continue;
        if (name.size() == first.size()) return true;
        const char next = name[first.size()];
        if (next == '_' || next == '-' || (next >= 'A' && next <= 'Z' && name[0] == first[0])) return true;
    }
    return false;
}

[[nodiscard]] bool leaves(std::string_view name) noexcept {
    constexpr std::string_view kParts[] = {"web", "url", "http", "site", "fetch", "download"};
    const auto equal = [](char a, char b) { return lower(a) == b; };
    return std::any_of(std::begin(kParts), std::end(kParts), [&](std::string_view part) {
        return std::search(name.begin(), name.end(), part.begin(), part.end(), equal) != name.end();
    });
}

[[nodiscard]] float nats(float probability) noexcept {
    return -0.693147181F * fast_log2(std::clamp(probability, 1e-30F, 1.0F));
}

// What past tasks with like requests say of one call.
struct Law {
    float users = 0.0F, uses = 0.0F, fresh = 0.0F;
    float known = 0.0F;  // weight of the likest request that had this very call
};

class Hijack final : public Auditor {
public:
    explicit Hijack(std::span<const double> v)
        : share_(v[kShare]), enough_(static_cast<float>(v[kEnough])),
          min_tasks_(static_cast<std::uint32_t>(v[kMinTasks])), read_names_(v[kReadNames] >= 0.5),
          egress_names_(v[kEgressNames] >= 0.5), relearn_(static_cast<Nanos>(v[kRelearn] * 1e9)), live_(kLiveTasks),
          agents_(kAgents), requests_(kRequests) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        switch (event.type) {
            case EventType::user_message:
                if (!event.text.empty()) ask(event, ledger);
                break;
            case EventType::tool_called:
                if (live_.size() != 0) call(event, ledger, emit);
                break;
            case EventType::task_completed:
            case EventType::task_failed:
            case EventType::task_cancelled:
                if (live_.size() != 0) end(event, ledger, emit);
                break;
            default: break;
        }
    }

    void on_tick(Nanos, Ledger&, Emit&) override {}

    void rearm(const Scope& scope, Ledger& ledger) override {
        for (std::uint32_t i = live_.oldest(); i != kNone; i = live_.newer(i)) {
            if (!live_[i].spoken) continue;
            const std::uint32_t t = ledger.tasks().find(live_.hash(i), [](const events::Task&) { return true; });
            if (scope.kind == ScopeKind::host || (t != kNone && within(ledger.tasks()[t], scope))) {
                live_[i].spoken = false;
            }
        }
    }

    void save(Writer& writer) const override {
        live_.save(writer);
        agents_.save(writer);
        requests_.save(writer);
    }
    void load(Reader& reader) override;

private:
    [[nodiscard]] static bool within(const events::Task& task, const Scope& scope) noexcept {
        switch (scope.kind) {
            case ScopeKind::tenant: return task.tenant == scope.id;
            case ScopeKind::agent: return task.agent == scope.id;
            case ScopeKind::session: return task.session == scope.id;
            case ScopeKind::task: return task.task == scope.id;
            case ScopeKind::host: break;
        }
        return true;
    }

    // The task of an event, if it is followed.
    [[nodiscard]] std::uint32_t live_of(const Event& event, const Ledger& ledger) const noexcept {
        const events::Sighting& seen = ledger.sighting();
        if (seen.task == kNone || event.task.empty() || seen.id != events::IdStatus::fresh) return kNone;
        return live_.find(ledger.tasks().hash(seen.task), [](const Live&) { return true; });
    }

    // --- a task's way --------------------------------------------------------------------------------------------

    void ask(const Event& event, const Ledger& ledger) noexcept {
        const events::Sighting& seen = ledger.sighting();
        if (seen.task == kNone || event.task.empty() || seen.id != events::IdStatus::fresh) return;
        const std::uint64_t key = ledger.tasks().hash(seen.task);
        if (live_.find(key, [](const Live&) { return true; }) != kNone) return;
        Words words{};
        const std::uint8_t count = words_of(event.text, words);
        if (count == 0) return;
        const std::uint64_t name = events::hash_parts(23, event.tenant, event.agent);
        std::uint32_t a = agents_.find(name, [](const Agent&) { return true; });
        if (a == kNone) {
            a = agents_.create(name, 0, [this](std::uint32_t old) { forget(agents_[old]); });
            agents_[a].window = seen.now;
        }
        agents_.touch(a);
        Live& live = live_[live_.create(key, 0, [](std::uint32_t) {})];
        live.agent = a;
        live.agent_generation = agents_.generation(a);
        live.word = words;
        live.words = count;
        live.request.assign(event.id);
        live.near = compare(agents_[a], words, count);
        live.judged = live.near.total >= enough_;
    }

    [[nodiscard]] Near compare(const Agent& agent, const Words& word, std::uint8_t words) const noexcept {
        Near near;
        std::array<float, kRequestsPerAgent + 1> rarity;  // of a word, by the requests that have it
        const auto all = static_cast<float>(agent.requests);
        for (std::uint32_t n = 0; n <= agent.requests; ++n) {
            const float idf = fast_log2(1.0F + all / (1.0F + static_cast<float>(n)));
            rarity[n] = idf * idf;
        }
        std::bitset<kBuckets> mine;
        float own = 0.0F;
        for (std::size_t i = 0; i < words; ++i) {
            mine[word[i]] = true;
            own += rarity[agent.requests_with[word[i]]];
        }
        for (std::uint32_t r = agent.first; r != kNone; r = requests_[r].after) {
            const Request& request = requests_[r];
            float shared = 0.0F, theirs = 0.0F;
            for (std::size_t i = 0; i < request.words; ++i) {
                const float x = rarity[agent.requests_with[request.word[i]]];
                theirs += x;
                if (mine[request.word[i]]) shared += x;
            }
            const float norm = std::sqrt(own * theirs);
            const float cosine = norm > 0.0F ? std::min(1.0F, shared / norm) : 0.0F;
            const float weight = fast_exp2(kSharpness * (cosine - 1.0F));
            if (weight >= kLeastWeight) keep(near, r, weight);
        }
        for (std::size_t i = 0; i < near.size; ++i) {
            near.total += near.weight[i] * static_cast<float>(requests_[near.request[i]].tasks);
        }
        return near;
    }

    void keep(Near& near, std::uint32_t r, float weight) const noexcept {
        std::size_t at = near.size;
        if (at == kNear && weight <= near.weight[kNear - 1]) return;
        if (at < kNear) ++near.size;
        else --at;
        for (; at > 0 && near.weight[at - 1] < weight; --at) {
            near.request[at] = near.request[at - 1];
            near.generation[at] = near.generation[at - 1];
            near.weight[at] = near.weight[at - 1];
        }
        near.request[at] = r;
        near.generation[at] = requests_.generation(r);
        near.weight[at] = weight;
    }

    void call(const Event& event, const Ledger& ledger, Emit& emit) {
        if (read_names_ && reads(event.tool) && !(egress_names_ && leaves(event.tool))) return;
        const std::uint32_t i = live_of(event, ledger);
        if (i == kNone || !agents_.holds(live_[i].agent, live_[i].agent_generation)) return;
        Live& live = live_[i];
        Agent& agent = agents_[live.agent];
        const std::uint64_t tool = events::hash_parts(29, event.tool);
        const auto what = static_cast<std::uint32_t>(events::hash_text(event.args_hash, tool));
        const auto end = live.call.begin() + live.calls;
        const auto same = [&](const Call& c) { return c.what == what; };
        if (live.calls == kCalls || std::any_of(live.call.begin(), end, same)) return;
        const std::uint8_t t = number(agent, tool);
        const auto before = std::count_if(live.call.begin(), end, [&](const Call& c) { return c.tool == t; });
        live.call[live.calls++] = {what, t};
        if (!live.judged) return;
        const std::size_t k = std::min(static_cast<std::size_t>(before), kTimes - 1);
        const Law law = law_of(live.near, t, k, what, kNone);
        const float score = surprise(agent, live.near.total, law, t, k);
        const std::uint8_t bin = bin_of(score);
        live.worst = std::max(live.worst, bin);
        const double chance = tail(agent, bin);
        if (bin == 0 || agent.scored < min_tasks_ || chance > share_) return;
        live.flagged = true;
        if (live.spoken) return;
        live.spoken = true;
        say(live, agent, law, static_cast<std::size_t>(before) + 1, score, chance, event, ledger, emit);
    }

    void end(const Event& event, const Ledger& ledger, Emit& emit) {
        const std::uint32_t i = live_of(event, ledger);
        if (i == kNone) return;
        const Live& live = live_[i];
        if (event.type != EventType::task_cancelled && agents_.holds(live.agent, live.agent_generation)) {
            Agent& agent = agents_[live.agent];
            if (live.flagged) record(agent, live, kNone, std::min(live.worst, bar_bin(agent)));
            else record(agent, live, teach(live), live.worst);
            if (agent.tasks - agent.refreshed >= std::clamp(agent.tasks / 8, kOften, kSeldom)) {
                refresh(live.agent);
            }
            if (live.judged) account(agent, live, event, ledger, emit);
        }
        live_.erase(i);
    }

    // The tool's number with its agent; a name met first takes one while there are, whether or not it is ever taught.
    [[nodiscard]] static std::uint8_t number(Agent& agent, std::uint64_t tool) noexcept {
        for (std::uint8_t t = 0; t < agent.tools; ++t) {
            if (agent.tool[t] == tool) return t;
        }
        if (agent.tools == kTools - 1) return kTools - 1;
        agent.tool[agent.tools] = tool;
        return agent.tools++;
    }

    // --- the laws ------------------------------------------------------------------------------------------------

    // `without`: a request one of whose tasks is scored by the others; what it alone did is not known.
    [[nodiscard]] Law law_of(const Near& near, std::uint8_t tool, std::size_t k, std::uint32_t what,
                             std::uint32_t without) const noexcept {
        Law law;
        for (std::size_t n = 0; n < near.size; ++n) {
            if (!requests_.holds(near.request[n], near.generation[n])) continue;
            const Request& request = requests_[near.request[n]];
            const float w = near.weight[n];
            for (std::size_t u = 0; u < request.uses; ++u) {
                if (request.use[u].tool != tool) continue;
                law.users += w * static_cast<float>(request.use[u].users[k]);
                law.uses += w * static_cast<float>(request.use[u].uses);
                law.fresh += w * static_cast<float>(request.use[u].fresh);
                break;
            }
            if (w > law.known && tasks_with(request, what) > (near.request[n] == without ? 1 : 0)) law.known = w;
        }
        return law;
    }

    [[nodiscard]] static std::size_t place_of(const Request& request, std::uint32_t what) noexcept {
        const auto end = request.call.begin() + request.calls;
        return static_cast<std::size_t>(std::find(request.call.begin(), end, what) - request.call.begin());
    }
    [[nodiscard]] static int tasks_with(const Request& request, std::uint32_t what) noexcept {
        const std::size_t at = place_of(request, what);
        return at < request.calls ? request.tasks_with[at] : 0;
    }

    [[nodiscard]] static float surprise(const Agent& agent, float total, const Law& law, std::uint8_t tool,
                                        std::size_t k) noexcept {
        const float base = (static_cast<float>(agent.users[tool][k]) + 0.3F) / (static_cast<float>(agent.tasks) + 6.0F);
        const float called = (law.users + kPrior * std::max(base, kFloor)) / (total + kPrior);
        const float usual = (static_cast<float>(agent.fresh[tool]) + 0.5F) /
                            (static_cast<float>(agent.uses[tool]) + 1.0F);
        const float fresh = (law.fresh + kPrior * usual) / (law.uses + kPrior);
        return nats(called) + nats(law.known + (1.0F - law.known) * fresh);
    }

    [[nodiscard]] static std::uint8_t bin_of(float score) noexcept {
        return static_cast<std::uint8_t>(std::min(score * 16.0F, static_cast<float>(kBins - 1)));
    }

    // The request under which it is known now.
    std::uint32_t teach(const Live& live) noexcept {
        const std::uint32_t r = request_of(live);
        Request& request = requests_[r];
        Agent& agent = agents_[live.agent];
        ++agent.tasks;
        if (++request.tasks >= kMemory) halve(request);
        std::array<std::uint8_t, kTools> times{};
        for (std::size_t i = 0; i < live.calls; ++i) {
            const Call& c = live.call[i];
            const std::size_t k = std::min(static_cast<std::size_t>(times[c.tool]++), kTimes - 1);
            const std::size_t at = place_of(request, c.what);
            const bool fresh = at == request.calls;
            ++agent.uses[c.tool];
            if (fresh) ++agent.fresh[c.tool];
            const bool once = times[c.tool] <= kTimes;  // a task counts once among those with a k-th call
            if (once) ++agent.users[c.tool][k];
            Use* use = use_of(request, c.tool);
            if (use != nullptr) {
                if (use->uses < 0xffff) ++use->uses;
                if (fresh && use->fresh < 0xffff) ++use->fresh;
                if (once) ++use->users[k];
            }
            if (fresh) remember(request, c.what);
            else if (request.tasks_with[at] < 255) ++request.tasks_with[at];
        }
        return r;
    }

    [[nodiscard]] static Use* use_of(Request& request, std::uint8_t tool) noexcept {
        for (std::size_t u = 0; u < request.uses; ++u) {
            if (request.use[u].tool == tool) return &request.use[u];
        }
        if (request.uses == kUses) return nullptr;
        request.use[request.uses].tool = tool;
        return &request.use[request.uses++];
    }

    static void remember(Request& request, std::uint32_t what) noexcept {
        request.call[request.next_call] = what;
        request.tasks_with[request.next_call] = 1;
        request.next_call = static_cast<std::uint8_t>((request.next_call + 1) % kCalls);
        if (request.calls < kCalls) ++request.calls;
    }

    static void halve(Request& request) noexcept {
        request.tasks /= 2;
        for (Use& use : request.use) {
            use.uses = static_cast<std::uint16_t>(use.uses / 2);
            use.fresh = static_cast<std::uint16_t>(use.fresh / 2);
            for (std::uint16_t& n : use.users) n = static_cast<std::uint16_t>(n / 2);
        }
    }

    // --- kinds of request: an agent's, oldest use first ----------------------------------------------------------

    [[nodiscard]] std::uint32_t request_of(const Live& live) noexcept {
        Agent& agent = agents_[live.agent];
        const std::string_view words(reinterpret_cast<const char*>(live.word.data()),
                                     live.words * sizeof(live.word[0]));
        const std::uint64_t key = events::hash_parts(agents_.hash(live.agent), words);
        std::uint32_t r = requests_.find(key, [&](const Request& x) { return x.agent == live.agent; });
        if (r != kNone) {
            unlink(agent, r);
        } else {
            if (agent.requests == kRequestsPerAgent) drop(agent.first);
            r = requests_.create(key, 0, [this](std::uint32_t old) { part(old); });
            Request& request = requests_[r];
            request.agent = live.agent;
            request.words = live.words;
            request.word = live.word;
            for (std::size_t i = 0; i < live.words; ++i) ++agent.requests_with[live.word[i]];
            ++agent.requests;
        }
        requests_.touch(r);
        append(agent, r);
        return r;
    }

    void append(Agent& agent, std::uint32_t r) noexcept {
        requests_[r].before = agent.last;
        requests_[r].after = kNone;
        if (agent.last == kNone) agent.first = r;
        else requests_[agent.last].after = r;
        agent.last = r;
    }
    void unlink(Agent& agent, std::uint32_t r) noexcept {
        const Request& request = requests_[r];
        if (request.before == kNone) agent.first = request.after;
        else requests_[request.before].after = request.after;
        if (request.after == kNone) agent.last = request.before;
        else requests_[request.after].before = request.before;
    }
    // Its agent knows it no longer.
    void part(std::uint32_t r) noexcept {
        const Request& request = requests_[r];
        Agent& agent = agents_[request.agent];
        for (std::size_t i = 0; i < request.words; ++i) --agent.requests_with[request.word[i]];
        unlink(agent, r);
        --agent.requests;
    }
    void drop(std::uint32_t r) noexcept {
        part(r);
        requests_.erase(r);
    }
    void forget(Agent& agent) noexcept {
        while (agent.first != kNone) drop(agent.first);
    }

    // --- the bar -------------------------------------------------------------------------------------------------

    // Conformal rank: the share of the tasks remembered that scored as high, this one counted.
    [[nodiscard]] static double tail(const Agent& agent, std::uint8_t bin) noexcept {
        std::uint32_t above = 1;
        for (std::size_t b = bin; b < kBins; ++b) above += agent.scores[b];
        return static_cast<double>(above) / (static_cast<double>(agent.scored) + 1.0);
    }

    // The lowest score that is spoken of.
    [[nodiscard]] std::uint8_t bar_bin(const Agent& agent) const noexcept {
        std::uint8_t b = 0;
        while (b + 1U < kBins && tail(agent, b) > share_) ++b;
        return b;
    }

    // `request`: of a task that taught. One that was spoken of enters at the bar itself: left out, the bar would sink
    // from task to task; at its own score, a flood of attacks would lift it.
    void record(Agent& agent, const Live& live, std::uint32_t request, std::uint8_t score) const noexcept {
        Record& record = agent.record[agent.next];
        if (agent.records < kRecords) ++agent.records;
        else uncount(agent, record);
        agent.next = (agent.next + 1) % kRecords;
        record = Record{};
        record.request = request;
        if (request != kNone) record.generation = requests_.generation(request);
        record.calls = static_cast<std::uint8_t>(std::min<std::size_t>(live.calls, kRecorded));
        for (std::size_t i = 0; i < record.calls; ++i) {
            record.what[i] = live.call[i].what;
            record.tool[i] = live.call[i].tool;
        }
        if (live.judged) count(agent, record, score);
    }

    static void count(Agent& agent, Record& record, std::uint8_t score) noexcept {
        record.score = score;
        record.scored = true;
        ++agent.scores[score];
        ++agent.scored;
    }
    static void uncount(Agent& agent, Record& record) noexcept {
        if (!record.scored) return;
        --agent.scores[record.score];
        --agent.scored;
        record.scored = false;
    }

    // Every record scored anew by what all others teach by now: an unlikely call is the more surprising the more like
    // tasks are known, so a score from when few were known is no measure for one of today.
    void refresh(std::uint32_t a) noexcept {
        Agent& agent = agents_[a];
        agent.refreshed = agent.tasks;
        for (std::uint32_t r = agent.first; r != kNone; r = requests_[r].after) {
            const Near near = compare(agent, requests_[r].word, requests_[r].words);
            for (std::size_t i = 0; i < agent.records; ++i) {
                Record& record = agent.record[i];
                if (record.request != r || record.generation != requests_.generation(r)) continue;
                uncount(agent, record);
                const float total = near.total - 1.0F;
                if (total >= enough_) count(agent, record, score_again(agent, record, near, total));
            }
        }
    }

    [[nodiscard]] std::uint8_t score_again(const Agent& agent, const Record& record, const Near& near,
                                           float total) const noexcept {
        std::array<std::uint8_t, kTools> uses{}, alone{};  // of this task
        for (std::size_t i = 0; i < record.calls; ++i) {
            ++uses[record.tool[i]];
            if (tasks_with(requests_[record.request], record.what[i]) == 1) ++alone[record.tool[i]];
        }
        std::array<std::uint8_t, kTools> times{};
        std::uint8_t worst = 0;
        for (std::size_t i = 0; i < record.calls; ++i) {
            const std::uint8_t tool = record.tool[i];
            const std::size_t k = std::min(static_cast<std::size_t>(times[tool]++), kTimes - 1);
            Law law = law_of(near, tool, k, record.what[i], record.request);
            law.users = std::max(0.0F, law.users - 1.0F);
            law.uses = std::max(0.0F, law.uses - static_cast<float>(uses[tool]));
            law.fresh = std::max(0.0F, law.fresh - static_cast<float>(alone[tool]));
            worst = std::max(worst, bin_of(surprise(agent, total, law, tool, k)));
        }
        return worst;
    }

    // An agent that does other things for a day than it was learned by: its laws describe it no longer.
    void account(Agent& agent, const Live& live, const Event& event, const Ledger& ledger, Emit& emit) {
        ++agent.judged;
        if (live.flagged) ++agent.flagged;
        const Nanos now = ledger.sighting().now;
        if (now - agent.window < relearn_ && agent.judged < 0xffffff) return;
        if (agent.judged >= kFewest && agent.flagged > agent.judged / 4) {
            const std::uint32_t flagged = agent.flagged, judged = agent.judged;
            forget(agent);
            agents_.erase(live.agent);  // its live tasks know by the generation that they belong to nobody now
            say_untrusted(flagged, judged, event, ledger, emit);
            return;
        }
        agent.judged = agent.flagged = 0;
        agent.window = now;
    }

    // --- words ---------------------------------------------------------------------------------------------------

    void say(const Live& live, const Agent& agent, const Law& law, std::size_t k, float score, double chance,
             const Event& event, const Ledger& ledger, Emit& emit) const {
        Facts facts;
        facts.rule = Facts::Rule::hijack;
        facts.chance = chance;
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        Anomaly a;
        a.ts = event.ts;
        a.since = event.ts;
        a.family = Family::safety;
        a.detector = "hijack";
        a.scope = narrowest_scope(event.tenant, event.agent, event.session, event.task);
        a.series = "hijack.unasked_call";
        a.value = static_cast<double>(score);
        a.upper = static_cast<double>(bar_bin(agent)) / 16.0;
        a.bits = -std::log2(chance);
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence.emplace_back(event.id);
        if (!live.request.empty()) a.evidence.emplace_back(live.request.str());
        char text[512];
        std::snprintf(text, sizeof text,
                      "call number %zu of '%.*s' does not fit the request: of %.1f past tasks with a like request %.1f "
                      "made one%s; at most %.1f %% of the agent's last %u tasks held anything as unlike",
                      k, static_cast<int>(event.tool.size()), event.tool.data(), static_cast<double>(live.near.total),
                      static_cast<double>(law.users),
                      law.known > 0.0F ? "" : ", and its arguments are new to them",
                      chance * 100.0, agent.scored);
        a.message = text;
        emit.say(std::move(a));
    }

    void say_untrusted(std::uint32_t flagged, std::uint32_t judged, const Event& event, const Ledger& ledger,
                       Emit& emit) const {
        Facts facts;
        facts.rule = Facts::Rule::hijack;
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        Anomaly a;
        a.ts = event.ts;
        a.since = ledger.sighting().now - relearn_;
        a.family = Family::safety;
        a.detector = "hijack";
        a.scope = narrowest_scope(event.tenant, event.agent, {}, {});
        a.series = "hijack.untrusted";
        a.value = static_cast<double>(flagged) / static_cast<double>(judged);
        a.upper = 0.25;
        a.bits = kDeterministicBits;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence.emplace_back(event.id);
        a.message = std::to_string(flagged) + " of the last " + std::to_string(judged) +
                    " tasks made calls unlike those of like requests before: what was learned no longer describes this "
                    "agent, which is learned anew and not judged meanwhile";
        emit.say(std::move(a));
    }

    double share_;
    float enough_;
    std::uint32_t min_tasks_;
    bool read_names_, egress_names_;
    Nanos relearn_;
    events::Slab<Live> live_;
    events::Slab<Agent> agents_;
    events::Slab<Request> requests_;
};

void require(bool whole, const char* what) {
    if (!whole) throw CodecError(std::string("state: hijack: ") + what);
}

void Hijack::load(Reader& reader) {
    live_.load(reader);
    agents_.load(reader);
    requests_.load(reader);
    const auto worded = [](const Words& word, std::uint8_t count) {
        if (count > kWords) return false;
        for (std::size_t i = 0; i < count; ++i) {
            if (word[i] >= kBuckets || (i > 0 && word[i] <= word[i - 1])) return false;
        }
        return true;
    };
    for (std::uint32_t i = live_.oldest(); i != kNone; i = live_.newer(i)) {
        const Live& live = live_[i];
        const auto known = [](const Call& c) { return c.tool < kTools; };
        require(worded(live.word, live.words), "a word is out of range");
        require(live.near.size <= kNear && live.calls <= kCalls &&
                    std::all_of(live.call.begin(), live.call.end(), known),
                "a call is out of range");
    }
    for (std::uint32_t r = requests_.oldest(); r != kNone; r = requests_.newer(r)) {
        const Request& request = requests_[r];
        const auto known = [](const Use& u) { return u.tool < kTools; };
        require(worded(request.word, request.words), "a word is out of range");
        require(request.uses <= kUses && request.calls <= kCalls && request.next_call < kCalls &&
                    std::all_of(request.use.begin(), request.use.end(), known), "a use is out of range");
    }
    std::uint32_t linked = 0;
    for (std::uint32_t a = agents_.oldest(); a != kNone; a = agents_.newer(a)) {
        Agent& agent = agents_[a];
        require(agent.tools < kTools && agent.records <= kRecords && agent.next < kRecords &&
                    (agent.records == kRecords || agent.next == agent.records) && agent.requests <= kRequestsPerAgent,
                "an agent is out of range");
        // What is counted from other parts is counted again, so that it cannot disagree with them.
        agent.scores = {};
        agent.scored = 0;
        for (std::size_t i = 0; i < agent.records; ++i) {
            Record& record = agent.record[i];
            require(record.calls <= kRecorded && std::all_of(record.tool.begin(), record.tool.end(),
                                                             [](std::uint8_t t) { return t < kTools; }),
                    "a record is out of range");
            if (record.scored) count(agent, record, record.score);
        }
        agent.requests_with = {};
        std::uint32_t count = 0, last = kNone;
        for (std::uint32_t r = agent.first; r != kNone && count <= agent.requests; r = requests_[r].after, ++count) {
            require(r < kRequests && requests_[r].agent == a && requests_[r].before == last,
                    "a request is out of place");
            for (std::size_t i = 0; i < requests_[r].words; ++i) ++agent.requests_with[requests_[r].word[i]];
            last = r;
        }
        require(count == agent.requests && last == agent.last, "a request is out of place");
        linked += count;
    }
    require(linked == requests_.size(), "a request belongs to no agent");
}

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Hijack>(values); }

}  // namespace

extern const AuditorDescriptor hijack_auditor;
const AuditorDescriptor hijack_auditor{
    {"hijack", "acting calls that tasks with a like request did not make, as after an injected instruction",
     "request-conditional call laws with a conformal bar (Vovk, Gammerman and Shafer 2005)", kOptions},
    make};

}  // namespace argus::auditors
