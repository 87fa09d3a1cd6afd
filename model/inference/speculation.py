"""Prompt-lookup speculation (Saxena 2023, "Prompt Lookup Decoding"): the next tokens guessed from what followed before.

A model that quotes, edits or repeats says again what stands in its context. A guess is free; computing guessed tokens
along with the one that is due costs less than computing each alone, and the engine keeps only what it samples anyway.
Knows token ids alone.
"""

from __future__ import annotations

from collections.abc import Iterable

_NGRAM = 3
"""Tokens that must be the same before what followed them is taken for a guess."""
_MEMORY = 1 / 16
"""The weight of the latest guess in what is thought of the next."""
_COST = 0.5
"""What one more token costs that is computed along, in tokens computed alone: measured, 0.33 to 0.5."""


class PromptLookup:
    """Guesses, as many as pay.

    Every next token is guessed where there is something to guess it from, and compared with the one that comes, whether
    or not the guess was used: so it is known how often guesses are right before any is paid for.

    Args:
        ids: the prompt.
        most: guesses at a time.
    """

    def __init__(self, ids: Iterable[int], most: int) -> None:
        self._most = most
        self._ids: list[int] = []
        self._followed_at: dict[tuple[int, ...], int] = {}
        self._right = 0.5
        for token in ids if most else ():
            self._add(token)

    def append(self, token: int) -> None:
        """Append the next token."""
        if not self._most:
            return
        position = self._position()
        if position is not None:
            self._right += _MEMORY * ((self._ids[position] == token) - self._right)
        self._add(token)

    def guess(self) -> list[int]:
        """Return the tokens that may come next; none where that would not pay."""
        position = self._position()
        if position is None:
            return []
        count = max(range(self._most + 1), key=self._speed)
        return self._ids[position : position + count]

    def _speed(self, count: int) -> float:
        """Return tokens that come of `count` guesses, the due one among them, for what they cost."""
        return sum(self._right**n for n in range(count + 1)) / (1 + _COST * count)

    def _position(self) -> int | None:
        """Return where that stands which followed the latest tokens when they last stood together."""
        return self._followed_at.get(tuple(self._ids[-_NGRAM:]))

    def _add(self, token: int) -> None:
        if len(self._ids) >= _NGRAM:
            self._followed_at[tuple(self._ids[-_NGRAM:])] = len(self._ids)
        self._ids.append(token)
