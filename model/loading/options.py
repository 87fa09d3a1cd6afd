"""The caller's choices for loading a model. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptoss.model.ops.options import AUTOMATIC, ComputeOptions, Dense
from gptoss.model.storage.disk_cache import DiskCache

Quantization = Literal["mxfp4"]


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model; None leaves the choice to the plan.

    Attributes:
        device: where to compute: "auto", or any device that torch knows.
        compute: how to compute there.
        cpu_dense: form of the dense layers if the CPU computes them, unless `compute.dense` says.
        gpu_dense: form of the dense layers if a card computes them, unless `compute.dense` says.
        cpu_experts: on a card, the experts of this many layers stay in host memory; by default as few as must.
        device_bytes: memory of a card that may be used; by default what is free.
        host_bytes: free host memory, which decides whether weights are read ahead; None: unknown, do not read ahead.
        quantize: "mxfp4" packs experts that are not packed in the checkpoint.
        max_context: tokens of prompt and answer together; by default as many as the model was made for.
        context_bytes: bytes of keys and values of all contexts together before idle ones are dropped; by default
            `CONTEXT_BYTES` of the engine.
        adapters: folders of LoRA adapters, whose products are added.
        disk_cache: stores prefixes and repacked weights for later runs; None: nothing is stored.
    """

    device: str = "auto"
    compute: ComputeOptions = AUTOMATIC
    cpu_dense: Dense | None = None
    gpu_dense: Dense | None = None
    cpu_experts: int | None = None
    device_bytes: int | None = None
    host_bytes: int | None = None
    quantize: Quantization | None = None
    max_context: int | None = None
    context_bytes: int | None = None
    adapters: tuple[Path, ...] = ()
    disk_cache: DiskCache | None = None
