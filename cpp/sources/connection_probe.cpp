#include "sources/connection_probe.hpp"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "sources/availability.hpp"

namespace argus::sources {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kFirstError = 400;

double seconds(Nanos time) noexcept { return static_cast<double>(time) * 1e-9; }

// What says nothing of the other side: no descriptor, no memory, no local port.
bool is_ours(int error) noexcept {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EADDRNOTAVAIL ||
           error == EAFNOSUPPORT || error == EACCES || error == EPERM;
}

bool tcp_state(int fd, tcp_info& out) noexcept {
    socklen_t size = sizeof out;
    return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &out, &size) == 0;
}

}  // namespace

ConnectionProbe::ConnectionProbe(ConnectionProbe&& other) noexcept
    : address_(other.address_),
      size_(other.size_),
      request_(std::move(other.request_)),
      fd_(std::exchange(other.fd_, -1)),
      step_(other.step_),
      started_(other.started_),
      response_s_(other.response_s_),
      answer_(other.answer_),
      answered_(other.answered_) {}

short ConnectionProbe::events() const noexcept { return step_ == Step::connecting ? POLLOUT : POLLIN; }

void ConnectionProbe::close() noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

ConnectionProbe::Outcome ConnectionProbe::finish(Outcome outcome) noexcept {
    close();
    if (outcome != Outcome::up) response_s_ = kNaN;
    return outcome;
}

ConnectionProbe::Outcome ConnectionProbe::start(Nanos now) noexcept {
    close();
    started_ = now;
    step_ = Step::connecting;
    answered_ = 0;
    fd_ = ::socket(address_.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd_ < 0) return finish(Outcome::unknown);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address_), size_) == 0) return connected(now, true);
    if (errno == EINPROGRESS || errno == EINTR) return Outcome::none;
    return finish(is_ours(errno) ? Outcome::unknown : Outcome::down);
}

ConnectionProbe::Outcome ConnectionProbe::advance(Nanos now, Nanos timeout, bool prompt) noexcept {
    pollfd look{fd_, events(), 0};
    if (::poll(&look, 1, 0) > 0) {
        if (step_ == Step::sent) return read_answer(now, timeout, prompt);
        int error = 0;
        socklen_t size = sizeof error;
        if (::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
        if (error != 0) return finish(is_ours(error) ? Outcome::unknown : Outcome::down);
        return connected(now, prompt);
    }
    return now - started_ > timeout ? finish(Outcome::down) : Outcome::none;
}

// A port of the ephemeral range that nobody listens on can be reached from itself.
bool ConnectionProbe::is_itself() const noexcept {
    sockaddr_storage here{};
    socklen_t size = sizeof here;
    if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&here), &size) != 0) return false;
    return size == size_ && std::memcmp(&here, &address_, size) == 0;
}

ConnectionProbe::Outcome ConnectionProbe::connected(Nanos now, bool prompt) noexcept {
    if (is_itself()) return finish(Outcome::down);
    tcp_info info{};
    if (prompt) {
        response_s_ = seconds(now - started_);
    } else if (tcp_state(fd_, info) && info.tcpi_total_retrans == 0) {
        response_s_ = static_cast<double>(info.tcpi_rtt) * 1e-6;
    } else {
        response_s_ = kNaN;
    }
    if (request_.empty()) return finish(Outcome::up);
    const ssize_t sent = ::send(fd_, request_.data(), request_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != static_cast<ssize_t>(request_.size())) return finish(Outcome::down);
    step_ = Step::sent;
    if (!prompt) started_ = now - (response_s_ == response_s_ ? static_cast<Nanos>(response_s_ * 1e9) : 0);
    return Outcome::none;
}

ConnectionProbe::Outcome ConnectionProbe::read_answer(Nanos now, Nanos timeout, bool prompt) noexcept {
    const ssize_t got = ::recv(fd_, answer_.data() + answered_, answer_.size() - answered_, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Outcome::none;
    if (got <= 0) return finish(Outcome::down);
    answered_ += static_cast<std::size_t>(got);
    const int status = http_status(std::string_view(answer_.data(), answered_));
    if (status == 0) return now - started_ > timeout ? finish(Outcome::down) : Outcome::none;
    if (status < 0 || status >= kFirstError) return finish(Outcome::down);
    Nanos answer = now;
    tcp_info info{};
    if (!prompt && tcp_state(fd_, info)) answer -= Nanos{info.tcpi_last_data_recv} * kMillisecond;
    if (answer - started_ > timeout) return finish(Outcome::down);
    response_s_ = seconds(answer > started_ ? answer - started_ : 0);
    return finish(Outcome::up);
}

}  // namespace argus::sources
