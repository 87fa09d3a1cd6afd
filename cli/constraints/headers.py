"""The constraint on headers and message ends."""

from __future__ import annotations

from gptoss.cli.constraints.masks import MaskCache
from gptoss.harmony import HeaderWalk
from gptoss.model.constraint import Forced, Hold


class HeaderConstraint:
    """Allows legal headers only, and in contents no special token but the one that ends the message.

    Where a single token is allowed it is masked, not forced, so that a seed's random numbers are used as without the
    constraint.

    Args:
        walk: the position in the completion; owned by this constraint.
        masks: of the vocabulary.
    """

    def __init__(self, walk: HeaderWalk, masks: MaskCache) -> None:
        self._walk = walk
        self._masks = masks

    def next(self) -> Hold:
        """Return the mask for the current position."""
        return self._masks.mask(self._walk.allowed)

    def forced(self) -> Forced | None:
        """Force nothing."""
        return None

    def allows(self, token_id: int) -> bool:
        """Return whether a legal header, or content, continues with this token."""
        allowed = self._walk.allowed
        return token_id in allowed.tokens or (allowed.ordinary and self._masks.is_ordinary(token_id))

    def accept(self, token_id: int) -> bool:
        """Take a token; the completion is complete with the end of an answer or of a call.

        Raises:
            HeaderError: the token was not allowed; only another constraint can have forced it.
        """
        self._walk.advance(token_id)
        return self._walk.is_done
