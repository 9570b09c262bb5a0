// source_poll/availability: one look at a unit, a process that lives and a port that answers, against reading the
// process's stat alone; and source_poll/availability_missing: a look for a process that is not there, which reads the
// stat and the link of each, against opening, reading and closing every stat.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <fcntl.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "report.hpp"
#include "sources/source.hpp"

namespace argus::sources {
extern const SourceDescriptor availability_source;
}

namespace {

using namespace argus;

class Count final : public sources::Emit {
public:
    [[nodiscard]] Slot open_series(SeriesInfo) override { return {opened++, 1}; }
    void close_series(Slot) override {}
    void value(Slot, double) override {}
    std::uint32_t opened = 0;
};

void read_whole(const std::string& path) {
    char buffer[4096];
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && ::read(fd, buffer, sizeof buffer) > 0) {
    }
    if (fd >= 0) ::close(fd);
}

std::unique_ptr<sources::Source> looking_at(std::vector<std::string> targets) {
    auto source = sources::availability_source.open({}, system_io(), {{}, std::move(targets)});
    return source ? std::move(*source) : nullptr;
}

int listen_somewhere(std::string& target) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(fd, generic, size) != 0 || ::listen(fd, 64) != 0 || ::getsockname(fd, generic, &size) != 0) return -1;
    target = "port:127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    return fd;
}

bool bench_found() {
    constexpr double kBarUs = 500;
    std::string port;
    const int listening = listen_somewhere(port);
    const auto source = looking_at({"unit:ssh.service", "process:bench_availability", port});
    if (listening < 0 || source == nullptr) return bench::report("source_poll/availability", 0, "us", "", 0, 0, false);
    Count count;
    const auto look = [&] {
        const auto report = source->poll(0, count);
        ::close(::accept(listening, nullptr, nullptr));
        return report.ok() && report.value().emitted >= 9;
    };
    const bool seen = look();
    const double ours = bench::best_of(100, look);
    const double bare = bench::best_of(100, [] { read_whole("/proc/self/stat"); });
    ::close(listening);
    return bench::report("source_poll/availability", ours * 1e6, "us", "open, read, close of one stat", ours / bare,
                         kBarUs, seen && ours * 1e6 <= kBarUs);
}

bool bench_missing() {
    constexpr double kBar = 2;
    const auto source = looking_at({"process:none is called that"});
    if (source == nullptr) return bench::report("source_poll/availability_missing", 0, "us", "", 0, 0, false);
    Count count;
    const double ours = bench::best_of(20, [&] { (void)source->poll(0, count); });
    const double bare = bench::best_of(20, [] {
        for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
            const std::string name = entry.path().filename();
            if (std::atoi(name.c_str()) > 0) read_whole("/proc/" + name + "/stat");
        }
    });
    return bench::report("source_poll/availability_missing", ours * 1e6, "us", "every stat", ours / bare,
                         bare * kBar * 1e6, ours <= bare * kBar && count.opened > 0);
}

}  // namespace

int main() {
    const bool found = bench_found();
    return bench_missing() && found ? 0 : 1;
}
