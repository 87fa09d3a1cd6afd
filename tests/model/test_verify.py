"""Verification finds every fault of a checkpoint, and only faults."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss.model import CheckpointError
from gptoss.model.checkpoints.verify import verify

SHARDS = [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]


def rewrite(path: Path, change) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("layout", ["original", "hub_mxfp4", "hub_bf16", "puzzle"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_sound_checkpoint(tmp_path, make_checkpoint, layout, shards):
    folder = make_checkpoint(tmp_path, layout, shards=shards)
    calls = []
    found = verify(folder, lambda done, total: calls.append((done, total)))
    assert found.sound
    assert found.faults == found.hashed == ()
    assert len(found.unhashed) == shards
    stored = [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).items()]
    used = [(name, tensor) for name, tensor in stored if not name.endswith(("k_scale", "v_scale"))]
    assert found.tensors == len(used)
    looked_at = [tensor for name, tensor in used if not name.endswith("blocks")]
    assert found.numbers == sum(tensor.numel() for tensor in looked_at)
    total = sum(tensor.nbytes for tensor in looked_at)
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("original", "block.1.attn.qkv.weight"),
        ("original", "norm.scale"),
        ("hub_mxfp4", "model.layers.1.mlp.experts.down_proj_bias"),
        ("hub_bf16", "model.layers.0.mlp.experts.gate_up_proj"),
    ],
)
def test_weights_that_are_no_numbers(tmp_path, make_checkpoint, layout, name, bad, monkeypatch):
    monkeypatch.setattr("gptoss.model.checkpoints.verify._PIECE", 1000)
    folder = make_checkpoint(tmp_path, layout)
    rewrite(folder / "model.safetensors", lambda tensors: tensors[name].view(-1)[-3:-1].fill_(bad))
    found = verify(folder)
    assert len(found.faults) == 1
    assert f"'{name}': 2 of " in found.faults[0]
    assert "weights are infinite or not a number: download it again" in found.faults[0]


def test_scales_that_are_no_numbers(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    name = "model.layers.1.mlp.experts.down_proj_scales"
    rewrite(folder / "model.safetensors", lambda tensors: tensors[name][1, :3, 0].fill_(255))
    rewrite(folder / "model.safetensors", lambda tensors: tensors[name.replace("scales", "blocks")].fill_(255))
    assert verify(folder).faults == (f"'{name}': 3 of 256 scales are 255, which is no number: download it again",)


def test_every_fault_is_found(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)

    def spoil(tensors):
        del tensors["model.norm.weight"], tensors["model.layers.0.self_attn.sinks"]
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].to(torch.float64)
        tensors["model.layers.1.mlp.shared_expert.weight"] = torch.ones(1)
        tensors["model.layers.5.self_attn.sinks"] = torch.ones(1)
        tensors["model.layers.1.self_attn.sinks"][0] = float("nan")

    rewrite(folder / "model.safetensors", spoil)
    (folder / "generation_config.json").write_text('{"temperature": -1}')
    faults = verify(folder).faults
    for part in (
        "has no tensor 'model.norm.weight'",
        "has no tensor 'model.layers.0.self_attn.sinks'",
        "'lm_head.weight' has the shape (95, 64), but by config.json it is (96, 64)",
        "'model.embed_tokens.weight' has the type F64",
        "'model.layers.1.mlp.shared_expert.weight', which no gpt-oss model has",
        "'model.layers.5.self_attn.sinks', but config.json speaks of 2 layers",
        "'model.layers.1.self_attn.sinks': 1 of 4 weights",
        "generation_config.json': temperature is -1",
    ):
        assert sum(part in fault for fault in faults) == 1, part
    assert len(faults) == 8
    assert all(fault.isprintable() for fault in faults)


def test_a_tensor_that_three_share_is_told_of_once(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, "original")
    name = "block.0.attn.qkv.weight"
    rewrite(folder / "model.safetensors", lambda tensors: tensors.update({name: tensors[name][1:].clone()}))
    (fault,) = verify(folder).faults
    assert "'block.0.attn.qkv.weight' has the shape (127, 64)" in fault


@pytest.mark.parametrize("index", [True, False])
def test_files_that_are_missing_or_cut_short_are_one_fault_each(tmp_path, make_checkpoint, index):
    folder = make_checkpoint(tmp_path, shards=3, index=index)
    (folder / SHARDS[1]).unlink()
    (missing,) = verify(folder).faults
    assert f"{SHARDS[1]}' is missing: download it" in missing
    content = (folder / SHARDS[2]).read_bytes()
    (folder / SHARDS[2]).unlink()
    (folder / SHARDS[2]).write_bytes(content[:-1])
    faults = verify(folder).faults
    assert sum(SHARDS[2] in fault and "download it again" in fault for fault in faults) == 1
    assert len(faults) == (2 if index else 1)


def test_a_broken_config_leaves_the_hashes_to_be_compared(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    (folder / "SHA256SUMS").write_text(f"{sha256(folder / 'model.safetensors')}  model.safetensors\n")
    (folder / "config.json").write_text("{")
    found = verify(folder)
    assert len(found.faults) == 1
    assert (found.tensors, found.hashed) == (0, ("model.safetensors",))


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder"):
        verify(tmp_path / "none")


def hub_cache(folder: Path, root: Path) -> Path:
    """The folder as the hub's own cache keeps it: large files by sha256, small ones by git's hash."""
    snapshot, blobs = root / "models--me--mine" / "snapshots" / "abc", root / "models--me--mine" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            digest = sha256(path)
        else:
            command = ["git", "hash-object", "--no-filters", str(path)]
            digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        path.rename(blobs / digest)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", digest))
    return snapshot


def test_the_hubs_cache_has_the_hashes(tmp_path, make_checkpoint):
    snapshot = hub_cache(make_checkpoint(tmp_path / "plain", shards=3), tmp_path)
    found = verify(snapshot)
    assert found.sound
    assert found.hashed == ("config.json", *SHARDS, "model.safetensors.index.json")
    assert found.unhashed == ()
    for name, kind in (("config.json", "git hash"), (SHARDS[1], "sha256")):
        blob = (snapshot / name).resolve()
        content = blob.read_bytes()
        blob.unlink()
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 32]))
        fault = next(fault for fault in verify(snapshot).faults if f"has not the {kind}" in fault)
        assert f"{name}' has not the {kind} that the hub's cache has for it, {blob.name}: download it again" in fault
        blob.unlink()
        blob.write_bytes(content)
    assert verify(snapshot).sound


def test_the_hubs_download_has_the_hashes(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    note = notes / "model.safetensors.metadata"
    note.write_text(f"{'a' * 40}\n{sha256(folder / 'model.safetensors')}\n1760000000.0\n")
    assert verify(folder).hashed == ("model.safetensors",)
    note.write_text(f"{'a' * 40}\n{'b' * 64}\n1760000000.0\n")
    (fault,) = verify(folder).faults
    assert "has not the sha256 that the hub's download has for it" in fault
    note.write_text("no hash\n")
    assert verify(folder).unhashed == ("model.safetensors",)


@pytest.mark.parametrize("name", ["SHA256SUMS", "model.safetensors.sha256"])
def test_lists_of_hashes(tmp_path, make_checkpoint, name):
    folder = make_checkpoint(tmp_path)
    digest = sha256(folder / "model.safetensors")
    (folder / name).write_text(f"# made today\n{digest} *./model.safetensors\n{'0' * 64}  original/other.safetensors\n")
    assert verify(folder).hashed == ("model.safetensors",)
    (folder / name).write_text(f"{digest[::-1]}  model.safetensors\n{digest}  gone.json\n")
    faults = verify(folder).faults
    assert len(faults) == 2
    assert any("gone.json' is missing" in fault for fault in faults)
    assert any(f"has not the sha256 that {name} has for it" in fault for fault in faults)


def test_a_hash_alone_is_that_of_the_file_it_is_named_after(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    (folder / "model.safetensors.sha256").write_text(sha256(folder / "model.safetensors").upper() + "\n")
    assert verify(folder).hashed == ("model.safetensors",)


@pytest.mark.parametrize(
    "line", ["nothing", "0" * 64, f"{'0' * 64}  ../config.json", f"{'g' * 64}  config.json", "\x1b[2J" * 9999]
)
def test_hostile_lists(tmp_path, make_checkpoint, line):
    folder = make_checkpoint(tmp_path)
    (folder / "SHA256SUMS").write_text(line)
    found = verify(folder)
    assert all(fault.isprintable() and len(fault) < 800 for fault in found.faults)
    assert found.hashed == ()
    assert found.sound == ("../" in line)  # a file of another folder is none of ours


def test_progress_counts_hashed_bytes_too(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    (folder / "SHA256SUMS").write_text(f"{sha256(folder / 'model.safetensors')}  model.safetensors\n")
    calls = []
    verify(folder, lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] > (folder / "model.safetensors").stat().st_size
    assert json.loads((folder / "config.json").read_text())  # nothing was written
