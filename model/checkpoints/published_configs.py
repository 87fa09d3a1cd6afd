"""Configs of the published models, available without their files (from `config.json` on the hub). Imports no torch."""

from __future__ import annotations

from gptoss.model.checkpoints.catalog import find_spec
from gptoss.model.config import LayerConfig, ModelConfig, RopeConfig

PUBLISHED = ("20b", "120b")
_WINDOW = 128


def published_config(name: str, num_layers: int | None = None) -> ModelConfig:
    """Return the config of gpt-oss-20b or -120b, or of its first layers.

    Raises:
        KeyError: it is neither.
    """
    spec = find_spec(name)
    if spec is None or spec.num_layers is None or spec.num_experts is None or name not in PUBLISHED:
        raise KeyError(name)
    layers = range(num_layers or spec.num_layers)
    return ModelConfig(
        hidden_size=2880,
        intermediate_size=2880,
        vocab_size=201_088,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        rope=RopeConfig(theta=150_000.0, factor=32.0, initial_context_length=4096),
        max_context_length=131_072,
        layers=tuple(LayerConfig(spec.num_experts, 4, None if i % 2 else _WINDOW) for i in layers),
    )
