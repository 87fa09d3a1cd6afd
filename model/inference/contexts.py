"""The contexts of one model: which one a generation gets, and how much memory they take.

- A prompt that goes on with the latest prompt of an idle context takes that context: the same conversation goes on.
  (Reasoning that the chat format drops lies after the prompt.)
- Any other prompt gets a new context, and its longest prefix is copied from whichever context has it. So two
  conversations do not drive each other out, and the instructions that they share are computed once.
- All contexts together take at most a limit of bytes. Idle ones are dropped, the least recently used first, before it
  would be exceeded. The oldest running generation may always go on, up to its own context's end; a younger one waits
  where it would exceed the limit.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gptoss.model.errors import EngineBusyError
from gptoss.model.inference.context import Context
from gptoss.model.inference.turns import Waiter

log = logging.getLogger(__name__)

_WAKE_S = 0.05
_OPENING_TOKENS = 16
"""Tokens at the end of a prompt that the next prompt may have otherwise: they open the answer."""


@dataclass(frozen=True)
class ContextUsage:
    """What the contexts of an engine take.

    Attributes:
        contexts, busy: how many there are, and how many of them are in use.
        nbytes: bytes of their keys and values.
        limit: bytes at which idle ones are dropped.
    """

    contexts: int
    busy: int
    nbytes: int
    limit: int


class ContextPool:
    """Gives contexts to generations.

    Args:
        new: makes an empty context.
        limit: bytes that keys and values of all contexts together may take.
    """

    def __init__(self, new: Callable[[], Context], limit: int) -> None:
        self._new = new
        self._limit = limit
        self._changed = threading.Condition()
        self._contexts: list[Context] = []
        self._queue: deque[Waiter] = deque()
        self._uses = 0
        self._is_closed = False

    @property
    def usage(self) -> ContextUsage:
        """What they take."""
        with self._changed:
            busy = sum(context.holder is not None for context in self._contexts)
            return ContextUsage(len(self._contexts), busy, self._nbytes, self._limit)

    def try_take(self, ids: list[int], waiter: Waiter) -> Context | None:
        """Return a context for this prompt, or None if the generation has to wait for one."""
        with self._changed:
            return None if self._queue else self._take(ids, waiter)

    def take(self, ids: list[int], waiter: Waiter) -> Context:
        """Return a context for this prompt; wait for it where the memory is used up.

        Raises:
            Cancelled: the waiter was cancelled.
            EngineBusyError: the calling thread waits for generations that only it could go on with.
        """
        with self._changed:
            self._queue.append(waiter)
            try:
                while True:
                    context = self._take(ids, waiter) if self._queue[0] is waiter else None
                    if context is not None:
                        return context
                    self._wait(waiter)
            finally:
                self._queue.remove(waiter)
                self._changed.notify_all()

    def reserve(self, context: Context, positions: int, waiter: Waiter) -> None:
        """Wait until a context may grow to so many positions, and drop idle contexts for it.

        Raises:
            Cancelled, EngineBusyError: as `take`.
        """
        if context.nbytes_for(positions) <= context.nbytes:
            return
        with self._changed:
            while not self._make_room(context.nbytes_for(positions) - context.nbytes, None):
                if self._is_oldest(context):
                    return
                self._wait(waiter)

    def longest(self, ids: list[int], *, idle: bool = False) -> Context | None:
        """Return the context with the longest prefix of `ids`, only among idle ones if asked for."""
        with self._changed:
            return self._longest(ids, [each for each in self._contexts if each.holder is None or not idle])

    def hold(self, context: Context, waiter: Waiter) -> bool:
        """Take a context as it is; False if it is in use."""
        with self._changed:
            if context.holder is not None or context not in self._contexts:
                return False
            context.holder = waiter
            return True

    def release(self, context: Context, waiter: Waiter) -> None:
        """Make a context idle, if the waiter holds it."""
        with self._changed:
            if context.holder is waiter:
                context.holder = None
                self._use(context)
                self._make_room(0, None if self._is_closed else context)
                self._changed.notify_all()

    def close(self) -> None:
        """End the running generations and free all idle contexts; the others are freed when they are released."""
        with self._changed:
            self._limit, self._is_closed = 0, True
            for context in self._contexts:
                if context.holder is not None:
                    context.holder.cancel()
            for context in [each for each in self._contexts if each.holder is None]:
                self._drop(context)
            self._changed.notify_all()

    @property
    def _nbytes(self) -> int:
        return sum(context.nbytes for context in self._contexts)

    def _take(self, ids: list[int], waiter: Waiter) -> Context | None:
        idle = [context for context in self._contexts if context.holder is None]
        is_busy = len(idle) < len(self._contexts)
        best, new = self._longest(ids, idle), self._new()
        goes_on = best is not None and best.known(ids) >= best.prompt_length - _OPENING_TOKENS
        choices: list[tuple[Context, Context | None]] = [] if goes_on else [(new, best)]
        if best is not None:
            choices.append((best, best))  # where memory is short, the prompt takes the place of its tokens
        if is_busy:
            choices.append((new, None))  # or it is dropped too
        for context, kept in choices:
            if self._make_room(max(0, context.nbytes_for(len(ids) + 1) - context.nbytes), kept):
                break
        else:
            if is_busy:
                return None
            context = choices[-1][0]  # without other generations there is always room
        if context not in self._contexts:
            self._contexts.append(context)
        context.holder = waiter
        self._use(context)
        context.prompt_length = len(ids)
        return context

    def _longest(self, ids: list[int], among: list[Context]) -> Context | None:
        return max(among, key=lambda context: (context.known(ids), context.used), default=None)

    def _make_room(self, nbytes: int, kept: Context | None) -> bool:
        """Drop idle contexts, but for `kept`, until there is room for so many bytes more; whether there is."""
        idle = [each for each in self._contexts if each.holder is None and each is not kept]
        for context in sorted(idle, key=lambda each: each.used):
            if self._nbytes + nbytes <= self._limit:
                break
            self._drop(context)
        return self._nbytes + nbytes <= self._limit

    def _drop(self, context: Context) -> None:
        log.info("contexts: one of %d tokens, %d bytes, is dropped", context.length, context.nbytes)
        self._contexts.remove(context)
        context.free()

    def _use(self, context: Context) -> None:
        self._uses += 1
        context.used = self._uses

    def _is_oldest(self, context: Context) -> bool:
        return context is min((each for each in self._contexts if each.holder is not None), key=lambda each: each.used)

    def _wait(self, waiter: Waiter) -> None:
        waiter.check()
        holders = [each.holder for each in self._contexts if each.holder is not None and each.holder is not waiter]
        if holders and all(holder.thread == waiter.thread for holder in holders):
            raise EngineBusyError(
                "the memory for contexts is used up by generations that this thread has not finished: finish or close "
                "one of them, or give contexts more memory"
            )
        self._changed.wait(_WAKE_S)
        waiter.check()
