#!/usr/bin/env python3
"""The C++ tests under another kernel, in an emulated machine of its own: what of /proc, netlink and BPF differs there.

    python3 tools/try_kernel.py VMLINUZ [--tests build/python/argus_tests] [--only 'process tiers*,exits*']

VMLINUZ is a kernel image with what an initial RAM disk needs built in; Debian's cloud kernels have it and BTF:
apt-get download linux-image-VERSION-cloud-amd64-unsigned; dpkg -x PACKAGE FOLDER. Needs qemu-system-x86, busybox-static
and cpio. Emulated processors are slow: a test that times instruction sets, or wants a disk as root, fails there rightly.
The exit status is that of the tests; 2 when the machine did not come to an end. Standard library only.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUSYBOX = Path("/bin/busybox")  # statically linked
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir -p /sys/fs/cgroup; mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
echo "kernel $(uname -r)"
{command}
echo "tests ended with status $?"
poweroff -f
"""


def libraries(binary: Path) -> list[Path]:
    """What the loader maps for a binary."""
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=True)
    return [Path(path) for path in re.findall(r"(/\S+\.so\S*)", done.stdout)]


def bpf_library() -> list[Path]:
    """libbpf, which is loaded by name at run time; none where it is not installed."""
    done = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True)
    found = re.search(r"(/\S+/libbpf\.so\.1)$", done.stdout, re.MULTILINE)
    return [Path(found[1])] if found else []


def ram_disk(tests: Path, only: str | None, folder: Path) -> Path:
    """A root with the tests, their libraries and fixtures, each where it lies here."""
    root = folder / "root"
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    stand_ins = sorted(tests.parent.glob("libfake_nvml_*.so"))
    wanted = {tests, *bpf_library(), *stand_ins}
    wanted |= {library for binary in tuple(wanted) for library in libraries(binary)}
    for file in wanted:
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    fixtures = ROOT / "tests" / "fixtures"
    shutil.copytree(fixtures, root / fixtures.relative_to("/"), symlinks=True)
    init = root / "init"
    init.write_text(INIT.format(command=shlex.join([str(tests), "-nc", *([f"-tc={only}"] if only else [])])))
    init.chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(), capture_output=True, check=True
    )
    image = folder / "initrd.gz"
    image.write_bytes(gzip.compress(packed.stdout, 1))
    return image


def main() -> int:
    """Build the RAM disk, start the machine, show what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", type=Path)
    parser.add_argument("--tests", type=Path, default=ROOT / "build/python/argus_tests")
    parser.add_argument("--only", help="names of test cases, as argus_tests -tc takes them")
    parser.add_argument("--accelerator", default="tcg", help="of qemu; kvm where this machine lends its own (tcg)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds until it is taken for hung (600)")
    asked = parser.parse_args()
    for path in (asked.kernel, asked.tests):
        if not path.is_file():
            parser.error(f"expected a file, found none: {path}")
    for tool in ("qemu-system-x86_64", "cpio", str(BUSYBOX)):
        if shutil.which(tool) is None:
            parser.error(f"expected {tool}, found none (Debian: apt-get install qemu-system-x86 busybox-static cpio)")
    with tempfile.TemporaryDirectory() as name:
        disk = ram_disk(asked.tests.resolve(), asked.only, Path(name))
        machine = f"qemu-system-x86_64 -accel {asked.accelerator} -cpu max -smp 2 -m 2048 -nographic -no-reboot".split()
        boot = ["-kernel", str(asked.kernel), "-initrd", str(disk), "-append", "console=ttyS0 quiet panic=-1"]
        status = 2
        with subprocess.Popen(
            [*machine, *boot], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None
            overdue = threading.Timer(asked.timeout, process.kill)
            overdue.daemon = True
            overdue.start()
            for line in process.stdout:
                sys.stdout.write(line)
                found = re.search(r"tests ended with status (\d+)", line)
                status = int(found[1]) if found else status
            overdue.cancel()
    return status


if __name__ == "__main__":
    raise SystemExit(main())
