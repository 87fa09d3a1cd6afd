"""How much one program of each GPU kernel computes, and sizes rounded as Triton needs them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tiles:
    """Sizes of one program. All are powers of two.

    Attributes:
        dense_rows: rows of a dense layer.
        unembedding_rows: rows of a dense layer that has 65536 or more.
        dense_groups: groups of 32 columns of a dense layer that are read at a time.
        pairs: rotated pairs of dimensions of a head.
        router_rows: rows of the router.
        expert_rows: rows of an expert's matrix.
        expert_blocks: MXFP4 blocks of a row that are read at a time.
        keys: keys that are read at a time.
        warps: warps per program of all kernels but the experts'.
        expert_warps: warps per program of the experts' kernels for few tokens.
    """

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
    """Return the quotient, rounded up."""
    return -(-a // b)


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def head_block(head_dim: int) -> int:
    """Dimensions of a head, padded; tensor cores need at least 16."""
    return max(16, power_of_two(head_dim))
