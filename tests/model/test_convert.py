"""Models of every layout, written as the hub's with MXFP4 experts: the same tensors, and the library's logits."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from gguf_files import Kind, write_gguf
from loaded import loaded_transformer
from safetensors.torch import load_file
from transformers import GptOssForCausalLM

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.tensor_names import Layout
from gptoss.model.errors import CheckpointError
from gptoss.model.loading import convert as converting
from gptoss.model.loading.convert import TargetError, convert
from gptoss.model.tensors.mxfp4 import dequantize

IDS = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(7))
SIZES = {"hidden": 64, "width": 32, "heads": 6, "kv_heads": 3, "head_dim": 16, "experts": (4, 4), "windows": (8, None)}


@pytest.fixture(scope="module")
def hub(tmp_path_factory, make_checkpoint) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("hub"), "hub_mxfp4", **SIZES)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def require_same(folder: Path, other: Path, experts_repacked: bool = False) -> None:
    ours, theirs = tensors(folder), tensors(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        if experts_repacked and "_proj_" in name and "bias" not in name:
            continue
        assert torch.equal(ours[name].flatten(), tensor.flatten()), name
    for name in (name for name in theirs if name.endswith("_blocks")):  # minus zero has two codes
        scales = name.replace("_blocks", "_scales")
        values = [dequantize(each[name].view(*each[scales].shape, 16), each[scales]) for each in (ours, theirs)]
        assert torch.equal(*values)
    assert Checkpoint.open(folder).config == Checkpoint.open(other).config


@pytest.mark.parametrize("layout", ["hub_mxfp4", "original", "hub_bf16"])
def test_layouts_of_folders_are_the_same_to_the_bit(tmp_path, make_checkpoint, hub, layout):
    source = make_checkpoint(tmp_path / "source", layout, **SIZES)
    done = convert(Checkpoint.open(source), tmp_path / "to")
    assert (done.packing is None) == (layout != "hub_bf16")
    assert done.files == ("model.safetensors",)
    assert sorted(path.name for path in done.folder.iterdir()) == ["config.json", "model.safetensors"]
    require_same(tmp_path / "to", make_checkpoint(tmp_path / "expected", "hub_mxfp4", **SIZES), layout == "hub_bf16")


@pytest.mark.parametrize(
    "options", [{}, {"dense": Kind.F32}, {"arch": "gptoss", "fused": True}, {"experts": Kind.BF16}]
)
def test_gguf_is_the_same_to_the_bit(tmp_path, hub, options):
    """Also tensors that GGUF has in float32, such as norms and biases."""
    source = write_gguf(tmp_path / "x.gguf", hub, vocabulary=False, **options)
    done = convert(Checkpoint.open(source), tmp_path / "to")
    assert done.converted == ()
    require_same(tmp_path / "to", hub, "experts" in options)


def test_the_library_computes_the_same(tmp_path, hub):
    source = write_gguf(tmp_path / "x.gguf", hub, vocabulary=False)
    convert(Checkpoint.open(source), tmp_path / "to")
    model = GptOssForCausalLM.from_pretrained(tmp_path / "to", dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(IDS[None]).logits[0]
    torch.testing.assert_close(loaded_transformer(source)(IDS), expected, atol=2e-4, rtol=1e-4)


def test_quantised_layers_are_rounded_once(tmp_path, hub):
    source = Checkpoint.open(write_gguf(tmp_path / "x.gguf", hub, vocabulary=False, dense=Kind.Q8_0))
    done = convert(source, tmp_path / "to")
    assert done.converted == ("Q8_0",)
    written = tensors(tmp_path / "to")["model.layers.1.self_attn.q_proj.weight"]
    assert torch.equal(written, source.blocks("layers.1.q.weight").dequantize().to(torch.bfloat16))
    assert Checkpoint.open(tmp_path / "to").layout is Layout.HUB_MXFP4


def test_float32_that_bfloat16_has_not_stays(tmp_path, make_checkpoint, write_checkpoint, made_tensors, hub):
    weights = made_tensors(**SIZES)
    weights["norm.weight"] = weights["norm.weight"].float() * 1.0001
    config = json.loads((hub / "config.json").read_text())
    source = write_checkpoint(tmp_path / "source", "hub_mxfp4", config, weights)
    convert(Checkpoint.open(source), tmp_path / "to")
    written = tensors(tmp_path / "to")["model.norm.weight"]
    assert written.dtype == torch.float32
    assert torch.equal(written, weights["norm.weight"])


def test_shards(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(converting, "SHARD_BYTES", 30_000)
    done = convert(Checkpoint.open(hub), tmp_path / "to")
    assert len(done.files) > 2
    index = json.loads((tmp_path / "to" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(done.files)
    assert all(path.stat().st_size < 60_000 for path in (tmp_path / "to").glob("*.safetensors"))
    require_same(tmp_path / "to", hub)


def test_further_files_and_progress(tmp_path, hub):
    told = []
    (tmp_path / "to").mkdir()  # an empty folder is as good as none
    convert(
        Checkpoint.open(hub),
        tmp_path / "to",
        lambda done: {"README.md": f"{len(done.files)} file".encode()},
        lambda *each: told.append(each),
    )
    assert (tmp_path / "to" / "README.md").read_text() == "1 file"
    total = sum(math.prod(tensor.shape) * tensor.itemsize for tensor in tensors(hub).values())
    assert {what for what, _done, _all in told} == {"written", "checked"}
    assert told[-1] == ("checked", total, total)


class TestRefused:
    def require(self, hub, to, message):
        with pytest.raises(TargetError, match=message):
            convert(Checkpoint.open(hub), to)

    def test_a_folder_with_something_in_it(self, tmp_path, hub):
        (tmp_path / "x").write_text("mine")
        self.require(hub, tmp_path, "is not empty: name a folder that is not there yet")
        self.require(hub, tmp_path / "x", "is no folder")
        (tmp_path / "link").symlink_to(tmp_path)
        self.require(hub, tmp_path / "link", "is no folder")
        self.require(hub, tmp_path / "x" / "y", "cannot be")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "x"]

    def test_no_room(self, tmp_path, hub, monkeypatch):
        monkeypatch.setattr(converting.shutil, "disk_usage", lambda _path: os.terminal_size((0, 0)) and _Usage())
        self.require(hub, tmp_path / "to", "has 0 GB free, but the converted model needs")
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_returns_other_bytes(self, tmp_path, hub, monkeypatch):
        def damage(file):
            with Path(file.name).open("r+b") as other:
                other.seek(5000)
                other.write(b"\xff\xff\xff\xff")

        monkeypatch.setattr(converting, "_forget", damage)
        self.require(hub, tmp_path / "to", "could not be read back as it was written")
        assert list(tmp_path.iterdir()) == []

    def test_a_source_that_is_cut(self, tmp_path, make_checkpoint):
        pytest.importorskip(
            "gptoss.model.storage._mapped_files", reason="built without a compiler", exc_type=ImportError
        )
        source = make_checkpoint(tmp_path / "source", "hub_mxfp4", **SIZES)
        checkpoint = Checkpoint.open(source)
        os.truncate(next(source.glob("*.safetensors")), 4096)
        with pytest.raises(CheckpointError, match="was cut short"):
            convert(checkpoint, tmp_path / "to")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

    def test_an_interrupt_leaves_nothing(self, tmp_path, hub):
        def stop(what, _done, _all):
            if what == "checked":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert(Checkpoint.open(hub), tmp_path / "to", progress=stop)
        assert list(tmp_path.iterdir()) == []


class _Usage:
    free = 0
