"""A whole turn, described for an engine that cannot be asked token by token."""

from __future__ import annotations

from gptoss.cli.constraints.budget import ANSWER, closing_tokens, is_reasoning
from gptoss.cli.constraints.content import TurnGrammars
from gptoss.harmony import Encoding, HeaderGrammar, MessageHead, Special
from gptoss.model.constraint_description import Description, MessageForm, TokenBudget


def describe_turn(
    encoding: Encoding,
    headers: HeaderGrammar,
    header: tuple[int, ...],
    grammars: TurnGrammars,
    think_budget: int | None,
) -> Description | None:
    """Describe what the constraints of a turn allow together.

    Compiles the schemas of all functions, because one that is not supported here is described as any JSON object too.

    Args:
        encoding: the vocabulary.
        headers: the legal headers.
        header: tokens of the first header that already stand in the prompt.
        grammars: of the contents.
        think_budget: the most tokens of reasoning; None sets no limit.

    Returns:
        The description; None if the prompt has more than a part of the first header or all of it.
    """
    forms = _forms(headers, grammars)
    if not any(spelling[: len(header)] == header for form in forms.values() for spelling in form.headers):
        return None
    budget = None
    if think_budget is not None:
        reasoning = next(form for heads, form in forms.items() if is_reasoning(heads[0]))
        answer = next((form for heads, form in forms.items() if ANSWER in heads), None)
        budget = TokenBudget(reasoning, think_budget, closing_tokens(headers), answer)
    special = frozenset(range(encoding.vocab_size)) - encoding.ordinary_tokens
    return Description(header, headers.author, tuple(forms.values()), special, budget)


def _forms(headers: HeaderGrammar, grammars: TurnGrammars) -> dict[tuple[MessageHead, ...], MessageForm]:
    """Heads that differ in their spelling alone, by channel or content type, are one form."""
    kinds: dict[tuple[str | None, str | None], list[MessageHead]] = {}
    for head in headers.heads:
        kinds.setdefault((head.recipient, None if head.recipient else head.channel), []).append(head)
    return {
        tuple(heads): MessageForm(
            headers=tuple(spelling for head in heads for spelling in headers.spellings(head)),
            end=headers.end_token(heads[0]),
            completes=heads[0].end is not Special.END,
            content=None if (grammar := grammars.grammar(heads[0])) is None else grammar.content,
        )
        for heads in kinds.values()
    }
