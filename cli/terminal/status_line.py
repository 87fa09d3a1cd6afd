"""One line for what goes on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from gptoss.cli.base.output import Output
from gptoss.cli.base.text import one_line

_REDRAW_S = 0.1
_HANG = 2


class StatusLine:
    """A line that is overwritten in place and removed at the end; only on a terminal that can do that.

    For a screen reader it is a line for each thing that goes on, which stays. Several threads may use it.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._lock = threading.RLock()
        self._shown_at: float | None = None
        self._announced = ""
        self.works = output.is_terminal and not output.is_dumb

    def show(self, text: str) -> None:
        """Show `text` in place of what stood there, at most ten times a second."""
        now = self._clock()
        with self._lock:
            if self._output.is_accessible:
                self._announce(text)
            if self.works and (self._shown_at is None or now - self._shown_at >= _REDRAW_S):
                self._shown_at = now
                row = _cropped(one_line(text), self._output.columns - 1)
                self._output.write("\r\x1b[K" + self._output.styled(row, "dim"))

    def _announce(self, text: str) -> None:
        what = re.split(r"[:(]|, ", one_line(text))[0].strip()
        if what != self._announced:
            self._announced = what
            self._output.write(what + "\n")

    def leave(self, text: str, *, always: bool = False) -> None:
        """Show a line that stays: on every terminal, or `always`, in a pipe or a file too."""
        with self._lock:
            self._clear()
            if always or self._output.is_terminal:
                self._output.write(self._output.styled(self._output.fitted(one_line(text), _HANG), "dim") + "\n")

    def clear(self) -> None:
        """Remove the line."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._announced = ""
        if self._shown_at is not None:
            self._shown_at = None
            self._output.write("\r\x1b[K")


def _cropped(text: str, columns: int) -> str:
    # Imported where there is a terminal: Rich takes longer to import than `gptoss list` may take in all.
    from rich.segment import Segment

    from gptoss.cli.terminal.styled_text import crop, plain

    return plain(crop([Segment(text)], columns))
