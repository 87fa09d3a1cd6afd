"""Reasoning as rows of a terminal: dim, as it was written, under a rule with what it has taken so far."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment

from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.base.text import counted, duration
from gptoss.cli.terminal import theme
from gptoss.cli.terminal.styled_text import Line, plain, skip, width_of, wrap

RULE_WIDTH = 40
"""Cells of a rule, where the terminal has as many."""
_PROSE_WIDTH = 100
_WINDOW_ROWS = 5


class ThinkingView:
    """Takes reasoning in pieces.

    Args:
        look: `SHOW` keeps it; `FOLD` shows only its last rows while it is written, and one line in the end; `HIDE`
            shows only what it has taken so far, and nothing in the end.
        line: the character of rules.
        hints: what a person can do meanwhile, the most important first; as many are shown as there is room for.
    """

    def __init__(self, *, look: ReasoningView, line: str, hints: Sequence[str] = ()) -> None:
        self._look = self._wanted = look
        self._other = ReasoningView.FOLD if look is ReasoningView.SHOW else ReasoningView.SHOW
        self._line = line
        self._hints = tuple(hints)
        self._text: Line = []
        self._aside: list[str] = []
        """Text that was not given out and stands before `_text`, in the looks that do not show all of it."""
        self._begun = False
        self.tokens = 0
        self.seconds = 0.0

    def toggle(self) -> None:
        """Show what is folded or hidden, or fold what is shown, from the next rows on; from any thread."""
        self._wanted, self._other = self._other, self._wanted

    def feed(self, piece: str) -> None:
        """Append reasoning, without control characters."""
        if self._look is ReasoningView.HIDE:
            self._aside.append(piece.expandtabs(4))
            return
        text = plain(self._text) + piece.expandtabs(4)
        self._text = [Segment(text if self._begun or self._aside else text.lstrip("\n"), theme.DIM)]

    def rows(self, width: int) -> tuple[list[Line], list[Line]]:
        """Return the rows finished since the last call, and the rows that may still change."""
        self._change_look()
        taken = f"{counted(self.tokens, 'token')}, {duration(self.seconds)}"
        if self._look is ReasoningView.HIDE:
            return [], [self._rule(f"thinking: {taken}", width, self._hints)]
        rows = wrap(self._text, min(width, _PROSE_WIDTH), whole_words=self._look is ReasoningView.SHOW)
        if self._look is ReasoningView.FOLD:
            window = [row.line for row in rows[-_WINDOW_ROWS:]]
            if len(rows) > 2 * _WINDOW_ROWS:  # what has scrolled out of the window need not be wrapped again
                end = rows[-_WINDOW_ROWS - 1].end
                self._aside.append(plain(self._text)[:end])
                self._text = skip(self._text, end)
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
        self._text, self._aside, self._begun, self.tokens, self.seconds = [], [], False, 0, 0.0
        if self._look is ReasoningView.HIDE:
            return []
        if self._look is ReasoningView.FOLD:
            return [[Segment(f"{self._line * 2} {summary}", theme.DIM)]]
        return [*done, *open_rows[:-1], self._rule(summary, width)]

    def _change_look(self) -> None:
        if self._wanted is self._look:
            return
        self._look = self._wanted
        if self._look is ReasoningView.HIDE:
            self._aside.append(plain(self._text))
            self._text = []
        else:
            text = "".join(self._aside) + plain(self._text)
            self._text = [Segment(text if self._begun else text.lstrip("\n"), theme.DIM)]
            self._aside = []

    def _rule(self, title: str, width: int, hints: Sequence[str] = ()) -> Line:
        text = f"{self._line * 2} {title}"
        for hint in hints:
            text += hint if width_of(text + hint) < width else ""
        return [Segment(f"{text} ".ljust(min(RULE_WIDTH, width), self._line), theme.DIM)]
