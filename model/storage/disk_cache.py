"""The cache on disk: prefixes and repacked weights of checkpoints, for later runs. Private and bounded.

    ROOT/<checkpoint>/<key>.<positions>.kv    keys and values of a prompt's tokens (`prefix_files`)
    ROOT/<checkpoint>/<name>.made             repacked weights of a backend (`made_weights`)
    ROOT/<checkpoint>/name                    the model's latest name, for people

A file gets its name when it is complete. Failures to read or write only cost time. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gptoss.model.storage.regular_file import make_private_folder, open_regular_file

Buffer = bytes | bytearray | memoryview

PREFIX, MADE = ".kv", ".made"
"""Suffixes of the two kinds of files."""
LEFT_FREE = 1 << 30
"""Bytes of the disk that stay free."""

_UNFINISHED, _NAME = ".new", "name"
_MAX_NAME = 200
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class DiskCache:
    """The cache of all models.

    Attributes:
        path: its folder.
        limit: bytes that all its files may have together.
        name: the name of the model in use, for people.
    """

    path: Path
    limit: int
    name: str

    def of(self, checkpoint: str) -> CheckpointFiles:
        """Return the files of the checkpoint with this fingerprint."""
        return CheckpointFiles(self, checkpoint)


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint in the cache."""

    cache: DiskCache
    checkpoint: str

    @property
    def folder(self) -> Path:
        """Their folder."""
        return self.cache.path / hashlib.sha256(self.checkpoint.encode()).hexdigest()[:16]

    def path(self, name: str) -> Path:
        """Return the path of the file of this name, which may be missing."""
        return self.folder / name

    def touch(self, name: str, used_ns: int) -> bool:
        """Record when a file was used; return False if it is missing."""
        try:
            os.utime(self.path(name), ns=(used_ns, used_ns))
        except OSError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if possible."""
        _remove(self.path(name))

    def clear(self) -> None:
        """Remove all files of this checkpoint, as far as possible."""
        for file in _files(self.folder):
            _remove(file.path)
        _remove_if_unused(self.folder)

    def open_folder(self) -> None:
        """Create the folder of this checkpoint, accessible to its owner only, and record the model's name.

        Raises:
            OSError: it cannot be created.
        """
        make_private_folder(self.cache.path)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        name = self.cache.name[:_MAX_NAME]
        if _read_name(self.folder) != name:
            self.write(_NAME, (name.encode("utf-8", "replace"),), time.time_ns())

    def room(self) -> int:
        """Return the bytes that may be written before the disk is too full.

        Raises:
            OSError: there is no such folder.
        """
        return max(0, shutil.disk_usage(self.cache.path).free - LEFT_FREE)

    def write(self, name: str, parts: Iterable[Buffer], used_ns: int, *, sync: bool = False) -> None:
        """Write a file atomically, with `used_ns` as the time of its last use; `sync`: flush it to the disk first.

        Raises:
            OSError: it cannot be written; nothing of it is left.
        """
        unfinished = self.folder / f".{secrets.token_hex(8)}{_UNFINISHED}"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for part in parts:
                    left = memoryview(part)
                    while left:
                        left = left[file.write(left) :]
                if sync:
                    os.fsync(file.fileno())
            os.utime(unfinished, ns=(used_ns, used_ns))
            unfinished.replace(self.path(name))
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise

    def shrink(self) -> None:
        """Bring the whole cache, not only this checkpoint's part, under its limit."""
        shrink(self.cache.path, self.cache.limit)


@dataclass(frozen=True)
class KeptModel:
    """The cached files of one model.

    Attributes:
        folder: their folder.
        name: the model's name when a file was written last.
        positions: tokens whose keys and values are cached.
        made_bytes: bytes of repacked weights.
        nbytes: bytes of all files.
        used: time of the last use, in seconds since the epoch.
    """

    folder: Path
    name: str
    positions: int
    made_bytes: int
    nbytes: int
    used: float


def kept_models(root: Path) -> list[KeptModel]:
    """Return the cached models, the most recently used first."""
    found = []
    for folder in _folders(root):
        files = [file for file in _files(folder) if file.path.suffix != _UNFINISHED]
        if not files:
            continue
        positions = sum(_positions_of(file.path) for file in files)
        made = sum(file.nbytes for file in files if file.path.suffix == MADE)
        nbytes, used = sum(file.nbytes for file in files), max(file.used for file in files) / 1e9
        found.append(KeptModel(folder, _read_name(folder), positions, made, nbytes, used))
    return sorted(found, key=lambda model: model.used, reverse=True)


def shrink(root: Path, limit: int) -> None:
    """Remove the least recently used files, of all models, until the rest has at most `limit` bytes.

    The end of a prompt goes before its beginning, without which it is useless: its time is earlier.
    """
    now = time.time_ns()
    files = [file for folder in _folders(root) for file in _files(folder)]
    for file in files:
        if file.path.suffix == _UNFINISHED and now - file.used > _ABANDONED_S * 1e9:  # left by a killed program
            _remove(file.path)
    kept = [file for file in files if file.path.suffix != _UNFINISHED]
    total = sum(file.nbytes for file in kept)
    # Files dated into the future by a wrong clock would otherwise never be removed.
    for file in sorted(kept, key=lambda file: file.used if file.used - now < _ABANDONED_S * 1e9 else 0):
        if total <= limit:
            break
        _remove(file.path)
        total -= file.nbytes
    for folder in {file.path.parent for file in kept}:
        _remove_if_unused(folder)


def clear(root: Path, *, prefixes_alone: bool = False) -> int:
    """Remove all cached files, or only those of prefixes; return their bytes.

    Raises:
        OSError: something cannot be removed.
    """
    removed = 0
    for folder in _folders(root):
        for file in _files(folder):
            if prefixes_alone and file.path.suffix == MADE:
                continue
            file.path.unlink(missing_ok=True)
            removed += file.nbytes
        _remove_if_unused(folder)
    return removed


@dataclass(frozen=True)
class _File:
    path: Path
    nbytes: int
    used: int


def _files(folder: Path) -> Iterator[_File]:
    """Yield the cache's files in a folder, including unfinished ones."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((PREFIX, MADE, _UNFINISHED)):
                with suppress(OSError):  # removed by another program
                    status = entry.stat(follow_symlinks=False)
                    yield _File(Path(entry.path), status.st_size, status.st_mtime_ns)


def _folders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _positions_of(path: Path) -> int:
    """Return the number of positions in a block's name, for people."""
    _key, _, positions = path.stem.rpartition(".")
    return int(positions) if path.suffix == PREFIX and positions.isdecimal() and len(positions) < 10 else 0


def _read_name(folder: Path) -> str:
    try:
        with open_regular_file(folder / _NAME) as file:
            return file.read(4 * _MAX_NAME).decode("utf-8", "replace")
    except OSError:
        return ""


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _remove_if_unused(folder: Path) -> None:
    if not any(_files(folder)):
        _remove(folder / _NAME)
        with suppress(OSError):
            folder.rmdir()
