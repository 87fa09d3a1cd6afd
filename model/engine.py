"""Generation: prompt ids in, sampled tokens out, computing again only what no earlier call, or run, has left behind."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gptoss.model.config import GenerationDefaults, load_generation_defaults
from gptoss.model.constraint import Constraint, Constraints, Forced, Masked, StopTokens
from gptoss.model.decode import DecodeStep
from gptoss.model.device import full_card_told, select_device
from gptoss.model.disk_cache import CheckpointFiles, DiskCache
from gptoss.model.errors import CheckpointError, ContextFullError, DeviceError, ModelError
from gptoss.model.fingerprint import fingerprint
from gptoss.model.ops import Ops, StepOps
from gptoss.model.prefix_store import BLOCK_TOKENS, PrefixStore
from gptoss.model.quantize import Quantization
from gptoss.model.read_ahead import Reading
from gptoss.model.sampler import Drawn, Sampler, SamplingParams, Token
from gptoss.model.speculation import PromptLookup
from gptoss.model.transformer import Logits, Transformer

log = logging.getLogger(__name__)

# stop: a stop token came, or a constraint is satisfied; length: max_tokens; context: the context is full.
FinishReason = Literal["stop", "length", "context"]
Progress = Callable[[int, int], None]

# Tokens of a prompt that are computed together: more of them share the unpacking of an expert, and take more memory.
PREFILL_CHUNK = 512


@dataclass
class Timing:
    """Seconds spent so far."""

    prefill_s: float = 0.0
    decode_s: float = 0.0


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
        made_for = transformer.config.max_context_length
        if max_context is not None and not 1 <= max_context <= made_for:
            raise ContextFullError(f"a context of {max_context} tokens: this model can hold 1 to {made_for}")
        defaults = defaults or GenerationDefaults()
        self.transformer = transformer
        self.max_context = max_context or made_for
        self.defaults = SamplingParams().override(
            temperature=defaults.temperature, top_p=defaults.top_p, top_k=defaults.top_k, min_p=defaults.min_p
        )
        self.stop_tokens = frozenset(defaults.stop_token_ids)
        self._cache = transformer.new_cache(self.max_context, cache_dtype)
        self._device = self._cache.buffers(0)[0].device
        self._cached_ids: list[int] = []
        self._latest: Generation | None = None
        self._store = None if prefixes is None else PrefixStore(*prefixes, self._cache)
        self._longest_prefill = (0, 0.0)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "auto",
        max_context: int | None = None,
        backend: str | Ops | None = None,
        quantize: Quantization | None = None,
        progress: Callable[[float], None] | None = None,
        cpu_experts: int | None = None,
        device_bytes: int | None = None,
        reading: Reading | None = None,
        disk_cache: DiskCache | None = None,
    ) -> Engine:
        """Load the checkpoint in a folder onto a device: "auto", or any that torch knows.

        `backend`, `quantize`, `progress`, `cpu_experts`, `device_bytes` and `reading` are those of
        `Transformer.from_checkpoint`. "auto" takes the CPU where a card is too small. What another run of the same
        checkpoint, computed alike, has left in `disk_cache` need not be computed again.

        Raises:
            CheckpointError: it is missing, broken or not of this architecture.
            DeviceError: there is no such device or backend.
            ContextFullError: `max_context` is more than the model was made for.
        """

        files: CheckpointFiles | None = None
        if disk_cache is not None:
            try:
                files = disk_cache.of(fingerprint(Path(path)))
            except CheckpointError as error:  # loading says more, unless it is of a file that is no part of it
                log.info("the cache on the disk is not used: %s", error)

        def load_on(where: torch.device) -> Transformer:
            return Transformer.from_checkpoint(
                path,
                where,
                backend,
                quantize=quantize,
                progress=progress,
                context=max_context,
                cpu_experts=cpu_experts,
                device_bytes=device_bytes,
                reading=reading,
                files=files,
            )

        chosen = select_device(device)
        try:
            with full_card_told(chosen):
                transformer = load_on(chosen)
        except DeviceError as error:
            if device != "auto" or chosen.type == "cpu" or not (backend is None or isinstance(backend, str)):
                raise
            log.warning("%s", error)
            transformer = load_on(torch.device("cpu"))
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
        generation = Generation(self, list(ids), params or self.defaults, constraint, frozenset(stop), progress)
        self._latest = generation
        return generation

    @property
    def _prefill_chunk(self) -> int:
        ops = getattr(self.transformer, "ops", None)
        return ops.prefill_chunk if isinstance(ops, StepOps) else PREFILL_CHUNK

    @torch.inference_mode()
    def keep(self, ids: Sequence[int]) -> None:
        """Keep on the disk, where that pays, the keys and values of `ids` as far as the cache has them.

        Takes its time, so it is for when the answer is out. What cannot be written is not.

        Args:
            ids: what prompts to come are likely to begin with.
        """
        tokens, seconds = self._longest_prefill
        if self._store is None or not tokens:
            return
        known = self._cached_prefix([*ids, 0])
        if self._store.pays(known, seconds / tokens):
            self._store.save(ids[:known], self._cache.export_range)

    def keep_weights(self) -> None:
        """Keep on the disk what was made of the weights at load, unless it is there; that takes seconds, once."""
        if self.transformer.made is not None:
            self.transformer.made.keep()

    @torch.inference_mode()
    def _find_prefix(self, ids: list[int]) -> int:
        """How many of the first `ids` need not be computed, with what the disk has of them taken into the cache."""
        known = self._cached_prefix(ids)
        if self._store is None:
            return known
        for begin, values in self._store.blocks(ids[:-1], known):
            self._rewind(begin)
            self._cached_ids += ids[begin : begin + values.shape[2]]
            self._cache.import_range(values)
        return self._cached_prefix(ids)

    def _whole_blocks(self, prompt: list[int]) -> int:
        """Where the prefill makes a cut, so that a later run, which finds what comes before on the disk, computes the
        rest in one piece of the same size: then the same prompt has the same logits to the last bit."""
        return 0 if self._store is None else (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS

    def _cached_prefix(self, ids: list[int]) -> int:
        """How many of the first `ids` need not be computed; the last always is, for its logits."""
        known = min(len(self._cached_ids), self._cache.length)
        limit = min(known, len(ids) - 1)
        return next((i for i in range(limit) if self._cached_ids[i] != ids[i]), limit)

    def _rewind(self, length: int) -> None:
        self._cache.rewind(length)
        del self._cached_ids[length:]

    @torch.inference_mode()
    def _forward(self, ids: list[int], logits: Logits, layer_done: Callable[[int], None] | None = None) -> Tensor:
        """Append `ids` to the cache; the logits of `logits`, (1, vocabulary) of the last."""
        # Noted first: an interrupt in mid-computation leaves more ids than positions, never positions without ids.
        self._cached_ids[self._cache.length :] = ids
        with full_card_told(self._device):
            return self.transformer(ids, self._cache, logits, layer_done)

    def _on_device(self, token_id: int) -> NextOnDevice | None:
        """How to compute a token and sample the next on the device; None: not with this model."""
        step = self.transformer.step(self._cache)
        if step is None:
            return None
        self._cached_ids[self._cache.length :] = [token_id]
        return NextOnDevice(step, token_id)


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


class Generation(Iterator[Token]):
    """The tokens of one answer, computed as they are asked for.

    Attributes:
        prompt_tokens: length of the prompt.
        cached_tokens: how many of them were in the cache, in memory or on the disk.
        generated_tokens: how many have come so far.
        foreseen_tokens: how many of them had been computed along with an earlier one.
        finish_reason: why it ended; None while it goes on.
        seed: of the sampling, to repeat it.
        timing: seconds spent.
    """

    def __init__(
        self,
        engine: Engine,
        ids: list[int],
        params: SamplingParams,
        constraint: Constraint | None,
        stop: frozenset[int],
        progress: Progress | None,
    ) -> None:
        self._engine = engine
        self._sampler = Sampler(params)
        self._params = params
        stopping = StopTokens(stop)
        self._constraint = stopping if constraint is None else Constraints(stopping, constraint)
        self._progress = progress
        self.prompt_tokens = len(ids)
        begin = time.perf_counter()
        self.cached_tokens = engine._find_prefix(ids)
        self._search_s = time.perf_counter() - begin
        self.generated_tokens = 0
        self.foreseen_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.seed = self._sampler.seed
        self.timing = Timing()
        self._most_ahead = engine.transformer.ops.identical_tokens - 1
        # Tokens computed ahead of time, each with the logits of what follows it.
        self._ahead: deque[tuple[int, Tensor]] = deque()
        self._tokens = self._run(ids)

    def __next__(self) -> Token:
        if self._engine._latest is not self:
            raise ModelError("this generation was given up: the engine has begun another")
        return next(self._tokens)

    def close(self) -> None:
        """Give up; the tokens so far stay in the cache."""
        self._tokens.close()

    def _run(self, prompt: list[int]) -> Generator[Token]:
        begin = time.perf_counter()
        follows: Tensor | NextOnDevice = self._prefill(prompt)
        if self._engine._device.type == "cuda":
            # Its token is sampled at once, so nothing is lost by waiting; without, the time would be that of asking.
            torch.cuda.synchronize(self._engine._device)
        self.timing.prefill_s = time.perf_counter() - begin
        computed = self.prompt_tokens - self.cached_tokens
        self._engine._longest_prefill = max(self._engine._longest_prefill, (computed, self.timing.prefill_s))
        self.timing.prefill_s += self._search_s
        lookup = PromptLookup(prompt, self._most_ahead)
        forced: deque[int] = deque()
        while True:
            begin = time.perf_counter()
            token = self._choose(follows, forced)
            self.generated_tokens += 1
            is_complete = self._constraint.accept(token.id)
            self.finish_reason = "stop" if is_complete else self._limit_reached()
            self.timing.decode_s += time.perf_counter() - begin
            yield token
            if self.finish_reason is not None:
                return
            begin = time.perf_counter()
            lookup.append(token.id)
            follows = self._after(token.id, list(forced) or lookup.guess())
            self.timing.decode_s += time.perf_counter() - begin

    def _after(self, token: int, guesses: list[int]) -> Tensor | NextOnDevice:
        """What follows `token`: its logits, or, where the device samples too, what is yet to be computed."""
        on_device = None if self._params.top_logprobs else self._engine._on_device(token)
        return on_device or self._logits_after(token, guesses)

    def _logits_after(self, token: int, guesses: list[int]) -> Tensor:
        """The logits of what follows `token`, (vocabulary,); computes it with the guesses, unless it is foreseen.

        The guesses do not change what is sampled: so few tokens have the logits that each would have alone.
        """
        if self._ahead and self._ahead[0][0] == token:
            self.foreseen_tokens += 1
            return self._ahead.popleft()[1]
        self._ahead.clear()
        engine = self._engine
        engine._rewind(self.prompt_tokens + self.generated_tokens - 1)
        guesses = guesses[: min(self._most_ahead, self._tokens_left() - 1)]
        rows = engine._forward([token, *guesses], "all")
        self._ahead.extend(zip(guesses, rows[1:], strict=True))
        return rows[0]

    def _prefill(self, prompt: list[int]) -> Tensor:
        engine = self._engine
        engine._rewind(self.cached_tokens)
        if self._progress is not None:
            self._progress(self.cached_tokens, len(prompt))
        begin, whole = self.cached_tokens, engine._whole_blocks(prompt)
        while True:
            end = min(begin + engine._prefill_chunk, whole if begin < whole else len(prompt))
            wanted: Logits = "last" if end == len(prompt) else "none"
            logits = engine._forward(prompt[begin:end], wanted, self._layer_progress(begin, end, len(prompt)))
            if end == len(prompt):
                return logits[0]
            begin = end

    def _layer_progress(self, begin: int, end: int, total: int) -> Callable[[int], None] | None:
        """Tells of a chunk layer by layer, as so many of its tokens: a chunk may take many seconds."""
        progress, layers = self._progress, self._engine.transformer.config.num_layers
        if progress is None:
            return None
        return lambda done: progress(begin + (end - begin) * done // layers, total)

    def _choose(self, follows: Tensor | NextOnDevice, forced: deque[int]) -> Token:
        """The next token: of those still `forced`, else what the constraint asks for, else sampled."""
        hold = None
        if not forced:
            hold = self._constraint.next()
            if isinstance(hold, Forced):
                forced.extend(hold.token_ids)
        mask = hold if isinstance(hold, Masked) else None
        if isinstance(follows, NextOnDevice):
            if not forced:
                return follows.sample(self._sampler, mask)
            follows = follows.logits()
        if forced:
            return self._sampler.describe(follows, forced.popleft(), forced=True)
        return self._sampler.sample(follows, mask)

    def _limit_reached(self) -> FinishReason | None:
        if self._params.max_tokens is not None and self.generated_tokens >= self._params.max_tokens:
            return "length"
        return None if self._tokens_left() else "context"

    def _tokens_left(self) -> int:
        """How many more may come."""
        room = self._engine.max_context - self.prompt_tokens - self.generated_tokens
        most = self._params.max_tokens
        return room if most is None else min(room, most - self.generated_tokens)
