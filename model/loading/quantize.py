"""Packs plain experts to MXFP4 while a checkpoint is loaded, and measures the error.

Fine-tuned models come with bf16 experts: packed they take 4.25 bits a weight instead of 16. The rounding is that of
the published models, `gptoss.model.tensors.mxfp4.quantize`.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import as_completed
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from gptoss.model.errors import CheckpointError, UnsupportedModelError, quote
from gptoss.model.loading.threads import LoneWorkers
from gptoss.model.loading.upload import Progress
from gptoss.model.tensors.mxfp4 import BLOCK_BYTES, BLOCK_SIZE, Mxfp4Tensor, dequantize, quantize

_PIECE = 1 << 21
"""Weights that one thread packs at a time (about 30 MB of working memory each): bounds the memory beside the result."""


@dataclass(frozen=True)
class PackingReport:
    """What packing did.

    Attributes:
        matrices: number of packed matrices, one of each kind a layer.
        bytes_before: their bytes as stored.
        bytes_after: their bytes as packed.
        errors: relative RMS error by kind of matrix (`gate_up`, `down`), all layers together.
    """

    matrices: int
    bytes_before: int
    bytes_after: int
    errors: dict[str, float]

    def __str__(self) -> str:
        errors = ", ".join(f"{kind} {error:.2%}" for kind, error in self.errors.items())
        return (
            f"experts packed to MXFP4: {self.bytes_before / 1e9:.3g} GB became {self.bytes_after / 1e9:.3g} GB, "
            f"relative RMS error {errors}"
        )


class ExpertPacker:
    """Packs matrices of experts one after the other, each on several threads; a context manager that ends them.

    Args:
        total: number of matrices to come, for `progress`.
        progress: called with the part that is done, up to 1.
        threads: by default torch's number.
    """

    def __init__(self, total: int, progress: Progress | None = None, threads: int | None = None) -> None:
        self._total = total
        self._progress = progress
        self._pool = LoneWorkers(threads or torch.get_num_threads(), "pack")
        self._lock = threading.Lock()
        self._matrices = 0
        self._bytes_before = self._bytes_after = 0
        self._squares: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def pack(self, name: str, matrix: Tensor) -> Mxfp4Tensor:
        """Pack one matrix of all experts of a layer.

        Args:
            name: its canonical name, `layers.N.gate_up` or `layers.N.down`.
            matrix: (experts, rows, columns), floating point, on the CPU.

        Raises:
            UnsupportedModelError: the columns do not come in blocks of 32.
            CheckpointError: a weight is infinite or not a number.
        """
        experts, rows, columns = matrix.shape
        if columns % BLOCK_SIZE:
            raise UnsupportedModelError(
                f"{quote(name)} has rows of {columns} weights, which are no blocks of {BLOCK_SIZE}: it cannot be "
                "packed to MXFP4; run it as it is"
            )
        lead = (experts, rows, columns // BLOCK_SIZE)
        packed = Mxfp4Tensor(torch.empty((*lead, BLOCK_BYTES), dtype=torch.uint8), torch.empty(lead, dtype=torch.uint8))
        kind = name.rpartition(".")[2]
        step = max(1, _PIECE // columns)
        pieces = [(expert, slice(row, row + step)) for expert in range(experts) for row in range(0, rows, step)]
        jobs = [self._pool.submit(self._pack_piece, kind, matrix, packed, *piece) for piece in pieces]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                if self._progress is not None:
                    self._progress((self._matrices + done / len(jobs)) / self._total)
        except ValueError as error:
            raise CheckpointError(f"{quote(name)}: {error}; use another copy of this model") from error
        finally:
            for job in jobs:
                job.cancel()
        self._matrices += 1
        self._bytes_before += matrix.nbytes
        self._bytes_after += packed.nbytes
        return packed

    def report(self) -> PackingReport:
        """Return what has been done so far."""
        errors = {kind: math.sqrt(lost / all_) if all_ else 0.0 for kind, (lost, all_) in self._squares.items()}
        return PackingReport(self._matrices, self._bytes_before, self._bytes_after, errors)

    def _pack_piece(self, kind: str, matrix: Tensor, packed: Mxfp4Tensor, expert: int, rows: slice) -> None:
        with torch.inference_mode():
            values = matrix[expert, rows].contiguous()
            blocks, scales = quantize(values)
            packed.blocks[expert, rows], packed.scales[expert, rows] = blocks, scales
            exact = values.float()
            all_ = float(exact.square().sum(dtype=torch.float64))
            lost = float(exact.sub_(dequantize(blocks, scales)).square_().sum(dtype=torch.float64))
        with self._lock:
            lost_before, all_before = self._squares.get(kind, (0.0, 0.0))
            self._squares[kind] = (lost_before + lost, all_before + all_)
