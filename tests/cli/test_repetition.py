"""When a model is taken to only repeat itself."""

import random

import pytest

from gptoss.cli.session.repetition import LEAST_TIMES, LEAST_TOKENS, LONGEST_PERIOD, RepetitionWatch


def noticed_at(tokens: list[int]) -> int | None:
    watch = RepetitionWatch()
    return next((n for n, token in enumerate(tokens, 1) if watch.is_running_away(token)), None)


@pytest.mark.parametrize("period", [1, 2, 7, 53, LONGEST_PERIOD])
def test_a_loop_of_any_period_is_noticed(period) -> None:
    before = random.Random(0).choices(range(1000, 2000), k=50)
    loop = list(range(period))
    expected = len(before) + period + max(LEAST_TOKENS, LEAST_TIMES * period)
    assert noticed_at(before + loop * 1000) == expected


def test_what_does_not_repeat_is_left_alone() -> None:
    choices = random.Random(1)
    assert noticed_at(choices.choices(range(5), k=20_000)) is None
    rows = [token for number in range(2000) for token in (1, 2, 3, 4, 5, 10 + number)]
    assert noticed_at(rows) is None


def test_repetition_that_ends_is_left_alone() -> None:
    assert noticed_at([1] * LEAST_TOKENS + [2] + [1] * LEAST_TOKENS + [3]) is None


def test_turn_that_repeats_itself_is_ended_and_said_to_be(gptoss) -> None:
    loop = "<|channel|>analysis<|message|>" + "Wait, again. " * 500
    result = gptoss("chat", stdin=b"a\n", completions=[loop])
    assert result.stderr == "stopped, since it only repeated itself: /retry asks again, /undo takes it back\n"
    result = gptoss("ask", "a", completions=[loop])
    assert (result.status, result.stdout) == (4, "")
    assert result.stderr == "gptoss: the answer is incomplete: the model only repeated itself (--repetition allow)\n"


def test_repetition_can_be_allowed(gptoss, reply) -> None:
    result = gptoss("ask", "a", "--repetition", "allow", completions=[reply("no " * 500)])
    assert (result.status, result.stdout) == (0, "no " * 500 + "\n")
