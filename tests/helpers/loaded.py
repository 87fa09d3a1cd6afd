"""Checkpoints loaded for tests: on the CPU, and by the exact backend unless told otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.loading.load import Loaded, load
from gptoss.model.loading.options import LoadOptions
from gptoss.model.ops import Ops
from gptoss.model.ops.options import Backend, ComputeOptions, Dense


def load_options(backend: Backend | None = "reference", dense: Dense | None = None, **fields: Any) -> LoadOptions:
    """`fields` are those of `LoadOptions`, and `threads`."""
    compute = ComputeOptions(backend=backend, dense=dense, threads=fields.pop("threads", None))
    return LoadOptions(**({"device": "cpu"} | fields), compute=compute)


def loaded(
    folder: Path | str,
    backend: Backend | Ops | None = "reference",
    *,
    progress: Callable[[float], None] | None = None,
    reading: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Loaded:
    """`backend` is a name or made already; `options` are those of `load_options`."""
    if backend is None or isinstance(backend, str):
        chosen, ops = load_options(backend, **options), None
    else:
        chosen, ops = load_options(None, **options), backend
    return load(Checkpoint.open(folder), chosen, ops=ops, progress=progress, reading=reading)


def loaded_transformer(folder: Path | str, backend: Backend | Ops | None = "reference", **options: Any) -> Transformer:
    """As `loaded`."""
    return loaded(folder, backend, **options).engine.transformer


def loaded_engine(folder: Path | str, backend: Backend | Ops | None = "reference", **options: Any) -> LocalEngine:
    """As `loaded`."""
    return loaded(folder, backend, **options).engine
