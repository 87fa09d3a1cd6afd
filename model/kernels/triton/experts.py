"""The mixture of experts for one token or few, reading the experts as the checkpoint packs them.

Layout: words (experts, rows, columns / 32, 4) int32 are the MXFP4 blocks as 32-bit words of eight codes; code c of
word w, in bits 4c to 4c + 3, is column 8w + c. scales (experts, rows, columns / 32) uint8 are E8M0. Of gate_up, row 2i
is the gate and row 2i + 1 the up of unit i.

Decoding: a code is E2M1: sign, two bits of exponent, one of mantissa. Shifted to the sign, the lowest exponent bits and
the highest mantissa bit of a float32, they are the code's value times 2^-126, with 0.5 as a subnormal number: two
shifts and a mask per weight, no table.

Scaling: so that products with these tiny values stay normal numbers, activations are stored times 2^63 (`LIFT`), and
the sums of a block are multiplied by 2^63 and by the block's scale. 2^-126 * 2^63 * 2^63 = 1.

Order of activations ("by code"): (8, columns / 8), element (c, w) being column 8w + c, so that the activations for code
c of consecutive words are contiguous. A thread loads whole words and their activations; with one warp per program
nothing goes through shared memory.
"""

import triton
import triton.language as tl

from gptoss.model.kernels.triton.dense import GROUP, _columns, _row_sums, _tile

LIFT = tl.constexpr(2.0**63)
WORDS = tl.constexpr(4)
"""32-bit words per block."""
SIGN_AND_MAGNITUDE = tl.constexpr(0x81C00000 - (1 << 32))
"""The bits of a code after the shifts: sign (31), exponent (24, 23), mantissa (22)."""


@triton.jit
def scale_of(byte):
    """Return the float32 of an E8M0 byte: 2^(byte - 127), subnormal for 0; not a number for 255."""
    byte = byte.to(tl.int32)
    bits = tl.where(byte == 0, 0x00400000, tl.where(byte == 255, 0x7FC00000, byte << 23))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _chosen(logits, slot, EXPERTS: tl.constexpr, TOP_K: tl.constexpr, BLOCK_E: tl.constexpr):
    """Expert and weight of a token's `slot`-th choice: the softmax over the TOP_K largest of `logits` (EXPERTS,).

    Every program ranks all logits itself, which is cheaper than a kernel in between. NaN counts as the largest, as in
    torch, so that it reaches the output.
    """
    expert = tl.arange(0, BLOCK_E)
    there = expert < EXPERTS
    logit = tl.load(logits + expert, mask=there, other=float("-inf"))
    key = tl.where(logit == logit, logit, float("inf"))
    before = (key[None, :] > key[:, None]) | ((key[None, :] == key[:, None]) & (expert[None, :] < expert[:, None]))
    rank = tl.sum((before & there[None, :]).to(tl.int32), axis=1)
    is_chosen = there & (rank < TOP_K)
    weight = tl.where(is_chosen, tl.exp(logit - tl.max(tl.where(is_chosen, key, float("-inf")), axis=0)), 0.0)
    here = is_chosen & (rank == slot)
    share = tl.sum(tl.where(here, weight, 0.0), axis=0) / tl.sum(weight, axis=0)
    return tl.sum(tl.where(here, expert, 0), axis=0), share


@triton.jit
def _words(words, row, valid, block, COLUMNS: tl.constexpr):
    """Words of the rows `row` where `valid`, in the blocks `block` of each: (rows, blocks, 4) int32, else 0."""
    BLOCKS: tl.constexpr = COLUMNS // 32
    word = block[:, None] * WORDS + tl.arange(0, WORDS)[None, :]
    at = row.to(tl.int64)[:, None, None] * (BLOCKS * WORDS) + word[None, :, :]
    inside = valid[:, None, None] & (block < BLOCKS)[None, :, None]
    return tl.load(words + at, mask=inside, other=0, eviction_policy="evict_first")


@triton.jit
def _activations(x, code: tl.constexpr, block, COLUMNS: tl.constexpr):
    """Activations for one code of every word of the blocks: (1, blocks, 4); x (8, COLUMNS / 8) by code."""
    word = block[:, None] * WORDS + tl.arange(0, WORDS)[None, :]
    return tl.load(x + code * (COLUMNS // 8) + word, mask=(block < COLUMNS // 32)[:, None], other=0)[None, :, :]


@triton.jit
def _values(packed, code: tl.constexpr):
    """Return the values of one code of each word, times 2^-126."""
    return (((packed << (28 - 4 * code)) >> 6) & SIGN_AND_MAGNITUDE).to(tl.float32, bitcast=True)


@triton.jit
def _scaled(sums, scales, row, valid, block, COLUMNS: tl.constexpr):
    """Undo LIFT and the 2^-126 of sums (rows, blocks, 4), and multiply by the scales of their blocks."""
    BLOCKS: tl.constexpr = COLUMNS // 32
    inside = valid[:, None] & (block < BLOCKS)[None, :]
    at = row.to(tl.int64)[:, None] * BLOCKS + block[None, :]
    scale = scale_of(tl.load(scales + at, mask=inside, other=127))
    return (sums * LIFT) * scale[:, :, None]


@triton.jit
def _place_by_code(column, COLUMNS: tl.constexpr):
    """Index of a column in a vector stored by code."""
    return (column % 8) * (COLUMNS // 8) + column // 8


@triton.jit
def norm_router(
    x,
    norm,
    eps,
    w,
    bias,
    logits,
    lifted,
    factors,
    experts,
    K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """RMSNorm and the router's logits. Grid: (ceil(experts / BLOCK_R), tokens).

    x (tokens, K), norm (K,), w (experts, K), bias (experts,). Writes logits (tokens, experts) and, from the first
    program of each token, the input of `experts_up`: lifted (tokens, 8, K / 8), which is x * norm * LIFT by code, and
    factors (tokens,), the factor 1 / sqrt(mean(x^2) + eps) that is still missing in it.
    """
    token = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    valid = row < experts
    sums = tl.zeros((BLOCK_R, BLOCK_G, GROUP), dtype=tl.float32)
    squares = tl.zeros((BLOCK_G, GROUP), dtype=tl.float32)
    is_first = tl.program_id(0) == 0
    for begin in range(0, tl.cdiv(K, GROUP), BLOCK_G):
        group = begin + tl.arange(0, BLOCK_G)
        residual = _columns(x + token * K, group, K)
        squares += residual * residual
        weighted = residual * _columns(norm, group, K)
        sums += _tile(w, w, row, valid, group, K, False) * weighted[None, :, :]
        column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
        tl.store(lifted + token * K + _place_by_code(column, K), weighted * LIFT, mask=(column < K) & is_first)
    factor = tl.rsqrt(tl.sum(tl.sum(squares, axis=1), axis=0) / K + eps)
    y = _row_sums(sums) * factor + tl.load(bias + row, mask=valid, other=0).to(tl.float32)
    tl.store(logits + token * experts + row, y, mask=valid)
    tl.store(factors + token, factor, mask=is_first)


@triton.jit
def experts_up(
    lifted,
    factors,
    logits,
    words,
    scales,
    bias,
    activated,
    alpha,
    limit,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Gate, up and SwiGLU for each token and each of its experts. Grid: (ceil(WIDTH / BLOCK_R), tokens * TOP_K).

    lifted (tokens, 8, HIDDEN / 8) and factors (tokens,) from `norm_router`; logits (tokens, EXPERTS); words and scales
    of gate_up, with 2 * WIDTH rows of HIDDEN columns; bias (EXPERTS, 2 * WIDTH). Writes activated (tokens, TOP_K, 8,
    WIDTH / 8), times LIFT and by code.
    """
    slot = tl.program_id(1).to(tl.int64)
    token = slot // TOP_K
    expert, _share = _chosen(logits + token * EXPERTS, slot % TOP_K, EXPERTS, TOP_K, BLOCK_E)
    unit = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    valid = unit < WIDTH
    row = expert * (2 * WIDTH) + 2 * unit
    x = lifted + token * HIDDEN
    gates = tl.zeros((BLOCK_R, BLOCK_B, WORDS), dtype=tl.float32)
    ups = tl.zeros((BLOCK_R, BLOCK_B, WORDS), dtype=tl.float32)
    for begin in range(0, HIDDEN // 32, BLOCK_B):
        block = begin + tl.arange(0, BLOCK_B)
        gate_words = _words(words, row, valid, block, HIDDEN)
        up_words = _words(words, row + 1, valid, block, HIDDEN)
        gate_sums = tl.zeros((BLOCK_R, BLOCK_B, WORDS), dtype=tl.float32)
        up_sums = tl.zeros((BLOCK_R, BLOCK_B, WORDS), dtype=tl.float32)
        for code in tl.static_range(8):
            activations = _activations(x, code, block, HIDDEN)
            gate_sums += _values(gate_words, code) * activations
            up_sums += _values(up_words, code) * activations
        gates += _scaled(gate_sums, scales, row, valid, block, HIDDEN)
        ups += _scaled(up_sums, scales, row + 1, valid, block, HIDDEN)
    factor = tl.load(factors + token)
    gate = _row_sums(gates) * factor + tl.load(bias + row, mask=valid, other=0).to(tl.float32)
    up = _row_sums(ups) * factor + tl.load(bias + row + 1, mask=valid, other=0).to(tl.float32)
    y = swiglu(gate, up, alpha, limit)
    tl.store(activated + slot * WIDTH + _place_by_code(unit, WIDTH), y * LIFT, mask=valid)


@triton.jit
def swiglu(gate, up, alpha, limit):
    """Compute the clamped SwiGLU of gpt-oss: gate * sigmoid(alpha * gate) * (up + 1); NaN passes the clamps."""
    gate = tl.where(gate > limit, limit, gate)
    up = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
    return gate / (1.0 + tl.exp(-alpha * gate)) * (up + 1.0)


@triton.jit
def experts_down(
    activated,
    logits,
    words,
    scales,
    bias,
    add,
    out,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    HAS_ADD: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Down of a token's experts, summed by their weights. Grid: (ceil(HIDDEN / BLOCK_R), tokens).

    activated (tokens, TOP_K, 8, WIDTH / 8) from `experts_up`; logits (tokens, EXPERTS); words and scales of down, with
    HIDDEN rows of WIDTH columns; bias (EXPERTS, HIDDEN); add (tokens, HIDDEN) if HAS_ADD. Writes out (tokens, HIDDEN).
    """
    token = tl.program_id(1).to(tl.int64)
    unit = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    valid = unit < HIDDEN
    y = tl.zeros((BLOCK_R,), dtype=tl.float32)
    if HAS_ADD:
        y += tl.load(add + token * HIDDEN + unit, mask=valid, other=0)
    for slot in tl.static_range(TOP_K):
        expert, share = _chosen(logits + token * EXPERTS, slot, EXPERTS, TOP_K, BLOCK_E)
        row = expert * HIDDEN + unit
        x = activated + (token * TOP_K + slot) * WIDTH
        total = tl.zeros((BLOCK_R, BLOCK_B, WORDS), dtype=tl.float32)
        for begin in range(0, WIDTH // 32, BLOCK_B):
            block = begin + tl.arange(0, BLOCK_B)
            packed = _words(words, row, valid, block, WIDTH)
            sums = tl.zeros((BLOCK_R, BLOCK_B, WORDS), dtype=tl.float32)
            for code in tl.static_range(8):
                sums += _values(packed, code) * _activations(x, code, block, WIDTH)
            total += _scaled(sums, scales, row, valid, block, WIDTH)
        own = _row_sums(total) + tl.load(bias + row, mask=valid, other=0).to(tl.float32)
        y += own * share
    tl.store(out + token * HIDDEN + unit, y, mask=valid)
