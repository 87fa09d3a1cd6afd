"""The events of a turn: what `Session` yields and displays show.

A turn has one or more rounds. A round is one generation: a prompt, then sampled tokens. After a round that ends in a
tool call the tool's result follows, and another round.

    turn:   round  (call+  round)*  TurnFinished
    call:   Approval?  ToolOutput*  ToolResult
    round:  RoundStarted  PrefillProgress*  (Sampled  delta*)*  ToolCall?  RoundFinished
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from gptoss.harmony import Message
    from gptoss.model.interface import Token

FinishReason = Literal["stop", "length", "interrupted"]
ToolLimit = Literal["tool_calls", "tool_time", "tool_repeat"]
Limit = Literal["max_tokens", "context", "repetition", "grammar"] | ToolLimit
ToolStatus = Literal["ok", "error", "denied", "cancelled", "timeout", "limit", "unknown"]


@dataclass(frozen=True)
class RoundStarted:
    """The prompt is rendered, and the engine is about to compute it.

    Attributes:
        model: the model's name.
        prompt: token ids.
        cached_tokens: how many of them are not computed again; None: not known yet.
        dropped_turns: how many of the oldest turns were left out to make the prompt fit.
        number: of the round in its turn, from 1.
    """

    model: str
    prompt: tuple[int, ...] = field(repr=False)
    cached_tokens: int | None = None
    dropped_turns: int = 0
    number: int = 1

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt)


@dataclass(frozen=True)
class PrefillProgress:
    """How many of the prompt's tokens are computed or cached."""

    done: int
    total: int


@dataclass(frozen=True)
class Sampled:
    """One token, before the parser has seen what it says."""

    token: Token


@dataclass(frozen=True)
class ReasoningDelta:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class CommentaryDelta:
    """More of a preamble: what the model writes to the person before it calls a tool."""

    text: str


@dataclass(frozen=True)
class FinalDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A complete message to a tool.

    Attributes:
        recipient: the tool's full name, `functions.get_weather`.
        arguments: the message's text: JSON, or code.
        channel: the channel of the call; its result goes to the same.
        id: names the call in further events: `call_` and its number in the conversation, from 1.
    """

    recipient: str
    arguments: str
    channel: str | None = None
    id: str = "call_1"


@dataclass(frozen=True)
class Approval:
    """Whether a call may run.

    Attributes:
        call_id: of the call.
        allowed: whether it may.
        by: what decided: a rule, the person, or nobody who could be asked.
        rule: the rule, as it is written; None without one.
        reason: why the person refused, for the model.
    """

    call_id: str
    allowed: bool
    by: Literal["rule", "person", "default"]
    rule: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ToolOutput:
    """More of a running tool's output."""

    call_id: str
    text: str


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool call.

    Attributes:
        message: the result as the model will read it.
        call_id: of the call.
        status: ok, or why there is no proper result: error (what the call or the tool did wrong), denied, cancelled
            (by the person), timeout (of this call), limit (of the turn), unknown (the program ended while it ran).
        seconds: that the call took.
        files: that the tool has made.
    """

    message: Message
    call_id: str = "call_1"
    status: ToolStatus = "ok"
    seconds: float = 0.0
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ProblemFound:
    """Something in the model's output was not well-formed, and was passed over."""

    description: str


@dataclass(frozen=True)
class Notice:
    """Something the person should know about how this turn is computed; no fault of the model's output."""

    text: str


@dataclass(frozen=True)
class Usage:
    """Token counts. Cached tokens are part of the prompt's, reasoning tokens part of the completion's."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True)
class TurnTiming:
    """Seconds of the prefill, of sampling, and of everything from the question on."""

    prefill_s: float
    decode_s: float
    total_s: float

    def __add__(self, other: TurnTiming) -> TurnTiming:
        return TurnTiming(
            self.prefill_s + other.prefill_s, self.decode_s + other.decode_s, self.total_s + other.total_s
        )


@dataclass(frozen=True)
class RoundFinished:
    """One generation is over, and the conversation holds what was said in it.

    Attributes:
        finish_reason, limit, seed: as `TurnFinished` has them.
        usage, timing: of this round.
    """

    finish_reason: FinishReason
    usage: Usage
    timing: TurnTiming
    seed: int
    limit: Limit | None = None


@dataclass(frozen=True)
class TurnFinished:
    """The turn is over, and the conversation holds what was said.

    Attributes:
        finish_reason: of the last round.
        usage, timing: of all rounds together.
        context_tokens: prompt and completion of the last round: what the conversation takes of the context.
        answered: whether there was a final message.
        seed: of the first round; a further round has the next higher one.
        limit: what cut it when the reason is length: a token limit, the grammar engine's own limit, repetition, or a
            limit of the tools.
        pending: calls that nobody has answered; the caller may go on with their results.
        rounds: how many there were.
    """

    finish_reason: FinishReason
    usage: Usage
    timing: TurnTiming
    answered: bool
    seed: int
    context_tokens: int = 0
    limit: Limit | None = None
    pending: tuple[ToolCall, ...] = ()
    rounds: int = 1


Event = (
    RoundStarted
    | PrefillProgress
    | Sampled
    | ReasoningDelta
    | CommentaryDelta
    | FinalDelta
    | ToolCall
    | Approval
    | ToolOutput
    | ToolResult
    | ProblemFound
    | Notice
    | RoundFinished
    | TurnFinished
)
