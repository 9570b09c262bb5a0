// argus._core.Host and argus._core.Processes: one-shot reads of the machine into NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/convert.hpp"
#include "bindings/register.hpp"
#include "engine/catalog.hpp"
#include "engine/host_reader.hpp"
#include "sources/processes/scanner.hpp"

namespace argus::bindings {
namespace {

namespace py = pybind11;

const SystemClock kClock;

class PyHost {
public:
    PyHost(std::string proc, std::string sys, std::string cgroup)
        : reader_({std::move(proc), std::move(sys), std::move(cgroup)}, engine::source_catalog(), system_io(),
                  kClock) {}

    // (time_ns, values, names, units, kinds): the tuples are the same objects until a series opens or closes.
    py::tuple read() {
        std::unique_lock lock(mutex_, std::defer_lock);  // waited for only without the GIL, so never a deadlock
        Nanos time = 0;
        {
            py::gil_scoped_release released;
            lock.lock();
            time = reader_.read();
        }
        if (reader_.layout_version() != labelled_) label();
        py::array_t<double> values(static_cast<py::ssize_t>(reader_.size()));
        reader_.copy_values({values.mutable_data(), reader_.size()});
        return py::make_tuple(time, values, names_, units_, kinds_);
    }

    [[nodiscard]] std::vector<std::string> missing() const {
        return {reader_.missing().begin(), reader_.missing().end()};
    }

private:
    void label() {
        const std::size_t size = reader_.size();
        py::tuple names(size);
        py::tuple units(size);
        py::tuple kinds(size);
        for (std::size_t i = 0; i < size; ++i) {
            const SeriesInfo& info = reader_.info(i);
            names[i] = py::str(info.full_name());
            units[i] = py::str(info.unit);
            kinds[i] = py::str(info.kind == Kind::counter ? "counter" : "gauge");
        }
        names_ = std::move(names);
        units_ = std::move(units);
        kinds_ = std::move(kinds);
        labelled_ = reader_.layout_version();
    }

    engine::HostReader reader_;
    std::mutex mutex_;
    std::uint64_t labelled_ = ~std::uint64_t{0};
    py::tuple names_, units_, kinds_;
};

class PyProcesses {
    // The mutex is waited for only without the GIL, so never a deadlock.
    template <class Work>
    auto locked(Work work) {
        py::gil_scoped_release released;
        const std::lock_guard lock(mutex_);
        return work();
    }

public:
    PyProcesses(const std::string& proc, const std::string& tier)
        : tiers_(sources::parse_tier(tier), {proc, "/sys", ""}, system_io(), kClock) {}

    // "" or why no tier can be used.
    std::string open() {
        return locked([&] { return tiers_.open().ok() ? std::string() : unavailable(); });
    }

    // One array per column, one row per process, ascending pids; or the reason, as text, why there is none.
    py::object read() {
        std::unique_lock lock(mutex_, std::defer_lock);
        std::string failure;
        {
            py::gil_scoped_release released;
            lock.lock();
            if (const auto rows = tiers_.scan(table_); !rows) failure = rows.error().what;
        }
        if (!failure.empty()) return py::str(failure);
        return processes_to_dict(table_);
    }

    // In use; "" before the first read.
    std::string tier() {
        return locked([&] {
            const auto tier = tiers_.tier();
            return std::string(tier ? to_string(*tier) : "");
        });
    }

    // (name, available, reason), best first.
    std::vector<std::tuple<std::string, bool, std::string>> tiers() {
        return locked([&] {
            std::vector<std::tuple<std::string, bool, std::string>> out;
            for (auto& s : tiers_.statuses()) out.emplace_back(to_string(s.tier), s.available, std::move(s.reason));
            return out;
        });
    }

    // Of the last read: what became of processes that have no row, and how many rows were proved unchanged.
    py::dict counts() const {
        py::dict out;
        out["vanished"] = table_.vanished;
        out["unreadable"] = table_.unreadable;
        out["malformed"] = table_.malformed;
        out["gated"] = table_.gated;
        return out;
    }

private:
    [[nodiscard]] std::string unavailable() const {
        std::string text;
        for (const auto& s : tiers_.statuses()) {
            if (tiers_.forced() == s.tier) text = s.reason;
        }
        return text;
    }

    sources::ProcessTiers tiers_;
    sources::ProcessTable table_;
    std::mutex mutex_;
};

}  // namespace

void register_host(pybind11::module_& m) {
    py::class_<PyHost>(m, "Host")
        .def(py::init<std::string, std::string, std::string>(), py::arg("proc"), py::arg("sys"), py::arg("cgroup"))
        .def("read", &PyHost::read)
        .def("missing", &PyHost::missing);
    py::class_<PyProcesses>(m, "Processes")
        .def(py::init<std::string, std::string>(), py::arg("proc"), py::arg("tier"))
        .def("open", &PyProcesses::open)
        .def("read", &PyProcesses::read)
        .def("tier", &PyProcesses::tier)
        .def("tiers", &PyProcesses::tiers)
        .def("counts", &PyProcesses::counts);
    py::dict columns;
    for (const auto& column : sources::process_columns()) {
        columns[column.name] = py::make_tuple(column.unit, column.documentation);
    }
    m.attr("PROCESS_COLUMNS") = columns;
}

}  // namespace argus::bindings
