"""llama.cpp's side of the comparison: runs under an interpreter that has llama-cpp-python, knows nothing of gptoss.

    python peer.py FILE.gguf REQUEST.json

REQUEST: {"threads", "cpu_time", "repack", "prompts": [[ids], ...], "decode": [ids], "logits": path or null}. Each
prompt is computed from an empty context and timed; the ids of `decode` follow the last prompt one by one. Prints one
line of JSON: seconds. With `logits`, the logits of every position of the last prompt go there, as float32.
"""

import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp as llama
import numpy as np


@llama.llama_log_callback
def quiet(level: int, text: bytes, data: object) -> None:
    """Drop llama.cpp's own messages."""


def main() -> None:
    path, request = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    clock = time.process_time if request["cpu_time"] else time.perf_counter
    longest = max(map(len, request["prompts"]))
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model_params = llama.llama_model_default_params()
    model_params.use_mmap = True
    model_params.use_extra_bufts = request["repack"]
    begin = clock()
    model = llama.llama_model_load_from_file(path.encode(), model_params)
    if not model:
        raise SystemExit(f"llama.cpp could not load {path}")
    load = clock() - begin
    params = llama.llama_context_default_params()
    params.n_ctx = longest + len(request["decode"]) + 256
    params.n_threads = params.n_threads_batch = request["threads"]
    params.n_batch, params.n_ubatch = max(2048, longest), 512
    context = llama.llama_init_from_model(model, params)

    def run(ids: list[int], start: int, all_logits: bool = False) -> float:
        batch = llama.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, start + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = all_logits or i == len(ids) - 1
        begin = clock()
        if llama.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        llama.llama_get_logits(context)
        seconds = clock() - begin
        llama.llama_batch_free(batch)
        return seconds

    run(request["prompts"][0][:8], 0)
    prefill = []
    for ids in request["prompts"]:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        prefill.append(run(ids, 0, all_logits=bool(request["logits"])))
    if request["logits"]:
        vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        shape = (len(request["prompts"][-1]), vocabulary)
        np.ctypeslib.as_array(llama.llama_get_logits(context), shape).astype(np.float32).tofile(request["logits"])
    decode = [run([token], len(request["prompts"][-1]) + i) for i, token in enumerate(request["decode"])]
    print(json.dumps({"load": load, "prefill": prefill, "decode": decode}))


if __name__ == "__main__":
    main()
