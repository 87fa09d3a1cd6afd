"""Dense layers for one token or few, bound by reading the weights; norm and rope for any number of tokens.

A weight matrix `w` (rows, K) is bfloat16 or float32, or int8 with `scales` (rows, K / 32) bfloat16 (EIGHT_BITS; see the
package's docstring); without EIGHT_BITS `scales` is not read. A program computes BLOCK_R rows and reads BLOCK_G groups
of 32 columns at a time. Activations and sums are float32.
"""

import triton
import triton.language as tl

from gptoss.model.kernels.triton.numbers import store

GROUP = tl.constexpr(32)
"""Columns of a row that share a scale if weights have 8 bits."""


@triton.jit
def _tile(w, scales, rows, valid, group, K: tl.constexpr, EIGHT_BITS: tl.constexpr):
    """Weights of the rows `rows` where `valid`, in the column groups `group`: (rows, groups, 32) float32, else 0."""
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = valid[:, None, None] & (column < K)[None, :, :]
    at = rows.to(tl.int64)[:, None, None] * K + column[None, :, :]
    tile = tl.load(w + at, mask=inside, other=0, eviction_policy="evict_first").to(tl.float32)
    if EIGHT_BITS:
        has_scale = valid[:, None] & (group < K // GROUP)[None, :]
        scale_at = rows.to(tl.int64)[:, None] * (K // GROUP) + group[None, :]
        tile *= tl.load(scales + scale_at, mask=has_scale, other=0).to(tl.float32)[:, :, None]
    return tile


@triton.jit
def _columns(x, group, K: tl.constexpr):
    """Elements of a vector x (K,) in the column groups `group`: (groups, 32) float32, 0 beyond K."""
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    return tl.load(x + column, mask=column < K, other=0).to(tl.float32)


@triton.jit
def _row_sums(tile):
    """Sum over groups and columns: (rows, groups, columns) -> (rows,)."""
    return tl.sum(tl.sum(tile, axis=2), axis=1)


@triton.jit
def gemv(
    x,
    w,
    scales,
    bias,
    add,
    out,
    rows,
    K: tl.constexpr,
    EIGHT_BITS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_ADD: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """out[t] = w @ x[t] + bias + add[t]. Grid: (ceil(rows / BLOCK_R), tokens).

    x (tokens, K), w (rows, K), bias (rows,) of any float type if HAS_BIAS, add (tokens, rows) if HAS_ADD, out (tokens,
    rows).
    """
    token = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    valid = row < rows
    sums = tl.zeros((BLOCK_R, BLOCK_G, GROUP), dtype=tl.float32)
    for begin in range(0, tl.cdiv(K, GROUP), BLOCK_G):
        group = begin + tl.arange(0, BLOCK_G)
        sums += _tile(w, scales, row, valid, group, K, EIGHT_BITS) * _columns(x + token * K, group, K)[None, :, :]
    y = _row_sums(sums)
    if HAS_BIAS:
        y += tl.load(bias + row, mask=valid, other=0).to(tl.float32)
    if HAS_ADD:
        y += tl.load(add + token * rows + row, mask=valid, other=0)
    tl.store(out + token * rows + row, y, mask=valid)


@triton.jit
def norm_qkv_rope(
    x,
    norm,
    eps,
    w,
    scales,
    bias,
    cos,
    sin,
    position,
    q,
    keys,
    values,
    K: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    EIGHT_BITS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """RMSNorm, the projections q, k and v, and rope, for one token. Grid: ((HEADS + 2 * KV_HEADS) * TILES,).

    x and norm (K,); w (rows, K) and bias (rows,), the HEADS + 2 * KV_HEADS heads of q, k and v in this order with
    HEAD_DIM rows each; cos and sin (HEAD_DIM / 2,); position (1,) int64. Writes q (HEADS, HEAD_DIM), and row `position`
    of keys and values (capacity, KV_HEADS, HEAD_DIM), bfloat16 or float32.

    A program computes BLOCK_R pairs (i, i + HEAD_DIM / 2) of one head. The factor 1 / sqrt(mean(x^2) + eps) of the norm
    is the same for all columns, so it is applied to the sums, in the same pass over x.
    """
    HALF: tl.constexpr = HEAD_DIM // 2
    TILES: tl.constexpr = (HALF + BLOCK_R - 1) // BLOCK_R
    head = tl.program_id(0) // TILES
    pair = (tl.program_id(0) % TILES) * BLOCK_R + tl.arange(0, BLOCK_R)
    valid = pair < HALF
    row = head * HEAD_DIM + pair
    first = tl.zeros((BLOCK_R, BLOCK_G, GROUP), dtype=tl.float32)
    second = tl.zeros((BLOCK_R, BLOCK_G, GROUP), dtype=tl.float32)
    squares = tl.zeros((BLOCK_G, GROUP), dtype=tl.float32)
    for begin in range(0, tl.cdiv(K, GROUP), BLOCK_G):
        group = begin + tl.arange(0, BLOCK_G)
        residual = _columns(x, group, K)
        squares += residual * residual
        scaled = (residual * _columns(norm, group, K))[None, :, :]
        first += _tile(w, scales, row, valid, group, K, EIGHT_BITS) * scaled
        second += _tile(w, scales, row + HALF, valid, group, K, EIGHT_BITS) * scaled
    factor = tl.rsqrt(tl.sum(tl.sum(squares, axis=1), axis=0) / K + eps)
    a = _row_sums(first) * factor + tl.load(bias + row, mask=valid, other=0).to(tl.float32)
    b = _row_sums(second) * factor + tl.load(bias + row + HALF, mask=valid, other=0).to(tl.float32)
    turns = head < HEADS + KV_HEADS
    c = tl.load(cos + pair, mask=valid & turns, other=1)
    s = tl.load(sin + pair, mask=valid & turns, other=0)
    turned_a, turned_b = a * c - b * s, b * c + a * s

    tl.store(q + row, turned_a, mask=valid & (head < HEADS))
    tl.store(q + row + HALF, turned_b, mask=valid & (head < HEADS))
    slot = tl.load(position).to(tl.int64) * (KV_HEADS * HEAD_DIM) + pair
    is_key = valid & (head >= HEADS) & turns
    key_at = keys + slot + (head - HEADS) * HEAD_DIM
    store(key_at, turned_a, is_key)
    store(key_at + HALF, turned_b, is_key)
    is_value = valid & (head >= HEADS + KV_HEADS)
    value_at = values + slot + (head - HEADS - KV_HEADS) * HEAD_DIM
    store(value_at, turned_a, is_value)
    store(value_at + HALF, turned_b, is_value)


@triton.jit
def rms_norm(x, scale, out, eps, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * scale: x and out (tokens, K), scale (K,). Grid: (tokens,)."""
    row = tl.program_id(0).to(tl.int64) * K
    column = tl.arange(0, BLOCK_K)
    inside = column < K
    value = tl.load(x + row + column, mask=inside, other=0)
    factor = tl.rsqrt(tl.sum(value * value, axis=0) / K + eps)
    weight = tl.load(scale + column, mask=inside, other=0).to(tl.float32)
    tl.store(out + row + column, value * factor * weight, mask=inside)


@triton.jit
def rope(x, cos, sin, out, HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rotate the pairs (i, i + HALF) of every head. Grid: (tokens, ceil(HEADS / BLOCK_H)).

    x and out (tokens, HEADS, 2 * HALF), cos and sin (tokens, HALF).
    """
    token = tl.program_id(0)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    pair = tl.arange(0, BLOCK_D)
    inside = (head < HEADS)[:, None] & (pair < HALF)[None, :]
    at = (token.to(tl.int64) * HEADS + head[:, None]) * (2 * HALF) + pair[None, :]
    a = tl.load(x + at, mask=inside, other=0)
    b = tl.load(x + at + HALF, mask=inside, other=0)
    c = tl.load(cos + token * HALF + pair, mask=pair < HALF, other=0)[None, :]
    s = tl.load(sin + token * HALF + pair, mask=pair < HALF, other=0)[None, :]
    tl.store(out + at, a * c - b * s, mask=inside)
    tl.store(out + at + HALF, b * c + a * s, mask=inside)


@triton.jit
def unpack_8_bits(w, scales, out, groups, BLOCK: tl.constexpr):
    """Convert 8-bit weights to bfloat16, for a product with many tokens. Grid: (ceil(groups / BLOCK),).

    w (groups, 32) int8, scales (groups,) bfloat16, out (groups, 32) bfloat16.
    """
    group = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = (group < groups)[:, None]
    at = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    scale = tl.load(scales + group, mask=group < groups, other=0).to(tl.float32)
    tile = tl.load(w + at, mask=inside, other=0).to(tl.float32) * scale[:, None]
    store(out + at, tile, inside)
