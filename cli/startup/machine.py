"""Cores, memory, memory bandwidth and free disk space of this machine. Without torch."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
import time
from collections.abc import Iterator
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
        cores: number of cores that this process may use.
        memory_bytes: free memory, within a container's limit; None: unknown.
        disk_bytes: free disk space for models.
        bandwidth: bytes a second that all cores together copy in memory, measured; None: not measured.
        has_nvidia: an NVIDIA driver is installed.
    """

    cores: int
    memory_bytes: int | None
    disk_bytes: int
    bandwidth: float | None
    has_nvidia: bool


def look_at_machine(folder: Path) -> Machine:
    """Measure this machine, in about a quarter of a second.

    Args:
        folder: of the models; it may not exist yet.
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


def available_memory(
    proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup"), *, swap: bool = False
) -> int | None:
    """Return the bytes of free memory: the kernel's estimate, or the rest of a container's limit, whichever is less.

    Args:
        proc, cgroup: the kernel's file systems.
        swap: count free swap too.
    """
    bounds = []
    values = _fields(proc / "meminfo")
    if "MemAvailable:" in values:
        bounds.append(1024 * (values["MemAvailable:"] + (values.get("SwapFree:", 0) if swap else 0)))
    bounds += _container_bounds(proc, cgroup)
    if not bounds and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(bounds, default=None)


def _container_bounds(proc: Path, cgroup: Path) -> Iterator[int]:
    """Yield the free memory of each control group of this process, version 2 and version 1.

    Cached pages of files count as free: the kernel drops them when needed.
    """
    limits = (
        ("", cgroup, "memory.max", "memory.current", ""),
        ("memory", cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    )
    for controller, root, limit, usage, prefix in limits:
        own = _own_group(proc, controller)
        # In a container the path may be the host's; the root always exists.
        for folder in (root / own, *(root / own).parents):
            if not folder.is_relative_to(root):
                break
            try:
                limited, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, usage))
            except (OSError, ValueError):  # no such group, or `max`: no limit
                continue
            pages = _fields(folder / "memory.stat")
            files = sum(pages.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
            yield max(limited - max(used - files, 0), 0)


def _own_group(proc: Path, controller: str) -> str:
    """Return the path of this process's control group below the root; empty: unknown, or outside."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(",") and ".." not in Path(path).parts:
            return path.lstrip("/")
    return ""


def _fields(path: Path) -> dict[str, int]:
    """Return the first number of each line, by the word before it."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def copy_bandwidth(threads: int) -> float:
    """Measure the bytes a second that this many threads together read and write while copying memory."""
    # Written once: untouched pages are all the same zero page, in the CPU's cache.
    pairs = [(ctypes.create_string_buffer(b"\1" * _BUFFER_BYTES), bytearray(_BUFFER_BYTES)) for _ in range(threads)]
    copied = [0] * threads
    start = threading.Barrier(threads + 1)

    def copy(index: int) -> None:
        source, target = pairs[index]
        address = (ctypes.c_char * _BUFFER_BYTES).from_buffer(target)
        ctypes.memmove(address, source, _BUFFER_BYTES)  # allocates its pages
        start.wait()
        end = time.perf_counter() + _MEASURE_S
        while time.perf_counter() < end:
            ctypes.memmove(address, source, _BUFFER_BYTES)  # releases the interpreter lock
            copied[index] += 2 * _BUFFER_BYTES

    workers = [threading.Thread(target=copy, args=(index,), daemon=True) for index in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return sum(copied) / (time.perf_counter() - began)
