#include "sources/pressure_trigger.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cmath>

namespace argus::sources {
namespace {

constexpr long kWindowUs = 2'000'000;

}  // namespace

std::string PressureTriggers::request(double share) {
    const long stall_us = std::lround(share * static_cast<double>(kWindowUs));
    std::string text = "some " + std::to_string(stall_us) + " " + std::to_string(kWindowUs);
    text.push_back('\0');  // the kernel cuts the last byte off
    return text;
}

PressureTriggers::PressureTriggers(const Roots& roots, double share) {
    if (!roots.live()) return;
    const std::string text = request(share);
    for (const char* resource : {"cpu", "memory", "io"}) {
        const int fd = ::open((roots.proc + "/pressure/" + resource).c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) continue;
        if (::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
            fds_.push_back(fd);
        } else {
            ::close(fd);
        }
    }
}

PressureTriggers::~PressureTriggers() {
    for (const int fd : fds_) ::close(fd);
}

}  // namespace argus::sources
