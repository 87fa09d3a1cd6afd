"""gptoss against llama.cpp on this machine's CPU: the same token ids, in turn, each file read once before its turn.

    python benchmarks/compare_llama.py CHECKPOINT FILE.gguf --dense int8 --peer-python PEER/bin/python

CHECKPOINT and FILE.gguf hold the same model (`llama_cpp/to_gguf.py` makes the one of the other). PEER is an
environment with `CMAKE_ARGS="-DGGML_NATIVE=ON" pip install llama-cpp-python==0.3.36`. A round is gptoss, then llama.cpp
as it is, then llama.cpp with its weights repacked in memory; printed are the rounds' raw times, medians, and the ratio
to the better of llama.cpp's settings within each round. The last line is the same as JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent / "llama_cpp"
SIDES = ("gptoss", "llama.cpp", "llama.cpp repacked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--dense", choices=["int8", "bf16"], default="int8")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, action="append", help="tokens; may be repeated (256 and 1024)")
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread, and its CPU time: ratios on a machine that others use too"
    )
    parser.add_argument("--no-repack", action="store_true", help="leave out llama.cpp with repacked weights")
    options = parser.parse_args()
    if options.cpu_time:
        options.threads = 1
    lengths = options.prompt or [256, 1024]
    sides = SIDES[:2] if options.no_repack else SIDES
    rounds = []
    for number in range(options.rounds):
        request = make_request(options, lengths, number)
        rounds.append({side: run(side, options, request) for side in sides})
        for side in sides:
            print(f"round {number + 1}  {side:20}  load {rounds[-1][side]['load']:6.2f} s  {speeds(rounds[-1][side])}")
        print(f"         load average {os.getloadavg()[0]:.1f}", flush=True)
    report(rounds, lengths, sides)


def make_request(options: argparse.Namespace, lengths: Sequence[int], seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    prompts = [random.integers(0, 199_000, length).tolist() for length in lengths]
    decode = random.integers(0, 199_000, options.decode).tolist()
    how = {"threads": options.threads, "cpu_time": options.cpu_time, "dense": options.dense}
    return {**how, "prompts": prompts, "decode": decode, "logits": None}


def run(side: str, options: argparse.Namespace, request: dict[str, Any]) -> dict[str, Any]:
    request = {**request, "repack": side.endswith("repacked")}
    if side == "gptoss":
        command = [sys.executable, HERE / "ours.py", options.checkpoint]
        files = sorted(options.checkpoint.glob("*.safetensors"))
    else:
        command, files = [options.peer_python, HERE / "peer.py", options.gguf], [options.gguf]
    for file in files:
        with file.open("rb") as stream:
            while stream.read(1 << 24):
                pass
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request))
        done = subprocess.run([*command, path], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["prefill"] = [len(ids) / seconds for ids, seconds in zip(request["prompts"], result["prefill"], strict=True)]
    result["decode"] = [1 / seconds for seconds in result["decode"]]
    return result


def speeds(result: dict[str, Any]) -> str:
    prefill = "  ".join(f"{speed:7.2f}" for speed in result["prefill"])
    decode = sorted(result["decode"])
    line = (
        f"prefill {prefill} tok/s  decode {statistics.median(decode):6.2f} ({decode[0]:.2f} to {decode[-1]:.2f}) tok/s"
    )
    if "read" in result:
        read = statistics.median(result["read"])
        share = statistics.median(decode) * result["bytes_a_token"] / read
        line += f"  read loop {read / 1e9:.1f} GB/s, {share:.0%} reached  peak {result['peak_bytes'] / 1e9:.1f} GB"
    return line


def report(rounds: list[dict[str, dict[str, Any]]], lengths: Sequence[int], sides: Sequence[str]) -> None:
    figures: dict[str, dict[str, float]] = {}
    for index, length in enumerate(lengths):
        figures[f"prefill {length}"] = summary([{s: r[s]["prefill"][index] for s in sides} for r in rounds], sides)
    figures["decode"] = summary([{s: statistics.median(r[s]["decode"]) for s in sides} for r in rounds], sides)
    print(f"\n{'median tok/s':14}" + "".join(f"{side:>20}" for side in sides) + f"{'ratio':>8}   (of each round)")
    for name, values in figures.items():
        print(f"{name:14}" + "".join(f"{values[side]:20.2f}" for side in sides) + f"{values['ratio']:8.2f}", end="   ")
        print(values["ratios"])
    print(json.dumps({"figures": figures, "rounds": rounds}))


def summary(rounds: list[dict[str, float]], sides: Sequence[str]) -> dict[str, Any]:
    ratios = [values[sides[0]] / max(values[side] for side in sides[1:]) for values in rounds]
    medians = {side: statistics.median(values[side] for values in rounds) for side in sides}
    return {**medians, "ratio": statistics.median(ratios), "ratios": [round(ratio, 2) for ratio in ratios]}


if __name__ == "__main__":
    main()
