"""A conversation that leaves no room for an answer: what takes how many tokens, and what a prompt can leave out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from gptoss.cli.base.text import counted
from gptoss.cli.session.context_size import message_sizes
from gptoss.harmony import Conversation, Encoding, Message, Role

# How much of the room beside the instructions turns have once some had to go. All that stays is read again then: three
# quarters, for a quarter that others can fill. llama.cpp's context shift keeps half, which forgets more each time.
_KEPT_SHARE = 0.75

_INSTRUCTIONS = (Role.SYSTEM, Role.DEVELOPER)


@dataclass(frozen=True)
class TurnSize:
    """What a turn takes of the prompt.

    Attributes:
        question: what the user said.
        asked: tokens of that alone.
        tokens: of all that the prompt has of it.
    """

    question: str
    asked: int
    tokens: int


@dataclass(frozen=True)
class TooLong:
    """A conversation whose prompt leaves less room for the answer than it is to have.

    Attributes:
        conversation: with the message that is to be answered as its last turn.
        encoding: of its tokens.
        prompt_tokens: of the whole prompt.
        opening: of these, what every prompt ends with: the beginning of the answer.
        context: tokens of prompt and answer together.
        room: how many of them the prompt may have.
    """

    conversation: Conversation
    encoding: Encoding
    prompt_tokens: int
    opening: int
    context: int
    room: int

    @property
    def left(self) -> int:
        """Tokens that are left for the answer when the prompt stays whole."""
        return max(0, self.context - self.prompt_tokens)

    @property
    def instructions(self) -> int:
        """Tokens of what belongs to no turn."""
        return self.prompt_tokens - sum(turn.tokens for turn in self.turns)

    @cached_property
    def turns(self) -> list[TurnSize]:
        """Each turn's share of the prompt; the rest of its tokens are the instructions'."""
        turns: list[TurnSize] = []
        sizes = message_sizes(Conversation(self.conversation.messages[:-1]), self.encoding)
        before = 0
        for size in sizes:
            tokens = size.tokens if size.is_sent else 0
            if size.message.role is Role.USER:
                turns.append(TurnSize(size.message.text, tokens, tokens))
            elif turns and size.message.role not in _INSTRUCTIONS:
                turns[-1] = replace(turns[-1], tokens=turns[-1].tokens + tokens)
            else:
                before += tokens
        # Not counted again, for it can be what is too long.
        last = self.prompt_tokens - before - sum(turn.tokens for turn in turns)
        return [*turns, TurnSize(self.conversation.messages[-1].text, last - self.opening, last)]

    def oldest_to_leave_out(self) -> int:
        """How many of the oldest turns the prompt leaves out; all but the last where even that does not help.

        They are counted from the first turn on: whenever one found too little room, so many went that some more fit. So
        it is the conversation alone that decides, whoever goes on with it, and its prompts begin alike, and are not
        computed anew, until the next ones have to go.
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
        """Tokens of the prompt without so many of the oldest turns."""
        return self.prompt_tokens - sum(turn.tokens for turn in self.turns[:count])

    def oldest(self, count: int) -> tuple[Message, ...]:
        """The messages of so many of the oldest turns."""
        kept = {id(message) for message in without_oldest(self.conversation, count)}
        return tuple(message for message in self.conversation if id(message) not in kept)

    def __str__(self) -> str:
        """On one line, for an error."""
        *earlier, last = self.turns
        said, instructions = sum(turn.tokens for turn in earlier), self.instructions
        parts = [f"{instructions} of instructions"] if instructions else []
        parts += [f"{said} of {counted(len(earlier), 'earlier turn')}"] if earlier else []
        hint = (
            "; --overflow drop-oldest leaves the oldest turns out" if last.tokens + instructions < self.context else ""
        )
        told = ", ".join([*parts, f"{last.tokens} of the last message"])
        return f"{self.prompt_tokens} tokens do not fit a context of {self.context}: {told}{hint}"


class MakesRoom(Protocol):
    """Says how many of the oldest turns a prompt leaves out that gives the answer too little room."""

    def decide(self, too_long: TooLong) -> int:
        """How many; what it raises ends the turn before it has begun."""
        ...

    def agreed(self, too_long: TooLong) -> int:
        """How many are left out without anybody being asked."""
        ...


class DropOldest:
    """Leaves out the oldest turns, and asks nobody."""

    def decide(self, too_long: TooLong) -> int:
        """Those that have to go."""
        return too_long.oldest_to_leave_out()

    agreed = decide


def without_oldest(conversation: Conversation, count: int) -> Conversation:
    """The conversation without its `count` oldest turns; what stands before the first stays, and all instructions."""
    turns = 0
    kept = []
    for message in conversation:
        turns += message.role is Role.USER
        if turns == 0 or turns > count or message.role in _INSTRUCTIONS:
            kept.append(message)
    return Conversation.of(*kept)
