"""Ctrl-Z and `fg`: what may change leaves the screen before the program stops, and comes again when it goes on."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

_LOOK_S = 0.1
# Until then the signal that a stopped program goes on by can still come after the program has done so.
_LATE_S = 1.0


class Suspendable(Protocol):
    """Something that has the terminal to itself while the program runs in its foreground."""

    def suspend(self) -> None:
        """Leave the terminal as a shell wants it; until `resume`, do not touch it."""
        ...

    def resume(self, seconds: float, *, surprised: bool) -> None:
        """Take the terminal again.

        Args:
            seconds: for which the program stood still.
            surprised: whether it stopped without `suspend`, so that the cursor may stand anywhere.
        """
        ...


@contextmanager
def suspending(parts: Sequence[Suspendable]) -> Iterator[None]:
    """Within this context parts of the program are suspended before it stops and resumed when it goes on.

    A thread does that: the main thread may be computing for seconds, and looks at signals only in between.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN:
        yield
        return
    watch = _Watch(parts)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def _ignore(*_: object) -> None:
    """Do nothing: a handler in Python makes the interpreter write the signal to its wakeup descriptor."""


class _Watch:
    def __init__(self, parts: Sequence[Suspendable]) -> None:
        self._parts = parts
        self._ends = os.pipe()
        for end in self._ends:
            os.set_blocking(end, False)
        self._resumed = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._before = {number: signal.signal(number, _ignore) for number in (signal.SIGTSTP, signal.SIGCONT)}
        self._wakeup = signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for end in self._ends:
            os.close(end)

    def _run(self) -> None:
        alive = time.monotonic()
        while not self._ended.is_set():
            ready, _, _ = select.select([self._ends[0]], [], [], _LOOK_S)
            caught = b""
            if ready:
                with suppress(BlockingIOError):
                    caught = os.read(self._ends[0], 4096)
            now = time.monotonic()
            if signal.SIGTSTP in caught:
                self._suspend()
            elif signal.SIGCONT in caught and now - self._resumed > _LATE_S:
                for part in self._parts:
                    part.resume(now - alive, surprised=True)
            alive = time.monotonic()

    def _suspend(self) -> None:
        for part in self._parts:
            part.suspend()
        began = time.monotonic()
        _stop()
        self._resumed = time.monotonic()
        for part in reversed(self._parts):
            part.resume(self._resumed - began, surprised=False)


def _stop() -> None:
    """Stop as a program does that has no handler for Ctrl-Z; without a shell above, the system does not let it."""
    # The `signal` module sets handlers in the main thread alone.
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    ours = set_handler(signal.SIGTSTP, int(signal.SIG_DFL))
    signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
    set_handler(signal.SIGTSTP, ours)
