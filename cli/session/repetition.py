"""Detect a model stuck in a repetition loop."""

from __future__ import annotations

from collections import deque

LONGEST_PERIOD = 256
"""In tokens; a loop of whole paragraphs is still found."""
LEAST_TOKENS = 320
"""Shorter repetition can be what was asked for: a row of a table, the chorus of a song."""
LEAST_TIMES = 6


class RepetitionWatch:
    """Looks at one token after the other, in constant time for each."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=LONGEST_PERIOD)
        self._runs: dict[int, int] = {}
        """Of each period by which the last token equals an earlier one: for how many tokens that has held."""

    def is_running_away(self, token: int) -> bool:
        """Whether, with this token, the end is one piece repeated at least `LEAST_TIMES` after its first time.

        The repeated part must have at least `LEAST_TOKENS`.
        """
        size = len(self._recent)
        periods = [size - index for index, earlier in enumerate(self._recent) if earlier == token]
        self._runs = {period: self._runs.get(period, 0) + 1 for period in periods}
        self._recent.append(token)
        return any(run >= max(LEAST_TOKENS, LEAST_TIMES * period) for period, run in self._runs.items())
