// Runtime choice of instruction set. A kernel is one plain-loop body, an always_inline function; the
// ARGUS_KERNEL macro compiles it for baseline, x86-64-v3 and x86-64-v4 and picks one per call. `target`
// wrappers and not `target_clones`: ifunc resolvers run before the thread sanitizer does and crash under it.
// The environment variable ARGUS_ISA = baseline | v3 | v4 forces a lower level for a process; ScopedIsa does
// for a test.
#pragma once

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace argus {

enum class Isa : unsigned char { baseline, v3, v4 };

[[nodiscard]] constexpr const char* to_string(Isa level) noexcept {
    return level == Isa::v4 ? "v4" : level == Isa::v3 ? "v3" : "baseline";
}

// The best level that CPU and kernel support. Features are asked one by one: clang 14 does not know the level
// names.
[[nodiscard]] inline Isa best_isa() noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    if (v3 && v4) return Isa::v4;
    if (v3) return Isa::v3;
#endif
    return Isa::baseline;
}

namespace detail {
inline std::atomic<Isa>& isa_in_use() noexcept {
    static std::atomic<Isa> chosen = [] {
        const Isa best = best_isa();
        const char* forced = std::getenv("ARGUS_ISA");
        if (forced == nullptr) return best;
        const std::string_view name(forced);
        const Isa wanted = name == "baseline" ? Isa::baseline : name == "v3" ? Isa::v3 : Isa::v4;
        return wanted < best ? wanted : best;
    }();
    return chosen;
}
}  // namespace detail

// The level in use: the best the CPU has, or the lower one that ARGUS_ISA names.
[[nodiscard]] inline Isa isa() noexcept { return detail::isa_in_use().load(std::memory_order_relaxed); }

// Holds a level, at most best_isa(), for its lifetime. For tests and benchmarks.
class ScopedIsa {
public:
    explicit ScopedIsa(Isa level) noexcept : previous_(isa()) {
        detail::isa_in_use().store(level < best_isa() ? level : best_isa(), std::memory_order_relaxed);
    }
    ~ScopedIsa() { detail::isa_in_use().store(previous_, std::memory_order_relaxed); }
    ScopedIsa(const ScopedIsa&) = delete;
    ScopedIsa& operator=(const ScopedIsa&) = delete;

private:
    Isa previous_;
};

}  // namespace argus

// Promises that the iterations of the next loop are independent, so that it vectorises without alias checks.
#if defined(__clang__)
#define ARGUS_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define ARGUS_IVDEP _Pragma("GCC ivdep")
#else
#define ARGUS_IVDEP
#endif

#define ARGUS_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__)
#define ARGUS_TARGET_V3 __attribute__((target("arch=x86-64-v3")))
#if defined(__clang__)
#define ARGUS_TARGET_V4 __attribute__((target("arch=x86-64-v4")))
#else
#define ARGUS_TARGET_V4 __attribute__((target("arch=x86-64-v4,prefer-vector-width=512")))
#endif
// ARGUS_KERNEL(name, body, (params), (args)): defines `void name params`, which runs the inline function
// `body args` compiled for the chosen instruction set.
#define ARGUS_KERNEL(name, body, params, args)                   \
    namespace name##_isa {                                       \
    static void baseline params { body args; }                   \
    ARGUS_TARGET_V3 static void v3 params { body args; }         \
    ARGUS_TARGET_V4 static void v4 params { body args; }         \
    }                                                            \
    static void name params {                                    \
        switch (::argus::isa()) {                                \
            case ::argus::Isa::v4: name##_isa::v4 args; return;  \
            case ::argus::Isa::v3: name##_isa::v3 args; return;  \
            default: name##_isa::baseline args; return;          \
        }                                                        \
    }
#else
#define ARGUS_KERNEL(name, body, params, args) \
    static void name params { body args; }
#endif
