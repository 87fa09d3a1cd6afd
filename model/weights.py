"""The weights of a model: plain read-only tensors in the checkpoint's own types, and how a checkpoint becomes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gptoss.model.checkpoint import Checkpoint
    from gptoss.model.quantize import ExpertPacker
from gptoss.model.mxfp4 import Mxfp4Tensor

# (experts, out, in): packed as published, or plain.
ExpertMatrix = Mxfp4Tensor | Tensor


@dataclass(frozen=True)
class Linear:
    """A matrix (out, in) and its bias (out,), if it has one."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Experts:
    """The experts of one layer.

    `gate_up` (experts, 2 * width, hidden) with even rows gate and odd rows up, `down` (experts, hidden, width); biases
    (experts, 2 * width) and (experts, hidden).
    """

    gate_up: ExpertMatrix
    gate_up_bias: Tensor
    down: ExpertMatrix
    down_bias: Tensor


@dataclass(frozen=True)
class LayerWeights:
    """One layer: attention, then the mixture of experts, each behind its norm (hidden,); `sinks` (heads,)."""

    attention_norm: Tensor
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    sinks: Tensor
    mlp_norm: Tensor
    router: Linear
    experts: Experts


@dataclass(frozen=True)
class Weights:
    """All of a model: `embedding` (vocabulary, hidden), the layers, `norm` (hidden,), `unembedding`."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    unembedding: Linear

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, device: torch.device | str = "cpu", packer: ExpertPacker | None = None
    ) -> Weights:
        """Take every tensor of a checkpoint; on the CPU they stay mapped from its files, elsewhere they are copied.

        With a packer, experts that are not packed in the checkpoint are packed on their way.
        """

        def tensor(name: str) -> Tensor:
            return checkpoint.tensor(name).to(device)

        def linear(name: str) -> Linear:
            return Linear(tensor(f"{name}.weight"), tensor(f"{name}.bias"))

        def expert_matrix(name: str) -> ExpertMatrix:
            if checkpoint.has(f"{name}.blocks"):
                return Mxfp4Tensor(tensor(f"{name}.blocks"), tensor(f"{name}.scales"))
            if packer is None:
                return tensor(f"{name}.weight")
            packed = packer.pack(name, checkpoint.tensor(f"{name}.weight"))
            checkpoint.release(f"{name}.weight")
            return Mxfp4Tensor(packed.blocks.to(device), packed.scales.to(device))

        def layer(prefix: str) -> LayerWeights:
            return LayerWeights(
                attention_norm=tensor(f"{prefix}.attention_norm.weight"),
                q=linear(f"{prefix}.q"),
                k=linear(f"{prefix}.k"),
                v=linear(f"{prefix}.v"),
                o=linear(f"{prefix}.o"),
                sinks=tensor(f"{prefix}.sinks"),
                mlp_norm=tensor(f"{prefix}.mlp_norm.weight"),
                router=linear(f"{prefix}.router"),
                experts=Experts(
                    gate_up=expert_matrix(f"{prefix}.gate_up"),
                    gate_up_bias=tensor(f"{prefix}.gate_up.bias"),
                    down=expert_matrix(f"{prefix}.down"),
                    down_bias=tensor(f"{prefix}.down.bias"),
                ),
            )

        return cls(
            embedding=tensor("embedding.weight"),
            layers=tuple(layer(f"layers.{i}") for i in range(len(checkpoint.config.layers))),
            norm=tensor("norm.weight"),
            unembedding=Linear(tensor("unembedding.weight")),
        )
