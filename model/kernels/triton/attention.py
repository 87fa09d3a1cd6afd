"""Attention with sinks and windows over the cache: split over keys for one token, in tiles for many.

The query heads that share a key head go through one product, so keys and values are read once. A sink is a logit
without a value: it is where the running maximum and the running sum begin.
"""

import triton
import triton.language as tl

from gptoss.model.kernels.triton.numbers import dot, to_bfloat16

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _product(a, b, sums, EXACT: tl.constexpr):
    """sums + a @ b; EXACT for float32 operands, else b is bfloat16 and a is rounded to it."""
    return dot(a if EXACT else to_bfloat16(a), b, sums)


@triton.jit
def _careful_product(a, b, sums, EXACT: tl.constexpr):
    """As `_product`, with `a` in two bfloat16 halves: nearly as exact as float32, where it costs next to nothing."""
    # The compiler goes on after a branch that returns: only an `else` is left out.
    if EXACT:
        sums = dot(a, b, sums)
    else:
        high = to_bfloat16(a)
        low = a - high.to(tl.float32)
        # Of what is no number there is no other half.
        low = tl.where(low == low, low, 0.0)
        sums = dot(to_bfloat16(low), b, dot(high, b, sums))
    return sums


@triton.jit
def _finite_or_zero(m):
    """What to subtract before the exponential: a row that has seen nothing has no maximum."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit
def attend_one(
    q,
    keys,
    values,
    sinks,
    position,
    out,
    partial,
    maxima,
    totals,
    scale,
    KV_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    SPLITS: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One query on the keys up to `position`, its own included; grid: (key heads, SPLITS).

    With one split the result goes to `out`; with more, each leaves its unscaled sum, maximum (of base-2 logits) and
    total for `combine`.
    """
    kv_head, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(position).to(tl.int32) + 1
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(length - WINDOW, 0)
    share = tl.cdiv(tl.cdiv(length - begin, SPLITS), BLOCK_N) * BLOCK_N
    begin += split * share
    end = tl.minimum(begin + share, length)

    row, dim = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_D)
    head = kv_head * SHARED + row
    has_row = row < SHARED
    inside = has_row[:, None] & (dim < HEAD_DIM)[None, :]
    query = tl.load(q + head[:, None] * HEAD_DIM + dim[None, :], mask=inside, other=0) * (scale * LOG2E)
    sink = tl.load(sinks + head, mask=has_row & (split == 0), other=float("-inf")).to(tl.float32) * LOG2E
    m = sink
    total = tl.where(sink == float("-inf"), 0.0, 1.0)
    acc = tl.zeros((BLOCK_H, BLOCK_D), dtype=tl.float32)
    for first in range(begin, end, BLOCK_N):
        key = first + tl.arange(0, BLOCK_N)
        at = (key.to(tl.int64) * KV_HEADS + kv_head)[:, None] * HEAD_DIM + dim[None, :]
        seen = (key < end)[:, None] & (dim < HEAD_DIM)[None, :]
        k = tl.load(keys + at, mask=seen, other=0)
        logits = _careful_product(query, tl.trans(k), tl.zeros((BLOCK_H, BLOCK_N), dtype=tl.float32), EXACT)
        logits = tl.where((key < end)[None, :], logits, float("-inf"))
        higher = tl.maximum(m, tl.max(logits, axis=1))
        shift = _finite_or_zero(higher)
        weights = tl.exp2(logits - shift[:, None])
        fade = tl.exp2(m - shift)
        total = total * fade + tl.sum(weights, axis=1)
        v = tl.load(values + at, mask=seen, other=0)
        acc = _careful_product(weights, v, acc * fade[:, None], EXACT)
        m = higher
    if SPLITS == 1:
        tl.store(out + head[:, None] * HEAD_DIM + dim[None, :], acc / total[:, None], mask=inside)
    else:
        entry = head * SPLITS + split
        tl.store(partial + entry[:, None] * HEAD_DIM + dim[None, :], acc, mask=inside)
        tl.store(maxima + entry, m, mask=has_row)
        tl.store(totals + entry, total, mask=has_row)


@triton.jit
def combine(
    partial,
    maxima,
    totals,
    out,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Join the splits of `attend_one`; grid: (heads,)."""
    head = tl.program_id(0)
    split, dim = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    there = split < SPLITS
    entry = head * SPLITS + split
    m = tl.load(maxima + entry, mask=there, other=float("-inf"))
    total = tl.load(totals + entry, mask=there, other=0)
    fade = tl.exp2(m - _finite_or_zero(tl.max(m, axis=0)))
    inside = there[:, None] & (dim < HEAD_DIM)[None, :]
    acc = tl.load(partial + entry[:, None] * HEAD_DIM + dim[None, :], mask=inside, other=0)
    mixed = tl.sum(acc * fade[:, None], axis=0) / tl.sum(total * fade, axis=0)
    tl.store(out + head * HEAD_DIM + dim, mixed, mask=dim < HEAD_DIM)


# Lengths change from call to call: code made for some of them would be compiled again for others.
@triton.jit(do_not_specialize=["tokens", "start"])
def attend_many(
    q,
    keys,
    values,
    sinks,
    out,
    scale,
    tokens,
    start,
    key_stride,
    key_head_stride,
    value_stride,
    value_head_stride,
    KV_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Queries at positions start .. start + tokens - 1; grid: (tiles of BLOCK_M rows, key heads).

    A row is a token and one of the heads that share a key head: row r is token r // SHARED, head r % SHARED.
    """
    # The last tiles have the most keys: they begin first.
    tile, kv_head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    row, dim = tile * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    token, head = row // SHARED, kv_head * SHARED + row % SHARED
    has_row = token < tokens
    inside = has_row[:, None] & (dim < HEAD_DIM)[None, :]
    at_q = (token.to(tl.int64) * (KV_HEADS * SHARED) + head)[:, None] * HEAD_DIM + dim[None, :]
    query = tl.load(q + at_q, mask=inside, other=0) * (scale * LOG2E)
    sink = tl.load(sinks + head, mask=has_row, other=0).to(tl.float32) * LOG2E
    m = sink
    total = tl.where(sink == float("-inf"), 0.0, 1.0)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)

    first_token = tile * BLOCK_M // SHARED
    last_token = tl.minimum((tile * BLOCK_M + BLOCK_M - 1) // SHARED, tokens - 1)
    begin, end = 0, start + last_token + 1
    if WINDOW > 0:
        begin = tl.maximum(start + first_token - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    place = (start + token)[:, None]
    for first in range(begin, end, BLOCK_N):
        key = first + tl.arange(0, BLOCK_N)
        there = (key < end)[:, None] & (dim < HEAD_DIM)[None, :]
        at_k = key.to(tl.int64)[:, None] * key_stride + kv_head * key_head_stride + dim[None, :]
        k = tl.load(keys + at_k, mask=there, other=0)
        logits = _product(query, tl.trans(k), tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32), EXACT)
        visible = key[None, :] <= place
        if WINDOW > 0:
            visible = visible & (key[None, :] > place - WINDOW)
        logits = tl.where(visible, logits, float("-inf"))
        higher = tl.maximum(m, tl.max(logits, axis=1))
        shift = _finite_or_zero(higher)
        weights = tl.exp2(logits - shift[:, None])
        fade = tl.exp2(m - shift)
        total = total * fade + tl.sum(weights, axis=1)
        at_v = key.to(tl.int64)[:, None] * value_stride + kv_head * value_head_stride + dim[None, :]
        v = tl.load(values + at_v, mask=there, other=0)
        acc = _product(weights, v, acc * fade[:, None], EXACT)
        m = higher
    tl.store(out + at_q, acc / total[:, None], mask=inside)
