"""`--tool-choice`: what it may be, and what becomes of it in the rounds of a turn."""

import pytest

from gptoss.cli.constraints.tool_choice import AUTO, ToolChoice
from gptoss.cli.constraints.turn import ConstraintFactory

CALL = "<|channel|>analysis to=python code<|message|>1<|call|>"
ANSWER = "<|channel|>final<|message|>Done.<|return|>"
PATCH = ToolChoice("required", frozenset({"functions.apply_patch"}))


@pytest.fixture
def choices(monkeypatch):
    """The choice in each round."""
    made, turn = [], ConstraintFactory.turn

    def noted(self, *arguments, **options):
        made.append(options["tool_choice"])
        return turn(self, *arguments, **options)

    monkeypatch.setattr(ConstraintFactory, "turn", noted)
    return made


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", [AUTO, AUTO]),
        ("none", [ToolChoice("none")] * 2),
        ("required", [ToolChoice("required"), AUTO]),
        ("apply_patch", [PATCH, AUTO]),
        ("functions.apply_patch", [PATCH, AUTO]),
        ("python", [ToolChoice("required", frozenset({"python"})), AUTO]),
    ],
)
def test_choice_holds_for_the_first_round_and_none_for_all(gptoss, choices, given, expected) -> None:
    tools = ("--tool", "python", "--tool", "apply_patch", "--tool-choice", given)
    result = gptoss("ask", "Hi", *tools, completions=[CALL, ANSWER], stdin=b"")
    assert result.status == 0, result.stderr
    assert choices == expected


def test_turn_that_goes_on_after_a_result_need_not_call_again(gptoss, encoding, choices) -> None:
    length = len(encoding.encode_with_special(CALL))
    tools = ("--tool", "python", "--tool-choice", "required", "-n", str(length))
    result = gptoss("chat", *tools, completions=[CALL, ANSWER, CALL], stdin=b"Hi\n/continue\nAgain\n")
    assert result.status == 4
    required = ToolChoice("required")
    assert choices == [required, AUTO, required]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--tool-choice", "required"),
            "--tool-choice required: there is no tool to call: --tool or --functions adds one",
        ),
        (
            ("--tool-choice", "pyton", "--tool", "python"),
            "--tool-choice: there is no tool 'pyton'; the tools are python",
        ),
        (
            ("--tool-choice", " "),
            "the command line: tool_choice is ' ', it must be auto, none, required or the name of",
        ),
    ],
)
def test_choice_without_such_a_tool_is_wrong_usage(gptoss, arguments, message) -> None:
    result = gptoss("ask", "Hi", *arguments)
    assert result.status == 2
    assert result.stderr.startswith(f"gptoss: {message}")
