"""The grammar of headers: which tokens may come next in a completion, so that no header is malformed.

A conversation has finitely many legal headers: its channels, the tools that exist, the known content types. Each part
has only its canonical tokens: it is encoded by itself, as the renderer does and as the models were trained. So the
headers form a trie over token ids, and each step costs one look-up.

    (start) assistant (channel) analysis (message) ... (end)
    (start) assistant (channel) final (message) ... (return)
    (start) assistant (channel) commentary to=functions.f (constrain)json (message) ... (call)
    (start) assistant to=functions.f (channel) commentary (constrain)json (message) ... (call)

In content, all ordinary tokens are allowed, and of the special tokens only the one that ends such a message. Text
sampled under this grammar never needs the parser's recovery.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gptoss.harmony.content import FUNCTIONS_NAMESPACE, DeveloperContent, SystemContent, ToolNamespaceConfig
from gptoss.harmony.encoding import Encoding, Special
from gptoss.harmony.errors import HeaderError
from gptoss.harmony.messages import Channel, Conversation, Role

JSON_TYPE = f"{Special.CONSTRAIN}json"
"""The content type of arguments and answers in JSON (format guide, "Receiving tool calls")."""

# "code" is python's in training (format guide, "Python tool"); the models write it for functions too.
_CALL_TYPES = (None, JSON_TYPE, "json", "code", f"{Special.CONSTRAIN}code")
_CALLABLE = re.compile(r"[^\s<>]+")


@dataclass(frozen=True)
class MessageHead:
    """The parts of an assistant's header."""

    channel: str
    recipient: str | None = None
    content_type: str | None = None

    @property
    def end(self) -> Special:
        """The token that ends such a message."""
        if self.recipient is not None:
            return Special.CALL
        return Special.RETURN if self.channel == Channel.FINAL else Special.END


@dataclass(frozen=True)
class Allowed:
    """The allowed next tokens: ``tokens``, and all ordinary ones if ``ordinary`` is set."""

    tokens: frozenset[int]
    ordinary: bool = False


def legal_heads(conversation: Conversation) -> tuple[MessageHead, ...]:
    """Return every head that a message of the assistant can have in this conversation.

    Reasoning, preamble and answer; with a response format the answer may have the content type JSON. Tools are called
    in commentary or analysis, each first in its own channel. A tool whose name has spaces or angle brackets cannot be
    called.
    """
    heads = [MessageHead(channel.value) for channel in Channel]
    parts = [part for message in conversation for part in message.content]
    if any(isinstance(part, DeveloperContent) and part.response_formats for part in parts):
        heads.append(MessageHead(Channel.FINAL.value, content_type=JSON_TYPE))
    for part in parts:
        if isinstance(part, SystemContent | DeveloperContent):
            for namespace in part.tools.values():
                heads += _calls(namespace)
    return tuple(dict.fromkeys(heads))


def _calls(namespace: ToolNamespaceConfig) -> Iterator[MessageHead]:
    names = [f"{namespace.name}.{tool.name}" for tool in namespace.tools] or [namespace.name]
    own = namespace.name == FUNCTIONS_NAMESPACE
    if own and not namespace.tools:
        return
    for name in filter(_CALLABLE.fullmatch, names):
        # Functions belong to commentary, yet the models call them in analysis too: the recipient decides.
        for channel in (Channel.COMMENTARY, Channel.ANALYSIS) if own else (Channel.ANALYSIS, Channel.COMMENTARY):
            for content_type in _CALL_TYPES:
                yield MessageHead(channel.value, name, content_type)


@dataclass
class _Node:
    """A node of the trie; ``head`` is set on the leaves, which the message token leads to."""

    children: dict[int, _Node] = field(default_factory=dict)
    head: MessageHead | None = None

    @cached_property
    def allowed(self) -> Allowed:
        return Allowed(frozenset(self.children))


class HeaderGrammar:
    """The headers of ``heads`` as token ids.

    ``walk`` steps through a completion token by token. ``heads``, ``spellings``, ``end_token`` and ``author`` list
    the same grammar as data: a completion is a sequence of messages with ``author`` between them; each message is a
    spelling, any ordinary tokens, the end token. Another message may follow only after ``Special.END``.

    Raises:
        EncodingError: ``encoding`` lacks a special token that the headers need.
    """

    def __init__(self, encoding: Encoding, heads: Iterable[MessageHead]) -> None:
        self._encoding = encoding
        self._spellings = {head: tuple(self._spell(head)) for head in heads}
        self._author = (encoding.special(Special.START), *encoding.encode(Role.ASSISTANT.value))
        self._after_author = _Node()
        self._contents: dict[MessageHead, tuple[int, Allowed]] = {}
        for head, spellings in self._spellings.items():
            for spelling in spellings:
                _insert(self._after_author, spelling, _Node(head=head))
            end = encoding.special(head.end)
            self._contents[head] = (end, Allowed(frozenset({end}), ordinary=True))
        self._next_message = _Node()
        _insert(self._next_message, self._author, self._after_author)

    @classmethod
    def for_conversation(cls, conversation: Conversation, encoding: Encoding) -> HeaderGrammar:
        """Return the grammar of the assistant's next completion."""
        return cls(encoding, legal_heads(conversation))

    @property
    def heads(self) -> tuple[MessageHead, ...]:
        """Every legal head, each once."""
        return tuple(self._spellings)

    @property
    def author(self) -> tuple[int, ...]:
        """The tokens between two messages: the start token and the assistant's name."""
        return self._author

    def spellings(self, head: MessageHead) -> tuple[tuple[int, ...], ...]:
        """Return every legal header with this head: its tokens after the author's name, message token included.

        The first one has the channel first. No spelling is a prefix of another one, of any head.

        Raises:
            HeaderError: ``head`` is not legal here.
        """
        self._require(head)
        return self._spellings[head]

    def spell(self, head: MessageHead) -> tuple[int, ...]:
        """Return the first of the ``spellings``, which is the models' own.

        Raises:
            HeaderError: ``head`` is not legal here.
        """
        return self.spellings(head)[0]

    def end_token(self, head: MessageHead) -> int:
        """Return the token that ends a message with this head, the only special token allowed in its content.

        Raises:
            HeaderError: ``head`` is not legal here.
        """
        self._require(head)
        return self._contents[head][0]

    def walk(self, tokens: Iterable[int] = ()) -> HeaderWalk:
        """Return a walk that starts at the end of a prompt: after the author's name and ``tokens``.

        Raises:
            HeaderError: a token is not allowed there.
        """
        walk = HeaderWalk(self)
        for token in tokens:
            walk.advance(token)
        return walk

    def _require(self, head: MessageHead) -> None:
        if head not in self._spellings:
            raise HeaderError(f"{head} is not among the legal headers")

    def _spell(self, head: MessageHead) -> Iterator[tuple[int, ...]]:
        """Yield the spellings of a head: the recipient after the channel or before it."""
        encode, special = self._encoding.encode, self._encoding.special
        channel = (special(Special.CHANNEL), *encode(head.channel))
        recipient = None if head.recipient is None else encode(f" to={head.recipient}")
        for content_type in self._content_types(head.content_type):
            rest = (*content_type, special(Special.MESSAGE))
            if recipient is None:
                yield (*channel, *rest)
                continue
            yield (*channel, *recipient, *rest)
            yield (*recipient, *channel, *rest)

    def _content_types(self, content_type: str | None) -> Iterator[tuple[int, ...]]:
        """Yield the spellings of a content type; the models write the marker with a blank before it or without."""
        encode = self._encoding.encode
        if content_type is None:
            yield ()
        elif not content_type.startswith(Special.CONSTRAIN):
            yield (*encode(f" {content_type}"),)
        else:
            marked = (self._encoding.special(Special.CONSTRAIN), *encode(content_type.removeprefix(Special.CONSTRAIN)))
            yield (*encode(" "), *marked)
            yield marked


class HeaderWalk:
    """A position in the messages of one completion."""

    def __init__(self, grammar: HeaderGrammar) -> None:
        self._grammar = grammar
        self._node = grammar._after_author
        self.is_done = False

    @property
    def head(self) -> MessageHead | None:
        """The head of the message whose content comes next; None in headers and between messages."""
        return None if self.is_done else self._node.head

    @property
    def allowed(self) -> Allowed:
        """The allowed next tokens; none after the end of the completion."""
        if self.is_done:
            return Allowed(frozenset())
        head = self._node.head
        return self._node.allowed if head is None else self._grammar._contents[head][1]

    def advance(self, token: int) -> None:
        """Consume a token. In content, every token but the end token counts as text.

        Raises:
            HeaderError: the token is not allowed here.
        """
        head = self._node.head
        if self.is_done:
            raise HeaderError(f"token {token} comes after the end of the completion")
        if head is None:
            if token not in self._node.children:
                raise HeaderError(f"token {token} continues no legal header")
            self._node = self._node.children[token]
        elif token == self._grammar._contents[head][0]:
            self.is_done = head.end is not Special.END
            self._node = self._grammar._next_message


def _insert(root: _Node, tokens: Sequence[int], leaf: _Node) -> None:
    node = root
    for token in tokens[:-1]:
        node = node.children.setdefault(token, _Node())
    # No two heads share a spelling.
    node.children[tokens[-1]] = leaf
