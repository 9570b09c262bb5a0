// A kernel made of a script: datagrams built by hand, and the failures of a netlink socket in the order they are told.
#pragma once

#include <linux/netlink.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "sources/netlink.hpp"

namespace argus::test {

using Raw = std::vector<std::byte>;

inline sources::Bytes bytes(const Raw& raw) { return {raw.data(), raw.size()}; }

inline void append(Raw& to, const void* data, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(data);
    for (std::size_t i = 0; i < size; ++i) to.push_back(begin[i]);
}
template <class T>
void append(Raw& to, const T& value) {
    append(to, &value, sizeof value);
}
inline void pad(Raw& to) { to.resize((to.size() + 3) / 4 * 4); }

inline void add_attribute(Raw& to, std::uint16_t type, const void* data, std::size_t size) {
    append(to, nlattr{static_cast<std::uint16_t>(sizeof(nlattr) + size), type});
    append(to, data, size);
    pad(to);
}

inline void add_message(Raw& to, std::uint16_t type, std::uint16_t flags, std::uint32_t sequence, const Raw& payload) {
    const auto length = static_cast<std::uint32_t>(sizeof(nlmsghdr) + payload.size());
    append(to, nlmsghdr{length, type, flags, sequence, 0});
    append(to, payload.data(), payload.size());
    pad(to);
}

inline Raw number_payload(int value) {
    Raw out;
    append(out, value);
    return out;
}

// What one receive gives: a datagram, or -errno.
struct Received {
    Raw datagram;
    int failure = 0;
    bool kernel = true;
    bool cut = false;
};

struct FakeKernel {
    // Called for each request; its answer is queued behind what waits already.
    std::function<std::vector<Received>(const nlmsghdr& request, sources::Bytes body)> answer;
    std::deque<Received> queue;
    std::vector<nlmsghdr> requests;
    std::deque<int> open_failures, send_failures;  // errno of the next calls; 0 = it works
    int opened = 0, closed = 0, waits = 0;
    std::uint32_t groups = 0;                      // of the newest socket
    std::deque<Received> notices;                  // of sockets with groups
    std::vector<std::uint32_t> groups_of;          // by descriptor
};
inline thread_local FakeKernel fake_kernel;

struct WithKernel {
    WithKernel() { fake_kernel = {}; }
    ~WithKernel() { fake_kernel = {}; }
};

inline int take_failure(std::deque<int>& failures) {
    if (failures.empty()) return 0;
    const int failure = failures.front();
    failures.pop_front();
    return failure;
}

inline const sources::NetlinkIo kFakeNetlink{
    [](int, std::uint32_t groups) {
        if (const int failure = take_failure(fake_kernel.open_failures); failure != 0) return -failure;
        ++fake_kernel.opened;
        fake_kernel.groups_of.push_back(groups);
        if (groups == 0) fake_kernel.queue.clear();
        return static_cast<int>(fake_kernel.groups_of.size() - 1);
    },
    [](int, const void* data, std::size_t size) -> ssize_t {
        if (const int failure = take_failure(fake_kernel.send_failures); failure != 0) return -failure;
        nlmsghdr header;
        std::memcpy(&header, data, sizeof header);
        fake_kernel.requests.push_back(header);
        if (fake_kernel.answer) {
            const auto* begin = static_cast<const std::byte*>(data);
            for (Received& part : fake_kernel.answer(header, {begin + sizeof header, size - sizeof header})) {
                fake_kernel.queue.push_back(std::move(part));
            }
        }
        return static_cast<ssize_t>(size);
    },
    [](int fd, void* buffer, std::size_t size, sources::NetlinkOrigin& origin) -> ssize_t {
        const bool multicast = fake_kernel.groups_of.at(static_cast<std::size_t>(fd)) != 0;
        auto& queue = multicast ? fake_kernel.notices : fake_kernel.queue;
        if (queue.empty()) return -EAGAIN;
        const Received next = std::move(queue.front());
        queue.pop_front();
        if (next.failure != 0) return -next.failure;
        origin = {next.kernel, next.cut};
        const std::size_t given = std::min(size, next.datagram.size());
        std::copy_n(next.datagram.begin(), given, static_cast<std::byte*>(buffer));
        return static_cast<ssize_t>(given);
    },
    [](int, int) {
        ++fake_kernel.waits;
        return 0;
    },
    [](int) {
        ++fake_kernel.closed;
        return 0;
    },
};

// The parts of a dump and its end: a datagram each when they are few, else as many in one as the kernel puts there.
inline std::vector<Received> dump_answer(const nlmsghdr& request, std::uint16_t type, const std::vector<Raw>& payloads,
                                         std::uint16_t flags = 0) {
    std::vector<Received> out;
    constexpr std::size_t kFew = 16;
    constexpr std::size_t kRoom = 16 * 1024;
    for (const Raw& payload : payloads) {
        if (payloads.size() <= kFew || out.empty() || out.back().datagram.size() + payload.size() > kRoom) {
            out.emplace_back();
        }
        add_message(out.back().datagram, type, static_cast<std::uint16_t>(NLM_F_MULTI | flags), request.nlmsg_seq,
                    payload);
    }
    Received end;
    add_message(end.datagram, NLMSG_DONE, NLM_F_MULTI, request.nlmsg_seq, number_payload(0));
    out.push_back(std::move(end));
    return out;
}

inline std::vector<Received> error_answer(const nlmsghdr& request, int error) {
    Raw payload = number_payload(-error);
    append(payload, request);
    Received part;
    add_message(part.datagram, NLMSG_ERROR, 0, request.nlmsg_seq, payload);
    return {std::move(part)};
}

}  // namespace argus::test
