"""What the live end of the output leaves on a screen."""

import os
import pty
from contextlib import contextmanager

import pyte
import pytest
from hypothesis import given, settings, strategies as st
from rich.segment import Segment

from gptoss.cli.base.output import Output
from gptoss.cli.terminal.live import LiveRegion
from gptoss.cli.terminal.styled_text import Line

VARIABLES = {"TERM": "xterm"}


class Screen(Output):
    """A terminal in memory."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__(None, "screen", VARIABLES)
        self.has_styles = True
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self.screen.set_mode(pyte.modes.LNM)  # as a terminal's driver does, a line feed goes to the line's beginning
        self._stream = pyte.Stream(self.screen)
        self.written: list[str] = []

    @property
    def columns(self) -> int:
        return self.screen.columns

    @property
    def rows(self) -> int:
        return self.screen.lines

    def write(self, text: str) -> None:
        self.written.append(text)
        self._stream.feed(text)

    def lines(self) -> list[str]:
        history = ["".join(row[x].data for x in range(self.columns)) for row in self.screen.history.top]
        lines = [line.rstrip() for line in [*history, *self.screen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def line(text: str) -> Line:
    return [Segment(text)]


LINES = st.lists(st.text(st.sampled_from("ab中"), min_size=1, max_size=6), max_size=4)


@settings(max_examples=60)
@given(st.lists(st.tuples(LINES, LINES), max_size=8))
def test_screen_holds_what_is_done_and_then_what_is_open(updates) -> None:
    screen = Screen(20, 6)
    region = LiveRegion(screen)
    done_so_far = []
    for done, open_rows in updates:
        region.update([line(text) for text in done], [line(text) for text in open_rows])
        done_so_far += done
        assert screen.lines() == done_so_far + open_rows
    region.update([], [])
    assert screen.lines() == done_so_far
    assert screen.screen.cursor.x == 0


def test_more_open_rows_than_the_screen_has_show_their_end_and_come_whole_in_the_end() -> None:
    screen = Screen(20, 4)
    region = LiveRegion(screen)
    rows = [line(f"row {n}") for n in range(10)]
    for count in range(10):
        region.update([], rows[:count])
    assert screen.lines() == ["row 6", "row 7", "row 8"]
    region.update(rows, [])
    assert screen.lines() == [f"row {n}" for n in range(10)]


def test_growing_row_is_not_written_again() -> None:
    screen = Screen(20, 4)
    region = LiveRegion(screen)
    region.update([], [line("one")])
    region.update([], [line("one two")])
    region.update([line("one two")], [line("three")])
    assert screen.written == ["one", " two", "\nthree"]


def test_nothing_is_written_for_nothing_new() -> None:
    screen = Screen(20, 4)
    region = LiveRegion(screen)
    region.update([], [])
    region.update([], [line("one")])
    region.update([], [line("one")])
    assert screen.written == ["one"]


def test_done_row_wider_than_the_screen_is_broken_by_the_terminal() -> None:
    screen = Screen(10, 5)
    region = LiveRegion(screen)
    region.update([line("x" * 25)], [line("open")])
    region.update([line("done")], [])
    assert screen.lines() == ["x" * 10, "x" * 10, "x" * 5, "done"]


def test_rows_that_a_narrower_window_has_broken_are_all_taken_back() -> None:
    screen = Screen(20, 6)
    region = LiveRegion(screen)
    region.update([line("done")], [line("a" * 18), line("b" * 5)])
    screen.screen.resize(6, 10)
    screen.screen.reset()
    screen.screen.set_mode(pyte.modes.LNM)
    screen.write("done\naaaaaaaaaa\naaaaaaaa\nbbbbb")  # what a terminal makes of it that joins and breaks rows
    region.update([], [line("new")])
    assert screen.lines() == ["done", "new"]


def test_controls_never_reach_the_terminal() -> None:
    screen = Screen(40, 6)
    LiveRegion(screen).update([line("a\x1b[2J\x07\x9b\rb\nc\td")], [])
    assert screen.written == ["a\u241b[2J\u2407\ufffd\u240db c d\n"]


@contextmanager
def pseudo_terminal():
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        yield stream
    os.close(ours)


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (200, 50)])
def test_size_is_the_terminals_own(columns, rows) -> None:
    import fcntl
    import struct
    import termios

    with pseudo_terminal() as stream:
        output = Output(stream, "screen", VARIABLES)
        assert (output.columns, output.rows) == (80, 24)
        fcntl.ioctl(stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        assert (output.columns, output.rows) == (columns, rows)
