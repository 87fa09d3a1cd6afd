"""The contexts of one model: which one a generation gets, and how much memory they take.

- A prompt that goes on with the latest prompt of an idle context takes that context: the same conversation goes on.
  (Reasoning that the chat format drops lies after the prompt.)
- Any other prompt gets a new context, and its longest prefix is copied from whichever context has it. So two
  conversations do not drive each other out, and the instructions that they share are computed once.
- All contexts together take at most a limit of bytes, and at most `MOST_IDLE` of them are idle, for each of these is
  looked at for each prompt. Idle ones are dropped, the least recently used first, before a limit would be exceeded; one
  that is copied from is not. The oldest running generation may always go on, up to its own context's end; a younger one
  waits where it would exceed the limit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gptoss.model.errors import EngineBusyError
from gptoss.model.inference.context import Context
from gptoss.model.inference.turns import Waiter
from gptoss.model.interface import ContextUsage

log = logging.getLogger(__name__)

MOST_IDLE = 16
"""Idle contexts at most."""

_WAKE_S = 0.05
_STUCK_S = 2.0
"""Seconds after which waiting that nobody can end is an error; another thread may take a generation over meanwhile."""
_OPENING_TOKENS = 16
"""Tokens at the end of a prompt that the next prompt may have otherwise: they open the answer."""


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
        self._changes = 0
        self._blocked: Counter[int] = Counter()
        """The threads that wait for memory."""

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
                self._notify()

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

    @contextmanager
    def longest(self, ids: list[int]) -> Iterator[Context | None]:
        """Give the context with the longest prefix of `ids`, busy or idle; meanwhile it is not dropped."""
        with self._changed:
            context = self._longest(ids, self._contexts)
            if context is not None:
                context.pins += 1
        try:
            yield context
        finally:
            if context is not None:
                with self._changed:
                    context.pins -= 1
                    self._make_room(0, None)
                    self._notify()

    def hold_longest(self, ids: list[int], waiter: Waiter) -> Context | None:
        """Take the idle context with the longest prefix of `ids` as it is; None: there is none."""
        with self._changed:
            context = self._longest(ids, [each for each in self._contexts if each.holder is None])
            if context is not None:
                context.holder = waiter
            return context

    def release(self, context: Context, waiter: Waiter) -> None:
        """Make a context idle, if the waiter holds it."""
        with self._changed:
            if context.holder is waiter:
                context.holder = None
                self._use(context)
                self._make_room(0, None if self._is_closed else context)
                self._notify()

    def close(self) -> None:
        """End the running generations and free all idle contexts; the others are freed when they are released."""
        with self._changed:
            self._limit, self._is_closed = 0, True
            for context in self._contexts:
                if context.holder is not None:
                    context.holder.cancel()
            self._make_room(0, None)
            self._notify()

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
        idle = [each for each in self._contexts if each.holder is None]
        most_idle = 0 if self._is_closed else MOST_IDLE
        count = len(idle)
        for context in sorted(idle, key=lambda each: each.used):
            if count <= most_idle and self._nbytes + nbytes <= self._limit:
                break
            if context is not kept and not context.pins:
                self._drop(context)
                count -= 1
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

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _wait(self, waiter: Waiter) -> None:
        """Wait until something may have changed.

        Raises:
            Cancelled: the waiter was cancelled.
            EngineBusyError: nothing can change: all that holds memory was last driven by threads that wait too.
        """
        waiter.check()
        thread = threading.get_ident()
        self._blocked[thread] += 1
        try:
            before, end = self._state(), time.monotonic() + _STUCK_S
            while True:
                self._changed.wait(_WAKE_S)
                waiter.check()
                holders = [each.holder for each in self._contexts if each.holder is not None]
                is_stuck = bool(holders) and all(self._blocked[holder.thread] for holder in holders)
                if not is_stuck or self._state() != before:
                    return
                if time.monotonic() >= end:
                    raise EngineBusyError(
                        "the memory for contexts is used up by generations that nobody goes on with: finish or close "
                        "one of them, or give contexts more memory"
                    )
        finally:
            self._blocked[thread] -= 1

    def _state(self) -> tuple[int, int]:
        """Something that differs once a context was released or a generation was driven."""
        return self._changes, sum(each.holder.steps for each in self._contexts if each.holder is not None)
