"""Sampling on the device: the distribution of `inference.sampler`, from buffers alone, without waiting for the host.

Whatever changes from token to token lies in buffers, so that a recorded step can be repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptoss.model.kernels.triton import sampling
from gptoss.model.kernels.triton.launch import launch
from gptoss.model.ops.interface import Drawing

BLOCK = 1024
"""Logits that one program looks at."""


def draw(drawing: Drawing, logits: Tensor, *, filtered: bool) -> None:
    """Sample from `logits` (vocabulary,) float32 into `drawing.result`.

    Args:
        drawing: the buffers.
        logits: left as they are.
        filtered: whether top-k and top-p are looked at; they cost a sort.
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
    """Logits over the temperature, the peak moved to 0; -inf where top-k or top-p cut."""
    temperature, top_k, top_p = settings[1].float(), settings[3].long(), settings[4].float()
    scaled = (masked - peaks.max()) / temperature
    ordered, order = scaled.sort(descending=True, stable=True)
    # Constants go into the kernels: a tensor made of one on the host could not be copied while a step is recorded.
    last = top_k.masked_fill(top_k <= 0, ordered.shape[0]).clamp(max=ordered.shape[0]) - 1
    ordered = ordered.masked_fill(ordered < ordered.index_select(0, last.view(1)), -torch.inf)
    probabilities = torch.softmax(ordered, -1)
    # The token that crosses top-p is kept; 1 keeps all, whatever rounding says.
    beyond = (probabilities.cumsum(-1) - probabilities >= top_p) & (top_p < 1)
    beyond = beyond & (torch.arange(beyond.shape[0], device=beyond.device) > 0)
    return torch.empty_like(scaled).scatter_(0, order, ordered.masked_fill(beyond, -torch.inf))
