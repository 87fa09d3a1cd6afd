"""Ctrl-C, SIGTERM and a terminal that goes: what they do depends on what the program is doing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

# Those that end the program, where Ctrl-C may end no more than an answer.
_ENDING = (signal.SIGHUP, signal.SIGTERM)
_ALL = (signal.SIGINT, *_ENDING)


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP: the program ends as at Ctrl-C, and keeps what was said.

    Attributes:
        signal: which of them.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


def on_interrupt(stop: Callable[[], bool]) -> AbstractContextManager[None]:
    """Within this context the first signal calls `stop`; if that says False, or at the second, it is an exception.

    That is KeyboardInterrupt for Ctrl-C, else `Terminated`, which is raised at the end of the context in any case.

    A flag that is looked at between tokens never loses one, as an exception in the midst of showing it could; the
    second signal is for whoever finds the next token too long in coming.
    """
    return _on_interrupt(stop)


@contextmanager
def _on_interrupt(stop: Callable[[], bool]) -> Iterator[None]:
    caught: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1 or not stop():
            _raise(number, None)

    try:
        with _handling(handle, _ALL):
            yield
    finally:
        for number in caught:
            if number in _ENDING:  # whatever else came of it: the terminal may have gone
                raise Terminated(number) from None


def without_interrupts() -> AbstractContextManager[None]:
    """Within this context Ctrl-C does nothing; narrower contexts within may give it a meaning."""
    return _handling(lambda _number, _frame: None, (signal.SIGINT,))


def with_interrupts() -> AbstractContextManager[None]:
    """Within this context Ctrl-C is KeyboardInterrupt, whatever it is around it."""
    return _handling(signal.default_int_handler, (signal.SIGINT,))


def ending_raises() -> AbstractContextManager[None]:
    """Within this context SIGTERM and SIGHUP are `Terminated`."""
    return _handling(_raise, _ENDING)


def ending_calls(end: Callable[[Terminated], bool]) -> AbstractContextManager[None]:
    """Within this context SIGTERM and SIGHUP call `end`, which is to raise what it is given; if it says False, they do.

    For what runs a loop of its own, through which an exception of a signal handler would tear a hole.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        error = Terminated(number)
        if not end(error):
            raise error

    return _handling(handle, _ENDING)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within this context signals wait for its end: what is done in it is done in whole."""
    waiting: list[tuple[int, FrameType | None]] = []
    try:
        with _handling(lambda number, frame: waiting.append((number, frame)), _ALL):
            yield
    finally:
        for number, frame in waiting:
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, frame)
            elif handler is signal.SIG_DFL:
                signal.raise_signal(number)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number) if number in _ENDING else KeyboardInterrupt


@contextmanager
def _handling(handler: Handler, numbers: Collection[signal.Signals]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals can be handled in the main thread alone
        return
    # Those that are ignored stay so: a shell does that for a job in the background, nohup for one that is to stay.
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        ending: Terminated | None = None
        restored = False
        while not restored:
            try:
                for number, before in previous.items():
                    signal.signal(number, before)
                restored = True
            except Terminated as error:
                ending = error
            except KeyboardInterrupt:  # one more Ctrl-C in this very moment
                pass
        if ending is not None:
            raise ending
