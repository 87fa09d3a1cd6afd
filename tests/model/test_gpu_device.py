"""Where the GPU backend runs, which device is chosen, and what is said where it does not."""

import pytest
import torch

from gptoss.model import DeviceError
from gptoss.model.kernels.triton.interpreter import in_interpreter
from gptoss.model.loading.device import select_device
from gptoss.model.ops import ComputeOptions, gpu_device, select_ops
from gptoss.model.ops.full_card import full_card_told
from gptoss.model.ops.gpu_device import reason_against

CUDA = torch.device("cuda")
GPU = ComputeOptions("gpu")


@pytest.fixture
def card(monkeypatch, automatic_backend):
    """A card that is not there, of this compute capability."""

    def make(*capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Card")

    return make


def test_auto_finds_a_card_that_can(card, monkeypatch):
    card(8, 0)
    assert reason_against(CUDA) is None
    assert select_device("auto") == CUDA
    assert select_device("cuda:0").index == 0
    with pytest.raises(DeviceError, match="cuda:1"):
        select_device("cuda:1")
    pytest.importorskip("triton", reason="Triton runs on Linux")
    assert select_ops(CUDA).name == "gpu"


def test_an_older_card_is_left_alone_or_computes_in_plain_torch(card, caplog):
    card(7, 5)
    assert select_device("auto").type == "cpu"
    assert select_ops(CUDA).name == "reference"
    assert (
        "Some Card has compute capability 7.5, the kernels need 8.0 or later: the model takes the slow" in caplog.text
    )
    with pytest.raises(DeviceError, match=r"7\.5.*use the device cpu"):
        select_ops(CUDA, GPU)


def test_without_triton_a_card_computes_in_plain_torch(card, monkeypatch, caplog):
    card(9, 0)
    monkeypatch.setattr(gpu_device, "has_triton", lambda: False)
    assert select_ops(CUDA).name == "reference"
    assert "the package triton is missing" in caplog.text


def test_without_the_interpreter_the_cpu_is_no_card(monkeypatch):
    pytest.importorskip("triton", reason="Triton runs on Linux")
    assert select_ops("cpu", GPU).name == "gpu"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(DeviceError, match="NVIDIA cards, not on cpu"):
        select_ops("cpu", GPU)


def test_dense_layers_are_kept_as_asked():
    pytest.importorskip("triton", reason="Triton runs on Linux")
    assert select_ops("cpu", GPU).description == "gpu (Triton's interpreter, dense layers in bf16)"
    in_eight_bits = select_ops("cpu", ComputeOptions("gpu", "int8"))
    assert "int8" in in_eight_bits.description
    assert "int8" in in_eight_bits.identity
    assert "triton" in in_eight_bits.identity
    assert "torch" in in_eight_bits.identity
    assert in_eight_bits.host.identity in in_eight_bits.identity


def test_experts_on_the_host_are_computed_as_asked():
    pytest.importorskip("triton", reason="Triton runs on Linux")
    pytest.importorskip("gptoss.model.kernels._cpu", reason="built without a compiler", exc_type=ImportError)
    ops = select_ops("cpu", ComputeOptions("gpu", isa="portable", threads=3))
    assert (ops.host.isa, ops.host.threads, ops.threads) == ("portable", 3, 3)


@pytest.mark.parametrize(("value", "is_on"), [("1", True), ("True", True), ("on", True), ("0", False), ("", False)])
def test_the_variable_of_the_interpreter_means_what_it_means_to_triton(monkeypatch, value, is_on):
    knobs = pytest.importorskip("triton.knobs", reason="Triton runs on Linux")
    monkeypatch.setenv("TRITON_INTERPRET", value)
    assert in_interpreter() == knobs.runtime.interpret == is_on


def test_a_full_card_is_told_of_in_one_line():
    with (
        pytest.raises(DeviceError, match=r"memory of cuda is full: use a shorter --ctx") as caught,
        full_card_told(CUDA),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
    assert "\n" not in str(caught.value)
