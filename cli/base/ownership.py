"""Refuse files that decide what the program does and that other users can change."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.text import one_line

log = logging.getLogger(__name__)


def require_own(path: Path, descriptor: int | None = None) -> None:
    """Check that only the owner can change a file, or replace it or a folder above it; a group that can is reported.

    Args:
        path: of the file.
        descriptor: the opened file; by default the path is looked up.

    Raises:
        InputError: every user of the machine can.
        OSError: it cannot be looked at.
    """
    status = path.stat() if descriptor is None else os.fstat(descriptor)
    parent, *above = path.resolve().parents
    for which, mode in [(path, status.st_mode), *((folder, folder.stat().st_mode) for folder in (parent, *above))]:
        if which is not path and mode & stat.S_ISVTX:
            continue
        where = one_line(str(which))
        if mode & stat.S_IWOTH:
            raise InputError(f"{where} is not used, as every user of this machine can change it: chmod go-w {where}")
        if mode & stat.S_IWGRP and which in (path, parent):
            log.warning("%s can be changed by a group of users: chmod g-w", where)
