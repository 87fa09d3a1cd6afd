"""`gptoss show` and `gptoss verify` as transcripts."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

NAMES = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]


@pytest.fixture
def model(tmp_path, make_checkpoint, make_byte_tokenizer):
    """A made checkpoint with a tokenizer."""

    def make(layout="hub_mxfp4", **options):
        folder = make_checkpoint(tmp_path / "mine", layout, vocabulary=264, **options)
        make_byte_tokenizer(folder, NAMES)
        return folder

    return make


def test_show(gptoss, model):
    folder = model(shards=2)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\x1b[2J\n---\n")
    result = gptoss("show", str(folder), "--ctx", "100")
    assert (result.status, result.stderr) == (0, "")
    on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert result.stdout == (
        f"model        {folder}\n"
        f"folder       {folder}\n"
        "layout       hub, MXFP4 experts\n"
        "weights      109,776\n"
        "layers       2\n"
        "experts      4, 2 a token\n"
        "attention    4 heads, 2 key/value heads, of 16\n"
        "windows      8 in layer 0; none in layer 1\n"
        "context      512 tokens, YaRN: 8 times 64\n"
        "tokenizer    tokenizer.json; 264 tokens in the model\n"
        "precision    embedding BF16 33.8 kB, unembedding BF16 33.8 kB, attention BF16 49.9 kB, router BF16 1.04 kB, "
        "experts MXFP4 26.1 kB, expert biases BF16 2.05 kB, norms BF16 640 bytes\n"
        f"size         {on_disk / 1000:.0f} kB in 2 files\n"
        "memory       173 kB at 100 tokens: 147 kB of weights, 25.6 kB of cache\n"
        "here         reference on cpu, 1 thread, dense layers as stored; weights read ahead\n"
        "licence      apache-2.0\u241b[2J\n"
    )


def test_show_layers_that_differ(gptoss, model):
    folder = model("puzzle", experts=(4, 2, 4, 4, 4, 2), windows=(8, 16, 8, None, 8, 8))
    lines = gptoss("show", str(folder)).stdout.splitlines()
    assert "layout       hub, MXFP4 experts (puzzle)" in lines
    assert "experts      4, 2 a token in layers 0, 2-4; 2, 2 a token in layers 1, 5" in lines
    assert "windows      8 in layers 0, 2, 4-5; 16 in layer 1; none in layer 3" in lines
    assert "licence      not stated" in lines


def test_show_many_alternating_layers(gptoss, model):
    folder = model(experts=(4,) * 10, windows=(8, None) * 5)
    assert "windows      8 in layers 0, 2 ... 8; none in layers 1, 3 ... 9\n" in gptoss("show", str(folder)).stdout


def test_show_json(gptoss, model):
    folder = model("hub_bf16")
    told = json.loads(gptoss("show", str(folder), "--json", "--ctx", "10").stdout)
    assert told["layers"] == [
        {"experts": 4, "experts_per_token": 2, "window": 8},
        {"experts": 4, "experts_per_token": 2, "window": None},
    ]
    assert told["parts"]["experts"]["precision"] == ["BF16"]
    assert told["memory"]["context"] == 10
    assert told["memory"]["weight_bytes"] == sum(part["bytes"] for part in told["parts"].values())
    assert (told["licence"], told["max_context"], told["vocab_size"]) == (None, 512, 264)


def test_show_how_it_would_run_here(gptoss, model):
    folder = model("hub_bf16")
    assert gptoss("config", "set", "quantize", "mxfp4").status == 0
    assert gptoss("config", "set", "device", "cpu").status == 0
    assert gptoss("config", "set", "threads", "3").status == 0
    told = gptoss("show", str(folder)).stdout
    assert "\nhere         reference on cpu, 3 threads, dense layers as stored; " in told
    assert "; weights read when they are needed, experts packed to MXFP4\n" in told
    told = json.loads(gptoss("show", str(folder), "--json").stdout)["here"]
    assert (told["device"], told["backend"], told["threads"], told["packs"]) == ("cpu", "reference", 3, True)
    assert told["made_bytes"] == 2 * 4 * (3 * 64 * 32) * 17 // 32


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is such a device")
def test_show_describes_what_cannot_run_here(gptoss, model):
    folder = model()
    assert gptoss("config", "set", "device", "mps").status == 0
    result = gptoss("show", str(folder))
    assert (result.status, result.stderr) == (0, "")
    assert "\nhere         cannot run: device 'mps' is not there: use auto or cpu\n" in result.stdout
    told = json.loads(gptoss("show", str(folder), "--json").stdout)
    assert told["here"] == {"error": "device 'mps' is not there: use auto or cpu"}


def test_show_more_context_than_there_is(gptoss, model):
    result = gptoss("show", str(model()), "--ctx", "513")
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == "gptoss: --ctx 513: this model can hold 512 tokens\n"


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_model_that_is_not_there(gptoss, command):
    result = gptoss(command, "safeguard-20b")
    assert (result.status, result.stdout) == (3, "")
    assert result.stderr.startswith("gptoss: safeguard-20b (13.8 GB) is not on this machine")


@pytest.mark.parametrize("command", ["show", "verify"])
def test_the_built_in_model(gptoss, command):
    result = gptoss(command, "nano")
    assert (result.status, result.stderr) == (0, "")
    assert "nano" in result.stdout


def test_verify_a_sound_model(gptoss, model):
    folder = model("puzzle", shards=2)
    result = gptoss("verify", str(folder))
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == f"{folder} is sound: 60 tensors, 75542 numbers; no hashes were published with it\n"


def test_verify_tells_each_fault_in_a_line(gptoss, model):
    folder = model()
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["model.norm.weight"][3] = float("nan")
    del tensors["model.layers.0.mlp.router.bias"]
    save_file(tensors, path)
    (folder / "tokenizer.json").write_text("{}")
    result = gptoss("verify", str(folder))
    assert result.status == 3
    assert result.stdout == (
        f"'{folder}' has no tensor 'model.layers.0.mlp.router.bias': download the checkpoint again\n"
        "'model.norm.weight': 1 of 64 weights are infinite or not a number: download it again\n"
        f"{folder}/tokenizer.json: model is not a JSON object\n"
    )
    assert result.stderr == f"gptoss: {folder} cannot be used as it is: 3 faults\n"
    told = json.loads(gptoss("verify", str(folder), "--json").stdout)
    assert not told["sound"]
    assert len(told["faults"]) == 3


def test_verify_shows_progress_on_a_terminal(gptoss, model):
    folder = model()
    result = gptoss("verify", str(folder), terminal="out err")
    assert result.status == 0
    assert "0.0 of 0.0 GB of " in result.stderr  # the numbers first: a long name is cut off
    assert result.stderr.endswith("\r\x1b[K")


def test_verify_a_wrong_folder(gptoss, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    result = gptoss("verify", str(tmp_path))
    assert result.status == 3
    assert "too few for a GGUF file" in result.stdout
    assert result.stdout.count("\n") == 1
