// Parser and rules of the filesystem source, pure, for tests and fuzzers; and its door with another statfs.
#pragma once

#include <sys/vfs.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.hpp"
#include "base/result.hpp"
#include "sources/source.hpp"

namespace argus::sources {

struct Mount {
    std::string device;      // as mounted: "/dev/vda1", "server:/export"; raw bytes, empty where the kernel names none
    std::string point;       // raw bytes
    std::string type;        // "ext4"
    std::uint64_t id = 0;    // of the file system: major << 32 | minor
    bool read_only = false;  // by the mount or by the file system
    bool whole = false;      // its root is mounted, not a folder of it
};

// One line of mountinfo.
[[nodiscard]] Result<Mount> parse_mount(std::string_view line);

// Kernel interfaces, images that are always full, and what container runtimes mount by the dozen are left out.
[[nodiscard]] bool is_followed(const Mount& mount) noexcept;

// Served by another machine or by a process, so that statfs may hang.
[[nodiscard]] bool is_remote(std::string_view type) noexcept;

struct MountTable {
    std::vector<Mount> mounts;    // followed ones, each file system once, in the order of the text
    std::uint32_t malformed = 0;  // lines skipped
    bool complete = false;        // the text was not cut
};

// Of several mounts on one point the last is what one sees there; of several mounts of one file system the first that
// shows all of it counts.
[[nodiscard]] MountTable parse_mounts(std::string_view text);

using StatfsFunction = int (*)(const char* path, struct statfs* out);  // 0 or -errno; may hang

[[nodiscard]] Result<std::unique_ptr<Source>> open_filesystem(const Roots& roots, const Io& io,
                                                              const SourceSettings& settings, StatfsFunction ask);

}  // namespace argus::sources
