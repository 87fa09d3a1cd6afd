"""Bytes of a model's weights and cache, computed from its config alone. Without torch."""

from __future__ import annotations

from gptoss.model.config import ModelConfig

BF16_BYTES = 2
CACHE_BYTES = BF16_BYTES
"""Bytes of one key or value in the cache (bfloat16)."""
MXFP4_BYTES = 17 / 32
"""Bytes of one packed weight: 32 share sixteen bytes and a scale."""


def cache_bytes(config: ModelConfig, context: int) -> int:
    """Return bytes of the keys and values of `context` tokens, in all layers."""
    return context * 2 * config.num_key_value_heads * config.head_dim * CACHE_BYTES * config.num_layers


def cache_bytes_read(config: ModelConfig, context: int) -> int:
    """Bytes of keys and values that a token reads after `context` others; in layers with a window, those inside it."""
    seen = sum(min(context, layer.sliding_window or context) for layer in config.layers)
    return seen * 2 * config.num_key_value_heads * config.head_dim * CACHE_BYTES


def attention_weights(config: ModelConfig) -> int:
    """Return the number of weights in the attention's matrices, all layers together."""
    heads, kv_heads = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return config.num_layers * 2 * (heads + kv_heads) * config.hidden_size


def dense_weights(config: ModelConfig) -> int:
    """Return the number of weights in the attention's matrices and the unembedding."""
    return attention_weights(config) + config.vocab_size * config.hidden_size


def expert_weights(config: ModelConfig) -> int:
    """Return the number of weights in the experts' matrices, all layers together."""
    return sum(3 * layer.num_experts * config.hidden_size * config.intermediate_size for layer in config.layers)


def layer_expert_bytes(config: ModelConfig, layer: int, packed: bool) -> int:
    """Return bytes of the experts of one layer with their biases: in MXFP4 if `packed`, else in bfloat16."""
    hidden, width, count = config.hidden_size, config.intermediate_size, config.layers[layer].num_experts
    weights = round(3 * hidden * width * (MXFP4_BYTES if packed else BF16_BYTES))
    return count * (weights + (2 * width + hidden) * BF16_BYTES)


def stored_bytes(config: ModelConfig) -> int:
    """Return bytes of all weights as the models are published: experts in MXFP4, everything else in bfloat16."""
    experts = expert_weights(config)
    return round(experts * MXFP4_BYTES) + (config.num_weights - experts) * BF16_BYTES


def token_bytes(config: ModelConfig) -> int:
    """Return bytes of weights that one decoded token reads, in the precisions that the models are published in."""
    experts = (
        sum(layer.experts_per_token for layer in config.layers) * 3 * config.hidden_size * config.intermediate_size
    )
    return dense_weights(config) * BF16_BYTES + round(experts * MXFP4_BYTES)
