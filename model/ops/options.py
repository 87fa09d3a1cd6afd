"""How to compute: the choices that a user can make. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gptoss.model.errors import DeviceError, quote

Backend = Literal["cpu", "gpu", "reference"]
"""cpu: C++ kernels; gpu: Triton kernels for NVIDIA cards; reference: plain torch, on any device."""

Dense = Literal["int8", "bf16"]
"""How the dense layers and the unembedding are stored: in eight bits, packed at load, or as the checkpoint has them."""


@dataclass(frozen=True)
class ComputeOptions:
    """What computes and how; None means: choose automatically.

    Attributes:
        backend: by default the fastest that runs on the device.
        dense: by default "int8" on the CPU backend, "bf16" on the GPU backend; the reference backend packs nothing.
        isa: instruction-set level of the CPU kernels ("avx512", "avx2", "portable"); by default the machine's best.
        threads: of the CPU kernels; by default torch's number.

    Raises:
        DeviceError: a value is not one of the choices. Whether the machine can do it, `select_ops` finds out.
    """

    backend: Backend | None = None
    dense: Dense | None = None
    isa: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        _require_choice("backend", self.backend, get_args(Backend))
        _require_choice("form of the dense layers", self.dense, get_args(Dense))
        if self.threads is not None and self.threads < 1:
            raise DeviceError(f"{self.threads} threads: at least one is needed")


def _require_choice(what: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise DeviceError(f"there is no {what} {quote(value)}: choose one of {', '.join(choices)}")


AUTOMATIC = ComputeOptions()
