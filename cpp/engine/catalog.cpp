#include "engine/catalog.hpp"

#include <array>

namespace argus::sources {
#define X(name) extern const SourceDescriptor name##_source;
ARGUS_SOURCES(X)
#undef X
}  // namespace argus::sources

namespace argus::detectors {
#define X(name) extern const DetectorDescriptor name##_detector;
ARGUS_DETECTORS(X)
#undef X
}  // namespace argus::detectors

namespace argus::auditors {
#define X(name) extern const AuditorDescriptor name##_auditor;
ARGUS_AUDITORS(X)
#undef X
}  // namespace argus::auditors

namespace argus::engine {

std::span<const sources::SourceDescriptor* const> source_catalog() noexcept {
#define X(name) &sources::name##_source,
    static constexpr std::array kTable{ARGUS_SOURCES(X)};
#undef X
    return kTable;
}

std::span<const detectors::DetectorDescriptor* const> detector_catalog() noexcept {
#define X(name) &detectors::name##_detector,
    static constexpr std::array kTable{ARGUS_DETECTORS(X)};
#undef X
    return kTable;
}

std::span<const auditors::AuditorDescriptor* const> auditor_catalog() noexcept {
#define X(name) &auditors::name##_auditor,
    static constexpr std::array kTable{ARGUS_AUDITORS(X)};
#undef X
    return kTable;
}

}  // namespace argus::engine
