"""A conversation with a model: messages in, events out.

Knows the conversation and the engine. Knows no terminal, no files and no signals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gptoss.cli.base.text import counted
from gptoss.cli.constraints.tool_choice import AUTO, ToolChoice
from gptoss.cli.constraints.turn import TurnConstraint
from gptoss.cli.session.calls import calls_of
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.events import (
    Event,
    FinishReason,
    Limit,
    Notice,
    PrefillProgress,
    RoundFinished,
    RoundStarted,
    Sampled,
    ToolCall,
    ToolLimit,
    TurnFinished,
    TurnTiming,
    Usage,
)
from gptoss.cli.session.options import SessionModel, SessionRules, TurnOptions
from gptoss.cli.session.overflow import without_oldest
from gptoss.cli.session.prompt import Continuation, PromptBuilder
from gptoss.cli.session.repetition import RepetitionWatch
from gptoss.cli.session.round import Round
from gptoss.cli.session.tool_loop import ToolLoop
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Channel, Conversation, Encoding, Message, Role, render
from gptoss.model.errors import ConstraintError, ContextFullError
from gptoss.model.interface import ContextUsage, Generation, Request, SamplingParams, Token

log = logging.getLogger(__name__)

Retained = Literal["conversation", "settings", "nothing"]
ReportProgress = Callable[[PrefillProgress], None]
TranscriptObserver = Callable[["Session"], None]

# Why sampling ended: a generation's own reasons, and those of the session.
_Ending = Literal["stop", "length", "context", "cancelled", "grammar", "repetition"] | ToolLimit


class Session:
    """One conversation with one model.

    A session can be used again after every turn, however that ended (a limit, `stop`, an exception, a caller that
    closes the iterator): the transcript then holds what was said until then, in a form that can be rendered.

    Args:
        model: answers; other sessions may share it.
        transcript: the conversation so far.
        rules: what holds for all turns.
        observer: called with the session after every change of the transcript.
    """

    def __init__(
        self,
        model: SessionModel,
        transcript: Transcript,
        rules: SessionRules = SessionRules(),  # noqa: B008 - frozen
        observer: TranscriptObserver | None = None,
    ) -> None:
        self._model = model
        self._rules = rules
        self._transcript = transcript
        self._observer = observer
        self._params = rules.params or model.engine.info.defaults
        self._prompts = PromptBuilder(
            model.encoding, model.engine.info.max_context, self._params.max_tokens, rules.overflow
        )
        self._continuation: Continuation | None = None
        self._dropped_turns = self._shortened_results = 0
        self._is_running = self._is_stopping = False
        self._generation: Generation | None = None
        self._constraint: TurnConstraint | None = None
        if rules.answer is not None:
            model.constraints.warm()

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def encoding(self) -> Encoding:
        """The model's tokenizer."""
        return self._model.encoding

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together."""
        return self._model.engine.info.max_context

    @property
    def contexts(self) -> ContextUsage | None:
        """Memory that the engine's KV caches take; None: not known."""
        return self._model.engine.contexts

    @property
    def can_skip_reasoning(self) -> bool:
        """Whether the model answers well with its reasoning closed before it begins."""
        return self._model.can_skip_reasoning

    @property
    def params(self) -> SamplingParams:
        """How turns are sampled."""
        return self._params

    @property
    def transcript(self) -> Transcript:
        """The conversation as it stands."""
        return self._transcript

    @property
    def settings(self) -> ConversationSettings:
        """The conversation's settings."""
        return self._transcript.settings

    @property
    def shown(self) -> Conversation:
        """The messages of the next prompt, as far as they are known without asking the person."""
        return self._prompts.shown(self._transcript)

    def go_on_with(self, transcript: Transcript) -> None:
        """Replace the transcript: other settings, another conversation, or a part taken back."""
        self._transcript = transcript
        if self._observer is not None:
            self._observer(self)

    def respond(
        self,
        messages: Sequence[Message],
        options: TurnOptions = TurnOptions(),  # noqa: B008 - frozen
        progress: ReportProgress | None = None,
    ) -> Generator[Event, None, None]:
        """Take what comes next, a user's message or the results of tools, and yield the events of the turn.

        Nothing of the transcript changes before the engine has accepted the prompt.

        Args:
            messages: what is added to the transcript.
            options: what holds for this turn alone.
            progress: called during prefills, while no event can be yielded.

        Raises:
            ModelError: the prompt does not fit, or the engine failed.
            HarmonyError: the conversation cannot be rendered.
        """
        transcript = self._transcript
        if self._rules.tools is not None and messages and messages[0].role is not Role.TOOL:
            transcript = transcript.with_interrupted_calls()
        return self._turn(transcript.extended(messages), options, progress)

    def respond_again(
        self,
        options: TurnOptions = TurnOptions(),  # noqa: B008 - frozen
        progress: ReportProgress | None = None,
    ) -> Generator[Event, None, None]:
        """Take back everything after the user's last message and respond to it again; as `respond` otherwise."""
        return self._turn(self._transcript.without_last_reply(), options, progress)

    def go_on(
        self,
        options: TurnOptions = TurnOptions(),  # noqa: B008 - frozen
        progress: ReportProgress | None = None,
    ) -> Generator[Event, None, None]:
        """Go on with a turn that was cut, where it was; as `respond` otherwise.

        The events have what is new alone; the transcript then has the message as one.

        Raises:
            ValueError: `Transcript.is_open` is false.
        """
        if not self._transcript.is_open:
            raise ValueError("there is no turn to go on with")
        *before, last = self._transcript.messages
        if last.role is Role.TOOL:
            return self._turn(self._transcript, options, progress)
        return self._turn(replace(self._transcript, messages=tuple(before)), options, progress, last)

    def stop(self) -> bool:
        """End the turn at the next opportunity, from any thread or a signal handler; False if none is running."""
        if not self._is_running:
            return False
        self._is_stopping = True
        generation = self._generation
        if generation is not None:
            generation.cancel()
        elif self._rules.tools is not None:
            self._rules.tools.cancel()
        return True

    def answer_now(self) -> bool:
        """End the reasoning at the next token and begin the answer, from any thread; False if no turn is running."""
        constraint = self._constraint
        if constraint is None:
            return False
        constraint.answer_now()
        return True

    def retain(self, what: Retained) -> None:
        """Let the engine store for later runs what it has computed; call it when the answer is out.

        Args:
            what: the part of the conversation with which prompts to come are likely to begin; "settings": the system
                and developer messages alone. "nothing" stores what does not depend on the conversation.
        """
        ids: list[int] = []
        if what == "conversation":
            # The next prompt is rendered again, without the reasoning that the format drops.
            ids = render(without_oldest(self._transcript.conversation, self._dropped_turns), self.encoding)
        elif what == "settings":
            ids = render(Conversation(self.settings.messages), self.encoding)
        self._model.engine.retain(ids)

    def close(self) -> None:
        """Free the model's memory. The session cannot be used after it; its transcript can be read."""
        self._model.engine.close()

    def _turn(
        self,
        transcript: Transcript,
        options: TurnOptions,
        progress: ReportProgress | None,
        opened: Message | None = None,
    ) -> Generator[Event, None, None]:
        began = time.perf_counter()
        self._is_running, self._is_stopping = True, False
        tools = ToolLoop(
            self._rules.tools, self._rules.tool_limits, self.encoding, self.max_context, lambda: self._is_stopping
        )
        total: _RoundResult | None = None
        pending: tuple[ToolCall, ...] = ()
        rounds = 0
        has_tools, after_preamble = self._rules.tools is not None, False
        try:
            while True:
                try:
                    result = yield from self._round(transcript, options, rounds, progress, total, opened)
                except ContextFullError:
                    if total is None:
                        raise
                    total = replace(total, ending="context")  # what was done so far is kept
                    break
                rounds += 1
                total = result if total is None else total.followed_by(result)
                if result.calls:
                    pending = yield from tools.run(result.calls, self._transcript.messages, self._record)
                if pending or self._is_stopping or tools.limit is not None:
                    break
                goes_on = bool(result.calls) or (result.ended_on_preamble and not after_preamble and has_tools)
                if not goes_on:
                    break
                after_preamble = result.ended_on_preamble
                if self._params.max_tokens is not None and total.usage.completion_tokens >= self._params.max_tokens:
                    total = replace(total, ending="length")
                    break
                transcript, opened = self._transcript, None
        finally:
            self._is_running = False
        if total.ending == "stop" and tools.limit is not None:
            total = replace(total, ending=tools.limit)
        if self._is_stopping and total.ending == "stop" and total.calls and not pending:
            total = replace(total, ending="cancelled")  # in the midst of the tools
        yield TurnFinished(
            finish_reason=_FINISH_REASONS[total.ending],
            limit=_LIMITS.get(total.ending),
            usage=total.usage,
            timing=TurnTiming(total.timing.prefill_s, total.timing.decode_s, time.perf_counter() - began),
            context_tokens=total.context_tokens,
            answered=total.answered,
            seed=total.seed,
            pending=pending,
            rounds=rounds,
        )

    def _record(self, message: Message) -> None:
        self.go_on_with(self._transcript.extended([message]))

    def _round(
        self,
        transcript: Transcript,
        options: TurnOptions,
        number: int,
        progress: ReportProgress | None,
        before: _RoundResult | None,
        opened: Message | None,
    ) -> Generator[Event, None, _RoundResult]:
        """Yield one generation: prompt, tokens, messages."""
        began = time.perf_counter()
        shown = transcript
        if options.effort is not None:
            shown = transcript.with_settings(transcript.settings.with_effort(options.effort))
        choice = self._tool_choice(options, number, opened, transcript)
        prompt = self._prompts.build(shown, self._continuation, opened, must_call=choice.must_call)
        constraint = self._model.constraints.turn(
            prompt.conversation,
            prompt.header,
            prompt.said,
            answer=self._rules.answer,
            think_budget=0 if choice.must_call and shown.settings.skip_reasoning else self._rules.think_budget,
            tool_choice=choice,
        )
        request = Request(prompt.ids, self._params_of(options, before, number), self.encoding.stop_tokens, constraint)
        report = None if progress is None else lambda done, of: progress(PrefillProgress(done, of))
        generation = self._model.engine.generate(request, report)
        if transcript is not self._transcript and opened is None:  # what was said of a cut message is not lost
            self.go_on_with(transcript)
        self._continuation, self._dropped_turns = None, prompt.dropped_turns
        self._constraint, self._generation = constraint, generation
        if self._is_stopping:
            generation.cancel()
        first_call = len(calls_of(transcript.messages)) + 1
        sampling = _Sampling(generation, constraint, Round(self.encoding, (*prompt.header, *prompt.said), first_call))
        shortened, self._shortened_results = self._shortened_results, prompt.shortened_results
        try:
            yield RoundStarted(
                self.model, prompt.ids, generation.cached_tokens, prompt.dropped_turns, number=number + 1
            )
            if prompt.shortened_results > shortened:
                results = counted(prompt.shortened_results, "tool result")
                yield Notice(f"to make room, the prompt has only the ends of the oldest {results}")
            yield from self._sample(sampling, transcript)
            yield from sampling.round.finish(cut=sampling.ending != "stop")
        finally:
            self._constraint = self._generation = None
            generation.close()
            sampling.round.finish(cut=True)  # does nothing where the round has come to its end
            if self._transcript.messages != (*transcript.messages, *sampling.round.messages):
                self.go_on_with(transcript.extended(sampling.round.messages))
        result = sampling.result(time.perf_counter() - began)
        if result.calls:
            said = prompt.conversation.extended(sampling.round.messages)
            ids = sampling.ids[: sampling.complete] if sampling.round.is_over else sampling.ids
            self._continuation = Continuation(said, (*prompt.ids, *ids))
        yield RoundFinished(
            _FINISH_REASONS[result.ending], result.usage, result.timing, result.seed, _LIMITS.get(result.ending)
        )
        return result

    def _sample(self, sampling: _Sampling, transcript: Transcript) -> Iterator[Event]:
        """Yield the events of the tokens until sampling ends, which `sampling.ending` then explains."""
        watch = RepetitionWatch()
        messages: tuple[Message, ...] = ()
        notes = 0
        while True:
            try:
                token = next(sampling.generation)
            except StopIteration:
                sampling.ending = sampling.generation.finish_reason or "cancelled"
                return
            except ConstraintError as error:
                log.info("%s", error)
                sampling.ending = "grammar"
                return
            yield Sampled(token)
            events = sampling.take(token)
            if sampling.round.messages != messages:  # a complete message is never lost, whatever happens next
                messages = sampling.round.messages
                sampling.complete = len(sampling.ids)
                self.go_on_with(transcript.extended(messages))
            yield from events
            if sampling.round.is_over:
                sampling.ending = "stop"
                return
            for note in sampling.constraint.notes[notes:]:
                notes += 1
                yield Notice(note)
            is_stuck = self._rules.stop_repetition and watch.is_running_away(token.id)
            if is_stuck and sampling.generation.finish_reason is None:
                sampling.ending = "repetition"
                return

    def _tool_choice(
        self, options: TurnOptions, number: int, opened: Message | None, transcript: Transcript
    ) -> ToolChoice:
        """Return the choice of a round: a call is required of the first alone, and of none that goes on with a text."""
        choice = options.tool_choice or self._rules.tool_choice
        goes_on = options.tool_choice is None and transcript.is_open and transcript.messages[-1].role is Role.TOOL
        return AUTO if choice.must_call and (number > 0 or opened is not None or goes_on) else choice

    def _params_of(self, options: TurnOptions, before: _RoundResult | None, number: int) -> SamplingParams:
        """Return the sampling of a round: a turn has one limit of tokens, and each round its own random numbers."""
        params = self._params.override(seed=options.seed)
        if before is None:
            return params
        left = None if params.max_tokens is None else max(1, params.max_tokens - before.usage.completion_tokens)
        return params.override(seed=before.seed + number, max_tokens=left)


@dataclass
class _Sampling:
    """A generation in progress."""

    generation: Generation
    constraint: TurnConstraint
    round: Round
    ending: _Ending = "cancelled"
    complete: int = 0
    """Number of the tokens up to the end of the latest complete message."""

    def __post_init__(self) -> None:
        self.ids: list[int] = []

    def take(self, token: Token) -> list[Event]:
        self.ids.append(token.id)
        return self.round.feed(token.id)

    def result(self, seconds: float) -> _RoundResult:
        generation = self.generation
        usage = Usage(
            generation.prompt_tokens, generation.cached_tokens or 0, len(self.ids), self.round.reasoning_tokens
        )
        timing = TurnTiming(generation.timing.prefill_s, generation.timing.decode_s, seconds)
        calls = self.round.calls if self.ending == "stop" else ()
        return _RoundResult(
            self.ending, usage, timing, self.round.answered, generation.seed, calls, self.ended_on_preamble
        )

    @property
    def ended_on_preamble(self) -> bool:
        """Whether the model came to its end after a preamble, without the call that it announced."""
        messages = self.round.messages
        return (
            self.ending == "stop"
            and bool(messages)
            and messages[-1].channel == Channel.COMMENTARY
            and messages[-1].recipient is None
        )


@dataclass(frozen=True)
class _RoundResult:
    """How one round, or several together, ended; `calls` are those that wait for their results."""

    ending: _Ending
    usage: Usage
    timing: TurnTiming
    answered: bool
    seed: int
    calls: tuple[ToolCall, ...]
    ended_on_preamble: bool = False
    last_usage: Usage | None = None

    @property
    def context_tokens(self) -> int:
        """Tokens of the context that the last round takes."""
        last = self.last_usage or self.usage
        return last.prompt_tokens + last.completion_tokens

    def followed_by(self, other: _RoundResult) -> _RoundResult:
        return _RoundResult(
            other.ending,
            self.usage + other.usage,
            self.timing + other.timing,
            self.answered or other.answered,
            self.seed,
            other.calls,
            other.ended_on_preamble,
            other.usage,
        )


_FINISH_REASONS: dict[_Ending, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "context": "length",
    "cancelled": "interrupted",
    "grammar": "length",
    "repetition": "length",
    "tool_calls": "length",
    "tool_time": "length",
    "tool_repeat": "length",
}
_LIMITS: dict[_Ending, Limit] = {
    "length": "max_tokens",
    "context": "context",
    "grammar": "grammar",
    "repetition": "repetition",
    "tool_calls": "tool_calls",
    "tool_time": "tool_time",
    "tool_repeat": "tool_repeat",
}
