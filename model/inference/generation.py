"""The tokens of one answer: the prompt's prefill, then what follows token by token, some of it foreseen."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gptoss.model.architecture.transformer import Logits
from gptoss.model.constraint import Constraint, Constraints, Forced, Masked, StopTokens
from gptoss.model.errors import ModelError
from gptoss.model.inference.context import Context, NextOnDevice
from gptoss.model.inference.sampler import Sampler
from gptoss.model.inference.speculation import PromptLookup
from gptoss.model.interface import SamplingParams, Token

# stop: a stop token came, or a constraint is satisfied; length: max_tokens; context: the context is full.
FinishReason = Literal["stop", "length", "context"]
Progress = Callable[[int, int], None]


@dataclass
class Timing:
    """Seconds spent so far."""

    prefill_s: float = 0.0
    decode_s: float = 0.0


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
        context: Context,
        ids: list[int],
        params: SamplingParams,
        constraint: Constraint | None,
        stop: frozenset[int],
        progress: Progress | None,
    ) -> None:
        context.owner = self
        self._context = context
        self._sampler = Sampler(params)
        self._params = params
        stopping = StopTokens(stop)
        self._constraint = stopping if constraint is None else Constraints(stopping, constraint)
        self._progress = progress
        self.prompt_tokens = len(ids)
        begin = time.perf_counter()
        self.cached_tokens = context.find_prefix(ids)
        self._search_s = time.perf_counter() - begin
        self.generated_tokens = 0
        self.foreseen_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.seed = self._sampler.seed
        self.timing = Timing()
        self._most_ahead = context.transformer.ops.identical_tokens - 1
        # Tokens computed ahead of time, each with the logits of what follows it.
        self._ahead: deque[tuple[int, Tensor]] = deque()
        self._tokens = self._run(ids)

    def __next__(self) -> Token:
        if self._context.owner is not self:
            raise ModelError("this generation was given up: the engine has begun another")
        return next(self._tokens)

    def close(self) -> None:
        """Give up; the tokens so far stay in the cache."""
        self._tokens.close()

    def _run(self, prompt: list[int]) -> Generator[Token]:
        begin = time.perf_counter()
        follows: Tensor | NextOnDevice = self._prefill(prompt)
        # Its token is sampled at once, so nothing is lost by waiting; without, the time would be that of asking.
        self._context.wait()
        self.timing.prefill_s = time.perf_counter() - begin
        self._context.note_prefill(self.prompt_tokens - self.cached_tokens, self.timing.prefill_s)
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
        on_device = None if self._params.top_logprobs else self._context.append_on_device(token)
        return on_device or self._logits_after(token, guesses)

    def _logits_after(self, token: int, guesses: list[int]) -> Tensor:
        """The logits of what follows `token`, (vocabulary,); computes it with the guesses, unless it is foreseen.

        The guesses do not change what is sampled: so few tokens have the logits that each would have alone.
        """
        if self._ahead and self._ahead[0][0] == token:
            self.foreseen_tokens += 1
            return self._ahead.popleft()[1]
        self._ahead.clear()
        self._context.rewind(self.prompt_tokens + self.generated_tokens - 1)
        guesses = guesses[: min(self._most_ahead, self._tokens_left() - 1)]
        rows = self._context.append([token, *guesses], "all")
        self._ahead.extend(zip(guesses, rows[1:], strict=True))
        return rows[0]

    def _prefill(self, prompt: list[int]) -> Tensor:
        context = self._context
        context.rewind(self.cached_tokens)
        if self._progress is not None:
            self._progress(self.cached_tokens, len(prompt))
        begin, whole = self.cached_tokens, context.whole_blocks(prompt)
        while True:
            end = min(begin + context.prefill_chunk, whole if begin < whole else len(prompt))
            wanted: Logits = "last" if end == len(prompt) else "none"
            logits = context.append(prompt[begin:end], wanted, self._layer_progress(begin, end, len(prompt)))
            if end == len(prompt):
                return logits[0]
            begin = end

    def _layer_progress(self, begin: int, end: int, total: int) -> Callable[[int], None] | None:
        """Tells of a chunk layer by layer, as so many of its tokens: a chunk may take many seconds."""
        progress, layers = self._progress, self._context.transformer.config.num_layers
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
        room = self._context.max_length - self.prompt_tokens - self.generated_tokens
        most = self._params.max_tokens
        return room if most is None else min(room, most - self.generated_tokens)
