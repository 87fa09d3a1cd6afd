"""The interface between whoever wants tokens and whatever computes them: `Request`, `Engine`, `Generation`.

An engine may run in this process or far away; whoever calls it sees no difference. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gptoss.model.errors import ContextFullError, ModelError, SamplingError

if TYPE_CHECKING:
    from gptoss.model.constraint import Constraint

FinishReason = Literal["stop", "length", "context", "cancelled"]
"""Why a generation ended.

stop: a stop token came, or the constraint is complete; length: `max_tokens`; context: the context is full; cancelled:
`Generation.cancel` was called.
"""

Progress = Callable[[int, int], None]
"""Called during the prefill with the number of prompt tokens done (cached ones included) and the prompt's length."""


MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 100.0
"""Bounds of temperatures but 0: in float32, smaller ones come near 0 and larger ones near infinity."""


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens; None means no limit everywhere.

    Attributes:
        temperature: divides the logits; 0 always takes the likeliest token.
        top_p: keep the likeliest tokens whose probabilities sum up to this (Holtzman et al. 2020); 1 keeps all.
        top_k: keep this many of the likeliest tokens.
        min_p: keep the tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024).
        seed: of the random numbers; None takes a fresh one.
        max_tokens: stop after this many tokens.
        top_logprobs: return this many of the likeliest tokens beside the sampled one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        is_warm = MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE
        wanted = f"0, or from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}"
        self._require(self.temperature == 0 or is_warm, "temperature", wanted)
        for name in ("top_k", "seed", "max_tokens", "top_logprobs"):
            value = getattr(self, name)
            is_whole = value is None or (isinstance(value, int) and not isinstance(value, bool))
            self._require(is_whole, name, "a whole number")
        self._require(0 < self.top_p <= 1, "top_p", "above 0 and at most 1")
        self._require(self.top_k is None or self.top_k >= 1, "top_k", "1 or more")
        self._require(0 <= self.min_p <= 1, "min_p", "from 0 to 1")
        self._require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "1 or more")
        self._require(self.top_logprobs >= 0, "top_logprobs", "0 or more")

    def _require(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise SamplingError(f"{name} is {getattr(self, name)!r}, it must be {wanted}")

    def override(self, **changes: Any) -> SamplingParams:
        """Return a copy with every change that is not None."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        id: the token id.
        logprob: its natural-log probability under the model itself, before temperature, cuts and constraints.
        top: the likeliest tokens and their log probabilities, as many as were asked for.
        forced: a constraint put it there; it was not sampled.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    forced: bool = False


@dataclass(frozen=True)
class Request:
    """What one generation is to do.

    Attributes:
        ids: the prompt, at least one token.
        params: how to sample; None: the engine's defaults.
        stop: token ids that end the generation, beside the engine's own stop tokens.
        constraint: restricts what may be sampled.
        ignore_stop: go on at stop tokens, the engine's own too; for benchmarks.
    """

    ids: tuple[int, ...] = field(repr=False)
    params: SamplingParams | None = None
    stop: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    ignore_stop: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What not every engine can do.

    Attributes:
        constraints: "stepwise": any constraint, asked token by token; "described": those that describe themselves
            (`Constraint.describe`); "none".
        max_top_logprobs: the largest `SamplingParams.top_logprobs`; None: no limit.
    """

    constraints: Literal["stepwise", "described", "none"] = "stepwise"
    max_top_logprobs: int | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is.

    Attributes:
        max_context: tokens of prompt and answer together.
        defaults: the checkpoint's own sampling parameters.
        stop_tokens: the checkpoint's own stop tokens; they end every generation that does not ignore them.
        capabilities: what it can do.
    """

    max_context: int
    defaults: SamplingParams = SamplingParams()
    stop_tokens: frozenset[int] = frozenset()
    capabilities: Capabilities = Capabilities()


@dataclass
class Timing:
    """Seconds spent so far.

    Attributes:
        queued_s: waiting for memory or for other generations before the prefill began.
        prefill_s: computing the prompt.
        decode_s: sampling tokens.
    """

    queued_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


class Generation(Iterator[Token], Protocol):
    """The tokens of one answer, computed as they are asked for; a stop token is yielded last."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        ...

    @property
    def cached_tokens(self) -> int | None:
        """How many prompt tokens were not computed again; None while it is not known, at the latest at the end."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the sampling; the same request with it gives the same tokens."""
        ...

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the generation ended; None while it goes on."""
        ...

    @property
    def timing(self) -> Timing:
        """Seconds spent so far."""
        ...

    def cancel(self) -> None:
        """End the generation at the next opportunity: within one layer of a prefill chunk, or before the next token.

        May be called from any thread and from a signal handler, at any time and repeatedly. The iterator then ends.
        """
        ...

    def close(self) -> None:
        """Give up and release what the generation holds; its tokens stay cached."""
        ...


@dataclass(frozen=True)
class ContextUsage:
    """Memory that the KV caches of an engine take.

    Attributes:
        contexts, busy: how many there are, and how many of them are in use.
        nbytes: bytes of their keys and values.
        limit: bytes at which idle ones are dropped.
    """

    contexts: int
    busy: int
    nbytes: int
    limit: int


class Engine(Protocol):
    """Something that samples tokens from one model. Several generations may go on at once, in any threads."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        ...

    @property
    def contexts(self) -> ContextUsage | None:
        """Memory that the KV caches take; None where that is not known, as of an engine far away."""
        ...

    def generate(self, request: Request, progress: Progress | None = None) -> Generation:
        """Begin a generation; nothing is computed until its first token is asked for.

        Raises:
            ContextFullError: the prompt leaves no room for a token.
            ModelError: the prompt is empty, an id is not in the vocabulary, or the request needs what the engine
                cannot do.
        """
        ...

    def retain(self, ids: Sequence[int] = ()) -> None:
        """Store for later runs what this one has computed; call it when an answer is out, for it may take seconds.

        Args:
            ids: what prompts to come are likely to begin with; empty: nothing of the prompts may be stored.
        """
        ...

    def close(self) -> None:
        """Free the model's memory. The engine cannot be used afterwards; closing it again does nothing."""
        ...


def require_prompt(ids: Sequence[int], vocab_size: int, max_context: int) -> None:
    """Check the prompt of a request, for engines.

    Raises:
        ContextFullError: it leaves no room for a token.
        ModelError: an id is not in the vocabulary, or there are none.
    """
    if not ids:
        raise ModelError("the prompt is empty: at least one token is needed")
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(i for i in ids if not 0 <= i < vocab_size)
        raise ModelError(f"token id {wrong} is not in the model's vocabulary of {vocab_size}")
    if len(ids) >= max_context:
        raise ContextFullError(f"the prompt's {len(ids):,} tokens leave no room in a context of {max_context:,}")
