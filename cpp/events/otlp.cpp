#include "events/otlp.hpp"

#include <algorithm>
#include <utility>

#include "events/otlp_mapping.hpp"

namespace argus::events {

std::size_t OtlpLanes::lane(const std::string& source, std::int64_t ts) {
    const auto [entry, added] = by_source_.try_emplace(source);
    Newest& newest = entry->second;
    if (added) {
        newest.ts[0] = ts;
        newest.count = 1;
        order_.push_back(source);
        if (order_.size() > kOtlpSources) {
            by_source_.erase(order_.front());
            order_.pop_front();
        }
        return 0;
    }
    for (std::size_t lane = 0; lane < newest.count; ++lane) {
        if (ts < newest.ts[lane] - tolerance_ns_) continue;
        newest.ts[lane] = std::max(newest.ts[lane], ts);
        return lane;
    }
    if (newest.count < kOtlpLanes) newest.ts[newest.count++] = ts;
    return newest.count - 1;
}

OtlpMapper::OtlpMapper(std::string tenant_attribute, std::int64_t tolerance_ns)
    : mapping_(std::make_unique<OtlpMapping>(std::move(tenant_attribute))), lanes_(tolerance_ns) {}
OtlpMapper::~OtlpMapper() = default;

OtlpBatch OtlpMapper::map(std::string_view body, OtlpSignal signal, OtlpEncoding encoding) {
    mapping_->begin(body.size(), signal, encoding);
    if (encoding == OtlpEncoding::json) read_otlp_json(body, *mapping_);
    else read_otlp_protobuf(body, *mapping_);
    mapping_->end(lanes_);
    return std::exchange(mapping_->batch, {});
}

}  // namespace argus::events
