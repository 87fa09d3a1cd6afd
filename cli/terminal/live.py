"""The end of a terminal's output while it is still changing.

Finished rows are written once; the terminal scrolls them into its history. Only the rows that
may still change are written over, and of these only from the first that differs.
"""

from __future__ import annotations

from itertools import takewhile

from rich.color import ColorSystem
from rich.segment import Segment

from gptoss.cli.base.output import Output
from gptoss.cli.base.text import sanitize
from gptoss.cli.terminal.styled_text import Line, crop, line_width, plain, skip


class LiveRegion:
    """Rows at the end of a terminal that can be written over; the terminal must know ANSI's cursor movements.

    Whatever the rows hold, no control character in it reaches the terminal.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._rows: list[Line] = []
        self._columns = 0

    @property
    def width(self) -> int:
        """Cells of a row. The last column stays free: terminals differ in what they do when it is full."""
        return max(1, self._output.columns - 1)

    def update(self, done: list[Line], open_rows: list[Line]) -> None:
        """Replace the open rows by `done`, which stay, and `open_rows`, which may change again.

        A done row may be wider than the terminal, which then breaks it and joins it again when it grows wider. Open
        rows are cut at the edge, and of more than fit on the screen only the last are shown.
        """
        width, height = self.width, max(1, self._output.rows - 1)
        rows = [crop(row, width) for row in open_rows[-height:]]
        wanted = [*done, *rows]
        columns = self._output.columns
        narrower, self._columns = columns < self._columns, columns
        same = 0 if narrower else sum(1 for _ in takewhile(_same, zip(self._rows, wanted, strict=False)))
        if rows and same == len(wanted) < len(self._rows):
            same -= 1  # so that the cursor comes to stand behind the last open row
        grown = None if narrower else self._growth(same, wanted)
        if grown is not None:
            text, rest, fresh = self._painted(grown), wanted[same + 1 :], False
        elif same == len(self._rows):
            text, rest, fresh = "", wanted[same:], not self._rows
        else:
            text, rest, fresh = self._up_to(same) + "\r\x1b[J", wanted[same:], True
        for row in rest:
            text += ("" if fresh else "\n") + self._painted(row)
            fresh = False
        if not rows and not fresh:
            text += "\n"
        self._rows = rows
        if text:
            self._output.write(text)

    def _growth(self, same: int, wanted: list[Line]) -> Line | None:
        """Return the text to append to the row at the cursor, if appending is enough."""
        if same != len(self._rows) - 1 or same >= len(wanted):
            return None
        old, new = self._rows[same], wanted[same]
        length = len(plain(old))
        return skip(new, length) if _styled(old) == _styled(new)[:length] and length else None

    def _up_to(self, row: int) -> str:
        """Move the cursor from the end of the open rows up to one of them."""
        # Terminals break rows that have become too wide into several, the cursor staying at its character.
        above = sum(max(1, -(-line_width(line) // self._columns)) for line in self._rows[row:]) - 1
        above = min(above, self._output.rows - 1)
        return f"\x1b[{above}A" if above > 0 else ""

    def _painted(self, line: Line) -> str:
        return "".join(self._paint(segment) for segment in line)

    def _paint(self, segment: Segment) -> str:
        text = self._output.as_shown(sanitize(segment.text)).translate(_SPACES)
        if segment.style is None or not self._output.has_styles:
            return text
        return segment.style.render(text, color_system=ColorSystem.STANDARD)


_SPACES = {ord("\n"): " ", ord("\t"): " "}


def _same(pair: tuple[Line, Line]) -> bool:
    return _styled(pair[0]) == _styled(pair[1])


def _styled(line: Line) -> list[tuple[str, object]]:
    return [(character, segment.style) for segment in line for character in segment.text]
