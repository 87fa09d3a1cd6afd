"""Whether a model fits into this machine's memory, before it takes any; and if not, what would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptoss.cli.base.errors import MemoryShortageError
from gptoss.cli.base.sizes import show_bytes
from gptoss.model.checkpoints.published_configs import published_config
from gptoss.model.config import ModelConfig
from gptoss.model.loading.memory import MemoryNeed, memory_need
from gptoss.model.tensors.sizes import cache_bytes, stored_bytes

if TYPE_CHECKING:
    from gptoss.model.loading.plan import LoadPlan

_SMALLER = "20b"
_STEP, _SMALL_STEP = 1024, 64


def require_memory(name: str, plan: LoadPlan, available: int | None) -> None:
    """Refuse a model if the part that cannot be read again from its files does not fit.

    Args:
        name: of the model.
        plan: how it would be loaded.
        available: bytes of memory that it may take; None: unknown.

    Raises:
        MemoryShortageError: it does not fit.
    """
    need = plan.need
    if available is None or need.resident <= available:
        return
    parts = (
        (need.cache, f"of cache for {need.context:,} tokens"),
        (need.made, "of weights made at load"),
        (need.working, "to compute with"),
    )
    listed = ", ".join(f"{show_bytes(size)} {what}" for size, what in parts if size)
    fits = " or ".join(_what_fits(plan, available))
    raise MemoryShortageError(
        f"{name} needs {show_bytes(need.resident)} of memory beside its files ({listed}), but {show_bytes(available)} "
        f"are free: {fits} would fit"
    )


def slowness(name: str, need: MemoryNeed, available: int | None) -> str | None:
    """Return a warning for a model that fits without all pages of its files; None if they fit too."""
    if available is None or need.whole <= available:
        return None
    return (
        f"{name} uses {show_bytes(need.whole)} and {show_bytes(available)} of memory are free: what does not fit is "
        "read from the disk again and again, which is slow"
    )


def _what_fits(plan: LoadPlan, available: int) -> list[str]:
    """Return changes to the command line that would each make it fit, the least costly first."""
    need, config, made = plan.need, plan.config, plan.ops.made_bytes(plan.config)
    fits = []
    if shorter := _longest_context(config, need.context, available - need.made - need.working):
        fits.append(f"--ctx {shorter}")
    if made:
        left = available - (need.made - made) - need.working
        if need.cache <= left:
            fits.append("--dense bf16")
        elif (longer := _longest_context(config, need.context, left)) > shorter:
            fits.append(f"--dense bf16 --ctx {longer}")
    smaller = published_config(_SMALLER)
    if smaller.num_weights < config.num_weights:
        of_smaller = memory_need(smaller, plan.ops, need.context, 1, weight_bytes=stored_bytes(smaller))
        if of_smaller.made + of_smaller.cache + need.working <= available:
            fits.append(f"-m {_SMALLER}")
    return fits or ["-m nano"]


def _longest_context(config: ModelConfig, context: int, room: int) -> int:
    """Return the longest context below this one whose cache fits into so many bytes, rounded down; 0 if none does."""
    tokens = min(max(room, 0) // cache_bytes(config, 1), context - 1)
    step = _STEP if tokens >= _STEP else _SMALL_STEP
    return tokens // step * step
