// How the tests tell the stand-in for NVIDIA's library what to be.
#pragma once

#include <atomic>

struct FakeNvml {
    std::atomic<int> devices{2};
    std::atomic<int> init_status{0};
    std::atomic<int> lost{-1};            // this device answers nothing but "lost"; -2 = all of them
    std::atomic<bool> mig{false};         // the load of the whole card is not supported
    std::atomic<bool> hang{false};        // asking for the load does not come back
    std::atomic<bool> absurd{false};      // every number is the largest there is
    std::atomic<bool> narrow{false};      // counters of traffic have 32 bits
    std::atomic<bool> only_new_temperature{false};
    std::atomic<int> inits{0};
    std::atomic<int> shutdowns{0};
};
