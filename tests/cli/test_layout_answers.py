"""The built-in model, written out in every published layout, gives the same answer through `gptoss ask`."""

import json
import shutil
from pathlib import Path

import pytest

import gptoss.model.nano
from gptoss.cli.startup.loading import load_model
from gptoss.model.checkpoints.checkpoint import Checkpoint

NANO = Path(gptoss.model.nano.__file__).parent / "checkpoint"


@pytest.fixture(scope="module")
def nano_in():
    """`nano_in(folder, layout, dialect)`: the model's folder in a layout."""
    checkpoint = Checkpoint.open(NANO)
    weights = {name: checkpoint.tensor(name) for name in checkpoint.sources}

    def write(write_checkpoint, folder: Path, layout: str, dialect: str) -> Path:
        config = nano_config(layout, dialect)
        write_checkpoint(folder, layout, config, weights)
        for name in ("tokenizer.json", "generation_config.json"):
            shutil.copy(NANO / name, folder)
        return folder

    return write


def nano_config(layout: str, dialect: str) -> dict:
    """The config of the built-in model as the publisher of a layout would write it."""
    config = json.loads((NANO / "config.json").read_text())
    rope = config["rope_scaling"]
    if layout == "original":
        same = ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "swiglu_limit", "head_dim")
        heads = ("num_attention_heads", "num_key_value_heads", "sliding_window", "rope_theta")
        return {key: config[key] for key in (*same, *heads)} | {
            "num_experts": config["num_local_experts"],
            "experts_per_token": config["num_experts_per_tok"],
            "initial_context_length": rope["original_max_position_embeddings"],
            "rope_scaling_factor": rope["factor"],
            "rope_ntk_alpha": rope["beta_slow"],
            "rope_ntk_beta": rope["beta_fast"],
        }
    if dialect == "transformers5":
        config["rope_parameters"] = config.pop("rope_scaling") | {"rope_theta": config.pop("rope_theta")}
        config["dtype"] = config.pop("torch_dtype")
    if layout == "hub_bf16":
        del config["quantization_config"]
    if layout == "puzzle":
        windows = [config["sliding_window"] if kind.startswith("sliding") else None for kind in config["layer_types"]]
        experts = config.pop("num_local_experts")
        config["block_configs"] = [{"num_local_experts": experts, "sliding_window": window} for window in windows]
        del config["layer_types"], config["sliding_window"]
        config |= {"model_type": "gpt_oss_puzzle", "architectures": ["GptOssPuzzleForCausalLM"]}
    return config


def answer(gptoss, model, *options: str) -> tuple[int, str]:
    arguments = ("ask", "-m", str(model), "--device", "cpu", "--temperature", "0", *options, "What is 2 + 2?")
    result = gptoss(*arguments, load=load_model, stdin=b"")
    assert result.stderr == "", result.stderr
    return result.status, result.stdout


@pytest.mark.parametrize(
    ("layout", "dialect", "options"),
    [
        ("original", "", ()),
        ("hub_mxfp4", "transformers4", ()),
        ("hub_mxfp4", "transformers5", ()),
        ("hub_bf16", "transformers4", ()),
        ("hub_bf16", "transformers5", ("--quantize", "mxfp4")),
        ("puzzle", "transformers4", ()),
        ("puzzle", "transformers5", ()),
    ],
)
def test_the_same_answer(gptoss, nano_in, write_checkpoint, tmp_path, layout, dialect, options):
    folder = nano_in(write_checkpoint, tmp_path / "nano", layout, dialect)
    expected = answer(gptoss, NANO)
    assert expected[0] == 0
    assert expected[1].strip()
    assert answer(gptoss, folder, *options) == expected
