"""`--device` and `--cpu-experts`: what reaches the loader, and what is said."""

import pytest
import torch
from requested import load_request

from gptoss.cli.startup.loaded import LoadedModel
from gptoss.cli.startup.loading import load_model
from gptoss.model import DeviceError
from gptoss.model.loading import load, plan

NO_CARD = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")


def run(gptoss, scripted, encoding, reply, *arguments):
    requests = []
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("Hello"))])

    def load(request):
        requests.append(request)
        request.progress(0.5)
        return LoadedModel(request.model, engine, encoding)

    result = gptoss("ask", *arguments, "Hi", load=load, engine=engine)
    assert result.status == 0
    return requests[0].settings


def test_the_flag_and_the_config_file_reach_the_loader(gptoss, scripted, encoding, reply, tmp_path):
    assert run(gptoss, scripted, encoding, reply).cpu_experts is None
    settings = run(gptoss, scripted, encoding, reply, "--cpu-experts", "5", "--device", "cuda")
    assert (settings.cpu_experts, settings.device) == (5, "cuda")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "config.toml").write_text("cpu_experts = 0")
    assert run(gptoss, scripted, encoding, reply).cpu_experts == 0


def test_a_number_that_cannot_be_is_wrong_usage(gptoss, tmp_path):
    result = gptoss("ask", "--cpu-experts", "-1", "Hi")
    assert result.status == 2
    assert "--cpu-experts" in result.stderr
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "config.toml").write_text('cpu_experts = "all"')
    result = gptoss("ask", "Hi")
    assert result.status == 2
    assert "cpu_experts is 'all', it must be a whole number, 0 or more" in result.stderr


@NO_CARD
def test_without_a_card_one_line_says_what_to_do(gptoss):
    result = gptoss("ask", "-m", "nano", "--device", "cuda", "Hi", load=load_model)
    assert result.status != 0
    (line,) = result.stderr.splitlines()
    assert "device 'cuda' is not there" in line
    assert "use auto or cpu" in line


def test_experts_on_the_host_are_told_of(tmp_path, make_checkpoint, make_byte_tokenizer):
    """In Triton's interpreter, where the CPU passes for the card."""
    pytest.importorskip("triton", reason="Triton runs on Linux")
    folder = make_checkpoint(tmp_path / "model", vocabulary=300)
    make_byte_tokenizer(
        folder, [f"<|{name}|>" for name in ("return", "call", "end", "start", "message", "channel", "constrain")]
    )
    loaded = load_model(load_request(str(folder), tmp_path, "gpu", cpu_experts=1))
    assert loaded.engine.transformer.ops.name == "gpu"
    assert loaded.notes == ("the experts of 1 of 2 layers are computed on the CPU",)
    assert load_model(load_request(str(folder), tmp_path, "gpu")).notes == ()


@pytest.mark.parametrize("too_small_for", ["the plan", "the weights"])
def test_auto_falls_back_to_the_cpu_where_the_card_is_too_small(tmp_path, monkeypatch, too_small_for):
    module, name = (plan, "_plan") if too_small_for == "the plan" else (load, "carry_out")
    real, told = getattr(module, name), []

    def too_small(*arguments, **options):
        if torch.device("cuda") in arguments or getattr(arguments[0], "device", None) == torch.device("cuda"):
            raise DeviceError("the card has 0.1 GB free")
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, too_small)
    monkeypatch.setattr(plan, "select_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(plan, "free_device_bytes", lambda _: None)
    loaded = load_model(load_request("nano", tmp_path, device="auto", notify=told.append))
    assert loaded.engine.transformer.device.type == loaded.plan.device.type == "cpu"
    assert told == ["the card has 0.1 GB free; falling back to the CPU"]
    assert "the card has 0.1 GB free" in str(loaded.plan)
    with pytest.raises(DeviceError, match=r"0\.1 GB"):
        load_model(load_request("nano", tmp_path, device="cuda"))
