"""Repacks matrices in ggml's Q8_0 for the CPU's 8-bit kernels: the integers stay as they are.

The kernels' layout (`model/kernels/cpu/kernels.h`): panels of 32 rows, each (groups, 8, 32, 4) int8, indexed
[group][four neighbouring columns][row][column of the four, in the order 0 2 1 3]; behind all panels their scales,
(groups, 32) bfloat16 each. A block of Q8_0 is a float16 scale and 32 integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptoss.model.tensors.blocks import Blocks

_ROWS, _GROUP = 32, 32
_PIECE = 8
"""Panels at a time, which fit into a cache."""


def pack_q8_0(matrix: Blocks, packed: Tensor) -> None:
    """Write a matrix into `packed`, uint8 of as many bytes as the kernels' layout has. Scales are rounded to bfloat16.

    Args:
        matrix: Q8_0, (rows, columns); rows that fill up the last panel become zero.
        packed: contiguous.
    """
    weights, scales = _parts(matrix, packed)
    for first in range(0, weights.shape[0], _PIECE):
        rows = matrix.data[first * _ROWS : (first + _PIECE) * _ROWS]
        weights[first : first + _PIECE], scales[first : first + _PIECE] = _panels(rows)


def is_packed_from_q8_0(matrix: Blocks, packed: Tensor) -> bool:
    """Return whether the last panel is what this matrix gives: a cheap check of a packed layer from a file."""
    weights, scales = _parts(matrix, packed)
    expected, its_scales = _panels(matrix.data[(weights.shape[0] - 1) * _ROWS :])
    # As bits: a scale that is not a number equals nothing.
    same_scales = torch.equal(scales[-1:].view(torch.int16), its_scales.view(torch.int16))
    return torch.equal(weights[-1:], expected) and same_scales


def _parts(matrix: Blocks, packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of packed weights (panels, groups, 8, 32) int32 and scales (panels, groups, 32) bfloat16."""
    rows, groups = matrix.data.shape[0], matrix.data.shape[1]
    panels = -(-rows // _ROWS)
    size = panels * groups * _GROUP * _ROWS
    weights = packed[:size].view(torch.int32).view(panels, groups, _GROUP // 4, _ROWS)
    return weights, packed[size:].view(torch.bfloat16).view(panels, groups, _ROWS)


def _panels(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the panels of raw blocks (rows, groups, 34), as `_parts`."""
    count, groups, _bytes = rows.shape
    panels = -(-count // _ROWS)
    if count % _ROWS:
        rows = torch.cat((rows, rows.new_zeros(panels * _ROWS - count, *rows.shape[1:])))
    fours = rows[..., 2:].contiguous().view(torch.int32).view(panels, _ROWS, groups, _GROUP // 4)
    # Bytes 1 and 2 change places.
    fours = (fours & -0xFFFF01) | (fours >> 8 & 0xFF00) | (fours & 0xFF00) << 8
    scales = rows[..., :2].contiguous().view(torch.float16).view(panels, _ROWS, groups)
    return fours.permute(0, 2, 3, 1), scales.permute(0, 2, 1).to(torch.bfloat16)
