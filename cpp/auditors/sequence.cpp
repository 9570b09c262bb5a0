// The learned order of tasks: which steps a kind of task takes, how often, and what follows what. Learned online from
// completed tasks alone; a task that departs from what its kind does is spoken of once, with the surprising step.
//   unseen_step       a step that no completed task of its kind ever took; said at once
//   impossible_count  so many of one step that no end can bring the task back to a known order; said at once
//   counts            ended with counts of steps more than 6 % (relative L1) from every known order
//   order             ended with counts not known AND a step as surprising as the top 2 % of tasks hold
//   untrusted         the kind has departed from its own orders for a day: it is learned anew, in silence
// A kind of task is (tenant, agent of task_started); tasks that name no agent are one kind a tenant. A step is the
// event's type with its tool, or an unknown type's name; money, messages of people and evaluations are no steps. A task
// whose start was not seen is not judged; one that failed or was cancelled has said so itself: its end is not judged
// and teaches nothing.
// Surprise is variable-order Markov, orders 2 to 0 with PPM escape by method C (Moffat 1990). Counts at the end find
// what is missing, short contexts what is out of place; longer contexts were measured and are worse.
// Trust: each rule keeps the share of the kind's later half of tasks that it would have flagged, scored before they
// taught. It speaks once that share has been at most 1 % for as many tasks as it took to get there, 300 at least, the
// first 50 and what began with them not counted; a kind whose tasks are all different never gets there. What was
// flagged teaches nothing. A new order, or a new step in whatever order, is accepted after three sightings in different
// sessions that a steady rare one would leave with p >= 5 %, while at most 5 % of the kind is flagged; or after 20
// sightings over a day, each of which was spoken of.
// Cost: bench_events events/sequence; per live task 300 B, per kind 2 KB, 256 orders and as many n-grams as it uses.
// Not promised: a fault present from the first task on is normal here; a rare right order is flagged about once in 500
// tasks on real logs; events of one task that two sources deliver out of order look like another order.

#include <algorithm>
#include <array>
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
using StepName = InlineText<192>;

enum Values : std::size_t { kShare, kMinTasks, kDistance, kTail, kRepeats, kAcceptAfter };
constexpr Option kOptions[] = {
    {"flagged_share", "1", 0.01, 1e-4, 0.2, "share of a kind's own tasks that a rule may flag and still be trusted"},
    {"min_tasks", "1", 300, 50, 1e6, "scored tasks of a kind before anything is said of it"},
    {"distance", "1", 0.06, 0.001, 1, "relative L1 distance from every known order that is spoken of by itself"},
    {"tail", "1", 0.02, 0.001, 0.2, "share of tasks in whose tail both distance and surprise must lie"},
    {"accept_repeats", "1", 20, 3, 1e6, "sightings after which a new order is accepted, however suddenly it came"},
    {"accept_after_s", "s", 86400, 60, 3.2e7, "and the time from its first sighting"},
};

constexpr std::uint32_t kLiveTasks = 32'768;
constexpr std::uint32_t kTypes = 1024;
constexpr std::uint32_t kOrders = 16'384;
constexpr std::uint32_t kOrdersPerType = 256;
constexpr std::uint32_t kCandidates = 4096;
constexpr std::uint32_t kNames = 4096;
constexpr std::size_t kBuckets = 32'768;  // of n-gram cells
constexpr std::size_t kWays = 4;
constexpr std::size_t kTrace = 120;       // steps of a task that teach n-grams

constexpr std::uint8_t kNamed = 61;  // steps told apart by name
constexpr std::uint8_t kEnd = 61;
constexpr std::uint8_t kStart = 62;
constexpr std::uint8_t kOther = 63;  // every further name
constexpr std::size_t kDims = 64;
constexpr std::uint8_t kWhole = 64;  // the cell that counts a context

constexpr std::size_t kDistanceBins = 64;   // 0, then half percents
constexpr std::size_t kSurpriseBins = 128;  // half bits
constexpr std::uint32_t kMemory = 512;      // tasks after which tail counts are halved
constexpr std::uint32_t kWarmUp = 50;
constexpr std::uint32_t kSightings = 3;
constexpr double kAlwaysRare = 0.05;
constexpr double kHopeless = 0.5;        // share of unlike counts beyond which most tasks are not compared at all
constexpr std::uint32_t kSampled = 8;    // but one in so many
constexpr float kInControl = 0.05F;
constexpr float kControlMemory = 1.0F / 128.0F;
constexpr std::uint32_t kDriftShare = 5;  // one in five

enum Rule : std::size_t { kUnseen, kCounts, kOrder, kRules };
constexpr const char* kSeries[] = {"sequence.unseen_step", "sequence.counts", "sequence.order"};
constexpr std::size_t kTrusted = 0;
constexpr std::size_t kLearning = 1;

enum class Part : std::uint8_t { none, start, step, completed, dropped };

[[nodiscard]] Part part_of(EventType t) noexcept {
    switch (t) {
        case EventType::task_started: return Part::start;
        case EventType::task_completed: return Part::completed;
        case EventType::task_failed:
        case EventType::task_cancelled: return Part::dropped;
        case EventType::unknown:
        case EventType::tool_called:
        case EventType::tool_returned:
        case EventType::model_called:
        case EventType::model_returned:
        case EventType::prediction_made:
        case EventType::retrieval_done:
        case EventType::file_written:
        case EventType::file_deleted: return Part::step;
        default: return Part::none;
    }
}

struct Live {
    std::uint64_t order = 0;  // of the multiset of its steps
    Nanos started = 0;
    std::uint32_t type = kNone, type_generation = 0;
    float rarest = 1.0F;      // probability of its most surprising step
    std::uint16_t steps = 0;  // saturating
    std::uint8_t before[2] = {kStart, kStart};
    std::uint8_t rarest_step = kOther, rarest_before[2] = {kStart, kStart};
    bool scored = false;      // begun when its kind was warm: its flags count for or against the rules
    bool unseen = false;      // while it ran, by the law of that moment
    bool beyond = false;      // likewise: out of reach of every order known
    bool departed = false;    // spoken of while it ran: never taught
    bool spoken = false;
    InlineText<64> rarest_id;
    std::array<std::uint8_t, kTrace> trace{};
    std::array<std::uint8_t, kDims> counts{};  // saturating
};

// What one rule would have flagged: tasks of the block before and of this one, blocks doubling in length.
struct Record {
    std::uint32_t before = 0, current = 0;
    std::uint32_t above = 0;  // tasks when its share was last too high
    bool trusted = false;
};

struct Type {
    std::array<std::uint64_t, kNamed> names{};
    std::array<std::uint8_t, 128> index{};       // open addressing, id + 1
    std::array<std::uint32_t, kDims> taught{};   // times a step, or the end, was taught
    std::array<std::uint8_t, kDims> most{};      // largest count in a taught order
    std::array<std::uint16_t, kDistanceBins> distances{};
    std::array<std::uint16_t, kSurpriseBins> surprises{};
    std::array<Record, kRules> records{};
    std::uint64_t taught_steps = 0;
    std::uint64_t tasks = 0;       // taught
    std::uint32_t trial = 0;       // scored since learning began, or began anew
    std::uint32_t block = 1;       // where this block of the trial began
    std::uint32_t first_order = kNone, last_order = kNone, orders = 0;
    std::uint32_t judged = 0, flagged = 0;  // since `window`
    std::uint32_t tail_count[2] = {0, 0};   // in distances, in surprises
    float flagged_share = 0.0F;
    Nanos first = 0, last = 0, window = 0;
    std::uint8_t known_names = 0;
    bool cells_lost = false;  // some n-gram found no room: surprise is not judged
};

struct Known {
    std::uint32_t type = kNone, next = kNone;
    std::uint64_t count = 0;  // tasks
    std::uint32_t total = 0;
    bool again = false;       // taught since it was last looked at for room
    std::array<std::uint8_t, kDims> counts{};
};

struct Candidate {
    std::uint64_t first_tasks = 0, session = 0;
    std::uint32_t sightings = 0;
    Nanos first = 0;
};

struct Cell {
    std::uint32_t tag = 0, owner = 0, count = 0, distinct = 0;
};

struct Departure {
    std::array<bool, kRules> flags{};
    float distance = 0.0F, surprise = 0.0F;
    std::uint32_t distance_bin = 0, surprise_bin = 0;
    std::uint8_t unseen = kDims;
    bool known = false, compared = true;
};

[[nodiscard]] std::uint32_t total_of(const std::array<std::uint8_t, kDims>& counts) noexcept {
    std::uint32_t total = 0;
    for (const std::uint8_t c : counts) total += c;
    return total;
}

// Tail share of a bin among the tasks remembered, the new one counted.
template <std::size_t kBins>
[[nodiscard]] double tail(const std::array<std::uint16_t, kBins>& bins, std::uint32_t count, std::size_t bin) noexcept {
    std::uint32_t above = 1;
    for (std::size_t i = bin; i < kBins; ++i) above += bins[i];
    return static_cast<double>(above) / (static_cast<double>(count) + 1.0);
}

template <std::size_t kBins>
void remember(std::array<std::uint16_t, kBins>& bins, std::uint32_t& count, std::size_t bin) noexcept {
    ++bins[bin];
    if (++count < kMemory) return;
    count = 0;
    for (std::uint16_t& b : bins) {
        b = static_cast<std::uint16_t>(b / 2);
        count += b;
    }
}

class Sequence final : public Auditor {
public:
    explicit Sequence(std::span<const double> v)
        : share_(v[kShare]), min_tasks_(static_cast<std::uint32_t>(v[kMinTasks])), distance_(v[kDistance]),
          tail_(v[kTail]), accept_repeats_(static_cast<std::uint32_t>(v[kRepeats])),
          accept_after_(static_cast<Nanos>(v[kAcceptAfter] * 1e9)), live_(kLiveTasks), types_(kTypes), orders_(kOrders),
          candidates_(kCandidates), names_(kNames), cells_(kBuckets * kWays) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const Part part = part_of(event.type);
        const events::Sighting& seen = ledger.sighting();
        if (part == Part::none || seen.task == kNone || event.task.empty()) return;
        if (seen.id != events::IdStatus::fresh) return;
        const std::uint64_t key = ledger.tasks().hash(seen.task);
        const std::uint32_t i = live_.find(key, [](const Live&) { return true; });
        if (part == Part::start) {
            if (i == kNone) begin(key, event);
            return;
        }
        if (i == kNone) return;
        if (part == Part::step) {
            if (types_.holds(live_[i].type, live_[i].type_generation)) step(live_[i], event, ledger, emit);
            return;
        }
        if (types_.holds(live_[i].type, live_[i].type_generation)) {
            if (part == Part::completed && event.ok != 0) complete(live_[i], event, ledger, emit);
            else drop(live_[i]);
        }
        live_.erase(i);
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

    void save(Writer& writer) const override;
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

    // --- a task's way --------------------------------------------------------------------------------------------

    void begin(std::uint64_t key, const Event& event) noexcept {
        const std::uint64_t kind = events::hash_parts(17, event.tenant, event.agent);
        std::uint32_t t = types_.find(kind, [](const Type&) { return true; });
        if (t == kNone) t = types_.create(kind, kLearning, [this](std::uint32_t old) { forget_orders(types_[old]); });
        types_.touch(t);
        Live& live = live_[live_.create(key, 0, [](std::uint32_t) {})];
        live.type = t;
        live.type_generation = types_.generation(t);
        live.started = event.ts;
        live.scored = types_[t].tasks >= kWarmUp;
    }

    void step(Live& live, const Event& event, Ledger& ledger, Emit& emit) {
        Type& type = types_[live.type];
        const std::uint64_t name = events::hash_parts(static_cast<std::uint64_t>(event.type) + 1, event.type_name,
                                                      event.tool);
        const std::uint8_t x = symbol(type, name, event);
        live.order += events::mix(name ^ 0x9e3779b97f4a7c15ULL, name | 1U);
        std::uint8_t& count = live.counts[x];
        if (count < 255) ++count;
        if (live.steps < kTrace) live.trace[live.steps] = x;
        if (live.steps < 0xffff) ++live.steps;
        weigh(live, x, event.id);
        live.before[0] = live.before[1];
        live.before[1] = x;
        const bool unseen = type.taught[x] == 0;
        const bool open = !live.beyond || type.records[kCounts].trusted;
        const bool beyond = !unseen && open && count > type.most[x] && out_of_reach(type, live);
        live.unseen = live.unseen || unseen;
        live.beyond = live.beyond || beyond;
        if (live.spoken) return;
        if (unseen && type.records[kUnseen].trusted) say_unseen(live, x, event, ledger, emit);
        else if (beyond && type.records[kCounts].trusted) say_count(live, x, event, ledger, emit);
    }

    // The step's number in its kind; a name met first takes one while there are, whether or not it is ever taught.
    std::uint8_t symbol(Type& type, std::uint64_t name, const Event& event) noexcept {
        std::size_t slot = name % type.index.size();
        for (; type.index[slot] != 0; slot = (slot + 1) % type.index.size()) {
            const auto id = static_cast<std::uint8_t>(type.index[slot] - 1);
            if (type.names[id] == name) return id;
        }
        if (type.known_names == kNamed) return kOther;
        const std::uint8_t id = type.known_names++;
        type.names[id] = name;
        type.index[slot] = static_cast<std::uint8_t>(id + 1);
        std::uint32_t n = names_.find(name, [](const StepName&) { return true; });
        if (n == kNone) n = names_.create(name, 0, [](std::uint32_t) {});
        names_.touch(n);
        char text[192];  // holds any type and tool whole, so that no character is cut
        std::size_t size = event.type_name.copy(text, 48);
        if (!event.tool.empty()) {
            text[size++] = ' ';
            size += event.tool.copy(text + size, 128);
        }
        names_[n].assign({text, size});
        return id;
    }

    void weigh(Live& live, std::uint8_t x, std::string_view id) noexcept {
        const float p = probability(types_[live.type], live.type, live.before, x);
        if (p >= live.rarest) return;
        live.rarest = p;
        live.rarest_step = x;
        live.rarest_before[0] = live.before[0];
        live.rarest_before[1] = live.before[1];
        live.rarest_id.assign(id);
    }

    void complete(Live& live, const Event& event, Ledger& ledger, Emit& emit) {
        Type& type = types_[live.type];
        if (live.steps <= kTrace) weigh(live, kEnd, event.id);
        const Departure d = depart(type, live);
        if (!d.compared) {
            ++type.tasks;
            teach(type, live);
            return;
        }
        const Nanos now = ledger.sighting().now;
        std::size_t rule = 0;
        while (rule < kRules && !(d.flags[rule] && type.records[rule].trusted)) ++rule;
        const bool flagged = rule < kRules || live.departed;
        if (rule < kRules && !live.spoken) say_end(static_cast<Rule>(rule), live, d, event, ledger, emit);
        account(type, live.type, flagged, now, event, ledger, emit);
        if (flagged) {
            if (acceptable(type, live, d, event, now)) teach(type, live);
            return;
        }
        ++type.tasks;
        remember(type.distances, type.tail_count[0], d.distance_bin);
        remember(type.surprises, type.tail_count[1], d.surprise_bin);
        teach(type, live);
        score(type, live, d.flags);
    }

    // A task that failed teaches nothing, but what would have been said of it while it ran counts.
    void drop(const Live& live) noexcept {
        if (!live.departed) score(types_[live.type], live, {});
    }

    // The first step no completed task took, else kDims.
    [[nodiscard]] static std::uint8_t unseen(const Type& type, const Live& live) noexcept {
        for (std::uint8_t x = 0; x < kDims; ++x) {
            if (live.counts[x] != 0 && type.taught[x] == 0) return x;
        }
        return kDims;
    }

    [[nodiscard]] Departure depart(const Type& type, const Live& live) const noexcept {
        Departure d;
        d.unseen = unseen(type, live);
        d.flags[kUnseen] = d.unseen < kDims;
        d.known = known(live) != kNone;
        d.compared = d.known || !hopeless(type) || type.tasks % kSampled == 0;
        if (!d.compared) return d;
        d.distance = d.known ? 0.0F : nearest(type, live.counts).distance;
        d.surprise = -fast_log2(std::max(live.rarest, 1e-37F));
        d.distance_bin = d.known ? 0 : 1 + static_cast<std::uint32_t>(std::min(d.distance * 200.0F, 62.0F));
        d.surprise_bin = static_cast<std::uint32_t>(std::min(d.surprise * 2.0F, 127.0F));
        d.flags[kCounts] = static_cast<double>(d.distance) > distance_;
        d.flags[kOrder] = !d.known && (type.cells_lost ||
                                       (tail(type.distances, type.tail_count[0], d.distance_bin) <= tail_ &&
                                        tail(type.surprises, type.tail_count[1], d.surprise_bin) <= tail_));
        return d;
    }

    [[nodiscard]] static bool trusted(const Type& type) noexcept {
        return std::any_of(type.records.begin(), type.records.end(), [](const Record& r) { return r.trusted; });
    }

    // A kind of free order: the search for its nearest order would cost most and tell least.
    [[nodiscard]] static bool hopeless(const Type& type) noexcept {
        return !trusted(type) && type.trial >= 2 * kWarmUp && share(type, kCounts) > kHopeless;
    }

    // --- trust ---------------------------------------------------------------------------------------------------

    // The share of a rule: flagged tasks + 1 over the last half to three quarters of the trial.
    [[nodiscard]] static double share(const Type& type, Rule rule) noexcept {
        const Record& record = type.records[rule];
        const double window = std::max(1.0, static_cast<double>(type.trial - type.block / 2));
        return (static_cast<double>(record.before) + static_cast<double>(record.current) + 1.0) / window;
    }

    // Counts what each rule says of a task, at its end or while it ran.
    void score(Type& type, const Live& live, std::array<bool, kRules> flags) noexcept {
        if (live.scored) {
            flags[kUnseen] = flags[kUnseen] || live.unseen;
            flags[kCounts] = flags[kCounts] || live.beyond;
            ++type.trial;
            for (std::size_t r = 0; r < kRules; ++r) type.records[r].current += flags[r] ? 1U : 0U;
            trust(type);
        }
        types_.move(live.type, trusted(type) ? kTrusted : kLearning);
    }

    void trust(Type& type) const noexcept {
        if (type.trial >= 2 * type.block) {
            type.block = type.trial;
            for (Record& record : type.records) {
                record.before = record.current;
                record.current = 0;
            }
        }
        for (std::size_t r = 0; r < kRules; ++r) {
            Record& record = type.records[r];
            if (record.trusted) continue;
            if (share(type, static_cast<Rule>(r)) > share_) record.above = type.trial;
            else record.trusted = type.trial >= std::max(min_tasks_, 2 * record.above);
        }
    }

    // Keeps the share flagged, and withdraws trust from a kind that has left its own orders for good.
    void account(Type& type, std::uint32_t slot, bool flagged, Nanos now, const Event& event, Ledger& ledger,
                 Emit& emit) {
        type.flagged_share += ((flagged ? 1.0F : 0.0F) - type.flagged_share) * kControlMemory;
        if (type.first == 0) type.first = type.window = now;
        type.last = now;
        ++type.judged;
        type.flagged += flagged ? 1U : 0U;
        if (now - type.window < accept_after_) return;
        const bool left = type.flagged >= min_tasks_ && type.flagged >= type.judged / kDriftShare;
        const std::uint32_t counts[2] = {type.flagged, type.judged};
        type.judged = type.flagged = 0;
        type.window = now;
        if (!left) return;
        type.records = {};
        type.trial = 0;
        type.block = 1;
        types_.move(slot, kLearning);
        say_untrusted(counts[0], counts[1], event, ledger, emit);
    }

    // Three sightings that a steady rare order could have left, or many over a long time.
    [[nodiscard]] bool acceptable(const Type& type, const Live& live, const Departure& d, const Event& event,
                                  Nanos now) noexcept {
        // A new step is a candidate by itself, in whatever order it comes.
        const bool step = d.flags[kUnseen] && d.unseen < kNamed;
        const std::uint64_t key = step ? order_key(live, type.names[d.unseen] | 1U) : order_key(live, live.order);
        std::uint32_t i = candidates_.find(key, [](const Candidate&) { return true; });
        const std::uint64_t session = event.session.empty() ? 0 : events::hash_text(event.session);
        if (i == kNone) {
            i = candidates_.create(key, 0, [](std::uint32_t) {});
            candidates_[i].first_tasks = type.tasks;
            candidates_[i].first = now;
        } else if (session != 0 && candidates_[i].session == session) {
            return false;  // not independent
        }
        candidates_.touch(i);
        Candidate& candidate = candidates_[i];
        candidate.session = session;
        ++candidate.sightings;
        const double later = static_cast<double>(type.tasks - std::min(type.tasks, candidate.first_tasks));
        const double place = later / std::max(1.0, static_cast<double>(type.tasks));
        const bool always_rare = candidate.sightings >= kSightings && type.flagged_share <= kInControl &&
                                 std::pow(place, static_cast<double>(candidate.sightings)) >= kAlwaysRare;
        const bool lasting = candidate.sightings >= accept_repeats_ && now - candidate.first >= accept_after_;
        if (!always_rare && !lasting) return false;
        candidates_.erase(i);
        return true;
    }

    // --- the law of a kind ---------------------------------------------------------------------------------------

    struct Nearest {
        std::uint32_t order = kNone;
        float distance = 1.0F;
    };

    [[nodiscard]] static std::uint64_t order_key(const Live& live, std::uint64_t order) noexcept {
        return events::mix(order + live.type, 2 * std::uint64_t{live.type_generation} + 1);
    }
    [[nodiscard]] std::uint32_t known(const Live& live) const noexcept {
        return orders_.find(order_key(live, live.order), [&](const Known& k) { return k.type == live.type; });
    }

    [[nodiscard]] Nearest nearest(const Type& type, const std::array<std::uint8_t, kDims>& counts) const noexcept {
        Nearest best;
        const std::uint32_t total = total_of(counts);
        for (std::uint32_t i = type.first_order; i != kNone; i = orders_[i].next) {
            const Known& k = orders_[i];
            const auto both = static_cast<float>(std::max(1U, k.total + total));
            const std::uint32_t least = k.total > total ? k.total - total : total - k.total;
            if (static_cast<float>(least) >= best.distance * both) continue;
            std::uint32_t sum = 0;
            for (std::size_t x = 0; x < kDims; ++x) {
                const int difference = int{k.counts[x]} - int{counts[x]};
                sum += static_cast<std::uint32_t>(difference < 0 ? -difference : difference);
            }
            const float distance = static_cast<float>(sum) / both;
            if (distance < best.distance || best.order == kNone) best = {i, distance};
        }
        return best;
    }

    // Whatever follows, counts only grow: with an excess e over an order of w steps the distance ends above e/(2w + e).
    [[nodiscard]] bool out_of_reach(const Type& type, const Live& live) const noexcept {
        for (std::uint32_t i = type.first_order; i != kNone; i = orders_[i].next) {
            const Known& k = orders_[i];
            std::uint32_t excess = 0;
            for (std::size_t x = 0; x < kDims; ++x) {
                excess += live.counts[x] > k.counts[x] ? std::uint32_t{live.counts[x]} - k.counts[x] : 0U;
            }
            const double whole = 2.0 * k.total + excess;
            if (static_cast<double>(excess) <= distance_ * whole) return false;
        }
        return type.first_order != kNone;
    }

    [[nodiscard]] std::uint32_t owner_of(std::uint32_t slot) const noexcept {
        return slot | (types_.generation(slot) << 10U);
    }
    [[nodiscard]] static std::uint64_t cell_key(std::uint32_t owner, std::uint32_t context, std::uint8_t x) noexcept {
        return events::mix((std::uint64_t{owner} << 32U | context) ^ 0xa0761d6478bd642fULL,
                           0xe7037ed1a0b428dbULL ^ x);
    }
    // Contexts of two steps and of one; 0 is none.
    [[nodiscard]] static std::uint32_t context(const std::uint8_t (&before)[2], int order) noexcept {
        return order == 2 ? 0x20000U | std::uint32_t{before[0]} << 8U | before[1] : 0x10000U | before[1];
    }

    [[nodiscard]] const Cell* bucket_of(std::uint64_t key) const noexcept {
        return &cells_[(key % kBuckets) * kWays];
    }
    [[nodiscard]] const Cell* find_cell(std::uint32_t owner, std::uint32_t context, std::uint8_t x) const noexcept {
        const std::uint64_t key = cell_key(owner, context, x);
        const Cell* bucket = bucket_of(key);
        const auto tag = static_cast<std::uint32_t>(key >> 32U);
        for (std::size_t way = 0; way < kWays; ++way) {
            if (bucket[way].tag == tag && bucket[way].owner == owner && bucket[way].count != 0) return &bucket[way];
        }
        return nullptr;
    }
    // A free cell, or one whose kind is gone; a full bucket is never taken from another kind.
    [[nodiscard]] Cell* make_cell(std::uint32_t owner, std::uint32_t context, std::uint8_t x) noexcept {
        const std::uint64_t key = cell_key(owner, context, x);
        Cell* bucket = &cells_[(key % kBuckets) * kWays];
        const auto tag = static_cast<std::uint32_t>(key >> 32U);
        Cell* room = nullptr;
        for (std::size_t way = 0; way < kWays; ++way) {
            Cell& cell = bucket[way];
            if (cell.tag == tag && cell.owner == owner && cell.count != 0) return &cell;
            if (room == nullptr && (cell.count == 0 || cell.owner != owner_of(cell.owner % kTypes))) room = &cell;
        }
        if (room != nullptr) *room = {tag, owner, 0, 0};
        return room;
    }

    // PPM, escape method C; a step never taught has one chance in 64 of what is left.
    [[nodiscard]] float probability(const Type& type, std::uint32_t slot, const std::uint8_t (&before)[2],
                                    std::uint8_t x) const noexcept {
        const std::uint32_t owner = owner_of(slot);
        float p = 1.0F;
        for (int order = 2; order >= 1; --order) {
            const std::uint32_t at = context(before, order);
            const Cell* whole = find_cell(owner, at, kWhole);
            if (whole == nullptr) continue;
            const float all = static_cast<float>(whole->count) + static_cast<float>(whole->distinct);
            const Cell* cell = find_cell(owner, at, x);
            if (cell != nullptr) return p * static_cast<float>(cell->count) / all;
            p *= static_cast<float>(whole->distinct) / all;
        }
        if (type.taught_steps == 0) return p / 64.0F;
        const float all = static_cast<float>(type.taught_steps) + static_cast<float>(type.known_names);
        if (type.taught[x] != 0) return p * static_cast<float>(type.taught[x]) / all;
        return p * static_cast<float>(std::max<std::uint8_t>(type.known_names, 1)) / all / 64.0F;
    }

    void teach(Type& type, const Live& live) noexcept {
        const std::uint32_t owner = owner_of(live.type);
        const std::size_t length = std::min<std::size_t>(live.steps, kTrace);
        std::uint8_t before[2] = {kStart, kStart};
        const std::size_t taught = length + (live.steps <= kTrace ? 1 : 0);
        for (std::size_t i = 0; i < taught; ++i) {
            const std::uint8_t x = i == length ? kEnd : live.trace[i];
            for (int order = 2; order >= 1; --order) teach_cell(type, owner, context(before, order), x);
            before[0] = before[1];
            before[1] = x;
            type.taught[x] += type.taught[x] != 0xffffffffU ? 1U : 0U;
            ++type.taught_steps;
        }
        for (std::size_t x = 0; x < kDims; ++x) {
            if (live.counts[x] != 0 && type.taught[x] == 0) type.taught[x] = 1;  // beyond the trace
            type.most[x] = std::max(type.most[x], live.counts[x]);
        }
        teach_order(type, live);
    }

    void teach_cell(Type& type, std::uint32_t owner, std::uint32_t context, std::uint8_t x) noexcept {
        Cell* cell = make_cell(owner, context, x);
        if (cell == nullptr || cell->count == 0xffffffffU) {
            type.cells_lost = type.cells_lost || cell == nullptr;
            return;
        }
        const bool first = ++cell->count == 1;
        Cell* whole = make_cell(owner, context, kWhole);
        if (whole == nullptr) {
            type.cells_lost = true;
            return;
        }
        whole->count += whole->count != 0xffffffffU ? 1U : 0U;
        whole->distinct += first ? 1U : 0U;
    }

    void teach_order(Type& type, const Live& live) noexcept {
        std::uint32_t i = known(live);
        if (i == kNone) {
            const bool full = orders_.size() == orders_.capacity();
            if (type.orders == kOrdersPerType || (full && type.orders > 0)) drop_order(type);
            else if (full) return;
            i = orders_.create(order_key(live, live.order), 0, [](std::uint32_t) {});
            Known& fresh = orders_[i];
            fresh.type = live.type;
            fresh.counts = live.counts;
            fresh.total = total_of(live.counts);
            append(type, i);
            ++type.orders;
        } else {
            orders_[i].again = true;
        }
        ++orders_[i].count;
    }

    void append(Type& type, std::uint32_t i) noexcept {
        orders_[i].next = kNone;
        if (type.first_order == kNone) type.first_order = i;
        else orders_[type.last_order].next = i;
        type.last_order = i;
    }

    // The oldest goes; one taught again in the meantime has a second turn.
    void drop_order(Type& type) noexcept {
        for (;;) {
            const std::uint32_t oldest = type.first_order;
            type.first_order = orders_[oldest].next;
            if (!orders_[oldest].again) {
                orders_.erase(oldest);
                break;
            }
            orders_[oldest].again = false;
            append(type, oldest);
        }
        --type.orders;
    }

    void forget_orders(Type& type) noexcept {
        for (std::uint32_t i = type.first_order; i != kNone;) {
            const std::uint32_t next = orders_[i].next;
            orders_.erase(i);
            i = next;
        }
    }

    // --- words ---------------------------------------------------------------------------------------------------

    [[nodiscard]] std::string name_of(const Type& type, std::uint8_t x) const {
        if (x == kEnd) return "the end";
        if (x == kStart) return "the start";
        if (x >= type.known_names) return "a further step";
        const std::uint32_t n = names_.find(type.names[x], [](const StepName&) { return true; });
        return n == kNone ? std::string("a step") : "'" + names_[n].str() + "'";
    }

    // "after 'a', 'b' came 'c' in 3 of 1200 cases; 'd' came in 1100"
    [[nodiscard]] std::string surprising_step(const Type& type, const Live& live) const {
        const std::uint32_t owner = owner_of(live.type);
        for (int order = 2; order >= 1; --order) {
            const std::uint32_t at = context(live.rarest_before, order);
            const Cell* whole = find_cell(owner, at, kWhole);
            if (whole == nullptr) continue;
            const Cell* cell = find_cell(owner, at, live.rarest_step);
            std::uint8_t usual = kOther;
            std::uint32_t most = 0;
            for (std::uint8_t x = 0; x < kDims; ++x) {
                const Cell* other = find_cell(owner, at, x);
                if (other == nullptr || other->count <= most) continue;
                most = other->count;
                usual = x;
            }
            const std::string after = order == 2 && live.rarest_before[0] != kStart
                                          ? name_of(type, live.rarest_before[0]) + ", " : std::string();
            return "after " + after + name_of(type, live.rarest_before[1]) + " came " +
                   name_of(type, live.rarest_step) + ", in " + std::to_string(cell == nullptr ? 0 : cell->count) +
                   " of " + std::to_string(whole->count) + " cases; " + name_of(type, usual) + " came in " +
                   std::to_string(most);
        }
        return name_of(type, live.rarest_step) + " is the most surprising step";
    }

    // "'a' came 5 times, there 3 times"; the largest difference to an order.
    [[nodiscard]] std::string largest_difference(const Type& type, const Live& live, const Known& k) const {
        std::uint8_t at = 0;
        int most = -1;
        for (std::uint8_t x = 0; x < kDims; ++x) {
            const int difference = std::abs(int{live.counts[x]} - int{k.counts[x]});
            if (difference <= most) continue;
            most = difference;
            at = x;
        }
        return name_of(type, at) + " came " + std::to_string(live.counts[at]) + " times, there " +
               std::to_string(k.counts[at]);
    }

    [[nodiscard]] Anomaly draft(const char* series, Rule rule, const Live& live, const Event& event,
                                const Ledger& ledger, const Emit& emit) const {
        const Type& type = types_[live.type];
        Facts facts;
        facts.rule = Facts::Rule::sequence;
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        Anomaly a;
        a.ts = event.ts;
        a.since = live.started;
        a.family = Family::behavioural;
        a.detector = "sequence";
        a.scope = narrowest_scope(event.tenant, event.agent, event.session, event.task);
        a.series = series;
        const double chance = std::min(1.0, share(type, rule));
        a.bits = -std::log2(chance);
        const double each_s = static_cast<double>(type.last - type.first) * 1e-9 /
                              std::max(1.0, static_cast<double>(type.tasks));
        a.false_alarm_interval_s = each_s / chance;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence.emplace_back(event.id);
        return a;
    }

    void say_unseen(Live& live, std::uint8_t x, const Event& event, const Ledger& ledger, Emit& emit) {
        live.spoken = live.departed = true;
        const Type& type = types_[live.type];
        Anomaly a = draft(kSeries[kUnseen], kUnseen, live, event, ledger, emit);
        a.value = live.counts[x];
        a.expected = 0;
        a.message = "step " + (x == kOther ? "'" + std::string(event.tool) + "'" : name_of(type, x)) +
                    " was taken by none of the last " + std::to_string(type.tasks) +
                    " completed tasks of its kind";
        if (live.rarest_step == x) a.message += ": " + surprising_step(type, live);
        emit.say(std::move(a));
    }

    void say_count(Live& live, std::uint8_t x, const Event& event, const Ledger& ledger, Emit& emit) {
        live.spoken = live.departed = true;
        const Type& type = types_[live.type];
        Anomaly a = draft("sequence.impossible_count", kCounts, live, event, ledger, emit);
        a.value = live.counts[x];
        a.expected = type.most[x];
        a.upper = type.most[x];
        a.message = "step " + name_of(type, x) + " came " + std::to_string(live.counts[x]) + " times, at most " +
                    std::to_string(type.most[x]) + " in " + std::to_string(type.tasks) +
                    " completed tasks of its kind; no end leads back to an order known";
        emit.say(std::move(a));
    }

    void say_end(Rule rule, Live& live, const Departure& d, const Event& event, const Ledger& ledger, Emit& emit) {
        live.spoken = true;
        const Type& type = types_[live.type];
        Anomaly a = draft(kSeries[rule], rule, live, event, ledger, emit);
        if (!live.rarest_id.empty() && !(live.rarest_id == event.id)) {
            a.evidence.insert(a.evidence.begin(), live.rarest_id.str());
        }
        const Nearest near = nearest(type, live.counts);
        if (rule == kUnseen) {
            a.value = live.counts[d.unseen];
            a.expected = 0;
            a.message = "step " + name_of(type, d.unseen) + " was taken by none of the last " +
                        std::to_string(type.tasks) + " completed tasks of its kind";
        } else {
            a.value = rule == kCounts ? static_cast<double>(d.distance) : static_cast<double>(d.surprise);
            a.expected = rule == kCounts ? 0.0 : kNotANumber;
            a.upper = rule == kCounts ? distance_ : surprise_bar(type);
            char text[96];
            std::snprintf(text, sizeof text, "steps differ by %.1f %% from the nearest order known",
                          static_cast<double>(near.distance) * 100.0);
            a.message = text;
        }
        if (near.order != kNone) {
            const Known& k = orders_[near.order];
            if (rule != kUnseen) {
                a.message += ", taken by " + std::to_string(k.count) + " of " + std::to_string(type.tasks) +
                             " tasks of its kind: " + largest_difference(type, live, k);
            }
        }
        a.message += "; " + surprising_step(type, live);
        emit.say(std::move(a));
    }

    // Bits that the tail of the kind's own tasks begins at.
    [[nodiscard]] double surprise_bar(const Type& type) const noexcept {
        std::size_t bin = 0;
        while (bin + 1 < kSurpriseBins && tail(type.surprises, type.tail_count[1], bin) > tail_) ++bin;
        return static_cast<double>(bin) / 2.0;
    }

    void say_untrusted(std::uint32_t flagged, std::uint32_t judged, const Event& event, const Ledger& ledger,
                       Emit& emit) const {
        Facts facts;
        facts.rule = Facts::Rule::sequence;
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        Anomaly a;
        a.ts = event.ts;
        a.since = ledger.sighting().now - accept_after_;
        a.family = Family::behavioural;
        a.detector = "sequence";
        a.scope = narrowest_scope(event.tenant, event.agent, {}, {});
        a.series = "sequence.untrusted";
        a.value = static_cast<double>(flagged) / static_cast<double>(judged);
        a.upper = 1.0 / kDriftShare;
        a.bits = kDeterministicBits;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence.emplace_back(event.id);
        a.message = std::to_string(flagged) + " of the last " + std::to_string(judged) +
                    " tasks departed from the orders learned: they no longer describe this kind of task, which is "
                    "learned anew and not judged meanwhile";
        emit.say(std::move(a));
    }

    double share_;
    std::uint32_t min_tasks_;
    double distance_, tail_;
    std::uint32_t accept_repeats_;
    Nanos accept_after_;
    events::Slab<Live> live_;
    events::Slab<Type, 2> types_;
    events::Slab<Known> orders_;
    events::Slab<Candidate> candidates_;
    events::Slab<StepName> names_;
    events::MappedArray<Cell> cells_;
};

void Sequence::save(Writer& writer) const {
    live_.save(writer);
    types_.save(writer);
    orders_.save(writer);
    candidates_.save(writer);
    names_.save(writer);
    std::uint32_t used = 0;
    for (std::size_t i = 0; i < cells_.size(); ++i) used += cells_[i].count != 0 ? 1U : 0U;
    writer.pod(used);
    for (std::size_t i = 0; i < cells_.size(); ++i) {
        if (cells_[i].count == 0) continue;
        writer.pod(static_cast<std::uint32_t>(i));
        writer.pod(cells_[i]);
    }
}

void Sequence::load(Reader& reader) {
    live_.load(reader);
    types_.load(reader);
    orders_.load(reader);
    candidates_.load(reader);
    names_.load(reader);
    cells_.clear(0, cells_.size());
    for (auto n = reader.pod<std::uint32_t>(); n > 0; --n) {
        const auto i = reader.pod<std::uint32_t>();
        if (i >= cells_.size()) throw CodecError("state: sequence: an n-gram is out of place");
        cells_[i] = reader.pod<Cell>();
    }
    for (std::uint32_t i = live_.oldest(); i != kNone; i = live_.newer(i)) {
        const Live& live = live_[i];
        const auto beyond = [](std::uint8_t x) { return x >= kDims; };
        if (std::any_of(live.trace.begin(), live.trace.end(), beyond) || beyond(live.before[0]) ||
            beyond(live.before[1])) {
            throw CodecError("state: sequence: a step is out of range");
        }
    }
    std::uint32_t linked = 0;
    for (const std::size_t list : {kTrusted, kLearning}) {
        for (std::uint32_t t = types_.oldest(list); t != kNone; t = types_.newer(t)) {
            const Type& type = types_[t];
            const auto beyond = [&](std::uint8_t slot) { return slot > type.known_names; };
            if (type.known_names > kNamed || std::any_of(type.index.begin(), type.index.end(), beyond)) {
                throw CodecError("state: sequence: a name is out of range");
            }
            std::uint32_t count = 0, last = kNone;
            for (std::uint32_t i = type.first_order; i != kNone && count <= type.orders; i = orders_[i].next, ++count) {
                if (i >= kOrders || orders_[i].type != t) throw CodecError("state: sequence: an order is out of place");
                last = i;
            }
            const bool whole = count == type.orders && (count == 0 || last == type.last_order);
            if (!whole) throw CodecError("state: sequence: an order is out of place");
            linked += count;
        }
    }
    if (linked != orders_.size()) throw CodecError("state: sequence: an order belongs to no kind");
}

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Sequence>(values); }

}  // namespace

extern const AuditorDescriptor sequence_auditor;
const AuditorDescriptor sequence_auditor{
    {"sequence", "tasks that depart from the steps, counts and order that completed tasks of their kind taught",
     "nearest count vector, PPM escape C of order 2 (Moffat 1990), prequential trust", kOptions},
    make};

}  // namespace argus::auditors
