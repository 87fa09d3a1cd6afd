"""Adds LoRA adapters to the weights of a model: products of low rank beside its matrices, which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gptoss.model.checkpoints.adapter import Adapter
from gptoss.model.tensors.low_rank import LowRank, sum_of
from gptoss.model.tensors.weights import LayerWeights, Linear, Weights


def with_adapters(weights: Weights, adapters: Sequence[Adapter]) -> Weights:
    """Return the weights with the sum of all adapters' products.

    Raises:
        CheckpointError: a weight of an adapter is infinite or not a number.
    """
    if not adapters:
        return weights

    def low_rank(target: str) -> LowRank | None:
        return sum_of([part for adapter in adapters if (part := adapter.low_rank(target)) is not None])

    def linear(target: str, layer: Linear) -> Linear:
        return replace(layer, low_rank=low_rank(target))

    def adapted(index: int, layer: LayerWeights) -> LayerWeights:
        prefix = f"layers.{index}"
        return replace(
            layer,
            q=linear(f"{prefix}.q", layer.q),
            k=linear(f"{prefix}.k", layer.k),
            v=linear(f"{prefix}.v", layer.v),
            o=linear(f"{prefix}.o", layer.o),
            router=linear(f"{prefix}.router", layer.router),
            experts=replace(
                layer.experts,
                gate_up_low_rank=low_rank(f"{prefix}.gate_up"),
                down_low_rank=low_rank(f"{prefix}.down"),
            ),
        )

    return replace(
        weights,
        layers=tuple(adapted(index, layer) for index, layer in enumerate(weights.layers)),
        unembedding=linear("unembedding", weights.unembedding),
    )
