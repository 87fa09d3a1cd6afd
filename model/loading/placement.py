"""Which layers' experts stay in host memory when a card is too small for the whole model.

Experts are most of a model's bytes, and a token reads few of them, so they are what a CPU can best take over;
attention, the cache and all other layers lie on the card.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gptoss.model.config import ModelConfig
from gptoss.model.errors import DeviceError
from gptoss.model.ops import StepOps
from gptoss.model.tensors.sizes import BF16_BYTES, attention_weights, cache_bytes, layer_expert_bytes

PLANNED_CONTEXT = 8192
"""Positions that the card must have room for if the context has no limit."""
RESERVE_BYTES = 512 << 20
"""For recorded graphs, the libraries' own memory, and gaps between allocations."""


@dataclass(frozen=True)
class Placement:
    """The division of a model between a card and host memory.

    Attributes:
        host_layers: the experts of this many layers, the first ones, stay in host memory.
        layers: number of layers.
        device_bytes: memory that the model takes on the card, cache and working memory included.
        free_bytes: memory that was free on the card; None: unknown.
    """

    host_layers: int
    layers: int
    device_bytes: int
    free_bytes: int | None

    def __str__(self) -> str:
        free = "" if self.free_bytes is None else f": {_gb(self.free_bytes)} of the card are free"
        return f"the experts of {self.host_layers} of {self.layers} layers are computed on the CPU{free}"


def place(
    config: ModelConfig,
    ops: StepOps,
    *,
    packed: bool,
    context: int | None,
    free_bytes: int | None,
    cpu_experts: int | None,
) -> Placement:
    """Put as many layers' experts on the card as it has room for, or as the caller asks for.

    Args:
        config: of the model.
        ops: its backend.
        packed: the experts are in MXFP4, in the checkpoint or once they are loaded.
        context: positions of the cache; None: no limit but the model's own.
        free_bytes: of the card; None: unknown, assume enough.
        cpu_experts: the experts of this many layers stay in host memory; None: as few as must.

    Raises:
        DeviceError: even what cannot stay in host memory does not fit.
    """
    positions = min(context or PLANNED_CONTEXT, config.max_context_length)
    fixed = fixed_bytes(config, ops, positions)
    of_layers = [layer_expert_bytes(config, layer, packed) for layer in range(config.num_layers)]

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
            f"{_gb(needed(layers))} of it for a context of {positions:,} tokens: use a shorter --ctx, or --device cpu"
        )
    if free_bytes is not None and needed(chosen) > free_bytes:
        fitting = next(n for n in range(layers + 1) if needed(n) <= free_bytes)
        raise DeviceError(
            f"the card has {_gb(free_bytes)} free, but with --cpu-experts {chosen} the model takes "
            f"{_gb(needed(chosen))} of it: use --cpu-experts {fitting}, or leave the choice to the program"
        )
    return Placement(chosen, layers, needed(chosen), free_bytes)


def free_device_bytes(device: torch.device) -> int | None:
    """Return the free memory of a card; None: unknown."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def fixed_bytes(config: ModelConfig, ops: StepOps, positions: int) -> int:
    """Return the bytes that cannot stay in host memory: dense layers, embeddings, cache, working memory."""
    routers = sum(layer.num_experts for layer in config.layers) * config.hidden_size
    table = config.vocab_size * config.hidden_size
    plain = (attention_weights(config) + (0 if config.tie_word_embeddings else table)) * BF16_BYTES
    dense = ops.made_bytes(config) or plain
    working = ops.working_bytes(config, min(ops.prefill_chunk, positions), positions)
    return dense + (routers + table) * BF16_BYTES + cache_bytes(config, positions) + working + RESERVE_BYTES


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB"
