"""A Markdown table as rows of a terminal.

The widths of the columns come from the first rows alone, so that the rows of a long table can be shown as they come and
need never be drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from gptoss.cli.terminal import theme
from gptoss.cli.terminal.styled_text import Line, line_width, wrap

ROWS_OF_WIDTHS = 20
"""Rows, below the heads, that the widths of the columns come from."""
_NARROWEST_COLUMN = 8
_BORDERS = 3


@dataclass(frozen=True)
class _Box:
    """The signs of a border: of the top, the line below the heads, the bottom; and between cells."""

    top: str
    middle: str
    bottom: str
    side: str


_LINES = _Box("╭─┬╮", "├─┼┤", "╰─┴╯", "│")
_ASCII = _Box("+-++", "|-+|", "+-++", "|")


class TableLayout:
    """How a table is laid out in `width` cells; one with too many columns for that becomes a list of its rows.

    Args:
        cells: row by row, the heads first; a row may have fewer cells than the first. Rows after `ROWS_OF_WIDTHS` and
            the heads do not count.
        alignments: of the columns: left, center or right.
        width: cells that there are.
        unicode: whether the terminal has lines to draw with.
    """

    def __init__(self, cells: Sequence[list[Line]], alignments: list[str], width: int, *, unicode: bool) -> None:
        self._heads = cells[0]
        self._width = width
        self._box = _LINES if unicode else _ASCII
        count = len(self._heads)
        self._alignments = [*alignments, *["left"] * count][:count]
        self._is_list = count * (_NARROWEST_COLUMN + _BORDERS) > width and count > 1
        seen = cells[: ROWS_OF_WIDTHS + 1]
        natural = [max((line_width(row[i]) for row in seen if i < len(row)), default=0) for i in range(count)]
        self._widths = _fitted([max(1, each) for each in natural], max(count, width - _BORDERS * count - 1))

    def heads(self) -> list[Line]:
        """Return the rows above the first row of cells."""
        if self._is_list:
            return []
        bold = [
            [Segment(s.text, theme.STRONG if s.style is None else theme.STRONG + s.style) for s in head]
            for head in self._heads
        ]
        return [self._border(self._box.top), *self._row(bold), self._border(self._box.middle)]

    def rows(self, cells: Sequence[list[Line]], *, first: bool) -> list[Line]:
        """Return rows of cells.

        Args:
            cells: row by row, without the heads.
            first: whether no row came before them.
        """
        lines: list[Line] = []
        for index, row in enumerate(cells):
            if self._is_list:
                lines += [[]] * (index > 0 or not first) + self._record(row)
            else:
                lines += self._row([*row, *[[]] * len(self._widths)][: len(self._widths)])
        return lines

    def end(self) -> list[Line]:
        """Return the rows below the last row of cells."""
        return [] if self._is_list else [self._border(self._box.bottom)]

    def _record(self, row: list[Line]) -> list[Line]:
        lines: list[Line] = []
        for head, cell in zip(self._heads, row, strict=False):
            name = [Segment(segment.text, theme.STRONG) for segment in head]
            lines += [each.line for each in wrap([*name, Segment(": "), *cell], self._width)]
        return lines

    def _row(self, cells: list[Line]) -> list[Line]:
        """Return the terminal's rows of one row of the table."""
        columns = [
            [each.line for each in wrap(cell, width)] or [[]] for cell, width in zip(cells, self._widths, strict=True)
        ]
        side = Segment(self._box.side, theme.DIM)
        lines: list[Line] = []
        for number in range(max(map(len, columns))):
            line: Line = [side]
            for column, width, alignment in zip(columns, self._widths, self._alignments, strict=True):
                line += _aligned(column[number] if number < len(column) else [], width, alignment)
                line.append(side)
            lines.append(line)
        return lines

    def _border(self, signs: str) -> Line:
        left, line, between, right = tuple(signs)
        return [Segment(left + between.join(line * (width + 2) for width in self._widths) + right, theme.DIM)]


def _aligned(text: Line, width: int, alignment: str) -> Line:
    """Return text with the spaces around it that fill a cell, and one on either side."""
    free = max(0, width - line_width(text))
    before = {"right": free, "center": free // 2}.get(alignment, 0)
    return [Segment(" " * (before + 1)), *text, Segment(" " * (free - before + 1))]


def _fitted(widths: list[int], room: int) -> list[int]:
    """Return the widths of columns, the widest made narrower until all fit."""
    excess = sum(widths) - room
    while excess > 0 and max(widths) > 1:
        widest = max(widths)
        columns = [i for i, width in enumerate(widths) if width == widest]
        below = max((width for width in widths if width < widest), default=1)
        cut = min(widest - max(below, 1), -(-excess // len(columns))) or 1
        for i in reversed(columns):
            widths[i] -= min(cut, excess)
            excess -= min(cut, excess)
    return widths
