"""gptoss's side of the comparison: the same request as `peer.py`, the same line of JSON.

    python ours.py CHECKPOINT REQUEST.json

REQUEST: {"threads", "cpu_time", "dense", "prompts": [[ids], ...], "decode": [ids]}. Between the decoded tokens a
plain loop reads the unembedding, of which each token reads all too: `read` holds its bytes a second.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    path, request = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    clock = time.process_time if request["cpu_time"] else time.perf_counter
    os.environ["OMP_NUM_THREADS"] = str(request["threads"])
    import torch

    from gptoss.model.architecture.transformer import Transformer
    from gptoss.model.checkpoints.checkpoint import Checkpoint
    from gptoss.model.inference.context import PREFILL_CHUNK
    from gptoss.model.loading.weights import load_weights
    from gptoss.model.measure.benchmark import READ_EVERY, peak_rss_bytes, weight_bytes_per_token
    from gptoss.model.ops.cpu import CpuOps

    begin = clock()
    checkpoint = Checkpoint.open(Path(path))
    weights = load_weights(checkpoint)
    model = Transformer(checkpoint.config, weights, CpuOps(dense=request["dense"]))
    load = clock() - begin
    plain = weights.unembedding.weight

    def run(ids: list[int], start: int) -> float:
        cache.rewind(start)
        begin = clock()
        for at in range(0, len(ids), PREFILL_CHUNK):
            piece = ids[at : at + PREFILL_CHUNK]
            model(piece, cache, "last" if at + len(piece) == len(ids) else "none")
        return clock() - begin

    with torch.inference_mode():
        cache = model.new_cache(max(map(len, request["prompts"])) + len(request["decode"]) + 256)
        run(request["prompts"][0][:8], 0)
        prefill = [run(ids, 0) for ids in request["prompts"]]
        decode, read = [], []
        for token in request["decode"]:
            decode.append(run([token], cache.length))
            if len(decode) % READ_EVERY == 0:
                begin = clock()
                model.ops.read_once(plain)
                read.append(plain.nbytes / (clock() - begin))
    result = {"load": load, "prefill": prefill, "decode": decode, "read": read, "peak_bytes": peak_rss_bytes()}
    print(json.dumps({**result, "bytes_a_token": weight_bytes_per_token(model), "kernels": model.ops.counts()}))


if __name__ == "__main__":
    main()
