"""From a model's name to an engine and its tokenizer. Imports torch."""

from __future__ import annotations

import torch

from gptoss.cli.encodings import load_encoding
from gptoss.cli.environment import LoadedModel, LoadRequest
from gptoss.cli.machine import available_memory
from gptoss.model.catalog import locate
from gptoss.model.checkpoint import Checkpoint
from gptoss.model.engine import Engine, select_device
from gptoss.model.prefix_store import PrefixFolder

# Bytes of weights. Where they fit into a core's caches, a second thread costs more than it brings, and on a busy
# machine the threads' waiting for each other makes a small model slower by far.
_ONE_THREAD_BELOW = 32 << 20
# As torch has chosen it; a chat may go from a small model to a large one.
_THREADS = torch.get_num_threads()


def load_model(request: LoadRequest) -> LoadedModel:
    """Find the model and make it ready to answer.

    Raises:
        ModelError: it is not there, broken, or cannot run as asked.
        VocabularyError: its tokenizer cannot be used.
    """
    folder = locate(request.model, request.models_folder)
    # Reads no weights: what is wrong with the folder comes to light before anything takes its time.
    checkpoint = Checkpoint.open(folder)
    encoding = load_encoding(folder, checkpoint.config.vocab_size)
    if request.before_weights is not None:
        request.before_weights()
    few = 1 if checkpoint.nbytes < _ONE_THREAD_BELOW else _THREADS
    torch.set_num_threads(request.threads or few)
    prefixes = None
    if request.cache_folder is not None:
        prefixes = PrefixFolder(request.cache_folder, request.cache_bytes, request.model)
    engine = Engine.load(
        folder,
        device=request.device,
        max_context=request.ctx,
        quantize=request.quantize,
        progress=request.progress,
        reading=request.reading if _may_be_read_ahead(request, checkpoint) else None,
        prefixes=prefixes,
    )
    packing = engine.transformer.packing
    return LoadedModel(
        request.model,
        engine,
        encoding,
        notes=() if packing is None else (str(packing),),
        folder=folder,
        can_skip_reasoning=checkpoint.config.can_skip_reasoning,
    )


def _may_be_read_ahead(request: LoadRequest, checkpoint: Checkpoint) -> bool:
    """Whether the files have room in memory, and are what computing reads."""
    memory = available_memory()
    mapped = request.quantize is None and select_device(request.device).type == "cpu"
    return mapped and memory is not None and checkpoint.nbytes < memory
