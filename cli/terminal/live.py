"""The end of a terminal's output while it is still changing.

Finished rows are written once; the terminal scrolls them into its history. Only the rows that
may still change are written over, and of these only from the first that differs.
"""

from __future__ import annotations

from itertools import takewhile

from rich.color import ColorSystem
from rich.segment import Segment

from gptoss.cli.base.links import linked
from gptoss.cli.base.output import Output
from gptoss.cli.base.text import sanitize
from gptoss.cli.terminal.styled_text import Line, fold, line_width, plain, skip

# Rows are erased one by one, from the last upwards. Erasing to the screen's end (ED) is not the same: where that begins
# at the screen's first cell, tmux moves all that stood there into its history.
_ERASE_ROW = "\r\x1b[K"
_UP = "\x1b[A"


class LiveRegion:
    """Rows at the end of a terminal that can be written over; the terminal must know ANSI's cursor movements.

    Whatever the rows hold, no control character in it reaches the terminal.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._rows: list[Line] = []
        self._columns = 0
        self._hides = False
        """Whether there are open rows before `_rows` that the screen has no room for."""
        self._scrolled: list[str] = []
        """Texts of the first open rows, which a lower window has moved into the history; `_rows` follow them."""
        self._scrolled_width = 1

    @property
    def width(self) -> int:
        """Cells of a row. The last column stays free: terminals differ in what they do when it is full."""
        return max(1, self._output.columns - 1)

    def update(self, done: list[Line], open_rows: list[Line]) -> None:
        """Replace the open rows by `done`, which stay, and `open_rows`, which may change again.

        A done row may be wider than the terminal, which then breaks it and joins it again when it grows wider. Open
        rows are broken here, and of more than fit on the screen only the last are shown.
        """
        columns, screen_rows = self._output.columns, self._output.rows
        narrower, self._columns = columns < self._columns, columns
        self._leave_scrolled(screen_rows)
        done, open_rows = self._without_scrolled(done, open_rows)
        width, height = max(1, columns - 1), max(1, screen_rows - 1)
        folded = [piece for row in open_rows for piece in fold(row, width)]
        rows = folded[-height:]
        self._hides = len(folded) > height
        wanted = [*done, *rows]
        same = 0 if narrower else sum(1 for _ in takewhile(_same, zip(self._rows, wanted, strict=False)))
        if rows and same == len(wanted) < len(self._rows):
            same -= 1  # so that the cursor comes to stand behind the last open row
        text = self._written(wanted, same, width, narrower=narrower)
        at_start = not wanted[same:] and (same < len(self._rows) or not self._rows)
        if not rows and not at_start:
            text += "\n"
        self._rows = rows
        if text:
            self._output.write(text)

    def erase(self) -> None:
        """Take the open rows from the screen; they come again with the next `update`."""
        columns, screen_rows = self._output.columns, self._output.rows
        self._columns = columns
        self._leave_scrolled(screen_rows)
        if self._rows:
            above = min(sum(map(self._span, self._rows)), screen_rows) - 1
            self._output.write(_ERASE_ROW + (_UP + _ERASE_ROW) * above)
        self._rows = []

    def start_anew(self) -> None:
        """Take it that the cursor stands anywhere: what was open stays where it was, and comes again in a new row."""
        self._rows, self._scrolled = [], []
        # As many blanks as lead to the next row from everywhere but from a row's beginning.
        self._output.write(" " * self.width + "\r\x1b[K")

    def _written(self, wanted: list[Line], same: int, width: int, *, narrower: bool) -> str:
        """Return what replaces the open rows from number `same` on by those that are wanted."""
        grown = None if narrower else self._growth(same, wanted)
        if grown is not None:
            return self._painted(grown) + "".join("\n" + self._painted(row) for row in wanted[same + 1 :])
        rest = [self._painted(row) for row in wanted[same:]]
        if same == len(self._rows):
            return ("\n" if self._rows and rest else "") + "\n".join(rest)
        above = min(sum(map(self._span, self._rows[same:])), self._output.rows) - 1
        fits = all(line_width(row) <= width for row in wanted[same:])
        if narrower or not fits or len(rest) <= above:
            return _ERASE_ROW + (_UP + _ERASE_ROW) * above + "\n".join(rest)
        # Rows that are written over without being erased before do not flicker.
        over = "".join(f"\n{row}\x1b[K" for row in rest[1 : above + 1])
        return _UP * above + _ERASE_ROW + rest[0] + over + "".join(f"\n{row}" for row in rest[above + 1 :])

    def _growth(self, same: int, wanted: list[Line]) -> Line | None:
        """Return the text to append to the row at the cursor, if appending is enough."""
        if same != len(self._rows) - 1 or same >= len(wanted):
            return None
        old, new = self._rows[same], wanted[same]
        length = len(plain(old))
        return skip(new, length) if _styled(old) == _styled(new)[:length] and length else None

    def _span(self, row: Line) -> int:
        """Return how many rows of the screen a row takes: terminals break one that has become too wide."""
        return max(1, -(-line_width(row) // self._columns))

    def _leave_scrolled(self, screen_rows: int) -> None:
        """Give up open rows that a lower or narrower window has moved into the history."""
        excess = sum(map(self._span, self._rows)) - screen_rows
        count = 0
        while excess > 0 and count < len(self._rows):
            excess -= self._span(self._rows[count])
            count += 1
        if not self._hides:  # else rows that are to stand before them have still to come
            self._scrolled += [plain(row) for row in self._rows[:count]]
        self._rows = self._rows[count:]

    def _without_scrolled(self, done: list[Line], open_rows: list[Line]) -> tuple[list[Line], list[Line]]:
        """Return done and open rows without those that stand in the history as they are."""
        left, count, still_open = self._scrolled, 0, []
        for row in [*done, *open_rows] if left else []:
            pieces = [plain(piece) for piece in fold(row, self._scrolled_width)]
            if not left or pieces != left[: len(pieces)]:
                break
            left, count = left[len(pieces) :], count + 1
            if count > len(done):
                still_open += pieces
        self._scrolled = still_open
        if not still_open:
            self._scrolled_width = max(1, self._columns - 1)
        return done[count:], open_rows[max(0, count - len(done)) :]

    def _painted(self, line: Line) -> str:
        return "".join(self._paint(segment) for segment in line)

    def _paint(self, segment: Segment) -> str:
        text = self._output.as_shown(sanitize(segment.text)).translate(_SPACES)
        style = segment.style
        if style is None:
            return text
        target = style.link if self._output.has_links else None
        if self._output.has_styles:
            text = (style if style.link is None else style.update_link(None)).render(
                text, color_system=ColorSystem.STANDARD
            )
        return text if target is None else linked(text, target)


_SPACES = {ord("\n"): " ", ord("\t"): " "}


def _same(pair: tuple[Line, Line]) -> bool:
    return pair[0] == pair[1] or _styled(pair[0]) == _styled(pair[1])


def _styled(line: Line) -> list[tuple[str, object]]:
    return [(character, segment.style) for segment in line for character in segment.text]
