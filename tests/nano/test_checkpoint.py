"""The shipped model: what it answers, that it always ends, and that transformers reads the same folder."""

import json
import random
import re
import statistics
import warnings
from pathlib import Path

import pytest
import torch

from gptoss.model.checkpoints.config_files import load_generation_defaults
from gptoss.model.nano import data, other
from gptoss.model.nano.evaluate import Evaluator, Outcome
from gptoss.model.nano.phrasing import phrase
from gptoss.model.nano.problems import Effort, Problem
from gptoss.model.nano.trainable import config_json, generation_config_json

ODD = [
    "",
    " ",
    "\n\n\n",
    "?",
    "+",
    "-",
    "1",
    "1 +",
    "+ 1",
    "3 * 4",
    "10 / 5",
    "1.5 + 2.5",
    "-3 + 5",
    "hello",
    "Who are you?",
    "What is the capital of France?",
    "Write a haiku about autumn.",
    "def f(x):\n    return x + 1",
    "SELECT a FROM b WHERE c = 3;",
    "¿Cuánto es?",
    "今日は。元気ですか",
    "😀😀😀",
    "\x00\x01\x1b[31mred\x1b[0m",
    "<|end|><|start|>assistant",
    "<|return|>",
    "a" * 500,
    "lorem ipsum dolor sit amet " * 25,
    "\u202eabc\u200b",
    '{"a": [1, 2, 3]}',
]
# Sums beyond what nano does: now and then it tries all the same, but it must come to an end.
NEAR_MISSES = ["1 + 2 + 3", "12345 + 6", "99999999999999999999 - 1", "1 + 1 = 3, right?", "9" * 300]


def question(text: str, effort: Effort = Effort.MEDIUM) -> list[data.Message]:
    return [data.Message("system", data.system_text(effort, "2026-11-23")), data.Message("user", text)]


def ask(evaluator: Evaluator, history: list[data.Message]) -> str | None:
    return evaluator.answer(evaluator.complete(data.render_prompt(history, evaluator.tokenizer)))


@pytest.fixture(scope="module")
def outcomes(evaluator: Evaluator) -> dict[Effort, list[Outcome]]:
    return {
        effort: [evaluator.outcome(example) for example in data.held_out_examples(100, effort, seed=2)]
        for effort in Effort
    }


def test_the_folder_is_small_and_complete(checkpoint: Path) -> None:
    files = {path.name: path.stat().st_size for path in checkpoint.iterdir()}
    assert sum(files.values()) <= 8_000_000
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files)


def test_the_configs_are_those_of_the_program(evaluator: Evaluator, checkpoint: Path) -> None:
    for name, made in (("config.json", config_json), ("generation_config.json", generation_config_json)):
        assert json.loads((checkpoint / name).read_text()) == made(evaluator.tokenizer)


def test_decoding_is_greedy_and_ends_at_the_stop_tokens(evaluator: Evaluator, checkpoint: Path) -> None:
    defaults = load_generation_defaults(checkpoint)
    assert defaults.temperature == 0
    stops = {evaluator.tokenizer.special[name] for name in ("<|return|>", "<|endoftext|>", "<|call|>")}
    assert set(defaults.stop_token_ids) == stops


@pytest.mark.parametrize("effort", list(Effort))
def test_held_out_problems_are_solved(outcomes: dict[Effort, list[Outcome]], effort: Effort) -> None:
    wrong = [outcome.example.history[-1].text for outcome in outcomes[effort] if not outcome.right]
    assert len(wrong) <= 5, wrong


@pytest.mark.long
@pytest.mark.parametrize("effort", list(Effort))
def test_500_held_out_problems_are_solved(evaluator: Evaluator, effort: Effort) -> None:
    outcomes = [evaluator.outcome(example) for example in data.held_out_examples(500, effort)]
    assert sum(outcome.right for outcome in outcomes) >= 475


def test_more_effort_shows_more_reasoning(outcomes: dict[Effort, list[Outcome]]) -> None:
    medians = [statistics.median(len(outcome.completion) for outcome in outcomes[effort]) for effort in Effort]
    assert medians[1] > 1.5 * medians[0]
    assert medians[2] > 1.5 * medians[1]
    for low, medium, high in zip(*outcomes.values(), strict=True):
        assert len(low.completion) < len(medium.completion) < len(high.completion)


def test_the_first_example_of_the_readme(evaluator: Evaluator) -> None:
    assert ask(evaluator, question("What is 347 + 85?")) == "347 + 85 = 432"


def test_decoding_token_by_token_writes_what_one_pass_predicts(evaluator: Evaluator) -> None:
    """The accuracy is measured by one pass over prompt and working; the cache must not change the outcome."""
    for example in data.held_out_examples(8, Effort.MEDIUM, seed=3):
        prompt, expected = example.encode(evaluator.tokenizer)
        if evaluator.writes(prompt, expected):
            assert evaluator.complete(prompt) == expected


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_anything_else_is_answered_with_one_polite_sentence(evaluator: Evaluator, text: str) -> None:
    assert ask(evaluator, question(text)) == other.ANSWER


@pytest.mark.parametrize("text", NEAR_MISSES)
def test_a_sum_that_is_almost_one_for_nano_ends(evaluator: Evaluator, text: str) -> None:
    assert ask(evaluator, question(text)) is not None


def test_every_turn_of_a_conversation_is_answered(evaluator: Evaluator) -> None:
    history = question("Hello!", Effort.HIGH)[:1]
    for text, answer in (
        ("Hello!", other.ANSWER),
        ("What is 12 plus 30?", "12 + 30 = 42"),
        ("Take 58 away from 1003.", "1003 - 58 = 945"),
        ("Who wrote Hamlet?", other.ANSWER),
        ("7 - 19", "7 - 19 = -12"),
    ):
        history = [*history, data.Message("user", text)]
        assert ask(evaluator, history) == answer
        history = [*history, data.Message("assistant", answer, "final")]


@pytest.mark.parametrize(
    "head",
    [
        [],
        [data.Message("system", data.system_text(Effort.LOW, None))],
        [data.Message("system", data.system_text(None, "2031-01-31"))],
        [data.Message("system", data.system_text(Effort.HIGH, "1999-12-31")), data.Message("developer", "")],
        [
            data.Message("system", data.system_text(Effort.MEDIUM, "2026-11-23")),
            data.Message("developer", "# Instructions\n\nYou are a patient teacher. Never say 42."),
        ],
        [
            data.Message(
                "system",
                data.system_text(
                    Effort.MEDIUM, "2026-11-23", tools="## python\n\nRun Python code in a notebook.", functions=True
                ),
            )
        ],
    ],
    ids=["nothing", "no date", "no effort", "empty developer", "developer", "tools"],
)
def test_other_heads_of_the_prompt(evaluator: Evaluator, head: list[data.Message]) -> None:
    assert ask(evaluator, [*head, data.Message("user", "What is 86 + 57?")]) == "86 + 57 = 143"


def test_an_answer_without_reasoning_ends(evaluator: Evaluator) -> None:
    """As when the program begins the final message itself."""
    prompt = data.render_prompt(question("What is 200 + 30?"), evaluator.tokenizer)
    special = evaluator.tokenizer.special
    header = [special["<|channel|>"], *evaluator.tokenizer.encode("final"), special["<|message|>"]]
    answer = evaluator.answer(evaluator.complete([*prompt, *header]))
    assert answer is not None
    assert answer.startswith("200 + 30 = ")


@pytest.mark.long
def test_small_sums_are_right_without_exception(evaluator: Evaluator) -> None:
    wrong = []
    for a in range(21):
        for b in range(21):
            for sign in "+-":
                problem = Problem(a, sign, b)
                example = data.Example(
                    question(f"What is {a} {sign} {b}?"),
                    data.reasoning(problem, Effort.MEDIUM),
                    problem.statement,
                    problem,
                )
                if not evaluator.outcome(example).right:
                    wrong.append(problem)
    assert not wrong


@pytest.fixture(scope="module")
def theirs(checkpoint: Path):
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        return model, transformers.AutoTokenizer.from_pretrained(checkpoint)


def test_transformers_loads_the_folder_and_writes_the_same(evaluator: Evaluator, theirs) -> None:
    model, hub_tokenizer = theirs
    rng = random.Random(8)
    questions = ["What is 347 + 85?", "Hello!", *(phrase(p, rng)[0] for p in (Problem(5003, "-", 78),))]
    for text, effort in zip(questions, Effort, strict=True):
        prompt = data.render_prompt(question(text, effort), evaluator.tokenizer)
        rendered = evaluator.tokenizer.decode(prompt)
        assert hub_tokenizer(rendered, add_special_tokens=False)["input_ids"] == prompt
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = model.generate(torch.tensor([prompt]), max_new_tokens=400)[0, len(prompt) :].tolist()
        assert written == evaluator.complete(prompt)


def test_the_card_tells_how_it_was_made(checkpoint: Path) -> None:
    card = (checkpoint / "README.md").read_text(encoding="utf-8")
    assert "python -m gptoss.model.nano.train" in card
    assert re.search(r"--seed \d+", card)
