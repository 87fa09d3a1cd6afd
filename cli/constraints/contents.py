"""Contents that follow a grammar: the answer, and the arguments of a function once the header has named it."""

from __future__ import annotations

from collections.abc import Mapping

from gptoss.cli.constraints.grammars import Grammar, GrammarEngine, Matcher
from gptoss.harmony import Channel, HeaderWalk, MessageHead
from gptoss.model.constraint import Hold


class ContentHolding:
    """Holds contents to the grammar of their recipient; reasoning and all else is free.

    Args:
        walk: where the completion stands; this constraint's own.
        engine: makes the matchers.
        answer: the grammar of the final channel, if any.
        arguments: the grammars of functions by recipient.
    """

    def __init__(
        self, walk: HeaderWalk, engine: GrammarEngine, answer: Grammar | None, arguments: Mapping[str, Grammar]
    ) -> None:
        self._walk = walk
        self._engine = engine
        self._answer = answer
        self._arguments = arguments
        self._matcher: Matcher | None = None
        self._choose()

    def next(self) -> Hold:
        """What the grammar lets come.

        Raises:
            ConstraintError: the grammar engine has reached a limit of its own.
        """
        return None if self._matcher is None else self._matcher.next()

    def accept(self, token_id: int) -> bool:
        """Follow the text of the content."""
        before = self._walk.head
        self._walk.advance(token_id)
        if before is None:
            self._choose()
        elif self._walk.head is None:
            self._matcher = None
        elif self._matcher is not None:
            self._matcher.accept(token_id)
        return False

    def _choose(self) -> None:
        head = self._walk.head
        grammar = None if head is None else self._grammar(head)
        self._matcher = None if grammar is None else self._engine.matcher(grammar)

    def _grammar(self, head: MessageHead) -> Grammar | None:
        if head.recipient is not None:
            return self._arguments.get(head.recipient)
        return self._answer if head.channel == Channel.FINAL else None
