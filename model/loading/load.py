"""Loads a model: carries out a plan, from an opened checkpoint to an engine that is ready to generate."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.adapter import Adapter
from gptoss.model.checkpoints.catalog import default_hub_cache, locate
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.config_files import load_generation_defaults
from gptoss.model.config import GenerationDefaults
from gptoss.model.inference.engine import CONTEXT_BYTES, LocalEngine
from gptoss.model.loading.adapters import with_adapters
from gptoss.model.loading.options import LoadOptions
from gptoss.model.loading.plan import LoadPlan, with_fallback
from gptoss.model.loading.quantize import ExpertPacker, PackingReport
from gptoss.model.loading.threads import use_threads
from gptoss.model.loading.upload import Progress, Uploader
from gptoss.model.loading.weights import load_weights
from gptoss.model.ops import Ops, StepOps
from gptoss.model.ops.full_card import full_card_told
from gptoss.model.storage.integrity import Integrity
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.storage.read_ahead import ReadAhead, Reading
from gptoss.model.tensors.weights import Weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """The result of carrying out a plan.

    Attributes:
        engine: ready to generate.
        plan: the plan that was carried out.
        packing: sizes and errors of the packed experts; None: none were packed.
        made: the repacked weights, which may be kept on disk; None: the backend repacks none.
        adapters: the adapters whose products are added.
    """

    engine: LocalEngine
    plan: LoadPlan
    packing: PackingReport | None
    made: MadeWeights | None
    adapters: tuple[Adapter, ...] = ()


def find_model(name: str, *, models_folder: Path | None = None, hub_cache: Path | None = None) -> Path:
    """Return the folder of a model of this machine.

    Args:
        name: what `locate` takes: a name of the catalogue, a hub repository, or the path of a folder.
        models_folder: where models are looked for by name, beside the hub's cache; None: nowhere else.
        hub_cache: the hub's own cache; by default in the home folder. `default_hub_cache(os.environ)` follows HF_HOME.

    Raises:
        ModelNotFoundError: it is not on this machine.
    """
    return locate(name, models_folder, default_hub_cache({}) if hub_cache is None else hub_cache)


def load_model(
    model: Path | str,
    options: LoadOptions = LoadOptions(),
    *,
    models_folder: Path | None = None,
    hub_cache: Path | None = None,
    ops: Ops | None = None,
    progress: Progress | None = None,
    reading: Reading | None = None,
) -> LocalEngine:
    """Load a model of this machine.

    Args:
        model: a folder with a checkpoint, or what `locate` takes.
        options: how to load it.
        models_folder, hub_cache: as `find_model`.
        ops, progress, reading: as `load`.

    Raises:
        ModelNotFoundError: it is not on this machine.
        CheckpointError, DeviceError, ContextFullError: as `Checkpoint.open` and `load`.
    """
    folder = model if isinstance(model, Path) else find_model(model, models_folder=models_folder, hub_cache=hub_cache)
    return load(Checkpoint.open(folder), options, ops=ops, progress=progress, reading=reading).engine


def load(
    checkpoint: Checkpoint,
    options: LoadOptions = LoadOptions(),
    *,
    ops: Ops | None = None,
    look: Callable[[LoadPlan], None] | None = None,
    progress: Progress | None = None,
    reading: Reading | None = None,
) -> Loaded:
    """Plan how to load a checkpoint, and carry it out; on the CPU if "auto" chose a card that is too small.

    Args:
        checkpoint: opened.
        options: how to load it.
        ops: the backend; by default the one that the options choose.
        look: called with each plan before it is carried out; may raise to refuse it.
        progress: called with the part of the packing, or of the copying to a device, that is done, up to 1.
        reading: called with the bytes that have been read ahead, and those in all.

    Raises:
        CheckpointError: its generation config is broken, or its experts cannot be packed.
        DeviceError: there is no such device or backend, or the named card is too small.
        ContextFullError: `max_context` is more than the model was made for.
    """

    def use(plan: LoadPlan) -> Loaded:
        if look is not None:
            look(plan)
        return carry_out(plan, checkpoint, progress=progress, reading=reading)

    return with_fallback(checkpoint, options, use, ops)


def carry_out(
    plan: LoadPlan, checkpoint: Checkpoint, *, progress: Progress | None = None, reading: Reading | None = None
) -> Loaded:
    """Carry out a plan, once: its backend then belongs to the model.

    Args:
        plan: of this checkpoint.
        checkpoint: opened.
        progress, reading: as `load`.

    Raises:
        CheckpointError: the generation config is broken, or the experts cannot be packed.
        DeviceError: the card's memory is full.
    """
    log.info("loading: %s", plan)
    use_threads(plan.threads)
    adapters = tuple(Adapter.open(folder, plan.config) for folder in plan.options.adapters)
    is_gguf = checkpoint.layout.is_gguf
    defaults = GenerationDefaults() if is_gguf else load_generation_defaults(checkpoint.folder)
    cache = plan.options.disk_cache
    files = None if cache is None else cache.of(checkpoint.fingerprint)
    made = None
    if plan.device.type == "cpu" and plan.placement is None:
        made = MadeWeights(plan.ops.made_bytes(plan.config), files, plan.ops.name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(full_card_told(plan.device))
        if plan.reading == "ahead":
            # Repacked weights of an earlier run replace the dense layers.
            parts = checkpoint.stored_bytes(without_dense=made is not None and made.is_filled)
            if made is not None and made.is_filled:
                parts.append(made.data)
            stack.enter_context(ReadAhead(parts, reading))
        weights, packing = _take_weights(plan, checkpoint, progress)
        weights = with_adapters(weights, adapters)
        transformer = Transformer(plan.config, weights, plan.ops, made)
    Integrity((*checkpoint.mappings, *(adapter.mapping for adapter in adapters)), made).require()
    prefixes = None if files is None else (files, prefix_identity(plan, adapters))
    engine = LocalEngine(
        transformer,
        plan.options.max_context,
        defaults,
        prefixes=prefixes,
        mappings=checkpoint.mappings,
        context_bytes=CONTEXT_BYTES if plan.options.context_bytes is None else plan.options.context_bytes,
    )
    return Loaded(engine, plan, packing, made, adapters)


def prefix_identity(plan: LoadPlan, adapters: Sequence[Adapter] = ()) -> str:
    """Return everything but the weights that affects keys and values; part of the prefix-cache key.

    Call it after the backend has prepared the weights.
    """
    how: tuple[object, ...] = (
        plan.ops.identity,
        str(plan.device),
        "mxfp4" if plan.packs else None,
        sys.byteorder,
        version("gptoss"),
    )
    if plan.placement is not None and plan.placement.host_layers:
        how += (plan.placement.host_layers,)  # the CPU rounds differently from the card
    return repr((*how, *(adapter.fingerprint for adapter in adapters)))


def _take_weights(
    plan: LoadPlan, checkpoint: Checkpoint, progress: Progress | None
) -> tuple[Weights, PackingReport | None]:
    uploader = None
    if plan.device.type != "cpu" or plan.placement is not None:
        uploader = Uploader(plan.device, checkpoint.nbytes, None if plan.packs else progress)
    host_layers = 0 if plan.placement is None else plan.placement.host_layers
    prepare = plan.ops.prepare_layer if isinstance(plan.ops, StepOps) else None
    packing = None
    with contextlib.ExitStack() as stack:
        packer = None
        if plan.packs:
            packer = stack.enter_context(ExpertPacker(2 * plan.config.num_layers, progress, plan.threads))
        weights = load_weights(checkpoint, packer, uploader, host_layers, prepare)
    if packer is not None:
        packing = packer.report()
        log.info("%s", packing)
    if uploader is not None:
        uploader.finish()
    return weights, packing
