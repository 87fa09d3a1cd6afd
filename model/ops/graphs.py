"""Recording of a step: as CUDA graphs that repeat it at the cost of one launch each, or plainly where there are none.

A step works on buffers of fixed places and sizes, never waits for the device, and never asks it anything. Where part of
it runs on the host (experts in host memory), the recording is cut there: a graph, the host's part, another graph.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

Step = Callable[[], None]


class Recorder(Protocol):
    """Makes steps that can be repeated."""

    def record(self, step: Step) -> Step:
        """Run `step` once, and return what does the same again."""
        ...

    def on_host(self, function: Step) -> None:
        """Run, or record, what waits for the device and computes on the host."""
        ...


class PlainSteps:
    """Nothing is recorded: a step is repeated by running it."""

    def record(self, step: Step) -> Step:
        """`step` itself."""
        step()
        return step

    def on_host(self, function: Step) -> None:
        """Run it."""
        function()


class CudaGraphs:
    """CUDA graphs; those of one recording share a pool of memory.

    Args:
        device: whose.
        new_graph: makes an empty graph.
        side_stream: a context in which to record; the stream that torch uses by default cannot be recorded.
    """

    def __init__(
        self,
        device: torch.device,
        new_graph: Callable[[], Any] | None = None,
        side_stream: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self._device = device
        self._new_graph = new_graph or torch.cuda.CUDAGraph
        self._side_stream = side_stream or self._own_stream
        self._pieces: list[Step] = []
        self._graph: Any = None
        self._pool: Any = None

    def record(self, step: Step) -> Step:
        """Run the step, so that its kernels are compiled and its libraries loaded, then record it."""
        step()
        pieces: list[Step] = []
        self._pieces, self._pool = pieces, None
        with self._side_stream():
            try:
                self._begin()
                step()
            except BaseException:
                self._abandon()
                raise
            self._end()
        # What is recorded lives as long as who asked for it.
        self._pieces = []

        def again() -> None:
            for piece in pieces:
                piece()

        return again

    def on_host(self, function: Step) -> None:
        """Run it; while recording, cut the graph there."""
        if self._graph is None:
            function()
            return
        self._end()
        self._pieces.append(function)
        self._begin()

    def _begin(self) -> None:
        self._graph = self._new_graph()
        # Pieces are repeated in the order in which they were recorded, so they can use the same memory.
        arguments = {} if self._pool is None else {"pool": self._pool}
        self._graph.capture_begin(**arguments, capture_error_mode="thread_local")

    def _end(self) -> None:
        graph, self._graph = self._graph, None
        graph.capture_end()
        self._pool = graph.pool() if self._pool is None else self._pool
        self._pieces.append(graph.replay)

    def _abandon(self) -> None:
        graph, self._graph = self._graph, None
        if graph is None:
            return
        try:
            graph.capture_end()
        except RuntimeError:
            return  # what made it fail is being raised already

    def _own_stream(self) -> AbstractContextManager[Any]:
        torch.cuda.synchronize(self._device)
        return torch.cuda.stream(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]


def recorder(device: torch.device) -> Recorder:
    """What records on this device."""
    return CudaGraphs(device) if device.type == "cuda" else PlainSteps()
