"""All that holds one turn, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gptoss.cli.constraints.budget import ReasoningBudget
from gptoss.cli.constraints.contents import ContentHolding
from gptoss.cli.constraints.grammars import Grammar, GrammarEngine
from gptoss.cli.constraints.headers import HeaderHolding
from gptoss.cli.constraints.masks import Masks
from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.harmony import Conversation, DeveloperContent, Encoding, HeaderGrammar, ToolNamespaceConfig
from gptoss.harmony.content import FUNCTIONS_NAMESPACE
from gptoss.model.constraint import Constraint, Constraints

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class HeldTurn:
    """What the engine is to obey, and the part of it that answers to the person."""

    constraint: Constraints
    budget: ReasoningBudget


class TurnHolding:
    """What holds the turns of a session; keeps what is dear to make.

    Args:
        encoding: of the tokens.
        answer: the grammar of answers, if any.
        think_budget: how many tokens of reasoning a turn may have; None sets no limit.
    """

    def __init__(self, encoding: Encoding, answer: Grammar | None = None, think_budget: int | None = None) -> None:
        self._encoding = encoding
        self._answer = answer
        self._think_budget = think_budget
        self._masks = Masks(encoding)
        self._engine = GrammarEngine(encoding)
        if answer is not None:
            self._engine.warm()

    def hold(self, conversation: Conversation, header: Iterable[int] = ()) -> HeldTurn:
        """The constraints of the assistant's next turn.

        Args:
            conversation: what the prompt is rendered from; its tools are those that can be called.
            header: tokens of the first header that stand in the prompt already.

        Raises:
            SchemaError: the arguments of a function cannot be held to its schema.
        """
        header = tuple(header)
        grammar = HeaderGrammar.for_conversation(conversation, self._encoding)
        arguments = _arguments(conversation)
        budget = ReasoningBudget(self._encoding, grammar, grammar.walk(header), self._think_budget)
        parts: list[Constraint] = [budget, HeaderHolding(grammar.walk(header), self._masks)]
        if self._answer is not None or arguments:
            parts.append(ContentHolding(grammar.walk(header), self._engine, self._answer, arguments))
        return HeldTurn(Constraints(*parts), budget)


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
