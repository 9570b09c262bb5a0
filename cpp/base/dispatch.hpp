// Runtime choice of instruction set. A kernel is one plain-loop body, an always_inline template or function; the
// ARGUS_KERNEL macro compiles it for baseline, x86-64-v3 and x86-64-v4 and picks one per process. `target` wrappers and
// not `target_clones`: ifunc resolvers run before the thread sanitizer does and crash under it.
// The environment variable ARGUS_ISA = baseline | v3 | v4 forces a lower level (tests compare bits across levels).
#pragma once

#include <cstdlib>
#include <string_view>

namespace argus {

enum class Isa : unsigned char { baseline, v3, v4 };

[[nodiscard]] inline Isa best_isa() noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return Isa::v4;
    if (__builtin_cpu_supports("x86-64-v3")) return Isa::v3;
#endif
    return Isa::baseline;
}

// The level in use: the best the CPU has, or the lower one that ARGUS_ISA names.
[[nodiscard]] inline Isa isa() noexcept {
    static const Isa chosen = [] {
        const Isa best = best_isa();
        const char* forced = std::getenv("ARGUS_ISA");
        if (forced == nullptr) return best;
        const std::string_view name(forced);
        const Isa wanted = name == "baseline" ? Isa::baseline : name == "v3" ? Isa::v3 : Isa::v4;
        return wanted < best ? wanted : best;
    }();
    return chosen;
}

}  // namespace argus

#if defined(__x86_64__) && defined(__GNUC__)
// ARGUS_KERNEL(name, body, (params), (args)): defines `void name params`, which runs the inline function `body args`
// compiled for the chosen instruction set.
#define ARGUS_KERNEL(name, body, params, args)                                                  \
    namespace name##_isa {                                                                      \
    static void baseline params { body args; }                                                  \
    __attribute__((target("arch=x86-64-v3"))) static void v3 params { body args; }              \
    __attribute__((target("arch=x86-64-v4,prefer-vector-width=512"))) static void v4 params {   \
        body args;                                                                              \
    }                                                                                           \
    }                                                                                           \
    static void name params {                                                                   \
        switch (::argus::isa()) {                                                               \
            case ::argus::Isa::v4: name##_isa::v4 args; return;                                 \
            case ::argus::Isa::v3: name##_isa::v3 args; return;                                 \
            default: name##_isa::baseline args; return;                                         \
        }                                                                                       \
    }
#else
#define ARGUS_KERNEL(name, body, params, args) \
    static void name params { body args; }
#endif

#define ARGUS_INLINE inline __attribute__((always_inline))
