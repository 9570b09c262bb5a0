#include <doctest/doctest.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "../allocations.hpp"
#include "sources/filesystem.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

constexpr const char* kRoot = "/1/root";
constexpr double kPatient = 5000;  // milliseconds: far beyond what an idle call takes on a busy machine
constexpr double kHasty = 200;

// The file systems below the roots of all trees. A path in `hanging` does not answer until it is taken out.
struct World {
    std::mutex mutex;
    std::condition_variable changed;
    std::set<std::string, std::less<>> hanging;
    std::map<std::string, int, std::less<>> errors;
    int inside = 0;      // calls that hang now
    int asked = 0;       // calls ever
    bool procfs = true;  // the proc root is one
    std::uint64_t blocks = 1000;
};
World world;

int world_statfs(const char* path, struct statfs* out) {
    const std::string_view text(path);
    const std::size_t root = text.find(kRoot);
    std::unique_lock lock(world.mutex);
    *out = {};
    if (root == std::string_view::npos) {
        out->f_type = world.procfs ? PROC_SUPER_MAGIC : TMPFS_MAGIC;
        return 0;
    }
    ++world.asked;
    const std::string_view point = text.substr(root + std::string_view(kRoot).size());
    ++world.inside;
    world.changed.notify_all();
    world.changed.wait(lock, [&] { return !world.hanging.contains(point); });
    --world.inside;
    world.changed.notify_all();
    const auto error = world.errors.find(point);
    if (error != world.errors.end()) return -error->second;
    out->f_bsize = 1 << 20;
    out->f_frsize = 4096;
    out->f_blocks = world.blocks;
    out->f_bfree = 400;
    out->f_bavail = 300;
    out->f_files = point == "/srv" ? 0 : 50;
    out->f_ffree = point == "/srv" ? 0 : 20;
    return 0;
}

// The world as it was, with every call come back, whatever the test did.
struct Restored {
    Restored() = default;
    ~Restored() {
        std::unique_lock lock(world.mutex);
        world.hanging.clear();
        world.changed.notify_all();
        world.changed.wait(lock, [] { return world.inside == 0; });
        world.errors.clear();
        world.procfs = true;
        world.blocks = 1000;
    }
    void hang(const char* point) const {
        const std::lock_guard lock(world.mutex);
        world.hanging.insert(point);
    }
    void answer(const char* point) const {
        std::unique_lock lock(world.mutex);
        world.hanging.erase(point);
        world.changed.notify_all();
    }
    void fail(const char* point, int error) const {
        const std::lock_guard lock(world.mutex);
        world.errors[point] = error;
    }
};

std::unique_ptr<sources::Source> open_world(const Tree& tree, double timeout_ms = kPatient) {
    auto source = sources::open_filesystem(tree.roots(), system_io(), {{timeout_ms}, {}}, world_statfs);
    REQUIRE(source.ok());
    return std::move(*source);
}

struct Place {
    const char* device;
    const char* point;
    const char* type;
};
constexpr Place kSlash{"/dev/nvme0n1p2", "/", "ext4"};
constexpr Place kNfs{"server:/export/a%20b", "/mnt/nfs", "nfs4"};
constexpr Place kSsh{"user@host:", "/mnt/ssh", "fuse.sshfs"};

std::string of(const char* name, const Place& place, const char* state = nullptr, const char* mode = "rw") {
    std::string out = std::string("system.filesystem.") + name + "{system.device=" + place.device;
    if (mode != nullptr) out += std::string(",system.filesystem.mode=") + mode;
    out += std::string(",system.filesystem.mountpoint=") + place.point;
    if (state != nullptr) out += std::string(",system.filesystem.state=") + state;
    return out + ",system.filesystem.type=" + place.type + "}";
}
std::string mark(const char* name, const Place& place) { return of(name, place, nullptr, nullptr); }

constexpr const char* kUnresponsive = "system.filesystem.unresponsive";

}  // namespace

TEST_CASE("filesystem: a mount has its fields, with escapes undone") {
    const auto mount = sources::parse_mount(
        "33 22 8:1 /a /mnt/my\\040disk\\134a rw,relatime shared:1 master:2 - xfs /dev/disk\\040one rw,attr2");
    REQUIRE(mount.ok());
    CHECK(mount.value().point == "/mnt/my disk\\a");
    CHECK(mount.value().device == "/dev/disk one");
    CHECK(mount.value().type == "xfs");
    CHECK(mount.value().id == (std::uint64_t{8} << 32 | 1));
    CHECK(!mount.value().whole);
    CHECK(!mount.value().read_only);
}

TEST_CASE("filesystem: read-only by the mount or by the file system; an empty device is empty") {
    const auto read_only = [](const std::string& line) {
        const auto mount = sources::parse_mount(line);
        REQUIRE(mount.ok());
        return mount.value().read_only;
    };
    CHECK(read_only("1 1 8:1 / / ro,relatime - ext4 /dev/a rw"));
    CHECK(read_only("1 1 8:1 / / rw,relatime - ext4 /dev/a ro,errors=panic"));
    CHECK(!read_only("1 1 8:1 / / rw,rondo - ext4 /dev/a rw,errors=remount-ro"));
    const auto nameless = sources::parse_mount("1 1 0:9 / /x rw - tmpfs  ro,size=1k");
    REQUIRE(nameless.ok());
    CHECK(nameless.value().device.empty());
    CHECK(nameless.value().read_only);
}

TEST_CASE("filesystem: hostile lines are malformed, whatever they are cut to") {
    for (const char* wrong : {"", " ", "1 1", "1 1 8:1 / relative rw - ext4 a rw", "1 1 8 / / rw - ext4 a rw",
                              "1 1 8:-1 / / rw - ext4 a rw", "1 1 8:4294967296 / / rw - ext4 a rw",
                              "1 1 8:1 / / rw shared:1 ext4 a rw", "1 1 8:1 / / rw -", "1 1 8:1 / / rw -  a rw"}) {
        CHECK_MESSAGE(!sources::parse_mount(wrong).ok(), wrong);
    }
    const auto table = sources::parse_mounts("nonsense\n1 1 8:1 / / rw - ext4 /dev/a rw\n1 1 8:2 / /x rw - ext4 /de");
    CHECK(table.malformed == 2);
    CHECK(!table.complete);
    CHECK(table.mounts.size() == 1);
}

TEST_CASE("filesystem: kernel interfaces, images and containers' own mounts are left out") {
    const auto followed = [](const char* type, const char* point) {
        sources::Mount mount;
        mount.type = type;
        mount.point = point;
        return sources::is_followed(mount);
    };
    for (const char* type : {"proc", "sysfs", "cgroup2", "tracefs", "squashfs", "nsfs", "autofs", "devtmpfs", "bpf"}) {
        CHECK_MESSAGE(!followed(type, "/anywhere"), type);
    }
    CHECK(followed("ext4", "/"));
    CHECK(followed("overlay", "/"));
    CHECK(!followed("overlay", "/var/lib/docker/overlay2/x/merged"));
    CHECK(followed("xfs", "/var/lib/docker"));
    CHECK(!followed("tmpfs", "/var/lib/docker/containers/x/shm"));
    CHECK(followed("xfs", "/device"));
    CHECK(followed("tmpfs", "/dev/shm"));
    CHECK(!followed("tmpfs", "/dev/other"));
    CHECK(!followed("tmpfs", "/run/credentials/x"));
    CHECK(!followed("tmpfs", "/var/lib/kubelet/pods/1/token"));
    CHECK(followed("ext4", "/var/lib/kubelet/pods/1/volume"));
}

TEST_CASE("filesystem: of mounts on one point the last counts, of one file system the first that shows all of it") {
    const auto table = sources::parse_mounts(slurp(kFixtures / "storage/proc/1/mountinfo"));
    CHECK(table.malformed == 0);
    CHECK(table.complete);
    std::vector<std::string> points;
    for (const auto& mount : table.mounts) points.push_back(mount.point);
    CHECK(points == std::vector<std::string>{"/", "/dev/shm", "/run", "/boot/efi", "/srv", "/mnt/my disk\\a",
                                             "/mnt/nfs", "/mnt/ssh", "/mnt/nameless", "/backup"});
    CHECK(table.mounts[0].type == "ext4");
}

TEST_CASE("filesystem: used, free and reserved add up to the limit; full is what users cannot fill") {
    const Restored restored;
    Tree tree("storage");
    Memory memory;
    const auto report = open_world(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(memory.at(of("usage", kSlash, "used")) == 600 * 4096);
    CHECK(memory.at(of("usage", kSlash, "free")) == 300 * 4096);
    CHECK(memory.at(of("usage", kSlash, "reserved")) == 100 * 4096);
    CHECK(memory.at(of("limit", kSlash)) == 1000 * 4096);
    CHECK(memory.at(of("utilization", kSlash)) == 600.0 / 900.0);
    CHECK(memory.at(of("inodes.usage", kSlash, "used")) == 30);
    CHECK(memory.at(of("inodes.usage", kSlash, "free")) == 20);
    CHECK(memory.at(mark("readonly", kSlash)) == 0);
    CHECK(memory.at(mark("responding", kSlash)) == 1);
    CHECK(memory.at(kUnresponsive) == 0);
    CHECK(memory.at(mark("readonly", {"/dev/sdc1", "/backup", "ext4"})) == 1);
    CHECK(memory.has(of("usage", {"/dev/sda1", "/mnt/my%20disk%5Ca", "xfs"}, "used")));
    CHECK(!memory.has(of("inodes.usage", {"/dev/mapper/vg-data", "/srv", "btrfs"}, "used")));
    CHECK(memory.has(of("usage", {"/dev/mapper/vg-data", "/srv", "btrfs"}, "used")));
}

TEST_CASE("filesystem: a steady poll allocates nothing") {
    const Restored restored;
    Tree tree("storage");
    Memory memory;
    auto source = open_world(tree);
    (void)source->poll(0, memory);
    const std::uint64_t before = allocations();
    const auto report = source->poll(1, memory);
    const std::uint64_t after = allocations();
    CHECK(after == before);
    CHECK(report.value().emitted == memory.names.size());
}

TEST_CASE("filesystem: a mount that hangs is left out, the others are not, and its answer brings it back") {
    const Restored restored;
    Tree tree("storage");
    Memory memory;
    auto source = open_world(tree, kHasty);
    (void)source->poll(0, memory);
    restored.hang("/mnt/nfs");
    memory.forget();
    REQUIRE(source->poll(1, memory).ok());
    CHECK(std::isnan(memory.at(of("usage", kNfs, "used"))));
    CHECK(memory.at(mark("responding", kNfs)) == 0);
    CHECK(memory.at(of("usage", kSlash, "used")) == 600 * 4096);
    CHECK(memory.at(of("usage", kSsh, "used")) == 600 * 4096);  // asked after it, by another thread
    CHECK(memory.at(kUnresponsive) == 1);
    CHECK(memory.closed == 0);
    (void)source->poll(2, memory);  // not asked again while it hangs
    {
        std::unique_lock lock(world.mutex);
        CHECK(world.inside == 1);
    }
    restored.answer("/mnt/nfs");
    for (int i = 0; i < 1000 && memory.at(mark("responding", kNfs)) != 1; ++i) (void)source->poll(3, memory);
    CHECK(memory.at(of("usage", kNfs, "used")) == 600 * 4096);
    CHECK(memory.at(kUnresponsive) == 0);
}

TEST_CASE("filesystem: one that hangs from the start has no values, and the source may go while it does") {
    const Restored restored;
    Tree tree("storage");
    restored.hang("/mnt/nfs");
    Memory memory;
    auto source = open_world(tree, kHasty);
    REQUIRE(source->poll(0, memory).ok());
    CHECK(!memory.has(of("usage", kNfs, "used")));
    CHECK(memory.at(mark("responding", kNfs)) == 0);
    CHECK(memory.at(of("usage", kSlash, "used")) == 600 * 4096);
    source.reset();
    std::unique_lock lock(world.mutex);
    CHECK(world.inside == 1);
}

TEST_CASE("filesystem: only a few threads may hang, and local file systems are still asked") {
    const Restored restored;
    Tree tree;
    std::string table = "1 1 8:1 / / rw - ext4 /dev/a rw\n";
    for (int i = 0; i < 8; ++i) {
        const std::string number = std::to_string(i);
        table += "1 1 0:" + number + " / /nfs" + number + " rw - nfs s:/" + number + " rw\n";
        restored.hang(("/nfs" + number).c_str());
    }
    tree.write("proc/1/mountinfo", table);
    Memory memory;
    auto source = open_world(tree, kHasty);
    for (Nanos now = 0; now < 4; ++now) REQUIRE(source->poll(now, memory).ok());
    memory.forget();
    REQUIRE(source->poll(4, memory).ok());
    CHECK(memory.at(kUnresponsive) == 8);
    CHECK(memory.at(of("usage", {"/dev/a", "/", "ext4"}, "used")) == 600 * 4096);
    std::unique_lock lock(world.mutex);
    CHECK(world.inside == 3);
}

TEST_CASE("filesystem: one that cannot be reached does not respond; one that is not ours to see is not spoken of") {
    const Restored restored;
    Tree tree("storage");
    restored.fail("/mnt/nfs", ESTALE);
    restored.fail("/mnt/ssh", EACCES);
    restored.fail("/run", ENOENT);
    Memory memory;
    REQUIRE(open_world(tree)->poll(0, memory).ok());
    CHECK(memory.at(mark("responding", kNfs)) == 0);
    CHECK(!memory.has(mark("responding", kSsh)));
    CHECK(!memory.has(mark("responding", {"tmpfs", "/run", "tmpfs"})));
    CHECK(memory.at(kUnresponsive) == 1);
}

TEST_CASE("filesystem: a mount that goes closes its series, one that comes opens them") {
    const Restored restored;
    Tree tree("storage");
    Memory memory;
    auto source = open_world(tree);
    (void)source->poll(0, memory);
    tree.replace("proc/1/mountinfo", "/backup ro,relatime - ext4 /dev/sdc1 ro", "/new rw,relatime - ext4 /dev/sdd1 rw");
    (void)source->poll(1, memory);
    CHECK(memory.closed == 9);
    CHECK(!memory.has(mark("readonly", {"/dev/sdc1", "/backup", "ext4"})));
    CHECK(memory.at(of("limit", {"/dev/sdd1", "/new", "ext4"})) == 1000 * 4096);
    CHECK(memory.at(of("limit", kSlash)) == 1000 * 4096);
}

TEST_CASE("filesystem: remounted read-only, readonly and responding go on, the levels are those of another mode") {
    const Restored restored;
    Tree tree("storage");
    Memory memory;
    auto source = open_world(tree);
    (void)source->poll(0, memory);
    tree.replace("proc/1/mountinfo", "/ / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw",
                 "/ / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 ro");
    (void)source->poll(1, memory);
    CHECK(memory.closed == 7);
    CHECK(memory.at(mark("readonly", kSlash)) == 1);
    CHECK(memory.at(of("usage", kSlash, "used", "ro")) == 600 * 4096);
    CHECK(!memory.has(of("usage", kSlash, "used")));
}

TEST_CASE("filesystem: a table cut short closes nothing, an empty one is an error") {
    const Restored restored;
    Tree tree("storage");
    Memory memory;
    auto source = open_world(tree);
    (void)source->poll(0, memory);
    const std::string text = slurp(kFixtures / "storage/proc/1/mountinfo");
    tree.write("proc/1/mountinfo", text.substr(0, text.size() / 2));
    auto report = source->poll(1, memory);
    CHECK(report.value().malformed == 1);
    CHECK(report.value().emitted == memory.names.size());
    tree.write("proc/1/mountinfo", "");
    CHECK(source->poll(2, memory).error().code == Errc::truncated);
    CHECK(memory.closed == 0);
}

TEST_CASE("filesystem: numbers that contradict themselves are no space") {
    const Restored restored;
    Tree tree("storage");
    {
        const std::lock_guard lock(world.mutex);
        world.blocks = 399;  // with 400 of them free
    }
    Memory memory;
    const auto report = open_world(tree)->poll(0, memory);
    CHECK(report.value().malformed == 10);
    CHECK(!memory.has(of("usage", kSlash, "used")));
    CHECK(memory.at(mark("responding", kSlash)) == 1);
    {
        const std::lock_guard lock(world.mutex);
        world.blocks = 0;
    }
    Memory pseudo;
    CHECK(open_world(tree)->poll(0, pseudo).value().malformed == 0);
    CHECK(pseudo.names == std::set<std::string>{kUnresponsive});
}

TEST_CASE("filesystem: copied files have no file systems, and a foreign root must be reachable") {
    const Restored restored;
    Tree tree("storage");
    const auto settings = sources::SourceSettings{{kPatient}, {}};
    auto copied = sources::filesystem_source.open(tree.roots(), system_io());
    REQUIRE(!copied.ok());
    CHECK(copied.error().code == Errc::unavailable);
    CHECK(std::string(copied.error().what) == "proc/1/root");
    restored.fail("", EACCES);
    auto locked = sources::open_filesystem(tree.roots(), system_io(), settings, world_statfs);
    REQUIRE(!locked.ok());
    CHECK(locked.error().code == Errc::permission);
    tree.remove("proc/1");
    auto absent = sources::open_filesystem(tree.roots(), system_io(), settings, world_statfs);
    REQUIRE(!absent.ok());
    CHECK(absent.error().code == Errc::unavailable);
    CHECK(std::string(absent.error().what) == "proc/1/mountinfo");
}

TEST_CASE("filesystem: no more than 256 are followed, those beyond are counted") {
    std::string table;
    for (int i = 0; i < 300; ++i) {
        table += "1 1 8:" + std::to_string(i) + " / /m" + std::to_string(i) + " rw - ext4 /dev/a rw\n";
    }
    const auto parsed = sources::parse_mounts(table);
    CHECK(parsed.mounts.size() == 256);
    CHECK(parsed.malformed == 44);
}

TEST_CASE("filesystem: this machine's root agrees with statfs") {
    auto source = sources::filesystem_source.open({}, system_io());
    REQUIRE(source.ok());
    Memory memory;
    REQUIRE((*source)->poll(0, memory).ok());
    struct statfs root{};
    REQUIRE(::statfs("/", &root) == 0);
    double limit = 0;
    for (std::size_t i = 0; i < memory.infos.size(); ++i) {
        const auto& info = memory.infos[i];
        const bool slash = info.attributes.find("mountpoint=/,") != std::string::npos;
        if (info.name == "system.filesystem.limit" && slash) limit = memory.values[i];
    }
    CHECK(limit == static_cast<double>(root.f_blocks) * static_cast<double>(root.f_frsize));
}

}  // namespace argus::test
