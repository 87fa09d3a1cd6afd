"""Overhead of HTTP for each streamed token, and four clients at once against one after the other.

    python benchmarks/serving.py [-m nano] [--tokens 500] [--rounds 5]

The server runs in a process of its own, at a unix socket. The engine alone generates the same tokens in this process.
Where other work shares the machine, compare the CPU seconds of the server (Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from gptoss.cli.base.settings import Folders, Settings
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.loading import load_model
from gptoss.model.interface import Request, SamplingParams

PROMPT = "347 + 85 is"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default="nano")
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone = engine_alone(options.model, options.tokens, options.rounds, Path(folder))
        path = Path(folder) / "s"
        command = [sys.executable, "-m", "gptoss.cli", "serve", "-m", options.model, "--socket", str(path)]
        with subprocess.Popen([*command, "--no-access-log"], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                measure(path, options.tokens, options.rounds, alone, server.pid)
            finally:
                server.terminate()


def engine_alone(model: str, tokens: int, rounds: int, folder: Path) -> float:
    """Return the seconds that a token takes in the engine."""
    loaded = load_model(LoadRequest(model, Folders.locate({}, folder), Settings(cache=False)))
    ids = tuple(loaded.encoding.encode(PROMPT))
    request = Request(ids, SamplingParams(temperature=0, max_tokens=tokens), ignore_stop=True)
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        count = sum(1 for _ in loaded.engine.generate(request))
        seconds.append((time.perf_counter() - begin) / count)
    loaded.engine.close()
    print(f"engine alone       {statistics.median(seconds) * 1e3:.3f} ms a token")
    return statistics.median(seconds)


def measure(path: Path, tokens: int, rounds: int, alone: float, pid: int) -> None:
    """Print what streaming adds to a token, and the time of eight answers by one and by four clients."""
    body = {"prompt": PROMPT, "max_tokens": tokens, "stream": True, "ignore_eos": True, "temperature": 0}

    def ask(client: httpx2.Client) -> float:
        begin = time.perf_counter()
        with client.stream("POST", "/v1/completions", json=body, timeout=600) as response:
            for _ in response.iter_raw():
                pass
        return time.perf_counter() - begin

    clients = [
        httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost") for _ in range(4)
    ]
    ask(clients[0])
    seconds = statistics.median(ask(clients[0]) / tokens for _ in range(rounds))
    print(f"streamed           {seconds * 1e3:.3f} ms a token, {(seconds - alone) * 1e3:+.3f} ms")
    for count, words in ((1, "one after the other"), (4, "by 4 clients at once")):
        begin, cpu = time.perf_counter(), cpu_seconds(pid)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda n, count=count: ask(clients[n % count]), range(8)))  # type: ignore[misc]
        seconds = time.perf_counter() - begin
        print(f"8 answers          {seconds:.2f} s, {cpu_seconds(pid) - cpu:.2f} s of CPU, {words}")
    for client in clients:
        client.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process so far; 0 where the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
