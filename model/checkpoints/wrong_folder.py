"""Explains why a path is no checkpoint, and what to name instead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from gptoss.model.errors import CheckpointError, UnsupportedModelError, quote

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_MAX_ENTRIES = 200
_SAFE = "a folder with config.json and .safetensors files, or a GGUF file"


def explain_file(path: Path) -> CheckpointError:
    """Return the error for a path that is a file."""
    if path.suffix == ".safetensors":
        return CheckpointError(f"{quote(path)} is one file of a checkpoint: name its folder, {quote(path.parent)}")
    if path.suffix in _PICKLES:
        return UnsupportedModelError(
            f"{quote(path)} is a pickle file, which can run any code and is never opened: name {_SAFE}"
        )
    return CheckpointError(f"{quote(path)} is a file: name {_SAFE}")


def explain_folder(folder: Path, names: list[str]) -> CheckpointError:
    """Return the error for a folder without config or weights; `names` are the names of its entries."""
    where = quote(folder)
    if not names:
        return CheckpointError(f"{where} is empty: name {_SAFE}")
    if "adapter_config.json" in names:
        return UnsupportedModelError(
            f"{where} is a LoRA adapter, not a model: name its base model, and the adapter with --adapter"
        )
    below = next(_checkpoints_below(folder), None)
    if below is not None:
        return CheckpointError(f"{where} is not the checkpoint's own folder: name {quote(below)}")
    if any(name.endswith(".safetensors") for name in names):
        return CheckpointError(f"{where} has weights but no config.json: download that file too")
    pickle = next((name for name in names if name.endswith(_PICKLES)), None)
    if pickle is not None:
        return UnsupportedModelError(
            f"{where} has its weights in pickle files ({quote(pickle)}), which can run any code and are never opened: "
            f"name {_SAFE}"
        )
    if "config.json" in names:
        return CheckpointError(f"{where} has a config.json but no weights: download its .safetensors files too")
    return CheckpointError(f"{where} holds no checkpoint: name {_SAFE}")


def looks_like_checkpoint(path: Path) -> bool:
    """Return whether a folder has both a config and weights, whatever they contain."""
    try:
        return (path / "config.json").is_file() and any(path.glob("*.safetensors"))
    except OSError:
        return False


def _checkpoints_below(path: Path) -> Iterator[Path]:
    """Yield folders with a checkpoint below this one: children, and those of the hub's cache."""
    for pattern in ("*", "snapshots/*", "*/snapshots/*", "*/*"):
        try:
            candidates = sorted(itertools.islice(path.glob(pattern), _MAX_ENTRIES))
        except OSError:
            continue
        yield from (candidate for candidate in candidates if looks_like_checkpoint(candidate))
