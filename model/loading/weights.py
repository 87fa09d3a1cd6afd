"""From a checkpoint to `Weights`: tensors mapped from its files, or copied to a device; experts packed on their way."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.loading.quantize import ExpertPacker
from gptoss.model.loading.upload import Uploader
from gptoss.model.tensors.blocks import Blocks
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import (
    ExpertMatrix,
    Experts,
    HostExperts,
    LayerWeights,
    Linear,
    QuantizedLinear,
    Weights,
)


def load_weights(
    checkpoint: Checkpoint,
    packer: ExpertPacker | None = None,
    uploader: Uploader | None = None,
    host_layers: int = 0,
    prepare_layer: Callable[[LayerWeights], LayerWeights] | None = None,
) -> Weights:
    """Take every tensor of a checkpoint.

    Args:
        checkpoint: its tensors are mapped.
        packer: packs experts that are not packed in the checkpoint; None leaves them as they are.
        uploader: copies tensors to a device; None leaves them mapped.
        host_layers: with an uploader, the experts of this many layers, the first ones, stay in host memory.
        prepare_layer: applied to each layer as soon as it is loaded; None keeps it as it is.

    Raises:
        CheckpointError: a weight to be packed is infinite or not a number.
        UnsupportedModelError: the experts to be packed do not come in whole blocks.
    """

    def tensor(name: str) -> Tensor:
        return checkpoint.tensor(name) if uploader is None else uploader.tensor(checkpoint, name)

    def blocks(name: str) -> Blocks | None:
        return checkpoint.blocks(name) if uploader is None else None

    def linear(name: str, weight: Tensor | None = None) -> Linear:
        bias = tensor(f"{name}.bias")
        matrix = blocks(f"{name}.weight") if weight is None else None
        if matrix is not None:
            return QuantizedLinear.of(matrix, bias)
        return Linear(tensor(f"{name}.weight") if weight is None else weight, bias)

    def projections(prefix: str) -> list[Linear]:
        names = [f"{prefix}.{part}" for part in "qkv"]
        if uploader is None:
            return list(map(linear, names))
        weights = uploader.joined(checkpoint, [f"{name}.weight" for name in names])
        return list(map(linear, names, weights))

    def expert_matrix(name: str, on_host: bool) -> ExpertMatrix:
        take = checkpoint.tensor if on_host else tensor
        if checkpoint.has(f"{name}.blocks"):
            return Mxfp4Tensor(take(f"{name}.blocks"), take(f"{name}.scales"))
        if checkpoint.has(f"{name}.joined"):
            return joined(f"{name}.joined", on_host)
        if packer is None:
            return take(f"{name}.weight")
        packed = packer.pack(name, checkpoint.tensor(f"{name}.weight"))
        checkpoint.release(f"{name}.weight")
        if uploader is None or on_host:
            return packed
        return Mxfp4Tensor(uploader.copy(packed.blocks), uploader.copy(packed.scales))

    def joined(name: str, on_host: bool) -> ExpertMatrix:
        matrix = checkpoint.packed_experts(name)
        assert matrix is not None
        if uploader is None or on_host:
            return matrix
        split = matrix.split()
        checkpoint.release(name)
        return Mxfp4Tensor(uploader.copy(split.blocks), uploader.copy(split.scales))

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
            q=q,
            k=k,
            v=v,
            o=linear(f"{prefix}.o"),
            sinks=tensor(f"{prefix}.sinks"),
            mlp_norm=tensor(f"{prefix}.mlp_norm.weight"),
            router=linear(f"{prefix}.router"),
            experts=experts(prefix, on_host=uploader is not None and index < host_layers),
        )

    def prepared(index: int) -> LayerWeights:
        return layer(index) if prepare_layer is None else prepare_layer(layer(index))

    def head(embedding: Tensor | Blocks) -> Linear:
        if not checkpoint.config.tie_word_embeddings:
            own = blocks("unembedding.weight")
            embedding = tensor("unembedding.weight") if own is None else own
        return QuantizedLinear.of(embedding) if isinstance(embedding, Blocks) else Linear(embedding)

    table = blocks("embedding.weight")
    embedding = tensor("embedding.weight") if table is None else table
    return Weights(
        embedding=embedding,
        layers=tuple(map(prepared, range(checkpoint.config.num_layers))),
        norm=tensor("norm.weight"),
        unembedding=head(embedding),
    )
