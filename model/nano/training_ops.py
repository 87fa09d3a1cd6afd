"""The model's operations arranged for a fast backward pass, and for balancing the experts.

The same results as the reference backend up to rounding, which a test checks; what is not overridden is the
reference's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gptoss.model.ops.reference import ReferenceOps, swiglu
from gptoss.model.tensors.weights import Experts, Linear


class TrainingOps(ReferenceOps):
    """Fused attention, and experts whose gradients are not spread over the whole stack.

    `balance_loss` collects, over the layers of a forward pass, how unevenly the tokens are spread over the experts
    (Fedus et al. 2021, equation 4): 1 a layer where they are spread evenly. Whoever reads it sets it back to None.
    """

    name = "training"

    def __init__(self) -> None:
        self.balance_loss: Tensor | None = None

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
        """Fused attention over one key more: it holds the sinks, in a dimension of its own, and has no value."""
        tokens, heads, head_dim = q.shape[-3:]
        group = heads // k.shape[-2]
        q = F.pad(q.transpose(-3, -2), (0, 1), value=1.0)
        k = F.pad(k.transpose(-3, -2), (0, 1)).repeat_interleave(group, dim=-3)
        v = v.transpose(-3, -2).repeat_interleave(group, dim=-3)
        sink = F.pad((sinks * head_dim**0.5).view(heads, 1, 1), (head_dim, 0)).expand(*k.shape[:-2], 1, -1)
        # A row of zeros stands in for the query at the sink's place, so that the mask stays the causal one.
        q, k, v = F.pad(q, (0, 0, 1, 0)), torch.cat((sink, k), dim=-2), F.pad(v, (0, 1, 1, 0))
        mask = None
        if window is not None and window < tokens:
            position = torch.arange(tokens + 1, device=q.device)
            distance = position[:, None] - position
            mask = (distance >= 0) & ((distance < window) | (position == 0))
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=head_dim**-0.5)
        return out[..., 1:, :head_dim].transpose(-3, -2)

    def moe(self, x: Tensor, router: Linear, experts: Experts, top_k: int, alpha: float, limit: float) -> Tensor:
        """Return one expert after the other, over the tokens that chose it; adds to `balance_loss`."""
        assert isinstance(experts.gate_up, Tensor)
        assert isinstance(experts.down, Tensor)
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        logits = self.linear(x, router)
        chosen_logits, chosen = torch.topk(logits, top_k, dim=-1)
        share = torch.softmax(chosen_logits, dim=-1)
        self._balance(logits, chosen)
        out = torch.zeros_like(x)
        stacks = (experts.gate_up, experts.gate_up_bias, experts.down, experts.down_bias)
        for expert, (up, up_bias, down, down_bias) in enumerate(
            zip(*(stack.unbind() for stack in stacks), strict=True)
        ):
            token, slot = torch.where(chosen == expert)
            h = swiglu(F.linear(x[token], up, up_bias), alpha, limit)
            out = out.index_add(0, token, F.linear(h, down, down_bias) * share[token, slot, None])
        return out.reshape(shape)

    def _balance(self, logits: Tensor, chosen: Tensor) -> None:
        experts = logits.shape[-1]
        used = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
        loss = experts * (used * torch.softmax(logits, dim=-1).mean(0)).sum()
        self.balance_loss = loss if self.balance_loss is None else self.balance_loss + loss
