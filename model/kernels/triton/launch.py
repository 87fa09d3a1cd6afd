"""The one place where kernels are started: counted, and redirected by whoever only wants them compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

Grid = tuple[int, ...]
Runner = Callable[[Any, Grid, tuple[Any, ...], dict[str, Any]], None]


def _run(kernel: Any, grid: Grid, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    # Triton takes the current card, which need not be the one where the tensors lie.
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **options)


_counts: Counter[str] = Counter()
_runner: Runner = _run


def launch(kernel: Any, grid: Grid, *args: Any, **options: Any) -> None:
    """Start a kernel over a grid of programs; `options` are its constants and the compiler's."""
    _counts[kernel.__name__] += 1
    _runner(kernel, grid, args, options)


def counts() -> dict[str, int]:
    """How often each kernel was started since `reset_counts`; what a graph repeats is counted when it is recorded."""
    return dict(_counts)


def reset_counts() -> None:
    """Begin to count anew."""
    _counts.clear()


def redirect(runner: Runner | None) -> None:
    """Let `runner` have every launch in place of the device; None: as usual again."""
    global _runner
    _runner = runner or _run
