"""Draws docs/chat.svg: a real conversation with the built-in model, at a pseudo-terminal.

    python docs/make_chat_svg.py

Needs the development packages. The times in the picture are those of the machine that it is run on.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

PICTURE = Path(__file__).parent / "chat.svg"
COLUMNS, ROWS = 80, 40
LINES = ["What is 347 + 85?", "/effort high", "And 912 minus 355?"]
# Blinking carries dimness to where the picture is drawn: pyte does not keep it, and gptoss never blinks.
_DIMMING = re.compile(r"\x1b\[((?:\d+;)*)2((?:;\d+)*)m")


def main() -> None:
    """Type the lines, one after the other, and draw the last screen."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    with tempfile.TemporaryDirectory() as home:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "gptoss.cli", "chat", "-m", "nano", "--seed", "1"],
            dimensions=(ROWS, COLUMNS),
            env={**os.environ, "TERM": "xterm-256color", "GPTOSS_HOME": home, "LC_ALL": "C.UTF-8", "NO_COLOR": ""},
            encoding="utf-8",
        )
        screen.write_process_input = child.send  # answers to questions about the cursor's place
        for line in LINES:
            _read(child, stream)
            child.send(line + "\r")
        _read(child, stream)
        child.close(force=True)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    rows = [_row(screen, number) for number in range(ROWS)]
    while rows and not rows[-1].plain.strip():
        rows.pop()
    for row in rows:
        console.print(row, soft_wrap=True)
    picture = console.export_svg(title="gptoss chat", unique_id="gptoss")
    # Fonts of other hosts are not loaded where the picture is shown.
    PICTURE.write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL), encoding="utf-8")


def _read(child: pexpect.spawn, stream: pyte.Stream, quiet_s: float = 3.0) -> None:
    """Take what comes until nothing has come for a while."""
    last = time.monotonic()
    while time.monotonic() - last < quiet_s:
        try:
            data = child.read_nonblocking(4096, timeout=0.1)
        except pexpect.TIMEOUT:
            continue
        stream.feed(_DIMMING.sub(lambda match: f"\x1b[{match[1]}5{match[2]}m", data).replace("\x1b[22m", "\x1b[22;25m"))
        last = time.monotonic()


def _row(screen: pyte.Screen, number: int) -> Text:
    text = Text()
    for column in range(screen.columns):
        cell = screen.buffer[number][column]
        colour = None if cell.fg == "default" else cell.fg
        style = Style(
            color=colour,
            bold=cell.bold,
            italic=cell.italics,
            dim=cell.blink,
            underline=cell.underscore,
            reverse=cell.reverse,
        )
        text.append(cell.data, style)
    text.rstrip()
    return text


if __name__ == "__main__":
    main()
