"""Convert the header grammar's allowed tokens to logit masks."""

from __future__ import annotations

from gptoss.harmony import Allowed, Encoding
from gptoss.model.constraint import LogitMask


class MaskCache:
    """The logit masks of one vocabulary. Threads may share it.

    Masks that allow all ordinary tokens take milliseconds to build and are few: they are kept. The others allow a few
    tokens of a header, as many sets as there are tools: they are built when they are needed.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._made: dict[Allowed, LogitMask] = {}

    def is_ordinary(self, token_id: int) -> bool:
        """Return whether a token is ordinary text."""
        return token_id in self._encoding.ordinary_tokens

    def mask(self, allowed: Allowed) -> LogitMask:
        """Return the mask that allows exactly these tokens."""
        if not allowed.ordinary:
            return LogitMask.allowing(allowed.tokens, self._encoding.vocab_size)
        mask = self._made.get(allowed)
        if mask is None:
            # Two threads may both build it; either mask will do.
            tokens = allowed.tokens | self._encoding.ordinary_tokens
            mask = self._made[allowed] = LogitMask.allowing(tokens, self._encoding.vocab_size)
        return mask
