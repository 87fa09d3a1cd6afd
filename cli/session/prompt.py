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
        header: its last tokens, where they begin the header of the answer after the author's name.
        dropped_turns: how many of the oldest turns it lacks.
        shortened_results: how many results of tools were shortened to make room.
    """

    conversation: Conversation
    ids: tuple[int, ...]
    header: tuple[int, ...] = ()
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

    def build(self, transcript: Transcript, sampled: Continuation | None = None) -> Prompt:
        """Return the prompt for the next round.

        Args:
            transcript: ends with the message to respond to.
            sampled: the previous round; where the conversation goes on from it, its exact ids are the beginning.

        Raises:
            ContextFullError: the prompt leaves no room at all.
            HarmonyError: the conversation cannot be rendered.
        """
        skips = transcript.settings.skip_reasoning
        whole = transcript.conversation
        prompt = self._render(whole, skips, sampled)
        if len(prompt.ids) <= self._room:
            return prompt
        whole, shortened = make_room(whole, self._room, self._encoding)
        if shortened:
            prompt = replace(self._render(whole, skips, sampled), shortened_results=shortened)
            if len(prompt.ids) <= self._room:
                return prompt
        too_long = self._too_long(whole, prompt.ids, skips)
        dropped = 0 if self._overflow is None else self._overflow.decide(too_long)
        if dropped:
            fitting = self._render(without_oldest(whole, dropped), skips, sampled, dropped)
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
        skips = transcript.settings.skip_reasoning
        ids = self._render(waiting, skips).ids
        if len(ids) <= self._room:
            return whole
        return without_oldest(whole, self._overflow.agreed(self._too_long(waiting, ids, skips)))

    def _render(
        self, conversation: Conversation, skips: bool, sampled: Continuation | None = None, dropped: int = 0
    ) -> Prompt:
        ids = sampled.next_prompt(conversation, self._encoding) if sampled is not None and not skips else None
        if ids is None:
            ids = render_for_completion(conversation, self._encoding)
        opening, header = self._closed_reasoning() if skips else ([], [])
        return Prompt(conversation, (*ids, *opening), tuple(header), dropped)

    def _too_long(self, conversation: Conversation, prompt: Sequence[int], skips: bool) -> TooLong:
        opening = self._render(Conversation(), skips).ids
        return TooLong(
            conversation, self._encoding, len(prompt), len(opening), context=self._max_context, room=self._room
        )

    def _closed_reasoning(self) -> tuple[list[int], list[int]]:
        """Return an empty analysis with the header of the answer after it; and that header."""
        special, encode = self._encoding.special, self._encoding.encode
        message, end = special(Special.MESSAGE), special(Special.END)
        analysis = [special(Special.CHANNEL), *encode(Channel.ANALYSIS.value), message, end]
        final = [special(Special.CHANNEL), *encode(Channel.FINAL.value), message]
        author = [special(Special.START), *encode(Role.ASSISTANT.value)]
        return [*analysis, *author, *final], final
