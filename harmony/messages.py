"""Messages and conversations. All frozen; the JSON form is in ``json_form``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from gptoss.harmony.content import Content, DeveloperContent, SystemContent, TextContent


class Role(StrEnum):
    """Who writes a message, in the order of authority: system, developer, user, assistant, tool."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Channel(StrEnum):
    """The channels that gpt-oss was trained with. A message's channel is a plain ``str`` and may be another."""

    ANALYSIS = "analysis"
    COMMENTARY = "commentary"
    FINAL = "final"


@dataclass(frozen=True)
class Author:
    """The author of a message. For a tool, ``name`` is the tool's full name (``functions.get_weather``)."""

    role: Role
    name: str | None = None


@dataclass(frozen=True)
class Message:
    """One message: ``<|start|>{header}<|message|>{content}<|end|>``.

    ``recipient`` is the tool that an assistant calls, or whom a tool answers; ``content_type`` is the type
    named in the header, with its marker where there is one (``<|constrain|>json``).
    """

    author: Author
    content: tuple[Content, ...]
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None

    @classmethod
    def system(cls, content: SystemContent | str) -> Self:
        """Return a system message."""
        return cls(Author(Role.SYSTEM), (_as_content(content),))

    @classmethod
    def developer(cls, content: DeveloperContent | str) -> Self:
        """Return a developer message; a ``str`` is the whole text, without the heading of instructions."""
        return cls(Author(Role.DEVELOPER), (_as_content(content),))

    @classmethod
    def user(cls, text: str, *, name: str | None = None) -> Self:
        """Return a user's message."""
        return cls(Author(Role.USER, name), (TextContent(text),))

    @classmethod
    def assistant(
        cls,
        text: str,
        *,
        channel: str | None = None,
        recipient: str | None = None,
        content_type: str | None = None,
    ) -> Self:
        """Return a message of the model: reasoning, answer, preamble or (with a recipient) a tool call."""
        return cls(Author(Role.ASSISTANT), (TextContent(text),), channel, recipient, content_type)

    @classmethod
    def tool(
        cls,
        name: str,
        text: str,
        *,
        channel: str | None = Channel.COMMENTARY.value,
        recipient: str | None = Role.ASSISTANT.value,
        content_type: str | None = None,
    ) -> Self:
        """Return what the tool ``name`` gave back. Use the channel in which the tool was called."""
        return cls(Author(Role.TOOL, name), (TextContent(text),), channel, recipient, content_type)

    @property
    def role(self) -> Role:
        """The author's role."""
        return self.author.role

    @property
    def text(self) -> str:
        """All text content, joined; the settings of system and developer messages are no text."""
        return "".join(part.text for part in self.content if isinstance(part, TextContent))

    @property
    def is_answer(self) -> bool:
        """Whether this is a finished answer: the assistant's message in the final channel."""
        return self.author.role is Role.ASSISTANT and self.channel == Channel.FINAL

    def to_dict(self) -> dict[str, Any]:
        """Return the official library's JSON form."""
        from gptoss.harmony.json_form import message_to_dict

        return message_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Read the official library's JSON form; raise ``ConversationError`` that says where it is wrong."""
        from gptoss.harmony.json_form import message_from_dict

        return message_from_dict(data)


@dataclass(frozen=True)
class Conversation:
    """A sequence of messages."""

    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, *messages: Message) -> Self:
        """Return the conversation of these messages."""
        return cls(messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def extended(self, messages: Iterable[Message]) -> Self:
        """Return this conversation with ``messages`` after it."""
        return type(self)((*self.messages, *messages))

    @property
    def has_function_tools(self) -> bool:
        """Whether some developer message offers functions, which the system message then mentions."""
        return any(
            isinstance(part, DeveloperContent) and part.has_function_tools
            for message in self.messages
            for part in message.content
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the official library's JSON form."""
        from gptoss.harmony.json_form import conversation_to_dict

        return conversation_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Conversation:
        """Read the official library's JSON form; raise ``ConversationError`` that says where it is wrong."""
        from gptoss.harmony.json_form import conversation_from_dict

        return conversation_from_dict(data)


def _as_content(content: Content | str) -> Content:
    return TextContent(content) if isinstance(content, str) else content
