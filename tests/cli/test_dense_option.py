"""`--dense` and the variables of the kernels: which goes before which, where each counts, and what wrong ones say."""

import pytest
import torch
from requested import load_request

from gptoss.cli.base.settings import Backend, CpuIsa, DenseLayers, Kernels, load_settings
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.cli.startup.loading import load_model, load_options
from gptoss.model.checkpoints.published_configs import published_config
from gptoss.model.loading import plan
from gptoss.model.loading.plan import plan_load
from gptoss.model.measure.synthetic import SyntheticModel
from gptoss.model.ops import options, select
from gptoss.model.ops.reference import ReferenceOps


def requested(gptoss, scripted, encoding, reply, *arguments, **others):
    requests = []
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("Hello"))])

    def load(request):
        requests.append(request)
        return LoadedModel(request.model, engine, encoding)

    result = gptoss("ask", *arguments, "Hi", load=load, engine=engine, **others)
    assert (result.status, result.stderr) == (0, "")
    (request,) = requests
    return request.settings


def test_a_flag_goes_before_the_config_file(gptoss, scripted, encoding, reply):
    assert requested(gptoss, scripted, encoding, reply).dense is None
    assert gptoss("config", "set", "dense", "bf16").status == 0
    assert requested(gptoss, scripted, encoding, reply).dense == "bf16"
    assert requested(gptoss, scripted, encoding, reply, "--dense", "int8").dense == "int8"


def test_variables_of_the_kernels_are_handed_down(gptoss, scripted, encoding, reply):
    variables = {"BACKEND": "cpu", "CPU_ISA": "avx2", "CPU_DENSE": "bf16", "GPU_DENSE": "int8"}
    variables = {f"GPTOSS_{name}": value for name, value in variables.items()}
    settings = requested(gptoss, scripted, encoding, reply, "--threads", "3", variables=variables)
    chosen = load_options(settings)
    assert chosen.compute == options.ComputeOptions(backend="cpu", dense=None, isa="avx2", threads=3)
    assert (chosen.cpu_dense, chosen.gpu_dense) == ("bf16", "int8")
    none = requested(gptoss, scripted, encoding, reply, variables=dict.fromkeys(variables, ""))
    assert none.kernels == Kernels()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("GPTOSS_CPU_DENSE", "float3", "dense is 'float3', it must be one of int8, bf16"),
        ("GPTOSS_GPU_DENSE", "INT8", "dense is 'INT8', it must be one of int8, bf16"),
        ("GPTOSS_BACKEND", "abacus", "backend is 'abacus', it must be one of cpu, gpu, reference"),
        ("GPTOSS_CPU_ISA", "sse2\n", "isa is 'sse2\\n', it must be one of avx512, avx2, portable"),
    ],
)
@pytest.mark.parametrize("command", [("ask", "Hi"), ("bench",), ("show", "nano")])
def test_a_wrong_value_names_its_variable(gptoss, variable, value, told, command):
    result = gptoss(*command, variables={variable: value})
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == f"gptoss: environment variable {variable}: {told}\n"


def test_the_choices_are_those_of_the_kernels():
    assert {*Backend} == {*options.Backend.__args__}
    assert {*DenseLayers} == {*options.Dense.__args__}
    _cpu = pytest.importorskip("gptoss.model.kernels._cpu")
    assert {*_cpu.isas()} <= {*CpuIsa}


def dense_of(monkeypatch, device, **settings):
    """The form of the dense layers that the backend is asked for on this device."""
    asked = []

    def selected(_device, compute, _pager):
        asked.append(compute.dense)
        return ReferenceOps()

    monkeypatch.setattr(plan, "select_ops", selected)
    monkeypatch.setattr(plan, "select_device", lambda _: torch.device(device))
    monkeypatch.setattr(select, "automatic_backend", lambda _: {"cuda": "gpu", "mps": "reference"}.get(device, device))
    plan_load(SyntheticModel(published_config("20b")), load_options(load_settings(**settings)))
    return asked.pop()


@pytest.mark.parametrize(
    ("device", "backend", "flag", "dense"),
    [
        ("cpu", "", None, "bf16"),
        ("cuda", "", None, "int8"),
        ("mps", "", None, None),
        ("cpu", "gpu", None, "int8"),  # Triton's interpreter
        ("cuda", "reference", None, None),
        ("cpu", "", "int8", "int8"),
        ("cuda", "", "bf16", "bf16"),
    ],
)
@pytest.mark.parametrize("place", ["flag", "config"])
def test_a_variable_counts_where_its_hardware_computes(monkeypatch, tmp_path, device, backend, flag, dense, place):
    config = tmp_path / "config.toml"
    config.write_text(f'dense = "{flag}"' if place == "config" and flag else "")
    flags = {"dense": flag} if place == "flag" else {}
    variables = {"GPTOSS_CPU_DENSE": "bf16", "GPTOSS_GPU_DENSE": "int8", "GPTOSS_BACKEND": backend}
    assert dense_of(monkeypatch, device, flags=flags, variables=variables, config=config) == dense


@pytest.mark.parametrize(("dense", "kept"), [("bf16", "bf16"), ("int8", "int8"), (None, "int8")])
def test_the_kernels_keep_them_so(tmp_path, dense, kept):
    pytest.importorskip("gptoss.model.kernels._cpu")
    request = load_request("nano", tmp_path, "cpu", dense=dense and DenseLayers(dense))
    assert load_model(request).engine.transformer.ops.dense == kept


def test_plain_torch_says_that_it_does_not(tmp_path, caplog):
    load_model(load_request("nano", tmp_path, dense=DenseLayers.INT8))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the backend reference keeps dense layers as they are, not in int8"
    ]
    caplog.clear()
    load_model(load_request("nano", tmp_path, dense=DenseLayers.BF16))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
