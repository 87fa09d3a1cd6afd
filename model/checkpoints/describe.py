"""Describes a checkpoint for people: sizes, precisions, memory, licence. Reads headers and small files only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.config import ModelConfig
from gptoss.model.errors import CheckpointError
from gptoss.model.storage.regular_file import open_regular_file
from gptoss.model.tensors.sizes import cache_bytes

_PARTS = {
    "embedding": re.compile(r"embedding\.weight"),
    "unembedding": re.compile(r"unembedding\.weight"),
    "attention": re.compile(r"layers\.\d+\.(?:[qkvo]\.|sinks)"),
    "router": re.compile(r"layers\.\d+\.router\."),
    "experts": re.compile(r"layers\.\d+\.(?:gate_up|down)\.(?:blocks|scales|joined|weight)"),
    "expert biases": re.compile(r"layers\.\d+\.(?:gate_up|down)\.bias"),
    "norms": re.compile(r"(?:layers\.\d+\.\w+_)?norm\.weight"),
}
_PACKED, _PACKED_ENDINGS = "MXFP4", (".blocks", ".scales", ".joined")
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
_MAX_TEXT_BYTES = 1 << 16
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_LICENCE_ENTRY = re.compile(r"^(license(?:_name)?):[ \t]+(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """One part of a model: the types in which it is stored, such as `BF16` or `MXFP4`, and its bytes."""

    precisions: tuple[str, ...]
    nbytes: int


@dataclass(frozen=True)
class Description:
    """The description of a checkpoint.

    Attributes:
        folder: its path.
        layout: the naming and packing of its tensors.
        config: the model's blueprint.
        parts: its parts by name.
        num_files: number of weight files.
        file_bytes: their bytes on disk.
        weight_bytes: bytes of all weights that the model uses; the most memory that they take.
        licence: as the publisher names it; None: not stated.
        notes: lines on how the tensors are used.
    """

    folder: Path
    layout: str
    config: ModelConfig
    parts: Mapping[str, Part]
    num_files: int
    file_bytes: int
    weight_bytes: int
    licence: str | None
    notes: tuple[str, ...] = ()

    def cache_bytes(self, context: int) -> int:
        """Return the bytes of the keys and values of `context` tokens, in all layers."""
        return cache_bytes(self.config, context)


def describe(checkpoint: Checkpoint) -> Description:
    """Describe an opened checkpoint."""
    return Description(
        folder=checkpoint.folder,
        layout=checkpoint.layout.value,
        config=checkpoint.config,
        parts=_parts(checkpoint),
        num_files=len(checkpoint.files),
        file_bytes=sum(file.stat().st_size for file in checkpoint.files),
        weight_bytes=checkpoint.nbytes,
        licence=_licence_of(checkpoint),
        notes=checkpoint.notes,
    )


def _parts(checkpoint: Checkpoint) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for part, pattern in _PARTS.items():
        names = [name for name in checkpoint.sources if pattern.match(name)]
        types = {
            _PACKED if name.endswith((".blocks", ".scales", ".joined")) else checkpoint.dtype(name) for name in names
        }
        parts[part] = Part(tuple(sorted(types)), sum(map(checkpoint.stored_nbytes, names)))
    if checkpoint.config.tie_word_embeddings:
        del parts["unembedding"]
    return parts


def _licence_of(checkpoint: Checkpoint) -> str | None:
    if not checkpoint.layout.is_gguf:
        return _licence(CheckpointFolder(checkpoint.folder))
    stated = checkpoint.metadata.get("general.license")
    return stated if isinstance(stated, str) else None


def _licence(folder: CheckpointFolder) -> str | None:
    """Return the licence from the README's front matter, else the first line of a licence file."""
    front = _FRONT_MATTER.match(_text(folder, "README.md") or "")
    stated = dict(_LICENCE_ENTRY.findall(front.group(1))) if front else {}
    # A custom licence is written as `license: other` with `license_name`.
    if licence := stated.get("license_name") or stated.get("license"):
        return str(licence).strip().strip("'\"")
    for name in _LICENCE_FILES:
        if text := _text(folder, name):
            return next((line.strip() for line in text.splitlines() if line.strip()), None)
    return None


def _text(folder: CheckpointFolder, name: str) -> str | None:
    """Return the beginning of a text file; None: it is missing or may not be read."""
    if not folder.has(name):
        return None
    try:
        with open_regular_file(folder.file(name)) as file:
            return file.read(_MAX_TEXT_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except (OSError, CheckpointError):
        return None
