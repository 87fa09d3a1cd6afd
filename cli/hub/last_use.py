"""When each model was last run, by its folder: one small file among the program's state."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from gptoss.model.errors import CheckpointError
from gptoss.model.storage.json_file import read_json_object
from gptoss.model.storage.regular_file import make_private_folder

_FILE = "models.json"
_MAX_BYTES = 1 << 20
_MAX_FOLDERS = 200


def last_uses(state: Path) -> dict[Path, float]:
    """Return the folders that are known, each with the seconds since the epoch of its model's last run, or 0."""
    try:
        values = read_json_object(state / _FILE, _MAX_BYTES)
    except CheckpointError:
        return {}
    return {
        Path(folder): float(when)
        for folder, when in values.items()
        if isinstance(when, int | float) and Path(folder).is_absolute()
    }


def record_use(state: Path, folder: Path) -> None:
    """Record that the model in `folder` is being run. A failure to write is ignored: it must not cost the answer."""
    with suppress(OSError, ValueError):
        _write(state, last_uses(state) | {folder.resolve(): time.time()})


def record_folder(state: Path, folder: Path) -> None:
    """Record a model in `folder` that has not been run yet."""
    with suppress(OSError, ValueError):
        _write(state, {folder.resolve(): 0.0} | last_uses(state))


def forget_use(state: Path, folder: Path) -> None:
    """Drop the record of a model that is no longer in `folder`."""
    uses = last_uses(state)
    with suppress(OSError, ValueError):
        if uses.pop(folder.resolve(), None) is not None:
            _write(state, uses)


def _write(state: Path, uses: dict[Path, float]) -> None:
    latest = sorted(uses.items(), key=lambda item: item[1])[-_MAX_FOLDERS:]
    make_private_folder(state)
    new = state / f"{_FILE}.{os.getpid()}.tmp"
    new.touch(mode=0o600)
    new.write_text(json.dumps({str(folder): round(when) for folder, when in latest}, indent=1), encoding="utf-8")
    new.replace(state / _FILE)
