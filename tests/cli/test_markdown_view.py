"""Markdown while it is being written."""

import random

import pytest
from hypothesis import given, strategies as st
from rich.segment import Segment

from gptoss.cli.terminal import theme
from gptoss.cli.terminal.markdown_view import MarkdownView
from gptoss.cli.terminal.styled_text import line_width, plain

PIECES = [
    "# Title\n", "## Two *x*\n", "Hello **bold** text and `code` that goes on until it is broken, even twice. ", "\n",
    "\n\n", "- item one\n", "- ", "* b\n", "  - nested item with some more words to break the row\n", "1. first\n",
    "2. second\n", "   inside\n", "> quote\n", "> - quoted\n", "```python\ndef f(x):\n    return x\n\n```\n", "```\n",
    "~~~\nraw\n~~~\n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "| x", "\\(a*b*c\\) ", "\\[\nx_1 * y\n\\]\n", "$5 and $x$ ",
    "---\n", "***\n", "**", "*", "_em_ ", "[link](http://e.x/) ", "[1] ", "中文字符很多很多，没有空格的长句子。",
    "foo | bar\n", "    indented code\n", "<b>hi</b> &amp; ", "\\* ", "![i](u)", "-", "=", "===\n", "+ z\n",
    "10) ten\n", "`", "``", "```", "word word word ",
    "| n | text |\n|--:|---|\n" + "".join(f"| {n} | some `text` {n} |\n" for n in range(30)),
    "> | n |\n> |---|\n" + "".join(f"> | {n} |\n" for n in range(23)), "| more | rows |\n", "> | more |\n",
]  # fmt: skip


def whole(source: str, width: int, **options) -> list[str]:
    view = MarkdownView(**options)
    view.feed(source)
    return [plain(row) for row in view.finish(width)]


def in_pieces(source: str, width: int, sizes: random.Random) -> list[str]:
    view, shown = MarkdownView(), []
    while source:
        size = sizes.choice([1, 1, 2, 3, 5, 9, 30])
        view.feed(source[:size])
        source = source[size:]
        shown += view.rows(width)[0]
    return [plain(row) for row in shown + view.finish(width)]


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.sampled_from([12, 20, 39, 79]), st.integers(0, 2**32))
def test_finished_rows_are_those_of_the_whole(pieces, width, seed) -> None:
    source = "".join(pieces)
    assert in_pieces(source, width, random.Random(seed)) == whole(source, width)


@pytest.mark.long
def test_finished_rows_are_those_of_the_whole_for_many_sources() -> None:
    for seed in range(20_000):
        sizes = random.Random(seed)
        source = "".join(sizes.choice(PIECES) for _ in range(sizes.randint(1, 8)))
        width = sizes.choice([12, 20, 39, 79])
        assert in_pieces(source, width, sizes) == whole(source, width), repr(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# T\nx", ["T", "x"]),
        ("a\n\n\n\nb", ["a", "", "b"]),
        ("a\nb", ["a", "b"]),
        ("- a\n  - b\n    1. c\n\n       d\n- e", ["• a", "  ◦ b", "    1. c", "", "       d", "• e"]),
        ("3. x\n4. y", ["3. x", "4. y"]),
        ("> a\n> > b", ["▎ a", "▎ ▎ b"]),
        ("```\nx  y\n```", ["────────────────────────", "x  y", "────────────────────────"]),
        ("\\[ a_1*b*c \\]", ["\\[ a_1*b*c \\]"]),
        ("so \\(a*b*c\\) and $x_1*y*$, not $5 or $6", ["so \\(a*b*c\\) and $x_1*y*$, not $5 or $6"]),
        ("[a](http://e.x)", ["a (http://e.x)"]),
        ("<http://e.x>", ["http://e.x"]),
        ("![alt](u)", ["[alt] (u)"]),
        ("Title\n===", ["Title", "==="]),
        ("<b>x</b>", ["<b>x</b>"]),
        ("[x]: http://e.x\n\n[x]", ["[x]: http://e.x", "", "[x]"]),
    ],
)
def test_layout(source, expected) -> None:
    assert whole(source, 79) == expected


def test_table_has_lines_and_keeps_its_alignments() -> None:
    shown = whole("| a | long head |\n|--:|:-:|\n| 1 | **x** |\n", 79)
    assert shown == [
        "╭───┬───────────╮",
        "│ a │ long head │",
        "├───┼───────────┤",
        "│ 1 │     x     │",
        "╰───┴───────────╯",
    ]
    assert "".join(whole("| a |\n|---|\n", 79, unicode=False)).isascii()


def test_table_with_too_many_columns_is_told_row_by_row() -> None:
    heads = [f"h{n}" for n in range(6)]
    source = f"|{'|'.join(heads)}|\n{'|-' * 6}|\n|{'|'.join('abcdef')}|\n"
    assert whole(source, 39) == [f"h{n}: {cell}" for n, cell in enumerate("abcdef")]


@pytest.mark.parametrize(("columns", "per_row"), [(3, 1), (30, 31)])
def test_long_table_is_given_out_row_by_row_and_costs_no_more_for_its_length(columns, per_row) -> None:
    row = "| " + " | ".join(f"cell {n}" for n in range(columns)) + " |\n"
    view = MarkdownView()
    view.feed(row + "|---" * columns + "|\n" + row * 20)
    done, open_rows = view.rows(79)
    assert (done, len(open_rows)) == ([], 20 * per_row + (4 if per_row == 1 else -1))
    for _ in range(50):
        view.feed(row)
        done, open_rows = view.rows(79)
        assert len(open_rows) == (1 if per_row == 1 else 0)
        assert len(view._source) < 40 * columns
    assert len(done) == per_row


def test_table_takes_the_widths_of_its_first_rows() -> None:
    rows = whole("| a |\n|---|\n" + "| b |\n" * 20 + "| c and more |\n", 30)
    assert {len(row) for row in rows} == {5}
    assert "".join(row[2] for row in rows[23:-1]).split() == ["candmore"]


def test_signs_that_a_terminal_lacks_have_others_in_their_place() -> None:
    source = "- a\n  - b\n    - c\n\n> q\n"
    assert whole(source, 30, unicode=False) == ["* a", "  + b", "    - c", "", "| q"]


def test_code_is_coloured_and_never_broken() -> None:
    view = MarkdownView()
    code = "def f(): return 'x'  # " + "long " * 30
    view.feed(f"```python\n{code.rstrip()}\n```")
    row = view.finish(39)[1]
    assert plain(row) == code.rstrip()
    assert Segment("def", theme.SYNTAX["Keyword"]) in row


def test_marks_stay_where_there_are_no_styles() -> None:
    source = "## Head\n**bold** *em* ~~no~~ `code`"
    assert whole(source, 79, marks=True) == source.split("\n")
    assert whole(source, 79) == ["Head", "bold em no code"]


def test_paragraph_leaves_the_live_part_row_by_row() -> None:
    view = MarkdownView()
    view.feed("one two three four five six seven")
    done, open_rows = view.rows(10)
    assert [plain(row) for row in done] == ["one two", "three four", "five six"]
    assert [plain(row) for row in open_rows] == ["seven"]


def test_width_may_change_in_the_midst_of_a_paragraph() -> None:
    view = MarkdownView()
    view.feed("one two three four ")
    shown = view.rows(8)[0]
    view.feed("five six seven eight")
    shown += view.rows(30)[0] + view.finish(30)
    assert " ".join(plain(row) for row in shown) == "one two three four five six seven eight"


@given(st.text(st.sampled_from("ab *_`#>-|1.\n()[]\\$~<&"), max_size=80), st.integers(1, 30))
def test_any_source_at_any_width(source, width) -> None:
    view = MarkdownView()
    for character in source:
        view.feed(character)
        view.rows(width)
    letters = "".join(character for row in view.finish(width) for character in plain(row))
    assert set(letters) & {"\n", "\r", "\x1b"} == set()


def test_long_text_is_wrapped_at_a_readable_width() -> None:
    view = MarkdownView()
    view.feed("word " * 100)
    assert max(line_width(row) for row in view.finish(199)) <= 100


def test_two_answers_in_one_view() -> None:
    view = MarkdownView()
    view.feed("a")
    assert [plain(row) for row in view.finish(9)] == ["a"]
    view.feed("# b")
    assert [plain(row) for row in view.finish(9)] == ["b"]
