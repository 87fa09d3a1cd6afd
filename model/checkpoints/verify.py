"""Checks all of a checkpoint: every tensor against the config, every number, every published hash.

Opening a checkpoint reads no weights; this reads them all, and reports all faults, not only the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.config_files import load_generation_defaults
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.checkpoints.gguf_place import gguf_files
from gptoss.model.checkpoints.published_hashes import PublishedHash, find_published_hashes, hashes_by_name
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.mapping import require_whole
from gptoss.model.tensors.mxfp4 import NAN_SCALE

_JOINED = ".joined"
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
    """Check all of a checkpoint.

    Args:
        path: the folder, or a GGUF file.
        progress: called with bytes read and bytes to read in all.

    Raises:
        CheckpointError: there is no such folder.
    """
    parts = gguf_files(Path(path))
    if parts is not None:
        return _verify_gguf(parts, progress)
    folder = CheckpointFolder(Path(path))
    checkpoint, found = Checkpoint.inspect(folder.path)
    faults = [str(fault) for fault in found]
    if folder.has("config.json"):
        _collect(faults, partial(load_generation_defaults, folder.path))
    hashes: dict[str, list[PublishedHash]] = {}
    _collect(faults, lambda: hashes.update(find_published_hashes(folder)))
    files = [(folder.path / name, published) for name in sorted(hashes) for published in hashes[name]]
    return _read(folder.path, checkpoint, faults, files, progress, folder.file)


def _verify_gguf(parts: Sequence[Path], progress: Progress | None) -> Verification:
    checkpoint, found = Checkpoint.inspect(parts[0])
    hashes = hashes_by_name(parts)
    files = [(path, published) for path in hashes for published in hashes[path]]
    return _read(parts[0], checkpoint, [str(fault) for fault in found], files, progress, None)


def _read(
    where: Path,
    checkpoint: Checkpoint | None,
    faults: list[str],
    files: list[tuple[Path, PublishedHash]],
    progress: Progress | None,
    find: Callable[[str], Path] | None,
) -> Verification:
    """Read files that have hashes, and all tensors; `find` returns the path of a folder's file, or raises."""
    reader = _Reader(checkpoint, files, progress, find)
    for path, published in files:
        _collect(faults, partial(reader.compare, path, published))
    if checkpoint is not None:
        for name in checkpoint.sources:
            _collect(faults, partial(reader.look_at, checkpoint, name))
        _collect(faults, partial(require_whole, checkpoint.mappings))
    weights = {file.name for file in checkpoint.files} if checkpoint else set()
    return Verification(
        folder=where,
        faults=tuple(faults),
        tensors=len({name for source in checkpoint.sources.values() for name in source.names}) if checkpoint else 0,
        numbers=reader.numbers,
        hashed=tuple(dict.fromkeys(reader.hashed)),
        unhashed=tuple(sorted(weights - {path.name for path, _ in files})),
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
        checkpoint: Checkpoint | None,
        files: list[tuple[Path, PublishedHash]],
        progress: Progress | None,
        find: Callable[[str], Path] | None,
    ) -> None:
        self._find = find
        self._progress = progress
        self._done = 0
        self._total = sum(path.stat().st_size for path, _ in files if path.is_file())
        if checkpoint is not None:
            self._total += sum(checkpoint.stored_nbytes(name) for name in checkpoint.sources if _has_numbers(name))
        self.numbers = 0
        self.hashed: list[str] = []

    def compare(self, path: Path, published: PublishedHash) -> None:
        """Compare a file with its published hash."""
        if not published.matches(path if self._find is None else self._find(path.name), self._advance):
            kind = "sha256" if len(published.digest) == 64 else "git hash"
            raise CheckpointError(
                f"{quote(path)} has not the {kind} that {published.source} has for it, "
                f"{published.digest}: download it again"
            )
        self.hashed.append(path.name)

    def look_at(self, checkpoint: Checkpoint, name: str) -> None:
        """Check one tensor for infinities and NaNs."""
        if not _has_numbers(name):
            return
        wrong, numbers, is_scale = 0, 0, False
        for piece in _pieces(checkpoint, name):
            is_scale = piece.dtype == torch.uint8
            sound = piece != NAN_SCALE if is_scale else torch.isfinite(piece)
            wrong += piece.numel() - int(sound.sum())
            numbers += piece.numel()
            if checkpoint.blocks(name) is None and not name.endswith(_JOINED):
                self._advance(_size(piece))
        if checkpoint.blocks(name) is not None or name.endswith(_JOINED):
            self._advance(checkpoint.stored_nbytes(name))
        checkpoint.release(name)
        self.numbers += numbers
        if wrong:
            source = checkpoint.sources[name]
            stored = " and ".join(map(quote, source.names if source.alternating else (source.name,)))
            what = f"scales are {NAN_SCALE}, which is no number" if is_scale else "weights are infinite or not a number"
            raise CheckpointError(f"{stored}: {wrong} of {numbers} {what}: download it again")

    def _advance(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)


def _pieces(checkpoint: Checkpoint, name: str) -> Iterator[Tensor]:
    """Yield all numbers of a tensor, a piece at a time: its values, or the scales of packed experts."""
    packed, blocks = checkpoint.packed_experts(name), checkpoint.blocks(name)
    if packed is not None:
        for part in packed.parts:
            for expert in part:
                yield expert[..., 0]
    elif blocks is not None:
        rows = max(1, _PIECE // blocks.shape[-1])
        for begin in range(0, blocks.shape[0], rows):
            yield blocks[begin : begin + rows].dequantize()
    else:
        tensor = checkpoint.tensor(name)
        # A transposed matrix is read in the order of its bytes.
        stored = tensor if tensor.is_contiguous() else tensor.transpose(-2, -1)
        yield from torch.split(stored.reshape(-1), _PIECE)


def _has_numbers(name: str) -> bool:
    """Return whether a canonical tensor can hold infinities or NaNs; packed values cannot."""
    return not name.endswith(".blocks")


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
