"""The constraint on one turn, and the factory that shares the tables of a vocabulary between turns."""

from __future__ import annotations

from collections.abc import Iterable

from gptoss.cli.constraints.budget import ReasoningBudget
from gptoss.cli.constraints.contents import ContentHolding
from gptoss.cli.constraints.grammars import Grammar, GrammarEngine
from gptoss.cli.constraints.headers import HeaderHolding
from gptoss.cli.constraints.masks import Masks
from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.harmony import Conversation, DeveloperContent, Encoding, HeaderGrammar, ToolNamespaceConfig
from gptoss.harmony.content import FUNCTIONS_NAMESPACE
from gptoss.model.constraint import Constraints, Hold, StepwiseConstraint
from gptoss.model.constraint_description import Description

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


class TurnConstraint:
    """The constraint on one turn: headers, contents and the reasoning budget.

    Args:
        parts: all constraints of the turn, the budget among them.
        budget: answers to `answer_now`.
    """

    def __init__(self, parts: Iterable[StepwiseConstraint], budget: ReasoningBudget) -> None:
        self._joined = Constraints(*parts)
        self._budget = budget

    def next(self) -> Hold:
        """Return what may come next.

        Raises:
            ConstraintError: nothing may come, or the grammar engine has reached one of its limits.
        """
        return self._joined.next()

    def accept(self, token_id: int) -> bool:
        """Take a token; return whether the completion is complete with it."""
        return self._joined.accept(token_id)

    def describe(self) -> Description | None:
        """Return the description of the whole turn, or None if there is none."""
        return None

    def answer_now(self) -> None:
        """End the reasoning at the next token; may be called from any thread."""
        self._budget.answer_now()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told about the constraints of this turn; grows during the turn."""
        return ()


class ConstraintFactory:
    """Makes the constraints of turns over one vocabulary. Sessions and threads may share it.

    Args:
        encoding: the vocabulary.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._masks = Masks(encoding)
        self._engine = GrammarEngine(encoding)

    def warm(self) -> None:
        """Begin to build the tables for grammars in a thread of their own; returns at once."""
        self._engine.warm()

    def turn(
        self,
        conversation: Conversation,
        header: Iterable[int] = (),
        *,
        answer: Grammar | None = None,
        think_budget: int | None = None,
    ) -> TurnConstraint:
        """Return the constraint on the assistant's next turn.

        Args:
            conversation: what the prompt is rendered from; its tools are those that can be called.
            header: tokens of the first header that already stand in the prompt.
            answer: the grammar of the answer; None allows any text.
            think_budget: the most tokens of reasoning in the turn; None sets no limit.

        Raises:
            SchemaError: the arguments of a function cannot be held to its schema.
        """
        header = tuple(header)
        grammar = HeaderGrammar.for_conversation(conversation, self._encoding)
        arguments = _arguments(conversation)
        budget = ReasoningBudget(self._encoding, grammar, grammar.walk(header), think_budget)
        parts: list[StepwiseConstraint] = [budget, HeaderHolding(grammar.walk(header), self._masks)]
        if answer is not None or arguments:
            self.warm()
            parts.append(ContentHolding(grammar.walk(header), self._engine, answer, arguments))
        return TurnConstraint(parts, budget)


def _arguments(conversation: Conversation) -> dict[str, Grammar]:
    """The grammars of the functions' arguments by recipient."""
    contents = [part for message in conversation for part in message.content if isinstance(part, DeveloperContent)]
    grammars = {}
    for content in contents:
        namespace = content.tools.get(FUNCTIONS_NAMESPACE, ToolNamespaceConfig(FUNCTIONS_NAMESPACE))
        for tool in namespace.tools:
            name = f"{FUNCTIONS_NAMESPACE}.{tool.name}"
            grammars[name] = schema_grammar(tool.parameters or _NO_ARGUMENTS, f"the parameters of {name}")
    return grammars
