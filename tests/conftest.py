"""Fixtures for every part: small models of random weights, built in memory."""

from collections.abc import Callable

import pytest
import torch

from gptoss.model.config import LayerConfig, ModelConfig, RopeConfig
from gptoss.model.mxfp4 import Mxfp4Tensor
from gptoss.model.ops import select_ops
from gptoss.model.transformer import Transformer
from gptoss.model.weights import Experts, LayerWeights, Linear, Weights

VOCABULARY = 300


def random_transformer(seed: int = 0, packed: bool = True, num_layers: int = 4, window: int = 8) -> Transformer:
    """Hidden 64, 4 experts of width 32, windows on even layers, YaRN from 64 to 512 positions."""
    g = torch.Generator().manual_seed(seed)
    hidden, width, experts, heads, kv_heads, head_dim = 64, 32, 4, 4, 2, 16

    def normal(*shape: int, std: float = 0.2) -> torch.Tensor:
        return (torch.randn(*shape, generator=g) * std).to(torch.bfloat16)

    def linear(out: int, inner: int) -> Linear:
        return Linear(normal(out, inner), normal(out))

    def matrix(rows: int, columns: int) -> Mxfp4Tensor | torch.Tensor:
        if not packed:
            return normal(experts, rows, columns)
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=g, dtype=torch.uint8)
        scales = torch.randint(122, 125, (experts, rows, columns // 32), generator=g, dtype=torch.uint8)
        return Mxfp4Tensor(blocks, scales)

    layers = tuple(
        LayerWeights(
            attention_norm=1 + normal(hidden),
            q=linear(heads * head_dim, hidden),
            k=linear(kv_heads * head_dim, hidden),
            v=linear(kv_heads * head_dim, hidden),
            o=linear(hidden, heads * head_dim),
            sinks=normal(heads, std=1.0),
            mlp_norm=1 + normal(hidden),
            router=linear(experts, hidden),
            experts=Experts(
                matrix(2 * width, hidden), normal(experts, 2 * width), matrix(hidden, width), normal(experts, hidden)
            ),
        )
        for _ in range(num_layers)
    )
    config = ModelConfig(
        hidden_size=hidden,
        intermediate_size=width,
        vocab_size=VOCABULARY,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-5,
        swiglu_limit=7.0,
        swiglu_alpha=1.702,
        rope=RopeConfig(
            theta=10000.0, factor=8.0, initial_context_length=64, beta_fast=32.0, beta_slow=1.0, truncate=False
        ),
        max_context_length=512,
        layers=tuple(
            LayerConfig(num_experts=experts, experts_per_token=2, sliding_window=window if i % 2 == 0 else None)
            for i in range(num_layers)
        ),
        tie_word_embeddings=False,
    )
    weights = Weights(
        normal(VOCABULARY, hidden, std=1.0), layers, 1 + normal(hidden), Linear(normal(VOCABULARY, hidden))
    )
    return Transformer(config, weights, select_ops("reference"))


@pytest.fixture(scope="session")
def make_transformer() -> Callable[..., Transformer]:
    """The builder itself, for tests that want other seeds or sizes."""
    return random_transformer


@pytest.fixture(scope="session")
def transformer() -> Transformer:
    """One small random model, shared: it has no state."""
    return random_transformer()
