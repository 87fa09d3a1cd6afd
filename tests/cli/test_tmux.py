"""What stands in the history and on the screen of a real tmux, which joins and breaks rows when its window changes."""

import re
import shutil
import sys

import pytest

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")

# Shows an answer in pieces, from the screen's first cell on; the arguments are the text and seconds between pieces.
SHOWING = """
import os, sys, time
from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.session.events import FinalDelta
from gptoss.cli.terminal.turn_view import TurnView
text, delay = sys.argv[1], float(sys.argv[2])
output = Output(sys.stdout, "standard output", os.environ)
view = TurnView(output, look=ReasoningView.SHOW)
output.write("\\x1b[H\\x1b[2J")
for at in range(0, len(text), 8):
    view.show(FinalDelta(text[at : at + 8]))
    time.sleep(delay)
view.close()
output.write("ended\\n")
time.sleep(60)
"""
NUMBERS = [f"r{number:03}" for number in range(60)]
TABLE = "| Row | Text |\n|---|---|\n" + "".join(f"| {number} | some words |\n" for number in NUMBERS)
PROSE = "\n\n".join(" ".join(f"{number}{letter}" for letter in "abcdefgh") for number in NUMBERS[:40])


@pytest.fixture
def showing(tmux):
    """Show a text in a pane."""

    def start(text, columns, rows, delay=0.0):
        return tmux([sys.executable, "-c", SHOWING, text, str(delay)], columns, rows)

    return start


def rows_with(number: str, lines: list[str]) -> list[str]:
    return [line for line in lines if re.search(rf"\b{number}\b", line)]


def test_rows_of_a_table_that_is_higher_than_the_screen_are_there_once(showing) -> None:
    sizes = [(80, 24), (40, 10), (200, 50)]
    for pane, (_, rows) in zip([showing(TABLE, *size) for size in sizes], sizes, strict=True):
        lines = pane.wait_for("ended")
        assert [len(rows_with(number, lines)) for number in NUMBERS] == [1] * 60
        assert len(lines) == 60 + 5
        assert pane.history_size() + rows == 60 + 6  # the cursor stands below the last


@pytest.mark.parametrize(("text", "sizes"), [(TABLE, [(50, 20), (50, 7), (90, 30)]), (PROSE, [(44, 7), (90, 40)])])
def test_no_row_comes_twice_when_the_window_changes_its_size(showing, text, sizes) -> None:
    pane = showing(text, 80, 24, delay=0.004)
    for number, (columns, rows) in zip((4, 14, 30), sizes, strict=False):
        pane.wait_for(rf".*{NUMBERS[number]}")
        pane.resize(columns, rows)
    pane.wait_for("ended")
    shown = " ".join(pane.lines(joined=True))
    words = re.findall(r"\br\d+[a-z]*", text)
    assert re.findall(r"\br\d+[a-z]*", shown) == words
