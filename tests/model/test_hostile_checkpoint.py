"""No broken or hostile checkpoint gets through: each ends in one typed line."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.config_files import load_config, load_generation_defaults
from gptoss.model.checkpoints.safetensors_file import MAX_HEADER_BYTES, SafetensorsFile
from gptoss.model.errors import CheckpointError, ConfigError, UnsupportedModelError

INDEX = "model.safetensors.index.json"


def refused(folder: Path, kind: type[CheckpointError], *parts: str) -> None:
    """Opening must raise exactly `kind`, in one line that has each of `parts` and nothing that moves a cursor."""
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(folder)
    message = str(error.value)
    assert type(error.value) is kind, message
    assert message.isprintable()
    assert len(message) < 800
    for part in parts:
        assert part in message


def write_safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file with this header (JSON text, bytes, or an object), whatever it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape: list | None = None, dtype: str = "U8") -> dict:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def change(folder: Path, edit, file: str = "model.safetensors") -> None:
    """Rewrite a weights file with its tensors as `edit` leaves them."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / file).items()}
    edit(tensors)
    save_file(tensors, folder / file)


def change_json(folder: Path, name: str, edit) -> None:
    values = json.loads((folder / name).read_text())
    edit(values)
    (folder / name).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        pytest.param({"a": entry(0, 4), "b": entry(2, 6)}, 6, None, "'a' and 'b' overlap", id="overlapping"),
        pytest.param({"a": entry(0, 4), "b": entry(0, 4)}, 4, None, "overlap", id="the same bytes twice"),
        pytest.param({"a": entry(0, 9)}, 8, None, "'a' ends at byte 9", id="out of bounds"),
        pytest.param({"a": entry(1 << 62, (1 << 62) + 4)}, 4, None, "ends at byte", id="far out of bounds"),
        pytest.param({"a": entry(1, 4)}, 4, None, "a hole of 1 bytes before 'a'", id="hole"),
        pytest.param({"a": entry(0, 4)}, 9, None, "5 bytes after the last tensor", id="trailing bytes"),
        pytest.param({}, 4, None, "4 bytes after the last tensor", id="no tensors but data"),
        pytest.param({"a": entry(4, 0, [0])}, 4, None, "has -4 bytes", id="backwards"),
        pytest.param({"a": entry(-4, 0, [4])}, 4, None, "data_offsets", id="negative offset"),
        pytest.param({"a": entry(0, 1 << 70)}, 4, None, "'a' has the", id="offset beyond 64 bits"),
        pytest.param({"a": entry(0, 4, [2, 3])}, 4, None, "not those of U8", id="shape and bytes disagree"),
        pytest.param({"a": entry(0, 4, [4], "BF16")}, 4, None, "not those of BF16", id="type and bytes disagree"),
        pytest.param({"a": entry(0, 4, [1 << 62, 1 << 62, 4])}, 4, None, "has the shape", id="product overflows"),
        pytest.param({"a": entry(0, 0, [1 << 62, 1 << 62, 0])}, 0, None, "has the shape", id="nothing, but wide"),
        pytest.param({"a": entry(0, 4, [-2, -2])}, 4, None, "has the shape", id="negative sizes"),
        pytest.param({"a": entry(0, 4, [True, 4])}, 4, None, "has the shape", id="a truth value as size"),
        pytest.param({"a": entry(0, 4, [4.0])}, 4, None, "has the shape", id="a fraction as size"),
        pytest.param({"a": entry(0, 1, [1] * 99)}, 1, None, "has the shape", id="99 dimensions"),
        pytest.param({"a": entry(0, 4, [4], "U9")}, 4, None, "unknown type 'U9'", id="unknown type"),
        pytest.param({"a": entry(0, 4, [4], ["U8"])}, 4, None, "unknown type", id="type of the wrong type"),
        pytest.param({"a": entry(0, 1, [3], "F4")}, 1, None, "not those of F4", id="half a byte"),
        pytest.param({"a": {"dtype": "U8", "shape": [4]}}, 4, None, "just dtype", id="no offsets"),
        pytest.param({"a": entry(0, 4) | {"x": 1}}, 4, None, "just dtype", id="an unknown key"),
        pytest.param({"a": [0, 4]}, 4, None, "just dtype", id="entry is a list"),
        pytest.param({"a": entry(0, 4) | {"data_offsets": [0]}}, 4, None, "data_offsets", id="one offset"),
        pytest.param({"__metadata__": {"a": 1}}, 0, None, "__metadata__", id="metadata of numbers"),
        pytest.param({"__metadata__": []}, 0, None, "__metadata__", id="metadata is a list"),
        pytest.param(b'{"a": 1, "a": 2}', 0, None, "names 'a' twice", id="duplicate keys"),
        pytest.param(b"[]", 0, None, "not a JSON object", id="a list"),
        pytest.param(b'{"a": ', 0, None, "not JSON", id="cut JSON"),
        pytest.param(b"{" + b'"a":{' * 5000, 0, None, "levels deep", id="deep"),
        pytest.param(b'{"\xff": 1}', 0, None, "not JSON", id="not UTF-8"),
        pytest.param(b"", 0, None, "not a JSON object", id="empty header"),
        pytest.param(b"{}", 0, 1 << 40, "1099511627776 bytes by its own account", id="header longer than the file"),
        pytest.param(b"{}", 0, (1 << 64) - 1, "by its own account", id="length of 2^64 - 1"),
        pytest.param(b"{}", 0, 1, "not JSON", id="header cut by its length"),
        pytest.param({"a\x1b[2J\n\u202e": entry(0, 9)}, 4, None, r"'a\x1b[2J\n\u202e'", id="control characters"),
        pytest.param({"\ud800": entry(0, 9)}, 4, None, r"'\ud800'", id="lone surrogate"),
        pytest.param({"n" * 9999: entry(0, 9)}, 4, None, "nnn...nnn", id="a name of 9999 characters"),
    ],
)
def test_lying_headers(tmp_path, header, data, length, message):
    path = write_safetensors(tmp_path / "x.safetensors", header, bytes(data), length)
    with pytest.raises(CheckpointError) as error:
        SafetensorsFile(path)
    assert message in str(error.value)
    assert "x.safetensors" in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 800


def test_a_header_too_long_to_be_one(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{")
        file.truncate(MAX_HEADER_BYTES * 2)
    with pytest.raises(CheckpointError, match="are the most"):
        SafetensorsFile(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 50, -1, -1000])
def test_a_file_cut_short(tmp_path, make_checkpoint, size):
    path = make_checkpoint(tmp_path) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: size if size >= 0 else len(content) + size])
    refused(tmp_path, CheckpointError, "model.safetensors")


def test_a_wrong_shape(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path)
    change(tmp_path, lambda t: t.update({"model.layers.1.mlp.router.weight": torch.zeros(64, 4)}))
    refused(tmp_path, CheckpointError, "router.weight' has the shape (64, 4), but by config.json it is (4, 64)")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.norm.weight", torch.zeros(64, dtype=torch.int32), "type I32, not BF16 or F16 or F32"),
        ("lm_head.weight", torch.zeros(96, 64, dtype=torch.float64), "type F64"),
        ("model.layers.0.mlp.experts.down_proj_scales", torch.zeros(4, 64, 1), "type F32, not U8"),
        ("model.layers.0.self_attn.q_proj.weight", torch.zeros(64, 64).to(torch.float8_e4m3fn), "type F8_E4M3"),
    ],
)
def test_a_wrong_type(tmp_path, make_checkpoint, name, tensor, message):
    make_checkpoint(tmp_path)
    change(tmp_path, lambda t: t.update({name: tensor}))
    refused(tmp_path, CheckpointError, name, message)


@pytest.mark.parametrize("layout", ["original", "hub_mxfp4", "hub_bf16", "puzzle"])
def test_every_tensor_is_needed(tmp_path, make_checkpoint, layout):
    folder = make_checkpoint(tmp_path, layout)
    complete = load_file(folder / "model.safetensors")
    unused = [name for name in complete if name.endswith(("k_scale", "v_scale"))]
    assert bool(unused) == (layout == "puzzle")
    for name in complete:
        save_file({n: t for n, t in complete.items() if n != name}, folder / "model.safetensors")
        if name in unused:
            Checkpoint.open(folder)
            continue
        with pytest.raises(CheckpointError) as error:
            Checkpoint.open(folder)
        assert repr(name) in str(error.value)


def test_layers_that_the_config_leaves_out(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path)
    change_json(tmp_path, "config.json", lambda c: c.update(num_hidden_layers=1, layer_types=["full_attention"]))
    refused(tmp_path, ConfigError, "'model.layers.1.", "config.json speaks of 1 layers")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.self_attn.q_proj.gate",
        "model.layers.0.mlp.experts.gate_up_proj",
        "block.0.attn.qkv.weight",
    ],
)
def test_a_tensor_that_no_gpt_oss_has(tmp_path, make_checkpoint, name):
    make_checkpoint(tmp_path)
    change(tmp_path, lambda t: t.update({name: torch.zeros(2)}))
    refused(tmp_path, UnsupportedModelError, repr(name), "no gpt-oss model has")


def test_packed_experts_need_whole_blocks(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path)
    change_json(tmp_path, "config.json", lambda c: c.update(hidden_size=65))
    refused(tmp_path, ConfigError, "hidden_size is 65", "blocks of 32")


def test_another_architecture_by_its_tensors(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path)
    save_file({"model.layers.0.mlp.gate_proj.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    refused(tmp_path, UnsupportedModelError, "none of the expert tensors of gpt-oss")


def test_a_missing_shard_is_named(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path, shards=3, index=False)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path, CheckpointError, "'model-00002-of-00003.safetensors' is missing: download it")


def test_a_missing_shard_of_the_index(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path, CheckpointError, "model-00002-of-00003.safetensors' is missing")


def test_one_tensor_in_two_files(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path, shards=2, index=False)
    save_file({"model.norm.weight": torch.zeros(64)}, tmp_path / "stray.safetensors")
    refused(tmp_path, CheckpointError, "'model.norm.weight' is both in", "stray.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "sub/inside.safetensors",
        "..\\outside.safetensors",
        "a\0.safetensors",
        "a\x1b[2J\n.safetensors",
        "x" * 4000 + ".safetensors",
        "\ud800.safetensors",
        "missing.safetensors",
        "config.json",
        "weights.bin",
        "",
        7,
        None,
    ],
    ids=lambda name: ascii(name)[:30],
)
def test_an_index_that_leads_elsewhere(tmp_path, make_checkpoint, name):
    folder = make_checkpoint(tmp_path / "folder", shards=2)
    make_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "outside.safetensors")
    change_json(folder, INDEX, lambda index: index["weight_map"].update({"model.norm.weight": name}))
    refused(folder, CheckpointError)


@pytest.mark.parametrize("weight_map", [None, [], {}, "x", 3])
def test_an_index_without_a_map(tmp_path, make_checkpoint, weight_map):
    make_checkpoint(tmp_path, shards=2)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(tmp_path, CheckpointError, "has no weight_map")


def test_an_index_of_another_checkpoint(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path, shards=2)
    first = "model-00001-of-00002.safetensors"

    def edit(index: dict) -> None:
        moved = next(name for name, file in index["weight_map"].items() if file != first)
        index["weight_map"][moved] = first

    change_json(tmp_path, INDEX, edit)
    refused(tmp_path, CheckpointError, INDEX, "but it is not")


def test_an_index_of_very_many_files(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path, shards=2)
    names = {f"t{i}": f"{i}.safetensors" for i in range(2000)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    refused(tmp_path, CheckpointError, "2000 weight files")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("target", ["file", "relative", "loop", "nowhere", "folder", "pipe", "device"])
def test_links_that_lead_out(tmp_path, make_checkpoint, name, target):
    folder = make_checkpoint(tmp_path / "folder")
    outside = tmp_path / name
    (folder / name).rename(outside)
    link = folder / name
    if target == "file":
        link.symlink_to(outside)
    elif target == "relative":
        link.symlink_to(Path("..") / name)
    elif target == "loop":
        link.symlink_to(name)
    elif target == "nowhere":
        link.symlink_to("nothing")
    elif target == "folder":
        link.mkdir()
    elif target == "pipe":
        os.mkfifo(link)
    else:
        link.symlink_to("/dev/zero")
    refused(folder, CheckpointError, name)


def test_a_link_out_for_the_generation_config(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path / "folder")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "generation_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        load_generation_defaults(folder)


def test_links_of_the_hub_reach_their_own_blobs_only(tmp_path, make_checkpoint):
    mine = make_checkpoint(tmp_path / "models--me--mine" / "snapshots" / "abc")
    other = tmp_path / "models--me--other" / "blobs"
    other.mkdir(parents=True)
    (mine / "config.json").rename(other / "config")
    (mine / "config.json").symlink_to(Path("../../../models--me--other/blobs/config"))
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        load_config(mine)


def test_a_link_within_the_folder_is_fine(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    (tmp_path / "model.safetensors").symlink_to("weights.safetensors")
    assert Checkpoint.open(tmp_path).has("norm.weight")


class TestWrongPlaces:
    """One who points `-m` at something else reads in one line what it is and what to do."""

    def test_nothing(self, tmp_path):
        refused(tmp_path / "none", CheckpointError, "there is no folder", "none'")

    def test_a_name_that_no_file_can_have(self, tmp_path):
        refused(tmp_path / ("x" * 5000), CheckpointError, "there is no folder")
        refused(tmp_path / "a\0b", CheckpointError, r"a\x00b")

    def test_an_empty_folder(self, tmp_path):
        refused(tmp_path, CheckpointError, "is empty: name a folder with config.json and .safetensors files, or a GGUF")

    def test_a_gguf_file(self, tmp_path):
        (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
        (tmp_path / "unnamed").write_bytes(b"GGUF\x03\0\0\0")
        refused(tmp_path / "model.gguf", CheckpointError, "model.gguf' has 8 bytes, too few for a GGUF file")
        refused(tmp_path / "unnamed", CheckpointError, "has 8 bytes, too few for a GGUF file")
        refused(tmp_path, CheckpointError, "model.gguf' has 8 bytes, too few for a GGUF file")
        (tmp_path / "model.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        refused(tmp_path / "model.gguf", CheckpointError, "model.gguf' is a Git LFS pointer")

    def test_a_lora_adapter(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
        refused(tmp_path, UnsupportedModelError, "is a LoRA adapter", "the adapter with --adapter")

    def test_another_architecture(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
        refused(tmp_path, UnsupportedModelError, "the architecture is 'llama'", "only gpt-oss")

    def test_the_parent_of_the_right_one(self, tmp_path, make_checkpoint):
        right = make_checkpoint(tmp_path / "gpt-oss-20b")
        refused(tmp_path, CheckpointError, f"name {str(right)!r}")

    def test_a_repository_with_only_the_original(self, tmp_path, make_checkpoint):
        right = make_checkpoint(tmp_path / "original", "original")
        (tmp_path / "README.md").write_text("card")
        refused(tmp_path, CheckpointError, f"name {str(right)!r}")

    def test_a_repository_of_the_hubs_cache(self, tmp_path, make_checkpoint):
        right = make_checkpoint(tmp_path / "models--openai--gpt-oss-20b" / "snapshots" / "abc")
        refused(tmp_path / "models--openai--gpt-oss-20b", CheckpointError, f"name {str(right)!r}")
        refused(tmp_path, CheckpointError, f"name {str(right)!r}")

    def test_one_file_of_a_checkpoint(self, tmp_path, make_checkpoint):
        folder = make_checkpoint(tmp_path)
        refused(folder / "model.safetensors", CheckpointError, f"name its folder, {str(folder)!r}")

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
    def test_pickles_are_never_opened(self, tmp_path, make_checkpoint, name):
        make_checkpoint(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        path = tmp_path / name
        os.mkfifo(path)  # to open it would be to wait for ever
        refused(tmp_path, UnsupportedModelError, "pickle", "never opened")
        path.unlink()
        path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
        refused(path, UnsupportedModelError, "pickle", "never opened")

    def test_only_a_config(self, tmp_path, make_checkpoint):
        make_checkpoint(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        refused(tmp_path, CheckpointError, "has a config.json but no weights")

    def test_only_weights(self, tmp_path, make_checkpoint):
        make_checkpoint(tmp_path)
        (tmp_path / "config.json").unlink()
        refused(tmp_path, CheckpointError, "has weights but no config.json")

    def test_something_else(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        refused(tmp_path, CheckpointError, "holds no checkpoint")
        refused(tmp_path / "notes.txt", CheckpointError, "is a file")


def test_names_of_folders_are_escaped(tmp_path):
    folder = tmp_path / "a\x1b[31m\nb"
    folder.mkdir()
    refused(folder, CheckpointError, r"a\x1b[31m\nb")
