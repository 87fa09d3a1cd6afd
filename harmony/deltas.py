"""What the parser says while tokens come in, and what it found wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from gptoss.harmony.messages import Author, Message


class ProblemKind(StrEnum):
    """What can be wrong with a completion. The value is the sentence that a person reads."""

    TEXT_OUTSIDE = "text stands outside of any message"
    UNEXPECTED_TOKEN = "a special token stands where it has no meaning"
    REDUNDANT_END = "a message is ended where none is open"
    UNKNOWN_TOKEN = "an id that is no token"
    MISSING_START = "a message begins without the start token"
    MISSING_END = "a message is not ended before the next one begins"
    MISSING_MESSAGE = "a header is not ended by the message token"
    ENDS_IN_HEADER = "the completion ends inside a header"
    EMPTY_CHANNEL = "a channel token is followed by no name"
    UNKNOWN_CHANNEL = "a channel that the format does not have"
    SECOND_CHANNEL = "a header names more than one channel"
    UNMARKED_CHANNEL = "a channel stands without the channel token"
    UNMARKED_RECIPIENT = "a recipient stands without to="
    UNKNOWN_ROLE = "an author that is no role and addresses no one"
    STRAY_WORDS = "words in a header that belong to nothing"


@dataclass(frozen=True)
class Problem:
    """Something wrong. ``position`` is the index of the token at which it was noticed, from 0."""

    position: int
    kind: ProblemKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value


@dataclass(frozen=True)
class MessageStarted:
    """A header is complete and content begins."""

    author: Author
    channel: str | None
    recipient: str | None
    content_type: str | None


@dataclass(frozen=True)
class ContentDelta:
    """More text of the message that is open; never empty, never half of a character."""

    channel: str | None
    recipient: str | None
    text: str


@dataclass(frozen=True)
class MessageFinished:
    """The message that was open is complete."""

    message: Message


@dataclass(frozen=True)
class ProblemFound:
    """Something was wrong; what could be recovered is in the other deltas."""

    problem: Problem


Delta: TypeAlias = MessageStarted | ContentDelta | MessageFinished | ProblemFound
