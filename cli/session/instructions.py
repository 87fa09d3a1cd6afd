"""The system and developer messages of a conversation: date, effort, instructions, answer format."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gptoss.cli.base.settings import Effort
from gptoss.harmony import Conversation, DeveloperContent, Message, ReasoningEffort, Role, SystemContent

if TYPE_CHECKING:
    from gptoss.cli.constraints.answer_format import AnswerFormat


def open_conversation(
    day: datetime.date, effort: Effort, instructions: str | None, answer_format: AnswerFormat | None = None
) -> Conversation:
    """A conversation with nothing said yet.

    Args:
        day: when it began; it stays the same for as long as the conversation lasts.
        effort: for the system message; none is written as low, the nearest that the models were trained on.
        instructions: of the developer message, if any.
        answer_format: what answers are to look like, for the developer message too.
    """
    system = SystemContent(conversation_start_date=day.isoformat(), reasoning_effort=_harmony_effort(effort))
    messages = [Message.system(system)]
    if answer_format is not None:
        messages.append(Message.developer(DeveloperContent(response_formats=(answer_format.response_format,))))
    return with_instructions(Conversation.of(*messages), instructions)


def begin_again(conversation: Conversation, day: datetime.date) -> Conversation:
    """A conversation with nothing said yet and the same settings, begun on this day."""
    settings = [message for message in conversation if message.role in (Role.SYSTEM, Role.DEVELOPER)]
    return Conversation(tuple(_with_system(message, conversation_start_date=day.isoformat()) for message in settings))


def with_effort(conversation: Conversation, effort: Effort) -> Conversation:
    """The conversation with this effort in its system message, the day and all else as it was."""
    return Conversation(
        tuple(_with_system(message, reasoning_effort=_harmony_effort(effort)) for message in conversation)
    )


def with_instructions(conversation: Conversation, instructions: str | None) -> Conversation:
    """The conversation with these instructions in its developer message, or without any; all else in it stays."""
    system = [message for message in conversation if message.role is Role.SYSTEM]
    rest = [message for message in conversation if message.role not in (Role.SYSTEM, Role.DEVELOPER)]
    content = replace(_developer_content(conversation), instructions=instructions or None)
    developer = [Message.developer(content)] if content != DeveloperContent() else []
    return Conversation.of(*system, *developer, *rest)


def effort_of(conversation: Conversation) -> Effort:
    """The effort that its system message asks for."""
    contents = [part for message in conversation for part in message.content]
    written = [part.reasoning_effort for part in contents if isinstance(part, SystemContent)]
    return Effort(written[0]) if written and written[0] else Effort.MEDIUM


def instructions_of(conversation: Conversation) -> str | None:
    """The instructions in its developer message."""
    return _developer_content(conversation).instructions


def _developer_content(conversation: Conversation) -> DeveloperContent:
    """What its developer message holds; empty where there is none."""
    contents = [part for message in conversation for part in message.content]
    return next((part for part in contents if isinstance(part, DeveloperContent)), DeveloperContent())


def _harmony_effort(effort: Effort) -> ReasoningEffort:
    return ReasoningEffort.LOW if effort is Effort.NONE else ReasoningEffort(effort.value)


def _with_system(message: Message, **changes: Any) -> Message:
    content = tuple(replace(part, **changes) if isinstance(part, SystemContent) else part for part in message.content)
    return replace(message, content=content)
