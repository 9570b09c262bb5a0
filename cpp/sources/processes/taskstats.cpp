#include "sources/processes/taskstats.hpp"

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/taskstats.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace argus::sources {
namespace {

constexpr const char* kAbsent = "taskstats: not in this kernel (CONFIG_TASKSTATS)";
constexpr const char* kRefused = "taskstats: not permitted: needs CAP_NET_ADMIN in the initial namespaces";
constexpr const char* kBroken = "taskstats: the kernel did not answer";

using Bytes = std::span<const unsigned char>;

// A netlink attribute, by value: messages are bytes, not objects.
struct Attribute {
    std::uint16_t type = 0;
    Bytes payload;
};

// Takes the next attribute off `bytes`; false at their end, or where one does not fit.
bool next_attribute(Bytes& bytes, Attribute& out) noexcept {
    nlattr head{};
    if (bytes.size() < sizeof head) return false;
    std::memcpy(&head, bytes.data(), sizeof head);
    if (head.nla_len < NLA_HDRLEN || head.nla_len > bytes.size()) return false;
    out = {static_cast<std::uint16_t>(head.nla_type & NLA_TYPE_MASK),
           bytes.subspan(NLA_HDRLEN, head.nla_len - std::size_t{NLA_HDRLEN})};
    bytes = bytes.subspan(std::min<std::size_t>(bytes.size(), NLA_ALIGN(head.nla_len)));
    return true;
}

bool find_attribute(Bytes bytes, std::uint16_t type, Bytes& out) noexcept {
    for (Attribute attribute; next_attribute(bytes, attribute);) {
        if (attribute.type != type) continue;
        out = attribute.payload;
        return true;
    }
    return false;
}

// The attributes of a generic netlink message of a family; empty when it is none.
Bytes attributes_of(Bytes message, std::uint16_t family) noexcept {
    constexpr std::size_t kHead = NLMSG_HDRLEN + GENL_HDRLEN;
    nlmsghdr head{};
    if (message.size() < kHead) return {};
    std::memcpy(&head, message.data(), sizeof head);
    if (head.nlmsg_type != family || head.nlmsg_len < kHead || head.nlmsg_len > message.size()) return {};
    return message.subspan(kHead, head.nlmsg_len - kHead);
}

template <class T>
bool field(Bytes stats, std::size_t offset, T& out) noexcept {
    if (stats.size() < offset + sizeof(T)) return false;
    std::memcpy(&out, stats.data() + offset, sizeof(T));
    return true;
}

struct PidRequest {
    nlmsghdr head;
    genlmsghdr command;
    nlattr attribute;
    std::uint32_t pid;
};
static_assert(sizeof(PidRequest) == NLMSG_HDRLEN + GENL_HDRLEN + NLA_HDRLEN + 4);

struct FamilyRequest {
    nlmsghdr head;
    genlmsghdr command;
    nlattr attribute;
    char name[12];
};

}  // namespace

bool parse_taskstats(Bytes message, std::uint16_t family, TaskAccount& out) noexcept {
    Bytes answer;
    Bytes pid;
    Bytes stats;
    if (!find_attribute(attributes_of(message, family), TASKSTATS_TYPE_AGGR_PID, answer) ||
        !find_attribute(answer, TASKSTATS_TYPE_PID, pid) || !find_attribute(answer, TASKSTATS_TYPE_STATS, stats)) {
        return false;
    }
    std::uint32_t number = 0;
    const bool good = field(pid, 0, number) && field(stats, offsetof(taskstats, ac_uid), out.uid) &&
                      field(stats, offsetof(taskstats, nvcsw), out.voluntary) &&
                      field(stats, offsetof(taskstats, nivcsw), out.involuntary) &&
                      field(stats, offsetof(taskstats, read_char), out.read_chars) &&
                      field(stats, offsetof(taskstats, write_char), out.write_chars) &&
                      field(stats, offsetof(taskstats, read_bytes), out.read_bytes) &&
                      field(stats, offsetof(taskstats, write_bytes), out.write_bytes);
    out.pid = good && number <= 0x7FFFFFFFU ? static_cast<std::int32_t>(number) : 0;
    return out.pid != 0;
}

Result<std::unique_ptr<Taskstats>> Taskstats::open() {
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_GENERIC);
    if (fd < 0) return Error{Errc::unavailable, errno, kAbsent};
    std::unique_ptr<Taskstats> made(new Taskstats(fd));
    if (const auto found = made->find_family(); !found) return found.error();
    const std::int32_t self = getpid();
    TaskAccount account;
    if (const auto asked = made->query({&self, 1}, {&account, 1}); !asked) return asked.error();
    if (account.pid != self) return Error{Errc::unavailable, 0, kBroken};
    return made;
}

Taskstats::~Taskstats() { ::close(fd_); }

std::size_t Taskstats::receive(std::size_t wanted) noexcept {
    std::array<mmsghdr, kBatch> messages{};
    std::array<iovec, kBatch> parts{};
    for (std::size_t i = 0; i < wanted; ++i) {
        parts[i] = {buffer_.data() + i * kAnswerBytes, kAnswerBytes};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int got = recvmmsg(fd_, messages.data(), static_cast<unsigned>(wanted), MSG_DONTWAIT, nullptr);
    for (int i = 0; i < got; ++i) sizes_[static_cast<std::size_t>(i)] = messages[static_cast<std::size_t>(i)].msg_len;
    return got < 0 ? 0 : static_cast<std::size_t>(got);
}

void Taskstats::drain() noexcept {
    while (receive(kBatch) == kBatch) {
    }
}

Result<bool> Taskstats::find_family() {
    FamilyRequest request{};
    constexpr char kName[] = TASKSTATS_GENL_NAME;
    static_assert(sizeof kName <= sizeof request.name);
    request.attribute = {static_cast<std::uint16_t>(NLA_HDRLEN + sizeof kName), CTRL_ATTR_FAMILY_NAME};
    request.head.nlmsg_len = sizeof request;
    static_assert(sizeof request == NLMSG_HDRLEN + GENL_HDRLEN + NLA_HDRLEN + NLA_ALIGN(sizeof kName));
    request.head.nlmsg_type = GENL_ID_CTRL;
    request.head.nlmsg_flags = NLM_F_REQUEST;
    request.command = {CTRL_CMD_GETFAMILY, 1, 0};
    std::memcpy(request.name, kName, sizeof kName);
    if (send(fd_, &request, request.head.nlmsg_len, 0) < 0) return Error{Errc::unavailable, errno, kAbsent};
    Bytes id;
    if (receive(1) != 1) return Error{Errc::unavailable, 0, kBroken};
    const Bytes attributes = attributes_of({buffer_.data(), std::min(sizes_[0], kAnswerBytes)}, GENL_ID_CTRL);
    if (!find_attribute(attributes, CTRL_ATTR_FAMILY_ID, id) || !field(id, 0, family_)) {
        return Error{Errc::unavailable, ENOENT, kAbsent};
    }
    return true;
}

Result<bool> Taskstats::query(std::span<const std::int32_t> pids, std::span<TaskAccount> out) {
    std::array<PidRequest, kBatch> requests;
    const std::size_t count = std::min({pids.size(), out.size(), kBatch});
    const std::uint32_t first = sequence_ + 1;
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = {};
        requests[i].head = {sizeof(PidRequest), family_, NLM_F_REQUEST, ++sequence_, 0};
        requests[i].command = {TASKSTATS_CMD_GET, TASKSTATS_GENL_VERSION, 0};
        requests[i].attribute = {NLA_HDRLEN + 4, TASKSTATS_CMD_ATTR_PID};
        requests[i].pid = static_cast<std::uint32_t>(pids[i]);
    }
    if (send(fd_, requests.data(), count * sizeof(PidRequest), 0) < 0) return Error{Errc::io, errno, kBroken};
    const std::size_t got = receive(count);
    for (std::size_t i = 0; i < got; ++i) {
        const Bytes message{buffer_.data() + i * kAnswerBytes, std::min(sizes_[i], kAnswerBytes)};
        nlmsghdr head{};
        nlmsgerr refusal{};
        if (!field(message, 0, head)) continue;
        const std::uint32_t at = head.nlmsg_seq - first;
        if (at >= count) continue;  // of a batch before
        const bool refused = head.nlmsg_type == NLMSG_ERROR && field(message, NLMSG_HDRLEN, refusal);
        if (refused && refusal.error == -EPERM) {
            drain();
            return Error{Errc::permission, EPERM, kRefused};
        }
        if (!refused && (!parse_taskstats(message, family_, out[at]) || out[at].pid != pids[at])) out[at] = {};
    }
    if (got < count) drain();
    return true;
}

}  // namespace argus::sources
