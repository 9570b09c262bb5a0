// Parsers of the per-process files.
#include <limits>

#include "sources/processes/processes.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

template <class T>
bool small_number(Scanner& scanner, T& out) noexcept {
    std::int64_t value = 0;
    if (!scanner.signed_number(value)) return false;
    if (value < std::numeric_limits<T>::min() || value > std::numeric_limits<T>::max()) return false;
    out = static_cast<T>(value);
    return true;
}

bool skip_fields(Scanner& scanner, int count) noexcept {
    for (int i = 0; i < count; ++i) {
        if (scanner.word().empty()) return false;
    }
    return true;
}

// "\nRssAnon:\t     512 kB", three of them one after the other, then VmSwap some lines on.
void parse_kinds(std::string_view text, ProcessStatus& out) noexcept {
    struct Key {
        std::string_view name;
        std::uint64_t ProcessStatus::*member;
    };
    static constexpr Key keys[] = {{"\nRssAnon:", &ProcessStatus::anon_kib},
                                   {"\nRssFile:", &ProcessStatus::file_kib},
                                   {"\nRssShmem:", &ProcessStatus::shmem_kib},
                                   {"\nVmSwap:", &ProcessStatus::swap_kib}};
    std::size_t at = 0;
    out.has_kinds = false;
    for (const Key& key : keys) {
        at = text.find(key.name, at);
        if (at == std::string_view::npos) return;
        Scanner fields(text.substr(at + key.name.size()));
        if (!fields.number(out.*key.member) || fields.word() != "kB") return;
    }
    out.has_kinds = true;
}

}  // namespace

// "pid (comm) S ppid …": comm may hold anything, also ") R 1 (" and newlines, but only numbers follow it, so it ends at
// the last parenthesis of the whole buffer. Field numbers are those of man proc_pid_stat(5).
bool parse_process_stat(std::string_view text, ProcessStat& out) noexcept {
    const std::size_t open = text.find('(');
    const std::size_t close = text.rfind(')');
    if (open == std::string_view::npos || close == std::string_view::npos || close < open) return false;
    if (!text.ends_with('\n')) return false;
    Scanner head(text.substr(0, open));
    if (!small_number(head, out.pid) || out.pid <= 0) return false;
    out.name = text.substr(open + 1, close - open - 1);
    Scanner fields(text.substr(close + 1));
    const std::string_view state = fields.word();
    if (state.size() != 1) return false;
    out.state = state[0];
    std::uint64_t ignored = 0;
    const bool times = small_number(fields, out.ppid) && skip_fields(fields, 5)              // 4; 5-9
                       && fields.number(out.minor_faults) && fields.number(ignored)          // 10, 11
                       && fields.number(out.major_faults) && fields.number(ignored)          // 12, 13
                       && fields.number(out.user_ticks) && fields.number(out.system_ticks);  // 14, 15
    if (!times) return false;
    const bool rest = skip_fields(fields, 3) && small_number(fields, out.nice)            // 16-18, 19
                      && small_number(fields, out.threads) && skip_fields(fields, 1)      // 20, 21
                      && fields.number(out.start_ticks) && fields.number(out.virtual_bytes)  // 22, 23
                      && skip_fields(fields, 15) && small_number(fields, out.last_cpu);   // 24-38, 39
    return rest && out.ppid >= 0 && out.threads >= 0;
}

bool parse_process_memory(std::string_view text, ProcessMemory& out) noexcept {
    Scanner fields(text);
    return text.ends_with('\n') && fields.number(out.virtual_pages) && fields.number(out.resident_pages) &&
           fields.number(out.shared_pages);
}

bool parse_process_schedule(std::string_view text, ProcessSchedule& out) noexcept {
    Scanner fields(text);
    return text.ends_with('\n') && fields.number(out.run_ns) && fields.number(out.delay_ns) &&
           fields.number(out.timeslices);
}

bool parse_process_io(std::string_view text, ProcessIo& out) noexcept {
    struct Key {
        std::string_view name;
        std::uint64_t ProcessIo::*member;
    };
    static constexpr Key keys[] = {{"rchar:", &ProcessIo::read_chars},
                                   {"wchar:", &ProcessIo::write_chars},
                                   {"read_bytes:", &ProcessIo::read_bytes},
                                   {"write_bytes:", &ProcessIo::write_bytes}};
    if (!text.ends_with('\n')) return false;
    unsigned seen = 0;
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) {
        Scanner fields(line);
        const std::string_view name = fields.word();
        for (unsigned i = 0; i < 4; ++i) {
            if (name != keys[i].name) continue;
            if (!fields.number(out.*keys[i].member)) return false;
            seen |= 1U << i;
        }
    }
    return seen == 15;
}

// The Name: line comes first and is escaped by the kernel, so a hostile name cannot forge a line. Context switches are
// the last lines and Groups: may be long before them.
bool parse_process_status(std::string_view text, ProcessStatus& out) noexcept {
    constexpr std::string_view kUid = "\nUid:";
    constexpr std::string_view kVoluntary = "\nvoluntary_ctxt_switches:";
    constexpr std::string_view kInvoluntary = "\nnonvoluntary_ctxt_switches:";
    if (!text.ends_with('\n')) return false;
    const std::size_t uid = text.find(kUid);
    const std::size_t voluntary = text.rfind(kVoluntary);
    const std::size_t involuntary = text.rfind(kInvoluntary);
    constexpr auto none = std::string_view::npos;
    if (uid == none || voluntary == none || involuntary == none) return false;
    Scanner user(text.substr(uid + kUid.size()));
    Scanner first(text.substr(voluntary + kVoluntary.size()));
    Scanner second(text.substr(involuntary + kInvoluntary.size()));
    std::uint64_t id = 0;
    if (!user.number(id) || id > std::numeric_limits<std::uint32_t>::max()) return false;
    out.uid = static_cast<std::int64_t>(id);
    parse_kinds(text.substr(uid), out);
    return first.number(out.voluntary) && second.number(out.involuntary);
}

}  // namespace argus::sources
