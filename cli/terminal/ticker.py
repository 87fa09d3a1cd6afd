"""A status line with the elapsed time of an operation that reports no progress."""

from __future__ import annotations

import logging
import threading
import time
from typing import Self

from gptoss.cli.base.text import duration
from gptoss.cli.terminal.status_line import StatusLine

_EVERY_S = 0.25
_QUIET_S = 1.0
_LOGGER = logging.getLogger("gptoss")


class Ticker:
    """Shows a text and the elapsed time on the status line, with warnings above it, until it is closed.

    Attributes:
        text: what is going on; it can be changed from the thread that does it.
    """

    def __init__(self, line: StatusLine, text: str) -> None:
        self.text = text
        self._line = line
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._warnings = _Warnings(line)

    def __enter__(self) -> Self:
        self._line.show(self.text)
        # In a pipe too, where the handler says nothing: by itself `logging` would write to standard error.
        _LOGGER.addHandler(self._warnings)
        if self._line.works:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._line.works:
            self._thread.join()
        _LOGGER.removeHandler(self._warnings)
        self._line.clear()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(_EVERY_S):
            seconds = time.monotonic() - began
            self._line.show(self.text if seconds < _QUIET_S else f"{self.text} ({duration(seconds)})")


class _Warnings(logging.Handler):
    """Shows warnings as lines of their own, on a terminal; by itself `logging` writes them behind the status line."""

    def __init__(self, line: StatusLine) -> None:
        super().__init__(logging.WARNING)
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.leave(record.getMessage())
