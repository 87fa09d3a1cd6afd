"""Conversations that leave too little room for an answer: the tokens of each turn, and which turns to leave out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from gptoss.cli.base.text import counted
from gptoss.cli.session.context_size import message_sizes
from gptoss.harmony import Conversation, Encoding, Message, Role

# Share of the room beside the instructions that the turns take after some were left out. Everything that stays is
# prefilled again, so a quarter is freed at a time. llama.cpp's context shift frees half, which forgets more each time.
_KEPT_SHARE = 0.75

_INSTRUCTIONS = (Role.SYSTEM, Role.DEVELOPER)


@dataclass(frozen=True)
class TurnSize:
    """The size of a turn in the prompt.

    Attributes:
        question: the user's message.
        asked: tokens of the user's message.
        tokens: tokens of the whole turn.
    """

    question: str
    asked: int
    tokens: int


@dataclass(frozen=True)
class TooLong:
    """A conversation whose prompt leaves too little room for the answer.

    Attributes:
        conversation: its last turn is the one that is to be answered.
        encoding: of its tokens.
        prompt_tokens: length of the whole prompt.
        opening: tokens at its end that begin the answer.
        context: tokens of prompt and answer together.
        room: tokens that the prompt may have.
    """

    conversation: Conversation
    encoding: Encoding
    prompt_tokens: int
    opening: int
    context: int
    room: int

    @property
    def left(self) -> int:
        """Tokens left for the answer if nothing is left out."""
        return max(0, self.context - self.prompt_tokens)

    @property
    def instructions(self) -> int:
        """Tokens that belong to no turn."""
        return self.prompt_tokens - sum(turn.tokens for turn in self.turns)

    @cached_property
    def turns(self) -> list[TurnSize]:
        """Each turn's share of the prompt; the rest of its tokens are the instructions'."""
        messages = self.conversation.messages
        last_question = max((i for i, each in enumerate(messages) if each.role is Role.USER), default=len(messages) - 1)
        turns: list[TurnSize] = []
        before = 0
        for size in message_sizes(Conversation(messages[:last_question]), self.encoding):
            tokens = size.tokens if size.is_sent else 0
            if size.message.role is Role.USER:
                turns.append(TurnSize(size.message.text, tokens, tokens))
            elif turns and size.message.role not in _INSTRUCTIONS:
                turns[-1] = replace(turns[-1], tokens=turns[-1].tokens + tokens)
            else:
                before += tokens
        # The last turn is not counted again, for it can be what is too long.
        last = self.prompt_tokens - before - sum(turn.tokens for turn in turns)
        return [*turns, TurnSize(messages[last_question].text, last - self.opening, last)]

    def oldest_to_leave_out(self) -> int:
        """Return how many of the oldest turns to leave out; all but the last if even that does not help.

        The history is replayed from the first turn on: at each turn that found too little room, enough turns were left
        out for the next ones to fit too. So the number depends on the conversation alone, in any program that goes on
        with it, and prompts keep the same beginning, which stays cached, until further turns have to go.
        """
        prompt = self.instructions + self.opening
        enough = prompt + (self.room - prompt) * _KEPT_SHARE
        left_out = 0
        for number, turn in enumerate(self.turns):
            prompt += turn.asked
            if prompt > self.room:
                while left_out < number and prompt > enough:
                    prompt -= self.turns[left_out].tokens
                    left_out += 1
            prompt += turn.tokens - turn.asked
        return left_out

    def prompt_without(self, count: int) -> int:
        """Return the length of the prompt without the `count` oldest turns."""
        return self.prompt_tokens - sum(turn.tokens for turn in self.turns[:count])

    def oldest(self, count: int) -> tuple[Message, ...]:
        """Return the messages of the `count` oldest turns."""
        kept = {id(message) for message in without_oldest(self.conversation, count)}
        return tuple(message for message in self.conversation if id(message) not in kept)

    def __str__(self) -> str:
        """On one line, for an error."""
        *earlier, last = self.turns
        said, instructions = sum(turn.tokens for turn in earlier), self.instructions
        parts = [f"{instructions:,} of instructions"] if instructions else []
        parts += [f"{said:,} of {counted(len(earlier), 'earlier turn')}"] if earlier else []
        hint = (
            "; --overflow drop-oldest leaves the oldest turns out" if last.tokens + instructions < self.context else ""
        )
        listed = ", ".join([*parts, f"{last.tokens:,} of the last message"])
        return f"{self.prompt_tokens:,} tokens do not fit a context of {self.context:,}: {listed}{hint}"


class OverflowPolicy(Protocol):
    """Decides how many of the oldest turns are left out of a prompt that leaves too little room for the answer."""

    def decide(self, too_long: TooLong) -> int:
        """Return how many, asking the person where that is the policy; an exception ends the turn before it begins."""
        ...

    def agreed(self, too_long: TooLong) -> int:
        """Return how many are left out without asking anybody."""
        ...


class DropOldest:
    """Leave out the oldest turns without asking."""

    def decide(self, too_long: TooLong) -> int:
        """Return how many have to go."""
        return too_long.oldest_to_leave_out()

    agreed = decide


def without_oldest(conversation: Conversation, count: int) -> Conversation:
    """Return the conversation without its `count` oldest turns; instructions and what stands before them stay."""
    turns = 0
    kept = []
    for message in conversation:
        turns += message.role is Role.USER
        if turns == 0 or turns > count or message.role in _INSTRUCTIONS:
            kept.append(message)
    return Conversation.of(*kept)
