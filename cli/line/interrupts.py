"""Ctrl-C: what it does depends on what the program is doing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


def on_interrupt(stop: Callable[[], bool]) -> AbstractContextManager[None]:
    """Within this context the first Ctrl-C calls `stop`; if that says False, or at the second, it is KeyboardInterrupt.

    A flag that is looked at between tokens never loses one, as an exception in the midst of showing it could; the
    second Ctrl-C is for whoever finds the next token too long in coming.
    """
    stopping = False

    def handle(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping or not stop():
            raise KeyboardInterrupt
        stopping = True

    return _handling(handle)


def without_interrupts() -> AbstractContextManager[None]:
    """Within this context Ctrl-C does nothing; narrower contexts within may give it a meaning."""
    return _handling(lambda _signal, _frame: None)


def with_interrupts() -> AbstractContextManager[None]:
    """Within this context Ctrl-C is KeyboardInterrupt, whatever it is around it."""
    return _handling(signal.default_int_handler)


@contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # by a shell, for a job in the background
    if ignored or threading.current_thread() is not threading.main_thread():
        yield  # signals can be handled in the main thread alone
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        restored = False
        while not restored:
            with suppress(KeyboardInterrupt):  # of one more Ctrl-C in this very moment
                signal.signal(signal.SIGINT, previous)
                restored = True
