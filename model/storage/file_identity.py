"""Tells one large file from another without reading all of it."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

_PIECES, _PIECE_BYTES = 6, 4096


def file_identity(file: BinaryIO) -> bytes:
    """Return a hash of device, inode, size, modification time, and six pieces of the file, the first and last included.

    So a file that was overwritten in place and given its old time back still differs, unless only bytes between the
    pieces have changed.
    """
    status = os.fstat(file.fileno())
    digest = hashlib.sha256(repr((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)).encode())
    last = max(0, status.st_size - _PIECE_BYTES)
    for piece in range(_PIECES):
        file.seek(last * piece // (_PIECES - 1))
        digest.update(file.read(_PIECE_BYTES))
    return digest.digest()
