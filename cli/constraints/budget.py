"""The constraint that ends the reasoning: after so many tokens, or when the user asks for the answer."""

from __future__ import annotations

import codecs
import threading

from gptoss.harmony import Channel, Encoding, HeaderGrammar, HeaderWalk, MessageHead
from gptoss.model.constraint import Forced, Hold

ANSWER = MessageHead(Channel.FINAL.value)


def is_reasoning(head: MessageHead) -> bool:
    """Return whether the content of such a message is reasoning; calls of tools and preambles are not."""
    return head.channel == Channel.ANALYSIS and head.recipient is None


def closing_tokens(headers: HeaderGrammar) -> tuple[int, ...]:
    """Return the tokens that end the reasoning and begin the answer."""
    return (headers.end_token(MessageHead(Channel.ANALYSIS.value)), *headers.author, *headers.spell(ANSWER))


class ReasoningBudget:
    """Forces the tokens that end the reasoning and begin the answer.

    The tokens of all reasoning in the turn count together. Once they are used up, further reasoning is closed empty.
    The budget may be exceeded by up to three tokens, so that no character is cut.

    Args:
        encoding: the vocabulary.
        headers: the legal headers.
        walk: the position in the completion; owned by this constraint.
        max_tokens: the most tokens of reasoning in the turn; None sets no limit.
    """

    def __init__(
        self, encoding: Encoding, headers: HeaderGrammar, walk: HeaderWalk, max_tokens: int | None = None
    ) -> None:
        self._closing = Forced(closing_tokens(headers))
        self._encoding = encoding
        self._walk = walk
        self._left = max_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._answer_now = threading.Event()

    def answer_now(self) -> None:
        """End the reasoning at the next token; may be called from any thread."""
        self._answer_now.set()

    def next(self) -> Hold:
        """Return the closing tokens where the reasoning has to end."""
        return self.forced()

    def forced(self) -> Forced | None:
        """Return the closing tokens where the reasoning has to end."""
        is_spent = self._answer_now.is_set() or (self._left is not None and self._left <= 0)
        in_character = bool(self._decoder.getstate()[0])
        return self._closing if is_spent and self._in_reasoning and not in_character else None

    def allows(self, token_id: int) -> bool:  # noqa: ARG002 - as the interface
        """Allow any token."""
        return True

    def accept(self, token_id: int) -> bool:
        """Take a token and count it if it is reasoning; the completion is never complete with it."""
        was_reasoning = self._in_reasoning
        self._walk.advance(token_id)
        if not self._in_reasoning:
            self._decoder.reset()
        elif was_reasoning:
            self._decoder.decode(self._encoding.token_bytes(token_id))
            if self._left is not None:
                self._left -= 1
        return False

    @property
    def _in_reasoning(self) -> bool:
        head = self._walk.head
        return head is not None and is_reasoning(head)
