"""Reads the experts that tokens have chosen, all at once, for a model that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from gptoss.model.storage.mapping import fetch
from gptoss.model.tensors.joined_mxfp4 import JoinedMxfp4
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import ExpertMatrix, Experts

# A disk is fastest with many requests in flight. Without the pager, each kernel thread waits for one page at a time.
_THREADS = 8
_PIECE_BYTES = 4 << 20


class ExpertPager:
    """Reads packed experts into memory before they are computed; one system call each if they are there already."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "expert pager")

    def read(self, experts: Experts, chosen: Iterable[int]) -> None:
        """Read the packed weights of the experts of these numbers into memory."""
        arrays = [array for matrix in (experts.gate_up, experts.down) for array in _packed_arrays(matrix)]
        parts = (array[expert].flatten() for expert in sorted(set(chosen)) for array in arrays)
        pieces = (part[at : at + _PIECE_BYTES] for part in parts for at in range(0, part.numel(), _PIECE_BYTES))
        for _ in self._pool.map(_fetch, pieces):
            pass


def _packed_arrays(matrix: ExpertMatrix) -> tuple[Tensor, ...]:
    if isinstance(matrix, JoinedMxfp4):
        return matrix.parts
    return (matrix.blocks, matrix.scales) if isinstance(matrix, Mxfp4Tensor) else ()


def _fetch(piece: Tensor) -> None:
    fetch(piece)
