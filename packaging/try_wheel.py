"""Try the gptoss that is installed beside this interpreter: an answer, the compiled kernels, one OpenMP library."""

import json
import re
import subprocess
import sys
from pathlib import Path


def gptoss(*arguments: str) -> str:
    """Run the installed program and return its standard output."""
    program = Path(sys.executable).with_name("gptoss")
    return subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def openmp_libraries() -> set[str]:
    """Return the OpenMP libraries in a process that has torch and the kernels (Linux only; empty elsewhere)."""
    import torch  # noqa: F401

    from gptoss.model.kernels import _cpu  # noqa: F401

    maps = Path("/proc/self/maps")
    return set(re.findall(r"/\S*lib[gi]?omp\S*", maps.read_text())) if maps.exists() else set()


def main() -> None:
    """Fail with an AssertionError where the wheel is not as it should be."""
    answer = gptoss("ask", "-m", "nano", "What is 347 + 85?")
    assert answer == "347 + 85 = 432\n", answer
    backend = json.loads(gptoss("bench", "-m", "nano", "--json"))["backend"]
    assert backend.startswith("cpu "), backend
    libraries = openmp_libraries()
    assert len(libraries) <= 1, libraries
    print(f"{answer.strip()}; {backend}; OpenMP: {', '.join(libraries) or 'unknown'}")


if __name__ == "__main__":
    main()
