"""The names of tensors as other programs save them: those that mean the same tensors, and those of other formats."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from gptoss.model.errors import UnsupportedModelError, quote

# torch.compile, data-parallel and sharded training, activation checkpointing and Lightning put these into every name
# below them.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# Unsloth keeps the router as a module within a module.
_ROUTER = re.compile(r"\.mlp\.router\.linear\.(weight|bias)$")

_MERGE = "merge it into the model (peft's merge_and_unload) and save the result"
USE_PUBLISHED = "use the MXFP4 or bf16 checkpoint that it was made from"
"""Remedy for weights in a format that is not read here."""
# What a name says of the format, the most telling first: pattern, format, remedy.
_FORMATS = (
    (
        re.compile(r"(?:^|[._])(?:lora_(?:embedding_)?[AB]|lora_magnitude_vector|ia3_l)(?:[._]|$)"),
        "a LoRA adapter beside the model's weights",
        _MERGE,
    ),
    (
        re.compile(r"^base_model\.|\.(?:base_layer|modules_to_save)\."),
        "a model that PEFT has not merged with its adapter",
        _MERGE,
    ),
    (
        re.compile(r"weight_scale_2$|weight_global_scale$"),
        "NVFP4 weights (ModelOpt, compressed-tensors)",
        USE_PUBLISHED,
    ),
    (re.compile(r"\.(?:qweight|qzeros|g_idx)$"), "GPTQ or AWQ weights", USE_PUBLISHED),
    (re.compile(r"\.(?:absmax|quant_map|SCB)$|quant_state"), "bitsandbytes weights", USE_PUBLISHED),
    (re.compile(r"\.(?:q_weight|trellis)$"), "EXL2 or EXL3 weights", USE_PUBLISHED),
    (re.compile(r"weight_scale(?:_inv)?$"), "weights in FP8 or another quantisation with scales", USE_PUBLISHED),
    (re.compile(r"\.weight_packed$"), "compressed-tensors weights", USE_PUBLISHED),
    (re.compile(r"\.experts\.(?:gate|up)_proj\.(?:weight|scales|biases)$"), "MLX weights", USE_PUBLISHED),
)


def published_names(names: Iterable[str]) -> dict[str, str]:
    """Return the published name of each stored tensor: published name to stored name.

    A tensor that has its published name goes before others of the same, which keep their own.
    """
    names = tuple(names)
    found = {name: name for name in names}
    for name in names:
        published = _ROUTER.sub(r".mlp.router.\1", _WRAPPERS.sub("", name))
        if published not in found:
            found[published] = found.pop(name)
    return found


def other_format(names: Collection[str], where: object) -> UnsupportedModelError | None:
    """Return the error for tensors that are in a format which is not read here; None: no name says so."""
    for pattern, kind, remedy in _FORMATS:
        name = next((name for name in names if pattern.search(name)), None)
        if name is not None:
            return UnsupportedModelError(f"{quote(where)} holds {kind} (such as {quote(name)}): {remedy}")
    return None
