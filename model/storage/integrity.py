"""Integrity of the files that a loaded model computes with: cut, or changed on the disk, while they are in use."""

from __future__ import annotations

from collections.abc import Sequence

from gptoss.model.errors import CheckpointError
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.storage.mapping import MappedFile, require_whole


class Integrity:
    """Checks the files of one model.

    Args:
        mappings: the checkpoint's files.
        made: the repacked weights, which may be mapped from the cache.

    Attributes:
        is_reported: whether `require` has raised.
    """

    def __init__(self, mappings: Sequence[MappedFile], made: MadeWeights | None) -> None:
        self._mappings = mappings
        self._made = made
        self.is_reported = False

    def require(self) -> None:
        """Check what is known so far; costs nearly nothing. Call it before a result of the model is used.

        Raises:
            CheckpointError: a file was cut, or the cached weights are damaged.
        """
        try:
            require_whole(self._mappings)
            if self._made is not None:
                self._made.require_sound()
        except CheckpointError:
            self.is_reported = True
            raise

    def check_in_background(self) -> None:
        """Start, once, to compare the cached weights with their checksums."""
        if self._made is not None:
            self._made.check_in_background()
