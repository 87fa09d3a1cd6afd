"""Plans how to load a model, from the options and the checkpoint's headers, before any memory is allocated."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeVar

import torch

from gptoss.model.config import ModelConfig
from gptoss.model.errors import DeviceError
from gptoss.model.inference.context import PREFILL_CHUNK, require_context
from gptoss.model.loading.device import select_device
from gptoss.model.loading.memory import MemoryNeed, memory_need
from gptoss.model.loading.options import LoadOptions
from gptoss.model.loading.placement import Placement, free_device_bytes, place
from gptoss.model.loading.threads import DEFAULT_THREADS
from gptoss.model.ops import Ops, StepOps, select, select_ops
from gptoss.model.ops.options import Backend, ComputeOptions, Dense
from gptoss.model.storage.expert_pager import ExpertPager

log = logging.getLogger(__name__)

WeightReading = Literal["ahead", "chosen", "needed", "copied"]
"""How weights are read from the files.

ahead: all in order, while the model is prepared; chosen: the experts that a token has chosen at once, everything else
page by page; needed: page by page; copied: once, to the device.
"""

ONE_THREAD_BELOW = 32 << 20
"""Bytes of weights below which one thread computes. If they fit into a core's caches, a second thread costs more than
it gains; on a busy machine, threads that wait for each other make a small model much slower."""

_TOLD: dict[WeightReading, str] = {
    "ahead": "weights read ahead",
    "chosen": "experts read when a token chooses them",
    "needed": "weights read when they are needed",
    "copied": "weights copied",
}
_T = TypeVar("_T")


class Model(Protocol):
    """The facts of a model that a plan depends on; an opened `Checkpoint` has them."""

    @property
    def config(self) -> ModelConfig:
        """The blueprint."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as stored."""
        ...

    @property
    def has_packed_experts(self) -> bool:
        """Whether the stored experts are in MXFP4."""
        ...


@dataclass(frozen=True)
class LoadPlan:
    """How one model will be loaded; its string says so in one line.

    Attributes:
        options: the options that it was made from.
        config: of the model.
        device: where the model computes.
        ops: the backend; it belongs to the one model that the plan is carried out for.
        threads: CPU threads.
        packs: experts are packed to MXFP4 while they are loaded.
        reading: how weights are read from the files.
        placement: which experts stay in host memory; None: the backend keeps all of them on one device.
        need: memory that the model needs if all of it lies in the memory of one device.
        max_context: tokens of prompt and answer together.
        fallback: why the model is on the CPU although "auto" chose a card; None: no fallback.
    """

    options: LoadOptions
    config: ModelConfig = field(repr=False)
    device: torch.device
    ops: Ops = field(repr=False)
    threads: int
    packs: bool
    reading: WeightReading
    placement: Placement | None
    need: MemoryNeed
    max_context: int
    fallback: str | None = None

    @property
    def computing(self) -> str:
        """Backend, device, threads and the form of the dense layers, for people."""
        parts = [f"{self.ops.name} on {self.device}"]
        if self.device.type == "cpu" or self._host_layers:
            parts.append("1 thread" if self.threads == 1 else f"{self.threads} threads")
        parts.append("dense layers in int8" if self.ops.made_bytes(self.config) else "dense layers as stored")
        return ", ".join(parts)

    @property
    def loading(self) -> str:
        """How the weights are read, packed and placed, for people."""
        parts = [_TOLD[self.reading]]
        if self.packs:
            parts.append("experts packed to MXFP4")
        if self._host_layers:
            parts.append(str(self.placement))
        return ", ".join(parts)

    def __str__(self) -> str:
        why = "" if self.fallback is None else f" ({self.fallback})"
        return f"{self.computing}{why}; {self.loading}"

    @property
    def _host_layers(self) -> int:
        return 0 if self.placement is None else self.placement.host_layers


def plan_load(model: Model, options: LoadOptions = LoadOptions(), ops: Ops | None = None) -> LoadPlan:
    """Plan how to load a model.

    Args:
        model: an opened checkpoint.
        options: how to load it.
        ops: the backend; by default the one that the options choose.

    Raises:
        DeviceError: there is no such device or backend, or the named card is too small.
        ContextFullError: `max_context` is more than the model was made for.
    """
    return with_fallback(model, options, lambda plan: plan, ops)


def with_fallback(model: Model, options: LoadOptions, use: Callable[[LoadPlan], _T], ops: Ops | None = None) -> _T:
    """Plan and use the plan; if "auto" chose a card that is too small for either, do both again for the CPU.

    Args:
        model: as `plan_load`.
        options: as `plan_load`.
        use: called with the plan; called again with a plan for the CPU if it raises a DeviceError.
        ops: as `plan_load`.

    Raises: as `plan_load` and `use`.
    """
    if options.max_context is not None:
        require_context(model.config, options.max_context)
    device = select_device(options.device)
    try:
        return use(_plan(model, options, device, ops))
    except DeviceError as error:
        if options.device != "auto" or device.type == "cpu" or ops is not None:
            raise
        reason = str(error)
    # Outside the handler: the exception references what had been copied to the card.
    log.info("%s; falling back to the CPU", reason)
    return use(replace(_plan(model, options, torch.device("cpu"), None), fallback=reason))


def _plan(model: Model, options: LoadOptions, device: torch.device, ops: Ops | None) -> LoadPlan:
    if options.adapters and device.type != "cpu":
        raise DeviceError("adapters are computed on the CPU only: --device cpu")
    threads = options.compute.threads or (1 if model.nbytes < ONE_THREAD_BELOW else DEFAULT_THREADS)
    packs = options.quantize is not None and not model.has_packed_experts
    reading = _reading(device, packs, model.nbytes, options.host_bytes)
    if ops is None:
        ops = select_ops(
            device, _compute_options(options, device, threads), ExpertPager() if reading == "chosen" else None
        )
    if reading == "chosen" and ops.name != "cpu":
        reading = "needed"  # the other backends take no pager
    placement = None
    if isinstance(ops, StepOps):
        placement = place(
            model.config,
            ops,
            packed=model.has_packed_experts or packs,
            context=options.max_context,
            free_bytes=free_device_bytes(device) if options.device_bytes is None else options.device_bytes,
            cpu_experts=options.cpu_experts,
        )
    return LoadPlan(
        options=options,
        config=model.config,
        device=device,
        ops=ops,
        threads=threads,
        packs=packs,
        reading=reading,
        placement=placement,
        need=memory_need(model.config, ops, options.max_context, PREFILL_CHUNK, weight_bytes=model.nbytes, packs=packs),
        max_context=options.max_context or model.config.max_context_length,
    )


def _reading(device: torch.device, packs: bool, nbytes: int, host_bytes: int | None) -> WeightReading:
    if device.type != "cpu":
        return "copied"
    if packs or host_bytes is None:
        return "needed"
    return "ahead" if nbytes < host_bytes else "chosen"


def _compute_options(options: LoadOptions, device: torch.device, threads: int) -> ComputeOptions:
    """Choose what `options.compute` leaves open: the backend, and the form of the dense layers for its hardware."""
    backend = options.compute.backend or select.automatic_backend(device)
    of_hardware: dict[Backend, Dense | None] = {"gpu": options.gpu_dense, "cpu": options.cpu_dense}
    dense = options.compute.dense or of_hardware.get(backend)
    return replace(options.compute, backend=backend, dense=dense, threads=threads)
