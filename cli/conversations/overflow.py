"""A conversation that leaves no room for an answer: what takes how many tokens, and what a prompt can leave out."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass

from gptoss.cli.conversations.context_size import message_sizes
from gptoss.cli.text import counted
from gptoss.harmony import Conversation, Encoding, Role


@dataclass(frozen=True)
class TurnSize:
    """What a turn takes of the prompt.

    Attributes:
        question: what the user said.
        tokens: of all that the prompt has of it.
    """

    question: str
    tokens: int


@dataclass(frozen=True)
class TooLong:
    """A conversation whose prompt leaves less room for the answer than it is to have.

    Attributes:
        conversation: with the message that is to be answered as its last turn.
        encoding: of its tokens.
        prompt_tokens: of the whole prompt.
        context: tokens of prompt and answer together.
        fits: whether a conversation leaves the room; true of every shorter one when it is true of one.
    """

    conversation: Conversation
    encoding: Encoding
    prompt_tokens: int
    context: int
    fits: Callable[[Conversation], bool]

    @property
    def left(self) -> int:
        """Tokens that are left for the answer when the prompt stays whole."""
        return max(0, self.context - self.prompt_tokens)

    def fewest(self) -> int:
        """The fewest of the oldest turns without which it fits; all but the last where even that does not help."""
        return oldest_to_drop(self.conversation, self.fits)

    def helps(self, count: int) -> bool:
        """Whether the prompt without so many of the oldest turns is shorter than the context at all."""
        dropped = sum(turn.tokens for turn in self.turns()[:count])
        return self.prompt_tokens - dropped < self.context

    def turns(self) -> list[TurnSize]:
        """Each turn's share of the prompt; the rest of its tokens are the instructions'."""
        turns: list[TurnSize] = []
        sizes = message_sizes(Conversation(self.conversation.messages[:-1]), self.encoding)
        before = 0
        for size in sizes:
            if size.message.role is Role.USER:
                turns.append(TurnSize(size.message.text, 0))
            tokens = size.tokens if size.is_sent else 0
            if turns:
                turns[-1] = TurnSize(turns[-1].question, turns[-1].tokens + tokens)
            else:
                before += tokens
        # Not counted again, for it can be what is too long.
        last = self.prompt_tokens - before - sum(turn.tokens for turn in turns)
        return [*turns, TurnSize(self.conversation.messages[-1].text, last)]

    def __str__(self) -> str:
        """On one line, for an error."""
        *earlier, last = self.turns()
        said = sum(turn.tokens for turn in earlier)
        instructions = self.prompt_tokens - said - last.tokens
        parts = [f"{instructions} of instructions"] if instructions else []
        parts += [f"{said} of {counted(len(earlier), 'earlier turn')}"] if earlier else []
        hint = (
            "; --overflow drop-oldest leaves the oldest turns out" if last.tokens + instructions < self.context else ""
        )
        told = ", ".join([*parts, f"{last.tokens} of the last message"])
        return f"{self.prompt_tokens} tokens do not fit a context of {self.context}: {told}{hint}"


def oldest_to_drop(conversation: Conversation, fits: Callable[[Conversation], bool]) -> int:
    """The fewest of the oldest turns without which it fits; all but the last where even that does not help.

    Args:
        conversation: with the message that is to be answered as its last turn.
        fits: whether a conversation fits; true of every shorter one when it is true of one.
    """
    most = max(0, sum(message.role is Role.USER for message in conversation) - 1)
    return bisect.bisect_left(range(most), True, key=lambda count: fits(without_oldest(conversation, count)))


def without_oldest(conversation: Conversation, count: int) -> Conversation:
    """The conversation without its `count` oldest turns; what stands before the first stays."""
    turns = 0
    kept = []
    for message in conversation:
        turns += message.role is Role.USER
        if turns == 0 or turns > count:
            kept.append(message)
    return Conversation.of(*kept)
