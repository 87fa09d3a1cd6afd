"""From a model's name to an engine and its tokenizer. Imports torch."""

from __future__ import annotations

import torch

from gptoss.cli.encodings import load_encoding
from gptoss.cli.environment import LoadedModel, LoadRequest
from gptoss.model.catalog import locate
from gptoss.model.checkpoint import Checkpoint
from gptoss.model.engine import Engine

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
    engine = Engine.load(
        folder,
        device=request.device,
        max_context=request.ctx,
        quantize=request.quantize,
        progress=request.progress,
        cpu_experts=request.cpu_experts,
    )
    packing, placement = engine.transformer.packing, engine.transformer.placement
    notes = [] if packing is None else [str(packing)]
    if placement is not None and placement.host_layers:
        notes.append(str(placement))
    return LoadedModel(
        request.model,
        engine,
        encoding,
        notes=tuple(notes),
        folder=folder,
        can_skip_reasoning=checkpoint.config.can_skip_reasoning,
    )
