"""What stands in the history and on the screen of a real tmux, which joins and breaks rows when its window changes."""

import os
import re
import shlex
import sys
import time

import pytest

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


@pytest.fixture
def shell(tmux, script, tmp_path):
    """Start a shell in a pane, and in it `gptoss` with a scripted engine."""

    def start(*arguments, **fields):
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\nexec {shlex.join(script(*arguments, **fields))}\n")
        program.chmod(0o755)
        pane = tmux(["bash", "--norc", "-i"], 70, 24, PS1="$ ", PATH=f"{tmp_path}:{os.environ['PATH']}")
        pane.wait_for(r"\$")
        pane.type(program.name, "Enter")
        return pane

    return start


def test_stopped_by_ctrl_z_and_continued_by_fg_every_word_is_there_once(shell, reply) -> None:
    words = [f"word{number:02}" for number in range(40)]
    thoughts = [f"thought{number:02}" for number in range(10)]
    completion = reply(" ".join(words), " ".join(thoughts))
    pane = shell("chat", "-m", "nano", completions=[completion], token_delay_s=0.02)
    pane.wait_for(">$")
    pane.type("Count", "Enter")
    for stop, pause_s in ((".*thought02", 3.0), (".*word05", 0)):
        pane.wait_for(stop)
        pane.type("C-z")
        pane.wait(lambda lines, stop=stop: lines[-1] == "$" and "Stopped" in lines[-2])
        time.sleep(pause_s)
        if pause_s:
            pane.type("stty -a | grep -c ' icanon.* echo '", "Enter")
            pane.wait_for("[01]$")
        pane.type("fg", "Enter")
        pane.wait_for(".*program$")
    pane.type("next")
    lines = pane.wait_for("> next$")
    assert re.findall(r"\b(?:thought|word)\d+", " ".join(pane.lines(joined=True))) == [*thoughts, *words]
    (spent,) = (re.search(r"thought for ([\d.]+) s", line)[1] for line in lines if "thought for" in line)
    assert float(spent) < 3
    assert lines.count("\u2500\u2500 thinking ".ljust(40, "\u2500")) == 1


def test_ask_renders_the_answer_and_leaves_no_row_behind(tmux, script, reply) -> None:
    answer = "**Two** words, `code`, and a text that is so long that it has to be broken between words.\n\n- one\n- two"
    options = {"completions": [reply(answer, "Think first.")], "token_delay_s": 0.02, "prefill_delay_s": 0.6}
    pane = tmux(script("ask", "-m", "nano", "Hi", **options), 40, 20)
    pane.wait_for(r"reading \d+ tokens: .*Ctrl-C stops")
    pane.wait_for(r".*Ctrl-C stops")
    lines = pane.wait(lambda lines: lines[-1:] == ["\u2022 two"])
    rule = "\u2500"
    assert [re.sub(r"\d\.\d s", "N.N s", line) for line in lines] == [
        f"{rule * 2} thinking {rule * 27}",
        "Think first.",
        f"{rule * 2} thought for N.N s, 3 tokens {rule * 8}",
        "Two words, code, and a text that is so",
        "long that it has to be broken between",
        "words.",
        "",
        "\u2022 one",
        "\u2022 two",
    ]


def test_addresses_and_paths_are_left_whole_to_the_terminal(tmux, script, reply) -> None:
    address, path = f"https://example.org/{'a-long-way/' * 8}", f"/usr/{'share/some-where/' * 6}file.txt"
    answer = f"It is at {address} on the web,\n\n- and `{path}` here.\n\n> {address}"
    completion = reply(answer, f"Where was {address} again?")
    pane = tmux(script("ask", "-m", "nano", "Hi", completions=[completion], token_delay_s=0.002), 40, 30)

    def addresses() -> list[int]:
        return [line.count(address) for line in pane.lines(joined=True) if "example" in line]

    pane.wait(lambda lines: addresses() == [1, 1, 1] and "Ctrl-C" not in lines[-1])
    lines = pane.lines(joined=True)
    assert any(path in line for line in lines)
    assert "on the web," in lines  # the next row goes on between words
