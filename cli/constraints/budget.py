"""The constraint that ends the reasoning: after so many tokens, or when the user asks for the answer.

Where the completion has to end in a call, a call follows in the answer's place.
"""

from __future__ import annotations

import codecs
import threading

from gptoss.cli.constraints.masks import MaskCache
from gptoss.harmony import Channel, Encoding, HeaderGrammar, HeaderWalk, MessageHead
from gptoss.model.constraint import Forced, Hold

ANSWER = MessageHead(Channel.FINAL.value)


def is_reasoning(head: MessageHead) -> bool:
    """Return whether the content of such a message is reasoning; calls of tools and preambles are not."""
    return head.channel == Channel.ANALYSIS and head.recipient is None


def closing_tokens(headers: HeaderGrammar) -> tuple[int, ...]:
    """Return the tokens that end the reasoning and begin the answer; without an answer, the header of a call."""
    closing = (headers.end_token(MessageHead(Channel.ANALYSIS.value)), *headers.author)
    return (*closing, *headers.spell(ANSWER)) if ANSWER in headers.heads else closing


class ReasoningBudget:
    """Forces the tokens that end the reasoning and begin the answer.

    The tokens of all reasoning in the turn count together. Once they are used up, further reasoning is closed empty.
    The budget may be exceeded by up to three tokens, so that no character is cut.

    Args:
        encoding: the vocabulary.
        headers: the legal headers.
        walk: the position in the completion; owned by this constraint.
        max_tokens: the most tokens of reasoning in the turn; None sets no limit.
        calls: for a completion that has to end in a call: the headers of calls alone, one of which follows the
            reasoning, and the masks of the vocabulary.
    """

    def __init__(
        self,
        encoding: Encoding,
        headers: HeaderGrammar,
        walk: HeaderWalk,
        max_tokens: int | None = None,
        calls: tuple[HeaderGrammar, MaskCache] | None = None,
    ) -> None:
        self._closing = Forced(closing_tokens(headers))
        self._calls = calls
        self._author_left = 0
        self._call_walk: HeaderWalk | None = None
        self._encoding = encoding
        self._walk = walk
        self._left = max_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._answer_now = threading.Event()

    def answer_now(self) -> None:
        """End the reasoning at the next token; may be called from any thread."""
        self._answer_now.set()

    def next(self) -> Hold:
        """Return the closing tokens where the reasoning has to end, and the header of a call after them."""
        if self._calls is not None and self._call_walk is not None:
            return self._calls[1].mask(self._call_walk.allowed)
        return self.forced()

    def forced(self) -> Forced | None:
        """Return the closing tokens where the reasoning has to end."""
        in_character = bool(self._decoder.getstate()[0])
        return self._closing if self._is_spent and self._in_reasoning and not in_character else None

    def allows(self, token_id: int) -> bool:
        """Allow any token, but in the header of a call that has to come."""
        if self._calls is None or self._call_walk is None:
            return True
        allowed = self._call_walk.allowed
        return token_id in allowed.tokens or (allowed.ordinary and self._calls[1].is_ordinary(token_id))

    def accept(self, token_id: int) -> bool:
        """Take a token and count it if it is reasoning; the completion is never complete with it."""
        was_reasoning, was_spent = self._in_reasoning, self._is_spent
        self._walk.advance(token_id)
        if self._calls is not None:
            self._follow_to_call(token_id, self._calls[0], was_reasoning and was_spent and not self._in_reasoning)
        if not self._in_reasoning:
            self._decoder.reset()
        elif was_reasoning:
            self._decoder.decode(self._encoding.token_bytes(token_id))
            if self._left is not None:
                self._left -= 1
        return False

    def _follow_to_call(self, token_id: int, calls: HeaderGrammar, is_closed: bool) -> None:
        """Count the author's tokens after spent reasoning, then follow the header of the call."""
        if self._call_walk is not None:
            self._call_walk.advance(token_id)
        elif self._author_left:
            self._author_left -= 1
            self._call_walk = None if self._author_left else calls.walk()
        elif is_closed:
            self._author_left = len(calls.author)

    @property
    def _is_spent(self) -> bool:
        return self._answer_now.is_set() or (self._left is not None and self._left <= 0)

    @property
    def _in_reasoning(self) -> bool:
        head = self._walk.head
        return head is not None and is_reasoning(head)
