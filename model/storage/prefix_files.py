"""The files of the prefix cache, a block of positions each; every file is validated when it is read.

A block is named by its key, a hash of everything that its bytes depend on. It is a header, then exactly the bytes that
the reader expects. A damaged or forged file is removed. Imports no torch.
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
        files: their folder.
        positions: tokens of a block.
        nbytes: bytes of a block's keys and values.
    """

    def __init__(self, files: CheckpointFiles, positions: int, nbytes: int) -> None:
        self.block_bytes = _HEADER.size + _DIGEST_BYTES + nbytes
        self._files = files
        self._positions = positions
        self._nbytes = nbytes

    def read(self, key: bytes) -> bytearray | None:
        """Return the bytes of a block; None: missing or invalid."""
        path = self._files.path(self.name(key))
        try:
            with open_regular_file(path) as file:
                head = file.read(_HEADER.size + _DIGEST_BYTES)
                # One byte more than expected: a longer file is invalid.
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
        """Write a block atomically, with `used_ns` as the time of its last use.

        Raises:
            OSError: it cannot be written.
        """
        header = self._header(key)
        # No sync: the digest detects a block torn by a power cut.
        self._files.write(self.name(key), (header, _digest(header, data), data), used_ns)

    def name(self, key: bytes) -> str:
        """Return the name of a block's file."""
        return f"{key.hex()}.{self._positions}{PREFIX}"

    def _header(self, key: bytes) -> bytes:
        return _HEADER.pack(MAGIC, VERSION, self._positions, self._nbytes, key)


def _digest(header: bytes, data: Buffer) -> bytes:
    digest = hashlib.sha256(header)
    digest.update(data)
    return digest.digest()
