"""What can be wrong with a completion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """The kind of a problem. The value is the sentence shown to users."""

    TEXT_OUTSIDE = "text outside of any message"
    UNEXPECTED_TOKEN = "a special token that has no meaning here"
    REDUNDANT_END = "an end token where no message is open"
    UNKNOWN_TOKEN = "an id that is not a token"
    MISSING_START = "a message without a start token"
    MISSING_END = "a message not ended before the next one begins"
    MISSING_MESSAGE = "a header not ended by the message token"
    ENDS_IN_HEADER = "the completion ends inside a header"
    EMPTY_CHANNEL = "a channel token without a name after it"
    UNKNOWN_CHANNEL = "a channel that the format does not have"
    SECOND_CHANNEL = "a header with more than one channel"
    UNMARKED_CHANNEL = "a channel without the channel token"
    ROLE_AS_RECIPIENT = "a role where the name of a tool should be"
    UNKNOWN_ROLE = "a missing or unknown author"
    STRAY_WORDS = "meaningless words in a header"


@dataclass(frozen=True)
class Problem:
    """One problem. ``position`` is the index (from 0) of the token at which it was detected."""

    position: int
    kind: ProblemKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value
