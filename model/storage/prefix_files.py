"""The files in which keys and values of prompts are kept: blocks of positions, and never believed.

A block is named by its key, a hash of all that its bytes depend on; it is a header, then as many bytes as the reader
knows there must be. A file that is not what its name says, damaged or forged, is removed. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import logging
import struct

from gptoss.model.errors import quote
from gptoss.model.storage.disk_cache import PREFIX, Buffer, CheckpointFiles
from gptoss.model.storage.regular_file import open_regular_file

log = logging.getLogger(__name__)

MAGIC = b"gptossKV"
VERSION = 1

_HEADER = struct.Struct("<8sIIQ32s")  # magic, version, positions, bytes that follow, key; then their digest
_DIGEST_BYTES = 32


class PrefixFiles:
    """The blocks of one checkpoint.

    Args:
        files: where they lie.
        positions: of a block.
        nbytes: of a block's keys and values.
    """

    def __init__(self, files: CheckpointFiles, positions: int, nbytes: int) -> None:
        self.block_bytes = _HEADER.size + _DIGEST_BYTES + nbytes
        self._files = files
        self._positions = positions
        self._nbytes = nbytes

    def read(self, key: bytes) -> bytearray | None:
        """The bytes of a block; None where there is none, or none that is sound."""
        path = self._files.path(self.name(key))
        try:
            with open_regular_file(path) as file:
                head = file.read(_HEADER.size + _DIGEST_BYTES)
                # One byte more than there should be is asked for: a longer file is none of ours.
                data = bytearray(file.read(self._nbytes + 1))
        except OSError:
            return None
        header = self._header(key)
        if len(data) == self._nbytes and head == header + _digest(header, data):
            return data
        log.info("%s is not what its name says: removed", quote(path))
        self._files.remove(self.name(key))
        return None

    def write(self, key: bytes, data: Buffer, used_ns: int) -> None:
        """Write a block whole, as one that was used at that time.

        Raises:
            OSError: that is not possible.
        """
        header = self._header(key)
        # No sync: a block that a power cut tore is found out by its digest.
        self._files.write(self.name(key), (header, _digest(header, data), data), used_ns)

    def name(self, key: bytes) -> str:
        """Of a block's file."""
        return f"{key.hex()}.{self._positions}{PREFIX}"

    def _header(self, key: bytes) -> bytes:
        return _HEADER.pack(MAGIC, VERSION, self._positions, self._nbytes, key)


def _digest(header: bytes, data: Buffer) -> bytes:
    digest = hashlib.sha256(header)
    digest.update(data)
    return digest.digest()
