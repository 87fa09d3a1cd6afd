"""Memory in large pages, where the system has them: mapped files, and new allocations.

A large page costs one page fault and one TLB entry in place of 512.
"""

from __future__ import annotations

import ctypes
import mmap
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

import torch
from torch import Tensor

_WILL_NEED = getattr(mmap, "MADV_WILLNEED", 3)
_POPULATE_READ = 22  # Linux 5.14; other systems reject it


def map_file(file: BinaryIO, nbytes: int) -> mmap.mmap:
    """Map the first `nbytes` of a file, read-only, in large pages.

    By default Linux caches a file in pages no larger than the disk's read-ahead.
    """
    mapping = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_READ)
    _ask_for_large_pages(mapping)
    return mapping


def new_memory(nbytes: int) -> Tensor:
    """Allocate private memory: zeros, uint8, aligned to a page."""
    if not nbytes:
        return torch.empty(0, dtype=torch.uint8)
    private = getattr(mmap, "MAP_PRIVATE", None)
    if private is None:  # Windows
        return as_tensor(mmap.mmap(-1, nbytes))
    mapping = mmap.mmap(-1, nbytes, flags=private | mmap.MAP_ANONYMOUS)
    _ask_for_large_pages(mapping)
    return as_tensor(mapping)


def as_tensor(mapping: mmap.mmap) -> Tensor:
    """Return the mapped bytes as uint8; the mapping lives as long as the tensor's storage."""
    # Not a private writable mapping, for which torch would not warn: it counts as committed memory, so a file larger
    # than the machine's memory could not be mapped.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable", category=UserWarning)
        return torch.frombuffer(mapping, dtype=torch.uint8)


def fetch(part: Tensor) -> bool:
    """Read the pages of a part of mapped memory, and wait for them; return False if they were only requested.

    May be called from several threads; releases the interpreter lock.
    """
    if _advise(part, _POPULATE_READ):
        return True
    _advise(part, _WILL_NEED)
    return False


def _ask_for_large_pages(mapping: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without large pages
            mapping.madvise(mmap.MADV_HUGEPAGE)


def _advise(part: Tensor, advice: int) -> bool:
    """Call madvise on mapped memory; return whether it succeeded."""
    begin = part.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = part.data_ptr() + part.numel() * part.itemsize - begin
    # Not the mapping's own method, which holds the interpreter lock until the disk has answered.
    return _madvise is not None and _madvise(begin, length, advice) == 0


def _find_madvise() -> Callable[[int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, TypeError, AttributeError):  # no libc with madvise
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


_madvise = _find_madvise()
