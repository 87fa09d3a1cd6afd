"""Progress of work that goes on behind the input line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gptoss.cli.base.output import Output
from gptoss.cli.base.text import one_line
from gptoss.cli.terminal.activity import STOP_HINT
from gptoss.cli.terminal.status_line import StatusLine


class StatusBehind(StatusLine):
    """A status line whose text and lines wait for another to show them, except within `in_front`.

    Args:
        output: where lines are shown in the end.
        changed: called when there is something new to show, in any thread.

    Attributes:
        text: what goes on; empty where nothing does.
    """

    def __init__(self, output: Output, changed: Callable[[], object]) -> None:
        super().__init__(output)
        self._changed = changed
        self._front = StatusLine(output)
        self._is_in_front = False
        self._waiting: list[tuple[str, bool]] = []
        self.works = True
        self.text = ""

    @property
    def has_lines(self) -> bool:
        """Whether lines wait."""
        return bool(self._waiting)

    def show(self, text: str) -> None:
        """Say what goes on."""
        with self._lock:
            self.text = one_line(text)
            if self._is_in_front:
                self._front.show(self.text + STOP_HINT)
        self._changed()

    def leave(self, text: str, *, always: bool = False) -> None:
        """Say a line that stays."""
        with self._lock:
            self._waiting.append((text, always))
            if self._is_in_front:
                self._write()
        self._changed()

    def clear(self) -> None:
        """Say that nothing goes on."""
        with self._lock:
            self.text = ""
            if self._is_in_front:
                self._front.clear()
        self._changed()

    def write(self) -> None:
        """Write the lines that wait."""
        with self._lock:
            self._write()

    @contextmanager
    def in_front(self) -> Iterator[None]:
        """Within this context all is shown at once: nobody is typing."""
        try:
            with self._lock:
                self._write()
                self._is_in_front = True
                if self.text:
                    self._front.show(self.text + STOP_HINT)
            yield
        finally:
            with self._lock:
                self._is_in_front = False
                self._front.clear()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for text, always in waiting:
            self._front.leave(text, always=always)
