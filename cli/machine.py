"""What this machine has for a model: cores, memory, room on the disk, and how fast its memory is. Without torch."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_BUFFER_BYTES = 16 << 20
_MAX_THREADS = 8
_MEASURE_S = 0.12
_NEEDED_TO_MEASURE = 1 << 30


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        cores: that this process may use.
        memory_bytes: that the kernel would give now, a container's limit considered; None: it does not say.
        disk_bytes: free where models are kept.
        bandwidth: bytes a second that all cores together move through memory, measured just now; None: not measured.
        has_nvidia: whether there is an NVIDIA driver.
    """

    cores: int
    memory_bytes: int | None
    disk_bytes: int
    bandwidth: float | None
    has_nvidia: bool


def look_at_machine(folder: Path) -> Machine:
    """Look at this machine; takes about a quarter of a second.

    Args:
        folder: where models are kept; it need not be there yet.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = available_memory()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return Machine(
        cores=cores,
        memory_bytes=memory,
        disk_bytes=shutil.disk_usage(existing).free,
        bandwidth=copy_bandwidth(min(cores, _MAX_THREADS)) if memory is None or memory > _NEEDED_TO_MEASURE else None,
        has_nvidia=Path("/proc/driver/nvidia/version").exists(),
    )


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that programs can have without swapping: what the kernel estimates, or what a container has left."""
    bounds = []
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii", errors="replace").splitlines()
        bounds += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    try:
        limit, used = ((cgroup / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        bounds += [max(int(limit) - int(used), 0)]
    except (OSError, ValueError):  # no container, or `max`: no limit
        pass
    if not bounds and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(bounds, default=None)


def copy_bandwidth(threads: int) -> float:
    """Bytes a second that this many threads read and write together when they copy memory."""
    # Filled with something: untouched pages all read as the same one, from the cache.
    pairs = [(ctypes.create_string_buffer(b"\1" * _BUFFER_BYTES), bytearray(_BUFFER_BYTES)) for _ in range(threads)]
    copied = [0] * threads
    start = threading.Barrier(threads + 1)

    def copy(index: int) -> None:
        source, target = pairs[index]
        address = (ctypes.c_char * _BUFFER_BYTES).from_buffer(target)
        ctypes.memmove(address, source, _BUFFER_BYTES)  # so that its pages are there
        start.wait()
        end = time.perf_counter() + _MEASURE_S
        while time.perf_counter() < end:
            ctypes.memmove(address, source, _BUFFER_BYTES)  # other threads run meanwhile
            copied[index] += 2 * _BUFFER_BYTES

    workers = [threading.Thread(target=copy, args=(index,), daemon=True) for index in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return sum(copied) / (time.perf_counter() - began)
