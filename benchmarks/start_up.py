"""How long `gptoss ask` takes to its first token, seen from outside, and what the cache on the disk saves.

    python benchmarks/start_up.py MODEL --rounds 3 --instructions-tokens 600 --history-tokens 1000

Each line is a process of its own, in a home of its own that begins empty: a short question, one under long instructions
and again with other words, a conversation that goes on, with the cache and without. Times are in seconds from the start
of the process; `import torch` alone stands beside them, and the last line is all of it as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARTS = ["hi", "instructions", "history"]


def ask(home: Path, model: str, *arguments: str) -> dict[str, float]:
    """Run one process; when its events came."""
    command = [sys.executable, "-m", "gptoss.cli", "ask", "-m", model, "--stream-json", "--logprobs", "0", "-n", "4"]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "GPTOSS_HOME": str(home)},
    )
    told: dict[str, float] = {}
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "error":
            raise SystemExit(event["message"])
        if event["event"] == "token":
            told.setdefault("first_token_s", time.perf_counter() - begin)
        if event["event"] == "start":
            told["begin_s"] = time.perf_counter() - begin
        if event["event"] == "done":
            told["prompt"], told["cached"] = event["usage"]["prompt_tokens"], event["usage"]["cached_tokens"]
            told["prefill_s"] = event["timing"]["prefill_s"]
    process.wait()
    told["process_s"] = time.perf_counter() - begin
    return told


def import_torch() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - begin


def one_round(model: str, instructions: str, history: str, only: list[str]) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}

    def step(name: str, home: Path, *arguments: str) -> None:
        results[name] = ask(home, model, *arguments)
        print(f"{name}: {results[name]}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        home, copy = Path(folder) / "home", Path(folder) / "copy"
        if "hi" in only:
            step("hi", home, "hi")
            step("hi, again", home, "hi")
        if "instructions" in only:
            step("instructions", home, "-s", instructions, "hi")
            step("instructions, other question", home, "-s", instructions, "good day")
        if "history" in only:
            step("history", home, history)
            shutil.copytree(home, copy)
            step("history goes on", home, "-c", "And row 7?")
            step("history goes on, --no-cache", copy, "-c", "--no-cache", "And row 7?")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--instructions-tokens", type=int, default=600)
    parser.add_argument("--history-tokens", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    # About 16 tokens a sentence.
    rules = " ".join(
        f"Rule {i}: be exact and brief when the matter is number {i}." for i in range(options.instructions_tokens // 16)
    )
    facts = " ".join(
        f"Fact {i}: the number {i} stands in row {i} of the table." for i in range(options.history_tokens // 16)
    )
    torch_s = [import_torch() for _ in range(options.rounds)]
    rounds = [one_round(options.model, rules, facts, options.only) for _ in range(options.rounds)]
    print(f"import torch: {statistics.median(torch_s):.2f} s")
    print(f"{'':32}{'prompt':>8}{'cached':>8}{'begins':>8}{'prefill':>9}{'1st token':>11}{'process':>9}")
    for name in rounds[0]:
        columns = {key: [each[name][key] for each in rounds] for key in rounds[0][name]}
        middle = {key: statistics.median(values) for key, values in columns.items()}
        spread = " ".join(f"{value:.2f}" for value in columns["first_token_s"])
        print(
            f"{name:32}{middle['prompt']:8.0f}{middle['cached']:8.0f}{middle['begin_s']:8.2f}{middle['prefill_s']:9.2f}"
            f"{middle['first_token_s']:11.2f}{middle['process_s']:9.2f}   ({spread})"
        )
    print(json.dumps({"import_torch_s": torch_s, "rounds": rounds}))


if __name__ == "__main__":
    main()
