"""The choice of a backend: automatic, or forced by name; always logged."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import torch

from gptoss.model.errors import DeviceError, quote
from gptoss.model.ops.gpu_device import reason_against
from gptoss.model.ops.interface import Dense, Ops
from gptoss.model.ops.reference import ReferenceOps

if TYPE_CHECKING:
    from gptoss.model.ops.cpu import CpuOps
    from gptoss.model.storage.expert_pager import ExpertPager

log = logging.getLogger(__name__)

BACKENDS = ("cpu", "gpu", "reference")
ENVIRONMENT_VARIABLE = "GPTOSS_BACKEND"


def select_ops(
    backend: str | Ops | None = None,
    device: torch.device | str = "cpu",
    dense: Dense | None = None,
    pager: ExpertPager | None = None,
) -> Ops:
    """The backend named by `backend`, else by the environment variable GPTOSS_BACKEND, else the best for the device.

    Args:
        backend: its name; one that was made already is returned as it is.
        device: where the weights will lie.
        dense: how it is to keep dense layers; by default as it chooses.
        pager: reads experts of a model that does not fit into memory, where the CPU computes.

    Raises:
        DeviceError: there is no backend of that name, or it does not run here.
    """
    if backend is not None and not isinstance(backend, str):
        return backend
    name = backend or os.environ.get(ENVIRONMENT_VARIABLE)
    if name is not None and name not in BACKENDS:
        raise DeviceError(f"no backend {quote(name)}: this build has {', '.join(BACKENDS)}")
    device = torch.device(device)
    ops: Ops | None = None
    if name == "gpu" or (name is None and device.type == "cuda"):
        reason = reason_against(device)
        if reason is None:
            ops = _gpu_ops(dense)
        elif name is not None:
            raise DeviceError(f"{reason}; use the device cpu, or the backend reference")
        else:
            log.warning("%s: the model takes the slow path, in plain torch", reason)
    elif name == "cpu" or (name is None and device.type == "cpu"):
        ops = _cpu_ops(dense, pager)
        if ops is None and name is not None:
            raise DeviceError("the backend cpu is not in this build: it was installed without a C++ compiler")
        if ops is None:
            log.warning("this build has no compiled kernels: the model takes the slow path, in plain torch")
    if ops is None:
        ops = ReferenceOps()
        if dense == "int8":
            log.warning("the backend %s keeps dense layers as they are, not in int8", ops.name)
    log.info("backend: %s", ops.name)
    return ops


def _gpu_ops(dense: Dense | None) -> Ops:
    # Imports triton.
    from gptoss.model.ops.gpu import GpuOps

    return GpuOps(dense, host=_cpu_ops(None))


def _cpu_ops(dense: Dense | None, pager: ExpertPager | None = None) -> CpuOps | None:
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
    return CpuOps(dense, pager=pager)
