// One question to a TCP address over a socket that never blocks: does it accept, and, when there is something to send,
// does it answer with a status below 400. A state machine: start() asks, advance() looks, and a look may come much later
// than the answer, for the kernel keeps the times.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "base/clock.hpp"

namespace argus::sources {

class ConnectionProbe {
public:
    enum class Outcome : std::uint8_t { none, up, down, unknown };  // unknown: this machine could not even ask

    ConnectionProbe(const sockaddr_storage& address, socklen_t size, std::string request)
        : address_(address), size_(size), request_(std::move(request)) {}
    ~ConnectionProbe() { close(); }
    ConnectionProbe(ConnectionProbe&& other) noexcept;
    ConnectionProbe& operator=(ConnectionProbe&&) = delete;

    [[nodiscard]] bool asking() const noexcept { return fd_ >= 0; }
    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] short events() const noexcept;  // for poll()

    // Times are CLOCK_MONOTONIC. `prompt`: the look follows the answer closely, so that it may be timed by the clock.
    [[nodiscard]] Outcome start(Nanos now) noexcept;
    [[nodiscard]] Outcome advance(Nanos now, Nanos timeout, bool prompt) noexcept;

    // Seconds from start() to the answer of the last one that was up; NaN = not known.
    [[nodiscard]] double response_s() const noexcept { return response_s_; }

private:
    enum class Step : std::uint8_t { connecting, sent };

    [[nodiscard]] Outcome connected(Nanos now, bool prompt) noexcept;
    [[nodiscard]] Outcome read_answer(Nanos now, Nanos timeout, bool prompt) noexcept;
    [[nodiscard]] Outcome finish(Outcome outcome) noexcept;
    [[nodiscard]] bool is_itself() const noexcept;
    void close() noexcept;

    sockaddr_storage address_;
    socklen_t size_;
    std::string request_;
    int fd_ = -1;
    Step step_ = Step::connecting;
    Nanos started_ = 0;
    double response_s_ = std::numeric_limits<double>::quiet_NaN();
    std::array<char, 64> answer_{};
    std::size_t answered_ = 0;
};

}  // namespace argus::sources
