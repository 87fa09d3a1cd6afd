"""Messages and conversations; all classes are frozen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from gptoss.harmony.content import Content, DeveloperContent, SystemContent, TextContent

EVERYONE = "all"
"""The recipient of a message addressed to nobody in particular; it is not rendered."""


class Role(StrEnum):
    """Who writes a message, from the highest authority to the lowest."""

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


class HeaderOrder(StrEnum):
    """The order of channel and recipient in a header. The value is used in JSON."""

    RECIPIENT_FIRST = "recipient_first"
    """As the official library renders: ``assistant to=functions.f<|channel|>commentary``."""
    CHANNEL_FIRST = "channel_first"
    """As the models write: ``assistant<|channel|>commentary to=functions.f``."""


@dataclass(frozen=True)
class Author:
    """The author of a message. For a tool, ``name`` is the tool's full name (``functions.get_weather``)."""

    role: Role
    name: str | None = None


@dataclass(frozen=True)
class Message:
    """One message: ``<|start|>{header}<|message|>{content}<|end|>``.

    Attributes:
        author: who writes it.
        content: what it contains, rendered without separators.
        channel: the channel, if any.
        recipient: the tool that an assistant calls, or whom a tool answers.
        content_type: the type named in the header, with its marker if it has one (``<|constrain|>json``).
        header_order: the order of channel and recipient in the header. The parser keeps the order that it read, so
            that a sampled message renders to the sampled tokens. Always the default where either one is missing.
    """

    author: Author
    content: tuple[Content, ...]
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    header_order: HeaderOrder = HeaderOrder.RECIPIENT_FIRST

    def __post_init__(self) -> None:
        if self.channel is None or self.recipient in (None, EVERYONE):
            object.__setattr__(self, "header_order", HeaderOrder.RECIPIENT_FIRST)

    @classmethod
    def system(cls, content: SystemContent | str) -> Self:
        """Return a system message."""
        return cls(Author(Role.SYSTEM), (_as_content(content),))

    @classmethod
    def developer(cls, content: DeveloperContent | str) -> Self:
        """Return a developer message; a ``str`` is the whole text, without the heading ``# Instructions``."""
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
        header_order: HeaderOrder = HeaderOrder.RECIPIENT_FIRST,
    ) -> Self:
        """Return a message of the model: reasoning, answer, preamble or (with a recipient) a tool call."""
        return cls(Author(Role.ASSISTANT), (TextContent(text),), channel, recipient, content_type, header_order)

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
        """Return the result of the tool ``name``. Pass the channel in which the tool was called."""
        return cls(Author(Role.TOOL, name), (TextContent(text),), channel, recipient, content_type)

    @property
    def role(self) -> Role:
        """The author's role."""
        return self.author.role

    @property
    def text(self) -> str:
        """All text contents, joined; system and developer settings are not text."""
        return "".join(part.text for part in self.content if isinstance(part, TextContent))

    @property
    def is_answer(self) -> bool:
        """Whether this is a finished answer: the assistant's message in the final channel."""
        return self.author.role is Role.ASSISTANT and self.channel == Channel.FINAL


@dataclass(frozen=True)
class Conversation:
    """A sequence of messages."""

    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, *messages: Message) -> Self:
        """Return a conversation of these messages."""
        return cls(messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def extended(self, messages: Iterable[Message]) -> Self:
        """Return a copy with ``messages`` appended."""
        return type(self)((*self.messages, *messages))

    @property
    def has_function_tools(self) -> bool:
        """Whether a developer message offers functions; the system message then mentions them."""
        return any(
            isinstance(part, DeveloperContent) and part.has_function_tools
            for message in self.messages
            for part in message.content
        )


def _as_content(content: Content | str) -> Content:
    return TextContent(content) if isinstance(content, str) else content
