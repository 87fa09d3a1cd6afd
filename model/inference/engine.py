"""The engine of this process: one model, several generations at once, and prefixes that are not computed twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.config import GenerationDefaults
from gptoss.model.errors import CheckpointError, ModelError
from gptoss.model.inference.context import Context, StoredPrefixes, require_context
from gptoss.model.inference.contexts import ContextPool
from gptoss.model.inference.generation import GenerationRun, LocalGeneration
from gptoss.model.inference.turns import Turns, Waiter
from gptoss.model.interface import ContextUsage, EngineInfo, Progress, Request, SamplingParams, require_prompt
from gptoss.model.storage.disk_cache import CheckpointFiles
from gptoss.model.storage.integrity import Integrity
from gptoss.model.storage.mapping import MappedFile
from gptoss.model.storage.prefix_store import PrefixStore

log = logging.getLogger(__name__)

CONTEXT_BYTES = 1_000_000_000
"""Bytes of keys and values of all contexts together, by default."""


class LocalEngine:
    """A model in this process; see `gptoss.model.interface.Engine`. Several threads may use it.

    Args:
        transformer: the model.
        max_context: tokens of prompt and answer together; by default as many as the model was made for.
        defaults: the checkpoint's own sampling parameters and stop tokens.
        cache_dtype: of keys and values.
        prefixes: where to store those of prompts' beginnings, and everything but the weights that affects them.
        context_bytes: bytes of keys and values of all contexts together before idle ones are dropped. The oldest
            running generation may exceed it.
        mappings: the files of the weights; a generation ends with an error once one of them is cut.
    """

    def __init__(
        self,
        transformer: Transformer,
        max_context: int | None = None,
        defaults: GenerationDefaults | None = None,
        cache_dtype: torch.dtype = torch.bfloat16,
        prefixes: tuple[CheckpointFiles, str] | None = None,
        context_bytes: int = CONTEXT_BYTES,
        mappings: Sequence[MappedFile] = (),
    ) -> None:
        if max_context is not None:
            require_context(transformer.config, max_context)
        defaults = defaults or GenerationDefaults()
        params = SamplingParams().override(
            temperature=defaults.temperature, top_p=defaults.top_p, top_k=defaults.top_k, min_p=defaults.min_p
        )
        self.info = EngineInfo(
            max_context=max_context or transformer.config.max_context_length,
            defaults=params,
            stop_tokens=frozenset(defaults.stop_token_ids),
        )
        self._transformer: Transformer | None = transformer
        stored = StoredPrefixes()
        if prefixes is not None:
            stored.store = PrefixStore(*prefixes, transformer.new_cache(1, cache_dtype))
        self._turns = Turns()
        self._mappings = mappings
        self._integrity = Integrity(mappings, transformer.made)

        def new_pool() -> ContextPool:
            return ContextPool(
                lambda: Context(self.transformer, self.info.max_context, cache_dtype, stored), context_bytes
            )

        self._new_pool = new_pool
        self._pool = self._new_pool()
        self._repairing = threading.Lock()

    @property
    def transformer(self) -> Transformer:
        """The model.

        Raises:
            ModelError: the engine was closed.
        """
        if self._transformer is None:
            raise ModelError("the engine was closed: load the model again")
        return self._transformer

    @property
    def contexts(self) -> ContextUsage:
        """Memory that the KV caches take."""
        return self._pool.usage

    def generate(self, request: Request, progress: Progress | None = None) -> LocalGeneration:
        """Begin a generation; nothing is computed until its first token is asked for.

        Raises:
            ContextFullError: the prompt leaves no room for a token.
            ModelError: an id is not in the vocabulary, there are none, or the engine was closed.
            CheckpointError: a file of the model was cut or damaged while it is in use. Damage of the repacked weights
                is reported once, then they are made anew.
        """
        self._repair()
        self._integrity.require()
        require_prompt(request.ids, self.transformer.config.vocab_size, self.info.max_context)
        stop = frozenset() if request.ignore_stop else request.stop | self.info.stop_tokens
        params = request.params or self.info.defaults
        return LocalGeneration(GenerationRun(request, params, stop, self._pool, self._turns, self._integrity, progress))

    def retain(self, ids: Sequence[int] = ()) -> None:
        """Store on the disk the keys and values of `ids`, where that pays, and once the repacked weights.

        What cannot be written is not, and costs nothing but the time it would save.
        """
        was_reported = self._integrity.is_reported
        try:
            self._integrity.require()
        except CheckpointError as error:  # nothing that was computed with it is stored
            if not was_reported:
                log.warning("%s", error)
            return
        waiter = Waiter()
        context = self._pool.hold_longest([*ids, 0], waiter) if ids else None
        if context is not None:
            try:
                context.store(ids, lambda export: self._in_turn(waiter, export))
            finally:
                self._turns.leave(waiter)
                self._pool.release(context, waiter)
        made = self.transformer.made
        if made is not None:
            made.keep()

    def close(self) -> None:
        """Cancel the running generations and free the model's memory."""
        self._pool.close()
        self._transformer = None

    def _repair(self) -> None:
        """Make damaged repacked weights anew, and forget what was computed with them, once that was reported.

        Generations that are running keep the damaged ones, and end with an error.
        """
        with self._repairing:
            before, made = self.transformer, self.transformer.made
            if made is None or not made.is_damaged or not self._integrity.is_reported:
                return
            log.info("the repacked weights are made anew")
            made = made.made_anew()
            self._transformer = Transformer(before.config, before.weights, before.ops, made)
            self._integrity = Integrity(self._mappings, made)
            self._pool = self._new_pool()

    def _in_turn(self, waiter: Waiter, export: Callable[[], Tensor]) -> Tensor:
        with self._turns.turn(waiter):
            return export()
