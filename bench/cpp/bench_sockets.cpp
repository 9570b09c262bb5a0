// host_sockets_per_socket: CPU time of the sockets source for each of 1,000 TCP sockets, walk over the kernel's tables
// included; the bar is 1 us. host_sockets_against_text: the same poll against reading /proc/net/tcp and tcp6 through
// kept descriptors, without parsing them; the bar is a fifth. host_sockets_tcp_info: with round-trip times.
// CPU time, not wall time: a walk of the kernel is long enough to be interrupted. Readings alternate, so that
// neighbours slow both.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "base/clock.hpp"
#include "report.hpp"
#include "sources/sockets.hpp"

namespace {

using namespace argus;

constexpr int kPairs = 500;
constexpr int kRounds = 25;

class Ignore final : public sources::Emit {
public:
    [[nodiscard]] Slot open_series(SeriesInfo) override { return {}; }
    void close_series(Slot) override {}
    void value(Slot, double) override {}
};

class Connections {
public:
    Connections() {
        const int listener = keep(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        auto* generic = reinterpret_cast<sockaddr*>(&address);
        if (::bind(listener, generic, size) != 0 || ::getsockname(listener, generic, &size) != 0) return;
        if (::listen(listener, 16) != 0) return;
        for (int i = 0; i < kPairs; ++i) {
            const int client = keep(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            if (::connect(client, generic, size) != 0) return;
            if (keep(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) < 0) return;
            ++pairs_;
        }
    }
    ~Connections() {
        for (const int fd : fds_) ::close(fd);
    }
    Connections(const Connections&) = delete;
    Connections& operator=(const Connections&) = delete;
    [[nodiscard]] bool whole() const { return pairs_ == kPairs; }

private:
    int keep(int fd) {
        if (fd >= 0) fds_.push_back(fd);
        return fd;
    }
    std::vector<int> fds_;
    int pairs_ = 0;
};

class KeptFile {
public:
    explicit KeptFile(const char* path) : fd_(::open(path, O_RDONLY | O_CLOEXEC)) {}
    ~KeptFile() {
        if (fd_ >= 0) ::close(fd_);
    }
    KeptFile(const KeptFile&) = delete;
    KeptFile& operator=(const KeptFile&) = delete;
    void read() const {
        static std::vector<char> buffer(1 << 20);
        if (fd_ < 0 || ::lseek(fd_, 0, SEEK_SET) != 0) return;
        while (::read(fd_, buffer.data(), buffer.size()) > 0) {}
    }

private:
    int fd_;
};

template <class F>
double cpu_us(F&& work) {
    const Nanos start = read_clock(CLOCK_THREAD_CPUTIME_ID);
    work();
    return static_cast<double>(read_clock(CLOCK_THREAD_CPUTIME_ID) - start) * 1e-3;
}

double best(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

std::unique_ptr<sources::Source> opened(double tcp_info) {
    auto source = sources::make_sockets({}, system_io(), {{tcp_info, 1e6}, {}}, sources::system_netlink());
    return source ? std::move(*source) : nullptr;
}

}  // namespace

int main() {
    constexpr double kSockets = 2 * kPairs + 1;
    const Connections connections;
    const auto plain = opened(0);
    const auto paths = opened(1);
    Ignore ignore;
    if (!connections.whole() || plain == nullptr || !plain->poll(0, ignore) || !paths->poll(0, ignore)) {
        std::puts("no 1,000 sockets or no sock_diag here: nothing to time");
        return 0;
    }
    const KeptFile tcp("/proc/net/tcp");
    const KeptFile tcp6("/proc/net/tcp6");
    std::vector<double> ours, with_info, text;
    for (int round = 0; round < kRounds; ++round) {
        ours.push_back(cpu_us([&] { (void)plain->poll(0, ignore); }));
        text.push_back(cpu_us([&] {
            tcp.read();
            tcp6.read();
        }));
        with_info.push_back(cpu_us([&] { (void)paths->poll(0, ignore); }));
    }
    const double bare = best(text);
    const double poll = best(ours);
    const double info = best(with_info);
    bool good = bench::report("host_sockets_per_socket", poll / kSockets, "us", "1 us a socket", poll / kSockets, 1.0,
                              poll <= kSockets);
    good = bench::report("host_sockets_against_text", poll, "us", "/proc/net/tcp and tcp6, kept descriptors",
                         poll / bare, bare / 5, poll <= bare / 5) && good;
    good = bench::report("host_sockets_tcp_info", info / kSockets, "us", "without tcp_info", info / poll,
                         1.5 * poll / kSockets, info <= 1.5 * poll) && good;
    return good ? 0 : 1;
}
