"""Translates the tensor names of every published layout to canonical names.

Canonical names: `embedding.weight`, `norm.weight`, `unembedding.weight`, and for each layer `layers.{i}.` with the
names of `_LAYER`. Weights are (out, in). Experts are packed (`gate_up.blocks`, `gate_up.scales`, `down.blocks`,
`down.scales`) or plain (`gate_up.weight`, `down.weight`); the rows of `gate_up` are gate, up, gate, up in every layout.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from gptoss.model.config import ModelConfig
from gptoss.model.tensors.mxfp4 import BLOCK_BYTES, BLOCK_SIZE


class Layout(enum.Enum):
    """How a checkpoint names and shapes its tensors. Puzzle models are hub layouts whose layers differ."""

    ORIGINAL = "OpenAI original, MXFP4 experts"
    HUB_MXFP4 = "hub, MXFP4 experts"
    HUB_BF16 = "hub, unpacked experts"
    ORIGINAL_BF16 = "OpenAI original, unpacked experts"
    HUB_PER_EXPERT = "hub, unpacked experts, each a tensor"
    GGUF_MXFP4 = "GGUF, MXFP4 experts"
    GGUF_PLAIN = "GGUF, unpacked experts"

    @property
    def is_original(self) -> bool:
        """Whether the names are those of OpenAI's own checkpoints."""
        return self in (Layout.ORIGINAL, Layout.ORIGINAL_BF16)

    @property
    def is_packed(self) -> bool:
        """Whether the experts are in MXFP4."""
        return self in (Layout.ORIGINAL, Layout.HUB_MXFP4, Layout.GGUF_MXFP4)

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file."""
        return self in (Layout.GGUF_MXFP4, Layout.GGUF_PLAIN)


FLOAT = frozenset({"BF16", "F16", "F32"})
PACKED = frozenset({"U8"})

IGNORED = re.compile(r"(?:^|[._])(?:(?:q|k|v|kv|prob|input|output)_(?:scale|zero_point)|inv_freq)$")
"""Tensors inside a layer that have no effect here: scales for quantised caches and activations, rope's frequencies."""
LAYER = re.compile(r"(?:model\.layers|block|blk)\.(0|[1-9][0-9]{0,8})\.")
"""Prefix of the name of every tensor in a layer."""

# canonical name: (name in OpenAI's layout, name in the hub's), within the model
_MODEL = {
    "embedding.weight": ("embedding.weight", "model.embed_tokens.weight"),
    "norm.weight": ("norm.scale", "model.norm.weight"),
    "unembedding.weight": ("unembedding.weight", "lm_head.weight"),
}
HEADS = _MODEL["unembedding.weight"]
"""The names of an unembedding of its own."""
# canonical name: (name in OpenAI's layout, name in the hub's), within a layer
_LAYER = {
    "attention_norm.weight": ("attn.norm.scale", "input_layernorm.weight"),
    "q.weight": ("attn.qkv.weight", "self_attn.q_proj.weight"),
    "q.bias": ("attn.qkv.bias", "self_attn.q_proj.bias"),
    "k.weight": ("attn.qkv.weight", "self_attn.k_proj.weight"),
    "k.bias": ("attn.qkv.bias", "self_attn.k_proj.bias"),
    "v.weight": ("attn.qkv.weight", "self_attn.v_proj.weight"),
    "v.bias": ("attn.qkv.bias", "self_attn.v_proj.bias"),
    "o.weight": ("attn.out.weight", "self_attn.o_proj.weight"),
    "o.bias": ("attn.out.bias", "self_attn.o_proj.bias"),
    "sinks": ("attn.sinks", "self_attn.sinks"),
    "mlp_norm.weight": ("mlp.norm.scale", "post_attention_layernorm.weight"),
    "router.weight": ("mlp.gate.weight", "mlp.router.weight"),
    "router.bias": ("mlp.gate.bias", "mlp.router.bias"),
    "gate_up.blocks": ("mlp.mlp1_weight.blocks", "mlp.experts.gate_up_proj_blocks"),
    "gate_up.scales": ("mlp.mlp1_weight.scales", "mlp.experts.gate_up_proj_scales"),
    "gate_up.bias": ("mlp.mlp1_bias", "mlp.experts.gate_up_proj_bias"),
    "down.blocks": ("mlp.mlp2_weight.blocks", "mlp.experts.down_proj_blocks"),
    "down.scales": ("mlp.mlp2_weight.scales", "mlp.experts.down_proj_scales"),
    "down.bias": ("mlp.mlp2_bias", "mlp.experts.down_proj_bias"),
    "gate_up.weight": ("mlp.mlp1_weight", "mlp.experts.gate_up_proj"),
    "down.weight": ("mlp.mlp2_weight", "mlp.experts.down_proj"),
}
# canonical name: name of an expert's own tensor in the layout of one tensor an expert
_EXPERT = {
    "gate_up.weight": "mlp.experts.gate_up_projs.{}.weight",
    "gate_up.bias": "mlp.experts.gate_up_projs.{}.bias",
    "down.weight": "mlp.experts.down_projs.{}.weight",
    "down.bias": "mlp.experts.down_projs.{}.bias",
}
_PROJECTIONS = tuple(f".{part}.weight" for part in "qkvo")
_ONLY_PACKED = ("gate_up.blocks", "gate_up.scales", "down.blocks", "down.scales")
_ONLY_PLAIN = ("gate_up.weight", "down.weight")


@dataclass(frozen=True)
class TensorSource:
    """The stored tensor of a canonical tensor, and what is required of it.

    Attributes:
        name: the tensor's name in the files.
        shape: the canonical shape.
        stored_shapes: the shapes that it may have in the files.
        dtypes: the types that it may have.
        rows: the stored rows that are this tensor, if several tensors share one.
        transposed: its last two axes are stored swapped.
        parts: names of the tensors that it is stacked from, an expert each; empty: it is one tensor.
        alternating: its parts are not experts; their rows (the second axis) alternate.
    """

    name: str
    shape: tuple[int, ...]
    stored_shapes: tuple[tuple[int, ...], ...]
    dtypes: frozenset[str]
    rows: slice | None = None
    transposed: bool = False
    parts: tuple[str, ...] = ()
    alternating: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all stored tensors that it needs."""
        return self.parts or (self.name,)

    def view(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the canonical tensor: a view of the stored one, or a copy if it has parts."""
        if self.alternating:
            return torch.stack(tensors, dim=2).flatten(1, 2)
        if self.parts:
            return torch.stack(tensors)
        (stored,) = tensors
        if self.rows is not None:
            return stored[self.rows]
        return stored.transpose(-2, -1) if self.transposed else stored.view(self.shape)


def detect_layout(names: Collection[str]) -> Layout | None:
    """Return the layout of a checkpoint with tensors of these names; None: unknown."""
    for layout, prefix, column, marks in (
        (Layout.ORIGINAL, "block.0", 0, _ONLY_PACKED),
        (Layout.HUB_MXFP4, "model.layers.0", 1, _ONLY_PACKED),
        (Layout.HUB_BF16, "model.layers.0", 1, _ONLY_PLAIN),
        (Layout.ORIGINAL_BF16, "block.0", 0, _ONLY_PLAIN),
    ):
        # Any of them is enough: the check of each tensor reports the missing ones.
        if any(f"{prefix}.{_LAYER[mark][column]}" in names for mark in marks):
            return layout
    if any(f"model.layers.0.{_EXPERT[mark].format(0)}" in names for mark in _ONLY_PLAIN):
        return Layout.HUB_PER_EXPERT
    return None


def is_dense(canonical: str) -> bool:
    """Return whether every token uses this matrix: a projection of the attention, or the unembedding."""
    return canonical == "unembedding.weight" or canonical.endswith(_PROJECTIONS)


def canonical_tensors(config: ModelConfig, layout: Layout) -> Iterator[tuple[str, TensorSource]]:
    """Yield the canonical name and source of every tensor of a model in this layout."""
    column = 0 if layout.is_original else 1
    prefix = "block" if layout.is_original else "model.layers"
    hidden = (config.hidden_size,)
    embedding = (config.vocab_size, config.hidden_size)
    for canonical, shape in (
        ("embedding.weight", embedding),
        ("norm.weight", hidden),
        ("unembedding.weight", embedding),
    ):
        tied = canonical == "unembedding.weight" and config.tie_word_embeddings
        name = _MODEL["embedding.weight" if tied else canonical][column]
        yield canonical, TensorSource(name, shape, (shape,), FLOAT)
    absent = _ONLY_PLAIN if layout.is_packed else _ONLY_PACKED
    for index in range(config.num_layers):
        shapes = _layer_shapes(config, config.layers[index].num_experts)
        for canonical, names in _LAYER.items():
            if canonical in absent:
                continue
            stored = f"{prefix}.{index}.{names[column]}"
            source = _layer_source(canonical, stored, shapes, layout)
            if layout is Layout.HUB_PER_EXPERT and canonical in _EXPERT:
                source = _stacked(f"{prefix}.{index}.{_EXPERT[canonical]}", source.shape)
            yield f"layers.{index}.{canonical}", source


def _stacked(pattern: str, shape: tuple[int, ...]) -> TensorSource:
    parts = tuple(pattern.format(expert) for expert in range(shape[0]))
    return TensorSource(parts[0], shape, (shape[1:],), FLOAT, parts=parts)


def _layer_source(canonical: str, name: str, shapes: dict[str, tuple[int, ...]], layout: Layout) -> TensorSource:
    shape = shapes[canonical]
    if canonical.endswith(".blocks"):
        flat = (*shape[:-2], shape[-2] * shape[-1])
        return TensorSource(name, shape, (shape, flat), PACKED)
    if canonical.endswith(".scales"):
        return TensorSource(name, shape, (shape,), PACKED)
    if canonical in _ONLY_PLAIN and not layout.is_original:
        return TensorSource(name, shape, ((shape[0], shape[2], shape[1]),), FLOAT, transposed=True)
    part, _, kind = canonical.partition(".")
    if layout.is_original and part in ("q", "k", "v"):
        q, k, v = (shapes[f"{other}.{kind}"][0] for other in ("q", "k", "v"))
        begin = {"q": 0, "k": q, "v": q + k}[part]
        stored = (q + k + v, *shape[1:])
        return TensorSource(name, shape, (stored,), FLOAT, rows=slice(begin, begin + shape[0]))
    return TensorSource(name, shape, (shape,), FLOAT)


def _layer_shapes(config: ModelConfig, num_experts: int) -> dict[str, tuple[int, ...]]:
    hidden, width = config.hidden_size, config.intermediate_size
    q = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    hidden_blocks, width_blocks = math.ceil(hidden / BLOCK_SIZE), math.ceil(width / BLOCK_SIZE)
    return {
        "attention_norm.weight": (hidden,),
        "q.weight": (q, hidden),
        "q.bias": (q,),
        "k.weight": (kv, hidden),
        "k.bias": (kv,),
        "v.weight": (kv, hidden),
        "v.bias": (kv,),
        "o.weight": (hidden, q),
        "o.bias": (hidden,),
        "sinks": (config.num_attention_heads,),
        "mlp_norm.weight": (hidden,),
        "router.weight": (num_experts, hidden),
        "router.bias": (num_experts,),
        "gate_up.blocks": (num_experts, 2 * width, hidden_blocks, BLOCK_BYTES),
        "gate_up.scales": (num_experts, 2 * width, hidden_blocks),
        "gate_up.weight": (num_experts, 2 * width, hidden),
        "gate_up.bias": (num_experts, 2 * width),
        "down.blocks": (num_experts, hidden, width_blocks, BLOCK_BYTES),
        "down.scales": (num_experts, hidden, width_blocks),
        "down.weight": (num_experts, hidden, width),
        "down.bias": (num_experts, hidden),
    }
