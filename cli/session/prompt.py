"""Render a transcript into the prompt of the next round, and make it fit the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gptoss.cli.session.overflow import OverflowPolicy, TooLong, without_oldest
from gptoss.cli.session.tool_results import make_room
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import (
    Channel,
    Conversation,
    Encoding,
    Message,
    Role,
    Special,
    kept_messages,
    render_for_completion,
    render_message,
)
from gptoss.model.errors import ContextFullError


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        conversation: what it was rendered from.
        ids: token ids.
        header: its last tokens but `said`, where they begin the header of the answer after the author's name.
        said: its last tokens, where they begin the content of the answer.
        dropped_turns: how many of the oldest turns it lacks.
        shortened_results: how many results of tools were shortened to make room.
    """

    conversation: Conversation
    ids: tuple[int, ...]
    header: tuple[int, ...] = ()
    said: tuple[int, ...] = ()
    dropped_turns: int = 0
    shortened_results: int = 0


@dataclass(frozen=True)
class Continuation:
    """A conversation whose last messages were sampled, and the exact token ids of all of it."""

    conversation: Conversation
    ids: tuple[int, ...]

    def next_prompt(self, conversation: Conversation, encoding: Encoding) -> list[int] | None:
        """Return the prompt for `conversation` if it goes on from here after a tool call, else None.

        Rendering again may give other ids than those that were sampled, since a text can be cut into tokens in several
        ways. The cached prefix would end there.
        """
        mine, theirs = self.conversation.messages, conversation.messages
        if not mine or mine[-1].recipient is None or len(theirs) <= len(mine) or theirs[: len(mine)] != mine:
            return None
        kept = kept_messages(conversation)
        if kept[: -(len(theirs) - len(mine))] != kept_messages(self.conversation):
            return None
        ids = list(self.ids)
        for message in theirs[len(mine) :]:
            ids += render_message(message, encoding)
        return [*ids, encoding.special(Special.START), *encoding.encode(Role.ASSISTANT.value)]


@dataclass(frozen=True)
class _Opening:
    """The tokens behind the author's name with which the prompt begins the answer.

    Attributes:
        before: messages of the author, and the name again.
        header: of the answer.
        said: the beginning of its content.
    """

    before: tuple[int, ...] = ()
    header: tuple[int, ...] = ()
    said: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """All of it."""
        return (*self.before, *self.header, *self.said)


class PromptBuilder:
    """Renders prompts for one model and context.

    Args:
        encoding: of the model.
        max_context: tokens of prompt and answer together.
        max_tokens: of an answer; None: not limited.
        overflow: leaves turns out of a prompt that is too long; None: leaves none out.
    """

    def __init__(
        self, encoding: Encoding, max_context: int, max_tokens: int | None, overflow: OverflowPolicy | None
    ) -> None:
        self._encoding = encoding
        self._max_context = max_context
        # Tokens that a prompt may have: all but as many as the answer may, else three quarters of the context.
        self._room = max_context - min(max_tokens or max_context // 4, max_context // 2)
        self._overflow = overflow

    def build(
        self,
        transcript: Transcript,
        sampled: Continuation | None = None,
        opened: Message | None = None,
        *,
        must_call: bool = False,
    ) -> Prompt:
        """Return the prompt for the next round.

        Args:
            transcript: ends with the message to respond to.
            sampled: the previous round; where the conversation goes on from it, its exact ids are the beginning.
            opened: a message of the assistant that was cut, to go on with; it is not part of the transcript.
            must_call: the round has to end in a call: where reasoning is skipped, no answer is begun in its place.

        Raises:
            ContextFullError: the prompt leaves no room at all.
            HarmonyError: the conversation cannot be rendered.
        """
        opening = self._opening(transcript, opened)
        if must_call:
            opening = replace(opening, header=(), said=())
        whole = transcript.conversation
        prompt = self._render(whole, opening, sampled)
        if len(prompt.ids) <= self._room:
            return prompt
        whole, shortened = make_room(whole, self._room, self._encoding)
        if shortened:
            prompt = replace(self._render(whole, opening, sampled), shortened_results=shortened)
            if len(prompt.ids) <= self._room:
                return prompt
        too_long = self._too_long(whole, prompt.ids, opening)
        dropped = 0 if self._overflow is None else self._overflow.decide(too_long)
        if dropped:
            fitting = self._render(without_oldest(whole, dropped), opening, sampled, dropped)
            prompt = replace(fitting, shortened_results=shortened)
        if len(prompt.ids) >= self._max_context:
            raise ContextFullError(str(too_long))
        return prompt

    def shown(self, transcript: Transcript) -> Conversation:
        """Return what the next prompt will contain, as far as it is known without asking the person."""
        whole = transcript.conversation
        if self._overflow is None:
            return whole
        waiting = whole.extended([Message.user("")])
        opening = self._opening(transcript, None)
        ids = self._render(waiting, opening).ids
        if len(ids) <= self._room:
            return whole
        return without_oldest(whole, self._overflow.agreed(self._too_long(waiting, ids, opening)))

    def _render(
        self, conversation: Conversation, opening: _Opening, sampled: Continuation | None = None, dropped: int = 0
    ) -> Prompt:
        ids = sampled.next_prompt(conversation, self._encoding) if sampled is not None and not opening.ids else None
        if ids is None:
            ids = render_for_completion(conversation, self._encoding)
        return Prompt(conversation, (*ids, *opening.ids), opening.header, opening.said, dropped)

    def _too_long(self, conversation: Conversation, prompt: Sequence[int], opening: _Opening) -> TooLong:
        ids = self._render(Conversation(), opening).ids
        return TooLong(conversation, self._encoding, len(prompt), len(ids), context=self._max_context, room=self._room)

    def _opening(self, transcript: Transcript, opened: Message | None) -> _Opening:
        """Return how the prompt begins the answer: as the conversation's effort asks, and with what was said of it."""
        closed = self._closed_reasoning() if transcript.settings.skip_reasoning else _Opening()
        if opened is None:
            return closed
        author = 1 + len(self._encoding.encode(Role.ASSISTANT.value))
        rest = render_message(opened, self._encoding)[author:-1]
        content = rest.index(self._encoding.special(Special.MESSAGE)) + 1
        before = closed.before if opened.channel == Channel.FINAL else ()
        return _Opening(before, tuple(rest[:content]), tuple(rest[content:]))

    def _closed_reasoning(self) -> _Opening:
        """Return an empty analysis with the header of the answer after it."""
        special, encode = self._encoding.special, self._encoding.encode
        message, end = special(Special.MESSAGE), special(Special.END)
        analysis = [special(Special.CHANNEL), *encode(Channel.ANALYSIS.value), message, end]
        final = [special(Special.CHANNEL), *encode(Channel.FINAL.value), message]
        author = [special(Special.START), *encode(Role.ASSISTANT.value)]
        return _Opening((*analysis, *author), tuple(final))
