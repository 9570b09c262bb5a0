#include <doctest/doctest.h>
#include <poll.h>

#include "sources/pressure_trigger.hpp"
#include "support.hpp"

namespace argus::test {

TEST_CASE("pressure trigger: the request ends with the NUL that the kernel cuts off, on a window of 2 s") {
    const std::string text = sources::PressureTriggers::request(0.15);
    CHECK(text == std::string("some 300000 2000000\0", 20));
}

TEST_CASE("pressure trigger: a fixture tree has none, the live machine those that it offers, quiet at first") {
    Tree tree("6.18");
    CHECK(sources::PressureTriggers(tree.roots(), 0.5).descriptors().empty());
    const sources::PressureTriggers live({}, 0.99);
    if (!fs::exists("/proc/pressure/cpu")) {
        MESSAGE("no PSI in this kernel: no trigger to look at");
        CHECK(live.descriptors().empty());
        return;
    }
    for (const int fd : live.descriptors()) {
        pollfd waiting{fd, POLLPRI, 0};
        CHECK(poll(&waiting, 1, 0) >= 0);
        CHECK((waiting.revents & POLLNVAL) == 0);
    }
}

}  // namespace argus::test
