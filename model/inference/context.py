"""A context: a KV cache and the tokens that are in it, so that no token is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gptoss.model.architecture.decode import DecodeStep, Drawn
from gptoss.model.architecture.transformer import Logits, Transformer
from gptoss.model.config import ModelConfig
from gptoss.model.constraint import LogitMask
from gptoss.model.errors import ContextFullError
from gptoss.model.inference.sampler import Sampler
from gptoss.model.inference.turns import Waiter
from gptoss.model.interface import SamplingParams, Token
from gptoss.model.ops import StepOps
from gptoss.model.ops.full_card import full_card_told
from gptoss.model.storage.prefix_store import BLOCK_TOKENS, PrefixStore

PREFILL_CHUNK = 512
"""Tokens of a prompt computed together: more of them share the unpacking of an expert, but take more memory."""

_COMPARED = 1024  # tokens that are compared at once


def require_context(config: ModelConfig, length: int) -> None:
    """Refuse a context that the model was not made for.

    Raises:
        ContextFullError: it is longer than the model can hold, or empty.
    """
    made_for = config.max_context_length
    if not 1 <= length <= made_for:
        raise ContextFullError(f"a context of {length:,} tokens: this model can hold 1 to {made_for:,}")


def common_prefix(ours: Sequence[int], theirs: Sequence[int], limit: int) -> int:
    """Return how many of the first `limit` tokens of both are equal."""
    same = 0
    while same < limit:
        end = min(same + _COMPARED, limit)
        if ours[same:end] != theirs[same:end]:
            return next(i for i in range(same, end) if ours[i] != theirs[i])
        same = end
    return limit


@dataclass
class StoredPrefixes:
    """The prefixes on the disk, and what it costs to compute them again.

    Attributes:
        store: where they lie; None: nothing is stored.
        longest_prefill: tokens and seconds of the longest prefill so far.
    """

    store: PrefixStore | None = None
    longest_prefill: tuple[int, float] = field(default=(0, 0.0))

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """Take note of how long a prefill took."""
        self.longest_prefill = max(self.longest_prefill, (tokens, seconds))

    def pays(self, tokens: int) -> bool:
        """Whether storing so many tokens' keys and values saves enough time."""
        computed, seconds = self.longest_prefill
        return self.store is not None and computed > 0 and self.store.pays(tokens, seconds / computed)


class Context:
    """One KV cache and its tokens. Generations use it in turn; a `ContextPool` says which.

    Args:
        transformer: the model.
        max_length: tokens that it can hold.
        cache_dtype: of keys and values.
        prefixes: those on the disk.

    Attributes:
        holder: the generation that uses it; None: it is idle.
        prompt_length: length of the latest prompt; what follows was sampled.
        used: a number that grows with every use.
        pins: how many are copying from it; it is not freed meanwhile.
    """

    def __init__(
        self, transformer: Transformer, max_length: int, cache_dtype: torch.dtype, prefixes: StoredPrefixes
    ) -> None:
        self.transformer = transformer
        self.max_length = max_length
        self.holder: Waiter | None = None
        self.prompt_length = 0
        self.used = 0
        self.pins = 0
        self.prefixes = prefixes
        self._cache = transformer.new_cache(max_length, cache_dtype)
        self._device = self._cache.buffers(0)[0].device
        self._ids: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes that keys and values take, filled or not."""
        return self._cache.nbytes

    def nbytes_for(self, positions: int) -> int:
        """Return bytes that they take once so many positions are reserved.

        While a cache grows, one layer at a time is held twice; that is not counted.
        """
        return self._cache.nbytes_of(self._cache.capacity_after(min(positions, self.max_length)))

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return min(len(self._ids), self._cache.length)

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt that are best computed at a time."""
        ops = self.transformer.ops
        return ops.prefill_chunk if isinstance(ops, StepOps) else PREFILL_CHUNK

    def known(self, ids: Sequence[int]) -> int:
        """Return how many of the first `ids`, all but the last at most, are in the cache."""
        return common_prefix(self._ids, ids, min(self.length, len(ids) - 1))

    @torch.inference_mode()
    def reserve(self, positions: int) -> None:
        """Take memory for so many positions at once: growing piece by piece takes up to twice as much."""
        with full_card_told(self._device):
            self._cache.reserve(min(positions, self.max_length))

    @torch.inference_mode()
    def take_from(self, other: Context, ids: list[int]) -> None:
        """Copy the part of `ids` that another context has and this one has not."""
        begin, end = self.known(ids), other.known(ids)
        if end > begin:
            self.rewind(begin)
            self._ids += ids[begin:end]
            self._cache.append_from(other._cache, end)

    @torch.inference_mode()
    def find_stored(self, ids: list[int]) -> int:
        """Take in what the disk has of `ids`; return how many of them need not be computed.

        The last token is always computed, for its logits.
        """
        known = self.known(ids)
        store = self.prefixes.store
        if store is None:
            return known
        for begin, values in store.blocks(ids[:-1], known):
            self.rewind(begin)
            self._ids += ids[begin : begin + values.shape[2]]
            self._cache.import_range(values)
        return self.known(ids)

    def whole_blocks(self, prompt: list[int]) -> int:
        """Return where the prefill makes a cut.

        A later run finds the part before it on the disk and computes the rest in one piece of the same size; so the
        same prompt has the same logits to the last bit.
        """
        return 0 if self.prefixes.store is None else (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS

    def rewind(self, length: int) -> None:
        """Forget all tokens but the first ones."""
        self._cache.rewind(length)
        del self._ids[length:]

    def free(self) -> None:
        """Forget all tokens and free their memory."""
        self._ids.clear()
        self._cache.clear()
        self.prompt_length = 0

    @torch.inference_mode()
    def append(self, ids: list[int], logits: Logits, layer_done: Callable[[int], None] | None = None) -> Tensor:
        """Compute `ids`; return the logits of "all" of them, or of the "last", (tokens, vocabulary)."""
        # Noted first: an exception in mid-computation leaves more ids than positions, never positions without ids.
        self._ids[self._cache.length :] = ids
        with full_card_told(self._device):
            return self.transformer(ids, self._cache, logits, layer_done)

    def append_on_device(self, token_id: int) -> NextOnDevice | None:
        """Return how to compute a token and sample the next one on the device; None: this model cannot."""
        step = self.transformer.step(self._cache)
        if step is None:
            return None
        self._ids[self._cache.length :] = [token_id]
        return NextOnDevice(step, token_id)

    def wait(self) -> None:
        """Wait until everything that was asked for is computed."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    @torch.inference_mode()
    def store(self, ids: Sequence[int], export_turn: Callable[[Callable[[], Tensor]], Tensor]) -> None:
        """Store the keys and values of `ids` on the disk, as far as the cache has them and where that pays.

        Args:
            ids: tokens that prompts to come are likely to begin with.
            export_turn: runs a function in a turn on the model.
        """
        known = self.known([*ids, 0])
        if self.prefixes.store is not None and self.prefixes.pays(known):
            self.prefixes.store.save(
                ids[:known], lambda begin, end: export_turn(lambda: self._cache.export_range(begin, end))
            )


@dataclass(frozen=True)
class NextOnDevice:
    """A token that is not computed yet: with it, the device can sample the next in the same step."""

    step: DecodeStep
    token_id: int

    def sample(self, sampler: Sampler, mask: LogitMask | None) -> Token:
        """Compute it, and sample what follows."""

        def draw(params: SamplingParams, number: float) -> Drawn:
            with full_card_told(self.step.device):
                return self.step.draw(self.token_id, params, number, mask)

        return sampler.sample_on_device(draw, mask is not None)

    def logits(self) -> Tensor:
        """Compute it; return the logits of what follows, (vocabulary,)."""
        with full_card_told(self.step.device):
            return self.step.logits(self.token_id)
