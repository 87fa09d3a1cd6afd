"""From a model's name to an engine and its tokenizer. Imports torch."""

from __future__ import annotations

import torch

from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.startup.encodings import load_encoding
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.cli.startup.machine import available_memory
from gptoss.cli.startup.memory import counted_context, require_memory, slowness
from gptoss.model.checkpoints.catalog import locate
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.tensor_names import Layout
from gptoss.model.errors import DeviceError
from gptoss.model.inference.context import PREFILL_CHUNK, require_context
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.loading.device import select_device
from gptoss.model.loading.memory import memory_need
from gptoss.model.ops import ComputeOptions, Ops, select_ops
from gptoss.model.storage.disk_cache import DiskCache
from gptoss.model.storage.expert_pager import ExpertPager

# Bytes of weights. Where they fit into a core's caches, a second thread costs more than it brings, and on a busy
# machine the threads' waiting for each other makes a small model slower by far.
_ONE_THREAD_BELOW = 32 << 20
# As torch has chosen it; a chat may go from a small model to a large one.
_THREADS = torch.get_num_threads()


def load_model(request: LoadRequest) -> LoadedModel:
    """Find the model and make it ready to answer.

    Raises:
        ModelError: it is not there, broken, or cannot run as asked.
        ContextFullError: it cannot hold as many tokens as are asked for.
        MemoryShortageError: what it needs beside its files does not fit into memory.
        VocabularyError: its tokenizer cannot be used.
    """
    folder = locate(request.model, request.models_folder)
    # Reads no weights: what is wrong with the folder comes to light before anything takes its time.
    checkpoint = Checkpoint.open(folder)
    if request.ctx is not None:
        require_context(checkpoint.config, request.ctx)
    encoding = load_encoding(folder, checkpoint.config.vocab_size)
    if request.before_weights is not None:
        request.before_weights()
    few = 1 if checkpoint.nbytes < _ONE_THREAD_BELOW else _THREADS
    torch.set_num_threads(request.threads or few)
    device = select_device(request.device)
    try:
        engine = _load_on(device, request, checkpoint)
    except DeviceError as error:
        if request.device != "auto" or device.type == "cpu":
            raise
        if request.tell is not None:
            request.tell(f"{error}; the CPU is taken")
        engine = _load_on(torch.device("cpu"), request, checkpoint)
    packing, placement = engine.transformer.packing, engine.transformer.placement
    notes = [] if packing is None else [str(packing)]
    if placement is not None and placement.host_layers:
        notes.append(str(placement))
    made = engine.transformer.made
    if made is not None and made.will_be_kept:
        size = show_bytes(made.data.numel())
        notes.append(f"layers in 8 bits are kept for the next start, {size} on the disk (gptoss cache)")
    return LoadedModel(
        request.model,
        engine,
        encoding,
        notes=tuple(notes),
        folder=folder,
        can_skip_reasoning=checkpoint.config.can_skip_reasoning,
    )


def _load_on(device: torch.device, request: LoadRequest, checkpoint: Checkpoint) -> LocalEngine:
    memory = available_memory()
    is_mapped = request.quantize is None and device.type == "cpu"
    # Read whole, before it is computed with, is what has room in memory; of what has not, experts when they are chosen.
    is_read = is_mapped and memory is not None and checkpoint.nbytes < memory
    is_paged = is_mapped and memory is not None and not is_read
    ops = select_ops(device, ComputeOptions(dense=request.dense), ExpertPager() if is_paged else None)
    if device.type == "cpu":
        _look_at_memory(request, checkpoint, ops, memory)
    disk_cache = None
    if request.cache_folder is not None:
        disk_cache = DiskCache(request.cache_folder, request.cache_bytes, request.model)
    return LocalEngine.load(
        checkpoint.folder,
        device=str(device),
        backend=ops,
        max_context=request.ctx,
        quantize=request.quantize,
        progress=request.progress,
        cpu_experts=request.cpu_experts,
        reading=request.reading if is_read else None,
        disk_cache=disk_cache,
    )


def _look_at_memory(request: LoadRequest, checkpoint: Checkpoint, ops: Ops, memory: int | None) -> None:
    """Refuse a model that cannot fit, and say of one that will be slow that it will.

    Raises:
        MemoryShortageError: what it needs beside its files does not fit.
    """
    config = checkpoint.config
    need = memory_need(
        config,
        ops,
        counted_context(config, request.ctx),
        PREFILL_CHUNK,
        weight_bytes=checkpoint.nbytes,
        packs=request.quantize is not None and checkpoint.layout is Layout.HUB_BF16,
    )
    require_memory(request.model, need, config, ops, request.ctx, available_memory(swap=True))
    slow = slowness(request.model, need, memory)
    if slow is not None and request.tell is not None:
        request.tell(slow)
