"""What a constraint says of itself to an engine that cannot ask it token by token.

The description is a tree of token ids and grammar sources, without text of the format and without torch. An engine
translates it to its own grammar notation; `constraint_lark.py` does so for llguidance.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JsonSchema:
    """Content is JSON that is valid under a schema.

    Attributes:
        text: the schema as JSON text. Its `x-guidance` holds llguidance's options, such as the white space to allow;
            to everything else that is an unknown keyword.
    """

    text: str


@dataclass(frozen=True)
class Regex:
    """Content matches a regular expression from beginning to end."""

    pattern: str


@dataclass(frozen=True)
class Choices:
    """Content is one of these texts."""

    texts: tuple[str, ...]


ContentGrammar = JsonSchema | Regex | Choices


@dataclass(frozen=True)
class MessageForm:
    """One kind of message that a completion may have.

    Attributes:
        headers: all spellings of its header: the tokens after the author up to and including the message token.
        end: the token that ends it.
        completes: the completion is complete with its end.
        content: the grammar of its content; None allows any tokens that are not special.
    """

    headers: tuple[tuple[int, ...], ...]
    end: int
    completes: bool
    content: ContentGrammar | None = None


@dataclass(frozen=True)
class TokenBudget:
    """A limit on the content of one kind of message, over all such messages of the completion together.

    Attributes:
        message: whose content tokens count.
        max_tokens: the most of them.
        closing: the tokens that come once these are used up and such a message is open: its end, the author, and a
            header of `then`.
        then: the message that the closing opens; None: the closing ends with the author, and any message that
            completes the completion follows.
    """

    message: MessageForm
    max_tokens: int
    closing: tuple[int, ...]
    then: MessageForm | None


@dataclass(frozen=True)
class Description:
    """A whole completion: one message after the other, until one completes it.

        first message [author message]...

    Attributes:
        header: the tokens of the first header that already stand in the prompt.
        author: the tokens between the end of a message and the header of the next.
        messages: the kinds of messages that may come, in any order.
        special: the ids that no content has, except as the end of its message. Unused ids are among them.
        budget: the limit on one kind of message, if there is one.
    """

    header: tuple[int, ...]
    author: tuple[int, ...]
    messages: tuple[MessageForm, ...]
    special: frozenset[int]
    budget: TokenBudget | None = None
