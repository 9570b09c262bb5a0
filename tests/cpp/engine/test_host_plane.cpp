#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <thread>

#include "../allocations.hpp"
#include "../sources/support.hpp"
#include "engine/host_plane.hpp"
#include "engine/host_reader.hpp"

namespace argus::engine {
namespace {

// Not the whole catalogue: what these tests count must not change with it.
constexpr const sources::SourceDescriptor* kSources[] = {&sources::cpu_source, &sources::memory_source,
                                                         &sources::network_source, &sources::pressure_source};

using test::Tree;

struct Plane {
    explicit Plane(HostOptions options) : plane(std::move(options), kSources, system_io(), clock) {}
    void tick(Nanos by = kSecond) {
        clock.advance(by);
        plane.poll_once();
        plane.drain();
    }
    double at(const std::string& name) {
        for (const SeriesEntry& entry : plane.series()) {
            if (entry.open && entry.info.full_name() == name) return plane.row()[entry.slot.index];
        }
        return std::nan("");
    }
    const SourceStatus& status(const std::string& name) {
        for (const SourceStatus& status : plane.status()) {
            if (status.name == name) return status;
        }
        throw std::runtime_error("no status of " + name);
    }
    ManualClock clock{100 * kSecond};
    HostPlane plane;
};

HostOptions options_of(const Tree& tree) {
    HostOptions options;
    options.roots = tree.roots();
    return options;
}

constexpr const char* kReceived = "system.network.io{network.interface.name=eth0,network.io.direction=receive}";

// Stands in for the source `exits`: each poll tells of as many exits as its ring takes.
class ManyExits final : public sources::ExitSource {
public:
    [[nodiscard]] const char* way() const noexcept override { return "none"; }
    [[nodiscard]] Result<bool> deliver(ring::SpscRing<sources::ExitRecord>* sink) override {
        sink_ = sink;
        return true;
    }
    [[nodiscard]] Result<sources::PollReport> poll(Nanos, sources::Emit&) override {
        sources::ExitRecord record;
        record.valid = sources::kExitStart;
        while (sink_ != nullptr && sink_->try_push(record)) ++record.pid;
        return sources::PollReport{};
    }

private:
    ring::SpscRing<sources::ExitRecord>* sink_ = nullptr;
};
constexpr sources::SourceDescriptor kManyExits{
    "exits", "", "", "", 1000, sources::Lane::fast,
    [](const sources::Roots&, const Io&, const sources::SourceSettings&) -> Result<std::unique_ptr<sources::Source>> {
        return std::unique_ptr<sources::Source>(std::make_unique<ManyExits>());
    }};

}  // namespace

TEST_CASE("host plane: exits that no table came for in time are told as lost of their source") {
    constexpr const sources::SourceDescriptor* kOne[] = {&kManyExits};
    ManualClock clock{100 * kSecond};
    HostOptions options;
    options.processes = false;
    options.bursts.interval = 0;
    HostPlane plane(std::move(options), kOne, system_io(), clock);
    (void)plane.set_agents({{"a", 50, 5 * kSecond, false}});
    constexpr std::size_t kRing = 1 << 14;
    for (std::size_t told = kRing; told <= AgentProcesses::kMaxEnded + 2 * kRing; told += kRing) {
        clock.advance(kSecond);
        plane.poll_once();
        plane.drain();
        REQUIRE(plane.status()[0].name == "exits");
        CHECK(plane.status()[0].dropped == told - std::min(told, AgentProcesses::kMaxEnded));
    }
}

TEST_CASE("host plane: gauges as they are, counters as rates, from one fixture tree to one row") {
    Tree tree("6.18");
    Plane host(options_of(tree));
    host.tick();
    CHECK(host.at("system.memory.limit") == 24684096.0 * 1024);
    CHECK(std::isnan(host.at(kReceived)));
    CHECK(host.plane.reopened().size() == host.plane.series().size());
    tree.replace("proc/net/dev", "175680374", "175690374");
    host.tick(2 * kSecond);
    CHECK(host.at(kReceived) == 5000.0);
    CHECK(host.at("system.cpu.context_switches") == 0.0);
    CHECK(host.plane.reopened().empty());
    CHECK(host.plane.processes().count == 4);
    CHECK(host.plane.processes_fresh());
    CHECK(host.plane.rate_faults() == RateFaults{});
}

TEST_CASE("host plane: what was not polled since the last drain is NaN") {
    Tree tree("6.18");
    HostOptions options = options_of(tree);
    options.sources = {{"memory", true, 5000}};
    Plane host(std::move(options));
    host.tick();
    host.tick();
    CHECK(std::isnan(host.at("system.memory.limit")));
    CHECK(!std::isnan(host.at(kReceived)));
    host.plane.drain();
    CHECK(std::isnan(host.at(kReceived)));
    CHECK(!host.plane.processes_fresh());
}

TEST_CASE("host plane: hot-plug closes and reopens slots, and the newcomer inherits nothing") {
    Tree tree("6.18");
    tree.remove("sys/class/net");  // an interface has as many series as any other
    Plane host(options_of(tree));
    host.tick();
    host.tick();
    const std::uint64_t version = host.plane.layout_version();
    const std::size_t slots = host.plane.series().size();
    tree.replace("proc/net/dev", " eth0:", "veth9:");
    host.tick();
    CHECK(host.plane.layout_version() > version);
    CHECK(std::isnan(host.at(kReceived)));
    tree.replace("proc/net/dev", " ifb0:", "veth8:");
    host.tick();
    CHECK(host.plane.series().size() == slots + 16);  // those of eth0 were free again
    CHECK(host.plane.reopened().size() == 16);
    const std::string newcomer = "system.network.io{network.interface.name=veth8,network.io.direction=receive}";
    CHECK(std::isnan(host.at(newcomer)));
    host.tick();
    CHECK(host.at(newcomer) == 0.0);
    CHECK(host.plane.stale() == 0);
}

TEST_CASE("host plane: a counter reset is NaN once and counted") {
    Tree tree("6.18");
    Plane host(options_of(tree));
    host.tick();
    host.tick();
    tree.replace("proc/net/dev", "175680374", "12");
    host.tick();
    CHECK(std::isnan(host.at(kReceived)));
    CHECK(host.plane.rate_faults().resets == 1);
    host.tick();
    CHECK(host.at(kReceived) == 0.0);
}

TEST_CASE("host plane: a steady tick allocates nothing, from poll to row") {
    Tree tree("6.18");
    Plane host(options_of(tree));
    for (int i = 0; i < 4; ++i) host.tick();  // each of the three tables grows once
    host.clock.advance(kSecond);
    const std::uint64_t before = test::allocations();
    host.plane.poll_once();
    host.plane.drain();
    CHECK(test::allocations() == before);
}

TEST_CASE("host plane: an absent source is listed with its file, need and fix; it comes when the kernel has it") {
    Tree tree("6.18");
    tree.remove("proc/pressure");
    HostOptions options = options_of(tree);
    options.sources = {{"network", false, 0}};
    options.processes = false;
    Plane host(std::move(options));
    host.tick();
    const SourceStatus& pressure = host.status("pressure");
    CHECK(pressure.state == SourceState::unavailable);
    CHECK(pressure.error == "proc/pressure/cpu: not present (ENOENT), needs Linux >= 4.20 with CONFIG_PSI; source "
                            "'pressure' sees nothing, listed as blind spot; boot with psi=1 on the kernel's command "
                            "line, or use a kernel built with CONFIG_PSI");
    CHECK(pressure.errors == 1);
    CHECK(host.status("network").state == SourceState::disabled);
    CHECK(host.status("processes").state == SourceState::disabled);
    CHECK(host.status("cpu").state == SourceState::running);
    CHECK(host.status("cpu").error.empty());
    CHECK(host.status("cpu").emitted > 40);
    for (const char* file : {"cpu", "memory", "io"}) {
        const std::string path = std::string("proc/pressure/") + file;
        tree.write(path, test::slurp(test::kFixtures / "6.18" / path));
    }
    host.tick(61 * kSecond);
    CHECK(host.status("pressure").state == SourceState::running);
    CHECK(host.status("pressure").emitted == 24);
}

TEST_CASE("host plane: more series than allowed are refused and counted, the rest live") {
    Tree tree("6.18");
    HostOptions options = options_of(tree);
    options.max_series = 20;
    Plane host(std::move(options));
    host.tick();
    CHECK(host.plane.series().size() == 20);
    CHECK(host.plane.refused() > 100);
    CHECK(host.at("system.cpu.time{cpu.mode=user}") != host.at("system.cpu.time{cpu.mode=user}"));
    host.tick();
    CHECK(host.at("system.cpu.time{cpu.mode=user}") == 0.0);
    CHECK(host.status("memory").dropped > 0);
}

TEST_CASE("host plane: options that name no source, or an interval out of bounds, do not start") {
    Tree tree("6.18");
    HostOptions unknown = options_of(tree);
    unknown.sources = {{"presure", true, 0, {}}};
    CHECK_THROWS_AS(Plane{unknown}, std::invalid_argument);
    HostOptions quick = options_of(tree);
    quick.sources = {{"cpu", true, 5, {}}};
    CHECK_THROWS_AS(Plane{quick}, std::invalid_argument);
    HostOptions slow = options_of(tree);
    slow.processes_interval_ms = 9'000'000;
    CHECK_THROWS_AS(Plane{slow}, std::invalid_argument);
}

TEST_CASE("host plane: the threads fill the row of the real machine") {
    const SystemClock clock;
    HostOptions options;
    options.processes_interval_ms = 20;
    for (const auto* source : kSources) options.sources.push_back({source->name, true, 10, {}});
    HostPlane plane(options, kSources, system_io(), clock);
    plane.start();
    bool memory = false;
    bool table = false;
    bool rate = false;
    while (!memory || !table || !rate) {
        plane.drain();
        table = table || plane.processes().count > 0;
        for (const SeriesEntry& entry : plane.series()) {
            const double value = plane.row()[entry.slot.index];
            if (!entry.open || std::isnan(value)) continue;
            memory = memory || (entry.info.name == "system.memory.limit" && value > 0);
            rate = rate || (entry.info.name == "system.cpu.context_switches" && value >= 0);
        }
        std::this_thread::yield();
    }
    for (const SourceStatus& status : plane.status()) CHECK(status.dropped == 0);
    plane.stop();
    CHECK(plane.stale() == 0);
}

TEST_CASE("host reader: one dense array, labels only where a series is open") {
    Tree tree("6.18");
    tree.remove("proc/pressure");
    tree.remove("sys/class/net");  // an interface has as many series as any other
    ManualClock clock(7);
    HostReader reader(tree.roots(), kSources, system_io(), clock);
    REQUIRE(reader.missing().size() == 1);
    CHECK(reader.missing()[0].starts_with("pressure: proc/pressure/cpu: unavailable, needs Linux >= 4.20"));
    CHECK(reader.read() == 7);
    const std::size_t size = reader.size();
    const std::uint64_t version = reader.layout_version();
    std::vector<double> values(size);
    tree.replace("proc/net/dev", " ifb0:", " ifb7:");
    (void)reader.read();
    CHECK(reader.layout_version() > version);
    REQUIRE(reader.size() == size);
    reader.copy_values(values);
    for (std::size_t i = 0; i < size; ++i) {
        CHECK(!std::isnan(values[i]));
        if (reader.info(i).full_name() == kReceived) CHECK(values[i] == 175680374.0);
        CHECK(reader.info(i).attributes.find("ifb0") == std::string::npos);
    }
    const std::uint64_t before = test::allocations();
    (void)reader.read();
    reader.copy_values(values);
    CHECK(test::allocations() == before);
}

TEST_CASE("host reader: a slow source is read again when its interval is over, and keeps its values until then") {
    Tree tree("6.18");
    ManualClock clock(kSecond);
    const sources::SourceDescriptor* const both[] = {&sources::memory_source, &sources::kernel_source};
    HostReader reader(tree.roots(), both, system_io(), clock);
    const auto value = [&](const std::string& name) {
        std::vector<double> values(reader.size());
        reader.copy_values(values);
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (reader.info(i).full_name() == name) return values[i];
        }
        return -1.0;
    };
    (void)reader.read();
    const double entropy = value("system.kernel.entropy");
    REQUIRE(entropy > 0);
    tree.write("proc/sys/kernel/random/entropy_avail", "7\n");
    tree.write("proc/meminfo", "MemTotal: 5 kB\n");
    clock.advance(kSecond);
    (void)reader.read();
    CHECK(value("system.kernel.entropy") == entropy);
    CHECK(value("system.memory.limit") == 5 * 1024);
    clock.advance(10 * kSecond);
    (void)reader.read();
    CHECK(value("system.kernel.entropy") == 7);
}

}  // namespace argus::engine
