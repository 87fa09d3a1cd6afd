"""What a backend makes of a model's weights: in memory of its own, or mapped from where an earlier run has kept it.

Mapped, it need not be made, several programs share it, and the weights that it was made of are never read.
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
"""What is smaller is made in some hundredths of a second."""


class MadeWeights:
    """Memory that a backend lays out, alike in each run.

    A file is believed to be one of ours if its size is right; what is in it the backend must hold against the weights.

    Args:
        nbytes: how much.
        files: where to keep it; None: nowhere.
        maker: the backend's name.

    Attributes:
        data: uint8, (nbytes,).
        is_filled: whether the content is there: an earlier run's, which cannot be written to, or, once the backend has
            said so, its own.
    """

    def __init__(self, nbytes: int, files: CheckpointFiles | None = None, maker: str = "") -> None:
        self._files = files if nbytes >= WORTH_BYTES else None
        self._name = maker + MADE
        mapped = self._map(nbytes)
        self._is_mapped = self.is_filled = mapped is not None
        self.data = new_memory(nbytes) if mapped is None else mapped

    def parts(self, sizes: Iterable[int]) -> list[Tensor]:
        """The memory cut into parts of these sizes, from its beginning on."""
        sizes = list(sizes)
        return [self.data[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]

    @property
    def will_be_kept(self) -> bool:
        """Whether `keep` has something to write, and may."""
        files = self._files
        is_new = self.is_filled and not self._is_mapped
        return files is not None and is_new and self.data.numel() <= files.cache.limit // 2

    def discard(self) -> None:
        """Put new memory in the place of a file that is not what it should be."""
        if self._files is not None:
            log.info("%s was not made of these weights: removed", quote(self._files.path(self._name)))
            self._files.remove(self._name)
        self._is_mapped = self.is_filled = False
        self.data = new_memory(self.data.numel())

    def keep(self) -> None:
        """Write what was made, unless it is there; at most half of the cache's limit. What cannot be written is not."""
        files, nbytes = self._files, self.data.numel()
        if files is None or not self.will_be_kept:
            return
        self._files = None  # once, whatever comes of it
        try:
            files.open_folder()
            if nbytes > files.room():
                log.info("made weights: the disk has too little room for them")
                return
            # Synced: to find out by a digest that a power cut tore it would take as long as making it.
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
