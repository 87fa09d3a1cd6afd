"""Whether a model fits into this machine's memory, before it takes any; and if not, what would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptoss.cli.base.errors import MemoryShortageError
from gptoss.cli.base.sizes import show_bytes
from gptoss.model.checkpoints.published_configs import published_config
from gptoss.model.config import ModelConfig
from gptoss.model.loading.memory import MemoryNeed, cache_bytes, memory_need

if TYPE_CHECKING:
    from gptoss.model.ops import Ops

COUNTED_CONTEXT = 4096
"""Tokens of cache that are counted where no --ctx was given: the cache grows as it is used."""
_SMALLER = "20b"
_STEP, _SMALL_STEP = 1024, 64


def counted_context(config: ModelConfig, ctx: int | None) -> int:
    """Tokens whose keys and values memory must be there for."""
    return min(ctx or COUNTED_CONTEXT, config.max_context_length)


def require_memory(
    name: str, need: MemoryNeed, config: ModelConfig, ops: Ops, ctx: int | None, available: int | None
) -> None:
    """Refuse a model of which the part that cannot be read anew from its files does not fit.

    Args:
        name: of the model.
        need: what it needs, for `counted_context` tokens.
        config: of the model.
        ops: what will compute.
        ctx: the context that was asked for, if any.
        available: bytes; None: not known.

    Raises:
        MemoryShortageError: it does not fit.
    """
    if available is None or need.resident <= available:
        return
    context = counted_context(config, ctx)
    parts = (
        (need.cache, f"of cache for {context} tokens"),
        (need.made, "of weights made at load"),
        (need.working, "to compute with"),
    )
    told = ", ".join(f"{show_bytes(size)} {what}" for size, what in parts if size)
    fits = " or ".join(_what_fits(need, config, ops, context, available))
    raise MemoryShortageError(
        f"{name} needs {show_bytes(need.resident)} of memory beside its files ({told}), but {show_bytes(available)} "
        f"are free: {fits} would fit"
    )


def slowness(name: str, need: MemoryNeed, available: int | None) -> str | None:
    """What to say of a model that fits, but not with all of its files' pages; None where they fit too."""
    if available is None or need.whole <= available:
        return None
    return (
        f"{name} uses {show_bytes(need.whole)} and {show_bytes(available)} of memory are free: what does not fit is "
        "read from the disk again and again, which is slow"
    )


def _what_fits(need: MemoryNeed, config: ModelConfig, ops: Ops, context: int, available: int) -> list[str]:
    """Changes to the command line with each of which it would fit, those that cost the least first."""
    fits = []
    if shorter := _longest_context(config, context, available - need.made - need.working):
        fits.append(f"--ctx {shorter}")
    if need.made and ops.made_bytes(config):
        left = available - (need.made - ops.made_bytes(config)) - need.working
        if need.cache <= left:
            fits.append("--dense bf16")
        elif (longer := _longest_context(config, context, left)) > shorter:
            fits.append(f"--dense bf16 --ctx {longer}")
    smaller = published_config(_SMALLER)
    if smaller.num_weights < config.num_weights:
        of_smaller = memory_need(smaller, ops, counted_context(smaller, context), 1)
        if of_smaller.made + of_smaller.cache + need.working <= available:
            fits.append(f"-m {_SMALLER}")
    return fits or ["-m nano"]


def _longest_context(config: ModelConfig, context: int, room: int) -> int:
    """The longest context below this one whose cache fits into so many bytes, rounded down; 0 where none does."""
    tokens = min(max(room, 0) // cache_bytes(config, 1), context - 1)
    step = _STEP if tokens >= _STEP else _SMALL_STEP
    return tokens // step * step
