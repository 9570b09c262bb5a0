// Real sockets on the loopback, and trees of processes and control groups.
#include "sources/availability.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "../allocations.hpp"
#include "sources/connection_probe.hpp"
#include "sources/text.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

using sources::http_status;
using sources::parse_target;
using sources::TargetKind;

// Listens on the loopback; what connects is served by the test.
class Listener {
public:
    Listener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd_, 8) != 0 ||
            ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
            throw std::runtime_error("no listening socket");
        }
        port_ = ntohs(address.sin_port);
    }
    ~Listener() { close(); }
    void close() {
        if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    }
    [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
    [[nodiscard]] int accept() const { return ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC); }

private:
    int fd_;
    int port_ = 0;
};

// Answers each connection with the same bytes, some time after its request.
class Server {
public:
    Server(std::string answer, std::chrono::milliseconds after = {}) : answer_(std::move(answer)), after_(after) {
        thread_ = std::thread([this] {
            for (int fd = listener.accept(); fd >= 0 && !stop_; fd = listener.accept()) {
                char bytes[4096];
                const ssize_t got = ::recv(fd, bytes, sizeof bytes, 0);
                if (got > 0) {
                    const std::lock_guard lock(mutex_);
                    request_.assign(bytes, static_cast<std::size_t>(got));
                }
                std::this_thread::sleep_for(after_);
                (void)!::send(fd, answer_.data(), answer_.size(), MSG_NOSIGNAL);
                ::close(fd);
            }
        });
    }
    ~Server() {
        stop_ = true;
        const int wake = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(listener.address().substr(10))));
        (void)::connect(wake, reinterpret_cast<sockaddr*>(&address), sizeof address);
        ::close(wake);
        thread_.join();
    }
    [[nodiscard]] std::string request() {
        const std::lock_guard lock(mutex_);
        return request_;
    }
    Listener listener;

private:
    std::mutex mutex_;
    std::string request_;
    std::string answer_;
    std::chrono::milliseconds after_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

struct Availability {
    explicit Availability(std::vector<std::string> targets, const sources::Roots& roots = {}, double timeout_s = 2) {
        auto opened = sources::availability_source.open(roots, system_io(), {{timeout_s}, std::move(targets)});
        REQUIRE(opened.ok());
        source = std::move(*opened);
    }
    sources::PollReport poll() {
        const auto report = source->poll(now += 10 * kSecond, memory);
        REQUIRE(report.ok());
        return *report;
    }
    double at(const std::string& what, const std::string& kind, const std::string& target,
              const std::string& window = "") const {
        const std::string attributes =
            "availability.kind=" + kind + ",availability.target=" + sources::attribute_value(target);
        return memory.at("availability." + what + "{" + attributes +
                         (window.empty() ? "" : ",availability.window=" + window) + "}");
    }
    // Polls until there is an answer.
    double up(const std::string& kind, const std::string& target) {
        for (int i = 0; i < 400; ++i) {
            memory.forget();
            (void)poll();
            if (!std::isnan(at("up", kind, target))) return at("up", kind, target);
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return std::numeric_limits<double>::quiet_NaN();
    }
    Nanos now = 100 * kSecond;
    Memory memory;
    std::unique_ptr<sources::Source> source;
};

// A tree with one process, pid 42.
struct OneProcess : Tree {
    explicit OneProcess(const std::string& comm) {
        write("proc/42/stat", "42 (" + comm + ") S 1 42 42 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0\n");
        write("proc/self/stat", "no process of its own");
    }
};

}  // namespace

TEST_CASE("availability: what the four kinds of targets mean") {
    const auto unit = parse_target("unit:ssh");
    CHECK(unit.name == "ssh.service");
    CHECK(unit.paths == std::vector<std::string>{"system.slice/ssh.service"});
    CHECK(parse_target("unit:serial-getty@ttyS0.service").paths.at(1) ==
          "system.slice/system-serial\\x2dgetty.slice/serial-getty@ttyS0.service");
    CHECK(parse_target("unit:a-b-c.slice").paths.at(0) == "a.slice/a-b.slice/a-b-c.slice");
    CHECK(parse_target("unit:user.slice/x.service").paths.at(0) == "user.slice/x.service");
    CHECK(parse_target("process:my daemon").name == "my daemon");
    CHECK(parse_target("port:[::1]:5432").address_size == sizeof(sockaddr_in6));
    CHECK(parse_target("port:localhost:22").address_size == sizeof(sockaddr_in));
    const auto page = parse_target("http://127.0.0.1/a?b=c");
    CHECK(page.kind == TargetKind::http);
    CHECK(page.request.starts_with("GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1\r\n"));
    CHECK(parse_target("http://[::1]:8080").request.starts_with("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n"));
    CHECK(parse_target("http://127.0.0.1?x").request.starts_with("GET /?x HTTP/1.1\r\n"));
}

TEST_CASE("availability: a target that means nothing is named, with what was expected") {
    const auto said = [](const std::string& target) -> std::string {
        try {
            (void)parse_target(target);
        } catch (const std::invalid_argument& error) {
            return error.what();
        }
        return "taken";
    };
    CHECK(said("https://127.0.0.1/") ==
          "sources.availability.targets: expected http://: https is not offered here; use port:ADDRESS:PORT to see "
          "whether it is listening, found 'https://127.0.0.1/'");
    for (const char* target :
         {"", "ssh", "unit:", "unit:x.timer", "unit:../../etc/x.service", "unit:/abs.service", "unit:a/../b.service",
          "unit:a b.service", "process:", "process:/bin/sh", "port:", "port:5432", "port:127.0.0.1", "port:::1:80",
          "port:127.0.0.1:0", "port:127.0.0.1:65536", "port:db.example:5432", "http://", "http://example.org/",
          "http://127.0.0.1:x/", "http://user@127.0.0.1/", "http://127.0.0.1/a b", "http://127.0.0.1/#x",
          "http://127.0.0.1/\r\nX: y", "tcp://127.0.0.1:1"}) {
        CAPTURE(target);
        CHECK(said(target).find("targets: expected") != std::string::npos);
    }
    const auto open = [](std::vector<std::string> targets) {
        return sources::availability_source.open({}, system_io(), {{}, std::move(targets)}).ok();
    };
    CHECK_THROWS_AS(open({"process:a", "process:a"}), std::invalid_argument);
    CHECK_THROWS_AS(open(std::vector<std::string>(65, "process:a")), std::invalid_argument);
    CHECK(!open({}));
    CHECK(open({"process:a"}));
}

TEST_CASE("availability: a status line is judged by its first bytes") {
    CHECK(http_status("HTTP/1.1 200 OK\r\n") == 200);
    CHECK(http_status("HTTP/1.0 404\r\n") == 404);
    CHECK(http_status("") == 0);
    CHECK(http_status("HTT") == 0);
    CHECK(http_status("HTTP/1.1 20") == 0);
    CHECK(http_status("HTTP/1.1\n") == -1);
    for (const char* text : {"SSH-2.0-OpenSSH", "HTTP/2 200 OK....", "HTTP/1.1 2x0 OK\r\n", "HTTP/1.1 099 No\r\n",
                             "HTTP/1.1 2000 OK\r\n", "HTTP/1.1_200 OK\r\n"}) {
        CHECK(http_status(text) == -1);
    }
}

TEST_CASE("availability: a port that accepts is up, with its response time; one that refuses is down") {
    Listener listener;
    const std::string target = listener.address();
    Availability seen({"port:" + target});
    CHECK(seen.up("port", target) == 1);
    CHECK(seen.at("response_time", "port", target) >= 0);
    CHECK(seen.at("response_time", "port", target) < 1);
    CHECK(seen.at("uptime_ratio", "port", target, "1h") == 1);
    const double since = seen.at("since", "port", target);
    CHECK(std::fabs(since - static_cast<double>(read_clock(CLOCK_REALTIME)) * 1e-9) < 60);
    listener.close();
    CHECK(seen.up("port", target) == 0);
    CHECK(seen.at("since", "port", target) >= since);
    CHECK(std::isnan(seen.at("response_time", "port", target)));
    CHECK(seen.at("uptime_ratio", "port", target, "1d") < 1);
}

TEST_CASE("availability: a page is up below 400 and down from it, asked in proper HTTP") {
    Server good("HTTP/1.1 204 No Content\r\n\r\n");
    Server moved("HTTP/1.1 302 Found\r\n\r\n");
    Server bad("HTTP/1.1 503 Service Unavailable\r\n\r\n");
    const auto url = [](const Server& server) { return "http://" + server.listener.address() + "/healthz"; };
    Availability seen({url(good), url(moved), url(bad)});
    CHECK(seen.up("http", url(good)) == 1);
    CHECK(seen.up("http", url(moved)) == 1);
    CHECK(seen.up("http", url(bad)) == 0);
    CHECK(good.request() == "GET /healthz HTTP/1.1\r\nHost: " + good.listener.address() +
                              "\r\nUser-Agent: argus\r\nAccept: */*\r\nConnection: close\r\n\r\n");
}

TEST_CASE("availability: garbage, an empty answer and a closed door are down") {
    Server garbage(std::string(100'000, 'x'));
    Server nothing("");
    for (const Server* server : {&garbage, &nothing}) {
        const std::string url = "http://" + server->listener.address() + "/";
        Availability seen({url});
        CHECK(seen.up("http", url) == 0);
    }
}

TEST_CASE("availability: a server that accepts and never answers is missing, then down; no poll waits for it") {
    Listener silent;
    const std::string url = "http://" + silent.address() + "/";
    Availability seen({url}, {}, 0.3);
    const Nanos start = read_clock(CLOCK_MONOTONIC);
    CHECK(seen.poll().emitted == 0);
    const Nanos took = read_clock(CLOCK_MONOTONIC) - start;
    CHECK(took < 500 * kMillisecond);  // its budget is 20 ms; the rest is a busy machine
    CHECK(seen.up("http", url) == 0);
    CHECK(read_clock(CLOCK_MONOTONIC) - start >= 300 * kMillisecond);
}

TEST_CASE("availability: an answer between two polls is timed by when it came, not by when it was seen") {
    Server slow("HTTP/1.1 200 OK\r\n\r\n", std::chrono::milliseconds(100));
    const std::string url = "http://" + slow.listener.address() + "/";
    Availability seen({url}, {}, 2);
    CHECK(seen.poll().emitted == 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(900));
    (void)seen.poll();
    CHECK(seen.at("up", "http", url) == 1);
    CHECK(seen.at("response_time", "http", url) >= 0.09);
    CHECK(seen.at("response_time", "http", url) < 0.8);
}

TEST_CASE("availability: a process is found by its name or its executable, and a zombie is none") {
    const OneProcess tree("postgres");
    Availability seen({"process:postgres", "process:post", "process:nginx"}, tree.roots());
    (void)seen.poll();
    CHECK(seen.at("up", "process", "postgres") == 1);
    CHECK(seen.at("up", "process", "post") == 0);
    CHECK(seen.at("up", "process", "nginx") == 0);
    tree.write("proc/43/stat", "43 (worker) S 1\n");
    fs::create_symlink("/usr/sbin/nginx (deleted)", tree.proc() + "/43/exe");
    tree.remove("proc/42");
    (void)seen.poll();
    CHECK(seen.at("up", "process", "postgres") == 0);
    CHECK(seen.at("up", "process", "nginx") == 1);
    tree.write("proc/43/stat", "43 (worker) Z 1\n");
    (void)seen.poll();
    CHECK(seen.at("up", "process", "nginx") == 0);
    CHECK(seen.at("uptime_ratio", "process", "nginx", "1h") == doctest::Approx(1.0 / 3));
}

TEST_CASE("availability: names that the kernel cuts, and hostile ones") {
    const OneProcess tree("a) R 1 (b");
    Availability hostile({"process:a) R 1 (b"}, tree.roots());
    (void)hostile.poll();
    CHECK(hostile.at("up", "process", "a) R 1 (b") == 1);
    const OneProcess cut("systemd-journal");
    Availability seen({"process:systemd-journald", "process:systemd-journal-else"}, cut.roots());
    (void)seen.poll();
    CHECK(seen.at("up", "process", "systemd-journald") == 1);  // all that may be seen fits
    fs::create_symlink("/usr/lib/systemd/systemd-journald", cut.proc() + "/42/exe");
    (void)seen.poll();
    CHECK(seen.at("up", "process", "systemd-journald") == 1);
    CHECK(seen.at("up", "process", "systemd-journal-else") == 0);
}

TEST_CASE("availability: a unit is up while processes live in its control group") {
    Tree tree;
    tree.write("proc/stat", "");
    const std::string folder = "sys/fs/cgroup/system.slice";
    tree.write(folder + "/cgroup.procs", "");
    tree.write(folder + "/ssh.service/cgroup.events", "populated 1\nfrozen 0\n");
    tree.write(folder + "/old.service/cgroup.procs", "17\n");
    tree.write(folder + "/idle.service/cgroup.events", "populated 0\nfrozen 0\n");
    Availability seen({"unit:ssh", "unit:old.service", "unit:idle.service", "unit:gone.service"}, tree.roots());
    CHECK(seen.poll().emitted == 16);
    CHECK(seen.at("up", "unit", "ssh.service") == 1);
    CHECK(seen.at("up", "unit", "old.service") == 1);
    CHECK(seen.at("up", "unit", "idle.service") == 0);
    CHECK(seen.at("up", "unit", "gone.service") == 0);
    tree.remove(folder + "/ssh.service");
    (void)seen.poll();
    CHECK(seen.at("up", "unit", "ssh.service") == 0);
    tree.write(folder + "/ssh.service/cgroup.events", "populated 1\nfrozen 0\n");  // restarted: another folder
    (void)seen.poll();
    CHECK(seen.at("up", "unit", "ssh.service") == 1);
}

TEST_CASE("availability: without control groups a unit is missing, not down; without /proc a process is") {
    Tree tree;
    tree.write("sys/x", "");
    Availability unit({"unit:ssh"}, tree.roots());
    CHECK(unit.poll().emitted == 0);
    Availability process({"process:ssh"}, tree.roots());
    const auto report = process.source->poll(kSecond, process.memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::unavailable);
}

TEST_CASE("availability: sockets are of this machine: with other roots they are not asked") {
    const OneProcess tree("a");
    Listener listener;
    const auto alone =
        sources::availability_source.open(tree.roots(), system_io(), {{}, {"port:" + listener.address()}});
    REQUIRE(!alone.ok());
    CHECK(alone.error().code == Errc::unavailable);
    Availability mixed({"process:a", "port:" + listener.address()}, tree.roots());
    CHECK(mixed.poll().emitted == 4);
}

TEST_CASE("availability: a steady poll allocates nothing and leaves no descriptor open") {
    Listener listener;
    Availability seen({"process:argus_tests", "port:" + listener.address(), "unit:ssh.service"});
    const auto descriptors = [] {
        return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
    };
    for (int i = 0; i < 3; ++i) {
        (void)seen.up("port", listener.address());
        ::close(listener.accept());
    }
    const auto open = descriptors();
    const std::uint64_t before = allocations();
    const auto report = seen.source->poll(seen.now + kSecond, seen.memory);
    CHECK(allocations() == before);
    CHECK(report.ok());
    for (int i = 0; i < 20; ++i) {
        (void)seen.up("port", listener.address());
        ::close(listener.accept());
    }
    CHECK(descriptors() <= open);
}

TEST_CASE("availability: the share of the last hour forgets what is older") {
    sources::UptimeShare<60, 60 * kSecond> share;
    CHECK(std::isnan(share.share(0)));
    for (int minute = 0; minute < 60; ++minute) share.see(minute * 60 * kSecond, minute % 2 == 0);
    CHECK(share.share(59 * 60 * kSecond) == 0.5);
    for (int minute = 60; minute < 120; ++minute) share.see(minute * 60 * kSecond, true);
    CHECK(share.share(119 * 60 * kSecond) == 1);
    CHECK(std::isnan(share.share(500 * 60 * kSecond)));
}

}  // namespace argus::test
