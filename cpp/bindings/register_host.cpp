// argus._core.Host and argus._core.Processes: one-shot reads of the machine into NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
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

    // One array per column, one row per process, ascending pids; or the reason, as text, why there is none. The arrays
    // are the table itself: it is not written again before the last of them is gone.
    py::object read() {
        std::unique_lock lock(mutex_, std::defer_lock);
        std::string failure;
        std::shared_ptr<Lent> lent;
        {
            py::gil_scoped_release released;
            lock.lock();
            lent = spare();
            if (const auto rows = tiers_.scan(lent->table); !rows) failure = rows.error().what;
        }
        counts_ = {lent->table.vanished, lent->table.unreadable, lent->table.malformed, lent->table.gated};
        if (!failure.empty()) return py::str(failure);
        lent->out.store(true, std::memory_order_relaxed);
        const py::capsule owner(new std::shared_ptr<Lent>(lent), [](void* memory) {
            const std::unique_ptr<std::shared_ptr<Lent>> held(static_cast<std::shared_ptr<Lent>*>(memory));
            (*held)->out.store(false, std::memory_order_release);
        });
        py::dict out = columns_.arrays(lent->table, owner);
        out["tier"] = tier_column(lent->table.count);
        return out;
    }

    // The scan alone: how many processes it saw. For measuring what the arrays cost.
    std::size_t scan() {
        return locked([&] {
            const std::shared_ptr<Lent> lent = spare();
            return tiers_.scan(lent->table).ok() ? lent->table.count : 0;
        });
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
        constexpr const char* kNames[] = {"vanished", "unreadable", "malformed", "gated"};
        py::dict out;
        for (std::size_t i = 0; i < counts_.size(); ++i) out[kNames[i]] = counts_[i];
        return out;
    }

private:
    struct Lent {
        sources::ProcessTable table;
        std::atomic<bool> out = false;  // arrays of it live
    };

    // A table that nobody looks at. Who reads in a loop needs two; a few more are kept for who holds on to some.
    std::shared_ptr<Lent> spare() {
        constexpr std::size_t kKept = 3;
        std::shared_ptr<Lent> found;
        std::size_t idle = 0;
        std::erase_if(tables_, [&](const std::shared_ptr<Lent>& each) {
            if (each->out.load(std::memory_order_acquire)) return false;
            if (found == nullptr) found = each;
            return ++idle > kKept;
        });
        if (found == nullptr) found = tables_.emplace_back(std::make_shared<Lent>());
        return found;
    }

    // The same text in every row, read-only: rows without a distance.
    py::array tier_column(std::size_t rows) {
        const auto tier = tiers_.tier();
        if (tier != labelled_) {
            tier_text_ = py::array(py::module_::import("numpy").attr("array")(tier ? to_string(*tier) : "", "U9"));
            tier_text_.attr("setflags")(py::arg("write") = false);
            labelled_ = tier;
        }
        return py::array(tier_text_.dtype(), {static_cast<py::ssize_t>(rows)}, {py::ssize_t{0}}, tier_text_.data(),
                         tier_text_);
    }

    [[nodiscard]] std::string unavailable() const {
        std::string text;
        for (const auto& s : tiers_.statuses()) {
            if (tiers_.forced() == s.tier) text = s.reason;
        }
        return text;
    }

    sources::ProcessTiers tiers_;
    std::vector<std::shared_ptr<Lent>> tables_;
    std::mutex mutex_;
    ProcessColumns columns_;
    std::array<std::uint32_t, 4> counts_{};
    std::optional<sources::Tier> labelled_;
    py::array tier_text_;
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
        .def("scan", &PyProcesses::scan)
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
