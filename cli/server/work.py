"""One answer: computed in a worker thread, sent by the event loop as it comes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol

CancelReason = Literal["hang-up", "timeout", "end"]

_MOST_UNSENT = 256
"""Pieces that wait for a client that reads slowly; then the worker waits too."""


class Abandoned(Exception):  # noqa: N818 - control flow; it never leaves a worker thread
    """The answer was cancelled while its worker waited to hand on a piece."""


class Answer(Protocol):
    """What a request asks for: made by the event loop's thread, computed by a worker's."""

    @property
    def is_streamed(self) -> bool:
        """Whether the answer is server-sent events, which `compute` emits; else it returns one object."""
        ...

    def compute(self, work: Work) -> dict[str, Any] | None:
        """Compute the answer."""
        ...

    def failed(self, error: dict[str, Any]) -> bytes:
        """Return the last events of a stream that an error ends."""
        ...


class Work:
    """The way between the worker thread and the event loop.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._unsent: deque[bytes] = deque()
        self._room = threading.Event()
        self._news = asyncio.Event()
        self._is_told = False
        self._cancel: Callable[[], object] | None = None
        self.cancelled: CancelReason | None = None
        """Why the answer was cancelled; None: it was not."""

    # The worker's side

    def emit(self, piece: bytes) -> None:
        """Hand on a piece of the stream.

        Raises:
            Abandoned: the answer was cancelled while the client had too much to read.
        """
        with self._lock:
            self._unsent.append(piece)
            is_full = len(self._unsent) >= _MOST_UNSENT
            if is_full:
                self._room.clear()
        self.tell()
        if is_full:
            self._room.wait()
            if self.cancelled:
                raise Abandoned

    def tell(self) -> None:
        """Wake the event loop, once for all that it has not looked at yet."""
        with self._lock:
            if self._is_told:
                return
            self._is_told = True
        self._loop.call_soon_threadsafe(self._news.set)

    def on_cancel(self, cancel: Callable[[], object]) -> None:
        """Call this when the answer is cancelled, from the event loop's thread; at once if it was already."""
        with self._lock:
            self._cancel = cancel
            was_cancelled = self.cancelled is not None
        if was_cancelled:
            cancel()

    # The event loop's side

    async def news(self) -> None:
        """Wait until there is a piece, or the worker is done."""
        await self._news.wait()

    def wake(self) -> None:
        """End the waiting of `news`."""
        self._news.set()

    def take(self) -> list[bytes]:
        """Return the pieces that came."""
        with self._lock:
            pieces = list(self._unsent)
            self._unsent.clear()
            self._news.clear()
            self._is_told = False
        self._room.set()
        return pieces

    def cancel(self, reason: CancelReason) -> None:
        """End the answer at the next token; within a layer of the model in the prefill."""
        with self._lock:
            if self.cancelled is None:
                self.cancelled = reason
            cancel = self._cancel
        self._room.set()
        if cancel is not None:
            cancel()


def event(payload: str, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    return (f"data: {payload}\n\n" if name is None else f"event: {name}\ndata: {payload}\n\n").encode()
