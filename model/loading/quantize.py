"""Packs plain experts to MXFP4 while a checkpoint is loaded, and keeps account of what that costs.

Fine-tuned models come with bf16 experts: packed they take 4.25 bits a weight instead of 16. How the published models
were packed, and with it the rounding, is `gptoss.model.tensors.mxfp4.quantize`.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.tensor_names import Layout
from gptoss.model.errors import CheckpointError, UnsupportedModelError, quote
from gptoss.model.loading.upload import Uploader
from gptoss.model.tensors.mxfp4 import BLOCK_BYTES, BLOCK_SIZE, Mxfp4Tensor, dequantize, quantize as quantize_values
from gptoss.model.tensors.weights import LayerWeights, Weights

log = logging.getLogger(__name__)

Quantization = Literal["mxfp4"]
QUANTIZATIONS: tuple[Quantization, ...] = ("mxfp4",)
Progress = Callable[[float], None]

_PIECE = 1 << 21
"""Weights that one thread packs at a time (about 30 MB of its own): bounds the memory beside the result."""


@dataclass(frozen=True)
class PackingReport:
    """What packing did.

    Attributes:
        matrices: matrices of experts that were packed, one of each kind a layer.
        bytes_before: their bytes as stored.
        bytes_after: their bytes as packed.
        errors: relative error by kind of matrix (`gate_up`, `down`): the root of the summed squares of all differences
            over that of all weights, in all layers together.
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


def load_weights(
    checkpoint: Checkpoint,
    quantize: Quantization | None = None,
    progress: Progress | None = None,
    uploader: Uploader | None = None,
    host_layers: int = 0,
    prepare_layer: Callable[[LayerWeights], LayerWeights] = lambda layer: layer,
) -> tuple[Weights, PackingReport | None]:
    """The weights of a checkpoint, its experts packed if `quantize` asks for it; what that did, if there were any.

    `uploader`, `host_layers` and `prepare_layer` are those of `Weights.from_checkpoint`.

    Raises:
        CheckpointError: a weight is infinite or not a number, or the experts have no whole blocks.
    """
    if quantize is None or checkpoint.layout is not Layout.HUB_BF16:
        return Weights.from_checkpoint(checkpoint, None, uploader, host_layers, prepare_layer), None
    with ExpertPacker(2 * checkpoint.config.num_layers, progress) as packer:
        weights = Weights.from_checkpoint(checkpoint, packer, uploader, host_layers, prepare_layer)
    report = packer.report()
    log.info("%s", report)
    return weights, report


class ExpertPacker:
    """Packs matrices of experts one after the other, each in parallel; a context manager, for its threads.

    Args:
        total: how many matrices will come, for `progress`.
        progress: called with the part that is done, up to 1.
        threads: how many work at a time; by default as many as torch computes with.
    """

    def __init__(self, total: int, progress: Progress | None = None, threads: int | None = None) -> None:
        self._total = total
        self._progress = progress
        self._threads_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            threads or self._threads_before,
            thread_name_prefix="pack",
            # Each worker computes alone: threads of threads would fight for the processors.
            initializer=functools.partial(torch.set_num_threads, 1),
        )
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
        # The workers' choice is also that of all threads which torch has not met yet.
        torch.set_num_threads(self._threads_before)

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
        """What was done so far."""
        errors = {kind: math.sqrt(lost / all_) if all_ else 0.0 for kind, (lost, all_) in self._squares.items()}
        return PackingReport(self._matrices, self._bytes_before, self._bytes_after, errors)

    def _pack_piece(self, kind: str, matrix: Tensor, packed: Mxfp4Tensor, expert: int, rows: slice) -> None:
        with torch.inference_mode():
            values = matrix[expert, rows].contiguous()
            blocks, scales = quantize_values(values)
            packed.blocks[expert, rows], packed.scales[expert, rows] = blocks, scales
            exact = values.float()
            all_ = float(exact.square().sum(dtype=torch.float64))
            lost = float(exact.sub_(dequantize(blocks, scales)).square_().sum(dtype=torch.float64))
        with self._lock:
            lost_before, all_before = self._squares.get(kind, (0.0, 0.0))
            self._squares[kind] = (lost_before + lost, all_before + all_)
