"""The line that stands while a model loads."""

import logging
import time

from gptoss.cli.base.output import Output
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.ticker import Ticker


class Screen(Output):
    def __init__(self) -> None:
        super().__init__(None, "screen", {"TERM": "xterm"}, essential=False)
        self.is_terminal = True
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text


def test_text_and_then_the_time(monkeypatch) -> None:
    monkeypatch.setattr("gptoss.cli.terminal.ticker._QUIET_S", 0.3)
    screen = Screen()
    with Ticker(StatusLine(screen), "loading m") as ticker:
        time.sleep(0.4)
        ticker.text = "packing"
        time.sleep(0.5)
    assert screen.written.startswith("\r\x1b[Kloading m")
    assert "\r\x1b[Kpacking (0." in screen.written
    assert screen.written.endswith("\r\x1b[K")


def test_warnings_are_lines_of_their_own() -> None:
    screen = Screen()
    with Ticker(StatusLine(screen), "loading m"):
        logging.getLogger("gptoss.model").warning("slow \x1b[2J path")
    assert screen.written == "\r\x1b[Kloading m\r\x1b[Kslow \u241b[2J path\n"
    assert logging.getLogger("gptoss").handlers == []


def test_warnings_are_silent_in_a_pipe(capfd) -> None:
    pipe = Screen()
    pipe.is_terminal = False
    with Ticker(StatusLine(pipe), "loading m"):
        logging.getLogger("gptoss.model").warning("slow path")
    assert pipe.written == ""
    assert capfd.readouterr().err == ""
    assert logging.getLogger("gptoss").handlers == []


def test_long_text_stays_on_one_row() -> None:
    screen = Screen()
    StatusLine(screen).show("x" * 200)
    assert screen.written == "\r\x1b[K" + "x" * 79
