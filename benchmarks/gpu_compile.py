"""Compiles every kernel of the GPU backend for cards that need not be there, at the sizes of the published models.

Triton's interpreter forgives much that the compiler does not. The model runs here on tensors without data, and each
start of a kernel becomes a compilation, by the same way as on a card: the same arguments, the same specialisation.

    python benchmarks/gpu_compile.py 80 90 120       compute capabilities, times ten
    python benchmarks/gpu_compile.py --quick 90      20b alone, and two lengths of prompts

Prints a line of JSON for each compiled variant: registers and bytes spilled a thread, shared memory a program.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # before triton is imported

import torch
import triton
from gpu_check import random_weights
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from gptoss.model import Transformer
from gptoss.model.checkpoints.published_configs import published_config
from gptoss.model.kernels.triton.launch import Grid, Launcher
from gptoss.model.ops import Drawing
from gptoss.model.ops.gpu import GpuOps
from gptoss.model.tensors.cache import CacheSlot

META = torch.device("meta")


class AbsentCard:
    """What Triton asks of the card in use."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        """Its capability."""
        return self._target

    def get_current_device(self) -> int:
        """There is one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Any number does."""
        return device


def compiled_kernels(capability: int, quick: bool = False) -> dict[tuple[str, str], Any]:
    """Return every variant of every kernel that both models start (some of 20b's if `quick`), by name and hash."""
    driver.set_active(AbsentCard(capability))
    found: dict[tuple[str, str], Any] = {}

    def compile_only(kernel: Any, grid: Grid, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        compiled = kernel.warmup(*args, grid=grid, **options)
        found[kernel.__name__, compiled.hash] = compiled

    models = [("20b", "bf16"), ("20b", "int8"), ("120b", "bf16")]
    for name, dense in models[: 2 if quick else 3]:
        few = published_config(name, num_layers=2)  # one with a window and one without
        sizes = ((30, 2048), (256, 4096)) if quick else ((2, 30, 200, 600, 2048), (256, 1024, 4096))
        _start_all(few, GpuOps(dense=dense, launch=Launcher(compile_only)), *sizes)
    return found


@torch.inference_mode()
def _start_all(config: Any, ops: GpuOps, prompts: tuple[int, ...], capacities: tuple[int, ...]) -> None:
    model = Transformer(config, random_weights(config, META), ops)
    integer = torch.empty(1, dtype=torch.long, device=META)
    # Keys and values in float32: where there is no cache, and in one that is held to plain torch.
    model(torch.empty(40, dtype=torch.long, device=META))
    exact = model.new_cache(64, torch.float32)
    exact.reserve(64)
    model._decode(integer, CacheSlot(exact, integer), True)
    for tokens in prompts:
        model(torch.empty(tokens, dtype=torch.long, device=META), model.new_cache(4096), "last")
    for capacity in capacities:
        cache = model.new_cache(capacity)
        cache.reserve(capacity)
        logits = model._decode(integer, CacheSlot(cache, integer), True).flatten()
    for filtered in (False, True):
        ops.draw(Drawing.on(META, len(logits)), logits, filtered=filtered)
    ops.block_sums(torch.empty(1 << 20, dtype=torch.int64, device=META))


def resources(compiled: Any) -> dict[str, int]:
    """Return the registers and memory of a variant, from the assembler's own tool."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    match = re.search(r"REG:(\d+) STACK:(\d+)", told)
    assert match is not None, told
    return {
        "registers": int(match[1]),
        "spilled_bytes": int(match[2]),
        "shared_bytes": compiled.metadata.shared,
        "warps": compiled.metadata.num_warps,
        "flushes_subnormals": bool(re.search(r"\b(mul|fma\.rn|add)\.ftz", compiled.asm["ptx"])),
    }


def main() -> None:
    """Compile for each capability that is named."""
    quick = "--quick" in sys.argv
    for capability in map(int, [text for text in sys.argv[1:] if text != "--quick"] or ["80", "90"]):
        begin = time.perf_counter()
        found = compiled_kernels(capability, quick)
        for (name, _), compiled in sorted(found.items()):
            print(json.dumps({"capability": capability, "kernel": name, **resources(compiled)}))
        print(f"{len(found)} variants for {capability} in {time.perf_counter() - begin:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
