"""A generation in one call."""

from __future__ import annotations

from collections.abc import Iterable

from gptoss.model.constraint import Constraint
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.inference.generation import LocalGeneration
from gptoss.model.interface import Progress, Request, SamplingParams


def generate(
    engine: LocalEngine,
    ids: Iterable[int],
    params: SamplingParams | None = None,
    constraint: Constraint | None = None,
    stop: Iterable[int] = (),
    progress: Progress | None = None,
) -> LocalGeneration:
    """Begin a generation."""
    return engine.generate(Request(tuple(ids), params, frozenset(stop), constraint), progress)
