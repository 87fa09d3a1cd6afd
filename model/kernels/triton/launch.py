"""The one way to start a kernel: counted, and replaceable by a program that only compiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

Grid = tuple[int, ...]
Run = Callable[[Any, Grid, tuple[Any, ...], dict[str, Any]], None]
"""Starts a kernel on a grid of programs with its arguments, and its constants and compiler options by name."""


def run_on_device(kernel: Any, grid: Grid, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Start a kernel on the device of its first argument, a tensor."""
    # Triton takes torch's current card, which may be another one.
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **options)


class Launcher:
    """Starts kernels and counts the starts; every backend instance has its own.

    Args:
        run: what starting a kernel does.
    """

    def __init__(self, run: Run = run_on_device) -> None:
        self._run = run
        self._counts: Counter[str] = Counter()

    def __call__(self, kernel: Any, grid: Grid, *args: Any, **options: Any) -> None:
        """Start a kernel over a grid of programs; `options` are its constants and the compiler's options."""
        self._counts[kernel.__name__] += 1
        self._run(kernel, grid, args, options)

    def counts(self) -> dict[str, int]:
        """Count the starts of each kernel, by name; a recorded graph counts when it is recorded, not when replayed."""
        return dict(self._counts)
