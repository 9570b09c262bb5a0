#include "events/ledger.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <random>

using namespace argus;
using namespace argus::events;

namespace {

LedgerOptions small() {
    LedgerOptions o;
    o.sources = 4;
    o.tasks = 8;
    o.accounts = 16;
    o.calls = 8;
    o.prices = {{"std", 3, 5}};
    return o;
}

// Events own no text: the names used here are literals.
Event event(EventType type, std::string_view id, std::int64_t seq, Nanos ts = kSecond) {
    Event e;
    e.type = type;
    e.type_name = event_type_name(type);
    e.id = id;
    e.source = "s";
    e.seq = seq;
    e.ts = ts;
    e.content_hash = hash_text(id, static_cast<std::uint64_t>(seq + ts));
    return e;
}

Event money(EventType type, std::string_view id, std::string_view call, std::int64_t cost) {
    Event e = event(type, id, kAbsent);
    e.tenant = "t";
    e.session = "se";
    e.agent = "a";
    e.call = call;
    e.cost_nusd = cost;
    return e;
}

}  // namespace

TEST_CASE("ledger: a byte-identical repeat is a retransmission, the same id with other content is not") {
    Ledger ledger(small());
    const Event first = event(EventType::heartbeat, "x", 1);
    CHECK(ledger.observe(first, 0, kSecond).id == IdStatus::fresh);
    CHECK(ledger.observe(first, 0, kSecond).id == IdStatus::retransmission);
    Event other = first;
    other.content_hash ^= 0x10;
    CHECK(ledger.observe(other, 0, kSecond).id == IdStatus::reused);
    CHECK(ledger.observe(first, 1, kSecond).id == IdStatus::fresh);  // another credential is another source
    const Source& source = ledger.sources()[0];
    CHECK(source.retransmissions == 1);
    CHECK(source.reused_ids == 1);
    CHECK(source.events == 2);
}

TEST_CASE("ledger: gaps are counted as loss, late numbers are not") {
    Ledger ledger(small());
    CHECK(ledger.observe(event(EventType::heartbeat, "a", 1), 0, 1).gap == 0);
    CHECK(ledger.sources()[0].lossless);
    CHECK(ledger.observe(event(EventType::heartbeat, "b", 5), 0, 1).gap == 3);
    CHECK(ledger.observe(event(EventType::heartbeat, "c", 4), 0, 1).gap == 0);
    CHECK(ledger.sources()[0].lost == 3);
    CHECK(ledger.sources()[0].late == 1);
    CHECK_FALSE(ledger.sources()[0].lossless);
}

TEST_CASE("ledger: a rejected event takes its sequence number") {
    Ledger ledger(small());
    (void)ledger.observe(event(EventType::heartbeat, "a", 1), 0, 1);
    ledger.note_rejected(event(EventType::heartbeat, "b", 2), Reject::wrong_type, 0);
    CHECK(ledger.observe(event(EventType::heartbeat, "c", 3), 0, 1).gap == 0);
    CHECK(ledger.sources()[0].rejected[static_cast<std::size_t>(Reject::wrong_type)] == 1);
}

TEST_CASE("ledger: a restarted source begins anew, by boot id or from sequence number 1") {
    Ledger ledger(small());
    Event e = event(EventType::heartbeat, "a", 7, 100 * kSecond);
    e.boot = "one";
    (void)ledger.observe(e, 0, 1);
    CHECK(ledger.sources()[0].joined_late);
    e = event(EventType::heartbeat, "a", 1, 50 * kSecond);  // the id counts from the beginning again
    e.boot = "two";
    const Sighting& seen = ledger.observe(e, 0, 2);
    CHECK(seen.id == IdStatus::fresh);
    CHECK(seen.clock_back == 0);
    CHECK(seen.gap == 0);
    CHECK(ledger.sources()[0].epoch == 1);
    (void)ledger.observe(event(EventType::heartbeat, "b", 2, 50 * kSecond), 0, 2);
    CHECK(ledger.observe(event(EventType::heartbeat, "z", 1, 50 * kSecond), 0, 3).id == IdStatus::fresh);
    CHECK(ledger.sources()[0].epoch == 2);
}

TEST_CASE("ledger: the clock of a source is compared with its own newest ts") {
    Ledger ledger(small());
    (void)ledger.observe(event(EventType::heartbeat, "a", 1, 10 * kSecond), 0, 1);
    CHECK(ledger.observe(event(EventType::heartbeat, "b", 2, 7 * kSecond), 0, 1).clock_back == 3 * kSecond);
    ledger.rebase_clock(0, 7 * kSecond);
    CHECK(ledger.observe(event(EventType::heartbeat, "c", 3, 8 * kSecond), 0, 1).clock_back == 0);
}

TEST_CASE("ledger: names of tasks, spans and events are known, others are not") {
    Ledger ledger(small());
    Event e = event(EventType::task_started, "id-1", 1);
    e.task = "task-1";
    e.span = "span-1";
    (void)ledger.observe(e, 0, 1);
    for (const char* name : {"id-1", "task-1", "span-1"}) CHECK(ledger.names_known(name));
    CHECK_FALSE(ledger.names_known("task-2"));
}

TEST_CASE("ledger: one call counts once, in whatever order it is settled and logged") {
    const Event reserve = money(EventType::budget_reserved, "1", "c", 100);
    const Event settle = money(EventType::budget_settled, "2", "c", 70);
    const Event log = money(EventType::token_cost_logged, "3", "c", 70);
    for (const auto& order : {std::array{reserve, settle, log}, std::array{reserve, log, settle},
                              std::array{log, settle, reserve}, std::array{settle, reserve, log}}) {
        Ledger ledger(small());
        for (const Event& e : order) CHECK(ledger.observe(e, 0, 1).money);
        for (const auto& [kind, id] : {std::pair{ScopeKind::session, "se"}, {ScopeKind::agent, "a"},
                                       {ScopeKind::tenant, "t"}, {ScopeKind::host, ""}}) {
            const Spend spend = ledger.spend(kind, "t", id);
            CHECK(spend.metered == 70);
            CHECK(spend.reserved == 0);
            CHECK(spend.upper == 70);
        }
    }
}

TEST_CASE("ledger: a reservation stands for what is not charged yet") {
    Ledger ledger(small());
    (void)ledger.observe(money(EventType::budget_reserved, "1", "c", 100), 0, 1);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").reserved == 100);
    (void)ledger.observe(money(EventType::token_cost_logged, "2", "c", 30), 0, 1);
    const Spend part = ledger.spend(ScopeKind::session, "t", "se");
    CHECK(part.metered == 30);
    CHECK(part.reserved == 70);
    (void)ledger.observe(money(EventType::budget_settled, "3", "c", 120), 0, 1);
    (void)ledger.observe(money(EventType::budget_settled, "4", "c", 120), 0, 1);  // settled twice counts once
    CHECK(ledger.spend(ScopeKind::session, "t", "se").metered == 120);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").reserved == 0);
}

TEST_CASE("ledger: a price holds from its day on; before the first one the upper bound does") {
    LedgerOptions options = small();
    options.prices = {{"new", 2, 2, 50 * kSecond}, {"std", 1, 1, 200 * kSecond}, {"std", 3, 5},
                      {"std", 4, 4, 100 * kSecond}};
    Ledger ledger(options);
    const auto cost_at = [&](std::string_view model, Nanos ts) {
        Event e = event(EventType::token_cost_logged, "1", kAbsent, ts);
        e.model = model;
        e.input_tokens = 10;
        return ledger.price(e);
    };
    CHECK(cost_at("std", 99 * kSecond) == 30);
    CHECK(cost_at("std", 100 * kSecond) == 40);
    CHECK(cost_at("std", 199 * kSecond) == 40);
    CHECK(cost_at("std", 200 * kSecond) == 10);
    CHECK(cost_at("new", 50 * kSecond) == 20);
    CHECK(cost_at("new", 49 * kSecond) == 10 * 15'000);
}

TEST_CASE("ledger: cost that is not known is an upper bound, priced by model, never zero") {
    Ledger ledger(small());
    Event e = money(EventType::token_cost_logged, "1", "", kAbsent);
    e.model = "std";
    e.input_tokens = 10;
    e.cache_read_tokens = 2;
    e.output_tokens = 4;
    CHECK(ledger.price(e) == 12 * 3 + 4 * 5);
    (void)ledger.observe(e, 0, 1);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").metered == 0);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").upper == 56);
    e.model = "unheard of";
    CHECK(ledger.price(e) == 12 * 15'000 + 4 * 75'000);
    e.input_tokens = std::numeric_limits<std::int64_t>::max();
    CHECK(ledger.price(e) == std::numeric_limits<std::int64_t>::max());
}

TEST_CASE("ledger: a reservation nobody settles becomes an estimate, also when its call is evicted") {
    LedgerOptions o = small();
    Ledger ledger(o);
    (void)ledger.observe(money(EventType::budget_reserved, "1", "c", 100), 0, kSecond);
    ledger.expire(600 * kSecond);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").reserved == 100);
    ledger.expire(601 * kSecond);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").reserved == 0);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").upper == 100);
    static const char* names[] = {"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"};
    for (const char* call : names) {
        (void)ledger.observe(money(EventType::budget_reserved, call, call, 10), 0, 700 * kSecond);
    }
    CHECK(ledger.calls().evicted() == 1);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").reserved == 80);
    CHECK(ledger.spend(ScopeKind::session, "t", "se").upper == 190);
}

TEST_CASE("ledger: sums saturate instead of wrapping") {
    Ledger ledger(small());
    const std::int64_t most = std::numeric_limits<std::int64_t>::max();
    (void)ledger.observe(money(EventType::token_cost_logged, "1", "", most - 1), 0, 1);
    (void)ledger.observe(money(EventType::token_cost_logged, "2", "", 100), 0, 1);
    CHECK(ledger.spend(ScopeKind::host, "", "").metered == most);
    CHECK(ledger.spend(ScopeKind::host, "", "").upper == most);
}

TEST_CASE("ledger: an account with a cap is never evicted") {
    Ledger ledger(small());
    ledger.set_cap(ScopeKind::session, "t", "precious", 5, false);
    std::vector<std::string> names;
    for (int i = 0; i < 100; ++i) names.push_back("session-" + std::to_string(i));
    for (const std::string& name : names) {
        Event e = event(EventType::heartbeat, name, kAbsent);
        e.session = name;
        (void)ledger.observe(e, 0, 1);
    }
    CHECK(ledger.accounts().evicted() > 0);
    CHECK(ledger.accounts().size(kPinned) == 1);
    CHECK_THROWS_AS(ledger.set_cap(ScopeKind::task, "t", "x", 1, false), std::invalid_argument);
    CHECK_THROWS_AS(ledger.set_cap(ScopeKind::session, "t", "x", -1, false), std::invalid_argument);
}

TEST_CASE("ledger: saved and loaded it goes on alike") {
    Ledger ledger(small());
    Event e = event(EventType::task_started, "a", 1);
    e.task = "t";
    (void)ledger.observe(e, 0, 1);
    (void)ledger.observe(money(EventType::budget_reserved, "m", "c", 9), 0, 1);
    Writer writer(1, 1);
    ledger.save(writer);
    const auto state = writer.finish();
    Ledger copy(small());
    Reader reader(state, 1, 1);
    copy.load(reader);
    CHECK(reader.done());
    CHECK(copy.observe(e, 0, 2).id == IdStatus::retransmission);
    CHECK(copy.names_known("t"));
    (void)copy.observe(money(EventType::budget_settled, "n", "c", 4), 0, 2);
    CHECK(copy.spend(ScopeKind::host, "", "").upper == 4);
    Reader cut(state, 1, 1);
    LedgerOptions other = small();
    other.tasks = 9;
    Ledger differs(other);
    CHECK_THROWS_AS(differs.load(cut), CodecError);
}

TEST_CASE("ledger: the largest recent charges of an account are named, one a call, also after a load") {
    Ledger ledger(small());
    const auto charge = [&](std::string_view id, std::string_view call, std::int64_t nusd) {
        return ledger.observe(money(EventType::token_cost_logged, id, call, nusd), 0, 1)
            .account(Actor::session);
    };
    (void)charge("a", "", 5);
    (void)charge("b", "one", 9);
    (void)charge("c", "one", 8);  // the same call: its newest charge stands for it
    (void)charge("d", "", 7);
    (void)charge("e", "", 1);
    const AccountRef account = charge("last", "", 100);
    Event elsewhere = money(EventType::token_cost_logged, "other", "", 50);
    elsewhere.session = "another";
    (void)ledger.observe(elsewhere, 0, 1);
    std::vector<std::string> ids;
    ledger.name_charges(account, "last", ids);
    CHECK(ids == std::vector<std::string>{"c", "d", "a"});

    Writer writer(1, 1);
    ledger.save(writer);
    const auto state = writer.finish();
    Reader reader(state, 1, 1);
    Ledger copy(small());
    copy.load(reader);
    std::vector<std::string> again;
    copy.name_charges(account, "last", again);
    CHECK(again == ids);
}

TEST_CASE("ledger: charges older than the ring are forgotten") {
    Ledger ledger(small());
    (void)ledger.observe(money(EventType::token_cost_logged, "large", "", 1000), 0, 1);
    AccountRef account;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < kCharges; ++i) names.push_back("n" + std::to_string(i));
    for (const std::string& name : names) {
        account = ledger.observe(money(EventType::token_cost_logged, name, "", 1), 0, 1).account(Actor::session);
    }
    std::vector<std::string> ids;
    ledger.name_charges(account, "", ids);
    CHECK(ids == std::vector<std::string>{"n4095", "n4094", "n4093"});
}
