"""Split a conversation into turns: a message of the user and all that came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gptoss.harmony import Channel, Message, Role

_BETWEEN_MESSAGES = "\n\n"


@dataclass(frozen=True)
class PastTurn:
    """One message of the user and the messages after it."""

    question: Message
    reply: tuple[Message, ...]

    @property
    def reasoning(self) -> str:
        """The text of the analysis channel, without calls of tools."""
        return _joined(
            message for message in self.reply if message.channel == Channel.ANALYSIS and message.recipient is None
        )

    @property
    def answer(self) -> str:
        """The text of the final messages."""
        return _joined(
            message
            for message in self.reply
            if message.role is Role.ASSISTANT and message.channel in (Channel.FINAL, None) and message.recipient is None
        )


def turns_of(conversation: Iterable[Message]) -> list[PastTurn]:
    """Return the turns in their order; what stands before the user's first message belongs to none."""
    turns: list[PastTurn] = []
    for message in conversation:
        if message.role is Role.USER:
            turns.append(PastTurn(message, ()))
        elif turns:
            turns[-1] = PastTurn(turns[-1].question, (*turns[-1].reply, message))
    return turns


def _joined(messages: Iterable[Message]) -> str:
    return _BETWEEN_MESSAGES.join(message.text for message in messages)
