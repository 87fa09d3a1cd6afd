"""The end of reasoning: after so many tokens, or when the person says so."""

from __future__ import annotations

import codecs
import threading

from gptoss.harmony import Channel, Encoding, HeaderGrammar, HeaderWalk, MessageHead, Role, Special
from gptoss.model.constraint import Forced, Hold


class ReasoningBudget:
    """Closes the reasoning and begins the answer, by forced tokens.

    Reasoning that is called for again after that, or before a token of it is allowed, is closed empty. Calls of tools
    and preambles are no reasoning. No character is cut in two: its last bytes may exceed the budget.

    Args:
        encoding: of the tokens.
        grammar: of the headers.
        walk: where the completion stands; this constraint's own.
        tokens: how many tokens of reasoning the turn may have; None sets no limit.
    """

    def __init__(self, encoding: Encoding, grammar: HeaderGrammar, walk: HeaderWalk, tokens: int | None = None) -> None:
        author = [encoding.special(Special.START), *encoding.encode(Role.ASSISTANT.value)]
        answer = grammar.spell(MessageHead(Channel.FINAL.value))
        self._closing = Forced((encoding.special(Special.END), *author, *answer))
        self._encoding = encoding
        self._walk = walk
        self._left = tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._answer_now = threading.Event()

    def answer_now(self) -> None:
        """End the reasoning at the next token, from any thread."""
        self._answer_now.set()

    def next(self) -> Hold:
        """The closing where the reasoning is to end."""
        is_spent = self._answer_now.is_set() or (self._left is not None and self._left <= 0)
        in_character = bool(self._decoder.getstate()[0])
        return self._closing if is_spent and self._reasons and not in_character else None

    def accept(self, token_id: int) -> bool:
        """Counts the tokens of reasoning."""
        was_reasoning = self._reasons
        self._walk.advance(token_id)
        if not self._reasons:
            self._decoder.reset()
        elif was_reasoning:
            self._decoder.decode(self._encoding.token_bytes(token_id))
            if self._left is not None:
                self._left -= 1
        return False

    @property
    def _reasons(self) -> bool:
        head = self._walk.head
        return head is not None and head.channel == Channel.ANALYSIS and head.recipient is None
