"""Attention on a GPU: one query over the buffers of a cache, or many over keys and values of known length."""

from __future__ import annotations

import torch
from torch import Tensor

from gptoss.model.kernels.triton import attention as kernels
from gptoss.model.kernels.triton.launch import Launcher
from gptoss.model.ops.gpu_tiles import Tiles, cdiv, head_block, power_of_two

SPLITS = ((256, 1), (2048, 8))
"""(positions, splits): with room for up to so many positions, one query's keys are split between so many programs."""
MANY_SPLITS = 32
"""Splits beyond."""
EXACT_TILE = 32, 32
"""Rows and keys of a tile in float32, which is multiplied without tensor cores; larger tiles spill registers."""


def attend_one(
    launch: Launcher,
    tiles: Tiles,
    q: Tensor,
    buffers: tuple[Tensor, Tensor],
    position: Tensor,
    sinks: Tensor,
    window: int | None,
) -> Tensor:
    """Return one query over a cache, at a position that only the device knows.

    Args:
        launch: starts the kernels.
        tiles: sizes of the programs.
        q: (1, heads, head_dim) float32.
        buffers: keys and values, (capacity, kv_heads, head_dim) each, filled up to `position` and including it.
        position: (1,) int64.
        sinks: (heads,)
        window: as `Ops.attention`.

    Returns:
        (1, heads * head_dim) float32.
    """
    keys, values = buffers
    _, heads, head_dim = q.shape
    kv_heads = keys.shape[1]
    reach = min(window or keys.shape[0], keys.shape[0])
    splits = next((n for positions, n in SPLITS if reach <= positions), MANY_SPLITS)
    out = torch.empty_like(q)
    partial = q.new_empty(heads, splits, head_dim) if splits > 1 else out
    maxima, totals = q.new_empty(2, heads, splits)
    block_d = head_block(head_dim)
    launch(
        kernels.attend_one,
        (kv_heads, splits),
        *(q, keys, values, sinks, position, out, partial, maxima, totals, head_dim**-0.5),
        KV_HEADS=kv_heads,
        SHARED=heads // kv_heads,
        HEAD_DIM=head_dim,
        WINDOW=window or 0,
        SPLITS=splits,
        EXACT=keys.dtype != torch.bfloat16,
        BLOCK_H=max(16, power_of_two(heads // kv_heads)),
        BLOCK_D=block_d,
        BLOCK_N=tiles.keys,
        num_warps=tiles.warps,
    )
    if splits > 1:
        launch(
            kernels.combine,
            (heads,),
            partial,
            maxima,
            totals,
            out,
            HEAD_DIM=head_dim,
            SPLITS=splits,
            BLOCK_S=power_of_two(splits),
            BLOCK_D=block_d,
        )
    return out.view(1, heads * head_dim)


def attend_many(
    launch: Launcher, tiles: Tiles, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None
) -> Tensor:
    """Tiles of queries against tiles of keys, one launch per sequence of the batch; shapes as `Ops.attention`."""
    *lead, tokens, heads, head_dim = q.shape
    out = torch.empty_like(q)
    k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (k, v))
    exact = k.dtype != torch.bfloat16 or v.dtype != torch.bfloat16
    if exact:
        k, v = k.float(), v.float()
    keys, kv_heads = k.shape[-3:-1]
    shared = heads // kv_heads
    rows = tokens * shared
    most_rows, block_n = EXACT_TILE if exact else (128, tiles.keys)
    block_m = min(most_rows, max(16, power_of_two(rows)))
    batch = zip(*(t.flatten(0, -4) if lead else t[None] for t in (q, k, v, out)), strict=True)
    for pq, pk, pv, to in batch:
        if tokens:
            launch(
                kernels.attend_many,
                (cdiv(rows, block_m), kv_heads),
                *(pq, pk, pv, sinks, to, head_dim**-0.5, tokens, keys - tokens),
                *(pk.stride(0), pk.stride(1), pv.stride(0), pv.stride(1)),
                KV_HEADS=kv_heads,
                SHARED=shared,
                HEAD_DIM=head_dim,
                WINDOW=window or 0,
                EXACT=exact,
                BLOCK_M=block_m,
                BLOCK_D=head_block(head_dim),
                BLOCK_N=block_n,
                num_warps=4 if block_m < 128 else 8,
            )
    return out
