"""Find the files that a tool has made in its folder, which is hostile: nothing is opened and no link followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_MOST_ENTRIES = 10_000

Listing = dict[Path, tuple[int, int, int]]


def listing(folder: Path) -> Listing:
    """Return the regular files below a folder with their identity, size and time; hidden ones are left out."""
    found: Listing = {}
    count = 0
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            count += 1
            if count > _MOST_ENTRIES:
                return found
            path = Path(root, name)
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and not name.startswith("."):
                found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def made_since(before: Listing, folder: Path) -> tuple[Path, ...]:
    """Return the files that are new or changed."""
    return tuple(path for path, identity in listing(folder).items() if before.get(path) != identity)
