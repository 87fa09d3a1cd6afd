"""One layer of gpt-oss, read top down: attention and the mixture of experts, each on the residual stream.

Knows nothing of files, backends, sampling or text.
"""

from __future__ import annotations

from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.ops import Ops, StepOps
from gptoss.model.tensors.cache import CacheSlot, KVCache
from gptoss.model.tensors.weights import LayerWeights


def layer_forward(
    x: Tensor,
    index: int,
    config: ModelConfig,
    weights: LayerWeights,
    angles: tuple[Tensor, Tensor],
    cache: KVCache | CacheSlot | None,
    ops: Ops,
) -> Tensor:
    """Layer `index` on the residual stream `x` (..., tokens, hidden); appends to the cache where there is one."""
    if isinstance(cache, CacheSlot):
        # The same with fewer, larger operations, for a step that is recorded.
        assert isinstance(ops, StepOps)
        return ops.decode_layer(x, index, config, weights, angles, cache)
    x = x + attention(x, index, config, weights, angles, cache, ops)
    return x + mixture_of_experts(x, index, config, weights, ops)


def attention(
    x: Tensor,
    index: int,
    config: ModelConfig,
    weights: LayerWeights,
    angles: tuple[Tensor, Tensor],
    cache: KVCache | None,
    ops: Ops,
) -> Tensor:
    """Grouped-query attention with rotary positions and sinks; every other layer sees a window only."""
    h = ops.rms_norm(x, weights.attention_norm, config.rms_norm_eps)
    q, k, v = (_heads(y, config.head_dim) for y in ops.linears(h, (weights.q, weights.k, weights.v)))
    q, k = ops.rope(q, *angles), ops.rope(k, *angles)
    if cache is not None:
        k, v = cache.append(index, k, v)
    h = ops.attention(q, k, v, weights.sinks, config.layers[index].sliding_window)
    return ops.linear(h.flatten(-2), weights.o)


def mixture_of_experts(x: Tensor, index: int, config: ModelConfig, weights: LayerWeights, ops: Ops) -> Tensor:
    """Return the router's choice of experts for each token, and their weighted sum."""
    h = ops.rms_norm(x, weights.mlp_norm, config.rms_norm_eps)
    top_k = config.layers[index].experts_per_token
    return ops.moe(h, weights.router, weights.experts, top_k, config.swiglu_alpha, config.swiglu_limit)


def _heads(x: Tensor, head_dim: int) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, head_dim)
