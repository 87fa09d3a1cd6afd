"""Every layout gives the same canonical tensors, mapped and not copied."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.safetensors_file import SafetensorsFile
from gptoss.model.checkpoints.tensor_names import Layout
from gptoss.model.config import LayerConfig, RopeConfig
from gptoss.model.errors import CheckpointError
from gptoss.model.tensors.mxfp4 import dequantize

# Sizes of which no two are the same, so that no axis can stand for another.
ODD = {
    "hidden": 96,
    "width": 160,
    "vocabulary": 77,
    "heads": 6,
    "kv_heads": 3,
    "head_dim": 10,
    "experts": (5, 5, 5),
    "experts_per_token": 3,
    "windows": (8, None, 8),
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
    ("layout", "expected"), [("original", Layout.ORIGINAL), ("hub_mxfp4", Layout.HUB_MXFP4)], ids=str
)
def test_packed_layouts_give_the_same_tensors(tmp_path, make_checkpoint, made_tensors, layout, expected, shards, index):
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layout, shards=shards, index=index, **ODD))
    assert checkpoint.layout is expected
    weights = made_tensors(**ODD)
    assert set(checkpoint.sources) == set(weights)
    for name, tensor in weights.items():
        actual = checkpoint.tensor(name)
        assert actual.shape == tensor.shape, name
        # The original layout keeps norms in float32.
        assert actual.dtype in (tensor.dtype, torch.float32), name
        assert torch.equal(actual.to(tensor.dtype), tensor), name
    assert len(checkpoint.files) == shards
    assert checkpoint.nbytes == sum(load_bytes(file) for file in checkpoint.files)
    assert checkpoint.ignored == ()


def load_bytes(file: Path) -> int:
    """Bytes of data in a file, by the safetensors library."""
    return sum(tensor.nbytes for tensor in load_file(file).values())


@pytest.mark.parametrize("size", ["5GB", "40KB"])
def test_what_the_transformers_library_saves(tmp_path, size):
    """Its own config, its own shards and index."""
    config = GptOssConfig(
        num_hidden_layers=2,
        num_local_experts=3,
        num_experts_per_tok=2,
        hidden_size=48,
        intermediate_size=20,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=50,
        sliding_window=16,
    )
    model = GptOssForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size=size)
    checkpoint = Checkpoint.open(tmp_path)
    assert (len(checkpoint.files) > 1) == (size == "40KB")
    assert checkpoint.config.layers == (LayerConfig(3, 2, 16), LayerConfig(3, 2, None))
    assert checkpoint.config.rope == RopeConfig(150000.0, 32.0, 4096)
    state = model.state_dict()
    assert len(checkpoint.sources) == len(state)
    for name, source in checkpoint.sources.items():
        expected = state[source.name]
        assert torch.equal(checkpoint.tensor(name), expected.transpose(1, 2) if source.transposed else expected)


@pytest.mark.parametrize("dialect", ["transformers4", "transformers5"])
def test_unpacked_experts_are_turned_without_a_copy(tmp_path, make_checkpoint, made_tensors, dialect):
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, "hub_bf16", dialect=dialect, **ODD))
    assert checkpoint.layout is Layout.HUB_BF16
    weights = made_tensors(**ODD)
    for i in range(3):
        for name in ("gate_up", "down"):
            blocks, scales = (weights[f"layers.{i}.{name}.{kind}"] for kind in ("blocks", "scales"))
            actual = checkpoint.tensor(f"layers.{i}.{name}.weight")
            assert torch.equal(actual, dequantize(blocks, scales, torch.bfloat16))
            assert actual.stride(-1) != 1  # a view of the stored tensor, its axes exchanged
            assert not checkpoint.has(f"layers.{i}.{name}.blocks")
    assert torch.equal(checkpoint.tensor("layers.2.q.weight"), weights["layers.2.q.weight"])


def test_puzzle_has_layers_that_differ_and_scales_that_are_ignored(tmp_path, make_checkpoint):
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, "puzzle"))
    assert [checkpoint.tensor(f"layers.{i}.router.bias").shape[0] for i in range(3)] == [4, 2, 4]
    assert [layer.sliding_window for layer in checkpoint.config.layers] == [8, 16, None]
    assert len(checkpoint.ignored) == 6
    assert all(name.endswith("_scale") for name in checkpoint.ignored)


def test_fused_rows_are_views_of_one_tensor(tmp_path, make_checkpoint):
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, "original"))
    q, k, v = (checkpoint.tensor(f"layers.0.{name}.weight") for name in "qkv")
    assert k.data_ptr() == q.data_ptr() + q.nbytes
    assert v.data_ptr() == k.data_ptr() + k.nbytes


@pytest.mark.parametrize("layout", ["original", "hub_mxfp4"])
def test_blocks_may_come_without_their_last_axis(tmp_path, make_checkpoint, made_tensors, layout):
    folder = make_checkpoint(tmp_path, layout)
    _rewrite(folder, lambda tensors: {n: t.flatten(2) if "blocks" in n else t for n, t in tensors.items()})
    name = "layers.1.down.blocks"
    assert torch.equal(Checkpoint.open(folder).tensor(name), made_tensors()[name])


def test_tied_embeddings(tmp_path, make_checkpoint, made_tensors):
    folder = make_checkpoint(tmp_path)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    _rewrite(folder, lambda tensors: {n: t for n, t in tensors.items() if n != "lm_head.weight"})
    checkpoint = Checkpoint.open(folder)
    assert torch.equal(checkpoint.tensor("unembedding.weight"), made_tensors()["embedding.weight"])
    assert checkpoint.nbytes == load_bytes(folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_float_types_are_kept(tmp_path, make_checkpoint, dtype):
    folder = make_checkpoint(tmp_path)
    _rewrite(folder, lambda tensors: {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()})
    assert Checkpoint.open(folder).tensor("layers.0.q.weight").dtype == dtype


def test_a_tensor_that_lies_askew_is_still_right(tmp_path, make_checkpoint, made_tensors):
    folder = make_checkpoint(tmp_path)
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    # One more space in the header moves all data by a byte, off the multiples of two.
    file.write_bytes((length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :])
    checkpoint = Checkpoint.open(folder)
    for name, tensor in made_tensors().items():
        assert torch.equal(checkpoint.tensor(name), tensor), name


def test_a_tensor_outlives_its_checkpoint(tmp_path, make_checkpoint, made_tensors):
    tensor = Checkpoint.open(make_checkpoint(tmp_path)).tensor("layers.0.q.weight")
    assert torch.equal(tensor, made_tensors()["layers.0.q.weight"])


def test_the_hubs_own_links_are_followed(tmp_path, make_checkpoint, made_tensors):
    plain = make_checkpoint(tmp_path / "plain", shards=2)
    snapshot = tmp_path / "models--me--mine" / "snapshots" / "abc123"
    blobs = tmp_path / "models--me--mine" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in plain.iterdir():
        file.rename(blobs / file.name[::-1])
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name[::-1]))
    assert torch.equal(Checkpoint.open(snapshot).tensor("norm.weight"), made_tensors()["norm.weight"])


def test_other_files_in_the_folder_do_not_disturb(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, shards=2, index=False)
    (folder / "._model-00001-of-00002.safetensors").write_bytes(b"resource fork")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    make_checkpoint(folder / "original", "original")
    assert Checkpoint.open(folder).layout is Layout.HUB_MXFP4


def test_safetensors_file_reads_what_the_library_writes(tmp_path):
    tensors = {
        "u8": torch.arange(7, dtype=torch.uint8),
        "i64": torch.arange(3),
        "bool": torch.tensor([True, False]),
        "f64": torch.ones(2, 3, dtype=torch.float64),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "f8": torch.ones(4).to(torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert set(file.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert file.tensors[name].shape == tuple(tensor.shape)
        assert file.tensors[name].nbytes == tensor.nbytes
        if name != "f8":
            assert torch.equal(file.tensor(name), tensor), name
    with pytest.raises(CheckpointError, match="F8_E4M3"):
        file.tensor("f8")


_READER = """
import json, sys, torch
from pathlib import Path
from gptoss.model.checkpoints.checkpoint import Checkpoint

def mapping():
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith("model.safetensors"):
            break
    fields = [next(lines).split() for _ in range(14)]
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}

checkpoint = Checkpoint.open(sys.argv[1])
untouched = mapping()
checkpoint.tensor("embedding.weight").view(torch.int16).max()
print(json.dumps(untouched), flush=True)
sys.stdin.readline()
print(json.dumps(mapping()), flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is shared")
def test_processes_share_the_pages_of_one_file(tmp_path, make_checkpoint):
    """Two processes read the same 64 MB: each has them resident, and each counts half of them as its share."""
    folder = make_checkpoint(tmp_path, vocabulary=1 << 18, hidden=128)
    size = (1 << 18) * 128 * 2
    command = [sys.executable, "-c", _READER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    readers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        opened = [json.loads(reader.stdout.readline()) for reader in readers]
        for reader in readers:
            reader.stdin.write("\n")
            reader.stdin.flush()
        read = [json.loads(reader.stdout.readline()) for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    for before, after in zip(opened, read, strict=True):
        assert before["Rss"] <= 0.05 * size
        assert after["Rss"] >= size
        assert after["Shared_Clean"] + after["Shared_Dirty"] >= 0.95 * size
        assert after["Pss"] <= 0.55 * size
        # Nothing was copied for this process.
        assert after["Private_Dirty"] == after["Anonymous"] == 0


def _rewrite(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    tensors = change({name: tensor.clone() for name, tensor in load_file(path).items()})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
