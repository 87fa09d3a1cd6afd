"""From a model's name to an engine and its tokenizer. Imports torch."""

from __future__ import annotations

from functools import partial

from gptoss.cli.base.settings import Quantize, Settings
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.startup.encodings import load_encoding
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.cli.startup.machine import available_memory
from gptoss.cli.startup.memory import require_memory, slowness
from gptoss.model.checkpoints.catalog import locate
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.inference.context import require_context
from gptoss.model.loading.load import Loaded, load
from gptoss.model.loading.options import LoadOptions
from gptoss.model.loading.plan import LoadPlan
from gptoss.model.ops.options import ComputeOptions
from gptoss.model.storage.disk_cache import DiskCache


def load_model(request: LoadRequest) -> LoadedModel:
    """Find the model and make it ready to answer.

    Raises:
        ModelError: it is not there, broken, or cannot run as asked.
        ContextFullError: it cannot hold as many tokens as are asked for.
        MemoryShortageError: what it needs beside its files does not fit into memory.
        VocabularyError: its tokenizer cannot be used.
    """
    folders, settings = request.folders, request.settings
    folder = locate(request.model, folders.models, folders.hub_cache, folders.others)
    # Reads no weights: what is wrong with the folder comes to light before anything takes its time.
    checkpoint = Checkpoint.open(folder)
    if settings.ctx is not None:
        require_context(checkpoint.config, settings.ctx)
    encoding = load_encoding(folder, checkpoint.config.vocab_size)
    if request.before_weights is not None:
        request.before_weights()
    cache = DiskCache(folders.computed, int(settings.cache_gb * 1e9), request.model) if settings.cache else None
    loaded = load(
        checkpoint,
        load_options(settings, cache),
        look=partial(_look_at, request),
        progress=request.progress,
        reading=request.reading,
    )
    return LoadedModel(
        request.model,
        loaded.engine,
        encoding,
        notes=tuple(_notes(loaded)),
        folder=folder,
        can_skip_reasoning=checkpoint.config.can_skip_reasoning,
        plan=loaded.plan,
    )


def load_options(settings: Settings, disk_cache: DiskCache | None = None) -> LoadOptions:
    """Convert the settings to load options, given the memory that is free now."""
    kernels = settings.kernels
    return LoadOptions(
        device=settings.device,
        compute=ComputeOptions(
            backend=None if kernels.backend is None else kernels.backend.value,
            dense=None if settings.dense is None else settings.dense.value,
            isa=None if kernels.cpu_isa is None else kernels.cpu_isa.value,
            threads=settings.threads,
        ),
        cpu_dense=None if kernels.cpu_dense is None else kernels.cpu_dense.value,
        gpu_dense=None if kernels.gpu_dense is None else kernels.gpu_dense.value,
        cpu_experts=settings.cpu_experts,
        host_bytes=available_memory(),
        adapters=settings.adapter_folders,
        quantize="mxfp4" if settings.quantize is Quantize.MXFP4 else None,
        max_context=settings.ctx,
        context_bytes=int(settings.context_gb * 1e9),
        disk_cache=disk_cache,
    )


def _look_at(request: LoadRequest, plan: LoadPlan) -> None:
    """Refuse a model that cannot fit; say where it falls back to the CPU, and where it will be slow.

    Raises:
        MemoryShortageError: what it needs beside its files does not fit.
    """

    def notify(line: str) -> None:
        if request.notify is not None:
            request.notify(line)

    if plan.fallback is not None:
        notify(f"{plan.fallback}; falling back to the CPU")
    if plan.device.type != "cpu":
        return
    require_memory(request.model, plan, available_memory(swap=True))
    slow = slowness(request.model, plan.need, plan.options.host_bytes)
    if slow is not None:
        notify(slow)


def _notes(loaded: Loaded) -> list[str]:
    notes = [] if loaded.packing is None else [str(loaded.packing)]
    notes += [f"adapter {one_line(adapter.folder.name)}: {one_line(str(adapter))}" for adapter in loaded.adapters]
    placement, made = loaded.plan.placement, loaded.made
    if placement is not None and placement.host_layers:
        notes.append(str(placement))
    if made is not None and made.will_be_kept:
        size = show_bytes(made.data.numel())
        notes.append(f"layers in 8 bits are kept for the next start, {size} on the disk (gptoss cache)")
    return notes
