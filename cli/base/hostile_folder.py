"""Remove folders that hostile code has filled: as deep as they are, whatever their modes, and no links followed."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_folder(path: Path) -> None:
    """Remove a folder and all that is in it.

    What lies two levels below it is moved up, level by level: `shutil.rmtree` recurses, and a path can become too long.

    Raises:
        OSError: a part cannot be removed, or there is no such folder.
    """
    folder = os.open(path, _OPEN_FOLDER)
    moved = 0
    try:
        os.fchmod(folder, 0o700)
        while names := os.listdir(folder):  # noqa: PTH208 - a descriptor
            for name in names:
                if _is_unlinked(name, folder):
                    continue
                child = _opened(name, folder)
                try:
                    for each in os.listdir(child):  # noqa: PTH208
                        if not _is_unlinked(each, child):
                            os.close(_opened(each, child))  # its mode, without which it cannot be moved
                            moved += 1
                            os.rename(each, _unused(folder, moved), src_dir_fd=child, dst_dir_fd=folder)
                finally:
                    os.close(child)
                os.rmdir(name, dir_fd=folder)
    finally:
        os.close(folder)
    path.rmdir()


@contextmanager
def hostile_folder(prefix: str) -> Iterator[Path]:
    """Give a new temporary folder, which is removed at the end; what cannot be removed stays."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            remove_folder(path)


def _is_unlinked(name: str, folder: int) -> bool:
    """Remove what is no folder; return whether it was none."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=folder)
    return True


def _opened(name: str, folder: int) -> int:
    """Open a folder in a folder, and let its owner do everything with it."""
    try:
        child = os.open(name, _OPEN_FOLDER, dir_fd=folder)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=folder)
        child = os.open(name, _OPEN_FOLDER, dir_fd=folder)
    os.fchmod(child, 0o700)
    return child


def _unused(folder: int, number: int) -> str:
    name = f".moved-{number}"
    while True:
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return name
        name += "-"
