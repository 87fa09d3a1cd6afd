"""Attention with sinks and windows: for one query split over the keys, for many in tiles.

Online softmax (Milakov and Gimelshein 2018) in base 2: logits are multiplied by log2(e), and `m`, `total` and `acc` are
the running maximum, sum of exponentials and unscaled output. A sink is the logit of a key without a value, so `m` and
`total` start from it. Query head h reads key head h // SHARED; the SHARED query heads of a key head are rows of one
product, so that keys and values are read once.

KV_HEADS is the number of key heads, WINDOW the positions that a query sees, its own included (0: all). Keys and values
are both bfloat16, or both float32 (EXACT).
"""

import triton
import triton.language as tl

from gptoss.model.kernels.triton.numbers import dot, to_bfloat16

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _product(a, b, sums, EXACT: tl.constexpr):
    """Return sums + a @ b for float32 a; b is float32 if EXACT, else bfloat16, and a is rounded to it."""
    return dot(a if EXACT else to_bfloat16(a), b, sums)


@triton.jit
def _careful_product(a, b, sums, EXACT: tl.constexpr):
    """As `_product`, but `a` is split into two bfloat16 terms, which keeps about 16 significant bits.

    For one query, which is bound by reading the keys, so that the second product costs next to nothing.
    """
    # No early return: the compiler would also compile the code after it, with types that do not fit.
    if EXACT:
        sums = dot(a, b, sums)
    else:
        high = to_bfloat16(a)
        low = a - high.to(tl.float32)
        # Infinity minus itself is not a number.
        low = tl.where(low == low, low, 0.0)
        sums = dot(to_bfloat16(low), b, dot(high, b, sums))
    return sums


@triton.jit
def _finite_or_zero(m):
    """Return the maximum to subtract before the exponential; 0 for a row that has seen no key and no sink."""
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
    """One query against the keys at positions 0 to `position`. Grid: (KV_HEADS, SPLITS).

    With heads = KV_HEADS * SHARED: q (heads, HEAD_DIM); keys and values (capacity, KV_HEADS, HEAD_DIM); sinks (heads,)
    of any float type; position (1,) int64; scale multiplies the logits.

    Writes out (heads, HEAD_DIM) if SPLITS is 1. Otherwise each split writes its part for `combine`: partial (heads,
    SPLITS, HEAD_DIM) the unscaled output, maxima and totals (heads, SPLITS).
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
    """Join the splits of `attend_one` into out (heads, HEAD_DIM). Grid: (heads,).

    partial (heads, SPLITS, HEAD_DIM), maxima and totals (heads, SPLITS), as `attend_one` writes them.
    """
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


# Lengths change from call to call. Specialised on them, the kernel would be compiled again and again.
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
    """Attend with queries at positions start .. start + tokens - 1. Grid: (ceil(tokens * SHARED / BLOCK_M), KV_HEADS).

    With heads = KV_HEADS * SHARED: q and out (tokens, heads, HEAD_DIM); keys and values (start + tokens, KV_HEADS,
    HEAD_DIM) with strides in elements, the last dimension contiguous; sinks (heads,) of any float type; scale
    multiplies the logits. Row r of a key head is token r // SHARED, query head r % SHARED of those that share it.
    """
    # The last tiles see the most keys, so they start first.
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
