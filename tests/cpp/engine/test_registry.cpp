#include <doctest/doctest.h>

#include "engine/registry.hpp"

namespace argus::engine {

TEST_CASE("registry: a slot is reused with a higher generation") {
    Registry registry(8);
    const Slot first = registry.open({"a", "1", Kind::gauge, ""});
    registry.close(first);
    const Slot second = registry.open({"b", "1", Kind::gauge, ""});
    CHECK(second.index == first.index);
    CHECK(second.generation > first.generation);
    registry.close(first);  // of the predecessor: left alone
    const Slot third = registry.open({"c", "1", Kind::gauge, ""});
    CHECK(third.index != second.index);
}

TEST_CASE("registry: a full table refuses and counts, and works again after a close") {
    Registry registry(2);
    const Slot a = registry.open({"a", "1", Kind::gauge, ""});
    (void)registry.open({"b", "1", Kind::gauge, ""});
    CHECK(registry.open({"c", "1", Kind::gauge, ""}).index == kNoSlot);
    CHECK(registry.refused() == 1);
    registry.close({kNoSlot, 0});
    registry.close(a);
    CHECK(registry.open({"c", "1", Kind::gauge, ""}).index == a.index);
}

TEST_CASE("registry: changes come in order, once") {
    Registry registry(4);
    const std::uint64_t before = registry.version();
    const Slot slot = registry.open({"a", "By", Kind::counter, "k=v"});
    registry.close(slot);
    CHECK(registry.version() == before + 2);
    const auto changes = registry.take_changes();
    REQUIRE(changes.size() == 2);
    CHECK(changes[0].opened);
    CHECK(changes[0].info.full_name() == "a{k=v}");
    CHECK(!changes[1].opened);
    CHECK(changes[1].slot == slot);
    CHECK(registry.take_changes().empty());
}

}  // namespace argus::engine
