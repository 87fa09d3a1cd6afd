"""Reasoning as rows of a terminal: dim, as it was written, under a rule with what it has taken so far."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment

from gptoss.cli.base.text import counted, duration
from gptoss.cli.terminal import theme
from gptoss.cli.terminal.styled_text import Line, plain, skip, width_of, wrap

_PROSE_WIDTH = 100
_RULE_WIDTH = 40
_WINDOW_ROWS = 5


class ThinkingView:
    """Takes reasoning in pieces.

    Args:
        folded: show only its last rows while it is written, and one line in the end.
        hidden: show only what it has taken so far, and nothing in the end.
        line: the character of rules.
        hints: what a person can do meanwhile, the most important first; as many are shown as there is room for.
    """

    def __init__(self, *, folded: bool, hidden: bool, line: str, hints: Sequence[str] = ()) -> None:
        self._folded = folded
        self._hidden = hidden
        self._line = line
        self._hints = tuple(hints)
        self._text: Line = []
        self._begun = False
        self.tokens = 0
        self.seconds = 0.0

    def feed(self, piece: str) -> None:
        """Append reasoning, without control characters."""
        text = plain(self._text) + piece.expandtabs(4)
        self._text = [] if self._hidden else [Segment(text if self._begun else text.lstrip("\n"), theme.DIM)]

    def rows(self, width: int) -> tuple[list[Line], list[Line]]:
        """Return the rows finished since the last call, and the rows that may still change."""
        rows = wrap(self._text, min(width, _PROSE_WIDTH))
        taken = f"{counted(self.tokens, 'token')}, {duration(self.seconds)}"
        if self._hidden:
            return [], [self._rule(f"thinking: {taken}", width, self._hints)]
        if self._folded:
            window = [row.line for row in rows[-_WINDOW_ROWS:]]
            if len(rows) > 20 * _WINDOW_ROWS:  # what has scrolled out of the window need not be wrapped again
                self._text = skip(self._text, rows[-_WINDOW_ROWS - 1].end)
            return [], [self._rule(f"thinking: {taken}", width, self._hints), *window]
        done = [] if self._begun else [self._rule("thinking", width)]
        done += [row.line for row in rows[:-1]]
        self._begun = True
        if len(rows) > 1:
            self._text = skip(self._text, rows[-2].end)
        last = [rows[-1].line] if rows else []
        return done, [*last, self._rule(f"{taken}", width, self._hints)]

    def finish(self, width: int) -> list[Line]:
        """Return the remaining rows; then another reasoning can begin."""
        done, open_rows = self.rows(width)
        summary = f"thought for {duration(self.seconds)}, {counted(self.tokens, 'token')}"
        self._text, self._begun, self.tokens, self.seconds = [], False, 0, 0.0
        if self._hidden:
            return []
        if self._folded:
            return [[Segment(f"{self._line * 2} {summary}", theme.DIM)]]
        return [*done, *open_rows[:-1], self._rule(summary, width)]

    def _rule(self, title: str, width: int, hints: Sequence[str] = ()) -> Line:
        text = f"{self._line * 2} {title}"
        for hint in hints:
            text += hint if width_of(text + hint) < width else ""
        return [Segment(f"{text} ".ljust(min(_RULE_WIDTH, width), self._line), theme.DIM)]
