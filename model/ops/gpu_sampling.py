"""Sampling on the device: the distribution of `inference.sampler`, without waiting for the host.

Everything that changes from token to token is in buffers on the device, so that a recorded step can be replayed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptoss.model.kernels.triton import sampling
from gptoss.model.kernels.triton.launch import Launcher
from gptoss.model.ops.interface import Drawing

BLOCK = 1024
"""Logits per program."""


def draw(launch: Launcher, drawing: Drawing, logits: Tensor, *, filtered: bool) -> None:
    """Sample from `logits` (vocabulary,) float32 into `drawing.result`.

    Args:
        launch: starts the kernels.
        drawing: the buffers; `settings` and `mask` are read.
        logits: not modified.
        filtered: whether to apply top-k and top-p, which costs a sort.
    """
    vocabulary = logits.shape[0]
    blocks = -(-vocabulary // BLOCK)
    peaks, sums, allowed = logits.new_empty(3, blocks)
    allowed_at = torch.empty(blocks, dtype=torch.int32, device=logits.device)
    totals = torch.empty(blocks, dtype=torch.float64, device=logits.device)
    masked = torch.empty_like(logits)
    launch(
        sampling.survey,
        (blocks,),
        *(logits, drawing.mask, peaks, sums, allowed, allowed_at, masked, vocabulary),
        BLOCK=BLOCK,
        num_warps=4,
    )
    kept = _cut(masked, allowed, drawing.settings) if filtered else masked
    sizes = {"HAS_KEPT": filtered, "BLOCKS": blocks, "BLOCK_B": max(16, 1 << (blocks - 1).bit_length()), "BLOCK": BLOCK}
    launch(
        sampling.weigh,
        (blocks,),
        *(masked, kept, drawing.settings, allowed, totals, vocabulary),
        **sizes,
        num_warps=4,
    )
    launch(
        sampling.pick,
        (1,),
        *(logits, masked, kept, drawing.settings, peaks, sums, allowed, allowed_at, totals, drawing.result, vocabulary),
        **sizes,
        num_warps=4,
    )


def _cut(masked: Tensor, peaks: Tensor, settings: Tensor) -> Tensor:
    """Apply top-k and top-p to masked logits.

    Args:
        masked: (vocabulary,), -inf for tokens that are not allowed.
        peaks: (blocks,), the largest of each block.
        settings: see `Drawing`.

    Returns:
        (vocabulary,): (logit - largest logit) / temperature, or -inf for tokens that are cut.
    """
    temperature, top_k, top_p = settings[1].float(), settings[3].long(), settings[4].float()
    scaled = (masked - peaks.max()) / temperature
    ordered, order = scaled.sort(descending=True, stable=True)
    # Only Python constants below: a tensor created on the host could not be copied while a step is recorded.
    last = top_k.masked_fill(top_k <= 0, ordered.shape[0]).clamp(max=ordered.shape[0]) - 1
    ordered = ordered.masked_fill(ordered < ordered.index_select(0, last.view(1)), -torch.inf)
    probabilities = torch.softmax(ordered, -1)
    # The token that crosses top-p is kept. A top-p of 1 keeps all, even if rounding makes a sum exceed 1 early.
    beyond = (probabilities.cumsum(-1) - probabilities >= top_p) & (top_p < 1)
    beyond = beyond & (torch.arange(beyond.shape[0], device=beyond.device) > 0)
    return torch.empty_like(scaled).scatter_(0, order, ordered.masked_fill(beyond, -torch.inf))
