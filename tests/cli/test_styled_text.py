"""Breaking text into rows."""

import pytest
from hypothesis import given, strategies as st
from rich.segment import Segment

from gptoss.cli.terminal.styled_text import crop, line_width, plain, skip, width_of, wrap

TEXTS = st.text(st.sampled_from("ab c\n中文，（é\u0301\u05e9\U0001f600\ufe0f"), max_size=60)


def rows(text: str, width: int) -> list[str]:
    return [plain(row.line) for row in wrap([Segment(text)], width)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three", ["one two", "three"]),
        ("one two\nthree", ["one two", "three"]),
        ("abcdefghij", ["abcdefgh", "ij"]),
        ("a\n\nb", ["a", "", "b"]),
        ("12345678 x", ["12345678", "x"]),
        ("中文字符很多", ["中文字符", "很多"]),
        ("a 中文字符", ["a 中文字", "符"]),
        ("中文字符。很", ["中文字", "符。很"]),
        ("中文字（很）", ["中文字", "（很）"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("", []),
    ],
)
def test_rows_of_eight_cells(text, expected) -> None:
    assert rows(text, 8) == expected


@given(TEXTS, st.integers(2, 12))
def test_no_row_is_too_wide_and_nothing_is_lost(text, width) -> None:
    shown = wrap([Segment(text)], width)
    assert all(line_width(row.line) <= width for row in shown)
    assert "".join("".join(plain(row.line).split()) for row in shown) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see /a/long/path here", ["see", "/a/long/path", "here"]),
        ("/a/long/path and", ["/a/long/path", "and"]),
        ("/a/long/path", ["/a/long/path"]),
        ("/a/long/path\nx", ["/a/long/path", "x"]),
        ("中a/long/path中", ["中", "a/long/path", "中"]),
        ("x" * 5000, ["x" * 4096, "x" * 904]),
    ],
)
def test_words_that_are_longer_than_a_row_are_left_whole(text, expected) -> None:
    assert [plain(row.line) for row in wrap([Segment(text)], 8, whole_words=True)] == expected


@given(TEXTS, st.integers(2, 12))
def test_rows_behind_a_row_are_those_of_the_text_behind_it(text, width) -> None:
    shown = wrap([Segment(text)], width)
    for number, row in enumerate(shown):
        assert wrap(skip([Segment(text)], row.end), width) == [
            type(later)(later.line, later.end - row.end) for later in shown[number + 1 :]
        ]


def test_cropping_counts_cells() -> None:
    assert plain(crop([Segment("a中"), Segment("文b")], 4)) == "a中"


def test_the_wider_reading_of_an_emoji_counts() -> None:
    assert width_of("\u2764\ufe0f") == 2
