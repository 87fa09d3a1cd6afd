"""Two processes that run the same checkpoint hold its weights once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_RUNNER = """
import json, sys, torch
from pathlib import Path
from gptoss.model import ComputeOptions, LoadOptions, load_model

def mapping():
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith("model.safetensors"):
            break
    fields = [next(lines).split() for _ in range(14)]
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}

options = LoadOptions(device="cpu", compute=ComputeOptions(backend="reference"))
transformer = load_model(Path(sys.argv[1]), options).transformer
loaded = mapping()
with torch.inference_mode():
    logits = transformer(torch.arange(200), logits="last")
print(json.dumps({"loaded": loaded, "likeliest": int(logits.argmax())}), flush=True)
sys.stdin.readline()
print(json.dumps(mapping()), flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is shared")
@pytest.mark.parametrize("layout", ["original", "hub_mxfp4", "hub_bf16"])
def test_running_models_share_their_weights(tmp_path, make_checkpoint, layout):
    # Large where every token reads all of it: the unembedding, 32 MB.
    folder = make_checkpoint(tmp_path, layout, vocabulary=1 << 17, hidden=128)
    read_by_every_token = (1 << 17) * 128 * 2
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runners = [subprocess.Popen([sys.executable, "-c", _RUNNER, str(folder)], **pipes) for _ in range(2)]
    try:
        told = [json.loads(runner.stdout.readline()) for runner in runners]
        for runner in runners:
            runner.stdin.write("\n")
            runner.stdin.flush()
        after = [json.loads(runner.stdout.readline()) for runner in runners]
    finally:
        for runner in runners:
            runner.kill()
            runner.communicate()
    assert told[0]["likeliest"] == told[1]["likeliest"]
    for before, now in zip((each["loaded"] for each in told), after, strict=True):
        # To load reads the headers alone; to run reads the weights, of which each process counts half as its own.
        assert before["Rss"] < 0.1 * read_by_every_token
        assert now["Rss"] >= read_by_every_token
        assert now["Shared_Clean"] + now["Shared_Dirty"] >= 0.95 * now["Rss"]
        assert now["Pss"] <= 0.55 * now["Rss"]
        assert now["Private_Dirty"] == now["Anonymous"] == 0
