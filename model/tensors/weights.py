"""The weights of a model: plain read-only tensors in the checkpoint's own types, and how a checkpoint becomes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from gptoss.model.checkpoints.checkpoint import Checkpoint
    from gptoss.model.loading.quantize import ExpertPacker
    from gptoss.model.loading.upload import Uploader
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor

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
class HostExperts(Experts):
    """Experts that stay in host memory while the rest of the model lies on a device.

    A backend adds them and their router as the host's own backend knows them.
    """

    bound: Experts | None = None
    router: Linear | None = None


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
        cls,
        checkpoint: Checkpoint,
        packer: ExpertPacker | None = None,
        uploader: Uploader | None = None,
        host_layers: int = 0,
        prepare_layer: Callable[[LayerWeights], LayerWeights] = lambda layer: layer,
    ) -> Weights:
        """Take every tensor of a checkpoint: mapped from its files, or copied to a device by `uploader`.

        With a packer, experts that are not packed in the checkpoint are packed on their way. With an uploader, the
        experts of the first `host_layers` layers stay in host memory. Each layer goes through `prepare_layer` as soon
        as it is there.
        """

        def tensor(name: str) -> Tensor:
            return checkpoint.tensor(name) if uploader is None else uploader.tensor(checkpoint, name)

        def linear(name: str) -> Linear:
            return Linear(tensor(f"{name}.weight"), tensor(f"{name}.bias"))

        def projections(prefix: str) -> list[Tensor]:
            names = [f"{prefix}.{part}.weight" for part in "qkv"]
            return [tensor(name) for name in names] if uploader is None else uploader.joined(checkpoint, names)

        def expert_matrix(name: str, on_host: bool) -> ExpertMatrix:
            take = checkpoint.tensor if on_host else tensor
            if checkpoint.has(f"{name}.blocks"):
                return Mxfp4Tensor(take(f"{name}.blocks"), take(f"{name}.scales"))
            if packer is None:
                return take(f"{name}.weight")
            packed = packer.pack(name, checkpoint.tensor(f"{name}.weight"))
            checkpoint.release(f"{name}.weight")
            if uploader is None or on_host:
                return packed
            return Mxfp4Tensor(uploader.copy(packed.blocks), uploader.copy(packed.scales))

        def experts(prefix: str, on_host: bool) -> Experts:
            take = checkpoint.tensor if on_host else tensor
            return (HostExperts if on_host else Experts)(
                gate_up=expert_matrix(f"{prefix}.gate_up", on_host),
                gate_up_bias=take(f"{prefix}.gate_up.bias"),
                down=expert_matrix(f"{prefix}.down", on_host),
                down_bias=take(f"{prefix}.down.bias"),
            )

        def layer(index: int) -> LayerWeights:
            prefix = f"layers.{index}"
            q, k, v = projections(prefix)
            return LayerWeights(
                attention_norm=tensor(f"{prefix}.attention_norm.weight"),
                q=Linear(q, tensor(f"{prefix}.q.bias")),
                k=Linear(k, tensor(f"{prefix}.k.bias")),
                v=Linear(v, tensor(f"{prefix}.v.bias")),
                o=linear(f"{prefix}.o"),
                sinks=tensor(f"{prefix}.sinks"),
                mlp_norm=tensor(f"{prefix}.mlp_norm.weight"),
                router=linear(f"{prefix}.router"),
                experts=experts(prefix, on_host=uploader is not None and index < host_layers),
            )

        embedding = tensor("embedding.weight")
        tied = checkpoint.config.tie_word_embeddings
        return cls(
            embedding=embedding,
            layers=tuple(prepare_layer(layer(i)) for i in range(len(checkpoint.config.layers))),
            norm=tensor("norm.weight"),
            unembedding=Linear(embedding if tied else tensor("unembedding.weight")),
        )
