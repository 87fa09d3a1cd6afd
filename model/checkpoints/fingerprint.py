"""What tells one checkpoint from another without reading all of it, in milliseconds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from gptoss.model.checkpoints.folder import MAX_CONFIG_BYTES, CheckpointFolder
from gptoss.model.errors import CheckpointError
from gptoss.model.storage.regular_file import open_regular_file

_CONFIG = "config.json"
_WEIGHTS = ".safetensors"
_PIECES, _PIECE_BYTES = 6, 4096


def fingerprint(path: Path) -> str:
    """A hash that changes when the checkpoint in a folder does.

    Of the config all bytes count; of each file of weights which file it is (device, inode, size, time of the last
    change), and pieces of it, from the header to the end: a file that was written over with its old time put back is
    found out by those, unless only weights between them have changed.

    Raises:
        CheckpointError: a file cannot be read.
    """
    folder = CheckpointFolder(path)
    digest = hashlib.sha256()
    try:
        for name in folder.names():
            if name == _CONFIG or name.endswith(_WEIGHTS):
                digest.update(repr(name).encode("utf-8", "surrogateescape"))
                digest.update(_sample(folder.file(name), whole=name == _CONFIG))
    except OSError as error:
        raise CheckpointError(f"{error.filename or folder.path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _sample(path: Path, *, whole: bool) -> bytes:
    with open_regular_file(path) as file:
        if whole:
            return hashlib.sha256(file.read(MAX_CONFIG_BYTES)).digest()
        status = os.fstat(file.fileno())
        digest = hashlib.sha256(repr((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)).encode())
        last = max(0, status.st_size - _PIECE_BYTES)
        for piece in range(_PIECES):
            file.seek(last * piece // (_PIECES - 1))
            digest.update(file.read(_PIECE_BYTES))
    return digest.digest()
