// A netlink socket for questions with bounded answers: rtnetlink, sock_diag, generic netlink, and multicast groups.
// Source: man netlink(7), kernel Documentation/userspace-api/netlink/intro.rst.
// The walks over messages and attributes are pure and bounds-checked; the socket adds a fixed buffer, a limit on time,
// and what netlink does when it is pressed: EINTR, ENOBUFS, NLMSG_ERROR, NLM_F_DUMP_INTR, datagrams that were cut.
#pragma once

#include <linux/netlink.h>
#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace argus::sources {

using Bytes = std::span<const std::byte>;

struct NetlinkMessage {
    std::uint16_t type = 0;
    std::uint16_t flags = 0;
    std::uint32_t sequence = 0;
    Bytes payload;
};

// The messages of one datagram.
class NetlinkWalk {
public:
    explicit NetlinkWalk(Bytes datagram) noexcept : rest_(datagram) {}

    // False at the end, or where what follows is no whole message: then done() is false.
    [[nodiscard]] bool next(NetlinkMessage& out) noexcept;
    [[nodiscard]] bool done() const noexcept { return rest_.empty(); }

private:
    Bytes rest_;
};

struct NetlinkAttribute {
    std::uint16_t type = 0;  // without the flags for nesting and byte order
    Bytes payload;
};

// The attributes of a payload, or of a nested attribute. Walks as NetlinkWalk does.
class AttributeWalk {
public:
    explicit AttributeWalk(Bytes attributes) noexcept : rest_(attributes) {}

    [[nodiscard]] bool next(NetlinkAttribute& out) noexcept;
    [[nodiscard]] bool done() const noexcept { return rest_.empty(); }

private:
    Bytes rest_;
};

// A structure of the kernel from the first bytes of `from`; false = `from` is shorter. Newer kernels append fields.
template <class T>
[[nodiscard]] bool load(Bytes from, T& out) noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    if (from.size() < sizeof(T)) return false;
    std::memcpy(&out, from.data(), sizeof(T));
    return true;
}

// What follows a structure of `size` bytes, where netlink aligns to four.
[[nodiscard]] inline Bytes after(Bytes from, std::size_t size) noexcept {
    return from.subspan(std::min(from.size(), (size + 3) / 4 * 4));
}

// The system calls of a netlink socket, for tests to replace; each returns -errno on failure.
struct NetlinkOrigin {
    bool kernel = false;  // sent by the kernel, not by another process
    bool cut = false;     // longer than the buffer
};

struct NetlinkIo {
    int (*open)(int protocol, std::uint32_t groups);  // non-blocking, bound; `groups` is a mask of multicast groups
    ssize_t (*send)(int fd, const void* data, std::size_t size);
    ssize_t (*receive)(int fd, void* buffer, std::size_t size, NetlinkOrigin& origin);
    int (*wait)(int fd, int timeout_ms);  // 1 = readable, 0 = time is over
    int (*close)(int fd);
};

[[nodiscard]] const NetlinkIo& system_netlink() noexcept;

struct NetlinkReport {
    std::uint32_t messages = 0;   // handed to the caller
    std::uint32_t malformed = 0;  // datagrams that held something else than whole messages
    bool interrupted = false;     // what was listed changed meanwhile, or notices were lost: some may lack, some repeat
};

class NetlinkSocket {
public:
    // The kernel fills up to 32 KiB of a dump at once when the reader takes that much.
    static constexpr std::size_t kBufferBytes = 32 * 1024;
    static constexpr Nanos kTimeLimit = 200 * kMillisecond;  // of one ask(); a link of a dump takes 2 us
    static constexpr std::uint32_t kMaxNotices = 1024;  // datagrams that one drain() takes

    // `what` names the socket in errors: static text, "rtnetlink". `time_limit` bounds each ask(); the kernel answers
    // within send and receive, so a wait is rare.
    NetlinkSocket(const NetlinkIo& io, int protocol, const char* what, Nanos time_limit = kTimeLimit,
                  std::uint32_t groups = 0);
    ~NetlinkSocket();
    NetlinkSocket(const NetlinkSocket&) = delete;
    NetlinkSocket& operator=(const NetlinkSocket&) = delete;

    [[nodiscard]] Result<bool> open() noexcept;

    // Sends a request that begins with its nlmsghdr (length, flags and sequence are set here) and hands each message of
    // the answer to `on_message(const NetlinkMessage&) -> bool`; false ends it with Errc::limit. A dump when `flags`
    // holds NLM_F_DUMP, else one question that the kernel acknowledges. Nothing of a failed ask reaches a later one.
    template <class Request, class F>
    [[nodiscard]] Result<NetlinkReport> ask(Request& request, std::uint16_t flags, F&& on_message) {
        static_assert(std::is_trivially_copyable_v<Request> && sizeof(Request) >= sizeof(nlmsghdr));
        nlmsghdr header;
        std::memcpy(&header, &request, sizeof header);
        header.nlmsg_len = sizeof(Request);
        header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
        if (!is_dump(header.nlmsg_flags)) header.nlmsg_flags |= NLM_F_ACK;
        header.nlmsg_pid = 0;
        header.nlmsg_seq = ++sequence_;
        std::memcpy(static_cast<void*>(&request), &header, sizeof header);
        return exchange(&request, sizeof request, is_dump(header.nlmsg_flags), visitor(on_message));
    }

    // Hands over what the multicast groups have sent so far; never waits.
    template <class F>
    [[nodiscard]] Result<NetlinkReport> drain(F&& on_message) {
        return take_notices(visitor(on_message));
    }

private:
    struct Visitor {
        void* context;
        bool (*call)(void* context, const NetlinkMessage& message);
    };
    template <class F>
    static Visitor visitor(F& on_message) {
        using Target = std::remove_reference_t<F>;
        void* address = const_cast<void*>(static_cast<const void*>(&on_message));  // Target keeps its const
        return {address, [](void* context, const NetlinkMessage& message) -> bool {
                    return (*static_cast<Target*>(context))(message);
                }};
    }
    enum class Step : std::uint8_t { more, finished, failed };

    static bool is_dump(std::uint16_t flags) noexcept { return (flags & NLM_F_DUMP) == NLM_F_DUMP; }
    [[nodiscard]] Result<NetlinkReport> exchange(const void* request, std::size_t size, bool dump, Visitor visitor);
    [[nodiscard]] Result<NetlinkReport> take_notices(Visitor visitor);
    [[nodiscard]] int send(const void* request, std::size_t size) noexcept;          // 0 or -errno
    [[nodiscard]] int receive(Nanos deadline, Bytes& datagram) noexcept;             // 0 or -errno
    [[nodiscard]] Step read_answer(Bytes datagram, bool dump, Visitor visitor, NetlinkReport& report, Error& error);
    [[nodiscard]] Error fail(int negative_errno) noexcept;
    void close() noexcept;

    const NetlinkIo* io_;
    int protocol_;
    const char* what_;
    Nanos time_limit_;
    std::uint32_t groups_;
    int fd_ = -1;
    std::uint32_t sequence_ = 0;
    std::unique_ptr<std::byte[]> buffer_;
};

// What an errno means for a netlink family: absent ones answer in several ways.
[[nodiscard]] Errc netlink_errc(int positive_errno) noexcept;

}  // namespace argus::sources
