"""Experts that are packed while a checkpoint is loaded: the same as packing them before, and what it cost is told."""

import json
import math
import subprocess
import sys

import pytest
import torch
from loaded import loaded, loaded_transformer
from safetensors.torch import load_file, save_file

from gptoss.model import CheckpointError, UnsupportedModelError
from gptoss.model.loading.quantize import ExpertPacker
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor, dequantize, quantize


def logits(folder, **options) -> torch.Tensor:
    with torch.inference_mode():
        return loaded_transformer(folder, **options)(torch.arange(60))


def rewrite(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def test_what_was_packed_once_comes_back_exactly(tmp_path, make_checkpoint):
    """The unpacked experts of the made checkpoints are those of the packed ones."""
    expected = logits(make_checkpoint(tmp_path / "packed", "hub_mxfp4"))
    folder = make_checkpoint(tmp_path / "plain", "hub_bf16", shards=2)
    packed = loaded(folder, quantize="mxfp4")
    transformer, packing = packed.engine.transformer, packed.packing
    with torch.inference_mode():
        assert torch.equal(transformer(torch.arange(60)), expected)
    assert all(isinstance(layer.experts.down, Mxfp4Tensor) for layer in transformer.weights.layers)
    assert packing.matrices == 4
    assert packing.errors == {"gate_up": 0.0, "down": 0.0}
    assert packing.bytes_after * 32 * 2 == packing.bytes_before * 17


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_values_and_error(tmp_path, make_checkpoint, dtype, monkeypatch):
    # Several pieces an expert, the last one smaller.
    monkeypatch.setattr("gptoss.model.loading.quantize._PIECE", 500)
    folder = make_checkpoint(tmp_path, "hub_bf16", experts=(3, 3), hidden=96)
    generator = torch.Generator().manual_seed(3)

    def fill(tensors):
        for name in tensors:
            if name.endswith("_proj"):
                tensors[name] = (torch.randn(tensors[name].shape, generator=generator) * 0.1).to(dtype)

    rewrite(folder, fill)
    packed = loaded(folder, quantize="mxfp4")
    weights, report = packed.engine.transformer.weights, packed.packing
    stored = load_file(folder / "model.safetensors")
    for kind in ("gate_up", "down"):
        lost = whole = 0.0
        for i, layer in enumerate(weights.layers):
            plain = stored[f"model.layers.{i}.mlp.experts.{kind}_proj"].transpose(1, 2)
            blocks, scales = quantize(plain)
            packed = getattr(layer.experts, kind)
            assert torch.equal(packed.blocks, blocks)
            assert torch.equal(packed.scales, scales)
            lost += (plain.double() - dequantize(blocks, scales).double()).square().sum().item()
            whole += plain.double().square().sum().item()
        assert report.errors[kind] == pytest.approx(math.sqrt(lost / whole), rel=1e-6)
        assert 0.05 < report.errors[kind] < 0.2
    assert "relative RMS error gate_up 1" in str(report)


def test_nothing_is_done_unless_asked_for_and_needed(tmp_path, make_checkpoint):
    plain = make_checkpoint(tmp_path / "plain", "hub_bf16")
    packed = make_checkpoint(tmp_path / "packed", "hub_mxfp4")
    assert loaded(plain).packing is None
    assert loaded(packed, quantize="mxfp4").packing is None
    assert loaded(plain, quantize="mxfp4").packing is not None


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_rises_to_the_end_and_torchs_threads_stay(tmp_path, make_checkpoint, threads):
    before = torch.get_num_threads()
    try:
        parts: list[float] = []
        folder = make_checkpoint(tmp_path, "hub_bf16")
        loaded(folder, quantize="mxfp4", threads=threads, progress=parts.append)
        assert parts == sorted(parts)
        assert len(parts) == 2 * 2 * 4  # layers, matrices, experts
        assert parts[-1] == 1
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_by_name(tmp_path, make_checkpoint, bad):
    folder = make_checkpoint(tmp_path, "hub_bf16")
    rewrite(folder, lambda tensors: tensors["model.layers.1.mlp.experts.down_proj"][2, 5, 7].fill_(bad))
    with pytest.raises(CheckpointError, match=r"layers\.1\.down.*infinite or not a number"):
        loaded(folder, quantize="mxfp4")


def test_rows_that_are_no_blocks_are_refused(tmp_path, make_checkpoint):
    with (
        ExpertPacker(1) as packer,
        pytest.raises(UnsupportedModelError, match=r"layers\.0\.down.*rows of 40 weights"),
    ):
        packer.pack("layers.0.down", torch.ones(2, 64, 40))


_LOADER = """
import json, sys
from pathlib import Path
from gptoss.model import Checkpoint, LoadOptions
from gptoss.model.loading.load import load

def memory(field):
    # Not getrusage: there a process begins with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

before = memory("VmRSS:")
report = load(Checkpoint.open(sys.argv[1]), LoadOptions(device="cpu", quantize="mxfp4")).packing
print(json.dumps({"grown": memory("VmHWM:") - before, "before": report.bytes_before, "after": report.bytes_after}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts resident memory as Linux does")
def test_memory_stays_bounded(tmp_path, make_checkpoint):
    """Beside the packed experts there is never more than one stored matrix and a piece or two."""
    folder = make_checkpoint(tmp_path, "hub_bf16", experts=(8,) * 6, hidden=1024, width=768, windows=(8, None) * 3)
    process = subprocess.run([sys.executable, "-c", _LOADER, str(folder)], capture_output=True, check=True, text=True)
    told = json.loads(process.stdout)
    one_matrix = 8 * 1024 * 2 * 768 * 2
    assert told["before"] == 6 * 1.5 * one_matrix
    # A loader that keeps the file's pages grows by `before` and `after`.
    assert told["after"] < told["grown"] < told["after"] + one_matrix + (120 << 20) < told["before"] + told["after"]
