"""The choice of a backend: automatic, or forced by name; always logged."""

from __future__ import annotations

import logging
import os

import torch

from gptoss.model.errors import DeviceError, quote
from gptoss.model.ops.interface import Ops
from gptoss.model.ops.reference import ReferenceOps

log = logging.getLogger(__name__)

BACKENDS = ("cpu", "reference")
ENVIRONMENT_VARIABLE = "GPTOSS_BACKEND"


def select_ops(backend: str | None = None, device: torch.device | str = "cpu") -> Ops:
    """The backend named by `backend`, else by the environment variable GPTOSS_BACKEND, else the best for the device.

    Raises:
        DeviceError: there is no backend of that name, or it does not run here.
    """
    name = backend or os.environ.get(ENVIRONMENT_VARIABLE)
    if name is not None and name not in BACKENDS:
        raise DeviceError(f"no backend {quote(name)}: this build has {', '.join(BACKENDS)}")
    on_cpu = torch.device(device).type == "cpu"
    ops: Ops | None = None
    if name == "cpu" or (name is None and on_cpu):
        ops = _cpu_ops()
        if ops is None and name is not None:
            raise DeviceError("the backend cpu is not in this build: it was installed without a C++ compiler")
    if ops is None:
        ops = ReferenceOps()
        if name is None and on_cpu:
            log.warning("this build has no compiled kernels: the model takes the slow path, in plain torch")
    log.info("backend: %s", ops.name)
    return ops


def _cpu_ops() -> Ops | None:
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
    return CpuOps()
