"""Reads a model's blueprint from the metadata of its GGUF file, in llama.cpp's naming or Ollama's first one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gptoss.model.checkpoints.config_values import integer, number
from gptoss.model.checkpoints.gguf_header import GgufArray, GgufError, Value
from gptoss.model.checkpoints.tensor_info import TensorInfo
from gptoss.model.config import (
    MAX_CONTEXT,
    MAX_DIMENSION,
    MAX_EXPERTS,
    MAX_LAYERS,
    RMS_NORM_EPS,
    LayerConfig,
    ModelConfig,
    RopeConfig,
)
from gptoss.model.errors import ConfigError, UnsupportedModelError, quote

ARCHITECTURES = ("gpt-oss", "gptoss")
"""The second is Ollama's, before it took over llama.cpp's."""
EMBEDDING, UNEMBEDDING = "token_embd.weight", "output.weight"

_WIDTHS = ("expert_feed_forward_length", "feed_forward_length")


def parse_gguf_config(metadata: Mapping[str, Value], tensors: Mapping[str, TensorInfo]) -> ModelConfig:
    """Read the config of a file, or of the first part of a split one.

    Args:
        metadata: of that file.
        tensors: of all parts.

    Raises:
        ConfigError: a value is missing, of the wrong type, out of range, or in conflict with another.
        UnsupportedModelError: it is another architecture, or not a model.
    """
    arch = _architecture(metadata)
    values = {key.removeprefix(f"{arch}."): value for key, value in metadata.items() if key.startswith(f"{arch}.")}
    embedding = tensors.get(EMBEDDING)
    if embedding is None:
        raise ConfigError(f"it has no tensor {quote(EMBEDDING)}: it is not all of a model")
    heads = integer(values, "attention.head_count", 1, MAX_DIMENSION)
    hidden = integer(values, "embedding_length", 1, MAX_DIMENSION)
    head_dim = _or(values, "attention.key_length", hidden // heads, 2)
    if _or(values, "attention.value_length", head_dim, 2) != head_dim:
        raise ConfigError("attention.key_length and attention.value_length differ, which they do in no gpt-oss model")
    # Ollama's first files have the width of an expert under the name of a dense layer's.
    width = next((key for key in _WIDTHS if key in values), _WIDTHS[0])
    return ModelConfig(
        hidden_size=hidden,
        intermediate_size=integer(values, width, 1, MAX_DIMENSION),
        vocab_size=embedding.shape[0],
        num_attention_heads=heads,
        num_key_value_heads=_or(values, "attention.head_count_kv", heads, 1),
        head_dim=head_dim,
        rope=_rope(values, head_dim),
        max_context_length=integer(values, "context_length", 1, MAX_CONTEXT),
        layers=_layers(values),
        rms_norm_eps=_exact(number(values, "attention.layer_norm_rms_epsilon", RMS_NORM_EPS)),
        tie_word_embeddings=UNEMBEDDING not in tensors,
    )


def _architecture(metadata: Mapping[str, Value]) -> str:
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise UnsupportedModelError(f"it is a GGUF file of the type {quote(kind)}, not a model")
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str):
        raise ConfigError("it does not say its general.architecture")
    if arch not in ARCHITECTURES:
        raise UnsupportedModelError(f"the architecture is {quote(arch)}: only gpt-oss models run here")
    return arch


def _layers(values: Mapping[str, Any]) -> tuple[LayerConfig, ...]:
    count = integer(values, "block_count", 1, MAX_LAYERS)
    experts = integer(values, "expert_count", 1, MAX_EXPERTS)
    per_token = integer(values, "expert_used_count", 1, MAX_EXPERTS)
    window = integer(values, "attention.sliding_window", 1, MAX_CONTEXT)
    return tuple(
        LayerConfig(experts, per_token, window if has_window else None)
        for has_window in _window_pattern(values.get("attention.sliding_window_pattern", 2), count)
    )


def _window_pattern(pattern: object, count: int) -> list[bool]:
    """Return whether each layer has a window: a list says it, or the period of the layers without one."""
    if isinstance(pattern, GgufArray):
        try:
            layers = [bool(value) for value in pattern.numbers()] if pattern.count == count else []
        except GgufError:
            layers = []
        if not layers:
            raise ConfigError(f"attention.sliding_window_pattern is not a list of {count} truth values, one a layer")
        return layers
    if isinstance(pattern, bool) or not isinstance(pattern, int) or not 1 <= pattern <= MAX_LAYERS:
        raise ConfigError(f"attention.sliding_window_pattern is {quote(pattern)}, no period of layers")
    return [index % pattern < pattern - 1 for index in range(count)]


def _rope(values: Mapping[str, Any], head_dim: int) -> RopeConfig:
    kind = values.get("rope.scaling.type", "yarn")
    if kind != "yarn":
        raise ConfigError(f"rope.scaling.type is {quote(kind)}: only yarn is gpt-oss's")
    if _or(values, "rope.dimension_count", head_dim, 1) != head_dim:
        raise ConfigError("rope.dimension_count turns only a part of each head, which gpt-oss does not")
    factor = number(values, "rope.scaling.factor")
    rope = RopeConfig(
        theta=number(values, "rope.freq_base"),
        factor=factor,
        initial_context_length=integer(values, "rope.scaling.original_context_length", 1, MAX_CONTEXT),
        beta_fast=number(values, "rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=number(values, "rope.scaling.yarn_beta_slow", 1.0),
    )
    # llama.cpp multiplies its own concentration by this.
    if not math.isclose(number(values, "rope.scaling.attn_factor", 1.0), 1.0):
        raise ConfigError("rope.scaling.attn_factor is set, which gpt-oss does not know")
    return rope


def _exact(value: float) -> float:
    """Return the shortest decimal number with this float32, so that 1e-5 is again what the publisher wrote."""
    return float(f"{value:.7g}")


def _or(values: Mapping[str, Any], key: str, default: int, low: int) -> int:
    return integer(values, key, low, MAX_DIMENSION) if key in values else default
