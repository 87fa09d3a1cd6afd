"""Weights in the layouts of the GPU kernels: 8-bit dense layers, joined projections; and tokens grouped by expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.kernels.triton import dense
from gptoss.model.kernels.triton.launch import Launcher
from gptoss.model.tensors.mxfp4 import BLOCK_SIZE, Mxfp4Tensor
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear

_LARGEST = 127
"""Largest magnitude of an 8-bit weight."""
_PIECE_ROWS = 1 << 13
"""Rows that are packed at a time: bounds the memory beside the result."""
_UNPACKED_GROUPS = 64
"""Groups of 32 weights that one program unpacks."""


@dataclass(frozen=True)
class EightBitLinear(Linear):
    """A dense layer in eight bits: `weight` int8 (out, in), `scales` bfloat16 (out, in / 32), one per 32 columns."""

    scales: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, scales: Tensor, bias: Tensor | None) -> EightBitLinear:
        """Make one of the results of `pack_rows` and a bias."""
        return cls(weight, bias, scales)


@dataclass(frozen=True)
class FusedLayer(LayerWeights):
    """A layer whose q, k and v are views of one matrix `qkv`, (heads + 2 * kv_heads) * head_dim rows in that order."""

    qkv: Linear | None = None


def pack_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pack a matrix (out, in), `in` a multiple of 32, as int8 (out, in) and bfloat16 scales (out, in / 32).

    A scale is the largest magnitude of its 32 weights divided by 127, rounded up to bfloat16 so that no integer exceeds
    127.
    """
    rows, columns = weight.shape
    packed = torch.empty(rows, columns, dtype=torch.int8, device=weight.device)
    scales = torch.empty(rows, columns // BLOCK_SIZE, dtype=torch.bfloat16, device=weight.device)
    for first in range(0, rows, _PIECE_ROWS):
        piece = slice(first, first + _PIECE_ROWS)
        values = weight[piece].float().view(-1, columns // BLOCK_SIZE, BLOCK_SIZE)
        step = values.abs().amax(-1) / _LARGEST
        above = ((step.view(torch.int32) + 0xFFFF) >> 16 << 16).view(torch.float32)
        scales[piece] = above.to(torch.bfloat16)
        levels = torch.round(values / torch.where(above == 0, 1.0, above)[..., None])
        packed[piece] = levels.clamp_(-_LARGEST, _LARGEST).flatten(1).to(torch.int8)
    return packed, scales


def unpacked(launch: Launcher, layer: EightBitLinear, rows: slice) -> Tensor:
    """Return some rows of an 8-bit layer in bfloat16: (rows, in)."""
    assert layer.scales is not None
    weight, scales = layer.weight[rows], layer.scales[rows]
    out = torch.empty(weight.shape, dtype=torch.bfloat16, device=weight.device)
    groups = scales.numel()
    grid = (-(-groups // _UNPACKED_GROUPS),)
    launch(dense.unpack_8_bits, grid, weight, scales, out, groups, BLOCK=_UNPACKED_GROUPS, num_warps=4)
    return out


def int8_bytes(config: ModelConfig) -> int:
    """Return bytes of all dense layers but the routers, packed in eight bits."""
    heads = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    weights = config.num_layers * 2 * (heads + kv) * config.hidden_size + config.vocab_size * config.hidden_size
    return weights + weights // BLOCK_SIZE * 2


def scales_of(layer: Linear) -> tuple[Tensor, bool]:
    """Return the pointer to the scales for a kernel, and whether the layer has 8 bits, so that it reads them."""
    if isinstance(layer, EightBitLinear):
        assert layer.scales is not None
        return layer.scales, True
    return layer.weight, False


def joined(*layers: Linear) -> Linear:
    """Return one layer of the rows of several with the same input. Nothing is copied if they are adjacent in memory."""
    first, rows = layers[0].weight, sum(layer.weight.shape[0] for layer in layers)
    biases = [layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias for layer in layers]
    if _are_neighbours([layer.weight for layer in layers]):
        weight = first.as_strided((rows, first.shape[1]), (first.shape[1], 1))
    else:
        weight = torch.cat([layer.weight for layer in layers])
    return Linear(weight, torch.cat(biases))


def parts(layer: Linear, rows: Sequence[int]) -> list[Linear]:
    """Split a joined layer into layers of so many rows each, as views."""
    bias = layer.bias
    assert bias is not None
    weights, biases = torch.split(layer.weight, list(rows)), torch.split(bias, list(rows))
    if not isinstance(layer, EightBitLinear):
        return [Linear(*part) for part in zip(weights, biases, strict=True)]
    assert layer.scales is not None
    scales = torch.split(layer.scales, list(rows))
    return [EightBitLinear(*part) for part in zip(weights, biases, scales, strict=True)]


def packed_experts(experts: Experts) -> tuple[Mxfp4Tensor, Mxfp4Tensor] | None:
    """Return the matrices gate_up and down if the kernels can read them: MXFP4, contiguous, aligned; else None."""
    up, down = experts.gate_up, experts.down
    if not (isinstance(up, Mxfp4Tensor) and isinstance(down, Mxfp4Tensor)):
        return None
    arrays = up.blocks, up.scales, experts.gate_up_bias, down.blocks, down.scales, experts.down_bias
    # Blocks are read as 32-bit words.
    aligned = up.blocks.storage_offset() % 4 == 0 and down.blocks.storage_offset() % 4 == 0
    return (up, down) if aligned and all(array.is_contiguous() for array in arrays) else None


def group_by_expert(chosen: Tensor, experts: int, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut the slots of each expert into tiles of at most `block` slots, without reading anything back from the device.

    Slot s is the pair of token s // top_k and the s % top_k-th of its experts. The number of tiles is the largest that
    can occur; tiles beyond those that do have the expert `experts`.

    Args:
        chosen: (tokens, top_k), the expert of each slot.
        experts: their number.
        block: slots per tile.

    Returns:
        All int32: expert of each tile (tiles,); index of each tile's first slot in `order` (tiles,); index of each
        expert's first slot in `order`, and the number of slots (experts + 1,); `order`, the slots sorted by expert
        (slots,).
    """
    flat = chosen.flatten()
    order = torch.argsort(flat, stable=True)
    counts = torch.zeros(experts, dtype=torch.int64, device=flat.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat))
    offsets = _after_zero(counts.cumsum(0))
    tiles = _after_zero(((counts + block - 1) // block).cumsum(0))
    number = torch.arange(min(flat.numel(), flat.numel() // block + experts), device=flat.device)
    expert = torch.searchsorted(tiles[1:], number, right=True)
    known = expert.clamp(max=experts - 1)
    begin = offsets[known] + (number - tiles[known]) * block
    return expert.int(), begin.int(), offsets.int(), order.int()


def _after_zero(sums: Tensor) -> Tensor:
    """Put a zero before running sums."""
    return torch.nn.functional.pad(sums, (1, 0))


def _are_neighbours(tensors: Sequence[Tensor]) -> bool:
    """Whether contiguous tensors of one type follow each other in one storage without gaps."""
    at = tensors[0].data_ptr()
    storage = tensors[0].untyped_storage().data_ptr()
    for tensor in tensors:
        one_piece = tensor.is_contiguous() and tensor.untyped_storage().data_ptr() == storage
        if not one_piece or tensor.dtype != tensors[0].dtype or tensor.data_ptr() != at:
            return False
        at += tensor.nbytes
    return True
