// Economic faults of a payer (a tenant, else an agent, else the host) seen in its model calls alone, one small detector
// for each kind instead of one statistic of spend, since each kind leaves another trace:
//   price  a call costs a multiple of what its model, or the payer's usual model, charges for the same tokens. Prices
//          are exact to rounding: three such calls in a minute prove it. The call is booked at the usual price.
//   loop   one session, input that grows, output that stays, gaps of at most 30 s. The bar is learned (RunLaw). New
//          results of tools, files and words of a user are progress and end a run. Turns past the third leave the other
//          statistics: they are explained.
//   size   sum over the window of ln f(x - shift)/f(x) for shifts of x2 to x8, clipped to 3 nats a call; f is the own
//          histogram and 60 pseudo-calls of all payers. A call whose session's context grew is no new draw of a size.
//   rate   likelihood ratio of the window's count: Poisson at the own rate, or binomial at the own share of all calls
//          of the same window, whichever had the lower dispersion so far; divided by that dispersion (Pearson) of
//          blocks as long as the window, which makes bursts usual where they are.
//   retry  binomial ratio of calls that repeat an input length within 5 s against the learned share of such calls.
// Windows of 5 to 160 s, in four parts each, end at the call. Bins of 10 s teach 120 s later, unless evidence touched
// them or the payer paused. Evidence that was reported is never used again; what stands for an hour becomes the usual;
// from the fourth incident of a kind in a day on each must be twice as clear. Criteria W2 (material) and C4 (loops and
// prices only) judge.
// Method: scan statistics over likelihood ratios with an overdispersed null (McCullagh and Nelder 1989, chapter 4).
// Time is arrival time. Cost: bench_events events/calls/cost; about 1 us a call, nothing else but tool results looked
// up. State: 2.4 kB a payer (4,096), 0.2 kB a session (16,384); the rest is evicted, oldest and least known first.
// It does not promise: faults of fewer than ten calls; slow growth (forecast); what an agent hides in its own events.

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <string>

#include "auditors/auditor.hpp"
#include "auditors/cost_model.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::Ledger;
using events::Slab;

constexpr Option kOptions[] = {
    {"price_ratio", "1", 1.5, 1.1, 100, "a call is dear from this multiple of the usual price for the same tokens"},
    {"price_calls", "1", 3, 2, 8, "dear calls within 60 s that make a price jump"},
    {"loop_turns", "1", 6, 4, 60, "shortest run of like turns that counts as a loop; the learned bar is never below"},
    {"size_nats", "1", 12, 4, 1000, "evidence that calls became larger, in nats"},
    {"rate_nats", "1", 17, 4, 1000, "evidence that calls became more frequent, in nats"},
    {"retry_nats", "1", 12, 4, 1000, "evidence that calls repeat others, in nats"},
};

constexpr std::uint32_t kPayers = 4096, kSessions = 16'384, kModels = 256, kRecent = 2048;
constexpr std::size_t kKnown = 0, kNew = 1;  // lists of payers: a flood of names evicts newcomers only
constexpr std::size_t kScales = 6, kParts = 4, kShifts = 4;
constexpr std::array<std::size_t, kShifts> kShiftBins{3, 5, 7, 9};  // x2, x3.2, x5, x8
constexpr Nanos kPart = 1'250'000'000;        // part of the shortest window; each next one is twice as long
constexpr Nanos kBin = 10 * kSecond;
constexpr std::int64_t kAdoptBins = 12;
constexpr std::int64_t kIdleBins = 6;          // a payer away for longer is pausing: its clock stands still
constexpr std::size_t kHostBins = 512;
constexpr double kWarmCalls = 40, kWarmBins = 20, kWarmAloneBins = 51;  // weights of 200 s and of 10 min
constexpr double kPoolCalls = 60.0, kClip = 3.0;
constexpr double kSmallestRise = 1.5;         // of a count, before it is worth a logarithm
constexpr Nanos kPriceSpan = 60 * kSecond, kLoopGap = 30 * kSecond, kRetrySpan = 5 * kSecond;
constexpr Nanos kQuiet = 160 * kSecond;       // an incident is over when a whole longest window held no evidence
constexpr Nanos kAccept = 3600 * kSecond, kForgive = 8 * 3600 * kSecond;
constexpr std::uint8_t kHabit = 3, kMostTold = 20;
constexpr Nanos kTouchedBefore = 90 * kSecond, kTouchedAfter = 10 * kSecond;
constexpr double kLoopBand = 0.4, kLoopTokens = 16.0;
constexpr std::uint32_t kLoopExplained = 3;
constexpr double kFalseAlarmInterval = 7 * 86'400.0;  // of a payer, s; measured at the default bars (docs/agents.md)
constexpr double kUnknown = -1.0;
constexpr Nanos kLatest = std::numeric_limits<Nanos>::max() / 2;  // later is no time; sums stay in range

enum Kind : std::size_t { kPrice, kLoop, kSize, kRate, kRetry, kKinds };
constexpr const char* kSeries[kKinds] = {"cost.price", "cost.loop", "cost.size", "cost.rate", "cost.retry"};

// Which events tell of a call, the best kind last: a source or a session that uses a better kind is read by it alone.
enum Carrier : std::uint8_t { kNoCall, kReturned, kSettled, kLogged };

struct Call {
    Nanos now = 0, ts = 0;
    Usage usage{};
    double input = kUnknown, output = kUnknown;  // tokens
    double cost = 0.0;                           // nano-USD, as told or at its bound
    double booked = 0.0;                         // at the usual price
    bool priced = false;                         // the cost was told and is not an estimate
    bool grown = false;                          // its session's context grew: no new draw of a size
};

// Sums over one part of a window.
struct Row {
    float calls = 0, spend = 0, repeats = 0, spare = 0;
    std::array<float, kShifts> size{};
};

struct Totals {
    double calls = 0, spend = 0, repeats = 0;
    std::array<double, kShifts> size{};
};

struct Bin {
    float calls = 0, spend = 0;
    float sized = 0;  // calls that carry size evidence
    std::uint32_t repeats = 0;
    std::uint8_t touched = 0, kept = 0;
    std::array<std::uint8_t, 8> sizes{};  // a fair sample of the calls' size bins
};

struct Incident {
    Nanos since = 0, last = 0;
    std::uint8_t spoken = 0;  // severity said + 1; 0 = none stands
    std::uint8_t told = 0;    // incidents spoken of lately: each 8 hours forgive one
    Nanos told_at = 0;

    // What was told three times and goes on is part of the payer's ways: each further time it must be twice as clear.
    [[nodiscard]] bool habitual() const noexcept { return told >= kHabit; }
    [[nodiscard]] double patience() const noexcept {
        return habitual() ? static_cast<double>(2U << (told - kHabit)) : 1.0;
    }
    void forgive(Nanos now) noexcept {
        for (; told > 0 && now - told_at >= kForgive; --told) told_at += kForgive;
    }
};

struct Repeat {
    std::uint32_t input = 0, at = 0;  // tokens; units of 2^20 ns, 0 = never
};

struct Payer {
    std::uint64_t calls = 0;
    // windows
    std::array<std::array<Row, kParts>, kScales> rows{};
    std::int64_t part = 0;
    Nanos explained = 0;  // evidence up to here was reported
    // usual behaviour, by bins
    std::array<Bin, kAdoptBins + 1> bins{};
    std::int64_t bin = 0, first_bin = 0;
    Nanos touched_until = 0;
    std::int64_t idle_bins = 0;  // in a row
    double own = 0, rest = 0, spend = 0, repeats = 0, weight = 0;
    SizeLaw sizes;
    Dispersion alone, shared;  // of own counts, of the share of all calls
    std::array<Repeat, 16> recent{};
    // prices
    UsualPrice usual;
    std::uint32_t reference = kNone, reference_generation = 0;
    std::int32_t lead = 0;
    std::uint32_t dear = 0;               // calls of the present run of dear calls
    std::array<Nanos, 8> dear_at{};
    double dear_excess = 0;
    Nanos dear_since = 0;
    RunLaw runs;
    std::array<Incident, kKinds> incidents{};
};

struct Session {
    std::uint64_t payer = 0;
    std::uint32_t turns = 0;
    std::uint8_t carrier = kNoCall, spoken = 0;
    double context = kUnknown;  // input of its latest call
    double input = kUnknown, output = 0, spend = 0;  // of the run: latest input (unknown = none runs), mean output
    Nanos since = 0, last = 0;
    std::array<std::uint64_t, 8> steps{};  // of the run: what tools were asked and gave
    std::uint32_t step_count = 0;
};

struct Recent {
    std::uint64_t payer = 0, session = 0;
    Nanos at = 0;
    double weight = 0;  // what makes it telling: its cost
    InlineText<64> id;
};

static_assert(sizeof(Payer) <= 2'400 && sizeof(Session) <= 200);  // 4,096 and 16,384 of them: 13 MB

// What one detector found; the most telling one of a call speaks.
struct Finding {
    Kind kind = kSize;
    double score = 0;   // in multiples of its bar
    double nats = 0;
    double value = 0, expected = 0;
    Nanos since = 0;
    Facts facts;
    Verdict verdict;
};

[[nodiscard]] double tokens(std::int64_t count) noexcept {
    return count == kAbsent ? 0.0 : static_cast<double>(std::max<std::int64_t>(count, 0));
}

class Costs final : public Auditor {
public:
    explicit Costs(std::span<const double> v)
        : price_ratio_(v[0]), price_calls_(static_cast<std::uint32_t>(v[1])),
          loop_turns_(static_cast<std::uint32_t>(v[2])), bars_{0, 0, v[3], v[4], v[5]}, payers_(kPayers),
          sessions_(kSessions), models_(kModels), recent_(kRecent) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        switch (event.type) {
            case EventType::token_cost_logged: call(event, kLogged, ledger, emit); return;
            case EventType::budget_settled: call(event, kSettled, ledger, emit); return;
            case EventType::model_returned: call(event, kReturned, ledger, emit); return;
            case EventType::tool_called:
            case EventType::tool_returned:
            case EventType::file_written:
            case EventType::user_message: progress(event, ledger); return;
            case EventType::price_table_changed: forget_prices(); return;
            default: return;
        }
    }
    void on_tick(Nanos, Ledger&, Emit&) override {}

    void rearm(const Scope& scope, Ledger&) override {
        const bool all = scope.kind == ScopeKind::host;
        const std::string& owner = scope.kind == ScopeKind::tenant ? scope.id : scope.tenant;
        const std::uint64_t key = events::scope_hash(scope.kind, owner, scope.id);
        for (const std::size_t list : {kKnown, kNew}) {
            for (std::uint32_t i = payers_.oldest(list); i != kNone; i = payers_.newer(i)) {
                if (all || payers_.hash(i) == key) payers_[i].incidents = {};
            }
        }
        for (std::uint32_t i = sessions_.oldest(); i != kNone; i = sessions_.newer(i)) {
            if (all || sessions_.hash(i) == key || sessions_[i].payer == key) sessions_[i].spoken = 0;
        }
    }
    void save(Writer& writer) const override;
    void load(Reader& reader) override;

private:
    static void check(const Payer& payer) {
        for (const Bin& bin : payer.bins) {
            const bool sizes_fit = std::all_of(bin.sizes.begin(), bin.sizes.end(),
                                               [](std::uint8_t size) { return size < kSizeBins; });
            if (bin.kept > bin.sizes.size() || !sizes_fit) throw CodecError("state: a cost bin is damaged");
        }
    }

    // --- one call ----------------------------------------------------------------------------------------------------
    void call(const Event& event, Carrier carrier, const Ledger& ledger, Emit& emit) {
        const bool counted = event.input_tokens != kAbsent || event.output_tokens != kAbsent;
        if (!counted && event.cost_nusd == kAbsent) return;
        const events::Sighting& seen = ledger.sighting();
        if (seen.now > kLatest) return;
        const events::Source& source = ledger.sources()[seen.source];
        if (carrier < kLogged && source.shows(EventType::token_cost_logged)) return;
        if (carrier < kSettled && source.shows(EventType::budget_settled)) return;
        const std::uint64_t payer_key = key_of(event, ledger);
        const events::AccountRef actor = seen.account(events::Actor::session);
        std::uint32_t s = kNone;
        if (actor.index != kNone) {
            s = session_of(ledger.accounts().hash(actor.index), payer_key, seen.now);
            if (carrier < sessions_[s].carrier) return;
            sessions_[s].carrier = carrier;
        }
        Call c;
        c.now = seen.now;
        c.ts = event.ts;
        c.usage = {tokens(event.input_tokens), tokens(event.output_tokens), tokens(event.cache_read_tokens),
                   tokens(event.cache_write_tokens)};
        if (event.input_tokens != kAbsent) c.input = c.usage[0];
        if (event.output_tokens != kAbsent) c.output = c.usage[1];
        c.priced = event.cost_nusd != kAbsent && event.cost_estimated != 1;
        c.cost = static_cast<double>(
            std::max<std::int64_t>(0, event.cost_nusd != kAbsent ? event.cost_nusd : ledger.price(event)));
        c.booked = c.cost;
        roll_host(c.now);
        Payer& payer = payer_of(payer_key, c.now);
        remember(event, payer_key, s, c);
        if (c.priced && c.input >= 0) price(payer, payer_key, event, c, ledger, emit);
        if (s != kNone) {
            c.grown = sessions_[s].context >= 0 && c.input > sessions_[s].context;
            sessions_[s].context = c.input;
        }
        const std::uint32_t turns = s == kNone || c.input < 0 || c.output < 0
                                        ? 0
                                        : turn(payer, payer_key, sessions_[s], s, event, c, ledger, emit);
        if (turns > kLoopExplained) return;
        record(payer, c);
        scan(payer, payer_key, event, c, ledger, emit);
    }

    [[nodiscard]] static ScopeKind payer_kind(const Event& event) noexcept {
        return !event.tenant.empty() ? ScopeKind::tenant : !event.agent.empty() ? ScopeKind::agent : ScopeKind::host;
    }
    [[nodiscard]] static std::uint64_t key_of(const Event& event, const Ledger& ledger) noexcept {
        const events::AccountRef tenant = ledger.sighting().account(events::Actor::tenant);
        if (tenant.index != kNone) return ledger.accounts().hash(tenant.index);
        const ScopeKind kind = payer_kind(event);
        if (kind == ScopeKind::host) return events::scope_hash(kind, {}, {});
        return events::scope_hash(kind, event.tenant, kind == ScopeKind::tenant ? event.tenant : event.agent);
    }

    std::uint32_t session_of(std::uint64_t key, std::uint64_t payer, Nanos now) noexcept {
        std::uint32_t i = sessions_.find(key, [](const Session&) { return true; });
        if (i == kNone) {
            i = sessions_.create(key, 0, [](std::uint32_t) {});
            sessions_[i].payer = payer;
            sessions_[i].last = now;
        }
        sessions_.touch(i);
        return i;
    }

    Payer& payer_of(std::uint64_t key, Nanos now) noexcept {
        std::uint32_t i = payers_.find(key, [](const Payer&) { return true; });
        const std::int64_t bin = now / kBin;
        if (i == kNone) {
            i = payers_.create(key, kNew, [](std::uint32_t) {});
            payers_[i].bin = payers_[i].first_bin = bin;
        }
        Payer& payer = payers_[i];
        payers_.move(i, payer.weight >= kWarmBins ? kKnown : kNew);
        catch_up(payer, bin);
        return payer;
    }

    void remember(const Event& event, std::uint64_t payer, std::uint32_t session, const Call& c) noexcept {
        Recent& r = recent_[recent_count_++ % kRecent];
        r = {payer, session == kNone ? 0 : sessions_.hash(session), c.now, c.cost, {}};
        r.id.assign(event.id);
    }

    // --- usual behaviour ---------------------------------------------------------------------------------------------
    void roll_host(Nanos now) noexcept {
        const std::int64_t bin = now / kBin;
        if (host_bin_ == 0 || bin - host_bin_ > static_cast<std::int64_t>(kHostBins)) host_bin_ = bin - 1;
        while (host_bin_ < bin) {
            host_calls_[static_cast<std::size_t>(++host_bin_) % kHostBins] = 0.0F;
            pool_.decay(kKeepBin);
            pool_stale_ = true;
        }
        const std::int64_t part = now / kPart;
        clear_passed(host_rows_, host_part_, part, 0.0F);
        host_part_ = part;
        if (!pool_stale_) return;
        pool_stale_ = false;
        const double total = pool_.total() + 0.01 * static_cast<double>(kSizeBins);
        for (std::size_t b = 0; b < kSizeBins; ++b) {
            pool_law_[b] = (pool_.smoothed(b) + 0.01) / total;
        }
    }

    // Parts of windows that have passed since `before` are emptied.
    template <class T>
    static void clear_passed(std::array<std::array<T, kParts>, kScales>& rows, std::int64_t before, std::int64_t now,
                             const T& empty) noexcept {
        for (std::size_t w = 0; w < kScales; ++w) {
            const std::int64_t last = now >> w;
            std::int64_t at = before >> w;
            if (at == last) return;  // longer parts did not pass either
            if (last - at > static_cast<std::int64_t>(kParts)) at = last - static_cast<std::int64_t>(kParts);
            while (at < last) rows[w][static_cast<std::size_t>(++at) % kParts] = empty;
        }
    }

    void catch_up(Payer& payer, std::int64_t bin) noexcept {
        if (payer.bin == bin) return;
        const auto held = static_cast<std::int64_t>(payer.bins.size());
        // Nothing but idle bins lies between: they teach nothing.
        if (bin - payer.bin > 2 * held + kIdleBins) {
            catch_up(payer, payer.bin + held + kIdleBins);
            payer.bin = payer.first_bin = bin - held;
            payer.bins = {};
        }
        while (payer.bin < bin) {
            const std::int64_t old = ++payer.bin - static_cast<std::int64_t>(payer.bins.size());
            Bin& slot = payer.bins[static_cast<std::size_t>(payer.bin) % payer.bins.size()];
            if (old >= payer.first_bin) adopt(payer, slot, old);
            slot = Bin{};
            slot.touched = payer.bin * kBin <= payer.touched_until ? 1 : 0;
        }
    }

    void adopt(Payer& p, const Bin& bin, std::int64_t number) noexcept {
        if (bin.touched != 0) return;
        const double calls = static_cast<double>(bin.calls);
        p.idle_bins = calls > 0 ? 0 : p.idle_bins + 1;
        // Long past bins of the host are gone: then only the payer's own calls are known.
        const bool host_known = host_bin_ - number < static_cast<std::int64_t>(kHostBins);
        const double all =
            host_known ? static_cast<double>(host_calls_[static_cast<std::size_t>(number) % kHostBins]) : calls;
        if (p.weight > 12) {
            // Also while it pauses: others that go on then show how little the share of all calls tells of this one.
            const double share = p.own / (p.own + p.rest + 1e-9);
            if (host_known) p.shared.learn(calls - all * share, all * share * (1 - share));
            const double own = p.own / p.weight;
            if (p.idle_bins <= kIdleBins) p.alone.learn(calls - own, own);
        }
        if (p.idle_bins > kIdleBins) return;
        const double sized = static_cast<double>(bin.sized);
        p.own = p.own * kKeepBin + calls;
        p.rest = p.rest * kKeepBin + std::max(0.0, all - calls);
        p.spend = p.spend * kKeepBin + static_cast<double>(bin.spend);
        p.repeats = p.repeats * kKeepBin + static_cast<double>(bin.repeats);
        p.weight = p.weight * kKeepBin + 1;
        p.sizes.decay(kKeepBin);
        const std::size_t kept = bin.kept;
        for (std::size_t i = 0; i < kept; ++i) {
            p.sizes.add(bin.sizes[i], sized / static_cast<double>(kept));
            pool_.add(bin.sizes[i], sized / static_cast<double>(kept));
        }
    }

    void touch(Payer& payer, Nanos now) noexcept {
        payer.touched_until = std::max(payer.touched_until, now + kTouchedAfter);
        for (std::int64_t b = std::max(payer.first_bin, (now - kTouchedBefore) / kBin); b <= payer.bin; ++b) {
            payer.bins[static_cast<std::size_t>(b) % payer.bins.size()].touched = 1;
        }
    }

    // Nano-USD a second that the payer usually spends; 0 = not known yet.
    [[nodiscard]] static double usual_spend(const Payer& p) noexcept {
        return p.weight >= kWarmBins ? p.spend / p.weight / (static_cast<double>(kBin) * 1e-9) : 0.0;
    }

    // --- price -------------------------------------------------------------------------------------------------------
    void price(Payer& payer, std::uint64_t payer_key, const Event& event, Call& c, const Ledger& ledger, Emit& emit) {
        const std::uint64_t key = events::hash_parts(0, event.provider, event.model);
        std::uint32_t m = models_.find(key, [](const UnitPrice&) { return true; });
        if (m == kNone) m = models_.create(key, 0, [](std::uint32_t) {});
        models_.touch(m);
        const double own_list = models_[m].list(c.usage);
        models_[m].learn(c.usage, c.cost, c.now);
        const double own_ratio = own_list > 0 ? c.cost / own_list : 1.0;
        double ratio = own_ratio;
        double reference_ratio = 0.0;
        if (models_.holds(payer.reference, payer.reference_generation)) {
            const double list = models_[payer.reference].list(c.usage);
            if (list > 0) reference_ratio = c.cost / list;
            if (payer.usual.known()) ratio = std::max(ratio, reference_ratio / payer.usual.value());
        }
        payer.incidents[kPrice].forgive(c.now);
        const bool usual = payer.incidents[kPrice].habitual();
        if (usual && reference_ratio > 0) payer.usual.add(reference_ratio);
        if (ratio < price_ratio_) {
            follow(payer, m);
            if (!usual && reference_ratio > 0) payer.usual.add(reference_ratio);
            return;
        }
        c.booked = c.cost / ratio;
        Incident& incident = payer.incidents[kPrice];
        if (stands(incident, c.now) && c.now - incident.since >= kAccept) {
            payer.usual = UsualPrice{};
            payer.reference = kNone;
            payer.lead = 0;
            incident = Incident{};
            return;
        }
        const std::uint32_t before = payer.dear;
        if (before == 0 || c.now - payer.dear_at[(before - 1) % payer.dear_at.size()] > kPriceSpan) {
            payer.dear = 0;
            payer.dear_excess = 0;
            payer.dear_since = c.now;
        }
        payer.dear_at[payer.dear++ % payer.dear_at.size()] = c.now;
        payer.dear_excess += c.cost - c.booked;
        if (payer.dear < price_calls_) return;
        if (c.now - payer.dear_at[(payer.dear - price_calls_) % payer.dear_at.size()] > kPriceSpan) return;
        touch(payer, c.now);
        Finding f;
        f.kind = kPrice;
        f.score = f.value = ratio;
        f.expected = 1.0;
        f.since = payer.dear_since;
        f.facts.repeats = payer.dear;
        f.facts.excess_nusd = payer.dear_excess;
        judge(payer, f, emit, ledger, c.now);
        if (f.verdict.severity != Severity::info) speak(payer, payer_key, f, event, c, emit);
    }

    // The reference is the model that most of the payer's calls go to.
    void follow(Payer& payer, std::uint32_t model) noexcept {
        if (payer.reference == model && models_.holds(model, payer.reference_generation)) {
            payer.lead = std::min(payer.lead + 1, 200);
            return;
        }
        if (models_.holds(payer.reference, payer.reference_generation) && --payer.lead > 0) return;
        if (!models_[model].exact()) return;
        payer.reference = model;
        payer.reference_generation = models_.generation(model);
        payer.lead = 1;
        payer.usual = UsualPrice{};
    }

    void forget_prices() noexcept {
        for (std::uint32_t i = models_.oldest(); i != kNone; i = models_.newer(i)) models_[i] = UnitPrice{};
    }

    // --- loop --------------------------------------------------------------------------------------------------------
    // New results of tools, files and words of a user are progress; what was asked and answered before is not.
    void progress(const Event& event, const Ledger& ledger) noexcept {
        const events::AccountRef actor = ledger.sighting().account(events::Actor::session);
        if (actor.index == kNone || sessions_.size() == 0) return;
        const std::uint32_t i =
            sessions_.find(ledger.accounts().hash(actor.index), [](const Session&) { return true; });
        if (i == kNone) return;
        Session& session = sessions_[i];
        const bool tool = event.type == EventType::tool_called || event.type == EventType::tool_returned;
        if (tool && !(event.args_hash.empty() && event.result_hash.empty())) {
            const std::uint64_t step = events::hash_parts(static_cast<std::uint64_t>(event.type), event.tool,
                                                          event.args_hash, event.result_hash);
            const auto end = session.steps.begin() + std::min<std::size_t>(session.step_count, session.steps.size());
            if (std::find(session.steps.begin(), end, step) != end) return;
            session.steps[session.step_count++ % session.steps.size()] = step;
        }
        session.input = kUnknown;  // the next turn begins a run
    }

    std::uint32_t turn(Payer& payer, std::uint64_t payer_key, Session& run, std::uint32_t index, const Event& event,
                       const Call& c, const Ledger& ledger, Emit& emit) {
        const double band = std::max(kLoopTokens, kLoopBand * run.output);
        const double off = c.output - run.output;
        if (run.input < 0 || c.now - run.last > kLoopGap || c.input <= run.input || off > band || off < -band) {
            run.turns = 0;
            run.spoken = 0;
            run.output = c.output;
            run.spend = 0;
            run.since = c.now;
            payer.runs.begin();
            all_runs_.begin();
        }
        ++run.turns;
        run.input = c.input;
        run.last = c.now;
        run.spend += c.cost;
        run.output += (c.output - run.output) / std::min(run.turns, 8U);
        if (run.spoken == 0) {
            payer.runs.reach(run.turns);
            all_runs_.reach(run.turns);
        }
        const std::uint32_t bar = loop_bar(payer, run.spoken == 0 ? run.turns : 0);
        if (run.turns < bar || bar >= RunLaw::kLongest) return run.turns;
        Finding f;
        f.kind = kLoop;
        // What a payer's runs look like is not known from a few: none of them is a proof.
        f.score = payer.runs.known() ? static_cast<double>(run.turns) / static_cast<double>(bar) : 1.0;
        f.value = static_cast<double>(run.turns);
        f.expected = static_cast<double>(bar);
        f.since = run.since;
        f.facts.repeats = run.turns;
        f.facts.excess_nusd = run.spend;
        judge(payer, f, emit, ledger, c.now);
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(f.verdict.severity) + 1U);
        if (level <= run.spoken || f.verdict.severity == Severity::info) return run.turns;
        if (run.spoken == 0) {
            payer.runs.disown(run.turns);
            all_runs_.disown(run.turns);
        }
        run.spoken = level;
        touch(payer, c.now);
        say(f, payer_key, sessions_.hash(index), event, c, emit);
        return run.turns;
    }

    // A new payer is held to twice the bar of all payers together; before that is known, to none.
    [[nodiscard]] std::uint32_t loop_bar(const Payer& payer, std::uint32_t own) const noexcept {
        if (payer.runs.known()) return payer.runs.bar(loop_turns_, own);
        return all_runs_.known() ? std::min(2 * all_runs_.bar(loop_turns_, own), RunLaw::kLongest) : RunLaw::kLongest;
    }

    // --- size, rate, retry -------------------------------------------------------------------------------------------
    void record(Payer& p, const Call& c) noexcept {
        Row row;
        row.calls = 1.0F;
        row.spend = static_cast<float>(c.booked);
        row.repeats = repeats(p, c) ? 1.0F : 0.0F;
        const std::size_t size = size_bin(c.booked);
        const bool sized = c.booked > 0 && !c.grown;
        if (sized) row.size = size_evidence(p, size);
        const std::int64_t part = c.now / kPart;
        clear_passed(p.rows, p.part, part, Row{});
        p.part = part;
        for (std::size_t w = 0; w < kScales; ++w) {
            const auto at = static_cast<std::size_t>(part >> w) % kParts;
            host_rows_[w][at] += 1.0F;
            Row& sum = p.rows[w][at];
            sum.calls += row.calls;
            sum.spend += row.spend;
            sum.repeats += row.repeats;
            for (std::size_t s = 0; s < kShifts; ++s) sum.size[s] += row.size[s];
        }
        ++p.calls;
        host_calls_[static_cast<std::size_t>(p.bin) % kHostBins] += 1.0F;
        Bin& bin = p.bins[static_cast<std::size_t>(p.bin) % p.bins.size()];
        bin.calls += 1.0F;
        bin.spend += row.spend;
        bin.repeats += row.repeats > 0 ? 1 : 0;
        if (!sized) return;
        bin.sized += 1.0F;
        sample(bin, static_cast<std::uint8_t>(size), p.calls);
    }

    // Reservoir sampling; the draw is a hash of the call's number.
    static void sample(Bin& bin, std::uint8_t size, std::uint64_t number) noexcept {
        if (bin.kept < bin.sizes.size()) {
            bin.sizes[bin.kept++] = size;
            return;
        }
        const std::uint64_t draw = events::mix(number, 0x9e3779b97f4a7c15ULL) % static_cast<std::uint64_t>(bin.sized);
        if (draw < bin.sizes.size()) bin.sizes[draw] = size;
    }

    [[nodiscard]] static bool repeats(Payer& p, const Call& c) noexcept {
        if (c.input <= 0) return false;
        const auto input = static_cast<std::uint32_t>(std::min(c.input, 4e9));
        const auto at = static_cast<std::uint32_t>(static_cast<std::uint64_t>(c.now) >> 20);
        Repeat& slot = p.recent[(input * 2654435761U) >> 28];
        const bool repeat = slot.at != 0 && slot.input == input && at - slot.at <= kRetrySpan >> 20;
        slot = {input, at};
        return repeat;
    }

    [[nodiscard]] std::array<float, kShifts> size_evidence(const Payer& p, std::size_t bin) const noexcept {
        const double total = p.sizes.total() + kPoolCalls;
        const auto law = [&](std::size_t b) {
            const double f = (p.sizes.smoothed(b) + kPoolCalls * pool_law_[b]) / total;
            return quick_log(0.995 * f + 0.005 / static_cast<double>(kSizeBins));
        };
        std::array<float, kShifts> nats{};
        const double here = law(bin);
        for (std::size_t s = 0; s < kShifts; ++s) {
            const double there = law(bin > kShiftBins[s] ? bin - kShiftBins[s] : 0);
            nats[s] = static_cast<float>(std::clamp(there - here, -kClip, kClip));
        }
        return nats;
    }

    [[nodiscard]] static Totals totals(const std::array<Row, kParts>& rows) noexcept {
        Totals t;
        for (const Row& row : rows) {
            t.calls += static_cast<double>(row.calls);
            t.spend += static_cast<double>(row.spend);
            t.repeats += static_cast<double>(row.repeats);
            for (std::size_t s = 0; s < kShifts; ++s) t.size[s] += static_cast<double>(row.size[s]);
        }
        return t;
    }

    void scan(Payer& p, std::uint64_t payer_key, const Event& event, const Call& c, const Ledger& ledger, Emit& emit) {
        if (static_cast<double>(p.calls) < kWarmCalls || p.weight < kWarmBins || p.own <= 0) return;
        for (const Kind kind : {kSize, kRate, kRetry}) p.incidents[kind].forgive(c.now);
        const std::int64_t part = c.now / kPart;
        Finding best;
        for (std::size_t w = 0; w < kScales; ++w) {
            const Nanos start = (((part >> w) - (static_cast<std::int64_t>(kParts) - 1)) << w) * kPart;
            if (start < p.explained) break;
            const Totals t = totals(p.rows[w]);
            if (t.calls < 3) continue;
            double all = 0.0;
            for (const float n : host_rows_[w]) all += static_cast<double>(n);
            weigh(p, w, t, all, static_cast<double>(c.now - start) * 1e-9, best, ledger, emit, c.now);
        }
        if (best.score <= 1) return;
        best.since = std::max(best.since, p.explained);
        p.explained = c.now;
        touch_unless_accepted(p, best.kind, c.now);
        speak(p, payer_key, best, event, c, emit);
    }

    // Each kind of evidence in one window; the most telling material one is kept in `best`.
    void weigh(const Payer& p, std::size_t w, const Totals& t, double all, double seconds, Finding& best,
               const Ledger& ledger, Emit& emit, Nanos now) const {
        const std::size_t block = w == 0 ? 0 : w - 1;  // of as many bins as the window is long
        const double own_rate = p.own / p.weight / 10.0;
        const double share = p.own / (p.own + p.rest);
        const double mean_cost = p.spend / p.own;
        const bool shared = share < 0.9 && p.shared.value(2) < p.alone.value(2);
        const double expected = std::max(shared ? all * share : own_rate * seconds, 1e-6);
        std::array<double, kKinds> nats{};
        nats[kSize] = *std::max_element(t.size.begin(), t.size.end());
        if (t.calls >= 4 && t.calls > kSmallestRise * expected && (shared || p.weight >= kWarmAloneBins)) {
            const double rest = std::max(0.0, all - t.calls);
            double ratio = t.calls * quick_log(t.calls / expected);
            if (!shared) ratio -= t.calls - expected;
            else if (rest > 0) ratio += rest * quick_log(rest / (all * (1 - share)));
            nats[kRate] = ratio / (shared ? p.shared : p.alone).value(block);
        }
        const double usual_repeats = std::min((p.repeats + 1.0) / (p.own + 50.0), 0.999);
        if (t.repeats >= 4 && t.repeats > 2 * t.calls * usual_repeats) {
            const double q = t.repeats / t.calls;
            nats[kRetry] = t.repeats * quick_log(q / usual_repeats);
            if (q < 1) nats[kRetry] += (t.calls - t.repeats) * quick_log((1 - q) / (1 - usual_repeats));
        }
        for (const Kind kind : {kSize, kRate, kRetry}) {
            const double score = nats[kind] / (bars_[kind] * p.incidents[kind].patience());
            if (score <= std::max(1.0, best.score)) continue;
            Finding f;
            f.kind = kind;
            f.score = score;
            f.nats = nats[kind];
            const double usual = std::max(own_rate * seconds, expected) * mean_cost;
            f.facts.spend_ratio = usual > 0 ? t.spend / usual : 0.0;
            f.facts.excess_nusd = t.spend - usual;
            if (kind == kSize) {
                f.value = t.spend / t.calls * 1e-9;
                f.expected = mean_cost * 1e-9;
            } else {
                f.value = kind == kRate ? t.calls / seconds : t.repeats / t.calls;
                f.expected = kind == kRate ? expected / seconds : usual_repeats;
            }
            f.since = now - static_cast<Nanos>(seconds * 1e9);
            judge(p, f, emit, ledger, now);
            if (f.verdict.severity != Severity::info) best = f;
        }
    }

    // --- speaking ----------------------------------------------------------------------------------------------------
    static void judge(const Payer& payer, Finding& f, const Emit& emit, const Ledger& ledger, Nanos now) {
        f.facts.rule = Facts::Rule::cost;
        f.facts.cost = f.kind == kPrice  ? Facts::Cost::price
                       : f.kind == kLoop ? Facts::Cost::loop
                                         : Facts::Cost::statistic;
        f.facts.strength = f.score;
        const double usual = usual_spend(payer);
        f.facts.excess_s = usual > 0 ? f.facts.excess_nusd / usual : 0.0;
        f.verdict = emit.judge(f.facts, ledger, now);
    }

    [[nodiscard]] static bool stands(const Incident& incident, Nanos now) noexcept {
        return incident.spoken != 0 && now - incident.last <= kQuiet;
    }
    void touch_unless_accepted(Payer& payer, Kind kind, Nanos now) noexcept {
        const Incident& incident = payer.incidents[kind];
        if (!stands(incident, now) || now - incident.since < kAccept) touch(payer, now);
    }

    void speak(Payer& payer, std::uint64_t payer_key, const Finding& f, const Event& event, const Call& c,
               Emit& emit) {
        Incident& incident = payer.incidents[f.kind];
        if (!stands(incident, c.now)) incident = {c.now, c.now, 0, incident.told, incident.told_at};
        incident.last = c.now;
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(f.verdict.severity) + 1U);
        if (level <= incident.spoken) return;
        if (incident.spoken == 0) {
            incident.forgive(c.now);
            incident.told = std::min<std::uint8_t>(static_cast<std::uint8_t>(incident.told + 1), kMostTold);
            incident.told_at = c.now;
        }
        incident.spoken = level;
        say(f, payer_key, 0, event, c, emit);
    }

    void say(const Finding& f, std::uint64_t payer_key, std::uint64_t session_key, const Event& event, const Call& c,
             Emit& emit) const {
        Anomaly a;
        a.ts = c.ts;
        a.since = c.ts - std::max<Nanos>(0, c.now - f.since);
        a.family = Family::economic;
        a.detector = "cost";
        if (f.kind == kLoop) {
            a.scope = narrowest_scope(event.tenant, event.agent, event.session,
                                      event.session.empty() ? event.task : std::string_view{});
            a.scope.task = event.task;
        } else {
            const ScopeKind kind = payer_kind(event);
            const std::string_view agent = kind == ScopeKind::agent ? event.agent : std::string_view{};
            a.scope = narrowest_scope(event.tenant, agent, {}, {});
        }
        a.series = kSeries[f.kind];
        a.value = f.value;
        a.expected = f.expected;
        if (f.kind == kLoop) a.upper = f.expected;
        if (f.facts.cost == Facts::Cost::statistic) a.false_alarm_interval_s = kFalseAlarmInterval;
        a.bits = f.facts.cost != Facts::Cost::statistic ? kDeterministicBits : f.nats / kLn2;
        a.direction = Direction::up;
        a.severity = f.verdict.severity;
        a.criterion = f.verdict.criterion;
        a.evidence.emplace_back(event.id);
        gather(a.evidence, payer_key, session_key, f.since);
        a.message = describe(f, c);
        emit.say(std::move(a));
    }

    // The costliest calls since the condition began, of the session or of the payer.
    void gather(std::vector<std::string>& ids, std::uint64_t payer, std::uint64_t session, Nanos since) const {
        const std::size_t kept = std::min<std::uint64_t>(recent_count_, kRecent);
        std::array<const Recent*, 3> top{};
        for (std::size_t i = 1; i < kept; ++i) {  // the newest is the call at hand
            const Recent& r = recent_[(recent_count_ - 1 - i) % kRecent];
            if (r.at < since) break;
            if (session != 0 ? r.session != session : r.payer != payer) continue;
            const Recent* entry = &r;
            for (const Recent*& place : top) {
                if (place == nullptr || entry->weight > place->weight) std::swap(entry, place);
                if (entry == nullptr) break;
            }
        }
        for (const Recent* r : top) {
            if (r != nullptr) ids.push_back(r->id.str());
        }
    }

    [[nodiscard]] static std::string describe(const Finding& f, const Call& c) {
        char text[256];
        const double seconds = static_cast<double>(std::max<Nanos>(0, c.now - f.since)) * 1e-9;
        const double usd = f.facts.excess_nusd * 1e-9;
        switch (f.kind) {
            case kPrice:
                std::snprintf(text, sizeof text,
                              "%llu calls in %.0f s at %.2f times the usual price of their tokens: %.6f USD too much",
                              static_cast<unsigned long long>(f.facts.repeats), seconds, f.value, usd);
                break;
            case kLoop:
                std::snprintf(text, sizeof text,
                              "%llu turns in %.0f s with growing input, like output and no sign of progress, where "
                              "%.0f are rare: %.6f USD so far",
                              static_cast<unsigned long long>(f.facts.repeats), seconds, f.expected, usd);
                break;
            case kSize:
                std::snprintf(text, sizeof text,
                              "calls of the last %.0f s cost %.6f USD each, %.6f usual: %.6f USD above usual spend",
                              seconds, f.value, f.expected, usd);
                break;
            case kRate:
                std::snprintf(text, sizeof text,
                              "%.2f calls a second over the last %.0f s, %.2f expected: %.6f USD above usual spend",
                              f.value, seconds, f.expected, usd);
                break;
            default:
                std::snprintf(text, sizeof text,
                              "%.0f %% of the calls of the last %.0f s repeat an input, %.1f %% usual: %.6f USD above "
                              "usual spend",
                              100 * f.value, seconds, 100 * f.expected, usd);
        }
        return text;
    }

    double price_ratio_;
    std::uint32_t price_calls_, loop_turns_;
    std::array<double, kKinds> bars_;
    Slab<Payer, 2> payers_;
    Slab<Session> sessions_;
    Slab<UnitPrice> models_;
    events::MappedArray<Recent> recent_;
    std::uint64_t recent_count_ = 0;
    // all payers together
    std::array<std::array<float, kParts>, kScales> host_rows_{};
    std::int64_t host_part_ = 0, host_bin_ = 0;
    std::array<float, kHostBins> host_calls_{};
    RunLaw all_runs_;
    SizeLaw pool_;
    std::array<double, kSizeBins> pool_law_{};
    bool pool_stale_ = true;
};

void Costs::save(Writer& writer) const {
    payers_.save(writer);
    sessions_.save(writer);
    models_.save(writer);
    const std::uint64_t kept = std::min<std::uint64_t>(recent_count_, kRecent);
    writer.pod(recent_count_);
    for (std::uint64_t i = 0; i < kept; ++i) writer.pod(recent_[i]);
    writer.pod(host_rows_);
    writer.pod(host_part_);
    writer.pod(host_bin_);
    writer.pod(host_calls_);
    writer.pod(all_runs_);
    writer.pod(pool_);
    writer.pod(pool_law_);
    writer.pod(pool_stale_);
}

void Costs::load(Reader& reader) {
    payers_.load(reader);
    for (const std::size_t list : {kKnown, kNew}) {
        for (std::uint32_t i = payers_.oldest(list); i != kNone; i = payers_.newer(i)) check(payers_[i]);
    }
    sessions_.load(reader);
    models_.load(reader);
    recent_count_ = reader.pod<std::uint64_t>();
    const std::uint64_t kept = std::min<std::uint64_t>(recent_count_, kRecent);
    for (std::uint64_t i = 0; i < kept; ++i) recent_[i] = reader.pod<Recent>();
    host_rows_ = reader.pod<decltype(host_rows_)>();
    host_part_ = reader.pod<std::int64_t>();
    host_bin_ = reader.pod<std::int64_t>();
    host_calls_ = reader.pod<decltype(host_calls_)>();
    all_runs_ = reader.pod<RunLaw>();
    pool_ = reader.pod<SizeLaw>();
    pool_law_ = reader.pod<decltype(pool_law_)>();
    pool_stale_ = reader.pod<std::uint8_t>() != 0;
}

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Costs>(values); }

}  // namespace

extern const AuditorDescriptor cost_auditor;
const AuditorDescriptor cost_auditor{
    {"cost", "prices, loops, sizes, rates and retries of model calls, against what each payer's calls usually are",
     "scan of likelihood ratios over 5 to 160 s with learned overdispersion (McCullagh and Nelder 1989)", kOptions},
    make};

}  // namespace argus::auditors
