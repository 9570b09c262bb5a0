#include "sources/netlink.hpp"

#include <doctest/doctest.h>

#include "../allocations.hpp"
#include "fake_netlink.hpp"

namespace argus::test {
namespace {

using sources::AttributeWalk;
using sources::NetlinkAttribute;
using sources::NetlinkMessage;
using sources::NetlinkSocket;
using sources::NetlinkWalk;

constexpr std::uint16_t kType = 42;

struct Question {
    nlmsghdr header{};
    std::uint32_t body = 0;
};

// The numbers that the answers to one dump hold.
struct Asked {
    Result<sources::NetlinkReport> report = Error{Errc::io, 0, ""};
    std::vector<int> seen;
};

Asked ask(NetlinkSocket& socket, std::uint16_t flags = NLM_F_DUMP) {
    Asked out;
    Question question;
    question.header.nlmsg_type = kType;
    out.report = socket.ask(question, flags, [&](const NetlinkMessage& message) {
        int value = 0;
        if (sources::load(message.payload, value)) out.seen.push_back(value);
        return true;
    });
    return out;
}

std::vector<Received> three(const nlmsghdr& request, sources::Bytes) {
    return dump_answer(request, kType, {number_payload(1), number_payload(2), number_payload(3)});
}

const std::vector<int> kThree{1, 2, 3};

}  // namespace

TEST_CASE("netlink: a walk gives each message of a datagram, the last one also without its padding") {
    Raw datagram;
    add_message(datagram, 7, 1, 5, number_payload(-3));
    Raw odd{std::byte{9}, std::byte{8}, std::byte{7}};
    add_message(datagram, 8, 2, 6, odd);
    datagram.pop_back();  // the padding
    NetlinkWalk walk(bytes(datagram));
    NetlinkMessage message;
    REQUIRE(walk.next(message));
    CHECK(message.type == 7);
    CHECK(message.flags == 1);
    CHECK(message.sequence == 5);
    CHECK(message.payload.size() == 4);
    REQUIRE(walk.next(message));
    CHECK(message.type == 8);
    CHECK(message.payload.size() == 3);
    CHECK(message.payload[2] == std::byte{7});
    CHECK(!walk.next(message));
    CHECK(walk.done());
    NetlinkWalk nothing({});
    CHECK(!nothing.next(message));
    CHECK(nothing.done());
}

TEST_CASE("netlink: a message that lies about its length ends the walk, undone") {
    for (const std::uint32_t length : {0U, 15U, 21U, 0xFFFFFFFFU}) {
        Raw datagram;
        add_message(datagram, 7, 0, 5, number_payload(1));
        std::memcpy(datagram.data(), &length, sizeof length);
        NetlinkWalk walk(bytes(datagram));
        NetlinkMessage message;
        CAPTURE(length);
        CHECK(!walk.next(message));
        CHECK(!walk.done());
    }
}

TEST_CASE("netlink: attributes lose their flags; one that lies about its length ends the walk, undone") {
    Raw attributes;
    add_attribute(attributes, std::uint16_t{5 | NLA_F_NESTED}, "ab", 2);
    add_attribute(attributes, std::uint16_t{6 | NLA_F_NET_BYTEORDER}, nullptr, 0);
    AttributeWalk walk(bytes(attributes));
    NetlinkAttribute attribute;
    REQUIRE(walk.next(attribute));
    CHECK(attribute.type == 5);
    CHECK(attribute.payload.size() == 2);
    REQUIRE(walk.next(attribute));
    CHECK(attribute.type == 6);
    CHECK(attribute.payload.empty());
    CHECK(!walk.next(attribute));
    CHECK(walk.done());
    constexpr std::uint16_t kLengths[] = {0, 3, 7, 0xFFFF};
    for (const std::uint16_t length : kLengths) {
        Raw bad;
        add_attribute(bad, 5, "ab", 2);
        bad.resize(6);
        std::memcpy(bad.data(), &length, sizeof length);
        AttributeWalk again(bytes(bad));
        CAPTURE(length);
        CHECK(!again.next(attribute));
        CHECK(!again.done());
    }
}

TEST_CASE("netlink: a structure longer than its message is not loaded, and nothing follows it") {
    const Raw raw = number_payload(77);
    std::uint64_t wide = 5;
    CHECK(!sources::load(bytes(raw), wide));
    CHECK(wide == 5);
    CHECK(sources::after(bytes(raw), 3).empty());
    CHECK(sources::after(bytes(raw), 400).empty());
}

TEST_CASE("netlink: a dump is read to its end, over many datagrams") {
    const WithKernel kernel;
    fake_kernel.answer = three;
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    for (int i = 0; i < 2; ++i) {
        const Asked asked = ask(socket);
        REQUIRE(asked.report.ok());
        CHECK(asked.seen == kThree);
        CHECK(asked.report.value().messages == 3);
        CHECK(!asked.report.value().interrupted);
    }
    CHECK(fake_kernel.opened == 1);
    REQUIRE(fake_kernel.requests.size() == 2);
    CHECK(fake_kernel.requests[0].nlmsg_len == sizeof(Question));
    CHECK(fake_kernel.requests[0].nlmsg_flags == (NLM_F_REQUEST | NLM_F_DUMP));
    CHECK(fake_kernel.requests[1].nlmsg_seq == fake_kernel.requests[0].nlmsg_seq + 1);
    CHECK(fake_kernel.waits == 0);
}

TEST_CASE("netlink: one question ends with its acknowledgement") {
    const WithKernel kernel;
    fake_kernel.answer = [](const nlmsghdr& request, sources::Bytes) {
        Received reply;
        add_message(reply.datagram, kType, 0, request.nlmsg_seq, number_payload(4));
        std::vector<Received> out = error_answer(request, 0);
        out.insert(out.begin(), std::move(reply));
        return out;
    };
    NetlinkSocket socket(kFakeNetlink, NETLINK_GENERIC, "test");
    const Asked asked = ask(socket, 0);
    REQUIRE(asked.report.ok());
    CHECK(asked.seen == std::vector<int>{4});
    CHECK(fake_kernel.requests[0].nlmsg_flags == (NLM_F_REQUEST | NLM_F_ACK));
}

TEST_CASE("netlink: interruptions change nothing, also on opening day") {
    const WithKernel kernel;
    fake_kernel.send_failures = {EINTR, EINTR};
    fake_kernel.answer = [](const nlmsghdr& request, sources::Bytes body) {
        std::vector<Received> out;
        for (Received& part : three(request, body)) {
            out.push_back({{}, EINTR});
            out.push_back(std::move(part));
        }
        return out;
    };
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    const Asked asked = ask(socket);
    REQUIRE(asked.report.ok());
    CHECK(asked.seen == kThree);
}

TEST_CASE("netlink: a kernel that only interrupts is given up") {
    const WithKernel kernel;
    fake_kernel.send_failures.assign(1000, EINTR);
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    CHECK(ask(socket).report.error().sys_errno == EINTR);
    CHECK(fake_kernel.send_failures.size() > 900);
}

TEST_CASE("netlink: an error answer is its errno, and the socket goes on") {
    const WithKernel kernel;
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    const struct {
        int number;
        Errc code;
    } kErrors[] = {{ENOENT, Errc::unavailable}, {EOPNOTSUPP, Errc::unavailable}, {EPERM, Errc::permission},
                   {EINVAL, Errc::io}};
    for (const auto& expected : kErrors) {
        fake_kernel.answer = [&](const nlmsghdr& request, sources::Bytes) {
            return error_answer(request, expected.number);
        };
        const Asked asked = ask(socket);
        REQUIRE(!asked.report.ok());
        CHECK(asked.report.error().code == expected.code);
        CHECK(asked.report.error().sys_errno == expected.number);
        CHECK(std::string(asked.report.error().what) == "test");
    }
    fake_kernel.answer = three;
    CHECK(ask(socket).seen == kThree);
    CHECK(fake_kernel.opened == 1);
}

TEST_CASE("netlink: a dump that ends with an error is one") {
    const WithKernel kernel;
    fake_kernel.answer = [](const nlmsghdr& request, sources::Bytes) {
        Received end;
        add_message(end.datagram, kType, NLM_F_MULTI, request.nlmsg_seq, number_payload(1));
        add_message(end.datagram, NLMSG_DONE, NLM_F_MULTI, request.nlmsg_seq, number_payload(-ENOMEM));
        return std::vector<Received>{std::move(end)};
    };
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    const Asked asked = ask(socket);
    REQUIRE(!asked.report.ok());
    CHECK(asked.report.error().code == Errc::limit);
    CHECK(asked.report.error().sys_errno == ENOMEM);
}

TEST_CASE("netlink: a dump of what changed meanwhile says so") {
    const WithKernel kernel;
    fake_kernel.answer = [](const nlmsghdr& request, sources::Bytes) {
        return dump_answer(request, kType, {number_payload(1)}, NLM_F_DUMP_INTR);
    };
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    const Asked asked = ask(socket);
    REQUIRE(asked.report.ok());
    CHECK(asked.report.value().interrupted);
}

TEST_CASE("netlink: lost messages, an overrun and a cut datagram lose one ask; nothing of it answers the next") {
    const WithKernel kernel;
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    for (int kind = 0; kind < 3; ++kind) {
        fake_kernel.answer = [&](const nlmsghdr& request, sources::Bytes body) {
            std::vector<Received> out = three(request, body);
            if (kind == 0) out[1] = {{}, ENOBUFS};
            if (kind == 1) out[1].cut = true;
            if (kind == 2) {
                out[1].datagram.clear();
                add_message(out[1].datagram, NLMSG_OVERRUN, 0, request.nlmsg_seq, {});
            }
            return out;
        };
        const Asked asked = ask(socket);
        CAPTURE(kind);
        REQUIRE(!asked.report.ok());
        CHECK(asked.report.error().code == (kind == 1 ? Errc::too_large : Errc::limit));
        CHECK(fake_kernel.closed == 2 * kind + 1);
        fake_kernel.answer = three;
        CHECK(ask(socket).seen == kThree);
        fake_kernel.queue.push_back({{}, EBADF});  // makes the next round start with a fresh socket
        fake_kernel.answer = nullptr;
        CHECK(!ask(socket).report.ok());
    }
}

TEST_CASE("netlink: what answers an earlier question, or comes from another process, is passed over") {
    const WithKernel kernel;
    fake_kernel.answer = [](const nlmsghdr& request, sources::Bytes body) {
        std::vector<Received> out = three(request, body);
        nlmsghdr earlier = request;
        earlier.nlmsg_seq -= 1;
        for (Received& stale : dump_answer(earlier, kType, {number_payload(99)})) {
            out.insert(out.begin(), std::move(stale));
        }
        Received forged;
        add_message(forged.datagram, kType, 0, request.nlmsg_seq, number_payload(98));
        forged.kernel = false;
        out.insert(out.begin(), forged);
        return out;
    };
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    CHECK(ask(socket).seen == kThree);
}

TEST_CASE("netlink: a datagram that ends within a message counts as malformed; the rest is read") {
    const WithKernel kernel;
    fake_kernel.answer = [](const nlmsghdr& request, sources::Bytes body) {
        std::vector<Received> out = three(request, body);
        append(out[0].datagram, std::uint16_t{1});
        return out;
    };
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    const Asked asked = ask(socket);
    REQUIRE(asked.report.ok());
    CHECK(asked.seen == kThree);
    CHECK(asked.report.value().malformed == 1);
}

TEST_CASE("netlink: a kernel that does not answer costs one wait, a flood of forgeries no more than a few reads") {
    const WithKernel kernel;
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    const Asked silent = ask(socket);
    REQUIRE(!silent.report.ok());
    CHECK(silent.report.error().code == Errc::limit);
    CHECK(silent.report.error().sys_errno == ETIMEDOUT);
    CHECK(fake_kernel.waits == 1);
    fake_kernel.answer = [](const nlmsghdr&, sources::Bytes) {
        Received forged;
        forged.kernel = false;
        return std::vector<Received>(1000, forged);
    };
    CHECK(!ask(socket).report.ok());
    CHECK(fake_kernel.queue.size() > 900);
}

TEST_CASE("netlink: a reader that has enough ends the dump") {
    const WithKernel kernel;
    fake_kernel.answer = three;
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    Question question;
    int seen = 0;
    const auto report = socket.ask(question, NLM_F_DUMP, [&](const NetlinkMessage&) { return ++seen < 2; });
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::limit);
    CHECK(seen == 2);
    CHECK(ask(socket).seen == kThree);
}

TEST_CASE("netlink: no descriptor left is a limit, no such family is unavailable; both are over once they are") {
    const WithKernel kernel;
    fake_kernel.open_failures = {EMFILE, EPROTONOSUPPORT, EPERM};
    fake_kernel.answer = three;
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test");
    CHECK(socket.open().error().code == Errc::limit);
    CHECK(ask(socket).report.error().code == Errc::unavailable);
    CHECK(ask(socket).report.error().code == Errc::permission);
    CHECK(ask(socket).seen == kThree);
}

TEST_CASE("netlink: notices are taken until there are none; lost ones are told, a flood is bounded") {
    const WithKernel kernel;
    NetlinkSocket socket(kFakeNetlink, NETLINK_ROUTE, "test", NetlinkSocket::kTimeLimit, 1);
    Received notice;
    add_message(notice.datagram, kType, 0, 0, number_payload(1));
    std::size_t seen = 0;
    const auto count = [&](const NetlinkMessage&) {
        ++seen;
        return true;
    };
    CHECK(socket.drain(count).value().messages == 0);
    fake_kernel.notices = {notice, {{}, ENOBUFS}, notice};
    const auto lossy = socket.drain(count);
    REQUIRE(lossy.ok());
    CHECK(lossy.value().messages == 2);
    CHECK(lossy.value().interrupted);
    CHECK(fake_kernel.waits == 0);
    fake_kernel.notices.assign(5000, notice);
    seen = 0;
    CHECK(socket.drain(count).ok());
    CHECK(seen == NetlinkSocket::kMaxNotices);
}

TEST_CASE("netlink: asking the running kernel again allocates nothing") {
    NetlinkSocket socket(sources::system_netlink(), NETLINK_ROUTE, "rtnetlink");
    if (!socket.open()) return;  // a sandbox without netlink
    struct {
        nlmsghdr header{};
        std::uint32_t body[4] = {};
    } question;
    question.header.nlmsg_type = 18;  // RTM_GETLINK
    int links = 0;
    const auto count = [&](const NetlinkMessage&) { return ++links > 0; };
    REQUIRE(socket.ask(question, NLM_F_DUMP, count).ok());
    CHECK(links > 0);
    const std::uint64_t before = allocations();
    const auto again = socket.ask(question, NLM_F_DUMP, count);
    CHECK(allocations() == before);
    CHECK(again.ok());
}

}  // namespace argus::test
