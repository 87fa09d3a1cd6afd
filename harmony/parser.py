"""The streaming parser: token ids to typed deltas and whole messages.

It never raises on what a model writes. Malformed input is reported as ``Problem``, and its text is recovered:

- ``<|start|>`` begins a header anywhere, and ``<|channel|>`` outside of a header. So every message that is well-formed
  from start to end is parsed, whatever surrounds it.
- In a header without ``<|message|>``, the text after author, channel and recipient is content.
- Text outside of any message becomes a message without a channel.
- Misplaced special tokens, and ids that are not tokens, are dropped.

A strict parser raises ``ParseError`` at the first problem instead.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from enum import Enum, auto

from gptoss.harmony.content import TextContent
from gptoss.harmony.deltas import ContentDelta, Delta, MessageFinished, MessageStarted, ProblemFound
from gptoss.harmony.encoding import Encoding, Special
from gptoss.harmony.errors import EncodingError, ParseError
from gptoss.harmony.header import Header, Segment, read_header, salvage_header
from gptoss.harmony.messages import Message, Role
from gptoss.harmony.problems import Problem, ProblemKind

_ENDS = (Special.END, Special.RETURN, Special.CALL, Special.END_OF_TEXT)

_MAX_SEGMENTS = 16  # a well-formed header has three: author, channel, content type


class ParserState(Enum):
    """What the next token belongs to."""

    OUTSIDE = auto()
    """Between messages; the start token is expected."""
    HEADER = auto()
    CONTENT = auto()


class StreamableParser:
    """Parse the completion of a prompt that ends in ``<|start|>{role}``, token by token.

    Args:
        encoding: the encoding of the ids.
        role: the role whose header the prompt has begun; None to start between messages, as in a whole rendered
            conversation.
        strict: raise ``ParseError`` at the first problem; the parser must not be used afterwards.

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

    # State

    @property
    def messages(self) -> tuple[Message, ...]:
        """The complete messages."""
        return tuple(self._messages)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems so far."""
        return tuple(self._problems)

    @property
    def state(self) -> ParserState:
        """What the next token belongs to."""
        return self._state

    @property
    def in_header(self) -> bool:
        """Whether a header is open."""
        return self._state is ParserState.HEADER

    @property
    def header_tokens(self) -> tuple[int, ...]:
        """The tokens of the open header without the start token; empty outside of headers."""
        return tuple(self._header_tokens) if self.in_header else ()

    @property
    def current_role(self) -> Role | None:
        """The role of the open message, or of the open header if the prompt has named it; else None."""
        if self._state is ParserState.CONTENT:
            return self._header.author.role
        return self._header_role if self.in_header else None

    @property
    def current_channel(self) -> str | None:
        """The channel of the open message; None outside of content."""
        return self._header.channel if self._state is ParserState.CONTENT else None

    @property
    def current_recipient(self) -> str | None:
        """The recipient of the open message; None outside of content."""
        return self._header.recipient if self._state is ParserState.CONTENT else None

    @property
    def current_content_type(self) -> str | None:
        """The content type of the open message; None outside of content."""
        return self._header.content_type if self._state is ParserState.CONTENT else None

    @property
    def current_content(self) -> str:
        """The text of the open message so far; empty outside of content."""
        return "".join(self._text) if self._state is ParserState.CONTENT else ""

    # Input

    def process(self, token: int) -> list[Delta]:
        """Consume one token and return its deltas.

        Raises:
            ParseError: there is a problem, in strict mode only.
        """
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
        """Close what is open at the end of the completion and return the deltas. Content may end here.

        Raises:
            ParseError: there is a problem, in strict mode only.
        """
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
        """Whether a header without a message token already has content: several words after its channel.

        Assumed also of a header with too many special tokens, to keep the time linear in their number.
        """
        if len(self._segments) > _MAX_SEGMENTS:
            return True
        has_channel = any(marker is Special.CHANNEL for marker, _ in self._segments)
        return has_channel and len(self._salvage().rest.split()) > 1

    def _abandon_header(self, otherwise: ProblemKind, *, keeps_empty: bool = False) -> None:
        """Recover the message of a header without a message token.

        Args:
            otherwise: the problem reported if the header is empty.
            keeps_empty: keep the message of a header that has a channel but no content.
        """
        header = self._salvage()
        if not self._is_started:
            self._report(ProblemKind.TEXT_OUTSIDE, header.rest[:80])
        elif not self._header_tokens:
            self._report(otherwise)
        else:
            self._report(ProblemKind.MISSING_MESSAGE)
            for kind, detail in header.problems:
                self._report(kind, detail)
        if header.rest or (keeps_empty and header.channel is not None):
            self._add_message(header, header.rest)

    def _end_in_header(self) -> None:
        header = self._salvage()
        self._state = ParserState.OUTSIDE
        self._report(ProblemKind.ENDS_IN_HEADER if self._is_started else ProblemKind.TEXT_OUTSIDE)
        # A single word may be the beginning of a role or a content type; several words are content.
        is_said = len(header.rest.split()) > 1 or (header.channel is None and self._header_role is not None)
        if header.rest and is_said:
            self._add_message(header, header.rest)

    # Content

    def _begin_content(self, header: Header) -> None:
        for kind, detail in header.problems:
            self._report(kind, detail)
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
            header.order,
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
        """Add a recovered message."""
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
    """Return the messages and the problems of a whole completion.

    ``role`` is that of ``StreamableParser``: None for a rendered conversation. The stop token is optional.

    Raises:
        EncodingError: ``encoding`` lacks a special token of the format.
        ParseError: there is a problem and ``strict`` is set.
    """
    parser = StreamableParser(encoding, role, strict=strict)
    for token in ids:
        parser.process(token)
    parser.finish()
    return parser.messages, parser.problems
