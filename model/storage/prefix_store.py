"""Keys and values of the beginnings of prompts, kept on the disk so that the next program need not compute them again.

They are cut into blocks of 16 positions. A block's key is a hash of the key of the block before it and of its own
tokens, the first one's of what made the values, as vLLM names the blocks of its prefix cache (Kwon et al. 2023): so a
prompt finds the longest beginning that was ever kept, two conversations share what they have in common, and only what
is new is written. Whole files, one a conversation, would hold the same instructions once for each.

Knows token ids and tensors; where the files lie and what may be kept is for others to say.
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
"""Positions of a block: 768 KiB of 20b. On average half a block of a prompt is computed again."""
DISK_BYTES_PER_S = 200e6
"""What a plain disk reads or writes; what pays there pays on a faster one."""
WORTH_S = 0.5
"""Seconds that must be saved for a file to be written at all."""

_STEP_NS = 1000


class PrefixStore:
    """The blocks of one checkpoint; a disk that fails costs nothing but the time that they would save.

    Args:
        files: where they lie.
        computed: how keys and values are computed, as far as they depend on it.
        cache: one like those that are filled from here.
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
        """The blocks that go on where `known` positions end: where each begins, and its keys and values.

        The first one may begin before `known`, where that is within a block. See `KVCache.import_range` for the shape.
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
        """Whether `tokens` positions should be kept, where it took so long to compute one.

        It pays where computing them again takes `WORTH_S` longer than a plain disk takes to write and to read them.
        """
        return tokens * (seconds_per_token - 2 * self.token_bytes / DISK_BYTES_PER_S) >= WORTH_S

    def save(self, ids: Sequence[int], export: Callable[[int, int], Tensor]) -> None:
        """Keep the keys and values of `ids`: whole blocks, those that are not there yet; the others count as used.

        At most half of the folder's limit goes to one prompt: its beginning.

        Args:
            ids: the tokens.
            export: keys and values from one position to another; see `KVCache.export_range`.
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
                # The end of a prompt is older than its beginning, so that it is the first to go.
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
        """The keys of all whole blocks of a prompt."""
        key = self._root
        for begin in range(0, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            key = hashlib.sha256(key + struct.pack(f"<{BLOCK_TOKENS}I", *ids[begin : begin + BLOCK_TOKENS])).digest()
            yield key
