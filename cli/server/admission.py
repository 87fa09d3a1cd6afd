"""Who may compute: so many requests at a time, so many waiting in the order in which they came, the rest refused."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from gptoss.cli.server.errors import ApiError

_LONGEST_RETRY_S = 60


class Admission:
    """Gives slots in the event loop's thread.

    Args:
        slots: requests that compute.
        most_waiting: requests that wait.

    Attributes:
        running, waiting: how many there are.
        refused: how many were refused so far.
    """

    def __init__(self, slots: int, most_waiting: int) -> None:
        self._slots = slots
        self._most_waiting = most_waiting
        self._queue: deque[asyncio.Future[None]] = deque()
        self._mean_s = 1.0
        self.running = 0
        self.refused = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def enter(self) -> None:
        """Wait for a slot; `leave` gives it back.

        Raises:
            ApiError: too many wait already: 429, with the seconds after which to try again.
        """
        if self.running < self._slots and not self._queue:
            self.running += 1
            return
        if len(self._queue) >= self._most_waiting:
            self.refused += 1
            raise ApiError(
                f"{self.running} requests are running and {self.waiting} waiting: try again later",
                status=429,
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(self.retry_after)},
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the slot was given in the same moment
            else:
                self._queue.remove(turn)
            raise

    def leave(self, seconds: float) -> None:
        """Give a slot back that was used for so long."""
        self._mean_s += 0.1 * (seconds - self._mean_s)
        self._pass_on()

    @property
    def retry_after(self) -> int:
        """Seconds after which there is likely to be room, from 1 to 60."""
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self._mean_s / self._slots)))

    def _pass_on(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
