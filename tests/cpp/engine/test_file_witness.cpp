#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "base/sha256.hpp"
#include "engine/file_witness.hpp"

namespace {

namespace fs = std::filesystem;
using namespace argus;
using auditors::Blind;
using auditors::FileAnswer;
using auditors::FileQuestion;
using engine::FileWitness;

constexpr std::uint64_t kSession = 77;

struct Folder {
    Folder() {
        char name[] = "/tmp/argus-witness-XXXXXX";
        path = ::mkdtemp(name);
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    std::string write(const std::string& name, const std::string& text) const {
        std::ofstream(path / name) << text;
        return path / name;
    }
    fs::path path;
};

FileQuestion about(const std::string& path, std::int64_t bytes = kAbsent, const std::string* text = nullptr) {
    FileQuestion q;
    q.claim = 5;
    q.turn = 9;
    q.session = kSession;
    q.bytes = bytes;
    q.path_bytes = static_cast<std::uint16_t>(path.size());
    std::copy(path.begin(), path.end(), q.path.begin());
    if (text != nullptr) {
        Sha256 sha;
        sha.update(std::as_bytes(std::span(*text)));
        q.hashed = true;
        q.digest = sha.finish();
    }
    return q;
}

// This process stands for the agent's.
struct Here {
    explicit Here(bool supervisor = false) { witness.set_processes({{kSession, ::getpid(), supervisor}}); }
    FileAnswer ask_and_wait(const FileQuestion& question) {
        REQUIRE(witness.ask(question));
        FileAnswer answer;
        for (int i = 0; i < 5000 && !witness.take(answer); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        REQUIRE(answer.turn == question.turn);
        CHECK(answer.claim == question.claim);
        return answer;
    }
    FileAnswer ask_and_wait(const std::string& path) { return ask_and_wait(about(path)); }
    FileWitness witness;
};

Nanos ctime_of(const std::string& path) {
    struct stat s{};
    REQUIRE(::stat(path.c_str(), &s) == 0);
    return s.st_ctim.tv_sec * kSecond + s.st_ctim.tv_nsec;
}

}  // namespace

TEST_CASE("file witness: what is there: size, change, content") {
    const Folder folder;
    Here here;
    const std::string text = "what was written";
    const std::string path = folder.write("f", text);
    FileAnswer found = here.ask_and_wait(about(path, 16));
    CHECK(found.blind == Blind::none);
    CHECK(found.exists);
    CHECK(found.bytes == 16);
    CHECK(found.changed == ctime_of(path));
    CHECK_FALSE(found.read);  // no digest is claimed: nothing is read
    found = here.ask_and_wait(about(path, 16, &text));
    CHECK(found.read);
    CHECK(found.same);
    const std::string other = "what was claimed";
    found = here.ask_and_wait(about(path, 16, &other));
    CHECK(found.read);
    CHECK_FALSE(found.same);
    CHECK_FALSE(found.being_written);
}

TEST_CASE("file witness: what is not there: since when, the nearest folder tells") {
    const Folder folder;
    Here here;
    fs::create_directory(folder.path / "sub");
    FileAnswer found = here.ask_and_wait((folder.path / "sub/f").string());
    CHECK(found.blind == Blind::none);
    CHECK_FALSE(found.exists);
    CHECK(found.changed == ctime_of(folder.path / "sub"));
    found = here.ask_and_wait((folder.path / "none/of/these/f").string());
    CHECK_FALSE(found.exists);
    CHECK(found.changed == ctime_of(folder.path));
}

TEST_CASE("file witness: what is no regular file is never opened") {
    const Folder folder;
    Here here;
    const std::string fifo = folder.path / "fifo";
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    const std::string text = "x";
    CHECK(here.ask_and_wait(about(fifo, 1, &text)).blind == Blind::special);  // and does not wait for a writer
    CHECK(here.ask_and_wait(about(folder.path, 1, &text)).blind == Blind::special);
    const std::string path = folder.path / "socket";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path.c_str());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    CHECK(here.ask_and_wait(about(path, 1, &text)).blind == Blind::special);
    ::close(fd);
    for (const char* outside : {"/dev/null", "/dev/zero", "/proc/self/mem", "/proc/kmsg", "/sys/power/state"}) {
        CAPTURE(outside);
        const Blind blind = here.ask_and_wait(about(outside, 1, &text)).blind;
        CHECK((blind == Blind::mount || blind == Blind::special));
    }
}

TEST_CASE("file witness: links") {
    const Folder folder;
    Here here;
    const std::string text = "t";
    const std::string target = folder.write("target", text);
    fs::create_symlink(target, folder.path / "link");
    fs::create_symlink("b", folder.path / "a");
    fs::create_symlink("a", folder.path / "b");
    fs::create_directory(folder.path / "real");
    folder.write("real/f", text);
    fs::create_symlink("real", folder.path / "folder");
    fs::create_symlink("/proc/self", folder.path / "magic");
    CHECK(here.ask_and_wait((folder.path / "link").string()).blind == Blind::link);
    CHECK(here.ask_and_wait((folder.path / "a").string()).blind == Blind::link);
    CHECK(here.ask_and_wait((folder.path / "a/b/c").string()).blind == Blind::link);  // a loop on the way
    CHECK(here.ask_and_wait((folder.path / "folder/f").string()).exists);             // a plain one on the way
    CHECK(here.ask_and_wait((folder.path / "magic/environ").string()).blind == Blind::mount);
}

TEST_CASE("file witness: paths that name nothing") {
    Here here;
    for (const std::string& path : {std::string("relative"), std::string("/tmp/../etc/passwd"), std::string("/tmp/./x"),
                                   std::string("/tmp/a\0b", 8), std::string("")}) {
        CHECK(here.ask_and_wait(path).blind == Blind::path);
    }
    CHECK(here.ask_and_wait("/tmp/" + std::string(300, 'x')).blind == Blind::path);
    const std::string deep = [] {
        std::string text = "/tmp/argus-none";
        for (int i = 0; i < 200; ++i) text += "/d";
        return text;
    }();
    const FileAnswer found = here.ask_and_wait(deep);
    CHECK_FALSE(found.exists);
    CHECK(found.blind != Blind::none);  // too deep to look up
}

TEST_CASE("file witness: a sparse file beyond what is read is told as large, at once") {
    const Folder folder;
    Here here;
    const std::string text = "x";
    const std::string path = folder.write("sparse", text);
    REQUIRE(::truncate(path.c_str(), off_t{1} << 40) == 0);
    const auto start = std::chrono::steady_clock::now();
    const FileAnswer found = here.ask_and_wait(about(path, 1, &text));
    CHECK(found.blind == Blind::large);
    CHECK(found.exists);
    CHECK(found.bytes == std::int64_t{1} << 40);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("file witness: a file that the session holds open for writing is told so") {
    const Folder folder;
    Here here;
    const std::string path = folder.write("log", "12");
    const int reading = ::open(path.c_str(), O_RDONLY);
    CHECK_FALSE(here.ask_and_wait(about(path, 100)).being_written);
    const int writing = ::open(path.c_str(), O_WRONLY | O_APPEND);
    CHECK(here.ask_and_wait(about(path, 100)).being_written);
    ::close(writing);
    CHECK_FALSE(here.ask_and_wait(about(path, 100)).being_written);
    ::close(reading);
}

TEST_CASE("file witness: only files of sessions that see what Argus sees") {
    const Folder folder;
    const std::string path = folder.write("f", "x");
    FileQuestion other = about(path);
    other.session = 78;
    {
        Here here;
        CHECK(here.ask_and_wait(other).blind == Blind::no_process);
        CHECK(here.ask_and_wait(path).blind == Blind::none);
        here.witness.set_processes({{1, ::getpid(), false}});  // its processes are gone: what was seen of them stays
        CHECK(here.ask_and_wait(path).blind == Blind::none);
    }
    {
        Here here(true);  // a supervisor alone says nothing of what its command sees
        CHECK(here.ask_and_wait(path).blind == Blind::no_process);
    }
    // A /proc whose process lives in another mount namespace, or in a folder as its root.
    for (const bool chrooted : {false, true}) {
        fs::create_directories(folder.path / "proc/1/ns");
        fs::remove(folder.path / "proc/1/ns/mnt");
        fs::remove(folder.path / "proc/1/root");
        fs::create_symlink(chrooted ? fs::read_symlink("/proc/self/ns/mnt") : fs::path("mnt:[1]"),
                           folder.path / "proc/1/ns/mnt");
        fs::create_symlink(chrooted ? "/srv/jail" : "/", folder.path / "proc/1/root");
        FileWitness witness(folder.path / "proc");
        witness.set_processes({{kSession, 1, false}});
        REQUIRE(witness.ask(about(path)));
        FileAnswer answer;
        while (!witness.take(answer)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        CHECK(answer.blind == Blind::foreign);
    }
}

TEST_CASE("file witness: a full queue refuses, and everything taken is answered once") {
    const Folder folder;
    Here here;
    const std::string path = folder.write("f", "x");
    std::size_t taken = 0;
    for (int i = 0; i < 2000; ++i) taken += here.witness.ask(about(path)) ? 1 : 0;
    CHECK(taken >= FileWitness::kQuestions);
    CHECK(taken < 2000);
    std::size_t answered = 0;
    FileAnswer answer;
    for (int i = 0; i < 20'000 && answered < taken; ++i) {
        if (here.witness.take(answer)) ++answered;
        else std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(answered == taken);
    CHECK_FALSE(here.witness.take(answer));
}

TEST_CASE("file witness: the end does not wait for questions") {
    const Folder folder;
    const std::string path = folder.write("f", "x");
    const auto start = std::chrono::steady_clock::now();
    {
        Here here;
        for (int i = 0; i < 200; ++i) (void)here.witness.ask(about(path));
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
}
