"""The first screen and errors at a terminal of 80 columns."""

import pytest

from gptoss.cli.base.text import in_rows


def test_first_screen_fits_80_columns(gptoss) -> None:
    assert max(map(len, gptoss().stdout.splitlines())) <= 79


@pytest.mark.parametrize("arguments", [("ask", "-m", "nosuch", "a"), ("config", "get", "nosuch")])
def test_errors_break_between_words_at_a_terminal_and_are_one_line_in_a_pipe(gptoss, arguments) -> None:
    from gptoss.model.errors import ModelNotFoundError

    def load(request):
        raise ModelNotFoundError("words " * 30 + "x" * 90)

    one = gptoss(*arguments, load=load).stderr
    assert one.count("\n") == 1
    rows = gptoss(*arguments, load=load, terminal="err").stderr.rpartition("\r\x1b[K")[2].splitlines()
    assert len(rows) > 1
    assert all(len(row) < 80 or "x" * 90 in row for row in rows)
    assert " ".join(row.strip() for row in rows) == one.strip()


def test_rows_are_indented() -> None:
    assert in_rows("  a bc de fgh", 28, 4) == "  a bc de fgh"
    assert in_rows("  one two three four five six", 24, 4) == "  one two three four\n    five six"
    assert in_rows("  one two three four", 10, 4) == "  one two\n  three\n  four"
    assert in_rows("", 10) == ""


def test_figures_and_notes_break_between_words_at_a_terminal(gptoss, reply) -> None:
    call = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"text": "' + "word " * 30 + '"}<|call|>'
    result = gptoss("ask", "-m", "nano", "--stats", "a", terminal="err", completions=[call])
    lines = result.stderr.rpartition("\r\x1b[K")[2].replace("\x1b[2m", "").replace("\x1b[22m", "").splitlines()
    assert lines[0].startswith("call of functions.f: ")
    assert max(map(len, lines)) < 80
    assert lines[1].startswith("  word")
    assert any(line.startswith("prompt ") for line in lines)
