"""The mixture of experts for many tokens: tokens that chose the same expert are multiplied together, on tensor cores.

Slot s is token s // TOP_K with the s % TOP_K-th of its experts. A tile has up to BLOCK_M slots of one expert. The host
does not know how many tiles there are, so the grid has as many as there can be, and programs without a tile return.
The tables that describe the tiles, all int32, come from `ops.gpu_weights.group_by_expert`: tile_expert (tiles,), the
expert, or EXPERTS for no tile; tile_begin (tiles,), the index of the tile's first slot in `order`; offsets (EXPERTS +
1,), where each expert's slots begin in `order`; order (slots,), the slots sorted by expert.

Weights: packed (EXPERTS, rows, columns / 2) uint8, two codes per byte, the even column in the low half; scales
(EXPERTS, rows, columns / 32) uint8. They are converted to bfloat16. Activations are bfloat16 with all even columns
before all odd ones, (2, columns / 2), so that the low codes of consecutive bytes meet consecutive activations.
"""

import triton
import triton.language as tl

from gptoss.model.kernels.triton.experts import scale_of, swiglu
from gptoss.model.kernels.triton.numbers import dot, to_bfloat16


@triton.jit
def _halves(packed, scale):
    """Decode the low and the high codes of bytes (rows, bytes), scales (rows, bytes / 16): two bfloat16 tiles.

    As in `experts`, a code's bits are shifted into a float32, which makes its value times 2^-126.
    """
    bits = packed.to(tl.int32)
    low = (((bits << 28) >> 6) & (0x81C00000 - (1 << 32))).to(tl.float32, bitcast=True)
    high = (((bits << 24) >> 6) & (0x81C00000 - (1 << 32))).to(tl.float32, bitcast=True)
    ROWS: tl.constexpr = packed.shape[0]
    BYTES: tl.constexpr = packed.shape[1]
    wide = tl.reshape(tl.broadcast_to(scale[:, :, None], (ROWS, BYTES // 16, 16)), (ROWS, BYTES))
    # Times 2^126 before the scale: the value is then a normal number, and its product with any scale is exact.
    return to_bfloat16(low * 2.0**126 * wide), to_bfloat16(high * 2.0**126 * wide)


@triton.jit
def _weights(packed, scales, row, valid, first, COLUMNS: tl.constexpr, BLOCK_K: tl.constexpr):
    """Bytes first .. first + BLOCK_K - 1 of the rows `row` where `valid`, as two bfloat16 tiles (rows, BLOCK_K)."""
    BYTES: tl.constexpr = COLUMNS // 2
    byte = first + tl.arange(0, BLOCK_K)
    block = first // 16 + tl.arange(0, BLOCK_K // 16)
    row = row.to(tl.int64)
    tile = tl.load(
        packed + row[:, None] * BYTES + byte[None, :], mask=valid[:, None] & (byte < BYTES)[None, :], other=0
    )
    scale = scale_of(
        tl.load(
            scales + row[:, None] * (BYTES // 16) + block[None, :],
            mask=valid[:, None] & (block < BYTES // 16)[None, :],
            other=127,
        )
    )
    return _halves(tile, scale)


@triton.jit
def _slots_of_tile(tile_expert, tile_begin, offsets, order, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Expert of this program's tile (EXPERTS if there is no tile), its slots (BLOCK_M,), and which of them exist."""
    expert = tl.load(tile_expert + tl.program_id(1))
    is_tile = expert < EXPERTS
    begin = tl.load(tile_begin + tl.program_id(1), mask=is_tile, other=0)
    end = tl.load(offsets + expert + 1, mask=is_tile, other=0)
    index = begin + tl.arange(0, BLOCK_M)
    there = index < end
    return expert, tl.load(order + index, mask=there, other=0), there


@triton.jit
def grouped_up(
    x,
    packed,
    scales,
    bias,
    tile_expert,
    tile_begin,
    offsets,
    order,
    activated,
    alpha,
    limit,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gate, up and SwiGLU of each slot. Grid: (ceil(WIDTH / BLOCK_N), tiles).

    x (tokens, 2, HIDDEN / 2) bfloat16; packed and scales of gate_up, with 2 * WIDTH rows of HIDDEN columns, row 2i the
    gate and 2i + 1 the up of unit i; bias (EXPERTS, 2 * WIDTH). Writes activated (slots, 2, WIDTH / 2) bfloat16.
    """
    expert, slot, there = _slots_of_tile(tile_expert, tile_begin, offsets, order, EXPERTS, BLOCK_M)
    if expert < EXPERTS:
        unit = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
        valid = unit < WIDTH
        row = expert * (2 * WIDTH) + 2 * unit
        token = (slot // TOP_K).to(tl.int64)
        gates = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        ups = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for first in range(0, HIDDEN // 2, BLOCK_K):
            column = first + tl.arange(0, BLOCK_K)
            inside = there[:, None] & (column < HIDDEN // 2)[None, :]
            at = token[:, None] * HIDDEN + column[None, :]
            even = tl.load(x + at, mask=inside, other=0)
            odd = tl.load(x + at + HIDDEN // 2, mask=inside, other=0)
            low, high = _weights(packed, scales, row, valid, first, HIDDEN, BLOCK_K)
            gates = dot(even, tl.trans(low), gates)
            gates = dot(odd, tl.trans(high), gates)
            low, high = _weights(packed, scales, row + 1, valid, first, HIDDEN, BLOCK_K)
            ups = dot(even, tl.trans(low), ups)
            ups = dot(odd, tl.trans(high), ups)
        gates += tl.load(bias + row, mask=valid, other=0).to(tl.float32)[None, :]
        ups += tl.load(bias + row + 1, mask=valid, other=0).to(tl.float32)[None, :]
        y = to_bfloat16(swiglu(gates, ups, alpha, limit))
        at = slot.to(tl.int64)[:, None] * WIDTH + ((unit % 2) * (WIDTH // 2) + unit // 2)[None, :]
        tl.store(activated + at, y, mask=there[:, None] & valid[None, :])


@triton.jit
def grouped_down(
    activated,
    packed,
    scales,
    bias,
    shares,
    tile_expert,
    tile_begin,
    offsets,
    order,
    out,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    EXPERTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Down of each slot, times the weight of its expert. Grid: (ceil(HIDDEN / BLOCK_N), tiles).

    activated (slots, 2, WIDTH / 2) bfloat16; packed and scales of down, with HIDDEN rows of WIDTH columns; bias
    (EXPERTS, HIDDEN); shares (slots,). Writes out (slots, HIDDEN); the caller sums the slots of each token.
    """
    expert, slot, there = _slots_of_tile(tile_expert, tile_begin, offsets, order, EXPERTS, BLOCK_M)
    if expert < EXPERTS:
        unit = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
        valid = unit < HIDDEN
        row = expert * HIDDEN + unit
        sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for first in range(0, WIDTH // 2, BLOCK_K):
            column = first + tl.arange(0, BLOCK_K)
            inside = there[:, None] & (column < WIDTH // 2)[None, :]
            at = slot.to(tl.int64)[:, None] * WIDTH + column[None, :]
            even = tl.load(activated + at, mask=inside, other=0)
            odd = tl.load(activated + at + WIDTH // 2, mask=inside, other=0)
            low, high = _weights(packed, scales, row, valid, first, WIDTH, BLOCK_K)
            sums = dot(even, tl.trans(low), sums)
            sums = dot(odd, tl.trans(high), sums)
        sums += tl.load(bias + row, mask=valid, other=0).to(tl.float32)[None, :]
        share = tl.load(shares + slot, mask=there, other=0)
        at = slot.to(tl.int64)[:, None] * HIDDEN + unit[None, :]
        tl.store(out + at, sums * share[:, None], mask=there[:, None] & valid[None, :])
