"""Memory for a backend's repacked weights: newly allocated, or mapped from the cache of an earlier run.

Mapped weights need no repacking, are shared by several programs, and their originals are never read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from itertools import accumulate

from torch import Tensor

from gptoss.model.errors import quote
from gptoss.model.storage.disk_cache import MADE, CheckpointFiles
from gptoss.model.storage.mapping import as_tensor, map_file, new_memory
from gptoss.model.storage.regular_file import open_regular_file

log = logging.getLogger(__name__)

WORTH_BYTES = 64 << 20
"""Smaller weights are repacked in some hundredths of a second."""


class MadeWeights:
    """Memory that a backend lays out in the same way in every run.

    Only the size of a cached file is checked here; the backend must compare its content with the weights.

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
        mapped = self._map(nbytes)
        self._is_mapped = self.is_filled = mapped is not None
        self.data = new_memory(nbytes) if mapped is None else mapped

    def parts(self, sizes: Iterable[int]) -> list[Tensor]:
        """Split the memory into parts of these sizes, from its beginning."""
        sizes = list(sizes)
        return [self.data[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]

    @property
    def will_be_kept(self) -> bool:
        """Whether `keep` will write a file."""
        files = self._files
        is_new = self.is_filled and not self._is_mapped
        return files is not None and is_new and self.data.numel() <= files.cache.limit // 2

    def discard(self) -> None:
        """Remove a cached file with wrong content, and allocate new memory."""
        if self._files is not None:
            log.info("%s was not made of these weights: removed", quote(self._files.path(self._name)))
            self._files.remove(self._name)
        self._is_mapped = self.is_filled = False
        self.data = new_memory(self.data.numel())

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
            # Synced: detecting a file torn by a power cut with a digest would take as long as repacking.
            files.write(self._name, (self.data.numpy().data,), time.time_ns(), sync=True)
        except OSError as error:
            log.info("made weights: not kept: %s", error)
            return
        files.shrink()

    def _map(self, nbytes: int) -> Tensor | None:
        if self._files is None or not self._files.touch(self._name, time.time_ns()):
            return None
        try:
            with open_regular_file(self._files.path(self._name)) as file:
                if file.seek(0, 2) == nbytes:
                    return as_tensor(map_file(file, nbytes))
        except OSError as error:
            log.info("made weights: not read: %s", error)
        return None
