"""Terminal modes while the program is busy: echo, and which key sends a signal."""

from __future__ import annotations

import os
import signal
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, TextIO


@contextmanager
def echo(stdin: TextIO | None, *, on: bool) -> Iterator[None]:
    """Within this context the terminal behind `stdin` echoes what is typed, or does not; nothing where there is none.

    What is typed without an echo is not lost: the next input line begins with it.
    """
    descriptor = terminal_behind(stdin)
    if descriptor is None:
        yield
        return
    before = termios.tcgetattr(descriptor)
    flags = before[3] | termios.ECHO if on else before[3] & ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, [*before[:3], flags, *before[4:]])
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Silence:
    """The terminal behind `stdin` without an echo, as a context that Ctrl-Z leaves for a while; see `echo`."""

    def __init__(self, stdin: TextIO | None) -> None:
        self._descriptor = terminal_behind(stdin)
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        if self._descriptor is not None:
            self._before = termios.tcgetattr(self._descriptor)
            self._set(on=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.suspend()

    def suspend(self) -> None:
        """Leave the terminal as it was."""
        self._set(on=True)

    def resume(self, seconds: float, *, surprised: bool) -> None:  # noqa: ARG002 - as `Suspendable` has it
        """Let it be without an echo again, where the program has the terminal."""
        with suppress(OSError):
            if self._descriptor is not None and os.tcgetpgrp(self._descriptor) == os.getpgrp():
                self._set(on=False)

    def _set(self, *, on: bool) -> None:
        if self._descriptor is None:
            return
        before = self._before
        flags = before[3] if on else before[3] & ~termios.ECHO
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, [*before[:3], flags, *before[4:]])


@contextmanager
def key_calls(stdin: TextIO | None, key: str, action: Callable[[], object]) -> Iterator[None]:
    """Within this context a control key calls `action`, as a signal handler does; nothing where there is no terminal.

    The terminal sends its quit signal for this key. So nothing has to read what is typed, which stays where
    the next input line finds it, also behind a key that is a signal.

    Args:
        stdin: the terminal.
        key: a letter, to be typed with Ctrl.
        action: must be fit to be called between any two instructions.
    """
    descriptor = terminal_behind(stdin)
    if descriptor is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = termios.tcgetattr(descriptor)
    controls = list(before[6])
    controls[termios.VQUIT] = bytes([ord(key.upper()) - 64])
    previous = signal.signal(signal.SIGQUIT, lambda *_: action())
    termios.tcsetattr(descriptor, termios.TCSADRAIN, [*before[:3], before[3] | termios.NOFLSH, *before[4:6], controls])
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        signal.signal(signal.SIGQUIT, previous)


def terminal_behind(stdin: TextIO | None) -> int | None:
    """Return the descriptor of the terminal that a stream reads; None where there is none."""
    try:
        return stdin.fileno() if stdin is not None and stdin.isatty() else None
    except (OSError, ValueError):  # a stream in memory, or one that is closed
        return None
