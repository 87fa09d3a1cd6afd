"""The constraint on contents: the answer, and the arguments of a function once the header has named it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss.cli.constraints.grammars import Grammar, GrammarEngine, Matcher
from gptoss.cli.constraints.schemas import SchemaCache
from gptoss.harmony import Channel, Conversation, DeveloperContent, HeaderWalk, MessageHead
from gptoss.harmony.content import FUNCTIONS_NAMESPACE
from gptoss.model.constraint import Forced, Hold

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


class TurnGrammars:
    """Which contents of one turn follow which grammar. A function's schema is compiled when it is first asked for.

    Args:
        conversation: its functions are those that can be called.
        answer: the grammar of the answer; None allows any text.
        schemas: the compiled schemas.

    Attributes:
        notes: one line for each function whose arguments cannot be constrained to its schema, as far as that is known.
    """

    def __init__(self, conversation: Conversation, answer: Grammar | None, schemas: SchemaCache) -> None:
        self._answer = answer
        self._parameters = _function_parameters(conversation)
        self._schemas = schemas
        self.notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no content follows any grammar."""
        return self._answer is None and not self._parameters

    def grammar(self, head: MessageHead) -> Grammar | None:
        """Return the grammar of the content under a header; None allows any text."""
        if head.recipient is None:
            return self._answer if head.channel == Channel.FINAL else None
        parameters = self._parameters.get(head.recipient)
        if parameters is None or parameters.get("type") == "string":  # the text itself is the argument
            return None
        compiled = self._schemas.get(parameters)
        if compiled.problem:
            self._note(f"{head.recipient}: any JSON object is allowed as arguments: schema: {compiled.problem}")
        for note in compiled.notes:
            self._note(f"{head.recipient}: schema: {note}")
        return compiled.grammar

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes += (note,)


class ContentConstraint:
    """Constrains contents to their grammars; reasoning and everything else without a grammar is free.

    Args:
        walk: the position in the completion; owned by this constraint.
        engine: makes the matchers.
        grammars: of the turn.
    """

    def __init__(self, walk: HeaderWalk, engine: GrammarEngine, grammars: TurnGrammars) -> None:
        self._walk = walk
        self._engine = engine
        self._grammars = grammars
        self._matcher: Matcher | None = None
        # Looked up when the content's first token is asked for, so that a turn begins without waiting for the engine.
        self._is_chosen = False

    def next(self) -> Hold:
        """Return the mask of the content's grammar.

        Raises:
            ConstraintError: the grammar engine has reached one of its limits.
        """
        matcher = self._current_matcher()
        return None if matcher is None else matcher.next()

    def forced(self) -> Forced | None:
        """Force nothing."""
        return None

    def allows(self, token_id: int) -> bool:
        """Return whether the content's grammar continues with this token.

        Raises:
            ConstraintError: the grammar engine has reached one of its limits.
        """
        matcher = self._current_matcher()
        return matcher is None or matcher.allows(token_id)

    def accept(self, token_id: int) -> bool:
        """Take a token and follow the content; the completion is never complete with it."""
        matcher = self._current_matcher()
        self._walk.advance(token_id)
        if self._walk.head is None:
            self._matcher, self._is_chosen = None, False
        elif matcher is not None:
            matcher.accept(token_id)
        return False

    def _current_matcher(self) -> Matcher | None:
        head = self._walk.head
        if head is not None and not self._is_chosen:
            grammar = self._grammars.grammar(head)
            self._matcher = None if grammar is None else self._engine.matcher(grammar)
            self._is_chosen = True
        return self._matcher


def _function_parameters(conversation: Conversation) -> dict[str, Mapping[str, Any]]:
    """Return the schemas of the functions' arguments by recipient."""
    contents = [part for message in conversation for part in message.content if isinstance(part, DeveloperContent)]
    namespaces = [content.tools[FUNCTIONS_NAMESPACE] for content in contents if FUNCTIONS_NAMESPACE in content.tools]
    return {
        f"{FUNCTIONS_NAMESPACE}.{tool.name}": _NO_ARGUMENTS if tool.parameters is None else tool.parameters
        for namespace in namespaces
        for tool in namespace.tools
    }
