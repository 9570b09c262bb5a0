// What the tests of sources share: scratch trees, an Emit that remembers, and an Io that misbehaves.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/catalog.hpp"
#include "sources/source.hpp"

namespace argus::sources {
#define X(name) extern const SourceDescriptor name##_source;
ARGUS_SOURCES(X)
#undef X
}  // namespace argus::sources

namespace argus::test {

namespace fs = std::filesystem;

const char* fixtures_folder() noexcept;  // main.cpp

inline const fs::path kFixtures = fixtures_folder();

inline std::string slurp(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// A directory of its own that goes away with the test; optionally a copy of a fixture tree.
class Tree {
public:
    explicit Tree(const char* fixture = nullptr) {
        std::string pattern = (fs::temp_directory_path() / "argus-test-XXXXXX").string();
        if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp: " + pattern);
        root_ = pattern;
        if (fixture != nullptr) fs::copy(kFixtures / fixture, root_, fs::copy_options::recursive);
    }
    ~Tree() {
        std::error_code ignored;
        fs::remove_all(root_, ignored);
    }
    Tree(const Tree&) = delete;
    Tree& operator=(const Tree&) = delete;

    void write(const std::string& path, const std::string& text) const {
        fs::create_directories((root_ / path).parent_path());
        std::ofstream(root_ / path, std::ios::binary | std::ios::trunc) << text;
    }
    void replace(const std::string& path, const std::string& from, const std::string& to) const {
        std::string text = slurp(root_ / path);
        const std::size_t at = text.find(from);
        if (at == std::string::npos) throw std::runtime_error(path + " holds no '" + from + "'");
        write(path, text.replace(at, from.size(), to));
    }
    void remove(const std::string& path) const { fs::remove_all(root_ / path); }
    [[nodiscard]] sources::Roots roots() const { return {(root_ / "proc").string(), (root_ / "sys").string(), ""}; }
    [[nodiscard]] std::string path(const std::string& file) const { return (root_ / file).string(); }
    [[nodiscard]] std::string proc() const { return (root_ / "proc").string(); }

private:
    fs::path root_;
};

class Memory final : public sources::Emit {
public:
    Memory() {
        infos.reserve(4096);
        values.reserve(4096);
    }
    [[nodiscard]] Slot open_series(SeriesInfo info) override {
        const std::string name = info.full_name();
        slots_[name] = infos.size();
        if (!names.insert(name).second) throw std::runtime_error("opened twice: " + name);
        infos.push_back(std::move(info));
        values.push_back(std::numeric_limits<double>::quiet_NaN());
        return {static_cast<std::uint32_t>(infos.size() - 1), 1};
    }
    void close_series(Slot slot) override {
        names.erase(infos[slot.index].full_name());
        infos[slot.index].name = "closed";
        ++closed;
    }
    void value(Slot slot, double value) override { values[slot.index] = value; }

    // NaN when no such series is open.
    [[nodiscard]] double at(const std::string& full_name) const {
        return has(full_name) ? values[slots_.at(full_name)] : std::numeric_limits<double>::quiet_NaN();
    }
    [[nodiscard]] bool has(const std::string& full_name) const { return names.contains(full_name); }
    void forget() { std::fill(values.begin(), values.end(), std::numeric_limits<double>::quiet_NaN()); }

    std::vector<SeriesInfo> infos;
    std::vector<double> values;
    std::set<std::string> names;
    std::size_t closed = 0;

private:
    std::map<std::string, std::size_t> slots_;
};

// System calls that misbehave on request, once installed; per thread.
struct Faults {
    std::size_t largest_read = std::numeric_limits<std::size_t>::max();  // bytes a pread gives at most
    int interrupt_every = 0;    // every n-th call answers EINTR; 0 = never
    int open_errno = 0;         // every open fails with it
    int pread_errno = 0;        // the next pread fails with it
    int calls = 0;
    int opened = 0;             // descriptors open now
};
inline thread_local Faults faults;

inline bool interrupted() { return faults.interrupt_every != 0 && ++faults.calls % faults.interrupt_every == 0; }

inline const Io kFaultyIo{
    [](int directory, const char* path, int flags) {
        if (faults.open_errno != 0) return -faults.open_errno;
        if (interrupted()) return -EINTR;
        const int fd = system_io().open_at(directory, path, flags);
        if (fd >= 0) ++faults.opened;
        return fd;
    },
    [](int fd, void* buffer, std::size_t size, off_t offset) -> ssize_t {
        if (faults.pread_errno != 0) return -std::exchange(faults.pread_errno, 0);
        if (interrupted()) return -EINTR;
        return system_io().pread(fd, buffer, std::min(size, faults.largest_read), offset);
    },
    [](int fd, void* buffer, std::size_t size) -> ssize_t {
        if (interrupted()) return -EINTR;
        return system_io().get_dents(fd, buffer, size);
    },
    [](int fd) {
        --faults.opened;
        return system_io().close(fd);
    },
};

struct WithFaults {
    explicit WithFaults(Faults wanted) { faults = wanted; }
    ~WithFaults() { faults = {}; }
};

}  // namespace argus::test
