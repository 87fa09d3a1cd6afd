"""The cache on the disk: what was computed of a checkpoint and may be of use to a later run. Private and bounded.

    ROOT/<checkpoint>/<key>.<positions>.kv    keys and values of a prompt's tokens (`prefix_files`)
    ROOT/<checkpoint>/<name>.made             what a backend made of the weights (`made_weights`)
    ROOT/<checkpoint>/name                    what the model was called last, for people

A file gets its name when it is whole. What cannot be read or written is done without. Nothing here needs torch.
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

from gptoss.model.storage.regular_file import open_regular_file

Buffer = bytes | bytearray | memoryview

PREFIX, MADE = ".kv", ".made"
"""Suffixes of the two kinds of files."""
LEFT_FREE = 1 << 30
"""Bytes of the disk that are left to others."""

_UNFINISHED, _NAME = ".new", "name"
_MAX_NAME = 200
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class DiskCache:
    """Where a run leaves what it has computed of a model.

    Attributes:
        path: the folder of all models.
        limit: bytes that all its files may have together.
        name: what the model is called, for people.
    """

    path: Path
    limit: int
    name: str

    def of(self, checkpoint: str) -> CheckpointFiles:
        """The files of one checkpoint, which is told from others by this text."""
        return CheckpointFiles(self, checkpoint)


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint in the cache."""

    cache: DiskCache
    checkpoint: str

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.cache.path / hashlib.sha256(self.checkpoint.encode()).hexdigest()[:16]

    def path(self, name: str) -> Path:
        """Where a file of this name is, or would be."""
        return self.folder / name

    def touch(self, name: str, used_ns: int) -> bool:
        """Note that a file was used at that time; False where there is none."""
        try:
            os.utime(self.path(name), ns=(used_ns, used_ns))
        except OSError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there and can be removed."""
        _remove(self.path(name))

    def open_folder(self) -> None:
        """Make the folder of this checkpoint, for its owner alone, and note what the model is called.

        Raises:
            OSError: that is not possible.
        """
        self.cache.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        name = self.cache.name[:_MAX_NAME]
        if _read_name(self.folder) != name:
            self.write(_NAME, (name.encode("utf-8", "replace"),), time.time_ns())

    def room(self) -> int:
        """Bytes that may be written before the disk has too little left for others.

        Raises:
            OSError: there is no such folder.
        """
        return max(0, shutil.disk_usage(self.cache.path).free - LEFT_FREE)

    def write(self, name: str, parts: Iterable[Buffer], used_ns: int, *, sync: bool = False) -> None:
        """Write a file, as one that was used at that time; with `sync` its bytes are on the disk before its name is.

        Raises:
            OSError: that is not possible; then there is nothing of it.
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
        """Bring the cache, this checkpoint's part and all others, under its limit."""
        shrink(self.cache.path, self.cache.limit)


@dataclass(frozen=True)
class KeptModel:
    """What is kept of one model.

    Attributes:
        folder: where.
        name: what the model was called when something was kept last.
        positions: how many tokens have their keys and values there.
        made_bytes: what a backend made of the weights.
        nbytes: size of all.
        used: seconds since the epoch when something was written or used last.
    """

    folder: Path
    name: str
    positions: int
    made_bytes: int
    nbytes: int
    used: float


def kept_models(root: Path) -> list[KeptModel]:
    """What is kept of every model, the one that was used last first."""
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
    """Remove the files that were used longest ago, of whatever model, until all have at most `limit` bytes.

    Of one prompt the end goes before the beginning, without which it is of no use: it has the earlier time.
    """
    now = time.time_ns()
    files = [file for folder in _folders(root) for file in _files(folder)]
    for file in files:
        if file.path.suffix == _UNFINISHED and now - file.used > _ABANDONED_S * 1e9:  # by a program that was killed
            _remove(file.path)
    kept = [file for file in files if file.path.suffix != _UNFINISHED]
    total = sum(file.nbytes for file in kept)
    # What a clock that was wrong has dated into the future would otherwise never go.
    for file in sorted(kept, key=lambda file: file.used if file.used - now < _ABANDONED_S * 1e9 else 0):
        if total <= limit:
            break
        _remove(file.path)
        total -= file.nbytes
    for folder in {file.path.parent for file in kept}:
        _remove_if_unused(folder)


def clear(root: Path, *, prefixes_alone: bool = False) -> int:
    """Remove all that is kept of every model, or only what was computed of prompts; how many bytes that were.

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
    """The files of a model that are ours, those that are not finished too."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((PREFIX, MADE, _UNFINISHED)):
                with suppress(OSError):  # another program has removed it
                    status = entry.stat(follow_symlinks=False)
                    yield _File(Path(entry.path), status.st_size, status.st_mtime_ns)


def _folders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _positions_of(path: Path) -> int:
    """What the name of a block says, for people."""
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
