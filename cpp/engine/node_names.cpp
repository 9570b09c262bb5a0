#include "engine/node_names.hpp"

#include <algorithm>
#include <optional>
#include <unordered_map>

namespace argus::engine {
namespace {

constexpr MetricType C = MetricType::counter;
constexpr MetricType G = MetricType::gauge;
constexpr MetricType U = MetricType::unknown;
constexpr double kPerKib = 1.0 / 1024.0;

constexpr const char* kCpuLabels = "cpu=cpu.logical_number,mode=cpu.mode";
constexpr const char* kDevice = "device=system.device";
constexpr const char* kLink = "device=network.interface.name";
constexpr const char* kMount =
    "device=system.device,fstype=system.filesystem.type,mountpoint=system.filesystem.mountpoint";
constexpr const char* kRead = "disk.io.direction=read";
constexpr const char* kWrite = "disk.io.direction=write";
constexpr const char* kIn = "network.io.direction=receive";
constexpr const char* kOut = "network.io.direction=transmit";

constexpr NodeName kNodeNames[] = {
    // cpu, stat, loadavg
    {"system.cpu.time", "cpu.mode=user", "node_cpu_seconds_total", kCpuLabels, C},
    {"system.cpu.time", "cpu.mode=nice", "node_cpu_seconds_total", kCpuLabels, C},
    {"system.cpu.time", "cpu.mode=system", "node_cpu_seconds_total", kCpuLabels, C},
    {"system.cpu.time", "cpu.mode=idle", "node_cpu_seconds_total", kCpuLabels, C},
    {"system.cpu.time", "cpu.mode=iowait", "node_cpu_seconds_total", kCpuLabels, C},
    {"system.cpu.time", "cpu.mode=interrupt", "node_cpu_seconds_total", "cpu=cpu.logical_number,mode='irq'", C},
    {"system.cpu.time", "cpu.mode=softirq", "node_cpu_seconds_total", kCpuLabels, C},
    {"system.cpu.time", "cpu.mode=steal", "node_cpu_seconds_total", kCpuLabels, C},
    {"system.cpu.time", "cpu.mode=guest", "node_cpu_guest_seconds_total", "cpu=cpu.logical_number,mode='user'", C},
    {"system.cpu.time", "cpu.mode=guest_nice", "node_cpu_guest_seconds_total", "cpu=cpu.logical_number,mode='nice'", C},
    {"system.cpu.frequency", "", "node_cpu_scaling_frequency_hertz", "cpu=cpu.logical_number"},
    {"system.cpu.interrupts", "", "node_intr_total", "", C},
    {"system.cpu.context_switches", "", "node_context_switches_total", "", C},
    {"system.process.created", "", "node_forks_total", "", C},
    {"system.processes.running", "", "node_procs_running", ""},
    {"system.processes.blocked", "", "node_procs_blocked", ""},
    {"system.boot_time", "", "node_boot_time_seconds", ""},
    {"system.cpu.load_average.1m", "", "node_load1", ""},
    {"system.cpu.load_average.5m", "", "node_load5", ""},
    {"system.cpu.load_average.15m", "", "node_load15", ""},
    // meminfo
    {"system.memory.limit", "", "node_memory_MemTotal_bytes", ""},
    {"system.memory.usage", "system.memory.state=free", "node_memory_MemFree_bytes", ""},
    {"system.memory.usage", "system.memory.state=buffers", "node_memory_Buffers_bytes", ""},
    {"system.memory.linux.available", "", "node_memory_MemAvailable_bytes", ""},
    {"system.memory.linux.page_cache", "", "node_memory_Cached_bytes", ""},
    {"system.paging.cached", "", "node_memory_SwapCached_bytes", ""},
    {"system.paging.limit", "", "node_memory_SwapTotal_bytes", ""},
    {"system.paging.usage", "system.paging.state=free", "node_memory_SwapFree_bytes", ""},
    {"system.memory.linux.active", "", "node_memory_Active_bytes", ""},
    {"system.memory.linux.inactive", "", "node_memory_Inactive_bytes", ""},
    {"system.memory.linux.active_anon", "", "node_memory_Active_anon_bytes", ""},
    {"system.memory.linux.inactive_anon", "", "node_memory_Inactive_anon_bytes", ""},
    {"system.memory.linux.active_file", "", "node_memory_Active_file_bytes", ""},
    {"system.memory.linux.inactive_file", "", "node_memory_Inactive_file_bytes", ""},
    {"system.memory.linux.unevictable", "", "node_memory_Unevictable_bytes", ""},
    {"system.memory.linux.locked", "", "node_memory_Mlocked_bytes", ""},
    {"system.memory.linux.zswap", "", "node_memory_Zswap_bytes", ""},
    {"system.memory.linux.zswapped", "", "node_memory_Zswapped_bytes", ""},
    {"system.memory.linux.dirty", "", "node_memory_Dirty_bytes", ""},
    {"system.memory.linux.writeback", "", "node_memory_Writeback_bytes", ""},
    {"system.memory.linux.anon", "", "node_memory_AnonPages_bytes", ""},
    {"system.memory.linux.mapped", "", "node_memory_Mapped_bytes", ""},
    {"system.memory.linux.shared", "", "node_memory_Shmem_bytes", ""},
    {"system.memory.linux.slab.usage", "system.memory.linux.slab.state=reclaimable",
     "node_memory_SReclaimable_bytes", ""},
    {"system.memory.linux.slab.usage", "system.memory.linux.slab.state=unreclaimable",
     "node_memory_SUnreclaim_bytes", ""},
    {"system.memory.linux.slab.usage", "", "node_memory_Slab_bytes", "", G, 1, 2},
    {"system.memory.linux.kernel_stack", "", "node_memory_KernelStack_bytes", ""},
    {"system.memory.linux.page_tables", "", "node_memory_PageTables_bytes", ""},
    {"system.memory.linux.commit_limit", "", "node_memory_CommitLimit_bytes", ""},
    {"system.memory.linux.committed", "", "node_memory_Committed_AS_bytes", ""},
    {"system.memory.linux.vmalloc_used", "", "node_memory_VmallocUsed_bytes", ""},
    {"system.memory.linux.percpu", "", "node_memory_Percpu_bytes", ""},
    {"system.memory.linux.hardware_corrupted", "", "node_memory_HardwareCorrupted_bytes", ""},
    {"system.memory.linux.anon_huge_pages", "", "node_memory_AnonHugePages_bytes", ""},
    {"system.memory.linux.hugepages.limit", "", "node_memory_HugePages_Total", ""},
    {"system.memory.linux.hugepages.usage", "system.memory.linux.hugepages.state=free",
     "node_memory_HugePages_Free", ""},
    {"system.memory.linux.hugepages.reserved", "", "node_memory_HugePages_Rsvd", ""},
    {"system.memory.linux.hugepages.surplus", "", "node_memory_HugePages_Surp", ""},
    // vmstat: page faults there are minor and major ones together, page in and out are KiB
    {"system.paging.faults", "", "node_vmstat_pgfault", "", U, 1, 2},
    {"system.paging.faults", "system.paging.type=major", "node_vmstat_pgmajfault", "", U},
    {"system.paging.io", "system.paging.direction=in", "node_vmstat_pgpgin", "", U, kPerKib},
    {"system.paging.io", "system.paging.direction=out", "node_vmstat_pgpgout", "", U, kPerKib},
    {"system.paging.operations", "system.paging.direction=in,system.paging.type=swap", "node_vmstat_pswpin", "", U},
    {"system.paging.operations", "system.paging.direction=out,system.paging.type=swap", "node_vmstat_pswpout", "", U},
    {"system.memory.oom_kills", "", "node_vmstat_oom_kill", "", U},
    // diskstats
    {"system.disk.operations", kRead, "node_disk_reads_completed_total", kDevice, C},
    {"system.disk.operations", kWrite, "node_disk_writes_completed_total", kDevice, C},
    {"system.disk.merged", kRead, "node_disk_reads_merged_total", kDevice, C},
    {"system.disk.merged", kWrite, "node_disk_writes_merged_total", kDevice, C},
    {"system.disk.io", kRead, "node_disk_read_bytes_total", kDevice, C},
    {"system.disk.io", kWrite, "node_disk_written_bytes_total", kDevice, C},
    {"system.disk.operation_time", kRead, "node_disk_read_time_seconds_total", kDevice, C},
    {"system.disk.operation_time", kWrite, "node_disk_write_time_seconds_total", kDevice, C},
    {"system.disk.inflight", "", "node_disk_io_now", kDevice},
    {"system.disk.io_time", "", "node_disk_io_time_seconds_total", kDevice, C},
    {"system.disk.weighted_io_time", "", "node_disk_io_time_weighted_seconds_total", kDevice, C},
    {"system.disk.discard.operations", "", "node_disk_discards_completed_total", kDevice, C},
    {"system.disk.discard.merged", "", "node_disk_discards_merged_total", kDevice, C},
    {"system.disk.discard.io", "", "node_disk_discarded_sectors_total", kDevice, C, 1.0 / 512.0},
    {"system.disk.discard.operation_time", "", "node_disk_discard_time_seconds_total", kDevice, C},
    {"system.disk.flush.operations", "", "node_disk_flush_requests_total", kDevice, C},
    {"system.disk.flush.operation_time", "", "node_disk_flush_requests_time_seconds_total", kDevice, C},
    // statfs: what OpenTelemetry calls free is what node_exporter calls avail; reserved blocks are free to root only
    {"system.filesystem.limit", "", "node_filesystem_size_bytes", kMount},
    {"system.filesystem.usage", "system.filesystem.state=free", "node_filesystem_avail_bytes", kMount},
    {"system.filesystem.usage", "system.filesystem.state=free", "node_filesystem_free_bytes", kMount, G, 1, 2},
    {"system.filesystem.usage", "system.filesystem.state=reserved", "node_filesystem_free_bytes", kMount, G, 1, 2},
    {"system.filesystem.inodes.usage", "system.filesystem.state=used", "node_filesystem_files", kMount, G, 1, 2},
    {"system.filesystem.inodes.usage", "system.filesystem.state=free", "node_filesystem_files", kMount, G, 1, 2},
    {"system.filesystem.inodes.usage", "system.filesystem.state=free", "node_filesystem_files_free", kMount},
    {"system.filesystem.readonly", "", "node_filesystem_readonly", kMount},
    // net/dev
    {"system.network.io", kIn, "node_network_receive_bytes_total", kLink, C},
    {"system.network.packet.count", kIn, "node_network_receive_packets_total", kLink, C},
    {"system.network.errors", kIn, "node_network_receive_errs_total", kLink, C},
    {"system.network.packet.dropped", kIn, "node_network_receive_drop_total", kLink, C},
    {"system.network.fifo_errors", kIn, "node_network_receive_fifo_total", kLink, C},
    {"system.network.frame_errors", kIn, "node_network_receive_frame_total", kLink, C},
    {"system.network.compressed", kIn, "node_network_receive_compressed_total", kLink, C},
    {"system.network.multicast", kIn, "node_network_receive_multicast_total", kLink, C},
    {"system.network.io", kOut, "node_network_transmit_bytes_total", kLink, C},
    {"system.network.packet.count", kOut, "node_network_transmit_packets_total", kLink, C},
    {"system.network.errors", kOut, "node_network_transmit_errs_total", kLink, C},
    {"system.network.packet.dropped", kOut, "node_network_transmit_drop_total", kLink, C},
    {"system.network.fifo_errors", kOut, "node_network_transmit_fifo_total", kLink, C},
    {"system.network.collisions", kOut, "node_network_transmit_colls_total", kLink, C},
    {"system.network.carrier_errors", kOut, "node_network_transmit_carrier_total", kLink, C},
    {"system.network.compressed", kOut, "node_network_transmit_compressed_total", kLink, C},
    // pressure
    {"system.pressure.stall_time", "system.pressure.kind=some,system.pressure.resource=cpu",
     "node_pressure_cpu_waiting_seconds_total", "", C},
    {"system.pressure.stall_time", "system.pressure.kind=some,system.pressure.resource=memory",
     "node_pressure_memory_waiting_seconds_total", "", C},
    {"system.pressure.stall_time", "system.pressure.kind=full,system.pressure.resource=memory",
     "node_pressure_memory_stalled_seconds_total", "", C},
    {"system.pressure.stall_time", "system.pressure.kind=some,system.pressure.resource=io",
     "node_pressure_io_waiting_seconds_total", "", C},
    {"system.pressure.stall_time", "system.pressure.kind=full,system.pressure.resource=io",
     "node_pressure_io_stalled_seconds_total", "", C},
    {"system.pressure.stall_time", "system.pressure.kind=full,system.pressure.resource=irq",
     "node_pressure_irq_stalled_seconds_total", "", C},
    // snmp, netstat, snmp6
    {"system.network.tcp.active_opens", "", "node_netstat_Tcp_ActiveOpens", "", U},
    {"system.network.tcp.passive_opens", "", "node_netstat_Tcp_PassiveOpens", "", U},
    {"system.network.tcp.curr_estab", "", "node_netstat_Tcp_CurrEstab", "", U},
    {"system.network.tcp.in_segs", "", "node_netstat_Tcp_InSegs", "", U},
    {"system.network.tcp.out_segs", "", "node_netstat_Tcp_OutSegs", "", U},
    {"system.network.tcp.retrans_segs", "", "node_netstat_Tcp_RetransSegs", "", U},
    {"system.network.tcp.in_errs", "", "node_netstat_Tcp_InErrs", "", U},
    {"system.network.tcp.out_rsts", "", "node_netstat_Tcp_OutRsts", "", U},
    {"system.network.tcp.listen_drops", "", "node_netstat_TcpExt_ListenDrops", "", U},
    {"system.network.tcp.listen_overflows", "", "node_netstat_TcpExt_ListenOverflows", "", U},
    {"system.network.tcp.syncookies_failed", "", "node_netstat_TcpExt_SyncookiesFailed", "", U},
    {"system.network.tcp.syncookies_recv", "", "node_netstat_TcpExt_SyncookiesRecv", "", U},
    {"system.network.tcp.syncookies_sent", "", "node_netstat_TcpExt_SyncookiesSent", "", U},
    {"system.network.tcp.syn_retrans", "", "node_netstat_TcpExt_TCPSynRetrans", "", U},
    {"system.network.tcp.timeouts", "", "node_netstat_TcpExt_TCPTimeouts", "", U},
    {"system.network.udp.in_datagrams", "", "node_netstat_Udp_InDatagrams", "", U},
    {"system.network.udp.out_datagrams", "", "node_netstat_Udp_OutDatagrams", "", U},
    {"system.network.udp.in_errors", "", "node_netstat_Udp_InErrors", "", U},
    {"system.network.udp.no_ports", "", "node_netstat_Udp_NoPorts", "", U},
    {"system.network.udp.rcvbuf_errors", "", "node_netstat_Udp_RcvbufErrors", "", U},
    {"system.network.udp.sndbuf_errors", "", "node_netstat_Udp_SndbufErrors", "", U},
    {"system.network.udp6.in_datagrams", "", "node_netstat_Udp6_InDatagrams", "", U},
    {"system.network.udp6.out_datagrams", "", "node_netstat_Udp6_OutDatagrams", "", U},
    {"system.network.udp6.in_errors", "", "node_netstat_Udp6_InErrors", "", U},
    {"system.network.udp6.no_ports", "", "node_netstat_Udp6_NoPorts", "", U},
    {"system.network.udp6.rcvbuf_errors", "", "node_netstat_Udp6_RcvbufErrors", "", U},
    {"system.network.udp6.sndbuf_errors", "", "node_netstat_Udp6_SndbufErrors", "", U},
    {"system.network.udplite.in_errors", "", "node_netstat_UdpLite_InErrors", "", U},
    {"system.network.udplite6.in_errors", "", "node_netstat_UdpLite6_InErrors", "", U},
    {"system.network.ip.forwarding", "", "node_netstat_Ip_Forwarding", "", U},
    {"system.network.ip.in_octets", "", "node_netstat_IpExt_InOctets", "", U},
    {"system.network.ip.out_octets", "", "node_netstat_IpExt_OutOctets", "", U},
    {"system.network.ip6.in_octets", "", "node_netstat_Ip6_InOctets", "", U},
    {"system.network.ip6.out_octets", "", "node_netstat_Ip6_OutOctets", "", U},
    {"system.network.icmp.in_msgs", "", "node_netstat_Icmp_InMsgs", "", U},
    {"system.network.icmp.out_msgs", "", "node_netstat_Icmp_OutMsgs", "", U},
    {"system.network.icmp.in_errors", "", "node_netstat_Icmp_InErrors", "", U},
    {"system.network.icmp6.in_msgs", "", "node_netstat_Icmp6_InMsgs", "", U},
    {"system.network.icmp6.out_msgs", "", "node_netstat_Icmp6_OutMsgs", "", U},
    {"system.network.icmp6.in_errors", "", "node_netstat_Icmp6_InErrors", "", U},
    // sockstat, softnet_stat, conntrack
    {"system.network.socket.used", "", "node_sockstat_sockets_used", ""},
    {"system.network.socket.count", "network.transport=tcp,network.type=ipv4", "node_sockstat_TCP_inuse", ""},
    {"system.network.socket.count", "network.transport=tcp,network.type=ipv6", "node_sockstat_TCP6_inuse", ""},
    {"system.network.socket.count", "network.transport=udp,network.type=ipv4", "node_sockstat_UDP_inuse", ""},
    {"system.network.socket.count", "network.transport=udp,network.type=ipv6", "node_sockstat_UDP6_inuse", ""},
    {"system.network.socket.count", "network.transport=udplite,network.type=ipv4", "node_sockstat_UDPLITE_inuse", ""},
    {"system.network.socket.count", "network.transport=udplite,network.type=ipv6", "node_sockstat_UDPLITE6_inuse", ""},
    {"system.network.socket.count", "network.transport=raw,network.type=ipv4", "node_sockstat_RAW_inuse", ""},
    {"system.network.socket.count", "network.transport=raw,network.type=ipv6", "node_sockstat_RAW6_inuse", ""},
    {"system.network.tcp.orphans", "", "node_sockstat_TCP_orphan", ""},
    {"system.network.tcp.allocated", "", "node_sockstat_TCP_alloc", ""},
    {"system.network.connection.count", "network.connection.state=time_wait,network.transport=tcp",
     "node_sockstat_TCP_tw", ""},
    {"system.network.tcp.memory.usage", "", "node_sockstat_TCP_mem_bytes", ""},
    {"system.network.udp.memory.usage", "", "node_sockstat_UDP_mem_bytes", ""},
    {"system.network.fragment.queues", "network.type=ipv4", "node_sockstat_FRAG_inuse", ""},
    {"system.network.fragment.memory", "network.type=ipv4", "node_sockstat_FRAG_memory", ""},
    {"system.network.fragment.queues", "network.type=ipv6", "node_sockstat_FRAG6_inuse", ""},
    {"system.network.fragment.memory", "network.type=ipv6", "node_sockstat_FRAG6_memory", ""},
    {"system.network.softnet.processed", "", "node_softnet_processed_total", "cpu=cpu.logical_number", C},
    {"system.network.softnet.dropped", "", "node_softnet_dropped_total", "cpu=cpu.logical_number", C},
    {"system.network.softnet.squeezed", "", "node_softnet_times_squeezed_total", "cpu=cpu.logical_number", C},
    {"system.network.conntrack.count", "", "node_nf_conntrack_entries", ""},
    {"system.network.conntrack.limit", "", "node_nf_conntrack_entries_limit", ""},
    // file-nr, random, adjtimex
    {"system.file_handle.usage", "", "node_filefd_allocated", ""},
    {"system.file_handle.limit", "", "node_filefd_maximum", ""},
    {"system.kernel.entropy", "", "node_entropy_available_bits", ""},
    {"system.clock.error.estimated", "", "node_timex_estimated_error_seconds", ""},
    {"system.clock.error.maximum", "", "node_timex_maxerror_seconds", ""},
    {"system.clock.offset", "", "node_timex_offset_seconds", ""},
    {"system.clock.synchronized", "", "node_timex_sync_status", ""},
};

// The value of `key` as it is written; nothing when there is no such attribute.
std::optional<std::string_view> attribute(std::string_view attributes, std::string_view key) noexcept {
    while (!attributes.empty()) {
        const std::string_view pair = attributes.substr(0, attributes.find(','));
        attributes.remove_prefix(std::min(pair.size() + 1, attributes.size()));
        if (pair.size() > key.size() && pair[key.size()] == '=' && pair.starts_with(key)) {
            return pair.substr(key.size() + 1);
        }
    }
    return std::nullopt;
}

template <class Each>
bool every_pair(std::string_view list, Each&& each) {
    while (!list.empty()) {
        const std::string_view pair = list.substr(0, list.find(','));
        list.remove_prefix(std::min(pair.size() + 1, list.size()));
        const std::size_t equals = pair.find('=');
        if (!each(pair.substr(0, equals), pair.substr(equals + 1))) return false;
    }
    return true;
}

bool applies(const NodeName& row, std::string_view attributes) {
    return every_pair(row.where, [attributes](std::string_view key, std::string_view value) {
        return attribute(attributes, key) == value;
    });
}

const std::unordered_multimap<std::string_view, const NodeName*>& rows_by_name() {
    static const auto rows = [] {
        std::unordered_multimap<std::string_view, const NodeName*> map;
        for (const NodeName& row : kNodeNames) map.emplace(row.otel, &row);
        return map;
    }();
    return rows;
}

}  // namespace

std::vector<NodeSeries> node_series(const SeriesInfo& info) {
    std::vector<NodeSeries> out;
    const auto [first, last] = rows_by_name().equal_range(info.name);
    for (auto at = first; at != last; ++at) {
        const NodeName& row = *at->second;
        if (!applies(row, info.attributes)) continue;
        NodeSeries series{&row, {}};
        const bool labelled = every_pair(row.labels, [&](std::string_view name, std::string_view from) {
            if (from.starts_with('\'')) {
                series.labels.push_back({std::string(name), std::string(from.substr(1, from.size() - 2))});
                return true;
            }
            const auto value = attribute(info.attributes, from);
            if (value) series.labels.push_back({std::string(name), label_value(*value)});
            return value.has_value();
        });
        if (labelled) out.push_back(std::move(series));
    }
    return out;
}

}  // namespace argus::engine
