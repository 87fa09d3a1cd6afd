"""A Markdown table as rows of a terminal."""

from __future__ import annotations

import io
from typing import Literal, cast

from rich import box
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gptoss.cli.terminal import theme
from gptoss.cli.terminal.styled_text import Line, wrap

_NARROWEST_COLUMN = 8
_BORDERS = 3


def table_rows(cells: list[list[Line]], alignments: list[str], width: int, *, unicode: bool) -> list[Line]:
    """Lay a table out in `width` cells; one with too many columns for that becomes a list of its rows.

    Args:
        cells: row by row, the heads first; a row may have fewer cells than the first.
        alignments: of the columns: left, center or right.
        width: cells that there are.
        unicode: whether the terminal has lines to draw with.
    """
    heads, *rows = cells
    if len(heads) * (_NARROWEST_COLUMN + _BORDERS) > width and len(heads) > 1:
        return _records(heads, rows, width)
    table = Table(box=box.ROUNDED if unicode else box.ASCII, border_style=theme.DIM, header_style=theme.STRONG)
    for head, alignment in zip(heads, [*alignments, *["left"] * len(heads)], strict=False):
        justify = cast(Literal["left", "center", "right"], alignment if alignment in ("center", "right") else "left")
        table.add_column(_text(head), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard", _environ={})
    lines = console.render_lines(table, pad=False)
    return [[segment for segment in line if not segment.is_control] for line in lines]


def _records(heads: list[Line], rows: list[list[Line]], width: int) -> list[Line]:
    lines: list[Line] = []
    for row in rows:
        for head, cell in zip(heads, row, strict=False):
            name = [Segment(segment.text, theme.STRONG) for segment in head]
            lines += [each.line for each in wrap([*name, Segment(": "), *cell], width)]
        lines.append([])
    return lines[:-1]


def _text(line: Line) -> Text:
    return Text.assemble(*((segment.text, segment.style or "") for segment in line))
