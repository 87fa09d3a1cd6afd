"""Messages that wait while rows on the screen may still change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gptoss.cli.base.output import Output
from gptoss.cli.base.text import one_line


class Notices:
    """Lines to the person that wait for the end of what is being shown."""

    def __init__(self, messages: Output) -> None:
        self._messages = messages
        self._waiting: list[str] = []
        self._holding = False

    def add(self, line: str) -> None:
        """Write a line, now or when it may be."""
        self._waiting.append(line)
        if not self._holding:
            self._write()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this context lines wait."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for line in waiting:
            self._messages.write_line(f"gptoss: {one_line(line)}", hang=len("gptoss: "))
