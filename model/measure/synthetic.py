"""Random weights in a published model's shapes, to measure its speed without its files.

They are in an anonymous file (memfd) where the system has those: mapped in small pages like a checkpoint, on no disk,
and gone however the program ends.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.tensors.mxfp4 import BLOCK_BYTES, BLOCK_SIZE, Mxfp4Tensor
from gptoss.model.tensors.sizes import stored_bytes
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, Weights

STD = 0.02
_SCALES = (119, 122)
"""Exponents of MXFP4 scales: 2^-8 to 2^-6."""
_TILE = 1 << 22
"""Number of random values drawn; larger tensors repeat them, which does not affect any kernel."""
_ALIGNMENT = 64


@dataclass(frozen=True)
class SyntheticModel:
    """A published model without its files, for `plan_load`."""

    config: ModelConfig

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as the model is published."""
        return stored_bytes(self.config)

    @property
    def has_packed_experts(self) -> bool:
        """All published models have packed experts."""
        return True


def synthetic_bytes(config: ModelConfig) -> int:
    """Return the bytes of `synthetic_weights`: those of the model with its unembedding as embedding."""
    return stored_bytes(config) - 2 * config.vocab_size * config.hidden_size


def synthetic_weights(config: ModelConfig, device: torch.device | str = "cpu", seed: int = 0) -> Weights:
    """Make random weights of plausible scale: bfloat16, experts in MXFP4; the embedding is the unembedding."""
    source = _Source(config, seed)

    def normal(*shape: int, std: float = STD, mean: float = 0.0) -> Tensor:
        return source.normal(shape, std, mean).to(device)

    def mxfp4(experts: int, rows: int, columns: int) -> Mxfp4Tensor:
        blocks, scales = source.mxfp4(experts, rows, columns)
        return Mxfp4Tensor(blocks.to(device), scales.to(device))

    unembedding = normal(config.vocab_size, config.hidden_size)
    return Weights(
        embedding=unembedding,
        layers=random_layers(config, normal, mxfp4),
        norm=normal(config.hidden_size, std=0.05, mean=1.0),
        unembedding=Linear(unembedding),
    )


def random_layers(
    config: ModelConfig, normal: Callable[..., Tensor], mxfp4: Callable[[int, int, int], Mxfp4Tensor]
) -> tuple[LayerWeights, ...]:
    """Make layers of plausible scale from the caller's random tensors.

    Args:
        config: of the model.
        normal: `normal(*shape, std=..., mean=...)`, bfloat16; by default of the standard deviation `STD`, about 0.
        mxfp4: `mxfp4(experts, rows, columns)`, packed.
    """
    hidden, width = config.hidden_size, config.intermediate_size
    heads, kv_heads = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim

    def linear(rows: int, columns: int) -> Linear:
        return Linear(normal(rows, columns), normal(rows))

    def layer(experts: int) -> LayerWeights:
        return LayerWeights(
            attention_norm=normal(hidden, std=0.05, mean=1.0),
            q=linear(heads, hidden),
            k=linear(kv_heads, hidden),
            v=linear(kv_heads, hidden),
            o=linear(hidden, heads),
            sinks=normal(config.num_attention_heads, std=1.0),
            mlp_norm=normal(hidden, std=0.05, mean=1.0),
            router=linear(experts, hidden),
            experts=Experts(
                gate_up=mxfp4(experts, 2 * width, hidden),
                gate_up_bias=normal(experts, 2 * width),
                down=mxfp4(experts, hidden, width),
                down_bias=normal(experts, hidden),
            ),
        )

    return tuple(layer(shape.num_experts) for shape in config.layers)


class _Source:
    """Allocates random tensors in one piece of memory."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        # Each tensor is aligned to a cache line: 17 tensors a layer, and two more.
        room = synthetic_bytes(config) + _ALIGNMENT * (20 * config.num_layers + 4)
        self._memory = torch.frombuffer(_anonymous(room), dtype=torch.uint8)
        self._used = 0
        self._normal = torch.randn(_TILE, generator=self._generator).to(torch.bfloat16)
        self._codes = torch.randint(0, 256, (_TILE,), dtype=torch.uint8, generator=self._generator)
        self._scales = torch.randint(*_SCALES, (_TILE,), dtype=torch.uint8, generator=self._generator)

    def normal(self, shape: tuple[int, ...], std: float, mean: float) -> Tensor:
        out = self._take(shape, torch.bfloat16)
        for piece, tile in self._tiled(out, self._normal):
            torch.mul(tile, std, out=piece).add_(mean)
        return out

    def mxfp4(self, experts: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        lead = (experts, rows, columns // BLOCK_SIZE)
        blocks, scales = self._take((*lead, BLOCK_BYTES), torch.uint8), self._take(lead, torch.uint8)
        for out, source in ((blocks, self._codes), (scales, self._scales)):
            for piece, tile in self._tiled(out, source):
                piece.copy_(tile)
        return blocks, scales

    def _tiled(self, out: Tensor, source: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pieces of `out` with equally many random numbers, from a random offset in the tile."""
        shift = int(torch.randint(0, _TILE // 2, (), generator=self._generator))
        for piece in torch.split(out.view(-1), _TILE // 2):
            yield piece, source[shift : shift + piece.numel()]

    def _take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = torch.Size(shape).numel() * dtype.itemsize
        begin = self._used
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return self._memory[begin : begin + size].view(dtype).view(shape)


def _anonymous(size: int) -> mmap.mmap:
    """Map an anonymous file; the mapping outlives the closed descriptor."""
    if not hasattr(os, "memfd_create"):
        return mmap.mmap(-1, size)
    descriptor = os.memfd_create("gptoss-synthetic", os.MFD_CLOEXEC)
    try:
        os.truncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
