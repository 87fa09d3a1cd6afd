"""What a turn is made of, as `Session` tells it and displays show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "interrupted"]
Limit = Literal["max_tokens", "context", "repetition", "grammar"]


class SampledToken(Protocol):
    """A token as the engine yields it."""

    @property
    def id(self) -> int:
        """Its id in the vocabulary."""
        ...

    @property
    def logprob(self) -> float:
        """Its natural-log probability under the model itself."""
        ...

    @property
    def top(self) -> tuple[tuple[int, float], ...]:
        """The likeliest tokens and their log probabilities, as many as were asked for."""
        ...


@dataclass(frozen=True)
class Started:
    """The prompt is rendered, and the engine is about to compute it."""

    model: str
    prompt_tokens: int
    cached_tokens: int
    prompt: tuple[int, ...] = field(repr=False)
    dropped_turns: int = 0
    """How many of the oldest turns were left out to make it fit."""


@dataclass(frozen=True)
class PrefillProgress:
    """How many of the prompt's tokens have been computed or were cached."""

    done: int
    total: int


@dataclass(frozen=True)
class Sampled:
    """One token, before the parser has seen what it says."""

    token: SampledToken


@dataclass(frozen=True)
class ReasoningDelta:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class CommentaryDelta:
    """More of a preamble: what the model tells the person before it calls a tool."""

    text: str


@dataclass(frozen=True)
class FinalDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A whole message to a tool."""

    recipient: str
    arguments: str


@dataclass(frozen=True)
class ProblemFound:
    """Something in the model's output was not well-formed, and was passed over."""

    description: str


@dataclass(frozen=True)
class Usage:
    """Tokens of one turn; those of the reasoning are among those of the completion."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True)
class TurnTiming:
    """Seconds of computing the prompt, of sampling, and from the question to the end of the turn."""

    prefill_s: float
    decode_s: float
    total_s: float


@dataclass(frozen=True)
class TurnFinished:
    """The turn is over, and the conversation holds what was said.

    Attributes:
        limit: what cut it, when the reason is length: a limit of tokens, one of the grammar engine's own, or that the
            model only repeated itself.
        answered: whether there was a final message.
        seed: of the sampling, which repeats it.
    """

    finish_reason: FinishReason
    usage: Usage
    timing: TurnTiming
    answered: bool
    seed: int | None
    limit: Limit | None = None


Event = (
    Started
    | PrefillProgress
    | Sampled
    | ReasoningDelta
    | CommentaryDelta
    | FinalDelta
    | ToolCall
    | ProblemFound
    | TurnFinished
)
