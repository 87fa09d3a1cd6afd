"""Find the files that a tool has made in its folder, which is hostile: nothing is opened and no link followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_MOST_ENTRIES = 10_000
_MOST_DEPTH = 32

Listing = dict[Path, tuple[int, int, int]]


def listing(folder: Path) -> Listing:
    """Return the regular files below a folder with their identity, size and time.

    Hidden ones are left out, and what lies deeper than 32 folders or behind the first 10,000 entries.
    """
    found: Listing = {}
    todo, count = [(folder, 0)], 0
    while todo:
        path, depth = todo.pop()
        folders: list[str] = []
        files: Listing = {}
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    count += 1
                    if count > _MOST_ENTRIES:
                        break
                    if entry.name.startswith("."):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        files[path / entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
                    elif stat.S_ISDIR(status.st_mode) and depth < _MOST_DEPTH:
                        folders.append(entry.name)
        except OSError:  # changed meanwhile, or not to be listed
            pass
        found.update(sorted(files.items()))
        if count > _MOST_ENTRIES:
            break
        todo += [(path / name, depth + 1) for name in sorted(folders, reverse=True)]
    return found


def made_since(before: Listing, folder: Path) -> tuple[Path, ...]:
    """Return the files that are new or changed."""
    return tuple(path for path, identity in listing(folder).items() if before.get(path) != identity)
