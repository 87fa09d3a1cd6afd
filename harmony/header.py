"""Read message headers: what stands between ``<|start|>`` and ``<|message|>``.

A header is passed as segments, split at its special tokens: the text before the first one, then the text after each
channel or constrain token. Only tokens are markers; text that looks like a marker is text.

``read_header`` reads headers that the message token ended; ``salvage_header`` those that it did not, where content
follows unmarked. Neither raises; both return what could be read and the problems found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gptoss.harmony.encoding import Special
from gptoss.harmony.messages import Author, Channel, HeaderOrder, Role
from gptoss.harmony.problems import ProblemKind

_KNOWN_CHANNELS = tuple(channel.value for channel in Channel)
_BLANKS = " \t\n\f\r"  # separate the words of a header; ASCII only, as in the official library
_KNOWN_CONTENT_TYPES = ("json", "code", "text")
"""Content types that stand without a marker; any other needs one."""

_CHANNEL_NAME = re.compile(r"\s*([^\s<]*)")
_RECIPIENT = re.compile(rf"[{_BLANKS}]*to=([^{_BLANKS}]*)")
_CONTENT_TYPE = re.compile(rf"[{_BLANKS}]*[\w.+/-]+")
_FIRST_WORD = re.compile(rf"[{_BLANKS}]*([^{_BLANKS}]*)")


@dataclass(frozen=True)
class Segment:
    """A piece of header text and the special token before it: channel, constrain, or None at the beginning."""

    marker: Special | None
    text: str


@dataclass
class Header:
    """The parts of a header. ``rest`` is text that is not part of it."""

    author: Author
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    order: HeaderOrder = HeaderOrder.RECIPIENT_FIRST
    rest: str = ""
    problems: list[tuple[ProblemKind, str]] = field(default_factory=list)

    def note(self, kind: ProblemKind, detail: str = "") -> None:
        """Add a problem."""
        self.problems.append((kind, detail))


def read_header(segments: Sequence[Segment], role: Role | None, default: Role, *, in_completion: bool) -> Header:
    """Read a complete header. The recipient may come before or after the channel.

    Args:
        segments: the header's text, split at its special tokens.
        role: the author's role if the prompt has named it; if None, the header's first word names it.
        default: the role if that word is missing.
        in_completion: the header is part of a model's completion, not of a whole conversation in which tools speak.
    """
    header = Header(Author(default if role is None else role))
    words: list[str] = []
    before_channel: list[str] = []
    for segment in segments:
        if segment.marker is Special.CHANNEL:
            if header.channel is not None and _CHANNEL_NAME.match(segment.text)[1]:  # type: ignore[index]
                words = words[:1] if role is None else []  # a second channel begins the header again
            before_channel = list(words)
        words += _take_markers(segment, header)
    words = _take_author(words, header, role, in_completion)
    unmarked = []
    for word in words:
        if word.startswith("to=") and _take_marked_recipient(word.removeprefix("to="), header):
            continue
        if word.startswith(Special.CONSTRAIN) and header.content_type is None:
            header.content_type = word
        else:
            unmarked.append(word)
    _assign_unmarked(unmarked, header)
    if f"to={header.recipient}" not in before_channel:
        header.order = HeaderOrder.CHANNEL_FIRST
    if header.channel is not None and header.channel not in _KNOWN_CHANNELS:
        header.note(ProblemKind.UNKNOWN_CHANNEL, header.channel)
    return header


def salvage_header(segments: Sequence[Segment], role: Role | None, default: Role) -> Header:
    """Read a header that no message token ended; ``rest`` is the content that follows it."""
    header = Header(Author(default if role is None else role))
    rest = []
    for segment in segments:
        text = segment.text
        if segment.marker is Special.CHANNEL:
            match = _CHANNEL_NAME.match(text)
            name = match[1] if match else ""
            # Like the message token, the space before the content may be missing.
            name = next((known for known in _KNOWN_CHANNELS if name.startswith(known)), name)
            text = text.lstrip().removeprefix(name)
            if name and header.channel is not None:
                header.recipient = header.content_type = None
                header.note(ProblemKind.SECOND_CHANNEL, f"{header.channel}, {name}")
            if name and name not in _KNOWN_CHANNELS:
                header.note(ProblemKind.UNKNOWN_CHANNEL, name)
            header.channel = name or header.channel
            text = _take_recipient(text, header)
        elif segment.marker is Special.CONSTRAIN:
            match = _CONTENT_TYPE.match(text)
            header.content_type = Special.CONSTRAIN + (match[0] if match else "")
            text = text[match.end() :] if match else text
        else:
            text = _take_recipient(_salvage_author(text, header, role), header)
        rest.append(text)
    header.rest = "".join(rest).removeprefix(" ")
    if not header.rest.strip():
        header.rest = ""
    return header


def _take_markers(segment: Segment, header: Header) -> list[str]:
    """Set the channel if the segment names one. Return the other words; a content type keeps its marker."""
    if segment.marker is Special.CHANNEL:
        match = _CHANNEL_NAME.match(segment.text)
        name, end = (match[1], match.end()) if match else ("", 0)
        if not name:
            header.note(ProblemKind.EMPTY_CHANNEL)
        elif header.channel is not None:
            header.note(ProblemKind.SECOND_CHANNEL, f"{header.channel}, {name}")
        header.channel = name or header.channel
        return _words(segment.text[end:])
    if segment.marker is Special.CONSTRAIN:
        match = _FIRST_WORD.match(segment.text)
        if match is None or match[1].startswith("to="):
            return [Special.CONSTRAIN.value, *_words(segment.text)]
        # The guide's example has a space after the marker; keep it, so that it renders to the same tokens.
        kept = match[0] if match[1] else ""
        return [Special.CONSTRAIN + kept, *_words(segment.text[match.end() :])]
    return _words(segment.text)


def _take_author(words: list[str], header: Header, role: Role | None, in_completion: bool) -> list[str]:
    """Set the author named by the first word. Return the other words."""
    first = words[0] if words else ""
    if role is not None:
        return words[1:] if first == role.value else words
    if not first or first.startswith(("to=", Special.CONSTRAIN)):
        header.note(ProblemKind.UNKNOWN_ROLE)
        return words
    author = _author(first)
    if author is not None:
        header.author = author
        return words[1:]
    for channel in _KNOWN_CHANNELS:
        if header.channel is None and first == f"{Role.ASSISTANT.value}{channel}":
            header.author = Author(Role.ASSISTANT)
            header.channel = channel
            header.note(ProblemKind.UNMARKED_CHANNEL, first)
            return words[1:]
    if len(words) == 1:
        header.note(ProblemKind.UNKNOWN_ROLE, first)
        if in_completion and header.channel == Channel.FINAL:
            return []  # tools do not answer: assume the assistant rather than lose the answer
    header.author = Author(Role.TOOL, first)
    return words[1:]


def _author(word: str) -> Author | None:
    """Return the author if the word is a role, possibly with a name (``user:alice``)."""
    role, colon, name = word.partition(":")
    if role not in {each.value for each in Role}:
        return None
    if role == Role.TOOL:
        return Author(Role.TOOL, word)
    return Author(Role(role), name if colon else None)


def _assign_unmarked(words: list[str], header: Header) -> None:
    """Assign words without a marker: a channel, a known content type; any other is dropped, with a problem.

    The official library takes any last word for the content type and the one before it for the recipient, which turns
    answers into calls.
    """
    if header.channel is None and words and words[0] in _KNOWN_CHANNELS:
        header.channel = words.pop(0)
        header.note(ProblemKind.UNMARKED_CHANNEL, header.channel)
    if words and header.content_type is None and words[-1] in _KNOWN_CONTENT_TYPES:
        header.content_type = words.pop()
    if words:
        header.note(ProblemKind.STRAY_WORDS, " ".join(words))


def _take_marked_recipient(name: str, header: Header) -> bool:
    """Set the recipient, once; a role is none that the assistant can call. Return whether the word is used up."""
    if not name or header.recipient is not None:
        return False
    if header.author.role is Role.ASSISTANT and _author(name.lower()) is not None:
        header.note(ProblemKind.ROLE_AS_RECIPIENT, name)
        return True
    header.recipient = name
    return True


def _salvage_author(text: str, header: Header, role: Role | None) -> str:
    """Set the author if the text begins with one. Return the rest of the text."""
    match = _FIRST_WORD.match(text)
    word = match[1] if match else ""
    after = text[match.end() :] if match else text
    if role is not None:
        return after if word == role.value else text
    author = _author(word)
    if author is None and word and _RECIPIENT.match(after):
        author = Author(Role.TOOL, word)
    if author is None:
        return text
    header.author = author
    return after


def _take_recipient(text: str, header: Header) -> str:
    match = _RECIPIENT.match(text)
    if match is None or header.recipient is not None:
        return text
    if not _take_marked_recipient(match[1], header):
        return text
    if header.recipient is not None and header.channel is not None:
        header.order = HeaderOrder.CHANNEL_FIRST
    return text[match.end() :]


def _words(text: str) -> list[str]:
    return [word for word in re.split(f"[{_BLANKS}]+", text) if word]
