"""The choice of a backend: automatic, or forced by name; always logged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from gptoss.model.errors import DeviceError
from gptoss.model.ops.gpu_device import reason_against
from gptoss.model.ops.interface import Ops
from gptoss.model.ops.options import AUTOMATIC, Backend, ComputeOptions
from gptoss.model.ops.reference import ReferenceOps

if TYPE_CHECKING:
    from gptoss.model.ops.cpu import CpuOps
    from gptoss.model.storage.expert_pager import ExpertPager

log = logging.getLogger(__name__)


def select_ops(
    device: torch.device | str = "cpu", options: ComputeOptions = AUTOMATIC, pager: ExpertPager | None = None
) -> Ops:
    """Make a backend for a device.

    Args:
        device: where the weights will be.
        options: by default everything is chosen automatically.
        pager: reads the chosen experts of a model that does not fit into memory; used by the CPU backend only.

    Raises:
        DeviceError: the backend, or the instruction-set level, does not run here.
    """
    device = torch.device(device)
    backend = options.backend or automatic_backend(device)
    ops: Ops
    if backend == "gpu":
        ops = _gpu_ops(device, options)
    elif backend == "cpu":
        ops = _cpu_ops(options, pager)
    else:
        ops = ReferenceOps()
        if options.dense == "int8":
            log.warning("the backend %s keeps dense layers as they are, not in int8", ops.name)
    log.info("backend: %s", ops.name)
    return ops


def automatic_backend(device: torch.device) -> Backend:
    """Return the fastest backend that runs on a device; a warning says why it is the reference backend."""
    if device.type == "cuda":
        reason = reason_against(device)
        if reason is None:
            return "gpu"
        log.warning("%s: the model takes the slow path, in plain torch", reason)
    elif device.type == "cpu":
        if _cpu_backend() is not None:
            return "cpu"
        log.warning("this build has no compiled kernels: the model takes the slow path, in plain torch")
    return "reference"


def _gpu_ops(device: torch.device, options: ComputeOptions) -> Ops:
    reason = reason_against(device)
    if reason is not None:
        raise DeviceError(f"{reason}; use the device cpu, or the backend reference")
    # Imports triton.
    from gptoss.model.ops.gpu import GpuOps

    # Computes the experts that stay in host memory. Their router is never packed, so `dense` does not concern it.
    backend = _cpu_backend()
    host = ReferenceOps() if backend is None else backend(isa=options.isa, threads=options.threads)
    return GpuOps(options.dense, host=host)


def _cpu_ops(options: ComputeOptions, pager: ExpertPager | None) -> Ops:
    backend = _cpu_backend()
    if backend is None:
        raise DeviceError("the backend cpu is not in this build: it was installed without a C++ compiler")
    return backend(options.dense, options.isa, options.threads, pager)


def _cpu_backend() -> type[CpuOps] | None:
    """Return the class, unless the kernels were not compiled."""
    try:
        from gptoss.model.ops.cpu import CpuOps
    except ModuleNotFoundError as error:
        if error.name != "gptoss.model.kernels._cpu":
            raise
        return None
    except ImportError as error:
        # `from package import _cpu` reports a missing submodule as a missing name.
        if error.name != "gptoss.model.kernels":
            raise
        return None
    return CpuOps
