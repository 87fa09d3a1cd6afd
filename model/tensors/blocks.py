"""Tensors in the quantised types of GGUF files: raw blocks as they are mapped, and their reference conversions.

The types are those of ggml (ggml-common.h has the blocks, ggml-quants.c the conversions). Values are computed in
float32, in ggml's order of operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gptoss.model.tensors.ggml_types import GGML_TYPES

_SIZES = {each.name: (each.block_size, each.block_bytes) for each in GGML_TYPES.values()}
_PIECE_VALUES = 1 << 24
"""Values that are converted at a time (64 MB of float32): bounds the memory beside the result."""
_IQ4_NL_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True)
class Blocks:
    """A quantised tensor of the logical shape (..., rows, columns).

    Attributes:
        kind: ggml's name of the type, a key of `READABLE`.
        data: uint8, (..., rows, blocks, bytes of a block).
    """

    kind: str
    data: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of the values."""
        return torch.Size((*self.data.shape[:-2], self.data.shape[-2] * _SIZES[self.kind][0]))

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return int(self.data.nbytes)

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        return self.data.device

    def __getitem__(self, index: int | slice | Tensor) -> Blocks:
        """Return what `index` selects of the first axis; a view, unless it is a tensor of indices."""
        return Blocks(self.kind, self.data[index])

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the values, rounded once, to `dtype`."""
        convert = READABLE[self.kind]
        size, nbytes = _SIZES[self.kind]
        flat = self.data.reshape(-1, nbytes)
        out = torch.empty((flat.shape[0], size), dtype=dtype, device=flat.device)
        step = _PIECE_VALUES // size
        for begin in range(0, flat.shape[0], step):
            out[begin : begin + step] = convert(flat[begin : begin + step])
        return out.view(self.shape)


def look_up(table: Tensor | Blocks, ids: Tensor) -> Tensor:
    """Return rows of a table (rows, columns) in float32: ids of any shape -> (..., columns)."""
    if isinstance(table, Blocks):
        return table[ids].dequantize()
    return F.embedding(ids, table).float()


def _half(block: Tensor, at: int) -> Tensor:
    """Return the float16 at this byte of each block as float32, (blocks, 1)."""
    return block[:, at : at + 2].contiguous().view(torch.float16).float()


def _signed(block: Tensor) -> Tensor:
    return block.contiguous().view(torch.int8).float()


def _halves(block: Tensor) -> Tensor:
    """Return the low codes of some bytes, then the high ones: (blocks, n) -> (blocks, 2 * n)."""
    return torch.cat((block & 15, block >> 4), dim=1)


def _bits(block: Tensor) -> Tensor:
    """Return the bits of 4 bytes, the lowest first: (blocks, 4) -> (blocks, 32)."""
    return ((block[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=block.device)) & 1).flatten(1)


def _levels_q4_0(block: Tensor) -> Tensor:
    return _halves(block[:, 2:]).short() - 8


def _levels_q5_0(block: Tensor) -> Tensor:
    return (_halves(block[:, 6:]) | _bits(block[:, 2:6]) << 4).short() - 16


def _levels_iq4_nl(block: Tensor) -> Tensor:
    values = torch.tensor(_IQ4_NL_VALUES, dtype=torch.int16, device=block.device)
    return values[_halves(block[:, 2:]).long()]


_LEVELS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": _levels_q4_0,
    "Q5_0": _levels_q5_0,
    "IQ4_NL": _levels_iq4_nl,
}


def _q4_1(block: Tensor) -> Tensor:
    return _half(block, 0) * _halves(block[:, 4:]).float() + _half(block, 2)


def _q5_1(block: Tensor) -> Tensor:
    return _half(block, 0) * (_halves(block[:, 8:]) | _bits(block[:, 4:8]) << 4).float() + _half(block, 2)


def _q8_0(block: Tensor) -> Tensor:
    return _half(block, 0) * _signed(block[:, 2:])


def _shifted(block: Tensor, shifts: tuple[int, ...], width: int) -> Tensor:
    """Return (blocks, n) bytes as (blocks, n / width, shifts, width), each group of `width` shifted right by each."""
    shift = torch.tensor(shifts, dtype=torch.uint8, device=block.device)
    return block.reshape(block.shape[0], -1, 1, width) >> shift[:, None]


def _q2_k(block: Tensor) -> Tensor:
    scales, codes = block[:, :16], _shifted(block[:, 16:80], (0, 2, 4, 6), 32) & 3
    factor, least = _half(block, 80) * (scales & 15).float(), _half(block, 82) * (scales >> 4).float()
    values = factor[:, :, None] * codes.reshape(-1, 16, 16).float() - least[:, :, None]
    return values.flatten(1)


def _q3_k(block: Tensor) -> Tensor:
    low = _shifted(block[:, 96:104], (0, 4), 8).reshape(-1, 16) & 15
    high = _shifted(block[:, 104:108], (0, 2, 4, 6), 4).reshape(-1, 16) & 3
    factor = _half(block, 108) * ((low | high << 4).short() - 32).float()
    codes = (_shifted(block[:, 32:96], (0, 2, 4, 6), 32) & 3).reshape(-1, 16, 16).short()
    # A bit that is set means that nothing is subtracted.
    missing = ((_shifted(block[:, :32], tuple(range(8)), 32) & 1) ^ 1).reshape(-1, 16, 16).short()
    return (factor[:, :, None] * (codes - 4 * missing).float()).flatten(1)


def _six_bit_scales(block: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and minima of Q4_K and Q5_K, (blocks, 8) each, from their 12 bytes."""
    first, second, third = block[:, :4], block[:, 4:8], block[:, 8:12]
    scales = torch.cat((first & 63, third & 15 | first >> 2 & 48), dim=1)
    minima = torch.cat((second & 63, third >> 4 | second >> 2 & 48), dim=1)
    return scales.float(), minima.float()


def _with_minima(block: Tensor, codes: Tensor) -> Tensor:
    scales, minima = _six_bit_scales(block[:, 4:16])
    factor, least = _half(block, 0) * scales, _half(block, 2) * minima
    return (factor[:, :, None] * codes.float() - least[:, :, None]).flatten(1)


def _q4_k(block: Tensor) -> Tensor:
    return _with_minima(block, (_shifted(block[:, 16:], (0, 4), 32) & 15).reshape(-1, 8, 32))


def _q5_k(block: Tensor) -> Tensor:
    low = (_shifted(block[:, 48:], (0, 4), 32) & 15).reshape(-1, 8, 32)
    high = (_shifted(block[:, 16:48], tuple(range(8)), 32) & 1).reshape(-1, 8, 32)
    return _with_minima(block, low | high << 4)


def _q6_k(block: Tensor) -> Tensor:
    low = (_shifted(block[:, :128], (0, 4), 64) & 15).reshape(-1, 8, 32)
    high = (_shifted(block[:, 128:192], (0, 2, 4, 6), 32) & 3).reshape(-1, 8, 32)
    codes = ((low | high << 4).short() - 32).reshape(-1, 16, 16).float()
    factor = _half(block, 208) * _signed(block[:, 192:208])
    return (factor[:, :, None] * codes).flatten(1)


def _scaled(levels: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda block: _half(block, 0) * levels(block).float()


READABLE: dict[str, Callable[[Tensor], Tensor]] = {
    **{kind: _scaled(levels) for kind, levels in _LEVELS.items()},
    "Q4_1": _q4_1,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
"""The types that are read: kind to the conversion of blocks (blocks, bytes) to float32 (blocks, values)."""
