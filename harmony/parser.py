"""The streaming parser: token ids in, typed deltas out, whole messages at the end.

It never fails on what a model says. What is malformed is reported as a ``Problem``, and what was said is recovered:

- ``<|start|>`` begins a header wherever it stands; so does ``<|channel|>`` outside of a header. Hence every message
  that is well-formed from its start to its end comes out whole, whatever stands around it.
- A header that is not ended by ``<|message|>`` gives its text after author, channel and recipient as content.
- Text outside of any message becomes a message without a channel.
- Special tokens without a meaning where they stand, and ids that are no tokens, are left out.

A strict parser raises ``ParseError`` at the first problem instead.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from enum import Enum, auto

from gptoss.harmony.content import TextContent
from gptoss.harmony.deltas import (
    ContentDelta,
    Delta,
    MessageFinished,
    MessageStarted,
    Problem,
    ProblemFound,
    ProblemKind,
)
from gptoss.harmony.encoding import Encoding, Special
from gptoss.harmony.errors import EncodingError, ParseError
from gptoss.harmony.header import Header, Segment, read_header, salvage_header
from gptoss.harmony.messages import Message, Role

_ENDS = (Special.END, Special.RETURN, Special.CALL, Special.END_OF_TEXT)

_MAX_SEGMENTS = 16  # a well-formed header has three: author, channel, content type


class ParserState(Enum):
    """Where in the format the next token stands."""

    OUTSIDE = auto()
    """Between messages: the start token is due."""
    HEADER = auto()
    CONTENT = auto()


class StreamableParser:
    """Parses the completion of a prompt that ends in ``<|start|>{role}``, token by token.

    Args:
        encoding: the encoding of the ids.
        role: the role whose header the prompt has begun, or None to begin between messages, as for a whole
            rendered conversation.
        strict: raise ``ParseError`` at the first problem; after that the parser is of no use.

    Raises:
        EncodingError: ``encoding`` lacks a special token of the format.
    """

    def __init__(self, encoding: Encoding, role: Role | None = Role.ASSISTANT, *, strict: bool = False) -> None:
        self._encoding = encoding
        self._strict = strict
        self._tokens: dict[int, Special] = {
            encoding.special(each): each for each in Special if each is not Special.END_OF_TEXT
        }
        end_of_text = encoding.specials.get(Special.END_OF_TEXT)
        if end_of_text is not None:
            self._tokens[end_of_text] = Special.END_OF_TEXT
        self._default_role = Role.ASSISTANT if role is None else role
        self._in_completion = role is not None
        self._position = -1
        self._deltas: list[Delta] = []
        self._messages: list[Message] = []
        self._problems: list[Problem] = []
        self._state = ParserState.OUTSIDE
        if role is not None:
            self._begin_header(role)

    # What is seen from outside

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages that are complete."""
        return tuple(self._messages)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong so far."""
        return tuple(self._problems)

    @property
    def state(self) -> ParserState:
        """Where the next token stands."""
        return self._state

    @property
    def in_header(self) -> bool:
        """Whether a header has begun and its message token has not come."""
        return self._state is ParserState.HEADER

    @property
    def header_tokens(self) -> tuple[int, ...]:
        """The tokens of the header that is open, without the start token; empty outside of headers."""
        return tuple(self._header_tokens) if self.in_header else ()

    @property
    def current_role(self) -> Role | None:
        """The role of the message that is open, or of the header where the prompt has named it; else None."""
        if self._state is ParserState.CONTENT:
            return self._header.author.role
        return self._header_role if self.in_header else None

    @property
    def current_channel(self) -> str | None:
        """The channel of the message whose content is coming; None elsewhere."""
        return self._header.channel if self._state is ParserState.CONTENT else None

    @property
    def current_recipient(self) -> str | None:
        """The recipient of the message whose content is coming; None elsewhere."""
        return self._header.recipient if self._state is ParserState.CONTENT else None

    @property
    def current_content_type(self) -> str | None:
        """The content type of the message whose content is coming; None elsewhere."""
        return self._header.content_type if self._state is ParserState.CONTENT else None

    @property
    def current_content(self) -> str:
        """The text so far of the message whose content is coming; empty elsewhere."""
        return "".join(self._text) if self._state is ParserState.CONTENT else ""

    # What is fed in

    def process(self, token: int) -> list[Delta]:
        """Take one token and return what it brought. Never raises but for ParseError in strict mode."""
        self._position += 1
        special = self._tokens.get(token)
        if special is not None:
            self._take_special(special, token)
        elif self._encoding.is_special(token):
            self._report(ProblemKind.UNEXPECTED_TOKEN, str(self._encoding.special_name(token)))
        else:
            self._take_text(token)
        return self._flush()

    def finish(self) -> list[Delta]:
        """Take the end of the completion: what is open is closed. The content of a message may end here."""
        self._position += 1
        if self._state is ParserState.CONTENT:
            self._end_content()
        elif self._state is ParserState.HEADER:
            self._end_in_header()
        return self._flush()

    def _flush(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas

    def _take_special(self, special: Special, token: int) -> None:
        if self._state is ParserState.CONTENT:
            self._special_in_content(special, token)
        elif self._state is ParserState.HEADER:
            self._special_in_header(special, token)
        elif special is Special.START:
            self._begin_header(None)
        elif special in _ENDS:
            self._report(ProblemKind.REDUNDANT_END, special.value)
        else:
            self._begin_header(self._default_role, is_started=False)
            self._special_in_header(special, token)

    def _take_text(self, token: int) -> None:
        try:
            data = self._encoding.token_bytes(token)
        except EncodingError:
            self._report(ProblemKind.UNKNOWN_TOKEN, str(token))
            return
        if self._state is ParserState.CONTENT:
            self._add_content(self._decoder.decode(data))
            return
        if self._state is ParserState.OUTSIDE:
            self._begin_header(self._default_role, is_started=False)
        self._header_tokens.append(token)
        self._segments[-1][1].extend(data)

    # Headers

    def _begin_header(self, role: Role | None, *, is_started: bool = True) -> None:
        self._state = ParserState.HEADER
        self._header_role = role
        self._is_started = is_started
        self._header_tokens: list[int] = []
        self._segments: list[tuple[Special | None, bytearray]] = [(None, bytearray())]

    def _special_in_header(self, special: Special, token: int) -> None:
        if special is Special.START:
            self._abandon_header(ProblemKind.UNEXPECTED_TOKEN)
            self._begin_header(None)
        elif special is Special.MESSAGE:
            self._note_missing_start()
            header = read_header(
                self._read_segments(),
                self._header_role,
                self._default_role,
                in_completion=self._in_completion,
            )
            self._begin_content(header)
        elif special in _ENDS:
            self._abandon_header(ProblemKind.REDUNDANT_END, keeps_empty=True)
            self._state = ParserState.OUTSIDE
        else:
            if special is Special.CHANNEL and self._holds_content():
                self._abandon_header(ProblemKind.UNEXPECTED_TOKEN)
                self._begin_header(self._default_role)
            self._note_missing_start()
            self._header_tokens.append(token)
            self._segments.append((special, bytearray()))

    def _note_missing_start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._report(ProblemKind.MISSING_START)

    def _read_segments(self) -> list[Segment]:
        return [Segment(marker, data.decode("utf-8", "replace")) for marker, data in self._segments]

    def _salvage(self) -> Header:
        return salvage_header(self._read_segments(), self._header_role, self._default_role)

    def _holds_content(self) -> bool:
        """Whether a channel token comes after what must be content: several words after an earlier channel.

        So it is taken, too, of a header with more special tokens than any has, lest each one takes as long as all
        before it together.
        """
        if len(self._segments) > _MAX_SEGMENTS:
            return True
        has_channel = any(marker is Special.CHANNEL for marker, _ in self._segments)
        return has_channel and len(self._salvage().rest.split()) > 1

    def _abandon_header(self, otherwise: ProblemKind, *, keeps_empty: bool = False) -> None:
        """Recover what a header without a message token says.

        Args:
            otherwise: what is reported where the header is empty.
            keeps_empty: make a message of a header with a channel even when no content follows.
        """
        header = self._salvage()
        if not self._is_started:
            self._report(ProblemKind.TEXT_OUTSIDE, header.rest[:80])
        elif not self._header_tokens:
            self._report(otherwise)
        else:
            self._report(ProblemKind.MISSING_MESSAGE)
        if header.rest or (keeps_empty and header.channel is not None):
            self._add_message(header, header.rest)

    def _end_in_header(self) -> None:
        header = self._salvage()
        self._state = ParserState.OUTSIDE
        self._report(ProblemKind.ENDS_IN_HEADER if self._is_started else ProblemKind.TEXT_OUTSIDE)
        # One word may be the beginning of a role, or a content type; several are something said.
        is_said = len(header.rest.split()) > 1 or (header.channel is None and self._header_role is not None)
        if header.rest and is_said:
            self._add_message(header, header.rest)

    # Content

    def _begin_content(self, header: Header) -> None:
        for kind, detail in header.problems:
            self._report(kind, detail)
        if header.rest:
            self._add_message(Header(header.author), header.rest)
        self._open(header)

    def _open(self, header: Header) -> None:
        self._state = ParserState.CONTENT
        self._header = header
        self._text: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._deltas.append(MessageStarted(header.author, header.channel, header.recipient, header.content_type))

    def _add_content(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._deltas.append(ContentDelta(self._header.channel, self._header.recipient, text))

    def _end_content(self) -> None:
        self._add_content(self._decoder.decode(b"", final=True))
        header = self._header
        message = Message(
            header.author,
            (TextContent("".join(self._text)),),
            header.channel,
            header.recipient,
            header.content_type,
        )
        self._messages.append(message)
        self._deltas.append(MessageFinished(message))
        self._state = ParserState.OUTSIDE

    def _special_in_content(self, special: Special, token: int) -> None:
        if special in (Special.END, Special.RETURN, Special.CALL):
            self._end_content()
            return
        if special is Special.CONSTRAIN:
            self._report(ProblemKind.UNEXPECTED_TOKEN, special.value)
            return
        if special is Special.MESSAGE:
            self._report(ProblemKind.UNEXPECTED_TOKEN, special.value)
            if self._text:
                header = self._header
                self._end_content()
                self._open(header)
            return
        self._report(ProblemKind.MISSING_END, special.value)
        self._end_content()
        if special is Special.START:
            self._begin_header(None)
        elif special is Special.CHANNEL:
            self._begin_header(self._default_role)
            self._special_in_header(special, token)

    def _add_message(self, header: Header, text: str) -> None:
        """Add a whole message that was recovered."""
        self._open(header)
        self._add_content(text)
        self._end_content()

    def _report(self, kind: ProblemKind, detail: str = "") -> None:
        problem = Problem(self._position, kind, detail)
        if self._strict:
            raise ParseError(problem)
        self._problems.append(problem)
        self._deltas.append(ProblemFound(problem))


def parse(
    ids: Iterable[int], encoding: Encoding, role: Role | None = Role.ASSISTANT, *, strict: bool = False
) -> tuple[tuple[Message, ...], tuple[Problem, ...]]:
    """Return the messages of a whole completion, and what was wrong with it.

    ``role`` is as for ``StreamableParser``: None for a rendered conversation. The stop token may be there or not.

    Raises:
        ParseError: something is wrong and ``strict`` is set.
    """
    parser = StreamableParser(encoding, role, strict=strict)
    for token in ids:
        parser.process(token)
    parser.finish()
    return parser.messages, parser.problems
