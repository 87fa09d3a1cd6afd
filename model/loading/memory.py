"""How much memory a model needs, and of which kind: reckoned from its config, before anything takes any. Without torch.

What is mapped from files can be dropped and read again, so a model larger than memory runs, though slowly; what is made
(layers in eight bits, packed experts, the cache, activations) must fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptoss.model.config import ModelConfig

if TYPE_CHECKING:
    from gptoss.model.ops import Ops

CACHE_BYTES = 2
"""Bytes of one key or value in the cache (bfloat16)."""
_BF16_BYTES = 2
_MXFP4_BYTES = 17 / 32
"""Of one weight: sixteen bytes and a scale for 32."""


@dataclass(frozen=True)
class MemoryNeed:
    """What a model needs, in bytes.

    Attributes:
        mapped: weights that each token, or some tokens, read from the mapped files.
        made: what is made of the weights at load.
        cache: keys and values of the whole context.
        working: activations while a prompt is computed.
    """

    mapped: int
    made: int
    cache: int
    working: int

    @property
    def resident(self) -> int:
        """What must fit into memory."""
        return self.made + self.cache + self.working

    @property
    def whole(self) -> int:
        """What must be there for nothing to be read from the disk twice."""
        return self.mapped + self.resident


def memory_need(
    config: ModelConfig, ops: Ops, context: int, chunk: int, *, weight_bytes: int | None = None, packs: bool = False
) -> MemoryNeed:
    """Reckon what a model needs on the CPU.

    Args:
        config: of the model.
        ops: what computes.
        context: tokens that the cache may come to hold.
        chunk: tokens of a prompt that are computed at a time.
        weight_bytes: of the checkpoint as stored; by default as the models are published.
        packs: whether experts in bfloat16 are packed to MXFP4 at load.
    """
    made = ops.made_bytes(config)
    mapped = stored_bytes(config) if weight_bytes is None else weight_bytes
    # A row of the embedding is read for a token, no more; what is made takes the place of what it was made of.
    unused = 0 if config.tie_word_embeddings else _BF16_BYTES * config.vocab_size * config.hidden_size
    if made:
        unused += _BF16_BYTES * dense_weights(config)
    if packs:
        unused += _BF16_BYTES * expert_weights(config)
        made += round(_MXFP4_BYTES * expert_weights(config))
    return MemoryNeed(
        mapped=max(mapped - unused, 0),
        made=made,
        cache=cache_bytes(config, context),
        working=ops.working_bytes(config, chunk, context),
    )


def cache_bytes(config: ModelConfig, context: int) -> int:
    """Bytes of the keys and values of `context` tokens, in all layers."""
    return context * 2 * config.num_key_value_heads * config.head_dim * CACHE_BYTES * config.num_layers


def cache_bytes_read(config: ModelConfig, context: int) -> int:
    """Bytes of the keys and values that a token reads after `context` others: in layers with a window, those in it."""
    seen = sum(min(context, layer.sliding_window or context) for layer in config.layers)
    return seen * 2 * config.num_key_value_heads * config.head_dim * CACHE_BYTES


def dense_weights(config: ModelConfig) -> int:
    """Weights of the attention's matrices in all layers, and of the unembedding."""
    heads, kv_heads = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return (config.num_layers * 2 * (heads + kv_heads) + config.vocab_size) * config.hidden_size


def expert_weights(config: ModelConfig) -> int:
    """Weights of all experts' matrices in all layers."""
    return sum(3 * layer.num_experts * config.hidden_size * config.intermediate_size for layer in config.layers)


def stored_bytes(config: ModelConfig) -> int:
    """Bytes of all weights as the models are published: experts in MXFP4, the others in bfloat16."""
    experts = expert_weights(config)
    return round(experts * _MXFP4_BYTES) + (config.num_weights - experts) * _BF16_BYTES


def token_bytes(config: ModelConfig) -> int:
    """Bytes of weights that a token of an answer reads, in the precisions that the models are published in."""
    experts = (
        sum(layer.experts_per_token for layer in config.layers) * 3 * config.hidden_size * config.intermediate_size
    )
    return dense_weights(config) * _BF16_BYTES + round(experts * _MXFP4_BYTES)
