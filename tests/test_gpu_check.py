"""The check for a GPU, as far as it goes without one."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


def test_the_dry_run_goes_all_the_way() -> None:
    command = [sys.executable, PROGRAM, "--dry-run", "--prompt-tokens", "20", "--gen-tokens", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["backend"] == "reference"
    assert told["relative_error_against_cpu"] <= 1e-3
    assert told["prefill_tokens_per_s"] > 0
    assert told["decode_tokens_per_s"] > 0
