"""How long a key waits for its echo while `gptoss chat` loads a model behind the input line.

    python benchmarks/typing_while_loading.py [-m MODEL] [--runs N]

Types at a pseudo-terminal, a letter every 30 ms, from the prompt on until the status bar no longer says that the model
is being loaded. Prints, for each run, the seconds until the prompt and until the model is there, and of the keys
between the two their number, the median and the longest time until the echo. Needs pexpect and pyte (the extra `dev`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time

import pexpect
import pyte

_BETWEEN_S = 0.03
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-m", "--model", default="nano")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as home:
            print(_measured(options.model, home), flush=True)


def _measured(model: str, home: str) -> str:
    screen = pyte.Screen(120, 24)
    stream = pyte.Stream(screen)
    began = time.monotonic()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "gptoss.cli", "chat", "-m", model, "--home", home],
        dimensions=(24, 120),
        env=os.environ | {"TERM": "xterm-256color"},
        encoding="utf-8",
    )
    child.delaybeforesend = None
    screen.write_process_input = child.send  # type: ignore[method-assign]

    def read(seconds: float) -> None:
        try:
            stream.feed(child.read_nonblocking(4096, timeout=seconds))
        except pexpect.TIMEOUT:
            return

    def typed() -> str:
        return next((row for row in screen.display if row.startswith(">")), "").removeprefix(">").strip()

    while not any(row.startswith("> ") for row in screen.display):
        read(0.01)
    prompt_s = time.monotonic() - began
    waits: list[float] = []
    text = ""
    while ("loading" in screen.display[-1] or not screen.display[-1].strip()) and len(text) < 100:
        text += _LETTERS[len(text) % len(_LETTERS)]
        sent = time.monotonic()
        child.send(text[-1])
        while typed() != text:
            read(0.002)
        waits.append(time.monotonic() - sent)
        until = sent + _BETWEEN_S
        while (left := until - time.monotonic()) > 0:
            read(left)
    loaded_s = time.monotonic() - began
    child.close(force=True)
    return (
        f"prompt after {prompt_s:.2f} s, model after {loaded_s:.2f} s; {len(waits)} keys meanwhile: "
        f"median {1000 * statistics.median(waits):.0f} ms, longest {1000 * max(waits):.0f} ms"
    )


if __name__ == "__main__":
    main()
