// What the host itself shows of an agent, to be held against what the agent says: the state of a file it claims to have
// written, what its processes use, how they ended. Facts come from outside the stream of events, by
// EventPlane::testify(); the same events and the same facts give the same anomalies. A replay has no facts: what can
// only be decided by them is then counted as unverifiable, and nothing is said of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.hpp"
#include "model/event.hpp"

namespace argus::auditors {

inline constexpr std::size_t kQuestionPath = 1024;  // longer paths are not looked at

using Digest = std::array<std::uint8_t, 32>;  // SHA-256

// Look at this file. `claim` and `turn` come back with the answer.
struct FileQuestion {
    std::uint32_t claim = 0, turn = 0;
    std::uint64_t session = 0;     // events::hash_text of its name
    std::int64_t bytes = kAbsent;  // claimed; with the digest it says what is worth a closer look
    bool hashed = false;           // a digest is claimed: the content must be read to decide
    Digest digest{};
    std::uint16_t path_bytes = 0;
    std::array<char, kQuestionPath> path{};

    [[nodiscard]] std::string_view path_view() const noexcept { return {path.data(), path_bytes}; }
};

// Why a file could not be looked at.
enum class Blind : std::uint8_t {
    none,
    path,        // relative, too long, or with parts that no file name has
    no_process,  // no process of the session is known on this host
    foreign,     // one of its processes sees another file system than Argus does: a container, a chroot
    mount,       // not on a local disk: network, FUSE, proc, or it would cross a mount on its way
    link,        // a symbolic link, or too many on the way
    special,     // a folder, device, FIFO or socket
    denied,
    large,       // beyond what is read to verify a digest
    failed,      // an error of the kernel or of the disk
    count_,
};
inline constexpr std::size_t kBlinds = static_cast<std::size_t>(Blind::count_);

[[nodiscard]] constexpr const char* to_string(Blind b) noexcept {
    constexpr const char* names[] = {"none", "path", "no_process", "foreign", "mount", "link", "special", "denied",
                                     "large", "failed"};
    return names[static_cast<std::size_t>(b)];
}

struct FileAnswer {
    std::uint32_t claim = 0, turn = 0;
    Blind blind = Blind::none;
    bool exists = false;
    bool read = false;      // `same` holds
    bool same = false;      // the content has the claimed digest
    bool being_written = false;  // some process of the session holds it open for writing
    std::int64_t bytes = 0;
    Nanos changed = 0;      // wall clock; of the file, or of the nearest folder that exists where it does not
};

// A process of this host was registered for the session.
struct Presence {
    std::string_view session;
};

// What the session's processes have used since it was registered, at `mono`.
struct Activity {
    std::string_view session;
    Nanos mono = 0;
    double cpu_s = 0, read_bytes = 0, write_bytes = 0;
    std::uint64_t started = 0;
    std::uint32_t processes = 0;  // now
};

// The session's own process, the last that was registered for it, has ended.
struct Ending {
    std::string_view session;
    int code = 0;          // 0 to 255
    int signal = 0;        // that ended it; 0 = none did
    bool stopped = false;  // by Argus
};

using HostFact = std::variant<FileAnswer, Presence, Activity, Ending>;

// Who looks. Called by the thread that steps the engine; never waits.
class Witness {
public:
    virtual ~Witness() = default;
    [[nodiscard]] virtual bool ask(const FileQuestion& question) noexcept = 0;  // false = no room now
};

// What became of the claims so far, and how much of each agent's activity its events account for.
struct Share {
    double all = 0, accounted = 0;
    // NaN while there was nothing to account for.
    [[nodiscard]] double ratio() const noexcept {
        return all > 0 ? accounted / all : std::numeric_limits<double>::quiet_NaN();
    }
};
struct AgentCoverage {
    std::string session, agent;
    Share cpu_s, write_bytes, processes;
    Nanos since = 0;  // wall clock
    bool alive = false;
};
struct ClaimCounts {
    std::uint64_t files = 0;      // claims of files written
    std::uint64_t confirmed = 0, refuted = 0, undecided = 0, withdrawn = 0, shed = 0;
    std::array<std::uint64_t, kBlinds> unverifiable{};
};
struct ClaimReport {
    ClaimCounts counts;
    std::vector<AgentCoverage> agents;
};

}  // namespace argus::auditors
