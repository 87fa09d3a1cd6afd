"""Turns on one model: generations compute in the order in which they ask, a token or a prefill chunk at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from gptoss.model.errors import EngineBusyError


class Cancelled(Exception):  # noqa: N818 - control flow inside this package; it never leaves a generation
    """The generation was cancelled."""


class Waiter:
    """One that waits for turns and for memory.

    Attributes:
        is_cancelled: whether its waiting and computing are to end.
        thread: the thread that drove it last.
        steps: how often it was driven.
    """

    def __init__(self) -> None:
        # A SimpleQueue, because its `put` may interrupt itself: `cancel` is called from signal handlers too.
        self._granted: SimpleQueue[bool] = SimpleQueue()
        self.is_cancelled = False
        self.thread = threading.get_ident()
        self.steps = 0

    def cancel(self) -> None:
        """End its waiting and computing, from any thread or a signal handler."""
        self.is_cancelled = True
        self._granted.put(False)

    def driven(self) -> None:
        """Note that the calling thread drives it."""
        self.thread = threading.get_ident()
        self.steps += 1

    def check(self) -> None:
        """Raise `Cancelled` if it was cancelled."""
        if self.is_cancelled:
            raise Cancelled

    def grant(self) -> None:
        """Give it the turn that it waits for."""
        self._granted.put(True)

    def wait(self) -> bool:
        """Wait until the turn is given (True) or `cancel` is called (False)."""
        return self._granted.get()

    def forget_grant(self) -> None:
        """Drop a turn that was given and is not taken."""
        with suppress(Empty):
            while True:
                self._granted.get_nowait()


class Turns:
    """A lock that is given in the order in which it was asked for."""

    def __init__(self) -> None:
        # Reentrant: a generation that is collected as garbage in here gives its turn back.
        self._lock = threading.RLock()
        self._waiting: deque[Waiter] = deque()
        self._holder: Waiter | None = None
        self._thread: int | None = None
        """The thread that has the turn; None while nobody has it or the one it was given to has not woken up."""

    @contextmanager
    def turn(self, waiter: Waiter) -> Iterator[None]:
        """Hold the turn.

        Raises:
            Cancelled: the waiter was cancelled before it had its turn.
            EngineBusyError: the calling thread has the turn already, for another generation.
        """
        self._acquire(waiter)
        try:
            yield
        finally:
            self.leave(waiter)

    def try_turn(self, waiter: Waiter) -> bool:
        """Take the turn if nobody has it or waits for it; `leave` gives it back."""
        with self._lock:
            if self._holder is not None:
                return False
            self._holder, self._thread = waiter, threading.get_ident()
            return True

    def leave(self, waiter: Waiter) -> None:
        """Pass the turn on, if the waiter holds it, and wait for it no longer."""
        with self._lock:
            with suppress(ValueError):
                self._waiting.remove(waiter)
            if self._holder is waiter:
                self._holder, self._thread = self._waiting.popleft() if self._waiting else None, None
                if self._holder is not None:
                    self._holder.grant()

    def _acquire(self, waiter: Waiter) -> None:
        waiter.check()
        try:
            with self._lock:
                if self._holder is None:
                    self._holder, self._thread = waiter, threading.get_ident()
                    return
                if self._thread == threading.get_ident():
                    raise EngineBusyError(
                        "a generation was driven from the progress callback of another one: do it after the callback"
                    )
                self._waiting.append(waiter)
            if waiter.wait():
                self._thread = threading.get_ident()
                return
        except BaseException:  # an interrupt: whether the turn was given meanwhile or not, it is passed on
            self.leave(waiter)
            waiter.forget_grant()
            raise
        self.leave(waiter)
        raise Cancelled
