"""Ctrl-C while a model answers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_interrupt(stop: Callable[[], bool]) -> Iterator[None]:
    """Within this context the first Ctrl-C calls `stop`; if that says False, or at the second, it is KeyboardInterrupt.

    A flag that is looked at between tokens never loses one, as an exception in the midst of showing it could; the
    second Ctrl-C is for whoever finds the next token too long in coming.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # by a shell, for a job in the background
    if ignored or threading.current_thread() is not threading.main_thread():
        yield  # signals can be handled in the main thread alone
        return
    stopping = False

    def handle(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping or not stop():
            raise KeyboardInterrupt
        stopping = True

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
