"""Rotary position embedding (Su et al. 2021) with YaRN's scaling of the frequencies (Peng et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from gptoss.model.config import RopeConfig


class RotaryEmbedding:
    """The rotation angles of every position, computed when asked for."""

    def __init__(self, head_dim: int, rope: RopeConfig, device: torch.device | str = "cpu") -> None:
        self.inverse_frequency = inverse_frequency(head_dim, rope).to(device)
        self.concentration = rope.concentration

    def __call__(self, start: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions start .. start + tokens - 1, each (tokens, head_dim / 2) float32."""
        return self.at(torch.arange(start, start + tokens, device=self.inverse_frequency.device))

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for `positions` (tokens,) on the same device."""
        positions = positions.to(torch.float32)
        angle = positions[:, None] * self.inverse_frequency
        return angle.cos() * self.concentration, angle.sin() * self.concentration


def inverse_frequency(head_dim: int, rope: RopeConfig) -> Tensor:
    """Radians a position for each pair of dimensions: (head_dim / 2,) float32.

    Dimensions that turn more than `beta_fast` times within the initial context keep their frequency, those that turn
    less than `beta_slow` times are slowed by `factor`, those between are mixed along a straight ramp ("NTK by parts",
    section 3.2).
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequency = 1.0 / rope.theta**exponent
    if rope.factor == 1.0:
        return frequency
    low, high = rope.ramp_bounds(head_dim)
    slowed = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0.0, 1.0)
    return frequency / rope.factor * slowed + frequency * (1.0 - slowed)
