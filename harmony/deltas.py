"""The deltas that the streaming parser returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gptoss.harmony.messages import Author, Message
from gptoss.harmony.problems import Problem


@dataclass(frozen=True)
class MessageStarted:
    """A header is complete; content follows."""

    author: Author
    channel: str | None
    recipient: str | None
    content_type: str | None


@dataclass(frozen=True)
class ContentDelta:
    """More text of the open message: never empty, whole characters only."""

    channel: str | None
    recipient: str | None
    text: str


@dataclass(frozen=True)
class MessageFinished:
    """The open message is complete."""

    message: Message


@dataclass(frozen=True)
class ProblemFound:
    """Something was malformed. The other deltas carry what could be recovered."""

    problem: Problem


Delta: TypeAlias = MessageStarted | ContentDelta | MessageFinished | ProblemFound
