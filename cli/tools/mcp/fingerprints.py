"""Fingerprints of the tools that the person has allowed, kept beside the rules.

A server can change what a tool says and takes after the person has allowed its calls. So the fingerprint of a tool is
stored when a call of it is allowed, and no rule covers a call of a tool whose fingerprint is another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.ownership import require_own
from gptoss.cli.base.text import one_line
from gptoss.model.storage.regular_file import make_private_folder, open_regular_file

log = logging.getLogger(__name__)

_MAX_BYTES = 1 << 22


def fingerprint(source: str, name: str, description: str | None, schema: Any) -> str:
    """Return a SHA-256 over everything that the person allows a tool for.

    Args:
        source: the server's command line or address, without keys.
        name, description, schema: as the server has them.
    """
    text = json.dumps([source, name, description, schema], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Fingerprints:
    """The fingerprints of a home.

    Args:
        path: of the file, which may be missing.

    Raises:
        InputError: it cannot be read.
        SettingsError: other users can change it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def has_changed(self, tool: str, current: str) -> bool:
        """Return whether a tool was allowed with another fingerprint; one that was never allowed has not changed."""
        return self._known.get(tool, current) != current

    def accept(self, tool: str, current: str) -> None:
        """Store a tool's fingerprint; it holds for this run if it cannot be stored."""
        if self._known.get(tool) == current:
            return
        self._known[tool] = current
        try:
            # Another run may have stored some since.
            _write(self._path, {**_read(self._path), tool: current})
        except (OSError, InputError) as error:
            log.warning("the fingerprint of %s is not stored: %s", tool, error)


def _read(path: Path) -> dict[str, str]:
    where = one_line(str(path))
    try:
        with open_regular_file(path) as file:
            require_own(path, file.fileno())
            known = json.loads(file.read(_MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from None
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
        raise InputError(f"{where} is damaged: remove it, and tools are taken as they are now")
    return known


def _write(path: Path, known: Mapping[str, str]) -> None:
    make_private_folder(path.parent)
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(known, file, indent=1, sort_keys=True)
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
