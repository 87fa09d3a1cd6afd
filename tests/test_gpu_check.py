"""The check for a GPU, as far as it goes without one."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton runs on Linux")
def test_the_dry_run_goes_all_the_way() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--dry-run"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["backend"] == "gpu"
    assert told["failed"] == []
    assert told["20b, error of single tokens"] <= 1e-3
    assert told["20b, error with a bfloat16 cache"] <= 1e-3
    assert 0 < told["20b, error in eight bits"] <= 0.02
    assert told["20b, error with experts on the host"] <= 1e-3
    assert told["20b, share of tokens drawn otherwise"] == 0
    for dense in ("bf16", "int8"):
        assert told[f"20b {dense}, prefill of 10, tok/s"] > 0
        assert told[f"20b {dense}, decode after 10, tok/s"] > 0
        assert told[f"20b {dense}, decode after 20, tok/s"] > 0
        assert told[f"20b {dense}, share of the copy's bandwidth"] > 0
    assert told["load to first token of 64, s"] > told["load of a checkpoint, s"]
    assert told["under a cap of memory"].startswith("the experts of 1 of 2 layers are computed on the CPU")
    assert told["decode under the cap, tok/s"] > 0


def test_without_a_card_it_says_so() -> None:
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        pytest.skip("there is a card")
    assert done.stderr == "gpu_check: torch sees no GPU here; --dry-run goes the same way on the CPU\n"
