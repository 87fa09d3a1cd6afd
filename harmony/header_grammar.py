"""Which tokens may come next in a completion, so that no header of it can be malformed.

The legal headers of a conversation are finite in number: its channels, the tools that exist, the known content types.
Each is spelled in one way, the canonical one: every part encoded by itself, as the renderer does and as the models
were trained. So they form a trie over token ids, and to walk it costs one look-up a token.

    (start) assistant (channel) analysis (message) ... (end)
    (start) assistant (channel) final (message) ... (return)
    (start) assistant (channel) commentary to=functions.f (constrain)json (message) ... (call)
    (start) assistant to=functions.f (channel) commentary (constrain)json (message) ... (call)

In the content of a message all ordinary tokens may come, and of the special ones only that which ends such a message.
The parser's recovery is for what was not sampled under this grammar.
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
"""The content type of arguments and answers that follow a schema (format guide, "Receiving tool calls")."""

_FUNCTION_TYPES = (None, JSON_TYPE, "json")
_BUILTIN_TYPES = (*_FUNCTION_TYPES, "code")  # python's code (format guide, "Python tool")
_CALLABLE = re.compile(r"[^\s<>]+")


@dataclass(frozen=True)
class MessageHead:
    """What a header says of its message; the author is the assistant."""

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
    """The tokens that may come: these, and all ordinary ones where ``ordinary`` says so."""

    tokens: frozenset[int]
    ordinary: bool = False


def legal_heads(conversation: Conversation) -> tuple[MessageHead, ...]:
    """Return every head that an assistant's message in this conversation can have.

    Reasoning, preamble and answer; an answer under a response format may name JSON as its content type. Functions are
    called in the commentary channel, built-in tools in analysis or commentary. A tool whose name cannot stand in a
    header cannot be called.
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
    channels = (Channel.COMMENTARY,) if own else (Channel.ANALYSIS, Channel.COMMENTARY)
    for name in filter(_CALLABLE.fullmatch, names):
        for channel in channels:
            for content_type in _FUNCTION_TYPES if own else _BUILTIN_TYPES:
                yield MessageHead(channel.value, name, content_type)


@dataclass
class _Node:
    """A place in a header, by the tokens that lead to it; a ``head`` is where the message token leads to."""

    children: dict[int, _Node] = field(default_factory=dict)
    head: MessageHead | None = None

    @cached_property
    def allowed(self) -> Allowed:
        return Allowed(frozenset(self.children))


class HeaderGrammar:
    """The headers of ``heads`` as token ids.

    A constraint that is stepped walks them (``walk``). One that is described to a remote engine reads the parts:
    ``heads``, ``spellings``, ``end_token`` and ``author``. A completion is a sequence of messages with ``author``
    between them; each is a spelling, any ordinary tokens, an end token. It goes on after ``Special.END`` only.

    Raises:
        EncodingError: ``encoding`` lacks a special token that they need.
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
        """Return the grammar of what the assistant may say next."""
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
        """Return every legal header of ``head``: its tokens from after the author's name to the message token.

        No spelling of any head is a prefix of another. The channel comes first in the first one.

        Raises:
            HeaderError: ``head`` is not legal here.
        """
        self._require(head)
        return self._spellings[head]

    def spell(self, head: MessageHead) -> tuple[int, ...]:
        """Return the first of the ``spellings``, which is what the models write."""
        return self.spellings(head)[0]

    def end_token(self, head: MessageHead) -> int:
        """Return the one special token that may come in the content of such a message; it ends the message.

        Raises:
            HeaderError: ``head`` is not legal here.
        """
        self._require(head)
        return self._contents[head][0]

    def walk(self, tokens: Iterable[int] = ()) -> HeaderWalk:
        """Return a walk that begins where a prompt ends: after the author's name and ``tokens``."""
        walk = HeaderWalk(self)
        for token in tokens:
            walk.advance(token)
        return walk

    def _require(self, head: MessageHead) -> None:
        if head not in self._spellings:
            raise HeaderError(f"{head} is not among the legal headers")

    def _spell(self, head: MessageHead) -> Iterator[tuple[int, ...]]:
        """The recipient may stand after the channel or before it."""
        encode, special = self._encoding.encode, self._encoding.special
        channel = (special(Special.CHANNEL), *encode(head.channel))
        rest = (*self._content_type(head.content_type), special(Special.MESSAGE))
        if head.recipient is None:
            yield (*channel, *rest)
            return
        recipient = encode(f" to={head.recipient}")
        yield (*channel, *recipient, *rest)
        yield (*recipient, *channel, *rest)

    def _content_type(self, content_type: str | None) -> list[int]:
        encode = self._encoding.encode
        if content_type is None:
            return []
        if not content_type.startswith(Special.CONSTRAIN):
            return encode(f" {content_type}")
        constrain = self._encoding.special(Special.CONSTRAIN)
        return [*encode(" "), constrain, *encode(content_type.removeprefix(Special.CONSTRAIN))]


class HeaderWalk:
    """Where in the messages of one completion the next token stands."""

    def __init__(self, grammar: HeaderGrammar) -> None:
        self._grammar = grammar
        self._node = grammar._after_author
        self.is_done = False

    @property
    def head(self) -> MessageHead | None:
        """The head of the message whose content is coming; None in headers and between messages."""
        return None if self.is_done else self._node.head

    @property
    def allowed(self) -> Allowed:
        """What may come next; nothing once the completion is done."""
        if self.is_done:
            return Allowed(frozenset())
        head = self._node.head
        return self._node.allowed if head is None else self._grammar._contents[head][1]

    def advance(self, token: int) -> None:
        """Take a token.

        Raises:
            HeaderError: it may not come here. In contents every token but that which ends the message is taken as
                text.
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
    # Two heads are never spelled alike.
    node.children[tokens[-1]] = leaf
