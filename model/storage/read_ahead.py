"""Reads mapped files into memory in file order, in background threads.

Otherwise the kernels wait for each page when they first touch it, in the order of the computation. Even pages in the
system's cache cost a fault for every few of them. Requests of large pieces are several times as fast.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from torch import Tensor

from gptoss.model.storage.mapping import fetch

Reading = Callable[[int, int], None]
"""Called with the bytes that have been read, and the bytes in all."""

_PIECE_BYTES = 64 << 20
# While one waits for the disk, the other has sent a request. A third was not faster.
_THREADS = 2


class ReadAhead:
    """A context manager: entering starts the reading, leaving waits for its end; an exception stops it at once.

    Args:
        parts: uint8 tensors over mapped files, in the order to read them; there must be memory for all of them.
        reading: called after each piece, from other threads, one at a time.
    """

    def __init__(self, parts: Sequence[Tensor], reading: Reading | None = None) -> None:
        self._pieces = (part[at : at + _PIECE_BYTES] for part in parts for at in range(0, part.numel(), _PIECE_BYTES))
        self._done, self._total = 0, sum(part.numel() for part in parts)
        self._reading = reading
        self._lock = threading.Lock()
        self._stopped = False
        self._threads = [threading.Thread(target=self._run, name="read ahead", daemon=True) for _ in range(_THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stopped = True
            return
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                piece = None if self._stopped else next(self._pieces, None)
            if piece is None:
                return
            if not fetch(piece):
                piece[:: mmap.PAGESIZE].sum()
            with self._lock:
                if self._stopped:
                    return
                self._done += piece.numel()
                if self._reading is not None:
                    self._reading(self._done, self._total)
