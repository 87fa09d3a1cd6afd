"""Every Triton kernel through the compiler, down to machine code, for cards that are not here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton runs on Linux")

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu_compile.py"
KERNELS = (
    {"attend_many", "attend_one", "combine", "experts_down", "experts_up", "gemv", "grouped_down", "grouped_up"}
    | {"norm_qkv_rope", "norm_router", "pick", "read", "rms_norm", "rope", "survey", "unpack_8_bits", "weigh"}
)  # fmt: skip
# Bytes that a program may have on the smallest cards of a generation.
SHARED = {80: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}


ALL = [pytest.param([str(n)], marks=pytest.mark.long) for n in (80, 90, 100, 120)]


@pytest.mark.parametrize("arguments", [["--quick", "90"], *ALL], ids=" ".join)
def test_every_kernel_compiles(tmp_path, arguments):
    own, capability = {"TRITON_CACHE_DIR": str(tmp_path)}, int(arguments[-1])
    command = [sys.executable, PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | own)
    assert done.returncode == 0, done.stderr[-3000:]
    variants = [json.loads(line) for line in done.stdout.splitlines()]
    assert {variant["kernel"] for variant in variants} == KERNELS
    for variant in variants:
        assert variant["shared_bytes"] <= SHARED[capability], variant
        assert variant["spilled_bytes"] <= 64, variant
        if variant["kernel"].startswith(("experts", "grouped")):
            # The smallest code of MXFP4 is read as a subnormal number.
            assert not variant["flushes_subnormals"], variant
