"""A conversation as turns: what the user said, and all that came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gptoss.harmony import Channel, Conversation, Message, Role

_BETWEEN_MESSAGES = "\n\n"


@dataclass(frozen=True)
class PastTurn:
    """One message of the user's and the messages after it."""

    question: Message
    reply: tuple[Message, ...]

    @property
    def reasoning(self) -> str:
        """What was said in the analysis channel to nobody."""
        return _joined(
            message for message in self.reply if message.channel == Channel.ANALYSIS and message.recipient is None
        )

    @property
    def answer(self) -> str:
        """The final messages, as far as they were said."""
        return _joined(
            message
            for message in self.reply
            if message.role is Role.ASSISTANT and message.channel in (Channel.FINAL, None) and message.recipient is None
        )


def turns_of(conversation: Conversation) -> list[PastTurn]:
    """The turns, the first one first; what stands before the user's first message belongs to none."""
    turns: list[PastTurn] = []
    for message in conversation:
        if message.role is Role.USER:
            turns.append(PastTurn(message, ()))
        elif turns:
            turns[-1] = PastTurn(turns[-1].question, (*turns[-1].reply, message))
    return turns


def without_last_turn(conversation: Conversation) -> Conversation:
    """The conversation as it was before the user's last message."""
    messages = list(conversation)
    while messages and messages[-1].role is not Role.USER:
        messages.pop()
    return Conversation.of(*messages[:-1])


def _joined(messages: Iterable[Message]) -> str:
    return _BETWEEN_MESSAGES.join(message.text for message in messages)
