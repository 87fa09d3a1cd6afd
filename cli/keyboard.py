"""Whether the terminal writes what is typed while the program is busy."""

from __future__ import annotations

import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


@contextmanager
def echo(stdin: TextIO | None, *, on: bool) -> Iterator[None]:
    """Within this context the terminal behind `stdin` echoes what is typed, or does not; nothing where there is none.

    What is typed without an echo is not lost: the next input line begins with it.
    """
    if stdin is None or not stdin.isatty():
        yield
        return
    descriptor = stdin.fileno()
    before = termios.tcgetattr(descriptor)
    flags = before[3] | termios.ECHO if on else before[3] & ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, [*before[:3], flags, *before[4:]])
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
