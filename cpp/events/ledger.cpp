#include "events/ledger.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace argus::events {
namespace {

constexpr std::size_t kWays = 8;
constexpr std::size_t kNameBuckets = std::size_t{1} << 15;  // 2^18 names
constexpr Nanos kLiveFor = 600 * kSecond;

[[nodiscard]] std::int64_t multiply_saturating(std::int64_t a, std::int64_t b) noexcept {
    std::int64_t product = 0;
    if (__builtin_mul_overflow(a, b, &product)) return std::numeric_limits<std::int64_t>::max();
    return product;
}

[[nodiscard]] bool moves_money(EventType type) noexcept {
    return type == EventType::token_cost_logged || type == EventType::budget_reserved ||
           type == EventType::budget_settled;
}

// Events whose order against others of their task is judged, also when they name no task.
[[nodiscard]] bool concerns_locks(EventType type) noexcept {
    return type == EventType::file_written || type == EventType::file_deleted;
}

struct Contribution {
    std::int64_t metered, reserved, estimated;
};

[[nodiscard]] Contribution contribution(const Call& call) noexcept {
    if (call.settled >= 0) return {std::max(call.settled, call.logged), 0, 0};
    const std::int64_t charged = add_saturating(call.logged, call.estimated);
    return {call.logged, std::max<std::int64_t>(0, call.reserved - charged), call.estimated};
}

struct AccountName {
    std::string_view owner, name;
};

// A tenant owns itself, the host has neither owner nor name.
[[nodiscard]] AccountName account_name(ScopeKind kind, std::string_view tenant, std::string_view id) noexcept {
    if (kind == ScopeKind::host) return {};
    return {kind == ScopeKind::tenant ? id : tenant, id};
}

[[nodiscard]] constexpr std::size_t as_index(Actor actor) noexcept { return static_cast<std::size_t>(actor); }

}  // namespace

std::int64_t add_saturating(std::int64_t a, std::int64_t b) noexcept {
    std::int64_t sum = 0;
    if (!__builtin_add_overflow(a, b, &sum)) return sum;
    return a > 0 ? std::numeric_limits<std::int64_t>::max() : std::numeric_limits<std::int64_t>::min();
}

std::uint64_t scope_hash(ScopeKind kind, std::string_view tenant, std::string_view id) noexcept {
    return hash_parts(static_cast<std::uint64_t>(kind) + 1, tenant, id);
}

std::int64_t Account::committed() const noexcept { return add_saturating(metered, reserved); }
std::int64_t Account::upper() const noexcept { return add_saturating(committed(), estimated); }

Ledger::Ledger(LedgerOptions options)
    : options_(std::move(options)),
      sources_(options_.sources),
      tasks_(options_.tasks),
      accounts_(options_.accounts),
      calls_(options_.calls),
      window_buckets_((std::size_t{1} << options_.id_window_log2) / kWays),
      windows_((std::size_t{1} << options_.id_window_log2) * options_.sources),
      names_(kNameBuckets * kWays),
      charges_(kCharges) {
    for (std::size_t i = 0; i < options_.prices.size(); ++i) {
        const Price& p = options_.prices[i];
        if (p.input_nusd < 0 || p.output_nusd < 0) {
            throw std::invalid_argument("prices: expected nano-USD per token >= 0 for model '" + p.model +
                                        "', found a negative price; not started");
        }
        price_index_.emplace_back(hash_text(p.model), i);
    }
    std::sort(price_index_.begin(), price_index_.end());
}

std::uint32_t Ledger::source_of(std::string_view name, std::uint32_t credential, Nanos now) noexcept {
    const auto same = [&](const Source& s) { return s.credential == credential && s.name == name; };
    const std::uint64_t hash = hash_text(name, credential);
    std::uint32_t i = last_source_;
    if (i == kNone || sources_.hash(i) != hash || !same(sources_[i])) i = sources_.find(hash, same);
    if (i == kNone) {
        i = sources_.create(hash, 0, [](std::uint32_t) {});
        windows_.clear(i * window_buckets_ * kWays, window_buckets_ * kWays);
        Source& fresh = sources_[i];
        fresh.name.assign(name);
        fresh.credential = credential;
        fresh.joined = now;
    }
    sources_.touch(i);
    sources_[i].last_seen = now;
    last_source_ = i;
    return i;
}

bool Ledger::restarted(const Source& source, const Event& event) const noexcept {
    if (!event.boot.empty() && !source.boot.empty() && !(source.boot == event.boot)) return true;
    const bool begins_again = event.seq != kAbsent && event.seq <= 1 && source.has_seq && source.last_seq > 1;
    return begins_again && (event.boot.empty() || source.boot.empty());
}

void Ledger::restart(Source& source, const Event& event) noexcept {
    ++source.epoch;
    source.has_seq = false;
    source.joined_late = false;
    source.max_ts = kAbsent;
    source.boot.assign(event.boot);
}

void Ledger::sequence(Source& source, const Event& event, std::uint64_t& gap) noexcept {
    gap = 0;
    if (source.boot.empty() && !event.boot.empty()) source.boot.assign(event.boot);
    if (event.seq == kAbsent) return;
    if (!source.has_seq) {
        source.has_seq = true;
        source.last_seq = event.seq;
        source.joined_late = event.seq > 1;
        source.lossless = true;
        return;
    }
    if (event.seq <= source.last_seq) {
        ++source.late;
        return;
    }
    gap = static_cast<std::uint64_t>(event.seq - source.last_seq - 1);
    source.last_seq = event.seq;
    if (gap == 0) return;
    source.lost += gap;
    source.lossless = false;
}

IdStatus Ledger::remember_id(std::uint32_t source, std::uint64_t id_hash, std::uint64_t content) noexcept {
    // A restarted source may count its ids from the beginning again: its epoch salts the key.
    const std::uint64_t epoch = sources_[source].epoch;
    const std::uint64_t key = epoch == 0 ? id_hash : mix(id_hash, 2 * epoch + 1);
    Seen* bucket = &windows_[(source * window_buckets_ + (key & (window_buckets_ - 1))) * kWays];
    std::size_t contents = 0;
    std::size_t newest = kWays;
    for (std::size_t i = 0; i < kWays; ++i) {
        if (bucket[i].key != key || bucket[i].content == 0) continue;
        if (bucket[i].content == (content | 1U)) return IdStatus::retransmission;
        ++contents;
        newest = std::min(newest, i);
    }
    // Of a reused id the first and the newest content are kept: either may be sent again.
    if (contents > 1) {
        bucket[newest].content = content | 1U;
        return IdStatus::reused;
    }
    for (std::size_t i = kWays - 1; i > 0; --i) bucket[i] = bucket[i - 1];
    bucket[0] = {key, content | 1U};
    return contents == 0 ? IdStatus::fresh : IdStatus::reused;
}

void Ledger::remember_name(std::uint64_t hash) noexcept {
    std::uint64_t* bucket = &names_[(hash & (kNameBuckets - 1)) * kWays];
    for (std::size_t i = 0; i < kWays; ++i) {
        if (bucket[i] == hash) return;
    }
    for (std::size_t i = kWays - 1; i > 0; --i) bucket[i] = bucket[i - 1];
    bucket[0] = hash;
}

bool Ledger::knows(std::uint64_t name_hash) const noexcept {
    const std::uint64_t* bucket = &names_[(name_hash & (kNameBuckets - 1)) * kWays];
    for (std::size_t i = 0; i < kWays; ++i) {
        if (bucket[i] == name_hash) return true;
    }
    for (std::uint32_t s = sources_.oldest(); s != kNone; s = sources_.newer(s)) {
        const std::uint64_t epoch = sources_[s].epoch;
        const std::uint64_t key = epoch == 0 ? name_hash : mix(name_hash, 2 * epoch + 1);
        const Seen* seen = &windows_[(s * window_buckets_ + (key & (window_buckets_ - 1))) * kWays];
        for (std::size_t i = 0; i < kWays; ++i) {
            if (seen[i].key == key && seen[i].content != 0) return true;
        }
    }
    return false;
}

std::uint32_t Ledger::task_of(const Event& event, Nanos now) noexcept {
    if (event.task.empty() && !concerns_locks(event.type)) return kNone;
    // Without a task the entry stands for the agent in that session: locks are judged on it.
    const std::string_view agent = event.task.empty() ? event.agent : std::string_view{};
    const std::uint64_t hash = hash_parts(event.task.empty() ? 1U : 0U, event.tenant, event.session, event.task, agent);
    std::uint32_t i = tasks_.find(hash, [&](const Task& t) {
        return t.task == event.task && t.session == event.session && t.tenant == event.tenant &&
               (!event.task.empty() || t.agent == event.agent);
    });
    if (i == kNone) {
        i = tasks_.create(hash, kSettled, [](std::uint32_t) {});
        Task& fresh = tasks_[i];
        fresh.tenant.assign(event.tenant);
        fresh.session.assign(event.session);
        fresh.task.assign(event.task);
        if (!event.task.empty()) remember_name(hash_text(event.task));
    }
    Task& task = tasks_[i];
    if (task.agent.empty() && !event.agent.empty()) task.agent.assign(event.agent);
    task.last_seen = now;
    const std::uint32_t generation = sources_.generation(sighting_.source);
    if (event.ts >= task.last_ts) {
        task.last_ts = event.ts;
        task.source = sighting_.source;
        task.source_generation = generation;
    } else if (task.source == sighting_.source && task.source_generation == generation) {
        sighting_.task_back = task.last_ts - event.ts;
    }
    task.last_id.assign(event.id);
    tasks_.touch(i);
    return i;
}

AccountRef Ledger::account_of(ScopeKind kind, std::string_view tenant, std::string_view id, Nanos now) noexcept {
    const std::uint64_t hash = scope_hash(kind, tenant, id);
    std::uint32_t i = accounts_.find(hash, [&](const Account& a) {
        return a.kind == kind && a.id == id && a.tenant == tenant;
    });
    if (i == kNone) {
        if (accounts_.size() == accounts_.capacity() && accounts_.oldest(kCommon) == kNone) return {};
        i = accounts_.create(hash, kCommon, [](std::uint32_t) {});
        Account& fresh = accounts_[i];
        fresh.kind = kind;
        fresh.tenant.assign(tenant);
        fresh.id.assign(id);
        fresh.cap = options_.default_cap[static_cast<std::size_t>(kind)];
        fresh.strict = options_.default_strict;
    }
    accounts_.touch(i);
    accounts_[i].last_seen = now;
    return {i, accounts_.generation(i)};
}

void Ledger::resolve_accounts(const Event& event, bool money) noexcept {
    auto& refs = sighting_.accounts;
    const Nanos now = sighting_.now;
    const bool acts = money || event.type == EventType::tool_called || event.type == EventType::tool_returned;
    if (!event.session.empty()) {
        refs[as_index(Actor::session)] = account_of(ScopeKind::session, event.tenant, event.session, now);
    } else if (acts && !event.task.empty() && (money || !event.result_hash.empty())) {
        refs[as_index(Actor::session)] = account_of(ScopeKind::task, event.tenant, event.task, now);
    }
    if (!money) return;
    if (!event.agent.empty()) {
        refs[as_index(Actor::agent)] = account_of(ScopeKind::agent, event.tenant, event.agent, now);
    }
    if (!event.tenant.empty()) {
        refs[as_index(Actor::tenant)] = account_of(ScopeKind::tenant, event.tenant, event.tenant, now);
    }
    refs[as_index(Actor::host)] = account_of(ScopeKind::host, {}, {}, now);
}

const Sighting& Ledger::observe(const Event& event, std::uint32_t credential, Nanos now) noexcept {
    sighting_ = Sighting{};
    sighting_.now = now;
    sighting_.source = source_of(event.source, credential, now);
    Source& source = sources_[sighting_.source];
    const std::uint64_t id_hash = hash_text(event.id);
    sighting_.id = remember_id(sighting_.source, id_hash, event.content_hash);
    if (sighting_.id == IdStatus::retransmission) {
        ++source.retransmissions;
        return sighting_;
    }
    if (restarted(source, event)) {
        restart(source, event);
        sighting_.id = remember_id(sighting_.source, id_hash, event.content_hash);
    }
    if (sighting_.id == IdStatus::reused) ++source.reused_ids;
    ++source.events;
    sequence(source, event, sighting_.gap);
    source.last_ts = event.ts;
    if (source.max_ts == kAbsent || event.ts >= source.max_ts) source.max_ts = event.ts;
    else sighting_.clock_back = source.max_ts - event.ts;
    source.shown |= std::uint64_t{1} << static_cast<unsigned>(event.type);
    if (!event.span.empty()) remember_name(hash_text(event.span));
    sighting_.task = task_of(event, now);
    const bool money = moves_money(event.type);
    resolve_accounts(event, money);
    if (money) book(event);
    return sighting_;
}

void Ledger::note_rejected(const Event& partial, Reject reason, std::uint32_t credential) noexcept {
    if (partial.source.empty()) return;
    const std::uint64_t hash = hash_text(partial.source, credential);
    const std::uint32_t i = sources_.find(hash, [&](const Source& s) {
        return s.credential == credential && s.name == partial.source;
    });
    if (i == kNone) return;  // a source is opened by events it is believed on, not by refused ones
    Source& source = sources_[i];
    ++source.rejected[static_cast<std::size_t>(reason)];
    if (partial.seq != kAbsent && source.has_seq && partial.seq == source.last_seq + 1) source.last_seq = partial.seq;
}

std::int64_t Ledger::price(const Event& event) const noexcept {
    const Price* price = &options_.default_price;
    Nanos since = std::numeric_limits<Nanos>::min();
    const std::uint64_t hash = hash_text(event.model);
    auto at = std::lower_bound(price_index_.begin(), price_index_.end(), std::make_pair(hash, std::size_t{0}));
    for (; at != price_index_.end() && at->first == hash; ++at) {
        const Price& listed = options_.prices[at->second];
        if (listed.model != event.model || listed.from > event.ts || listed.from < since) continue;
        price = &listed;
        since = listed.from;
    }
    const auto known = [](std::int64_t tokens) { return tokens == kAbsent ? 0 : tokens; };
    // Whether cached input is part of input_tokens differs by provider: an upper bound counts it on top.
    std::int64_t input = add_saturating(known(event.input_tokens), known(event.cache_read_tokens));
    input = add_saturating(input, known(event.cache_write_tokens));
    return add_saturating(multiply_saturating(input, price->input_nusd),
                          multiply_saturating(known(event.output_tokens), price->output_nusd));
}

void Ledger::charge(std::span<const AccountRef> accounts, std::int64_t metered, std::int64_t reserved,
                    std::int64_t estimated) noexcept {
    for (const AccountRef& ref : accounts) {
        if (!accounts_.holds(ref.index, ref.generation)) continue;
        Account& a = accounts_[ref.index];
        a.metered = add_saturating(a.metered, metered);
        a.reserved = add_saturating(a.reserved, reserved);
        a.estimated = add_saturating(a.estimated, estimated);
    }
    metered_total_ = add_saturating(metered_total_, metered);
}

void Ledger::apply(const Call& call, std::int64_t sign) noexcept {
    const Contribution c = contribution(call);
    charge(call.accounts, sign * c.metered, sign * c.reserved, sign * c.estimated);
}

void Ledger::remember_charge(const Event& event, std::int64_t nusd) noexcept {
    Charge& charge = charges_[charge_count_++ % kCharges];
    charge.id.assign(event.id);
    charge.call = event.call.empty() ? 0 : hash_text(event.call);
    charge.nusd = nusd;
    charge.accounts = sighting_.accounts;
}

void Ledger::name_charges(AccountRef account, std::string_view except, std::vector<std::string>& ids) const {
    std::array<const Charge*, 3> top{};
    const std::uint64_t kept = std::min<std::uint64_t>(charge_count_, kCharges);
    for (std::uint64_t n = 1; n <= kept; ++n) {
        const Charge* entry = &charges_[(charge_count_ - n) % kCharges];
        const auto same = [&](const AccountRef& r) {
            return r.index == account.index && r.generation == account.generation;
        };
        if (entry->id == except || std::none_of(entry->accounts.begin(), entry->accounts.end(), same)) continue;
        const auto twin = std::find_if(top.begin(), top.end(), [&](const Charge* t) {
            return t != nullptr && t->call != 0 && t->call == entry->call;
        });
        if (twin != top.end()) continue;  // the newest word on a call stands for it
        for (const Charge*& place : top) {
            if (place == nullptr || entry->nusd > place->nusd) std::swap(entry, place);
            if (entry == nullptr) break;
        }
    }
    for (const Charge* charge : top) {
        if (charge != nullptr) ids.push_back(charge->id.str());
    }
}

void Ledger::book(const Event& event) noexcept {
    const bool logged = event.type == EventType::token_cost_logged;
    const bool priced = event.cost_nusd == kAbsent;
    const bool estimated = priced || event.cost_estimated == 1;
    const std::int64_t amount = priced ? price(event) : event.cost_nusd;
    sighting_.money = true;
    remember_charge(event, amount);
    if (logged && event.call.empty()) {
        charge(sighting_.accounts, estimated ? 0 : amount, 0, estimated ? amount : 0);
        return;
    }
    // A reservation without a call id belongs to its task: one at a time.
    const AccountRef actor = sighting_.account(Actor::session);
    const std::uint64_t owner = actor.index == kNone ? hash_parts(0, event.tenant, event.agent, event.source)
                                                     : accounts_.hash(actor.index);
    const std::uint64_t key = hash_parts(owner, event.call, event.call.empty() ? event.task : std::string_view{});
    std::uint32_t i = calls_.find(key, [](const Call&) { return true; });
    if (i == kNone) {
        i = calls_.create(key, 0, [this](std::uint32_t victim) { close_call(victim); });
        calls_[i].settled = -1;
    }
    calls_.touch(i);
    Call& call = calls_[i];
    apply(call, -1);
    for (std::size_t a = 0; a < call.accounts.size(); ++a) {
        AccountRef& ref = call.accounts[a];
        if (!accounts_.holds(ref.index, ref.generation)) ref = sighting_.accounts[a];
    }
    call.last_seen = sighting_.now;
    if (event.type == EventType::budget_reserved) {
        call.reserved = amount;
    } else if (logged) {
        std::int64_t& sum = estimated ? call.estimated : call.logged;
        sum = add_saturating(sum, amount);
    } else if (estimated) {
        // Settled at an unknown cost: the larger of what was reserved and what the tokens may have cost.
        call.estimated = std::max({call.estimated, call.reserved, amount});
        call.reserved = 0;
    } else {
        call.settled = std::max(call.settled, amount);
    }
    apply(call, 1);
    if (event.call.empty() && event.type == EventType::budget_settled) {
        call = Call{};  // booked for good; the task's next reservation begins anew
        call.last_seen = sighting_.now;
        call.accounts = sighting_.accounts;
    }
}

// A call that leaves the table with an open reservation: the cost is unknown, so its bound stays as an estimate.
void Ledger::close_call(std::uint32_t index) noexcept {
    Call& call = calls_[index];
    const Contribution c = contribution(call);
    if (c.reserved == 0) return;
    charge(call.accounts, 0, -c.reserved, c.reserved);
    call.estimated = add_saturating(call.estimated, c.reserved);
    call.reserved = 0;
}

void Ledger::expire(Nanos now) noexcept {
    for (std::uint32_t i = calls_.oldest(); i != kNone; i = calls_.oldest()) {
        if (calls_[i].last_seen + options_.reservation_timeout > now) return;
        close_call(i);
        calls_.erase(i);
    }
}

void Ledger::pin(ScopeKind kind, std::string_view tenant, std::string_view id, bool pinned) {
    const AccountRef ref = account_of(kind, tenant, id, 0);
    if (ref.index == kNone) throw std::length_error("ledger: every account is pinned; raise the table's size");
    accounts_.move(ref.index, pinned ? kPinned : kCommon);
}

void Ledger::set_cap(ScopeKind kind, std::string_view tenant, std::string_view id, std::int64_t cap_nusd, bool strict) {
    if (kind == ScopeKind::task) {
        throw std::invalid_argument(
            "set_cap: expected a scope of host, tenant, agent or session, found 'task'; no cap set");
    }
    if (cap_nusd < 0) {
        throw std::invalid_argument("set_cap: expected a cap >= 0 nano-USD, found a negative one; no cap set");
    }
    const auto [owner, name] = account_name(kind, tenant, id);
    const AccountRef ref = account_of(kind, owner, name, 0);
    if (ref.index == kNone) throw std::length_error("set_cap: every account is pinned; raise the table's size");
    Account& account = accounts_[ref.index];
    account.cap = cap_nusd;
    account.strict = strict;
    account.spoken = 0;
    accounts_.move(ref.index, kPinned);
}

Spend Ledger::spend(ScopeKind kind, std::string_view tenant, std::string_view id) const noexcept {
    const AccountName account = account_name(kind, tenant, id);
    const std::uint32_t i = accounts_.find(scope_hash(kind, account.owner, account.name), [&](const Account& a) {
        return a.kind == kind && a.id == account.name && a.tenant == account.owner;
    });
    if (i == kNone) return {};
    const Account& a = accounts_[i];
    return {a.metered, a.reserved, a.upper()};
}

std::uint32_t Ledger::live_sources(Nanos now) const noexcept {
    std::uint32_t live = 0;
    for (std::uint32_t i = sources_.newest(); i != kNone && sources_[i].last_seen + kLiveFor >= now;
         i = sources_.older(i)) {
        ++live;
    }
    return live;
}

bool Ledger::several_sources(Nanos now) const noexcept {
    const std::uint32_t newest = sources_.newest();
    const std::uint32_t second = newest == kNone ? kNone : sources_.older(newest);
    return second != kNone && sources_[second].last_seen + kLiveFor >= now;
}

void Ledger::remember_fault(std::uint32_t source, Nanos now) noexcept {
    Source& s = sources_[source];
    s.faults[s.fault_count++ % s.faults.size()] = now;
}

std::uint32_t Ledger::faults_since(std::uint32_t source, Nanos since) const noexcept {
    const Source& s = sources_[source];
    const std::size_t kept = std::min<std::size_t>(s.fault_count, s.faults.size());
    std::uint32_t count = 0;
    for (std::size_t i = 0; i < kept; ++i) count += s.faults[i] >= since ? 1U : 0U;
    return count;
}

void Ledger::save(Writer& writer) const {
    sources_.save(writer);
    tasks_.save(writer);
    accounts_.save(writer);
    calls_.save(writer);
    writer.pod(metered_total_);
    writer.pod(charge_count_);
    const std::uint64_t charges = std::min<std::uint64_t>(charge_count_, kCharges);
    for (std::uint64_t i = 0; i < charges; ++i) writer.pod(charges_[i]);
    const auto save_buckets = [&](const auto& table, std::size_t first, std::size_t buckets, auto used) {
        std::uint32_t count = 0;
        for (std::size_t b = 0; b < buckets; ++b) count += used(table[(first + b) * kWays]) ? 1U : 0U;
        writer.pod(count);
        for (std::size_t b = 0; b < buckets; ++b) {
            if (!used(table[(first + b) * kWays])) continue;
            writer.pod(static_cast<std::uint32_t>(b));
            for (std::size_t i = 0; i < kWays; ++i) writer.pod(table[(first + b) * kWays + i]);
        }
    };
    for (std::uint32_t s = sources_.oldest(); s != kNone; s = sources_.newer(s)) {
        save_buckets(windows_, s * window_buckets_, window_buckets_, [](const Seen& e) { return e.content != 0; });
    }
    save_buckets(names_, 0, kNameBuckets, [](std::uint64_t e) { return e != 0; });
}

void Ledger::load(Reader& reader) {
    sources_.load(reader);
    tasks_.load(reader);
    accounts_.load(reader);
    calls_.load(reader);
    metered_total_ = reader.pod<std::int64_t>();
    charge_count_ = reader.pod<std::uint64_t>();
    charges_.clear(0, kCharges);
    const std::uint64_t charges = std::min<std::uint64_t>(charge_count_, kCharges);
    for (std::uint64_t i = 0; i < charges; ++i) charges_[i] = reader.pod<Charge>();
    const auto load_buckets = [&](auto& table, std::size_t first, std::size_t buckets) {
        table.clear(first * kWays, buckets * kWays);
        const auto count = reader.pod<std::uint32_t>();
        for (std::uint32_t n = 0; n < count; ++n) {
            const auto b = reader.pod<std::uint32_t>();
            if (b >= buckets) throw CodecError("state: id windows differ from this configuration");
            for (std::size_t i = 0; i < kWays; ++i) {
                auto& entry = table[(first + b) * kWays + i];
                entry = reader.pod<std::remove_reference_t<decltype(entry)>>();
            }
        }
    };
    windows_.clear(0, windows_.size());
    for (std::uint32_t s = sources_.oldest(); s != kNone; s = sources_.newer(s)) {
        load_buckets(windows_, s * window_buckets_, window_buckets_);
    }
    load_buckets(names_, 0, kNameBuckets);
    last_source_ = kNone;
    sighting_ = Sighting{};
}

}  // namespace argus::events
