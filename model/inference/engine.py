"""Generation: prompt ids in, sampled tokens out, computing again only what no earlier call, or run, has left behind."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.fingerprint import fingerprint
from gptoss.model.config import GenerationDefaults, load_generation_defaults
from gptoss.model.constraint import Constraint
from gptoss.model.errors import CheckpointError, ContextFullError, ModelError
from gptoss.model.inference.context import Context, require_context
from gptoss.model.inference.generation import Generation, Progress
from gptoss.model.interface import SamplingParams
from gptoss.model.loading.device import full_card_told, select_device
from gptoss.model.loading.quantize import Quantization
from gptoss.model.ops import Ops
from gptoss.model.storage.disk_cache import CheckpointFiles, DiskCache
from gptoss.model.storage.read_ahead import Reading

log = logging.getLogger(__name__)


class Engine:
    """One model with one cache. The cache holds the tokens of the latest generation; the next one reuses its prefix.

    Args:
        transformer: the model.
        max_context: tokens of prompt and answer together; by default as many as the model was made for.
        defaults: the checkpoint's own sampling parameters and stop tokens.
        cache_dtype: in which keys and values are held.
        prefixes: where to keep those of the beginnings of prompts, and what made them (`Engine.load` says it in full).
    """

    def __init__(
        self,
        transformer: Transformer,
        max_context: int | None = None,
        defaults: GenerationDefaults | None = None,
        cache_dtype: torch.dtype = torch.bfloat16,
        prefixes: tuple[CheckpointFiles, str] | None = None,
    ) -> None:
        if max_context is not None:
            require_context(transformer.config, max_context)
        defaults = defaults or GenerationDefaults()
        self.transformer = transformer
        self.max_context = max_context or transformer.config.max_context_length
        self.defaults = SamplingParams().override(
            temperature=defaults.temperature, top_p=defaults.top_p, top_k=defaults.top_k, min_p=defaults.min_p
        )
        self.stop_tokens = frozenset(defaults.stop_token_ids)
        self._context = Context(transformer, self.max_context, cache_dtype, prefixes)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "auto",
        max_context: int | None = None,
        backend: Ops | None = None,
        quantize: Quantization | None = None,
        progress: Callable[[float], None] | None = None,
        cpu_experts: int | None = None,
        device_bytes: int | None = None,
        reading: Reading | None = None,
        disk_cache: DiskCache | None = None,
    ) -> Engine:
        """Load the checkpoint in a folder onto a device: "auto", or any that torch knows.

        `backend`, `quantize`, `progress`, `cpu_experts`, `device_bytes` and `reading` are those of
        `Transformer.from_checkpoint`. What another run of the same checkpoint, computed alike, has left in `disk_cache`
        need not be computed again.

        Raises:
            CheckpointError: it is missing, broken or not of this architecture.
            DeviceError: there is no such device, or a card is too small.
            ContextFullError: `max_context` is more than the model was made for.
        """
        files: CheckpointFiles | None = None
        if disk_cache is not None:
            try:
                files = disk_cache.of(fingerprint(Path(path)))
            except CheckpointError as error:  # loading says more, unless it is of a file that is no part of it
                log.info("the cache on the disk is not used: %s", error)

        chosen = select_device(device)
        with full_card_told(chosen):
            transformer = Transformer.from_checkpoint(
                path,
                chosen,
                backend,
                quantize=quantize,
                progress=progress,
                context=max_context,
                cpu_experts=cpu_experts,
                device_bytes=device_bytes,
                reading=reading,
                files=files,
            )
        prefixes = None
        if files is not None:
            how = (transformer.ops.identity, str(transformer.device), quantize, sys.byteorder, version("gptoss"))
            prefixes = files, repr(how)
        return cls(transformer, max_context, load_generation_defaults(Path(path)), prefixes=prefixes)

    def generate(
        self,
        ids: Sequence[int],
        params: SamplingParams | None = None,
        constraint: Constraint | None = None,
        stop: Collection[int] = (),
        progress: Progress | None = None,
    ) -> Generation:
        """Go on from the prompt `ids`; nothing is computed until the first token is asked for.

        Args:
            ids: the prompt, at least one token.
            params: how to sample; by default the checkpoint's own.
            constraint: what may be said.
            stop: token ids that end the generation; the one that came is yielded last.
            progress: called while the prompt is computed, with tokens done (cached ones included) and tokens in all.

        Raises:
            ContextFullError: the prompt leaves no room for a token.
            ModelError: an id is not in the vocabulary, or there are none.
        """
        vocab_size = self.transformer.config.vocab_size
        if not ids:
            raise ModelError("the prompt is empty: at least one token is needed")
        if min(ids) < 0 or max(ids) >= vocab_size:
            wrong = next(i for i in ids if not 0 <= i < vocab_size)
            raise ModelError(f"token id {wrong} is not in the model's vocabulary of {vocab_size}")
        if len(ids) >= self.max_context:
            raise ContextFullError(f"the prompt's {len(ids)} tokens leave no room in a context of {self.max_context}")
        return Generation(self._context, list(ids), params or self.defaults, constraint, frozenset(stop), progress)

    def keep(self, ids: Sequence[int]) -> None:
        """Keep on the disk, where that pays, the keys and values of `ids` as far as the cache has them.

        Takes its time, so it is for when the answer is out. What cannot be written is not.

        Args:
            ids: what prompts to come are likely to begin with.
        """
        self._context.keep(ids)

    def keep_weights(self) -> None:
        """Keep on the disk what was made of the weights at load, unless it is there; that takes seconds, once."""
        if self.transformer.made is not None:
            self.transformer.made.keep()
