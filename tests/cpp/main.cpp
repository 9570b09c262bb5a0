#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

namespace argus::test {

const char* fixtures_folder() noexcept;

const char* fixtures_folder() noexcept { return ARGUS_FIXTURES; }

}  // namespace argus::test
