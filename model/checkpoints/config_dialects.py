"""Parses the dialects of gpt-oss configs.

OpenAI's `original/config.json` is flat, without a `model_type`. The hub's is that of the transformers library, whose
version 4 writes `rope_theta` beside `rope_scaling`, and version 5 writes `rope_parameters` with theta inside. Puzzle
models add `block_configs`, one entry a layer. A rope with an unknown field is refused: a model that was trained with
YaRN silently answers nonsense without it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, TypedDict

from gptoss.model.checkpoints.config_values import boolean, integer, number, optional_number
from gptoss.model.config import (
    MAX_CONTEXT,
    MAX_DIMENSION,
    MAX_EXPERTS,
    MAX_LAYERS,
    MAX_STOP_TOKENS,
    MAX_VOCABULARY,
    RMS_NORM_EPS,
    SWIGLU_ALPHA,
    SWIGLU_LIMIT,
    GenerationDefaults,
    LayerConfig,
    ModelConfig,
    RopeConfig,
)
from gptoss.model.errors import ConfigError, UnsupportedModelError, quote
from gptoss.model.interface import MAX_TEMPERATURE, MIN_TEMPERATURE

log = logging.getLogger(__name__)

HUB_MODEL_TYPES = ("gpt_oss", "gpt_oss_puzzle")
_ORIGINAL_KEYS = ("num_experts", "experts_per_token", "rope_scaling_factor", "initial_context_length")
_ROPE_KEYS = frozenset(
    {
        "rope_type",
        "type",
        "rope_theta",
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "truncate",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "partial_rotary_factor",
    }
)


def parse_model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read a parsed `config.json` of any published dialect.

    Raises:
        ConfigError: a value is missing, of the wrong type, out of range, or in conflict with another.
        UnsupportedModelError: the config is of another architecture or quantisation.
    """
    model_type = values.get("model_type")
    if model_type in HUB_MODEL_TYPES:
        return _parse_hub(values)
    if model_type is None and all(key in values for key in _ORIGINAL_KEYS):
        return _parse_original(values)
    if model_type is None:
        raise ConfigError("it is no gpt-oss config: no model_type, nor the keys of OpenAI's own configs")
    raise UnsupportedModelError(
        f"the architecture is {quote(model_type)}: only gpt-oss models (gpt_oss, gpt_oss_puzzle) run here"
    )


def parse_generation_defaults(values: Mapping[str, Any]) -> GenerationDefaults:
    """Read a parsed `generation_config.json`.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    temperature = optional_number(values, "temperature")
    if boolean(values, "do_sample", True) is False:
        temperature = 0.0
    if temperature is not None and temperature != 0 and not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise ConfigError(f"temperature is {temperature}, not 0 or from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}")
    # -1 and 0 mean the same: vLLM writes the one, transformers the other.
    top_k = None if values.get("top_k") is None else integer(values, "top_k", -1, MAX_VOCABULARY)
    penalty = optional_number(values, "repetition_penalty")
    if penalty is not None and penalty != 1.0:
        log.warning("generation_config.json asks for a repetition_penalty of %s, which is not applied", penalty)
    top_p = optional_number(values, "top_p")
    min_p = optional_number(values, "min_p")
    stop = values.get("eos_token_id")
    stop_ids = [] if stop is None else stop if isinstance(stop, list) else [stop]
    if len(stop_ids) > MAX_STOP_TOKENS:
        raise ConfigError(f"eos_token_id lists {len(stop_ids)} ids, more than {MAX_STOP_TOKENS}")
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in stop_ids):
        raise ConfigError("eos_token_id is neither a token id nor a list of them")
    return GenerationDefaults(
        temperature=temperature,
        top_p=None if top_p == 1.0 else top_p,
        top_k=None if top_k in (0, -1) else top_k,
        min_p=None if min_p == 0.0 else min_p,
        stop_token_ids=tuple(dict.fromkeys(stop_ids)),
    )


def _parse_original(values: Mapping[str, Any]) -> ModelConfig:
    rope = RopeConfig(
        theta=number(values, "rope_theta"),
        factor=number(values, "rope_scaling_factor"),
        initial_context_length=integer(values, "initial_context_length", 1, MAX_CONTEXT),
        beta_fast=number(values, "rope_ntk_beta"),
        beta_slow=number(values, "rope_ntk_alpha"),
        truncate=False,
    )
    # 0 is how OpenAI's reference writes "no window".
    window = integer(values, "sliding_window", 0, MAX_CONTEXT) or None
    num_layers = integer(values, "num_hidden_layers", 1, MAX_LAYERS)
    num_experts = integer(values, "num_experts", 1, MAX_EXPERTS)
    experts_per_token = integer(values, "experts_per_token", 1, MAX_EXPERTS)
    return ModelConfig(
        **_dimensions(values),
        rope=rope,
        max_context_length=int(rope.initial_context_length * rope.factor),
        layers=tuple(
            LayerConfig(num_experts, experts_per_token, window if index % 2 == 0 else None)
            for index in range(num_layers)
        ),
        swiglu_limit=number(values, "swiglu_limit", SWIGLU_LIMIT),
    )


def _parse_hub(values: Mapping[str, Any]) -> ModelConfig:
    _refuse_other_quantisation(values)
    if values.get("hidden_act", "silu") != "silu":
        raise UnsupportedModelError(f"the activation is {quote(values['hidden_act'])}; only silu is gpt-oss's")
    if not boolean(values, "attention_bias", True):
        raise UnsupportedModelError("the attention has no biases; only one with them is gpt-oss's")
    return ModelConfig(
        **_dimensions(values),
        rope=_parse_hub_rope(values),
        max_context_length=integer(values, "max_position_embeddings", 1, MAX_CONTEXT),
        layers=_parse_hub_layers(values),
        rms_norm_eps=number(values, "rms_norm_eps", RMS_NORM_EPS),
        swiglu_limit=number(values, "swiglu_limit", SWIGLU_LIMIT),
        swiglu_alpha=number(values, "swiglu_alpha", SWIGLU_ALPHA),
        tie_word_embeddings=boolean(values, "tie_word_embeddings", False),
        architecture=values["model_type"],
    )


class _Dimensions(TypedDict):
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int


def _dimensions(values: Mapping[str, Any]) -> _Dimensions:
    return {
        "hidden_size": integer(values, "hidden_size", 1, MAX_DIMENSION),
        "intermediate_size": integer(values, "intermediate_size", 1, MAX_DIMENSION),
        "vocab_size": integer(values, "vocab_size", 1, MAX_VOCABULARY),
        "num_attention_heads": integer(values, "num_attention_heads", 1, MAX_DIMENSION),
        "num_key_value_heads": integer(values, "num_key_value_heads", 1, MAX_DIMENSION),
        "head_dim": integer(values, "head_dim", 2, MAX_DIMENSION),
    }


def _refuse_other_quantisation(values: Mapping[str, Any]) -> None:
    remedy = "use the MXFP4 or bf16 checkpoint that it was made from"
    if values.get("quantization") is not None:
        raise UnsupportedModelError(f"the weights were quantised by MLX, whose format is not read here: {remedy}")
    quantisation = values.get("quantization_config")
    if quantisation is None:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation
    if method is None:
        raise UnsupportedModelError(f"quantization_config does not say how the weights were quantised: {remedy}")
    if method != "mxfp4":
        raise UnsupportedModelError(f"the weights were quantised with {quote(method)}, not read here: {remedy}")


def _parse_hub_layers(values: Mapping[str, Any]) -> tuple[LayerConfig, ...]:
    num_layers = integer(values, "num_hidden_layers", 1, MAX_LAYERS)
    experts_per_token = integer(values, "num_experts_per_tok", 1, MAX_EXPERTS)
    blocks = values.get("block_configs")
    if blocks is not None:
        return _parse_blocks(blocks, num_layers, experts_per_token)
    if values["model_type"] == "gpt_oss_puzzle":
        raise ConfigError("block_configs is missing, so the experts of each layer of this puzzle model are unknown")
    num_experts = integer(values, "num_local_experts", 1, MAX_EXPERTS)
    types = values.get("layer_types")
    if types is None:
        types = ["full_attention" if index % 2 else "sliding_attention" for index in range(num_layers)]
    if not isinstance(types, list) or len(types) != num_layers:
        raise ConfigError(f"layer_types is not a list of {num_layers} entries, one a layer")
    layers = []
    for index, layer_type in enumerate(types):
        if layer_type == "full_attention":
            window = None
        elif layer_type == "sliding_attention":
            window = integer(values, "sliding_window", 1, MAX_CONTEXT)
        else:
            raise ConfigError(f"layer_types[{index}] is {quote(layer_type)}, no attention that gpt-oss has")
        layers.append(LayerConfig(num_experts, experts_per_token, window))
    return tuple(layers)


def _parse_blocks(blocks: Any, num_layers: int, experts_per_token: int) -> tuple[LayerConfig, ...]:
    if not isinstance(blocks, list) or len(blocks) != num_layers:
        raise ConfigError(f"block_configs is not a list of {num_layers} entries, one a layer")
    layers = []
    for index, block in enumerate(blocks):
        where = f"block_configs[{index}]"
        if not isinstance(block, dict):
            raise ConfigError(f"{where} is not an object")
        if "sliding_window" not in block:
            raise ConfigError(f"{where} does not say its sliding_window (null: none)")
        window = block["sliding_window"]
        if window is not None:
            window = integer(block, "sliding_window", 1, MAX_CONTEXT, where=where)
        num_experts = integer(block, "num_local_experts", 1, MAX_EXPERTS, where=where)
        layers.append(LayerConfig(num_experts, experts_per_token, window))
    return tuple(layers)


def _parse_hub_rope(values: Mapping[str, Any]) -> RopeConfig:
    dialects = [key for key in ("rope_parameters", "rope_scaling") if values.get(key) is not None]
    if not dialects:
        raise ConfigError("rope_parameters and rope_scaling are missing: without YaRN the answers would be nonsense")
    ropes = [_parse_rope_object(values, key) for key in dialects]
    if len(set(ropes)) > 1:
        raise ConfigError("rope_parameters and rope_scaling disagree: remove the wrong one")
    return ropes[0]


def _parse_rope_object(values: Mapping[str, Any], where: str) -> RopeConfig:
    rope = values[where]
    if not isinstance(rope, dict):
        raise ConfigError(f"{where} is not an object")
    unknown = sorted(set(rope) - _ROPE_KEYS)
    if unknown:
        raise ConfigError(f"{where} has {quote(unknown[0])}, which is not understood; the rope would be a guess")
    kinds = {rope[key] for key in ("rope_type", "type") if isinstance(rope.get(key), str)}
    if not kinds:
        raise ConfigError(f"{where} does not say its rope_type; the rope would be a guess")
    if kinds not in ({"yarn"}, {"default"}):
        raise ConfigError(f"{where} is of the type {quote(', '.join(sorted(kinds)))}; only yarn and default are known")
    if number(rope, "partial_rotary_factor", 1.0, where=where) != 1.0:
        raise ConfigError(f"{where} turns only a part of each head, which gpt-oss does not")
    theta = _agreeing_theta(values, rope, where)
    if kinds == {"default"}:
        if rope.get("factor") not in (None, 1, 1.0):
            raise ConfigError(f"{where} has a factor but the type default, which has none: is it yarn?")
        initial = integer(values, "max_position_embeddings", 1, MAX_CONTEXT)
        return RopeConfig(theta=theta, factor=1.0, initial_context_length=initial)
    factor = number(rope, "factor", where=where)
    result = RopeConfig(
        theta=theta,
        factor=factor,
        initial_context_length=integer(rope, "original_max_position_embeddings", 1, MAX_CONTEXT, where=where),
        beta_fast=number(rope, "beta_fast", 32.0, where=where),
        beta_slow=number(rope, "beta_slow", 1.0, where=where),
        truncate=boolean(rope, "truncate", False, where=where),
    )
    if rope.get("mscale") is not None or rope.get("mscale_all_dim") is not None:
        raise ConfigError(f"{where} sets mscale, which gpt-oss does not know")
    if not math.isclose(number(rope, "attention_factor", result.concentration, where=where), result.concentration):
        raise ConfigError(f"{where} sets an attention_factor other than YaRN's own {result.concentration:.6g}")
    return result


def _agreeing_theta(values: Mapping[str, Any], rope: Mapping[str, Any], where: str) -> float:
    thetas = []
    if rope.get("rope_theta") is not None:
        thetas.append(number(rope, "rope_theta", where=where))
    if values.get("rope_theta") is not None:
        thetas.append(number(values, "rope_theta"))
    if not thetas:
        raise ConfigError(f"rope_theta is missing, in {where} and beside it")
    if len(set(thetas)) > 1:
        raise ConfigError(f"rope_theta in {where} and rope_theta beside it disagree: remove the wrong one")
    return thetas[0]
