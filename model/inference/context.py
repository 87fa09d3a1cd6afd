"""What a model has read: a transformer, its cache, and which tokens are in it, so that no token is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss.model.architecture.decode import DecodeStep
from gptoss.model.architecture.transformer import Logits, Transformer
from gptoss.model.config import ModelConfig
from gptoss.model.constraint import Masked
from gptoss.model.errors import ContextFullError
from gptoss.model.inference.sampler import Drawn, Sampler
from gptoss.model.interface import SamplingParams, Token
from gptoss.model.loading.device import full_card_told
from gptoss.model.ops import StepOps
from gptoss.model.storage.disk_cache import CheckpointFiles
from gptoss.model.storage.prefix_store import BLOCK_TOKENS, PrefixStore

# Tokens of a prompt that are computed together: more of them share the unpacking of an expert, and take more memory.
PREFILL_CHUNK = 512


def require_context(config: ModelConfig, length: int) -> None:
    """Refuse a context that the model was not made for.

    Raises:
        ContextFullError: it is longer than the model can hold, or empty.
    """
    made_for = config.max_context_length
    if not 1 <= length <= made_for:
        raise ContextFullError(f"a context of {length} tokens: this model can hold 1 to {made_for}")


class Context:
    """One model with one cache, which holds the tokens that were computed last; what goes on from there reuses them.

    Args:
        transformer: the model.
        max_length: tokens that it can hold.
        cache_dtype: in which keys and values are held.
        prefixes: where to keep those of the beginnings of prompts, and how they are computed; see `PrefixStore`.

    Attributes:
        owner: who computes here; one that is no longer the owner has lost its place.
    """

    def __init__(
        self,
        transformer: Transformer,
        max_length: int,
        cache_dtype: torch.dtype,
        prefixes: tuple[CheckpointFiles, str] | None,
    ) -> None:
        self.transformer = transformer
        self.max_length = max_length
        self.owner: object = None
        self._cache = transformer.new_cache(max_length, cache_dtype)
        self._device = self._cache.buffers(0)[0].device
        self._ids: list[int] = []
        self._store = None if prefixes is None else PrefixStore(*prefixes, self._cache)
        self._longest_prefill = (0, 0.0)

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt that are best computed at a time."""
        ops = self.transformer.ops
        return ops.prefill_chunk if isinstance(ops, StepOps) else PREFILL_CHUNK

    @torch.inference_mode()
    def find_prefix(self, ids: list[int]) -> int:
        """How many of the first `ids` need not be computed, with what the disk has of them taken into the cache; the
        last always is, for its logits."""
        known = self._known(ids)
        if self._store is None:
            return known
        for begin, values in self._store.blocks(ids[:-1], known):
            self.rewind(begin)
            self._ids += ids[begin : begin + values.shape[2]]
            self._cache.import_range(values)
        return self._known(ids)

    def whole_blocks(self, prompt: list[int]) -> int:
        """Where the prefill makes a cut, so that a later run, which finds what comes before on the disk, computes the
        rest in one piece of the same size: then the same prompt has the same logits to the last bit."""
        return 0 if self._store is None else (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS

    def rewind(self, length: int) -> None:
        """Forget all tokens but the first ones."""
        self._cache.rewind(length)
        del self._ids[length:]

    @torch.inference_mode()
    def append(self, ids: list[int], logits: Logits, layer_done: Callable[[int], None] | None = None) -> Tensor:
        """Compute `ids`; the logits of `logits`, (1, vocabulary) of the last."""
        # Noted first: an interrupt in mid-computation leaves more ids than positions, never positions without ids.
        self._ids[self._cache.length :] = ids
        with full_card_told(self._device):
            return self.transformer(ids, self._cache, logits, layer_done)

    def append_on_device(self, token_id: int) -> NextOnDevice | None:
        """How to compute a token and sample the next on the device; None: not with this model."""
        step = self.transformer.step(self._cache)
        if step is None:
            return None
        self._ids[self._cache.length :] = [token_id]
        return NextOnDevice(step, token_id)

    def wait(self) -> None:
        """Return when all is computed that was asked for."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """Say how long it took to compute so many tokens of a prompt: what it costs to do so again."""
        self._longest_prefill = max(self._longest_prefill, (tokens, seconds))

    @torch.inference_mode()
    def keep(self, ids: Sequence[int]) -> None:
        """Keep on the disk, where that pays, the keys and values of `ids` as far as the cache has them."""
        tokens, seconds = self._longest_prefill
        if self._store is None or not tokens:
            return
        known = self._known([*ids, 0])
        if self._store.pays(known, seconds / tokens):
            self._store.save(ids[:known], self._cache.export_range)

    def _known(self, ids: list[int]) -> int:
        """How many of the first `ids`, without the last, are in the cache."""
        limit = min(len(self._ids), self._cache.length, len(ids) - 1)
        return next((i for i in range(limit) if self._ids[i] != ids[i]), limit)


@dataclass(frozen=True)
class NextOnDevice:
    """A token that is not computed yet: with it, the device can sample the next in the same step."""

    step: DecodeStep
    token_id: int

    def sample(self, sampler: Sampler, mask: Masked | None) -> Token:
        """Compute it, and sample what follows."""

        def draw(params: SamplingParams, number: float) -> Drawn:
            with full_card_told(self.step.device):
                return self.step.draw(self.token_id, params, number, mask)

        return sampler.sample_on_device(draw, mask is not None)

    def logits(self) -> Tensor:
        """Compute it; the logits of what follows."""
        with full_card_told(self.step.device):
            return self.step.logits(self.token_id)
