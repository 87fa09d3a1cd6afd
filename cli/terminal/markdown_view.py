"""Markdown that is still being written, as rows of a terminal.

Finished rows are returned once; rows that may still change are returned each time. Whether the source
comes in one piece or in many, the finished rows are the same, as long as the width is.
"""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style

from gptoss.cli.terminal import theme
from gptoss.cli.terminal.code_highlight import highlight
from gptoss.cli.terminal.markdown_blocks import Blocks, Leaf, is_certain, read_blocks
from gptoss.cli.terminal.markdown_parser import parser
from gptoss.cli.terminal.markdown_table import ROWS_OF_WIDTHS, TableLayout
from gptoss.cli.terminal.styled_text import Line, line_width, skip, take, wrap

_PROSE_WIDTH = 100
"""Longer rows are hard to read, however wide the terminal is."""
_RULE_WIDTH = 24
_LONGEST_NAME = 40


class MarkdownView:
    """Takes Markdown in pieces.

    Args:
        marks: keep the signs of emphasis and code, for a terminal without styles.
        unicode: whether the terminal has every character.
        links: whether addresses are links.
    """

    def __init__(self, *, marks: bool = False, unicode: bool = True, links: bool = False) -> None:
        self._markdown = parser()
        self._marks = marks
        self._links = links
        self._line = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" if unicode else "-"
        self._unicode = unicode
        self._source = ""
        self._finished = 0
        """Leaves of the source that have been given out whole."""
        self._given = 0
        """Characters (of a text), lines (of code) or rows (of a table) of the next leaf that have been given out."""
        self._table: TableLayout | None = None
        """The layout of the next leaf, a table of which rows have been given out."""
        self._begun = False

    def feed(self, piece: str) -> None:
        """Append source, without control characters."""
        self._source += piece.expandtabs(4) if "\t" in piece else piece

    def rows(self, width: int) -> tuple[list[Line], list[Line]]:
        """Return the rows finished since the last call, and the rows that may still change."""
        blocks = self._blocks()
        leaves = blocks.leaves
        if not leaves:
            return [], []
        done: list[Line] = []
        complete = self._source.count("\n")
        certain = [i for i in range(1, len(leaves)) if is_certain(leaves[i], leaves[i - 1], complete)]
        finished = max(certain, default=0)
        while self._finished < finished:
            done += self._rest_of(leaves[self._finished], width)
            self._finished, self._given, self._begun = self._finished + 1, 0, True
        if self._finished >= len(leaves):
            return done, []
        done += self._settled_of(leaves[self._finished], width)
        open_rows = self._rest_of(leaves[self._finished], width, ended=False)
        begun, given, self._begun, self._given = self._begun, self._given, True, 0
        for leaf in leaves[self._finished + 1 :]:
            open_rows += self._rest_of(leaf, width, ended=False)
        self._begun, self._given = begun, given
        self._forget(leaves, blocks.starts)
        return done, open_rows

    def finish(self, width: int) -> list[Line]:
        """Return the remaining rows; then another text can begin."""
        done: list[Line] = []
        for leaf in self._blocks().leaves[self._finished :]:
            done += self._rest_of(leaf, width)
            self._given, self._begun = 0, True
        self._source, self._finished, self._given, self._begun = "", 0, 0, False
        return done

    def _blocks(self) -> Blocks:
        return read_blocks(self._source, self._markdown, marks=self._marks, unicode=self._unicode, links=self._links)

    def _forget(self, leaves: list[Leaf], starts: list[int]) -> None:
        """Cut off the outermost blocks and the rows of a table that are finished, with what they take to parse."""
        block = leaves[self._finished].block
        gone = sum(leaf.block < block for leaf in leaves)
        is_table = leaves[self._finished].kind == "table" and self._given > 1
        if not gone and not is_table:
            return
        lines = self._source.split("\n")
        if is_table:
            first = leaves[self._finished].line + 2  # behind the heads and the line below them
            del lines[first : first + self._given - 1]
            self._given = 1
            if not gone:
                self._source = "\n".join(lines)
                return
        begin = starts[block]
        if begin and not lines[begin - 1].strip():
            begin -= 1  # so that the gap is seen again
        self._source = "\n".join(lines[begin:])
        self._finished -= gone

    def _settled_of(self, leaf: Leaf, width: int) -> list[Line]:
        """Return the further rows of an unfinished leaf that can no longer change."""
        if leaf.kind == "text":
            width = min(width, _PROSE_WIDTH) - line_width([Segment(leaf.rest)])
            # Where a row ends depends on the word behind it, which has to have come to stay as well.
            settled = take(leaf.text, _settled_length(leaf, self._source))
            kept = wrap(skip(settled, self._given), width, whole_words=True)[:-1]
            if not kept:
                return []
            done = self._prefixed(leaf, [row.line for row in kept], at_start=self._given == 0)
            self._given += kept[-1].end
            return done
        if leaf.kind == "code":
            count = self._complete_code_lines(leaf)
            if count <= self._given:
                return []
            done = self._code_rows(leaf, self._given, count)
            self._given = count
            return done
        if leaf.kind == "table":
            return self._settled_of_table(leaf, width)
        return []

    def _settled_of_table(self, leaf: Leaf, width: int) -> list[Line]:
        """Return the further rows of a table that is so long that its widths are known."""
        complete = min(self._source.count("\n") - leaf.line - 2, len(leaf.cells) - 1)
        if self._given == 0:
            if complete <= ROWS_OF_WIDTHS:
                return []
            self._table = self._layout(leaf, width)
        if self._table is None or complete + 1 <= self._given:
            return []
        at_start = self._given == 0
        rows = self._table.heads() if at_start else []
        rows += self._table.rows(leaf.cells[max(1, self._given) : complete + 1], first=at_start)
        self._given = complete + 1
        return self._prefixed(leaf, rows, at_start=at_start)

    def _layout(self, leaf: Leaf, width: int) -> TableLayout:
        room = width - line_width([Segment(leaf.rest)])
        return TableLayout(leaf.cells, leaf.alignments, room, unicode=self._unicode)

    def _complete_code_lines(self, leaf: Leaf) -> int:
        """Return the number of lines of the last leaf that are known to be code: of a fence, the complete ones."""
        if not leaf.language and not self._is_fence(leaf):
            return 0
        return min(len(leaf.lines), self._source.count("\n") - leaf.line - 1)

    def _is_fence(self, leaf: Leaf) -> bool:
        return self._source.split("\n")[leaf.line].lstrip(" >-*+.)0123456789")[:3] in ("```", "~~~")

    def _rest_of(self, leaf: Leaf, width: int, *, ended: bool = True) -> list[Line]:
        """Return the rows of a leaf that were not returned yet."""
        prose = max(1, min(width, _PROSE_WIDTH) - line_width([Segment(leaf.rest)]))
        at_start = self._given == 0
        match leaf.kind:
            case "text":
                rows = [row.line for row in wrap(skip(leaf.text, self._given), prose, whole_words=True)]
                if at_start and not rows:
                    rows = [[]]
                return self._prefixed(leaf, rows, at_start=at_start)
            case "heading":
                style = theme.HEADINGS[min(leaf.level, len(theme.HEADINGS)) - 1]
                text = [Segment(s.text, style if s.style is None else s.style + style) for s in leaf.text]
                return self._prefixed(leaf, [row.line for row in wrap(text, prose, whole_words=True)], at_start=True)
            case "code":
                rows = self._code_rows(leaf, self._given, len(leaf.lines))
                return [*rows, self._rule(leaf.rest)] if ended else rows
            case "math":
                lines = [[Segment(line, theme.MATH)] for line in leaf.lines]
                return self._prefixed(leaf, [row.line for line in lines for row in wrap(line, prose)], at_start=True)
            case "table":
                table = self._layout(leaf, width) if at_start or self._table is None else self._table
                rows = table.heads() if at_start else []
                rows += table.rows(leaf.cells[max(1, self._given) :], first=at_start)
                return self._prefixed(leaf, [*rows, *table.end()], at_start=at_start)
            case "rule":
                return self._prefixed(leaf, [[Segment(self._line * _RULE_WIDTH, theme.DIM)]], at_start=True)

    def _code_rows(self, leaf: Leaf, begin: int, end: int) -> list[Line]:
        """Return lines of code, unwrapped so that they can be copied, with a rule and the language before the first."""
        rows = [
            [*([Segment(leaf.rest)] if leaf.rest else []), *line]
            for line in highlight(leaf.lines[:end], leaf.language, begin)
        ]
        if begin == 0:
            name = leaf.language.split()[0][:_LONGEST_NAME] if leaf.language.split() else ""
            rows = [*self._gap(leaf), self._rule(leaf.first, name), *rows]
        return rows

    def _prefixed(self, leaf: Leaf, rows: list[Line], *, at_start: bool) -> list[Line]:
        """Return rows with their prefixes, and the empty row above the first."""
        lines = []
        for index, row in enumerate(rows):
            prefix = leaf.first if at_start and index == 0 else leaf.rest
            lines.append([Segment(prefix, _prefix_style(prefix)), *row] if prefix else row)
        return [*self._gap(leaf), *lines] if at_start else lines

    def _gap(self, leaf: Leaf) -> list[Line]:
        heading = leaf.kind == "heading"
        return [[]] if self._begun and (leaf.gap or heading) else []

    def _rule(self, prefix: str, title: str = "") -> Line:
        text = f"{self._line * 2} {title} " if title else ""
        return [Segment(prefix), Segment(text.ljust(_RULE_WIDTH, self._line), theme.DIM)]


def _settled_length(leaf: Leaf, source: str) -> int:
    """As `leaf.settled`, but for lines at the source's end that can still turn out to be the heads of a table."""
    lines = source.split("\n")
    if not any("|" in line for line in lines[-2:]):
        return leaf.settled
    return 0


def _prefix_style(prefix: str) -> Style | None:
    return theme.DIM if prefix.strip() in ("", "\N{LEFT ONE QUARTER BLOCK}", "|") else theme.MARKER
