"""What a server remembers between requests, within bounds: the messages behind each call of a tool.

A client sends a conversation anew with each request, and many drop the reasoning that led to a call. The id of the call
brings it back, token for token, so that the prompt goes on where the last one ended.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from gptoss.cli.server.offered_tools import function_name, plain_argument
from gptoss.harmony import Message

_Value = TypeVar("_Value")
_OVERHEAD = 512  # bytes of objects beside the text


class Memory(Generic[_Value]):
    """Values by key, the least recently used of which are dropped. Threads may share it.

    Args:
        most: bytes that all values may have together.
        size: returns those of a value.
    """

    def __init__(self, most: int, size: Callable[[_Value], int]) -> None:
        self._most = most
        self._size = size
        self._values: OrderedDict[str, tuple[_Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def put(self, key: str, value: _Value) -> None:
        """Remember a value; one that is larger than all may be is not."""
        size = self._size(value)
        with self._lock:
            self._drop(key)
            if size > self._most:
                return
            self._values[key] = value, size
            self.nbytes += size
            while self.nbytes > self._most:
                self._drop(next(iter(self._values)))

    def get(self, key: str) -> _Value | None:
        """Return a value; None: it is not there, or no longer."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def remove(self, key: str) -> bool:
        """Forget a value; return whether it was there."""
        with self._lock:
            return self._drop(key)

    def _drop(self, key: str) -> bool:
        found = self._values.pop(key, None)
        if found is not None:
            self.nbytes -= found[1]
        return found is not None


def messages_size(messages: tuple[Message, ...]) -> int:
    """Return about how many bytes messages take."""
    return sum(4 * len(message.text) + _OVERHEAD for message in messages)


class RememberedCalls(Memory[tuple[Message, ...]]):
    """For the id of each call: the messages of its completion, up to and with the call."""

    def __init__(self, most: int) -> None:
        super().__init__(most, messages_size)

    def recall(self, call_id: str, recipient: str, arguments: str) -> tuple[Message, ...] | None:
        """Return the messages of a call, if the client has it as it was made."""
        messages = self.get(call_id)
        if messages is None or messages[-1].recipient != recipient:
            return None
        made = messages[-1].text
        # The client of a custom tool got its plain text.
        is_same = arguments in (made, plain_argument(function_name(recipient), made))
        return messages if is_same else None
