import itertools
import random
import re

import pytest

from gptoss.harmony.content import DeveloperContent, ReasoningEffort, SystemContent
from gptoss.harmony.encoding import Encoding
from gptoss.harmony.messages import Channel, Conversation, Message
from gptoss.harmony.renderer import render_for_completion, render_for_training
from gptoss.model.nano import data, other
from gptoss.model.nano.problems import (
    MAX_OPERAND,
    Effort,
    Problem,
    is_held_out,
    reasoning,
    sample_problem,
)
from gptoss.model.nano.tokenizer import Tokenizer

SOME = [
    Problem(347, "+", 85),
    Problem(9999, "+", 9999),
    Problem(0, "+", 0),
    Problem(85, "-", 347),
    Problem(85, "-", 347, distance=True),
    Problem(1000, "-", 999),
    Problem(7, "-", 7),
    Problem(0, "-", 9999),
]


@pytest.fixture(scope="module")
def some_examples() -> list[data.Example]:
    return list(itertools.islice(data.examples(3), 3000))


def test_the_split_knows_neither_order_nor_sign() -> None:
    held = [(a, b) for a in range(100) for b in range(100) if is_held_out(Problem(a, "+", b))]
    assert 0.02 < len(held) / 10_000 < 0.08
    assert all(is_held_out(Problem(b, "-", a)) for a, b in held)


def test_no_held_out_pair_is_ever_trained_on(some_examples: list[data.Example]) -> None:
    """Neither in a question, nor in a check by the inverse, nor in the history."""
    solved = [example.problem for example in some_examples if example.problem]
    assert len(solved) > 2000
    assert not [problem for problem in solved if is_held_out(problem) or is_held_out(problem.inverse)]
    equation = re.compile(r"(\d+) ([+-]) (\d+) = -?\d+")
    for example in some_examples:
        for message in example.history:
            if message.role == "assistant":
                for a, sign, b in equation.findall(message.text):
                    assert not is_held_out(Problem(int(a), sign, int(b)))


def test_the_held_out_examples_are_held_out_and_seeded() -> None:
    first, second = (data.held_out_examples(200, Effort.MEDIUM, seed=9) for _ in range(2))
    assert first == second
    assert first != data.held_out_examples(200, Effort.MEDIUM, seed=10)
    assert all(example.problem and is_held_out(example.problem) for example in first)


def test_operands_of_every_length_and_both_signs_come(some_examples: list[data.Example]) -> None:
    problems = [example.problem for example in some_examples if example.problem]
    assert {len(str(p.a)) for p in problems} == {len(str(p.b)) for p in problems} == {1, 2, 3, 4}
    assert all(0 <= p.a <= MAX_OPERAND and 0 <= p.b <= MAX_OPERAND for p in problems)
    assert min(sum(p.sign == sign for p in problems) for sign in "+-") > 0.4 * len(problems)
    assert sum(p.negative for p in problems) > 0.1 * len(problems)


@pytest.mark.parametrize("problem", SOME, ids=str)
@pytest.mark.parametrize("effort", list(Effort))
def test_every_column_of_a_working_is_right(problem: Problem, effort: Effort) -> None:
    text = reasoning(problem, effort)
    for sum_text, result in re.findall(r"(?<![-+\d] )(\d+(?: ?[-+] ?\d+)+) ?= ?(-?\d+)", text):
        assert sum(int(term) for term in re.findall(r"-?\d+", sum_text.replace(" ", ""))) == int(result), text


@pytest.mark.parametrize("problem", SOME, ids=str)
def test_the_working_ends_in_the_statement_and_more_effort_is_longer(problem: Problem) -> None:
    low, medium, high = (reasoning(problem, effort) for effort in Effort)
    assert f"So {problem.statement}." in medium
    assert high.endswith(f"{problem.statement} is right.")
    assert len(low) < len(medium) < len(high)


def test_statements() -> None:
    assert [problem.statement for problem in SOME[:5]] == [
        "347 + 85 = 432",
        "9999 + 9999 = 19998",
        "0 + 0 = 0",
        "85 - 347 = -262",
        "347 - 85 = 262",
    ]


@pytest.mark.parametrize(
    "problem", [*SOME, *(sample_problem(random.Random(i), held_out=False) for i in range(50))], ids=str
)
def test_the_inverse_gives_back_an_operand(problem: Problem) -> None:
    expected = problem.a if problem.sign == "+" else max(problem.a, problem.b)
    assert problem.inverse.answer == expected


def test_what_is_declined_is_declined_politely_at_every_effort(some_examples: list[data.Example]) -> None:
    declined = [example for example in some_examples if example.problem is None]
    assert {example.answer for example in declined} == {other.ANSWER}
    assert {example.reasoning for example in declined} == set(other.REASONING.values())


def test_the_rendering_is_that_of_the_harmony_package(tokenizer: Tokenizer, checkpoint) -> None:
    encoding = Encoding.from_tokenizer_json(checkpoint / "tokenizer.json")
    history = [
        data.Message("system", data.system_text(Effort.HIGH, "2026-11-23")),
        data.Message("developer", "# Instructions\n\nBe brief."),
        data.Message("user", "What is 2 + 3?"),
        data.Message("assistant", "2 + 3 = 5", "final"),
        data.Message("user", "And 4 - 5?"),
    ]
    example = data.Example(history, "4 - 5: 4<5", "4 - 5 = -1")
    prompt, completion = example.encode(tokenizer)
    system = SystemContent(reasoning_effort=ReasoningEffort.HIGH, conversation_start_date="2026-11-23")
    conversation = Conversation.of(
        Message.system(system),
        Message.developer(DeveloperContent(instructions="Be brief.")),
        Message.user("What is 2 + 3?"),
        Message.assistant("Two and three.", channel=Channel.ANALYSIS),
        Message.assistant("2 + 3 = 5", channel=Channel.FINAL),
        Message.user("And 4 - 5?"),
    )
    assert render_for_completion(conversation, encoding) == prompt
    answered = conversation.extended(
        [
            Message.assistant(example.reasoning, channel=Channel.ANALYSIS),
            Message.assistant(example.answer, channel=Channel.FINAL),
        ]
    )
    whole = render_for_training(answered, encoding, drop_analysis=False)
    assert whole[-len(completion) :] == completion


def test_batches_learn_the_completion_alone(tokenizer: Tokenizer) -> None:
    inputs, labels = next(data.batches(0, tokenizer, tokens=2048, longest=512))
    assert inputs.shape == labels.shape
    assert inputs.numel() <= 2048
    end = tokenizer.special["<|return|>"]
    for row, wanted in zip(inputs, labels, strict=True):
        learnt = (wanted != data.IGNORED).nonzero().flatten()
        assert wanted[learnt[-1]] == end
        assert (learnt.diff() == 1).all()
        assert (wanted[learnt[:-1]] == row[learnt[1:]]).all()
        assert tokenizer.special["<|start|>"] in row[: learnt[0] + 1]
