"""The mixture of experts on a GPU, from the router's logits on: for few tokens, or for many."""

from __future__ import annotations

import torch
from torch import Tensor

from gptoss.model.kernels.triton import experts as kernels, grouped
from gptoss.model.kernels.triton.launch import Launcher
from gptoss.model.ops.gpu_tiles import Tiles, cdiv, power_of_two
from gptoss.model.ops.gpu_weights import group_by_expert
from gptoss.model.tensors.mxfp4 import BLOCK_SIZE, Mxfp4Tensor
from gptoss.model.tensors.weights import Experts

# BLOCK_M -> options of `grouped_up` and `grouped_down`, chosen so that no registers are spilled on compute capability
# 8.0 and 9.0; compiled for 8.0 they need at most 99 KB of shared memory, which is all that 8.6, 8.9 and 12.0 have.
_GROUPED = {
    16: ({"BLOCK_N": 64, "BLOCK_K": 64, "num_warps": 4}, {"BLOCK_N": 128, "BLOCK_K": 64, "num_warps": 4}),
    32: ({"BLOCK_N": 64, "BLOCK_K": 64, "num_warps": 4}, {"BLOCK_N": 128, "BLOCK_K": 64, "num_warps": 4}),
    64: ({"BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 4}, {"BLOCK_N": 128, "BLOCK_K": 32, "num_warps": 4}),
    128: ({"BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 8}, {"BLOCK_N": 64, "BLOCK_K": 64, "num_warps": 8}),
}


def few_tokens(
    launch: Launcher,
    tiles: Tiles,
    lifted: Tensor,
    factors: Tensor,
    logits: Tensor,
    experts: Experts,
    packed: tuple[Mxfp4Tensor, Mxfp4Tensor],
    top_k: int,
    alpha: float,
    limit: float,
    add: Tensor | None,
) -> Tensor:
    """Return each token through its own experts.

    Args:
        launch: starts the kernels.
        tiles: sizes of the programs.
        lifted: (tokens, 8, hidden / 8), as `norm_router` leaves it: before the norm's factor, times 2^63, by code.
        factors: (tokens,), the norm's factors.
        logits: (tokens, experts), the router's.
        experts: for their biases.
        packed: their matrices gate_up and down.
        top_k: experts per token.
        alpha: of the SwiGLU.
        limit: of the SwiGLU.
        add: (tokens, hidden), added to the result.

    Returns:
        (tokens, hidden) float32.
    """
    up, down = packed
    count, hidden, width = logits.shape[-1], up.shape[-1], down.shape[-1]
    tokens = logits.shape[0]
    activated = logits.new_empty(tokens * top_k, width)
    sizes = {"HIDDEN": hidden, "WIDTH": width, "EXPERTS": count, "TOP_K": top_k, "BLOCK_E": power_of_two(count)}
    launch(
        kernels.experts_up,
        (cdiv(width, tiles.expert_rows), tokens * top_k),
        *(lifted, factors, logits, up.blocks.view(torch.int32), up.scales, experts.gate_up_bias, activated),
        *(alpha, limit),
        **sizes,
        BLOCK_R=tiles.expert_rows,
        BLOCK_B=min(tiles.expert_blocks, power_of_two(hidden // BLOCK_SIZE)),
        num_warps=tiles.expert_warps,
    )
    out = logits.new_empty(tokens, hidden)
    launch(
        kernels.experts_down,
        (cdiv(hidden, tiles.expert_rows), tokens),
        *(activated, logits, down.blocks.view(torch.int32), down.scales, experts.down_bias),
        *(out if add is None else add, out),
        **sizes,
        HAS_ADD=add is not None,
        BLOCK_R=tiles.expert_rows,
        BLOCK_B=min(tiles.expert_blocks, power_of_two(width // BLOCK_SIZE)),
        num_warps=tiles.expert_warps,
    )
    return out


def many_tokens(
    launch: Launcher,
    x: Tensor,
    logits: Tensor,
    experts: Experts,
    packed: tuple[Mxfp4Tensor, Mxfp4Tensor],
    top_k: int,
    alpha: float,
    limit: float,
) -> Tensor:
    """Return tokens grouped by expert, as products of bfloat16 matrices: x (tokens, hidden), logits (tokens, experts).

    Returns:
        (tokens, hidden) float32.
    """
    up, down = packed
    (tokens, hidden), count, width = x.shape, logits.shape[-1], down.shape[-1]
    chosen_logits, chosen = torch.topk(logits, top_k, dim=-1)
    shares = torch.softmax(chosen_logits, dim=-1)
    slots = tokens * top_k
    block_m = min(max(_GROUPED), max(min(_GROUPED), power_of_two(slots // count)))
    groups = group_by_expert(chosen, count, block_m)
    even_odd = x.to(torch.bfloat16).view(tokens, -1, 2).transpose(1, 2).contiguous()
    activated = torch.empty(slots, width, dtype=torch.bfloat16, device=x.device)
    out = x.new_empty(slots, hidden)
    tiles_of_slots = groups[0].shape[0]
    sizes = {"HIDDEN": hidden, "WIDTH": width, "EXPERTS": count, "BLOCK_M": block_m}
    up_tile, down_tile = _GROUPED[block_m]
    launch(
        grouped.grouped_up,
        (cdiv(width, up_tile["BLOCK_N"]), tiles_of_slots),
        *(even_odd, up.blocks, up.scales, experts.gate_up_bias, *groups, activated, alpha, limit),
        **sizes,
        **up_tile,
        TOP_K=top_k,
    )
    launch(
        grouped.grouped_down,
        (cdiv(hidden, down_tile["BLOCK_N"]), tiles_of_slots),
        *(activated, down.blocks, down.scales, experts.down_bias, shares, *groups, out),
        **sizes,
        **down_tile,
    )
    return out.view(tokens, top_k, hidden).sum(1)
