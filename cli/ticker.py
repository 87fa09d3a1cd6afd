"""A line that says how long something has been going on that tells nothing of itself."""

from __future__ import annotations

import threading
import time
from typing import Self

from gptoss.cli.terminal_display import StatusLine
from gptoss.cli.text import duration

_EVERY_S = 0.25
_QUIET_S = 1.0


class Ticker:
    """While this context is open, its text and the time stand on the status line.

    Attributes:
        text: what is going on; it can be changed from the thread that does it.
    """

    def __init__(self, line: StatusLine, text: str) -> None:
        self.text = text
        self._line = line
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._line.show(self.text)
        if self._line.works:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._line.works:
            self._thread.join()
        self._line.clear()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(_EVERY_S):
            seconds = time.monotonic() - began
            self._line.show(self.text if seconds < _QUIET_S else f"{self.text} ({duration(seconds)})")
