#include "sources/sockets.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>
#include <sstream>

#include "../allocations.hpp"
#include "fake_netlink.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

constexpr std::uint8_t kEstablished = 1;
constexpr std::uint8_t kListen = 10;

struct FakeSocket {
    std::uint8_t state;
    std::uint32_t receive_queue = 0, send_queue = 0;
    std::uint8_t timer = 0, retransmits = 0;
    std::uint32_t rtt_us = 0, window = 0, unacked = 0, lost = 0;  // rtt_us 0 = no tcp_info
};

Raw tcp_payload(const FakeSocket& socket) {
    Raw out;
    inet_diag_msg body{};
    body.idiag_family = AF_INET;
    body.idiag_state = socket.state;
    body.idiag_rqueue = socket.receive_queue;
    body.idiag_wqueue = socket.send_queue;
    body.idiag_timer = socket.timer;
    body.idiag_retrans = socket.retransmits;
    append(out, body);
    const std::uint8_t shutdown = 0;
    add_attribute(out, INET_DIAG_SHUTDOWN, &shutdown, 1);
    if (socket.rtt_us != 0) {
        tcp_info info{};
        info.tcpi_rtt = socket.rtt_us;
        info.tcpi_snd_cwnd = socket.window;
        info.tcpi_unacked = socket.unacked;
        info.tcpi_lost = socket.lost;
        add_attribute(out, INET_DIAG_INFO, &info, sizeof info);
    }
    return out;
}

Raw unix_payload(std::uint8_t state) {
    Raw out;
    unix_diag_msg body{};
    body.udiag_family = AF_UNIX;
    body.udiag_state = state;
    append(out, body);
    return out;
}

struct FakeSockets {
    FakeSockets() {
        fake_kernel.answer = [this](const nlmsghdr& request, sources::Bytes body) {
            std::vector<Raw> payloads;
            if (request.nlmsg_type == TCPDIAG_GETSOCK) {
                if (tcp_error != 0) return error_answer(request, tcp_error);
                REQUIRE(sources::load(body, asked));
                for (const FakeSocket& socket : tcp) payloads.push_back(tcp_payload(socket));
            } else {
                if (unix_error != 0) return error_answer(request, unix_error);
                for (const std::uint8_t state : unix_states) payloads.push_back(unix_payload(state));
            }
            return dump_answer(request, request.nlmsg_type, payloads);
        };
    }
    [[nodiscard]] static std::unique_ptr<sources::Source> open(double tcp_info = 0, double max_sockets = 50'000) {
        auto source = sources::make_sockets({}, system_io(), {{tcp_info, max_sockets}, {}}, kFakeNetlink);
        REQUIRE(source.ok());
        return std::move(*source);
    }

    WithKernel kernel;
    std::vector<FakeSocket> tcp;
    std::vector<std::uint8_t> unix_states;
    inet_diag_req asked{};
    int tcp_error = 0, unix_error = 0;
};

std::string connections(const std::string& state, const std::string& transport = "tcp") {
    return "system.network.connection.count{network.connection.state=" + state + ",network.transport=" + transport +
           "}";
}

// Counts of a captured or live table of the text, by state.
std::array<int, 16> text_states() {
    std::array<int, 16> out{};
    for (const char* file : {"/proc/net/tcp", "/proc/net/tcp6"}) {
        std::istringstream lines(slurp(file));
        std::string line;
        std::getline(lines, line);
        while (std::getline(lines, line)) {
            std::istringstream words(line);
            std::string number, local, remote;
            unsigned state = 0;
            words >> number >> local >> remote >> std::hex >> state;
            if (state < out.size()) ++out[state];
        }
    }
    return out;
}

std::vector<sources::SocketNumber> walk(std::string_view text, std::uint32_t& malformed) {
    std::vector<sources::SocketNumber> out;
    sources::SockstatWalk numbers(text);
    sources::SocketNumber number;
    while (numbers.next(number)) out.push_back(number);
    malformed = numbers.malformed();
    return out;
}

}  // namespace

TEST_CASE("sockets: sockstat is families with keys and numbers") {
    std::uint32_t malformed = 0;
    const auto numbers = walk("sockets: used 15\nTCP: inuse 1 orphan 2 tw 3\n", malformed);
    REQUIRE(numbers.size() == 4);
    CHECK(numbers[0].family == "sockets");
    CHECK(numbers[3].key == "tw");
    CHECK(numbers[3].value == 3);
    CHECK(malformed == 0);
}

TEST_CASE("sockets: what follows a bad number is not believed, the next line is") {
    std::uint32_t malformed = 0;
    for (const char* bad : {"TCP: inuse -1 tw 3\n", "TCP: inuse\n", "TCP: inuse 99999999999999999999999 tw 1\n",
                            "TCP: inuse x tw 1\n", "TCP inuse 1\n", ": inuse 1\n"}) {
        const std::string text = std::string(bad) + "UDP: inuse 7\n";
        const auto numbers = walk(text, malformed);
        CAPTURE(bad);
        REQUIRE(numbers.size() == 1);
        CHECK(numbers[0].family == "UDP");
        CHECK(malformed == 1);
    }
    CHECK(walk("TCP: inuse 1", malformed).empty());  // cut: it may have been 15
    CHECK(malformed == 1);
}

TEST_CASE("sockets: a message shorter than a socket, or of no state, is refused") {
    const Raw whole = tcp_payload({kEstablished});
    for (std::size_t size = 0; size < sizeof(inet_diag_msg); ++size) {
        CHECK(!sources::parse_tcp_socket({whole.data(), size}).ok());
    }
    for (const std::uint8_t state : {std::uint8_t{0}, std::uint8_t{12}, std::uint8_t{255}}) {
        CHECK(!sources::parse_tcp_socket(bytes(tcp_payload({state}))).ok());
        CHECK(!sources::parse_unix_socket(bytes(unix_payload(state))).ok());
    }
    CHECK(sources::parse_unix_socket(bytes(unix_payload(kListen))).value() == kListen);
    CHECK(!sources::parse_unix_socket(sources::Bytes{whole.data(), 3}).ok());
}

TEST_CASE("sockets: tcp_info of any length that holds what is read, and none that does not") {
    FakeSocket socket{kEstablished};
    socket.rtt_us = 1500;
    socket.window = 10;
    Raw payload = tcp_payload(socket);
    auto found = sources::parse_tcp_socket(bytes(payload));
    REQUIRE(found.ok());
    REQUIRE(found.value().path);
    CHECK(found.value().path->rtt_us == 1500);
    CHECK(found.value().path->window == 10);
    Raw bare = tcp_payload({kEstablished});
    const std::vector<std::byte> bytes_of_info(offsetof(tcp_info, tcpi_advmss) - 1);
    add_attribute(bare, INET_DIAG_INFO, bytes_of_info.data(), bytes_of_info.size());
    found = sources::parse_tcp_socket(bytes(bare));
    REQUIRE(found.ok());
    CHECK(!found.value().path);
}

TEST_CASE("sockets: quantiles of the histogram are within a sixteenth of the exact ones") {
    std::mt19937_64 random(7);
    std::lognormal_distribution<double> spread(8, 3);
    sources::LogHistogram histogram;
    CHECK(std::isnan(histogram.quantile(0.5)));
    std::vector<std::uint32_t> values;
    for (int i = 0; i < 5000; ++i) {
        values.push_back(static_cast<std::uint32_t>(std::min(spread(random), 4294967295.0)));
        histogram.add(values.back());
    }
    std::sort(values.begin(), values.end());
    for (const double share : {0.0002, 0.1, 0.5, 0.9, 0.99, 1.0}) {
        const double exact = values[static_cast<std::size_t>(std::ceil(share * 5000)) - 1];
        CHECK(histogram.quantile(share) == doctest::Approx(exact).epsilon(1.0 / 16));
    }
    for (const std::uint32_t edge : {0U, 1U, 7U, 8U, 9U, 15U, 16U, 4294967295U}) {
        sources::LogHistogram one;
        one.add(edge);
        CHECK(one.quantile(1.0) == doctest::Approx(edge).epsilon(1.0 / 16));
    }
}

TEST_CASE("sockets: queues of listeners are connections, of the others bytes") {
    FakeSockets sockets;
    sockets.tcp = {{kListen, 3, 128}, {kListen, 10, 16}, {kListen, 5, 0}, {kEstablished, 1000, 20},
                   {8, 7, 4000},      {kEstablished, 0, 50, 1, 2}, {kEstablished, 0, 0, 1, 0}, {4, 0, 9, 4, 1}};
    sockets.unix_states = {1, 1, 7, 10};
    Memory memory;
    REQUIRE(FakeSockets::open()->poll(0, memory).ok());
    CHECK(memory.at("system.network.tcp.accept_queue") == 18);
    CHECK(memory.at("system.network.tcp.accept_queue.utilization") == 0.625);
    CHECK(memory.at("system.network.tcp.receive_queue") == 1007);
    CHECK(memory.at("system.network.tcp.send_queue") == 4079);
    CHECK(memory.at("system.network.tcp.retransmitting") == 1);
    CHECK(memory.at("system.network.tcp.probing") == 1);
    CHECK(memory.at(connections("established")) == 3);
    CHECK(memory.at(connections("listen")) == 3);
    CHECK(memory.at(connections("close_wait")) == 1);
    CHECK(memory.at(connections("fin_wait_1")) == 1);
    CHECK(memory.at(connections("syn_sent")) == 0);
    CHECK(memory.at(connections("established", "unix")) == 2);
    CHECK(memory.at(connections("closed", "unix")) == 1);
    CHECK(memory.at(connections("listen", "unix")) == 1);
    CHECK(!memory.has("system.network.tcp.rtt.p50"));
    CHECK((sockets.asked.idiag_states & (1U << 6 | 1U << 7)) == 0);  // the kernel leaves TIME_WAIT out
    CHECK(sockets.asked.idiag_ext == 0);
}

TEST_CASE("sockets: round-trip times and windows are emitted when asked for") {
    FakeSockets sockets;
    for (std::uint32_t i = 1; i <= 100; ++i) {
        sockets.tcp.push_back({kEstablished, 0, 0, 0, 0, i * 1000, i, 2, 1});
    }
    sockets.tcp.push_back({8, 0, 0, 0, 0, 9'000'000, 9000, 3, 0});  // not established: not in the quantiles
    Memory memory;
    REQUIRE(FakeSockets::open(1)->poll(0, memory).ok());
    CHECK(sockets.asked.idiag_ext == 1 << (INET_DIAG_INFO - 1));
    CHECK(memory.at("system.network.tcp.rtt.p50") == doctest::Approx(0.050).epsilon(1.0 / 16));
    CHECK(memory.at("system.network.tcp.rtt.max") == doctest::Approx(0.100).epsilon(1.0 / 16));
    CHECK(memory.at("system.network.tcp.congestion_window.p90") == doctest::Approx(90).epsilon(1.0 / 16));
    CHECK(memory.at("system.network.tcp.unacked") == 203);
    CHECK(memory.at("system.network.tcp.lost") == 100);
    sockets.tcp.clear();
    auto source = FakeSockets::open(1);
    Memory empty;
    REQUIRE(source->poll(0, empty).ok());
    CHECK(!empty.has("system.network.tcp.rtt.p50"));  // of no connection there is no time
    CHECK(empty.at("system.network.tcp.unacked") == 0);
}

TEST_CASE("sockets: what is counted here is what the text lists") {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(listener, generic, size) == 0);
    REQUIRE(::getsockname(listener, generic, &size) == 0);
    REQUIRE(::listen(listener, 8) == 0);
    std::vector<int> fds{listener};
    for (int i = 0; i < 3; ++i) {
        fds.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        REQUIRE(::connect(fds.back(), generic, size) == 0);
    }
    const auto source = sources::sockets_source.open({}, system_io());
    REQUIRE(source.ok());
    Memory memory;
    auto report = source.value()->poll(0, memory);
    bool agree = !report.ok();  // without sock_diag there is nothing to compare
    for (int attempt = 0; attempt < 20 && !agree; ++attempt) {  // other processes come and go
        const auto before = text_states();
        report = source.value()->poll(0, memory);
        const auto after = text_states();
        agree = report.ok();
        for (const auto& [state, name] : {std::pair{1U, "established"}, {8U, "close_wait"}, {10U, "listen"}}) {
            agree = agree && before[state] == after[state] && memory.at(connections(name)) == after[state];
        }
    }
    CHECK(agree);
    if (report.ok()) {
        CHECK(memory.at(connections("established")) >= 6);
        CHECK(memory.at("system.network.tcp.accept_queue") >= 3);
        const std::uint64_t allocated = allocations();
        (void)source.value()->poll(1, memory);
        CHECK(allocations() == allocated);
    }
    for (const int fd : fds) ::close(fd);
}

TEST_CASE("sockets: roots that are not live give sockstat alone") {
    Tree tree("6.18");
    Memory memory;
    const auto source = sources::sockets_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    const auto report = source.value()->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(!memory.has(connections("established")));
    CHECK(memory.at("system.network.tcp.memory.usage") == 429.0 * static_cast<double>(sysconf(_SC_PAGESIZE)));
    CHECK(memory.at("system.network.socket.count{network.transport=tcp,network.type=ipv4}") == 1);
    CHECK(memory.at(connections("time_wait")) == 0);
    CHECK(memory.names.size() == 18);
}

TEST_CASE("sockets: more sockets than allowed are said, not listed") {
    Tree tree("6.18");
    FakeSockets sockets;
    for (int i = 0; i < 100; ++i) sockets.tcp.push_back({kEstablished});
    const auto source = FakeSockets::open(0, 10);  // sockstat of this machine may say less
    Memory memory;
    const auto report = source->poll(0, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::limit);
    CHECK(!memory.has(connections("established")));
    CHECK(memory.has("system.network.socket.used"));
    sockets.tcp.resize(5);
    const auto fewer = source->poll(1, memory);
    if (fewer.ok()) CHECK(memory.at(connections("established")) == 5);
}

TEST_CASE("sockets: a kernel without sock_diag is asked once") {
    FakeSockets sockets;
    sockets.tcp_error = ENOENT;
    const auto source = FakeSockets::open();
    Memory memory;
    for (int i = 0; i < 3; ++i) {
        const auto report = source->poll(i, memory);
        REQUIRE(!report.ok());
        CHECK(report.error().code == Errc::unavailable);
        CHECK(std::string(report.error().what) == "sock_diag");
    }
    CHECK(fake_kernel.requests.size() == 1);
    CHECK(memory.has("system.network.socket.used"));
}

TEST_CASE("sockets: a dump that fails once is tried again; without unix_diag the rest is emitted") {
    FakeSockets sockets;
    sockets.tcp = {{kEstablished}};
    sockets.tcp_error = ENOMEM;
    sockets.unix_error = ENOENT;
    const auto source = FakeSockets::open();
    Memory memory;
    CHECK(source->poll(0, memory).error().code == Errc::limit);
    sockets.tcp_error = 0;
    const auto report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(memory.at(connections("established")) == 1);
    CHECK(!memory.has(connections("listen", "unix")));
    const std::size_t requests = fake_kernel.requests.size();
    REQUIRE(source->poll(2, memory).ok());
    CHECK(fake_kernel.requests.size() == requests + 1);
}

TEST_CASE("sockets: messages that are no sockets are counted, the others stand") {
    FakeSockets sockets;
    sockets.tcp = {{kEstablished}, {0}, {77}, {kListen, 1, 4}};
    sockets.unix_states = {1, 99};
    Memory memory;
    const auto report = FakeSockets::open()->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 3);
    CHECK(memory.at(connections("established")) == 1);
    CHECK(memory.at(connections("listen")) == 1);
}

TEST_CASE("sockets: hostile sockstat is survived") {
    Tree tree("hostile");
    Memory memory;
    const auto source = sources::sockets_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    const auto report = source.value()->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed >= 6);
    CHECK(memory.at("system.network.socket.used") == 15);
    CHECK(memory.at("system.network.socket.count{network.transport=tcp,network.type=ipv4}") == 1);
    CHECK(!memory.has("system.network.tcp.orphans"));
    CHECK(!memory.has("system.network.fragment.memory{network.type=ipv4}"));
}

}  // namespace argus::test
