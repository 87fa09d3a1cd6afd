"""Translates the tensor names of GGUF files to canonical names: llama.cpp's, and those that Ollama first gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gptoss.model.checkpoints.gguf_config import EMBEDDING, UNEMBEDDING
from gptoss.model.checkpoints.tensor_info import TensorInfo
from gptoss.model.checkpoints.tensor_names import FLOAT, Layout, TensorSource
from gptoss.model.config import ModelConfig
from gptoss.model.tensors.blocks import READABLE
from gptoss.model.tensors.ggml_types import MXFP4, MXFP4_NEIGHBOURS

DENSE = FLOAT | frozenset(READABLE)
JOINED = frozenset({MXFP4, MXFP4_NEIGHBOURS})

# canonical name: names within a layer, llama.cpp's first
_LAYER = {
    "attention_norm.weight": ("attn_norm.weight",),
    "q": ("attn_q",),
    "k": ("attn_k",),
    "v": ("attn_v",),
    "o": ("attn_output", "attn_out"),
    "sinks": ("attn_sinks.weight", "attn_sinks"),
    "mlp_norm.weight": ("post_attention_norm.weight", "ffn_norm.weight"),
    "router": ("ffn_gate_inp",),
}
_QKV, _GATE_UP = "attn_qkv", "ffn_gate_up_exps"
_GATE, _UP, _DOWN = "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"


def gguf_layout(stored: Mapping[str, TensorInfo]) -> Layout | None:
    """Return the layout of a file's tensors; None: it has no experts."""
    first = next((stored[name] for name in (f"blk.0.{_DOWN}.weight",) if name in stored), None)
    if first is None:
        return None
    return Layout.GGUF_MXFP4 if first.dtype in JOINED else Layout.GGUF_PLAIN


def gguf_tensors(
    config: ModelConfig, layout: Layout, stored: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, TensorSource]]:
    """Yield the canonical name and source of every tensor of a model.

    Packed experts have the canonical names `gate_up.joined` and `down.joined`.
    """
    hidden, embedding = (config.hidden_size,), (config.vocab_size, config.hidden_size)
    yield "embedding.weight", TensorSource(EMBEDDING, embedding, (embedding,), DENSE)
    yield "norm.weight", TensorSource("output_norm.weight", hidden, (hidden,), FLOAT)
    head = EMBEDDING if config.tie_word_embeddings else UNEMBEDDING
    yield "unembedding.weight", TensorSource(head, embedding, (embedding,), DENSE)
    for index in range(config.num_layers):
        for canonical, source in _layer(config, layout, index, stored):
            yield f"layers.{index}.{canonical}", source


def _layer(
    config: ModelConfig, layout: Layout, index: int, stored: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, TensorSource]]:
    prefix = f"blk.{index}."
    hidden, width, experts = config.hidden_size, config.intermediate_size, config.layers[index].num_experts
    q, kv = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))

    def name_of(canonical: str, ending: str = "") -> str:
        names = [f"{prefix}{name}{ending}" for name in _LAYER[canonical]]
        return next((name for name in names if name in stored), names[0])

    heads = config.num_attention_heads
    for vector, size in (("attention_norm.weight", hidden), ("mlp_norm.weight", hidden), ("sinks", heads)):
        yield vector, TensorSource(name_of(vector), (size,), ((size,),), FLOAT)
    fused = f"{prefix}{_QKV}.weight" in stored
    begin = 0
    for part, shape in (
        ("q", (q, hidden)),
        ("k", (kv, hidden)),
        ("v", (kv, hidden)),
        ("o", (hidden, q)),
        ("router", (experts, hidden)),
    ):
        rows, _columns = shape
        for kind, own, types in ((".weight", shape, DENSE), (".bias", (rows,), FLOAT)):
            if fused and part in "qkv":
                whole = (q + 2 * kv, *own[1:])
                yield (
                    part + kind,
                    TensorSource(f"{prefix}{_QKV}{kind}", own, (whole,), types, slice(begin, begin + rows)),
                )
            else:
                yield part + kind, TensorSource(name_of(part, kind), own, (own,), types)
        begin += rows
    yield from _experts("gate_up", prefix, (experts, 2 * width, hidden), layout, stored)
    yield from _experts("down", prefix, (experts, hidden, width), layout, stored)


def _experts(
    canonical: str, prefix: str, shape: tuple[int, int, int], layout: Layout, stored: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, TensorSource]]:
    """Yield the matrix and the bias of all experts; of gate and up apart, the rows alternate."""
    if canonical == "down":
        names: tuple[str, ...] = (_DOWN,)
    else:
        names = (_GATE_UP,) if f"{prefix}{_GATE_UP}.weight" in stored else (_GATE, _UP)
    rows = shape[1] // len(names)
    first = stored.get(f"{prefix}{names[0]}.weight")
    # Gate and up are in one type: they are computed together.
    joined = JOINED if first is None else JOINED & {first.dtype} or JOINED
    kinds = (".joined", joined) if layout is Layout.GGUF_MXFP4 else (".weight", FLOAT)
    for (kind, types), ending, own in ((kinds, ".weight", shape), ((".bias", FLOAT), ".bias", shape[:2])):
        parts = tuple(f"{prefix}{name}{ending}" for name in names)
        each = (shape[0], rows, *own[2:])
        yield (
            canonical + kind,
            TensorSource(
                parts[0], own, (each,), types, parts=parts if len(parts) > 1 else (), alternating=len(parts) > 1
            ),
        )
