"""The error of the logits against float32, on a checkpoint of full width: the CPU backend's beside llama.cpp's.

    python benchmarks/logit_error.py CHECKPOINT [--tokens 24] [--peer-python PYTHON --gguf FILE.gguf ...]

Random token ids; the reference backend in float32 says what is right. The error of a position is
|logits - right| / |right|; printed are the median and the largest over the positions, through the prompt in one go and
token by token, and how often the most likely token is another one. The last line is the same as JSON.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.loading.weights import load_weights
from gptoss.model.ops import Ops
from gptoss.model.ops.cpu import CpuOps
from gptoss.model.ops.reference import ReferenceOps

PEER = Path(__file__).parent / "llama_cpp" / "peer.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--gguf", type=Path, action="append", default=[])
    options = parser.parse_args()
    checkpoint = Checkpoint.open(options.checkpoint)
    ids = np.random.default_rng(0).integers(0, checkpoint.config.vocab_size, options.tokens).tolist()
    with torch.inference_mode():
        right = run(checkpoint, ReferenceOps(), ids, one_by_one=False)
        results = {name: error(logits, right) for name, logits in ours(checkpoint, ids)}
    for file in options.gguf:
        results[f"llama.cpp {file.name}"] = error(peer(options.peer_python, file, ids), right)
    print(f"{'':40}  {'median':>9}  {'largest':>9}  other first token")
    for name, (median, largest, other) in results.items():
        print(f"{name:40}  {median:9.2e}  {largest:9.2e}  {other:.3f}")
    print(json.dumps({"tokens": options.tokens, "errors": results}))


def ours(checkpoint: Checkpoint, ids: list[int]) -> Iterator[tuple[str, torch.Tensor]]:
    for dense in ("bf16", "int8"):
        yield f"gptoss {dense}, prompt", run(checkpoint, CpuOps(dense=dense), ids, one_by_one=False)
        yield f"gptoss {dense}, token by token", run(checkpoint, CpuOps(dense=dense), ids, one_by_one=True)


def run(checkpoint: Checkpoint, ops: Ops, ids: list[int], one_by_one: bool) -> torch.Tensor:
    model = Transformer(checkpoint.config, load_weights(checkpoint), ops)
    cache = model.new_cache(len(ids), torch.float32)
    return torch.cat([model([i], cache) for i in ids]) if one_by_one else model(ids, cache)


def peer(python: Path, gguf: Path, ids: list[int]) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as folder:
        logits, request = Path(folder) / "logits", Path(folder) / "request.json"
        wanted = {"threads": torch.get_num_threads(), "cpu_time": False, "repack": False}
        wanted |= {"prompts": [ids], "decode": [], "logits": str(logits)}
        request.write_text(json.dumps(wanted))
        subprocess.run([python, PEER, gguf, request], check=True, stdout=subprocess.DEVNULL)
        return torch.from_numpy(np.fromfile(logits, np.float32).reshape(len(ids), -1))


def error(logits: torch.Tensor, right: torch.Tensor) -> tuple[float, float, float]:
    errors = (logits - right).norm(dim=-1) / right.norm(dim=-1)
    other = (logits.argmax(-1) != right.argmax(-1)).float().mean()
    return float(errors.median()), float(errors.max()), float(other)


if __name__ == "__main__":
    main()
