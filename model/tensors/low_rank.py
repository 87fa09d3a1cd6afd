"""Products of low rank that adapters add to the output of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ALONE = 4
"""Up to so many tokens are multiplied one by one, so that each has the bits that it has alone."""


@dataclass(frozen=True)
class LowRank:
    """An addition to a matrix (rows, columns): y += up (down x).

    Attributes:
        down: (rank, columns) float32; of experts (experts, rank, columns).
        up: (rows, rank) float32; of experts (experts, rows, rank).
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """The rank."""
        return self.down.shape[-2]

    def __getitem__(self, expert: int) -> LowRank:
        """Return that of one expert."""
        return LowRank(self.down[expert], self.up[expert])

    def product(self, x: Tensor) -> Tensor:
        """Return what is added to the outputs: (..., columns) float32 -> (..., rows)."""
        flat = x.reshape(-1, x.shape[-1])
        pieces = [flat] if flat.shape[0] > _ALONE else [flat[i : i + 1] for i in range(flat.shape[0])]
        out = [F.linear(F.linear(piece, self.down), self.up) for piece in pieces]
        return torch.cat(out).view(*x.shape[:-1], -1) if out else x.new_zeros(*x.shape[:-1], self.up.shape[-2])


def sum_of(parts: Sequence[LowRank]) -> LowRank | None:
    """Join additions to one matrix into one; None: there are none."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    down, up = torch.cat([part.down for part in parts], -2), torch.cat([part.up for part in parts], -1)
    return LowRank(down.contiguous(), up.contiguous())
