"""`--dense`: a flag over the variable over the config file, and what reaches the kernels."""

import pytest

from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.cli.startup.loading import load_model


def requested(gptoss, scripted, encoding, reply, *arguments, **options):
    requests = []
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("Hello"))])

    def load(request):
        requests.append(request)
        return LoadedModel(request.model, engine, encoding)

    result = gptoss("ask", *arguments, "Hi", load=load, engine=engine, **options)
    assert (result.status, result.stderr) == (0, "")
    (request,) = requests
    return request.dense


@pytest.mark.parametrize(
    ("config", "variable", "flag", "dense"),
    [
        (None, None, None, None),
        ("bf16", None, None, "bf16"),
        ("bf16", "int8", None, "int8"),
        ("bf16", "int8", "bf16", "bf16"),
        (None, "bf16", None, "bf16"),
        (None, "", None, None),
    ],
)
def test_order(gptoss, scripted, encoding, reply, tmp_path, config, variable, flag, dense):
    if config is not None:
        assert gptoss("config", "set", "dense", config).status == 0
    variables = {} if variable is None else {"GPTOSS_CPU_DENSE": variable}
    arguments = () if flag is None else ("--dense", flag)
    assert requested(gptoss, scripted, encoding, reply, *arguments, variables=variables) == dense


def test_a_wrong_value_names_its_place(gptoss):
    result = gptoss("ask", "Hi", variables={"GPTOSS_CPU_DENSE": "float3"})
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == (
        "gptoss: environment variable GPTOSS_CPU_DENSE: dense is 'float3', it must be one of int8, bf16\n"
    )


@pytest.mark.parametrize(("dense", "kept"), [("bf16", "bf16"), ("int8", "int8"), (None, "int8")])
def test_the_kernels_keep_them_so(tmp_path, monkeypatch, dense, kept):
    pytest.importorskip("gptoss.model.kernels._cpu")
    monkeypatch.setenv("GPTOSS_BACKEND", "cpu")
    request = LoadRequest(model="nano", models_folder=tmp_path, device="cpu", dense=dense)
    assert load_model(request).engine.transformer.ops.dense == kept


def test_plain_torch_says_that_it_does_not(tmp_path, caplog):
    load_model(LoadRequest(model="nano", models_folder=tmp_path, device="cpu", dense="int8"))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the backend reference keeps dense layers as they are, not in int8"
    ]
    caplog.clear()
    load_model(LoadRequest(model="nano", models_folder=tmp_path, device="cpu", dense="bf16"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
