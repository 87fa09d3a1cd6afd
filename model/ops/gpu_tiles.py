"""How the GPU's work is cut: what one program computes, and sizes as Triton wants them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tiles:
    """What one program computes: rows, groups or blocks of 32 columns at a time, and its warps."""

    dense_rows: int = 4
    unembedding_rows: int = 8
    dense_groups: int = 32
    pairs: int = 4
    router_rows: int = 1
    expert_rows: int = 4
    expert_blocks: int = 32
    keys: int = 64
    warps: int = 4
    expert_warps: int = 1


def cdiv(a: int, b: int) -> int:
    """The quotient, rounded up."""
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The smallest power of two from n on."""
    return 1 << max(n - 1, 0).bit_length()


def head_block(head_dim: int) -> int:
    """Tensor cores want at least 16 of everything."""
    return max(16, power_of_two(head_dim))
