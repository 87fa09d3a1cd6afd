"""Reads the experts that tokens have chosen, all at once, where not all of a model has room in memory."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from gptoss.model.storage.mapping import fetch
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts

# A disk is at its best when it is asked for many things at a time; left to the kernels, each of their threads waits for
# the page that it touches.
_THREADS = 8
_PIECE_BYTES = 4 << 20


class ExpertPager:
    """Brings packed experts into memory before they are computed; costs a call to the system each where they are."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "expert pager")

    def read(self, experts: Experts, chosen: Iterable[int]) -> None:
        """Return when the experts of these numbers are in memory, each with all of its packed weights."""
        packed = [matrix for matrix in (experts.gate_up, experts.down) if isinstance(matrix, Mxfp4Tensor)]
        arrays = [array for matrix in packed for array in (matrix.blocks, matrix.scales)]
        parts = (array[expert].flatten() for expert in sorted(set(chosen)) for array in arrays)
        pieces = (part[at : at + _PIECE_BYTES] for part in parts for at in range(0, part.numel(), _PIECE_BYTES))
        for _ in self._pool.map(_fetch, pieces):
            pass


def _fetch(piece: Tensor) -> None:
    fetch(piece)
