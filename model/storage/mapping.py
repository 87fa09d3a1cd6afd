"""Memory in large pages, where the system has them: mapped files, and new allocations.

A large page costs one page fault and one TLB entry in place of 512.
"""

from __future__ import annotations

import ctypes
import mmap
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from gptoss.model.errors import CheckpointError, quote

try:
    from gptoss.model.storage import _mapped_files
except ImportError:  # not built: a file that is cut while it is mapped ends the process
    _mapped_files = None  # type: ignore[assignment]

_WILL_NEED = getattr(mmap, "MADV_WILLNEED", 3)
_POPULATE_READ = 22  # Linux 5.14; other systems reject it


class MappedFile(mmap.mmap):
    """A file that is mapped read-only; what is cut off while it is mapped reads as zeros (see `require_whole`).

    Attributes:
        path: of the file, for messages.
    """

    path = ""
    _slot = -1

    def watch(self, path: Path) -> None:
        """Have missing pages replaced by zeros, where the system allows it."""
        self.path = str(path)
        if _mapped_files is not None and len(self):
            self._slot = _mapped_files.watch(as_tensor(self).data_ptr(), -(-len(self) // mmap.PAGESIZE) * mmap.PAGESIZE)

    def is_cut(self) -> bool:
        """Return whether pages were missing when they were read, or the file is shorter than it was."""
        if _mapped_files is not None and _mapped_files.is_cut(self._slot):
            return True
        return self.size() < len(self)  # a cut within a page leaves zeros in it and raises no fault

    def __del__(self) -> None:
        if _mapped_files is not None:
            _mapped_files.unwatch(self._slot)


def map_file(file: BinaryIO, nbytes: int, path: Path) -> MappedFile:
    """Map the first `nbytes` of a file, read-only, in large pages; `path` is for messages.

    By default Linux caches a file in pages no larger than the disk's read-ahead.
    """
    mapping = MappedFile(file.fileno(), nbytes, access=mmap.ACCESS_READ)
    mapping.watch(path)
    _ask_for_large_pages(mapping)
    return mapping


def require_whole(files: Iterable[MappedFile]) -> None:
    """Check that none of the files has lost pages that were read, or is shorter; costs a system call a file.

    Whoever computes with mapped weights calls this before the result is used.

    Raises:
        CheckpointError: a file was cut, or its disk failed, while it was mapped.
    """
    for file in files:
        if file.is_cut():
            raise CheckpointError(
                f"{quote(file.path)} was cut short, or could not be read, while it was in use: "
                "put the whole file back, and start again"
            )


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


def release(mapping: mmap.mmap, begin: int, nbytes: int) -> None:
    """Release the memory of the pages of a part of a mapped file; they are read again when needed."""
    page = mmap.PAGESIZE
    first, last = begin // page * page, (begin + nbytes) // page * page
    if last > first and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


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
