"""MXFP4 in the blocks of GGUF files: the scale and the sixteen bytes of codes of 32 values together, 17 bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss.model.tensors.mxfp4 import BLOCK_BYTES, BLOCK_SIZE, Mxfp4Tensor

JOINED_BYTES = BLOCK_BYTES + 1


@dataclass(frozen=True)
class JoinedMxfp4:
    """A packed tensor of the logical shape (..., rows, columns), as it is mapped.

    Attributes:
        parts: uint8, (..., rows / number of parts, columns / 32, 17) each. The rows of the parts alternate: gate and up
            of the experts are tensors of their own in most files.
        halves: byte i of the codes has the values i (low half) and i + 16 of its block, as in ggml; else 2i and 2i + 1.
    """

    parts: tuple[Tensor, ...]
    halves: bool = True

    @property
    def shape(self) -> torch.Size:
        """The shape of the values."""
        *lead, rows, blocks, _bytes = self.parts[0].shape
        return torch.Size((*lead, rows * len(self.parts), blocks * BLOCK_SIZE))

    @property
    def nbytes(self) -> int:
        """Bytes as stored: 17 for 32 values."""
        return sum(int(part.nbytes) for part in self.parts)

    def __getitem__(self, index: int | slice) -> JoinedMxfp4:
        """Return a view at `index` of the first axis."""
        return JoinedMxfp4(tuple(part[index] for part in self.parts), self.halves)

    def split(self) -> Mxfp4Tensor:
        """Return a copy with the codes apart from the scales, neighbouring values in a byte, rows in their order."""
        shape = self.shape
        lead = (*shape[:-1], shape[-1] // BLOCK_SIZE)
        device = self.parts[0].device
        blocks = torch.empty((*lead, BLOCK_BYTES), dtype=torch.uint8, device=device)
        scales = torch.empty(lead, dtype=torch.uint8, device=device)
        for first, part in enumerate(self.parts):
            rows = slice(first, None, len(self.parts))
            scales[..., rows, :] = part[..., 0]
            codes = part[..., 1:]
            blocks[..., rows, :, :] = _neighbours(codes) if self.halves else codes
        return Mxfp4Tensor(blocks, scales)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the values; see `mxfp4.dequantize`."""
        return self.split().dequantize(dtype)


def _neighbours(codes: Tensor) -> Tensor:
    """Move the values i and i + 16 of each block from one byte to where 2i and 2i + 1 share one."""
    # Bytes j and j + 1 of the first half have the values j and j + 1 low, and j + 16 and j + 17 high.
    even, odd = codes[..., 0::2], codes[..., 1::2]
    return torch.cat(((even & 15) | (odd << 4), (even >> 4) | (odd & 240)), dim=-1)
