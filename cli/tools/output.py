"""Keep what a tool writes within bounds, whatever it writes."""

from __future__ import annotations

from collections import deque

_HEAD = _TAIL = 1 << 18


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
