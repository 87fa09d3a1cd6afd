"""The prefix cache: keys and values of prompt prefixes on disk, so that later runs need not compute them again.

Prefixes are cut into blocks of 16 positions. A block's key is a hash of the previous block's key and its own tokens.
The first block's key also covers everything that the values depend on, as in vLLM's prefix cache (Kwon et al. 2023). So
a prompt finds the longest cached prefix, conversations share their common prefix, and only new blocks are written. With
one file per conversation, the same instructions would be stored once for each.

Knows token ids and tensors; the caller decides where the files are and what may be stored.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gptoss.model.storage.disk_cache import CheckpointFiles
from gptoss.model.storage.prefix_files import PrefixFiles
from gptoss.model.tensors.cache import KVCache

log = logging.getLogger(__name__)

BLOCK_TOKENS = 16
"""Positions of a block: 768 KiB for 20b. On average half a block of a prompt is computed again."""
DISK_BYTES_PER_S = 200e6
"""Speed of a plain disk; what pays there also pays on a faster one."""
WORTH_S = 0.5
"""Seconds that a file must save to be written."""

_STEP_NS = 1000


class PrefixStore:
    """The blocks of one checkpoint; a failing disk costs only the time that they would save.

    Args:
        files: their folder.
        computed: everything but the weights that affects keys and values.
        cache: a cache of the same shape and type as those that will be filled.
    """

    def __init__(self, files: CheckpointFiles, computed: str, cache: KVCache) -> None:
        self._files = files
        self._shape = cache.range_shape(BLOCK_TOKENS)
        self._dtype = cache.dtype
        self.token_bytes = cache.nbytes_of(1)
        identity = repr((files.checkpoint, computed, self._shape, str(self._dtype), BLOCK_TOKENS))
        self._root = hashlib.sha256(identity.encode()).digest()
        self._blocks = PrefixFiles(files, BLOCK_TOKENS, cache.nbytes_of(BLOCK_TOKENS))

    def blocks(self, ids: Sequence[int], known: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the cached blocks after the first `known` positions: where each begins, and its keys and values.

        The first one begins before `known` if that is inside a block. See `KVCache.import_range` for the shape.
        """
        for index, key in enumerate(self._keys(ids)):
            begin = index * BLOCK_TOKENS
            if begin + BLOCK_TOKENS <= known:
                continue
            data = self._blocks.read(key)
            if data is None:
                return
            yield begin, torch.frombuffer(data, dtype=self._dtype).view(self._shape)

    def pays(self, tokens: int, seconds_per_token: float) -> bool:
        """Return whether to store `tokens` positions, given the time to compute one.

        It pays if computing them again takes `WORTH_S` longer than a plain disk takes to write and read them.
        """
        return tokens * (seconds_per_token - 2 * self.token_bytes / DISK_BYTES_PER_S) >= WORTH_S

    def save(self, ids: Sequence[int], export: Callable[[int, int], Tensor]) -> None:
        """Store the missing whole blocks of the keys and values of `ids`; mark the others as used.

        The prefix of a prompt takes at most half of the cache's limit.

        Args:
            ids: the tokens.
            export: returns keys and values from one position to another; see `KVCache.export_range`.
        """
        files, blocks = self._files, self._blocks
        keys = list(self._keys(ids))[: files.cache.limit // 2 // blocks.block_bytes]
        if not keys:
            return
        written, now = 0, time.time_ns()
        try:
            files.open_folder()
            room = files.room()
            for index, key in enumerate(keys):
                # The end of a prompt is dated before its beginning, so that it is removed first.
                used = now - index * _STEP_NS
                if files.touch(blocks.name(key), used):
                    continue
                if written + blocks.block_bytes > room:
                    log.info("prefixes: the disk has too little room for more")
                    break
                values = export(index * BLOCK_TOKENS, (index + 1) * BLOCK_TOKENS)
                blocks.write(key, values.view(torch.uint8).flatten().numpy().data, used)
                written += blocks.block_bytes
        except OSError as error:
            log.info("prefixes: not kept: %s", error)
        log.info("prefixes: %d blocks, %d bytes written", len(keys), written)
        if written:
            files.shrink()

    def _keys(self, ids: Sequence[int]) -> Iterator[bytes]:
        """Yield the keys of all whole blocks of a prompt."""
        key = self._root
        for begin in range(0, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            key = hashlib.sha256(key + struct.pack(f"<{BLOCK_TOKENS}I", *ids[begin : begin + BLOCK_TOKENS])).digest()
            yield key
