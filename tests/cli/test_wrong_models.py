"""A newcomer points `-m` at the wrong place: one line says what it is and what to do, the exit status is 3."""

import json
import os
from pathlib import Path

import pytest

from gptoss.cli.startup.loading import load_model

ADVICE = "name a folder with config.json and .safetensors files, or a GGUF file\n"


@pytest.fixture
def said(gptoss):
    """What `gptoss ask -m` says of a wrong model."""

    def ask(model, **variables: str) -> str:
        result = gptoss("ask", "-m", str(model), "--device", "cpu", "Hi", load=load_model, variables=variables)
        assert (result.status, result.stdout) == (3, "")
        assert result.stderr.count("\n") == 1
        assert result.stderr.isprintable() or result.stderr[:-1].isprintable()
        return result.stderr

    return ask


@pytest.fixture
def here(tmp_path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def write(folder: Path, *names: str, **contents: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"GGUF\x03\0\0\0" if name.endswith(".gguf") else b"x")
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_a_gguf_file(said, here):
    write(here, "gpt-oss-20b-Q4_K_M.gguf")
    path = here / "gpt-oss-20b-Q4_K_M.gguf"
    assert said(path) == f"gptoss: '{path}' has 8 bytes, too few for a GGUF file: download it again\n"


def test_a_folder_of_gguf_files(said, here):
    write(here, "model-00001-of-00002.gguf", "model-00002-of-00002.gguf", "README.md")
    assert said(here) == (
        f"gptoss: '{here / 'model-00001-of-00002.gguf'}' has 8 bytes, too few for a GGUF file: download it again\n"
    )


def test_a_lora_adapter(said, here):
    write(here, "adapter_model.safetensors", "tokenizer.json", adapter_config={"base_model_name_or_path": "x"})
    assert said(here) == (
        f"gptoss: '{here}' is a LoRA adapter, not a model: name its base model, and the adapter with --adapter\n"
    )


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "'llama'"),
        ({"model_type": "qwen3_moe"}, "'qwen3_moe'"),
        ({"model_type": "gpt_oss\x1b[2J"}, r"'gpt_oss\x1b[2J'"),
    ],
)
def test_another_architecture(said, here, config, what):
    write(here, "model.safetensors", config=config)
    line = said(here)
    assert line.startswith(f"gptoss: '{here}/config.json': ")
    assert what in line
    assert "gpt-oss" in line


def test_another_quantization(said, make_checkpoint, here):
    folder = make_checkpoint(here)
    config = json.loads((folder / "config.json").read_text())
    write(folder, config=config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    assert "bitsandbytes" in said(folder)


def test_an_empty_folder(said, here):
    assert said(here) == f"gptoss: '{here}' is empty: {ADVICE}"


def test_the_parent_of_the_right_folder(said, make_checkpoint, here):
    folder = make_checkpoint(here / "gpt-oss-20b")
    assert said(here) == f"gptoss: '{here}' is not the checkpoint's own folder: name '{folder}'\n"


def test_the_repositorys_folder_in_the_hubs_cache(said, make_checkpoint, here):
    folder = make_checkpoint(here / "models--openai--gpt-oss-20b" / "snapshots" / "abc")
    repository = here / "models--openai--gpt-oss-20b"
    assert said(repository) == f"gptoss: '{repository}' is not the checkpoint's own folder: name '{folder}'\n"


def test_one_file_of_a_checkpoint(said, make_checkpoint, here):
    folder = make_checkpoint(here)
    path = folder / "model.safetensors"
    assert said(path) == f"gptoss: '{path}' is one file of a checkpoint: name its folder, '{folder}'\n"


def test_a_pickle_is_never_opened(said, here):
    write(here, "pytorch_model.bin", config={})
    assert said(here / "pytorch_model.bin") == (
        f"gptoss: '{here}/pytorch_model.bin' is a pickle file, which can run any code and is never opened: {ADVICE}"
    )


def test_an_unfinished_download(said, make_checkpoint, here):
    folder = make_checkpoint(here, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert said(folder) == (f"gptoss: '{folder}/model-00002-of-00003.safetensors' is missing: download it again\n")


def test_a_tokenizer_of_another_model(said, make_checkpoint, make_byte_tokenizer, here):
    folder = make_checkpoint(here)
    make_byte_tokenizer(folder, ["<|start|>"])
    assert said(folder) == (
        f"gptoss: {folder}/tokenizer.json has ids up to 256, but the model has 96 tokens: model and tokenizer are not "
        "of one checkpoint\n"
    )


def test_a_name_that_nothing_has(said):
    line = said("20B")
    assert "there is no model and no folder '20B': did you mean 20b?" in line


def test_a_model_that_is_not_on_this_machine(said, tmp_path):
    line = said("120b", HF_HUB_CACHE=str(tmp_path / "the hub's"))
    assert line.startswith("gptoss: 120b (65.3 GB) is not on this machine: `gptoss pull 120b` fetches it, ")
    assert str(tmp_path / "the hub's") in line


def test_a_named_pipe_does_not_hang(said, make_checkpoint, here):
    folder = make_checkpoint(here)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert said(folder) == f"gptoss: '{folder}/config.json' is not a regular file\n"
