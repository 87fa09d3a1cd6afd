"""Copies tensors from mapped files to a device through two small buffers, without a second copy in host memory.

While the device reads one buffer, the other is filled from the file. Pages of the file are released as soon as they
have been copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gptoss.model.checkpoints.checkpoint import Checkpoint

Progress = Callable[[float], None]

BUFFER_BYTES = 64 << 20


class Uploader:
    """Copies tensors to a device, one after the other.

    Args:
        device: the target.
        total: bytes that will be copied, for `progress`.
        progress: called with the part that is done, up to 1.
        buffer_bytes: size of each of the two buffers.
    """

    def __init__(
        self,
        device: torch.device,
        total: int,
        progress: Progress | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self.device = device
        self.copied = 0
        self._total = max(total, 1)
        self._progress = progress
        is_cuda = device.type == "cuda"
        # Pinned, so that the device can read it asynchronously.
        self._buffers = [torch.empty(buffer_bytes, dtype=torch.uint8, pin_memory=is_cuda) for _ in range(2)]
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]
        self._sent: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def tensor(self, checkpoint: Checkpoint, name: str) -> Tensor:
        """Copy a tensor of a checkpoint, given its canonical name."""
        out = self.copy(checkpoint.tensor(name))
        checkpoint.release(name)
        return out

    def joined(self, checkpoint: Checkpoint, names: Sequence[str]) -> list[Tensor]:
        """Copy matrices of equal type and width into one allocation, one behind the other; return views of it."""
        sources = [checkpoint.tensor(name) for name in names]
        rows = [source.shape[0] for source in sources]
        out = torch.empty(sum(rows), *sources[0].shape[1:], dtype=sources[0].dtype, device=self.device)
        parts = list(torch.split(out, rows))
        for name, source, part in zip(names, sources, parts, strict=True):
            self._fill(part, source)
            checkpoint.release(name)
        return parts

    def copy(self, source: Tensor) -> Tensor:
        """Copy a tensor of host memory; the copy is contiguous, whatever the source's strides."""
        out = torch.empty(source.shape, dtype=source.dtype, device=self.device)
        self._fill(out, source)
        return out

    def finish(self) -> None:
        """Wait until everything has been copied."""
        if self._stream is not None:
            self._stream.synchronize()
        self._count(max(self._total - self.copied, 0))  # what stayed in host memory

    def _fill(self, out: Tensor, source: Tensor) -> None:
        if not source.is_contiguous():
            out.copy_(source)
            self._count(source.nbytes)
            return
        if self._stream is not None:
            # Earlier kernels may still use the memory of `out`.
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        to, taken = out.view(-1).view(torch.uint8), source.view(-1).view(torch.uint8)
        size = self._buffers[0].numel()
        for begin in range(0, taken.numel(), size):
            piece = taken[begin : begin + size]
            self._send(to[begin : begin + size], piece)
            self._count(piece.numel())
        if self._stream is not None:
            # Later kernels wait for the copy, on the device.
            torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def _send(self, to: Tensor, piece: Tensor) -> None:
        buffer = self._buffers[self._turn][: piece.numel()]
        if self._stream is None:
            buffer.copy_(piece)
            to.copy_(buffer)
        else:
            sent = self._sent[self._turn]
            if sent is not None:
                sent.synchronize()
            buffer.copy_(piece)
            with torch.cuda.stream(self._stream):
                to.copy_(buffer, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self._stream)
            to.record_stream(self._stream)
            self._sent[self._turn] = event
        self._turn = 1 - self._turn

    def _count(self, nbytes: int) -> None:
        self.copied += nbytes
        if self._progress is not None:
            self._progress(min(self.copied / self._total, 1.0))
