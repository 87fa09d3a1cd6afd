"""What may be said next: a constraint masks the next token, or forces the next tokens, or leaves them free.

Header-holding, schemas, reasoning budgets and "answer now" are constraints over token ids, joined by `Constraints`;
neither the model nor the display knows of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gptoss.model.errors import ConstraintError

_WORD_BITS = 32


@dataclass(frozen=True)
class Masked:
    """Only the tokens whose bit is set may come: `bits` is int32, (ceil(vocabulary / 32),), lowest bit first."""

    bits: Tensor

    @classmethod
    def allowing(cls, token_ids: Iterable[int], vocab_size: int) -> Masked:
        """The mask that allows `token_ids` alone."""
        flags = torch.zeros(-(-vocab_size // _WORD_BITS) * _WORD_BITS, dtype=torch.int64)
        flags[list(token_ids)] = 1
        words = (flags.view(-1, _WORD_BITS) << torch.arange(_WORD_BITS)).sum(-1)
        return cls(words.to(torch.int32))

    def flags(self, vocab_size: int) -> Tensor:
        """One bool a token: (vocabulary,)."""
        bits = (self.bits[:, None] >> torch.arange(_WORD_BITS, dtype=torch.int32, device=self.bits.device)) & 1
        return bits.flatten()[:vocab_size].bool()


@dataclass(frozen=True)
class Forced:
    """These tokens come next, whatever the model would say."""

    token_ids: tuple[int, ...]


# None: the next token is free.
Hold = Masked | Forced | None


class Constraint(Protocol):
    """Asked before each token, told of each token, forced ones included."""

    def next(self) -> Hold:
        """What may come next."""
        ...

    def accept(self, token_id: int) -> None:
        """A token has come."""
        ...


class Constraints:
    """Several constraints as one: the first that forces wins, masks are intersected."""

    def __init__(self, *constraints: Constraint) -> None:
        self._constraints = constraints

    def next(self) -> Hold:
        """What all of them allow.

        Raises:
            ConstraintError: they allow nothing together.
        """
        mask: Tensor | None = None
        for constraint in self._constraints:
            hold = constraint.next()
            if isinstance(hold, Forced):
                return hold
            if hold is not None:
                mask = hold.bits if mask is None else mask & hold.bits
        if mask is None:
            return None
        if not mask.any():
            raise ConstraintError("the constraints together allow no token at all")
        return Masked(mask)

    def accept(self, token_id: int) -> None:
        """Tell all of them."""
        for constraint in self._constraints:
            constraint.accept(token_id)
