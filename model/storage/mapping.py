"""Memory in large pages, where the system has them: mapped files, and new memory for what is made of them.

A large page is mapped in one go and takes one entry of the processor's table of addresses, where small ones take 512.
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
_POPULATE_READ = 22  # Linux 5.14; elsewhere it is refused


def map_file(file: BinaryIO, nbytes: int) -> mmap.mmap:
    """The beginning of a file, to be read only.

    Linux by default reads a file in pages as small as the disk's read-ahead; they stay so small as long as they are in
    memory.
    """
    mapping = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_READ)
    _ask_for_large_pages(mapping)
    return mapping


def new_memory(nbytes: int) -> Tensor:
    """Memory of this process alone: zeros, uint8, aligned to a page."""
    if not nbytes:
        return torch.empty(0, dtype=torch.uint8)
    private = getattr(mmap, "MAP_PRIVATE", None)
    if private is None:  # Windows
        return as_tensor(mmap.mmap(-1, nbytes))
    mapping = mmap.mmap(-1, nbytes, flags=private | mmap.MAP_ANONYMOUS)
    _ask_for_large_pages(mapping)
    return as_tensor(mapping)


def as_tensor(mapping: mmap.mmap) -> Tensor:
    """The mapped bytes, as uint8; the mapping lives as long as the tensor's storage."""
    # Not a private writable mapping, though torch would take that without a warning: such a one counts against the
    # memory the kernel may promise, so a file larger than the machine's memory could not be mapped at all.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable", category=UserWarning)
        return torch.frombuffer(mapping, dtype=torch.uint8)


def fetch(part: Tensor) -> bool:
    """Have the pages under a part of mapped memory read in and wait for them; False: they were only asked for.

    May be called from several threads, and the interpreter goes on meanwhile.
    """
    if _advise(part, _POPULATE_READ):
        return True
    _advise(part, _WILL_NEED)
    return False


def _ask_for_large_pages(mapping: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            mapping.madvise(mmap.MADV_HUGEPAGE)


def _advise(part: Tensor, advice: int) -> bool:
    """Tell the kernel what is to be done with the pages of mapped memory; whether it did."""
    begin = part.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = part.data_ptr() + part.numel() * part.itemsize - begin
    # Not the mapping's own method: that one holds the interpreter until the disk has answered.
    return _madvise is not None and _madvise(begin, length, advice) == 0


def _find_madvise() -> Callable[[int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, TypeError, AttributeError):  # no such system
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


_madvise = _find_madvise()
