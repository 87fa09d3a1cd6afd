"""The constraint on one turn, and the factory that shares the tables of a vocabulary between turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache, partial

from gptoss.cli.constraints.budget import ReasoningBudget
from gptoss.cli.constraints.completion import CompletionConstraint
from gptoss.cli.constraints.content import ContentConstraint, TurnGrammars
from gptoss.cli.constraints.description import describe_turn
from gptoss.cli.constraints.grammars import Grammar, GrammarEngine
from gptoss.cli.constraints.headers import HeaderConstraint
from gptoss.cli.constraints.masks import MaskCache
from gptoss.cli.constraints.schemas import SchemaCache
from gptoss.cli.constraints.tool_choice import AUTO, ToolChoice
from gptoss.harmony import Conversation, Encoding, HeaderGrammar, legal_heads
from gptoss.model.constraint import Constraints, Forced, Hold, StepwiseConstraint
from gptoss.model.constraint_description import Description

_MAX_HEADER_GRAMMARS = 32


class TurnConstraint:
    """The constraint on one turn: headers, contents and the reasoning budget.

    Args:
        joined: all constraints of the turn, the budget among them.
        budget: answers to `answer_now`.
        grammars: of the contents.
        describe: describes the turn.
    """

    def __init__(
        self,
        joined: Constraints,
        budget: ReasoningBudget,
        grammars: TurnGrammars,
        describe: Callable[[], Description | None],
    ) -> None:
        self._joined = joined
        self._budget = budget
        self._grammars = grammars
        self._describe = describe

    def next(self) -> Hold:
        """Return what may come next.

        Raises:
            ConstraintError: nothing may come, or the grammar engine has reached one of its limits.
        """
        return self._joined.next()

    def forced(self) -> Forced | None:
        """Return the tokens that end the reasoning, where it has to end."""
        return self._joined.forced()

    def allows(self, token_id: int) -> bool:
        """Return whether the next token may be this one."""
        return self._joined.allows(token_id)

    def accept(self, token_id: int) -> bool:
        """Take a token; return whether the completion is complete with it.

        Raises:
            ConstraintError: the token does not follow a grammar, or the grammar engine has reached one of its limits.
            HeaderError: the token continues no legal header.
        """
        return self._joined.accept(token_id)

    def describe(self) -> Description | None:
        """Describe the whole turn; `answer_now` is not part of it.

        None: the prompt has more of the completion than its first header.
        """
        return self._describe()

    def answer_now(self) -> None:
        """End the reasoning at the next token; may be called from any thread."""
        self._budget.answer_now()

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user about this turn's constraints; more may come during the turn."""
        return self._grammars.notes


class ConstraintFactory:
    """Makes the constraints of turns over one vocabulary. Sessions and threads may share it.

    Masks, llguidance's table of the vocabulary, headers and compiled schemas are built once, when they are needed.

    Args:
        encoding: the vocabulary.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._masks = MaskCache(encoding)
        self._engine = GrammarEngine(encoding)
        self._schemas = SchemaCache()
        # Ten milliseconds for a hundred functions.
        self._headers = lru_cache(maxsize=_MAX_HEADER_GRAMMARS)(partial(HeaderGrammar, encoding))

    def warm(self) -> None:
        """Build llguidance's table in a thread of its own; return at once. `turn` does so where it may be needed."""
        self._engine.warm()

    def completion(
        self,
        source: str | None,
        *,
        is_json: bool = False,
        allowed: Collection[int] | None = None,
        forbidden: Collection[int] = (),
    ) -> CompletionConstraint:
        """Return the constraint on a completion of token ids.

        Args:
            source: a grammar in llguidance's notation; None: none.
            is_json: its texts are JSON.
            allowed: the only tokens that may come; None: any.
            forbidden: tokens that may not.

        Raises:
            ConstraintError: the grammar engine does not accept the grammar.
        """
        matcher = None if source is None else self._engine.matcher_of(source, is_json=is_json)
        encoding = self._encoding
        return CompletionConstraint(matcher, encoding.vocab_size, allowed, forbidden, encoding.stop_tokens)

    def turn(
        self,
        conversation: Conversation,
        header: Iterable[int] = (),
        said: Iterable[int] = (),
        *,
        answer: Grammar | None = None,
        think_budget: int | None = None,
        tool_choice: ToolChoice = AUTO,
    ) -> TurnConstraint:
        """Return the constraint on the assistant's next turn.

        Args:
            conversation: what the prompt is rendered from; its tools are those that can be called.
            header: tokens of the first header that already stand in the prompt.
            said: tokens of the content below that header that already stand there.
            answer: the grammar of the answer; None allows any text.
            think_budget: the most tokens of reasoning in the turn; None sets no limit.
            tool_choice: which tools may be called, and whether one must be.

        Raises:
            HeaderError: `header` is no beginning of a completion.
            ConstraintError: `said` does not follow the grammar.
        """
        header, said = tuple(header), tuple(said)
        legal = legal_heads(conversation)
        headers = self._headers(tool_choice.heads(legal))
        grammars = TurnGrammars(conversation, answer, self._schemas)
        calls = tool_choice.calls(legal)
        only_calls = (self._headers(calls), self._masks) if calls else None
        budget = ReasoningBudget(self._encoding, headers, headers.walk(header), think_budget, only_calls)
        parts: list[StepwiseConstraint] = [budget, HeaderConstraint(headers.walk(header), self._masks)]
        if not grammars.is_empty:
            self.warm()
            parts.append(ContentConstraint(headers.walk(header), self._engine, grammars))
        describe = partial(describe_turn, self._encoding, headers, (*header, *said), grammars, think_budget)
        turn = TurnConstraint(Constraints(*parts), budget, grammars, describe)
        for token in said:
            turn.accept(token)
        return turn
