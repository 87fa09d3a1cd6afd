"""A turn asked token by token and the same turn as one Lark grammar allow the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from constrained_sampling import choose, members
from llguidance import LLMatcher, LLTokenizer

from gptoss.cli.constraints.grammars import Grammar, llguidance_tokenizer
from gptoss.cli.constraints.tool_choice import AUTO, ToolChoice
from gptoss.cli.constraints.turn import ConstraintFactory, TurnConstraint
from gptoss.cli.startup.answer_format import choice_format, regex_format, schema_format
from gptoss.harmony import (
    Conversation,
    DeveloperContent,
    Encoding,
    Message,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
)
from gptoss.model import Choices, Description, Forced, LogitMask, MessageForm, Regex, TokenBudget
from gptoss.model.constraint_lark import lark_grammar

EMPTY = SystemContent(None, None, None, None, None)
PLAIN = Conversation.of(Message.system(EMPTY))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 3},
        "kind": {"enum": ["a", "bé"]},
        "ages": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 150}, "maxItems": 2},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}
TOOLS = Conversation.of(
    Message.system(EMPTY.with_tools(ToolNamespaceConfig("python", "Runs."))),
    Message.developer(
        DeveloperContent().with_function_tools(
            ToolDescription("person", "", PERSON),
            ToolDescription("now", "", None),
            ToolDescription("odd", "", {"properties": {"a": {"not": {}}}}),
        )
    ),
)
ONE_TOOL = ToolChoice("required", frozenset({"functions.now"}))
FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
PREAMBLE = "<|channel|>commentary<|message|>"


@dataclass(frozen=True)
class Case:
    """A turn, and how it is sampled."""

    conversation: Conversation = PLAIN
    answer: Callable[[], Grammar] | None = None
    header: str = ""
    think_budget: int | None = None
    tool_choice: ToolChoice = AUTO
    is_whole_text: bool = field(default=False, kw_only=True)
    """Sample only tokens that are whole characters."""

    def turn(self, factory: ConstraintFactory, encoding: Encoding) -> TurnConstraint:
        return factory.turn(
            self.conversation,
            encoding.encode_with_special(self.header),
            answer=self.answer and self.answer(),
            think_budget=self.think_budget,
            tool_choice=self.tool_choice,
        )


CASES = {
    "plain": Case(),
    "tools": Case(TOOLS),
    "tools and a budget": Case(TOOLS, think_budget=3, is_whole_text=True),
    "budget of none": Case(TOOLS, think_budget=0, is_whole_text=True),
    "budget": Case(think_budget=7, is_whole_text=True),
    "schema": Case(answer=lambda: schema_format(PERSON).grammar),
    "schema, answer begun": Case(answer=lambda: schema_format(PERSON).grammar, header=FINAL),
    "other properties": Case(
        answer=lambda: schema_format({"type": "object", "properties": {"a": {"const": 1}}}).grammar, header=FINAL
    ),
    "any JSON": Case(answer=lambda: schema_format({}).grammar, header=FINAL),
    "regex": Case(answer=lambda: regex_format(r"[a-c]{2,4}/\/\d?").grammar, header=FINAL),
    "regex that matches nothing": Case(answer=lambda: regex_format(r"(é|x y|\n)*").grammar, header=FINAL),
    "choices": Case(TOOLS, answer=lambda: choice_format('yes, "no", \\né').grammar, think_budget=1, is_whole_text=True),
    "reasoning begun": Case(TOOLS, header=ANALYSIS, think_budget=2, is_whole_text=True),
    "no tools": Case(TOOLS, tool_choice=ToolChoice("none")),
    "some tool": Case(TOOLS, tool_choice=ToolChoice("required")),
    "some tool, a budget": Case(TOOLS, think_budget=2, tool_choice=ToolChoice("required"), is_whole_text=True),
    "some tool, budget of none": Case(TOOLS, think_budget=0, tool_choice=ToolChoice("required"), is_whole_text=True),
    "one tool": Case(TOOLS, think_budget=2, tool_choice=ONE_TOOL, is_whole_text=True),
    "one tool, answer as JSON": Case(TOOLS, lambda: schema_format(PERSON).grammar, tool_choice=ONE_TOOL),
    "a part of a header": Case(TOOLS, header="<|channel|>", think_budget=2, is_whole_text=True),
}


@pytest.fixture(scope="module", params=["nano", "o200k"])
def vocabulary(request) -> tuple[Encoding, ConstraintFactory, LLTokenizer]:
    encoding = request.getfixturevalue(request.param)
    return encoding, ConstraintFactory(encoding), llguidance_tokenizer(encoding)


class LarkMatcher:
    """Follows one Lark grammar."""

    def __init__(self, tokenizer: LLTokenizer, grammar: str, vocab_size: int) -> None:
        self._matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        assert not self._matcher.is_error(), self._matcher.get_error()
        self._bits = torch.empty(-(-vocab_size // 32), dtype=torch.int32)

    def allowed(self) -> torch.Tensor:
        """The bits of what may come."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.data_ptr(), self._bits.numel() * 4)
        assert not self._matcher.is_error(), self._matcher.get_error()
        return self._bits.clone()

    def accept(self, token: int) -> None:
        assert self._matcher.consume_token(token), self._matcher.get_error()


@dataclass(frozen=True)
class Step:
    """A position of a completion: what came before, what each form allows next, and what comes."""

    before: list[int]
    stepwise: torch.Tensor
    described: torch.Tensor
    token: int
    is_forced: bool


def complete(
    case: Case, vocabulary: tuple[Encoding, ConstraintFactory, LLTokenizer], stop_tokens: frozenset[int], seed: int
) -> Iterator[Step]:
    """Sample a completion under the stepwise constraint; the grammar has to accept each token of it."""
    encoding, factory, tokenizer = vocabulary
    turn = case.turn(factory, encoding)
    size = encoding.vocab_size
    lark = LarkMatcher(tokenizer, lark_grammar(turn.describe(), stop_tokens), size)
    draw = random.Random(seed)
    forced: list[int] = []
    before: list[int] = []
    for _ in range(60):
        is_forced = bool(forced)
        if not forced:
            restriction = turn.next()
            if isinstance(restriction, Forced):
                forced, is_forced = list(restriction.token_ids), True
        stepwise = LogitMask.allowing(forced[:1], size).bits if forced else restriction.bits
        token = forced.pop(0) if forced else choose(draw, encoding, members(stepwise), case.is_whole_text)
        yield Step(list(before), stepwise, lark.allowed(), token, is_forced)
        before.append(token)
        lark.accept(token)
        if turn.accept(token):
            return


def is_numbered_escape(encoding: Encoding, before: list[int], token: int) -> bool:
    """Whether the token has a numbered escape in it, or continues one."""
    text = b"".join(encoding.token_bytes(t) for t in before[-6:] if t in encoding.ordinary_tokens)
    rest = text.rpartition(b"\\")[2]
    return b"\\u" in encoding.token_bytes(token) or (b"\\" in text and len(rest) < 5)


@pytest.mark.parametrize("name", CASES)
def test_both_forms_allow_the_same_tokens(vocabulary, name):
    """With its ends in the grammar, both forms are equal but for the numbered escapes in names of JSON."""
    encoding = vocabulary[0]
    positions = ends = 0
    for seed in range(20 if encoding.vocab_size < 10_000 else 4):
        for step in complete(CASES[name], vocabulary, frozenset(), seed):
            positions += 1
            assert not members(step.stepwise & ~step.described), "the grammar allows less"
            more = members(step.described & ~step.stepwise)
            assert all(is_numbered_escape(encoding, step.before, token) for token in more), more[:10]
            ends += step.token in encoding.stop_tokens
    assert positions > 8
    assert ends >= 1, "some came to their end"


@pytest.mark.parametrize("name", CASES)
def test_without_the_last_end_the_engine_allows_its_stop_tokens_there(vocabulary, name):
    encoding = vocabulary[0]
    stops = LogitMask.allowing(encoding.stop_tokens, encoding.vocab_size).bits
    ends = 0
    for seed in range(20 if encoding.vocab_size < 10_000 else 4):
        for step in complete(CASES[name], vocabulary, encoding.stop_tokens, seed):
            assert not members(step.stepwise & ~step.described)
            more = members(step.described & ~step.stepwise & ~stops)
            assert all(is_numbered_escape(encoding, step.before, token) for token in more), more[:10]
            may_end = bool((step.stepwise & stops).any())
            assert members(step.described & stops) == (sorted(encoding.stop_tokens) if may_end else [])
            ends += step.token in encoding.stop_tokens
    assert ends >= 1


def test_a_budget_of_the_grammar_is_exact_and_the_other_completes_the_character(nano):
    factory = ConstraintFactory(nano)
    turn = factory.turn(PLAIN, nano.encode_with_special(ANALYSIS), think_budget=2)
    lark = LarkMatcher(llguidance_tokenizer(nano), lark_grammar(turn.describe()), nano.vocab_size)
    for token in [*nano.encode("a"), *nano.encode("中")[:1]]:
        turn.accept(token)
        lark.accept(token)
    end = nano.special("<|end|>")
    assert members(lark.allowed()) == [end]
    restriction = turn.next()
    assert set(members(restriction.bits)) == nano.ordinary_tokens | {end}


def test_the_grammar_lets_names_be_spelled_with_escapes_and_the_other_does_not(o200k):
    answer = schema_format({"type": "object", "properties": {"a": {"type": "integer"}}}).grammar
    turn = ConstraintFactory(o200k).turn(PLAIN, o200k.encode_with_special(FINAL), answer=answer)
    lark = LarkMatcher(llguidance_tokenizer(o200k), lark_grammar(turn.describe()), o200k.vocab_size)
    for token in o200k.encode('{"\\u00'):
        assert token in members(turn.next().bits)
        turn.accept(token)
        lark.accept(token)
    more = {o200k.token_bytes(token)[:1] for token in members(lark.allowed() & ~turn.next().bits)}
    assert more >= set(b"2 3 4 5 6".split()), "0 and 1 begin codes of control characters, 7 that of delete"


@pytest.mark.parametrize("header", ["<|channel|>final<|message|>a", "<|channel|>analysis<|message|><|end|>"])
def test_a_prompt_with_more_than_the_first_header_cannot_be_described(nano, header):
    assert ConstraintFactory(nano).turn(PLAIN, nano.encode_with_special(header)).describe() is None


def test_the_description_lists_each_kind_of_message_once(nano):
    turn = ConstraintFactory(nano).turn(
        TOOLS, nano.encode_with_special("<|channel|>"), answer=regex_format("[ab]").grammar, think_budget=9
    )
    found = turn.describe()
    spell = nano.encode_with_special
    reasoning, preamble, answer, python, person, now, odd = found.messages
    assert found.header == tuple(spell("<|channel|>"))
    assert found.author == tuple(spell("<|start|>assistant"))
    assert found.special == set(range(nano.vocab_size)) - nano.ordinary_tokens
    assert (reasoning.headers, preamble.headers) == ((tuple(spell(ANALYSIS)),), (tuple(spell(PREAMBLE)),))
    assert [form.completes for form in found.messages] == [False, False, True, True, True, True, True]
    ends = [nano.decode([form.end]) for form in found.messages]
    assert ends == ["<|end|>", "<|end|>", "<|return|>", "<|call|>", "<|call|>", "<|call|>", "<|call|>"]
    assert [len(form.headers) for form in (answer, python, person)] == [1, 28, 28]
    assert [form.content for form in (reasoning, preamble, answer, python)] == [None, None, Regex("[ab]"), None]
    schemas = [json.loads(form.content.text) for form in (person, now, odd)]
    for schema in schemas:
        del schema["x-guidance"]
    assert schemas == [PERSON, {"type": "object", "properties": {}, "additionalProperties": False}, {"type": "object"}]
    closing = tuple(spell(f"<|end|><|start|>assistant{FINAL}"))
    assert found.budget == TokenBudget(reasoning, 9, closing, answer)


def test_a_completion_of_limited_messages_and_answers_alone(nano):
    """Without messages between, which a conversation always has."""
    reasoning = MessageForm(((1,),), end=2, completes=False)
    answer = MessageForm(((3,),), end=4, completes=True, content=Choices(("a",)))
    a = nano.encode("a")[0]
    budget = TokenBudget(reasoning, 2, (2, 5, 3), answer)
    special = frozenset(range(nano.vocab_size)) - nano.ordinary_tokens
    grammar = lark_grammar(Description((), (5,), (reasoning, answer), special, budget))
    lark = LarkMatcher(llguidance_tokenizer(nano), grammar, nano.vocab_size)
    for token in (1, a, 2, 5, 1, a):
        assert token in members(lark.allowed())
        lark.accept(token)
    for token in (2, 5, 3, a, 4):
        assert members(lark.allowed()) == [token]
        lark.accept(token)
