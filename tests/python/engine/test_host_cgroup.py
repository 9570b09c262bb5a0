"""Control groups of fixture trees through argus.Host, against an independent reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from argus.engine.host import Host

FIXTURES = Path(__file__).parents[2] / "fixtures"
UNIFIED = FIXTURES / "cgroup-v2/sys/fs/cgroup"
PRESSURE = ("cpu", "memory", "io", "irq")


@pytest.fixture(scope="module")
def values() -> dict[str, float]:
    return Host(proc=str(FIXTURES / "cgroup-v2/proc"), sys=str(FIXTURES / "cgroup-v2/sys")).read().as_dict()


def keyed(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}


def of_group(values: dict[str, float], path: str, name: str, **attributes: str) -> float:
    """The one value of a group that has this name and these attributes, underscores standing for points."""
    wanted = {f"{key.replace('_', '.')}={value}" for key, value in attributes.items()} | {f"cgroup.path={path}"}
    found = [
        value
        for full, value in values.items()
        if full.startswith(name + "{") and wanted <= set(full[len(name) + 1 : -1].split(","))
    ]
    assert len(found) == 1, (name, attributes, found)
    return found[0]


@pytest.mark.parametrize("group", [path.parent for path in sorted(UNIFIED.glob("*/**/memory.current"))], ids=str)
def test_values_of_a_group_are_what_its_files_say(values: dict[str, float], group: Path) -> None:
    """Every group with a memory controller, each of its numbers in base units."""
    path = "/" + str(group.relative_to(UNIFIED))
    cpu, stat, events = (keyed(group / name) for name in ("cpu.stat", "memory.stat", "memory.events"))
    for mode in ("user", "system"):
        assert of_group(values, path, "cgroup.cpu.time", cpu_mode=mode) == pytest.approx(cpu[f"{mode}_usec"] / 1e6)
    assert of_group(values, path, "cgroup.cpu.throttled.time") == pytest.approx(cpu["throttled_usec"] / 1e6)
    used = int((group / "memory.current").read_text())
    assert of_group(values, path, "cgroup.memory.usage") == used
    assert of_group(values, path, "cgroup.memory.working_set") == used - stat["inactive_file"]
    for kind in ("anon", "file", "kernel", "shmem", "slab", "sock"):
        assert of_group(values, path, "cgroup.memory.stat", cgroup_memory_type=kind) == stat[kind]
    for event in ("low", "high", "max", "oom"):
        assert of_group(values, path, "cgroup.memory.events", cgroup_memory_event=event) == events[event]
    limit = (group / "memory.max").read_text().strip()
    if limit == "max":
        assert not any(name.startswith(f"cgroup.memory.limit{{cgroup.path={path},") for name in values)
    else:
        assert of_group(values, path, "cgroup.memory.limit") == int(limit)
    for resource in PRESSURE:
        for line in (group / f"{resource}.pressure").read_text().splitlines():
            kind, total = line.split()[0], int(line.rsplit("=", 1)[1])
            seen = of_group(
                values, path, "cgroup.pressure.stall_time", cgroup_pressure_kind=kind, cgroup_pressure_resource=resource
            )
            assert seen == pytest.approx(total / 1e6)
    text = (group / "io.stat").read_text()
    read = [int(word[7:]) for word in text.split() if word.startswith("rbytes=")]
    assert of_group(values, path, "cgroup.disk.io", disk_io_direction="read") == sum(read)


def test_every_group_is_named_and_the_root_is_not(values: dict[str, float]) -> None:
    """Groups are told by path; the whole machine is no group."""
    paths = {name.split("cgroup.path=")[1].split(",")[0].rstrip("}") for name in values if "cgroup.path=" in name}
    assert paths == {"/" + str(path.relative_to(UNIFIED)) for path in UNIFIED.glob("**/*") if path.is_dir()}
    assert values["system.cgroup.count{cgroup.state=followed}"] == len(paths)
