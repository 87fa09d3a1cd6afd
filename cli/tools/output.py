"""Keep what a tool writes within bounds, whatever it writes."""

from __future__ import annotations

import time
from collections import deque

_HEAD = _TAIL = 1 << 18
_MOST_WAITING = 1 << 20


PACE_S = 0.05
"""Least time between two pieces of a running tool's output; displays can draw each."""


def without_rewritten(text: str) -> str:
    """Return text with each line as it was last, where carriage returns went back to its beginning (progress bars)."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


class PacedOutput:
    """Collects what a running tool writes into pieces that are `PACE_S` apart, or of a million characters."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._next = 0.0

    def add(self, text: str) -> None:
        """Append text to the next piece."""
        if text:
            self._pieces.append(text)
            self._size += len(text)

    def take(self, *, all_of_it: bool = False) -> str:
        """Return the next piece if it is time for it, or in any case; empty: there is none yet."""
        now = time.monotonic()
        is_due = all_of_it or now >= self._next or self._size >= _MOST_WAITING
        if not self._pieces or not is_due:
            return ""
        piece = "".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._next = now + PACE_S
        return piece


class BoundedOutput:
    """The head and the tail of a text that comes in pieces, and how much is left out between them.

    Args:
        head, tail: characters.
    """

    def __init__(self, head: int = _HEAD, tail: int = _TAIL) -> None:
        self._room, self._most = head, tail
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._tail_size = self._left_out = 0

    def add(self, text: str) -> None:
        """Append a piece."""
        if self._room:
            self._head.append(text[: self._room])
            text, self._room = text[self._room :], max(0, self._room - len(text))
        if text:
            self._tail.append(text)
            self._tail_size += len(text)
            while self._tail_size - len(self._tail[0]) >= self._most:
                gone = self._tail.popleft()
                self._tail_size -= len(gone)
                self._left_out += len(gone)

    @property
    def text(self) -> str:
        """What is kept."""
        tail = "".join(self._tail)
        left_out = self._left_out + max(0, len(tail) - self._most)
        tail = tail[-self._most :] if self._most else ""
        middle = f"\n[... {left_out:,} characters left out here ...]\n" if left_out else ""
        return "".join(self._head) + middle + tail
