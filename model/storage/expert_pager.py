"""Reads the experts that tokens have chosen, all at once, for a model that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from gptoss.model.storage.mapping import fetch
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts

# A disk is fastest with many requests in flight. Without the pager, each kernel thread waits for one page at a time.
_THREADS = 8
_PIECE_BYTES = 4 << 20


class ExpertPager:
    """Reads packed experts into memory before they are computed; one system call each if they are there already."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "expert pager")

    def read(self, experts: Experts, chosen: Iterable[int]) -> None:
        """Read the packed weights of the experts of these numbers into memory."""
        packed = [matrix for matrix in (experts.gate_up, experts.down) if isinstance(matrix, Mxfp4Tensor)]
        arrays = [array for matrix in packed for array in (matrix.blocks, matrix.scales)]
        parts = (array[expert].flatten() for expert in sorted(set(chosen)) for array in arrays)
        pieces = (part[at : at + _PIECE_BYTES] for part in parts for at in range(0, part.numel(), _PIECE_BYTES))
        for _ in self._pool.map(_fetch, pieces):
            pass


def _fetch(piece: Tensor) -> None:
    fetch(piece)
