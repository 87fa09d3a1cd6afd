"""Recording of a decode step: as CUDA graphs, each replayed by one launch; without CUDA the step is simply run again.

A recorded step works on buffers of fixed addresses and sizes and never waits for the device. If part of it runs on the
host (experts in host memory), the recording is cut there: a graph, the host's part, another graph.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

Step = Callable[[], None]


class Recorder(Protocol):
    """Records steps for replay."""

    def record(self, step: Step) -> Step:
        """Run `step` once, and return a function that does the same again."""
        ...

    def on_host(self, function: Step) -> None:
        """Run, or record, a part of a step that waits for the device and computes on the host."""
        ...


class PlainSteps:
    """Without CUDA nothing is recorded; a step is run again."""

    def record(self, step: Step) -> Step:
        """Run `step` and return it."""
        step()
        return step

    def on_host(self, function: Step) -> None:
        """Run it."""
        function()


class CudaGraphs:
    """CUDA graphs; those of one recording share a memory pool.

    Args:
        device: on which the step runs.
        new_graph: makes an empty graph.
        side_stream: a context in which to record; torch's default stream cannot be recorded.
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
        """Run the step, which compiles its kernels and loads its libraries, then record it."""
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
        # The recording belongs to the returned function; nothing here keeps it alive.
        self._pieces = []

        def again() -> None:
            for piece in pieces:
                piece()

        return again

    def on_host(self, function: Step) -> None:
        """Run it; while recording, end the graph, note the function, and begin the next graph."""
        if self._graph is None:
            function()
            return
        self._end()
        self._pieces.append(function)
        self._begin()

    def _begin(self) -> None:
        self._graph = self._new_graph()
        # Graphs are replayed in the order of recording, so they can share memory.
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
            return  # the original exception is being raised already

    def _own_stream(self) -> AbstractContextManager[Any]:
        torch.cuda.synchronize(self._device)
        return torch.cuda.stream(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]


def recorder(device: torch.device) -> Recorder:
    """Return the recorder for a device."""
    return CudaGraphs(device) if device.type == "cuda" else PlainSteps()
