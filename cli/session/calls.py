"""The calls of tools in a conversation, and their results as messages."""

from __future__ import annotations

from collections.abc import Sequence

from gptoss.cli.session.events import ToolCall
from gptoss.harmony import Message, Role


def result_message(call: ToolCall, text: str) -> Message:
    """Return a call's result as a message: by the tool, to the assistant, in the channel of the call."""
    return Message.tool(call.recipient, text, channel=call.channel)


def calls_of(messages: Sequence[Message], first: int = 1) -> list[tuple[int, ToolCall]]:
    """Return the calls among messages, each with its place.

    Args:
        messages: of a conversation.
        first: the number of the first call.
    """
    found: list[tuple[int, ToolCall]] = []
    for place, message in enumerate(messages):
        if message.role is Role.ASSISTANT and message.recipient is not None:
            call = ToolCall(message.recipient, message.text, message.channel, f"call_{first + len(found)}")
            found.append((place, call))
    return found


def unanswered_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """Return the calls after the last message of the user that have no result."""
    begin = max((place for place, message in enumerate(messages) if message.role is Role.USER), default=-1) + 1
    first = len(calls_of(messages[:begin])) + 1
    open_calls = dict(calls_of(messages[begin:], first))
    for place, message in enumerate(messages[begin:]):
        if message.role is Role.TOOL:
            answered = (at for at, call in open_calls.items() if at < place and call.recipient == message.author.name)
            open_calls.pop(next(answered, -1), None)
    return tuple(open_calls.values())


def interrupted_results(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return results for the calls that have none, since the program ended while they ran."""
    text = "No result: the program ended before there was one. The call may have run, wholly or in part."
    return tuple(result_message(call, text) for call in unanswered_calls(messages))
