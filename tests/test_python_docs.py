"""The example of docs/python.md does what the page says."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) - code.count("\n\n") <= 10
    said = re.search(r"This prints `(.*)`", PAGE)[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (f"{said}\n", "", 0)


def test_it_reaches_into_no_sub_module() -> None:
    assert not re.search(r"gptoss\.(model|harmony)\.(?!__version__)\w", PAGE)
