"""MXFP4, the format of the published expert weights, and its reference conversions.

OCP Microscaling Formats (MX) v1.0: 32 values along the last axis share one scale.

- A value is E2M1 (sign, two bits of exponent, one of mantissa): 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Two
  stand in a byte, the earlier one in the low half, so a block has 16 bytes.
- A scale is E8M0: the byte s means 2^(s - 127), and 255 means not-a-number.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_SIZE = 32
"""Values that share a scale."""
BLOCK_BYTES = BLOCK_SIZE // 2
"""Bytes that hold the values of one block."""
EXPONENT_BIAS = 127
NAN_SCALE = 255
"""The scale that makes its whole block not-a-number."""
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Value of each of the 16 codes."""

_LARGEST_EXPONENT = 2
"""Of E2M1: its largest value is 1.5 * 2^2."""
_ROUND_UP_ABOVE = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Halfway between neighbouring magnitudes: code i + 1 begins above the i-th, or at it where that code is even."""
_PIECE = 1 << 18
"""Blocks that are converted at a time (33 MB of float32): bounds the memory beside the result."""


@dataclass(frozen=True)
class Mxfp4Tensor:
    """A packed tensor of the logical shape (..., rows, columns).

    Attributes:
        blocks: uint8, (..., rows, columns / 32, 16).
        scales: uint8, (..., rows, columns / 32).
    """

    blocks: Tensor
    scales: Tensor

    def __post_init__(self) -> None:
        _require_packed(self.blocks, self.scales)

    @property
    def shape(self) -> torch.Size:
        """The shape of the values."""
        return torch.Size((*self.scales.shape[:-1], self.scales.shape[-1] * BLOCK_SIZE))

    @property
    def nbytes(self) -> int:
        """Bytes of blocks and scales together: 17 for 32 values."""
        return int(self.blocks.nbytes + self.scales.nbytes)

    def __getitem__(self, index: int | slice) -> Mxfp4Tensor:
        """Return a view at `index` of the first axis."""
        return Mxfp4Tensor(self.blocks[index], self.scales[index])

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the values; see `dequantize`."""
        return dequantize(self.blocks, self.scales, dtype)


def dequantize(blocks: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the values of packed blocks.

    Exact in float32 and bfloat16, except that values from 2^128 (only scale 254 reaches them) become infinite. A block
    with scale 255 is not-a-number, as in the standard.

    Args:
        blocks: uint8, (..., blocks, 16).
        scales: uint8, (..., blocks), on the same device.
        dtype: float32, bfloat16 or float16 (which rounds).

    Returns:
        (..., blocks * 32) of `dtype`.

    Raises:
        ValueError: the shapes or types are not those above.
    """
    _require_packed(blocks, scales)
    if dtype == torch.float16:
        # Scales reach far below float16; their products with the values less so.
        return dequantize(blocks, scales, torch.float32).to(dtype)
    pairs, scale_values = _tables(dtype, blocks.device)
    out = torch.empty((scales.numel(), BLOCK_SIZE), dtype=dtype, device=blocks.device)
    flat_blocks, flat_scales = blocks.reshape(-1, BLOCK_BYTES), scales.reshape(-1)
    for begin in range(0, out.shape[0], _PIECE):
        piece = slice(begin, begin + _PIECE)
        values = out[piece]
        # One look-up a byte yields both of its values, as one integer.
        torch.index_select(pairs, 0, flat_blocks[piece].reshape(-1).int(), out=values.view(pairs.dtype).view(-1))
        values.mul_(scale_values[flat_scales[piece].int()].unsqueeze(-1))
    return out.view((*scales.shape[:-1], scales.shape[-1] * BLOCK_SIZE))


def quantize(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Pack values as in MX v1.0, section 6.3.

    The scale of a block is 2^(floor(log2(largest magnitude)) - 2), so that the largest lies from 4 to 8; each value is
    rounded to the nearest E2M1, ties to even, and what is above 6 becomes 6. A block of zeros has the smallest scale.

    Args:
        tensor: floating point, (..., columns), the columns a multiple of 32.

    Returns:
        Blocks (..., columns / 32, 16) and scales (..., columns / 32), both uint8, on the tensor's device.

    Raises:
        ValueError: the columns are not a multiple of 32, or a value is not finite.
    """
    if tensor.dim() < 1 or tensor.shape[-1] % BLOCK_SIZE or not tensor.is_floating_point():
        raise ValueError(f"a tensor of {tensor.dtype} of shape {tuple(tensor.shape)} has no blocks of {BLOCK_SIZE}")
    lead = (*tensor.shape[:-1], tensor.shape[-1] // BLOCK_SIZE)
    flat = tensor.detach().reshape(-1, BLOCK_SIZE)
    blocks = torch.empty((flat.shape[0], BLOCK_BYTES), dtype=torch.uint8, device=tensor.device)
    scales = torch.empty((flat.shape[0],), dtype=torch.uint8, device=tensor.device)
    for begin in range(0, flat.shape[0], _PIECE):
        piece = slice(begin, begin + _PIECE)
        blocks[piece], scales[piece] = _quantize_blocks(flat[piece])
    return blocks.view((*lead, BLOCK_BYTES)), scales.view(lead)


def fake_quantize(tensor: Tensor) -> Tensor:
    """Quantize and dequantize `tensor`; keeps its shape and type, passes no gradient.

    Raises:
        ValueError: as `quantize`.
    """
    return dequantize(*quantize(tensor)).to(tensor.dtype)


def _quantize_blocks(values: Tensor) -> tuple[Tensor, Tensor]:
    largest = values.abs().amax(dim=-1).float()
    if not bool(torch.isfinite(largest).all()):
        raise ValueError("a value is infinite or not a number: it has no MXFP4 form")
    # frexp's mantissa lies in [0.5, 1), so its exponent is one above floor(log2).
    exponent = torch.frexp(largest).exponent - 1 - _LARGEST_EXPONENT
    exponent = torch.where(largest > 0, exponent, -EXPONENT_BIAS).clamp(-EXPONENT_BIAS, EXPONENT_BIAS)
    if values.dtype == torch.bfloat16:
        codes = _codes_of_bfloat16(torch.ldexp(values, -exponent.unsqueeze(-1)))
    else:
        codes = _codes(torch.ldexp(values.float(), -exponent.unsqueeze(-1)))
    return codes[:, 0::2] | (codes[:, 1::2] << 4), (exponent + EXPONENT_BIAS).to(torch.uint8)


def _codes(scaled: Tensor) -> Tensor:
    """Return the code of each value, uint8 in its shape."""
    codes = torch.bucketize(scaled.abs(), _boundaries(scaled.device), out_int32=True).to(torch.uint8)
    return codes.bitwise_or_(torch.signbit(scaled).to(torch.uint8) << 3)


def _codes_of_bfloat16(scaled: Tensor) -> Tensor:
    """As `_codes`, but five times as fast: looks up the codes of the 2^16 values."""
    index = scaled.contiguous().view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF)
    return _bfloat16_codes(scaled.device).index_select(0, index.view(-1)).view(scaled.shape)


@functools.cache
def _bfloat16_codes(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
        return _codes(bits.view(torch.bfloat16).float().to(device))


@functools.cache
def _boundaries(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        halves = torch.tensor(_ROUND_UP_ABOVE)
        # Ties go to the even code: up if code i + 1 is even, so for odd i.
        below = torch.nextafter(halves, torch.zeros(()))
        ties_up = torch.arange(len(_ROUND_UP_ABOVE)) % 2 == 1
        return torch.where(ties_up, below, halves).to(device)


@functools.cache
def _tables(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the two values of each byte as one integer, and the value of each scale."""
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"MXFP4 becomes float32, bfloat16 or float16, not {dtype}")
    with torch.inference_mode(False):
        values = torch.tensor(VALUES, dtype=dtype)
        byte = torch.arange(256)
        pairs = torch.stack([values[byte & 15], values[byte >> 4]], dim=-1)
        integer = torch.int64 if dtype == torch.float32 else torch.int32
        scales = torch.tensor([2.0 ** (code - EXPONENT_BIAS) for code in range(NAN_SCALE)] + [float("nan")])
        return pairs.view(integer).view(-1).to(device), scales.to(dtype).to(device)


def _require_packed(blocks: Tensor, scales: Tensor) -> None:
    if blocks.dtype != torch.uint8 or scales.dtype != torch.uint8:
        raise ValueError(f"MXFP4 blocks and scales are uint8, not {blocks.dtype} and {scales.dtype}")
    if scales.dim() < 1 or blocks.shape != (*scales.shape, BLOCK_BYTES):
        raise ValueError(
            f"MXFP4 blocks of shape {tuple(blocks.shape)} do not go with scales of shape {tuple(scales.shape)}"
        )
