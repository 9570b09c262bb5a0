#include "sources/netlink.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "sources/kernel_file.hpp"

namespace argus::sources {
namespace {

constexpr int kInterruptions = 16;  // EINTR in a row, or datagrams of other senders, before a call gives up

// Length of a message or attribute rounded up to its alignment, but never beyond what there is: the last one may end
// without its padding.
std::size_t aligned(std::size_t length, std::size_t available) noexcept {
    return std::min((length + 3) / 4 * 4, available);
}

int system_open(int protocol, std::uint32_t groups) {
    const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd < 0) return -errno;
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
    const int failure = -errno;
    ::close(fd);
    return failure;
}

ssize_t system_send(int fd, const void* data, std::size_t size) {
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    const ssize_t sent =
        ::sendto(fd, data, size, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
    return sent < 0 ? -errno : sent;
}

ssize_t system_receive(int fd, void* buffer, std::size_t size, NetlinkOrigin& origin) {
    sockaddr_nl sender{};
    iovec part{buffer, size};
    msghdr message{};
    message.msg_name = &sender;
    message.msg_namelen = sizeof sender;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t got = ::recvmsg(fd, &message, MSG_DONTWAIT);
    if (got < 0) return -errno;
    origin.kernel = message.msg_namelen == sizeof sender && sender.nl_family == AF_NETLINK && sender.nl_pid == 0;
    origin.cut = (message.msg_flags & MSG_TRUNC) != 0;
    return got;
}

int system_wait(int fd, int timeout_ms) {
    pollfd wanted{fd, POLLIN, 0};
    const int ready = ::poll(&wanted, 1, timeout_ms);
    return ready < 0 ? -errno : ready;
}

int system_close(int fd) { return ::close(fd) < 0 ? -errno : 0; }

constexpr NetlinkIo kSystemNetlink{system_open, system_send, system_receive, system_wait, system_close};

}  // namespace

const NetlinkIo& system_netlink() noexcept { return kSystemNetlink; }

Errc netlink_errc(int positive_errno) noexcept {
    switch (positive_errno) {
        case EPROTONOSUPPORT: case EAFNOSUPPORT: case ESOCKTNOSUPPORT: return Errc::unavailable;
        case EMSGSIZE: return Errc::too_large;
        case ENOBUFS: case ETIMEDOUT: return Errc::limit;
        default: return errc_of(positive_errno);
    }
}

bool NetlinkWalk::next(NetlinkMessage& out) noexcept {
    nlmsghdr header;
    if (!load(rest_, header)) return false;
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > rest_.size()) return false;
    out.type = header.nlmsg_type;
    out.flags = header.nlmsg_flags;
    out.sequence = header.nlmsg_seq;
    out.payload = rest_.subspan(sizeof header, header.nlmsg_len - sizeof header);
    rest_ = rest_.subspan(aligned(header.nlmsg_len, rest_.size()));
    return true;
}

bool AttributeWalk::next(NetlinkAttribute& out) noexcept {
    nlattr header;
    if (!load(rest_, header)) return false;
    if (header.nla_len < sizeof header || header.nla_len > rest_.size()) return false;
    out.type = header.nla_type & NLA_TYPE_MASK;
    out.payload = rest_.subspan(sizeof header, header.nla_len - sizeof header);
    rest_ = rest_.subspan(aligned(header.nla_len, rest_.size()));
    return true;
}

NetlinkSocket::NetlinkSocket(const NetlinkIo& io, int protocol, const char* what, Nanos time_limit,
                             std::uint32_t groups)
    : io_(&io),
      protocol_(protocol),
      what_(what),
      time_limit_(time_limit),
      groups_(groups),
      buffer_(std::make_unique_for_overwrite<std::byte[]>(kBufferBytes)) {}

NetlinkSocket::~NetlinkSocket() { close(); }

void NetlinkSocket::close() noexcept {
    if (fd_ >= 0) io_->close(fd_);
    fd_ = -1;
}

Error NetlinkSocket::fail(int negative_errno) noexcept {
    close();  // what is still on its way must not answer the next question
    return {netlink_errc(-negative_errno), -negative_errno, what_};
}

Result<bool> NetlinkSocket::open() noexcept {
    if (fd_ >= 0) return true;
    const int fd = io_->open(protocol_, groups_);
    if (fd < 0) return fail(fd);
    fd_ = fd;
    return true;
}

int NetlinkSocket::send(const void* request, std::size_t size) noexcept {
    ssize_t sent = -EINTR;
    for (int i = 0; i < kInterruptions && sent == -EINTR; ++i) sent = io_->send(fd_, request, size);
    if (sent < 0) return static_cast<int>(sent);
    return static_cast<std::size_t>(sent) == size ? 0 : -EIO;
}

int NetlinkSocket::receive(Nanos deadline, Bytes& datagram) noexcept {
    for (int tries = 0; tries < kInterruptions;) {
        NetlinkOrigin origin;
        const ssize_t got = io_->receive(fd_, buffer_.get(), kBufferBytes, origin);
        if (got >= 0) {
            if (origin.kernel && origin.cut) return -EMSGSIZE;
            datagram = Bytes(buffer_.get(), std::min(static_cast<std::size_t>(got), kBufferBytes));
            if (origin.kernel) return 0;
            ++tries;
        } else if (got == -EINTR) {
            ++tries;
        } else if (got == -EAGAIN && deadline > 0) {
            const Nanos left = deadline - read_clock(CLOCK_MONOTONIC);
            if (left <= 0) return -ETIMEDOUT;
            const int ready = io_->wait(fd_, static_cast<int>((left + kMillisecond - 1) / kMillisecond));
            if (ready == 0) return -ETIMEDOUT;
            if (ready < 0 && ready != -EINTR) return ready;
            ++tries;
        } else {
            return static_cast<int>(got);
        }
    }
    return -EINTR;
}

NetlinkSocket::Step NetlinkSocket::read_answer(Bytes datagram, bool dump, Visitor visitor, NetlinkReport& report,
                                               Error& error) {
    NetlinkWalk walk(datagram);
    NetlinkMessage message;
    while (walk.next(message)) {
        if (message.sequence != sequence_ || message.type == NLMSG_NOOP) continue;
        if ((message.flags & NLM_F_DUMP_INTR) != 0) report.interrupted = true;
        if (message.type == NLMSG_OVERRUN) {
            error = fail(-ENOBUFS);
            return Step::failed;
        }
        if (message.type == NLMSG_ERROR || message.type == NLMSG_DONE) {
            int status = 0;  // 0 or -errno; a dump that ended well may say nothing
            const bool told = load(message.payload, status);
            if (status < 0) {
                error = {netlink_errc(-status), -status, what_};
                return Step::failed;
            }
            if (message.type == NLMSG_DONE || (told && !dump)) return Step::finished;
            ++report.malformed;
            continue;
        }
        ++report.messages;
        if (!visitor.call(visitor.context, message)) {
            close();
            error = {Errc::limit, 0, what_};
            return Step::failed;
        }
    }
    if (!walk.done()) ++report.malformed;
    return Step::more;
}

Result<NetlinkReport> NetlinkSocket::exchange(const void* request, std::size_t size, bool dump, Visitor visitor) {
    if (const auto opened = open(); !opened) return opened.error();
    if (const int status = send(request, size); status < 0) return fail(status);
    const Nanos deadline = read_clock(CLOCK_MONOTONIC) + time_limit_;
    NetlinkReport report;
    Error error;
    while (true) {
        Bytes datagram;
        if (const int status = receive(deadline, datagram); status < 0) return fail(status);
        const Step step = read_answer(datagram, dump, visitor, report, error);
        if (step == Step::finished) return report;
        if (step == Step::failed) return error;
        if (read_clock(CLOCK_MONOTONIC) > deadline) return fail(-ETIMEDOUT);
    }
}

Result<NetlinkReport> NetlinkSocket::take_notices(Visitor visitor) {
    if (const auto opened = open(); !opened) return opened.error();
    NetlinkReport report;
    for (std::uint32_t taken = 0; taken < kMaxNotices; ++taken) {
        Bytes datagram;
        const int status = receive(0, datagram);
        if (status == -EAGAIN || status == -EINTR) break;
        if (status == -ENOBUFS) {  // the kernel dropped notices and says so once
            report.interrupted = true;
            continue;
        }
        if (status < 0) return fail(status);
        NetlinkWalk walk(datagram);
        NetlinkMessage message;
        while (walk.next(message)) {
            ++report.messages;
            if (!visitor.call(visitor.context, message)) return report;
        }
        if (!walk.done()) ++report.malformed;
    }
    return report;
}

}  // namespace argus::sources
