// What Argus knows of the agents at this moment: live sources, tasks, accounts (money) and calls, in bounded tables.
// observe() books one event and says in a Sighting what was special about it; auditors read the tables through it.
// Money is exact: integer nano-USD, saturating. Cost: bench_events events/ledger. No allocation after construction.
//
// Money, per account: `metered` is known spend, `reserved` is promised and not yet settled, `estimated` is an upper
// bound where the cost is not known. One `call` id counts once: its charge is max(settled, sum logged), in whatever
// order they come, and its reservation stands only for what is not charged yet.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "events/decode.hpp"
#include "events/slab.hpp"
#include "events/text.hpp"
#include "model/anomaly.hpp"
#include "model/event.hpp"

namespace argus::events {

struct Price {
    std::string model;
    std::int64_t input_nusd = 0;  // per token
    std::int64_t output_nusd = 0;
    Nanos from = std::numeric_limits<Nanos>::min();  // of events from then on, until the model's next price
};

struct LedgerOptions {
    std::uint32_t sources = 256;
    std::uint32_t tasks = 32'768;
    std::uint32_t accounts = 32'768;
    std::uint32_t calls = 65'536;
    std::uint32_t id_window_log2 = 16;           // ids remembered per source, 2^16 to 2^20
    Nanos reservation_timeout = 600 * kSecond;   // an unsettled reservation then becomes an estimated cost
    Nanos late_join = 600 * kSecond;             // a source first seen in mid-stream is not judged on what came before
    std::vector<Price> prices;
    Price default_price{"", 15'000, 75'000};     // upper bound where none is known: 15 and 75 USD a million tokens
    std::array<std::int64_t, 5> default_cap{};   // by ScopeKind, 0 = none
    bool default_strict = false;                 // of those caps
};

struct Source {
    InlineText<128> name;
    InlineText<36> boot;
    std::uint32_t credential = 0;
    bool has_seq = false;
    bool lossless = false;          // keeps sequence numbers, and none was missed so far
    bool joined_late = false;       // first seen in mid-stream
    std::int64_t last_seq = 0;
    std::uint64_t epoch = 0;        // restarts seen
    Nanos max_ts = kAbsent;
    Nanos joined = 0, last_seen = 0, last_ts = 0;
    std::uint64_t shown = 0;        // bit per EventType it has emitted
    std::uint64_t events = 0, lost = 0, late = 0, retransmissions = 0, reused_ids = 0;
    std::array<std::uint64_t, kRejectReasons> rejected{};
    std::array<Nanos, 16> faults{};  // newest order faults, a ring
    std::uint32_t fault_count = 0;

    [[nodiscard]] bool shows(EventType type) const noexcept {
        return (shown >> static_cast<unsigned>(type) & 1U) != 0;
    }
};

struct Task {
    std::uint32_t source = kNone;  // of the newest event by ts
    std::uint32_t source_generation = 0;
    Nanos last_seen = 0;           // arrival
    Nanos last_ts = 0;             // newest
    InlineText<64> last_id;
    InlineText<64> tenant;
    InlineText<128> session, task, agent;
};

// The tables of tasks keep those whose end is still owed apart from the rest.
inline constexpr std::size_t kOwed = 0;
inline constexpr std::size_t kSettled = 1;

struct Account {
    ScopeKind kind = ScopeKind::host;
    bool strict = false;   // estimated cost counts towards the cap, not only towards the warning
    std::uint8_t spoken = 0;  // highest severity said about the cap, + 1
    InlineText<64> tenant;
    InlineText<128> id;
    std::int64_t metered = 0, reserved = 0, estimated = 0;
    std::int64_t cap = 0;  // 0 = none
    Nanos last_seen = 0;

    [[nodiscard]] std::int64_t committed() const noexcept;  // metered + reserved
    [[nodiscard]] std::int64_t upper() const noexcept;      // metered + reserved + estimated
};

inline constexpr std::size_t kPinned = 0;  // accounts with a cap of their own, or a credential: never evicted
inline constexpr std::size_t kCommon = 1;

struct AccountRef {
    std::uint32_t index = kNone;
    std::uint32_t generation = 0;
};

// One `call` id of one actor; see the head of this file.
struct Call {
    std::int64_t reserved = 0;
    std::int64_t settled = -1;  // -1 = not settled
    std::int64_t logged = 0;
    std::int64_t estimated = 0;
    Nanos last_seen = 0;
    std::array<AccountRef, 4> accounts{};  // actor, agent, tenant, host
};

enum class Actor : std::uint8_t { session, agent, tenant, host };

// One of the newest events that moved money, so that what spent most can be named.
struct Charge {
    InlineText<64> id;
    std::uint64_t call = 0;
    std::int64_t nusd = 0;
    std::array<AccountRef, 4> accounts{};
};
inline constexpr std::size_t kCharges = 4096;

enum class IdStatus : std::uint8_t { fresh, retransmission, reused };

struct Sighting {
    std::uint32_t source = kNone;
    std::uint32_t task = kNone;
    IdStatus id = IdStatus::fresh;
    bool money = false;                    // some account moved
    std::uint64_t gap = 0;                 // sequence numbers missing just before this event
    Nanos clock_back = 0;                  // how far ts lies behind the newest of its source
    Nanos task_back = 0;                   // likewise of its task, where that came from the same source
    std::array<AccountRef, 4> accounts{};  // by Actor; kNone where the event names none
    Nanos now = 0;

    [[nodiscard]] AccountRef account(Actor a) const noexcept { return accounts[static_cast<std::size_t>(a)]; }
};

struct Spend {
    std::int64_t metered = 0, reserved = 0, upper = 0;
};

[[nodiscard]] std::int64_t add_saturating(std::int64_t a, std::int64_t b) noexcept;

// The hash under which a scope is locked or charged.
[[nodiscard]] std::uint64_t scope_hash(ScopeKind kind, std::string_view tenant, std::string_view id) noexcept;

class Ledger {
public:
    explicit Ledger(LedgerOptions options);

    const Sighting& observe(const Event& event, std::uint32_t credential, Nanos now) noexcept;
    [[nodiscard]] const Sighting& sighting() const noexcept { return sighting_; }
    void expire(Nanos now) noexcept;  // reservations that nobody settled

    // A refused event still takes its sequence number, so that it does not look like a loss.
    void note_rejected(const Event& partial, Reject reason, std::uint32_t credential) noexcept;

    void set_cap(ScopeKind kind, std::string_view tenant, std::string_view id, std::int64_t cap_nusd, bool strict);
    void pin(ScopeKind kind, std::string_view tenant, std::string_view id, bool pinned);
    [[nodiscard]] Spend spend(ScopeKind kind, std::string_view tenant, std::string_view id) const noexcept;

    // Is `name` the id of a task, a span or an event that was seen?
    [[nodiscard]] bool names_known(std::string_view name) const noexcept { return knows(hash_text(name)); }
    [[nodiscard]] bool knows(std::uint64_t name_hash) const noexcept;

    [[nodiscard]] std::uint32_t live_sources(Nanos now) const noexcept;  // heard of in the last 10 min
    [[nodiscard]] bool several_sources(Nanos now) const noexcept;
    void rebase_clock(std::uint32_t source, Nanos ts) noexcept { sources_[source].max_ts = ts; }
    void remember_fault(std::uint32_t source, Nanos now) noexcept;  // an order fault of this source
    [[nodiscard]] std::uint32_t faults_since(std::uint32_t source, Nanos since) const noexcept;  // at most 16
    [[nodiscard]] std::int64_t price(const Event& event) const noexcept;
    [[nodiscard]] std::int64_t metered_total() const noexcept { return metered_total_; }
    // Appends the ids of the largest recent charges of an account, largest first, one a call; not `except`.
    void name_charges(AccountRef account, std::string_view except, std::vector<std::string>& ids) const;

    Slab<Source>& sources() noexcept { return sources_; }
    [[nodiscard]] const Slab<Source>& sources() const noexcept { return sources_; }
    Slab<Task, 2>& tasks() noexcept { return tasks_; }
    [[nodiscard]] const Slab<Task, 2>& tasks() const noexcept { return tasks_; }
    Slab<Account, 2>& accounts() noexcept { return accounts_; }
    [[nodiscard]] const Slab<Account, 2>& accounts() const noexcept { return accounts_; }
    [[nodiscard]] const Slab<Call>& calls() const noexcept { return calls_; }
    [[nodiscard]] const LedgerOptions& options() const noexcept { return options_; }

    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    struct Seen {
        std::uint64_t key, content;
    };
    std::uint32_t source_of(std::string_view name, std::uint32_t credential, Nanos now) noexcept;
    void restart(Source& source, const Event& event) noexcept;
    void sequence(Source& source, const Event& event, std::uint64_t& gap) noexcept;
    [[nodiscard]] bool restarted(const Source& source, const Event& event) const noexcept;
    IdStatus remember_id(std::uint32_t source, std::uint64_t id_hash, std::uint64_t content) noexcept;
    void remember_name(std::uint64_t hash) noexcept;
    std::uint32_t task_of(const Event& event, Nanos now) noexcept;
    AccountRef account_of(ScopeKind kind, std::string_view tenant, std::string_view id, Nanos now) noexcept;
    void resolve_accounts(const Event& event, bool money) noexcept;
    void book(const Event& event) noexcept;
    void remember_charge(const Event& event, std::int64_t nusd) noexcept;
    void charge(std::span<const AccountRef> accounts, std::int64_t metered, std::int64_t reserved,
                std::int64_t estimated) noexcept;
    void apply(const Call& call, std::int64_t sign) noexcept;
    void close_call(std::uint32_t index) noexcept;

    LedgerOptions options_;
    Slab<Source> sources_;
    Slab<Task, 2> tasks_;
    Slab<Account, 2> accounts_;
    Slab<Call> calls_;
    std::size_t window_buckets_;
    MappedArray<Seen> windows_;          // per source: buckets of 8, newest first
    MappedArray<std::uint64_t> names_;   // buckets of 8, newest first
    MappedArray<Charge> charges_;        // a ring
    std::uint64_t charge_count_ = 0;
    std::vector<std::pair<std::uint64_t, std::size_t>> price_index_;
    std::uint32_t last_source_ = kNone;
    std::int64_t metered_total_ = 0;
    Sighting sighting_;
};

}  // namespace argus::events
