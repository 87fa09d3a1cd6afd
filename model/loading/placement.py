"""Which layers' experts stay in host memory, where a card is too small for all of a model.

The experts are most of a model's bytes, and a token reads few of them, so they are what a CPU can best take over;
attention, its cache and all other layers lie on the card.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.tensor_names import Layout
from gptoss.model.config import ModelConfig
from gptoss.model.errors import DeviceError
from gptoss.model.ops import StepOps
from gptoss.model.tensors.mxfp4 import BLOCK_BYTES, BLOCK_SIZE

PLANNED_CONTEXT = 8192
"""Positions for which room is kept where the context has no bound of its own."""
RESERVE_BYTES = 512 << 20
"""For recorded graphs, the libraries' own memory, and what lies unused between pieces."""

_BF16_BYTES = 2
_KEYS_AND_VALUES = 2


@dataclass(frozen=True)
class Placement:
    """What lies where.

    Attributes:
        host_layers: the experts of so many layers, the first ones, stay in host memory.
        layers: how many there are.
        device_bytes: what the model takes of the card, cache and working memory included.
        free_bytes: what the card had; None: it was not asked.
    """

    host_layers: int
    layers: int
    device_bytes: int
    free_bytes: int | None

    def __str__(self) -> str:
        free = "" if self.free_bytes is None else f": {_gb(self.free_bytes)} of the card are free"
        return f"the experts of {self.host_layers} of {self.layers} layers are computed on the CPU{free}"


def place(
    checkpoint: Checkpoint,
    ops: StepOps,
    *,
    packs: bool,
    context: int | None,
    free_bytes: int | None,
    cpu_experts: int | None,
) -> Placement:
    """Let as many layers' experts lie on the card as it has room for, or as many as are asked for.

    Args:
        checkpoint: of the model.
        ops: its backend.
        packs: whether experts are packed while they are loaded.
        context: positions of the cache, as far as they are bounded.
        free_bytes: of the card; None: as many as are needed.
        cpu_experts: of so many layers, the experts stay in host memory; None: chosen here.

    Raises:
        DeviceError: not even what cannot stay in host memory fits.
    """
    config = checkpoint.config
    positions = min(context or PLANNED_CONTEXT, config.max_context_length)
    fixed = fixed_bytes(config, ops, positions)
    of_layers = [
        expert_bytes(config, i, packs or checkpoint.layout is not Layout.HUB_BF16) for i in range(config.num_layers)
    ]

    def needed(host_layers: int) -> int:
        return fixed + sum(of_layers[host_layers:])

    layers = config.num_layers
    if cpu_experts is not None:
        chosen = min(cpu_experts, layers)
    elif free_bytes is None:
        chosen = 0
    else:
        chosen = next((n for n in range(layers + 1) if needed(n) <= free_bytes), layers)
    if free_bytes is not None and needed(chosen) > free_bytes and (cpu_experts is None or needed(layers) > free_bytes):
        raise DeviceError(
            f"the card has {_gb(free_bytes)} free, but with all experts on the CPU the model still takes "
            f"{_gb(needed(layers))} of it for a context of {positions} tokens: use a shorter --ctx, or --device cpu"
        )
    if free_bytes is not None and needed(chosen) > free_bytes:
        fitting = next(n for n in range(layers + 1) if needed(n) <= free_bytes)
        raise DeviceError(
            f"the card has {_gb(free_bytes)} free, but with --cpu-experts {chosen} the model takes "
            f"{_gb(needed(chosen))} of it: use --cpu-experts {fitting}, or leave the choice to the program"
        )
    return Placement(chosen, layers, needed(chosen), free_bytes)


def free_device_bytes(device: torch.device) -> int | None:
    """What other programs and this one have left of a card; None where that is not known."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def expert_bytes(config: ModelConfig, layer: int, packed: bool) -> int:
    """Bytes of the experts of one layer, with their biases."""
    hidden, width, count = config.hidden_size, config.intermediate_size, config.layers[layer].num_experts
    weights = 3 * hidden * width
    held = weights // BLOCK_SIZE * (BLOCK_BYTES + 1) if packed else weights * _BF16_BYTES
    return count * (held + (2 * width + hidden) * _BF16_BYTES)


def fixed_bytes(config: ModelConfig, ops: StepOps, positions: int) -> int:
    """Bytes of all that cannot stay in host memory: dense layers, embeddings, cache, working memory."""
    heads = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    attention = config.num_layers * 2 * (heads + kv) * config.hidden_size
    routers = sum(layer.num_experts for layer in config.layers) * config.hidden_size
    table = config.vocab_size * config.hidden_size
    dense = ops.made_bytes(config) or (attention + (0 if config.tie_word_embeddings else table)) * _BF16_BYTES
    cache = positions * _KEYS_AND_VALUES * kv * _BF16_BYTES * config.num_layers
    chunk = min(ops.prefill_chunk, positions)
    working = ops.working_bytes(config, chunk, positions)
    return dense + (routers + table) * _BF16_BYTES + cache + working + RESERVE_BYTES


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB"
