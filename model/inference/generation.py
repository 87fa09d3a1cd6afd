"""The tokens of one answer: the prompt's prefill, then token by token, some of them computed ahead as drafts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator

from torch import Tensor

from gptoss.model.architecture.transformer import Logits
from gptoss.model.constraint import Constraints, Forced, LogitMask, StopTokens
from gptoss.model.inference.context import Context, NextOnDevice
from gptoss.model.inference.contexts import ContextPool
from gptoss.model.inference.sampler import Sampler
from gptoss.model.inference.speculation import PromptLookup
from gptoss.model.inference.turns import Cancelled, Turns, Waiter
from gptoss.model.interface import FinishReason, Progress, Request, SamplingParams, Timing, Token
from gptoss.model.storage.integrity import Integrity


class LocalGeneration(Iterator[Token]):
    """A generation of a model in this process; see `gptoss.model.interface.Generation`.

    One that is abandoned gives its context back at once.

    Args:
        run: what it does.
    """

    def __init__(self, run: GenerationRun) -> None:
        self._run = run

    def __next__(self) -> Token:
        return self._run.next()

    def __del__(self) -> None:
        self._run.close()

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return self._run.prompt_tokens

    @property
    def cached_tokens(self) -> int | None:
        """How many prompt tokens were not computed again; None before the generation has a context."""
        return self._run.cached_tokens

    @property
    def generated_tokens(self) -> int:
        """How many tokens have come so far."""
        return self._run.generated_tokens

    @property
    def drafted_tokens(self) -> int:
        """How many of them had been computed along with an earlier one."""
        return self._run.drafted_tokens

    @property
    def seed(self) -> int:
        """Seed of the sampling."""
        return self._run.seed

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it goes on."""
        return self._run.finish_reason

    @property
    def timing(self) -> Timing:
        """Seconds spent so far."""
        return self._run.timing

    def cancel(self) -> None:
        """End the generation at the next opportunity, from any thread or a signal handler."""
        self._run.cancel()

    def close(self) -> None:
        """Give up; the tokens so far stay in the context, which others may use from now on."""
        self._run.close()


class GenerationRun:
    """The prefill and decoding of one generation, in turns: one for each chunk of the prompt, then one for each token.

    It refers to itself through its Python generator, so it would outlive its last user until garbage is collected;
    `LocalGeneration` closes it.

    Args:
        request: what to do; it was checked.
        params: how to sample.
        stop: all token ids that end it.
        pool: the model's contexts.
        turns: on the model.
        integrity: of the model's files.
        progress: called during the prefill.
    """

    def __init__(
        self,
        request: Request,
        params: SamplingParams,
        stop: frozenset[int],
        pool: ContextPool,
        turns: Turns,
        integrity: Integrity,
        progress: Progress | None,
    ) -> None:
        self._prompt = list(request.ids)
        self._params = params
        self._sampler = Sampler(params)
        stopping = StopTokens(stop)
        self._constraint = stopping if request.constraint is None else Constraints(stopping, request.constraint)
        self._pool = pool
        self._turns = turns
        self._integrity = integrity
        self._progress = progress
        self._waiter = Waiter()
        self._context: Context | None = None
        self.prompt_tokens = len(self._prompt)
        self.cached_tokens: int | None = None
        self.generated_tokens = 0
        self.drafted_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.seed = self._sampler.seed
        self.timing = Timing()
        # Tokens computed ahead of time, each with the logits of what follows it.
        self._ahead: deque[tuple[int, Tensor]] = deque()
        self._most_ahead = 0
        self._is_closed = self._is_closing = False
        self._tokens = self._generate()
        self._begin_at_once()

    def next(self) -> Token:
        """Return the next token; StopIteration at the end."""
        if self._is_closed:
            raise StopIteration
        self._waiter.driven()
        try:
            token = next(self._tokens)
        except Cancelled:
            self.finish_reason = "cancelled"
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise
        if self._is_closing:
            self.finish_reason = self.finish_reason or "cancelled"
            self.close()
            raise StopIteration
        return token

    def cancel(self) -> None:
        """See `LocalGeneration.cancel`."""
        self._waiter.cancel()

    def close(self) -> None:
        """See `LocalGeneration.close`."""
        # One that computes in another thread cannot be closed from here. That thread does it at the end of its step,
        # unless it has got there before it could see that it is to.
        for _ in range(2):
            try:
                self._tokens.close()
                break
            except ValueError:
                self._is_closing = True
                self._waiter.cancel()
        else:
            return
        self._is_closed = True
        if self.cached_tokens is None:
            self.cached_tokens = 0  # it never had a context
        self._turns.leave(self._waiter)
        self._release()

    def _release(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            self._ahead.clear()
            self._pool.release(context, self._waiter)

    def _begin_at_once(self) -> None:
        """Get a context and look for the prefix if that needs no waiting, so that `cached_tokens` is known early."""
        self._context = self._pool.try_take(self._prompt, self._waiter)
        if self._context is not None and self._turns.try_turn(self._waiter):
            try:
                self._find_prefix(self._context)
            finally:
                self._turns.leave(self._waiter)

    def _find_prefix(self, context: Context) -> None:
        begin = time.perf_counter()
        context.reserve(self.prompt_tokens + 1)
        with self._pool.longest(self._prompt) as source:
            if source is not None and source is not context:
                context.take_from(source, self._prompt)
        self.cached_tokens = context.find_stored(self._prompt)
        self.timing.prefill_s += time.perf_counter() - begin

    def _generate(self) -> Generator[Token]:
        begin = time.perf_counter()
        self._waiter.check()
        if self._context is None:
            self._context = self._pool.take(self._prompt, self._waiter)
        context = self._context
        self._pool.reserve(context, self.prompt_tokens + 1, self._waiter)
        self.timing.queued_s += time.perf_counter() - begin
        self._most_ahead = context.transformer.ops.identical_tokens - 1
        follows: Tensor | NextOnDevice | None = self._prefill(context)
        lookup = PromptLookup(self._prompt, self._most_ahead)
        forced: deque[int] = deque()
        token: Token | None = None
        while True:
            begin = time.perf_counter()
            mask = self._ask(forced)  # outside of the turn: a grammar may take its time
            self.timing.decode_s += time.perf_counter() - begin
            self._reserve_next(context)
            with self._turns.turn(self._waiter):
                begin = time.perf_counter()
                if token is not None:
                    follows = self._after(context, token.id, list(forced) or lookup.guess())
                assert follows is not None
                try:
                    token = self._choose(follows, forced, mask)
                finally:
                    self._integrity.require()  # before any error: zeros in place of weights explain it
                self.timing.decode_s += time.perf_counter() - begin
            begin = time.perf_counter()
            self.generated_tokens += 1
            self._integrity.check_in_background()
            is_complete = self._constraint.accept(token.id)
            self.finish_reason = "stop" if is_complete else self._limit_reached(context)
            self.timing.decode_s += time.perf_counter() - begin
            if self.finish_reason is not None:
                self._release()
                yield token
                return
            yield token
            lookup.append(token.id)

    def _reserve_next(self, context: Context) -> None:
        begin = time.perf_counter()
        self._pool.reserve(context, self._position(context) + 1 + self._most_ahead, self._waiter)
        self.timing.queued_s += time.perf_counter() - begin

    def _position(self, context: Context) -> int:
        return min(self.prompt_tokens + self.generated_tokens, context.max_length)

    def _after(self, context: Context, token: int, guesses: list[int]) -> Tensor | NextOnDevice:
        """Return what follows `token`: its logits or, if the device samples, a step still to be computed."""
        on_device = None if self._params.top_logprobs else context.append_on_device(token)
        return on_device or self._logits_after(context, token, guesses)

    def _logits_after(self, context: Context, token: int, guesses: list[int]) -> Tensor:
        """Return the logits of what follows `token`, (vocabulary,), computed with the drafts unless they are known.

        The drafts do not change what is sampled: so few tokens have the logits that each would have alone.
        """
        if self._ahead and self._ahead[0][0] == token:
            self.drafted_tokens += 1
            return self._ahead.popleft()[1]
        self._ahead.clear()
        context.rewind(self.prompt_tokens + self.generated_tokens - 1)
        guesses = guesses[: min(self._most_ahead, self._tokens_left(context) - 1)]
        rows = context.append([token, *guesses], "all")
        self._ahead.extend(zip(guesses, rows[1:], strict=True))
        return rows[0]

    def _prefill(self, context: Context) -> Tensor:
        """Compute the prompt chunk by chunk; return the logits of its last token, (vocabulary,)."""
        prompt, computed_s = self._prompt, 0.0
        cached: int | None = None
        while True:
            waiting = time.perf_counter()
            with self._turns.turn(self._waiter):
                begin = time.perf_counter()
                self.timing.queued_s += begin - waiting
                if cached is None:
                    if self.cached_tokens is None:
                        self._find_prefix(context)
                    cached = done = self.cached_tokens or 0
                    context.rewind(done)
                    if self._progress is not None:
                        self._progress(done, len(prompt))
                    whole = context.whole_blocks(prompt)
                    begin = time.perf_counter()
                end = min(done + context.prefill_chunk, whole if done < whole else len(prompt))
                wanted: Logits = "last" if end == len(prompt) else "none"
                logits = context.append(prompt[done:end], wanted, self._layer_progress(context, done, end))
                if end == len(prompt):
                    # The first token is sampled at once, so nothing is lost by waiting; else its time would be missing.
                    context.wait()
                self._integrity.require()
                computed_s += time.perf_counter() - begin
            if end == len(prompt):
                context.prefixes.note_prefill(len(prompt) - cached, computed_s)
                self.timing.prefill_s += computed_s
                return logits[0]
            done = end

    def _layer_progress(self, context: Context, begin: int, end: int) -> Callable[[int], None]:
        """Run after each layer of a chunk, which may take seconds: reports progress, and ends what was cancelled."""
        progress, total, layers = self._progress, len(self._prompt), context.transformer.config.num_layers

        def layer_done(done: int) -> None:
            if progress is not None:
                progress(begin + (end - begin) * done // layers, total)
            if done < layers:
                self._waiter.check()

        return layer_done

    def _ask(self, forced: deque[int]) -> LogitMask | None:
        """Ask the constraint, unless tokens are still `forced`: it forces more of them, or masks the next one."""
        if forced:
            return None
        hold = self._constraint.next()
        if isinstance(hold, Forced):
            forced.extend(hold.token_ids)
        return hold if isinstance(hold, LogitMask) else None

    def _choose(self, follows: Tensor | NextOnDevice, forced: deque[int], mask: LogitMask | None) -> Token:
        """Return the next token: the first of those `forced`, else sampled under the mask."""
        if isinstance(follows, NextOnDevice):
            if not forced:
                return follows.sample(self._sampler, mask)
            follows = follows.logits()
        if forced:
            return self._sampler.describe(follows, forced.popleft(), forced=True)
        return self._sampler.sample(follows, mask)

    def _limit_reached(self, context: Context) -> FinishReason | None:
        if self._params.max_tokens is not None and self.generated_tokens >= self._params.max_tokens:
            return "length"
        return None if self._tokens_left(context) else "context"

    def _tokens_left(self, context: Context) -> int:
        """Return how many more may come."""
        room = context.max_length - self.prompt_tokens - self.generated_tokens
        most = self._params.max_tokens
        return room if most is None else min(room, most - self.generated_tokens)
