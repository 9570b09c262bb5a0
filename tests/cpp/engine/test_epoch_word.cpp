#include "engine/epoch_word.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using argus::engine::EpochState;
using argus::engine::EpochWord;
using argus::engine::EpochWordError;
namespace engine = argus::engine;
namespace fs = std::filesystem;

class Directory {
public:
    Directory() {
        std::string name = (fs::temp_directory_path() / "argus-epoch-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~Directory() { fs::remove_all(path_); }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
    [[nodiscard]] std::string at(const char* name) const { return (path_ / name).string(); }

private:
    fs::path path_;
};

void write_bytes(const std::string& path, std::size_t count) {
    std::ofstream(path, std::ios::binary) << std::string(count, '\0');
}

}  // namespace

TEST_CASE("epoch word: a new file is 64 zero bytes, epoch 0, never a heartbeat") {
    const Directory directory;
    const EpochWord word(directory.at("epoch"));
    CHECK(fs::file_size(directory.at("epoch")) == engine::kEpochFileBytes);
    const EpochState state = word.load();
    CHECK(state.bits == 0);
    CHECK(state.epoch == 0);
    CHECK(state.heartbeat == 0);
}

TEST_CASE("epoch word: raising keeps other bits, replacing does not, each starts one epoch") {
    const Directory directory;
    EpochWord word(directory.at("epoch"));
    CHECK(word.raise_bits(engine::kHostLockdown) == 1);
    CHECK(word.raise_bits(engine::kNarrower) == 2);
    CHECK(word.load().bits == (engine::kHostLockdown | engine::kNarrower));
    CHECK(word.bump() == 3);
    CHECK(word.load().bits == (engine::kHostLockdown | engine::kNarrower));
    CHECK(word.replace_bits(engine::kHostKill) == 4);
    CHECK(word.load().bits == engine::kHostKill);
    CHECK(word.load().epoch == 4);
}

TEST_CASE("epoch word: a bit beyond the state byte never reaches the epoch") {
    const Directory directory;
    EpochWord word(directory.at("epoch"));
    CHECK(word.raise_bits(std::uint64_t{1} << 40) == 1);
    CHECK(word.load().bits == 0);
    CHECK(word.load().epoch == 1);
}

TEST_CASE("epoch word: a replacement that expects an older epoch is not made") {
    const Directory directory;
    EpochWord word(directory.at("epoch"));
    const std::uint64_t seen = word.load().epoch;
    word.raise_bits(engine::kHostKill);
    CHECK_FALSE(word.replace_bits_if(0, seen).has_value());
    CHECK(word.load().bits == engine::kHostKill);
    const auto replaced = word.replace_bits_if(0, word.load().epoch);
    REQUIRE(replaced.has_value());
    CHECK(*replaced == 2);
    CHECK(word.load().bits == 0);
}

TEST_CASE("epoch word: a second mapping sees bits, epoch and a heartbeat of now") {
    const Directory directory;
    EpochWord writer(directory.at("epoch"));
    const EpochWord reader(directory.at("epoch"), false);
    const argus::Nanos before = argus::read_clock(CLOCK_MONOTONIC);
    writer.heartbeat();
    writer.raise_bits(engine::kHostKill);
    const EpochState state = reader.load();
    CHECK(state.bits == engine::kHostKill);
    CHECK(state.epoch == 1);
    CHECK(state.heartbeat >= before);
    CHECK(state.heartbeat <= argus::read_clock(CLOCK_MONOTONIC));
}

TEST_CASE("epoch word: state survives the process that wrote it, and a moved-from word leaves the mapping alone") {
    const Directory directory;
    {
        EpochWord first(directory.at("epoch"));
        first.raise_bits(engine::kHostKill);
        const EpochWord second(std::move(first));
        CHECK(second.load().bits == engine::kHostKill);
    }
    CHECK(EpochWord(directory.at("epoch")).load().epoch == 1);
}

TEST_CASE("epoch word: symbolic links, special files, directories, wrong sizes and second names are refused") {
    const Directory directory;
    write_bytes(directory.at("real"), engine::kEpochFileBytes);
    fs::create_symlink(directory.at("real"), directory.at("link"));
    CHECK_THROWS_WITH_AS(EpochWord(directory.at("link")), doctest::Contains("a symbolic link"), EpochWordError);
    REQUIRE(::mkfifo(directory.at("fifo").c_str(), 0600) == 0);
    CHECK_THROWS_WITH_AS(EpochWord(directory.at("fifo")), doctest::Contains("a special file"), EpochWordError);
    fs::create_directory(directory.at("directory"));
    CHECK_THROWS_WITH_AS(EpochWord(directory.at("directory")), doctest::Contains("a directory"), EpochWordError);
    write_bytes(directory.at("short"), 63);
    CHECK_THROWS_WITH_AS(EpochWord(directory.at("short")), doctest::Contains("63 bytes"), EpochWordError);
    write_bytes(directory.at("long"), 65);
    CHECK_THROWS_WITH_AS(EpochWord(directory.at("long")), doctest::Contains("65 bytes"), EpochWordError);
    fs::create_hard_link(directory.at("real"), directory.at("other"));
    CHECK_THROWS_WITH_AS(EpochWord(directory.at("real")), doctest::Contains("2 names"), EpochWordError);
}

TEST_CASE("epoch word: without create, an absent or empty file is refused and none is left behind") {
    const Directory directory;
    CHECK_THROWS_AS(EpochWord(directory.at("epoch"), false), EpochWordError);
    CHECK_FALSE(fs::exists(directory.at("epoch")));
    write_bytes(directory.at("empty"), 0);
    CHECK_THROWS_WITH_AS(EpochWord(directory.at("empty"), false), doctest::Contains("0 bytes"), EpochWordError);
}

TEST_CASE("epoch word: threads that create and raise at once lose no bit and no epoch") {
    const Directory directory;
    constexpr std::uint64_t kThreads = 4;
    constexpr std::uint64_t kRounds = 2'000;
    std::vector<std::thread> threads;
    for (std::uint64_t thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&directory, thread] {
            EpochWord word(directory.at("epoch"));
            for (std::uint64_t round = 0; round < kRounds; ++round) {
                word.raise_bits(std::uint64_t{1} << thread);
                word.heartbeat();
            }
        });
    }
    for (auto& thread : threads) thread.join();
    const EpochState state = EpochWord(directory.at("epoch")).load();
    CHECK(state.bits == 0xf);
    CHECK(state.epoch == kThreads * kRounds);
    CHECK(state.heartbeat > 0);
}

TEST_CASE("epoch word: clearing beside raising threads never loses the last raise") {
    const Directory directory;
    EpochWord word(directory.at("epoch"));
    std::thread raiser([&directory] {
        EpochWord own(directory.at("epoch"));
        for (int round = 0; round < 2'000; ++round) own.raise_bits(engine::kHostKill);
    });
    for (int round = 0; round < 2'000; ++round) {
        const EpochState seen = word.load();
        const auto epoch = word.replace_bits_if(0, seen.epoch);
        if (epoch.has_value()) CHECK(*epoch == seen.epoch + 1);
    }
    raiser.join();
    word.raise_bits(engine::kHostKill);
    CHECK(word.load().bits == engine::kHostKill);
}

TEST_CASE("epoch word: processes that raise at once lose no bit and no epoch") {
    const Directory directory;
    constexpr std::size_t kProcesses = 3;
    constexpr std::uint64_t kRounds = 1'000;
    std::array<pid_t, kProcesses> children{};
    for (std::size_t child = 0; child < kProcesses; ++child) {
        children[child] = ::fork();
        REQUIRE(children[child] >= 0);
        if (children[child] == 0) {
            EpochWord word(directory.at("epoch"));
            for (std::uint64_t round = 0; round < kRounds; ++round) word.raise_bits(std::uint64_t{1} << child);
            ::_exit(0);
        }
    }
    for (const pid_t child : children) {
        int status = -1;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    const EpochState state = EpochWord(directory.at("epoch")).load();
    CHECK(state.bits == 0x7);
    CHECK(state.epoch == kProcesses * kRounds);
}
