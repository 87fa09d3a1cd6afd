"""The shell script in docs/ does what it says, under bash with `set -euo pipefail`, on the built-in model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "pipes.sh"


@pytest.mark.skipif(shutil.which("jq") is None, reason="the script needs jq")
def test_script_of_the_documentation(tmp_path) -> None:
    program = tmp_path / "bin" / "gptoss"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gptoss.cli "$@"\n')
    program.chmod(0o755)
    questions = tmp_path / "questions.txt"
    questions.write_text("What is 1 + 1?\nWhat is 347 + 85?\n")
    variables = {"PATH": f"{program.parent}:{os.environ['PATH']}", "GPTOSS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["bash", SCRIPT, questions],
        env={"OMP_NUM_THREADS": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    sections = [section.split("\n", 1)[1].splitlines() for section in done.stdout.split("== ")[1:]]
    _summary, classified, batched, continued, statuses = sections
    lines = [line.split(" -> ") for line in classified]
    assert [line for line, _ in lines] == ["What is 1 + 1?", "What is 347 + 85?"]
    assert {name for _, name in lines} <= {"sum", "difference", "other"}
    assert batched == ["1: 1 + 1 = 2", "2: 347 + 85 = 432"]
    assert continued == ["81 - 27 = 54"]
    assert statuses == ["0", "1", "2", "3", "4", "130", "143", "141"]
