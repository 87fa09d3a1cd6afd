"""What a conversation takes of the context, in tokens."""

from __future__ import annotations

from dataclasses import dataclass

from gptoss.harmony import Conversation, Encoding, Message, render_for_completion
from gptoss.harmony.renderer import kept_messages, render_message


@dataclass(frozen=True)
class MessageSize:
    """A message and its tokens, those of its header among them.

    Attributes:
        is_sent: whether the next prompt has it; reasoning before the last answer is left out.
    """

    message: Message
    tokens: int
    is_sent: bool


def message_sizes(conversation: Conversation, encoding: Encoding) -> list[MessageSize]:
    """The size of each message, in their order."""
    has_functions = conversation.has_function_tools
    sent = {id(message) for message in kept_messages(conversation)}
    return [
        MessageSize(
            message, len(render_message(message, encoding, has_function_tools=has_functions)), id(message) in sent
        )
        for message in conversation
    ]


def prompt_size(conversation: Conversation, encoding: Encoding) -> int:
    """The tokens of the prompt for the next answer, but for the message that is still to be said."""
    return len(render_for_completion(conversation, encoding))


def tokens_read_again(before: Conversation, after: Conversation, encoding: Encoding) -> int:
    """How many tokens of what was said have to be read again when `after` takes the place of `before`."""
    old, new = render_for_completion(before, encoding), render_for_completion(after, encoding)
    same = next((i for i, (ours, theirs) in enumerate(zip(old, new, strict=False)) if ours != theirs), len(new))
    return len(new) - same
