"""A conversation with a model: text in, events out.

Knows the conversation, the encoding and the engine; knows nothing of terminals, files or settings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from gptoss.cli.constraints.turn import HeldTurn, TurnHolding
from gptoss.cli.session.events import (
    Event,
    FinishReason,
    Limit,
    PrefillProgress,
    Sampled,
    SampledToken,
    Started,
    TurnFinished,
    TurnTiming,
    Usage,
)
from gptoss.cli.session.overflow import MakesRoom, TooLong, without_oldest
from gptoss.cli.session.repetition import RepetitionWatch
from gptoss.cli.session.round import Turn
from gptoss.harmony import Channel, Conversation, Encoding, Message, Role, Special, render, render_for_completion
from gptoss.model.errors import ConstraintError, ContextFullError

if TYPE_CHECKING:
    from gptoss.cli.constraints.answer_format import AnswerFormat
    from gptoss.model.constraint import Constraint
    from gptoss.model.interface import SamplingParams


log = logging.getLogger(__name__)


class Timing(Protocol):
    """Seconds that a generation has spent so far."""

    prefill_s: float
    decode_s: float


class Generation(Protocol):
    """The tokens of one answer as the engine computes them, the stop token among them."""

    prompt_tokens: int
    cached_tokens: int
    seed: int

    @property
    def finish_reason(self) -> str | None:
        """stop, length or context; None while it goes on."""
        ...

    @property
    def timing(self) -> Timing:
        """Seconds spent so far."""
        ...

    def __next__(self) -> SampledToken: ...

    def close(self) -> None:
        """Give up."""
        ...


class Engine(Protocol):
    """What a session needs of `gptoss.model.Engine`."""

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    @property
    def defaults(self) -> SamplingParams:
        """The checkpoint's own sampling parameters."""
        ...

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end a generation of this checkpoint."""
        ...

    def generate(
        self,
        ids: Sequence[int],
        params: SamplingParams | None = None,
        constraint: Constraint | None = None,
        stop: Collection[int] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Generation:
        """Go on from the prompt."""
        ...

    def keep(self, ids: Sequence[int]) -> None:
        """Keep on the disk what was computed of these tokens, with which prompts to come will begin."""
        ...

    def keep_weights(self) -> None:
        """Keep on the disk what was made of the weights, so that the next start need not make it."""
        ...


class Session:
    """One conversation with one model.

    Args:
        engine: samples the tokens.
        encoding: of the engine's model.
        conversation: what has been said so far; `open_conversation` makes a new one.
        model: the model's name, for events.
        params: how to sample; by default as the checkpoint asks.
        skip_reasoning: close the reasoning before it begins, so that the answer comes at once.
        can_skip_reasoning: whether the model answers well so.
        stop_repetition: end a turn in which the model only repeats itself any more.
        answer_format: what every answer must look like; `open_conversation` tells the model of it.
        think_budget: how many tokens a turn may reason, None sets no limit.

    Headers are held to their grammar in every turn.

    Attributes:
        watcher: called after every change of the conversation.
        when_too_long: says how many of the oldest turns a prompt leaves out that gives the answer too little room;
            None leaves out none. The conversation keeps them.
        is_kept: whether anything of the conversation may be left on the disk.
    """

    def __init__(
        self,
        engine: Engine,
        encoding: Encoding,
        conversation: Conversation,
        *,
        model: str,
        params: SamplingParams | None = None,
        skip_reasoning: bool = False,
        can_skip_reasoning: bool = True,
        stop_repetition: bool = True,
        answer_format: AnswerFormat | None = None,
        think_budget: int | None = None,
    ) -> None:
        self.engine = engine
        self.encoding = encoding
        self.watcher: Callable[[], None] | None = None
        self._conversation = conversation
        self.model = model
        self.params = params or engine.defaults
        self.skip_reasoning = skip_reasoning
        self.can_skip_reasoning = can_skip_reasoning
        self.stop_repetition = stop_repetition
        self._answer_grammar = answer_format.grammar if answer_format else None
        self._think_budget = think_budget
        self._holding = TurnHolding(encoding, self._answer_grammar, think_budget)
        self._held: HeldTurn | None = None
        self.when_too_long: MakesRoom | None = None
        self.is_kept = False
        self._stopping = False
        self._sampling = False
        self._given_up = False

    def use(
        self,
        model: str,
        engine: Engine,
        encoding: Encoding,
        params: SamplingParams,
        *,
        can_skip_reasoning: bool = True,
    ) -> None:
        """Go on with another model, its tokens and this sampling; the conversation stays."""
        self.model, self.engine, self.encoding = model, engine, encoding
        self.can_skip_reasoning = can_skip_reasoning
        self.params = params
        self._holding = TurnHolding(encoding, self._answer_grammar, self._think_budget)

    @property
    def conversation(self) -> Conversation:
        """What has been said so far."""
        return self._conversation

    @conversation.setter
    def conversation(self, conversation: Conversation) -> None:
        self._conversation = conversation
        if self.watcher is not None:
            self.watcher()

    def ask(self, text: str, progress: Callable[[PrefillProgress], None] | None = None) -> Iterator[Event]:
        """Say `text` and yield what comes of it; then the conversation holds both.

        However the turn ends (a limit, `stop`, an exception, the caller losing interest) the conversation keeps what
        was said until then, in a form that can be rendered. A text that does not fit is not kept.

        Args:
            text: the user's message.
            progress: called while the prompt is computed, when no event can be yielded.

        Raises:
            ModelError: the prompt does not fit, or the engine failed.
            HarmonyError: the conversation cannot be rendered.
        """
        return self._answer(self.conversation.extended([Message.user(text)]), progress)

    def answer_again(self, progress: Callable[[PrefillProgress], None] | None = None) -> Iterator[Event]:
        """Take back all since the user's last message, and answer it anew; as `ask` otherwise."""
        messages = list(self.conversation)
        while messages and messages[-1].role is not Role.USER:
            messages.pop()
        return self._answer(Conversation.of(*messages), progress)

    @property
    def has_question(self) -> bool:
        """Whether the user has said anything."""
        return any(message.role is Role.USER for message in self.conversation)

    @property
    def shown(self) -> Conversation:
        """What of the conversation the next prompt has, as far as that needs no answer from anybody yet."""
        if self.when_too_long is None:
            return self.conversation
        waiting = self.conversation.extended([Message.user("")])
        prompt, _ = self._render(waiting)
        if len(prompt) <= self._room:
            return self.conversation
        return without_oldest(self.conversation, self.when_too_long.agreed(self._too_long(waiting, prompt)))

    def stop(self) -> bool:
        """End the turn at the next token, as a signal handler may; False where none is awaited yet."""
        self._stopping = True
        return self._sampling

    def answer_now(self) -> bool:
        """End the reasoning at the next token and begin the answer, from any thread; False where no turn goes on."""
        held = self._held
        if held is None:
            return False
        held.budget.answer_now()
        return True

    def _answer(
        self, conversation: Conversation, progress: Callable[[PrefillProgress], None] | None
    ) -> Iterator[Event]:
        began = time.perf_counter()
        prompt, header, dropped = self._render_fitting(conversation)
        held = self._holding.hold(conversation, header)
        generation = self.engine.generate(
            prompt,
            self.params,
            held.constraint,
            stop=self.encoding.stop_tokens | self.engine.stop_tokens,
            progress=None if progress is None else lambda done, total: progress(PrefillProgress(done, total)),
        )
        self.conversation = conversation
        self._held = held
        turn = Turn(self.encoding, header)
        self._stopping = self._sampling = self._given_up = False
        watch = RepetitionWatch()
        count = 0
        messages: list[Message] = []
        ended: str | None = None
        try:
            yield Started(self.model, generation.prompt_tokens, generation.cached_tokens, tuple(prompt), dropped)
            for token in self._tokens(generation):
                count += 1
                yield Sampled(token)
                events = turn.feed(token.id)
                if turn.messages != messages:  # one more is complete: from now on it is not lost, whatever happens
                    messages = list(turn.messages)
                    self.conversation = conversation.extended(messages)
                yield from events
                if self.stop_repetition and watch.is_running_away(token.id) and generation.finish_reason is None:
                    ended = "repetition"
                    break
            else:
                ended = "grammar" if self._given_up else generation.finish_reason
            yield from turn.finish(cut=ended != "stop")
        finally:
            self._sampling = False
            self._held = None
            generation.close()
            for _ in turn.finish(cut=True):  # does nothing where the turn has come to its end
                pass
            self.conversation = conversation.extended(turn.messages)
        yield TurnFinished(
            finish_reason=_FINISH_REASONS[ended],
            limit=_LIMITS.get(ended),
            usage=Usage(generation.prompt_tokens, generation.cached_tokens, count, turn.reasoning_tokens),
            timing=TurnTiming(generation.timing.prefill_s, generation.timing.decode_s, time.perf_counter() - began),
            answered=turn.answered,
            seed=generation.seed,
        )
        if self.is_kept:
            self._keep(without_oldest(self.conversation, dropped))
        with suppress(KeyboardInterrupt):
            self.engine.keep_weights()

    def keep_instructions(self) -> None:
        """Keep on the disk what was computed of the system and developer messages, with which any prompt begins."""
        roles = (Role.SYSTEM, Role.DEVELOPER)
        self._keep(Conversation.of(*(message for message in self.conversation if message.role in roles)))

    def _keep(self, conversation: Conversation) -> None:
        """Keep what the next prompt will have in common with what was computed: reasoning, for one, is not seen again.

        Ctrl-C ends the writing, for the answer is out.
        """
        with suppress(KeyboardInterrupt):
            self.engine.keep(render(conversation, self.encoding))

    def _render(self, conversation: Conversation) -> tuple[list[int], list[int]]:
        """The prompt, and what of the answer's header stands in it."""
        prompt = render_for_completion(conversation, self.encoding)
        return self._without_reasoning(prompt) if self.skip_reasoning else (prompt, [])

    def _render_fitting(self, conversation: Conversation) -> tuple[list[int], list[int], int]:
        """As `_render`, and how many of the oldest turns the prompt lacks.

        Raises:
            ContextFullError: the prompt leaves no room at all.
        """
        prompt, header = self._render(conversation)
        if len(prompt) <= self._room:
            return prompt, header, 0
        too_long = self._too_long(conversation, prompt)
        dropped = self.when_too_long.decide(too_long) if self.when_too_long is not None else 0
        if dropped:
            prompt, header = self._render(without_oldest(conversation, dropped))
        if len(prompt) >= self.engine.max_context:
            raise ContextFullError(str(too_long))
        return prompt, header, dropped

    def _too_long(self, conversation: Conversation, prompt: Sequence[int]) -> TooLong:
        opening, _ = self._render(Conversation.of())
        return TooLong(
            conversation, self.encoding, len(prompt), len(opening), context=self.engine.max_context, room=self._room
        )

    @property
    def _room(self) -> int:
        """Tokens that a prompt may have: all but as many as the answer may, else three quarters of the context."""
        context = self.engine.max_context
        return context - min(self.params.max_tokens or context // 4, context // 2)

    def _tokens(self, generation: Generation) -> Iterator[SampledToken]:
        """The tokens until the end, `stop`, an interrupt while one is awaited, or a grammar that cannot go on."""
        while not self._stopping:
            try:
                token = next(generation)
            except (StopIteration, KeyboardInterrupt):
                return
            except ConstraintError as error:
                log.info("%s", error)
                self._given_up = True
                return
            self._sampling = True
            yield token

    def _without_reasoning(self, prompt: list[int]) -> tuple[list[int], list[int]]:
        """The prompt with an empty analysis and the header of the answer; and that header."""
        special, encode = self.encoding.special, self.encoding.encode
        message, end = special(Special.MESSAGE), special(Special.END)
        analysis = [special(Special.CHANNEL), *encode(Channel.ANALYSIS.value), message, end]
        final = [special(Special.CHANNEL), *encode(Channel.FINAL.value), message]
        author = [special(Special.START), *encode(Role.ASSISTANT.value)]
        return [*prompt, *analysis, *author, *final], final


_FINISH_REASONS: dict[str | None, FinishReason] = {
    None: "interrupted",
    "stop": "stop",
    "length": "length",
    "context": "length",
    "grammar": "length",
    "repetition": "length",
}
_LIMITS: dict[str | None, Limit] = {
    "length": "max_tokens",
    "context": "context",
    "grammar": "grammar",
    "repetition": "repetition",
}
