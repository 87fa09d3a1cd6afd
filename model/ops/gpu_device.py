"""Whether a device can run the GPU backend, and if not, why."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from gptoss.model.errors import DeviceError
from gptoss.model.kernels.triton.interpreter import in_interpreter

CAPABILITY = (8, 0)
"""Compute capability that the kernels need, for products of bfloat16 matrices."""


def has_triton() -> bool:
    """Whether the package is installed; torch's Linux wheels for CUDA depend on it."""
    return find_spec("triton") is not None


def reason_against(device: torch.device) -> str | None:
    """Return why the kernels do not run on this device; None if they do."""
    if not has_triton():
        return "the package triton is missing: it comes with torch's Linux wheels for CUDA"
    if device.type == "cpu" and in_interpreter():
        return None
    if device.type != "cuda":
        return f"the backend gpu runs on NVIDIA cards, not on {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f"{name} has compute capability {capability[0]}.{capability[1]}, the kernels need 8.0 or later"
    return None


def require_device(device: torch.device) -> None:
    """Refuse a device on which the kernels do not run; tensors without data ("meta") are for compiling only.

    Raises:
        DeviceError: they do not.
    """
    if device.type == "meta":
        return
    reason = reason_against(device)
    if reason is not None:
        raise DeviceError(f"{reason}; use the device cpu")
