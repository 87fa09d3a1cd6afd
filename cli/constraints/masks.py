"""From what a header grammar allows to what the sampler reads."""

from __future__ import annotations

from gptoss.harmony import Allowed, Encoding
from gptoss.model.constraint import Masked


class Masks:
    """The masks of one vocabulary; each is made once."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._made: dict[Allowed, Masked] = {}

    def of(self, allowed: Allowed) -> Masked:
        """The mask that lets exactly these tokens come."""
        mask = self._made.get(allowed)
        if mask is None:
            tokens = allowed.tokens
            if allowed.ordinary:
                tokens |= self._encoding.ordinary_tokens
            mask = Masked.allowing(tokens, self._encoding.vocab_size)
            self._made[allowed] = mask
        return mask
