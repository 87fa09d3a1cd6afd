"""Finds the files of a GGUF model: one file, the parts of a split one, or the only one in a folder. Needs no torch."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.checkpoints.gguf_header import MAGIC
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.regular_file import open_regular_file

SUFFIX = ".gguf"
MAX_PARTS = 1000
_MAX_ENTRIES = 10_000

_PART = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.IGNORECASE)
_SAFETENSORS = ".safetensors"


def is_gguf(path: Path) -> bool:
    """Whether a path is a regular file that begins as GGUF files do."""
    try:
        with open_regular_file(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def gguf_files(path: Path) -> tuple[Path, ...] | None:
    """Return the files of the GGUF model that a path names, the first part first; None: it names no such model.

    Args:
        path: a file, whatever its name; or a folder, in which a checkpoint of other files goes first.

    Raises:
        CheckpointError: the folder has several models, or a part is missing.
    """
    try:
        path = path.expanduser()
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError):
        return None
    if is_folder:
        return _only_model(CheckpointFolder(path))
    # Of a file that is only named so, reading its header tells what it is.
    if not is_gguf(path) and not (path.suffix.lower() == SUFFIX and path.is_file()):
        return None
    match = _PART.fullmatch(path.name)
    # The link's own name is looked at: parts lie beside it in the hub's cache too.
    return (path.resolve(),) if match is None else _parts(CheckpointFolder(path.parent), match)


def gguf_names(names: list[str]) -> list[str]:
    """Return the models among the names of a folder's files: of a split model, the first part."""
    found: dict[str, str] = {}
    for name in sorted(names):
        if not name.lower().endswith(SUFFIX) or name.startswith(".") or "mmproj" in name.lower():
            continue
        match = _PART.fullmatch(name)
        found.setdefault(name if match is None else f"{match.group(1)}-of-{match.group(3)}", name)
    return list(found.values())


def gguf_in_folder(folder: Path, chosen: str | None = None) -> Path | None:
    """Return what to open for the GGUF model in a folder without a checkpoint of other files; None: it has none.

    Args:
        folder: which need not exist.
        chosen: the name of a file or a part of one, such as `Q4_K_M`; None: the only model, else the folder itself,
            opening which says that there are several.
    """
    try:
        names = [entry.name for entry in itertools.islice(folder.iterdir(), _MAX_ENTRIES)]
    except (OSError, ValueError):
        return None
    models = gguf_names(names)
    if chosen is not None:
        fitting = choose_gguf(models, chosen)
        return folder / fitting[0] if len(fitting) == 1 else folder if models else None
    return folder if models and not any(name.endswith(_SAFETENSORS) for name in names) else None


def choose_gguf(names: list[str], chosen: str) -> list[str]:
    """Return the names that are, or else contain, the chosen one, whatever their case."""
    wanted = chosen.lower()
    exact = [name for name in names if name.lower() in (wanted, wanted + SUFFIX)]
    return exact or [name for name in names if wanted in name.lower()]


def _only_model(folder: CheckpointFolder) -> tuple[Path, ...] | None:
    names = folder.names()
    models = gguf_names(names)
    if not models or any(name.endswith(_SAFETENSORS) for name in names):
        return None
    if len(models) > 1:
        listed = ", ".join(quote(name) for name in models[:4]) + (", ..." if len(models) > 4 else "")
        raise CheckpointError(f"{quote(folder.path)} has {len(models)} GGUF models ({listed}): name one of the files")
    match = _PART.fullmatch(models[0])
    return (folder.file(models[0]).resolve(),) if match is None else _parts(folder, match)


def part_names(name: str) -> tuple[str, ...]:
    """Return the names of all parts of the model to which the file of this name belongs.

    Raises:
        CheckpointError: it is one of too many parts by its name.
    """
    match = _PART.fullmatch(name)
    if match is None:
        return (name,)
    stem, _number, count = match.groups()
    if not 1 <= int(count) <= MAX_PARTS:
        raise CheckpointError(f"{quote(name)} is one of {int(count)} parts by its name; {MAX_PARTS} are the most")
    return tuple(f"{stem}-{number:05d}-of-{count}{name[-len(SUFFIX) :]}" for number in range(1, int(count) + 1))


def _parts(folder: CheckpointFolder, match: re.Match[str]) -> tuple[Path, ...]:
    return tuple(folder.file(name) for name in part_names(match.string))
