"""A plan says what loading will do before anything is loaded, and loading does it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loaded import load_options, loaded

from gptoss.model import ContextFullError, DeviceError, LocalEngine, find_model, load_model, plan_load
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.loading import load, plan as plans
from gptoss.model.loading.load import prefix_identity
from gptoss.model.loading.plan import ONE_THREAD_BELOW, LoadPlan
from gptoss.model.loading.threads import DEFAULT_THREADS
from gptoss.model.ops.reference import ReferenceOps

PLENTY = 1 << 40


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(make_checkpoint, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def plain_folder(make_checkpoint, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("plain"), "hub_bf16")


class Large:
    """A model of which nothing is there."""

    has_packed_experts = True

    def __init__(self, folder: Path, nbytes: int) -> None:
        self.config = Checkpoint.open(folder).config
        self.nbytes = nbytes


def planned(folder: Path, *arguments, **options) -> LoadPlan:
    return plan_load(Checkpoint.open(folder), load_options(*arguments, **options))


NEEDED, AHEAD = "weights read when they are needed", "weights read ahead"


@pytest.mark.parametrize(
    ("options", "threads", "reading"),
    [
        ({}, "1 thread", NEEDED),
        ({"threads": 3}, "3 threads", NEEDED),
        ({"host_bytes": PLENTY}, "1 thread", AHEAD),
        ({"host_bytes": 1}, "1 thread", NEEDED),  # only the CPU's kernels read experts when a token chooses them
        ({"quantize": "mxfp4", "host_bytes": PLENTY}, "1 thread", AHEAD),  # the experts are packed already
    ],
)
def test_it_explains_itself(folder, options, threads, reading):
    assert str(planned(folder, **options)) == f"reference on cpu, {threads}, dense layers as stored; {reading}"


def test_it_explains_the_kernels(folder):
    pytest.importorskip("gptoss.model.kernels._cpu")
    told = "cpu on cpu, 1 thread, dense layers in int8; experts read when a token chooses them"
    assert str(planned(folder, "cpu", host_bytes=1)) == told
    assert "dense layers as stored" in str(planned(folder, "cpu", "bf16"))


def test_it_explains_packing_and_placement(folder, plain_folder):
    pytest.importorskip("triton", reason="Triton runs on Linux")
    plan = planned(plain_folder, quantize="mxfp4", host_bytes=PLENTY)
    assert plan.packs
    assert plan.loading == "weights read when they are needed, experts packed to MXFP4"
    told = planned(folder, "gpu", cpu_experts=1).loading
    assert told.endswith("the experts of 1 of 2 layers are computed on the CPU")


@pytest.mark.parametrize(
    ("nbytes", "asked", "given"),
    [
        (ONE_THREAD_BELOW - 1, None, 1),
        (ONE_THREAD_BELOW, None, DEFAULT_THREADS),
        (ONE_THREAD_BELOW - 1, 3, 3),
        (ONE_THREAD_BELOW, 3, 3),
    ],
)
def test_small_models_compute_on_one_thread(folder, nbytes, asked, given):
    assert plan_load(Large(folder, nbytes), load_options(threads=asked)).threads == given


def test_planning_changes_nothing_and_loading_follows_the_plan(folder):
    torch.set_num_threads(2)
    assert planned(folder, threads=3).threads == 3
    assert torch.get_num_threads() == 2
    result = loaded(folder, threads=3, max_context=77)
    assert torch.get_num_threads() == result.plan.threads == 3
    assert result.engine.info.max_context == result.plan.max_context == 77
    assert result.engine.transformer.ops is result.plan.ops


def test_a_context_that_the_model_was_not_made_for_is_refused(folder):
    with pytest.raises(ContextFullError, match="a context of 513 tokens: this model can hold 1 to 512"):
        planned(folder, max_context=513)


def test_the_engine_gets_its_memory_for_contexts(folder):
    assert loaded(folder, context_bytes=123).engine.contexts.limit == 123


@pytest.mark.parametrize("chosen", ["auto", "cuda"])
def test_only_auto_falls_back_to_the_cpu(folder, monkeypatch, chosen):
    def select_ops(device, *_):
        if device.type == "cuda":
            raise DeviceError("the card is too small")
        return ReferenceOps()

    monkeypatch.setattr(plans, "select_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(plans, "select_ops", select_ops)
    if chosen == "cuda":
        with pytest.raises(DeviceError, match="too small"):
            planned(folder, device="cuda")
        return
    plan = planned(folder, device="auto")
    assert (plan.device.type, plan.fallback) == ("cpu", "the card is too small")
    assert str(plan).startswith("reference on cpu, 1 thread, dense layers as stored (the card is too small); ")


def test_experts_on_the_cpu_are_part_of_what_prefixes_depend_on(folder):
    pytest.importorskip("triton", reason="Triton runs on Linux")
    identities = [prefix_identity(planned(folder, "gpu", cpu_experts=n)) for n in (0, 1, 1, 2)]
    assert len(set(identities)) == 3
    assert identities[1] == identities[2]


@pytest.mark.parametrize(
    "change",
    [
        lambda plan, patch: patch.setattr(load, "version", lambda name: f"{name} of another day"),
        lambda plan, patch: patch.setattr("sys.byteorder", "big"),
        lambda plan, patch: patch.setattr("torch.__version__", "9.9"),
        lambda plan, patch: replace(plan, device=torch.device("meta")),
        lambda plan, patch: replace(plan, packs=not plan.packs),
        lambda plan, patch: replace(plan, ops=ReferenceOps()),
    ],
    ids=["gptoss", "byte order", "torch", "device", "packing", "backend"],
)
def test_everything_that_affects_numerics_is_part_of_what_prefixes_depend_on(folder, monkeypatch, change):
    plan = planned(folder, "cpu")
    before = prefix_identity(plan)
    assert prefix_identity(planned(folder, "cpu")) == before
    changed = change(plan, monkeypatch) or plan
    assert prefix_identity(changed) != before


def test_a_model_is_loaded_by_its_name_or_its_folder(folder, tmp_path):
    options = load_options()
    assert isinstance(load_model(folder, options), LocalEngine)
    engine = load_model(str(folder), options)
    assert engine.transformer.config.vocab_size == 96
    nano = find_model("nano")
    assert load_model("nano", options).info == load_model(nano, options).info
    (tmp_path / "mine").symlink_to(folder)
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "mine").symlink_to(folder)
    assert load_model("me/mine", options, models_folder=tmp_path, hub_cache=tmp_path).info == engine.info


def test_the_options_wait_for_no_torch():
    code = "import sys; from gptoss.model import ComputeOptions, LoadOptions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
