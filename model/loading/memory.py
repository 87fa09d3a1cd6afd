"""How much memory a model needs, and of which kind, computed before any is taken. Without torch.

What is mapped from files can be dropped and read again, so a model larger than memory runs, though slowly; what is made
(layers in eight bits, packed experts, the cache, activations) must fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptoss.model.config import ModelConfig
from gptoss.model.tensors.sizes import BF16_BYTES, MXFP4_BYTES, cache_bytes, dense_weights, expert_weights

if TYPE_CHECKING:
    from gptoss.model.ops import Ops

COUNTED_CONTEXT = 4096
"""Tokens of cache that are counted where the context has no limit: the cache grows as it is used."""


@dataclass(frozen=True)
class MemoryNeed:
    """What a model needs, in bytes.

    Attributes:
        context: tokens that `cache` is counted for.
        mapped: weights that tokens read from the mapped files.
        made: what is made of the weights at load.
        cache: keys and values of the context.
        working: activations during the prefill.
    """

    context: int
    mapped: int
    made: int
    cache: int
    working: int

    @property
    def resident(self) -> int:
        """What must fit into memory."""
        return self.made + self.cache + self.working

    @property
    def whole(self) -> int:
        """What must fit for nothing to be read from the disk twice."""
        return self.mapped + self.resident


def memory_need(
    config: ModelConfig,
    ops: Ops,
    max_context: int | None,
    chunk: int,
    *,
    weight_bytes: int,
    packs: bool = False,
) -> MemoryNeed:
    """Compute what a model needs where it computes.

    Args:
        config: of the model.
        ops: its backend.
        max_context: tokens of prompt and answer; None: no limit but the model's own.
        chunk: tokens of a prompt that are computed at a time.
        weight_bytes: of the checkpoint as stored.
        packs: experts in bfloat16 are packed to MXFP4 at load.
    """
    context = min(max_context or COUNTED_CONTEXT, config.max_context_length)
    made = ops.made_bytes(config)
    # A token reads one row of the embedding; what is made replaces what it was made of.
    unused = 0 if config.tie_word_embeddings else BF16_BYTES * config.vocab_size * config.hidden_size
    if made:
        unused += BF16_BYTES * dense_weights(config)
    if packs:
        unused += BF16_BYTES * expert_weights(config)
        made += round(MXFP4_BYTES * expert_weights(config))
    return MemoryNeed(
        context=context,
        mapped=max(weight_bytes - unused, 0),
        made=made,
        cache=cache_bytes(config, context),
        working=ops.working_bytes(config, chunk, context),
    )
