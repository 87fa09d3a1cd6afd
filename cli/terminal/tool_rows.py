"""What tools are called with and what they write, as a bounded number of rows."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style

from gptoss.cli.base.text import counted, sanitize
from gptoss.cli.terminal.styled_text import Line, wrap
from gptoss.cli.tools.output import without_rewritten

_ROWS = 8
_TAIL_CHARACTERS = 4000
_INDENT = "  "


def first_rows(text: str, width: int, style: Style | None = None) -> list[Line]:
    """Return the first rows of an untrusted text, and how many more there are.

    Args:
        text: as it is.
        width: cells of a row.
        style: of the text.
    """
    lines = [row.line for row in wrap([Segment(sanitize(text), style)], width - len(_INDENT))]
    rows: list[Line] = [[Segment(_INDENT), *line] for line in lines[:_ROWS]]
    if len(lines) > _ROWS:
        rows.append([Segment(f"{_INDENT}and {counted(len(lines) - _ROWS, 'more row')}", style)])
    return rows


class OutputTail:
    """The end of what a running tool writes. It is untrusted and comes in pieces."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, piece: str) -> None:
        """Append text; of what was there only the end is kept."""
        self._text = (self._text + piece)[-_TAIL_CHARACTERS:]

    def clear(self) -> None:
        """Begin anew, for another call."""
        self._text = ""

    def rows(self, width: int, style: Style | None = None) -> list[Line]:
        """Return the last rows; a line that was written over by carriage returns is as it was last."""
        text = without_rewritten(self._text).rstrip("\n")
        rows = [row.line for row in wrap([Segment(sanitize(text), style)], width - len(_INDENT))]
        return [[Segment(_INDENT), *line] for line in rows[-_ROWS:]]
