// Messages of the process connector: any bytes, and whole messages with any content.
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "sources/exits.hpp"

namespace {

using namespace argus::sources;

void must(bool condition) {
    if (!condition) std::abort();
}

void look(std::span<const std::byte> datagram, Forks& forks, SequenceGaps& gaps) {
    const auto event = parse_process_event(datagram);
    if (!event) return;
    const ProcessEvent& seen = event.value();
    must(gaps.before(seen.processor, seen.sequence) < std::uint64_t{1} << 31);
    must(exit_reason(seen.status) <= ExitReason::signal);
    if (seen.kind == ProcessEvent::Kind::fork) {
        forks.forked(seen.process, {seen.time_ns, seen.parent});
        must(forks.take(seen.process).time == seen.time_ns);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Forks forks;
    static SequenceGaps gaps;
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
    look(bytes, forks, gaps);

    constexpr std::size_t kHeaders = sizeof(nlmsghdr) + sizeof(cn_msg);
    std::array<std::byte, kHeaders + 2 * sizeof(proc_event)> message{};
    const std::size_t body = std::min(size, message.size() - kHeaders);
    nlmsghdr netlink{};
    cn_msg connector{};
    netlink.nlmsg_len = static_cast<std::uint32_t>(kHeaders + body);
    connector.id = {CN_IDX_PROC, CN_VAL_PROC};
    connector.len = static_cast<std::uint16_t>(body);
    connector.seq = size > 4 ? data[4] : 0;
    std::memcpy(message.data(), &netlink, sizeof netlink);
    std::memcpy(message.data() + sizeof netlink, &connector, sizeof connector);
    std::copy_n(bytes.data(), body, message.data() + kHeaders);
    look({message.data(), kHeaders + body}, forks, gaps);

    ExitRaw raw{};
    std::memcpy(&raw, data, std::min(size, sizeof raw));
    const ExitRecord record = exit_record(raw, 4096);
    must(record.cpu_user_ns + record.cpu_system_ns == raw.cpu_ns && record.cpu_user_ns <= raw.cpu_ns);
    must(record.code >= 0 && record.code <= 255 && record.signal >= 0 && record.signal <= 127);
    return 0;
}
