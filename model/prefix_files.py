"""The files in which keys and values of prompts are kept: private, written whole or not at all, and never believed.

    FOLDER/<model>/<key>.kv     a block of positions: a header, then as many bytes as the reader knows there must be
    FOLDER/<model>/name         what the model was called last, for people

A block is named by its key, a hash of all that its bytes depend on. A file that is not what its name says, damaged or
forged, is removed; what cannot be read or written is done without. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gptoss.model.errors import quote
from gptoss.model.json_file import open_regular_file

log = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview

MAGIC = b"gptossKV"
VERSION = 1
LEFT_FREE = 1 << 30
"""Bytes of the disk that are left to others."""

_HEADER = struct.Struct("<8sIIQ32s")  # magic, version, positions, bytes that follow, key; then their digest
_DIGEST_BYTES = 32
_SUFFIX, _UNFINISHED, _NAME = ".kv", ".new", "name"
_MAX_NAME = 200
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class KeptModel:
    """What is kept of one model.

    Attributes:
        folder: where.
        name: what the model was called when something was kept last.
        blocks: how many files.
        positions: how many tokens have their keys and values in them.
        nbytes: their size.
        used: seconds since the epoch when one was written or used last.
    """

    folder: Path
    name: str
    blocks: int
    positions: int
    nbytes: int
    used: float


class PrefixFiles:
    """The blocks of one model.

    Args:
        root: the folder of all models.
        model: the name of this one's folder in it.
        positions: of a block.
        nbytes: of a block's keys and values.
        limit: bytes that all files under `root` may have together.
    """

    def __init__(self, root: Path, model: str, positions: int, nbytes: int, limit: int) -> None:
        self.root = root
        self.folder = root / model
        self.limit = limit
        self.block_bytes = _HEADER.size + _DIGEST_BYTES + nbytes
        self._positions = positions
        self._nbytes = nbytes

    def read(self, key: bytes) -> bytearray | None:
        """The bytes of a block; None where there is none, or none that is sound."""
        path = self._path(key)
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
        with suppress(OSError):
            path.unlink()
        return None

    def touch(self, key: bytes, used_ns: int) -> bool:
        """Note that a block was used at that time; False where there is none."""
        try:
            os.utime(self._path(key), ns=(used_ns, used_ns))
        except OSError:
            return False
        return True

    def write(self, key: bytes, data: Buffer, used_ns: int) -> None:
        """Write a block whole, as one that was used at that time.

        Raises:
            OSError: that is not possible.
        """
        header = self._header(key)
        _write_whole(self._path(key), (header, _digest(header, data), data), used_ns)

    def open_folder(self, name: str) -> None:
        """Make the folder of this model, for its owner alone, and note what the model is called.

        Raises:
            OSError: that is not possible.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        name = name[:_MAX_NAME]
        if _read_name(self.folder) != name:
            _write_whole(self.folder / _NAME, (name.encode("utf-8", "replace"),), time.time_ns())

    def room(self) -> int:
        """Bytes that may be written before the disk has too little left for others.

        Raises:
            OSError: there is no such folder.
        """
        return max(0, shutil.disk_usage(self.root).free - LEFT_FREE)

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}{_SUFFIX}"

    def _header(self, key: bytes) -> bytes:
        return _HEADER.pack(MAGIC, VERSION, self._positions, self._nbytes, key)


def kept_models(root: Path) -> list[KeptModel]:
    """What is kept of every model, the one that was used last first."""
    found = []
    for folder in _folders(root):
        blocks = [block for block in _blocks(folder) if block.path.suffix == _SUFFIX]
        if not blocks:
            continue
        positions = sum(_positions_of(block.path) for block in blocks)
        nbytes, used = sum(block.nbytes for block in blocks), max(block.used for block in blocks) / 1e9
        found.append(KeptModel(folder, _read_name(folder), len(blocks), positions, nbytes, used))
    return sorted(found, key=lambda model: model.used, reverse=True)


def shrink(root: Path, limit: int) -> None:
    """Remove the blocks that were used longest ago, of whatever model, until all have at most `limit` bytes.

    Of one prompt the end goes before the beginning, without which it is of no use: it has the earlier time.
    """
    now = time.time_ns()
    blocks = [block for folder in _folders(root) for block in _blocks(folder)]
    for block in blocks:
        if block.path.suffix == _UNFINISHED and now - block.used > _ABANDONED_S * 1e9:  # by a program that was killed
            _remove(block.path)
    kept = [block for block in blocks if block.path.suffix == _SUFFIX]
    total = sum(block.nbytes for block in kept)
    # What a clock that was wrong has dated into the future would otherwise never go.
    for block in sorted(kept, key=lambda block: block.used if block.used - now < _ABANDONED_S * 1e9 else 0):
        if total <= limit:
            break
        _remove(block.path)
        total -= block.nbytes
    for folder in {block.path.parent for block in kept}:
        _remove_if_unused(folder)


def clear(root: Path) -> int:
    """Remove all that is kept of every model; how many bytes that were.

    Raises:
        OSError: something cannot be removed.
    """
    removed = 0
    for folder in _folders(root):
        for block in _blocks(folder):
            block.path.unlink(missing_ok=True)
            removed += block.nbytes
        _remove_if_unused(folder)
    return removed


@dataclass(frozen=True)
class _Block:
    path: Path
    nbytes: int
    used: int


def _blocks(folder: Path) -> Iterator[_Block]:
    """The files of a model that are ours, those that are not finished too."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((_SUFFIX, _UNFINISHED)):
                with suppress(OSError):  # another program has removed it
                    status = entry.stat(follow_symlinks=False)
                    yield _Block(Path(entry.path), status.st_size, status.st_mtime_ns)


def _folders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _positions_of(path: Path) -> int:
    """What a block says of itself, for people."""
    with suppress(OSError, struct.error), open_regular_file(path) as file:
        magic, version, positions, *_ = _HEADER.unpack(file.read(_HEADER.size))
        if (magic, version) == (MAGIC, VERSION):
            return int(positions)
    return 0


def _read_name(folder: Path) -> str:
    try:
        with open_regular_file(folder / _NAME) as file:
            return file.read(4 * _MAX_NAME).decode("utf-8", "replace")
    except OSError:
        return ""


def _write_whole(path: Path, parts: Iterable[Buffer], modified_ns: int) -> None:
    """Give a file its name when it is whole. No sync: a block that a power cut tore is found out by its digest."""
    unfinished = path.with_name(f".{secrets.token_hex(8)}{_UNFINISHED}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in parts:
                left = memoryview(part)
                while left:
                    left = left[file.write(left) :]
        os.utime(unfinished, ns=(modified_ns, modified_ns))
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _digest(header: bytes, data: Buffer) -> bytes:
    digest = hashlib.sha256(header)
    digest.update(data)
    return digest.digest()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _remove_if_unused(folder: Path) -> None:
    if not any(_blocks(folder)):
        _remove(folder / _NAME)
        with suppress(OSError):
            folder.rmdir()
