"""`--adapter`: a LoRA adapter beside the model, described by `show`, applied by `ask`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Folders, Settings
from gptoss.cli.startup.connecting import connect
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.lazy_loading import load_model
from gptoss.cli.startup.remotes import Remote

SEED = ("-n", "12", "--temperature", "0", "--no-save", "--no-cache", "--device", "cpu", "--raw")


@pytest.fixture
def adapter(tmp_path) -> Path:
    """One for nano: queries of layer 1, and the experts of layer 2."""
    folder, generator = tmp_path / "mine", torch.Generator().manual_seed(1)
    folder.mkdir()

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    prefix = "base_model.model.model.layers"
    tensors = {
        f"{prefix}.1.self_attn.q_proj.lora_A.weight": random(4, 128),
        f"{prefix}.1.self_attn.q_proj.lora_B.weight": random(128, 4),
        f"{prefix}.2.mlp.experts.lora_A.weight": random(4 * 8, 128),
        f"{prefix}.2.mlp.experts.lora_B.weight": random(128, 4 * 8),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "me/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_show(gptoss, adapter):
    result = gptoss("show", "nano", "--adapter", str(adapter), load=load_model)
    assert result.status == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("adapter"))
    assert line == (f"adapter      {adapter}: LoRA of rank 4 on q of layer 1, experts of layer 2, made for me/base")
    (told,) = json.loads(gptoss("show", "nano", "--adapter", str(adapter), "--json", load=load_model).stdout)[
        "adapters"
    ]
    assert told["folder"] == str(adapter)
    assert told["targets"] == ["layers.1.q", "layers.2.down"]
    assert told["bytes"] == 4 * sum(a * b for a, b in [(4, 128), (128, 4), (32, 128), (128, 32)])


def test_ask(gptoss, adapter):
    plain = gptoss("ask", "-m", "nano", *SEED, "Hi", load=load_model)
    changed = gptoss("ask", "-m", "nano", "--adapter", str(adapter), *SEED, "Hi", load=load_model)
    assert plain.status in (0, 4), plain.stderr
    assert changed.status in (0, 4), changed.stderr
    assert plain.stdout != changed.stdout


@pytest.mark.parametrize("command", [("ask", "-m"), ("show",)])
def test_what_is_wrong_is_said_in_a_line(gptoss, adapter, tmp_path, command):
    rest = ("Hi",) if command[0] == "ask" else ()
    for folder, message in ((tmp_path / "none", "there is no folder"), (tmp_path, "is no adapter: it has no")):
        result = gptoss(*command, "nano", "--adapter", str(folder), *rest, load=load_model)
        assert (result.status, result.stdout, result.stderr.count("\n")) == (3, "", 1)
        assert message in result.stderr
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    result = gptoss(*command, "nano", "--adapter", str(adapter), *rest, load=load_model)
    assert (result.status, result.stderr.count("\n")) == (3, 1)


def test_the_config_file(gptoss, adapter, tmp_path):
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f'adapters = ["{adapter}"]\n')
    result = gptoss("show", "nano", "--home", str(config.parent), load=load_model)
    assert "LoRA of rank 4" in result.stdout, result.stderr
    left_out = gptoss("show", "nano", "--adapter", "none", "--home", str(config.parent), load=load_model)
    assert left_out.status == 0
    assert "LoRA" not in left_out.stdout


def test_a_model_on_a_server_takes_none(tmp_path):
    """An answer without the adapter would be that of another model."""
    settings = Settings(model="http://127.0.0.1:9", adapters=(str(tmp_path),))
    request = LoadRequest(settings.model, Folders.locate({}, tmp_path), settings)
    with pytest.raises(UsageError, match="--adapter: adapters are added to models on this machine"):
        connect(request, Remote(settings.model))
