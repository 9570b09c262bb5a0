// argus._core.Host and argus._core.Processes: one-shot reads of the machine into NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "bindings/convert.hpp"
#include "bindings/register.hpp"
#include "engine/catalog.hpp"
#include "engine/host_reader.hpp"
#include "sources/processes/processes.hpp"

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
public:
    explicit PyProcesses(std::string proc) : tree_(std::move(proc), system_io(), kClock) {}

    // One array per column, one row per process, ascending pids. None when the proc root cannot be listed.
    py::object read() {
        std::unique_lock lock(mutex_, std::defer_lock);
        bool listed = false;
        {
            py::gil_scoped_release released;
            lock.lock();
            listed = tree_.scan(table_).ok();
        }
        if (!listed) return py::none();
        return processes_to_dict(table_);
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
    sources::ProcessTree tree_;
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
        .def(py::init<std::string>(), py::arg("proc"))
        .def("read", &PyProcesses::read)
        .def("counts", &PyProcesses::counts);
    py::dict columns;
    for (const auto& column : sources::process_columns()) {
        columns[column.name] = py::make_tuple(column.unit, column.documentation);
    }
    m.attr("PROCESS_COLUMNS") = columns;
}

}  // namespace argus::bindings
