"""Configs of every published dialect, and what is refused in them."""

import json

import pytest
from transformers import GptOssConfig

from gptoss.model.checkpoints.config_dialects import parse_model_config
from gptoss.model.checkpoints.config_files import load_config, load_generation_defaults
from gptoss.model.config import GenerationDefaults, LayerConfig, RopeConfig
from gptoss.model.errors import CheckpointError, ConfigError, UnsupportedModelError

ORIGINAL_20B = {
    "num_hidden_layers": 24,
    "num_experts": 32,
    "experts_per_token": 4,
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "swiglu_limit": 7.0,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "sliding_window": 128,
    "initial_context_length": 4096,
    "rope_theta": 150000,
    "rope_scaling_factor": 32.0,
    "rope_ntk_alpha": 1,
    "rope_ntk_beta": 32,
}
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
}


def _hub_20b(**changes) -> dict:
    """What the transformers library writes, with some keys changed, or removed where the new value is ..."""
    config = GptOssConfig(num_hidden_layers=24, num_local_experts=32).to_dict() | changes
    return {key: value for key, value in config.items() if value is not ...}


def _transformers4(**changes) -> dict:
    return _hub_20b(rope_parameters=..., rope_theta=150000, rope_scaling=YARN, **changes)


def test_the_published_20b_is_read_the_same_from_every_dialect():
    config = parse_model_config(ORIGINAL_20B)
    assert config == parse_model_config(_hub_20b()) == parse_model_config(_transformers4())
    assert config.rope == RopeConfig(150000.0, 32.0, 4096, beta_fast=32.0, beta_slow=1.0, truncate=False)
    assert config.max_context_length == 131072
    assert config.layers == (LayerConfig(32, 4, 128), LayerConfig(32, 4, None)) * 12
    assert (config.rms_norm_eps, config.swiglu_limit, config.swiglu_alpha) == (1e-5, 7.0, 1.702)
    # The model card counts 20.91 billion weights.
    assert round(config.num_weights / 1e9, 2) == 20.91


def test_ramp_bounds_are_those_of_the_reference():
    # gpt_oss/torch/model.py: d_half * log(4096 / (beta * 2 pi)) / log(150000)
    low, high = parse_model_config(ORIGINAL_20B).rope.ramp_bounds(64)
    assert low == pytest.approx(8.0927791, abs=1e-6)
    assert high == pytest.approx(17.3980245, abs=1e-6)
    assert RopeConfig(150000.0, 32.0, 4096, truncate=True).ramp_bounds(64) == (8.0, 18.0)


def test_puzzle_layers_differ(make_config):
    config = parse_model_config(make_config("puzzle", experts=(4, 2, 4), windows=(8, 16, None)))
    assert config.architecture == "gpt_oss_puzzle"
    assert config.layers == (LayerConfig(4, 2, 8), LayerConfig(2, 2, 16), LayerConfig(4, 2, None))


def test_plain_rope_must_be_asked_for_by_name():
    config = parse_model_config(_hub_20b(rope_parameters={"rope_type": "default", "rope_theta": 1e4}))
    assert (config.rope.factor, config.rope.concentration) == (1.0, 1.0)


def test_the_window_zero_of_the_original_dialect_is_none():
    assert parse_model_config(ORIGINAL_20B | {"sliding_window": 0}).layers[0].sliding_window is None


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_parameters": ...}, "rope_parameters and rope_scaling are missing"),
        ({"rope_parameters": None}, "rope_parameters and rope_scaling are missing"),
        ({"rope_parameters": []}, "rope_parameters is not an object"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "does not say its rope_type"),
        ({"rope_parameters": YARN | {"rope_type": "llama3", "rope_theta": 1e4}}, "of the type 'llama3'"),
        ({"rope_parameters": YARN | {"type": "linear", "rope_theta": 1e4}}, "only yarn and default"),
        ({"rope_parameters": YARN}, "rope_theta is missing"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4}, "rope_theta": 2e4}, "rope_theta beside it disagree"),
        ({"rope_scaling": YARN | {"factor": 8.0, "rope_theta": 150000}}, "rope_scaling disagree"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "factor": 32}}, "is it yarn?"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "factor": ...}}, "factor is missing"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "short_factor": [1]}}, "'short_factor', which is not"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "attention_factor": 1.0}}, "attention_factor other than"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "mscale": 1.0}}, "mscale"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "only a part"),
        ({"rope_parameters": YARN | {"rope_theta": 1}}, "rope theta is 1.0"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "factor": 0}}, "rope factor is 0.0"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "beta_slow": 0}}, "beta_slow is 0.0"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "beta_fast": 1.0}}, "beta_fast is 1.0"),
        ({"rope_parameters": YARN | {"rope_theta": 1e4, "original_max_position_embeddings": 6}}, "ramp is empty"),
        ({"rope_parameters": {"full_attention": YARN, "sliding_attention": YARN}}, "which is not understood"),
    ],
)
def test_a_rope_that_is_not_understood_is_refused(rope, message):
    values = _hub_20b(**rope)
    if isinstance(values.get("rope_parameters"), dict):
        values["rope_parameters"] = {k: v for k, v in values["rope_parameters"].items() if v is not ...}
    with pytest.raises(ConfigError) as error:
        parse_model_config(values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 0},
        {"hidden_size": -64},
        {"hidden_size": 64.0},
        {"hidden_size": True},
        {"hidden_size": "2880"},
        {"hidden_size": 1 << 40},
        {"hidden_size": None},
        {"hidden_size": ...},
        {"vocab_size": 1 << 31},
        {"intermediate_size": 10**4000},
        {"hidden_size": 1 << 20, "intermediate_size": 1 << 20, "vocab_size": 1 << 22},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 0},
        {"num_attention_heads": 0},
        {"num_attention_heads": 1 << 20},
        {"num_key_value_heads": 0},
        {"num_key_value_heads": 7},
        {"num_key_value_heads": 128},
        {"head_dim": 63},
        {"head_dim": 0},
        {"num_local_experts": 0},
        {"num_local_experts": 3},
        {"num_experts_per_tok": 0},
        {"num_experts_per_tok": 33},
        {"sliding_window": None},
        {"sliding_window": 0},
        {"sliding_window": -1},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["chunked_attention"] * 24},
        {"layer_types": [[]] * 24},
        {"layer_types": {}},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": 1 << 50},
        {"rms_norm_eps": 0},
        {"rms_norm_eps": "1e-5"},
        {"rms_norm_eps": 10**4000},
        {"swiglu_limit": 0},
        {"swiglu_alpha": -1.0},
        {"tie_word_embeddings": 1},
        {"block_configs": []},
        {"block_configs": [{}] * 24},
        {"block_configs": [{"num_local_experts": 32}] * 24},
        {"block_configs": [{"num_local_experts": 32, "sliding_window": 0}] * 24},
        {"block_configs": [None] * 24},
        {"model_type": "gpt_oss_puzzle"},
        {"model_type": ...},
    ],
    ids=lambda changes: ",".join(f"{k}={str(v)[:24]}" for k, v in changes.items()),
)
def test_what_cannot_be_is_refused(changes):
    with pytest.raises(ConfigError) as error:
        parse_model_config(_hub_20b(**changes))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "the architecture is 'llama'"),
        ({"model_type": ["gpt_oss"]}, "the architecture is"),
        ({"model_type": "a\x1b[2J\nb"}, r"'a\x1b[2J\nb'"),
        ({"hidden_act": "gelu"}, "activation"),
        ({"attention_bias": False}, "biases"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised with 'bitsandbytes'"),
        ({"quantization_config": {}}, "does not say how the weights were quantised"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
    ],
)
def test_other_models_are_named(changes, message):
    with pytest.raises(UnsupportedModelError) as error:
        parse_model_config(_hub_20b(**changes))
    assert message in str(error.value)


def test_no_key_of_the_original_dialect_may_be_missing(make_config):
    """Without any of them, another model would be read, or none."""
    required = set(make_config("original"))
    optional = {"swiglu_limit"}
    for key in sorted(required - optional):
        values = make_config("original")
        del values[key]
        with pytest.raises(ConfigError):
            parse_model_config(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"[]", "holds a list"),
        (b"\xff\xfe{}", "is not JSON"),
        (b'{"a": NaN}', "not a JSON number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1, "a": 2}', "names 'a' twice"),
        (b'{"a": ' + b"[" * 100_000, "levels deep"),
        (b'{"a": ' * 200_000, "levels deep"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "is not JSON"),
        (b'{"a": "' + b"x" * (5 << 20) + b'"}', "longer than"),
    ],
)
def test_broken_json(tmp_path, text, message):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError) as error:
        load_config(tmp_path)
    assert message in str(error.value)
    assert "config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_load_config_names_the_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(_hub_20b(hidden_size=0)))
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path)
    assert str(error.value) == f"'{tmp_path}/config.json': hidden_size is 0, outside 1 to 1048576"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"do_sample": True, "eos_token_id": [200002, 199999, 200012], "pad_token_id": 199999},
            GenerationDefaults(stop_token_ids=(200002, 199999, 200012)),
        ),
        ({"do_sample": False, "temperature": 0.7}, GenerationDefaults(temperature=0.0)),
        (
            {"temperature": 0.6, "top_p": 0.9, "top_k": 40, "min_p": 0.05},
            GenerationDefaults(temperature=0.6, top_p=0.9, top_k=40, min_p=0.05),
        ),
        ({"top_p": 1, "top_k": 0, "min_p": 0.0, "temperature": None}, GenerationDefaults()),
        ({"eos_token_id": 5}, GenerationDefaults(stop_token_ids=(5,))),
        ({"eos_token_id": [5, 5, 3]}, GenerationDefaults(stop_token_ids=(5, 3))),
    ],
)
def test_generation_defaults(tmp_path, values, expected):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    assert load_generation_defaults(tmp_path) == expected


def test_no_generation_config_asks_for_nothing(tmp_path):
    assert load_generation_defaults(tmp_path) == GenerationDefaults()


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"temperature": "0"},
        {"temperature": 1e9},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": -2},
        {"top_k": 1.5},
        {"min_p": 2},
        {"do_sample": 0},
        {"eos_token_id": -1},
        {"eos_token_id": True},
        {"eos_token_id": ["x"]},
        {"eos_token_id": {}},
        {"eos_token_id": 1 << 40},
        {"eos_token_id": list(range(100_000))},
    ],
)
def test_broken_generation_configs(tmp_path, values):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError) as error:
        load_generation_defaults(tmp_path)
    assert "generation_config.json" in str(error.value)
