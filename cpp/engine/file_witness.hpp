// Looks at the files that agents claim to have written, in a thread of its own: what it waits for, nobody waits for.
// It never opens what is no regular file on a local disk, follows no final link and no magic one (/proc/PID/fd),
// crosses no mount, and reads content only where a digest is claimed, at most kHashBytes and kHashTime a file and
// kBytesRate in all. It looks only at files of sessions whose processes see the same file systems as Argus does.
// What it tells of a file's content is whether it is as claimed: an agent cannot learn a digest from it.
// Source: openat2(2) (Linux >= 5.6; before that every file is told as `failed`), /proc/PID/{ns/mnt,root,fd,fdinfo},
// /proc/self/mountinfo.  Cost: 30 us a look, 4 ms a MB of content; a fresh thread sleeps until it is asked.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <semaphore>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "auditors/host_facts.hpp"
#include "base/clock.hpp"
#include "ring/snapshot.hpp"
#include "ring/spsc_ring.hpp"

namespace argus::engine {

struct SessionProcess {
    std::uint64_t session = 0;  // events::hash_text of its name
    std::int32_t pid = 0;
    bool supervisor = false;  // of them, not one of them
    friend bool operator==(const SessionProcess&, const SessionProcess&) = default;
};

class FileWitness final : public auditors::Witness {
public:
    static constexpr std::int64_t kHashBytes = std::int64_t{64} << 20;
    static constexpr Nanos kHashTime = 2 * kSecond;
    static constexpr double kBytesRate = 64e6;
    static constexpr std::size_t kQuestions = 256;

    explicit FileWitness(std::string proc = "/proc");
    ~FileWitness() override;
    FileWitness(const FileWitness&) = delete;
    FileWitness& operator=(const FileWitness&) = delete;

    // The thread that steps the engine.
    [[nodiscard]] bool ask(const auditors::FileQuestion& question) noexcept override;
    [[nodiscard]] bool take(auditors::FileAnswer& answer) noexcept;  // false = none is ready
    void set_processes(std::vector<SessionProcess> processes);

private:
    enum class Sight : std::uint8_t { unknown, local, foreign };
    struct Mount {
        std::string point;
        bool local = false;
    };

    void run() noexcept;
    [[nodiscard]] auditors::FileAnswer look(const auditors::FileQuestion& question);
    void meet();
    [[nodiscard]] Sight sight_of(std::int32_t pid) const;
    void read_mounts();
    [[nodiscard]] const Mount* mount_of(std::string_view path) const noexcept;
    void look_at(const auditors::FileQuestion& question, const std::string& path, auditors::FileAnswer& out);
    void look_inside(int fd, const auditors::FileQuestion& question, auditors::FileAnswer& out);
    void look_above(int mount, std::string rest, auditors::FileAnswer& out) const;
    [[nodiscard]] bool has_left(std::uint64_t session);
    [[nodiscard]] bool held_for_writing(int fd, std::uint64_t session) const;
    [[nodiscard]] bool writes(std::int32_t pid, std::string_view target) const;
    void pace(std::int64_t bytes) const;

    std::string proc_, own_namespace_;
    ring::SpscRing<auditors::FileQuestion> questions_;
    ring::SpscRing<auditors::FileAnswer> answers_;
    ring::Snapshot<std::vector<SessionProcess>> processes_;
    std::unordered_map<std::uint64_t, Sight> sights_;
    std::vector<Mount> mounts_;
    Nanos mounts_read_ = 0;
    std::vector<std::byte> buffer_;
    std::counting_semaphore<> wake_{0};
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

}  // namespace argus::engine
