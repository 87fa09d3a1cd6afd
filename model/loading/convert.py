"""Writes a checkpoint of any layout as the hub's: safetensors with MXFP4 experts, as transformers loads it.

What is only another layout is written bit for bit. Tensors in float32 or float16 whose values bfloat16 has become
bfloat16, those in a quantised type of GGUF are rounded to it once, and experts that are not packed are packed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.config_dialects import HUB_MODEL_TYPES
from gptoss.model.checkpoints.config_files import CONFIG
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.checkpoints.tensor_names import FLOAT, Layout, canonical_tensors
from gptoss.model.config import ModelConfig
from gptoss.model.errors import CheckpointError, UnsupportedModelError, quote
from gptoss.model.loading.quantize import ExpertPacker, PackingReport
from gptoss.model.storage.mapping import require_whole
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor

SHARD_BYTES = 5_000_000_000
INDEX = "model.safetensors.index.json"

_PIECE = 1 << 24
_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.uint8: "U8"}
_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "U8": 1}

Progress = Callable[[str, int, int], None]
"""Called with what is being done ("written", "checked"), bytes done, bytes in all."""


@dataclass(frozen=True)
class Converted:
    """A written checkpoint.

    Attributes:
        folder: where.
        nbytes: of its weight files.
        files: names of its weight files.
        converted: stored types that were rounded to bfloat16.
        packing: of experts that were packed; None: they were packed already, and are the same to the bit.
    """

    folder: Path
    nbytes: int
    files: tuple[str, ...]
    converted: tuple[str, ...]
    packing: PackingReport | None


class TargetError(CheckpointError):
    """The folder to write to cannot be used."""


def convert(
    checkpoint: Checkpoint,
    to: Path,
    beside: Callable[[Converted], Mapping[str, bytes]] = lambda _done: {},
    progress: Progress | None = None,
) -> Converted:
    """Write a checkpoint to a new folder, which appears only when all of it was written and read back.

    Args:
        checkpoint: opened.
        to: the folder; it must not exist, or be empty.
        beside: called when the weights are written; returns further files by name, such as the tokenizer and a card.
        progress: called as the work goes on.

    Raises:
        TargetError: the folder cannot be used, the disk is full or failed, or returned other bytes than were written.
        CheckpointError: the checkpoint cannot be read whole, or its experts cannot be packed.
        UnsupportedModelError: it is a model that the hub's layout cannot express.
    """
    to = to.expanduser().absolute()
    _require_free(to)
    config = _hub_config(checkpoint)
    tensors = _tensors(checkpoint)
    shards = _shards(tensors)
    total = sum(tensor.nbytes for tensor in tensors)
    work = to.with_name(f".{to.name}.gptoss-{os.getpid()}")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        _require_room(to.parent, total)
        work.mkdir()
        try:
            done = _write(checkpoint, work, to, config, shards, total, progress)
            for name, content in beside(done).items():
                (work / name).write_bytes(content)
            if to.exists():
                to.rmdir()
            work.rename(to)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    except OSError as error:
        raise TargetError(f"{quote(to)} cannot be written: {error.strerror or error}") from error
    return done


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written."""

    name: str
    canonical: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _BYTES[self.dtype]


def _require_free(to: Path) -> None:
    try:
        if to.is_symlink() or (to.exists() and not to.is_dir()):
            raise TargetError(f"{quote(to)} is no folder: name one that is not there yet")
        if to.is_dir() and any(to.iterdir()):
            raise TargetError(f"{quote(to)} is not empty: name a folder that is not there yet")
    except (OSError, ValueError) as error:
        raise TargetError(f"{quote(to)} cannot be used: {error}") from error


def _require_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise TargetError(
            f"{quote(folder)} has {free / 1e9:.3g} GB free, but the converted model needs {nbytes / 1e9:.3g} GB: "
            "make room, or name a folder on another disk"
        )


def _tensors(checkpoint: Checkpoint) -> list[_Tensor]:
    """Return what is to be written, in the order of the layers; reads the tensors that may become bfloat16."""
    found: dict[str, _Tensor] = {}
    for canonical, source in canonical_tensors(checkpoint.config, Layout.HUB_MXFP4):
        if source.name in found:  # a tied unembedding
            continue
        dtype = "U8" if canonical.endswith((".blocks", ".scales")) else _dtype(checkpoint, canonical)
        found[source.name] = _Tensor(source.name, canonical, dtype, source.shape)
    return list(found.values())


def _dtype(checkpoint: Checkpoint, canonical: str) -> str:
    stored = checkpoint.dtype(canonical)
    if stored not in FLOAT:
        return "BF16"
    if stored == "BF16":
        return stored
    tensor = checkpoint.tensor(canonical)
    exact = bool(torch.equal(tensor.to(torch.bfloat16).to(tensor.dtype), tensor))
    checkpoint.release(canonical)
    return "BF16" if exact else stored


def _shards(tensors: Sequence[_Tensor]) -> list[list[_Tensor]]:
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write(
    checkpoint: Checkpoint,
    work: Path,
    to: Path,
    config: bytes,
    shards: Sequence[Sequence[_Tensor]],
    total: int,
    progress: Progress | None,
) -> Converted:
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    packer = None
    hashes, written = {}, 0
    with ExitStack() as stack:
        if not checkpoint.has_packed_experts:
            packer = stack.enter_context(ExpertPacker(2 * checkpoint.config.num_layers))
        source = _Source(checkpoint, packer)
        for name, shard in zip(names, shards, strict=True):
            with (work / name).open("wb") as file:
                digest = hashlib.sha256()
                for piece in _contents(shard, source):
                    # First: what was cut off a mapped file reads as zeros, but a system call fails on it.
                    digest.update(piece)
                    file.write(piece)
                    written += len(piece)
                    if progress is not None:
                        progress("written", min(written, total), total)
                file.flush()
                os.fsync(file.fileno())
            hashes[name] = digest.digest()
    require_whole(checkpoint.mappings)
    if len(shards) > 1:
        weight_map = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (work / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (work / CONFIG).write_bytes(config)
    _check(checkpoint, work, hashes, total, progress)
    types = {checkpoint.dtype(name) for name in checkpoint.sources if checkpoint.blocks(name) is not None}
    nbytes = sum((work / name).stat().st_size for name in names)
    return Converted(to, nbytes, tuple(names), tuple(sorted(types)), None if packer is None else packer.report())


def _contents(shard: Sequence[_Tensor], source: _Source) -> Iterator[memoryview | bytes]:
    """Yield the bytes of a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in shard:
        offsets = [at, at + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in shard:
        data = memoryview(source.take(tensor).contiguous().view(torch.uint8).reshape(-1).numpy().data)
        assert len(data) == tensor.nbytes
        for begin in range(0, len(data), _PIECE):
            yield data[begin : begin + _PIECE]
        source.release(tensor)


class _Source:
    """The tensors of a checkpoint in the form in which they are written."""

    def __init__(self, checkpoint: Checkpoint, packer: ExpertPacker | None) -> None:
        self._checkpoint = checkpoint
        self._packer = packer
        self._packed: tuple[str, Mxfp4Tensor] | None = None

    def take(self, tensor: _Tensor) -> Tensor:
        matrix, _, kind = tensor.canonical.rpartition(".")
        if kind in ("blocks", "scales") and not self._checkpoint.has(tensor.canonical):
            packed = self._pack(matrix)
            return packed.blocks if kind == "blocks" else packed.scales
        found = self._checkpoint.tensor(tensor.canonical)
        return found if _DTYPES[found.dtype] == tensor.dtype else found.to(torch.bfloat16)

    def release(self, tensor: _Tensor) -> None:
        if self._checkpoint.has(tensor.canonical):
            self._checkpoint.release(tensor.canonical)

    def _pack(self, matrix: str) -> Mxfp4Tensor:
        """Return a matrix of experts; blocks and scales are asked for one after the other."""
        if self._packed is None or self._packed[0] != matrix:
            self._packed = None
            joined = self._checkpoint.packed_experts(f"{matrix}.joined") if self._packer is None else None
            if joined is not None:
                packed = joined.split()
                self._checkpoint.release(f"{matrix}.joined")
            else:
                assert self._packer is not None
                packed = self._packer.pack(matrix, self._checkpoint.tensor(f"{matrix}.weight"))
                self._checkpoint.release(f"{matrix}.weight")
            self._packed = matrix, packed
        return self._packed[1]


def _check(
    checkpoint: Checkpoint, work: Path, hashes: Mapping[str, bytes], total: int, progress: Progress | None
) -> None:
    """Read everything back from the disk.

    Raises:
        TargetError: it is not what was written.
    """
    done = 0
    for name, expected in hashes.items():
        digest = hashlib.sha256()
        with (work / name).open("rb") as file:
            _forget(file)
            while piece := file.read(_PIECE):
                digest.update(piece)
                done += len(piece)
                if progress is not None:
                    progress("checked", min(done, total), total)
        if digest.digest() != expected:
            raise TargetError(f"{quote(work / name)} could not be read back as it was written: the disk is faulty")
    opened = Checkpoint.open(work)
    if opened.config != checkpoint.config or opened.layout is not Layout.HUB_MXFP4:
        raise UnsupportedModelError("the hub's layout cannot express this model")


def _forget(file: BinaryIO) -> None:
    """Drop a file from the system's cache, so that reading it reads the disk."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _hub_config(checkpoint: Checkpoint) -> bytes:
    """Return the `config.json`: the checkpoint's own, where it is the hub's."""
    values: dict[str, Any] = {}
    if not checkpoint.layout.is_gguf:
        values = dict(CheckpointFolder(checkpoint.folder).json(CONFIG))
    if values.get("model_type") not in HUB_MODEL_TYPES:
        values = _made_config(checkpoint.config)
    values["tie_word_embeddings"] = checkpoint.config.tie_word_embeddings
    values["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _made_config(config: ModelConfig) -> dict[str, Any]:
    """Return a config as transformers 4 writes it, which version 5 reads too.

    Raises:
        UnsupportedModelError: the layers differ in more than their windows.
    """
    first = config.layers[0]
    windows = {layer.sliding_window for layer in config.layers} - {None}
    if len({(each.num_experts, each.experts_per_token) for each in config.layers}) > 1 or len(windows) > 1:
        raise UnsupportedModelError("the layers differ in their experts or windows, which the hub's config cannot say")
    rope = config.rope
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "experts_per_token": first.experts_per_token,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initial_context_length": rope.initial_context_length,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_types": ["sliding_attention" if each.sliding_window else "full_attention" for each in config.layers],
        "max_position_embeddings": config.max_context_length,
        "model_type": "gpt_oss",
        "num_attention_heads": config.num_attention_heads,
        "num_experts_per_tok": first.experts_per_token,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "num_local_experts": first.num_experts,
        "output_router_logits": False,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": {
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "factor": rope.factor,
            "original_max_position_embeddings": rope.initial_context_length,
            "rope_type": "yarn",
            "truncate": rope.truncate,
        },
        "rope_theta": rope.theta,
        "router_aux_loss_coef": 0.9,
        "sliding_window": next(iter(windows), config.max_context_length),
        "swiglu_alpha": config.swiglu_alpha,
        "swiglu_limit": config.swiglu_limit,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
