"""Chooses the device by name."""

from __future__ import annotations

import logging

import torch

from gptoss.model.errors import DeviceError
from gptoss.model.ops.gpu_device import reason_against

log = logging.getLogger(__name__)


def select_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is an NVIDIA GPU that can run the kernels, else the CPU.

    Raises:
        DeviceError: torch does not know it, or it is not there.
    """
    if name == "auto":
        usable = torch.cuda.is_available() and reason_against(torch.device("cuda")) is None
        name = "cuda" if usable else "cpu"
        log.info("device: %s", name)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"no device {name!r}: choose auto, cpu, cuda or mps") from None
    there = {
        "cpu": device.index in (None, 0),
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if device.type == "cuda" and not torch.cuda.is_available():
        why = "torch sees no NVIDIA card or driver (does nvidia-smi list one?)"
        if torch.version.cuda is None:
            why = "this torch was built without CUDA (pip install torch brings the build with it on Linux)"
        raise DeviceError(f"device {name!r} is not there: {why}; use auto or cpu")
    if not there.get(device.type, False):
        raise DeviceError(f"device {name!r} is not there: use auto or cpu")
    return device
