"""Count the tokens of a conversation in the context."""

from __future__ import annotations

from dataclasses import dataclass

from gptoss.harmony import Conversation, Encoding, Message, render_for_completion
from gptoss.harmony.renderer import kept_messages, render_message


@dataclass(frozen=True)
class MessageSize:
    """A message and its number of tokens, its header included.

    Attributes:
        is_sent: whether the next prompt contains it; reasoning before the last answer is left out.
    """

    message: Message
    tokens: int
    is_sent: bool


def message_sizes(conversation: Conversation, encoding: Encoding) -> list[MessageSize]:
    """Return the size of each message, in their order."""
    has_functions = conversation.has_function_tools
    sent = {id(message) for message in kept_messages(conversation)}
    return [
        MessageSize(
            message, len(render_message(message, encoding, has_function_tools=has_functions)), id(message) in sent
        )
        for message in conversation
    ]


def prompt_size(conversation: Conversation, encoding: Encoding) -> int:
    """Return the length of the next prompt, without the message that the user has not written yet."""
    return len(render_for_completion(conversation, encoding))


def tokens_read_again(before: Conversation, after: Conversation, encoding: Encoding) -> int:
    """Return how many tokens have to be prefilled again when `after` replaces `before`."""
    old, new = render_for_completion(before, encoding), render_for_completion(after, encoding)
    same = next((i for i, (ours, theirs) in enumerate(zip(old, new, strict=False)) if ours != theirs), len(new))
    return len(new) - same
