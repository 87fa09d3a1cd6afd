"""The progress of a pull on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from gptoss.cli.base.output import Output
from gptoss.cli.base.sizes import show_bytes, show_seconds
from gptoss.cli.base.text import one_line

_LINE_EVERY_S = 15.0
_SPEED_WINDOW_S = 10.0

Clock = Callable[[], float]


class Meter:
    """Bytes, speed and time left. The speed is that of the last seconds, and of what came over the network alone."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._sizes: dict[str, int] = {}
        self._have: dict[str, int] = {}
        self._recent: deque[tuple[float, int]] = deque()

    def begin(self, sizes: dict[str, int]) -> None:
        """Start with these files and their sizes in bytes."""
        self._sizes = sizes
        self._recent.clear()

    def set(self, name: str, nbytes: int) -> None:
        """Count bytes of a file that are there from an earlier run."""
        self._have[name] = nbytes

    def add(self, name: str, nbytes: int) -> None:
        """Count bytes of a file that have arrived; a negative number when it starts over."""
        now = self._clock()
        self._have[name] = self._have.get(name, 0) + nbytes
        if nbytes > 0:
            self._recent.append((now, nbytes))
        while self._recent and now - self._recent[0][0] > _SPEED_WINDOW_S:
            self._recent.popleft()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self._sizes.values())

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(self._have.get(name, 0) for name in self._sizes)

    def is_complete(self, name: str) -> bool:
        """Whether all bytes of this file are there."""
        return self._have.get(name) == self._sizes.get(name)

    def __str__(self) -> str:
        summary = f"{show_bytes(self.done)} of {show_bytes(self.total)}"
        if len(self._recent) < 2:
            return summary
        seconds = max(self._clock() - self._recent[0][0], 1e-3)
        speed = sum(nbytes for _, nbytes in self._recent) / seconds
        left = self.total - self.done
        return f"{summary}, {show_bytes(speed)}/s" + (f", {show_seconds(left / speed)} left" if left else "")


class PlainWatch(AbstractContextManager["PlainWatch"]):
    """Plain lines: one for each complete file, and one every few seconds between."""

    def __init__(self, messages: Output, clock: Clock = time.monotonic) -> None:
        self._messages = messages
        self._clock = clock
        self._meter = Meter(clock)
        self._said = clock()

    def __exit__(self, *_: object) -> None:
        return None

    def begun(self, sizes: dict[str, int]) -> None:
        """See `PullWatch`."""
        self._meter.begin(sizes)
        self.note(f"{len(sizes)} files, {show_bytes(self._meter.total)}")

    def there(self, name: str, nbytes: int) -> None:
        """See `Watch`."""
        self._meter.set(name, nbytes)
        if nbytes and not self._meter.is_complete(name):
            self.note(f"{name}: goes on after {show_bytes(nbytes)}")

    def moved(self, name: str, nbytes: int) -> None:
        """See `Watch`."""
        self._meter.add(name, nbytes)
        if self._meter.is_complete(name):
            self.note(f"{name}: complete ({self._meter})")
        elif self._clock() - self._said >= _LINE_EVERY_S:
            self.note(str(self._meter))

    def checking(self, name: str, nbytes: int) -> None:
        """See `Watch`; too short to be worth a line."""

    def note(self, text: str) -> None:
        """See `Watch`."""
        self._said = self._clock()
        self._messages.write(one_line(text) + "\n")


class BarWatch(AbstractContextManager["BarWatch"]):
    """One bar for the whole pull, removed when it ends."""

    def __init__(self, messages: Output, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._messages = messages
        self._label = label
        self._meter = Meter()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[summary]}"),
            console=Console(file=messages.text_stream(), no_color=not messages.has_styles, highlight=False),
            transient=True,
            expand=True,
        )
        self._bar = self._progress.add_task(label, total=None, summary="", visible=False)

    def __enter__(self) -> BarWatch:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def begun(self, sizes: dict[str, int]) -> None:
        """See `PullWatch`."""
        self._meter.begin(sizes)
        self._progress.update(self._bar, total=self._meter.total, visible=True)

    def there(self, name: str, nbytes: int) -> None:
        """See `Watch`."""
        self._meter.set(name, nbytes)
        self._show(self._label)

    def moved(self, name: str, nbytes: int) -> None:
        """See `Watch`."""
        self._meter.add(name, nbytes)
        self._show(self._label)

    def checking(self, name: str, nbytes: int) -> None:
        """See `Watch`."""
        del nbytes
        self._show(f"checking {one_line(name)}")

    def note(self, text: str) -> None:
        """See `Watch`."""
        self._progress.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def _show(self, label: str) -> None:
        self._progress.update(self._bar, completed=self._meter.done, summary=str(self._meter), description=label)
