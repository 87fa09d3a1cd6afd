"""Checks all of a checkpoint: every tensor against the config, every number, every published hash.

Opening a checkpoint reads no weights; this reads them all, and reports all faults, not only the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.config_files import load_generation_defaults
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.checkpoints.published_hashes import PublishedHash, find_published_hashes
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.mapping import require_whole
from gptoss.model.tensors.mxfp4 import NAN_SCALE

_PIECE = 1 << 22
"""Numbers that are checked together (8 MB in bf16)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Verification:
    """The result of checking a checkpoint.

    Attributes:
        folder: the checkpoint's folder, links resolved.
        faults: one line each.
        tensors: number of tensors with the right shape and type.
        numbers: how many numbers and scales were checked.
        hashed: names of the files that have the published hash.
        unhashed: names of the weight files without a published hash.
        notes: lines on how the tensors are used; no faults.
    """

    folder: Path
    faults: tuple[str, ...]
    tensors: int
    numbers: int
    hashed: tuple[str, ...]
    unhashed: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether there is no fault."""
        return not self.faults


def verify(path: Path | str, progress: Progress | None = None) -> Verification:
    """Check all of the checkpoint in a folder.

    Args:
        path: the folder.
        progress: called with bytes read and bytes to read in all.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = CheckpointFolder(Path(path))
    checkpoint, found = Checkpoint.inspect(folder.path)
    faults = [str(fault) for fault in found]
    if folder.has("config.json"):
        _collect(faults, partial(load_generation_defaults, folder.path))
    hashes: dict[str, list[PublishedHash]] = {}
    _collect(faults, lambda: hashes.update(find_published_hashes(folder)))
    files = [(name, published) for name in sorted(hashes) for published in hashes[name]]
    reader = _Reader(folder, checkpoint, files, progress)
    for name, published in files:
        _collect(faults, partial(reader.compare, name, published))
    if checkpoint is not None:
        for name in checkpoint.sources:
            _collect(faults, partial(reader.look_at, checkpoint, name))
        _collect(faults, partial(require_whole, checkpoint.mappings))
    weights = {file.name for file in checkpoint.files} if checkpoint else set()
    return Verification(
        folder=folder.path,
        faults=tuple(faults),
        tensors=len({name for source in checkpoint.sources.values() for name in source.names}) if checkpoint else 0,
        numbers=reader.numbers,
        hashed=tuple(dict.fromkeys(reader.hashed)),
        unhashed=tuple(sorted(weights - hashes.keys())),
        notes=checkpoint.notes if checkpoint else (),
    )


def _collect(faults: list[str], look: Callable[[], object]) -> None:
    try:
        look()
    except CheckpointError as fault:
        faults.append(str(fault))


class _Reader:
    """Reads files and tensors, and counts what was checked."""

    def __init__(
        self,
        folder: CheckpointFolder,
        checkpoint: Checkpoint | None,
        files: list[tuple[str, PublishedHash]],
        progress: Progress | None,
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._done = 0
        self._total = sum(path.stat().st_size for name, _ in files if (path := folder.path / name).is_file())
        if checkpoint is not None:
            self._total += sum(_size(checkpoint.tensor(name)) for name in checkpoint.sources if _has_numbers(name))
        self.numbers = 0
        self.hashed: list[str] = []

    def compare(self, name: str, published: PublishedHash) -> None:
        """Compare a file with its published hash."""
        if not published.matches(self._folder.file(name), self._advance):
            kind = "sha256" if len(published.digest) == 64 else "git hash"
            raise CheckpointError(
                f"{quote(self._folder.path / name)} has not the {kind} that {published.source} has for it, "
                f"{published.digest}: download it again"
            )
        self.hashed.append(name)

    def look_at(self, checkpoint: Checkpoint, name: str) -> None:
        """Check one tensor for infinities and NaNs."""
        if not _has_numbers(name):
            return
        tensor = checkpoint.tensor(name)
        is_scale = tensor.dtype == torch.uint8
        wrong = 0
        # A transposed matrix is read in the order of its bytes.
        stored = tensor if tensor.is_contiguous() else tensor.transpose(-2, -1)
        for piece in torch.split(stored.reshape(-1), _PIECE):
            sound = piece != NAN_SCALE if is_scale else torch.isfinite(piece)
            wrong += piece.numel() - int(sound.sum())
            self._advance(_size(piece))
        checkpoint.release(name)
        self.numbers += tensor.numel()
        if wrong:
            what = f"scales are {NAN_SCALE}, which is no number" if is_scale else "weights are infinite or not a number"
            raise CheckpointError(
                f"{quote(checkpoint.sources[name].name)}: {wrong} of {tensor.numel()} {what}: download it again"
            )

    def _advance(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)


def _has_numbers(name: str) -> bool:
    """Return whether a canonical tensor can hold infinities or NaNs; packed values cannot."""
    return not name.endswith(".blocks")


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
