"""Headers that cannot be malformed."""

from __future__ import annotations

from gptoss.cli.constraints.masks import Masks
from gptoss.harmony import HeaderWalk
from gptoss.model.constraint import Hold


class HeaderHolding:
    """Lets only legal headers come, and in contents no special token but the one that ends the message.

    A token that a mask leaves alone is sampled all the same, so that a seed's random numbers are used as without it.

    Args:
        walk: where the completion stands; this constraint's own.
        masks: of the vocabulary.
    """

    def __init__(self, walk: HeaderWalk, masks: Masks) -> None:
        self._walk = walk
        self._masks = masks

    def next(self) -> Hold:
        """The mask of where the completion stands."""
        return self._masks.of(self._walk.allowed)

    def accept(self, token_id: int) -> bool:
        """Complete with the end of an answer or of a call.

        Raises:
            HeaderError: the token was not allowed, as only another constraint can have forced it.
        """
        self._walk.advance(token_id)
        return self._walk.is_done
