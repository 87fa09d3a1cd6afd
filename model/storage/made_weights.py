"""Memory for a backend's repacked weights: newly allocated, or mapped from the cache of an earlier run.

Mapped weights need no repacking, are shared by several programs, and their originals are never read.

A file is the weights, then one CRC-32 (little endian) for each `PIECE` bytes of them. Checking takes 0.3 s of one core
for each GB, so it runs in the background, after the first token.
"""

from __future__ import annotations

import logging
import os
import random
import struct
import threading
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate

from torch import Tensor

from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.disk_cache import MADE, CheckpointFiles
from gptoss.model.storage.mapping import MappedFile, as_tensor, map_file, new_memory
from gptoss.model.storage.regular_file import open_regular_file

log = logging.getLogger(__name__)

WORTH_BYTES = 64 << 20
"""Smaller weights are repacked in some hundredths of a second."""
PIECE = 16 << 20
"""Bytes that share a checksum."""

_CHECKSUM = struct.Struct("<I")
_CHECK = "checksums of cached weights"
_LOWEST_PRIORITY = 19


class MadeWeights:
    """Memory that a backend lays out in the same way in every run.

    The backend must compare a cached file with the weights, as far as that is quick; checksums find damage later.

    Args:
        nbytes: its size.
        files: the cache; None: none.
        maker: the backend's name.

    Attributes:
        data: uint8, (nbytes,).
        is_filled: whether it has its content: read-only from an earlier run, or the backend's own once the backend has
            set this.
    """

    def __init__(self, nbytes: int, files: CheckpointFiles | None = None, maker: str = "") -> None:
        self._files = files if nbytes >= WORTH_BYTES else None
        self._name = maker + MADE
        self._mapping = self._map(nbytes)
        self.is_filled = self._mapping is not None
        self.data = new_memory(nbytes) if self._mapping is None else as_tensor(self._mapping)[:nbytes]
        self._is_damaged = False
        self._check: threading.Thread | None = None

    def parts(self, sizes: Iterable[int]) -> list[Tensor]:
        """Split the memory into parts of these sizes, from its beginning."""
        sizes = list(sizes)
        return [self.data[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]

    @property
    def will_be_kept(self) -> bool:
        """Whether `keep` will write a file."""
        files = self._files
        is_new = self.is_filled and self._mapping is None
        return files is not None and is_new and self.data.numel() <= files.cache.limit // 2

    def discard(self) -> None:
        """Remove a cached file with wrong content, and allocate new memory."""
        if self._files is not None:
            log.info("%s was not made of these weights: removed", quote(self._files.path(self._name)))
            self._files.remove(self._name)
        self._mapping, self.is_filled = None, False
        self.data = new_memory(self.data.numel())

    @property
    def is_damaged(self) -> bool:
        """Whether a cached file was cut, or a checksum did not match, as far as known."""
        return self._mapping is not None and (self._is_damaged or self._mapping.is_cut())

    def require_sound(self) -> None:
        """Check what is known so far.

        Raises:
            CheckpointError: the cached file is damaged.
        """
        if self._mapping is not None and self.is_damaged:
            raise CheckpointError(
                f"{quote(self._mapping.path)}, a cached copy of the model's dense layers, is damaged, so answers since "
                "the model was loaded may be wrong: it is made anew; ask again"
            )

    def check_in_background(self) -> None:
        """Start, once, to compare a cached file with its checksums, in a thread of the lowest priority.

        It begins anywhere, so that many short runs together check all of the file.
        """
        if self._mapping is not None and self._check is None:
            self._check = threading.Thread(target=self._compare, args=(self._mapping,), name=_CHECK, daemon=True)
            self._check.start()

    def made_anew(self) -> MadeWeights:
        """Return new memory in place of a damaged file, and remove all that was computed with it from the cache."""
        assert self._files is not None
        self._files.clear()
        return MadeWeights(self.data.numel(), self._files, self._name.removesuffix(MADE))

    def keep(self) -> None:
        """Write new repacked weights to the cache if they take at most half of its limit; log failures."""
        files, nbytes = self._files, self.data.numel()
        if files is None or not self.will_be_kept:
            return
        self._files = None  # only once, even if it fails
        try:
            files.open_folder()
            if nbytes > files.room():
                log.info("made weights: the disk has too little room for them")
                return
            weights = self.data.numpy().data
            # Synced: after a power cut no torn file ends a later turn.
            files.write(self._name, (weights, _checksums(weights)), time.time_ns(), sync=True)
        except OSError as error:
            log.info("made weights: not kept: %s", error)
            return
        files.shrink()

    def _map(self, nbytes: int) -> MappedFile | None:
        if self._files is None or not self._files.touch(self._name, time.time_ns()):
            return None
        try:
            with open_regular_file(self._files.path(self._name)) as file:
                whole = nbytes + _CHECKSUM.size * -(-nbytes // PIECE)
                if file.seek(0, 2) == whole:
                    return map_file(file, whole, self._files.path(self._name))
        except OSError as error:
            log.info("made weights: not read: %s", error)
        return None

    def _compare(self, mapping: MappedFile) -> None:
        with suppress(OSError, AttributeError):  # on Linux alone a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        weights = self.data.numpy().data
        begins = range(0, len(weights), PIECE)
        first = random.randrange(len(begins))
        for index in (*range(first, len(begins)), *range(first)):
            if self._mapping is not mapping:
                return
            begin = begins[index]
            (expected,) = _CHECKSUM.unpack_from(mapping, len(weights) + index * _CHECKSUM.size)
            if zlib.crc32(weights[begin : begin + PIECE]) != expected:
                log.info("made weights: piece %d of %s is damaged", index, quote(mapping.path))
                self._is_damaged = True
                return
        log.info("made weights: %d checksums match", len(begins))


def _checksums(weights: memoryview) -> bytes:
    pieces = (weights[begin : begin + PIECE] for begin in range(0, len(weights), PIECE))
    return b"".join(_CHECKSUM.pack(zlib.crc32(piece)) for piece in pieces)
