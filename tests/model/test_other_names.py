"""Checkpoints as other programs save them: other names for the same tensors load, other formats are named."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from loaded import loaded_transformer
from safetensors.torch import load_file, save_file
from transformers import GptOssForCausalLM

from gptoss.model.checkpoints.catalog import locate
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.config_files import load_generation_defaults
from gptoss.model.checkpoints.verify import verify
from gptoss.model.errors import CheckpointError, ConfigError, ModelNotFoundError, SamplingError, UnsupportedModelError
from gptoss.model.inference.sampler import Sampler
from gptoss.model.interface import SamplingParams

TOKENS = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(7))
Tensors = dict[str, torch.Tensor]


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return loaded_transformer(folder)(TOKENS)


@pytest.fixture
def changed(make_checkpoint, tmp_path) -> Callable[..., Path]:
    """A made checkpoint with its tensors and config changed by functions."""

    def change(layout: str, tensors: Callable[[Tensors], Tensors] = dict, **config: object) -> Path:
        folder = make_checkpoint(tmp_path / f"changed-{len(list(tmp_path.iterdir()))}", layout)
        path = folder / "model.safetensors"
        after = tensors(load_file(path))
        save_file({name: tensor.contiguous() for name, tensor in after.items()}, path)
        values = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}))
        return folder

    return change


def renamed(pattern: str, by: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {re.sub(pattern, by, name): tensor for name, tensor in tensors.items()}


def per_expert(tensors: Tensors) -> Tensors:
    after: Tensors = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*\.experts\.(?:gate_up|down)_proj)(_bias)?", name)
        if match is None:
            after[name] = tensor
            continue
        for expert, part in enumerate(tensor):
            kind, value = ("bias", part) if match[2] else ("weight", part.T)
            after[f"{match[1]}s.{expert}.{kind}"] = value.clone()
    return after


def as_original(tensors: Tensors) -> Tensors:
    """The hub's bf16 tensors in OpenAI's names."""
    names = {
        "model.embed_tokens.weight": "embedding.weight",
        "lm_head.weight": "unembedding.weight",
        "model.norm.weight": "norm.scale",
    }
    inner = {
        "self_attn.o_proj.weight": "attn.out.weight",
        "self_attn.o_proj.bias": "attn.out.bias",
        "self_attn.sinks": "attn.sinks",
        "input_layernorm.weight": "attn.norm.scale",
        "post_attention_layernorm.weight": "mlp.norm.scale",
        "mlp.router.weight": "mlp.gate.weight",
        "mlp.router.bias": "mlp.gate.bias",
        "mlp.experts.gate_up_proj_bias": "mlp.mlp1_bias",
        "mlp.experts.down_proj_bias": "mlp.mlp2_bias",
    }
    after = {new: tensors[old] for old, new in names.items()}
    for layer in range(2):
        old, new = f"model.layers.{layer}.", f"block.{layer}."
        after |= {new + theirs: tensors[old + ours] for ours, theirs in inner.items()}
        for kind in ("weight", "bias"):
            parts = [tensors[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            after[f"{new}attn.qkv.{kind}"] = torch.cat(parts)
        after[f"{new}mlp.mlp1_weight"] = tensors[f"{old}mlp.experts.gate_up_proj"].transpose(1, 2)
        after[f"{new}mlp.mlp2_weight"] = tensors[f"{old}mlp.experts.down_proj"].transpose(1, 2)
    return after


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("hub_mxfp4", renamed(r"mlp\.router\.", "mlp.router.linear.")),
        ("hub_mxfp4", renamed(r"^", "_orig_mod.")),
        ("hub_bf16", renamed(r"^model\.", "model._orig_mod.")),
        ("hub_mxfp4", renamed(r"^", "module.")),
        ("hub_bf16", renamed(r"layers\.(\d+)\.", r"layers.\1._checkpoint_wrapped_module.")),
        ("hub_mxfp4", renamed(r"^", "_forward_module._fsdp_wrapped_module.")),
        ("hub_bf16", per_expert),
        ("hub_bf16", lambda tensors: renamed(r"mlp\.router\.", "mlp.router.linear.")(per_expert(tensors))),
    ],
    ids=[
        "router.linear",
        "_orig_mod",
        "model._orig_mod",
        "module",
        "checkpointing",
        "sharded",
        "per expert",
        "Unsloth",
    ],
)
def test_other_names_for_the_same_tensors_give_the_same_logits(changed, layout, change):
    folder = changed(layout, change)
    assert torch.equal(logits(folder), logits(changed(layout)))
    assert verify(folder).sound


def test_bf16_experts_in_openais_layout(changed, make_checkpoint, tmp_path):
    original = json.loads((make_checkpoint(tmp_path / "original", "original") / "config.json").read_text())
    folder = changed("hub_bf16", as_original, **{"model_type": "absent", "quantization_config": "absent"})
    (folder / "config.json").write_text(json.dumps(original))
    checkpoint = Checkpoint.open(folder)
    assert (checkpoint.layout.value, checkpoint.has_packed_experts) == ("OpenAI original, unpacked experts", False)
    assert torch.equal(logits(folder), logits(changed("hub_bf16")))


def test_head_of_its_own_goes_before_the_tie(changed, tmp_path):
    folder = changed("hub_bf16", tie_word_embeddings=True)
    model = GptOssForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        torch.testing.assert_close(logits(folder), model(TOKENS[None]).logits[0], atol=2e-4, rtol=1e-4)
    assert torch.equal(logits(folder), logits(changed("hub_bf16")))
    (note,) = Checkpoint.open(folder).notes
    assert "one of its own: it is used" in note
    assert verify(folder).notes == (note,)
    tied = changed("hub_bf16", without("lm_head.weight"), tie_word_embeddings=True)
    assert Checkpoint.open(tied).notes == ()
    assert not torch.equal(logits(tied), logits(folder))


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {other: tensor for other, tensor in tensors.items() if other != name}


def test_tensors_outside_the_layers_that_are_not_known_are_named(changed):
    extra = {"_orig_mod.lm_head.weight": torch.zeros(96, 64), "score.weight": torch.zeros(2)}
    folder = changed("hub_bf16", lambda tensors: tensors | extra)
    assert Checkpoint.open(folder).notes == ("not used: '_orig_mod.lm_head.weight', 'score.weight'",)
    assert torch.equal(logits(folder), logits(changed("hub_bf16")))
    assert verify(folder).sound


def test_tensors_that_the_index_leaves_out_are_used(changed):
    folder = changed("hub_bf16", tie_word_embeddings=True)
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    listed = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    del listed["lm_head.weight"]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    model = GptOssForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        torch.testing.assert_close(logits(folder), model(TOKENS[None]).logits[0], atol=2e-4, rtol=1e-4)
    assert torch.equal(logits(folder), logits(changed("hub_bf16")))


def beside(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.zeros(4)}


def as_bytes(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.uint8).reshape(-1, 1) if name.endswith("q_proj.weight") else tensor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (beside("model.layers.0.self_attn.q_proj.lora_A.weight"), "a LoRA adapter beside .* merge it"),
        (renamed(r"^model\.", "base_model.model.model."), "PEFT has not merged .* merge it"),
        (renamed(r"q_proj\.weight", "q_proj.base_layer.weight"), "PEFT has not merged"),
        (beside("model.layers.0.mlp.experts.down_proj_weight_scale_2"), "NVFP4 weights .* use the MXFP4 or bf16"),
        (beside("model.layers.0.self_attn.q_proj.qweight"), "GPTQ or AWQ weights"),
        (beside("model.layers.0.self_attn.q_proj.weight.absmax"), "bitsandbytes weights"),
        (renamed(r"experts\.gate_up_proj$", "experts.gate_proj.weight"), "MLX weights"),
        (beside("model.embed_tokens.lora_embedding_A.default"), "a LoRA adapter beside"),
        (beside("model.layers.0.self_attn.q_proj.lora_magnitude_vector"), "a LoRA adapter beside"),
        (renamed(r"^lm_head\.", "lm_head.modules_to_save.default."), "PEFT has not merged"),
        (beside("model.layers.0.self_attn.q_proj.weight_scale_inv"), "weights in FP8"),
        (beside("model.layers.0.self_attn.q_proj.SCB"), "bitsandbytes weights"),
        (renamed(r"q_proj\.weight", "q_proj.trellis"), "EXL2 or EXL3 weights"),
        (renamed(r"q_proj", "qkv_proj"), "q_proj.* but .*qkv_proj.* in a format that is not read here"),
        (renamed(r"experts\.gate_up_proj$", "experts.w13_weight"), "but .*w13_weight.* in a format that is not read"),
        (lambda tensors: {name: as_bytes(name, tensor) for name, tensor in tensors.items()}, "has the type U8, not"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_other_formats_are_named_with_the_remedy(changed, change, message):
    folder = changed("hub_bf16", change)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder)
    assert re.search(message, verify(folder).faults[0])


def test_quantisation_without_a_method_is_named(changed):
    with pytest.raises(UnsupportedModelError, match="does not say how the weights were quantised"):
        Checkpoint.open(changed("hub_bf16", quantization_config={"bits": 4}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "is a web page"),
        (b"\n  <html><head>", "is a web page"),
        (b"<?xml version='1.0'?><Error/>", "is a web page"),
        (b"\r\nversion https://git-lfs.github.com/spec/v1\r\n", "is a Git LFS pointer"),
        (b"<Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b"<!-- 404 -->", "is a web page"),
        ("<html>".encode("utf-16"), "is a web page"),
        (b"/annex/objects/MD5E-s1--abc", "is a git-annex pointer"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "is a gzip archive"),
        (b"PK\x03\x04" + bytes(99), "is a zip archive"),
        (b"GGUF\x03\x00\x00\x00" + bytes(99), "is a GGUF file"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_a_download_left_is_named(changed, content, message, name):
    folder = changed("hub_bf16")
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder)
    assert message in verify(folder).faults[0]


@pytest.mark.parametrize("content", [b'{"error":"Repository not found"}', b"Entry not found", b"Invalid user"])
def test_message_of_a_server_in_place_of_weights_is_quoted(changed, content):
    folder = changed("hub_bf16")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is a text, such as the message of a server \('(.*not found|Invalid)"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_empty_file_is_named(changed, content):
    folder = changed("hub_bf16")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="is empty, not the file itself"):
        Checkpoint.open(folder)


def test_a_listed_name_is_found_by_it(make_checkpoint, tmp_path):
    models = tmp_path / "models"
    mine, theirs = make_checkpoint(models / "mine"), make_checkpoint(models / "owner" / "theirs")
    original = make_checkpoint(models / "old" / "original", "original")
    found = [locate(name, models, tmp_path / "hub") for name in ("mine", "owner/theirs", "old")]
    assert found == [mine, theirs, original]
    tagged = [make_checkpoint(models / name) for name in ("owner/mine@tuned", "20b-mine", "with a blank", ".hidden")]
    found = [
        locate(name, models, tmp_path / "hub") for name in ("owner/mine@tuned", "20b-mine", "with a blank", ".hidden")
    ]
    assert found == tagged
    for name in ("mine/..", "a/b/c", "", "nowhere", "owner/mine@other"):
        with pytest.raises(ModelNotFoundError):
            locate(name, models, tmp_path / "hub")


@pytest.mark.parametrize("temperature", [1e-46, 1e-7, 1e39, float("inf"), float("nan"), -1.0])
def test_temperatures_beyond_float32_are_refused(temperature, changed):
    with pytest.raises(SamplingError, match=r"temperature is .*, it must be 0, or from 1e-06 to 100"):
        SamplingParams(temperature=temperature)
    folder = changed("hub_bf16")
    (folder / "generation_config.json").write_text(json.dumps({"temperature": temperature}))
    with pytest.raises(CheckpointError, match=r"temperature|NaN|Infinity|not finite"):
        load_generation_defaults(folder)


@pytest.mark.parametrize("field", ["top_k", "seed", "max_tokens", "top_logprobs"])
@pytest.mark.parametrize("value", [1.5, True, "3"])
def test_whole_numbers_are_whole(field, value):
    with pytest.raises(SamplingError, match=f"{field} is .*, it must be a whole number"):
        SamplingParams(**{field: value})


def test_weights_that_are_no_numbers_draw_no_token(monkeypatch):
    sampler = Sampler(SamplingParams(seed=1))
    monkeypatch.setattr(sampler, "probabilities", lambda logits: torch.full_like(logits, float("nan")))
    with pytest.raises(SamplingError, match="not finite"):
        sampler.sample(torch.zeros(8))


def test_top_k_of_generation_config_is_off_at_0_and_minus_1(changed, caplog):
    folder = changed("hub_bf16")
    for value in (0, -1):
        (folder / "generation_config.json").write_text(json.dumps({"top_k": value}))
        assert load_generation_defaults(folder).top_k is None
    (folder / "generation_config.json").write_text(json.dumps({"top_k": -2}))
    with pytest.raises(ConfigError):
        load_generation_defaults(folder)
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.1}))
    load_generation_defaults(folder)
    assert "repetition_penalty of 1.1, which is not applied" in caplog.text


@pytest.mark.parametrize(
    "part", ["embed_tokens", "lm_head", "router.weight", "router.bias", "post_attention_layernorm", "sinks", "experts"]
)
def test_verify_looks_for_numbers_in_every_float_tensor(changed, part):
    def damage(tensors: Tensors) -> Tensors:
        name = next(name for name in tensors if part in name)
        tensors[name].view(-1)[0] = float("nan")
        return tensors

    faults = verify(changed("hub_bf16", damage)).faults
    assert len(faults) == 1
    assert "infinite or not a number" in faults[0]
